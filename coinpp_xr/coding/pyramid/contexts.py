"""Whole numbers of a pass ↔ bits, each in the context of what is decoded around it, compiled.

A number is coded as a few decisions. What chance each has is mixed from those of six contexts, by
weights that follow the data (logistic mixing, Mahoney 2005); where hardly anything but zeros is
expected, one context does. Integers only: weights of mixtures are in 1/65536, logits in 1/256.
Changing any constant changes the format.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.prediction import (
    BEFORE,
    N_NEIGHBOURS,
    UNIT_BITS,
    predict_row,
    quantise_row,
)
from coinpp_xr.coding.pyramid.range_coder import (
    BROKEN,
    BYTES_PER_VALUE,
    DECODING,
    at_least,
    at_most,
    by_one_context,
    code_bit,
    even_chances,
    learned,
    opened,
    put_back,
    rates,
)
from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.mixing import ONE, squash_table, stretch_table

Int32 = npt.NDArray[np.int32]

# What a magnitude is expected from: a constant, the spread of the four nearest neighbours, how far
# the prediction is from their mean, steps at near and far neighbours, at those decoded just
# before, in reference fields, and how far references are from what they suggest of each other.
N_COEFFICIENTS = 8
COEFFICIENT_BITS = 8
LARGEST_COEFFICIENT = (1 << 12) - 1

# Decisions about a number: is it zero, is it negative, is its magnitude above 1, 2, …; beyond that
# an exponent in unary and bits; then low bits, of which the first are predicted.
_ZERO, _NEGATIVE, _MORE, _EXPONENT, _LOW = 0, 1, 2, 12, 15
_UNARY = 10
_NODES = 18
_TABLES = 6
_CONTEXTS = 64
_CLASSES = 48
# From this class on, numbers have low bits: one more for every octave of expected size.
_FIRST_LOW_CLASS, _CLASSES_PER_OCTAVE = 27, 3
_SURE_CLASSES = 48
_LARGEST_SIZE = 1 << 14
_LARGEST_EXPONENT = 25
_LARGEST_LOGIT = 2839
# Bands of rows, of which a context tells the number.
_ROW_BANDS = 16


class Tables(NamedTuple):
    """Functions that are looked up, all of whole numbers.

    Parameters
    ----------
    stretch, squash : arrays
        Of :mod:`coinpp_xr.mixing`.
    rate : int64 array, shape (256,)
        1 / (n + 1.6) in 1/65536, by how often a context was seen.
    size_class : uint8 array, shape (16384,)
        Third octaves of an expected magnitude.
    size_kind : uint8 array, shape (16384,)
        Half octaves of a difference.
    """

    stretch: npt.NDArray[np.int16]
    squash: Int32
    rate: Int32
    size_class: npt.NDArray[np.uint8]
    size_kind: npt.NDArray[np.uint8]


@cache
def tables() -> Tables:
    return Tables(
        stretch_table(), squash_table().astype(np.int32), rates(),
        _octaves(3, 3, _CLASSES), _octaves(2, 4, 32),
    )  # fmt: skip


def _octaves(per_octave: int, start: int, count: int) -> npt.NDArray[np.uint8]:
    """Class of each size: floor(per_octave · log2((size + start) / start)), by integer powers."""
    edges = [
        # The smallest size whose (size + start)^per_octave reaches start^per_octave · 2^k.
        _root_above(start**per_octave << k, per_octave) - start
        for k in range(1, count)
    ]
    classes = np.searchsorted(np.array(edges), np.arange(_LARGEST_SIZE), side="right")
    return classes.astype(np.uint8)


def _root_above(value: int, power: int) -> int:
    """The smallest whole number whose power is not below a value."""
    root = max(1, int(value ** (1 / power)) - 2)
    while root**power < value:
        root += 1
    return root


class State(NamedTuple):
    """What a coder has learned, and the range coder's registers.

    Parameters
    ----------
    chances : int32 array, shape (tables, nodes · contexts)
        Probability in 1/65536 and, in the lowest 8 bits, how often the context was seen.
    weights : int32 array, shape (nodes · classes + nodes · contexts, tables)
    sure : int32 array
        Chances of zeros where hardly anything else is expected.
    plain : int32 array
        Of all other decisions where nothing is mixed.
    """

    chances: Int32
    weights: Int32
    sure: Int32
    plain: Int32


def new_state() -> State:
    return State(
        even_chances(_TABLES * _NODES * _CONTEXTS).reshape(_TABLES, -1),
        np.full((_NODES * (_CLASSES + _CONTEXTS), _TABLES), int(0.4 * ONE), np.int32),
        even_chances(_SURE_CLASSES * 64),
        even_chances(_NODES << 10),
    )


def copy_of(state: State) -> State:
    return State(*(array.copy() for array in state))


@compiled
def _decide(
    buffer: Any,
    r: Any,
    yes: Any,
    state: Any,
    tables: Any,
    node: Any,
    by_class: Any,
    by_near: Any,
    contexts: Any,
) -> Any:
    """A decision whose chance is mixed from those of six contexts, by two sets of weights."""
    chances, weights = state.chances, state.weights
    stretch, squash, rate = tables.stretch, tables.squash, tables.rate
    first = weights[node * _CLASSES + by_class]
    second = weights[_NODES * _CLASSES + node * _CONTEXTS + by_near]
    c0, c1, c2, c3, c4, c5 = contexts
    at = node * _CONTEXTS
    c0, c1, c2, c3, c4, c5 = at + c0, at + c1, at + c2, at + c3, at + c4, at + c5
    e0, e1, e2 = np.int64(chances[0, c0]), np.int64(chances[1, c1]), np.int64(chances[2, c2])
    e3, e4, e5 = np.int64(chances[3, c3]), np.int64(chances[4, c4]), np.int64(chances[5, c5])
    z0, z1, z2 = np.int64(stretch[e0 >> 8]), np.int64(stretch[e1 >> 8]), np.int64(stretch[e2 >> 8])
    z3, z4, z5 = np.int64(stretch[e3 >> 8]), np.int64(stretch[e4 >> 8]), np.int64(stretch[e5 >> 8])
    x = (
        first[0] * z0 + first[1] * z1 + first[2] * z2
        + first[3] * z3 + first[4] * z4 + first[5] * z5
    ) >> 16  # fmt: skip
    y = (
        second[0] * z0 + second[1] * z1 + second[2] * z2
        + second[3] * z3 + second[4] * z4 + second[5] * z5
    ) >> 16  # fmt: skip
    x = at_most(at_least(x, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    y = at_most(at_least(y, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    p = np.int64(squash[((x + y) >> 1) + _LARGEST_LOGIT])
    yes, r = code_bit(buffer, r, yes, p)
    truth = np.int64(ONE) if yes else np.int64(0)
    # Each set of weights learns from its own mistake.
    ex, ey = truth - squash[x + _LARGEST_LOGIT], truth - squash[y + _LARGEST_LOGIT]
    half = 1 << 14
    first[0] += (ex * z0 + half) >> 15
    first[1] += (ex * z1 + half) >> 15
    first[2] += (ex * z2 + half) >> 15
    first[3] += (ex * z3 + half) >> 15
    first[4] += (ex * z4 + half) >> 15
    first[5] += (ex * z5 + half) >> 15
    second[0] += (ey * z0 + half) >> 15
    second[1] += (ey * z1 + half) >> 15
    second[2] += (ey * z2 + half) >> 15
    second[3] += (ey * z3 + half) >> 15
    second[4] += (ey * z4 + half) >> 15
    second[5] += (ey * z5 + half) >> 15
    chances[0, c0] = learned(e0, truth, rate)
    chances[1, c1] = learned(e1, truth, rate)
    chances[2, c2] = learned(e2, truth, rate)
    chances[3, c3] = learned(e3, truth, rate)
    chances[4, c4] = learned(e4, truth, rate)
    chances[5, c5] = learned(e5, truth, rate)
    return yes, r


@compiled
def _sign(value: Any) -> Any:
    return 1 + (value > 0) - (value < 0)


@inlined
def _decision(
    buffer: Any,
    r: Any,
    yes: Any,
    state: Any,
    tables: Any,
    plainly: Any,
    node: Any,
    plain: Any,
    by_class: Any,
    by_near: Any,
    contexts: Any,
) -> Any:
    """A decision by one context, or by all."""
    if plainly:
        yes, r = by_one_context(buffer, r, yes, state.plain, (node << 10) + plain, tables.rate)
    else:
        yes, r = _decide(buffer, r, yes, state, tables, node, by_class, by_near, contexts)
    return yes, r


@compiled
def code_rows(
    buffer: Any,
    registers: Any,
    state: Any,
    tables: Any,
    quick: Any,
    first: Any,
    start: Any,
    last: Any,
    pool: Any,
    places: Any,
    weights: Any,
    references: Any,
    which: Any,
    target: Any,
    valid: Any,
    numbers: Any,
    coefficients: Any,
    rows: Any,
) -> Any:
    """Rows first … last of all fields of a pass ↔ bits; both fill the pass's phase of the pool.

    Parameters
    ----------
    buffer, registers : arrays
        Of the range coder.
    state : State
    tables : Tables
    quick : int
        Classes of expected size below this are coded by one context.
    first, start, last : int
        Rows of every field; where to begin, counted through all fields.
    pool, places, weights, references, which, target, valid, rows :
        Of :mod:`prediction <coinpp_xr.coding.pyramid.prediction>`; a decoder has no target.
    numbers : int32 array, shape (items, rows, 2 + columns + 1)
        Steps from predictions, between zeros.
    coefficients : int64 array, shape (8,)
        What a magnitude is expected from.

    Returns
    -------
    int
        Where the buffer was full, counted as ``start`` is, or the number of all rows.
    """
    items, n_rows, _ = numbers.shape
    columns = len(rows.base)
    has_references = references.number > 0
    k0, k1, k2, k3 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    k4, k5, k6, k7 = coefficients[4], coefficients[5], coefficients[6], coefficients[7]
    size_class, size_kind, rate = tables.size_class, tables.size_kind, tables.rate
    plainly = quick >= _CLASSES
    spread, away, expected = rows.spread, rows.away, rows.size
    nears, fars, signs = rows.near, rows.far, rows.signs
    # Slices, because an index that might be negative is looked at twice.
    none = rows.nothing
    r = opened(registers)
    decoding = registers[DECODING] != 0
    broken = False
    count = last - first
    at = start
    while at < items * count and not broken:
        if decoding:
            if r[4] > len(buffer) + 8:
                broken = True
                break
        elif r[4] + r[3] + BYTES_PER_VALUE * columns > len(buffer):
            break
        item, i = at // count, first + at % count
        at += 1
        band = (i * _ROW_BANDS) // n_rows
        west2 = numbers[item, i]
        west, here = west2[1:], west2[BEFORE : BEFORE + columns]
        above = numbers[item, at_least(i - 1, 0)] if i > first else none
        north_west, north, north_east = above[BEFORE - 1 :], above[BEFORE:], above[BEFORE + 1 :]
        second = numbers[item, at_least(i - 2, 0)] if i > first + 1 else none
        north2 = second[BEFORE:]
        weights_here = weights[i * weights.shape[0] // n_rows]
        predict_row(pool, places, weights_here, references, item, i, rows)
        if not decoding:
            quantise_row(target, valid, which, item, i, rows, here)
        for j in range(columns):
            expected[j] = (
                k0 + k1 * np.int64(spread[j]) + k2 * abs(np.int64(away[j]))
                + ((k3 * np.int64(nears[j]) + k4 * np.int64(fars[j])) << UNIT_BITS)
            )  # fmt: skip
        if has_references:
            for j in range(columns):
                expected[j] += ((k6 * np.int64(rows.past[j])) << UNIT_BITS) + k7 * np.int64(
                    rows.apart[j]
                )
        y = which[0] + i * which[2]
        for j in range(columns):
            if valid.shape[0] > 0 and not valid[item, y, which[1] + j * which[2]]:
                here[j] = 0
                continue
            w, n, ne, nw = (
                np.int64(west[j]),
                np.int64(north[j]),
                np.int64(north_east[j]),
                np.int64(north_west[j]),
            )
            aw, an, beside = abs(w), abs(n), abs(ne) + abs(nw)
            around = 2 * (aw + an) + beside + abs(np.int64(west2[j])) + abs(np.int64(north2[j]))
            near, far = np.int64(nears[j]), np.int64(fars[j])
            size = expected[j] + ((k5 * around) << UNIT_BITS)
            # Damaged streams lead to sums that overflow.
            size = at_most(at_least(size >> COEFFICIENT_BITS, 0), _LARGEST_SIZE - 1)
            c = np.int64(size_class[size])
            value = np.int64(here[j])
            zero = False
            if c < quick:
                where = (
                    at_most(c, _SURE_CLASSES - 1) * 64
                    + at_most(near, 3) * 16
                    + at_most(far, 3) * 4
                    + at_most(around, 3)
                )
                zero, r = by_one_context(buffer, r, value == 0, state.sure, where, rate)
                if zero:
                    here[j] = 0
                    continue
            gap, lean = at_least(np.int64(spread[j]), 0), np.int64(away[j])
            aside = abs(lean)
            near_far = at_most(near, 7) * 8 + at_most(far >> 1, 7)
            kind_of_gap = np.int64(size_kind[at_most(gap, _LARGEST_SIZE - 1)])
            kind_of_lean = np.int64(size_kind[at_most(aside, _LARGEST_SIZE - 1)])
            if has_references:
                past, apart = (
                    at_least(np.int64(rows.past[j]), 0),
                    at_least(np.int64(rows.apart[j]), 0),
                )
                kind_of_apart = np.int64(size_kind[at_most(apart, _LARGEST_SIZE - 1)])
                elsewhere = at_most(past, 7) * 8 + at_most(kind_of_apart >> 1, 7)
            else:
                elsewhere = band * 4 + at_most(c >> 3, 3)
            contexts = (
                c,
                kind_of_gap + 32 * (aw + an > 0),
                near_far,
                at_most(aw, 3) * 16 + at_most(an, 3) * 4 + at_most(beside, 3),
                kind_of_lean + 32 * (near > 0),
                elsewhere,
            )
            plain = c * 16 + at_most(aw + an, 3) * 4 + at_most(near, 3)
            if c >= quick:
                zero, r = _decide(
                    buffer, r, value == 0, state, tables, _ZERO, c, near_far, contexts
                )
                if zero:
                    here[j] = 0
                    continue
            up = np.int64(lean > 0)
            of_signs = (
                _sign(w) * 3 + _sign(n),
                up * 16 + at_most(kind_of_lean, 15),
                np.int64(signs[j]),
                _sign(w) * 9 + _sign(n) * 3 + _sign(ne),
                up * 32 + kind_of_lean,
                band * 4 + up,
            )
            negative, r = _decision(
                buffer, r, value < 0, state, tables, plainly, _NEGATIVE,
                (_sign(w) * 3 + _sign(n)) * 16 + np.int64(signs[j]), c, near_far, of_signs,
            )  # fmt: skip
            magnitude = abs(value) - 1
            low = at_least(c - _FIRST_LOW_CLASS, 0) // _CLASSES_PER_OCTAVE
            top, t, more = magnitude >> low, np.int64(0), True
            while more and t < _UNARY:
                more, r = _decision(
                    buffer, r, top > t, state, tables, plainly, _MORE + t, plain,
                    c, near_far, contexts,
                )  # fmt: skip
                t += more
            if more:
                # What is left by an exponential Golomb code.
                rest, exponent = top - t + 1, np.int64(0)
                while more:
                    more, r = _decision(
                        buffer, r, (rest >> (exponent + 1)) > 0, state, tables, plainly,
                        _EXPONENT + at_most(exponent, 2), plain, c, near_far, contexts,
                    )  # fmt: skip
                    exponent += more
                    if exponent > _LARGEST_EXPONENT:
                        broken = True
                        exponent, more = np.int64(0), False
                found = np.int64(1)
                for b in range(exponent - 1, -1, -1):
                    bit, r = code_bit(buffer, r, ((rest >> b) & 1) == 1, ONE // 2)
                    found = 2 * found + bit
                t += found - 1
            for b in range(low - 1, -1, -1):
                bit = ((magnitude >> b) & 1) == 1
                if b > low - 3:
                    bit, r = _decision(
                        buffer, r, bit, state, tables, plainly, _LOW + low - 1 - b, plain,
                        c, near_far, contexts,
                    )  # fmt: skip
                else:
                    bit, r = code_bit(buffer, r, bit, ONE // 2)
                t = 2 * t + bit
            if t >= 1 << _LARGEST_EXPONENT:
                broken, t = True, np.int64(0)
            here[j] = -1 - t if negative else 1 + t
        o = places.offsets[N_NEIGHBOURS] + item * places.strides[N_NEIGHBOURS]
        o += i * places.steps[N_NEIGHBOURS]
        values, marks = pool.values[o : o + columns], pool.marks[o : o + columns]
        predicted = rows.predicted
        for j in range(columns):
            values[j] = predicted[j] + (here[j] << UNIT_BITS)
            marks[j] = at_most(at_least(here[j], -127), 127)
    put_back(registers, r)
    if broken:
        registers[BROKEN] = 1
    return at
