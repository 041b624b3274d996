"""Latents ↔ integer symbols: the paper's b-bit uniform quantizer."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.elementary import power_of_two
from coinpp_xr.errors import shown

BITS = range(1, 17)
# The quantizer's levels spread over this many standard deviations on either side of the mean.
STD_RANGE = 3.0
# Of few latents: eight bytes for each are little memory anyway.
_FEW_LATENTS = 1 << 23
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
        raise ValueError(f"bits must be a whole number from 1 to 16, got {shown(bits)}")
    return int(bits)


def are_in_proportion(latents: int, nbytes: int) -> bool:
    """Whether so many latents take little memory beside the array that they stand for."""
    return latents * 8 <= nbytes + _FEW_LATENTS


# ---- one step for all coefficients, for the lowest rate at a given error ------------------------

# A step is 2^(exponent / 64): fine enough to meet a target closely, and an integer to store.
STEPS_PER_OCTAVE = 64
# Numbers of steps below this leave single precision room.
_FINE = 1 << 14
# What a bit is worth, in squared steps. Larger values zero more coefficients, for which the step
# has to shrink. Chosen on simulated fields and on the ERA5 example; from 0.1 to 0.15, sizes differ
# by about 1 %.
_PRICE_OF_A_BIT = 0.12
# Share of an interval that lies below its level in the Laplace model of the rate.
_BELOW = 0.6
# Beyond this ratio of step to size nothing but zeros is expected.
_LARGEST_RATIO = np.float32(60)
# So that what is computed on the way is small beside the coefficients, and stays in the cache.
_AT_A_TIME = 1 << 16

Floating = npt.NDArray[np.floating[Any]]


def step_of(exponent: int) -> float:
    """The quantizer's step for its stored exponent."""
    return power_of_two(exponent, STEPS_PER_OCTAVE)


def precision_of(symbols: npt.NDArray[np.integer[Any]]) -> np.dtype[np.floating[Any]]:
    """Single where it is far finer than a step, for numbers of steps; else double."""
    most = max(int(symbols.max(initial=0)), -int(symbols.min(initial=0)))
    return np.dtype(np.float32 if most < _FINE else np.float64)


def exponent_of(step: float) -> int:
    """The exponent whose step is nearest."""
    return round(STEPS_PER_OCTAVE * log2(max(step, 1e-300)))


def surrounding_sizes(coefficients: Floating) -> Floating:
    """Mean magnitude around every coefficient: its own size as others tell it.

    Parameters
    ----------
    coefficients : array, shape (sequences, frequencies, orders, waves)
    """
    sizes = np.abs(coefficients)
    for axis, weights in ((1, (1.0, 0.5)), (2, (1.0, 0.5)), (3, (1.0, 0.5, 0.5))):
        total = sizes * sizes.dtype.type(weights[0])
        share = np.full(sizes.shape[axis], weights[0])
        for distance, weight in enumerate(weights[1:], start=1):
            n = sizes.shape[axis] - distance
            if n <= 0:
                continue
            ahead = (slice(None),) * axis + (slice(distance, None),)
            behind = (slice(None),) * axis + (slice(None, n),)
            total[behind] += sizes.dtype.type(weight) * sizes[ahead]
            total[ahead] += sizes.dtype.type(weight) * sizes[behind]
            share[:n] += weight
            share[distance:] += weight
        sizes = total / share.astype(sizes.dtype).reshape((-1,) + (1,) * (sizes.ndim - axis - 1))
    # Never so small that a step over it leaves the range of single precision.
    least = max(1e-30, 1e-12 * float(sizes.max(initial=0)))
    floored: Floating = np.maximum(sizes, sizes.dtype.type(least))
    return floored


def quantize_for_rate(
    coefficients: Floating, step: float, sizes: Floating
) -> npt.NDArray[np.int32]:
    """Symbols that are worth their bits: squared error + price · bits is least.

    Parameters
    ----------
    coefficients : array
    step : float
    sizes : array
        Expected magnitudes, for the Laplace model of the rate.
    """
    symbols = np.empty(coefficients.shape, np.int32)
    flat = symbols.reshape(-1), coefficients.reshape(-1), sizes.reshape(-1)
    for start in range(0, symbols.size, _AT_A_TIME):
        part, values, expected = (a[start : start + _AT_A_TIME] for a in flat)
        ratio = np.minimum(sizes.dtype.type(step) / expected, _LARGEST_RATIO)
        below = np.exp(-_BELOW * ratio)
        # Bits that a one costs more than a zero, and every further step more than the one before.
        first = np.log2(np.maximum((1 - below) / (0.5 * below * -np.expm1(-ratio)), 1))
        further = np.minimum(ratio / np.log(2) * (_PRICE_OF_A_BIT / 2), 0.5)
        scaled = np.abs(values) / coefficients.dtype.type(step)
        magnitude = np.maximum(np.floor(scaled + (0.5 - further)), 1)
        magnitude[scaled < 0.5 + _PRICE_OF_A_BIT / 2 * first] = 0
        part[...] = np.copysign(magnitude, values)
    return symbols


def estimated_bits(symbols: npt.NDArray[np.int32], step: float, sizes: Floating) -> float:
    """What symbols would cost if each were Laplace distributed with its expected size."""
    total, flat = 0.0, (symbols.reshape(-1), sizes.reshape(-1))
    for start in range(0, symbols.size, _AT_A_TIME):
        part, expected = (a[start : start + _AT_A_TIME] for a in flat)
        ratio = np.minimum(sizes.dtype.type(step) / expected, _LARGEST_RATIO)
        magnitude = np.abs(part)
        zero = -np.log2(-np.expm1(-_BELOW * ratio))
        level = (np.maximum(magnitude, 1) - 1 + _BELOW) * ratio / np.log(2)
        other = 1 + level - np.log2(-np.expm1(-ratio))
        total += float(np.where(magnitude == 0, zero, other).sum())
    return total
