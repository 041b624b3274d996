"""In which order cells anywhere are coded: from few that are far apart to all of them.

What is not yet coded last is thinned out: of cells that touch each other one is left, as far as
possible at the distance of second neighbours. On cells that are mostly hexagons that leaves a
third. Those that go are coded in two passes, of which the first has no cell next to another either:
so that most cells are surrounded by decoded ones.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.scattered.nearest import nearest
from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

# Cells that are no further away than so many times the distance of the fourth nearest touch: the
# next ones of hexagons are at 1.73, of squares at 1.41.
_TOUCHING = 1.35
# Two rings of hexagons.
_AROUND = 18
# So many that are left are coded one after the other.
MOST_ANCHORS = 24
# Where cells are too much alike to be told apart, some are taken anyway.
_MOST_LEFT = 0.75


def passes_of(points: Float64) -> tuple[Int, list[Int]]:
    """Anchors, and the cells of all passes in the order in which they are coded.

    Parameters
    ----------
    points : float64 array, shape (cells, 3)
        On the unit sphere.
    """
    left = along_a_curve(points)
    passes: list[Int] = []
    while len(left) > MOST_ANCHORS:
        stays, reach = _apart(points, left)
        if stays.mean() > _MOST_LEFT:
            stays = np.arange(len(left)) % 2 == 0
        gone = left[~stays]
        first, _ = _apart(points, gone, reach[~stays])
        passes += [gone[~first], gone[first]]
        left = left[stays]
    return left, [cells for cells in reversed(passes) if len(cells)]


def along_a_curve(points: Float64) -> Int:
    """Numbers of points along Morton's curve through space."""
    whole = ((points + 1) * 1023.5).astype(np.int64)
    keys = np.zeros(len(points), np.int64)
    for bit in range(11):
        for axis in range(3):
            keys |= (whole[:, axis] >> bit & 1) << (3 * bit + axis)
    return np.argsort(keys, kind="stable")


def _apart(points: Float64, cells: Int, reach: Float64 | None = None) -> tuple[Bool, Float64]:
    """Which cells to take so that none touches another; and up to which squared distance they do.

    That depends on what is around a cell, where it is not told.
    """
    every, count = np.arange(len(cells)), min(_AROUND, len(cells) - 1)
    if not count:
        return np.ones(len(cells), np.bool_), np.zeros(len(cells))
    around, squared = nearest(np.ascontiguousarray(points[cells]), every, every, count)
    if reach is None:
        reach = _TOUCHING**2 * squared[:, 3]
    taken, touched, queued = np.zeros((3, len(cells)), np.bool_)
    _take(around, squared, reach, np.empty(len(cells), np.int64), queued, taken, touched)
    return taken, reach


@compiled
def _take(
    around: Any, squared: Any, reach: Any, queue: Any, queued: Any, taken: Any, touched: Any
) -> None:
    """Cells from one on, each time with what is around it and does not touch it, nearest first."""
    count = around.shape[1]
    for seed in range(len(queue)):
        if queued[seed]:
            continue
        first, last = 0, 1
        queue[0], queued[seed] = seed, True
        while first < last:
            cell = queue[first]
            first += 1
            if touched[cell]:
                continue
            taken[cell] = True
            for k in range(count):
                other = around[cell, k]
                if squared[cell, k] < reach[cell] and not taken[other]:
                    touched[other] = True
            for k in range(count):
                other = around[cell, k]
                if not touched[other] and not queued[other]:
                    queue[last], queued[other] = other, True
                    last += 1
