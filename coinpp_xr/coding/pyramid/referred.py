"""Decoded fields, as long as others refer to them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import Decoded
from coinpp_xr.coding.pyramid.limits import LARGEST, UNIT
from coinpp_xr.coding.pyramid.schedule import BACKGROUND, STRENGTH_PARTS, Unit
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
        for item in unit.needed():
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
        """Those of all items: along time, then what is new above and below."""
        found = [
            _together([self._fields[items[k]] for items in unit.references])
            for k in range(len(unit.references[0]))
        ]
        if unit.refers_beside:
            along_time = [[self._fields[item] for item in items] for items in unit.references]
            found.append(
                _together([
                    _suggested(
                        own, [[self._fields[i] for i in fields] for fields in beside], strength
                    )
                    for own, beside, strength in zip(
                        along_time, unit.beside, unit.strengths, strict=True
                    )
                ])
            )  # fmt: skip
        return found

    def forget(self, kind: int) -> None:
        """What no kind after this one refers to."""
        for item in [i for i in self._fields if self._until[i] <= kind]:
            del self._fields[item]


def _together(fields: list[Decoded]) -> Decoded:
    """As one array of items."""
    if len(fields) == 1:
        return fields[0]
    values, marks = [f.values for f in fields], [f.marks for f in fields]
    return Decoded(np.concatenate(values), np.concatenate(marks))


def _suggested(along_time: list[Decoded], beside: list[list[Decoded]], strength: int) -> Decoded:
    """What a field would be if what is new in it were what is new above and below.

    Parameters
    ----------
    along_time : list of Decoded
        That the field refers to.
    beside : list of list of Decoded
        Each a field of its time on another level, and those that this one refers to along time.
    strength : int
        How much of that, in ``STRENGTH_PARTS``.
    """
    total = np.zeros(beside[0][0].values.shape, np.int64)
    marks = np.zeros(total.shape, np.int16)
    for field, *others in beside:
        total += field.values
        if others:
            total -= _mean(others)
        marks += np.abs(field.marks.astype(np.int16))
    total //= len(beside)
    if along_time:
        total = (total * strength) // STRENGTH_PARTS + _mean(along_time)
    else:  # differences within the field are as much, its mean stays
        mean = int(total.sum()) // total.size
        total = mean + ((total - mean) * strength) // STRENGTH_PARTS
    values = np.clip(total, -LARGEST, LARGEST).astype(np.int32)
    return Decoded(values, np.minimum(marks // len(beside), 127).astype(np.int8))


def _mean(fields: list[Decoded]) -> npt.NDArray[np.int64]:
    total = fields[0].values.astype(np.int64)
    for field in fields[1:]:
        total += field.values
    return total // len(fields)
