"""Which fields of a sequence are references of which, and what is decoded together.

Key fields stand at a regular distance and refer to nothing; those between two keys are halved again
and again, each referring to the nearest ones before and after it. Small fields are all between
the first and the last one. A background, which is known before anything is decoded, is one more
reference of fields that have fewer than two. Fields of the same depth that are small are coded in
one unit, so that there is enough to learn from.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

# Of fields that are worth being read one by one: no field needs more than three others then.
KEY_DISTANCE = 4
LARGE_FIELD = 1 << 17
# A unit holds fields up to about so many cells.
UNIT_CELLS = 1 << 16
MOST_REFERENCES = 2
# Fields that parameters of a kind are fitted to: so many, or up to about so many cells.
_FEWEST_OF_SAMPLE, _SAMPLE_CELLS = 3, 4 * UNIT_CELLS
# Stands for the background where references are numbers of fields.
BACKGROUND = -1

# Depth and number of a field, and those that it refers to.
Referring = tuple[int, int, tuple[int, ...]]


@dataclass(frozen=True)
class Unit:
    """Fields that are decoded together.

    Parameters
    ----------
    items : tuple of int
        Numbers of fields.
    references : tuple of tuple of int
        For every item, the fields that it refers to: none, one or two, as many for all. The
        background, where there is one, comes last.
    kind : int
        Units of a kind share their parameters.
    parent : int or None
        The unit, coded before, with whose state this one starts.
    """

    items: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    kind: int
    parent: int | None

    @property
    def n_references(self) -> int:
        return len(self.references[0])

    @property
    def refers_to_background(self) -> bool:
        return BACKGROUND in self.references[0]


def key_distance(cells: int, times: int) -> int:
    """Of fields of so many cells; all of a sequence lie between two keys where they are small."""
    return KEY_DISTANCE if cells >= LARGE_FIELD else max(times, 1)


def schedule(
    order: npt.NDArray[np.integer],
    present: npt.NDArray[np.bool_],
    cells: int,
    distance: int,
    *,
    background: bool = False,
) -> list[Unit]:
    """Units in an order in which every reference is decoded before it is needed.

    Parameters
    ----------
    order : int array, shape (sequences, times)
        Numbers of fields.
    present : bool array, shape (fields,)
        Those that hold nothing are left out.
    cells : int
        Of a field.
    distance : int
        Between keys.
    background : bool
        Whether there is one.
    """
    # (depth, number of references) → items with their references, in the order of sequences.
    found: dict[tuple[int, int], list[tuple[int, tuple[int, ...]]]] = {}
    for row in order:
        items = [int(item) for item in row if present[item]]
        for depth, item, others in _between_keys(items, distance):
            more = background and len(others) < MOST_REFERENCES
            references = (*others, BACKGROUND) if more else others
            found.setdefault((depth, len(references)), []).append((item, references))
    most = max(1, UNIT_CELLS // max(cells, 1))
    units: list[Unit] = []
    unit_of: dict[int, int] = {}
    for kind, key in enumerate(sorted(found)):
        members = found[key]
        for start in range(0, len(members), most):
            group = members[start : start + most]
            referring = tuple(each for _, each in group)
            parent = unit_of.get(referring[0][0]) if referring[0] else None
            for item, _ in group:
                unit_of[item] = len(units)
            units.append(Unit(tuple(item for item, _ in group), referring, kind, parent))
    return units


def needed_ranges(
    units: list[Unit],
    starts: npt.NDArray[np.int64],
    items: set[int],
    known: Container[int] = (),
) -> list[tuple[int, int]]:
    """Which bytes of the streams are needed for some fields: starts and ends, merged.

    Units that are ``known`` need none; ``starts`` are those of every unit's streams, and the end.
    """
    ranges: list[tuple[int, int]] = []
    for number in needed_units(units, items, known):
        if number in known:
            continue
        start, end = int(starts[number]), int(starts[number + 1])
        if ranges and ranges[-1][1] == start:
            ranges[-1] = ranges[-1][0], end
        else:
            ranges.append((start, end))
    return ranges


def sample_of(units: list[Unit], cells: int) -> Unit:
    """Some fields of units of a kind, at regular distances from the first to the last."""
    members = [m for unit in units for m in zip(unit.items, unit.references, strict=True)]
    count = min(len(members), max(_FEWEST_OF_SAMPLE, _SAMPLE_CELLS // max(cells, 1)))
    some = [members[(2 * k + 1) * len(members) // (2 * count)] for k in range(count)]
    items, references = zip(*some, strict=True)
    return Unit(items, references, units[0].kind, None)


def _between_keys(items: list[int], distance: int) -> list[Referring]:
    """(depth, item, references) of a sequence."""
    result: list[Referring] = [(0, items[at], ()) for at in range(0, len(items), distance)]
    for start in range(0, len(items), distance):
        end = start + distance
        if end >= len(items):
            end = len(items) - 1
            if end == start:
                continue
            result.append((1, items[end], (items[start],)))
        _halve(items, start, end, 2, result)
    return result


def _halve(
    items: list[int],
    start: int,
    end: int,
    depth: int,
    result: list[Referring],
) -> None:
    if end - start < 2:
        return
    middle = (start + end) // 2
    result.append((depth, items[middle], (items[start], items[end])))
    _halve(items, start, middle, depth + 1, result)
    _halve(items, middle, end, depth + 1, result)


def needed_units(units: list[Unit], wanted: set[int], known: Container[int] = ()) -> list[int]:
    """Numbers of the units that some fields need, themselves included, in order.

    What units that are ``known`` refer to is not needed for them.
    """
    unit_of = {item: number for number, unit in enumerate(units) for item in unit.items}
    needed: set[int] = set()
    waiting = [unit_of[item] for item in wanted if item in unit_of]
    while waiting:
        number = waiting.pop()
        if number in needed:
            continue
        needed.add(number)
        if number not in known:
            unit = units[number]
            waiting += [unit_of[r] for refs in unit.references for r in refs if r != BACKGROUND]
            waiting += [] if unit.parent is None else [unit.parent]
    return sorted(needed)
