"""In which order cells of one dimension are: by what is said of them, or by where they lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells import healpix, rows, triangles
from coinpp_xr.cells.description import CELLS, GridDescription
from coinpp_xr.cells.folding import FoldKind, folds_of
from coinpp_xr.data.cell_areas import points_at

if TYPE_CHECKING:
    import xarray as xr

Float64 = npt.NDArray[np.float64]

# Cells that tell in which order HEALPix pixels are, and how far they may be from where they should.
_SAMPLED, _NEAR = 256, 0.25
# Of the way across a triangle, how far its neighbours in the raster may be away, on average.
_NEIGHBOURLY = 3.0


def grid_of_cells(
    array: xr.DataArray,
    cells: int,
    degrees: tuple[npt.NDArray[Any], npt.NDArray[Any]] | None,
) -> GridDescription:
    """In which order cells are: by what the array says, or by where they lie."""
    if (nested := _healpix_order(array)) is not None and healpix.nside_of(cells):
        name = "healpix" if nested else "healpix-ring"
        if folds_of(cells, FoldKind.HEALPIX_NESTED if nested else FoldKind.HEALPIX_RING):
            return GridDescription(name)
    if degrees is None:
        return GridDescription(CELLS)
    latitude, longitude = degrees
    lengths = rows.lengths_of(latitude)
    nside = healpix.nside_of(cells)
    if nside is not None:
        for name, pixels in (("healpix", healpix.nested), ("healpix-ring", healpix.ring)):
            if name == "healpix" and nside & (nside - 1):
                continue
            if _lie_at(latitude, longitude, *healpix.centres(pixels(nside), nside)):
                return GridDescription(name)
    if lengths is not None:
        ends = np.cumsum(lengths) - 1
        even = GridDescription("rows", lengths, latitude[ends].astype(np.float64))
        places = even.places(cells)
        if places is not None and _lie_at(latitude, longitude, *places):
            return even
        return GridDescription("rows", lengths)
    if triangles.halvings_of(cells) and _are_neighbours(latitude, longitude, cells):
        return GridDescription("icon")
    return GridDescription(CELLS)


def _healpix_order(array: xr.DataArray) -> bool | None:
    """Whether pixels are in nested order, where the array says that they are HEALPix."""
    says = [array.attrs, *(coordinate.attrs for coordinate in array.coords.values())]
    for attrs in says:
        is_healpix = (
            attrs.get("grid_mapping_name") == "healpix"
            or attrs.get("grid_name") == "healpix"
            or attrs.get("GRIB_gridType") == "healpix"
            or "healpix_nside" in attrs
        )
        if is_healpix:
            keys = ("healpix_order", "indexing_scheme", "GRIB_orderingConvention", "order")
            order = next((str(attrs[key]) for key in keys if key in attrs), "nested")
            return order.lower().startswith("nest")
    return None


def _lie_at(
    latitude: npt.NDArray[Any], longitude: npt.NDArray[Any], own_lat: Float64, own_lon: Float64
) -> bool:
    """Whether cells lie where they should, to a part of their distance."""
    some = np.linspace(0, len(own_lat) - 1, min(_SAMPLED, len(own_lat))).astype(int)
    apart = _distances(latitude[some], longitude[some], own_lat[some], own_lon[some])
    return bool(np.nanmax(apart, initial=0.0) < _NEAR * _spacing(len(own_lat)))


def _are_neighbours(latitude: npt.NDArray[Any], longitude: npt.NDArray[Any], cells: int) -> bool:
    """Whether what lies side by side in a raster of triangles does so on the sphere."""
    (fold,) = folds_of(cells, FoldKind.TRIANGLES)
    if fold.holes is not None:
        return False
    lat, lon = fold.fold(latitude), fold.fold(longitude)
    apart = _distances(lat[:, 1:], lon[:, 1:], lat[:, :-1], lon[:, :-1])
    return bool(np.nanmedian(apart) < _NEIGHBOURLY * _spacing(cells))


def _spacing(cells: int) -> float:
    """Between cells that share a sphere, radians."""
    return float(np.sqrt(4 * np.pi / cells))


def _distances(lat: Any, lon: Any, other_lat: Any, other_lon: Any) -> Float64:
    """Chords between places, of the unit sphere."""
    one, other = points_at(lat, lon), points_at(other_lat, other_lon)
    return np.asarray(np.sqrt(((one - other) ** 2).sum(axis=-1)))
