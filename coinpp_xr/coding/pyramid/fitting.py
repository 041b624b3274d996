"""The encoder's parameters of a pass: weights of predictions, and what errors depend on."""

from __future__ import annotations

from math import log, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.contexts import COEFFICIENT_BITS, LARGEST_COEFFICIENT, N_COEFFICIENTS
from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.prediction import (
    BEFORE,
    LARGEST_WEIGHT,
    N_BESIDE,
    N_NEAR,
    WEIGHT_BITS,
)
from coinpp_xr.coding.pyramid.references import N_FEATURES
from coinpp_xr.coding.pyramid.sampling import Sample
from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

BAND_COUNTS = (1, 2, 4, 8, 16)
_FEWEST_ROWS = 3
# Bits that a weight takes in the payload, about; and, for every point that is coded for one of the
# sample, those that it saves there only because it was fitted to it.
_BITS_PER_WEIGHT, _OVERFITTED = 3.0, 0.72
_RIDGE = 5e-5
# In 1/512, by the number of references: of far neighbours, and of the same place in a reference.
_CUBIC, _SAME = (-16, -6, -2), (0, 330, 220)
# Rows of eight numbers that threads keep from each other.
_APART = 32


class Weights:
    """Weights of predictions, by least squares in as many bands of rows as pay for them.

    Every sample is added, then looked at again for what the solutions are worth.

    Parameters
    ----------
    count : int
        Samples, one behind the other.
    usual : int32 array, shape (features,)
        Weights if none are told.
    n_rows : int
        Of the pass.
    """

    def __init__(self, count: int, usual: Int32, n_rows: int) -> None:
        self._usual, self._n_rows, features = usual, n_rows, len(usual)
        self._counts = [c for c in BAND_COUNTS if c == 1 or n_rows >= _FEWEST_ROWS * c]
        finest = self._counts[-1]
        self._edges = np.zeros((count, finest + 1), np.int64)
        self._products = np.zeros((count, finest, features, features))
        self._sides = np.zeros((count, finest, features))
        self._bits = np.zeros((count, 1))
        self._choices = usual[None]

    def add(self, number: int, sample: Sample, weights: Int32, coefficients: Int) -> None:
        """Take a sample into account: an error counts the less, the larger it is expected to be.

        For the bits that it takes depend on what it is relative to the errors around it.

        Parameters
        ----------
        number, sample : int, Sample
        weights : int32 array, shape (bands, features)
            Of predictions, such as those of a coarser level.
        coefficients : int64 array, shape (8,)
            What the size of their errors is expected to be.
        """
        s, finest = sample, self._counts[-1]
        parts = s.places[1] * finest // self._n_rows
        self._edges[number] = np.searchsorted(parts, np.arange(finest + 1))
        self._products[number] = 0
        self._sides[number] = 0
        _share(
            s.features, s.neighbours, s.references, s.target, s.steps, s.places, weights,
            self._n_rows, coefficients, np.empty(N_COEFFICIENTS), s.shares,
        )  # fmt: skip
        _add_products(
            s.features, s.target, s.shares, self._edges[number], self._products[number],
            self._sides[number],
        )  # fmt: skip

    def solve(self) -> None:
        """Once all samples are there."""
        points, features = self._edges[:, -1].sum(), len(self._usual)
        products, sides = self._products.sum(axis=0), self._sides.sum(axis=0)
        each: list[tuple[Float64, Float64]] = []
        for count in reversed(self._counts):  # from the finest to one band
            if points >= 4 * features * count:
                each.insert(0, (products, sides))
            products, sides = products[::2] + products[1::2], sides[::2] + sides[1::2]
        # The usual weights first, then those of one band, of two, …
        self._choices = self._usual[None]
        if each:
            all_products, all_sides = (np.concatenate(some) for some in zip(*each, strict=True))
            self._choices = np.concatenate([self._choices, _solve(all_products, all_sides)])
        self._bits = np.zeros((len(self._bits), 1 + len(each)))

    def estimate(self, number: int, sample: Sample) -> None:
        """What the solutions make of a sample."""
        _add_bits(
            sample.features, sample.target, self._edges[number],
            self._choices / 2.0**WEIGHT_BITS, self._bits[number],
        )  # fmt: skip

    def best(self, scale: float) -> Int32 | None:
        """Those by which all samples take the fewest bits, weights included.

        Parameters
        ----------
        scale : float
            Points that are to be coded, for each of the sample.

        Returns
        -------
        int32 array, shape (bands, features), or None
            None where the usual ones do as well.
        """
        bands = np.array([0, *BAND_COUNTS[: self._bits.shape[1] - 1]])
        each_weight = _BITS_PER_WEIGHT + _OVERFITTED * (scale - 1)
        costs = scale * self._bits.sum(axis=0) + each_weight * len(self._usual) * bands
        best = int(bands[costs.argmin()])
        # One band, two bands and so on are one behind the other.
        return self._choices[best : 2 * best] if best else None


