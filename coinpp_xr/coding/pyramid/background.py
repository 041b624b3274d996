"""What is known of fields before any of them is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.experts import Expert


@dataclass(frozen=True, eq=False)
class Background:
    """What a model brings along.

    Parameters
    ----------
    field : float64 array, shape (n_lat, n_lon)
        What fields look like on the whole, in their unit.
    expert : Expert or None
        A network that was trained on fields like these.
    """

    field: npt.NDArray[np.float64]
    expert: Expert | None = None
