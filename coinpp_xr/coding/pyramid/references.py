"""What decoded fields say of the points of a pass: those before and after, above and below."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.range_coder import at_least
from coinpp_xr.compiled import compiled

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Int8 = npt.NDArray[np.int8]

# Differences at the place and its four neighbours.
N_FEATURES = 5


class References(NamedTuple):
    """The fields that a unit refers to, and where the points of a pass and those around lie there.

    Parameters
    ----------
    number : int
        Zero to three for every field.
    fields : three int32 arrays, shape (items, n_lat, n_lon)
        Decoded fields; of no items where there are fewer.
    marks : three int8 arrays of the same shape
        The steps that were decoded there, clipped.
    rows, columns : int64 arrays, shape (5, rows), (5, columns)
        Of the points, of their neighbours before and behind, and of those at the distance of the
        pass.
    diagonal : bool
        Whether the four nearest of the pass are those on diagonals.
    """

    number: int
    fields: tuple[Int32, Int32, Int32]
    marks: tuple[Int8, Int8, Int8]
    rows: Int
    columns: Int
    diagonal: bool


def stencil(count: int, first: int, spacing: int, size: int, *, around: bool) -> Int:
    """Rows or columns of :class:`References`: of ``count`` points, ``spacing`` apart."""
    half = spacing // 2
    at = first + spacing * np.arange(count)
    places = np.stack([at, at - 1, at + 1, at - half, at + half])
    return places % size if around else np.clip(places, 0, size - 1)


@compiled
def features_at(field: Any, rows: Any, columns: Any, i: Any, j: Any, diagonal: Any) -> Any:
    """Differences at a point and its neighbours from the mean of the four nearest of the pass."""
    y, up, down, far_up, far_down = rows[0, i], rows[1, i], rows[2, i], rows[3, i], rows[4, i]
    x, west, east = columns[0, j], columns[1, j], columns[2, j]
    far_west, far_east = columns[3, j], columns[4, j]
    if diagonal:
        total = (
            np.int64(field[far_up, far_west]) + field[far_up, far_east]
            + field[far_down, far_west] + field[far_down, far_east]
        )  # fmt: skip
    else:
        total = (
            np.int64(field[far_up, x]) + field[far_down, x]
            + field[y, far_west] + field[y, far_east]
        )  # fmt: skip
    base = (total + 2) >> 2
    return (
        field[y, x] - base, field[up, x] - base, field[down, x] - base,
        field[y, west] - base, field[y, east] - base,
    )  # fmt: skip


@compiled
def marks_at(marks: Any, rows: Any, columns: Any, i: Any, j: Any) -> Any:
    """Steps at a point and its neighbours."""
    y, x = rows[0, i], columns[0, j]
    return (
        2 * abs(np.int64(marks[y, x])) + abs(np.int64(marks[rows[1, i], x]))
        + abs(np.int64(marks[rows[2, i], x])) + abs(np.int64(marks[y, columns[1, j]]))
        + abs(np.int64(marks[y, columns[2, j]]))
    )  # fmt: skip


@compiled
def _look_inside(field: Any, rows: Any, columns: Any, i: Any, diagonal: Any, features: Any) -> None:
    """:func:`features_at` for all but the first and the last of a row, which reach no edge."""
    count = columns.shape[1]
    if count < 3:
        return
    first, step = columns[0, 0], columns[0, 1] - columns[0, 0]
    half = step // 2
    # The second point of the row, and what is beside it.
    x = first + step
    here, up, down = field[rows[0, i]], field[rows[1, i]], field[rows[2, i]]
    far_up, far_down = field[rows[3, i]], field[rows[4, i]]
    middle, west, east = here[x:], here[x - 1 :], here[x + 1 :]
    north, south = up[x:], down[x:]
    if diagonal:
        a, b, c, d = (
            far_up[x - half :],
            far_up[x + half :],
            far_down[x - half :],
            far_down[x + half :],
        )
    else:
        a, b, c, d = far_up[x:], far_down[x:], here[x - half :], here[x + half :]
    f0, f1, f2, f3, f4 = (
        features[0, 1:],
        features[1, 1:],
        features[2, 1:],
        features[3, 1:],
        features[4, 1:],
    )
    for j in range(count - 2):
        at = j * step
        base = (np.int64(a[at]) + b[at] + c[at] + d[at] + 2) >> 2
        f0[j] = middle[at] - base
        f1[j] = north[at] - base
        f2[j] = south[at] - base
        f3[j] = west[at] - base
        f4[j] = east[at] - base


@compiled
def _marks_inside(marks: Any, rows: Any, columns: Any, i: Any, past: Any, add: Any) -> None:
    """:func:`marks_at` for all but the first and the last of a row."""
    count = columns.shape[1]
    if count < 3:
        return
    step = columns[0, 1] - columns[0, 0]
    x = columns[0, 0] + step
    here, up, down = marks[rows[0, i]], marks[rows[1, i]], marks[rows[2, i]]
    middle, west, east, north, south = here[x:], here[x - 1 :], here[x + 1 :], up[x:], down[x:]
    inside = past[1:]
    for j in range(count - 2):
        at = j * step
        found = (
            2 * abs(np.int32(middle[at])) + abs(np.int32(west[at])) + abs(np.int32(east[at]))
            + abs(np.int32(north[at])) + abs(np.int32(south[at]))
        )  # fmt: skip
        inside[j] = inside[j] + found if add else found


@compiled
def look_at_row(
    references: References, item: int, i: int, features: Any, past: Any, apart: Any
) -> None:
    """What references say of a row of points.

    Parameters
    ----------
    features : int32 array, shape (5 · number, columns)
    past, apart : int32 arrays, shape (columns,)
        Steps there; how far the first two are from what they suggest of each other.
    """
    rows, columns, diagonal = references.rows, references.columns, references.diagonal
    count = len(past)
    for k in range(references.number):
        field, marks = references.fields[k][item], references.marks[k][item]
        own = features[N_FEATURES * k : N_FEATURES * (k + 1)]
        for edge in range(min(count, 2)):
            j = edge * (count - 1)
            f0, f1, f2, f3, f4 = features_at(field, rows, columns, i, j, diagonal)
            own[0, j], own[1, j], own[2, j], own[3, j], own[4, j] = f0, f1, f2, f3, f4
            here = marks_at(marks, rows, columns, i, j)
            past[j] = here if k == 0 else past[j] + here
        _look_inside(field, rows, columns, i, diagonal, own)
        _marks_inside(marks, rows, columns, i, past, k > 0)
    if references.number == 1:
        for j in range(len(past)):
            apart[j] = at_least(abs(np.int64(features[0, j])), 0)
    elif references.number > 1:
        for j in range(len(past)):
            apart[j] = abs(np.int64(features[0, j]) - np.int64(features[N_FEATURES, j]))
