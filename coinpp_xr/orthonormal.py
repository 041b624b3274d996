"""Vectors made orthonormal, compiled: the same bits on every machine, unlike LAPACK's."""

from __future__ import annotations

from math import sqrt

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]

# Squared lengths below this are rounding errors, and close to the end of what a number can be.
_NOTHING = 1e-200


def orthonormal(vectors: Float64) -> Float64:
    """As many orthonormal vectors, of which the first k span what the given first k do.

    Where the given ones depend on each other, others complete them.

    Parameters
    ----------
    vectors : float64 array, shape (n, n)
        One in each row.

    Returns
    -------
    float64 array, shape (n, n)
    """
    columns = vectors.T.copy()
    basis = np.eye(len(columns))
    _by_reflections(columns, basis, np.zeros(len(columns)), np.zeros(len(columns)))
    return np.ascontiguousarray(basis.T)


@compiled
def _by_reflections(columns: Float64, basis: Float64, scales: Float64, sums: Float64) -> None:
    """Householder's: each reflection takes one vector to an axis; together, axes to the basis."""
    n = len(columns)
    for k in range(n):
        square = 0.0
        for i in range(k, n):
            square += columns[i, k] * columns[i, k]
        if square < _NOTHING:
            continue
        length = sqrt(square) if columns[k, k] >= 0 else -sqrt(square)
        columns[k, k] += length
        scales[k] = 1 / (length * columns[k, k])
        _reflect(columns, columns, k, k + 1, scales[k], sums)
    for k in range(n - 1, -1, -1):
        if scales[k] > 0:
            _reflect(columns, basis, k, k, scales[k], sums)


@compiled
def _reflect(
    columns: Float64, matrix: Float64, k: int, first: int, scale: float, sums: Float64
) -> None:
    """Column k, from its place k on, is the direction; columns of a matrix are reflected."""
    n = len(columns)
    for j in range(first, n):
        sums[j] = 0.0
    for i in range(k, n):
        for j in range(first, n):
            sums[j] += columns[i, k] * matrix[i, j]
    for j in range(first, n):
        sums[j] *= scale
    for i in range(k, n):
        for j in range(first, n):
            matrix[i, j] -= columns[i, k] * sums[j]
