"""Predictions of the points of a pass, compiled; integers only.

Fields are in 1/64 of a step, weights in 1/512: changing that changes the format. Every point of a
pass is predicted from coarser passes only, so that a pass is one vector
operation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.compiled import compiled

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

UNIT_BITS = 6
WEIGHT_BITS = 9
# Of fields, in 1/64 of a step.
LARGEST = 1 << 30
LARGEST_WEIGHT = (1 << 15) - 1


@compiled
def predict_rows(
    pool: Any,
    marks: Any,
    offsets: Int,
    steps: Int,
    strides: Int,
    weights: Int32,
    band_of: Int,
    references: Int32,
    first: int,
    last: int,
    predicted: Int32,
    sizes: Int32,
    scratch: Int,
) -> None:
    """Predict rows first … last of all fields of a pass, and tell what errors depend on.

    Parameters
    ----------
    pool : int32 array
        Padded phases, one after the other.
    marks : int8 array
        The steps that were decoded there, clipped.
    offsets, steps, strides : int64 arrays, shape (12,)
        Where the neighbours of the first point are; from one row, from one field to the next.
    weights : int32 array, shape (bands, 12 + features)
    band_of : int64 array, shape (rows,)
    references : int32 array, shape (features, items, rows, columns)
        Differences in reference fields.
    predicted : int32 array, shape (items, rows, columns)
    sizes : int32 array, shape (5, items, rows, columns)
        Spread of the nearest, distance of the prediction from their mean, steps at near and at far
        neighbours, signs of the near ones.
    scratch : int64 array, shape (3, 12 or columns, whichever is more)
    """
    items, _, columns = predicted.shape
    base, total, o = scratch[0], scratch[1], scratch[2]
    for item in range(items):
        for i in range(first, last):
            for k in range(12):
                o[k] = offsets[k] + item * strides[k] + i * steps[k]
            # Slices, because an index that might be negative keeps loops from being vectorised.
            n0, n1 = pool[o[0] : o[0] + columns], pool[o[1] : o[1] + columns]
            n2, n3 = pool[o[2] : o[2] + columns], pool[o[3] : o[3] + columns]
            m0, m1 = marks[o[0] : o[0] + columns], marks[o[1] : o[1] + columns]
            m2, m3 = marks[o[2] : o[2] + columns], marks[o[3] : o[3] + columns]
            spread, away = sizes[0, item, i], sizes[1, item, i]
            near, far, signs = sizes[2, item, i], sizes[3, item, i], sizes[4, item, i]
            for j in range(columns):
                a, b = np.int64(n0[j]), np.int64(n1[j])
                c, d = np.int64(n2[j]), np.int64(n3[j])
                middle = (a + b + c + d + 2) >> 2
                base[j] = middle
                total[j] = 1 << (WEIGHT_BITS - 1)
                spread[j] = abs(a - middle) + abs(b - middle) + abs(c - middle) + abs(d - middle)
            for j in range(columns):
                ma, mb, mc, md = np.int32(m0[j]), np.int32(m1[j]), np.int32(m2[j]), np.int32(m3[j])
                near[j] = abs(ma) + abs(mb) + abs(mc) + abs(md)
                signs[j] = (
                    at_most(at_least(ma, -1), 1)
                    + at_most(at_least(mb, -1), 1)
                    + at_most(at_least(mc, -1), 1)
                    + at_most(at_least(md, -1), 1)
                    + 4
                )
                far[j] = 0
            band = band_of[i]
            # Four at a time: sums then go to memory and back three times instead of twelve.
            for k in range(0, 12, 4):
                p0, p1 = pool[o[k] : o[k] + columns], pool[o[k + 1] : o[k + 1] + columns]
                p2, p3 = pool[o[k + 2] : o[k + 2] + columns], pool[o[k + 3] : o[k + 3] + columns]
                w0, w1 = np.int64(weights[band, k]), np.int64(weights[band, k + 1])
                w2, w3 = np.int64(weights[band, k + 2]), np.int64(weights[band, k + 3])
                w = w0 + w1 + w2 + w3
                for j in range(columns):
                    total[j] += (
                        w0 * np.int64(p0[j]) + w1 * np.int64(p1[j])
                        + w2 * np.int64(p2[j]) + w3 * np.int64(p3[j]) - w * base[j]
                    )  # fmt: skip
            for k in range(4, 12, 4):
                q0, q1 = marks[o[k] : o[k] + columns], marks[o[k + 1] : o[k + 1] + columns]
                q2, q3 = marks[o[k + 2] : o[k + 2] + columns], marks[o[k + 3] : o[k + 3] + columns]
                for j in range(columns):
                    far[j] += (
                        abs(np.int32(q0[j])) + abs(np.int32(q1[j]))
                        + abs(np.int32(q2[j])) + abs(np.int32(q3[j]))
                    )  # fmt: skip
            for k in range(references.shape[0]):
                w, extra = np.int64(weights[band, 12 + k]), references[k, item, i]
                for j in range(columns):
                    total[j] += w * np.int64(extra[j])
            row = predicted[item, i]
            for j in range(columns):
                value = base[j] + (total[j] >> WEIGHT_BITS)
                value = at_most(at_least(value, -LARGEST), LARGEST)
                row[j] = value
                away[j] = value - base[j]


@compiled
def look_at_reference(
    field: Int32,
    marks: npt.NDArray[np.int8],
    h: int,
    row: int,
    column: int,
    diagonal: bool,
    around: bool,
    features: Int32,
    old: Int32,
) -> None:
    """What a reference field says of the points of a pass.

    Parameters
    ----------
    field, marks : arrays, shape (n_lat, n_lon)
        A decoded field and its steps.
    h, row, column, diagonal :
        Spacing and phase of the points; whether the four nearest are those on diagonals.
    features : int32 array, shape (5, rows, columns)
        Differences at the place and its four neighbours from the mean of the four nearest of the
        pass.
    old : int32 array, shape (rows, columns)
        Steps there; is added to.
    """
    n_lat, n_lon = field.shape
    _, rows, columns = features.shape
    for i in range(rows):
        y = row * h + i * 2 * h
        up, down = at_least(y - 1, 0), at_most(y + 1, n_lat - 1)
        far_up, far_down = at_least(y - h, 0), at_most(y + h, n_lat - 1)
        for j in range(columns):
            x = column * h + j * 2 * h
            if around:
                west, east = (x - 1) % n_lon, (x + 1) % n_lon
                far_west, far_east = (x - h) % n_lon, (x + h) % n_lon
            else:
                west, east = at_least(x - 1, 0), at_most(x + 1, n_lon - 1)
                far_west, far_east = at_least(x - h, 0), at_most(x + h, n_lon - 1)
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
            features[0, i, j] = field[y, x] - base
            features[1, i, j] = field[up, x] - base
            features[2, i, j] = field[down, x] - base
            features[3, i, j] = field[y, west] - base
            features[4, i, j] = field[y, east] - base
            old[i, j] += (
                2 * abs(np.int32(marks[y, x])) + abs(np.int32(marks[up, x]))
                + abs(np.int32(marks[down, x])) + abs(np.int32(marks[y, west]))
                + abs(np.int32(marks[y, east]))
            )  # fmt: skip
