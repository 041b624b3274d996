"""Coefficients of patches ↔ bits, compiled.

Whether a block is split, how many coefficients it has and each of them is a sequence of decisions
(:mod:`coinpp_xr.binary`) in the context of what was decoded before: lower frequencies of the block,
the same frequencies of the blocks beside it whatever their size, and of the channels before.
Integers only. The encoder leaves out what is not worth its bits, by what the decisions cost there
and then. Encoding and decoding are one walk.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.binary import (
    Coder,
    Mixture,
    Tables,
    code,
    decide,
    half_octaves,
    is_broken,
    is_decoder,
    learn,
    mark_broken,
    weigh,
)
from coinpp_xr.compiled import compiled
from coinpp_xr.patches import LEVELS, POSITIONS, RADII, UNIT, Geometry

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
UInt8 = npt.NDArray[np.uint8]

# Decoded symbols are smaller; see MOST_STEPS of patches.
_LARGEST = 1 << 20
# Decisions about a coefficient: whether it is beyond 0, beyond 1, …; in tables the last are one.
_NODES, _UNARY = 10, 16
# Classes of magnitudes nearby, of their sum, of numbers of coefficients.
_SIZES, _FINE, _CLASSES = 14, 26, 28
# Of the first channel, the second, and all others.
_KINDS = 3
_CONTEXTS = (
    _NODES * _SIZES * _SIZES,
    _NODES * _SIZES * RADII,
    _NODES * _SIZES * RADII * 2,
    _NODES * _FINE * LEVELS * 2,
    _NODES * POSITIONS * LEVELS * 2,
    _NODES * 4 * 4 * 3 * 3 * 3,
    _NODES * _SIZES * _SIZES * 8,
    _NODES * 8 * 10 * 2,
)
_SETS = (_NODES * RADII, _NODES * _FINE, _NODES * LEVELS * 2)
_END_CONTEXTS = (_CLASSES * LEVELS * _KINDS, *(4 * (_CLASSES * _CLASSES * _KINDS,)))
_END_SETS = (_CLASSES * LEVELS, _CLASSES * _KINDS)
_SPLIT_CONTEXTS = (LEVELS * 4 * 4 * 4, LEVELS)
_SPLIT_SETS = (LEVELS,)
_NOTHING = _CLASSES - 1
# Of magnitudes that contexts are made of, more makes no difference.
_MOST = 255
_EVEN = 1 << 15
# What the encoder expects bits to cost before it knows: of one coefficient far from all others, of
# one that is not alone, of a sign, of each step beyond the first, all in 1/256.
_LONELY, _IN_COMPANY, _SIGN, _FURTHER = 5 * 256, 3 * 256, 256, 400
# Magnitudes are rounded up from so much above the half, in 1/256: more where there are few.
_RELUCTANCE, _LITTLE_RELUCTANCE = UNIT // 14, UNIT // 32


class State(NamedTuple):
    """What is learned while coding: about coefficients, numbers of them, and splits."""

    values: Mixture
    ends: Mixture
    splits: Mixture


class Decision(NamedTuple):
    """Room for a decision's inputs."""

    logits: Int
    contexts: Int
    sets: Int


class Room(NamedTuple):
    """To work in.

    Parameters
    ----------
    value, end, split : Decision
    origins : int64 array, shape (3, 3)
        Where the blocks behind, above and to the left begin.
    levels : int64 array, shape (3,)
        Their levels; -1 where there is none.
    stack : int64 array, shape (n, 4)
        Level and place of blocks to come.
    """

    value: Decision
    end: Decision
    split: Decision
    origins: Int
    levels: Int
    stack: Int


