"""What the coder of patches has learned elsewhere, in few bytes: part of a model."""

from __future__ import annotations

import lzma
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from coinpp_xr.binary import Mixture
    from coinpp_xr.blocks import State

# How much of what was learned counts as seen: new data is soon believed more.
_MOST_SEEN = 40
_SEEN_BITS = 8
_CHANCE_ROUNDING, _WEIGHT_ROUNDING = 4, 8  # bits
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]


@dataclass(frozen=True, eq=False)
class Prior:
    """A state of the coder (:class:`coinpp_xr.blocks.State`), rounded and compressed.

    Parameters
    ----------
    packed : uint8 array
    """

    packed: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, state: State) -> Prior:
        """Keep what a coder knows after it has coded other data."""
        planes = []
        for mixture in state:
            seen = mixture.chances & ((1 << _SEEN_BITS) - 1)
            chances = mixture.chances >> (_SEEN_BITS + _CHANCE_ROUNDING)
            weights = (mixture.weights + (1 << (_WEIGHT_ROUNDING - 1))) >> _WEIGHT_ROUNDING
            weights = np.clip(weights, -(1 << 15), (1 << 15) - 1).astype("<i2")
            planes += [
                np.minimum(seen, _MOST_SEEN).astype(np.uint8).tobytes(),
                np.where(seen > 0, chances, 0).astype("<u2").view(np.uint8).reshape(-1, 2).T,
                weights.view(np.uint8).reshape(-1, 2).T,
            ]
        plain = b"".join(bytes(np.ascontiguousarray(plane)) for plane in planes)
        packed = lzma.compress(plain, format=lzma.FORMAT_RAW, filters=_FILTERS)
        return cls(np.frombuffer(packed, np.uint8))

    @cached_property
    def state(self) -> State:
        """The coder's state; whoever codes with it works on a copy.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        from coinpp_xr.blocks import State, new_state  # compiles, or loads what was compiled

        empty = new_state()
        size = sum(3 * mixture.chances.size + 2 * mixture.weights.size for mixture in empty)
        # Matches reach back no further than all that there is; the preset would take 64 MB.
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": size + 1}]
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)
        try:
            plain = unpacker.decompress(self.packed.tobytes(), max_length=size + 1)
        except lzma.LZMAError as error:
            raise ValueError(f"its prior is damaged: {error}") from error
        if len(plain) != size:
            raise ValueError("its prior is damaged or of another version")
        found, start = [], 0
        for mixture in empty:
            n, m = mixture.chances.size, mixture.weights.size
            seen, chances, weights = (
                np.frombuffer(plain, np.uint8, count, start + before)
                for count, before in ((n, 0), (2 * n, n), (2 * m, 3 * n))
            )
            start += 3 * n + 2 * m
            found.append(_mixture(mixture, seen, chances, weights))
        return State(*found)


def _mixture(
    empty: Mixture,
    seen: npt.NDArray[np.uint8],
    chances: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.uint8],
) -> Mixture:
    """From byte planes; where nothing was seen, what a new mixture has."""
    chance = np.ascontiguousarray(chances.reshape(2, -1).T).view("<u2")[:, 0].astype(np.int32)
    chance = (chance << _CHANCE_ROUNDING) | (1 << (_CHANCE_ROUNDING - 1))
    entries = (np.clip(chance, 16, (1 << 16) - 16) << _SEEN_BITS) | np.minimum(seen, _MOST_SEEN)
    known = np.where(seen > 0, entries, empty.chances.reshape(-1)).astype(np.int32)
    weight = np.ascontiguousarray(weights.reshape(2, -1).T).view("<i2")[:, 0].astype(np.int32)
    return empty._replace(
        chances=known.reshape(empty.chances.shape),
        weights=(weight << _WEIGHT_ROUNDING).reshape(empty.weights.shape),
    )
