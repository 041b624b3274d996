"""Whole numbers of fields ↔ bits, digit by digit, row by row.

For fields that no smooth prediction fits: rain, snow, depths, gusts. How a row is coded:
:mod:`coinpp_xr.coding.digit_rows`. Here fields follow each other, each in bands of rows that are
coded by themselves, so that threads can work on them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.digit_decisions import Int, Int32, new_state
from coinpp_xr.coding.digit_rows import (
    BYTES_PER_CELL,
    LEAST_BITS,
    MOST_DIGITS,
    NOTHING,
    Bool,
    Field,
    code_rows,
)
from coinpp_xr.coding.pyramid.decisions import tables
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.parallel import map_compiled
from coinpp_xr.sigmoid import sigmoid_table

# Of a field: every column takes some memory of its own.
_MOST_CELLS, _MOST_COLUMNS = 1 << 24, 1 << 16
_LARGEST = 1 << 30
_CELLS_AT_ONCE = 1 << 14
# Bands of rows have so many numbers or more, in all fields together: four on a 0.25 degree globe.
_BAND_NUMBERS, _FEWEST_ROWS, _MOST_BANDS = 170_000, 16, 8
# The lowest number, how many digits the highest has from there, flags; lengths of streams.
_HEAD = struct.Struct("<qBB")
_AROUND, _COPYING = 1, 2
_LENGTH = struct.Struct("<I")


def suits(shape: tuple[int, int]) -> bool:
    """Whether fields are neither too large nor too wide."""
    return shape[0] * shape[1] <= _MOST_CELLS and shape[1] <= _MOST_COLUMNS


def _band_count(items: int, shape: tuple[int, int]) -> int:
    """Of every field, a power of two; so many threads can work on it."""
    most = min(_MOST_BANDS, items * shape[0] * shape[1] // _BAND_NUMBERS, shape[0] // _FEWEST_ROWS)
    return 1 << max(0, most.bit_length() - 1)


class _Walk:
    """Fields one after the other, each in bands of rows that are coded by themselves."""

    def __init__(
        self, coders: list[binary.Coder], shape: tuple[int, int], digits: int, flags: int
    ) -> None:
        rows, columns = shape
        self.coders = coders
        self._starts = [rows * band // len(coders) for band in range(len(coders) + 1)]
        self._states = [new_state(columns) for _ in coders]
        self._top = (1 << digits) - 1
        self._around, self._copying = bool(flags & _AROUND), bool(flags & _COPYING)
        self._tables, self._sigmoid = tables(), sigmoid_table()
        self._at_once = max(1, _CELLS_AT_ONCE // columns)

    def field(self, here: Field, before: Field, second: Field) -> None:
        """Encode the numbers of a field after two others, or decode them into it."""

        def code(band: int) -> None:
            start, end = self._starts[band], self._starts[band + 1]
            state = self._states[band]
            state.recent[:] = 0
            state.learned[:] = 0
            for first in range(start, end, self._at_once):
                last = min(first + self._at_once, end)
                room = BYTES_PER_CELL * (last - first) * here.numbers.shape[1]
                coder = self.coders[band] = binary.with_room(self.coders[band], room)
                code_rows(
                    coder.buffer, coder.registers, state, self._tables, self._sigmoid, here,
                    before, second, start, first, last, self._top, self._around, self._copying,
                )  # fmt: skip
                if binary.is_broken(coder):
                    raise CorruptPayloadError("the digits are damaged")

        map_compiled(code, range(len(self.coders)))


def encode(
    order: npt.NDArray[np.integer[Any]],
    field_of: Callable[[int], tuple[Int, Bool]],
    shape: tuple[int, int],
    ends: tuple[int, int],
    *,
    around: bool,
    copying: bool,
) -> bytes:
    """Code fields of whole numbers that follow each other.

    Parameters
    ----------
    order : int array, shape (sequences, times)
        Numbers of fields.
    field_of : callable
        Number of a field → its whole numbers, int64 array of shape (n_lat, n_lon), and which of
        them count; others are passed over.
    shape : (n_lat, n_lon)
    ends : (int, int)
        The lowest and the highest of all numbers, less than 2^25 apart and 2^30 in size.
    around : bool
        Whether the first column follows the last, as on a whole globe.
    copying : bool
        Whether to ask first if a number is that of a neighbour: where many are.

    Returns
    -------
    bytes
        For :func:`decode` with the same order, shape and valid cells.
    """
    low, high = ends
    digits, flags = (high - low).bit_length(), _AROUND * around | _COPYING * copying
    walk = _Walk(
        [binary.encoder(1 << 12) for _ in range(_band_count(order.size, shape))],
        shape, digits, flags,
    )  # fmt: skip
    for sequence in order:
        past = NOTHING, NOTHING
        for item in sequence:
            numbers, valid = field_of(int(item))
            field = Field.of(np.where(valid, numbers - low, 0).astype(np.int32), valid)
            walk.field(field, *past)
            past = field, past[0]
    streams = [binary.finish(coder) for coder in walk.coders]
    head = _HEAD.pack(low, digits, flags)
    lengths = b"".join(_LENGTH.pack(len(stream)) for stream in streams)
    return head + lengths + b"".join(streams)


def decode(
    section: bytes,
    order: npt.NDArray[np.integer[Any]],
    valid_of: Callable[[int], Bool],
    shape: tuple[int, int],
    coded: int,
) -> Iterator[tuple[int, Int32]]:
    """Numbers of fields and their whole numbers, one after the other; anything where not valid.

    Parameters
    ----------
    section : bytes
    order, shape :
        See :func:`encode`.
    valid_of : callable
        Number of a field → which cells count.
    coded : int
        How many cells count in all.

    Raises
    ------
    CorruptPayloadError
        When it shows, at the latest after the last field.
    """
    bands = _band_count(order.size, shape)
    at = _HEAD.size + bands * _LENGTH.size
    if len(section) < at:
        raise CorruptPayloadError("the digits are cut short")
    low, digits, flags = _HEAD.unpack_from(section)
    if digits > MOST_DIGITS or flags > (_AROUND | _COPYING) or abs(low) > _LARGEST:
        raise CorruptPayloadError("the digits are damaged")
    streams = []
    for band in range(bands):
        (length,) = _LENGTH.unpack_from(section, _HEAD.size + band * _LENGTH.size)
        streams.append(section[at : at + length])
        at += length
    if at != len(section) or LEAST_BITS * coded > 8 * len(section):
        raise CorruptPayloadError("the digits do not fit their shape")
    walk = _Walk([binary.decoder(s) for s in streams], shape, digits, flags)
    for sequence in order:
        past = NOTHING, NOTHING
        for item in sequence:
            field = Field.of(np.zeros(shape, np.int32), valid_of(int(item)))
            walk.field(field, *past)
            past = field, past[0]
            yield int(item), field.numbers + np.int32(low)
    for coder in walk.coders:
        binary.check_end(coder)
