"""A sample of the points of a pass, with what predictions and sizes of errors are fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.prediction import N_BESIDE, N_NEAR, Places, Pool, neighbour_count
from coinpp_xr.coding.pyramid.references import N_FEATURES, References, features_at, marks_at
from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Points of a pass in the order of their rows.

    Parameters
    ----------
    features : float64 array, shape (points, neighbours + features of references + 4 beside)
        Differences from the mean of the four nearest, in 1/64 of a step; the last are not known
        before :meth:`look_beside`.
    target : float64 array, shape (points,)
        What is to be predicted, from that mean.
    steps : float64 array, shape (points, 3)
        At near and at far neighbours, and in references.
    places : int64 array, shape (3, points)
        Field, row and column.
    shares : float64 array, shape (points,)
        What an error counts for; to be filled.
    neighbours, references : int
        How many of them there are.
    """

    features: Float64
    target: Float64
    steps: Float64
    places: npt.NDArray[np.int64]
    shares: Float64
    neighbours: int
    references: int

    @classmethod
    def of(
        cls,
        pool: Pool,
        places: Places,
        references: References,
        target: Any,
        valid: Any,
        which: tuple[int, int, int],
        shape: tuple[int, ...],
        every: int,
        first: int,
        last: int,
    ) -> Sample:
        """One point of so many in rows first … last.

        See :func:`coinpp_xr.coding.pyramid.prediction.quantise_row` for the arrays.
        """
        most = shape[0] * (last - first) * (shape[2] // every + 1)
        neighbours = neighbour_count(places)
        count = neighbours + N_FEATURES * references.number + N_BESIDE * places.beside
        features = np.zeros((most, count))
        found = np.empty(most)
        steps, where = np.empty((most, 3)), np.empty((3, most), np.int64)
        n = _gather(
            pool, places, references, target, valid, which, shape, every, first, last,
            np.empty(neighbours, np.int64), features, found, steps, where,
        )  # fmt: skip
        return cls(
            features[:n], found[:n], steps[:n], where[:, :n], np.empty(n),
            neighbours, references.number,
        )  # fmt: skip

    def look_beside(self, pool: Pool, places: Places, first: int) -> None:
        """Add what is decoded of points of the same pass; row ``first`` has none above it."""
        _look_beside(pool, places, self.places, first, self.features[:, -N_BESIDE:])


@compiled
def _gather(
    pool: Pool,
    places: Places,
    references: References,
    target: Any,
    valid: Any,
    which: Any,
    shape: Any,
    every: int,
    first: int,
    last: int,
    starts: Any,
    features: Float64,
    found: Float64,
    steps: Float64,
    where: Any,
) -> int:
    values, marks = pool
    row, column, spacing = which
    items, _, n_columns = shape
    neighbours = neighbour_count(places)
    n = 0
    for i in range(first, last):
        y = row + i * spacing
        for item in range(items):
            for k in range(neighbours):
                starts[k] = places.offsets[k] + item * places.strides[k] + i * places.steps[k]
            # Other columns in every row, by the golden ratio.
            for j in range(((i * items + item) * 40503 >> 4) % every, n_columns, every):
                x = column + j * spacing
                if valid.shape[0] > 0 and not valid[item, y, x]:
                    continue
                own, seen = features[n], steps[n]
                total = np.int64(2)
                for k in range(4):
                    total += values[starts[k] + j]
                base = total >> 2
                near, far = np.int64(0), np.int64(0)
                for k in range(neighbours):
                    own[k] = values[starts[k] + j] - base
                for k in range(4):
                    near += abs(np.int64(marks[starts[k] + j]))
                for k in range(4, N_NEAR):
                    far += abs(np.int64(marks[starts[k] + j]))
                seen[0], seen[1], seen[2] = near, far, 0
                for k in range(references.number):
                    field = references.fields[k][item]
                    rows, columns = references.rows, references.columns
                    at = neighbours + N_FEATURES * k
                    own[at], own[at + 1], own[at + 2], own[at + 3], own[at + 4] = features_at(
                        field, rows, columns, i, j, references.diagonal
                    )
                    seen[2] += marks_at(references.marks[k][item], rows, columns, i, j)
                found[n] = target[item, y, x] - base
                where[0, n], where[1, n], where[2, n] = item, i, j
                n += 1
    return n


@compiled
def _look_beside(pool: Pool, places: Places, where: Any, first: int, features: Any) -> None:
    values = pool.values
    offsets, steps, strides = places.offsets, places.steps, places.strides
    last = neighbour_count(places)
    for n in range(where.shape[1]):
        item, i, j = where[0, n], where[1, n], where[2, n]
        total = np.int64(2)
        for k in range(4):
            total += values[offsets[k] + item * strides[k] + i * steps[k] + j]
        base, own = total >> 2, features[n]
        o = offsets[last] + item * strides[last] + i * steps[last] + j
        own[:] = 0
        if i > first:
            above = o - steps[last]
            own[0], own[1] = values[above - 1] - base, values[above] - base
            own[2] = values[above + 1] - base
        if j > 0:
            own[3] = values[o - 1] - base
