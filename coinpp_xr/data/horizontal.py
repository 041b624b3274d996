"""Where the cells of a field lie in an xarray object: on latitudes and longitudes, or otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells import places, rows
from coinpp_xr.cells.description import CELLS, INDEX, PLACED, GridDescription
from coinpp_xr.cells.weights import CellWeights, pack, unpack
from coinpp_xr.coding.pyramid.stream import MOST_CELLS
from coinpp_xr.data.cell_areas import AREA, area_in, areas_of
from coinpp_xr.data.cell_orders import grid_of_cells

if TYPE_CHECKING:
    import xarray as xr

Float64 = npt.NDArray[np.float64]

_USUAL_NAMES = {"latitude": ("latitude", "lat", "y"), "longitude": ("longitude", "lon", "x")}
# Dimensions of grids that have no latitude and longitude at hand: by the ends of their names.
_ROWS_AND_COLUMNS = (
    ("y", "x"), ("rlat", "rlon"), ("nlat", "nlon"), ("nj", "ni"), ("j", "i"), ("yc", "xc"),
    ("eta_rho", "xi_rho"), ("eta_u", "xi_u"), ("eta_v", "xi_v"), ("yh", "xh"), ("yq", "xq"),
    ("south_north", "west_east"), ("south_north_stag", "west_east"),
    ("south_north", "west_east_stag"), ("latitude", "longitude"), ("lat", "lon"), ("row", "col"),
    ("rows", "columns"), ("line", "pixel"), ("lines", "pixels"), ("scan", "ray"),
    ("along_track", "cross_track"), ("atrack", "xtrack"), ("nscan", "npix"),
)  # fmt: skip
_CELL_NAMES = (
    "cell", "cells", "ncell", "ncells", "ncol", "values", "node", "nodes", "nnodes", "nod2",
    "elem", "nelem", "face", "faces", "nface", "nfaces", "point", "points", "npoints", "pixel",
    "pixels", "npix", "pix", "healpix", "rgrid", "ncells_2", "hp_pixel", "grid_size", "ngrid",
    "nvertices", "nvertex", "nedges", "edge", "n_face", "n_node", "mesh2d_nfaces", "nmesh2d_face",
)  # fmt: skip
_AXES_OF_PLANES = {
    "Y": ("projection_y_coordinate", "grid_latitude"),
    "X": ("projection_x_coordinate", "grid_longitude"),
}
_LARGEST_LATITUDE = 90 + 1e-6
# Of so many fields, places of cells take fewer bytes than they save.
_WORTH_PLACES = 8


@dataclass(frozen=True, eq=False)
class Horizontal:
    """How the cells of a field lie along the dimensions of an array.

    Parameters
    ----------
    dims : tuple
        Of latitude and longitude; of rows and columns; or the one of cells.
    array : DataArray
        That holds the fields.
    axes : (DataArray, DataArray) or None
        Latitude and longitude, where they are known.
    is_regular : bool
        Whether these are axes of their own.
    """

    dims: tuple[Any, ...]
    array: xr.DataArray
    axes: tuple[xr.DataArray, xr.DataArray] | None
    is_regular: bool = False

    @classmethod
    def of(cls, array: xr.DataArray) -> Horizontal:
        """How the cells of an array lie.

        Raises
        ------
        ValueError
            If it holds no fields; with its name and dimensions and what :func:`why_no_grid` says.
        """
        found = _find(array)
        if isinstance(found, str):
            dims = ", ".join(map(str, array.dims))
            raise ValueError(f"{array.name or 'field'} with dimensions ({dims}) {found}")
        return found

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.sizes[dim] for dim in self.dims)

    @cached_property
    def degrees(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
        """Latitude and longitude: of rows and of columns on a regular grid, else of every cell, in
        the shape of the dimensions; None where nobody knows."""
        if self.axes is None:
            return None
        latitude, longitude = self.axes
        if self.is_regular:
            return latitude.to_numpy(), longitude.to_numpy()
        return latitude.transpose(*self.dims).to_numpy(), longitude.transpose(*self.dims).to_numpy()

    @cached_property
    def grid(self) -> GridDescription | None:
        """What the codec is told of it; None on latitudes and longitudes."""
        if self.is_regular:
            return None
        if len(self.dims) == 2:
            return GridDescription(INDEX)
        cells = self.array.sizes[self.dims[0]]
        found = grid_of_cells(self.array, cells, self.degrees)
        many = self.array.size >= _WORTH_PLACES * cells
        return self.placed_grid or found if found.name == CELLS and many else found

    @cached_property
    def placed_grid(self) -> GridDescription | None:
        """The grid with the places of all cells, where they are known."""
        if self.degrees is None or self.is_regular:
            return None
        latitude, longitude = (axis.astype(np.float64) for axis in self.degrees)
        known = np.isfinite(latitude).all() and np.isfinite(longitude).all()
        if not (known and 0 < latitude.size <= places.MOST_CELLS):
            return None
        return GridDescription.at(latitude, longitude)

    def lies_on(self, grid: Any) -> bool:
        """Whether cells lie as a codec's argument ``grid`` says."""
        own = self.grid
        if own is None or grid is None:
            return own is None and grid is None
        if isinstance(grid, Mapping) and "places" in grid:
            placed = self.placed_grid
            return placed is not None and placed.config == grid
        return grid in (own.config, CELLS if own.name == PLACED else own.config)

    @cached_property
    def weights(self) -> Float64 | None:
        """Of the cells of a grid that is not regular, in its shape; None where all are alike."""
        return None if self.packed_weights is None else unpack(self.packed_weights)

    @cached_property
    def packed_weights(self) -> dict[str, Any] | None:
        """The same in few bytes, from which everybody makes the same weights."""
        weights = self._weights[0]
        return None if weights is None or weights.size > MOST_CELLS else pack(weights)

    @property
    def weighting(self) -> str:
        """What an average over cells is weighted by, in words."""
        return self._weights[1]

    @cached_property
    def _weights(self) -> tuple[Float64 | None, str]:
        if self.is_regular:
            return None, "cos(latitude)"
        weights, said = areas_of(self.array, self.dims)
        if weights is not None:
            return weights, said
        grid, degrees = self.grid, self.degrees
        if grid is not None and grid.name.startswith("healpix"):
            return None, "equal areas"
        if degrees is not None and len(self.dims) == 2:
            height = np.cos(np.deg2rad(degrees[0].astype(np.float64)))
            # Cells without a latitude, of land in ocean models, mostly have no value either.
            known = np.isfinite(height) & (height > -1e-6)
            if known.any():
                height = np.where(known, np.maximum(height, 1e-9), height[known].mean())
                return height, "cos(latitude)"
        if degrees is not None and grid is not None and grid.lengths is not None:
            latitude = degrees[0][np.cumsum(grid.lengths) - 1]
            of_rows = rows.areas(latitude.astype(np.float64), grid.lengths)
            return np.repeat(of_rows, grid.lengths), "areas of rows"
        return None, "nothing: all cells count alike"

    @property
    def areas(self) -> CellWeights:
        """What averages over cells are weighted by."""
        if self.is_regular and self.degrees is not None:
            return CellWeights.of_latitudes(self.degrees[0], len(self.degrees[1]))
        if self.weights is None:
            return CellWeights(np.ones(1), len(self.dims))
        return CellWeights(self.weights.ravel() / self.weights.sum(), len(self.dims))


