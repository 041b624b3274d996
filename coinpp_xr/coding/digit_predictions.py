"""What whole numbers are expected to be, from those around them, compiled.

An average of eleven simple predictions, one of which learns (normalised least mean squares), each
weighted by how far it was off around here. Predictions and errors are in 1/8, the weights of the
prediction that learns in 2^-20.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coinpp_xr.coding.digit_decisions import FEATURES, PARTS, PREDICTIONS
from coinpp_xr.coding.pyramid.range_coder import at_least, at_most
from coinpp_xr.compiled import compiled

# How fast it learns: 0.005 in 2^-20 and 1/8.
_RATE = 655
_MOST_WEIGHT = 1 << 23
# Seven predictions from this field alone, three that look at the one before, one that learns.
_ALONE, _LEARNING = 7, 10
_NEIGHBOURS = 11
_FARTHEST = 1 << 27


@compiled
def predict(state: Any, near: Any, past: Any, now: Any, j: Any) -> Any:
    """Mean, expected error, and the energy of what the prediction that learns looks at.

    ``near`` and ``past`` are numbers around the cell in its field and in the one before, of which
    the first is negative where there is none. ``now`` tells which of the two rows of errors is
    this one's, ``j`` the column.
    """
    w, n, nw, ne, ww, nn, www, nne, nee, nnw, nww = near
    p, pw, pn, pe, ps, pnw, pne = past
    guesses, features, learning, recent = (
        state.guesses, state.features, state.learning, state.recent
    )  # fmt: skip
    guesses[0], guesses[1], guesses[2] = PARTS * w, PARTS * n, PARTS * (w + n - nw)
    guesses[3] = PARTS * (w + ne - n)
    guesses[4] = PARTS * n + PARTS // 2 * (ne - nw)
    guesses[5] = PARTS * w + 6 * (ne - n) + 2 * (n - nw)
    guesses[6] = PARTS * (2 * w - ww)
    centre, used = (w + n) >> 1, np.int64(_NEIGHBOURS)
    if p >= 0:
        guesses[7] = PARTS * p
        guesses[8] = PARTS * p + PARTS // 2 * (w - pw + n - pn)
        guesses[9] = PARTS * (p + w - pw + n - pn - (nw - pnw))
        centre, used = p + ((w - pw + n - pn) >> 1), np.int64(FEATURES)
        features[11], features[12], features[13] = pw - p, pn - p, pnw - p
        features[14], features[15], features[16] = pne - p, pe - p, ps - p
        features[17] = (w - pw) - (n - pn)
    features[0], features[1], features[2] = w - centre, n - centre, nw - centre
    features[3], features[4], features[5] = ne - centre, ww - centre, nn - centre
    features[6], features[7], features[8] = www - centre, nne - centre, nee - centre
    features[9], features[10] = nnw - centre, nww - centre
    found = np.int64(0)
    energy = np.int64(1)
    for k in range(used):
        found += learning[k] * features[k]
        energy += features[k] * features[k]
    guesses[_LEARNING] = PARTS * centre + at_most(at_least(found >> 17, -_FARTHEST), _FARTHEST)
    least = np.int64(1 << 40)
    for k in range(PREDICTIONS):
        if k < _ALONE or k == _LEARNING or p >= 0:
            least = at_most(least, _error_around(recent, k, now, j))
    total = np.int64(0)
    mean = np.int64(0)
    for k in range(PREDICTIONS):
        if k < _ALONE or k == _LEARNING or p >= 0:
            weight = ((least + 4) << 12) // (_error_around(recent, k, now, j) + 4)
            total += weight * weight
            mean += weight * weight * guesses[k]
    error = _error_around(recent, PREDICTIONS, now, j)
    error += recent[PREDICTIONS, now, at_least(j - 2, 0)]
    return mean // total, error // 5, energy


@compiled
def _error_around(recent: Any, k: Any, now: Any, j: Any) -> Any:
    """Errors of a prediction in the cells west, north-west, north and north-east, added up."""
    west, east = at_least(j - 1, 0), at_most(j + 1, recent.shape[2] - 1)
    above = 1 - now
    return (
        np.int64(recent[k, now, west]) + recent[k, above, west]
        + recent[k, above, j] + recent[k, above, east]
    )  # fmt: skip


@compiled
def learn(state: Any, number: Any, mean: Any, energy: Any, has_past: Any, now: Any, j: Any) -> None:
    """Note how far predictions were off."""
    guesses, features, learning, recent = (
        state.guesses, state.features, state.learning, state.recent
    )  # fmt: skip
    for k in range(PREDICTIONS):
        recent[k, now, j] = abs(PARTS * number - guesses[k])
    recent[PREDICTIONS, now, j] = abs(PARTS * number - mean)
    gain = (((PARTS * number - guesses[_LEARNING]) * _RATE) << 20) // energy
    for k in range(FEATURES if has_past else _NEIGHBOURS):
        weight = learning[k] + ((gain * features[k]) >> 20)
        learning[k] = at_most(at_least(weight, -_MOST_WEIGHT), _MOST_WEIGHT)


@compiled
def pass_over(state: Any, now: Any, j: Any) -> None:
    """A cell that does not count has the errors of the one above."""
    for k in range(PREDICTIONS + 1):
        state.recent[k, now, j] = state.recent[k, 1 - now, j]
