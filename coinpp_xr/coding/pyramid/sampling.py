"""A sample of the points of a pass, with what predictions and sizes of errors are fitted to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.prediction import N_NEIGHBOURS, Places, Pool
from coinpp_xr.coding.pyramid.references import N_FEATURES, References, features_at, marks_at
from coinpp_xr.compiled import compiled

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Sample:
    """Points of a pass in the order of their rows.

    Parameters
    ----------
    features : float64 array, shape (points, 12 + features of references)
        Differences from the mean of the four nearest, in 1/64 of a step.
    target : float64 array, shape (points,)
        What is to be predicted, from that mean.
    steps : float64 array, shape (points, 3)
        At near and at far neighbours, and in references.
    places : int64 array, shape (3, points)
        Field, row and column.
    every : int
        One point of so many was taken.
    """

    features: Float64
    target: Float64
    steps: Float64
    places: npt.NDArray[np.int64]
    every: int

    @classmethod
    def of(
        cls,
        pool: Pool,
        places: Places,
        references: References,
        target: Float64,
        valid: Any,
        which: tuple[int, int, int],
        shape: tuple[int, ...],
        count: int,
    ) -> Sample:
        """About so many points; see :func:`~.prediction.quantise_row` for the arrays."""
        every = max(1, shape[0] * shape[1] * shape[2] // count)
        most = shape[0] * shape[1] * (shape[2] // every + 1)
        features = np.empty((most, N_NEIGHBOURS + N_FEATURES * references.number))
        found = np.empty(most)
        steps, where = np.empty((most, 3)), np.empty((3, most), np.int64)
        n = _gather(
            pool, places, references, target, valid, which, shape, every,
            features, found, steps, where,
        )  # fmt: skip
        return cls(features[:n], found[:n], steps[:n], where[:, :n], every)


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
    features: Float64,
    found: Float64,
    steps: Float64,
    where: Any,
) -> int:
    values, marks = pool
    row, column, spacing = which
    items, n_rows, n_columns = shape
    n = 0
    for i in range(n_rows):
        for item in range(items):
            # Other columns in every row, by the golden ratio.
            for j in range(((i * items + item) * 40503 >> 4) % every, n_columns, every):
                y, x = row + i * spacing, column + j * spacing
                if valid.shape[0] > 0 and not valid[item, y, x]:
                    continue
                total = np.int64(0)
                for k in range(N_NEIGHBOURS):
                    o = places.offsets[k] + item * places.strides[k] + i * places.steps[k] + j
                    features[n, k] = values[o]
                    if k < 4:
                        total += values[o]
                steps[n] = 0
                base = (total + 2) >> 2
                for k in range(N_NEIGHBOURS):
                    o = places.offsets[k] + item * places.strides[k] + i * places.steps[k] + j
                    features[n, k] -= base
                    steps[n, 0 if k < 4 else 1] += abs(np.int64(marks[o]))
                for k in range(references.number):
                    field = references.first[item] if k == 0 else references.second[item]
                    seen = references.first_marks[item] if k == 0 else references.second_marks[item]
                    rows, columns = references.rows, references.columns
                    at = N_NEIGHBOURS + N_FEATURES * k
                    f0, f1, f2, f3, f4 = features_at(
                        field, rows, columns, i, j, references.diagonal
                    )
                    features[n, at], features[n, at + 1], features[n, at + 2] = f0, f1, f2
                    features[n, at + 3], features[n, at + 4] = f3, f4
                    steps[n, 2] += marks_at(seen, rows, columns, i, j)
                found[n] = target[item, y, x] - base
                where[0, n], where[1, n], where[2, n] = item, i, j
                n += 1
    return n
