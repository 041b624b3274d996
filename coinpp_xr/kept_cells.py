"""Cells of a payload's fields that are not coded: kept bit for bit, or holes of a fold."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.cells.folding import Fold, fold_of
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import unpack_mask, unpack_special_values

Bool = npt.NDArray[np.bool_]


def fold_in(payload: Payload) -> Fold | None:
    """How the cells of a payload are folded into rows and columns; None where they are not.

    Raises
    ------
    CorruptPayloadError
    """
    if Tag.CELLS not in payload.sections:
        return None
    cells = prod(payload.shape[-2:])
    if payload.cells > cells:
        raise CorruptPayloadError("payload claims more cells than it holds")
    fold = fold_of(payload.section(Tag.CELLS))
    if fold.shape != payload.shape[-2:]:
        raise CorruptPayloadError("payload's order of cells does not fit its shape")
    return fold


def not_coded(payload: Payload) -> Bool | None:
    """Which cells are not coded, shape (items, cells); None where all are.

    Raises
    ------
    CorruptPayloadError
    """
    items, cells = prod(payload.shape[:-2]), prod(payload.shape[-2:])
    fold = fold_in(payload)
    holes = None if fold is None else fold.holes
    if Tag.MASK not in payload.sections:
        return None if holes is None else np.broadcast_to(holes, (items, cells))
    mask = unpack_mask(payload.section(Tag.MASK), items, cells, payload.shape[-1])
    return mask if holes is None else mask | holes


def put_kept(payload: Payload, mask: Bool | None, values: npt.NDArray[Any]) -> None:
    """Put values that are kept bit for bit into their places.

    Parameters
    ----------
    payload : Payload
    mask : bool array, shape (items, cells), or None
        Of :func:`not_coded`.
    values : array of that shape

    Raises
    ------
    CorruptPayloadError
    """
    if mask is None or Tag.MASK not in payload.sections:
        return
    fold = fold_in(payload)
    kept = mask if fold is None or fold.holes is None else mask & ~fold.holes
    special = payload.section(Tag.SPECIAL_VALUES)
    values[kept] = unpack_special_values(special, kept, payload.dtype, payload.shape[-1])
