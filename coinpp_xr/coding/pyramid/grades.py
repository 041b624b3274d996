"""In what steps the encoder tells its parameters: no finer than they matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Weights are multiples of a power of two away from what is usual, up to this one.
LARGEST_SHIFT = 7
# Coefficients up to this one are told exactly, larger ones in eighths of an octave.
_EXACT, _OCTAVES = 8, 9
GRADES: Int = np.concatenate(
    [np.arange(_EXACT), np.rint(_EXACT * 2.0 ** (np.arange(_EXACT * _OCTAVES) / _EXACT))]
).astype(np.int64)


def grade_of(coefficients: npt.ArrayLike) -> Int:
    """Index into :data:`GRADES` of what is nearest."""
    wanted = np.asarray(coefficients, np.float64)
    return np.asarray(np.searchsorted((GRADES[1:] + GRADES[:-1]) / 2, wanted), np.int64)


def graded_least_squares(products: Float64, sides: Float64, bits: int, ridge: float = 1e-6) -> Int:
    """Coefficients by least squares, none negative, in units of 2^−bits and the nearest grades.

    Parameters
    ----------
    products : float64 array, shape (features, features)
    sides : float64 array, shape (features,)
    """
    result, solution = np.zeros(len(sides)), np.zeros(0)
    diagonal = products.diagonal()
    kept = np.flatnonzero(diagonal)
    regular = products + np.diag(ridge * diagonal + 1e-9)
    while len(kept):
        solution = np.asarray(np.linalg.solve(regular[kept[:, None], kept], sides[kept]))
        if (solution >= 0).all():
            break
        kept = kept[solution >= 0]
    if len(kept):
        result[kept] = np.nan_to_num(solution * 2.0**bits)
    return np.asarray(GRADES[grade_of(result)])
