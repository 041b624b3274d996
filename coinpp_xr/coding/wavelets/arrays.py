"""Coefficients of the fields that are to be coded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.wavelets.filling import filled
from coinpp_xr.coding.wavelets.plan import TOGETHER, Plan, Transform, in_time
from coinpp_xr.coding.wavelets.subbands import Subband, wavelets_on
from coinpp_xr.coding.wavelets.waves import Waves
from coinpp_xr.fields import Fields, Sequences, extremes
from coinpp_xr.parallel import map_compiled

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# Coefficients of fields are kept while steps are tried, if they are no more than that.
KEPT = 1 << 23
# Fields that are transformed before they are kept.
_AT_ONCE = 16
# Errors of so many times the largest value are far above what a transform in single precision, and
# coefficients that are kept in it, leave out.
_SINGLE, _SINGLE_KEPT = 1e-3, 1e-4


class Arrays:
    """Coefficients of fields, or of frequencies of their sequences.

    Parameters
    ----------
    fields : Fields
    sequences : Sequences
        Which item follows which.
    coded : bool array, shape (items, cells)
        What is not kept elsewhere, exactly. Somewhere true.
    target_rmse : float
    waves, along_time : bool
        How fields are transformed; not by wavelets, not each by itself. For no more than ``KEPT``
        values.
    """

    def __init__(
        self,
        fields: Fields,
        sequences: Sequences,
        coded: Bool,
        target_rmse: float,
        *,
        waves: bool = False,
        along_time: bool = False,
    ) -> None:
        self.fields, self.coded, self._sequences = fields, coded, sequences
        self.dropped = 0.0  # of an array, squared and added up
        everywhere = bool(coded.all())
        mean = fields.values.mean() if everywhere else fields.values.mean(where=coded)
        self.origin = float(np.float32(mean))
        shape = fields.grid.shape
        present = np.asarray(coded.any(axis=1))
        if along_time:
            self.plan = Plan.of_frequencies(sequences.order, fields.values.shape[1])
        else:
            self.plan = Plan.of(sequences.order, present, shape[0] * shape[1])
        low, high = extremes(fields.values, coded)
        share = target_rmse / max(high - self.origin, self.origin - low, 1e-300)
        self.transform: Transform = wavelets_on(fields.grid)
        if waves:
            self.transform = Waves(fields.grid, single=share > _SINGLE)
        self._kept: Any = np.float32 if share > _SINGLE_KEPT else np.float64
        self._known: dict[int, list[Floating]] = {}
        if along_time:
            # One that is missing repeats its neighbour.
            items = sequences.take(np.arange(len(present)), present)
            for unit, row in zip(self.plan.units, items, strict=True):
                self._keep(unit.items, in_time(self._forward(row.tolist())))
        elif fields.values.size <= KEPT:
            numbers = [number for unit in self.plan.units for number in unit.items]
            for start in range(0, len(numbers), _AT_ONCE):
                some = numbers[start : start + _AT_ONCE]
                self._keep(some, self._forward(some))

    def transformed(
        self, target_rmse: float, *, waves: bool = False, along_time: bool = False
    ) -> Arrays:
        """The same fields otherwise."""
        fields, sequences, coded = self.fields, self._sequences, self.coded
        return Arrays(fields, sequences, coded, target_rmse, waves=waves, along_time=along_time)

    @property
    def cells(self) -> int:
        """Of a field."""
        return self.plan.cells

    @cached_property
    def share(self) -> float:
        """Of the cells of fields that hold anything, how many are coded."""
        present = self.coded.any(axis=1)
        return float(self.coded.sum()) / (self.cells * int(present.sum()))

    @property
    def subbands(self) -> tuple[Subband, ...]:
        return self.transform.subbands

    def of(self, number: int) -> list[Float64]:
        """Coefficients of a field or frequency, by subband."""
        if number not in self._known:
            return self._forward([number])[0]
        return [array.astype(np.float64, copy=False) for array in self._known[number]]

    def _keep(self, numbers: Sequence[int], arrays: list[list[Float64]]) -> None:
        for number, own in zip(numbers, arrays, strict=True):
            self._known[number] = [array.astype(self._kept) for array in own]

    def _forward(self, items: list[int]) -> list[list[Float64]]:
        """Some fields at a time."""
        shape, found = self.fields.grid.shape, []
        at_once = max(2, TOGETHER // prod(shape))

        def complete(item: int) -> Float64:
            field = (self.fields.values[item] - self.origin).reshape(shape)
            return filled(field, self.coded[item].reshape(shape))

        for start in range(0, len(items), at_once):
            some = items[start : start + at_once]
            found += self.transform.forward(map_compiled(complete, some))
        return found

    def __iter__(self) -> Iterator[list[Float64]]:
        for unit in self.plan.units:
            for number in unit.items:
                yield self.of(number)

    @property
    def are_waves(self) -> bool:
        return isinstance(self.transform, Waves)

    def drop_waves(self, least: float) -> None:
        """Leave out the highest orders and waves, all of whose magnitudes are less."""
        if not isinstance(self.transform, Waves):
            return
        some, squares = np.zeros(self.transform.extent, np.bool_), 0.0
        for (array,) in self:
            some |= np.abs(array) >= least
            squares += float(np.vdot(array, array))
        orders, waves = (int(np.flatnonzero(some.any(axis=a)).max(initial=0)) + 1 for a in (1, 0))
        self.transform = Waves(self.fields.grid, (orders, waves), single=self.transform.single)
        for number, (kept,) in self._known.items():
            # The whole of it would stay with a part that is looked at.
            self._known[number] = [kept[:orders, :waves].copy()]
        squares -= sum(float(np.vdot(array, array)) for (array,) in self)
        self.dropped += squares / sum(len(unit.items) for unit in self.plan.units)
