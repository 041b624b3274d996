"""What the walk through the levels carries along: decoded fields, parameters, coders of bands."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid import decisions, range_coder
from coinpp_xr.errors import CorruptPayloadError

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

# What a coder has learned takes about as much.
BYTES_OF_CODER = 1 << 17
# A field is cut into bands of rows that are coded by themselves, of about so many cells.
_BAND_CELLS = 500_000
_MOST_BANDS = 8


def band_count(cells: int) -> int:
    """Of a field; more than one thread can work on it then."""
    return max(1, min(_MOST_BANDS, cells // _BAND_CELLS))


@dataclass(frozen=True, eq=False)
class Decoded:
    """Fields as their decoder sees them.

    Parameters
    ----------
    values : int32 array, shape (items, n_lat, n_lon)
        In 1/64 of a step.
    marks : int8 array of the same shape
        Steps from the prediction, clipped.
    """

    values: Int32
    marks: Int8

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.marks.nbytes


@dataclass(eq=False)
class PassParameters:
    """What the encoder tells of a pass.

    Parameters
    ----------
    weights : int32 array, shape (bands of rows, weights)
        Of predictions.
    told : bool
        Whether these are told; else they are the usual ones.
    coefficients : int64 array, shape (8,)
        What the size of errors is expected to be, all of them grades.
    shift : int
        Told weights are multiples of 2^shift away from the usual ones.
    """

    weights: Int32
    told: bool
    coefficients: Int64
    shift: int = 0


@dataclass(eq=False)
class Coder:
    """One band's range coder, and what it has learned."""

    coder: binary.Coder
    state: decisions.State
    anchors: Int32
    shifts: Int32

    @classmethod
    def encoder(cls, parent: Coder | None) -> Coder:
        return cls(binary.encoder(1 << 12), *_start(parent))

    @classmethod
    def decoder(cls, stream: bytes, parent: Coder | None) -> Coder:
        return cls(binary.decoder(stream), *_start(parent))

    def grow(self, room: int) -> None:
        """Make an encoder hold so many more bytes."""
        self.coder = binary.with_room(self.coder, room)

    def check(self) -> None:
        if binary.is_broken(self.coder):
            raise CorruptPayloadError("a stream of the pyramid is damaged")

    def finish(self) -> bytes:
        return binary.finish(self.coder)

    def check_end(self) -> None:
        self.check()
        binary.check_end(self.coder)


def _start(parent: Coder | None) -> tuple[decisions.State, Int32, Int32]:
    if parent is None:
        return decisions.new_state(), range_coder.new_chances(), range_coder.new_chances()
    return decisions.copy_of(parent.state), parent.anchors.copy(), parent.shifts.copy()


def cut_streams(data: bytes, entries: Int64, of: str) -> list[bytes]:
    """Streams of a unit, by lengths and checksums, shape (streams, 2).

    Raises
    ------
    CorruptPayloadError
    """
    streams, at = [], 0
    for length, checksum in entries:
        stream = data[at : at + int(length)]
        if len(stream) != length or zlib.crc32(stream) != checksum:
            raise CorruptPayloadError(f"a stream of {of} is damaged")
        streams.append(stream)
        at += int(length)
    return streams
