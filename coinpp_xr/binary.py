"""Yes-or-no decisions ↔ bits: a range coder and the mixing of predictions, compiled.

The same logistic mixing as in :mod:`coinpp_xr.mixing`, one decision at a time instead of a batch:
what a decision teaches serves the next one. Integers only. Encoding and decoding are one walk;
the coder's registers say which of the two it is.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.mixing import ONE, squash_table, stretch_table

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

LARGEST_LOGIT = 2839  # of the tables: ln(65535) · 256
# Registers of the range coder.
_LOW, _RANGE, _CACHE, _PENDING, _POSITION, _CODE, _DECODING, _BROKEN = range(8)
_TOP = 1 << 24
# Of an adaptive probability: how much of its history it remembers; bits to count that.
_SEEN_BITS = 8
_MEMORY = (1 << _SEEN_BITS) - 1
# Weights of a mixture are in 1 / 65536; 2^-15 · 256 is a learning rate of 1/128.
_LEARNING_SHIFT = 15
_CONSTANT_LOGIT = 85


class Coder(NamedTuple):
    """A range coder (after LZMA's): probabilities of 16 bits, carries resolved later."""

    buffer: npt.NDArray[np.uint8]
    registers: Int


def encoder(capacity: int) -> Coder:
    registers = np.zeros(8, np.int64)
    registers[_RANGE], registers[_PENDING] = 0xFFFFFFFF, 1
    return Coder(np.zeros(capacity, np.uint8), registers)


def decoder(stream: bytes) -> Coder:
    """For a stream of :func:`finish`.

    Raises
    ------
    CorruptPayloadError
        If it is too short to hold anything.
    """
    if len(stream) < 4:
        raise CorruptPayloadError("the coded stream is cut short")
    registers = np.zeros(8, np.int64)
    registers[_RANGE], registers[_DECODING], registers[_POSITION] = 0xFFFFFFFF, 1, 4
    registers[_CODE] = int.from_bytes(stream[:4], "big")
    return Coder(np.frombuffer(stream, np.uint8).copy(), registers)


def with_room(coder: Coder, room: int) -> Coder:
    """An encoder with space for so many more bytes."""
    if coder.registers[_DECODING]:
        return coder
    needed = int(coder.registers[_POSITION] + coder.registers[_PENDING]) + room
    if len(coder.buffer) >= needed:
        return coder
    buffer = np.zeros(needed + needed // 2, np.uint8)
    buffer[: len(coder.buffer)] = coder.buffer
    return Coder(buffer, coder.registers)


def finish(coder: Coder) -> bytes:
    """The stream of all that was encoded."""
    coder = with_room(coder, 8)
    for _ in range(5):
        _shift_low(coder)
    # The first byte is the carry of a number below one: always zero.
    return coder.buffer[1 : int(coder.registers[_POSITION])].tobytes()


def check_end(coder: Coder) -> None:
    """After the last decision: whether it was the stream's last, too.

    Raises
    ------
    CorruptPayloadError
    """
    read = int(coder.registers[_POSITION])
    if read != len(coder.buffer) or coder.registers[_CODE] != 0:
        raise CorruptPayloadError("the coded stream does not end where its symbols do")


@compiled
def is_decoder(coder: Coder) -> bool:
    return coder.registers[_DECODING] != 0


@compiled
def is_broken(coder: Coder) -> bool:
    """Whether what a decoder reads cannot be a stream: then there is no use in going on."""
    buffer, r = coder
    overrun = r[_DECODING] and r[_POSITION] > len(buffer)
    return overrun or r[_BROKEN]


@compiled
def mark_broken(coder: Coder) -> None:
    """Note that what was decoded makes no sense."""
    coder.registers[_BROKEN] = 1


@compiled
def _shift_low(coder: Coder) -> None:
    buffer, r = coder
    if r[_LOW] < 0xFF000000 or r[_LOW] > 0xFFFFFFFF:
        carry = r[_LOW] >> 32
        byte = r[_CACHE]
        while r[_PENDING] > 0:
            buffer[r[_POSITION]] = (byte + carry) & 0xFF
            r[_POSITION] += 1
            r[_PENDING] -= 1
            byte = 0xFF
        r[_CACHE] = (r[_LOW] >> 24) & 0xFF
    r[_PENDING] += 1
    r[_LOW] = (r[_LOW] & 0x00FFFFFF) << 8


@compiled
def code(coder: Coder, yes: bool, p: int) -> bool:
    """Encode a decision of probability p / 65536, or decode it and return what it was."""
    buffer, r = coder
    bound = (r[_RANGE] >> 16) * p
    if r[_DECODING]:
        yes = r[_CODE] < bound
    if yes:
        r[_RANGE] = bound
    else:
        r[_RANGE] -= bound
        if r[_DECODING]:
            r[_CODE] -= bound
        else:
            r[_LOW] += bound
    while r[_RANGE] < _TOP:
        r[_RANGE] <<= 8
        if r[_DECODING]:
            byte = np.int64(0)
            if r[_POSITION] < len(buffer):
                byte = np.int64(buffer[r[_POSITION]])
            r[_POSITION] += 1
            r[_CODE] = (r[_CODE] << 8) | byte
        else:
            _shift_low(coder)
    return yes


class Tables(NamedTuple):
    """Functions that are looked up.

    Parameters
    ----------
    stretch : int16 array, shape (65537,)
        Logits, in 1/256, of probabilities in 1/65536.
    squash : int64 array, shape (5679,)
        The inverse, for logits −2839 … 2839.
    rate : int64 array
        1 / (n + 1.6) in 1/65536, by how often a context was seen.
    """

    stretch: npt.NDArray[np.int16]
    squash: Int
    rate: Int


@cache
def tables() -> Tables:
    seen = np.arange(_MEMORY + 1)
    return Tables(stretch_table(), squash_table(), (ONE * 10) // (10 * seen + 16))


class Mixture(NamedTuple):
    """Adaptive probabilities and the weights that mix them with other predictions.

    Parameters
    ----------
    chances : int32 array, shape (tables, contexts)
        Probability of yes in 1/65536 and, in the lowest 8 bits, how often a context was seen: one
        look into memory for both.
    weights : int32 array, shape (mixers, sets, inputs)
        In 1/65536. Inputs are the predictions given, those of the tables, and a constant.
    opinions : int64 array, shape (mixers,)
        What every mixer made of the last decision: logits.
    """

    chances: Int32
    weights: Int32
    opinions: Int


def mixture(contexts: tuple[int, ...], sets: tuple[int, ...], predictions: int) -> Mixture:
    """One that knows nothing yet.

    Parameters
    ----------
    contexts : tuple of int
        Of every table.
    sets : tuple of int
        Of weights, for every mixer.
    predictions : int
        How many are given from outside.
    """
    inputs = predictions + len(contexts) + 1
    weights = np.zeros((len(sets), max(sets), inputs), np.int32)
    if predictions:
        weights[:, :, :predictions] = int(0.7 * ONE / predictions)
    weights[:, :, predictions:-1] = int((0.3 if predictions else 1.0) * ONE / len(contexts))
    chances = np.full((len(contexts), max(contexts)), ONE // 2 << _SEEN_BITS, np.int32)
    return Mixture(chances, weights, np.zeros(len(sets), np.int64))


@compiled
def half_octaves(value: int) -> int:
    """0 for 0, then 1 for 1, 2 for 2, 3 for 3, 4 for 4 and 5, 5 for 6 and 7, …"""
    n = 0
    while value > 3:
        value >>= 1
        n += 2
    return n + value


@compiled
def weigh(tables: Tables, mixture: Mixture, logits: Int, contexts: Int, sets: Int) -> int:
    """How likely yes is, in 1/65536.

    ``logits`` starts with the predictions; the rest of it is filled here. ``contexts`` and
    ``sets`` say which context of every table, which weights of every mixer are used.
    """
    n_tables, inputs, mixers = len(contexts), len(logits), len(sets)
    first = inputs - 1 - n_tables
    for m in range(n_tables):
        logits[first + m] = tables.stretch[mixture.chances[m, contexts[m]] >> _SEEN_BITS]
    logits[inputs - 1] = _CONSTANT_LOGIT
    total = np.int64(0)
    for m in range(mixers):
        own = sets[m]
        z = np.int64(0)
        for k in range(inputs):
            z += mixture.weights[m, own, k] * logits[k]
        mixture.opinions[m] = min(max(z >> 16, -LARGEST_LOGIT), LARGEST_LOGIT)
        total += mixture.opinions[m]
    return tables.squash[total // mixers + LARGEST_LOGIT]


@compiled
def learn(
    tables: Tables, mixture: Mixture, yes: bool, logits: Int, contexts: Int, sets: Int
) -> None:
    """Adapt to a decision that :func:`weigh` was asked about."""
    truth = ONE if yes else 0
    for m in range(len(sets)):
        own = sets[m]
        # Every mixer learns from its own mistake.
        error = truth - tables.squash[mixture.opinions[m] + LARGEST_LOGIT]
        for k in range(len(logits)):
            step = error * logits[k] + (1 << (_LEARNING_SHIFT - 1))
            mixture.weights[m, own, k] += step >> _LEARNING_SHIFT
    for m in range(len(contexts)):
        c = contexts[m]
        entry = np.int64(mixture.chances[m, c])
        before, n = entry >> _SEEN_BITS, entry & _MEMORY
        chance = before + (((truth - before) * tables.rate[n]) >> 16)
        chance = min(max(chance, 16), ONE - 16)
        mixture.chances[m, c] = (chance << _SEEN_BITS) | min(n + 1, _MEMORY)


@compiled
def decide(
    coder: Coder,
    tables: Tables,
    mixture: Mixture,
    yes: bool,
    logits: Int,
    contexts: Int,
    sets: Int,
) -> bool:
    """Code one decision and learn from it; arguments as of :func:`weigh`."""
    yes = code(coder, yes, weigh(tables, mixture, logits, contexts, sets))
    learn(tables, mixture, yes, logits, contexts, sets)
    return yes


def copy(state: Any) -> Any:
    """A tuple of arrays (and such tuples) with arrays of its own."""
    return type(state)(*(copy(a) if isinstance(a, tuple) else a.copy() for a in state))
