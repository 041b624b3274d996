"""The range coder of :mod:`coinpp_xr.binary` for loops that keep its registers at hand, compiled.

Streams begin and end there. Probabilities are in 1/65536; encoding and decoding are one walk: the
registers say which it is.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled, inlined
from coinpp_xr.mixing import ONE

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]

# Registers, as in coinpp_xr.binary.
LOW, RANGE, CACHE, PENDING, POSITION, CODE, DECODING, BROKEN = range(8)
# An adaptive chance remembers so many decisions, in its lowest 8 bits.
MEMORY = 255
# No number takes more bytes: some 60 decisions of two.
BYTES_PER_VALUE = 160
# Tables of numbers have chances of their own for so many columns.
_COLUMNS, _PER_COLUMN = 32, 64
_LARGEST_EXPONENT = 30


@cache
def rates() -> Int32:
    """1 / (n + 1.6) in 1/65536, by how often a context was seen."""
    return ((ONE * 10) // (10 * np.arange(MEMORY + 1) + 16)).astype(np.int32)


def even_chances(count: int) -> Int32:
    """Adaptive chances of contexts that nothing is known of."""
    return np.full(count, (ONE // 2) << 8, np.int32)


def new_chances() -> Int32:
    """Of :func:`code_numbers`."""
    return even_chances(_COLUMNS * _PER_COLUMN)


@inlined
def opened(registers: Any) -> Any:
    """Registers as a tuple, which compiled loops keep at hand."""
    return (
        registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING],
        registers[POSITION], registers[CODE], registers[DECODING],
    )  # fmt: skip


@inlined
def put_back(registers: Any, r: Any) -> Any:
    """The tuple of :func:`opened` into the registers."""
    registers[LOW], registers[RANGE], registers[CACHE], registers[PENDING] = r[0], r[1], r[2], r[3]
    registers[POSITION], registers[CODE] = r[4], r[5]


@compiled
def at_most(value: Any, most: Any) -> Any:
    """The smaller of two whole numbers."""
    return min(value, most)


@compiled
def at_least(value: Any, least: Any) -> Any:
    """The larger of two whole numbers."""
    return max(value, least)


@inlined
def _shift_low(buffer: Any, low: Any, cache: Any, pending: Any, position: Any) -> Any:
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        byte = cache
        while pending > 0:
            buffer[position] = (byte + carry) & 0xFF
            position += 1
            pending -= 1
            byte = 0xFF
        cache = (low >> 24) & 0xFF
    return (low & 0x00FFFFFF) << 8, cache, pending + 1, position


@inlined
def code_bit(buffer: Any, r: Any, yes: Any, p: Any) -> Any:
    """One decision of probability p / 65536: r are the registers."""
    low, span, cache, pending, position, code, decoding = r
    bound = (span >> 16) * p
    if decoding:
        yes = code < bound
        if yes:
            span = bound
        else:
            span -= bound
            code -= bound
        while span < (1 << 24):
            span <<= 8
            byte = np.int64(0)
            if position < len(buffer):
                byte = np.int64(buffer[position])
            position += 1
            code = (code << 8) | byte
    else:
        if yes:
            span = bound
        else:
            span -= bound
            low += bound
        while span < (1 << 24):
            span <<= 8
            low, cache, pending, position = _shift_low(buffer, low, cache, pending, position)
    return yes, (low, span, cache, pending, position, code, decoding)


@compiled
def learned(entry: Any, truth: Any, rate: Any) -> Any:
    before, seen = entry >> 8, entry & MEMORY
    chance = before + (((truth - before) * rate[seen]) >> 16)
    chance = at_most(at_least(chance, 16), ONE - 16)
    return (chance << 8) | at_most(seen + 1, MEMORY)


@inlined
def by_one_context(buffer: Any, r: Any, yes: Any, chances: Any, c: Any, rate: Any) -> Any:
    """A decision whose chance is that of one context."""
    entry = np.int64(chances[c])
    yes, r = code_bit(buffer, r, yes, at_most(at_least(entry >> 8, 16), ONE - 16))
    chances[c] = learned(entry, ONE if yes else 0, rate)
    return yes, r


@compiled
def code_numbers(buffer: Any, registers: Any, chances: Any, rate: Any, numbers: Any) -> None:
    """Numbers without any context but what they are numbers of: rows of a table.

    An encoder's buffer must have room for all of them.
    """
    r = opened(registers)
    rows, columns = numbers.shape
    for i in range(rows):
        for j in range(columns):
            value = np.int64(numbers[i, j])
            at = at_most(j, _COLUMNS - 1) * _PER_COLUMN
            zero, r = by_one_context(buffer, r, value == 0, chances, at, rate)
            if zero:
                numbers[i, j] = 0
                continue
            negative, r = by_one_context(buffer, r, value < 0, chances, at + 1, rate)
            size, exponent, more = abs(value), np.int64(0), True
            while more:
                more, r = by_one_context(
                    buffer,
                    r,
                    (size >> (exponent + 1)) > 0,
                    chances,
                    at + 2 + at_most(exponent, 25),
                    rate,
                )
                exponent += more
                if exponent > _LARGEST_EXPONENT:
                    registers[BROKEN] = 1
                    return
            found = np.int64(1)
            for b in range(exponent - 1, -1, -1):
                bit = ((size >> b) & 1) == 1
                if b == exponent - 1:
                    bit, r = by_one_context(
                        buffer, r, bit, chances, at + 32 + at_most(exponent, 25), rate
                    )
                else:
                    bit, r = code_bit(buffer, r, bit, ONE // 2)
                found = 2 * found + bit
            numbers[i, j] = -found if negative else found
    put_back(registers, r)
