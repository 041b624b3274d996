"""From array indices to the coordinates that the base network sees."""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.elementary import cosine, sine
from coinpp_xr.errors import shown

Float64 = npt.NDArray[np.float64]

# Coordinates that differ by less are the same; more of them are not compared one by one.
_SAME_DEGREE = 1e-3
_MOST_COMPARED = 1 << 13
# What degrees are multiples of one part of: quarters, tenths, thirds, minutes of arc, ...
_DIVISORS = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    10,
    12,
    16,
    20,
    25,
    32,
    40,
    60,
    64,
    100,
    120,
    1000,
    3600,
    10**6,
)
_POINTS_AT_ONCE = 1 << 16
# Along one axis: 600 metres at the equator.
MOST_DEGREES = 1 << 16
# Of an axis as configurations describe it; and of the numbers of its line.
_ENTRIES = ("start", "step", "divisor", "count", "dtype", "packed")
_LARGEST = 1e15

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
    """

    weights: Float64 | None = None

    @classmethod
    def of(cls, shape: tuple[int, int], weights: Float64 | None = None) -> IndexGrid:
        """With weights of any sum."""
        rows, columns = shape
        latitude, longitude = np.linspace(1e-3, -1e-3, rows), np.linspace(0, 1e-3, columns)
        if weights is not None:
            weights = np.asarray(weights / weights.sum())
        return cls(latitude if rows > 1 else np.zeros(1), longitude, weights)

    @cached_property
    def _degrees(self) -> tuple[bytes, bytes]:
        # What is worked out on a grid depends on its shape and weights.
        weights = b"" if self.weights is None else self.weights.tobytes()
        return repr(self.shape).encode(), weights

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


# ---- axes in metadata ---------------------------------------------------------------------------


def compact_axis(degrees: Float64) -> dict[str, Any] | list[float]:
    """An axis as plain JSON, from which :func:`axis_values` makes the same values bit for bit.

    Parameters
    ----------
    degrees : float64 array, shape (n,)
        Finite.

    Returns
    -------
    dict or list
        ``count`` values; value i is (``start`` + i ``step``) / ``divisor`` (1), 0 without a start,
        rounded to ``dtype`` (``<f8``). Where that is not yet exact, ``packed`` holds what has to be
        added to the bits of every value, taken as an integer of the same size: the base85 of a zlib
        stream of the lowest bytes of all integers, then the second lowest ones, and so on. A few
        values stay a list.
    """
    # Bytes are compared: payloads know their coordinates by a CRC, of which -0.0 is not 0.0.
    is_single = degrees.astype(np.float32).astype(np.float64).tobytes() == degrees.tobytes()
    dtypes: list[dict[str, Any]] = [{}, {"dtype": "<f4"}] if is_single else [{}]
    listed: list[float] = degrees.tolist()
    if not 3 <= len(degrees) <= MOST_DEGREES:
        return listed
    for line, dtype in product(_lines(degrees), dtypes):
        axis = {**line, "count": len(degrees), **dtype}
        if axis_values(axis).tobytes() == degrees.tobytes():
            return axis
    # Evenly spaced values that were computed otherwise are off by a few units in the last place.
    bare = {"count": len(degrees), **dtypes[-1]}
    forms: list[dict[str, Any] | list[float]] = [listed]
    forms += [axis | {"packed": _corrections(axis, degrees)} for axis in (bare, bare | line)]
    return min(forms, key=lambda form: len(json.dumps(form)))


def _lines(degrees: Float64) -> Iterator[dict[str, Any]]:
    """Straight lines that may go through all values, the simplest first."""
    first, last, steps = float(degrees[0]), float(degrees[-1]), len(degrees) - 1
    step = (last - first) / steps
    for divisor in _DIVISORS:
        line = {"start": float(round(first * divisor)), "step": float(round(step * divisor))}
        # The far end alone rules most of them out.
        if abs(line["start"] + steps * line["step"] - last * divisor) < 0.5:
            yield line | ({} if divisor == 1 else {"divisor": divisor})
    yield {"start": first, "step": float(degrees[1]) - first}
    yield {"start": first, "step": step}


def _corrections(axis: Mapping[str, Any], degrees: Float64) -> str:
    line = _line_values(axis)
    bits = degrees.astype(line.dtype).view(f"<i{line.itemsize}") - line.view(f"<i{line.itemsize}")
    planes = bits.view(np.uint8).reshape(len(bits), bits.itemsize).T.tobytes()
    return base64.b85encode(zlib.compress(planes, 9)).decode("ascii")


def axis_values(axis: Any) -> Any:
    """The values of an axis as :func:`compact_axis` describes it; of others the axis itself.

    Raises
    ------
    ValueError
        If the description is damaged.
    """
    if not isinstance(axis, Mapping):
        return axis
    try:
        line = _line_values(axis)
        if "packed" in axis:
            packed = axis["packed"]
            # What cannot be compressed takes a quarter more as text.
            if not isinstance(packed, str) or len(packed) > 2 * line.nbytes + 64:
                raise ValueError(f"it claims corrections {shown(packed)}")
            unpacker = zlib.decompressobj()
            planes = unpacker.decompress(base64.b85decode(packed), line.nbytes)
            if len(planes) != line.nbytes:
                raise ValueError(f"it holds no {len(line)} values")
            columns = np.frombuffer(planes, np.uint8).reshape(line.itemsize, len(line)).T
            bits = np.ascontiguousarray(columns).view(f"<i{line.itemsize}")[:, 0]
            line = (line.view(bits.dtype) + bits).view(line.dtype)
        return line.astype(np.float64)
    except (LookupError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"an axis in a codec's configuration is damaged: {error}") from error


def _line_values(axis: Mapping[str, Any]) -> npt.NDArray[np.floating[Any]]:
    if other := [name for name in axis if name not in _ENTRIES]:
        raise ValueError(f"it has an entry {shown(other[0])}")
    count, dtype = axis.get("count"), axis.get("dtype", "<f8")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_DEGREES:
        raise ValueError(f"it claims {shown(count)} values, and 1 to {MOST_DEGREES} can be")
    if dtype not in ("<f8", "<f4"):
        raise ValueError(f"it claims values of type {shown(dtype)}")
    numbers = [axis.get(name, usual) for name, usual in (("start", 0), ("step", 0), ("divisor", 1))]
    if not all(isinstance(n, int | float) and abs(n) < _LARGEST for n in numbers):
        raise ValueError(f"it claims a line of {shown(numbers)}")
    start, step, divisor = map(float, numbers)
    if not abs(divisor) > 1 / _LARGEST:
        raise ValueError(f"it claims a divisor of {divisor}")
    line = start + np.arange(count, dtype=np.float64) * step
    return np.asarray((line / divisor).astype(dtype))
