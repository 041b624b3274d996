"""Maps of one globe, with coastlines that travel with the package.

They need matplotlib alone and no display; pyplot's state is not touched, and nothing is fetched.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from math import ceil, prod, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells import healpix
from coinpp_xr.cells.description import CELLS, GridDescription
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.labels import DisplayUnit, batch_dims, display_unit, globe_label
from coinpp_xr.notebook_html import field_png

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]

# Squares of points that cells of a map share; rows of a small picture of them.
_POINTS_OF_A_MAP, _MOST_ROWS_OF_A_PICTURE = 6e4, 90


@dataclass(frozen=True, eq=False)
class Globe:
    """One globe before and after, in the display unit; NaN where the original is missing."""

    original: Values
    reconstruction: Values
    cells: Horizontal
    unit: DisplayUnit
    quantity: str
    title: str

    @classmethod
    def of(cls, original: xr.DataArray, reconstruction: xr.DataArray, item: int) -> Globe:
        cells = Horizontal.of(original)
        batch = batch_dims(original)
        sizes = [original.sizes[dim] for dim in batch]
        count = prod(sizes)
        if not -count <= item < count:
            raise IndexError(f"item {item} is out of range: there are {count} globes")
        positions = [int(i) for i in np.unravel_index(item % count, sizes or (1,))]
        where = dict(zip(batch, positions, strict=False))
        unit = display_unit(original.attrs)
        shown, decoded = in_unit(
            original.isel(where).transpose(*cells.dims).to_numpy(),
            reconstruction.isel(where).transpose(*cells.dims).to_numpy(),
            unit,
        )
        name = str(original.attrs.get("long_name", original.name or "value"))
        label = globe_label(original, batch, item % count)
        return cls(
            shown, decoded, cells, unit,
            name + (f" ({unit.label})" if unit.label else ""),
            f"{original.name or name}  {label}".strip(),
        )  # fmt: skip

    @property
    def residual(self) -> Values:
        with np.errstate(invalid="ignore"):
            return self.reconstruction - self.original

    @property
    def rmse(self) -> float:
        """Weighted by area."""
        valid = np.isfinite(self.original)
        weights = np.where(valid, self.cells.areas.of_cells(valid.shape), 0)
        return float(np.sqrt(np.nansum(weights * self.residual**2) / max(weights.sum(), 1e-300)))


def in_unit(
    original: npt.NDArray[Any], reconstruction: npt.NDArray[Any], unit: DisplayUnit
) -> tuple[Values, Values]:
    """Both as float64 in a unit, NaN wherever the original is missing."""
    valid = np.isfinite(original)
    shown, decoded = (
        np.where(valid, values.astype(np.float64) + unit.offset, np.nan)
        for values in (original, reconstruction)
    )
    return shown, decoded


def draw_cells(axis: Axes, cells: Horizontal, values: Values, **colours: Any) -> Any:
    """Draw one field, wherever its cells lie; missing ones are grey.

    On a map with coastlines, where their latitudes and longitudes are known: as a mesh, or every
    cell by itself. Else in the rows and columns that they are in, or are coded in.

    Parameters
    ----------
    axis : matplotlib Axes
    cells : Horizontal
    values : float array, in the shape of the cells
    **colours
        As for matplotlib's ``pcolormesh``: ``cmap``, ``vmin``, ``vmax``.

    Returns
    -------
    matplotlib mappable
    """
    degrees = degrees_of(cells)
    if degrees is None:
        axis.set_facecolor("0.7")
        axis.set_xlabel("column" if len(cells.dims) == 2 else "column of the folded cells")
        mesh = axis.pcolormesh(as_picture(values, cells), rasterized=True, **colours)
        axis.invert_yaxis()
        return mesh
    latitude, longitude = degrees
    if cells.is_regular:
        return draw_map(axis, longitude, latitude, values, **colours)
    shown = np.isfinite(values) & np.isfinite(latitude) & np.isfinite(longitude)
    where, size = longitude[shown], max(0.05, _POINTS_OF_A_MAP / max(int(shown.sum()), 1))
    image = axis.scatter(
        where, latitude[shown], c=values[shown], s=size, marker="s", linewidths=0,
        rasterized=True, **colours,
    )  # fmt: skip
    if shown.any():
        axis.set_xlim(float(where.min()), float(where.max()))
    _finish_map(axis)
    return image


def degrees_of(cells: Horizontal) -> tuple[npt.NDArray[Any], npt.NDArray[Any]] | None:
    """Latitude and longitude of cells, where they are given or follow from their order."""
    if cells.degrees is not None or cells.grid is None:
        return cells.degrees
    count = cells.shape[0]
    nside = healpix.nside_of(count)
    if nside is None or len(cells.shape) > 1 or not cells.grid.name.startswith("healpix"):
        return None
    nested = cells.grid.name == "healpix"
    return healpix.centres((healpix.nested if nested else healpix.ring)(nside), nside)


def as_picture(values: npt.NDArray[Any], cells: Horizontal) -> npt.NDArray[Any]:
    """A field in rows and columns: its own, or those that its cells are folded into.

    Parameters
    ----------
    values : float array, in the shape of the cells
    cells : Horizontal
    """
    if values.ndim == 2:
        return values
    fold = (GridDescription(CELLS) if cells.grid is None else cells.grid).folds(len(values))[-1]
    if 1 in fold.shape:  # nothing is known of their order
        columns = ceil(sqrt(len(values)))
        rows = -(-len(values) // columns)
        filled = np.pad(values, (0, rows * columns - len(values)), constant_values=np.nan)
        return filled.reshape(rows, columns)
    return fold.fold(values, np.nan)


def residual_png(values: npt.NDArray[np.floating], cells: Horizontal) -> bytes:
    """A small picture of differences, see :func:`coinpp_xr.notebook_html.field_png`.

    Parameters
    ----------
    values : float array, in the shape of the cells
    cells : Horizontal
    """
    degrees = degrees_of(cells)
    if cells.is_regular and degrees is not None:
        return field_png(values, *degrees)
    if degrees is None or len(cells.dims) == 2:
        picture = as_picture(values, cells)
        rows, columns = picture.shape
        return field_png(picture, -np.arange(rows, dtype=float), np.arange(columns, dtype=float))
    # Squares of degrees that hold a cell or two each.
    rows = int(np.clip(sqrt(len(values)) / 2, 1, _MOST_ROWS_OF_A_PICTURE))
    latitude, longitude = degrees
    row = np.clip(((90 - latitude) / 180 * rows).astype(int), 0, rows - 1)
    column = np.clip((longitude % 360 / 360 * 2 * rows).astype(int), 0, 2 * rows - 1)
    picture = np.full((rows, 2 * rows), np.nan)
    picture[row, column] = values
    return field_png(picture, 90 - np.arange(rows) * 180 / rows, np.arange(2 * rows) * 180 / rows)


def draw_map(
    axis: Axes,
    longitude: npt.NDArray[Any],
    latitude: npt.NDArray[Any],
    values: Values,
    **colours: Any,
) -> QuadMesh:
    """Draw one field with coastlines, wherever its longitudes begin; missing cells are grey.

    Parameters
    ----------
    axis : matplotlib Axes
    longitude, latitude : float array, shapes (n_lon,) and (n_lat,)
        Degrees.
    values : float array, shape (n_lat, n_lon)
    **colours
        As for matplotlib's ``pcolormesh``: ``cmap``, ``vmin``, ``vmax``.
    """
    image = axis.pcolormesh(
        longitude, latitude, values, shading="nearest", rasterized=True, **colours
    )
    _finish_map(axis)
    return image


def _finish_map(axis: Axes) -> None:
    """Coastlines, and the proportions of degrees."""
    from matplotlib.collections import LineCollection

    axis.set_facecolor("0.7")
    axis.set_xlabel("longitude (°E)")
    # Cells at the poles reach half a row beyond them.
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, -90), min(top, 90))
    axis.set_aspect("equal")
    turns = [line + np.array([turn, 0]) for line in coastlines() for turn in (-360, 0, 360)]
    axis.add_collection(LineCollection(turns, colors="black", linewidths=0.5), autolim=False)


@cache
def coastlines() -> tuple[Values, ...]:
    """Longitude and latitude along coasts, each an array of shape (points, 2), to 0.01°.

    Natural Earth at 1:110 million, in the public domain; ``examples/make_coastline.py`` made the
    file.
    """
    points = np.load(Path(__file__).with_name("coastline.npy"), allow_pickle=False)
    # Where a line ends stands what no longitude can be.
    ends = np.flatnonzero(points[:, 0] == np.iinfo(points.dtype).max)
    lines = np.split(points / 100, ends)
    return tuple(line[number > 0 :] for number, line in enumerate(lines))


def headless_figure(size: tuple[float, float] = (13.5, 3.9)) -> Figure:
    """A figure of (width, height) inches that needs no display, and that notebooks show.

    Raises
    ------
    ImportError
        Without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'coinpp-xr[plot]'") from error

    class HeadlessFigure(Figure):  # type: ignore[misc]
        # Notebooks know figures of pyplot only, unless they show themselves.

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    figure = HeadlessFigure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
