"""The cells that come first, without neighbours yet: from other fields, or one after another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import range_coder
from coinpp_xr.coding.pyramid.coders import Coder
from coinpp_xr.coding.pyramid.limits import UNIT, Limits
from coinpp_xr.coding.pyramid.points import Known

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]
Taken = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class KnownAnchors:
    """What is known of the anchors of fields before they are coded.

    Parameters
    ----------
    fields : list of int32 arrays, shape (items, anchors)
        Those that all of them refer to.
    target : float64 array of that shape, or None
        For an encoder, in 1/64 of a step.
    valid : bool array of that shape, or None
        None where all count.
    """

    fields: list[Int32]
    target: npt.NDArray[np.float64] | None
    valid: npt.NDArray[np.bool_] | None

    @classmethod
    def of(cls, known: Known, take: Taken) -> KnownAnchors:
        """Of fields of which ``take`` takes the anchors, one after the other."""

        def taken(fields: npt.NDArray[Any]) -> npt.NDArray[Any]:
            return take(fields).reshape(len(fields), -1)

        return cls(
            [taken(field.values) for field in known.fields],
            None if known.target is None else taken(known.target),
            taken(known.valid) if len(known.valid) else None,
        )


def code_anchors(
    coders: list[Coder],
    known: KnownAnchors,
    shape: tuple[int, int],
    limits: Limits,
    shifts: Int64 | None,
) -> Int32:
    """Anchors follow the mean of their references, or the anchor before them.

    Parameters
    ----------
    coders : list of Coder
        Of which the first codes them; or none, where nothing is coded.
    known : KnownAnchors
    shape : (items, anchors)
    limits : Limits
    shifts : int64 array, shape (items,), or None
        Of all anchors, in 1/64 of a step; what a decoder is given is written over.

    Returns
    -------
    int32 array, shape (items, anchors)
    """
    n_items, count = shape
    expected = np.zeros(shape, np.int64)
    for field in known.fields:
        expected += field
    expected //= max(len(known.fields), 1)
    if limits.free > 0:
        expected = (expected + UNIT // 2) & -UNIT
    beginning = np.zeros(n_items, np.int64)
    if shifts is not None:
        for coder in coders[:1]:
            told = np.ascontiguousarray(shifts[:, None], np.int32)
            _code(coder, coder.shifts, told)
            shifts[:] = told[:, 0]
        beginning = shifts
    expected += beginning[:, None]
    numbers = np.zeros(shape, np.int32)
    chained = not known.fields
    if known.target is not None:
        before = beginning.astype(np.float64)
        for k in range(count):
            start = before if chained else expected[:, k]
            steps = np.rint((known.target[:, k] - start) / UNIT)
            if known.valid is not None:
                steps = np.where(known.valid[:, k], steps, 0)
            numbers[:, k] = steps
            before = start + UNIT * steps
    for coder in coders[:1]:
        _code(coder, coder.anchors, numbers)
    if chained:
        values = UNIT * np.cumsum(numbers, axis=1, dtype=np.int64) + beginning[:, None]
    else:
        values = expected + UNIT * numbers.astype(np.int64)
    bounded: Int32 = np.clip(values, limits.low, limits.high).astype(np.int32)
    return bounded


def _code(coder: Coder, chances: Int32, numbers: Int32) -> None:
    coder.grow(range_coder.BYTES_PER_VALUE * numbers.size)
    range_coder.code_numbers(*coder.coder, chances, range_coder.rates(), numbers)
    coder.check()
