"""What the walk through the levels carries along: decoded fields, parameters, coders of bands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import contexts, range_coder
from coinpp_xr.errors import CorruptPayloadError

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

# A field is cut into bands of rows that are coded by themselves, of about so many cells.
_BAND_CELLS = 500_000
_MOST_BANDS = 8


def band_count(cells: int) -> int:
    """Of a field; more than one thread can work on it then."""
    return max(1, min(_MOST_BANDS, cells // _BAND_CELLS))


@dataclass(frozen=True, eq=False)
class Decoded:
    """A field as its decoder sees it.

    Parameters
    ----------
    values : int32 array, shape (n_lat, n_lon)
        In 1/64 of a step.
    marks : int8 array of the same shape
        Steps from the prediction, clipped.
    """

    values: Int32
    marks: Int8


@dataclass(eq=False)
class PassParameters:
    """What the encoder tells of a pass."""

    weights: Int32 | None
    coefficients: Int64


@dataclass(eq=False)
class Coder:
    """One band's range coder, and what it has learned."""

    buffer: npt.NDArray[np.uint8]
    registers: Int64
    state: contexts.State
    anchors: Int32

    @classmethod
    def encoder(cls, parent: Coder | None) -> Coder:
        return cls(*range_coder.encoder(1 << 12), *_start(parent))

    @classmethod
    def decoder(cls, stream: bytes, parent: Coder | None) -> Coder:
        if len(stream) < 4:
            raise CorruptPayloadError("a stream of the pyramid is cut short")
        return cls(*range_coder.decoder(stream), *_start(parent))

    def grow(self, room: int) -> None:
        """Make an encoder hold so many more bytes."""
        if self.registers[range_coder.DECODING]:
            return
        needed = range_coder.bytes_used(self.registers) + room
        if len(self.buffer) < needed:
            buffer = np.zeros(needed + needed // 2, np.uint8)
            buffer[: len(self.buffer)] = self.buffer
            self.buffer = buffer

    def check(self) -> None:
        if self.registers[range_coder.BROKEN]:
            raise CorruptPayloadError("a stream of the pyramid is damaged")

    def finish(self) -> bytes:
        self.grow(8)
        return range_coder.finish(self.buffer, self.registers)

    def check_end(self) -> None:
        self.check()
        read = int(self.registers[range_coder.POSITION])
        if read != len(self.buffer) or self.registers[range_coder.CODE] != 0:
            raise CorruptPayloadError("a stream of the pyramid does not end where its numbers do")


def _start(parent: Coder | None) -> tuple[contexts.State, Int32]:
    if parent is None:
        return contexts.new_state(), range_coder.new_chances()
    return contexts.copy_of(parent.state), parent.anchors.copy()
