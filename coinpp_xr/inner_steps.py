"""Whole numbers that are those of coarser steps: of values that were packed twice.

What a download service writes as int16 was a GRIB message before. Its whole numbers are then those
that a coarser lattice is rounded to, and others never occur.
"""

from __future__ import annotations

from dataclasses import replace
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.source_steps import Arithmetic, Steps
from coinpp_xr.step_room import roomiest, roundest

Array = npt.NDArray[Any]

# Exponents of ten of GRIB's decimal scale, and of numbers of decimals.
TENS = range(-6, 13)
# How far apart the inner steps may be, in outer ones.
_LEAST_RATIO, _MOST_RATIO = 1.02, 1000.0
# Fewer numbers could be those of anything; how far their places on inner steps may be off.
_FEWEST_NUMBERS, _ABOUT = 64, 2e-3
# So many numbers show that most ratios are none.
_GLANCE = 256


def packed_twice(steps: Steps, sample: Array) -> Steps:
    """The same steps, or those of the coarser lattice that was rounded to them."""
    numbers, exact = steps.exactly(sample)
    numbers = np.unique(numbers[exact])
    if len(numbers) < 3:
        return _centred(steps, numbers)
    best = steps
    for ten in TENS:
        least = log2(_LEAST_RATIO * steps.step * 10.0**ten)
        if steps.arithmetic not in (Arithmetic.DOUBLE, Arithmetic.SINGLE, Arithmetic.ROUNDED):
            break
        for exponent in range(int(np.ceil(least)), int(np.ceil(least)) + 10):
            ratio = 2.0**exponent / 10.0**ten / steps.step
            if not best.ratio < ratio < _MOST_RATIO:
                continue
            found = _inner(numbers, ratio)
            if found is not None:
                best = replace(steps, ratio=found[0], phase=found[1])
    return _centred(best, numbers)


def _inner(numbers: npt.NDArray[np.int64], ratio: float) -> tuple[float, float] | None:
    """A ratio next to this one and c with which all numbers are round(m · ratio + c), m whole."""
    if len(numbers) < _FEWEST_NUMBERS:
        return None
    # Rounding moves numbers by half a step at most, both ways; the steps are about known.
    narrowest = 1 - 1 / ratio - _ABOUT
    some = numbers[:: max(1, len(numbers) // _GLANCE)]
    if len(some) < len(numbers) and _widest_gap(some, ratio)[1] < narrowest:
        return None
    start, gap = _widest_gap(numbers, ratio)
    if gap < narrowest:
        return None
    centre = (start + gap + (1 - gap) / 2) % 1.0
    inner = np.rint(numbers / ratio - centre)
    off = _ABOUT * ratio / max(float(np.abs(inner).max()), 1.0)
    ratio, low, high = roomiest(numbers - 0.5, numbers + 0.5, inner, ratio, off)
    return (ratio, roundest(low, high)) if low < high else None


def _widest_gap(numbers: npt.NDArray[np.int64], ratio: float) -> tuple[float, float]:
    """Where on inner steps, from 0 to 1, no numbers are: the start and the length."""
    turns = np.sort((numbers / ratio) % 1.0)
    gaps = np.diff(turns, append=turns[0] + 1)
    widest = int(np.argmax(gaps))
    return float(turns[widest]), float(gaps[widest])


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
