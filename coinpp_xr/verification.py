"""What came back from a store, held against what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.lattice import Bound
from coinpp_xr.metrics import chunk_rmse, field_errors

# Sums in another order differ by this much.
_ROUNDING = 1e-6


def block_errors(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    areas: CellWeights,
    variable: Any,
    bound: Bound | None,
) -> npt.NDArray[np.void]:
    """Errors of every globe of a block, all promises on single values checked.

    Parameters
    ----------
    original, decoded : float array, shape (..., cells in one axis or two)
    areas : CellWeights
        Of the cells of a field.
    variable : str
    bound : Bound or None

    Returns
    -------
    structured array of dtype GLOBE_ERRORS, shape (...)

    Raises
    ------
    RuntimeError
        If a missing value came back as another, or a value is beyond the bound.
    """
    beyond = 0
    fields = areas.in_rows(original)
    # One by one: a block of large fields would be held in double precision several times.
    for given, found in zip(fields, decoded.reshape(fields.shape), strict=True):
        missing = ~np.isfinite(given)
        if not np.array_equal(given[missing], found[missing], equal_nan=True):
            raise RuntimeError(f"missing values of {variable!r} came back from the store as others")
        if bound is not None:
            held = missing | bound.holds(found.astype(np.float64), given.astype(np.float64))
            beyond += held.size - np.count_nonzero(held)
    if beyond:
        raise RuntimeError(
            f"{variable!r} came back from the store with an error beyond {bound} in {beyond:,} "
            "values: do not use this store"
        )
    return field_errors(original, decoded, areas)


def check_target(
    variable: Any, target: float | None, errors: npt.NDArray[np.void], depths: Sequence[int]
) -> None:
    """Hold every chunk against ``target_rmse``.

    Parameters
    ----------
    variable : str
    target : float or None
        In the data's unit; without it there is nothing to check.
    errors : structured array of dtype GLOBE_ERRORS
    depths : sequence of int
        Shape of a chunk in globes.

    Raises
    ------
    RuntimeError
    """
    if target is None:
        return
    starts = (range(0, n, depth) for n, depth in zip(errors.shape, depths, strict=True))
    for corner in product(*starts):
        chunk = tuple(slice(i, i + depth) for i, depth in zip(corner, depths, strict=True))
        rmse = chunk_rmse(errors[chunk])
        if not rmse <= target * (1 + _ROUNDING):
            raise RuntimeError(
                f"{variable!r} came back from the store with RMSE {rmse:.6g} in the chunk at "
                f"{corner}, more than target_rmse={target:g}: do not use this store"
            )