def why_no_grid(array: xr.DataArray) -> str:
    """What keeps an array from holding fields; empty if it does."""
    found = _find(array)
    return found if isinstance(found, str) else ""


def _find(array: xr.DataArray) -> Horizontal | str:
    """How the cells lie, or why there are none."""
    import cf_xarray  # noqa: F401

    if array.attrs.get("GRIB_gridType") == "sh":
        return (
            "holds spherical harmonics, which are no values of cells; transform them to a grid "
            "first (cdo sp2gpl, or request a grid)"
        )
    if array.ndim == 0 or (array.ndim == 1 and not _has_cells(array)):
        return "is no field: it needs latitude and longitude dimensions, or one of cells"
    found = {key: _coordinate(array, key) for key in _USUAL_NAMES}
    latitude, longitude = found["latitude"], found["longitude"]
    if latitude is None or longitude is None:
        other = _without_degrees(array)
        if other is not None:
            return other
        missing = "latitude" if latitude is None else "longitude"
        return (
            f"has no {missing} coordinate; name it {missing!r}, or name dimensions of rows and "
            "columns 'y' and 'x' and one of unstructured cells 'cell'"
        )
    if latitude.dims == longitude.dims:
        order = tuple(dim for dim in array.dims if dim in latitude.dims)
        if len(order) > 2:
            return "has latitudes and longitudes of more than two dimensions"
        return Horizontal(order, array, (latitude, longitude))
    if latitude.ndim == 1 and longitude.ndim == 1:
        dims = (*latitude.dims, *longitude.dims)
        return Horizontal(dims, array, (latitude, longitude), is_regular=True)
    return "has a latitude and a longitude of different dimensions"


