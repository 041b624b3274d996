"""Rows of different lengths: reduced Gaussian grids and other cells that lie along parallels."""

from __future__ import annotations

import zlib
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError

Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# Parts into which rows are cut, each beginning in the same column: what lies below a cell is then
# at most as many columns away as rows differ by in one part.
SECTORS = (4, 2, 1)
MOST_ROWS = 1 << 15
_OCTAHEDRAL_FIRST, _OCTAHEDRAL_MORE = 20, 4


def octahedral(cells: int) -> Int | None:
    """Row lengths of an octahedral reduced Gaussian grid of so many cells, if there is one.

    The first row has 20 cells, each further one four more, as far as the equator.
    """
    # 4 n (n + 9) cells in 2 n rows.
    half = (isqrt(81 + cells) - 9) // 2
    if half < 1 or 4 * half * (half + 9) != cells:
        return None
    lengths = _OCTAHEDRAL_FIRST + _OCTAHEDRAL_MORE * np.arange(half)
    return np.concatenate([lengths, lengths[::-1]])


def lengths_of(latitude: npt.NDArray[Any]) -> Int | None:
    """Row lengths of cells whose latitudes are those of rows, from one side to the other."""
    steps = np.diff(np.asarray(latitude, np.float64))
    ends = np.flatnonzero(steps != 0) + 1
    across = steps[ends - 1]
    lengths = np.diff(np.concatenate([[0], ends, [len(latitude)]]))
    monotonic = len(ends) > 0 and bool((across > 0).all() or (across < 0).all())
    suits = monotonic and len(lengths) <= MOST_ROWS and 8 * len(lengths) <= len(latitude)
    return lengths if suits else None


def areas(latitude: Float64, lengths: Int) -> Float64:
    """Of the cells of every row: its belt, as far as halfway to the next rows, in equal parts.

    Parameters
    ----------
    latitude : float64 array, shape (rows,)
        Degrees.
    lengths : int array, shape (rows,)
    """
    heights = np.sin(np.deg2rad(latitude))
    poles = np.sign(heights[[0, -1]] - heights[[-1, 0]])
    edges = np.concatenate([poles[:1], (heights[1:] + heights[:-1]) / 2, poles[1:]])
    return np.asarray(np.abs(np.diff(edges)) / lengths)


def numbers(lengths: Int) -> Int:
    """Of every cell: how many are before it in its row."""
    return np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def places(lengths: Int, sectors: int) -> tuple[tuple[int, int], Int]:
    """A raster whose rows are cut into sectors, and where in it cells are."""
    width = -(-int(lengths.max()) // sectors)
    long = np.repeat(lengths, lengths)
    number = numbers(lengths)
    sector = number * sectors // long
    column = number - -(-sector * long // sectors)
    row = np.repeat(np.arange(len(lengths)), lengths)
    shape = (len(lengths), sectors * width)
    return shape, row * shape[1] + sector * width + column


def pack(lengths: Int) -> bytes:
    """Row lengths in few bytes."""
    return zlib.compress(np.diff(lengths, prepend=0).astype("<i4").tobytes(), 9)


def unpack(data: bytes, rows: int) -> Int:
    """Row lengths of :func:`pack`.

    Raises
    ------
    CorruptPayloadError
    """
    try:
        plain = zlib.decompressobj().decompress(data, 4 * rows + 1)
    except zlib.error as error:
        raise CorruptPayloadError(f"lengths of rows are damaged: {error}") from error
    if len(plain) != 4 * rows:
        raise CorruptPayloadError("lengths of rows are damaged")
    lengths = np.cumsum(np.frombuffer(plain, "<i4").astype(np.int64))
    if not lengths.min() >= 1:
        raise CorruptPayloadError("lengths of rows are damaged")
    return lengths
