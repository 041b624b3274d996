"""Integers on a globe ↔ bits, each predicted from those decoded before it.

What a globe's cell holds is predicted from its decoded neighbours in the same globe and from all
around it in up to three globes before, or in the one before and two of the level above, by least
squares that never stop learning: one solution for everything so far, one for what was decoded last,
one for the surroundings in space and time.
Their normal equations are kept in integers and relaxed by a Gauss-Seidel sweep per cell, so that
every machine gets the same prediction. The value is then coded as a few decisions (which side
of the prediction, how far), whose probabilities are mixed from the distributions that all
predictions suggest, and from what was seen in like contexts.

Values are integers; predictions and errors are in 1/64, logits in 1/256, weights in 1/65536.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.binary import (
    LARGEST_LOGIT,
    Coder,
    Mixture,
    Tables,
    decide,
    half_octaves,
    is_broken,
    mark_broken,
)
from coinpp_xr.compiled import compiled
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.lattice import PARTS
from coinpp_xr.sigmoid import HIGH, LOW, sigmoid_table

Int = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]

# Of the values that can be coded.
LARGEST = 1 << 24

_UNIT = PARTS  # predictions and errors
_MOST_ERROR = (1 << 31) - 1
_LAGS = 3
# Neighbours in this globe, around the cell in the last one, and in each of those before.
_NEAR, _LAST, _EARLIER = 7, 9, 7
_FEATURES = _NEAR + _LAST + (_LAGS - 1) * _EARLIER
# Of normal equations: a triangle of products, and after it those with the target.
_TARGETS = _FEATURES * (_FEATURES + 1) // 2
_ENTRIES = _TARGETS + _FEATURES
# Normal equations of surroundings in earlier globes are kept for about so many blocks of cells.
_BLOCKS = 480
# A column or a block takes 4 kB, several times.
_MOST_COLUMNS, _MOST_BLOCKS = 1 << 12, 1 << 11
# No value takes more: 100 decisions of two bytes each.
_BYTES_PER_VALUE = 200
# Features are given in units of the expected error, clipped here.
_SCALED, _CLIPPED = 16, 1023

_NODES = 14
_SCALES, _SIZES, _ROUGH, _BANDS, _PLACES = 16, 20, 32, 64, 8
_CONTEXTS = (
    _NODES * _SCALES * _PLACES,
    _NODES * _SIZES * _PLACES,
    _NODES * _SIZES * _PLACES,
    _NODES * _ROUGH,
    _NODES * _BANDS,
)
_SETS = (_NODES * _SCALES, _NODES * _SIZES, _NODES * _SIZES, _NODES * _BANDS)


class State(NamedTuple):
    """All that has been learned, and the room to work in.

    Parameters
    ----------
    weights : shape (2, solutions, features)
        Of the least-squares solutions: for the first globe of a sequence, and for others.
    sums : shape (2, 2, entries)
        Normal equations of the slow and of the quick solution.
    blocks : shape (2, block rows, block columns, entries)
        Of surroundings in earlier globes.
    fresh : shape (block rows, block columns, entries)
        The same of this globe.
    rows, columns : shape (n_lon, entries)
        Of what is west of every cell, and of the rows above.
    stack_sums, stack_weights :
        Normal equations and solution that combine the predictions.
    recent : shape (best + 1, 2, n_lon)
        Errors of the predictions that there are beside the best one, and of that, in this row and
        the one above, by whether the number of the row is even.
    before, earlier : shapes (best + 1, n_lat, n_lon) and (best, n_lat, n_lon)
        Errors in the globe before, row by row replaced by those of this globe, and in the one
        before that; of no cells, like ``habit``, where there is one globe only.
    habit : shape (n_lat, n_lon)
        Absolute errors of every cell, faded with time.
    counts : shape (2,)
        Globes so far, and as many faded with time.
    """

    weights: Int
    sums: Int
    blocks: Int
    fresh: Int
    rows: Int
    columns: Int
    stack_sums: Int
    stack_weights: Int
    recent: npt.NDArray[np.int32]
    before: npt.NDArray[np.int32]
    earlier: npt.NDArray[np.int32]
    habit: Int
    counts: Int
    mixture: Mixture


def new_state(shape: tuple[int, int], thorough: bool, alone: bool = False) -> State:
    """One that knows nothing yet of globes of (n_lat, n_lon).

    ``thorough`` looks at the surroundings, too: slower and smaller. ``alone`` is a globe that none
    comes after.
    """
    n_lat, n_lon = shape
    solutions = 3 if thorough else 1
    best = 2 * solutions
    predictions = best + 3
    remembered = (0, 0) if alone else shape
    side = _block_side(shape) if thorough else max(shape)
    rows, columns = -(-n_lat // side), -(-n_lon // side)
    weights = np.zeros((2, solutions, _FEATURES), np.int64)
    weights[:, :, :2] = 1 << 15
    wide = _ENTRIES if thorough else 1
    zeros = np.zeros
    return State(
        weights,
        zeros((2, 2, _ENTRIES), np.int64),
        zeros((2, rows, columns, wide), np.int64),
        zeros((rows, columns, wide), np.int64),
        zeros((n_lon, wide), np.int64),
        zeros((n_lon, wide), np.int64),
        zeros((2 * solutions, 2 * solutions + 1), np.int64),
        zeros(2 * solutions, np.int64),
        zeros((best + 1, 2, n_lon), np.int32),
        zeros((best + 1, *remembered), np.int32),
        zeros((best, *remembered), np.int32),
        zeros(remembered, np.int64),
        zeros(2, np.int64),
        binary.mixture(_CONTEXTS, _SETS if thorough else _SETS[:2], predictions),
    )


class Room(NamedTuple):
    """To work in, for :func:`_code_row`."""

    features: Int
    scaled: Int
    matrix: Int
    right: Int
    entries: Int
    run: Int
    locations: Int
    scales: Int
    inverses: Int
    distances: Int
    stack_right: Int
    logits: Int
    contexts: Int
    sets: Int
    kinds: Int


def _room_for(state: State) -> Room:
    n, best, mixers = _FEATURES, len(state.stack_weights), len(state.mixture.weights)
    predictions = best + 3
    shapes = (
        n, n, (n, n), n, _ENTRIES, _ENTRIES, predictions, predictions, predictions, best, best,
        predictions + len(_CONTEXTS) + 1, len(_CONTEXTS), mixers, 4,
    )  # fmt: skip
    return Room(*(np.zeros(shape, np.int64) for shape in shapes))


@compiled
def _relax(matrix: Int, right: Int, solution: Int, n: int, ridge: int) -> None:
    """One Gauss-Seidel sweep for matrix · solution = right, solution in 1/65536."""
    largest = np.int64(0)
    for i in range(n):
        largest = max(largest, matrix[i, i])
    shift = 0
    while (largest >> shift) > (1 << 30):
        shift += 1
    for i in range(n):
        rest = (right[i] >> shift) << 16
        for k in range(n):
            if k != i:
                rest -= (matrix[i, k] >> shift) * solution[k]
        diagonal = (matrix[i, i] + (matrix[i, i] >> 10) + ridge) >> shift
        solution[i] = min(max(rest // (diagonal + 1), -(1 << 19)), 1 << 19)


@compiled
def _unpack(entries: Int, matrix: Int, right: Int) -> None:
    for a in range(_FEATURES):
        row = a * (a + 1) // 2
        for c in range(a + 1):
            matrix[a, c] = entries[row + c]
            matrix[c, a] = entries[row + c]
    for a in range(_FEATURES):
        right[a] = entries[_TARGETS + a]


@compiled
def _features(x: Int, past: Int, lags: int, i: int, j: int, around: bool, f: Int) -> int:
    """Differences to a base, which is returned, all in 1/64 of a step."""
    n_lat, n_lon = x.shape
    if around:
        west, east, far = (j - 1) % n_lon, (j + 1) % n_lon, (j + 2) % n_lon
    else:
        west, east, far = max(j - 1, 0), min(j + 1, n_lon - 1), min(j + 2, n_lon - 1)
    above, below = max(i - 1, 0), min(i + 1, n_lat - 1)
    if i > 0:
        north, north_west, north_east = x[above, j], x[above, west], x[above, east]
        farther, second = x[above, far], x[max(i - 2, 0), j]
        left = x[i, j - 1] if j > 0 else north
    else:
        left = x[i, j - 1] if j > 0 else (past[0, i, j] if lags > 0 else np.int64(0))
        north = north_west = north_east = farther = second = left
    two_left = x[i, j - 2] if j > 1 else left
    base = (left + north) >> 1
    f[0], f[1], f[2], f[3] = left - base, north - base, north_west - base, north_east - base
    f[4], f[5], f[6] = two_left - base, second - base, farther - base
    k = _NEAR
    for lag in range(_LAGS):
        count = _LAST if lag == 0 else _EARLIER
        if lag < lags:
            y = past[lag]
            centre = y[i, j]
            f[k] = centre - base
            f[k + 1], f[k + 2] = y[i, west] - centre, y[above, j] - centre
            f[k + 3], f[k + 4] = y[i, east] - centre, y[below, j] - centre
            f[k + 5], f[k + 6] = y[above, east] - centre, y[above, west] - centre
            if lag == 0:
                f[k + 7], f[k + 8] = y[below, east] - centre, y[below, west] - centre
        else:
            for a in range(count):
                f[k + a] = 0
        k += count
    return base


@compiled
def _code_value(
    coder: Coder,
    tables: Tables,
    sigmoid: Int,
    mixture: Mixture,
    value: int,
    centre: int,
    spread: int,
    locations: Int,
    inverses: Int,
    kinds: Int,
    logits: Int,
    contexts: Int,
    sets: Int,
) -> int:
    """One value by decisions: which side of the prediction, how far, where within.

    ``locations`` are predictions and ``inverses`` 2^24 / scale of their logistic distributions;
    ``kinds`` are the contexts: last errors here, at this cell before, roughness, latitude.
    """
    n = len(locations)
    # The boundary between integers that is nearest to the prediction.
    first = (centre + _UNIT // 2) >> 6
    if ((centre + _UNIT // 2) & (_UNIT - 1)) > _UNIT // 2:
        first += 1
    place = min(max(((centre - (first * _UNIT - _UNIT // 2) + _UNIT // 2) * _PLACES) >> 6, 0), 7)
    scale = min(max(half_octaves(spread) - 2, 0), _SCALES - 1)
    _find_contexts(0, scale, place, kinds, contexts, sets)
    edge = first * _UNIT - _UNIT // 2
    for k in range(n):
        z = ((locations[k] - edge) * inverses[k]) >> 16
        logits[k] = min(max(z, -LARGEST_LOGIT), LARGEST_LOGIT)
    up = decide(coder, tables, mixture, value >= first, logits, contexts, sets)
    side = 1 if up else -1
    start = first if up else first - 1
    width = max(1, (spread * 8) >> 8)
    step = 0
    while True:
        if step >= 3:
            width = min(width * 2, 4 * LARGEST)
        end = start + side * width
        node = (1 if up else 6) + min(step, 4)
        _find_contexts(node, scale, place, kinds, contexts, sets)
        for k in range(n):
            near = side * (locations[k] - start * _UNIT) + _UNIT // 2
            logits[k] = tables.stretch[_beyond(sigmoid, near, near - width * _UNIT, inverses[k])]
        beyond = value >= end if up else value <= end
        beyond = decide(coder, tables, mixture, beyond, logits, contexts, sets)
        if not beyond or step > 40:
            break
        start = end
        step += 1
    level = 0
    while width > 1:
        half = width >> 1
        middle = start + side * half
        place = min(step, 3) + (4 if up else 0)
        _find_contexts(11 + min(level, 2), scale, place, kinds, contexts, sets)
        for k in range(n):
            near = side * (locations[k] - start * _UNIT) + _UNIT // 2
            logits[k] = tables.stretch[
                _within(sigmoid, near, near - half * _UNIT, near - width * _UNIT, inverses[k])
            ]
        beyond = value >= middle if up else value <= middle
        if decide(coder, tables, mixture, beyond, logits, contexts, sets):
            start = middle
            width -= half
        else:
            width = half
        level += 1
    return start


@compiled
def _find_contexts(node: int, scale: int, place: int, kinds: Int, contexts: Int, sets: Int) -> None:
    """Contexts and weights for a decision: which one it is, and what is known of the value."""
    contexts[0] = (node * _SCALES + scale) * _PLACES + place
    contexts[1] = (node * _SIZES + kinds[0]) * _PLACES + place
    contexts[2] = (node * _SIZES + kinds[1]) * _PLACES + place
    contexts[3] = node * _ROUGH + kinds[2]
    contexts[4] = node * _BANDS + kinds[3]
    sets[0], sets[1] = node * _SCALES + scale, node * _SIZES + kinds[0]
    if len(sets) > 2:
        sets[2], sets[3] = node * _SIZES + kinds[1], node * _BANDS + kinds[3]


@compiled
def _beyond(sigmoid: Int, near: int, far: int, inverse: int) -> int:
    """σ(far / scale) / σ(near / scale) in 1/65536: that a value goes further once it got there."""
    low, high = LOW, HIGH
    a, b = (near * inverse) >> 18, (far * inverse) >> 18
    # Far out only the difference counts; it must not leave the table.
    excess = max(low // 2 - a, 0)
    a, b = min(a + excess, high), min(max(b + excess, low), high)
    p = (sigmoid[b - low] << 16) // sigmoid[a - low]
    return min(max(p, 8), 65528)


@compiled
def _within(sigmoid: Int, near: int, middle: int, far: int, inverse: int) -> int:
    """Share of the probability between near and far that lies beyond the middle, in 1/65536."""
    low, high = LOW, HIGH
    a, b, c = (near * inverse) >> 18, (middle * inverse) >> 18, (far * inverse) >> 18
    excess = max(low // 2 - a, 0)
    a, b = min(a + excess, high), min(max(b + excess, low), high)
    c = min(max(c + excess, low), high)
    all_of_it = sigmoid[a - low] - sigmoid[c - low] + 2
    p = ((sigmoid[b - low] - sigmoid[c - low] + 1) << 16) // all_of_it
    return min(max(p, 64), 65472)


@compiled
def _code_row(
    coder: Coder,
    tables: Tables,
    sigmoid: Int,
    state: State,
    values: Int,
    valid: Bool,
    past: Int,
    lags: int,
    mode: int,
    around: bool,
    soft: Int,
    room: Room,
    i: int,
    side: int,
    shift: int,
) -> None:
    """Code a row of a globe; ``soft`` gets what is most likely behind the rounded values.

    ``side`` is that of the blocks of cells, ``shift`` that of the lattice.
    """
    n_lat, n_lon = values.shape
    solutions = state.weights.shape[1]
    thorough = solutions > 1
    predictions = 2 * solutions + 3
    best = 2 * solutions
    n = _NEAR if lags == 0 else _NEAR + _LAST + (lags - 1) * _EARLIER
    weights, sums = state.weights[mode], state.sums[mode]
    blocks = state.blocks[mode]
    errors, before, earlier = state.recent, state.before, state.earlier
    here, above = i % 2, 1 - i % 2
    stack, stack_weights = state.stack_sums, state.stack_weights
    count = state.counts[0]

    f, g, matrix, right, entries, run = room[:6]
    locations, scales, inverses, distances, stack_right = room[6:11]
    logits, contexts, sets, kinds = room[11:]

    for a in range(_ENTRIES):
        run[a] = 0
    for j in range(n_lon):
        west, east = (j - 1) % n_lon, (j + 1) % n_lon
        if not around:
            west, east = max(j - 1, 0), min(j + 1, n_lon - 1)
        base = _features(soft, past, lags, i, j, around, f)
        if not valid[i, j]:
            soft[i, j] = past[0, i, j] if lags > 0 else base
            for k in range(best + 1):
                errors[k, here, j] = 0
            if thorough:
                for a in range(_ENTRIES):
                    run[a] = (run[a] * 230) >> 8
                    state.rows[j, a] = run[a]
            continue
        if thorough:
            block = blocks[i // side, j // side]
            for a in range(_ENTRIES):
                entries[a] = run[a] + state.columns[j, a] + block[a] + (sums[0, a] >> 9)
            _unpack(entries, matrix, right)
            _relax(matrix, right, weights[2], n, 1)
        # Predictions, and each with what it was wrong by nearby and before.
        for e in range(solutions):
            total = np.int64(0)
            for a in range(n):
                total += weights[e, a] * f[a]
            locations[e] = _bounded(base + (total >> 16))
            missed = np.int64(0)
            if count > 0:
                missed += 102 * before[e, i, j]
            if j > 0:
                missed += 38 * errors[e, here, j - 1]
            if i > 0:
                missed += 38 * errors[e, above, j]
            locations[solutions + e] = _bounded(locations[e] + (missed >> 8))
        smallest = np.int64(1) << 40
        for e in range(best):
            total, weight = np.int64(38), 1
            if j > 0:
                total += 2 * abs(errors[e, here, j - 1])
                weight += 2
            if j > 1:
                total += abs(errors[e, here, j - 2])
                weight += 1
            if i > 0:
                total += 2 * abs(errors[e, above, j]) + abs(errors[e, above, west])
                total += abs(errors[e, above, east])
                weight += 4
            if count > 0:
                total += 3 * abs(before[e, i, j]) + abs(before[e, i, east])
                total += abs(before[e, min(i + 1, n_lat - 1), j])
                weight += 5
            if count > 1:
                total += 2 * abs(earlier[e, i, j])
                weight += 2
            scales[e] = (total * 154) // (weight * 256) + 4
            smallest = min(smallest, scales[e])
        share, total, spread = np.int64(0), np.int64(0), np.int64(0)
        for e in range(best):
            r = (smallest * 256) // scales[e]
            r = (r * r * r * r) >> 16
            share += r
            total += r * (locations[e] - base)
            spread += r * scales[e]
        blend, spread = base + total // share, spread // share
        correction = np.int64(0)
        for e in range(best):
            distances[e] = locations[e] - blend
            correction += stack_weights[e] * distances[e]
        centre = _bounded(blend + (correction >> 16))
        locations[best] = locations[best + 1] = locations[best + 2] = centre
        scales[best] = spread
        if count > 0:
            usual = 2 * state.habit[i, j] + state.habit[i, west] + state.habit[i, east]
            scales[best + 1] = ((usual // 2 + 19) * 154) // (2 * state.counts[1] + 128) + 3
        else:
            scales[best + 1] = spread
        total = np.int64(13)
        if j > 0:
            total += abs(errors[best, here, j - 1])
        if i > 0:
            total += abs(errors[best, above, j])
            sides = abs(errors[best, above, west]) + abs(errors[best, above, east])
            total += (sides * 179) >> 8
        scales[best + 2] = (total * 41) // 256 + 3
        for k in range(predictions):
            inverses[k] = (np.int64(1) << 24) // scales[k]

        nearby = np.int64(abs(errors[best, here, j - 1])) if j > 0 else np.int64(0)
        if i > 0:
            nearby = max(nearby, np.int64(abs(errors[best, above, j])))
        kinds[0] = min(half_octaves(nearby >> 3), _SIZES - 1)
        kinds[1] = 0
        if count > 0:
            kinds[1] = min(half_octaves(abs(before[best, i, j]) >> 3), _SIZES - 1)
        rough = abs(f[3] - f[2]) + abs(f[0] - f[2])
        kinds[2] = min(half_octaves(rough >> 5), _ROUGH - 1)
        kinds[3] = (i * (_BANDS - 1)) // n_lat
        for k in range(predictions):
            locations[k] -= shift
        value = _code_value(
            coder, tables, sigmoid, state.mixture, values[i, j], centre - shift, spread,
            locations, inverses, kinds, logits, contexts, sets,
        )  # fmt: skip
        for k in range(predictions):
            locations[k] += shift
        values[i, j] = value
        if abs(value) > LARGEST:
            mark_broken(coder)
            return

        exact = value * _UNIT + shift
        for k in range(best + 1):
            errors[k, here, j] = min(max(exact - locations[k], -_MOST_ERROR), _MOST_ERROR)
        if len(state.habit) > 0:
            state.habit[i, j] += abs(errors[best, here, j])
        # Where rounding is coarse, the prediction tells on which side of the middle it was.
        towards = min(max(centre - exact, -_UNIT // 2), _UNIT // 2)
        sure = min(spread, 1 << 20)
        soft[i, j] = exact + towards * 1130 // (2458 + sure * sure)

        inverse = (np.int64(_SCALED) << 16) // (spread + 6)
        for e in range(best):
            distances[e] = _scaled(distances[e], inverse)
        target = _scaled(exact - blend, inverse)
        for e in range(best):
            for c in range(best):
                stack[e, c] += distances[e] * distances[c]
            stack[e, best] += distances[e] * target
        if j % 2 == 1:
            for e in range(best):
                stack_right[e] = stack[e, best]
            _relax(stack, stack_right, stack_weights, best, 1024)
            for e in range(best):
                for c in range(best + 1):
                    stack[e, c] = (stack[e, c] * 4055) >> 12

        inverse = (np.int64(_SCALED) << 16) // (spread + 16)
        for a in range(_FEATURES):
            g[a] = _scaled(f[a], inverse)
        target = _scaled(exact - base, inverse)
        for a in range(_FEATURES):
            row = a * (a + 1) // 2
            for c in range(a + 1):
                entries[row + c] = g[a] * g[c]
        for a in range(_FEATURES):
            entries[_TARGETS + a] = g[a] * target
        last = solutions if solutions < 2 else 2
        for e in range(last):
            for a in range(_ENTRIES):
                sums[e, a] += entries[a]
        if thorough:
            fresh = state.fresh[i // side, j // side]
            for a in range(_ENTRIES):
                run[a] = ((run[a] + entries[a]) * 230) >> 8
                state.rows[j, a] = run[a]
                fresh[a] += entries[a]
        if j % 4 == 3:
            for e in range(last):
                _unpack(sums[e], matrix, right)
                _relax(matrix, right, weights[e], n, 1)
            for a in range(_ENTRIES):
                if thorough:
                    sums[0, a] = (sums[0, a] * 4094) >> 12
                    sums[1, a] = (sums[1, a] * 3980) >> 12
                else:
                    sums[0, a] = (sums[0, a] * 4075) >> 12
    if thorough:
        _fold_row(state.rows, state.columns, run)
    if len(state.habit) > 0:
        # No later row asks for what the globe before missed here.
        for k in range(best):
            for j in range(n_lon):
                earlier[k, i, j] = before[k, i, j]
        for k in range(best + 1):
            for j in range(n_lon):
                before[k, i, j] = errors[k, here, j]


@compiled
def _bounded(location: int) -> int:
    """Far beyond all values, predictions would only overflow."""
    return min(max(location, -2 * _UNIT * LARGEST), 2 * _UNIT * LARGEST)


@compiled
def _scaled(value: int, inverse: int) -> int:
    return min(max((value * inverse) >> 16, -_CLIPPED), _CLIPPED)


@compiled
def _fold_row(rows: Int, columns: Int, run: Int) -> None:
    """Add a finished row to what every column knows: fading to both sides, and downwards."""
    for a in range(len(run)):
        run[a] = 0
    for j in range(len(rows) - 1, -1, -1):
        for a in range(rows.shape[1]):
            columns[j, a] = ((columns[j, a] + rows[j, a] + run[a]) * 205) >> 8
            # Rows hold fading sums from the west; what was new at j is the difference.
            new = (rows[j, a] * 256) // 230
            if j > 0:
                new -= rows[j - 1, a]
            run[a] = ((run[a] + new) * 230) >> 8


@compiled
def _end_globe(state: State, mode: int, around: bool) -> None:
    """What a globe has taught becomes part of the surroundings of the next."""
    blocks, fresh = state.blocks[mode], state.fresh
    n_rows, n_columns, entries = fresh.shape
    if entries > 1:
        for i in range(n_rows):
            for j in range(n_columns):
                west = (j - 1) % n_columns if around else max(j - 1, 0)
                east = (j + 1) % n_columns if around else min(j + 1, n_columns - 1)
                for a in range(entries):
                    beside = fresh[i, west, a] + fresh[i, east, a]
                    if i > 0:
                        beside += fresh[i - 1, j, a]
                    if i < n_rows - 1:
                        beside += fresh[i + 1, j, a]
                    blocks[i, j, a] = (
                        ((blocks[i, j, a] * 230) >> 8) + fresh[i, j, a] + ((beside * 115) >> 8)
                    )
    for i in range(state.habit.shape[0]):
        for j in range(state.habit.shape[1]):
            state.habit[i, j] = (state.habit[i, j] * 230) >> 8
    state.counts[0] += 1
    state.counts[1] = ((state.counts[1] + 64) * 230) >> 8


def _block_side(shape: tuple[int, int]) -> int:
    return max(3, isqrt(shape[0] * shape[1] // _BLOCKS) + 1)


def can_look_around(shape: tuple[int, int]) -> bool:
    """Whether what is remembered of columns and blocks is in proportion to the grid."""
    side = _block_side(shape)
    blocks = -(-shape[0] // side) * -(-shape[1] // side)
    return shape[1] <= _MOST_COLUMNS and blocks <= _MOST_BLOCKS


class Prior(NamedTuple):
    """What is known before the first globe.

    Parameters
    ----------
    state : State
    expected : int64 array, shape (n_lat, n_lon), or None
        A globe like those to come, in 1/64.
    shape : (n_lat, n_lon)
    """

    state: State
    expected: Int | None
    shape: tuple[int, int]


class _Walk:
    """Globes in the order in which they are coded."""

    def __init__(self, coder: Coder, prior: Prior, times: int, around: bool) -> None:
        self.coder, self._around = coder, around
        self._state, self._expected, shape = prior
        lags = max(times - 1, int(self._expected is not None))
        self._past = np.zeros((min(lags, _LAGS), *shape), np.int32)
        self._tables, self._sigmoid = binary.tables(), sigmoid_table()
        self._room = _room_for(self._state)
        self.start_sequence()

    def start_sequence(self) -> None:
        """What follows has nothing before it."""
        self.start_after([] if self._expected is None else [self._expected])
        self._mode = 0

    def start_after(self, past: list[npt.NDArray[np.integer[Any]]]) -> None:
        """What follows has these globes before it, the last one first."""
        self._lags = min(len(past), len(self._past))
        for lag in range(self._lags):
            self._past[lag] = past[lag]
        self._mode = 1

    def start_beside(
        self, own: list[npt.NDArray[np.int32]], above: list[npt.NDArray[np.int32]]
    ) -> None:
        """What follows has a globe before it, or none, and on the level above one at its time and,
        before that, one at the time of its own."""
        self.start_after([*own, *above[::-1]])
        self._mode = len(own)

    def globe(self, values: Int, valid: Bool, shift: int = 0) -> npt.NDArray[np.int32]:
        """Encode the values of a globe, or decode them into it; returns what others see of it.

        The lattice of its values may be shifted, by so many 1/64 of a step.
        """
        n_lat, n_lon = values.shape
        soft, side = np.zeros(values.shape, np.int32), _block_side((n_lat, n_lon))
        for row in range(n_lat):
            self.coder = binary.with_room(self.coder, _BYTES_PER_VALUE * n_lon)
            _code_row(
                self.coder, self._tables, self._sigmoid, self._state, values, valid,
                self._past, self._lags, self._mode, self._around, soft, self._room, row, side,
                shift,
            )  # fmt: skip
            if is_broken(self.coder):
                raise CorruptPayloadError("the residual's stream is damaged")
        _end_globe(self._state, self._mode, self._around)
        self._state.fresh[:] = 0
        self._state.columns[:] = 0
        if self._mode == 0:
            self.start_after([soft])  # an expected globe was no real one
        else:
            for lag in range(len(self._past) - 1, 0, -1):
                self._past[lag] = self._past[lag - 1]
            self._past[:1] = soft
            self._lags = min(self._lags + 1, len(self._past))
        return soft


def no_prior(shape: tuple[int, int], *, thorough: bool, alone: bool = False) -> Prior:
    """Nothing is known of globes of (n_lat, n_lon), or of the only one that there is."""
    return Prior(new_state(shape, thorough, alone), None, shape)


def prior_of(globes: Int, *, around: bool, thorough: bool) -> Prior:
    """What globes like those to come teach: all is learned from coding them.

    Parameters
    ----------
    globes : int64 array, shape (times, n_lat, n_lon)
        At least two.
    """
    valid = np.ones(globes.shape[1:], np.bool_)
    nothing = no_prior(globes.shape[1:], thorough=thorough)
    walk = _Walk(binary.encoder(1 << 12), nothing, _LAGS + 1, around)
    total, seen = globes.sum(axis=0), []
    for globe in globes:
        # As the first of a sequence, of which the others say what to expect.
        walk.start_after([(total - globe) * _UNIT // (len(globes) - 1)])
        walk._mode = 0
        seen.append(walk.globe(globe.copy(), valid))
    walk.start_after(seen[:1])
    for globe in globes[1:]:
        walk.globe(globe.copy(), valid)
    return Prior(nothing.state, total * _UNIT // len(globes), nothing.shape)


def _walked(
    walk: _Walk,
    order: npt.NDArray[np.integer[Any]],
    levels: int,
    globe_of: Callable[[int], tuple[Int, Bool]],
    shifts: Int | None,
) -> Iterator[tuple[int, Int]]:
    """All globes, sequence after sequence: numbers, and values once they are coded."""
    if order.shape[1] == 1:  # then levels follow each other
        order, levels = order.reshape(-1, levels), 1
    above: list[npt.NDArray[np.int32]] = []
    for number, sequence in enumerate(order):
        walk.start_sequence()
        if number % levels == 0:
            above = []
        own: list[npt.NDArray[np.int32]] = []
        for time, item in enumerate(sequence):
            if above:
                walk.start_beside(own[-1:], above[max(time - 1, 0) : time + 1])
            values, valid = globe_of(int(item))
            soft = walk.globe(values, valid, 0 if shifts is None else int(shifts[item]))
            if levels > 1:
                own.append(soft)
            yield int(item), values
        above = own


def copy_of(prior: Prior) -> Prior:
    """The same, to be changed: coding goes on learning in what it was given."""
    return prior._replace(state=binary.copy(prior.state))


def encode(
    order: npt.NDArray[np.integer[Any]],
    globe_of: Callable[[int], tuple[Int, Bool]],
    prior: Prior,
    *,
    around: bool,
    levels: int = 1,
    shifts: Int | None = None,
) -> bytes:
    """Code globes that follow each other in time.

    Parameters
    ----------
    order : int array, shape (sequences, times)
        Numbers of globes.
    globe_of : callable
        Number → values, int64 array of shape (n_lat, n_lon), at most 2^24 in size, and which of
        them are valid; others are passed over.
    prior : Prior
        Is changed.
    around : bool
        Whether the first column follows the last, as on a whole globe.
    levels : int
        So many sequences are those of levels, one above the other.
    shifts : int64 array, shape (globes,), optional
        By how much the lattice of each is shifted, in 1/64 of a step.

    Returns
    -------
    bytes
        For :func:`decode` with the same order, valid cells, prior, ``around``, levels and shifts.
    """
    walk = _Walk(binary.encoder(1 << 12), prior, _most_before(order, levels), around)
    for _ in _walked(walk, order, levels, globe_of, shifts):
        pass
    return binary.finish(walk.coder)


def decode(
    stream: bytes,
    order: npt.NDArray[np.integer[Any]],
    valid_of: Callable[[int], Bool],
    prior: Prior,
    *,
    around: bool,
    levels: int = 1,
    shifts: Int | None = None,
) -> Iterator[tuple[int, Int]]:
    """Numbers and values of globes, one after the other; 0 where not valid.

    Raises
    ------
    CorruptPayloadError
        When it shows, at the latest after the last globe.
    """
    walk = _Walk(binary.decoder(stream), prior, _most_before(order, levels), around)

    def nothing(item: int) -> tuple[Int, Bool]:
        return np.zeros(prior.shape, np.int64), valid_of(item)

    yield from _walked(walk, order, levels, nothing, shifts)
    binary.check_end(walk.coder)


def _most_before(order: npt.NDArray[np.integer[Any]], levels: int) -> int:
    """How many globes any globe looks at, and one for itself."""
    if order.shape[1] == 1:
        return levels
    return order.shape[1] if levels == 1 else _LAGS + 1