class Band(NamedTuple):
    """Patches that are coded together.

    Parameters
    ----------
    symbols : int32 array, shape (channels, z, y, x)
        Of whole patches. For the encoder it holds coefficients in 1/256 of a step, which turn into
        symbols on the way.
    magnitudes : uint8 array, same shape
        What was coded.
    ends : int32 array, shape (channels, least blocks along z, y, x)
        Classes of the numbers of coefficients.
    levels : int32 array, shape (least blocks along z, y, x)
        Of the block that covers each; the decoder fills it in.
    """

    symbols: Int32
    magnitudes: UInt8
    ends: Int32
    levels: Int32


def new_state() -> State:
    """One that knows nothing yet."""
    return State(
        binary.mixture(_CONTEXTS, _SETS, 0),
        binary.mixture(_END_CONTEXTS, _END_SETS, 0),
        binary.mixture(_SPLIT_CONTEXTS, _SPLIT_SETS, 0),
    )


def new_room() -> Room:
    decisions = (
        Decision(*(np.zeros(n, np.int64) for n in (len(contexts) + 1, len(contexts), len(sets))))
        for contexts, sets in (
            (_CONTEXTS, _SETS), (_END_CONTEXTS, _END_SETS), (_SPLIT_CONTEXTS, _SPLIT_SETS)
        )
    )  # fmt: skip
    n_waiting = 8 * LEVELS
    return Room(
        *decisions, np.zeros((3, 3), np.int64), np.zeros(3, np.int64),
        np.zeros((n_waiting, 4), np.int64),
    )  # fmt: skip


