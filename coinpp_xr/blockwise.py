"""A variable block by block: what is read at a time, and the worst globe of all blocks."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.maps import residual_png
from coinpp_xr.metrics import field_errors
from coinpp_xr.selection import Layout

Values = npt.NDArray[Any]


def cuts(variable: xr.Variable, layout: Layout) -> list[list[slice]]:
    """Along every axis of the layout, the slices that are read at a time; globes stay whole."""
    if variable.chunks is not None:
        sizes = [variable.chunksizes[dim] for dim in layout.dims]
        if all(len(parts) == 1 for parts in sizes[-layout.cell_axes :]):
            edges = ([0, *accumulate(parts)] for parts in sizes)
            return [
                [slice(*pair) for pair in pairwise(axis) if pair[0] < pair[1]] for axis in edges
            ]
    # In memory, in a file, or in dask chunks that cut globes, which are then read across.
    shape = [variable.sizes[dim] for dim in layout.dims]
    return regular_cuts(shape, layout.chunks(variable.sizes, variable.dtype.itemsize))


def regular_cuts(shape: Iterable[int], chunks: Iterable[int]) -> list[list[slice]]:
    """Slices of equal depth along every axis; the last may be shorter."""
    return [
        [slice(start, min(start + depth, length)) for start in range(0, length, depth)]
        for length, depth in zip(shape, chunks, strict=True)
    ]


class WorstGlobe:
    """Measures block after block and keeps the residual of the globe with the largest RMSE."""

    def __init__(self) -> None:
        self._mean_square = -1.0
        self._residual: npt.NDArray[np.float32] | None = None

    def measure(self, original: Values, decoded: Values, layout: Layout) -> npt.NDArray[np.void]:
        errors = field_errors(original, decoded, layout.cells.areas)
        mean_squares = np.full(errors.shape, -1.0)
        np.divide(errors["squared"], errors["weight"], out=mean_squares, where=errors["valid"] > 0)
        place = np.unravel_index(mean_squares.argmax(), errors.shape)
        if mean_squares[place] > self._mean_square:
            self._mean_square = float(mean_squares[place])
            globe = original[place].astype(np.float64)
            with np.errstate(invalid="ignore"):
                residual = decoded[place] - globe
            self._residual = np.where(np.isfinite(globe), residual, np.nan).astype(np.float32)
        return errors

    def picture(self, layout: Layout) -> bytes:
        """A PNG; empty where no cell is valid."""
        if self._residual is None:
            return b""
        return residual_png(self._residual, layout.cells)
