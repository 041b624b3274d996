"""Axes of coordinates in configurations: few bytes that give the same values, bit for bit."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import shown

Float64 = npt.NDArray[np.float64]

# What degrees are multiples of one part of: quarters, tenths, thirds, minutes of arc, ...
_DIVISORS = (
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    9,
    10,
    12,
    16,
    20,
    25,
    32,
    40,
    60,
    64,
    100,
    120,
    1000,
    3600,
    10**6,
)
# Along one axis: 600 metres at the equator.
MOST_DEGREES = 1 << 16
# Of an axis as configurations describe it; and of the numbers of its line.
_ENTRIES = ("start", "step", "divisor", "count", "dtype", "packed")
_LARGEST = 1e15


def compact_axis(degrees: Float64) -> dict[str, Any] | list[float]:
    """An axis as plain JSON, from which :func:`axis_values` makes the same values bit for bit.

    Parameters
    ----------
    degrees : float64 array, shape (n,)
        Finite.

    Returns
    -------
    dict or list
        ``count`` values; value i is (``start`` + i ``step``) / ``divisor`` (1), 0 without a start,
        rounded to ``dtype`` (``<f8``). Where that is not yet exact, ``packed`` holds what has to be
        added to the bits of every value, taken as an integer of the same size: the base85 of a zlib
        stream of the lowest bytes of all integers, then the second lowest ones, and so on. A few
        values stay a list.
    """
    # Bytes are compared: payloads know their coordinates by a CRC, of which -0.0 is not 0.0.
    is_single = degrees.astype(np.float32).astype(np.float64).tobytes() == degrees.tobytes()
    dtypes: list[dict[str, Any]] = [{}, {"dtype": "<f4"}] if is_single else [{}]
    listed: list[float] = degrees.tolist()
    if not 3 <= len(degrees) <= MOST_DEGREES:
        return listed
    for line, dtype in product(_lines(degrees), dtypes):
        axis = {**line, "count": len(degrees), **dtype}
        if axis_values(axis).tobytes() == degrees.tobytes():
            return axis
    # Evenly spaced values that were computed otherwise are off by a few units in the last place.
    bare = {"count": len(degrees), **dtypes[-1]}
    forms: list[dict[str, Any] | list[float]] = [listed]
    forms += [axis | {"packed": _corrections(axis, degrees)} for axis in (bare, bare | line)]
    return min(forms, key=lambda form: len(json.dumps(form)))


def _lines(degrees: Float64) -> Iterator[dict[str, Any]]:
    """Straight lines that may go through all values, the simplest first."""
    first, last, steps = float(degrees[0]), float(degrees[-1]), len(degrees) - 1
    step = (last - first) / steps
    for divisor in _DIVISORS:
        line = {"start": float(round(first * divisor)), "step": float(round(step * divisor))}
        # The far end alone rules most of them out.
        if abs(line["start"] + steps * line["step"] - last * divisor) < 0.5:
            yield line | ({} if divisor == 1 else {"divisor": divisor})
    yield {"start": first, "step": float(degrees[1]) - first}
    yield {"start": first, "step": step}


def _corrections(axis: Mapping[str, Any], degrees: Float64) -> str:
    line = _line_values(axis)
    bits = degrees.astype(line.dtype).view(f"<i{line.itemsize}") - line.view(f"<i{line.itemsize}")
    planes = bits.view(np.uint8).reshape(len(bits), bits.itemsize).T.tobytes()
    return base64.b85encode(zlib.compress(planes, 9)).decode("ascii")


def axis_values(axis: Any) -> Any:
    """The values of an axis as :func:`compact_axis` describes it; of others the axis itself.

    Raises
    ------
    ValueError
        If the description is damaged.
    """
    if not isinstance(axis, Mapping):
        return axis
    try:
        line = _line_values(axis)
        if "packed" in axis:
            packed = axis["packed"]
            # What cannot be compressed takes a quarter more as text.
            if not isinstance(packed, str) or len(packed) > 2 * line.nbytes + 64:
                raise ValueError(f"it claims corrections {shown(packed)}")
            unpacker = zlib.decompressobj()
            planes = unpacker.decompress(base64.b85decode(packed), line.nbytes)
            if len(planes) != line.nbytes:
                raise ValueError(f"it holds no {len(line)} values")
            columns = np.frombuffer(planes, np.uint8).reshape(line.itemsize, len(line)).T
            bits = np.ascontiguousarray(columns).view(f"<i{line.itemsize}")[:, 0]
            line = (line.view(bits.dtype) + bits).view(line.dtype)
        return line.astype(np.float64)
    except (LookupError, TypeError, ValueError, zlib.error) as error:
        raise ValueError(f"an axis in a codec's configuration is damaged: {error}") from error


def _line_values(axis: Mapping[str, Any]) -> npt.NDArray[np.floating[Any]]:
    if other := [name for name in axis if name not in _ENTRIES]:
        raise ValueError(f"it has an entry {shown(other[0])}")
    count, dtype = axis.get("count"), axis.get("dtype", "<f8")
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_DEGREES:
        raise ValueError(f"it claims {shown(count)} values, and 1 to {MOST_DEGREES} can be")
    if dtype not in ("<f8", "<f4"):
        raise ValueError(f"it claims values of type {shown(dtype)}")
    numbers = [axis.get(name, usual) for name, usual in (("start", 0), ("step", 0), ("divisor", 1))]
    if not all(isinstance(n, int | float) and abs(n) < _LARGEST for n in numbers):
        raise ValueError(f"it claims a line of {shown(numbers)}")
    start, step, divisor = map(float, numbers)
    if not abs(divisor) > 1 / _LARGEST:
        raise ValueError(f"it claims a divisor of {divisor}")
    line = start + np.arange(count, dtype=np.float64) * step
    return np.asarray((line / divisor).astype(dtype))
