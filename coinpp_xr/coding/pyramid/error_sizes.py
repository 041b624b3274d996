"""What sizes of errors are expected from, fitted to a sample of points."""

from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.grades import graded_least_squares
from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.prediction import (
    BEFORE,
    COEFFICIENT_BITS,
    N_COEFFICIENTS,
    WEIGHT_BITS,
)
from coinpp_xr.coding.pyramid.references import N_FEATURES
from coinpp_xr.coding.pyramid.sampling import Sample
from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

# They are pulled to what is expected of them, as by so many points.
_EXPECTED_POINTS = 100
# Rows of eight numbers that threads keep from each other.
_APART = 32


class Sizes:
    """What the size of an error is expected to be: a combination of features, none negative.

    Parameters
    ----------
    count : int
        Samples that will be added.
    """

    def __init__(self, count: int) -> None:
        # Products, sums with the errors, and room for a point; far from what other threads write.
        self._sums = np.zeros((count, _APART, N_COEFFICIENTS))

    def add(self, number: int, sample: Sample, weights: Int32, numbers: Int32, first: int) -> None:
        """Take a sample into account.

        Parameters
        ----------
        number, sample : int, Sample
        weights : int32 array, shape (bands, features)
            Of predictions.
        numbers : int32 array, shape (items, rows, 2 + columns + 1)
            Steps of the pass.
        first : int
            Row that has none above it.
        """
        _add_sizes(
            sample.features, sample.neighbours, sample.references, sample.target, sample.steps,
            sample.places, weights, numbers, first, self._sums[number],
        )  # fmt: skip

    def coefficients(self, expected: Int, points: int) -> Int:
        """By least squares, shape (8,), all of them grades.

        Parameters
        ----------
        expected : int64 array, shape (8,)
            What they are without the samples.
        points : int
            Of all samples.
        """
        sums = self._sums.sum(axis=0)
        products, sides = sums[:N_COEFFICIENTS], sums[N_COEFFICIENTS]
        pull = _EXPECTED_POINTS / max(points, 1) * products.diagonal()
        sides = sides + pull * expected / (1 << COEFFICIENT_BITS)
        return graded_least_squares(products + np.diag(pull), sides, COEFFICIENT_BITS)


@compiled
def _add_sizes(
    features: Float64,
    neighbours: int,
    references: int,
    target: Any,
    steps: Any,
    places: Any,
    weights: Any,
    numbers: Any,
    first: int,
    sums: Any,
) -> None:
    """Sums of weighted products of what the size of errors depends on, and with that size."""
    sides, x = sums[N_COEFFICIENTS], sums[N_COEFFICIENTS + 1]
    bands, rows = weights.shape[0], numbers.shape[1]
    for n in range(features.shape[0]):
        item, i, j = places[0, n], places[1, n], places[2, n] + BEFORE
        away = _away(features[n], weights[i * bands // rows])
        here = numbers[item, i]
        around = 2 * abs(np.int64(here[j - 1])) + abs(np.int64(here[j - 2]))
        if i > first:
            above = numbers[item, i - 1]
            around += 2 * abs(np.int64(above[j])) + abs(np.int64(above[j - 1]))
            around += abs(np.int64(above[j + 1]))
        if i > first + 1:
            around += abs(np.int64(numbers[item, i - 2, j]))
        _depends(features[n], neighbours, references, steps[n], away, around, x)
        usual = x[1] / 4 + x[3] / 8 + x[5] / 8 + 16
        share = 1 / (usual * sqrt(usual))
        error = abs(target[n] - away)
        for k in range(len(x)):
            factor = share * x[k]
            row = sums[k]
            for m in range(len(x)):
                row[m] += factor * x[m]
            sides[k] += factor * error


@compiled
def add_shares(
    features: Float64,
    neighbours: int,
    references: int,
    target: Any,
    steps: Any,
    places: Any,
    weights: Any,
    rows: int,
    coefficients: Any,
    x: Any,
    shares: Any,
) -> None:
    """One by the expected size of an error, and by the mean of that and its size."""
    bands = weights.shape[0]
    for n in range(features.shape[0]):
        away = _away(features[n], weights[places[1, n] * bands // rows])
        _depends(features[n], neighbours, references, steps[n], away, 0, x)
        size = 0.0
        for k in range(len(x)):
            size += coefficients[k] * x[k]
        size = size / (1 << COEFFICIENT_BITS) + UNIT / 4
        shares[n] = 1 / (size * (size + abs(target[n] - away) + UNIT))


@compiled
def _away(features: Any, weights: Any) -> Any:
    """How far a prediction is from the mean of the four nearest."""
    total = 0.0
    for k in range(len(features)):
        total += weights[k] * features[k]
    return np.rint(total / (1 << WEIGHT_BITS))


@compiled
def _depends(
    features: Any, neighbours: Any, references: Any, steps: Any, away: Any, around: Any, x: Any
) -> None:
    """What the size of an error depends on, in 1/64 of a step."""
    x[0] = 1
    x[1] = abs(features[0]) + abs(features[1]) + abs(features[2]) + abs(features[3])
    x[2] = abs(away)
    x[3] = UNIT * steps[0]
    x[4] = UNIT * steps[1]
    x[5] = UNIT * around
    x[6] = UNIT * steps[2]
    x[7] = 0
    if references == 1:
        x[7] = abs(features[neighbours])
    elif references == 2:
        x[7] = abs(features[neighbours] - features[neighbours + N_FEATURES])
