"""Whole numbers of a pass ↔ bits, each in the context of what is decoded around it, compiled.

A number is coded as a few decisions; where hardly anything but zeros is expected, and wherever
the effort says so, by one context each. Changing any constant changes the format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.decisions import CLASSES, LARGEST_SIZE, decide, decision
from coinpp_xr.coding.pyramid.expert import CERTAIN, chance_below, share
from coinpp_xr.coding.pyramid.limits import (
    LARGEST,
    UNIT,
    UNIT_BITS,
    WHOLE,
    as_prediction,
    rebuilt,
    steps_to,
)
from coinpp_xr.coding.pyramid.prediction import (
    BEFORE,
    COEFFICIENT_BITS,
    after,
    expect_sizes,
    filled,
    predict_row,
    put_row,
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
    opened,
    put_back,
)
from coinpp_xr.compiled import compiled
from coinpp_xr.mixing import ONE

Int32 = npt.NDArray[np.int32]

# Decisions about a number: is it zero, is it negative, is its magnitude above 1, 2, …; beyond that
# an exponent in unary and bits; then low bits, of which the first are predicted.
_ZERO, _NEGATIVE, _MORE, _EXPONENT, _LOW = 0, 1, 2, 12, 15
_UNARY = 10
# From this class on, numbers have low bits: one more for every octave of expected size.
_FIRST_LOW_CLASS, _CLASSES_PER_OCTAVE = 27, 3
_LARGEST_EXPONENT = 25
# Bands of rows, of which a context tells the number.
_ROW_BANDS = 16


@compiled
def _sign(value: Any) -> Any:
    return 1 + (value > 0) - (value < 0)


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
    limits: Any,
    which: Any,
    target: Any,
    valid: Any,
    numbers: Any,
    coefficients: Any,
    rows: Any,
    network: Any,
    centres: Any,
    scales: Any,
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
    pool, places, weights, references, limits, which, target, valid, rows :
        Of :mod:`prediction <coinpp_xr.coding.pyramid.prediction>`; a decoder has no target, and an
        encoder that knows the numbers needs none.
    numbers : int32 array, shape (items, rows, 2 + columns + 1)
        Steps from predictions, between zeros.
    coefficients : int64 array, shape (8,)
        What a magnitude is expected from.
    network : Network
        Which has an opinion of decisions that are mixed, too; or of no inputs.
    centres, scales : int64 arrays, shape (items, rows, columns)
        The distributions that it expects; of no items where there is none, and a scale of zero
        where it was not asked.

    Returns
    -------
    int
        Where the buffer was full, counted as ``start`` is, or the number of all rows.
    """
    items, n_rows, _ = numbers.shape
    columns = len(rows.base)
    has_references = references.number > 0
    has_network = len(centres) > 0
    stretch = tables.stretch
    k2, k5 = coefficients[2], coefficients[5]
    size_class, size_kind, rate = tables.size_class, tables.size_kind, tables.rate
    plainly = quick >= CLASSES
    spread, away, off, expected = rows.spread, rows.away, rows.off, rows.size
    whole = limits.free == WHOLE
    nears, fars, signs = rows.near, rows.far, rows.signs
    base, total, predicted = rows.base, rows.total, rows.predicted
    one_by_one = places.beside
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
        predict_row(pool, places, weights_here, references, limits, item, i, first, rows)
        quantising = target.shape[0] > 0
        if quantising and not one_by_one:
            quantise_row(target, valid, which, limits, item, i, has_references, rows, here)
        weight, y = np.int64(weights_here[len(weights_here) - 1]), which[0] + i * which[2]
        expect_sizes(rows, coefficients, has_references)
        before = base[0]
        for j in range(columns):
            if one_by_one:
                if j > 0:
                    before = rebuilt(np.int64(predicted[j - 1]), np.int64(here[j - 1]), limits)
                unbound = after(base[j], total[j], weight, before)
                guess = as_prediction(unbound, limits)
                predicted[j] = guess
                away[j] = guess - base[j]
                off[j] = at_most(at_least(unbound - guess, -LARGEST), LARGEST)
                if quantising:
                    wanted = target[item, y, which[1] + j * which[2]]
                    here[j] = steps_to(wanted, guess, limits)
            if valid.shape[0] > 0 and not valid[item, y, which[1] + j * which[2]]:
                here[j] = 0
                if has_references:
                    predicted[j] = filled(base[j], limits)
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
            if one_by_one:
                size += k2 * abs(np.int64(away[j]))
            # Damaged streams lead to sums that overflow.
            size = at_most(at_least(size >> COEFFICIENT_BITS, 0), LARGEST_SIZE - 1)
            c = np.int64(size_class[size])
            if whole:  # predictions were rounded: to which side says more than anything else
                lean = np.int64(off[j])
                kind_of_lean = at_most(abs(lean) >> 1, 31)
            else:
                lean = np.int64(away[j])
                kind_of_lean = np.int64(size_kind[at_most(abs(lean), LARGEST_SIZE - 1)])
            value = np.int64(here[j])
            zero = False
            if c < quick:
                where = (
                    at_most(c, CLASSES - 1) * 64
                    + at_most(near, 3) * 16
                    + (at_most(kind_of_lean >> 2, 3) if whole else at_most(far, 3)) * 4
                    + at_most(around, 3)
                )
                zero, r = by_one_context(buffer, r, value == 0, state.sure, where, rate)
                if zero:
                    here[j] = 0
                    continue
            gap = at_least(np.int64(spread[j]), 0)
            near_far = at_most(near, 7) * 8 + at_most(far >> 1, 7)
            kind_of_gap = np.int64(size_kind[at_most(gap, LARGEST_SIZE - 1)])
            if has_references:
                past, apart = (
                    at_least(np.int64(rows.past[j]), 0),
                    at_least(np.int64(rows.apart[j]), 0),
                )
                kind_of_apart = np.int64(size_kind[at_most(apart, LARGEST_SIZE - 1)])
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
            logit = below = over = lower = upper = scale = np.int64(0)
            if has_network:
                scale = scales[item, i, j]
            if scale > 0:
                lower = np.int64(predicted[j]) - UNIT // 2 - centres[item, i, j]
                upper = lower + UNIT
                below = chance_below(network, lower, scale)
                over = chance_below(network, -upper, scale)
            if c >= quick:
                if scale > 0:
                    inside = chance_below(network, upper, scale) - below
                    if lower + upper > 0:  # from the side where chances are small
                        inside = chance_below(network, -lower, scale) - over
                    logit = np.int64(stretch[share(inside, CERTAIN)])
                zero, r = decide(
                    buffer, r, value == 0, state, tables, _ZERO, c, near_far, contexts, logit
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
            if scale > 0:
                logit = np.int64(stretch[share(below, below + over)])
            negative, r = decision(
                buffer, r, value < 0, state, tables, plainly, _NEGATIVE,
                (_sign(w) * 3 + _sign(n)) * 16 + np.int64(signs[j]), c, near_far, of_signs, logit,
            )  # fmt: skip
            magnitude = abs(value) - 1
            low = at_least(c - _FIRST_LOW_CLASS, 0) // _CLASSES_PER_OCTAVE
            top, t, more = magnitude >> low, np.int64(0), True
            outside = below if negative else over
            edge = lower if negative else -upper
            while more and t < _UNARY:
                if scale > 0:
                    further = chance_below(network, edge - (((t + 1) << low) << UNIT_BITS), scale)
                    logit = np.int64(stretch[share(further, outside)])
                    outside = further
                more, r = decision(
                    buffer, r, top > t, state, tables, plainly, _MORE + t, plain,
                    c, near_far, contexts, logit,
                )  # fmt: skip
                t += more
            if more:
                # What is left by an exponential Golomb code.
                rest, exponent = top - t + 1, np.int64(0)
                while more:
                    more, r = decision(
                        buffer, r, (rest >> (exponent + 1)) > 0, state, tables, plainly,
                        _EXPONENT + at_most(exponent, 2), plain, c, near_far, contexts,
                        np.int64(0),
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
                    if scale > 0:
                        near_edge = edge - ((t << (b + 1)) << UNIT_BITS)
                        middle = chance_below(network, near_edge - ((1 << b) << UNIT_BITS), scale)
                        end = chance_below(network, near_edge - ((2 << b) << UNIT_BITS), scale)
                        outside = chance_below(network, near_edge, scale)
                        logit = np.int64(stretch[share(middle - end, outside - end)])
                    bit, r = decision(
                        buffer, r, bit, state, tables, plainly, _LOW + low - 1 - b, plain,
                        c, near_far, contexts, logit,
                    )  # fmt: skip
                else:
                    bit, r = code_bit(buffer, r, bit, ONE // 2)
                t = 2 * t + bit
            if t >= 1 << _LARGEST_EXPONENT:
                broken, t = True, np.int64(0)
            here[j] = -1 - t if negative else 1 + t
        put_row(pool, places, limits, item, i, rows, here)
    put_back(registers, r)
    if broken:
        registers[BROKEN] = 1
    return at
