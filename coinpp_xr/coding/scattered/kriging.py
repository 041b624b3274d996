"""Weights of the neighbours of a cell that foretell its value, by kriging, compiled.

The covariances are polyharmonic, -r, r³ and -r⁵ by distance, above a drift of polynomials (Matheron
1973): they know no scale. Sums, products, quotients and roots in double precision alone, one after
the other, so that all machines find the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]
Int16 = npt.NDArray[np.int16]

WEIGHT_BITS = 14
# Neighbours, the power of the distance, and terms of the drift: a constant, a plane, squares.
_KINDS = ((6, 1, 1), (12, 1, 1), (12, 3, 3), (12, 5, 6))
PREDICTIONS = len(_KINDS)
N_NEIGHBOURS = max(count for count, _, _ in _KINDS)
# Fewer neighbours than this say too little of what surrounds a cell.
_FEWEST = 8
_CELLS_AT_ONCE = 1 << 11
# Of a matrix whose rows depend on each other.
_SINGULAR = 1e-12
_LARGEST = 1.99


def weights_of(points: Float64, cells: Int, neighbours: Int) -> Int16:
    """Weights in 1/16384 that sum to one, shape (predictions, neighbours, cells).

    Parameters
    ----------
    points : float64 array, shape (points, 3)
        On the unit sphere.
    cells : int64 array, shape (cells,)
        Numbers of points.
    neighbours : int64 array, shape (cells, neighbours)
        The nearest first.
    """
    found = np.zeros((PREDICTIONS, neighbours.shape[1], len(cells)), np.int16)
    if neighbours.shape[1] < _FEWEST:
        found[:, 0] = 1 << WEIGHT_BITS
        return found

    def weigh(start: int) -> None:
        some = slice(start, start + _CELLS_AT_ONCE)
        most = neighbours.shape[1]
        rooms = np.empty((most, 2)), np.empty((most + 6, most + 6)), np.empty(most + 6)
        for kind, (count, power, terms) in enumerate(_KINDS):
            own = found[kind, :, some]
            _weigh(
                points, cells[some], neighbours[some], min(count, most), power, terms, *rooms, own
            )

    map_compiled(weigh, range(0, len(cells), _CELLS_AT_ONCE))
    return found


@compiled
def _weigh(
    points: Any,
    cells: Any,
    neighbours: Any,
    count: Any,
    power: Any,
    terms: Any,
    plane: Any,
    matrix: Any,
    solution: Any,
    weights: Any,
) -> None:
    """Weights of the nearest ``count`` neighbours of every cell, shape (neighbours, cells)."""
    size = count + terms
    for c in range(len(cells)):
        _project(points, cells[c], neighbours[c], count, plane)
        for i in range(count):
            u, v = plane[i, 0], plane[i, 1]
            for j in range(count):
                matrix[i, j] = _covariance(u - plane[j, 0], v - plane[j, 1], power)
            solution[i] = _covariance(u, v, power)
            for k in range(terms):
                matrix[i, count + k] = matrix[count + k, i] = _drift(u, v, k)
        for k in range(terms):
            for m in range(terms):
                matrix[count + k, count + m] = 0.0
            solution[count + k] = 1.0 if k == 0 else 0.0
        good = _solve(matrix, size, solution)
        for i in range(count):
            good = good and abs(solution[i]) < _LARGEST
        left = 1 << WEIGHT_BITS
        for i in range(count - 1, -1, -1):
            share = solution[i] if good else 1.0 / count
            rounded = int(np.rint(share * (1 << WEIGHT_BITS)))
            weights[i, c] = rounded if i > 0 else left
            left -= rounded


@compiled
def _project(points: Any, cell: Any, neighbours: Any, count: Any, plane: Any) -> None:
    """Neighbours on the plane that touches the sphere at a cell, in units of their distance."""
    x, y, z = points[cell, 0], points[cell, 1], points[cell, 2]
    east_x, east_y, east_z = -y, x, 0.0
    if abs(z) > 0.8:
        east_x, east_y, east_z = 0.0, -z, y
    length = np.sqrt(east_x * east_x + east_y * east_y + east_z * east_z)
    east_x, east_y, east_z = east_x / length, east_y / length, east_z / length
    north_x, north_y = y * east_z - z * east_y, z * east_x - x * east_z
    north_z = x * east_y - y * east_x
    total = 0.0
    for i in range(count):
        other = neighbours[i]
        dx, dy, dz = points[other, 0] - x, points[other, 1] - y, points[other, 2] - z
        u = east_x * dx + east_y * dy + east_z * dz
        v = north_x * dx + north_y * dy + north_z * dz
        plane[i, 0], plane[i, 1] = u, v
        total += np.sqrt(u * u + v * v)
    if total > 0:
        for i in range(count):
            plane[i, 0], plane[i, 1] = plane[i, 0] * count / total, plane[i, 1] * count / total


@compiled
def _covariance(u: Any, v: Any, power: Any) -> Any:
    squared = u * u + v * v
    r = np.sqrt(squared)
    if power == 1:
        return -r
    if power == 3:
        return squared * r
    return -(squared * squared * r)


@compiled
def _drift(u: Any, v: Any, term: Any) -> Any:
    if term == 0:
        return 1.0
    if term == 1:
        return u
    if term == 2:
        return v
    if term == 3:
        return u * u
    return u * v if term == 4 else v * v


@compiled
def _solve(matrix: Any, size: Any, solution: Any) -> Any:
    """Gauss's elimination with pivots of rows, in place; False where rows depend on each other."""
    for c in range(size):
        pivot = c
        for r in range(c + 1, size):
            if abs(matrix[r, c]) > abs(matrix[pivot, c]):
                pivot = r
        if not abs(matrix[pivot, c]) > _SINGULAR:
            return False
        if pivot != c:
            for k in range(c, size):
                matrix[c, k], matrix[pivot, k] = matrix[pivot, k], matrix[c, k]
            solution[c], solution[pivot] = solution[pivot], solution[c]
        for r in range(c + 1, size):
            factor = matrix[r, c] / matrix[c, c]
            if factor != 0.0:
                for k in range(c + 1, size):
                    matrix[r, k] -= factor * matrix[c, k]
                solution[r] -= factor * solution[c]
    for c in range(size - 1, -1, -1):
        total = solution[c]
        for k in range(c + 1, size):
            total -= matrix[c, k] * solution[k]
        solution[c] = total / matrix[c, c]
    return True
