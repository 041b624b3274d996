"""The compiled part: predictions of a pass, and its whole numbers ↔ bits in their context.

Everything here is an integer, so that a decoder gets the same predictions, contexts and
probabilities on every machine. Fields are in 1/64 of a step, weights of predictions in 1/512, weights
of mixtures in 1/65536, logits in 1/256. Changing any constant changes the format.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.mixing import ONE, squash_table, stretch_table

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

UNIT_BITS = 6
WEIGHT_BITS = 9
# Of fields, in 1/64 of a step.
LARGEST = 1 << 30

# What a magnitude is expected from: a constant, the spread of the four nearest neighbours, how far
# the prediction is from their mean, steps at near and far neighbours, at those decoded just
# before, in reference fields, and how far references are from what they suggest of each other.
N_SIGNS_OF_SIZE = 8
SIZE_BITS = 8

LARGEST_WEIGHT = (1 << 15) - 1
LARGEST_COEFFICIENT = (1 << 12) - 1

# Decisions about a number: is it zero, is it negative, is its magnitude above 1, 2, …; beyond that an
# exponent in unary and bits; then low bits, of which the first are predicted.
_ZERO, _NEGATIVE, _MORE, _EXPONENT, _LOW = 0, 1, 2, 12, 15
_UNARY = 10
_NODES = 18
_TABLES = 6
_CONTEXTS = 64
_CLASSES = 48
_SURE_CLASSES = 4
_LARGEST_SIZE = 1 << 14
_LARGEST_EXPONENT = 25
_LARGEST_LOGIT = 2839
_MEMORY = 255

# Registers of the range coder.
LOW, RANGE, CACHE, PENDING, POSITION, CODE, DECODING, BROKEN = range(8)
# No number takes more: some 60 decisions of two bytes.
BYTES_PER_VALUE = 160


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
    seen = np.arange(_MEMORY + 1)
    rate = (ONE * 10) // (10 * seen + 16)
    return Tables(
        stretch_table(), squash_table().astype(np.int32), rate.astype(np.int32),
        _octaves(3, 3, _CLASSES), _octaves(2, 4, 32),
    )  # fmt: skip


def _octaves(per_octave: int, start: int, count: int) -> npt.NDArray[np.uint8]:
    """Class of each size: floor(per_octave · log2((size + start) / start)), by integer powers."""
    edges = [
        # The smallest size whose (size + start)^per_octave reaches start^per_octave · 2^k.
        _root_above(start**per_octave << k, per_octave) - start for k in range(1, count)
    ]
    classes = np.searchsorted(np.array(edges), np.arange(_LARGEST_SIZE), side="right")
    return classes.astype(np.uint8)


def _root_above(value: int, power: int) -> int:
    """The smallest whole number whose power is not below a value."""
    root = max(1, round(value ** (1 / power)) - 2)
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
    """

    chances: Int32
    weights: Int32
    sure: Int32


