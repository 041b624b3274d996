"""Weights of the predictions of a pass, fitted to a sample of its points."""

from __future__ import annotations

from math import inf, log
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.error_sizes import add_shares
from coinpp_xr.coding.pyramid.grades import LARGEST_SHIFT
from coinpp_xr.coding.pyramid.prediction import (
    LARGEST_WEIGHT,
    N_BESIDE,
    N_COEFFICIENTS,
    N_NEAR,
    WEIGHT_BITS,
)
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
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
_CUBIC, _SAME = (-16, -6, -2, -2), (0, 330, 220, 170)
# Bits that a told difference takes, about: so many for none, and for every octave of its size. What
# is lost by rounding counts more than its weighted squares say.
_BITS_OF_NONE, _BITS_OF_OCTAVE, _LOST = 1.5, 1.8, 4.0


class Told(NamedTuple):
    """Weights that are worth telling.

    Parameters
    ----------
    weights : int32 array, shape (bands, features)
    shift : int
        They are multiples of 2^shift away from the usual ones.
    """

    weights: Int32
    shift: int


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
        # Products and solutions of one band, of two, …, one behind the other.
        self._solved = np.zeros((0, features, features)), np.zeros((0, features))

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
        add_shares(
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
            self._solved = _solve(all_products, all_sides)
            rounded = np.rint(self._solved[1]).astype(np.int32)
            self._choices = np.concatenate([self._choices, rounded])
        self._bits = np.zeros((len(self._bits), 1 + len(each)))

    def estimate(self, number: int, sample: Sample) -> None:
        """What the solutions make of a sample."""
        _add_bits(
            sample.features, sample.target, self._edges[number],
            self._choices / 2.0**WEIGHT_BITS, self._bits[number],
        )  # fmt: skip

    def best(self, scale: float) -> Told | None:
        """Those by which all samples take the fewest bits, weights included, in coarse steps.

        Parameters
        ----------
        scale : float
            Points that are to be coded, for each of the sample.

        Returns
        -------
        Told or None
            None where the usual ones do as well.
        """
        bands = np.array([0, *BAND_COUNTS[: self._bits.shape[1] - 1]])
        each_weight = _BITS_PER_WEIGHT + _OVERFITTED * (scale - 1)
        costs = scale * self._bits.sum(axis=0) + each_weight * len(self._usual) * bands
        best = int(bands[costs.argmin()])
        if not best:
            return None
        products, solutions = (some[best - 1 : 2 * best - 1] for some in self._solved)
        try:
            factors = np.asarray(np.linalg.cholesky(products), np.float64)
        except np.linalg.LinAlgError:  # numbers out of all proportion
            return None
        return self._rounded(factors, solutions, scale)

    def _rounded(self, factors: Float64, solutions: Float64, scale: float) -> Told:
        """Solutions in the steps that, with what rounding loses, take the fewest bits."""
        best, least = Told(self._usual[None], 0), inf
        for shift in range(LARGEST_SHIFT + 1):
            weights = np.empty(solutions.shape, np.int32)
            lost = _round(factors, solutions, self._usual, 1 << shift, weights)
            steps = np.diff(weights, axis=0, prepend=self._usual[None]) >> shift
            bits = (_BITS_OF_NONE + _BITS_OF_OCTAVE * np.log2(1 + np.abs(steps))).sum()
            bits += _LOST * scale * lost / 4.0**WEIGHT_BITS
            if bits < least:
                best, least = Told(weights, shift), bits
        return best


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


def _solve(products: Float64, sides: Float64) -> tuple[Float64, Float64]:
    """Products that have an inverse; least squares in 1/512, shape (bands, features)."""
    count = sides.shape[1]
    traces = np.trace(products, axis1=1, axis2=2)
    ridges = (_RIDGE * traces / count + 1e-9)[:, None, None] * np.eye(count)
    regular = products + ridges
    solutions = np.linalg.solve(regular, sides[:, :, None])[:, :, 0] * 2.0**WEIGHT_BITS
    return regular, np.nan_to_num(np.clip(solutions, -LARGEST_WEIGHT, LARGEST_WEIGHT))


@compiled
def _round(factors: Any, solutions: Any, usual: Any, step: Any, weights: Any) -> float:
    """Solutions in steps from the usual weights; what that adds to weighted squares of errors.

    One weight is rounded after the other, and those that are still free make up for it (Babai's
    nearest plane).

    Parameters
    ----------
    factors : float64 array, shape (bands, features, features)
        Lower Cholesky factors of the products.
    """
    lost = 0.0
    bands, count = solutions.shape
    for band in range(bands):
        factor, wanted, own = factors[band], solutions[band], weights[band]
        for k in range(count - 1, -1, -1):
            off = 0.0
            for m in range(k + 1, count):
                off += factor[m, k] * (own[m] - wanted[m])
            free = wanted[k] - off / factor[k, k]
            most = (LARGEST_WEIGHT - abs(usual[k])) // step
            steps = np.int64(np.rint((free - usual[k]) / step))
            own[k] = usual[k] + step * at_most(at_least(steps, -most), most)
            left = factor[k, k] * (own[k] - free)
            lost += left * left
    return lost


def usual_weights(
    neighbours: int, references: int, beside: bool, alike: PassParameters | None
) -> Int32:
    """Weights of predictions if none are told, shape (features,).

    Those of a pass that is ``alike``, on average; or what interpolation by cubics would do, or,
    with references, mostly that what these differ there from what surrounds them.
    """
    if alike is not None:
        bands = len(alike.weights)
        return np.asarray((alike.weights.sum(axis=0) + bands // 2) // bands, np.int32)
    end = neighbours + N_FEATURES * references
    weights = np.zeros(end + N_BESIDE * beside, np.int32)
    weights[4:N_NEAR] = _CUBIC[references]
    weights[neighbours:end:N_FEATURES] = _SAME[references]
    return weights