@compiled
def _add_products(
    features: Float64, target: Any, shares: Any, edges: Any, products: Any, sides: Any
) -> None:
    """Sums of weighted products of features, and of features and target, in every part."""
    count = features.shape[1]
    for part in range(len(edges) - 1):
        side = sides[part]
        for n in range(edges[part], edges[part + 1]):
            f = features[n]
            for k in range(count):
                row, factor = products[part, k], shares[n] * f[k]
                for m in range(count):
                    row[m] += factor * f[m]
                side[k] += factor * target[n]


@compiled
def _add_bits(features: Float64, target: Any, edges: Any, choices: Any, bits: Any) -> None:
    """A smooth guess at the bits that errors take, for every number of bands.

    0.72 · ln(1 + (error / 32)²), where errors are in 1/64 of a step. Logarithms are taken of
    products.
    """
    parts, count = len(edges) - 1, features.shape[1]
    for choice in range(len(bits)):
        bands = 1 << (choice - 1) if choice > 0 else 1
        for part in range(parts):
            weights = choices[0] if choice == 0 else choices[bands + part * bands // parts]
            product, total = 1.0, 0.0
            for n in range(edges[part], edges[part + 1]):
                f = features[n]
                even, odd = target[n], 0.0
                for k in range(0, count - 1, 2):
                    even -= weights[k] * f[k]
                    odd -= weights[k + 1] * f[k + 1]
                if count % 2:
                    even -= weights[count - 1] * f[count - 1]
                error = (even + odd) / 32
                product *= 1 + error * error
                if product > 1e200:
                    total += log(product)
                    product = 1.0
            bits[choice] += 0.72 * (total + log(product))


def _solve(products: Float64, sides: Float64) -> Int32:
    """Least-squares solutions, shape (bands, features), in 1/512."""
    count = sides.shape[1]
    traces = np.trace(products, axis1=1, axis2=2)
    ridges = (_RIDGE * traces / count + 1e-9)[:, None, None] * np.eye(count)
    solutions = np.linalg.solve(products + ridges, sides[:, :, None])[:, :, 0]
    scaled = np.rint(np.clip(solutions * 2.0**WEIGHT_BITS, -LARGEST_WEIGHT, LARGEST_WEIGHT))
    return np.asarray(np.nan_to_num(scaled).astype(np.int32))


def usual_weights(
    neighbours: int, references: int, beside: bool, previous: PassParameters | None
) -> Int32:
    """Weights of predictions if none are told, shape (features,).

    Those of the kind before on average; or what interpolation by cubics would do, or, with
    references, mostly that what these differ there from what surrounds them.
    """
    if previous is not None:
        bands = len(previous.weights)
        return np.asarray((previous.weights.sum(axis=0) + bands // 2) // bands, np.int32)
    end = neighbours + N_FEATURES * references
    weights = np.zeros(end + N_BESIDE * beside, np.int32)
    weights[4:N_NEAR] = _CUBIC[references]
    weights[neighbours:end:N_FEATURES] = _SAME[references]
    return weights


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

    def coefficients(self) -> Int:
        """By least squares, shape (8,)."""
        sums = self._sums.sum(axis=0)
        return _not_negative(sums[:N_COEFFICIENTS], sums[N_COEFFICIENTS])


def _not_negative(products: Float64, sides: Float64) -> Int:
    result = np.zeros(N_COEFFICIENTS, np.int64)
    diagonal = products.diagonal()
    kept = np.flatnonzero(diagonal)
    regular = products + np.diag(1e-6 * diagonal + 1e-9)
    solution: Float64 = np.zeros(0)
    while len(kept):
        solution = np.asarray(np.linalg.solve(regular[kept[:, None], kept], sides[kept]))
        if (solution >= 0).all():
            break
        kept = kept[solution >= 0]
    if len(kept):
        scaled = np.rint(np.clip(solution * 2.0**COEFFICIENT_BITS, 0, LARGEST_COEFFICIENT))
        result[kept] = np.nan_to_num(scaled).astype(np.int64)
    return result


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
def _share(
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
