"""Patches one after the other ↔ one stream: the compiled coder's walk over a band of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary, blocks
from coinpp_xr.deblocking import Deblocking
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.patches import Patching
from coinpp_xr.quantization import precision_of

Floating = npt.NDArray[np.floating[Any]]
Int32 = npt.NDArray[np.int32]

# The most that a coefficient can take: its unary part and what follows, no decision below 2^-12.
_BYTES_PER_CELL = 40
_CELLS_PER_CALL = 1 << 16


class Walk:
    """Over the patches of one item after the other; what one teaches serves the next."""

    def __init__(self, coder: binary.Coder, patching: Patching, prior: blocks.State | None) -> None:
        self._coder, self._patching = coder, patching
        self._tables, self._costs = binary.tables(), blocks.costs()
        self.state: blocks.State = blocks.new_state() if prior is None else binary.copy(prior)
        self._room = blocks.new_room()

    def encode(self, coefficients: Int32, levels: Int32, price: float) -> Int32:
        """Code whole patches; returns the symbols that a decoder gets.

        Parameters
        ----------
        coefficients : int32 array, shape (channels, z, y, x)
            In 1/256 of a step; turned into symbols in place.
        levels : int32 array, shape (least blocks along z, y, x)
        price : float
            What a bit may cost, in squared steps.
        """
        band = blocks.new_band(len(coefficients), coefficients.shape[1:], self._patching.geometry)
        band = band._replace(symbols=coefficients, levels=levels)
        self._code(band, round(price * 256))
        return band.symbols

    def decode(
        self,
        channels: int,
        space: tuple[int, int, int],
        step: float,
        deblocking: Deblocking | None = None,
    ) -> Iterator[tuple[tuple[slice, ...], Floating]]:
        """The opposite: parts of values of shape (channels, z, y, x), and where they are.

        Raises
        ------
        CorruptPayloadError
        """
        band = blocks.new_band(channels, space, self._patching.geometry)
        self._code(band, 0)
        symbols, levels, precision = band.symbols, band.levels, precision_of(band.symbols)
        del band
        parts = [(slice(None), *slab) for slab in self._patching.slabs(space, channels)]

        if deblocking is None:
            for part in parts:
                yield part, self._values(symbols, levels, part, step, precision)
            return
        values = np.empty(symbols.shape, precision)
        for part in parts:
            values[part] = self._values(symbols, levels, part, step, precision)
        del symbols
        values[0] = deblocking(values[0], levels, self._patching, step)
        yield from ((part, values[part]) for part in parts)

    def _values(
        self, symbols: Int32, levels: Int32, part: tuple[slice, ...], step: float, precision: Any
    ) -> Floating:
        own = levels[self._patching.least(part[1:])]
        return self._patching.values(symbols[part], own, step, precision)

    def _code(self, band: blocks.Band, price: int) -> None:
        size, geometry = self._patching.size, self._patching.geometry
        channels, *space = band.symbols.shape
        # Some patches at a time: every call costs, and room for all of a band would be too much.
        together = size[2] * max(1, _CELLS_PER_CALL // (channels * int(np.prod(size))))
        cells = channels * size[0] * size[1] * together
        for z in range(0, space[0], size[0]):
            for y in range(0, space[1], size[1]):
                for x in range(0, space[2], together):
                    self._coder = binary.with_room(self._coder, _BYTES_PER_CELL * cells)
                    blocks.code_patches(
                        self._coder, self._tables, self.state, geometry, band, self._room,
                        self._costs, price, z, y, x, min(x + together, space[2]),
                    )  # fmt: skip
                if binary.is_broken(self._coder):
                    raise CorruptPayloadError("the patches' stream is damaged")

    def finish(self) -> bytes:
        """The stream of all that was encoded."""
        return binary.finish(self._coder)

    def check_end(self) -> None:
        """After the last patch: whether the stream ends there, too.

        Raises
        ------
        CorruptPayloadError
        """
        binary.check_end(self._coder)


def encoder(patching: Patching, prior: blocks.State | None = None) -> Walk:
    """Starts from what the prior knows."""
    return Walk(binary.encoder(1 << 16), patching, prior)


def decoder(stream: bytes, patching: Patching, prior: blocks.State | None = None) -> Walk:
    return Walk(binary.decoder(stream), patching, prior)
