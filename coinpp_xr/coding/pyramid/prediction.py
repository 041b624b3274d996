"""Predictions of the points of a pass, compiled; integers only.

Fields are in 1/64 of a step, weights in 1/512: changing that changes the format. Points are
predicted from coarser passes, so that a row is one vector operation; centres of cells, which have
nothing but far points around them, also from the points of their own pass that were decoded just
before: the row above, and the one to the west, for which they must go one by one. At best all do.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.limits import (
    LARGEST,
    UNIT_BITS,
    Limits,
    as_prediction,
    rebuilt,
    steps_to,
)
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.coding.pyramid.references import N_FEATURES, References, look_at_row
from coinpp_xr.compiled import compiled, inlined

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

WEIGHT_BITS = 9
LARGEST_WEIGHT = (1 << 15) - 1
# Neighbours whose steps are looked at, too; the others are further away.
N_NEAR = 12
# Of their own pass: north-west, north, north-east and west.
N_BESIDE = 4
# What a magnitude is expected from: a constant, the spread of the four nearest neighbours, how far
# the prediction is from their mean, steps at near and far neighbours, at those decoded just
# before, in reference fields, and how far references are from what they suggest of each other.
N_COEFFICIENTS = 8
COEFFICIENT_BITS = 8
# Where nothing is known of a pass: a few units, some of the spread, of the steps around.
USUAL_COEFFICIENTS = np.array([1218, 8, 12, 16, 4, 8, 0, 0], np.int64)

# Zeros that surround the steps of a row: two before it, one behind.
BEFORE, BEHIND = 2, 1


class Pool(NamedTuple):
    """The padded phases of a level, one after the other.

    Parameters
    ----------
    values : int32 array
    marks : int8 array
        The steps that were decoded there, clipped.
    """

    values: Int32
    marks: npt.NDArray[np.int8]


class Places(NamedTuple):
    """Where the neighbours of a pass are in the pool, and, last, its own points.

    Parameters
    ----------
    offsets : int64 array, shape (neighbours + 1,)
        Of the first point.
    steps, strides : int64 arrays, shape (neighbours + 1,)
        From one row, from one field to the next.
    beside : bool
        Whether points are predicted from those of their own pass, too.
    around : bool
        Whether the first column follows the last.
    """

    offsets: Int
    steps: Int
    strides: Int
    beside: bool
    around: bool


@compiled
def neighbour_count(places: Places) -> int:
    """How many neighbours of a point predictions look at."""
    return len(places.offsets) - 1


class Rows(NamedTuple):
    """What is found out about a row, for as long as it is worked on.

    Parameters
    ----------
    base, total, size : int64 arrays, shape (columns,)
        The mean of the four nearest; sums; what steps are expected to be from what was coded
        before this pass.
    predicted, spread, away, off : int32 arrays, shape (columns,)
        The prediction; how far the nearest are from their mean, and the prediction; how far that
        was before it was made to keep to limits.
    near, far, signs : uint16 arrays, shape (columns,)
        Steps at near and at far neighbours; signs of the near ones.
    features : int32 array, shape (features of references, columns)
    past, apart : int32 arrays, shape (columns,)
        Steps in references; how far those are from what they suggest of each other.
    nothing : int32 array
        Steps of a row that is not there.
    """

    base: Int
    total: Int
    size: Int
    predicted: Int32
    spread: Int32
    away: Int32
    off: Int32
    near: npt.NDArray[np.uint16]
    far: npt.NDArray[np.uint16]
    signs: npt.NDArray[np.uint16]
    features: Int32
    past: Int32
    apart: Int32
    nothing: Int32

    @classmethod
    def of(cls, columns: int, n_references: int) -> Rows:
        base, total, size = np.empty((3, columns), np.int64)
        predicted, spread, away, off, past, apart = np.empty((6, columns), np.int32)
        near, far, signs = np.empty((3, columns), np.uint16)
        features = np.empty((N_FEATURES * n_references, columns), np.int32)
        nothing = np.zeros(BEFORE + columns + BEHIND, np.int32)
        return cls(
            base, total, size, predicted, spread, away, off, near, far, signs, features, past,
            apart, nothing,
        )  # fmt: skip


@compiled
def _mark_of(mark: Any) -> Any:
    return at_most(at_least(np.int32(mark), -1), 1)


@compiled
def predict_row(
    pool: Pool,
    places: Places,
    weights: Int32,
    references: References,
    limits: Limits,
    item: int,
    i: int,
    first: int,
    rows: Rows,
) -> None:
    """Predict a row of a field, and tell what its errors depend on.

    Where points depend on the one before them, their sums are told, all but what that adds.

    Parameters
    ----------
    weights : int32 array, shape (neighbours + features of references + 4 beside,)
    first : int
        The row that must not look at the one above.
    """
    values, marks = pool
    offsets, steps, strides = places.offsets, places.steps, places.strides
    base, total = rows.base, rows.total
    columns, neighbours = len(base), neighbour_count(places)

    def start(k: Any) -> Any:
        return offsets[k] + item * strides[k] + i * steps[k]

    # Slices, because an index that might be negative keeps loops from being vectorised.
    s0, s1, s2, s3 = start(0), start(1), start(2), start(3)
    n0, n1 = values[s0 : s0 + columns], values[s1 : s1 + columns]
    n2, n3 = values[s2 : s2 + columns], values[s3 : s3 + columns]
    m0, m1 = marks[s0 : s0 + columns], marks[s1 : s1 + columns]
    m2, m3 = marks[s2 : s2 + columns], marks[s3 : s3 + columns]
    spread, away, off, predicted = rows.spread, rows.away, rows.off, rows.predicted
    near, far, signs = rows.near, rows.far, rows.signs
    for j in range(columns):
        a, b = np.int64(n0[j]), np.int64(n1[j])
        c, d = np.int64(n2[j]), np.int64(n3[j])
        middle = (a + b + c + d + 2) >> 2
        base[j] = middle
        total[j] = 1 << (WEIGHT_BITS - 1)
        apart = abs(a - middle) + abs(b - middle) + abs(c - middle) + abs(d - middle)
        spread[j] = at_most(apart, LARGEST)
    for j in range(columns):
        ma, mb, mc, md = np.int32(m0[j]), np.int32(m1[j]), np.int32(m2[j]), np.int32(m3[j])
        near[j] = abs(ma) + abs(mb) + abs(mc) + abs(md)
        signs[j] = _mark_of(ma) + _mark_of(mb) + _mark_of(mc) + _mark_of(md) + 4
        far[j] = 0
    # Four at a time: sums then go to memory and back a quarter as often.
    for k in range(0, neighbours, 4):
        s0, s1, s2, s3 = start(k), start(k + 1), start(k + 2), start(k + 3)
        p0, p1 = values[s0 : s0 + columns], values[s1 : s1 + columns]
        p2, p3 = values[s2 : s2 + columns], values[s3 : s3 + columns]
        w0, w1 = np.int64(weights[k]), np.int64(weights[k + 1])
        w2, w3 = np.int64(weights[k + 2]), np.int64(weights[k + 3])
        w = w0 + w1 + w2 + w3
        for j in range(columns):
            total[j] += (
                w0 * np.int64(p0[j]) + w1 * np.int64(p1[j])
                + w2 * np.int64(p2[j]) + w3 * np.int64(p3[j]) - w * base[j]
            )  # fmt: skip
        if 0 < k < N_NEAR:
            q0, q1 = marks[s0 : s0 + columns], marks[s1 : s1 + columns]
            q2, q3 = marks[s2 : s2 + columns], marks[s3 : s3 + columns]
            for j in range(columns):
                far[j] += (
                    abs(np.int32(q0[j])) + abs(np.int32(q1[j]))
                    + abs(np.int32(q2[j])) + abs(np.int32(q3[j]))
                )  # fmt: skip
    look_at_row(references, item, i, rows.features, rows.past, rows.apart)
    for k in range(N_FEATURES * references.number):
        weight, feature = np.int64(weights[neighbours + k]), rows.features[k]
        for j in range(columns):
            total[j] += weight * np.int64(feature[j])
    if not places.beside:
        for j in range(columns):
            free = base[j] + (total[j] >> WEIGHT_BITS)
            value = as_prediction(free, limits)
            predicted[j] = value
            away[j] = value - base[j]
            off[j] = at_most(at_least(free - value, -LARGEST), LARGEST)
        return
    for j in range(columns):
        away[j] = 0
    if i > first:
        k = neighbours + N_FEATURES * references.number
        w0, w1, w2 = np.int64(weights[k]), np.int64(weights[k + 1]), np.int64(weights[k + 2])
        w = w0 + w1 + w2
        above = start(neighbours) - steps[neighbours]
        p0, p1 = values[above - 1 : above - 1 + columns], values[above : above + columns]
        p2 = values[above + 1 : above + 1 + columns]
        for j in range(columns):
            total[j] += (
                w0 * np.int64(p0[j]) + w1 * np.int64(p1[j]) + w2 * np.int64(p2[j]) - w * base[j]
            )  # fmt: skip


@compiled
def expect_sizes(rows: Any, coefficients: Any, has_references: Any) -> None:
    """What the steps of a row are expected to be, from all but those of its own pass."""
    k0, k1, k2, k3 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    k4, k6, k7 = coefficients[4], coefficients[6], coefficients[7]
    expected, spread, away, near, far = rows.size, rows.spread, rows.away, rows.near, rows.far
    for j in range(len(expected)):
        expected[j] = (
            k0 + k1 * np.int64(spread[j]) + k2 * abs(np.int64(away[j]))
            + ((k3 * np.int64(near[j]) + k4 * np.int64(far[j])) << UNIT_BITS)
        )  # fmt: skip
    if has_references:
        for j in range(len(expected)):
            expected[j] += ((k6 * np.int64(rows.past[j])) << UNIT_BITS) + k7 * np.int64(
                rows.apart[j]
            )


@inlined
def after(base: Any, total: Any, weight: Any, before: Any) -> Any:
    """The prediction of a point, given the value of the one before it, free of limits."""
    return base + ((total + weight * (before - base)) >> WEIGHT_BITS)


@inlined
def filled(base: Any, limits: Any) -> Any:
    """What a cell that is not coded is taken for where fields refer to others.

    The mean of the four nearest: weights are fitted to other cells, and what they would make of
    these could lead further and further away, from reference to reference.
    """
    return as_prediction(base, limits)


@compiled
def put_row(
    pool: Pool, places: Places, limits: Limits, item: int, i: int, rows: Rows, own: Any
) -> None:
    """Predictions and steps of a row, added up, into the phase of the pass.

    So that the next row can look at it, with two cells on both sides.
    """
    columns, predicted = len(own), rows.predicted
    last = neighbour_count(places)
    o = places.offsets[last] + item * places.strides[last] + i * places.steps[last]
    values, marks = pool.values[o : o + columns], pool.marks[o : o + columns]
    for j in range(columns):
        values[j] = rebuilt(np.int64(predicted[j]), np.int64(own[j]), limits)
        marks[j] = at_most(at_least(own[j], -127), 127)
    if places.beside:
        west, east = (columns - 1, 0) if places.around else (0, columns - 1)
        pool.values[o - 1] = values[west]
        pool.values[o + columns] = values[east]


@compiled
def quantise_row(
    target: Any,
    valid: Any,
    which: Any,
    limits: Limits,
    item: int,
    i: int,
    referring: bool,
    rows: Rows,
    own: Any,
) -> None:
    """The steps from the prediction to the target, nearest ones; none where nothing is valid.

    Parameters
    ----------
    target : float64 array, shape (items, n_lat, n_lon)
        In 1/64 of a step.
    valid : bool array of that shape
        Or of no items, where all cells are valid.
    which : (row, column, spacing)
        Of the points of the pass.
    referring : bool
        Whether the fields refer to others.
    own : int32 array, shape (columns,)
    """
    row, column, spacing = which
    wanted = target[item, row + i * spacing, column:]
    predicted = rows.predicted
    for j in range(len(own)):
        own[j] = steps_to(wanted[j * spacing], np.int64(predicted[j]), limits)
    if valid.shape[0] > 0:
        counts = valid[item, row + i * spacing, column:]
        for j in range(len(own)):
            if not counts[j * spacing]:
                own[j] = 0
                if referring:
                    predicted[j] = filled(rows.base[j], limits)


@compiled
def quantise_rows(
    pool: Pool,
    places: Places,
    weights: Int32,
    references: References,
    limits: Limits,
    target: Any,
    valid: Any,
    which: Any,
    rows: Rows,
    numbers: Int32,
    first: int,
    last: int,
    putting: bool,
) -> None:
    """Steps of rows first … last of all fields of a pass.

    Where points are predicted from those beside them, the rows are put into the pool as well.

    Parameters
    ----------
    weights : int32 array, shape (bands, neighbours + features of references + 4 beside)
    numbers : int32 array, shape (items, rows, 2 + columns + 1)
    putting : bool
        Whether the rows are put into the pool anyway.
    """
    row, column, spacing = which
    base, total, predicted = rows.base, rows.total, rows.predicted
    columns, last_weight = len(base), weights.shape[1] - 1
    referring = references.number > 0
    for item in range(numbers.shape[0]):
        for i in range(first, last):
            own = numbers[item, i, BEFORE : BEFORE + columns]
            band = weights[i * weights.shape[0] // numbers.shape[1]]
            predict_row(pool, places, band, references, limits, item, i, first, rows)
            if not places.beside:
                quantise_row(target, valid, which, limits, item, i, referring, rows, own)
                if putting:
                    put_row(pool, places, limits, item, i, rows, own)
                continue
            wanted = target[item, row + i * spacing, column:]
            weight, before = np.int64(band[last_weight]), base[0]
            for j in range(columns):
                value = as_prediction(after(base[j], total[j], weight, before), limits)
                own[j] = 0
                if valid.shape[0] == 0 or valid[item, row + i * spacing, column + j * spacing]:
                    own[j] = steps_to(wanted[j * spacing], value, limits)
                elif referring:
                    value = filled(base[j], limits)
                predicted[j] = value
                before = rebuilt(value, np.int64(own[j]), limits)
            put_row(pool, places, limits, item, i, rows, own)


@compiled
def cost(numbers: Int32, first: int, last: int) -> float:
    """About the bits that steps of rows first … last of all fields take."""
    total = np.int64(0)
    for item in range(numbers.shape[0]):
        for i in range(first, last):
            row = numbers[item, i]
            for j in range(len(row)):
                size = abs(np.int64(row[j]))
                total += 3 * (size > 0)
                while size > 1:
                    total += 2
                    size >>= 1
    return float(total)
