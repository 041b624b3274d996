"""A network's opinion of the points of a pass, in whole numbers that every machine agrees on.

From what is decoded around a point, and relative to how large errors are expected to be there, it
says where the value is likely to be: the centre and the scale of a logistic distribution, which is
one more opinion for the mixture of every decision. Weights and activations are whole numbers and no
sum reaches 2^24, so that products in single precision are exact, in any order, on any processor.
Changing any constant changes the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.expert_units import (
    ACTIVATION,
    AWAY,
    EXACT,
    HIGHEST_SCALE,
    LARGEST_ACTIVATION,
    LOWEST_SCALE,
    MARKS,
    MOST_NEIGHBOURS,
    MOST_SEEN,
    N_INPUTS,
    PAST,
    REFERRED,
    SCALE_PARTS,
    WEIGHT,
    WIDEST,
)
from coinpp_xr.coding.pyramid.limits import LARGEST, Limits
from coinpp_xr.coding.pyramid.prediction import (
    COEFFICIENT_BITS,
    N_NEAR,
    WEIGHT_BITS,
    Places,
    Pool,
    Rows,
    expect_sizes,
    neighbour_count,
    predict_row,
)
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.coding.pyramid.references import N_FEATURES, References
from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.mixing import ONE
from coinpp_xr.sigmoid import HIGH, LOW, sigmoid_table

Float32 = npt.NDArray[np.float32]
Int = npt.NDArray[np.int64]

# A difference that is as large as errors are expected to be is an input of 1/8.
_PER_SIZE = 16
# Logarithms are told in 1/64, from 1/128 of a bit pattern's exponent; usual sizes are around 2^8.
_LOG_BITS, _LOG_ZERO, _USUAL_LOG = 17, 127 << 6, 512
_LARGEST_SIZE = 1 << 20
# Inverse scales are in 1/2^20.
_INVERSE_BITS, _LARGEST_INVERSE = 20, 1 << 31
# Chances are in 1/2^30; ratios of smaller ones than this say nothing.
CERTAIN, _LEAST_CHANCE = 1 << 30, 1 << 8


class Network(NamedTuple):
    """A network of two hidden layers; of no inputs where there is none.

    Parameters
    ----------
    first, second, last : float32 arrays, shape (outputs, inputs)
        Whole numbers, in 1/256.
    first_bias, second_bias, last_bias : float32 arrays, shape (outputs,)
        Whole numbers, in 1/32768.
    scales : float64 array
        2^27 · 2^(−k / 32) for all scales k, whole numbers.
    chances : int64 array
        Of the standard logistic distribution.
    """

    first: Float32
    first_bias: Float32
    second: Float32
    second_bias: Float32
    last: Float32
    last_bias: Float32
    scales: npt.NDArray[np.float64]
    chances: Int


@cache
def _scales() -> npt.NDArray[np.float64]:
    # The rounding is far from every tie (tested), whatever a machine's powers are like.
    return np.rint(2.0 ** (27 - np.arange(LOWEST_SCALE, HIGHEST_SCALE + 1) / SCALE_PARTS))


def network_of(arrays: Sequence[npt.NDArray[Any]]) -> Network:
    """From weights and biases, layer by layer.

    Raises
    ------
    ValueError
        If shapes do not fit, or a sum might not be exact.
    """
    first, first_bias, second, second_bias, last, last_bias = arrays
    shapes = [np.shape(array) for array in arrays]
    width, other = len(first_bias), len(second_bias)
    fits = shapes == [
        (width, N_INPUTS), (width,), (other, width), (other,), (2, other), (2,)
    ]  # fmt: skip
    if not fits or not all(0 < n <= WIDEST and n % 2 == 0 for n in (width, other)):
        raise ValueError("these are not the arrays of a network for the pyramid")
    for weights, bias in ((first, first_bias), (second, second_bias), (last, last_bias)):
        whole = np.abs(weights.astype(np.int64)), np.abs(bias.astype(np.int64))
        if (whole[0].sum(axis=1) * LARGEST_ACTIVATION + whole[1]).max() >= EXACT:
            raise ValueError("sums of this network would not be exact")
    exact = [np.ascontiguousarray(array, np.float32) for array in arrays]
    a, b, c, d, e, f = exact
    return Network(a, b, c, d, e, f, _scales(), sigmoid_table())


@cache
def no_network() -> Network:
    none, nothing = np.zeros((0, 0), np.float32), np.zeros(0, np.float32)
    return Network(none, nothing, none, nothing, none, nothing, _scales(), sigmoid_table())


class Room(NamedTuple):
    """What is found out about a row before a network is asked, for as long as it is worked on.

    Parameters
    ----------
    guess, above : int64 arrays, shape (1 + columns + 1,)
        What its points, and those of the row above, are likely to be, and one more on either side.
    correction, size : int64 arrays, shape (columns,)
        Predictions from the mean of the four nearest; what errors are expected to be, at least 1.
    inverse : float32 array, shape (columns,)
    """

    guess: Int
    above: Int
    correction: Int
    size: Int
    inverse: Float32

    @classmethod
    def of(cls, columns: int) -> Room:
        guess, above = np.zeros((2, columns + 2), np.int64)
        correction, size = np.zeros((2, columns), np.int64)
        return cls(guess, above, correction, size, np.zeros(columns, np.float32))


@inlined
def _log(value: Any) -> Any:
    """About 64 log₂ of a positive number, by the bits of its single precision."""
    return (np.float32(value).view(np.int32) >> _LOG_BITS) - _LOG_ZERO


@inlined
def _relative(difference: Any, inverse: Any) -> Any:
    most = np.float32(LARGEST_ACTIVATION)
    return np.rint(min(max(np.float32(difference) * inverse, -most), most))


@compiled
def _guess(pool: Pool, places: Places, item: int, i: int, base: Any, guess: Any) -> None:
    """Points of a row by interpolation with cubics, and what is beside the first and the last."""
    columns = len(guess) - 2
    inside = guess[1 : 1 + columns]
    for j in range(columns):
        inside[j] = 40 * base[j] + 16
    for k in range(4, N_NEAR):
        start = places.offsets[k] + item * places.strides[k] + i * places.steps[k]
        some = pool.values[start : start + columns]
        for j in range(columns):
            inside[j] -= np.int64(some[j])
    for j in range(columns):
        inside[j] >>= 5
    west, east = (columns - 1, 0) if places.around else (0, columns - 1)
    guess[0], guess[columns + 1] = inside[west], inside[east]


@compiled
def _expect(
    pool: Pool,
    places: Places,
    references: References,
    weights: Any,
    coefficients: Any,
    item: int,
    i: int,
    first: int,
    rows: Rows,
    room: Room,
) -> None:
    """Predictions and sizes of errors of a row, as they are before any of its pass is decoded."""
    base, total, correction, size = rows.base, rows.total, room.correction, room.size
    columns = len(base)
    if places.beside:
        k = len(weights) - 4
        w0, w1 = np.int64(weights[k]), np.int64(weights[k + 1])
        w2, w3 = np.int64(weights[k + 2]), np.int64(weights[k + 3])
        guess, above = room.guess, room.above
        _guess(pool, places, item, i, base, guess)
        if i == first:
            w0, w1, w2 = np.int64(0), np.int64(0), np.int64(0)
        w = w0 + w1 + w2 + w3
        for j in range(columns):
            total[j] += (
                w0 * above[j] + w1 * above[j + 1] + w2 * above[j + 2] + w3 * guess[j] - w * base[j]
            )
        for j in range(columns + 2):
            above[j] = guess[j]
    for j in range(columns):
        correction[j] = total[j] >> WEIGHT_BITS
        rows.away[j] = at_most(at_least(correction[j], -LARGEST), LARGEST)
    expect_sizes(rows, coefficients, references.number > 0)
    for j in range(columns):
        size[j] = at_most(at_least(rows.size[j] >> COEFFICIENT_BITS, 0), _LARGEST_SIZE) + 1


@compiled
def _tell(
    pool: Pool,
    places: Places,
    references: References,
    item: int,
    i: int,
    latitude: Any,
    rows: Rows,
    room: Room,
    x: Any,
    at: int,
) -> None:
    """What a network is told of a row: columns of ``x`` from ``at`` on."""
    values, marks = pool
    columns, neighbours = len(rows.base), neighbour_count(places)
    base, correction, inverse = rows.base, room.correction, room.inverse
    for j in range(columns):
        inverse[j] = np.float32(_PER_SIZE) / np.float32(room.size[j])
    for k in range(MOST_NEIGHBOURS):
        row = x[k][at:]
        if k < neighbours:
            start = places.offsets[k] + item * places.strides[k] + i * places.steps[k]
            some = values[start : start + columns]
            for j in range(columns):
                row[j] = _relative(np.int64(some[j]) - (base[j] + correction[j]), inverse[j])
        else:
            for j in range(columns):
                row[j] = np.float32(0)
    away, near, far = x[AWAY][at:], x[AWAY + 1][at:], x[AWAY + 2][at:]
    size, side = x[AWAY + 3][at:], x[AWAY + 4][at:]
    for j in range(columns):
        away[j] = _relative(correction[j], inverse[j])
        near[j] = np.float32(_log(np.int64(rows.near[j]) + 1))
        far[j] = np.float32(_log(np.int64(rows.far[j]) + 1))
        size[j] = np.float32(_log(room.size[j]) - _USUAL_LOG)
        side[j] = latitude
    for k in range(N_NEAR):
        start = places.offsets[k] + item * places.strides[k] + i * places.steps[k]
        steps, row = marks[start : start + columns], x[MARKS + k][at:]
        for j in range(columns):
            log = _log(abs(np.int32(steps[j])) + 1)
            row[j] = np.float32(-log if steps[j] < 0 else log)
    if references.number > 0:
        past = x[PAST][at:]
        for j in range(columns):
            past[j] = np.float32(_log(at_least(np.int64(rows.past[j]), 0) + 1))
    for k in range(N_FEATURES * at_most(references.number, MOST_SEEN)):
        feature, row = rows.features[k], x[REFERRED + k][at:]
        for j in range(columns):
            row[j] = _relative(np.int64(feature[j]) - correction[j], inverse[j])


@compiled
def look(
    pool: Pool,
    places: Places,
    references: References,
    limits: Limits,
    weights: Any,
    coefficients: Any,
    first_item: int,
    last_item: int,
    top: int,
    first: int,
    last: int,
    n_rows: int,
    rows: Rows,
    room: Room,
    x: Any,
    centres: Any,
    sizes: Any,
) -> None:
    """What a network is told of rows first … last of some fields.

    Parameters
    ----------
    weights : int32 array, shape (bands, neighbours + features of references + 4 beside,)
    top : int
        The row that must not look at the one above.
    x : float32 array, shape (inputs that vary, points)
        Those of references only where there are any.
    centres, sizes : int64 arrays, shape (points,)
        From where it counts, in 1/64 of a step, and in what.
    """
    columns, at = len(rows.base), 0
    for item in range(first_item, last_item):
        for i in range(max(first - 1, top) if places.beside else first, last):
            here = weights[i * weights.shape[0] // n_rows]
            # As if there were no row above: that is not decoded yet.
            predict_row(pool, places, here, references, limits, item, i, i, rows)
            _expect(pool, places, references, here, coefficients, item, i, top, rows, room)
            if i < first:
                continue
            latitude = np.float32(2 * ACTIVATION * abs(2 * i + 1 - n_rows) // n_rows)
            _tell(pool, places, references, item, i, latitude, rows, room, x, at)
            for j in range(columns):
                centres[at + j] = rows.base[j] + room.correction[j]
                sizes[at + j] = room.size[j]
            at += columns


@compiled
def choose(sizes: Any, sure: Any, chosen: Any) -> int:
    """Numbers of the points where errors are expected to be larger than that; how many."""
    count = 0
    for j in range(len(sizes)):
        chosen[count] = j
        count += sizes[j] > sure
    return count


@compiled
def take(x: Any, chosen: Any, out: Any) -> None:
    """Columns of an array."""
    for k in range(len(x)):
        row, own = x[k], out[k]
        for j in range(len(own)):
            own[j] = row[chosen[j]]


@compiled
def activate(out: Any, bias: Any) -> None:
    """A leaky rectifier, and back to 1/128."""
    eighth, unit = np.float32(0.125), np.float32(1 / WEIGHT)
    most = np.float32(LARGEST_ACTIVATION)
    for o in range(len(out)):
        y, b = out[o], bias[o]
        for j in range(len(y)):
            value = y[j] + b
            y[j] = min(max(np.floor(max(value, value * eighth) * unit), -most), most)


@compiled
def conclude(
    network: Network, out: Any, chosen: Any, centres: Any, sizes: Any, scales: Any
) -> None:
    """Distributions from outputs: centres, from where the network counted, and inverse scales.

    Scales of points that are not ``chosen`` are zero.
    """
    shifts, octaves = out[0], out[1]
    for j in range(len(scales)):
        scales[j] = 0
    for k in range(len(shifts)):
        j = chosen[k]
        # Outputs are in 1/32768: of the expected size, and of an octave.
        shift = np.int64(shifts[k] + network.last_bias[0]) >> 3
        centres[j] += (shift * sizes[j]) >> 12
        scale = np.int64(octaves[k] + network.last_bias[1]) >> 10
        scale = at_most(at_least(scale, LOWEST_SCALE), HIGHEST_SCALE) - LOWEST_SCALE
        units = np.int64(np.floor(network.scales[scale] / np.float64(sizes[j])))
        scales[j] = at_most(units, _LARGEST_INVERSE)


@inlined
def chance_below(network: Network, edge: Any, scale: Any) -> Any:
    """Chance of a value below an edge, from the centre of its distribution, in 1/2^30."""
    z = (edge * scale) >> _INVERSE_BITS
    return network.chances[at_most(at_least(z, LOW), HIGH) - LOW]


@inlined
def share(some: Any, of_all: Any) -> Any:
    """Of chances, in 1/65536; a half where they are too small to tell."""
    part = np.int64(ONE // 2)
    if of_all >= _LEAST_CHANCE:
        part = at_most(at_least((some << 16) // of_all, 1), ONE - 1)
    return part
