"""What a payload of patches says of itself: layout, channels, and which bands there are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.patches import CHANNELS, LONGEST, MOST_CELLS, MOST_CHANNELS, Layout, Patching

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Numbers beyond this are near the end of single precision, and kept exactly.
LARGEST = 1e30
# Of a band: what is worked on at once takes some twenty bytes a cell.
MOST_BAND_CELLS = 1 << 21
# The matrix of channels has entries in 1/127.
WHOLE = 127
_HEADER = struct.Struct("<BBHHHBIff")


@dataclass(frozen=True, eq=False)
class Header:
    """What a decoder needs to know besides shape and step.

    Parameters
    ----------
    layout : Layout
    patching : Patching
    band_cells : int
        Of separately decodable parts, about.
    lowest, highest : float
        Of the values, in single precision.
    offsets : float64 array, shape (channels,)
        What zero stands for.
    axes : int8 array, shape (channels, channels)
        Directions of decorrelated channels, times 127; a decoder makes them orthonormal.
    deblocked : bool
        Whether the model's :class:`coinpp_xr.deblocking.Deblocking` improves the first of these.
    """

    layout: Layout
    patching: Patching
    band_cells: int
    lowest: float
    highest: float
    offsets: Float64
    axes: npt.NDArray[np.int8]
    deblocked: bool = False

    @cached_property
    def mixing(self) -> Float64:
        """Channels → decorrelated channels, orthonormal."""
        return _orthonormal(self.axes / WHOLE) if len(self.axes) > 1 else np.eye(1)

    def pack(self) -> bytes:
        number = self.layout.spatial | CHANNELS.index(self.layout.channels) << 4
        head = _HEADER.pack(
            number, self.patching.levels, *self.patching.size, self.deblocked, self.band_cells,
            self.lowest, self.highest,
        )  # fmt: skip
        axes = self.axes.tobytes() if len(self.axes) > 1 else b""
        return head + self.offsets.astype("<f8").tobytes() + axes

    @classmethod
    def unpack(cls, data: bytes, shape: tuple[int, ...]) -> Header:
        """Parse and check against the array's shape.

        Raises
        ------
        CorruptPayloadError
        """
        damaged = CorruptPayloadError("the patches' header is damaged")
        if len(data) < _HEADER.size:
            raise damaged
        number, levels, z, y, x, flags, band_cells, lowest, highest = _HEADER.unpack_from(data)
        spatial, channels = number & 15, number >> 4
        if not 1 <= spatial <= 3 or channels >= len(CHANNELS) or flags > 1 or band_cells == 0:
            raise damaged
        layout = Layout(spatial, CHANNELS[channels])
        size = (z, y, x)
        if len(shape) < layout.axes or 0 in shape or 0 in size or prod(size) > MOST_CELLS:
            raise damaged
        if max(size) > LONGEST or band_cells > MOST_BAND_CELLS:
            raise damaged
        if max(size[: 3 - spatial], default=1) > 1 or not lowest <= highest:
            raise damaged
        patching = Patching.of(size)
        if levels > patching.levels or levels == 0:
            raise damaged
        n = layout.sizes(shape)[1]
        wanted = 8 * n + (n * n if n > 1 else 0)
        if n > MOST_CHANNELS or len(data) != _HEADER.size + wanted:
            raise damaged
        offsets = np.frombuffer(data, "<f8", n, _HEADER.size).astype(np.float64)
        if not (np.abs(offsets) < LARGEST).all():
            raise damaged
        axes = np.full((1, 1), WHOLE, np.int8)
        if n > 1:
            axes = np.frombuffer(data, np.int8, n * n, _HEADER.size + 8 * n).reshape(n, n)
        return cls(
            layout, Patching(size, levels), band_cells, lowest, highest, offsets, axes, flags == 1
        )

    def n_bands(self, items: int, space: tuple[int, int, int]) -> int:
        """How many bands there are, without making them."""
        axis, items_at_a_time, cells = self._extent(space)
        return -(-items // items_at_a_time) * -(-space[axis] // cells)

    def bands(self, items: int, space: tuple[int, int, int]) -> list[Band]:
        """In the order of their streams."""
        axis, items_at_a_time, cells = self._extent(space)
        return [
            Band(
                axis, first, min(first + items_at_a_time, items),
                start, min(start + cells, space[axis]),
            )
            for first in range(0, items, items_at_a_time)
            for start in range(0, space[axis], cells)
        ]  # fmt: skip

    def _extent(self, space: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of a band: along which axis it is cut, how many items, how many cells of the axis."""
        axis = next((a for a, n in enumerate(self.patching.size) if n > 1), 2)
        padded = self.patching.padded(space)
        if prod(padded) <= self.band_cells:
            return axis, self.band_cells // prod(padded), space[axis]
        rows = self.band_cells * padded[axis] // prod(padded) // self.patching.size[axis]
        return axis, 1, self.patching.size[axis] * max(1, rows)

    def finished(self, coefficients: Float32, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Decoded channels, (channels, z, y, x), as the array had them; not rounded yet."""
        working: Any = np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64
        if len(self.offsets) > 1:
            known = coefficients.astype(working, copy=False)
            values = np.zeros_like(known)
            # One after the other, which is the same on every machine.
            for row, channel in zip(self.mixing.astype(working), known, strict=True):
                for value, share in zip(values, row, strict=True):
                    value += share * channel
        else:
            values = coefficients.astype(working)  # a copy: what was given stays as it is
        values += self.offsets.astype(working)[:, None, None, None]
        return np.clip(values, working(self.lowest), working(self.highest), out=values)


@dataclass(frozen=True)
class Band:
    """Items from ``first`` on, and of those the cells from ``start`` on along an axis."""

    axis: int
    first: int
    last: int
    start: int
    stop: int

    def touches(self, items: Bool, space: tuple[slice, ...]) -> bool:
        """Whether it holds any of some items, and of some cells."""
        cells = space[self.axis]
        inside = cells.start < self.stop and self.start < cells.stop
        return inside and bool(items[self.first : self.last].any())

    @property
    def slices(self) -> list[tuple[Any, ...]]:
        """Of an array (items, channels, z, y, x), item by item."""
        cut = [slice(None)] * 3
        cut[self.axis] = slice(self.start, self.stop)
        return [(item, slice(None), *cut) for item in range(self.first, self.last)]


def join(streams: list[bytes]) -> bytes:
    """Lengths of all but the last, and the streams."""
    lengths = np.array([len(stream) for stream in streams[:-1]], "<u4")
    return lengths.tobytes() + b"".join(streams)


def part(data: bytes, n: int) -> list[bytes]:
    """The opposite, for so many streams.

    Raises
    ------
    CorruptPayloadError
    """
    if 4 * (n - 1) > len(data):
        raise CorruptPayloadError("payload has not as many streams as its shape needs")
    lengths = np.frombuffer(data, "<u4", n - 1).astype(np.int64)
    ends = 4 * (n - 1) + np.cumsum(lengths)
    if n > 1 and int(ends[-1]) > len(data):
        raise CorruptPayloadError("payload's streams are cut short")
    edges = [4 * (n - 1), *ends.tolist(), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def _orthonormal(rows: Float64) -> Float64:
    """Gram and Schmidt's, in plain arithmetic that is the same everywhere.

    Raises
    ------
    CorruptPayloadError
        If the rows do not span the space.
    """
    result = np.zeros_like(rows)
    for i, row in enumerate(rows):
        rest = row.copy()
        for known in result[:i]:
            rest -= known * float((known * row).cumsum()[-1])
        norm = float(np.sqrt((rest * rest).cumsum()[-1]))
        if norm < 1e-3:
            raise CorruptPayloadError("the patches' matrix of channels is damaged")
        result[i] = rest / norm
    return result
