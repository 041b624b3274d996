"""Which cells are missing ↔ bits, each predicted from those around it that are known already.

And numbers of fields, most of which are small.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid.range_coder import (
    BYTES_PER_VALUE,
    by_one_context,
    code_numbers,
    even_chances,
    new_chances,
    opened,
    put_back,
    rates,
)
from coinpp_xr.compiled import compiled
from coinpp_xr.errors import CorruptPayloadError

Bool = npt.NDArray[np.bool_]

# Ten cells of this field, three of the one before.
_CONTEXTS = 1 << 13
# Bytes that a row may take at most: one decision of 12 bits a cell.
_BYTES_PER_CELL = 2
# No cell takes less than this: a decision that is as sure as can be.
_LEAST_BITS = 3e-4
_ALL = np.empty((0, 0, 0), np.bool_)


@compiled
def _code_row(
    buffer: Any, registers: Any, chances: Any, rate: Any, mask: Any, among: Any, item: Any, i: Any
) -> Any:
    r = opened(registers)
    _, rows, columns = mask.shape
    here, above, second = mask[item, i], mask[item, max(i - 1, 0)], mask[item, max(i - 2, 0)]
    before, below = mask[max(item - 1, 0), i], mask[max(item - 1, 0), min(i + 1, rows - 1)]
    for j in range(columns):
        if among.shape[0] > 0 and not among[item, i, j]:
            continue
        context = 0
        if j > 0:
            context |= here[j - 1]
        if j > 1:
            context |= here[j - 2] << 1
        if i > 0:
            for k in range(5):
                x = min(max(j + k - 2, 0), columns - 1)
                context |= above[x] << (2 + k)
        if i > 1:
            for k in range(3):
                x = min(max(j + k - 1, 0), columns - 1)
                context |= second[x] << (7 + k)
        if item > 0:
            context |= before[j] << 10
            context |= before[min(j + 1, columns - 1)] << 11
            context |= below[j] << 12
        yes, r = by_one_context(buffer, r, here[j] != 0, chances, context, rate)
        here[j] = yes
    put_back(registers, r)


def encode(mask: Bool, among: Bool = _ALL) -> bytes:
    """A mask in bits.

    Parameters
    ----------
    mask : bool array, shape (items, rows, columns)
    among : bool array of that shape, optional
        Where not, the mask is known not to be.
    """
    flags, chances = mask.astype(np.uint8), even_chances(_CONTEXTS)
    coder = binary.encoder(1 << 12)
    for item in range(len(flags)):
        for row in range(flags.shape[1]):
            coder = binary.with_room(coder, _BYTES_PER_CELL * flags.shape[2] + 16)
            _code_row(coder.buffer, coder.registers, chances, rates(), flags, among, item, row)
    return binary.finish(coder)


def decode(stream: bytes, shape: tuple[int, int, int], among: Bool = _ALL) -> Bool:
    """The mask of :func:`encode`.

    Raises
    ------
    CorruptPayloadError
    """
    cells = int(among.sum()) if len(among) else shape[0] * shape[1] * shape[2]
    if _LEAST_BITS * cells > 8 * len(stream):
        raise CorruptPayloadError("the mask of missing values is cut short")
    flags, chances = np.zeros(shape, np.uint8), even_chances(_CONTEXTS)
    coder = binary.decoder(stream)
    for item in range(shape[0]):
        for row in range(shape[1]):
            _code_row(coder.buffer, coder.registers, chances, rates(), flags, among, item, row)
            if binary.is_broken(coder):
                raise CorruptPayloadError("the mask of missing values is cut short")
    binary.check_end(coder)
    return flags.view(np.bool_)


def encode_numbers(numbers: npt.NDArray[np.int64]) -> bytes:
    """Numbers of the fields of a chunk, shape (items,), in bits."""
    coder = binary.with_room(binary.encoder(1 << 8), BYTES_PER_VALUE * len(numbers))
    coded = numbers.astype(np.int32)[:, None]
    code_numbers(coder.buffer, coder.registers, new_chances(), rates(), coded)
    return binary.finish(coder)


def decode_numbers(stream: bytes, count: int) -> npt.NDArray[np.int64]:
    """The numbers of :func:`encode_numbers`.

    Raises
    ------
    CorruptPayloadError
    """
    if _LEAST_BITS * count > 8 * len(stream):
        raise CorruptPayloadError("numbers of fields are cut short")
    numbers, coder = np.zeros((count, 1), np.int32), binary.decoder(stream)
    code_numbers(coder.buffer, coder.registers, new_chances(), rates(), numbers)
    if binary.is_broken(coder):
        raise CorruptPayloadError("numbers of fields are damaged")
    binary.check_end(coder)
    return numbers[:, 0].astype(np.int64)
