"""Floats that were never quantized ↔ whole numbers, and the bits of mantissas behind them.

A float is a whole number of a power of two, cut off towards zero, and the rest of its mantissa. The
first is much like those around it; the rest is noise, and kept as it is, plane by plane. How many
bits that are follows from the number.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import ceil, floor, log2
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import pack_bytes, unpack_bytes
from coinpp_xr.source_steps import MOST

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

_HEAD = struct.Struct("<hI")
# Differences of neighbours are so many bits long in whole numbers.
_NOISE = 4
_ROWS = 64
# Bytes that a reader takes for every cell of a field, how many times as much as the array, and what
# does not matter.
_PER_CELL, _TIMES, _LITTLE = 64, 9, 3 << 24
_DAMAGED = "the bits of the mantissas are damaged"


def are_few_mantissas(cells: int, nbytes: int) -> bool:
    """Whether a field of so many cells takes little memory beside an array of so many bytes."""
    return _PER_CELL * cells <= _TIMES * nbytes + _LITTLE


def exponent_for(table: Array, usable: Bool) -> int:
    """Of the power of two that numbers count."""
    rows = np.arange(0, len(table), max(1, len(table) // _ROWS))
    some, counted = table[rows].astype(np.float64), usable[rows]
    away = np.abs(np.diff(some, axis=1))[counted[:, 1:] & counted[:, :-1]]
    away = away[away > 0]
    largest = float(np.abs(table, where=usable, out=np.zeros_like(table)).max(initial=0))
    least = int(np.finfo(table.dtype).minexp)
    if away.size == 0 or largest == 0:
        return least
    least = max(least, ceil(log2(largest)) - (MOST.bit_length() - 2))
    return max(least, floor(log2(float(np.median(away)))) - _NOISE)


@dataclass(frozen=True)
class Mantissas:
    """How many of a float's bits a number tells, and where the others are.

    Parameters
    ----------
    exponent : int
        Numbers count 2 to this power.
    planes : bytes
        What numbers do not tell, field by field: of every field, plane by plane, the lowest first,
        the bits of those cells that have one there.
    """

    exponent: int
    planes: bytes

    def pack(self) -> bytes:
        """A section for :meth:`unpack`."""
        packed = pack_bytes(np.frombuffer(self.planes, np.uint8))
        return _HEAD.pack(self.exponent, len(self.planes)) + packed

    @classmethod
    def unpack(cls, section: bytes, most: int) -> Self:
        """With at most so many bytes of planes.

        Raises
        ------
        CorruptPayloadError
        """
        if len(section) < _HEAD.size:
            raise CorruptPayloadError(_DAMAGED)
        exponent, count = _HEAD.unpack_from(section)
        if count > most:
            raise CorruptPayloadError(_DAMAGED)
        return cls(exponent, unpack_bytes(section[_HEAD.size :], count, np.dtype("u1")).tobytes())


def numbers_of(table: Array, usable: Bool, exponent: int) -> tuple[Int, Bool]:
    """Numbers of floats, and which of the usable ones have one."""
    sizes = np.abs(table.astype(np.float64))
    sizes[~usable] = 0
    numbers = np.floor(np.ldexp(sizes, -exponent))
    normal = (sizes >= np.finfo(table.dtype).tiny) & (numbers >= 1) & (numbers <= MOST)
    coded = usable & (normal | (sizes == 0))
    signed = np.where(coded, np.copysign(numbers, table), 0)
    return signed.astype(np.int64), coded


def mantissas_of(
    table: Array,
    numbers: Int,
    coded: Bool,
    exponent: int,
    order: npt.NDArray[np.integer[Any]],
) -> Mantissas:
    """What numbers do not tell of floats, shape (items, cells), of one item after the other."""
    native = table.astype(table.dtype.newbyteorder("="), copy=False)
    planes = []
    for item in order.ravel().tolist():
        counted = coded[item]
        bits = np.ascontiguousarray(native[item]).view(f"u{native.dtype.itemsize}")[counted]
        lengths = _lengths(numbers[item][counted], native.dtype)
        for plane in range(int(lengths.max(initial=0))):
            there = (bits[lengths > plane] >> plane) & 1
            planes.append(np.packbits(there.astype(np.uint8)).tobytes())
    return Mantissas(exponent, b"".join(planes))


class MantissaReader:
    """Floats of one field after the other."""

    def __init__(self, mantissas: Mantissas, dtype: np.dtype[Any]) -> None:
        self._exponent, self._dtype = mantissas.exponent, dtype
        self._planes, self._at = np.frombuffer(mantissas.planes, np.uint8), 0

    def values(self, numbers: Int, valid: Bool) -> Array:
        """Floats of a field's numbers; anything where not valid.

        Raises
        ------
        CorruptPayloadError
        """
        own = numbers[valid]
        lengths = _lengths(own, self._dtype)
        low = np.zeros(len(own), np.int64)
        for plane in range(int(lengths.max(initial=0))):
            there = lengths > plane
            count = int(np.count_nonzero(there))
            taken = self._planes[self._at : self._at + -(-count // 8)]
            self._at += len(taken)
            if 8 * len(taken) < count:
                raise CorruptPayloadError(_DAMAGED)
            low[there] |= np.unpackbits(taken, count=count).astype(np.int64) << plane
        found = np.zeros(len(numbers), np.float64)
        with np.errstate(all="ignore"):  # numbers of damaged payloads may be anything
            sizes = np.ldexp(((np.abs(own) << lengths) | low).astype(np.float64),
                             self._exponent - lengths)  # fmt: skip
            found[valid] = np.where(own < 0, -sizes, sizes)
            return np.asarray(found.astype(self._dtype))

    def check_end(self) -> None:
        """After the last field.

        Raises
        ------
        CorruptPayloadError
        """
        if self._at != len(self._planes):
            raise CorruptPayloadError(_DAMAGED)


def _lengths(numbers: Int, dtype: np.dtype[Any]) -> Int:
    """How many bits of mantissas numbers do not tell; none of zeros."""
    told = np.frexp(np.abs(numbers).astype(np.float64))[1].astype(np.int64) - 1
    return np.where(numbers == 0, 0, np.maximum(np.finfo(dtype).nmant - told, 0))
