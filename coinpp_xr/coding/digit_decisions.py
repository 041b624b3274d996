"""Decisions about whole numbers ↔ bits, each by six contexts and a distribution, compiled."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.range_coder import (
    at_least,
    at_most,
    code_bit,
    even_chances,
    learned,
)
from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.mixing import ONE
from coinpp_xr.sigmoid import HIGH, LOW

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

# Of one, in predictions and errors.
PARTS = 8
# Contexts of a decision, and inputs of its mixture: those and two distributions.
CONTEXTS, INPUTS, _SLOT_BITS = 6, 8, 16
_LARGEST_LOGIT = 2839
# Sets of weights, by what is decided: copies, the length, the first digits, the others.
ROUGH, EXTENTS, LENGTHS = 32, 40, 32
_TREE, EARLY, NEAR, LEVELS = 32, 7, 16, 48
COPY_SETS = 3 * 64
LENGTH_SETS = COPY_SETS + _TREE * EXTENTS
EARLY_SETS = LENGTH_SETS + EARLY * LENGTHS
_SETS = EARLY_SETS + NEAR * EXTENTS
OTHER_COPY_SETS = 3 * ROUGH
OTHER_LENGTH_SETS = OTHER_COPY_SETS + _TREE * LENGTHS
OTHER_EARLY_SETS = OTHER_LENGTH_SETS + EARLY * EXTENTS
_OTHER_SETS = OTHER_EARLY_SETS + LEVELS
# So many scales from the mean numbers are not expected.
TAIL = 16
# Predictions, the one by least squares, and what that looks at; after so many cells it is solved
# further.
PREDICTIONS, LEAST_SQUARES, FEATURES, CELLS = 12, 8, 21, 4
# Errors of all predictions take so much room.
_ERRORS = 16


class State(NamedTuple):
    """What a coder has learned, and room to work in."""

    chances: Int32  # (contexts << 16,), see range_coder
    weights: Int32  # (sets, inputs)
    others: Int32  # (other sets, inputs)
    inside: Int32  # (extents,): whether numbers are among those expected
    sums: Int32  # (features, features): normal equations
    sides: Int32  # (features,): their right sides
    solution: Int32
    recent: Int32  # (2, n_lon, 16): errors of predictions in this row and in the one above
    scaled: Int32  # (cells, features + 1): what the last cells tell the equations
    learned: Int  # (1,): how many cells that are
    errors: Int32
    shares: Int32
    slots: Int
    logits: Int
    guesses: Int
    features: Int


def new_state(columns: int) -> State:
    return State(
        even_chances(CONTEXTS << _SLOT_BITS),
        _first_weights(_SETS),
        _first_weights(_OTHER_SETS),
        even_chances(EXTENTS),
        np.zeros((FEATURES, FEATURES), np.int32), np.zeros(FEATURES, np.int32),
        np.zeros(FEATURES, np.int32),
        np.zeros((2, columns, _ERRORS), np.int32),
        np.zeros((CELLS, FEATURES + 1), np.int32), np.zeros(1, np.int64),
        np.zeros(_ERRORS, np.int32), np.zeros(PREDICTIONS, np.int32),
        np.zeros(CONTEXTS, np.int64), np.zeros(INPUTS, np.int64),
        np.zeros(PREDICTIONS, np.int64), np.zeros(FEATURES, np.int64),
    )  # fmt: skip


def _first_weights(sets: int) -> Int32:
    """Distributions know something from the start."""
    weights = np.full((sets, INPUTS), int(0.1 * ONE), np.int32)
    weights[:, CONTEXTS:] = ONE // 2
    return weights


@compiled
def length_of(number: Any) -> Any:
    """How many binary digits a number has."""
    length = np.int64(0)
    if number >= 1 << 16:
        number, length = number >> 16, length + 16
    if number >= 1 << 8:
        number, length = number >> 8, length + 8
    if number >= 1 << 4:
        number, length = number >> 4, length + 4
    if number >= 1 << 2:
        number, length = number >> 2, length + 2
    if number >= 1 << 1:
        number, length = number >> 1, length + 1
    return length + number


@compiled
def extent_of(error: Any) -> Any:
    """Half octaves of an expected error in 1/8."""
    size = error + PARTS
    length = length_of(size)
    return at_most(2 * (length - 4) + ((size >> (length - 2)) & 1), EXTENTS - 1)


@compiled
def scale_of(error: Any) -> Any:
    """Of the logistic distribution around a mean that is expected to be off by so much."""
    return (9 * error >> 4) + 3


@inlined
def slot(table: Any, context: Any) -> Any:
    return (table << _SLOT_BITS) + (((context * 2654435761) & 0xFFFFFFFF) >> 16)


@compiled
def distribution(sigmoid: Any, mean: Any, error: Any, low: Any, high: Any) -> Any:
    """A logistic distribution of the numbers from ``low`` to ``high``.

    Returns
    -------
    mean, reciprocal :
        Of the distribution: what differences from the mean are multiplied by.
    low, high :
        Its chances of less than the lowest of the numbers that are still possible, and of less than
        all above them, in 2^-30.
    """
    reciprocal = np.int64(64 << 26) // scale_of(error)
    return (
        mean,
        reciprocal,
        _chance_below(sigmoid, low, mean, reciprocal),
        _chance_below(sigmoid, high + 1, mean, reciprocal),
    )


@compiled
def share_above(sigmoid: Any, possible: Any, number: Any) -> Any:
    """The chance of less than a number, and how much of what is possible is not, in 1/65536."""
    mean, reciprocal, low, high = possible
    at = _chance_below(sigmoid, number, mean, reciprocal)
    share = np.int64(ONE // 2)
    if high - low >= 64:
        share = at_most(at_least(((high - at) << 16) // (high - low), 1), ONE - 1)
    return at, share


@compiled
def narrowed(possible: Any, at: Any, above: Any) -> Any:
    """What is possible once it is known to be above, or below."""
    mean, reciprocal, low, high = possible
    return mean, reciprocal, (at if above else low), (high if above else at)


@compiled
def _chance_below(sigmoid: Any, number: Any, mean: Any, reciprocal: Any) -> Any:
    place = ((PARTS * number - PARTS // 2 - mean) * reciprocal) >> 18
    place = at_most(at_least(place - (LOW << 8), 0), ((HIGH - LOW) << 8) - 1)
    entry = place >> 8
    return sigmoid[entry] + (((sigmoid[entry + 1] - sigmoid[entry]) * (place & 255)) >> 8)


@inlined
def mixed(
    buffer: Any, r: Any, yes: Any, state: Any, tables: Any, of_set: Any, of_other: Any
) -> Any:
    """A decision by all contexts of ``state.slots`` and by the last two ``state.logits``."""
    chances, slots, logits = state.chances, state.slots, state.logits
    first, second = state.weights[of_set], state.others[of_other]
    x = np.int64(0)
    y = np.int64(0)
    for k in range(CONTEXTS):
        logits[k] = tables.stretch[chances[slots[k]] >> 8]
    for k in range(INPUTS):
        x += first[k] * logits[k]
        y += second[k] * logits[k]
    x = at_most(at_least(x >> 16, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    y = at_most(at_least(y >> 16, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    p = np.int64(tables.squash[((x + y) >> 1) + _LARGEST_LOGIT])
    yes, r = code_bit(buffer, r, yes, p)
    truth = np.int64(ONE) if yes else np.int64(0)
    ex = truth - tables.squash[x + _LARGEST_LOGIT]
    ey = truth - tables.squash[y + _LARGEST_LOGIT]
    for k in range(INPUTS):
        first[k] += (ex * logits[k] + (1 << 13)) >> 14
        second[k] += (ey * logits[k] + (1 << 13)) >> 14
    for k in range(CONTEXTS):
        entry = np.int64(chances[slots[k]])
        chances[slots[k]] = learned(entry, truth, tables.rate)
    return yes, r
