"""The orders of cells in which peers get a chunk: that of the array, of a fold, or of a curve."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells.description import CELLS, PLACED
from coinpp_xr.cells.folding import Fold, FoldKind
from coinpp_xr.coding.scattered.passes import along_a_curve
from coinpp_xr.data.cell_areas import points_at
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.peers.search import Chunk

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class View:
    """A chunk with its cells in one order.

    Parameters
    ----------
    name : str
        Empty for the order of the array.
    chunk : Chunk
    fold : Fold, optional
    """

    name: str
    chunk: Chunk
    fold: Fold | None = None

    def in_order(self, decoded: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What came back, shape (fields, rows, columns), in the order of the array."""
        return decoded if self.fold is None else self.fold.unfold(decoded)[:, None]


def views_of(values: npt.NDArray[Any], cells: Horizontal) -> list[View]:
    """The orders that are worth a try; holes of folds hold the mean, as missing cells do.

    Parameters
    ----------
    values : array, shape (..., cells in one axis or two)
    cells : Horizontal
    """
    if cells.is_regular and cells.degrees is not None:
        return [View("", Chunk.of(values, *cells.degrees))]
    weights = cells.areas.of_cells(cells.shape)
    if len(cells.dims) == 2:
        return [View("", Chunk.on_index(values, weights))]
    views = [View("", Chunk.on_index(values[..., None, :], weights[None]))]
    for fold in cells.grid.folds(len(weights)) if cells.grid else ():
        if 1 in fold.shape:
            continue
        folded, areas = fold.fold(values.astype(np.float64), np.nan), fold.fold(weights, 0)
        name = fold.kind.name.lower().replace("_", " ")
        views.append(View(name, Chunk.on_index(folded.astype(values.dtype), areas), fold))
    if cells.grid and cells.grid.name in (CELLS, PLACED) and cells.placed_grid is not None:
        views.append(_along_a_curve(values, weights, cells))
    return views


def _along_a_curve(values: npt.NDArray[Any], weights: Float64, cells: Horizontal) -> View:
    """Cells in the order of a curve on which neighbours are near each other."""
    assert cells.degrees is not None
    order = along_a_curve(points_at(*cells.degrees))
    places = np.empty_like(order)
    places[order] = np.arange(len(order))
    chunk = Chunk.on_index(values[..., None, order], weights[None, order])
    return View("curve", chunk, Fold(FoldKind.ORDER, len(order), (1, len(order)), places))
