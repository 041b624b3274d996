"""The wavelet of Cohen, Daubechies and Feauveau with 9 and 7 taps, by lifting, compiled.

Rows go around where a grid does and their number of columns is even; beyond all other edges fields
are mirrored. Doubles, and no decision depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]

_ALPHA, _BETA = -1.586134342059924, -0.052980118572961
_GAMMA, _DELTA = 0.882911075530934, 0.443506852043971
_SCALE = 1.149604398860241
# Fields are halved until their shorter side is no longer than that.
_SHORTEST = 10
_WORTH_A_THREAD = 200_000
# What an average, and a detail, of each level adds to a row, as a length; and of all levels above.
AVERAGE_NORMS = (0.99144, 1.015186, 1.025716, 1.028821, 1.029638, 1.029845)
DETAIL_NORMS = (1.020018, 0.983471, 1.019621, 1.03688, 1.042037, 1.043397)


class Details(NamedTuple):
    """What one level leaves beside its averages.

    Parameters
    ----------
    along_rows, along_columns, across : float64 arrays
        Differences along rows, of averages along columns; and so on.
    """

    along_rows: Float64
    along_columns: Float64
    across: Float64


def level_count(shape: tuple[int, int]) -> int:
    shorter, levels = min(shape), 0
    while shorter > _SHORTEST:
        shorter, levels = (shorter + 1) // 2, levels + 1
    return levels


def shapes_of(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Of the field, and of the averages of all levels."""
    shapes = [shape]
    for _ in range(level_count(shape)):
        rows, columns = shapes[-1]
        shapes.append(((rows + 1) // 2, (columns + 1) // 2))
    return shapes


def analyse(field: Float64, *, around: bool) -> tuple[Float64, list[Details]]:
    """Averages at the coarsest level, and details from fine to coarse."""
    details, field = [], field.copy()
    for rows, columns in shapes_of((field.shape[0], field.shape[1]))[:-1]:
        around = around and columns % 2 == 0
        _in_parts(_split_columns, columns, rows, field)
        wide, narrow = (columns + 1) // 2, columns // 2
        averages, along_rows = (
            np.empty(((rows + 1) // 2, wide)),
            np.empty(((rows + 1) // 2, narrow)),
        )
        along_columns, across = np.empty((rows // 2, wide)), np.empty((rows // 2, narrow))
        _in_parts(_split_rows, len(averages), columns, field, 0, averages, along_rows, around)
        _in_parts(_split_rows, len(across), columns, field, 1, along_columns, across, around)
        details.append(Details(along_rows, along_columns, across))
        field = averages
    return field, details


def synthesise(
    averages: Float64, details: Sequence[Details], shape: tuple[int, int], *, around: bool
) -> Float64:
    """The field again; overwrites what it is made from."""
    shapes, goes_around = shapes_of(shape)[:-1], []
    for _, columns in shapes:
        around = around and columns % 2 == 0
        goes_around.append(around)
    for one, (rows, columns), wraps in zip(
        reversed(details), reversed(shapes), reversed(goes_around), strict=True
    ):
        field = np.empty((rows, columns))
        _in_parts(_join_rows, len(averages), columns, field, 0, averages, one.along_rows, wraps)
        across = one.along_columns, one.across
        _in_parts(_join_rows, len(one.across), columns, field, 1, *across, wraps)
        _in_parts(_join_columns, columns, rows, field)
        averages = field
    return averages


def _in_parts(function: Callable[..., None], count: int, each: int, *arguments: Any) -> None:
    """Call a function for so many rows or columns, in two threads if there is enough to do."""
    parts = 2 if count * each > _WORTH_A_THREAD else 1

    def work(part: int) -> None:
        function(*arguments, count * part // parts, count * (part + 1) // parts)

    map_compiled(work, range(parts))


@inlined
def _lift_columns(field: Any, odd: int, factor: float, left: int, right: int) -> None:
    """Add neighbours above and below to every other row, from ``odd`` on; beyond edges mirrored."""
    last = len(field) - 1
    for i in range(odd, len(field), 2):
        above, below = i - 1, i + 1
        if above < 0:
            above = below
        if below > last:
            below = above
        own = field[i, left:right]
        one, other = field[above, left:right], field[below, left:right]
        for j in range(len(own)):
            own[j] += factor * (one[j] + other[j])


@inlined
def _multiply(field: Any, odd: int, factor: float, left: int, right: int) -> None:
    for i in range(odd, len(field), 2):
        own = field[i, left:right]
        for j in range(len(own)):
            own[j] *= factor


@compiled
def _split_columns(field: Any, left: int, right: int) -> None:
    """Averages in even rows, details in odd ones."""
    _lift_columns(field, 1, _ALPHA, left, right)
    _lift_columns(field, 0, _BETA, left, right)
    _lift_columns(field, 1, _GAMMA, left, right)
    _lift_columns(field, 0, _DELTA, left, right)
    _multiply(field, 0, _SCALE, left, right)
    _multiply(field, 1, 1 / _SCALE, left, right)


@compiled
def _join_columns(field: Any, left: int, right: int) -> None:
    _multiply(field, 0, 1 / _SCALE, left, right)
    _multiply(field, 1, _SCALE, left, right)
    _lift_columns(field, 0, -_DELTA, left, right)
    _lift_columns(field, 1, -_GAMMA, left, right)
    _lift_columns(field, 0, -_BETA, left, right)
    _lift_columns(field, 1, -_ALPHA, left, right)


@inlined
def _lift_odd(odd: Any, even: Any, factor: float, around: bool) -> None:
    for j in range(len(even) - 1):
        odd[j] += factor * (even[j] + even[j + 1])
    if len(odd) == len(even):
        last = len(odd) - 1
        odd[last] += factor * (even[last] + (even[0] if around else even[last]))


@inlined
def _lift_even(even: Any, odd: Any, factor: float, around: bool) -> None:
    last = len(odd) - 1
    even[0] += factor * (odd[0] + (odd[last] if around else odd[0]))
    for j in range(last):
        even[j + 1] += factor * (odd[j] + odd[j + 1])
    if len(even) > len(odd):
        even[last + 1] += 2 * factor * odd[last]


@compiled
def _split_rows(
    field: Any, odd: int, low: Any, high: Any, around: bool, first: int, last: int
) -> None:
    """Rows of a field, every other one from ``odd`` on, into averages and details."""
    for i in range(first, last):
        even, other, row = low[i], high[i], field[2 * i + odd]
        for j in range(len(even)):
            even[j] = row[2 * j]
        for j in range(len(other)):
            other[j] = row[2 * j + 1]
        _lift_odd(other, even, _ALPHA, around)
        _lift_even(even, other, _BETA, around)
        _lift_odd(other, even, _GAMMA, around)
        _lift_even(even, other, _DELTA, around)
        for j in range(len(even)):
            even[j] *= _SCALE
        for j in range(len(other)):
            other[j] /= _SCALE


@compiled
def _join_rows(
    field: Any, odd: int, low: Any, high: Any, around: bool, first: int, last: int
) -> None:
    """Overwrites averages and details."""
    for i in range(first, last):
        even, other, row = low[i], high[i], field[2 * i + odd]
        for j in range(len(even)):
            even[j] /= _SCALE
        for j in range(len(other)):
            other[j] *= _SCALE
        _lift_even(even, other, -_DELTA, around)
        _lift_odd(other, even, -_GAMMA, around)
        _lift_even(even, other, -_BETA, around)
        _lift_odd(other, even, -_ALPHA, around)
        for j in range(len(even)):
            row[2 * j] = even[j]
        for j in range(len(other)):
            row[2 * j + 1] = other[j]