def _coordinate(array: xr.DataArray, key: str) -> xr.DataArray | None:
    by_convention = array.cf.coordinates  # type: ignore[attr-defined]
    usual_names = _USUAL_NAMES[key]
    found = [array[name] for name in by_convention.get(key, ())] or [
        coordinate
        for name, coordinate in array.coords.items()
        if str(name).lower() in usual_names
        and str(coordinate.attrs.get("units", "degrees")).startswith("degree")
        and coordinate.attrs.get("standard_name", key) == key
        and not _are_no_degrees(coordinate, key, named=str(name).lower() != usual_names[-1])
    ]
    found = [coordinate for coordinate in found if coordinate.ndim > 0]
    one_dimensional = [coordinate for coordinate in found if coordinate.ndim == 1]
    if one_dimensional:
        # Of several, the one that indexes its dimension.
        return max(one_dimensional, key=lambda c: c.dims == (c.name,))
    return found[0] if found else None


def _are_no_degrees(coordinate: xr.DataArray, key: str, *, named: bool) -> bool:
    """Whether ``y`` or ``x`` counts rows or metres, where nothing says what it does."""
    if named or "units" in coordinate.attrs or "standard_name" in coordinate.attrs:
        return False
    if coordinate.dtype.kind not in "iuf" or not coordinate.size:
        return True
    largest = float(np.abs(coordinate.to_numpy()).max())
    return not largest <= (_LARGEST_LATITUDE if key == "latitude" else 360.0)


def _without_degrees(array: xr.DataArray) -> Horizontal | None:
    """The grid of an array that has no latitudes and longitudes."""
    if (dim := _cell_dim(array)) is not None:
        return Horizontal((dim,), array, None)
    pair = _plane(array)
    return None if pair is None else Horizontal(pair, array, None)


def _has_cells(array: xr.DataArray) -> bool:
    """Whether the only dimension is one of cells."""
    latitude, longitude = (_coordinate(array, key) for key in _USUAL_NAMES)
    placed = latitude is not None and longitude is not None and latitude.dims == longitude.dims
    return placed or _cell_dim(array) is not None


def _cell_dim(array: xr.DataArray) -> Any:
    """The dimension of cells, by what the array says of itself, or by its name; None if none."""
    last = array.dims[-1] if array.ndim else None
    says = str(array.attrs.get("CDI_grid_type", "")) == "unstructured"
    if says or array.attrs.get("GRIB_gridType") == "unstructured_grid":
        return last
    for coordinate in array.coords.values():
        if coordinate.attrs.get("grid_name") == "healpix" and coordinate.ndim:
            return coordinate.dims[0]
    named = [dim for dim in array.dims if str(dim).lower() in _CELL_NAMES]
    return named[-1] if named else None


def _plane(array: xr.DataArray) -> tuple[Any, Any] | None:
    """The dimensions of rows and columns."""
    by_axis: dict[str, Any] = {}
    for dim in array.dims:
        attrs = array[dim].attrs if dim in array.coords else {}
        for axis, standard_names in _AXES_OF_PLANES.items():
            if attrs.get("axis") == axis or attrs.get("standard_name") in standard_names:
                by_axis[axis] = dim
    if len(by_axis) == 2:
        return _in_order(array, by_axis.values())
    names = {str(dim).lower(): dim for dim in array.dims}
    for pair in _ROWS_AND_COLUMNS:
        if all(name in names for name in pair):
            return _in_order(array, [names[name] for name in pair])
    return None


def _in_order(array: xr.DataArray, dims: Any) -> tuple[Any, Any]:
    one, other = (dim for dim in array.dims if dim in set(dims))
    return one, other


def with_areas(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with areas of cells as coordinates, where it says what they are.

    Areas are what ``cell_measures`` of a variable names, have the standard name ``cell_area``, or
    follow from ``bounds`` of latitudes and longitudes of cells. On axes of latitude and longitude
    nothing is added: there cells weigh as cos(latitude).
    """
    found: dict[tuple[Any, ...], xr.DataArray] = {}
    for array in dataset.data_vars.values():
        horizontal = _find(array) if array.dtype.kind in "fiu" else ""
        if isinstance(horizontal, str) or horizontal.is_regular or horizontal.dims in found:
            continue
        axes = [_coordinate(array, key) for key in _USUAL_NAMES]
        area = area_in(dataset, array, horizontal.dims, axes)
        if area is not None:
            found[horizontal.dims] = area
    named = {f"{AREA} {number}": area for number, area in enumerate(found.values())}
    return dataset.assign_coords(named) if named else dataset


def without_areas(dataset: xr.Dataset) -> xr.Dataset:
    """A dataset of :func:`with_areas` as it was."""
    return dataset.drop_vars([name for name in dataset.coords if str(name).startswith(AREA)])
