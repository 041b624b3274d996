"""Whole numbers of a subband ↔ bits, each in the context of what is decoded around it, compiled.

Blocks of nothing but zeros take one decision. Elsewhere a magnitude is expected from neighbours in
the subband, from the coarser one of its kind, from the others of its level, and from the same
place in fields that are referred to; decisions are mixed from six contexts. Integers only; changing
any constant changes the format.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coinpp_xr.coding.pyramid.decisions import LARGEST_SIZE, decide
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
from coinpp_xr.coding.wavelets.subbands import PAD, WAVES
from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.mixing import ONE

# Blocks of so many rows and columns.
BLOCK = 8
# What a magnitude is expected from: a constant, neighbours at three distances, the parent and its
# neighbours, two siblings, and references.
N_FEATURES = 9
# Expected magnitudes are in 1/64, what features count in 1/4096.
_SIZE_BITS, COEFFICIENT_BITS = 6, 12
SIZE_SHIFT = COEFFICIENT_BITS - _SIZE_BITS
# Decisions: is it zero, is it negative, is its magnitude above 1, 2, …; beyond that an exponent in
# unary and bits; and whether a block has any.
_ZERO, _NEGATIVE, _MORE, _EXPONENT, _ANY = 0, 1, 2, 14, 17
_UNARY, _LARGEST_EXPONENT = 12, 28


@inlined
def around(array: Any, i: Any, j: Any) -> Any:
    """Magnitudes of four neighbours."""
    return abs(array[i - 1, j]) + abs(array[i + 1, j]) + abs(array[i, j - 1]) + abs(array[i, j + 1])


@inlined
def features(
    own: Any, parent: Any, one: Any, other: Any, first: Any, second: Any, i: Any, j: Any
) -> Any:
    """What the magnitude at a place is expected from, all of it decoded before."""
    # A band of the parent may be a row short.
    pi = at_most(((i - PAD) >> 1) + PAD, parent.shape[0] - 2)
    pj = at_most(((j - PAD) >> 1) + PAD, parent.shape[1] - 2)
    return (
        abs(own[i, j - 1]) + abs(own[i - 1, j]),
        abs(own[i - 1, j - 1]) + abs(own[i - 1, j + 1]),
        abs(own[i, j - 2]) + abs(own[i - 2, j]),
        abs(parent[pi, pj]),
        around(parent, pi, pj),
        2 * abs(one[i, j]) + around(one, i, j),
        2 * abs(other[i, j]) + around(other, i, j),
        2 * abs(first[i, j]) + around(first, i, j) + 2 * abs(second[i, j]) + around(second, i, j),
    )


@inlined
def _sign(value: Any) -> Any:
    return 1 + (value > 0) - (value < 0)


@inlined
def _few(count: Any) -> Any:
    """0, 1, 2 for two or three, 3 for more."""
    return (count > 0) + (count > 1) + (count > 3)


@inlined
def _kind_of(size_kind: Any, magnitudes: Any) -> Any:
    """Half octaves of a sum."""
    return np.int64(size_kind[at_most(at_least(magnitudes << 3, 0), LARGEST_SIZE - 1)])


@compiled
def _count(array: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    """How many are not zero; four for more."""
    count = 0
    for i in range(top, bottom):
        for j in range(left, right):
            if array[i, j] != 0:
                count += 1
                if count > 3:
                    return count
    return count


@compiled
def code_numbers(
    buffer: Any,
    registers: Any,
    state: Any,
    tables: Any,
    coefficients: Any,
    own: Any,
    parent: Any,
    one: Any,
    other: Any,
    first: Any,
    second: Any,
    quick: Any,
    which: Any,
    sparse: Any,
    referring: Any,
    start: Any,
    flags: Any,
) -> Any:
    """Rows of blocks from ``start`` on.

    Parameters
    ----------
    buffer, registers : arrays
        Of the range coder.
    state, tables :
        Of :mod:`coinpp_xr.coding.pyramid.decisions`.
    coefficients : int64 array, shape (9,)
        What features count.
    own, parent, one, other, first, second : int32 arrays, each padded by two
        The numbers of a subband; those of its parent, its siblings, and fields it refers to.
    quick : int
        Classes of expected size below this decide by one context whether a number is zero.
    which : int
        Kind of the subband.
    sparse : bool
        Whether blocks of zeros are told.
    referring : bool
        Whether the field refers to others.
    start : int
        A multiple of eight.
    flags : uint8 array, shape (2, 1 + blocks + 1)
        Which blocks of the row before, and of this one, have any.

    Returns
    -------
    int
        The row where the buffer was full, or the first one beyond the last.
    """
    rows, columns = own.shape[0] - 2 * PAD, own.shape[1] - 2 * PAD
    size_class, size_kind, rate = tables.size_class, tables.size_kind, tables.rate
    r = opened(registers)
    decoding = registers[DECODING] != 0
    k0, k1, k2 = coefficients[0], coefficients[1], coefficients[2]
    k3, k4, k5 = coefficients[3], coefficients[4], coefficients[5]
    k6, k7, k8 = coefficients[6], coefficients[7], coefficients[8]
    top, broken = start, False
    while top < rows and not broken:
        if decoding:
            if r[4] > len(buffer) + 8:
                broken = True
                break
        elif r[4] + r[3] + BYTES_PER_VALUE * BLOCK * columns > len(buffer):
            break
        bottom = at_most(top + BLOCK, rows)
        if sparse:
            for b in range(1, flags.shape[1] - 1):
                left = (b - 1) * BLOCK
                right = at_most(left + BLOCK, columns)
                any_ = False
                if not decoding:
                    any_ = _count(own, top + PAD, bottom + PAD, left + PAD, right + PAD) > 0
                above = _count(
                    parent, (top >> 1) + PAD, ((bottom + 1) >> 1) + PAD,
                    (left >> 1) + PAD, ((right + 1) >> 1) + PAD,
                )  # fmt: skip
                beside = _count(one, top + PAD, bottom + PAD, left + PAD, right + PAD)
                beside += _count(other, top + PAD, bottom + PAD, left + PAD, right + PAD)
                before = 0
                if referring:
                    before = _count(first, top + PAD, bottom + PAD, left + PAD, right + PAD)
                    before += _count(second, top + PAD, bottom + PAD, left + PAD, right + PAD)
                where = np.int64(flags[1, b - 1] + 2 * flags[0, b] + 4 * flags[0, b + 1])
                where = ((where * 4 + _few(above)) * 4 + _few(beside)) * 4 + _few(before)
                any_, r = by_one_context(buffer, r, any_, state.plain, (_ANY << 10) + where, rate)
                flags[1, b] = any_
        for i in range(top + PAD, bottom + PAD):
            for j in range(PAD, columns + PAD):
                if flags[1, 1 + (j - PAD) // BLOCK] == 0:
                    own[i, j] = 0
                    continue
                near, corner, far, at_parent, by_parent, by_one, by_other, by_before = features(
                    own, parent, one, other, first, second, i, j
                )
                size = (
                    k0 + k1 * near + k2 * corner + k3 * far + k4 * at_parent + k5 * by_parent
                    + k6 * by_one + k7 * by_other + k8 * by_before
                ) >> SIZE_SHIFT  # fmt: skip
                # Damaged streams lead to sums that overflow.
                c = np.int64(size_class[at_most(at_least(size, 0), LARGEST_SIZE - 1)])
                value = np.int64(own[i, j])
                if c < quick:
                    where = c * 64 + at_most(near, 3) * 16 + at_most(corner, 3) * 4
                    where += at_most(at_parent + (by_one + by_other > 0), 3)
                    zero, r = by_one_context(buffer, r, value == 0, state.sure, where, rate)
                    if zero:
                        own[i, j] = 0
                        continue
                west, north = np.int64(own[i, j - 1]), np.int64(own[i - 1, j])
                of_beside = _kind_of(size_kind, by_one + by_other + by_before)
                of_above = _kind_of(size_kind, 4 * at_parent + by_parent)
                of_here = _kind_of(size_kind, 2 * near + corner + far)
                both = at_most(of_beside >> 1, 7)
                at_kind = (which & 3) * 16 + at_most(c >> 1, 15)
                if which == WAVES:
                    # Waves are the smaller the shorter they are.
                    degree = at_most(4 * (i - PAD + ((j - PAD + 1) >> 1)), LARGEST_SIZE - 1)
                    at_kind = 3 * at_most(np.int64(size_kind[degree]), 20) + at_most(near, 2)
                contexts = (
                    c,
                    of_here,
                    both * 8 + at_most(of_above >> 1, 7),
                    at_most(abs(west), 3) * 16
                    + at_most(abs(north), 3) * 4
                    + at_most((corner + 1) >> 1, 3),
                    of_beside + 32 * (near > 0),
                    at_kind,
                )
                by_near = at_most(of_here >> 1, 7) * 8 + both
                if c >= quick:
                    zero, r = decide(
                        buffer, r, value == 0, state, tables, _ZERO, c, by_near, contexts,
                        np.int64(0),
                    )  # fmt: skip
                    if zero:
                        own[i, j] = 0
                        continue
                signs = (_sign(west) * 3 + _sign(north)) * 3 + _sign(own[i, j - 2])
                negative, r = by_one_context(
                    buffer, r, value < 0, state.plain,
                    (_NEGATIVE << 10) + (which & 3) * 27 + signs, rate,
                )  # fmt: skip
                magnitude, t, more = abs(value) - 1, np.int64(0), True
                while more and t < _UNARY:
                    more, r = decide(
                        buffer,
                        r,
                        magnitude > t,
                        state,
                        tables,
                        _MORE + t,
                        c,
                        by_near,
                        contexts,
                        np.int64(0),
                    )
                    t += more
                if more:
                    # What is left by an exponential Golomb code.
                    rest, exponent = magnitude - t + 1, np.int64(0)
                    while more:
                        more, r = by_one_context(
                            buffer, r, (rest >> (exponent + 1)) > 0, state.plain,
                            (_EXPONENT << 10) + exponent, rate,
                        )  # fmt: skip
                        exponent += more
                        if exponent > _LARGEST_EXPONENT:
                            broken, exponent, more = True, np.int64(0), False
                    found = np.int64(1)
                    for b in range(exponent - 1, -1, -1):
                        bit, r = code_bit(buffer, r, ((rest >> b) & 1) == 1, ONE // 2)
                        found = 2 * found + bit
                    t += found - 1
                own[i, j] = -1 - t if negative else 1 + t
        for b in range(flags.shape[1]):
            flags[0, b] = flags[1, b]
        top += BLOCK
    put_back(registers, r)
    if broken:
        registers[BROKEN] = 1
    return top
