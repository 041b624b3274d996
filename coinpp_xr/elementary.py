"""Sine, cosine, exponential function and roots of two: the same bits on every machine.

What libraries make of them differs in the last digits between processors. Here they are sums and
products in double precision, one after the other, of which the standard prescribes every bit.
"""

from __future__ import annotations

from functools import cache
from math import factorial, isqrt, ldexp
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Array = Any  # numpy.ndarray or torch.Tensor, in double precision

# π and ln 2 in parts, largest first: multiples of the first ones, up to 2²⁰, are exact.
PI = (3.1415926534682512, 1.2154201012607932e-10, 4.044532497591901e-21)
LN2 = (0.6931471806019545, -4.2009150726810846e-11)
HALF_TURNS, OCTAVES = 0.3183098861837907, 1.4426950408889634  # 1 / π, 1 / ln 2
# Taylor's series.
SINE = tuple((-1) ** k / factorial(2 * k + 1) for k in range(10))
COSINE = tuple((-1) ** k / factorial(2 * k) for k in range(11))
EXPONENTIAL = tuple(1 / factorial(k) for k in range(14))
# Beyond, results are zero or infinite.
_LARGEST_POWER = 1100.0
_ROOT_BITS = 128


def sine(x: Array) -> Array:
    """sin(x) within 1e-15 for moderate x; for sizes above 10⁶ anything from -2 to 2."""
    sign, rest = _reduced(x)
    return sign * (rest * _series(SINE, rest * rest))


def cosine(x: Array) -> Array:
    """cos(x), as :func:`sine`."""
    sign, rest = _reduced(x)
    return sign * _series(COSINE, rest * rest)


def _reduced(angle: Array) -> tuple[Array, Array]:
    """A sign, and what is left of an angle within a quarter of a turn."""
    turns = (angle * HALF_TURNS).round()
    rest = angle - turns * PI[0]
    rest = rest - turns * PI[1]
    rest = rest - turns * PI[2]
    odd = abs(turns - 2.0 * (turns * 0.5).round())
    return 1.0 - 2.0 * odd, rest.clip(-2.0, 2.0)


def _series(coefficients: tuple[float, ...], x: Array) -> Array:
    found = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        found = found * x + coefficient
    return found


def exponential(x: Float64) -> Float64:
    """exp(x) within 1e-15 of its size."""
    power = x.clip(-_LARGEST_POWER, _LARGEST_POWER)
    octaves = np.rint(power * OCTAVES)
    rest = power - octaves * LN2[0]
    rest = rest - octaves * LN2[1]
    return np.asarray(np.ldexp(_series(EXPONENTIAL, rest), octaves.astype(np.int32)))


def power_of_two(numerator: int, denominator: int) -> float:
    """2^(numerator / denominator), rounded once; the denominator is itself a power of two."""
    octave, part = divmod(numerator, denominator)
    return ldexp(_root(part, denominator), octave)


@cache
def _root(part: int, denominator: int) -> float:
    """2^(part / denominator) for 0 ≤ part < denominator."""
    root, bits = 1 << (part + _ROOT_BITS * denominator), _ROOT_BITS * denominator
    for _ in range(denominator.bit_length() - 1):
        root, bits = isqrt(root), bits // 2
    return root / (1 << bits)
