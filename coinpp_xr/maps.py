"""Maps of one globe, with coastlines that travel with the package.

They need matplotlib alone and no display; pyplot's state is not touched, and nothing is fetched.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import area_weights
from coinpp_xr.data import horizontal_axes
from coinpp_xr.labels import DisplayUnit, batch_dims, display_unit, globe_label

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.figure import Figure

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Globe:
    """One globe before and after, in the display unit; NaN where the original is missing."""

    original: Values
    reconstruction: Values
    latitude: npt.NDArray[Any]
    longitude: npt.NDArray[Any]
    unit: DisplayUnit
    quantity: str
    title: str

    @classmethod
    def of(cls, original: xr.DataArray, reconstruction: xr.DataArray, item: int) -> Globe:
        latitude, longitude = horizontal_axes(original)
        order = (*latitude.dims, *longitude.dims)
        batch = batch_dims(original)
        sizes = [original.sizes[dim] for dim in batch]
        count = prod(sizes)
        if not -count <= item < count:
            raise IndexError(f"item {item} is out of range: there are {count} globes")
        positions = [int(i) for i in np.unravel_index(item % count, sizes or (1,))]
        where = dict(zip(batch, positions, strict=False))
        unit = display_unit(original.attrs)
        shown, decoded = in_unit(
            original.isel(where).transpose(*order).to_numpy(),
            reconstruction.isel(where).transpose(*order).to_numpy(),
            unit,
        )
        name = str(original.attrs.get("long_name", original.name or "value"))
        label = globe_label(original, batch, item % count)
        return cls(
            shown, decoded, latitude.to_numpy(), longitude.to_numpy(), unit,
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
        weights = np.where(valid, area_weights(self.latitude, len(self.longitude)), 0)
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
    from matplotlib.collections import LineCollection

    image = axis.pcolormesh(
        longitude, latitude, values, shading="nearest", rasterized=True, **colours
    )
    axis.set_facecolor("0.7")
    axis.set_xlabel("longitude (°E)")
    # Cells at the poles reach half a row beyond them.
    bottom, top = axis.get_ylim()
    axis.set_ylim(max(bottom, -90), min(top, 90))
    axis.set_aspect("equal")
    turns = [line + np.array([turn, 0]) for line in coastlines() for turn in (-360, 0, 360)]
    axis.add_collection(LineCollection(turns, colors="black", linewidths=0.5), autolim=False)
    return image


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
