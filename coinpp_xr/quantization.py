"""Latents ↔ integer symbols: the paper's b-bit uniform quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BITS = range(1, 17)
# The quantizer's levels spread over this many standard deviations on either side of the mean.
STD_RANGE = 3.0
# Symbols stay far inside int32, however wild the data.
_SYMBOL_LIMIT = 2**30


@dataclass(frozen=True, eq=False)
class UniformQuantizer:
    """2^b levels from mean − 3σ to mean + 3σ (COIN++, §3.3).

    The paper takes one mean and standard deviation for all latents; here every latent has its
    own (pass equal values for the paper's). Values beyond 3σ, which the paper clips, continue on
    the same grid and are escaped by the entropy coder, unless ``clip`` is asked for.

    Parameters
    ----------
    mean, std : float64 array, shape (latent_dim,)
    bits : int
        1 to 16.
    """

    mean: npt.NDArray[np.float64]
    std: npt.NDArray[np.float64]
    bits: int

    def __post_init__(self) -> None:
        parse_bits(self.bits)

    @property
    def levels(self) -> int:
        return 1 << self.bits

    @property
    def step(self) -> npt.NDArray[np.float64]:
        """Distance between two levels of every latent, shape (latent_dim,)."""
        return 2 * STD_RANGE * self.std / (self.levels - 1)

    def quantize(self, latents: npt.ArrayLike, *, clip: bool = False) -> npt.NDArray[np.int32]:
        """Symbols, shape (items, latent_dim); the levels are 0 .. 2^b − 1."""
        lowest = self.mean - STD_RANGE * self.std
        symbols = np.rint((np.asarray(latents, dtype=np.float64) - lowest) / self.step)
        low, high = (0, self.levels - 1) if clip else (-_SYMBOL_LIMIT, _SYMBOL_LIMIT)
        return np.clip(symbols, low, high).astype(np.int32)

    def dequantize(self, symbols: npt.NDArray[np.int32]) -> npt.NDArray[np.float32]:
        """Latents at the symbols' levels, float32, shape (items, latent_dim)."""
        lowest = self.mean - STD_RANGE * self.std
        return (lowest + symbols * self.step).astype(np.float32)


def parse_bits(bits: Any) -> int:
    """Check a number of bits per latent."""
    if isinstance(bits, bool) or not isinstance(bits, int | np.integer) or bits not in BITS:
        raise ValueError(f"bits must be a whole number from 1 to 16, got {bits!r}")
    return int(bits)
