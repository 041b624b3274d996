"""One array chunk of any grid → one payload: on its grid, or folded into rows and columns."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind, Payload, is_fortran, pack_lossless
from coinpp_xr.cells.description import GridDescription
from coinpp_xr.cells.folding import Fold, folds_of
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.coarseness import checked_before
from coinpp_xr.coordinates import IndexGrid, SphereGrid
from coinpp_xr.models import Model
from coinpp_xr.recognition import may_be_cells

Values = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Fields that tell which fold is shortest.
_SAMPLED = 2


def encode_any(
    values: Values,
    model: Model | None,
    grid: SphereGrid | None,
    described: GridDescription | None,
    weights: Float64 | None,
    **how: Any,
) -> bytes:
    """Compress one chunk of any grid.

    Parameters
    ----------
    values : array
    model : Model or None
    grid : SphereGrid or None
        Latitude and longitude, where the grid is one of those.
    described : GridDescription or None
        What another grid is.
    weights : float64 array or None
        Of the cells of such a grid, in its shape.
    **how
        As for :func:`coinpp_xr.chunk.encode_chunk`.

    Raises
    ------
    ValueError
        If the array does not have the shape of the grid.
    """
    if described is None:
        if (
            grid is None
            and how.get("bits") is None
            and values.size
            and values.ndim > 1
            and may_be_cells(*values.shape[-2:])
        ):
            return _of_rows_or_cells(values, **how)
        return encode_chunk(values, model, grid=grid, **how)
    if values.ndim < described.axes:
        raise ValueError(f"the codec's grid needs {described.axes} axes, got shape {values.shape}")
    shape = values.shape[values.ndim - described.axes :]
    if weights is not None and weights.shape != shape:
        raise ValueError(f"chunk of {shape} cells does not match weights of {weights.shape} cells")
    if values.size == 0:
        return pack_lossless(values)
    if how.get("bits") is not None and model is not None:
        return _encode_latents(values, model, described, weights, **how)
    described.check(shape)
    if described.axes == 2:
        flat = None if weights is None else weights.ravel()
        return encode_chunk(values, None, grid=IndexGrid.of((shape[0], shape[1]), flat), **how)
    folds = described.folds(shape[0])
    if described.told_places is not None:
        return _folded(values, folds[0], weights, places=described.places(shape[0]), **how)
    return _encode_cells(values, folds, weights, **how)


def _of_rows_or_cells(values: Values, **how: Any) -> bytes:
    """Of an array of which nothing is known: rows and columns of a plane, or fields of cells."""
    rows = values[(0,) * (values.ndim - 2)][:_SAMPLED]
    with checked_before():
        quick = how | {"effort": "fast", "time_axis": 0}
        plane = encode_chunk(rows, None, **quick)
        fold, shortest = _best_fold(rows, folds_of(values.shape[-1]), None, **quick)
    if len(shortest) >= len(plane):
        return encode_chunk(values, None, **how)
    return _encode_cells(values, [fold], None, **how)


def _encode_cells(values: Values, folds: list[Fold], weights: Float64 | None, **how: Any) -> bytes:
    """Compress cells, shape (…, cells), in the fold that seems to be the shortest."""
    fold = folds[0]
    if len(folds) > 1:
        some = values.reshape(-1, values.shape[-1])
        some = some[np.linspace(0, len(some) - 1, min(_SAMPLED, len(some))).astype(int)]
        with checked_before():
            quick = how | {"effort": "fast", "time_axis": 0}
            fold, _ = _best_fold(some, folds, weights, **quick)
    return _folded(values, fold, weights, **how)


def _encode_latents(
    values: Values,
    model: Model,
    described: GridDescription,
    weights: Float64 | None,
    **how: Any,
) -> bytes:
    """Latents of a model that is evaluated where the cells are."""
    shape = values.shape[values.ndim - described.axes :]
    cells = prod(shape)
    described.check(shape)
    places = described.places(cells)
    if places is None:
        raise ValueError(
            "bits needs to know where cells are, and this grid does not tell; give max_error or "
            "target_rmse"
        )
    if described.axes == 2:
        flat = None if weights is None else weights.ravel()
        grid = IndexGrid.of((shape[0], shape[1]), flat, places)
        return encode_chunk(values, model, grid=grid, **how)
    fold = described.folds(cells)[-1]  # any will do, since nothing but latents is coded
    return _folded(values, fold, weights, model=model, places=places, **how)


def _best_fold(
    values: Values, folds: list[Fold], weights: Float64 | None, **how: Any
) -> tuple[Fold, bytes]:
    payloads = [_folded(values, fold, weights, **how) for fold in folds]
    best = min(range(len(folds)), key=lambda k: len(payloads[k]))
    return folds[best], payloads[best]


def _folded(
    values: Values,
    fold: Fold,
    weights: Float64 | None,
    model: Model | None = None,
    places: Float64 | None = None,
    **how: Any,
) -> bytes:
    own = None
    if weights is not None:
        own = np.zeros(prod(fold.shape))
        own[fold.places] = weights
    own = own if own is not None else _without_holes(fold)
    if places is not None:
        places = folded_places(fold, places, holes=model is None)
    grid = IndexGrid.of(fold.shape, own, places)
    payload = encode_chunk(fold.fold(values), model, grid=grid, fold=fold, **how)
    found = Payload.unpack(payload)
    if found.kind == Kind.LOSSLESS:
        return pack_lossless(values)
    # Zarr 2 reads what a codec returns in memory order.
    return replace(found, fortran=True).pack() if is_fortran(values) else payload


def folded_places(fold: Fold, places: Float64, *, holes: bool) -> Float64:
    """Latitude and longitude of the cells of a raster, shape (2, rows * columns).

    With ``holes`` these are nowhere; else models, which are asked everywhere, find them beside the
    first cell.
    """
    filler = np.nan if holes else None
    return np.stack([fold.fold(axis, filler).ravel() for axis in places])


def _without_holes(fold: Fold) -> Float64 | None:
    return None if fold.holes is None else (~fold.holes).astype(np.float64)
