"""Whole numbers that are those of coarser steps: of values that were packed twice.

What a download service writes as int16 was a GRIB message before. Its whole numbers are then those
that a coarser lattice is rounded to, and others never occur.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.source_steps import Arithmetic, Steps
from coinpp_xr.step_room import roomiest, roundest

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Exponents of ten of GRIB's decimal scale, and of numbers of decimals.
TENS = range(-6, 13)
# How far apart the inner steps may be, in outer ones.
_LEAST_RATIO, _MOST_RATIO = 1.02, 1000.0
# Fewer numbers could be those of anything; how far their places on inner steps may be off.
_FEWEST_NUMBERS, _ABOUT = 64, 2e-3
# So many numbers exclude most ratios.
_GLANCE = 128


def packed_twice(steps: Steps, sample: Array) -> Steps:
    """The same steps, or those of the coarser lattice that was rounded to them."""
    numbers, exact = steps.exactly(sample)
    numbers = np.unique(numbers[exact])
    if len(numbers) < 3:
        return _centred(steps, numbers)
    best = steps
    for ratio in _ratios(steps, numbers):
        if ratio > best.ratio and (found := _inner(numbers, ratio)) is not None:
            best = replace(steps, ratio=found[0], phase=found[1])
    return _centred(best, numbers)


def _ratios(steps: Steps, numbers: npt.NDArray[np.int64]) -> list[float]:
    """Powers of two over powers of ten, in steps, that a part of the numbers does not exclude."""
    in_order = steps.arithmetic in (Arithmetic.DOUBLE, Arithmetic.SINGLE, Arithmetic.ROUNDED)
    if not in_order or len(numbers) < _FEWEST_NUMBERS:
        return []
    ratios = []
    for ten in TENS:
        least = ceil(log2(_LEAST_RATIO * steps.step * 10.0**ten))
        own = [2.0**exponent / 10.0**ten / steps.step for exponent in range(least, least + 10)]
        ratios += [ratio for ratio in own if 1 < ratio < _MOST_RATIO]
    some, several = numbers[:: max(1, len(numbers) // _GLANCE)], np.array(ratios)
    possible = _widest_gaps(some, several)[1] >= _narrowest(several)
    return [float(ratio) for ratio in several[possible]]


def _narrowest(ratio: Any) -> Any:
    """Rounding moves numbers by half a step at most, both ways; the steps are about known."""
    return 1 - 1 / ratio - _ABOUT


def _inner(numbers: npt.NDArray[np.int64], ratio: float) -> tuple[float, float] | None:
    """A ratio next to this one and c with which all numbers are round(m · ratio + c), m whole."""
    (start,), (gap,) = _widest_gaps(numbers, np.array([ratio]))
    if gap < _narrowest(ratio):
        return None
    centre = (start + gap + (1 - gap) / 2) % 1.0
    inner = np.rint(numbers / ratio - centre)
    off = _ABOUT * ratio / max(float(np.abs(inner).max()), 1.0)
    ratio, low, high = roomiest(numbers - 0.5, numbers + 0.5, inner, ratio, off)
    return (ratio, roundest(low, high)) if low < high else None


def _widest_gaps(numbers: npt.NDArray[np.int64], ratios: Float64) -> tuple[Float64, Float64]:
    """Where on inner steps, from 0 to 1, no numbers are: starts and lengths, for every ratio."""
    turns = np.sort((numbers / ratios[:, None]) % 1.0, axis=1)
    gaps = np.diff(turns, axis=1, append=turns[:, :1] + 1)
    widest, each = gaps.argmax(axis=1), np.arange(len(ratios))
    return turns[each, widest], gaps[each, widest]


def _centred(steps: Steps, numbers: npt.NDArray[np.int64]) -> Steps:
    """Number 0 in the middle; what was found of inner steps moves along."""
    if len(numbers) == 0:
        return steps
    middle = int(numbers[0] + numbers[-1]) // 2
    if steps.ratio == 1:
        return replace(steps, first=steps.first + middle)
    inner = round((middle - steps.phase) / steps.ratio)
    whole = round(inner * steps.ratio + steps.phase)
    return replace(
        steps, first=steps.first + whole, phase=steps.phase + inner * steps.ratio - whole
    )
