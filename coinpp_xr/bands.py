"""Patches one after the other ↔ one stream: the compiled coder's walk over a band of them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary, blocks
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.patches import Patching

Float32 = npt.NDArray[np.float32]

# The most that a coefficient can take: its unary part and what follows, no decision below 2^-12.
_BYTES_PER_CELL = 40


class Walk:
    """Over the patches of one item after the other; what one teaches serves the next."""

    def __init__(self, coder: binary.Coder, patching: Patching) -> None:
        self._coder, self._patching = coder, patching
        self._tables, self._costs = binary.tables(), blocks.costs()
        self._state, self._room = blocks.new_state(), blocks.new_room()

    def encode(self, values: Float32, step: float, price: float) -> Float32:
        """Code the values of whole patches, (channels, z, y, x); returns what a decoder gets.

        Raises
        ------
        OverflowError
            If the step is too small for the values.
        """
        symbols, levels = self._patching.coefficients(values, step, price)
        band = blocks.new_band(len(values), values.shape[1:], self._patching.geometry)
        band = band._replace(symbols=symbols, levels=levels)
        self._code(band, round(price * 256))
        return self._patching.values(band.symbols, band.levels, step)

    def decode(self, channels: int, space: tuple[int, int, int], step: float) -> Float32:
        """The opposite.

        Raises
        ------
        CorruptPayloadError
        """
        band = blocks.new_band(channels, space, self._patching.geometry)
        self._code(band, 0)
        return self._patching.values(band.symbols, band.levels, step)

    def _code(self, band: blocks.Band, price: int) -> None:
        size, geometry = self._patching.size, self._patching.geometry
        channels, *space = band.symbols.shape
        room = _BYTES_PER_CELL * channels * int(np.prod(size))
        for z in range(0, space[0], size[0]):
            for y in range(0, space[1], size[1]):
                for x in range(0, space[2], size[2]):
                    self._coder = binary.with_room(self._coder, room)
                    blocks.code_patch(
                        self._coder, self._tables, self._state, geometry, band, self._room,
                        self._costs, price, z, y, x,
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


def encoder(patching: Patching) -> Walk:
    return Walk(binary.encoder(1 << 16), patching)


def decoder(stream: bytes, patching: Patching) -> Walk:
    return Walk(binary.decoder(stream), patching)
