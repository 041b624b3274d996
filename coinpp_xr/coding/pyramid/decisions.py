"""Yes-or-no decisions ↔ bits, each by one context or by the mixture of six, compiled.

What chance a decision has is mixed from those of six contexts, by weights that follow the data
(logistic mixing, Mahoney 2005). Integers only: weights are in 1/65536, logits in 1/256. Changing
any constant changes the format.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.range_coder import (
    at_least,
    at_most,
    by_one_context,
    code_bit,
    even_chances,
    learned,
    rates,
)
from coinpp_xr.compiled import inlined
from coinpp_xr.mixing import ONE, squash_table, stretch_table

Int32 = npt.NDArray[np.int32]

NODES = 18
TABLES = 6
# What is mixed: these, and the opinion of a network.
_MIXED = TABLES + 1
CONTEXTS = 64
CLASSES = 48
LARGEST_SIZE = 1 << 14
_TABLE = NODES * CONTEXTS
_LARGEST_LOGIT = 2839
_FIRST_WEIGHTS = np.array([int(0.2 * ONE)] * TABLES + [int(0.3 * ONE)], np.int32)


def mixes(quick: int) -> bool:
    """Whether any decision is mixed, if classes below this are coded by one context."""
    return quick < CLASSES


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
    return Tables(
        stretch_table(), squash_table().astype(np.int32), rates(),
        _octaves(3, 3, CLASSES), _octaves(2, 4, 32),
    )  # fmt: skip


def _octaves(per_octave: int, start: int, count: int) -> npt.NDArray[np.uint8]:
    """Class of each size: floor(per_octave · log2((size + start) / start)), by integer powers."""
    edges = [
        # The smallest size whose (size + start)^per_octave reaches start^per_octave · 2^k.
        _root_above(start**per_octave << k, per_octave) - start
        for k in range(1, count)
    ]
    classes = np.searchsorted(np.array(edges), np.arange(LARGEST_SIZE), side="right")
    return classes.astype(np.uint8)


def _root_above(value: int, power: int) -> int:
    """The smallest whole number whose power is not below a value."""
    root = max(1, int(value ** (1 / power)) - 2)
    while root**power < value:
        root += 1
    return root


class State(NamedTuple):
    """What a coder has learned.

    Parameters
    ----------
    chances : int32 array, shape (tables · nodes · contexts,)
        Probability in 1/65536 and, in the lowest 8 bits, how often the context was seen.
    weights : int32 array, shape ((nodes · classes + nodes · contexts) · tables,)
    sure : int32 array
        Chances of zeros where hardly anything else is expected.
    plain : int32 array
        Of all other decisions where nothing is mixed.
    """

    chances: Int32
    weights: Int32
    sure: Int32
    plain: Int32


def new_state() -> State:
    return State(
        even_chances(TABLES * _TABLE),
        np.tile(_FIRST_WEIGHTS, NODES * (CLASSES + CONTEXTS)),
        even_chances(CLASSES * 64),
        even_chances(NODES << 10),
    )


def copy_of(state: State) -> State:
    return State(*(array.copy() for array in state))


@inlined
def decide(
    buffer: Any,
    r: Any,
    yes: Any,
    state: Any,
    tables: Any,
    node: Any,
    by_class: Any,
    by_near: Any,
    contexts: Any,
    z6: Any,
) -> Any:
    """A decision whose chance is mixed from those of six contexts, by two sets of weights.

    And a logit that is known, of a network; 0 where there is none.
    """
    chances, weights = state.chances, state.weights
    stretch, squash, rate = tables.stretch, tables.squash, tables.rate
    at_first = (node * CLASSES + by_class) * _MIXED
    at_second = (NODES * CLASSES + node * CONTEXTS + by_near) * _MIXED
    first, second = weights[at_first : at_first + _MIXED], weights[at_second : at_second + _MIXED]
    c0, c1, c2, c3, c4, c5 = contexts
    at = node * CONTEXTS
    t0, t1, t2 = chances[at:], chances[_TABLE + at :], chances[2 * _TABLE + at :]
    t3, t4, t5 = chances[3 * _TABLE + at :], chances[4 * _TABLE + at :], chances[5 * _TABLE + at :]
    e0, e1, e2 = np.int64(t0[c0]), np.int64(t1[c1]), np.int64(t2[c2])
    e3, e4, e5 = np.int64(t3[c3]), np.int64(t4[c4]), np.int64(t5[c5])
    z0, z1, z2 = np.int64(stretch[e0 >> 8]), np.int64(stretch[e1 >> 8]), np.int64(stretch[e2 >> 8])
    z3, z4, z5 = np.int64(stretch[e3 >> 8]), np.int64(stretch[e4 >> 8]), np.int64(stretch[e5 >> 8])
    x = (
        first[0] * z0 + first[1] * z1 + first[2] * z2
        + first[3] * z3 + first[4] * z4 + first[5] * z5 + first[6] * z6
    ) >> 16  # fmt: skip
    y = (
        second[0] * z0 + second[1] * z1 + second[2] * z2
        + second[3] * z3 + second[4] * z4 + second[5] * z5 + second[6] * z6
    ) >> 16  # fmt: skip
    x = at_most(at_least(x, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    y = at_most(at_least(y, -_LARGEST_LOGIT), _LARGEST_LOGIT)
    p = np.int64(squash[((x + y) >> 1) + _LARGEST_LOGIT])
    yes, r = code_bit(buffer, r, yes, p)
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
    first[6] += (ex * z6 + half) >> 15
    second[0] += (ey * z0 + half) >> 15
    second[1] += (ey * z1 + half) >> 15
    second[2] += (ey * z2 + half) >> 15
    second[3] += (ey * z3 + half) >> 15
    second[4] += (ey * z4 + half) >> 15
    second[5] += (ey * z5 + half) >> 15
    second[6] += (ey * z6 + half) >> 15
    t0[c0] = learned(e0, truth, rate)
    t1[c1] = learned(e1, truth, rate)
    t2[c2] = learned(e2, truth, rate)
    t3[c3] = learned(e3, truth, rate)
    t4[c4] = learned(e4, truth, rate)
    t5[c5] = learned(e5, truth, rate)
    return yes, r


@inlined
def decision(
    buffer: Any,
    r: Any,
    yes: Any,
    state: Any,
    tables: Any,
    plainly: Any,
    node: Any,
    plain: Any,
    by_class: Any,
    by_near: Any,
    contexts: Any,
    logit: Any,
) -> Any:
    """A decision by one context, or by all."""
    if plainly:
        yes, r = by_one_context(buffer, r, yes, state.plain, (node << 10) + plain, tables.rate)
    else:
        yes, r = decide(buffer, r, yes, state, tables, node, by_class, by_near, contexts, logit)
    return yes, r
