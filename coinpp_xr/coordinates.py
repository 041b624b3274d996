"""From array indices to the coordinates that the base network sees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Plane:
    """Rows and columns of nothing in particular: a slice, a photograph, a line of sound."""

    shape: tuple[int, int]

    @property
    def goes_around(self) -> bool:
        return False


@dataclass(frozen=True, eq=False)
class SphereGrid:
    """A latitude-longitude grid seen as points on the unit sphere.

    Parameters
    ----------
    latitude : array_like, shape (n_lat,)
        Degrees north, strictly monotonic, within -90 .. 90.
    longitude : array_like, shape (n_lon,)
        Degrees east, strictly monotonic, spanning at most 360.

    Raises
    ------
    ValueError
        If the coordinates are not one-dimensional, finite, monotonic or in range.
    """

    latitude: Float64
    longitude: Float64

    def __post_init__(self) -> None:
        object.__setattr__(self, "latitude", parse_degrees("latitude", self.latitude))
        object.__setattr__(self, "longitude", parse_degrees("longitude", self.longitude))
        if np.abs(self.latitude).max() > 90.0 + 1e-6:
            raise ValueError("latitude goes beyond -90 .. 90 degrees north")
        if np.ptp(self.longitude) > 360.0 + 1e-6:
            raise ValueError("longitude spans more than 360 degrees: a globe is stored only once")

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    @cached_property
    def points(self) -> npt.NDArray[np.float32]:
        """Unit vectors (cos λ cos φ, cos λ sin φ, sin λ), float32, shape (n_lat * n_lon, 3).

        λ is the latitude, φ the longitude (COIN++, appendix A.2).
        """
        return self.points_at(np.arange(len(self.latitude) * len(self.longitude)))

    def points_at(self, cells: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Unit vectors of some cells, numbered along the rows of the grid, shape (cells, 3)."""
        row, column = np.divmod(cells, len(self.longitude))
        lat, lon = np.deg2rad(self.latitude)[row], np.deg2rad(self.longitude)[column]
        xyz = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
        return xyz.astype(np.float32)

    @cached_property
    def goes_around(self) -> bool:
        """Whether the first column follows the last one, as far apart as all others."""
        longitude = np.sort(self.longitude)
        if len(longitude) < 3:
            return False
        gap = longitude[0] + 360 - longitude[-1]
        return bool(gap < 1.5 * float(np.diff(longitude).max()))

    @cached_property
    def area_weights(self) -> Float64:
        """Weights proportional to cos(latitude) that sum to one, shape (n_lat * n_lon,)."""
        return area_weights(self.latitude, len(self.longitude)).ravel()

    @classmethod
    def usual_layouts(cls, n_lat: int, n_lon: int) -> Iterator[SphereGrid]:
        """The layouts in which a global (n_lat, n_lon) array is usually stored.

        The first is the one of the paper: 90 → -90 with both poles, 0 → 360 without 360. The
        order is part of the bitstream: a payload names its layout by the position in this list.
        """
        for cells, start, cyclic, ascending in product(
            (False, True), (0, -180), *[(False, True)] * 2
        ):
            if cells:
                latitude = 90 - (np.arange(n_lat, dtype=np.float64) + 0.5) * 180 / n_lat
            else:
                latitude = np.linspace(90.0, -90.0, n_lat) if n_lat > 1 else np.zeros(1)
            step = 360 / (n_lon - 1 if cyclic and n_lon > 1 else n_lon)
            longitude = (
                start
                + np.arange(n_lon, dtype=np.float64) * step
                + (step / 2 if cells and not cyclic else 0)
            )
            yield cls(latitude[::-1] if ascending else latitude, longitude)


@dataclass(frozen=True)
class BoxGrid:
    """A regular box of the given shape with coordinates in [low, high] on every axis.

    Images and volumes use [-1, 1], audio [-5, 5] (COIN++, appendix A.1).
    """

    patch_shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.patch_shape or min(self.patch_shape) < 1:
            raise ValueError(f"a box needs at least one point per axis, got {self.patch_shape}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.patch_shape

    @cached_property
    def points(self) -> npt.NDArray[np.float32]:
        """Coordinates, float32, shape (number of points, number of axes)."""
        axes = [np.linspace(self.low, self.high, n) for n in self.patch_shape]
        mesh = np.meshgrid(*axes, indexing="ij")
        return np.stack(mesh, -1).reshape(-1, len(axes)).astype(np.float32)

    @cached_property
    def area_weights(self) -> Float64:
        """Equal weights that sum to one, shape (number of points,)."""
        n = int(np.prod(self.patch_shape))
        return np.full(n, 1.0 / n)


def area_weights(latitude: npt.ArrayLike, n_lon: int) -> Float64:
    """Weights proportional to cos(latitude) that sum to one, shape (n_lat, n_lon)."""
    # A grid that holds nothing but a pole would otherwise weigh nothing.
    cosine = np.maximum(np.cos(np.deg2rad(np.asarray(latitude, dtype=np.float64))), 1e-9)
    weights = np.repeat(cosine[:, None], n_lon, axis=1)
    return np.asarray(weights / weights.sum())


def parse_degrees(name: str, values: Any) -> Float64:
    """Check one coordinate axis; returns it as float64."""
    degrees = np.asarray(values, dtype=np.float64)
    if degrees.ndim != 1 or degrees.size == 0:
        raise ValueError(f"{name} must be one-dimensional and not empty, got shape {degrees.shape}")
    if not np.isfinite(degrees).all():
        raise ValueError(f"{name} holds values that are not finite")
    steps = np.diff(degrees)
    if not ((steps > 0).all() or (steps < 0).all()):
        raise ValueError(f"{name} must be strictly monotonic; sort it first (ds.sortby({name!r}))")
    return degrees
