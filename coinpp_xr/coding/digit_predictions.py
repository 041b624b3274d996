"""What whole numbers are expected to be, from those around them, compiled.

An average of twelve predictions, eleven simple ones and one by least squares that never stop
learning, each weighted by how far it was off around here. Predictions and errors are in 1/8, what
least squares weigh neighbours by is in 1/65536.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coinpp_xr.coding.digit_decisions import FEATURES, LEAST_SQUARES, PARTS, PREDICTIONS
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.compiled import compiled

# Simple predictions from this field alone; neighbours in it that least squares look at.
_ALONE, _NEIGHBOURS = 8, 11
_FARTHEST = 1 << 27
# Least squares see neighbours in units of the expected error, these times finer, and clipped. What
# was learned fades by so many parts of 4096 every fourth cell, when equations are solved further.
_FINE, _CLIPPED, _FADING, _EVERY = 16, 1023, 4000, 4
_LARGEST_WEIGHT = 1 << 19


@compiled
def predict(state: Any, near: Any, past: Any, change: Any, usual: Any, now: Any, j: Any) -> Any:
    """Mean and expected error, and the same of least squares alone.

    ``near`` and ``past`` are numbers around the cell in its field and in the one before, of which
    the first is negative where there is none. ``now`` tells which of the two rows of errors is
    this one's, ``j`` the column.
    """
    w, n, nw, ne, ww, nn, www, nne, nee, nnw, nww = near
    p, pw, pn, pe, ps, pnw, pne = past
    guesses, features, solution = state.guesses, state.features, state.solution
    recent = state.recent
    guesses[0], guesses[1], guesses[2] = PARTS * w, PARTS * n, PARTS * (w + n - nw)
    guesses[3] = PARTS * (w + ne - n)
    guesses[4] = PARTS * n + PARTS // 2 * (ne - nw)
    guesses[5] = PARTS * w + 6 * (ne - n) + 2 * (n - nw)
    guesses[6], guesses[7] = PARTS * (2 * w - ww), PARTS * (2 * n - nn)
    guesses[8], guesses[9], guesses[10] = guesses[0], guesses[0], guesses[0]
    centre, used = (w + n) >> 1, np.int64(_NEIGHBOURS)
    if p >= 0:
        guesses[8] = PARTS * p
        guesses[9] = PARTS * p + PARTS // 2 * (w - pw + n - pn)
        guesses[10] = PARTS * (p + w - pw + n - pn - (nw - pnw))
        centre, used = p + ((w - pw + n - pn) >> 1), np.int64(FEATURES)
        features[11], features[12], features[13] = pw - p, pn - p, pnw - p
        features[14], features[15], features[16] = pne - p, pe - p, ps - p
        features[17] = (w - pw) - (n - pn)
        features[18], features[19], features[20] = change
    features[0], features[1], features[2] = w - centre, n - centre, nw - centre
    features[3], features[4], features[5] = ne - centre, ww - centre, nn - centre
    features[6], features[7], features[8] = www - centre, nne - centre, nee - centre
    features[9], features[10] = nnw - centre, nww - centre
    found = np.int64(0)
    for k in range(used):
        found += solution[k] * features[k]
    found = at_most(at_least(found >> 13, -_FARTHEST), _FARTHEST)
    guesses[LEAST_SQUARES] = PARTS * centre + found
    least = np.int64(1 << 40)
    for k in range(PREDICTIONS):
        if k < _ALONE or k == LEAST_SQUARES or p >= 0:
            least = at_most(least, _errors_around(recent, k, now, j))
    total = np.int64(0)
    mean = np.int64(0)
    for k in range(PREDICTIONS):
        if k < _ALONE or k == LEAST_SQUARES or p >= 0:
            weight = ((least + 4) << 12) // (_errors_around(recent, k, now, j) + 4)
            total += weight * weight
            mean += weight * weight * guesses[k]
    error = _error(recent, PREDICTIONS, now, j)
    if usual >= 0:
        error = (5 * error + 2 * usual) // 13
    return mean // total, error, guesses[LEAST_SQUARES], _error(recent, LEAST_SQUARES, now, j)


@compiled
def _errors_around(recent: Any, k: Any, now: Any, j: Any) -> Any:
    """Errors of a prediction in the cells west, north-west, north and north-east, added up."""
    west, east = at_least(j - 1, 0), at_most(j + 1, recent.shape[2] - 1)
    above = 1 - now
    return (
        np.int64(recent[k, now, west]) + recent[k, above, west]
        + recent[k, above, j] + recent[k, above, east]
    )  # fmt: skip


@compiled
def _error(recent: Any, k: Any, now: Any, j: Any) -> Any:
    """What a prediction is expected to be off by."""
    return (_errors_around(recent, k, now, j) + recent[k, now, at_least(j - 2, 0)]) // 5


@compiled
def learn(state: Any, number: Any, mean: Any, error: Any, has_past: Any, now: Any, j: Any) -> Any:
    """Note how far predictions were off, where the mean was expected to be off by ``error``."""
    guesses, features, recent = state.guesses, state.features, state.recent
    scaled, sums = state.scaled, state.sums
    for k in range(PREDICTIONS):
        recent[k, now, j] = abs(PARTS * number - guesses[k])
    recent[PREDICTIONS, now, j] = abs(PARTS * number - mean)
    used = np.int64(FEATURES) if has_past else np.int64(_NEIGHBOURS)
    unit = np.int64(_FINE * PARTS << 16) // (error + PARTS)
    for k in range(used):
        scaled[k] = at_most(at_least((features[k] * unit) >> 16, -_CLIPPED), _CLIPPED)
    centre = guesses[0] - PARTS * features[0]  # west, and what west is beside it
    target = ((PARTS * number - centre) * unit) // (PARTS << 16)
    target = at_most(at_least(target, -_CLIPPED), _CLIPPED)
    for a in range(used):
        for c in range(a + 1):
            sums[a, c] += scaled[a] * scaled[c]
        sums[FEATURES, a] += scaled[a] * target
    if j % _EVERY == _EVERY - 1:
        _solve_further(sums, state.solution, used)
        for a in range(used):
            for c in range(a + 1):
                sums[a, c] = (sums[a, c] * _FADING) >> 12
            sums[FEATURES, a] = (sums[FEATURES, a] * _FADING) >> 12
    return recent[PREDICTIONS, now, j]


@compiled
def _solve_further(sums: Any, solution: Any, used: Any) -> None:
    """A sweep of Gauss and Seidel over the normal equations, of which the lower half is there."""
    for a in range(used):
        rest = sums[FEATURES, a] << 16
        for c in range(a):
            rest -= sums[a, c] * solution[c]
        for c in range(a + 1, used):
            rest -= sums[c, a] * solution[c]
        diagonal = sums[a, a] + (sums[a, a] >> 10) + 1024
        solution[a] = at_most(at_least(rest // diagonal, -_LARGEST_WEIGHT), _LARGEST_WEIGHT)


@compiled
def pass_over(state: Any, now: Any, j: Any) -> None:
    """A cell that does not count has the errors of the one above."""
    for k in range(PREDICTIONS + 1):
        state.recent[k, now, j] = state.recent[k, 1 - now, j]
