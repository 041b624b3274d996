"""Which fields of a sequence are references of which, and what is decoded together.

Key fields stand at a regular distance and refer to nothing; those between two keys are halved again
and again, each referring to the nearest ones before and after it. Small fields are all between
the first and the last one. Sequences of levels are halved in the same way: a field of one between
two others also refers to what is new there at its time (:data:`Beside`). A background, which is
known before anything is decoded, is one more reference of fields that have fewer than two. Fields
of the same depth that are small are coded in one unit, so that there is enough to learn from.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

# Of fields that are worth being read one by one: no field needs more than three others then.
KEY_DISTANCE = 4
LARGE_FIELD = 1 << 17
# A unit holds fields up to about so many cells.
UNIT_CELLS = 1 << 16
# Before and after, and what is new above and below.
MOST_REFERENCES = 3
_MOST_ALONG_TIME = 2
LEVEL_DISTANCE = 4
# How much of what is new above and below a field refers to, in parts of one.
STRENGTH_PARTS = 8
# Fields that parameters of a kind are fitted to: so many, or up to about so many cells.
_FEWEST_OF_SAMPLE, _SAMPLE_CELLS = 3, 4 * UNIT_CELLS
# Stands for the background where references are numbers of fields.
BACKGROUND = -1

# Depth and number of a field, and those that it refers to.
Referring = tuple[int, int, tuple[int, ...]]

# A field of the same time on another level, and those that it refers to along time. What it differs
# from their mean is new there, and likely to be so on other levels.
Beside = tuple[int, ...]


@dataclass(frozen=True)
class Unit:
    """Fields that are decoded together.

    Parameters
    ----------
    items : tuple of int
        Numbers of fields.
    references : tuple of tuple of int
        For every item, the fields that it refers to along time: none, one or two, as many for all.
        The background, where there is one, comes last.
    kind : int
        Units of a kind share their parameters.
    parent : int or None
        The unit, coded before, with whose state this one starts.
    beside : tuple of tuple of Beside
        For every item, fields above and below.
    strengths : tuple of int
        For every item, how much of them, in ``STRENGTH_PARTS``.
    """

    items: tuple[int, ...]
    references: tuple[tuple[int, ...], ...]
    kind: int
    parent: int | None
    beside: tuple[tuple[Beside, ...], ...] = ()
    strengths: tuple[int, ...] = ()

    @property
    def n_references(self) -> int:
        """To how many fields each refers; those above and below count as one."""
        return len(self.references[0]) + self.refers_beside

    @property
    def refers_beside(self) -> bool:
        return bool(self.beside) and bool(self.beside[0])

    def needed(self) -> Iterator[int]:
        """All fields that it refers to, some of them more than once."""
        for references in self.references:
            yield from references
        for own in self.beside:
            for fields in own:
                yield from fields

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
    levels: int = 1,
    strengths: npt.NDArray[np.integer] | None = None,
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
    levels : int
        So many sequences are those of levels, one above the other; a divisor of their number.
    strengths : int array, shape (2, levels), optional
        Of what is new above and below; of fields that refer to none along time, and of others.
    """
    # (depths, number of references) → members, in the order of sequences.
    found: dict[tuple[int, ...], list[_Member]] = {}
    for depth, level_depth, member in _referring(order, present, distance, levels, strengths):
        if background and len(member.references) < _MOST_ALONG_TIME:
            member = member._replace(references=(*member.references, BACKGROUND))
        # Who refers to no other level need not wait for one.
        height = 1 + level_depth if member.beside else 0
        key = depth, height, len(member.references)
        found.setdefault(key, []).append(member)
    most = max(1, UNIT_CELLS // max(cells, 1))
    units: list[Unit] = []
    unit_of: dict[int, int] = {}
    for kind, (_, members) in enumerate(sorted(found.items())):
        for start in range(0, len(members), most):
            group = members[start : start + most]
            first = (*group[0].references, *(fields[0] for fields in group[0].beside))
            parent = unit_of.get(first[0]) if first else None
            unit_of |= {member.item: len(units) for member in group}
            units.append(_unit(group, kind, parent))
    return units


class _Member(NamedTuple):
    """A field of a unit, see :class:`Unit`."""

    item: int
    references: tuple[int, ...]
    beside: tuple[Beside, ...] = ()
    strength: int = 0


def _unit(members: Sequence[_Member], kind: int, parent: int | None) -> Unit:
    items, references, beside, strengths = zip(*members, strict=True)
    return Unit(items, references, kind, parent, beside, strengths)


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
    members = [
        _Member(*member)
        for unit in units
        for member in zip(unit.items, unit.references, unit.beside, unit.strengths, strict=True)
    ]
    count = min(len(members), max(_FEWEST_OF_SAMPLE, _SAMPLE_CELLS // max(cells, 1)))
    some = [members[(2 * k + 1) * len(members) // (2 * count)] for k in range(count)]
    return _unit(some, units[0].kind, None)


def _referring(
    order: npt.NDArray[np.integer],
    present: npt.NDArray[np.bool_],
    distance: int,
    levels: int,
    strengths: npt.NDArray[np.integer] | None,
) -> Iterator[tuple[int, int, _Member]]:
    """Depths along time and levels of all fields, and what they refer to."""
    if levels == 1:
        for row in order:
            items = [int(item) for item in row if present[item]]
            for depth, item, others in _between_keys(items, distance):
                yield depth, 0, _Member(item, others)
        return
    for group in order.reshape(-1, levels, order.shape[1]):
        # Levels and times that hold something somewhere: what refers to what must not depend on
        # single fields that are missing, or fields could refer to each other.
        there = present[group]
        at_levels, at_times = (np.flatnonzero(there.any(axis=axis)).tolist() for axis in (1, 0))
        along_levels = _between_keys(at_levels, LEVEL_DISTANCE)
        for depth, time, times in _between_keys(at_times, distance):
            for level_depth, level, above_and_below in along_levels:
                if not there[level, time]:
                    continue
                known = [t for t in times if there[level, t]]
                strength = 0 if strengths is None else int(strengths[int(bool(known)), level])
                if not strength:
                    above_and_below = ()
                beside = tuple(
                    tuple(int(group[at, t]) for t in (time, *known))
                    for at in above_and_below
                    if there[at, [time, *known]].all()
                )
                references = tuple(int(group[level, t]) for t in known)
                item = int(group[level, time])
                yield depth, level_depth, _Member(item, references, beside, strength)


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
            waiting += {unit_of[r] for r in unit.needed() if r != BACKGROUND}
            waiting += [] if unit.parent is None else [unit.parent]
    return sorted(needed)
