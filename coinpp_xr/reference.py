"""Real fields that travel with a model: what they teach about others, the coder need not learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid

# Values are whole numbers of 1 / 128 of the unit.
FRACTION = 128
# Coordinates that differ by less are the same.
_SAME_DEGREE = 1e-3


@dataclass(frozen=True, eq=False)
class Reference:
    """Real fields, from which the coder of residuals learns before it starts.

    Parameters
    ----------
    numbers : int16 array, shape (times, n_lat, n_lon)
        In order of time: what the values differ from the model's offset, in 1/128 of its unit.
    latitude, longitude : float64 array
        Degrees.
    """

    numbers: npt.NDArray[np.int16]
    latitude: npt.NDArray[np.float64]
    longitude: npt.NDArray[np.float64]

    def on(self, grid: SphereGrid) -> npt.NDArray[np.int16] | None:
        """The same on a grid of the same points in another order; None for other grids."""
        rows = _same_degrees(self.latitude, grid.latitude, math.inf)
        columns = _same_degrees(self.longitude, grid.longitude, 360.0)
        if rows is None or columns is None:
            return None
        return self.numbers[:, rows[:, None], columns]


def _same_degrees(
    known: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64], period: float
) -> npt.NDArray[np.intp] | None:
    """Where each of the wanted coordinates stands among as many known ones, if they all do."""
    if len(known) != len(wanted):
        return None
    apart = np.abs(known[None] - wanted[:, None])
    apart = np.minimum(apart, np.abs(period - apart))
    places = apart.argmin(axis=1)
    same = apart[np.arange(len(places)), places].max() < _SAME_DEGREE
    return places if same and len(np.unique(places)) == len(places) else None