def new_band(channels: int, space: tuple[int, int, int], geometry: Geometry) -> Band:
    """For a decoder."""
    least = tuple(n // int(size) for n, size in zip(space, geometry.sizes[-1], strict=True))
    return Band(
        np.zeros((channels, *space), np.int32), np.zeros((channels, *space), np.uint8),
        np.zeros((channels, *least), np.int32), np.zeros(least, np.int32),
    )  # fmt: skip


@cache
def costs() -> Int:
    """Bits, in 1/256, that an event of probability about i / 4096 takes."""
    return np.rint(-256 * np.log2((np.arange(4097) + 0.5) / 4097.5)).astype(np.int64)


@compiled
def _most_of(end: int) -> int:
    """The largest number of a class of :func:`half_octaves`."""
    if end <= 2:
        return end
    half = (end + 1) // 2 - 1
    return (2 << half) - 1 if end % 2 == 1 else (3 << half) - 1


@compiled
def _find_neighbours(geometry: Geometry, band: Band, z: int, y: int, x: int, room: Room) -> None:
    """The blocks that hold the cells before (z, y, x) along each axis."""
    sizes = geometry.sizes
    deepest = len(sizes) - 1
    for d in range(3):
        a, b, c = z - (d == 0), y - (d == 1), x - (d == 2)
        if a < 0 or b < 0 or c < 0:
            room.levels[d] = -1
            continue
        level = band.levels[a // sizes[deepest, 0], b // sizes[deepest, 1], c // sizes[deepest, 2]]
        room.levels[d] = level
        room.origins[d, 0] = a // sizes[level, 0] * sizes[level, 0]
        room.origins[d, 1] = b // sizes[level, 1] * sizes[level, 1]
        room.origins[d, 2] = c // sizes[level, 2] * sizes[level, 2]


@compiled
def _around(
    geometry: Geometry, band: Band, room: Room, d: int, level: int, c: int, u: int, v: int, w: int
) -> int:
    """Mean magnitude, times 8, at about a frequency of a neighbour."""
    sizes, other = geometry.sizes, room.levels[d]
    z, y, x = room.origins[d, 0], room.origins[d, 1], room.origins[d, 2]
    if other != level:
        u = u * sizes[other, 0] // sizes[level, 0]
        v = v * sizes[other, 1] // sizes[level, 1]
        w = w * sizes[other, 2] // sizes[level, 2]
    total = 2 * np.int64(band.magnitudes[c, z + u, y + v, x + w])
    weight = 2
    if w + 1 < sizes[other, 2]:
        total += band.magnitudes[c, z + u, y + v, x + w + 1]
        weight += 1
    if v + 1 < sizes[other, 1]:
        total += band.magnitudes[c, z + u, y + v + 1, x + w]
        weight += 1
    if u + 1 < sizes[other, 0]:
        total += band.magnitudes[c, z + u + 1, y + v, x + w]
        weight += 1
    return (8 * total) // weight


@compiled
def _predicted_mean(geometry: Geometry, band: Band, room: Room, c: int, level: int) -> int:
    """From the means of the neighbours; those grow with the root of a block's cells."""
    total, n = np.int64(0), 0
    for d in range(3):
        if room.levels[d] >= 0:
            mean = band.symbols[c, room.origins[d, 0], room.origins[d, 1], room.origins[d, 2]]
            total += (mean * geometry.ratios[room.levels[d], level]) >> 16
            n += 1
    return (2 * total + n) // (2 * n) if n > 0 else np.int64(0)


@compiled
def _end_worth_its_bits(
    geometry: Geometry,
    band: Band,
    price: int,
    c: int,
    z: int,
    y: int,
    x: int,
    level: int,
    mean: int,
) -> int:
    """The class of how many coefficients to code: all behind are next to nothing."""
    sizes, scan = geometry.sizes, geometry.scans
    i = sizes[level, 0] * sizes[level, 1] * sizes[level, 2] - 1
    seen = 0
    while i >= 0:
        u, v, w = scan[level, i, 0], scan[level, i, 1], scan[level, i, 2]
        size = np.int64(band.symbols[c, z + u, y + v, x + w])
        size = abs(size - mean * UNIT) if i == 0 else abs(size)
        if size > UNIT // 2:
            # By how much coding it would lower the squared error, in 1/256².
            gain = (2 * size - UNIT) * UNIT
            if size >= 2 * UNIT or gain > price * (_LONELY if seen < 2 else _IN_COMPANY):
                break
            seen += 1
        i -= 1
    return half_octaves(i + 1)


@compiled
def _code_end(
    coder: Coder,
    tables: Tables,
    state: State,
    geometry: Geometry,
    band: Band,
    room: Room,
    end: int,
    c: int,
    z: int,
    y: int,
    x: int,
    level: int,
) -> int:
    """The class of how many coefficients of the scan there are at most."""
    logits, contexts, sets = room.end.logits, room.end.contexts, room.end.sets
    sizes = geometry.sizes
    deepest = len(sizes) - 1
    total, n = np.int64(0), 0
    left = above = np.int64(_NOTHING)
    for d in range(3):
        if room.levels[d] < 0:
            continue
        known = np.int64(
            band.ends[
                c,
                room.origins[d, 0] // sizes[deepest, 0],
                room.origins[d, 1] // sizes[deepest, 1],
                room.origins[d, 2] // sizes[deepest, 2],
            ]
        )
        if known > 0:  # the same share of another size of block
            known += 2 * geometry.axes * (room.levels[d] - level)
            known = min(max(known, 1), _NOTHING - 1)
        total += known
        n += 1
        if d == 2:
            left = known
        else:
            above = known
    about = (2 * total + n) // (2 * n) if n > 0 else np.int64(_NOTHING)
    bz, by, bx = z // sizes[deepest, 0], y // sizes[deepest, 1], x // sizes[deepest, 2]
    first = np.int64(band.ends[0, bz, by, bx]) if c > 0 else np.int64(_NOTHING)
    before = np.int64(band.ends[c - 1, bz, by, bx]) if c > 1 else about
    kind = min(c, _KINDS - 1)
    most = half_octaves(sizes[level, 0] * sizes[level, 1] * sizes[level, 2])
    k = 0
    while k < most:
        contexts[0] = (k * LEVELS + level) * _KINDS + kind
        contexts[1] = (k * _CLASSES + left) * _KINDS + kind
        contexts[2] = (k * _CLASSES + above) * _KINDS + kind
        contexts[3] = (k * _CLASSES + first) * _KINDS + kind
        contexts[4] = (k * _CLASSES + before) * _KINDS + kind
        sets[0], sets[1] = k * LEVELS + level, k * _KINDS + kind
        if not decide(coder, tables, state.ends, k < end, logits, contexts, sets):
            break
        k += 1
    for a in range(sizes[level, 0] // sizes[deepest, 0]):
        for b in range(sizes[level, 1] // sizes[deepest, 1]):
            for d in range(sizes[level, 2] // sizes[deepest, 2]):
                band.ends[c, bz + a, by + b, bx + d] = k
    return k


@compiled
def _code_rest(coder: Coder, rest: int) -> int:
    """A number from 0 on, as Elias' gamma code of even chances."""
    rest += 1
    n = 0
    while (rest >> (n + 1)) > 0:
        n += 1
    k = 0
    while code(coder, k < n, _EVEN):
        k += 1
        if k > 24:
            mark_broken(coder)
            return 0
    value = np.int64(1)
    for b in range(k - 1, -1, -1):
        value = 2 * value + (1 if code(coder, ((rest >> b) & 1) != 0, _EVEN) else 0)
    return value - 1


@compiled
def _code_magnitude(
    coder: Coder,
    tables: Tables,
    state: State,
    room: Room,
    costs: Int,
    price: int,
    size: int,
    level: int,
    colour: int,
    radius: int,
    position: int,
    near: int,
    side: int,
    both: int,
    pattern: int,
    before: int,
    progress: int,
) -> int:
    """One magnitude; the encoder has its ``size`` in 1/256 and may choose a smaller one."""
    logits, contexts, sets = room.value.logits, room.value.contexts, room.value.sets
    encoding = not is_decoder(coder)
    sought = (size + UNIT // 2 - _RELUCTANCE) // UNIT
    if sought > 2:
        sought = (size + UNIT // 2 - _LITTLE_RELUCTANCE) // UNIT
    magnitude = 0
    while True:
        k = min(magnitude, _NODES - 1)
        contexts[0] = (k * _SIZES + near) * _SIZES + side
        contexts[1] = (k * _SIZES + near) * RADII + radius
        contexts[2] = ((k * _SIZES + side) * RADII + radius) * 2 + colour
        contexts[3] = ((k * _FINE + both) * LEVELS + level) * 2 + colour
        contexts[4] = ((k * POSITIONS + position) * LEVELS + level) * 2 + colour
        contexts[5] = k * 432 + pattern
        contexts[6] = ((k * _SIZES + before) * _SIZES + near) * 8 + min(radius >> 1, 7)
        contexts[7] = (k * 80 + progress) * 2 + colour
        sets[0], sets[1] = k * RADII + radius, k * _FINE + both
        sets[2] = (k * LEVELS + level) * 2 + colour
        p = weigh(tables, state.values, logits, contexts, sets)
        if encoding and magnitude == 0 and 0 < sought < 3:
            missed = size - sought * UNIT
            bits = costs[p >> 4] - costs[4096 - (p >> 4)] + _SIGN
            bits += _FURTHER * sought - 300
            if size * size - missed * missed < price * bits:
                sought = 0
        beyond = code(coder, magnitude < sought, p)
        learn(tables, state.values, beyond, logits, contexts, sets)
        if not beyond:
            return magnitude
        magnitude += 1
        if magnitude == _UNARY:
            return magnitude + _code_rest(coder, max(sought - magnitude, 0))


@compiled
def _code_block(
    coder: Coder,
    tables: Tables,
    state: State,
    geometry: Geometry,
    band: Band,
    room: Room,
    costs: Int,
    price: int,
    c: int,
    z: int,
    y: int,
    x: int,
    level: int,
) -> None:
    symbols, magnitudes, sizes, scan = band.symbols, band.magnitudes, geometry.sizes, geometry.scans
    cells = sizes[level, 0] * sizes[level, 1] * sizes[level, 2]
    encoding = not is_decoder(coder)
    # Sound has no mean to speak of.
    mean = _predicted_mean(geometry, band, room, c, level) if geometry.axes > 1 else np.int64(0)
    end = 0
    if encoding:
        end = _end_worth_its_bits(geometry, band, price, c, z, y, x, level, mean)
    end = _code_end(coder, tables, state, geometry, band, room, end, c, z, y, x, level)
    count = min(_most_of(end), cells)
    if encoding:
        for i in range(max(count, 1), cells):
            symbols[c, z + scan[level, i, 0], y + scan[level, i, 1], x + scan[level, i, 2]] = 0
    if count == 0:
        symbols[c, z, y, x] = mean
        return
    colour = 1 if c > 0 else 0
    found = 0
    for i in range(count):
        u, v, w = scan[level, i, 0], scan[level, i, 1], scan[level, i, 2]
        # Lower frequencies of this block.
        total, weight = np.int64(0), 0
        one = two = three = np.int64(0)
        if w > 0:
            one = np.int64(magnitudes[c, z + u, y + v, x + w - 1])
            total, weight = total + 3 * one, weight + 3
            if w > 1:
                total, weight = total + magnitudes[c, z + u, y + v, x + w - 2], weight + 1
            if w > 2 and geometry.axes == 1:
                total, weight = total + magnitudes[c, z + u, y + v, x + w - 3], weight + 1
        if v > 0:
            two = np.int64(magnitudes[c, z + u, y + v - 1, x + w])
            total, weight = total + 3 * two, weight + 3
            if v > 1:
                total, weight = total + magnitudes[c, z + u, y + v - 2, x + w], weight + 1
            if w > 0:
                three = np.int64(magnitudes[c, z + u, y + v - 1, x + w - 1])
                total, weight = total + 2 * three, weight + 2
            if w + 1 < sizes[level, 2]:
                total, weight = total + magnitudes[c, z + u, y + v - 1, x + w + 1], weight + 1
        if u > 0:
            lower = np.int64(magnitudes[c, z + u - 1, y + v, x + w])
            total, weight = total + 3 * lower, weight + 3
            if v > 0:
                three = lower
                total, weight = total + magnitudes[c, z + u - 1, y + v - 1, x + w], weight + 1
            else:
                two = lower
            if u > 1:
                total, weight = total + magnitudes[c, z + u - 2, y + v, x + w], weight + 1
            if w > 0:
                total, weight = total + magnitudes[c, z + u - 1, y + v, x + w - 1], weight + 1
        near = (16 * total) // weight if weight > 0 else np.int64(0)
        # The same frequency next door.
        total, n = np.int64(0), 0
        west = north = np.int64(0)
        for d in range(3):
            if room.levels[d] >= 0:
                there = _around(geometry, band, room, d, level, c, u, v, w)
                total, n = total + there, n + 1
                if d == 2:
                    west = there >> 3
                else:
                    north = max(north, there >> 3)
        side = (2 * total) // n if n > 0 else near
        before = np.int64(0)
        if c > 0:
            before = 2 * np.int64(magnitudes[0, z + u, y + v, x + w])
            if c > 1:
                before += 2 * np.int64(magnitudes[c - 1, z + u, y + v, x + w])
        pattern = ((min(one, 3) * 4 + min(two, 3)) * 3 + min(three, 2)) * 9
        pattern += min(west, 2) * 3 + min(north, 2)

        scaled = np.int64(symbols[c, z + u, y + v, x + w])
        if i == 0:
            scaled -= mean * UNIT
        magnitude = _code_magnitude(
            coder, tables, state, room, costs, price, abs(scaled) if encoding else 0,
            level, colour, geometry.radii[level, i], geometry.positions[level, i],
            min(half_octaves(near >> 1), _SIZES - 1), min(half_octaves(side >> 1), _SIZES - 1),
            min(half_octaves(near + side if weight > 0 else 2 * side), _FINE - 1),
            pattern, min(half_octaves(before), _SIZES - 1),
            min((8 * i) // count, 7) * 10 + min(half_octaves(found), 9),
        )  # fmt: skip
        if magnitude > _LARGEST:
            mark_broken(coder)
            return
        value = np.int64(magnitude)
        if magnitude > 0:
            found += 1
            if code(coder, scaled < 0, _EVEN):
                value = -value
        magnitudes[c, z + u, y + v, x + w] = min(magnitude, _MOST)
        if i == 0:
            value = min(max(value + mean, -_LARGEST), _LARGEST)
        symbols[c, z + u, y + v, x + w] = value


@compiled
def code_patch(
    coder: Coder,
    tables: Tables,
    state: State,
    geometry: Geometry,
    band: Band,
    room: Room,
    costs: Int,
    price: int,
    z: int,
    y: int,
    x: int,
) -> None:
    """Encode the patch at (z, y, x), or decode it.

    Parameters
    ----------
    costs : int64 array
        See :func:`costs`.
    price : int
        What a bit may cost the encoder in squared error: squared steps, times 256.
    """
    sizes, stack = geometry.sizes, room.stack
    deepest = len(sizes) - 1
    stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = 0, z, y, x
    waiting = 1
    while waiting > 0:
        waiting -= 1
        level, a, b, d = (
            stack[waiting, 0], stack[waiting, 1], stack[waiting, 2], stack[waiting, 3]
        )  # fmt: skip
        _find_neighbours(geometry, band, a, b, d, room)
        bz, by, bx = a // sizes[deepest, 0], b // sizes[deepest, 1], d // sizes[deepest, 2]
        if level < deepest:
            known = level
            for e in range(3):
                known *= 4
                if room.levels[e] >= 0:
                    known += 1 + min(max(room.levels[e] - level, 0), 2)
            room.split.contexts[0], room.split.contexts[1] = known, level
            room.split.sets[0] = level
            split = decide(
                coder, tables, state.splits, band.levels[bz, by, bx] > level,
                room.split.logits, room.split.contexts, room.split.sets,
            )  # fmt: skip
            if split:
                below = level + 1
                # Pushed backwards, so that the first comes first.
                for i in range(sizes[level, 0] // sizes[below, 0] - 1, -1, -1):
                    for j in range(sizes[level, 1] // sizes[below, 1] - 1, -1, -1):
                        for k in range(sizes[level, 2] // sizes[below, 2] - 1, -1, -1):
                            stack[waiting, 0] = below
                            stack[waiting, 1] = a + i * sizes[below, 0]
                            stack[waiting, 2] = b + j * sizes[below, 1]
                            stack[waiting, 3] = d + k * sizes[below, 2]
                            waiting += 1
                continue
        for i in range(sizes[level, 0] // sizes[deepest, 0]):
            for j in range(sizes[level, 1] // sizes[deepest, 1]):
                for k in range(sizes[level, 2] // sizes[deepest, 2]):
                    band.levels[bz + i, by + j, bx + k] = level
        for c in range(len(band.symbols)):
            _code_block(coder, tables, state, geometry, band, room, costs, price, c, a, b, d, level)
        if is_broken(coder):
            return


@compiled
def code_patches(
    coder: Coder,
    tables: Tables,
    state: State,
    geometry: Geometry,
    band: Band,
    room: Room,
    costs: Int,
    price: int,
    z: int,
    y: int,
    start: int,
    stop: int,
) -> None:
    """:func:`code_patch` for those side by side from x = ``start`` on: one call, not many."""
    for x in range(start, stop, geometry.sizes[0, 2]):
        code_patch(coder, tables, state, geometry, band, room, costs, price, z, y, x)
        if is_broken(coder):
            return
