"""A map of where on a globe the bits of an error bound go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from coinpp_xr.coordinates import IndexGrid, SphereGrid
from coinpp_xr.fields import Fields
from coinpp_xr.labels import in_digits
from coinpp_xr.lattice import Bound
from coinpp_xr.maps import Globe, degrees_of, draw_cells, draw_map, headless_figure

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

# It shows means of some cells each way, so that it has about so many rows. Single places take far
# more than all others: colours end before those.
_MOST_CELLS_OF_MEAN, _ROWS_OF_MEANS, _SHOWN_PERCENT = 8, 100, 99.5


def plot_bits(original: xr.DataArray, bound: Bound, *, item: int = 0) -> Figure:
    """Draw where on one globe the bits of an error bound go.

    About how many a cell takes, as a mean of a few cells around, if the globe is coded by itself.

    Parameters
    ----------
    original : DataArray
        With latitude and longitude among its dimensions; values in the bound's unit.
    bound : Bound
    item : int
        Which globe: its position in C order along the other dimensions, negative from the end.

    Raises
    ------
    ImportError
        Without matplotlib.
    IndexError
        If there are not that many globes.
    ValueError
        If there is nothing to draw: a bound that the pyramid is not made for, or too few cells.
    """
    from coinpp_xr.coding.pyramid.observing import cell_bits  # compiles, or loads

    globe = Globe.of(original, original, item)
    values, cells, fold = globe.original - globe.unit.offset, globe.cells, None
    if cells.grid is not None and values.ndim == 1:
        fold = cells.grid.folds(len(values))[-1]
        values = fold.fold(values, np.nan)
    grid: SphereGrid = IndexGrid.of((values.shape[0], values.shape[1]))
    if cells.is_regular and cells.degrees is not None:
        grid = SphereGrid(*cells.degrees)
    size = int(np.clip(grid.shape[0] // _ROWS_OF_MEANS, 2, _MOST_CELLS_OF_MEAN))
    # Of cells in one line, means are of those before and after.
    sizes = [size if length > 1 else 1 for length in grid.shape]
    enough = all(n >= 4 * k or n == 1 for n, k in zip(grid.shape, sizes, strict=True))
    enough = enough and values.size >= 4 * size and bool(np.isfinite(values).any())
    bits = cell_bits(Fields.of_sequence(values[None], grid), bound) if enough else None
    if bits is None:
        raise ValueError(
            f"no map of bits for {original.name or 'these fields'}: it needs max_error, no finer "
            "than values can tell, and a field of some rows and columns"
        )
    rows, columns = (n // k for n, k in zip(grid.shape, sizes, strict=True))
    blocks = bits[0, : rows * sizes[0], : columns * sizes[1]]
    means = blocks.reshape(rows, sizes[0], columns, sizes[1]).mean((1, 3))
    most = float(np.percentile(means, _SHOWN_PERCENT)) or 1.0
    figure = headless_figure((9, 5))
    axis = figure.subplots()
    mean = float(bits.sum()) / max(int(np.isfinite(values).sum()), 1)
    asked = in_digits(bound.error) if not bound.relative else f"{100 * bound.error:g} %"
    unit = "" if bound.relative else f" {globe.unit.label}"
    axis.set_title(f"{globe.title}, ±{asked}{unit}: {mean:.2f} bits a cell".replace("  ", " "))
    if cells.is_regular:
        latitude, longitude = (
            degrees[: count * size].reshape(count, size).mean(axis=1)
            for degrees, count in ((grid.latitude, rows), (grid.longitude, columns))
        )
        image = draw_map(axis, longitude, latitude, means, cmap="magma", vmin=0.0, vmax=most)
    else:
        # Cells beyond whole blocks are shown as the last ones.
        row, column = (
            np.minimum(np.arange(n) // k, n // k - 1)
            for n, k in zip(grid.shape, sizes, strict=True)
        )
        of_cells = means[row[:, None], column]
        of_cells = of_cells if fold is None else fold.unfold(of_cells)
        image = draw_cells(axis, cells, of_cells, cmap="magma", vmin=0.0, vmax=most)
    figure.colorbar(image, ax=axis, label="bits a cell", shrink=0.8, extend="max")
    axis.set_ylabel("row" if degrees_of(cells) is None else "latitude (°N)")
    return figure
