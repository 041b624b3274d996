"""Means of fields that stay where they were: how anchors are shifted so that errors average out.

Errors of a smooth field at a coarse bound are those of a few anchors, and do not average out by
themselves. Anchors that are shifted by a part of a step are rounded anew, and everything with them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.points import Known

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]

# How often shifts are changed; and those that are tried where following the error leads nowhere.
_TRIES, _OTHERS = 16, (0, 0, 0, 20, -20, 11, -11, 30, -30, 5, -5, 15, -15, 25, -25, 3)
# Shifts of values after decoding are rounded, too.
_MARGIN = 0.9


@dataclass(frozen=True, eq=False)
class Means:
    """What means must keep.

    Parameters
    ----------
    weights : float64 array, shape (cells,)
        Areas.
    tolerance : float
        How far the mean of a field may be off, in 1/64 of a step.
    """

    weights: Float64
    tolerance: float

    def errors(self, decoded: Int32, known: Known) -> Float64:
        """Of the means of some fields, in 1/64 of a step.

        Parameters
        ----------
        decoded : int32 array, shape (items, n_lat, n_lon)
        known : Known
            With their targets.
        """
        assert known.target is not None
        off = decoded - known.target
        weights = self.weights.reshape(off.shape[1:])
        if not len(known.valid):
            return np.asarray(np.einsum("ijk,jk->i", off, weights) / weights.sum())
        counted = known.valid * weights
        total = np.maximum(counted.sum(axis=(1, 2)), 1e-300)
        return np.asarray((off * counted).sum(axis=(1, 2)) / total)

    def are_kept(self, errors: Float64) -> bool:
        return bool((np.abs(errors) <= _MARGIN * self.tolerance).all())

    def shifts(self, errors: Float64, decode: Callable[[Int], Float64]) -> Int:
        """Shifts of anchors that keep means, or bring them nearer.

        Parameters
        ----------
        errors : float64 array, shape (items,)
            Without shifts.
        decode : callable
            Shifts, shape (items,) → errors.
        """
        best, least = np.zeros(len(errors), np.int64), errors.copy()
        shifts = best.copy()
        for number in range(_TRIES):
            wrong = np.abs(least) > _MARGIN * self.tolerance
            if not wrong.any():
                break
            # First against the error, then from elsewhere.
            tried = np.rint(best - least).astype(np.int64) if number < 3 else best + _OTHERS[number]
            tried = (tried + UNIT // 2) % UNIT - UNIT // 2
            shifts = np.where(wrong, tried, best)
            found = decode(shifts)
            nearer = np.abs(found) < np.abs(least)
            best, least = np.where(nearer, shifts, best), np.where(nearer, found, least)
        return best
