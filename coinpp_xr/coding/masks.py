"""Which cells are missing ↔ bits, each predicted from those around it that are known already."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import binary
from coinpp_xr.coding.pyramid.range_coder import (
    by_one_context,
    even_chances,
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


@compiled
def _code_row(
    buffer: Any, registers: Any, chances: Any, rate: Any, mask: Any, item: Any, i: Any
) -> Any:
    r = opened(registers)
    _, rows, columns = mask.shape
    here, above, second = mask[item, i], mask[item, max(i - 1, 0)], mask[item, max(i - 2, 0)]
    before, below = mask[max(item - 1, 0), i], mask[max(item - 1, 0), min(i + 1, rows - 1)]
    for j in range(columns):
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


def encode(mask: Bool) -> bytes:
    """A mask of shape (items, rows, columns) in bits."""
    flags, chances = mask.astype(np.uint8), even_chances(_CONTEXTS)
    coder = binary.encoder(1 << 12)
    for item in range(len(flags)):
        for row in range(flags.shape[1]):
            coder = binary.with_room(coder, _BYTES_PER_CELL * flags.shape[2] + 16)
            _code_row(coder.buffer, coder.registers, chances, rates(), flags, item, row)
    return binary.finish(coder)


def decode(stream: bytes, shape: tuple[int, int, int]) -> Bool:
    """The mask of :func:`encode`.

    Raises
    ------
    CorruptPayloadError
    """
    cells = shape[0] * shape[1] * shape[2]
    if _LEAST_BITS * cells > 8 * len(stream):
        raise CorruptPayloadError("the mask of missing values is cut short")
    flags, chances = np.zeros(shape, np.uint8), even_chances(_CONTEXTS)
    coder = binary.decoder(stream)
    for item in range(shape[0]):
        for row in range(shape[1]):
            _code_row(coder.buffer, coder.registers, chances, rates(), flags, item, row)
            if binary.is_broken(coder):
                raise CorruptPayloadError("the mask of missing values is cut short")
    binary.check_end(coder)
    return flags.view(np.bool_)
