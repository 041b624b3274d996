"""Real fields that travel with a model: what they teach about others, the coder need not learn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid

# Values are whole numbers of 1 / 128 of the unit.
FRACTION = 128


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
        places = grid.places_among(self.latitude, self.longitude)
        return None if places is None else self.numbers[:, *places]
