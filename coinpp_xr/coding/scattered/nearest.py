"""Nearest neighbours among points in space, by a k-d tree, compiled (Friedman et al. 1977).

Of points that are equally far, the one with the smaller number is nearer: results depend on nothing
but the points.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# A leaf holds no more points than this.
_LEAF = 8
_QUERIES_AT_ONCE = 1 << 13
_DEEPEST = 64


class _Tree(NamedTuple):
    """Points in halves of halves: node k of depth d holds members n·k >> d … n·(k + 1) >> d.

    Parameters
    ----------
    points : float64 array, shape (points, 3)
    members : int64 array, shape (n,)
        Numbers of points, in the order of the leaves.
    depth : int
        Of the leaves.
    lows, highs : float64 arrays, shape (2^(depth + 1), 3)
        Boxes around the points of node k of depth d, at 2^d + k.
    """

    points: Float64
    members: Int
    depth: int
    lows: Float64
    highs: Float64


def nearest(points: Float64, members: Int, queries: Int, count: int) -> tuple[Int, Float64]:
    """The members that are nearest to points, other than these themselves.

    Parameters
    ----------
    points : float64 array, shape (points, 3)
    members, queries : int64 arrays, shapes (n,) and (q,)
        Numbers of points.
    count : int
        How many are wanted; no more than there are members besides the point itself.

    Returns
    -------
    (int64 array, float64 array), shape (q, count)
        Numbers of points, the nearest first, and squared distances.
    """
    depth = max(0, (len(members) - 1) // _LEAF).bit_length()
    boxes = np.empty((2, 2 << depth, 3))
    tree = _Tree(points, members.copy(), depth, boxes[0], boxes[1])
    _plant(tree)
    found = np.full((len(queries), count), -1, np.int64)
    squared = np.full((len(queries), count), np.inf)

    def search(start: int) -> None:
        some = slice(start, start + _QUERIES_AT_ONCE)
        stack, gaps = np.empty((_DEEPEST, 2), np.int64), np.empty(_DEEPEST)
        _search(tree, queries[some], stack, gaps, found[some], squared[some])

    map_compiled(search, range(0, len(queries), _QUERIES_AT_ONCE))
    return found, squared


@compiled
def _plant(tree: Any) -> None:
    """Halve members along the widest side of their box, again and again; then fit all boxes."""
    points, members, depth, lows, highs = tree
    n = len(members)
    for d in range(depth):
        for k in range(1 << d):
            first, last = n * k >> d, n * (k + 1) >> d
            axis = _widest(points, members, first, last)
            _halve(points, members, first, n * (2 * k + 1) >> (d + 1), last, axis)
    for k in range(1 << depth):
        node = (1 << depth) + k
        for a in range(3):
            lows[node, a], highs[node, a] = np.inf, -np.inf
        for m in range(n * k >> depth, n * (k + 1) >> depth):
            for a in range(3):
                lows[node, a] = min(lows[node, a], points[members[m], a])
                highs[node, a] = max(highs[node, a], points[members[m], a])
    for node in range((1 << depth) - 1, 0, -1):
        for a in range(3):
            lows[node, a] = min(lows[2 * node, a], lows[2 * node + 1, a])
            highs[node, a] = max(highs[2 * node, a], highs[2 * node + 1, a])


@compiled
def _widest(points: Any, members: Any, first: Any, last: Any) -> Any:
    """The axis along which members first … last reach furthest."""
    axis, widest = 0, -1.0
    for a in range(3):
        low, high = np.inf, -np.inf
        for m in range(first, last):
            low, high = min(low, points[members[m], a]), max(high, points[members[m], a])
        if high - low > widest:
            axis, widest = a, high - low
    return axis


@compiled
def _halve(points: Any, members: Any, first: Any, middle: Any, last: Any, axis: Any) -> None:
    """Put the smallest of members first … last before the middle (Hoare's quickselect)."""
    left, right = first, last - 1
    while left < right:
        pivot = members[(left + right) // 2]
        value = points[pivot, axis]
        i, j = left, right
        while i <= j:
            while points[members[i], axis] < value or (
                points[members[i], axis] == value and members[i] < pivot
            ):
                i += 1
            while points[members[j], axis] > value or (
                points[members[j], axis] == value and members[j] > pivot
            ):
                j -= 1
            if i <= j:
                members[i], members[j] = members[j], members[i]
                i += 1
                j -= 1
        if middle <= j:
            right = j
        elif middle >= i:
            left = i
        else:
            return


@compiled
def _gap(point: Any, lows: Any, highs: Any, node: Any) -> Any:
    """Squared distance of a point from the box of a node."""
    total = 0.0
    for a in range(3):
        outside = max(lows[node, a] - point[a], point[a] - highs[node, a], 0.0)
        total += outside * outside
    return total


@compiled
def _search(tree: Any, queries: Any, stack: Any, gaps: Any, found: Any, squared: Any) -> None:
    points, members, depth, lows, highs = tree
    n, count = len(members), found.shape[1]
    for q in range(len(queries)):
        own = queries[q]
        point, near, far = points[own], found[q], squared[q]
        stack[0, 0], stack[0, 1], gaps[0] = 0, 0, 0.0
        waiting = 1
        while waiting > 0:
            waiting -= 1
            d, k = stack[waiting, 0], stack[waiting, 1]
            if gaps[waiting] > far[count - 1]:
                continue
            if d == depth:
                for m in range(n * k >> d, n * (k + 1) >> d):
                    if members[m] != own:
                        _insert(points, point, members[m], near, far)
                continue
            one, other = 2 * k, 2 * k + 1
            gap_one = _gap(point, lows, highs, (2 << d) + one)
            gap_other = _gap(point, lows, highs, (2 << d) + other)
            if gap_one > gap_other:
                one, other, gap_one, gap_other = other, one, gap_other, gap_one
            stack[waiting, 0], stack[waiting, 1], gaps[waiting] = d + 1, other, gap_other
            stack[waiting + 1, 0], stack[waiting + 1, 1] = d + 1, one
            gaps[waiting + 1] = gap_one
            waiting += 2


@compiled
def _insert(points: Any, point: Any, member: Any, near: Any, far: Any) -> None:
    """Among the nearest so far, if it is one of them."""
    distance = 0.0
    for a in range(3):
        apart = points[member, a] - point[a]
        distance += apart * apart
    k = len(near) - 1
    if distance > far[k] or (distance == far[k] and member > near[k] >= 0):
        return
    while k > 0 and (distance < far[k - 1] or (distance == far[k - 1] and member < near[k - 1])):
        near[k], far[k] = near[k - 1], far[k - 1]
        k -= 1
    near[k], far[k] = member, distance
