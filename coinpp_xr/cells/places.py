"""Latitudes and longitudes of cells that lie anywhere, in few bytes of plain JSON.

They are rounded to an eighth of the distance between neighbours: that is enough to tell who these
are and what they foretell.
"""

from __future__ import annotations

import base64
import lzma
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coding.scattered.nearest import nearest
from coinpp_xr.elementary import cosine
from coinpp_xr.errors import shown

Float64 = npt.NDArray[np.float64]
Int = npt.NDArray[np.int64]

# Of configurations, which are read as a whole by everyone who opens a store.
MOST_CELLS = 1 << 20
# Places are rounded to this part of the distance that one in ten neighbours falls short of.
_PART, _SHORTEST, _SAMPLED = 8, 10, 4096
_LEAST_STEP, _LARGEST_STEP = 1e-6, 45.0
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]
_BYTES = 4
_ENTRIES = ("step", "cells", "packed")


def pack(latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> dict[str, Any]:
    """Places as plain JSON.

    Parameters
    ----------
    latitude, longitude : array_like, shape (cells,) or (rows, columns)
        Degrees.

    Returns
    -------
    dict
        ``step``, in degrees; how many ``cells``, and ``columns`` if there are; ``packed``, the
        base85 of an LZMA stream: for latitudes, then for longitudes times the cosine of the
        latitude, what each is away from the cell before it in steps, as zigzag integers, byte plane
        after byte plane.

    Raises
    ------
    ValueError
    """
    one, other = _checked("latitude", latitude, 90.0), _checked("longitude", longitude, 1e6)
    if one.shape != other.shape:
        raise ValueError(
            f"grid: latitude and longitude of cells have shapes {one.shape} and {other.shape}"
        )
    degrees = np.stack([one, other])
    if degrees[0].size > MOST_CELLS:
        raise ValueError(
            f"grid: places of at most {MOST_CELLS:,} cells fit into a codec's configuration, got "
            f"{degrees[0].size:,}; give grid='cells', or 'index' for rows and columns"
        )
    told = _packed(degrees.tobytes())
    return {**told} if degrees.ndim == 2 else {**told, "columns": degrees.shape[2]}


def _checked(name: str, given: npt.ArrayLike, largest: float) -> Float64:
    values = np.asarray(given, np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise ValueError(f"grid: {name} must be one value per cell, got shape {values.shape}")
    if not np.isfinite(values).all() or np.abs(values).max() > largest + 1e-6:
        raise ValueError(f"grid: {name} must be finite degrees, within ±{largest:g}")
    return values


@remembered(lambda told, *_: len(told["packed"]))
def _packed(data: bytes) -> dict[str, Any]:
    latitude, longitude = np.frombuffer(data).reshape(2, -1)
    step = _step_of(latitude, longitude)
    rows = np.rint(latitude.clip(-90, 90) / step).astype(np.int64)
    around = (longitude + 180) % 360 - 180
    shrunk = _shrinking(rows, step)
    columns = np.rint(around * shrunk / step).astype(np.int64)
    away = (np.diff(each, prepend=0) for each in (rows, columns))
    planes = b"".join(_planes(2 * each ^ each >> 63) for each in away)
    packed = lzma.compress(planes, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return {
        "step": step, "cells": len(latitude), "packed": base64.b85encode(packed).decode("ascii"),
    }  # fmt: skip


def _step_of(latitude: Float64, longitude: Float64) -> float:
    """In degrees, in few digits."""
    lat, lon = np.deg2rad(latitude), np.deg2rad(longitude)
    points = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    count = len(points)
    if count < 2:
        return 1.0
    some = np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(np.int64))
    _, squared = nearest(points, np.arange(count), some, 1)
    distance = float(np.rad2deg(np.sqrt(np.percentile(squared, _SHORTEST))))
    return float(f"{np.clip(distance / _PART, _LEAST_STEP, _LARGEST_STEP):.3g}")


def _shrinking(rows: Int, step: float) -> Float64:
    """By how much parallels are shorter than the equator."""
    return np.asarray(cosine(np.deg2rad(rows * step)))


def _planes(numbers: Int) -> bytes:
    return numbers.astype("<u4").view(np.uint8).reshape(-1, _BYTES).T.tobytes()


def unpack(given: Any) -> Float64:
    """Latitude and longitude of :func:`pack`, degrees, shape (2, cells).

    Raises
    ------
    ValueError
    """
    try:
        known = isinstance(given, Mapping) and set(given) - {"columns"} == set(_ENTRIES)
        if not known:
            raise ValueError(f"they are {shown(given)}")
        step, cells, text = given["step"], given["cells"], given["packed"]
        if not (isinstance(step, float) and _LEAST_STEP <= step <= _LARGEST_STEP):
            raise ValueError(f"their step is {shown(step)}")
        if type(cells) is not int or not 0 < cells <= MOST_CELLS or not isinstance(text, str):
            raise ValueError(f"they claim {shown(cells)} cells")
        columns = given.get("columns", cells)
        if type(columns) is not int or not 0 < columns <= cells or cells % columns:
            raise ValueError(f"they claim {shown(columns)} columns")
        return _unpacked(text, step, cells)
    except (lzma.LZMAError, ValueError) as error:
        raise ValueError(f"places in a codec's configuration are damaged: {error}") from error


@remembered()
def _unpacked(text: str, step: float, cells: int) -> Float64:
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
    size = 2 * _BYTES * cells
    planes = unpacker.decompress(base64.b85decode(text), max_length=size)
    if len(planes) != size:
        raise ValueError("they are cut short")
    table = np.frombuffer(planes, np.uint8).reshape(2, _BYTES, cells)
    zigzag = np.ascontiguousarray(table.transpose(0, 2, 1)).view("<u4")[..., 0].astype(np.int64)
    away = zigzag >> 1 ^ -(zigzag & 1)
    rows, columns = away.cumsum(axis=1)
    if np.abs(rows * step).max() > 90 + step:
        raise ValueError("a latitude is beyond the poles")
    shrunk = _shrinking(rows, step)
    longitude = columns * step / np.maximum(shrunk, 1e-9)
    if np.abs(longitude).max() > 180 + 180 * step:
        longitude = (longitude + 180) % 360 - 180
    return np.stack([rows * step, longitude])
