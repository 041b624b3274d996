"""Quick guesses, from a part of the arrays: at a step, and at what coding takes."""

from __future__ import annotations

from itertools import groupby
from math import exp, log, sqrt

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.wavelets import rounding
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.encoding import Member, members_of
from coinpp_xr.coding.wavelets.field_coding import Coefficients, joined
from coinpp_xr.coding.wavelets.parameters import USUAL_GRADED, Told
from coinpp_xr.coding.wavelets.predicting import (
    counts_of,
    fitted_weights,
    left,
    plainly_rounded,
)
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.subbands import PAD

Float64 = npt.NDArray[np.float64]

# Rounding that is worth its bits leaves values nearer to zero by about these parts of a step.
AT_FIRST = (0.04, 0.035, 0.025)
# It makes errors larger by so much, less so much times the root of the share that is not zero.
_LARGER, _LESS = 1.076, 0.168
_OF_SHARE = 0.15
# Steps are a few RMSEs at fine errors, and many at coarse ones; how often the range is halved.
_FEWEST, _MOST, _HALVINGS = 1.5, 1e5, 12
# Logarithms of steps by which a slope is found.
_APART = 0.05
# Coefficients that a step is found by: of so many, those that are not zero in the smallest step,
# and of these so many.
_LOOKED_THROUGH, _TRIED = 1 << 20, 60_000
# Waves none of which reaches so much of the first step are left out.
LEAST_OF_STEP = 0.25
# Arrays of a kind that are looked at, and numbers of each of their subbands.
_MEMBERS, _COUNTED = 3, 20_000


def first_step(arrays: Arrays, target_rmse: float) -> tuple[float, float]:
    """By which rounding of some coefficients leaves about such an error.

    And how logarithms of errors follow those of steps there.
    """
    numbers = [number for unit in arrays.plan.units for number in unit.items]
    every = max(1, -(-len(numbers) * arrays.cells // _LOOKED_THROUGH))
    return _step_for(arrays, [arrays.of(number) for number in numbers[::every]], target_rmse)


def _step_for(
    arrays: Arrays, sample: list[list[Float64]], target_rmse: float
) -> tuple[float, float]:
    # Where gaps are closed errors are a little smaller.
    target_rmse *= arrays.share**_OF_SHARE
    target = log(target_rmse)
    size = len(sample) * arrays.cells
    low, high = log(_FEWEST * target_rmse), log(_MOST * target_rmse)
    # What is always zero is added up once.
    least, squares, parts = rounding.UP_FROM * _FEWEST * target_rmse, 0.0, []
    for array in (array for own in sample for array in own):
        some = np.abs(array) > least
        parts.append(array[some])
        squares += float((array[~some] ** 2).sum())
    values = np.concatenate(parts)
    always = squares / size + arrays.dropped / arrays.cells
    share = len(values) / size
    values = values[:: max(1, len(values) // _TRIED)][None]
    numbers = np.zeros((1 + 2 * PAD, values.shape[1] + 2 * PAD), np.int32)

    def error(step: float) -> float:
        """The logarithm of the error."""
        rounding.round_plainly(values, exp(step), numbers)
        off = Steps(exp(step), AT_FIRST).values(numbers[PAD:-PAD, PAD:-PAD]) - values
        found, root = always, 0.0
        if off.size:
            found += share * float((off**2).mean())
            root = sqrt(share * np.count_nonzero(numbers) / off.size)
        return log(max(found, 1e-300)) / 2 + log(_LARGER - _LESS * root)

    for _ in range(_HALVINGS):
        step = (low + high) / 2
        if error(step) > target:
            high = step
        else:
            low = step
    slope = (error(step + _APART) - error(step - _APART)) / (2 * _APART)
    return exp((low + high) / 2), slope


def estimated_bits(arrays: Arrays, target_rmse: float) -> float:
    """About what arrays take at an error: of some of them, as if those before were known."""
    total = 0.0
    step, _ = first_step(arrays, target_rmse)
    arrays.drop_waves(LEAST_OF_STEP * step)
    for _, group in groupby(arrays.plan.units, lambda unit: unit.kind):
        members = members_of(group)
        # Frequencies differ more than fields do.
        most = len(members) if arrays.plan.along_time else _MEMBERS
        every = -(-len(members) // most)
        some = members[every // 2 :: every]
        total += len(members) / len(some) * _bits_of_some(arrays, some, target_rmse, step)
    return total


def _bits_of_some(arrays: Arrays, members: list[Member], target_rmse: float, step: float) -> float:
    """Of members of a kind."""
    referred, subbands = Known(arrays, members, step), arrays.subbands
    weights = fitted_weights(arrays, members, referred)
    told = [Told(USUAL_GRADED, own) for own in weights]
    rest = [left(arrays.of(item), referred.of(others), told) for item, others in members]
    if weights[0].size:
        step, _ = _step_for(arrays, rest, target_rmse)
    counts = np.zeros(())
    for own, (_, others) in zip(rest, members, strict=True):
        numbers = plainly_rounded(own, step, subbands, 1)
        before = [field.numbers for field in referred.of(others)]
        counts = counts + counts_of(numbers, before, subbands, _COUNTED)
    return rounding.bits_in(counts)


class Known:
    """Arrays that members refer to, each rounded by itself."""

    def __init__(self, arrays: Arrays, members: list[Member], step: float, bands: int = 1) -> None:
        self._arrays: dict[int, Coefficients] = {}
        for number in {other for _, others in members for other in others}:
            numbers = plainly_rounded(arrays.of(number), step, arrays.subbands, bands)
            values = [Steps(step, AT_FIRST).values(own) for own in joined(numbers)]
            self._arrays[number] = Coefficients(values, numbers)

    def of(self, items: tuple[int, ...]) -> list[Coefficients]:
        return [self._arrays[item] for item in items]
