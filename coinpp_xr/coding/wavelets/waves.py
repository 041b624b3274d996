"""Spherical harmonics of a globe, or cosines of another grid, as one subband."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.wavelets.subbands import WAVES, Subband
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.transform import sphere_transform

Float64 = npt.NDArray[np.float64]


class Waves:
    """Fields ↔ coefficients whose errors count alike: orders along rows, waves along columns.

    Parameters
    ----------
    grid : SphereGrid
    extent : (int, int), optional
        Of the lowest orders and waves, beyond which all coefficients are zero.
    single : bool
        Whether single precision will do.
    """

    def __init__(
        self, grid: SphereGrid, extent: tuple[int, int] | None = None, *, single: bool = False
    ) -> None:
        self.grid, self.single = grid, single
        self.extent = grid.shape if extent is None else extent
        self.subbands = (Subband(self.extent, 0, WAVES, None),)
        self._scale = sqrt(grid.shape[0] * grid.shape[1])
        self._dtype: Any = np.float32 if single else np.float64

    def forward(self, fields: list[Float64]) -> list[list[Float64]]:
        orders, waves = self.extent
        found = sphere_transform(self.grid).forward(np.stack(fields, dtype=self._dtype))
        scaled = found[:, :orders, :waves].astype(np.float64) * self._scale
        return [[array] for array in scaled]

    def inverse(self, coefficients: Sequence[list[Float64]]) -> list[Float64]:
        given = np.stack([own[0] / self._scale for own in coefficients], dtype=self._dtype)
        return list(sphere_transform(self.grid).inverse(given).astype(np.float64))
