"""Decoded fields, as long as others refer to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import Decoded
from coinpp_xr.coding.pyramid.limits import LARGEST, UNIT
from coinpp_xr.coding.pyramid.schedule import BACKGROUND, Unit
from coinpp_xr.lattice import Lattice

Float64 = npt.NDArray[np.float64]


def background_on(background: Float64 | None, lattice: Lattice) -> Decoded | None:
    """As if it were one of the fields."""
    if background is None:
        return None
    parts = np.rint(lattice.fractions(background, UNIT))
    fields = np.clip(parts, -LARGEST, LARGEST).astype(np.int32)[None]
    return Decoded(fields, np.zeros(fields.shape, np.int8))


def last_uses(units: list[Unit]) -> dict[int, int]:
    """From every field that others refer to, to the kind of the last unit that does."""
    until: dict[int, int] = {}
    for unit in units:
        for references in unit.references:
            for item in references:
                until[item] = max(unit.kind, until.get(item, -1))
    return until


class ReferredFields:
    """Decoded fields, as long as others refer to them."""

    def __init__(self, units: list[Unit], background: Decoded | None) -> None:
        self._fields: dict[int, Decoded] = {}
        self._until = last_uses(units)
        if background is not None:
            self._fields[BACKGROUND] = background
            self._until[BACKGROUND] = len(units)

    def is_referred_to(self, unit: Unit) -> bool:
        return any(item in self._until for item in unit.items)

    def add(self, unit: Unit, fields: Decoded) -> None:
        for number, item in enumerate(unit.items):
            if item in self._until:
                one = slice(number, number + 1)
                self._fields[item] = Decoded(fields.values[one], fields.marks[one])

    def references(self, unit: Unit) -> list[Decoded]:
        """Those of all items, the first and the second."""
        found = []
        for k in range(unit.n_references):
            fields = [self._fields[items[k]] for items in unit.references]
            if len(fields) == 1:
                found += fields
            else:
                values, marks = ([f.values for f in fields], [f.marks for f in fields])
                found.append(Decoded(np.concatenate(values), np.concatenate(marks)))
        return found

    def forget(self, kind: int) -> None:
        """What no kind after this one refers to."""
        for item in [i for i in self._fields if self._until[i] <= kind]:
            del self._fields[item]
