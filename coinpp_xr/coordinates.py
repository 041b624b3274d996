"""From array indices to the coordinates that the base network sees."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.elementary import cosine, sine

Float64 = npt.NDArray[np.float64]

# Coordinates that differ by less are the same; more of them are not compared one by one.
_SAME_DEGREE = 1e-3
_MOST_COMPARED = 1 << 13
_POINTS_AT_ONCE = 1 << 16

# The number of the layout of rows and columns of an index alone, after those of globes.
NO_GLOBE = 16


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

    @cached_property
    def _degrees(self) -> tuple[bytes, bytes]:
        return self.latitude.tobytes(), self.longitude.tobytes()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SphereGrid) and self._degrees == other._degrees

    def __hash__(self) -> int:
        # What was worked out on a grid serves every codec that has the same one.
        return hash(self._degrees)

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    @property
    def nbytes(self) -> int:
        """Of the points and weights of all cells, once they are needed."""
        return 24 * len(self.latitude) * len(self.longitude)

    @cached_property
    def points(self) -> npt.NDArray[np.float32]:
        """Unit vectors (cos λ cos φ, cos λ sin φ, sin λ), float32, shape (n_lat * n_lon, 3).

        λ is the latitude, φ the longitude (COIN++, appendix A.2).
        """
        points = np.empty((len(self.latitude) * len(self.longitude), 3), np.float32)
        # Some at a time: in double precision, all of them would be many times as large.
        for start in range(0, len(points), _POINTS_AT_ONCE):
            cells = np.arange(start, min(start + _POINTS_AT_ONCE, len(points)))
            points[cells] = self.points_at(cells)
        return points

    def points_at(self, cells: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        """Unit vectors of some cells, numbered along the rows of the grid, shape (cells, 3)."""
        row, column = np.divmod(cells, len(self.longitude))
        lat, lon = np.deg2rad(self.latitude), np.deg2rad(self.longitude)
        across, up, east, north = cosine(lat)[row], sine(lat)[row], cosine(lon), sine(lon)
        xyz = np.stack([across * east[column], across * north[column], up], -1)
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

    @property
    def row_areas(self) -> Float64:
        """Of the cells of every row, as a decoder knows them, shape (n_lat,)."""
        return np.asarray(self.area_weights.reshape(self.shape).mean(axis=1))

    def places_among(
        self, latitude: Float64, longitude: Float64
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]] | None:
        """Rows and columns, to index with, of this grid's cells on another; None if some differ."""
        rows = _same_degrees(latitude, self.latitude, math.inf)
        columns = _same_degrees(longitude, self.longitude, 360.0)
        return None if rows is None or columns is None else (rows[:, None], columns)

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


@dataclass(frozen=True, eq=False)
class IndexGrid(SphereGrid):
    """Rows and columns of no latitudes and longitudes: curvilinear grids, swaths, cells in a fold.

    To transforms it is a patch of the sphere that is so small that all areas are alike.

    Parameters
    ----------
    weights : float64 array, shape (rows * columns,), optional
        Of the cells, for errors; what decodes knows nothing of them. Default: all alike.
    places : float64 array, shape (2, rows * columns), optional
        Latitude and longitude of every cell, degrees, for networks.
    """

    weights: Float64 | None = None
    places: Float64 | None = None

    @classmethod
    def of(
        cls,
        shape: tuple[int, int],
        weights: Float64 | None = None,
        places: Float64 | None = None,
    ) -> IndexGrid:
        """With weights of any sum."""
        rows, columns = shape
        latitude, longitude = np.linspace(1e-3, -1e-3, rows), np.linspace(0, 1e-3, columns)
        if weights is not None:
            weights = np.asarray(weights / weights.sum())
        return cls(latitude if rows > 1 else np.zeros(1), longitude, weights, places)

    @cached_property
    def _degrees(self) -> tuple[bytes, bytes]:
        # What is worked out on a grid depends on its shape, weights and places.
        told = (b"" if a is None else a.tobytes() for a in (self.weights, self.places))
        return repr(self.shape).encode(), b"/".join(told)

    def points_at(self, cells: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.float32]:
        if self.places is None:
            return super().points_at(cells)
        lat, lon = np.deg2rad(self.places[:, cells])
        across = cosine(lat)
        xyz = np.stack([across * cosine(lon), across * sine(lon), sine(lat)], -1)
        return xyz.astype(np.float32)

    @cached_property
    def area_weights(self) -> Float64:
        """Weights that sum to one, shape (rows * columns,)."""
        if self.weights is not None:
            return self.weights
        cells = self.shape[0] * self.shape[1]
        return np.full(cells, 1.0 / cells)

    @property
    def row_areas(self) -> Float64:
        return np.full(self.shape[0], 1.0)


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


def _same_degrees(known: Float64, wanted: Float64, period: float) -> npt.NDArray[np.intp] | None:
    """Where each of the wanted coordinates stands among as many known ones, if they all do."""
    if len(known) != len(wanted) or len(known) > _MOST_COMPARED:
        return None
    apart = np.abs(known[None] - wanted[:, None])
    apart = np.minimum(apart, np.abs(period - apart))
    places = apart.argmin(axis=1)
    same = apart[np.arange(len(places)), places].max() < _SAME_DEGREE
    return places if same and len(np.unique(places)) == len(places) else None


def area_weights(latitude: npt.ArrayLike, n_lon: int) -> Float64:
    """Weights proportional to cos(latitude) that sum to one, shape (n_lat, n_lon)."""
    # A grid that holds nothing but a pole would otherwise weigh nothing.
    height = np.maximum(cosine(np.deg2rad(np.asarray(latitude, dtype=np.float64))), 1e-9)
    weights = np.repeat(height[:, None], n_lon, axis=1)
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
