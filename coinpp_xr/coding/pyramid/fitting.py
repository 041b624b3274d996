"""The encoder's parameters of a pass: weights of predictions, and what errors depend on."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.contexts import COEFFICIENT_BITS, LARGEST_COEFFICIENT
from coinpp_xr.coding.pyramid.prediction import LARGEST_WEIGHT, WEIGHT_BITS

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

BAND_COUNTS = (1, 2, 4, 8)
_FEWEST_ROWS = 3
# Bits that a weight takes in the payload, about.
_BITS_PER_WEIGHT = 6.0
_RIDGE = 5e-5


def fit_weights(
    features: Float64, target: Float64, rows: Int, n_rows: int, scale: float
) -> npt.NDArray[np.int32] | None:
    """Least squares in as many bands of rows as pay for their weights.

    Parameters
    ----------
    features : float64 array, shape (points, features)
        Differences from the mean of the four nearest.
    target : float64 array, shape (points,)
    rows : int64 array, shape (points,)
        Row of every point, of ``n_rows``; they ascend.
    scale : float
        Points that are to be coded, for each of the sample.

    Returns
    -------
    int32 array, shape (bands, features), or None
        None where standard weights do as well.
    """
    count = features.shape[1]
    if len(target) == 0:
        return None
    # Errors grow with what surrounds a point: rough places count for less.
    weighted = features / (np.abs(features[:, :4]).mean(axis=1, keepdims=True) + 16)
    finest = [c for c in BAND_COUNTS if n_rows >= _FEWEST_ROWS * c and len(target) >= 4 * count * c]
    if not finest:
        return None
    edges = np.searchsorted(rows * finest[-1] // n_rows, np.arange(finest[-1] + 1))
    parts = [slice(a, b) for a, b in pairwise(edges)]
    products = np.array([weighted[part].T @ features[part] for part in parts])
    sides = np.array([weighted[part].T @ target[part] for part in parts])
    best: npt.NDArray[np.int32] | None = None
    standard = standard_weights(count) / 2.0**WEIGHT_BITS
    least = scale * estimated_bits(target - features @ standard)
    for number in finest:
        sums = products.reshape(number, -1, count, count).sum(axis=1)
        fitted = _solve(sums, sides.reshape(number, -1, count).sum(axis=1))
        each = np.repeat(fitted / 2.0**WEIGHT_BITS, finest[-1] // number, axis=0)
        bits = _BITS_PER_WEIGHT * fitted.size
        for part, own in zip(parts, each, strict=True):
            bits += scale * estimated_bits(target[part] - features[part] @ own)
        if bits < least:
            best, least = fitted, bits
    return best


def _solve(products: Float64, sides: Float64) -> npt.NDArray[np.int32]:
    """Least-squares solutions, shape (bands, features), in 1/512."""
    count = sides.shape[1]
    traces = np.trace(products, axis1=1, axis2=2)
    ridges = (_RIDGE * traces / count + 1e-9)[:, None, None] * np.eye(count)
    solutions = np.linalg.solve(products + ridges, sides[:, :, None])[:, :, 0]
    scaled = np.rint(np.clip(solutions * 2.0**WEIGHT_BITS, -LARGEST_WEIGHT, LARGEST_WEIGHT))
    return np.asarray(np.nan_to_num(scaled).astype(np.int32))


def standard_weights(count: int) -> npt.NDArray[np.int32]:
    """What interpolation by cubics would do, and nothing of references."""
    weights = np.zeros(count, np.int32)
    weights[4:12] = -(1 << WEIGHT_BITS) // 32
    return weights


def estimated_bits(error: Float64) -> float:
    """A smooth guess at the bits of errors, in 1/64 of a step."""
    return float(0.72 * np.log1p((error / 32) ** 2).sum())


def fit_coefficients(features: Float64, errors: Float64) -> Int:
    """What the size of an error is expected to be: a combination of features, none negative.

    Parameters
    ----------
    features : float64 array, shape (points, 8)
        In 1/64 of a step.
    errors : float64 array, shape (points,)
        Absolute.
    """
    result = np.zeros(features.shape[1], np.int64)
    kept = np.flatnonzero(features.any(axis=0))
    usual = features[:, 1] / 4 + features[:, 3] / 8 + features[:, 5] / 8 + 16
    weights = usual**-1.5
    solution: Float64 = np.zeros(0)
    while len(kept):
        some = features[:, kept]
        products = (some * weights[:, None]).T @ some
        products[np.diag_indices(len(kept))] *= 1 + 1e-6
        products[np.diag_indices(len(kept))] += 1e-9
        solution = np.asarray(np.linalg.solve(products, (some * weights[:, None]).T @ errors))
        if (solution >= 0).all():
            break
        kept = kept[solution >= 0]
    if len(kept):
        scaled = np.rint(np.clip(solution * 2.0**COEFFICIENT_BITS, 0, LARGEST_COEFFICIENT))
        result[kept] = np.nan_to_num(scaled).astype(np.int64)
    return result
