"""The encoder's view of patches: coefficients of blocks of every size, and which sizes to use."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.patches import MOST_STEPS, UNIT, Patching

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# What coefficients are guessed to take, in bits: each that is not zero, for every octave of it, and
# each block in each channel. Contexts make zeros almost free.
_NONZERO_BITS, _OCTAVE_BITS, _BLOCK_BITS = 3.8, 2.0, 3.0
# Steps that a coefficient lies above a whole number where it is still rounded down.
_ROUNDED_UP = 0.4
# Steps from which on the coder rarely leaves a coefficient out.
_WORTH_IT = 0.72
# What is left of the bits, about, once the coder has learned.
_LEARNED = 0.78
# Symbols whose logarithms are looked up.
_TABLE = 1 << 12


@dataclass(frozen=True, eq=False)
class Analysis:
    """Values of whole patches, transformed in blocks of every size.

    Parameters
    ----------
    patching : Patching
    transforms : float32 array, shape (levels, channels, z, y, x)
    """

    patching: Patching
    transforms: Float32

    @classmethod
    def of(cls, patching: Patching, values: Float32) -> Analysis:
        """Of values, shape (channels, z, y, x)."""
        return cls(
            patching, np.stack([patching.analyse(values, k) for k in range(patching.levels)])
        )

    def split(self, step: float, price: float) -> tuple[Int32, Int32]:
        """Coefficients in 1/256 of a step, and the level of each smallest block.

        Parameters
        ----------
        step : float
        price : float
            What a bit may cost, in squared steps.

        Raises
        ------
        OverflowError
            If there are more steps than symbols can count.
        """
        patching, scale = self.patching, np.float32(1 / step)
        least = np.array(patching.block_sizes[-1])
        levels = np.full(self.transforms.shape[2:] // least, patching.levels - 1, np.int32)
        cost = None
        # More than one size of block is worth looking at only where there is more than one.
        for level in reversed(range(patching.levels if patching.levels > 1 else 0)):
            size = np.array(patching.block_sizes[level])
            whole = np.zeros(self.transforms.shape[2:] // size, np.float32)
            _find_costs(self.transforms[level], size, scale, np.float32(price), _bits(), whole)
            if cost is not None:
                parts = _in_blocks(cost, tuple(np.array(patching.block_sizes[level + 1])), size)
                better = whole <= parts + np.float32(price)
                whole = np.where(better, whole, parts)
                spread = better
                for axis, n in enumerate(size // least):
                    spread = spread.repeat(n, axis)
                levels[spread] = level
            cost = whole
        coefficients = np.empty(self.transforms.shape[1:], np.int32)
        if not _gather(self.transforms, levels, least, scale * np.float32(UNIT), coefficients):
            raise OverflowError
        return coefficients, levels

    def sample(self, count: int) -> Float32:
        """Magnitudes of about so many coefficients, of blocks of one size."""
        flat = self.transforms[min(1, len(self.transforms) - 1)].reshape(-1)
        stride = ceil(flat.size / count) | 1  # odd: meets all places of a block
        magnitudes: Float32 = np.abs(flat[::stride])
        return magnitudes


def guess(magnitudes: Float32, step: float) -> tuple[float, float]:
    """Mean squared error and bits per coefficient, roughly, if they are rounded to a step."""
    scaled = magnitudes * np.float32(1 / step)
    worth = scaled >= _WORTH_IT
    coded, rest = scaled[worth], scaled[~worth].astype(np.float64)
    octaves = float(np.log2(np.maximum(coded, 1), dtype=np.float64).sum())
    error = (float((rest * rest).sum()) + len(coded) / 12) * step**2 / len(magnitudes)
    bits = _LEARNED * (_NONZERO_BITS * len(coded) + _OCTAVE_BITS * octaves)
    return error, bits / len(magnitudes)


@cache
def _bits() -> Float32:
    symbols = np.maximum(np.arange(_TABLE), 1)
    return (_NONZERO_BITS + _OCTAVE_BITS * np.log2(symbols)).astype(np.float32)


@compiled
def _find_costs(
    found: Float32,
    size: npt.NDArray[np.int64],
    scale: np.float32,
    price: np.float32,
    bits: Float32,
    costs: Float32,
) -> None:
    """What blocks cost: squared error in steps plus price · bits of their coefficients."""
    channels, depth, height, _ = found.shape
    most = np.float32(len(bits) - 1)
    costs[:] = price * np.float32(_BLOCK_BITS) * channels
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                for d in range(costs.shape[2]):
                    total = np.float32(0)
                    for x in range(d * size[2], (d + 1) * size[2]):
                        magnitude = abs(found[c, z, y, x]) * scale
                        square = magnitude * magnitude
                        if magnitude >= np.float32(1 - _ROUNDED_UP):
                            symbol = np.floor(magnitude + np.float32(_ROUNDED_UP))
                            missed = magnitude - symbol
                            index = np.int64(min(symbol, most))
                            square = min(square, missed * missed + price * bits[index])
                        total += square
                    costs[z // size[0], y // size[1], d] += total


def _in_blocks(costs: Float32, size: tuple[int, ...], larger: npt.NDArray[np.int64]) -> Float32:
    """Sums over the blocks that make up a larger one."""
    z, y, x = costs.shape
    a, b, d = (int(n) // m for n, m in zip(larger, size, strict=True))
    total: Float32 = costs.reshape(z // a, a, y // b, b, x // d, d).sum(axis=(1, 3, 5))
    return total


@compiled
def _gather(
    transforms: Float32,
    levels: Int32,
    least: npt.NDArray[np.int64],
    scale: np.float32,
    coefficients: Int32,
) -> bool:
    """Scale and round the chosen ones; returns whether they are small enough."""
    channels, depth, height, _ = coefficients.shape
    for c in range(channels):
        for z in range(depth):
            for y in range(height):
                for d in range(levels.shape[2]):
                    level = levels[z // least[0], y // least[1], d]
                    for x in range(d * least[2], (d + 1) * least[2]):
                        value = transforms[level, c, z, y, x] * scale
                        # What is no number fails here, too.
                        if not abs(value) < np.float32(MOST_STEPS * UNIT):
                            return False
                        coefficients[c, z, y, x] = np.int32(np.rint(value))
    return True
