"""Rows of whole numbers ↔ bits, digit by digit, compiled.

A number is perhaps that of the cell west or north of it, or of the field before. Else it is told
whether it is somewhere near the prediction, then how many binary digits it has and which, from the
highest on, where that does not follow from what was told. The chance of such a decision is mixed
from what was seen in six contexts, and from what a logistic distribution around a prediction says
of the numbers that are still possible. Integers only; changing any constant changes the format.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.digit_decisions import (
    COPY_SETS,
    EARLY,
    EARLY_SETS,
    EXTENTS,
    LENGTH_SETS,
    LENGTHS,
    LEVELS,
    NEAR,
    OTHER_COPY_SETS,
    OTHER_EARLY_SETS,
    OTHER_LENGTH_SETS,
    ROUGH,
    TAIL,
    distribution,
    extent_of,
    length_of,
    mixed,
    narrowed,
    scale_of,
    share_above,
    slot,
)
from coinpp_xr.coding.digit_predictions import learn, pass_over, predict
from coinpp_xr.coding.pyramid.range_coder import (
    at_least,
    at_most,
    by_one_context,
    opened,
    put_back,
)
from coinpp_xr.compiled import compiled

Bool = npt.NDArray[np.bool_]
Int32 = npt.NDArray[np.int32]

# So many digits at most.
MOST_DIGITS = 25
# No cell takes more bytes: three copies refused, whether it is as expected, 5 digits of the length,
# and those after the first.
BYTES_PER_CELL = 2 * (3 + 1 + 5 + MOST_DIGITS - 1)
# No cell takes less: a decision that is as sure as can be.
LEAST_BITS = 2e-5


class Field(NamedTuple):
    """A field that is being coded, or one before; of shape (0, 0) where there is none.

    Parameters
    ----------
    numbers : int32 array, shape (n_lat, n_lon)
        From 0 on.
    valid : bool array
        Others are passed over.
    copies : int8 array
        1 and 2 where a number is that of the cell west or north, 3 where that of the field
        before, 0 where it is another.
    missed : int32 array
        How far predictions were off, in 1/8.
    """

    numbers: Int32
    valid: Bool
    copies: npt.NDArray[np.int8]
    missed: Int32

    @classmethod
    def of(cls, numbers: Int32, valid: Bool) -> Field:
        """Numbers that are to be encoded, or to be decoded into."""
        shape = numbers.shape
        return cls(numbers, valid, np.zeros(shape, np.int8), np.zeros(shape, np.int32))


NOTHING = Field.of(np.zeros((0, 0), np.int32), np.zeros((0, 0), np.bool_))


@compiled
def _around(here: Any, i: Any, j: Any, start: Any, around: Any) -> Any:
    """Numbers of eleven cells west and north; those that are not there are like others."""
    numbers, valid = here.numbers, here.valid
    last = numbers.shape[1] - 1
    w = np.int64(-1)
    n = np.int64(-1)
    nw = np.int64(-1)
    ne = np.int64(-1)
    west, east = at_least(j - 1, 0), at_most(j + 1, last)
    if j > 0 and valid[i, j - 1]:
        w = np.int64(numbers[i, j - 1])
    if i > start:
        if valid[i - 1, j]:
            n = np.int64(numbers[i - 1, j])
        left = j - 1 if j > 0 else (last if around else 0)
        right = j + 1 if j < last else (0 if around else last)
        if valid[i - 1, left]:
            nw = np.int64(numbers[i - 1, left])
        if valid[i - 1, right]:
            ne = np.int64(numbers[i - 1, right])
    if n < 0:
        n = nw if nw >= 0 else ne
    if w < 0:
        w = at_least(n, 0)
    n = w if n < 0 else n
    nw = n if nw < 0 else nw
    ne = n if ne < 0 else ne
    ww = np.int64(numbers[i, j - 2]) if j > 1 and valid[i, j - 2] else w
    www = np.int64(numbers[i, j - 3]) if j > 2 and valid[i, j - 3] else ww
    nn, nnw, nne, nww, nee = n, nw, n, nw, ne
    if i > start + 1:
        nn = np.int64(numbers[i - 2, j]) if valid[i - 2, j] else n
        nne = np.int64(numbers[i - 2, east]) if valid[i - 2, east] else nn
        nnw = np.int64(numbers[i - 2, west]) if valid[i - 2, west] else nw
    if i > start:
        if j > 1 and valid[i - 1, j - 2]:
            nww = np.int64(numbers[i - 1, j - 2])
        if j < last - 1 and valid[i - 1, j + 2]:
            nee = np.int64(numbers[i - 1, j + 2])
    return w, n, nw, ne, ww, nn, www, nne, nee, nnw, nww


@compiled
def _earlier(before: Any, i: Any, j: Any) -> Any:
    """The number of the field before, and those around it; the first is -1 where it has none."""
    numbers, valid = before.numbers, before.valid
    p = np.int64(-1)
    if numbers.shape[0] == 0 or not valid[i, j]:
        return p, p, p, p, p, p, p
    west, east = at_least(j - 1, 0), at_most(j + 1, numbers.shape[1] - 1)
    up, down = at_least(i - 1, 0), at_most(i + 1, numbers.shape[0] - 1)
    p = np.int64(numbers[i, j])
    pw = np.int64(numbers[i, west]) if valid[i, west] else p
    pe = np.int64(numbers[i, east]) if valid[i, east] else p
    pn = np.int64(numbers[up, j]) if valid[up, j] else p
    ps = np.int64(numbers[down, j]) if valid[down, j] else p
    pnw = np.int64(numbers[up, west]) if valid[up, west] else p
    pne = np.int64(numbers[up, east]) if valid[up, east] else p
    return p, pw, pn, pe, ps, pnw, pne


@compiled
def _changes(before: Any, second: Any, past: Any, i: Any, j: Any) -> Any:
    """From the last field but one to the last, here, east and south, and errors there, added up."""
    here = np.int64(0)
    p = past[0]
    if p < 0:
        return (here, here, here), np.int64(-1)
    missed = before.missed
    east, down = at_most(j + 1, missed.shape[1] - 1), at_most(i + 1, missed.shape[0] - 1)
    usual = 2 * np.int64(missed[i, j]) + missed[i, east] + missed[down, j]
    if second.numbers.shape[0] == 0 or not second.valid[i, j]:
        return (here, here, here), usual
    q = np.int64(second.numbers[i, j])
    here = p - q
    eastern = past[3] - second.numbers[i, east] if second.valid[i, east] else here
    southern = past[4] - second.numbers[down, j] if second.valid[down, j] else here
    return (here, eastern, southern), usual


@compiled
def _of_length(
    slots: Any, node: Any, lm: Any, lw: Any, ln: Any, lp: Any, ne: Any, rough: Any, extent: Any,
    c1: Any, a0: Any,
) -> Any:  # fmt: skip
    """Contexts and sets of weights of a decision about how many digits there are."""
    kind = np.int64(3 << 24) + (node << 16)
    slots[0] = slot(0, kind + lm * 64 + extent)
    slots[1] = slot(1, kind + lw * 32 + ln)
    slots[2] = slot(2, kind + length_of(ne) * 32 + lp)
    slots[3] = slot(3, kind + lp)
    slots[4] = slot(4, kind + extent * 4 + (c1 > 0) * 2 + (a0 > 0))
    slots[5] = slot(5, kind + lm * 8 + at_most(rough >> 1, 7))
    return COPY_SETS + node * EXTENTS + extent, OTHER_COPY_SETS + node * LENGTHS + lm


@compiled
def _of_early_digit(
    slots: Any, digit: Any, length: Any, found: Any, b: Any, middle: Any, by_w: Any, by_n: Any,
    by_p: Any, extent: Any,
) -> Any:  # fmt: skip
    """The same of one of the first digits, which have contexts for all that came before them."""
    by_mean = np.int64(0)
    if middle >> (b + 1) == found:
        then = (middle >> (b - 1)) & 1 if b > 0 else np.int64(0)
        by_mean = 1 + 2 * ((middle >> b) & 1) + then
    elif middle > (2 * found + 1) << b:
        by_mean = np.int64(5)
    path = np.int64(4 << 24) + ((length * 128 + found) << 6)
    kind = np.int64(5 << 24) + ((digit * 32 + length) << 9)
    slots[0] = slot(0, path)
    slots[1] = slot(1, path + by_w * 3 + by_n)
    slots[2] = slot(2, path + by_mean)
    slots[3] = slot(3, path + by_p)
    slots[4] = slot(4, kind + by_mean * 40 + extent)
    slots[5] = slot(5, kind + (by_w * 3 + by_n) * 4 + by_p)
    return LENGTH_SETS + digit * LENGTHS + length, OTHER_LENGTH_SETS + digit * EXTENTS + extent


@compiled
def _of_late_digit(
    slots: Any, place: Any, logit: Any, by_w: Any, by_n: Any, by_p: Any, lm: Any, rough: Any,
    extent: Any,
) -> Any:  # fmt: skip
    """The same of a later digit, by its place in the distribution."""
    level = at_most(at_least(((3 * logit) >> 8) + 24, 0), LEVELS - 1)
    kind = np.int64(6 << 24) + (place << 16)
    slots[0] = slot(0, kind + level)
    slots[1] = slot(1, kind + extent)
    slots[2] = slot(2, kind + level * 64 + extent)
    slots[3] = slot(3, kind + (level * 9 + by_w * 3 + by_n) * 4 + by_p)
    slots[4] = slot(4, kind + level * 32 + lm)
    slots[5] = slot(5, kind + level * 32 + at_most(rough, 31))
    return EARLY_SETS + place * EXTENTS + extent, OTHER_EARLY_SETS + level


@compiled
def code_rows(
    buffer: Any,
    registers: Any,
    state: Any,
    tables: Any,
    sigmoid: Any,
    here: Any,
    before: Any,
    second: Any,
    start: Any,
    first: Any,
    end: Any,
    top: Any,
    around: Any,
    copying: Any,
) -> None:
    """Rows from ``first`` to ``end`` of a band that starts with the row ``start``."""
    r = opened(registers)
    numbers, valid, copies = here.numbers, here.valid, here.copies
    past_copies = before.copies
    columns, has_past = numbers.shape[1], before.numbers.shape[0] > 0
    slots, logits = state.slots, state.logits
    tree = length_of(length_of(top))
    for i in range(first, end):
        now = i & 1
        for j in range(columns):
            if not valid[i, j]:
                pass_over(state, now, j)
                continue
            near = _around(here, i, j, start, around)
            past = _earlier(before, i, j)
            change, usual = _changes(before, second, past, i, j)
            w, n, nw, ne, ww, nn = near[0], near[1], near[2], near[3], near[4], near[5]
            p, pw, pe = past[0], past[1], past[3]
            # How the field before looks here.
            seen = np.int64(0)
            if p >= 0:
                seen = 1 + (p == w) + 2 * (p == n) + 4 * (pw == p) + 8 * (pe == p)
            alike = (
                (w == n) | (n == nw) << 1 | (w == nw) << 2 | (n == ne) << 3 | (ww == w) << 4
                | (nn == n) << 5
            )  # fmt: skip
            c1 = np.int64(copies[i, j - 1]) if j > 0 else np.int64(0)
            c2 = np.int64(copies[i, j - 2]) if j > 1 else np.int64(0)
            c3 = np.int64(copies[i, j - 3]) if j > 2 else np.int64(0)
            a0 = np.int64(0)
            a1 = np.int64(0)
            a2 = np.int64(0)
            if i > start:
                a0 = np.int64(copies[i - 1, j])
                a1 = np.int64(copies[i - 1, j + 1]) if j < columns - 1 else a1
                a2 = np.int64(copies[i - 1, j - 1]) if j > 0 else a2
            p0 = np.int64(past_copies[i, j]) if has_past else np.int64(0)
            lw, ln = length_of(w), length_of(n)
            rough = length_of(abs(w - nw) + abs(n - nw) + abs(n - ne) + abs(w - ww))

            x = np.int64(numbers[i, j])
            copied = np.int64(0)
            logits[6], logits[7] = 0, 0
            for step in range(3 if copying else 0):
                other = w if step == 0 else (n if step == 1 else p)
                if (step == 1 and n == w) or (step == 2 and (p < 0 or p in (w, n))):
                    continue
                kind = np.int64(step) << 24
                slots[0] = slot(0, kind + alike * 64 + (c1 * 4 + a0) * 4 + c2)
                slots[1] = slot(1, kind + alike * 32 + seen)
                slots[2] = slot(2, kind + ((c1 * 4 + c2) * 4 + c3) * 64 + (a0 * 4 + a1) * 4 + a2)
                slots[3] = slot(3, kind + rough * 32 + lw)
                slots[4] = slot(4, kind + (rough * 4 + c1) * 16 + a0 * 4 + p0)
                slots[5] = slot(5, kind + (lw * 32 + ln) * 32 + seen)
                same, r = mixed(
                    buffer, r, x == other, state, tables, step * 64 + alike, step * ROUGH + rough
                )
                if same:
                    x, copied = other, np.int64(step + 1)
                    break
            mean, error, other_mean, other_error = predict(
                state, near, past, change, usual, has_past, now, j
            )
            if copied == 0:
                extent, scale = extent_of(error), scale_of(error)
                fine = length_of(scale) - 4
                middle = at_least(mean, 0) >> 3
                lm, lp = length_of(middle), (length_of(p) if p >= 0 else np.int64(LENGTHS - 1))
                # What it is expected to be, nearly always.
                low = at_most(at_least((mean - TAIL * scale) >> 3, 0), top)
                high = at_most(at_least((mean + TAIL * scale) >> 3, 0), top)
                inside = (low <= x) & (x <= high)
                if low > 0 or high < top:
                    inside, r = by_one_context(buffer, r, inside, state.inside, extent, tables.rate)
                    if not inside:
                        low, high = np.int64(0), top
                around_mean = distribution(sigmoid, mean, error, low, high)
                around_other = distribution(sigmoid, other_mean, other_error, low, high)
                length, node, found, telling = length_of(x), np.int64(1), np.int64(0), True
                b = tree - 1
                while b >= 0:
                    if telling:
                        half = ((node << (b + 1)) - (1 << tree)) + (1 << b)
                        edge = np.int64(1) << at_most(half - 1, 26)
                        bit = ((length >> b) & 1) == 1
                    else:
                        edge = (2 * found + 1) << b
                        bit = ((x >> b) & 1) == 1
                    if edge <= low:
                        bit = True
                    elif edge > high:
                        bit = False
                    else:
                        at, chance = share_above(sigmoid, around_mean, edge)
                        other_at, other_chance = share_above(sigmoid, around_other, edge)
                        logit = np.int64(tables.stretch[chance])
                        logits[6], logits[7] = logit, tables.stretch[other_chance]
                        if telling:
                            sets = _of_length(
                                slots, node, lm, lw, ln, lp, ne, rough, extent, c1, a0
                            )
                        else:
                            digit, above = length - 2 - b, b + 1
                            # What neighbours say that have the same digits so far.
                            by_w = 1 + ((w >> b) & 1) if w >> above == found else np.int64(0)
                            by_n = 1 + ((n >> b) & 1) if n >> above == found else np.int64(0)
                            by_p = np.int64(0)
                            if p >= 0:
                                by_p = 1 + ((p >> b) & 1) if p >> above == found else np.int64(3)
                            if digit < EARLY:
                                sets = _of_early_digit(
                                    slots, digit, length, found, b, middle, by_w, by_n, by_p, extent
                                )
                            else:
                                place = at_most(at_least(b - fine + 8, 0), NEAR - 1)
                                sets = _of_late_digit(
                                    slots, place, logit, by_w, by_n, by_p, lm, rough, extent
                                )
                        of_set, of_other = sets
                        bit, r = mixed(buffer, r, bit, state, tables, of_set, of_other)
                        around_mean = narrowed(around_mean, at, bit)
                        around_other = narrowed(around_other, other_at, bit)
                    if telling:
                        node = 2 * node + bit
                        if b == 0:
                            length = node - (1 << tree)
                            # The digits after the first.
                            found, telling, b = np.int64(length > 0), False, length - 1
                    else:
                        found = 2 * found + bit
                    b -= 1
                x = found

            numbers[i, j], copies[i, j] = x, copied
            here.missed[i, j] = learn(state, x, mean, error, has_past, now, j)
    put_back(registers, r)
