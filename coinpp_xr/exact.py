"""Plain bytes, masks and special values, without loss."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numcodecs.zstd import compress as zstd_compress
from numcodecs.zstd import decompress as zstd_decompress

from coinpp_xr.errors import CorruptPayloadError

# First byte of a mask: the same for all items, coded in context.
_IN_CONTEXT = 2
# Bytes of a mask that are worth some time.
_LARGE_MASK = 200
# Of special values, so many are told by masks.
_MOST_PATTERNS = 16


def pack_bytes(values: npt.NDArray[Any], level: int = 9) -> bytes:
    """Values as zstd over byte planes, bit for bit."""
    flat = np.ascontiguousarray(values).reshape(-1)
    planes = flat.view(np.uint8).reshape(flat.size, -1).T if flat.size else flat.view(np.uint8)
    return bytes(zstd_compress(np.ascontiguousarray(planes), level))


def unpack_bytes(data: bytes | memoryview, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """``count`` values of ``dtype`` from :func:`pack_bytes`; never allocates more than those."""
    if count == 0 or dtype.itemsize == 0:
        return np.empty(count, dtype=dtype)
    planes = np.empty((dtype.itemsize, count), dtype=np.uint8)
    if _zstd_content_size(data) != planes.size:
        raise CorruptPayloadError(
            f"stored values are damaged: not {planes.size:,} bytes, as there should be"
        )
    try:
        zstd_decompress(data, planes)
    except (RuntimeError, ValueError) as error:
        raise CorruptPayloadError(f"stored values are damaged: {error}") from error
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype)


def _zstd_content_size(frame: bytes | memoryview) -> int | None:
    """What a frame says it holds (RFC 8878, 3.1.1.1); numcodecs would not mind if that is less."""
    if len(frame) < 5:
        return None
    descriptor = frame[4]
    single_segment = bool(descriptor & 0x20)
    width = (int(single_segment), 2, 4, 8)[descriptor >> 6]
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    field = frame[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + 256 * (width == 2)


def pack_mask(mask: npt.NDArray[np.bool_], columns: int | None = None) -> bytes:
    """A boolean array (items, cells); one that is the same for all items is stored once.

    Large ones are coded cell by cell in the context of their neighbours, if ``columns`` says which
    those are.
    """
    constant = len(mask) > 1 and bool((mask == mask[:1]).all())
    rows = mask[:1] if constant else mask
    packed = pack_bytes(np.packbits(rows))
    if columns and len(packed) > _LARGE_MASK:
        coded: bytes = _masks().encode(_planes(rows, columns))
        if len(coded) < len(packed):
            return bytes([_IN_CONTEXT | constant]) + coded
    return bytes([constant]) + packed


def unpack_mask(
    data: bytes, items: int, cells: int, columns: int | None = None
) -> npt.NDArray[np.bool_]:
    """A boolean array (items, cells) of :func:`pack_mask`.

    Raises
    ------
    CorruptPayloadError
    """
    in_context = bool(data) and data[0] & _IN_CONTEXT
    if not data or data[0] > (_IN_CONTEXT | 1) or (in_context and not columns):
        raise CorruptPayloadError("the mask of missing values is damaged")
    rows = 1 if data[0] & 1 else items
    if in_context and columns:
        shape = (rows, cells // columns, columns)
        mask = _masks().decode(data[1:], shape).reshape(rows, cells)
    else:
        n_bits = rows * cells
        packed = unpack_bytes(data[1:], -(-n_bits // 8), np.dtype(np.uint8))
        mask = np.unpackbits(packed, count=n_bits).reshape(rows, cells).astype(np.bool_)
    return np.broadcast_to(mask, (items, cells))


def pack_special_values(
    values: npt.NDArray[Any], mask: npt.NDArray[np.bool_], columns: int | None = None
) -> bytes:
    """Values that are kept bit for bit; one bit pattern for all is stored once.

    Of few patterns, masks tell where each is, if ``columns`` says which cells are neighbours.

    Parameters
    ----------
    values : array
        Those of the mask, in its order.
    mask : bool array, shape (items, cells)
    columns : int, optional
    """
    patterns = _bit_patterns(values)
    if bool((patterns == patterns[:1]).all()):
        return values[:1].tobytes()
    plain = b"\0" + pack_bytes(values)
    if columns and len(plain) > _LARGE_MASK:
        _, first, which = np.unique(patterns, return_index=True, return_inverse=True)
        if len(first) <= _MOST_PATTERNS:
            number = np.zeros(mask.shape, np.uint8)
            number[mask] = which.reshape(-1) + 1
            found: bytes = bytes([len(first)]) + values[first].tobytes()
            left = mask
            for k in range(1, len(first)):
                own = number == k
                coded = _masks().encode(_planes(own, columns), _planes(left, columns))
                found += len(coded).to_bytes(4, "little") + coded
                left = left & ~own
            return min(plain, found, key=len)
    return plain


def unpack_special_values(
    data: bytes, mask: npt.NDArray[np.bool_], dtype: np.dtype[Any], columns: int | None = None
) -> npt.NDArray[Any]:
    """Values of :func:`pack_special_values`, in the order of the mask.

    Raises
    ------
    CorruptPayloadError
    """
    count = int(mask.sum())
    if len(data) == dtype.itemsize:
        return np.broadcast_to(np.frombuffer(data, dtype=dtype), (count,))
    if not data or data[0] > _MOST_PATTERNS or (data[0] and not columns) or data[0] == 1:
        raise CorruptPayloadError("stored values are damaged")
    if data[0] == 0 or not columns:
        return unpack_bytes(data[1:], count, dtype)
    end = 1 + data[0] * dtype.itemsize
    if len(data) < end:
        raise CorruptPayloadError("stored values are damaged")
    patterns = np.frombuffer(data[1:end], dtype)
    values = np.full(mask.shape, patterns[-1], dtype)
    left, data = mask, data[end:]
    for pattern in patterns[:-1]:
        length = int.from_bytes(data[:4], "little")
        if len(data) < 4 + length:
            raise CorruptPayloadError("stored values are damaged")
        shape = (len(mask), mask.shape[1] // columns, columns)
        own = _masks().decode(data[4 : 4 + length], shape, _planes(left, columns))
        own = own.reshape(mask.shape)
        values[own] = pattern
        left, data = left & ~own, data[4 + length :]
    return np.asarray(values[mask])


def _masks() -> Any:
    from coinpp_xr.coding import masks  # compiles, or loads what was compiled

    return masks


def _planes(mask: npt.NDArray[np.bool_], columns: int) -> npt.NDArray[np.bool_]:
    return np.ascontiguousarray(mask).reshape(len(mask), -1, columns)


def _bit_patterns(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.dtype.itemsize}")
