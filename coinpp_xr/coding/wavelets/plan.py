"""Which arrays of coefficients are coded, in which order, and the fields that they make.

Usually every field has its own, and is predicted from others: units are as in the pyramid. Along
time, arrays are those of the frequencies of a whole sequence, in the context of the two below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.schedule import Unit, key_distance, schedule
from coinpp_xr.coding.wavelets.subbands import Subband
from coinpp_xr.parallel import map_compiled, thread_count
from coinpp_xr.transform import is_transformable_in_time, transform_in_time

Bool = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]
Order = npt.NDArray[np.integer[Any]]
Result = TypeVar("Result")

# Values of a sequence that is transformed along time: all of it is decoded at once.
MOST_ALONG_TIME = 1 << 24
# Values of fields that are transformed together.
TOGETHER = 1 << 21


class Transform(Protocol):
    """Fields ↔ coefficients whose errors count alike, by subband."""

    @property
    def subbands(self) -> tuple[Subband, ...]: ...

    def forward(self, fields: list[Float64]) -> list[list[Float64]]: ...

    def inverse(self, coefficients: Sequence[list[Float64]]) -> list[Float64]: ...


@dataclass(frozen=True, eq=False)
class Plan:
    """What encoder and decoder agree on.

    Parameters
    ----------
    units : list of Unit
        Of fields, or of frequencies: number of the sequence × times + frequency.
    distance : int
        Of key fields; 0 for a transform along time.
    order : int array, shape (sequences, times)
        Numbers of fields.
    cells : int
        Of a field.
    """

    units: list[Unit]
    distance: int
    order: Order
    cells: int

    @classmethod
    def of(cls, order: Order, present: Bool, cells: int, distance: int | None = None) -> Plan:
        """Of fields that are predicted from each other."""
        distance = key_distance(cells, order.shape[1]) if distance is None else distance
        return cls(schedule(order, present, cells, distance), distance, order, cells)

    @classmethod
    def of_frequencies(cls, order: Order, cells: int) -> Plan:
        """A unit for each sequence, where others start from what the first has learned."""
        sequences, times = order.shape
        references = [tuple(range(t - 1, max(t - 3, -1), -1)) for t in range(times)]
        units = []
        for q in range(sequences):
            items = tuple(range(q * times, (q + 1) * times))
            own = tuple(tuple(q * times + t for t in each) for each in references)
            units.append(Unit(items, own, min(q, 1), 0 if q else None))
        return cls(units, 0, order, cells)

    @property
    def along_time(self) -> bool:
        return self.distance == 0

    @property
    def references(self) -> list[int]:
        """From how many others arrays of every kind of units are predicted."""
        kinds = groupby(self.units, lambda unit: unit.kind)
        return [0 if self.along_time else next(group).n_references for _, group in kinds]

    def holding(self, items: set[int]) -> set[int]:
        """The arrays that fields are in."""
        if not self.along_time:
            return items
        return {
            int(q * self.order.shape[1])
            for q in np.flatnonzero(np.isin(self.order, list(items)).any(axis=1))
        }

    def in_parts(self, code: Callable[[Any], Result], units: Sequence[Any]) -> Iterator[Result]:
        """What becomes of units, in as many threads as there are; some of them at a time."""
        at_once = 2 * self._at_once
        for start in range(0, len(units), at_once):
            yield from map_compiled(code, units[start : start + at_once])

    def fields(
        self,
        arrays: Iterable[tuple[Unit, Sequence[list[Float64]]]],
        transform: Transform,
        wanted: set[int] | None = None,
    ) -> Iterator[tuple[int, Float64]]:
        """Numbers of fields, and what coefficients of units make of them."""
        waiting: list[tuple[int, list[Float64]]] = []
        for unit, values in arrays:
            items: Sequence[int] = unit.items
            if self.along_time:
                items = self.order[unit.items[0] // self.order.shape[1]].tolist()
                values = in_time(values, inverse=True)
            own = zip(items, values, strict=True)
            waiting += [(item, c) for item, c in own if wanted is None or item in wanted]
            while len(waiting) >= self._at_once:
                yield from _fields_of(waiting[: self._at_once], transform)
                del waiting[: self._at_once]
        yield from _fields_of(waiting, transform)

    @property
    def _at_once(self) -> int:
        """How many fields are transformed together."""
        return max(2 * thread_count(), TOGETHER // self.cells)


def _fields_of(
    some: list[tuple[int, list[Float64]]], transform: Transform
) -> Iterator[tuple[int, Float64]]:
    if some:
        items, values = zip(*some, strict=True)
        yield from zip(items, transform.inverse(values), strict=True)


def in_time(values: Sequence[list[Any]], *, inverse: bool = False) -> list[list[Any]]:
    """The arrays of times ↔ those of frequencies."""
    by_subband = [
        transform_in_time(np.stack(arrays)[None], inverse=inverse)[0]
        for arrays in zip(*values, strict=True)
    ]
    return [[array[t] for array in by_subband] for t in range(len(values))]


def bears_frequencies(order: Order, cells: int) -> bool:
    """Whether sequences can be transformed along time."""
    times = order.shape[1]
    return is_transformable_in_time(times, cells) and times * cells <= MOST_ALONG_TIME
