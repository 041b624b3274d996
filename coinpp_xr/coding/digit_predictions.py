"""What whole numbers are expected to be, from those around them, compiled.

An average of twelve predictions, eleven simple ones and one by least squares that never stop
learning, each weighted by how far it was off around here. Predictions and errors are in 1/8, what
least squares weigh neighbours by is in 1/65536.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coinpp_xr.coding.digit_decisions import (
    CELLS,
    FEATURES,
    LEAST_SQUARES,
    PARTS,
    PREDICTIONS,
)
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.compiled import compiled

# Predictions from this field alone; neighbours in it that least squares look at.
_ALONE, _NEIGHBOURS = 9, 11
_FARTHEST = 1 << 27
# Errors of predictions are not told apart above this.
_LARGEST_ERROR = 1 << 28
# Least squares see neighbours in units of the expected error, these times finer, and clipped.
_FINE, _CLIPPED = 16, 1023
_LARGEST_WEIGHT = 1 << 19


@compiled
def predict(
    state: Any, near: Any, past: Any, change: Any, usual: Any, has_past: Any, now: Any, j: Any
) -> Any:  # fmt: skip
    """Mean and expected error, and the same of least squares alone.

    ``near`` and ``past`` are numbers around the cell in its field and in the one before, of which
    the first is negative where there is none; ``has_past`` tells whether there is such a field.
    ``now`` tells which of the two rows of errors is this one's, ``j`` the column.
    """
    w, n, nw, ne, ww, nn, www, nne, nee, nnw, nww = near
    p, pw, pn, pe, ps, pnw, pne = past
    guesses, features, solution = state.guesses, state.features, state.solution
    recent, errors, shares = state.recent, state.errors, state.shares
    guesses[0], guesses[1], guesses[2] = PARTS * w, PARTS * n, PARTS * (w + n - nw)
    guesses[3] = PARTS * (w + ne - n)
    guesses[4] = PARTS * n + PARTS // 2 * (ne - nw)
    guesses[5] = PARTS * w + 6 * (ne - n) + 2 * (n - nw)
    guesses[6], guesses[7] = PARTS * (2 * w - ww), PARTS * (2 * n - nn)
    guesses[9], guesses[10], guesses[11] = guesses[0], guesses[0], guesses[0]
    centre, used = (w + n) >> 1, np.int64(_ALONE)
    if p >= 0:
        used = np.int64(PREDICTIONS)
        guesses[9] = PARTS * p
        guesses[10] = PARTS * p + PARTS // 2 * (w - pw + n - pn)
        guesses[11] = PARTS * (p + w - pw + n - pn - (nw - pnw))
        centre = p + ((w - pw + n - pn) >> 1)
        features[11], features[12], features[13] = pw - p, pn - p, pnw - p
        features[14], features[15], features[16] = pne - p, pe - p, ps - p
        features[17] = (w - pw) - (n - pn)
        features[18], features[19], features[20] = change
    elif has_past:
        for k in range(_NEIGHBOURS, FEATURES):
            features[k] = 0
    features[0], features[1], features[2] = w - centre, n - centre, nw - centre
    features[3], features[4], features[5] = ne - centre, ww - centre, nn - centre
    features[6], features[7], features[8] = www - centre, nne - centre, nee - centre
    features[9], features[10] = nnw - centre, nww - centre
    found = np.int64(0)
    if has_past:
        for k in range(FEATURES):
            found += solution[k] * features[k]
    else:
        for k in range(_NEIGHBOURS):
            found += solution[k] * features[k]
    found = at_most(at_least(found >> 13, -_FARTHEST), _FARTHEST)
    guesses[LEAST_SQUARES] = PARTS * centre + found
    west, east = at_least(j - 1, 0), at_most(j + 1, recent.shape[1] - 1)
    above = 1 - now
    for k in range(len(errors)):
        errors[k] = (
            recent[now, west, k] + recent[above, west, k]
            + recent[above, j, k] + recent[above, east, k]
        )  # fmt: skip
    least = errors[0]
    for k in range(1, used):
        least = at_most(least, errors[k])
    scaled = np.float64(np.int64(least) + 4) * 4096.0
    for k in range(used):
        # Below 2^53: the same as a division of whole numbers, and many at once.
        shares[k] = np.int32(scaled / np.float64(np.int64(errors[k]) + 4))
    total = np.int64(0)
    mean = np.int64(0)
    for k in range(used):
        weight = np.int64(shares[k]) * np.int64(shares[k])
        total += weight
        mean += weight * guesses[k]
    farther = at_least(j - 2, 0)
    error = (np.int64(errors[PREDICTIONS]) + recent[now, farther, PREDICTIONS]) // 5
    if usual >= 0:
        error = (5 * error + 2 * usual) // 13
    other = (np.int64(errors[LEAST_SQUARES]) + recent[now, farther, LEAST_SQUARES]) // 5
    return mean // total, error, guesses[LEAST_SQUARES], other


@compiled
def learn(
    state: Any, number: Any, mean: Any, error: Any, has_past: Any, now: Any, j: Any
) -> Any:  # fmt: skip
    """Note how far predictions were off, where the mean was expected to be off by ``error``."""
    guesses, features, recent = state.guesses, state.features, state.recent
    truth = PARTS * number
    for k in range(len(guesses)):
        recent[now, j, k] = at_most(abs(truth - guesses[k]), _LARGEST_ERROR)
    missed = at_most(abs(truth - mean), _LARGEST_ERROR)
    recent[now, j, PREDICTIONS] = missed
    unit = np.int64(_FINE * PARTS << 16) // (error + PARTS)
    scaled, at = state.scaled, state.learned[0]
    used = np.int64(FEATURES) if has_past else np.int64(_NEIGHBOURS)
    for k in range(used):
        scaled[at, k] = at_most(at_least((features[k] * unit) >> 16, -_CLIPPED), _CLIPPED)
    centre = guesses[0] - PARTS * features[0]  # west, and what west is beside it
    target = ((truth - centre) * unit) // (PARTS << 16)
    scaled[at, FEATURES] = at_most(at_least(target, -_CLIPPED), _CLIPPED)
    state.learned[0] = (at + 1) % CELLS
    if at == CELLS - 1:
        _solve_further(state, used)
    return missed


@compiled
def _solve_further(state: Any, used: Any) -> None:
    """A sweep of Gauss and Seidel over the normal equations, with what the last cells told."""
    scaled, sums, sides, solution = state.scaled, state.sums, state.sides, state.solution
    for a in range(used):
        first, second, third, fourth = scaled[0, a], scaled[1, a], scaled[2, a], scaled[3, a]
        for c in range(used):
            sums[a, c] = (
                _faded(sums[a, c]) + first * scaled[0, c] + second * scaled[1, c]
                + third * scaled[2, c] + fourth * scaled[3, c]
            )  # fmt: skip
        sides[a] = (
            _faded(sides[a]) + first * scaled[0, FEATURES] + second * scaled[1, FEATURES]
            + third * scaled[2, FEATURES] + fourth * scaled[3, FEATURES]
        )  # fmt: skip
        diagonal = np.int64(sums[a, a])
        rest = (np.int64(sides[a]) << 16) + diagonal * solution[a]
        for c in range(used):
            rest -= np.int64(sums[a, c]) * np.int64(solution[c])
        # Both below 2^53, as above.
        weight = np.floor(np.float64(rest) / np.float64(diagonal + (diagonal >> 10) + 1024))
        solution[a] = at_most(at_least(np.int64(weight), -_LARGEST_WEIGHT), _LARGEST_WEIGHT)


@compiled
def _faded(told: Any) -> Any:
    """What cells told a while ago, without some 3 / 128 of it."""
    return told - (told >> 5) + (told >> 7)


@compiled
def pass_over(state: Any, now: Any, j: Any) -> None:
    """A cell that does not count has the errors of the one above."""
    recent = state.recent
    for k in range(PREDICTIONS + 1):
        recent[now, j, k] = recent[1 - now, j, k]
