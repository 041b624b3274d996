"""Quantized values ↔ bytes for fields made of patterns: steps, ramps, a spike on a plain.

No transform compacts such fields, but a dictionary coder finds their repetitions.
"""

from __future__ import annotations

import lzma
import zlib
from math import sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.fields import ROUNDING, Fields, round_to

Floating = npt.NDArray[np.floating[Any]]
Integers = npt.NDArray[np.int64]

# Raw LZMA2 without a container: the payload has its own checksum and knows the length.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]
_LARGEST = 2**40
_ATTEMPTS = 12
# A look at so many values tells whether there are patterns.
_SAMPLE = 1 << 18
# Axes along which neighbours are subtracted: none, longitude, latitude and longitude, time.
_DIFFERENCES: tuple[tuple[int, ...], ...] = ((), (2,), (1, 2), (0,))


def meet(
    fields: Fields, shape: tuple[int, int, int], target_rmse: float, worthwhile: int
) -> bytes | None:
    """Levels that meet the target in less than ``worthwhile`` bytes, if there seem to be any."""
    step = target_rmse * sqrt(12)
    for _ in range(_ATTEMPTS):
        decoded = np.rint(fields.values / step) * step
        if fields.mean_squared_error(decoded) <= (1 - ROUNDING) * target_rmse**2:
            return encode(fields.values.reshape(shape), step, worthwhile)
        step *= 0.93
    return None


def encode(values: npt.NDArray[np.float64], step: float, worthwhile: int) -> bytes | None:
    """Multiples of a step, or None where that cannot take less than ``worthwhile`` bytes.

    Parameters
    ----------
    values : float64 array, shape (items, n_lat, n_lon)
    step : float
    worthwhile : int
        Size to beat.
    """
    if not np.abs(values).max(initial=0) < _LARGEST * step:
        return None
    levels = np.rint(values / step).astype(np.int64)
    items = max(1, min(len(levels), _SAMPLE // max(1, levels[0].size)))
    share = items / len(levels)
    sizes = [
        len(zlib.compress(_planes(_difference(levels[:items], axes))[1], 1))
        for axes in _DIFFERENCES
    ]
    best = int(np.argmin(sizes))
    # LZMA finds at most some three times more than a quick look does.
    if sizes[best] > 3 * worthwhile * share + 64:
        return None
    width, planes = _planes(_difference(levels, _DIFFERENCES[best]))
    packed = lzma.compress(planes, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return bytes([best, width]) + np.float64(step).tobytes() + packed


def decode(data: bytes, shape: tuple[int, int, int], dtype: np.dtype[Any]) -> Floating:
    """The values of :func:`encode`, rounded to the data's type.

    Raises
    ------
    CorruptPayloadError
    """
    items, n_lat, n_lon = shape
    size = items * n_lat * n_lon
    if len(data) < 10 or data[0] >= len(_DIFFERENCES) or data[1] not in (1, 2, 4, 8):
        raise CorruptPayloadError("the stored levels are damaged")
    axes, width = _DIFFERENCES[data[0]], data[1]
    step = float(np.frombuffer(data, "<f8", 1, 2)[0])
    try:
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
        planes = unpacker.decompress(data[10:], max_length=size * width)
    except lzma.LZMAError as error:
        raise CorruptPayloadError("the stored levels are damaged") from error
    if len(planes) != size * width:
        raise CorruptPayloadError("the stored levels are cut short")
    raw = np.frombuffer(planes, np.uint8).reshape(width, items, n_lat, n_lon)
    values = np.empty(shape, dtype)
    # One field after the other: as wide as levels are, all of them would be many times the values.
    levels = np.zeros((n_lat, n_lon), np.int64)
    for item in range(items):
        own = np.ascontiguousarray(np.moveaxis(raw[:, item], 0, -1)).view(f"<i{width}")[..., 0]
        levels = levels + own if 0 in axes else own.astype(np.int64)
        for axis in axes:
            if axis > 0:
                np.cumsum(levels, axis=axis - 1, out=levels)
        values[item] = round_to(levels * step, dtype)
    return values


def _difference(levels: Integers, axes: tuple[int, ...]) -> Integers:
    for axis in axes:
        levels = np.diff(levels, axis=axis, prepend=0)
    return levels


def _planes(levels: Integers) -> tuple[int, bytes]:
    """The narrowest width in bytes, and the levels as byte planes."""
    largest = int(np.abs(levels).max(initial=0))
    width = next(w for w in (1, 2, 4, 8) if largest < 2 ** (8 * w - 1))
    narrow = levels.astype(f"<i{width}").reshape(-1)
    return width, narrow.view(np.uint8).reshape(-1, width).T.tobytes()
