"""In what steps the encoder tells its parameters: no finer than they matter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

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
