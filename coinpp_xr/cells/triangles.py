"""Triangles that are halved again and again along their sides: ICON and its kin.

The cells of a triangle are numbered by fours: the one in the middle first, then those in its three
corners, and so on within each of them. Which corner is whose follows from one rule for all levels,
found on cells of ICON's grid generator. Two triangles make a rhombus of rows and columns.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

# Triangles of the icosahedron; halvings of each that are worth it, and that there can be.
_BASE, _FEWEST_HALVINGS, MOST_HALVINGS = 20, 2, 12


def halvings_of(cells: int) -> int | None:
    """How often triangles were halved; None where a whole sphere has no such number of cells."""
    count, halvings = cells, 0
    while count % 4 == 0 and count // 4 >= _BASE:
        count, halvings = count // 4, halvings + 1
    root = round((count / _BASE) ** 0.5)
    whole = count == _BASE * root**2 and _FEWEST_HALVINGS <= halvings <= MOST_HALVINGS
    return halvings if whole else None


def places(cells: int, halvings: int) -> tuple[tuple[int, int], Int]:
    """A raster of rhombi one above the other, and where in it cells are."""
    side = 1 << halvings
    row, column = _in_triangle(halvings)
    number = np.arange(cells // side**2)[:, None]
    # The second triangle of a rhombus is the first one turned by half.
    turned = number % 2 == 1
    rows = np.where(turned, side - 1 - row, row) + number // 2 * side
    columns = np.where(turned, 2 * side - 1 - column, column)
    shape = (-(-len(number) // 2) * side, 2 * side)
    return shape, (rows * shape[1] + columns).ravel()


def _in_triangle(halvings: int) -> tuple[Int, Int]:
    """Row and column of the cells of one triangle, in their order."""
    # Three times the coordinates of corners 1, 2 and 3, whole numbers on all levels.
    side = 1 << halvings
    corners = 3 * np.array([[[0, 0], [side, 0], [0, side]]])
    for _ in range(halvings):
        one, two, three = np.moveaxis(corners, 1, 0)
        m12, m13, m23 = (one + two) // 2, (one + three) // 2, (two + three) // 2
        children = [(m13, m12, m23), (m13, one, m12), (two, m12, m23), (m23, three, m13)]
        corners = np.stack([np.stack(child, 1) for child in children], 1).reshape(-1, 3, 2)
    x, y = np.moveaxis(corners.sum(axis=1) // 3, 1, 0)  # three times the centre
    column, row = x // 3, y // 3
    # Upright triangles are on the near side of their square's diagonal.
    far = (x - 3 * column) + (y - 3 * row) >= 3
    return row, 2 * column + far
