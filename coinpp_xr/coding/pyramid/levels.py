"""Levels and passes: which points are coded when, and which decoded ones surround them.

A grid at spacing h consists of four phases of spacing 2h: the coarser grid itself (rows and columns
even), the centres of its cells (both odd), and the midpoints of its edges along rows (even, odd)
and along columns (odd, even). They are coded in this order, so that the last have eight decoded
neighbours all around. Phases are kept as arrays of their own, padded on all sides: periodically in
longitude where the grid goes around, by the nearest row or column else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.decisions import mixes
from coinpp_xr.compiled import compiled
from coinpp_xr.parallel import map_compiled

# Halving goes on until neither side has more anchors than this.
MOST_ANCHORS = 6
# What a thread puts in its place at once.
_CELLS_AT_ONCE = 1 << 18
# Cells around every phase; no neighbour is further away.
PAD = 2


@dataclass(frozen=True)
class Pass:
    """Points of one phase, and where their neighbours are.

    Parameters
    ----------
    row, column : int
        Parity of the phase.
    neighbours : int64 array, shape (12 or 16, 3)
        The four nearest, the eight next, and those that only some efforts look at. Source (0 the
        coarser grid, 1 centres, 2 midpoints along rows), and what must be added to row and column
        of the point in its phase to get those of the neighbour in its own.
    """

    row: int
    column: int
    neighbours: npt.NDArray[np.int64]

    @property
    def diagonal(self) -> bool:
        """Whether the four nearest are those on diagonals: of centres."""
        return self.row == self.column


def _pass(row: int, column: int, *groups: list[tuple[int, int, int]]) -> Pass:
    return Pass(row, column, np.array([n for group in groups for n in group], np.int64))


PASSES = (
    # Diagonals at distance √2, then (±1, ±3) and (±3, ±1), in units of the finer spacing.
    _pass(
        1, 1,
        [(0, r, c) for r in (0, 1) for c in (0, 1)],
        [(0, r, c) for r in (0, 1) for c in (-1, 2)],
        [(0, r, c) for r in (-1, 2) for c in (0, 1)],
    ),
    # (0, ±1) and (±1, 0), then (±1, ±2) and (±2, ±1), then (0, ±3) and (±3, 0).
    _pass(
        0, 1,
        [(0, 0, 0), (0, 0, 1), (1, -1, 0), (1, 0, 0)],
        [(1, r, c) for r in (-1, 0) for c in (-1, 1)],
        [(0, r, c) for r in (-1, 1) for c in (0, 1)],
        [(0, 0, -1), (0, 0, 2), (1, -2, 0), (1, 1, 0)],
    ),
    # (0, ±1) and (±1, 0), then (±1, ±1) and (±1, ±2), then (±2, ±1).
    _pass(
        1, 0,
        [(1, 0, -1), (1, 0, 0), (0, 0, 0), (0, 1, 0)],
        [(2, r, c) for r in (0, 1) for c in (-1, 0)],
        [(0, r, c) for r in (0, 1) for c in (-1, 1)],
        [(1, r, c) for r in (-1, 1) for c in (-1, 0)],
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Reach:
    """What predictions look at, for each of the three passes.

    Parameters
    ----------
    neighbours : (int, int, int)
        How many of :attr:`Pass.neighbours`.
    beside : (bool, bool, bool)
        Whether at points of the same pass that were decoded before, too.
    """

    neighbours: tuple[int, int, int]
    beside: tuple[bool, bool, bool]


_FAST = Reach((12, 12, 12), (False, False, False))
_USUAL = Reach((12, 16, 16), (True, False, False))
_BEST = Reach((12, 16, 16), (True, True, True))


def reach_of(quick: int) -> Reach:
    """Where so many classes of expected size are coded by one context."""
    if not mixes(quick):
        return _FAST
    return _BEST if quick == 0 else _USUAL


def level_count(shape: tuple[int, int]) -> int:
    """How often the spacing is halved from the anchors to the grid itself."""
    count = 0
    while max(-(-side // (1 << count)) for side in shape) > MOST_ANCHORS:
        count += 1
    return count


class PassOfWalk(NamedTuple):
    """A pass as its parameters see it.

    Parameters
    ----------
    key : (level, pass)
    coarser : (level, pass)
        Of what is like it, further apart; there need not be such a pass.
    neighbours : int
        That predictions look at.
    beside : bool
        Whether they look at points of the same pass, too.
    """

    key: tuple[int, int]
    coarser: tuple[int, int]
    neighbours: int
    beside: bool


def passes_of_raster(shape: tuple[int, int], quick: int) -> list[PassOfWalk]:
    """All passes that have points, from coarse to fine."""
    reach = reach_of(quick)
    return [
        PassOfWalk(
            (level, number), coarser_than((level, number)),
            reach.neighbours[number], reach.beside[number],
        )
        for level in range(level_count(shape) - 1, -1, -1)
        for number, which in enumerate(PASSES)
        if all(-(-side // (1 << level)) > first
               for side, first in zip(shape, (which.row, which.column), strict=True))
    ]  # fmt: skip


def coarser_than(key: tuple[int, int]) -> tuple[int, int]:
    """(level, pass) of the same pass of the level before."""
    return key[0] + 1, key[1]


def interleave(finer: npt.NDArray[Any], phases: Sequence[npt.NDArray[Any]]) -> None:
    """Fill a grid with its four phases: the coarser grid, and the points of three passes.

    Parameters
    ----------
    finer : array, shape (items, rows, columns)
    phases : sequence of arrays, shape (items, about half the rows, about half the columns)
    """
    coarse, centres, along_rows, along_columns = phases
    items, rows, columns = finer.shape
    at_once = max(1, _CELLS_AT_ONCE // max(items * columns, 1))

    def fill(first: int) -> None:
        last = min(first + at_once, rows)
        _interleave(finer, coarse, centres, along_rows, along_columns, first, last)

    map_compiled(fill, range(0, rows, at_once))


@compiled
def _interleave(
    finer: Any,
    coarse: Any,
    centres: Any,
    along_rows: Any,
    along_columns: Any,
    first: int,
    last: int,
) -> None:
    for item in range(finer.shape[0]):
        for i in range(first, last):
            row, half = finer[item, i], i // 2
            even, odd = coarse[item, half], along_rows[item, half]
            if i % 2 == 1:
                even, odd = along_columns[item, half], centres[item, half]
            for j in range(len(odd)):
                row[2 * j] = even[j]
                row[2 * j + 1] = odd[j]
            if len(even) > len(odd):
                row[2 * len(odd)] = even[len(odd)]


def padded_size(shape: tuple[int, ...]) -> int:
    """Values of a padded phase of shape (items, rows, columns)."""
    return shape[0] * (shape[1] + 2 * PAD) * (shape[2] + 2 * PAD)


def pad(room: npt.NDArray[Any], *, around: bool) -> None:
    """Fill what surrounds a phase in ``room``, shape (items, 2 + rows + 2, 2 + columns + 2)."""
    rows, columns = room.shape[1] - 2 * PAD, room.shape[2] - 2 * PAD
    if rows == 0 or columns == 0:
        room[:] = 0
        return
    inside = room[:, PAD:-PAD]
    if around and columns >= PAD:
        inside[:, :, :PAD] = inside[:, :, columns : columns + PAD]
        inside[:, :, PAD + columns :] = inside[:, :, PAD : 2 * PAD]
    elif around:
        inside[:, :, :PAD] = inside[:, :, PAD + columns :] = inside[:, :, PAD : PAD + 1]
    else:
        inside[:, :, :PAD] = inside[:, :, PAD : PAD + 1]
        inside[:, :, PAD + columns :] = inside[:, :, PAD + columns - 1 : PAD + columns]
    room[:, :PAD] = room[:, PAD : PAD + 1]
    room[:, PAD + rows :] = room[:, PAD + rows - 1 : PAD + rows]
