"""Pictures of what compression did: maps, histograms of errors, spectra.

They need matplotlib alone and no display; pyplot's state is not touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.labels import DisplayUnit, batch_dims, display_unit, in_digits
from coinpp_xr.maps import Globe, Values, degrees_of, draw_cells, headless_figure, in_unit
from coinpp_xr.metrics import zonal_spectrum

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Histograms and spectra are those of so many globes: enough for smooth curves.
_MOST_GLOBES = 64
_BINS = 101


def plot_result(original: xr.DataArray, reconstruction: xr.DataArray, *, item: int = 0) -> Figure:
    """Draw maps of one globe, and the errors and spectra of up to 64.

    Original, reconstruction and residual above; below, a histogram of the errors weighted by area,
    and the power of original, reconstruction and error by zonal wavenumber. A region has no zonal
    wavenumbers, and no such panel.

    Parameters
    ----------
    original, reconstruction : DataArray
        As for :func:`plot_maps`.
    item : int
        Which globe is on the maps. The other two panels are of globes spread over all, or of its
        neighbours where the data is a dask array, of which a globe can be dear.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    ImportError
        Without matplotlib.
    IndexError
        If there are not that many globes.
    ValueError
        If there is a single row or column of cells.
    """
    cells = Horizontal.of(original)
    if min(cells.shape) < 2:
        raise ValueError(
            "a map needs two latitudes and longitudes, rows and columns, or cells at least, and "
            f"here are {' × '.join(map(str, cells.shape))}; select a larger part"
        )
    globe = Globe.of(original, reconstruction, item)
    shown, decoded = _sample(original, reconstruction, item)
    spectra: dict[str, Any] = {}
    if cells.is_regular and cells.degrees is not None:
        grid = SphereGrid(*cells.degrees)
        pairs = ("original", shown), ("reconstruction", decoded), ("error", decoded - shown)
        spectra = {name: zonal_spectrum(fields, grid) for name, fields in pairs}
    count = prod(original.sizes[dim] for dim in batch_dims(original))
    of = f"{len(shown)} of {count:,} globes" if len(shown) < count else f"{count:,} globes"
    of = of if count > 1 else ""

    has_spectra = bool(spectra) and None not in spectra.values()
    # Maps are as high as their degrees want it, beside title, ticks and bar of colours.
    degrees = degrees_of(cells)
    extent = 0.5
    if degrees is not None:
        extent = np.nanmax(degrees[0]) - np.nanmin(degrees[0])
        extent /= max(np.nanmax(degrees[1]) - np.nanmin(degrees[1]), 1e-6)
    heights = 1.4 + 3.9 * float(np.clip(extent, 0.1, 1.2)), 3.2
    figure = headless_figure((13.5, sum(heights) + 0.3))
    panels = figure.subplot_mosaic(
        "AAAABBBBCCCC;DDDDDDEEEEEE" if has_spectra else "AAAABBBBCCCC;DDDDDDDDDDDD",
        height_ratios=heights,
    )
    figure.suptitle(globe.title)
    _draw_maps(figure, [panels[name] for name in "ABC"], globe)
    weights = cells.areas.of_cells(cells.shape)
    _draw_histogram(panels["D"], decoded - shown, weights, globe.unit, of)
    if has_spectra:
        _draw_spectra(panels["E"], spectra, globe.unit, of)
    return figure


def plot_maps(original: xr.DataArray, reconstruction: xr.DataArray, *, item: int = 0) -> Figure:
    """Draw original, reconstruction and residual of one globe side by side.

    Parameters
    ----------
    original, reconstruction : DataArray
        With latitude and longitude among their dimensions, in any order; values in the original's
        unit, drawn in the report's (°C for temperatures). Missing cells are grey.
    item : int
        Which globe: its position in C order along the other dimensions, negative from the end.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("maps.png")``.

    Raises
    ------
    ImportError
        Without matplotlib.
    IndexError
        If there are not that many globes.
    """
    globe = Globe.of(original, reconstruction, item)
    figure = headless_figure()
    figure.suptitle(globe.title)
    _draw_maps(figure, figure.subplots(1, 3, sharey=True), globe)
    return figure


def plot_errors(
    original: xr.DataArray, decoded: Mapping[str, npt.NDArray[Any]], *, item: int = 0
) -> Figure:
    """Draw what several codecs make wrong of one globe, in the same colours.

    Parameters
    ----------
    original : DataArray
        With latitude and longitude last, in its own unit.
    decoded : mapping
        Name → what came back, shape (globes, n_lat, n_lon).
    item : int
        Which globe, in C order along the other dimensions.
    """
    cells = Horizontal.of(original)
    unit = display_unit(original.attrs)
    globe = original.to_numpy().reshape(-1, *cells.shape)[item].astype(np.float64)
    errors = {name: values[item].reshape(cells.shape) - globe for name, values in decoded.items()}
    largest = max((float(np.nanmax(np.abs(e))) for e in errors.values()), default=0.0) or 1.0
    weights = cells.areas.of_cells(cells.shape) * np.isfinite(globe)
    figure = headless_figure()
    axes = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axis, (name, error) in zip(axes, errors.items(), strict=True):
        rmse = float(np.sqrt(np.nansum(weights * error**2) / max(weights.sum(), 1e-300)))
        image = draw_cells(axis, cells, error, cmap="RdBu_r", vmin=-largest, vmax=largest)
        axis.set_title(f"{name}, RMSE {in_digits(rmse)} {unit.label}".rstrip())
    figure.colorbar(image, ax=axes, label=f"error {unit.label}".rstrip(), shrink=0.7)
    axes[0].set_ylabel("row" if degrees_of(cells) is None else "latitude (°N)")
    return figure


def _sample(
    original: xr.DataArray, reconstruction: xr.DataArray, item: int
) -> tuple[Values, Values]:
    """Some globes before and after, shape (globes, n_lat, n_lon), in the display unit."""
    import xarray as xr

    cells, batch = Horizontal.of(original), batch_dims(original)
    sizes = [original.sizes[dim] for dim in batch]
    count = prod(sizes)
    if original.chunks is None:
        chosen = np.unique(np.linspace(0, count - 1, min(count, _MOST_GLOBES)).astype(int))
    else:
        first = max(0, min(item % count - _MOST_GLOBES // 2, count - _MOST_GLOBES))
        chosen = np.arange(first, min(count, first + _MOST_GLOBES))
    globe = "globe of coinpp"  # a name that no dataset has
    where = {
        dim: xr.DataArray(positions, dims=globe)
        for dim, positions in zip(batch, np.unravel_index(chosen, sizes or (1,)), strict=False)
    }
    pair = []
    for array in (original, reconstruction):
        selected = array.isel(where) if batch else array.expand_dims(globe)
        pair.append(selected.transpose(globe, *cells.dims).to_numpy())
    return in_unit(pair[0], pair[1], display_unit(original.attrs))


def _draw_maps(figure: Figure, axes: Any, globe: Globe) -> None:
    """Original, reconstruction and residual, each with its bar of colours."""
    valid = np.isfinite(globe.original)
    suffix = f" ({globe.unit.label})" if globe.unit.label else ""
    low, high = (float(f(globe.original[valid])) if valid.any() else 0.0 for f in (np.min, np.max))
    largest = float(np.abs(globe.residual[valid]).max(initial=0.0))
    largest = largest or 1.0  # an exact reconstruction still needs a colour scale
    panels = (
        ("original", globe.original, globe.quantity, "viridis", low, high),
        ("reconstruction", globe.reconstruction, globe.quantity, "viridis", low, high),
        (
            f"residual, RMSE {in_digits(globe.rmse)} {globe.unit.label}".rstrip(),
            globe.residual,
            f"reconstruction − original{suffix}",
            "RdBu_r",
            -largest,
            largest,
        ),
    )
    for axis, (title, shades, text, colours, vmin, vmax) in zip(axes, panels, strict=True):
        image = draw_cells(axis, globe.cells, shades, cmap=colours, vmin=vmin, vmax=vmax)
        axis.set_title(title)
        figure.colorbar(image, ax=axis, label=text, orientation="horizontal", pad=0.03)
    axes[0].set_ylabel("row" if degrees_of(globe.cells) is None else "latitude (°N)")


def _draw_histogram(
    axis: Axes, errors: Values, weights: Values, unit: DisplayUnit, of: str
) -> None:
    valid = np.isfinite(errors)
    largest = float(np.abs(errors[valid]).max(initial=0.0)) or 1.0
    area = np.broadcast_to(weights, errors.shape)[valid]
    if valid.any():
        shares, edges = np.histogram(
            errors[valid], _BINS, (-largest, largest), weights=100 * area / area.sum()
        )
        axis.set_yscale("log")
        # Before there are bars: a single one would leave matplotlib no scale to choose.
        axis.set_ylim(shares[shares > 0].min() / 2, 2 * shares.max())
        axis.bar(edges[:-1], shares, np.diff(edges), align="edge", color="tab:blue")
    axis.set_title(", ".join(filter(None, ("errors by area", of))))
    axis.set_xlabel("reconstruction − original" + (f" ({unit.label})" if unit.label else ""))
    axis.set_ylabel("share of the area (%)")


def _draw_spectra(axis: Axes, spectra: Mapping[str, Any], unit: DisplayUnit, of: str) -> None:
    colours = {"original": "black", "reconstruction": "tab:blue", "error": "tab:red"}
    for name, (wavenumbers, power) in spectra.items():
        # The mean is no wave, and logarithms know no zero.
        shown = (wavenumbers > 0) & (power > 0)
        style = "--" if name == "reconstruction" else "-"
        axis.plot(wavenumbers[shown], power[shown], style, color=colours[name], label=name)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_title(", ".join(filter(None, ("power spectrum", of))))
    axis.set_xlabel("zonal wavenumber")
    squared = f"({unit.label})²" if " " in unit.label else f"{unit.label}²"
    axis.set_ylabel(f"power ({squared})" if unit.label else "power")
    axis.legend()