def new_state() -> State:
    return State(
        np.full((_TABLES, _NODES * _CONTEXTS), (ONE // 2) << 8, np.int32),
        np.full((_NODES * (_CLASSES + _CONTEXTS), _TABLES), int(0.4 * ONE), np.int32),
        np.full(_SURE_CLASSES * 64, (ONE // 2) << 8, np.int32),
    )


def copy_of(state: State) -> State:
    return State(*(array.copy() for array in state))


def new_chances() -> Int32:
    """Of :func:`code_numbers`."""
    return np.full(32 * 64, (ONE // 2) << 8, np.int32)


def encoder(capacity: int) -> tuple[npt.NDArray[np.uint8], Int]:
    registers = np.zeros(8, np.int64)
    registers[RANGE], registers[PENDING] = 0xFFFFFFFF, 1
    return np.zeros(capacity, np.uint8), registers


def decoder(stream: bytes) -> tuple[npt.NDArray[np.uint8], Int]:
    registers = np.zeros(8, np.int64)
    registers[RANGE], registers[DECODING], registers[POSITION] = 0xFFFFFFFF, 1, 4
    registers[CODE] = int.from_bytes(stream[:4], "big")
    return np.frombuffer(stream, np.uint8).copy(), registers


def finish(buffer: npt.NDArray[np.uint8], registers: Int) -> bytes:
    """The stream of all that was encoded, in a buffer with room for 8 more bytes."""
    _flush(buffer, registers)
    # The first byte is the carry of a number below one: always zero.
    return buffer[1 : int(registers[POSITION])].tobytes()


@compiled
def predict_rows(
    pool: Int32,
    marks: npt.NDArray[np.int8],
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
    """
    items, rows, columns = predicted.shape
    base = np.empty(columns, np.int64)
    total = np.empty(columns, np.int64)
    for item in range(items):
        for i in range(first, last):
            o = offsets + item * strides + i * steps
            o0, o1, o2, o3 = o[0], o[1], o[2], o[3]
            spread, away = sizes[0, item, i], sizes[1, item, i]
            near, far, signs = sizes[2, item, i], sizes[3, item, i], sizes[4, item, i]
            for j in range(columns):
                a, b = np.int64(pool[o0 + j]), np.int64(pool[o1 + j])
                c, d = np.int64(pool[o2 + j]), np.int64(pool[o3 + j])
                middle = (a + b + c + d + 2) >> 2
                base[j] = middle
                total[j] = 1 << (WEIGHT_BITS - 1)
                spread[j] = abs(a - middle) + abs(b - middle) + abs(c - middle) + abs(d - middle)
            for j in range(columns):
                a, b = np.int32(marks[o0 + j]), np.int32(marks[o1 + j])
                c, d = np.int32(marks[o2 + j]), np.int32(marks[o3 + j])
                near[j] = abs(a) + abs(b) + abs(c) + abs(d)
                signs[j] = min(max(a, -1), 1) + min(max(b, -1), 1) + min(max(c, -1), 1) + min(max(d, -1), 1) + 4
                far[j] = 0
            band = band_of[i]
            for k in range(12):
                w, ok = np.int64(weights[band, k]), o[k]
                for j in range(columns):
                    total[j] += w * (np.int64(pool[ok + j]) - base[j])
            for k in range(4, 12):
                ok = o[k]
                for j in range(columns):
                    far[j] += abs(np.int32(marks[ok + j]))
            for k in range(references.shape[0]):
                w, extra = np.int64(weights[band, 12 + k]), references[k, item, i]
                for j in range(columns):
                    total[j] += w * np.int64(extra[j])
            row = predicted[item, i]
            for j in range(columns):
                value = base[j] + (total[j] >> WEIGHT_BITS)
                value = min(max(value, -LARGEST), LARGEST)
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
        up, down = max(y - 1, 0), min(y + 1, n_lat - 1)
        far_up, far_down = max(y - h, 0), min(y + h, n_lat - 1)
        for j in range(columns):
            x = column * h + j * 2 * h
            if around:
                west, east = (x - 1) % n_lon, (x + 1) % n_lon
                far_west, far_east = (x - h) % n_lon, (x + h) % n_lon
            else:
                west, east = max(x - 1, 0), min(x + 1, n_lon - 1)
                far_west, far_east = max(x - h, 0), min(x + h, n_lon - 1)
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


@compiled
def code_numbers(buffer, registers, chances, rate, numbers):  # type: ignore[no-untyped-def]
    """Numbers without any context but what they are numbers of: rows of a table.

    Returns False where the buffer would not hold them.
    """
    r = (
        registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING],
        registers[POSITION], registers[CODE], registers[DECODING],
    )  # fmt: skip
    rows, columns = numbers.shape
    if not registers[DECODING] and r[4] + r[3] + BYTES_PER_VALUE * numbers.size > len(buffer):
        return False
    for i in range(rows):
        for j in range(columns):
            value = np.int64(numbers[i, j])
            at = min(j, 31) * 64
            zero, r = _simple(buffer, r, value == 0, chances, at, rate)
            if zero:
                numbers[i, j] = 0
                continue
            negative, r = _simple(buffer, r, value < 0, chances, at + 1, rate)
            size, exponent, more = abs(value), np.int64(0), True
            while more:
                more, r = _simple(
                    buffer, r, (size >> (exponent + 1)) > 0, chances, at + 2 + min(exponent, 25), rate
                )
                exponent += more
                if exponent > 31:
                    registers[BROKEN] = 1
                    return True
            found = np.int64(1)
            for b in range(exponent - 1, -1, -1):
                bit = ((size >> b) & 1) == 1
                if b == exponent - 1:
                    bit, r = _simple(
                        buffer, r, bit, chances, at + 32 + min(exponent, 25), rate
                    )
                else:
                    bit, r = _bit(buffer, r, bit, ONE // 2)
                found = 2 * found + bit
            numbers[i, j] = -found if negative else found
    registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING] = r[0], r[1], r[2], r[3]
    registers[POSITION], registers[CODE] = r[4], r[5]
    return True


@compiled
def _shift_low(buffer, low, cache, pending, position):  # type: ignore[no-untyped-def]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        byte = cache
        while pending > 0:
            buffer[position] = (byte + carry) & 0xFF
            position += 1
            pending -= 1
            byte = 0xFF
        cache = (low >> 24) & 0xFF
    return (low & 0x00FFFFFF) << 8, cache, pending + 1, position


@compiled
def _flush(buffer, registers):  # type: ignore[no-untyped-def]
    low, cache = registers[LOW], registers[CACHE]
    pending, position = registers[PENDING], registers[POSITION]
    for _ in range(5):
        low, cache, pending, position = _shift_low(buffer, low, cache, pending, position)
    registers[POSITION] = position


@compiled
def _bit(buffer, r, yes, p):  # type: ignore[no-untyped-def]
    """One decision of probability p / 65536: r are the registers."""
    low, span, cache, pending, position, code, decoding = r
    bound = (span >> 16) * p
    if decoding:
        yes = code < bound
        if yes:
            span = bound
        else:
            span -= bound
            code -= bound
        while span < (1 << 24):
            span <<= 8
            byte = np.int64(0)
            if position < len(buffer):
                byte = np.int64(buffer[position])
            position += 1
            code = (code << 8) | byte
    else:
        if yes:
            span = bound
        else:
            span -= bound
            low += bound
        while span < (1 << 24):
            span <<= 8
            low, cache, pending, position = _shift_low(buffer, low, cache, pending, position)
    return yes, (low, span, cache, pending, position, code, decoding)


@compiled
def _simple(buffer, r, yes, chances, c, rate):  # type: ignore[no-untyped-def]
    """A decision whose chance is that of one context."""
    entry = np.int64(chances[c])
    before, seen = entry >> 8, entry & _MEMORY
    yes, r = _bit(buffer, r, yes, min(max(before, 16), ONE - 16))
    truth = ONE if yes else 0
    chance = before + (((truth - before) * rate[seen]) >> 16)
    chance = min(max(chance, 16), ONE - 16)
    chances[c] = (chance << 8) | min(seen + 1, _MEMORY)
    return yes, r


@compiled
def _decide(buffer, r, yes, state, tables, node, by_class, by_near, contexts):  # type: ignore[no-untyped-def]
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
    x = min(max(x, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    y = min(max(y, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    p = np.int64(squash[((x + y) >> 1) + _LARGEST_LOGIT])
    yes, r = _bit(buffer, r, yes, p)
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
    chances[0, c0] = _learned(e0, truth, rate)
    chances[1, c1] = _learned(e1, truth, rate)
    chances[2, c2] = _learned(e2, truth, rate)
    chances[3, c3] = _learned(e3, truth, rate)
    chances[4, c4] = _learned(e4, truth, rate)
    chances[5, c5] = _learned(e5, truth, rate)
    return yes, r


@compiled
def _learned(entry, truth, rate):  # type: ignore[no-untyped-def]
    before, seen = entry >> 8, entry & _MEMORY
    chance = before + (((truth - before) * rate[seen]) >> 16)
    chance = min(max(chance, 16), ONE - 16)
    return (chance << 8) | min(seen + 1, _MEMORY)


@compiled
def _sign(value):  # type: ignore[no-untyped-def]
    return 1 + (value > 0) - (value < 0)


@compiled
def code_rows(
    buffer,
    registers,
    state,
    tables,
    quick,
    first,
    start,
    last,
    numbers,
    valid,
    sizes,
    reference_sizes,
    coefficients,
):  # type: ignore[no-untyped-def]
    """Numbers of rows first … last of all fields of a pass ↔ bits.

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
    numbers : int32 array, shape (items, rows, columns)
        In or out.
    valid : bool array, shape (items, rows, columns)
        Or of no items, where all are.
    sizes : int32 array, shape (5, items, rows, columns)
        Of :func:`predict_rows`.
    reference_sizes : int32 array, shape (2, items, rows, columns)
        Steps in reference fields, and how far those are apart; of no items without references.
    coefficients : int64 array, shape (8,)
        What a magnitude is expected from.

    Returns
    -------
    int
        Where the buffer was full, counted as ``start`` is, or the number of all rows.
    """
    items, rows, columns = numbers.shape
    has_references = reference_sizes.shape[1] > 0
    all_valid = valid.shape[0] == 0
    k0, k1, k2, k3 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    k4, k5, k6, k7 = coefficients[4], coefficients[5], coefficients[6], coefficients[7]
    size_class, size_kind, rate = tables.size_class, tables.size_kind, tables.rate
    r = (
        registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING],
        registers[POSITION], registers[CODE], registers[DECODING],
    )  # fmt: skip
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
        band = (i * 16) // rows
        here, above, second = numbers[item, i], numbers[item, max(i - 1, 0)], numbers[item, max(i - 2, 0)]
        has_above, has_second = i > first, i > first + 1
        spread, away = sizes[0, item, i], sizes[1, item, i]
        nears, fars, signs = sizes[2, item, i], sizes[3, item, i], sizes[4, item, i]
        for j in range(columns):
            if not all_valid and not valid[item, i, j]:
                here[j] = 0
                continue
            w = n = ne = nw = around = np.int64(0)
            if j > 0:
                w = np.int64(here[j - 1])
                if j > 1:
                    around += abs(np.int64(here[j - 2]))
            if has_above:
                n = np.int64(above[j])
                if j > 0:
                    nw = np.int64(above[j - 1])
                if j + 1 < columns:
                    ne = np.int64(above[j + 1])
                if has_second:
                    around += abs(np.int64(second[j]))
            aw, an, beside = abs(w), abs(n), abs(ne) + abs(nw)
            around += 2 * (aw + an) + beside
            gap, lean = np.int64(spread[j]), np.int64(away[j])
            aside, near, far = abs(lean), np.int64(nears[j]), np.int64(fars[j])
            size = k0 + k1 * gap + k2 * aside + ((k3 * near + k4 * far + k5 * around) << UNIT_BITS)
            past = apart = np.int64(0)
            if has_references:
                past = np.int64(reference_sizes[0, item, i, j])
                apart = np.int64(reference_sizes[1, item, i, j])
                size += ((k6 * past) << UNIT_BITS) + k7 * apart
            size = min(max(size >> SIZE_BITS, 0), _LARGEST_SIZE - 1)
            c = np.int64(size_class[size])
            value = np.int64(here[j])
            zero = False
            if c < quick:
                where = min(c, _SURE_CLASSES - 1) * 64 + min(near, 3) * 16 + min(far, 3) * 4 + min(around, 3)
                zero, r = _simple(buffer, r, value == 0, state.sure, where, rate)
                if zero:
                    here[j] = 0
                    continue
            near_far = min(near, 7) * 8 + min(far >> 1, 7)
            kind_of_gap = np.int64(size_kind[min(gap, _LARGEST_SIZE - 1)])
            kind_of_lean = np.int64(size_kind[min(aside, _LARGEST_SIZE - 1)])
            if has_references:
                kind_of_apart = np.int64(size_kind[min(apart, _LARGEST_SIZE - 1)])
                elsewhere = min(past, 7) * 8 + min(kind_of_apart >> 1, 7)
            else:
                elsewhere = band * 4 + min(c >> 3, 3)
            contexts = (
                c,
                kind_of_gap + 32 * (aw + an > 0),
                near_far,
                min(aw, 3) * 16 + min(an, 3) * 4 + min(beside, 3),
                kind_of_lean + 32 * (near > 0),
                elsewhere,
            )
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
                up * 16 + min(kind_of_lean, 15),
                np.int64(signs[j]),
                _sign(w) * 9 + _sign(n) * 3 + _sign(ne),
                up * 32 + kind_of_lean,
                band * 4 + up,
            )
            negative, r = _decide(
                buffer, r, value < 0, state, tables, _NEGATIVE, c, near_far, of_signs
            )
            magnitude = abs(value) - 1
            low = max(c - 27, 0) // 3
            top, t, more = magnitude >> low, np.int64(0), True
            while more and t < _UNARY:
                more, r = _decide(
                    buffer, r, top > t, state, tables, _MORE + t, c, near_far, contexts
                )
                t += more
            if more:
                # What is left by an exponential Golomb code.
                rest, exponent = top - t + 1, np.int64(0)
                while more:
                    more, r = _decide(
                        buffer, r, (rest >> (exponent + 1)) > 0, state, tables,
                        _EXPONENT + min(exponent, 2), c, near_far, contexts,
                    )  # fmt: skip
                    exponent += more
                    if exponent > _LARGEST_EXPONENT:
                        broken = True
                        exponent, more = np.int64(0), False
                found = np.int64(1)
                for b in range(exponent - 1, -1, -1):
                    bit, r = _bit(buffer, r, ((rest >> b) & 1) == 1, ONE // 2)
                    found = 2 * found + bit
                t += found - 1
            for b in range(low - 1, -1, -1):
                bit = ((magnitude >> b) & 1) == 1
                if b > low - 3:
                    bit, r = _decide(
                        buffer, r, bit, state, tables, _LOW + low - 1 - b, c, near_far, contexts
                    )
                else:
                    bit, r = _bit(buffer, r, bit, ONE // 2)
                t = 2 * t + bit
            if t >= 1 << _LARGEST_EXPONENT:
                broken, t = True, np.int64(0)
            here[j] = -1 - t if negative else 1 + t
    registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING] = r[0], r[1], r[2], r[3]
    registers[POSITION], registers[CODE] = r[4], r[5]
    if broken:
        registers[BROKEN] = 1
    return at
