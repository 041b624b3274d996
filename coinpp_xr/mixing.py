"""Probabilities of yes-or-no decisions, learned while coding, in integers only.

Every decision is predicted by several adaptive tables, each looking at another context; their
predictions are averaged in the logistic domain with weights that follow the data (logistic
mixing, Mahoney 2005). Encoder and decoder make the same integer steps, so that the
same payload gives the same symbols on every machine.

Decisions come in batches of arrays: all of a batch are predicted from what was known before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import isqrt

import numpy as np
import numpy.typing as npt

Int = npt.NDArray[np.int64]

# Probabilities are numbers of 1 / ONE; logits are numbers of 1 / 256.
ONE = 1 << 16
_LOGIT = 256
_LARGEST_LOGIT = 2839  # ln(65535) · 256
# Counts are kept in 1/32, weights in 1 / 65536.
COUNT = 32
_WEIGHT = 1 << 16
# Older evidence fades once a context was seen this often.
_MEMORY = 255 * COUNT
_LEARNING_RATE = 0.02
_SLOWNESS = round(_LOGIT * ONE / _LEARNING_RATE / _WEIGHT)


@cache
def squash_table() -> Int:
    """Probability of each logit −2839 … 2839. The rounding is far from every tie (tested), so
    that no machine's exponential function can change an entry."""
    logits = np.arange(-_LARGEST_LOGIT, _LARGEST_LOGIT + 1) / _LOGIT
    return np.clip(np.rint(ONE / (1 + np.exp(-logits))), 1, ONE - 1).astype(np.int64)


@cache
def stretch_table() -> npt.NDArray[np.int16]:
    """Logit of each probability 0 … ONE, the inverse of :func:`squash_table` by search."""
    logits = np.searchsorted(squash_table(), np.arange(ONE + 1)) - _LARGEST_LOGIT
    return np.clip(logits, -_LARGEST_LOGIT, _LARGEST_LOGIT).astype(np.int16)


class Mixer:
    """Adaptive probabilities of one kind of decision.

    Parameters
    ----------
    starts : sequence of int arrays, shape (contexts, 2)
        For every table, counts of no and yes (in 1/32) that its contexts start with.
    """

    def __init__(self, starts: Sequence[Int]) -> None:
        self._counts = [start.astype(np.int64).copy() for start in starts]
        self._weights = np.full(len(starts) + 1, _WEIGHT // len(starts), np.int64)
        self._weights[-1] = 0  # of a constant, which lets the mixture be biased
        self._contexts: Sequence[npt.NDArray[np.intp]] = ()
        self._logits = np.zeros((0, 0), np.int64)
        self._mixed = np.zeros(0, np.int64)

    def predict(self, contexts: Sequence[npt.NDArray[np.intp]]) -> Int:
        """Probabilities of yes, in 1 / ONE, for a batch with one context per table."""
        logits = np.full((len(contexts) + 1, len(contexts[0])), _LOGIT // 3, np.int64)
        stretch = stretch_table()
        for row, counts, context in zip(logits, self._counts, contexts, strict=False):
            p = counts[:, 1] * ONE // (counts[:, 0] + counts[:, 1])
            row[:] = stretch[p][context]
        mixed = (self._weights @ logits) >> 16
        np.clip(mixed, -_LARGEST_LOGIT, _LARGEST_LOGIT, out=mixed)
        self._contexts, self._logits = contexts, logits
        self._mixed = squash_table()[mixed + _LARGEST_LOGIT]
        return self._mixed

    def learn(self, yes: npt.NDArray[np.bool_]) -> None:
        """Take in how the batch of the last :meth:`predict` came out."""
        error = np.where(yes, ONE, 0) - self._mixed
        self._weights += (self._logits @ error) // (_SLOWNESS * isqrt(len(yes)))
        for counts, context in zip(self._counts, self._contexts, strict=True):
            cells = 2 * context + yes
            counts += COUNT * np.bincount(cells, minlength=counts.size).reshape(-1, 2)
            full = counts.sum(axis=1) > _MEMORY
            if full.any():
                counts[full] = (counts[full] + 1) // 2
