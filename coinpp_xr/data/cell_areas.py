"""Areas of cells: what a dataset says they are, or what follows from their corners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import xarray as xr

Float64 = npt.NDArray[np.float64]

# The beginning of names under which areas of cells travel with an array; no dataset has it.
AREA = "area of cells (coinpp)"
# Usual names of areas, where no attribute says what they are.
_USUAL_NAMES = ("areacello", "areacella", "cell_area", "areacell", "tarea", "area_t", "area")


def areas_of(array: xr.DataArray, dims: tuple[Any, ...]) -> tuple[Float64 | None, str]:
    """Areas that travel with an array, in the order of ``dims``; and what they are."""
    names = [name for name in array.coords if str(name).startswith(AREA)]
    for name in (*names, *_measured_by(array)):
        if name in array.coords and set(array[name].dims) == set(dims):
            areas = array[name].transpose(*dims)
            weights = np.asarray(areas.to_numpy(), np.float64)
            if _are_areas(weights):
                return weights, str(areas.attrs.get("said", f"areas ({name})"))
    return None, ""


def area_in(
    dataset: xr.Dataset, array: xr.DataArray, dims: tuple[Any, ...], axes: Sequence[Any]
) -> xr.DataArray | None:
    """The areas of an array's cells, of what a dataset holds; None where it holds none.

    Parameters
    ----------
    dataset : Dataset
    array : DataArray
        One of its variables.
    dims : tuple
        Of its cells.
    axes : sequence of DataArray or None
        Latitude and longitude.
    """
    names: list[Any] = _measured_by(array)
    names += [
        name
        for name, variable in dataset.variables.items()
        if variable.attrs.get("standard_name") == "cell_area" or str(name).lower() in _USUAL_NAMES
    ]
    for name in names:
        if name in dataset.variables and set(dataset[name].dims) == set(dims):
            area = dataset[name].transpose(*dims).reset_coords(drop=True).astype(np.float64)
            if _are_areas(area.to_numpy()):
                said: xr.DataArray = area.assign_attrs(said=f"areas ({name})")
                return said
    return _area_of_corners(dataset, dims, axes)


def _measured_by(array: xr.DataArray) -> list[Any]:
    """The names of what an array's attribute says measures its cells (CF 7.2)."""
    measures = str(array.attrs.get("cell_measures", array.encoding.get("cell_measures", "")))
    words = measures.replace(":", " ").split()
    return [words[words.index("area") + 1]] if "area" in words[:-1] else []


def _are_areas(values: npt.NDArray[Any]) -> bool:
    return bool((np.isfinite(values) & (values > 0)).any())


def _area_of_corners(
    dataset: xr.Dataset, dims: tuple[Any, ...], axes: Sequence[Any]
) -> xr.DataArray | None:
    import xarray as xr

    corners = []
    for axis in axes:
        name = None if axis is None else axis.attrs.get("bounds", axis.encoding.get("bounds"))
        if name is None or name not in dataset.variables:
            return None
        if dataset[name].ndim != len(dims) + 1 or not set(dims) < set(dataset[name].dims):
            return None
        corners.append(dataset[name].transpose(*dims, ...).to_numpy())
    area = _polygon_areas(corners[0], corners[1])
    said = {"said": "areas within bounds"}
    return xr.DataArray(area, dims=dims, attrs=said) if _are_areas(area) else None


def _polygon_areas(latitude: npt.NDArray[Any], longitude: npt.NDArray[Any]) -> Float64:
    """Of spherical polygons with corners along the last axis, in steradians.

    In triangles from the first corner, of which each has the solid angle of van Oosterom and
    Strackee (1983, doi:10.1109/TBME.1983.325207).
    """
    corners = points_at(latitude, longitude)
    first, area = corners[..., 0, :], np.zeros(corners.shape[:-2])
    for k in range(1, corners.shape[-2] - 1):
        one, other = corners[..., k, :], corners[..., k + 1, :]
        volume = (first * np.cross(one, other)).sum(axis=-1)
        cosines = 1 + (first * one).sum(-1) + (one * other).sum(-1) + (other * first).sum(-1)
        area += 2 * np.arctan2(volume, cosines)
    return np.asarray(np.abs(area))


def points_at(latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> Float64:
    """Unit vectors of places in degrees, along a last axis."""
    lat, lon = (np.deg2rad(np.asarray(axis, np.float64)) for axis in (latitude, longitude))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
