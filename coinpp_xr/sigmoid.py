"""The logistic distribution as a table of whole numbers."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

# 2^30 σ(z / 64), for z / 64 from −20 to 12.
_FINE = 64
LOW, HIGH = -20 * _FINE, 12 * _FINE


@cache
def sigmoid_table() -> npt.NDArray[np.int64]:
    """Chance of less than z standard units, z from :data:`LOW` to :data:`HIGH` in 1/64."""
    z = np.arange(LOW, HIGH + 1)
    return np.rint(2.0**30 / (1 + np.exp(-z / _FINE))).astype(np.int64)
