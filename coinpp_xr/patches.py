"""Arrays ↔ patches: which axes are space, which is channels; blocks, their transforms and splits.

Images, volumes and sound are the same here, three axes of space of which some have length one.
Patches do not overlap. Each is one block or is split in halves along every axis, and those again;
blocks are transformed by orthonormal cosines along every axis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.errors import shown
from coinpp_xr.products import same_product
from coinpp_xr.quantization import precision_of
from coinpp_xr.transform import cosine_transform, cosines_from_right

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating[Any]]
Int32 = npt.NDArray[np.int32]

Int = npt.NDArray[np.int64]

# Coefficients that the encoder is given are in 1/256 of a step.
UNIT = 256
# Of sizes of blocks; of cells in a patch, and along one of its axes.
LEVELS, MOST_CELLS, LONGEST = 4, 1 << 13, 1600
# Classes of frequencies by their distance from zero, and by their place in the scan.
RADII, POSITIONS = 16, 600
CHANNELS = ("none", "first", "last")
# Of sound, images and volumes.
DEFAULT_SIZES = {1: (1600,), 2: (32, 32), 3: (16, 16, 16)}
MOST_CHANNELS = 16
_SPACE = 3
# Blocks of fewer cells along an axis are not split further.
_SHORTEST = 4
# Of values that are worked on together.
_CELLS_AT_ONCE = 1 << 17
# Frequencies are told apart up to about so many per patch, whatever its size.
_FREQUENCIES = 32
# Coefficients beyond so many steps are out of reach.
MOST_STEPS = 1 << 19


class Geometry(NamedTuple):
    """What coding blocks of several sizes needs to know about their frequencies.

    Parameters
    ----------
    sizes : int64 array, shape (levels, 3)
        Of blocks, along z, y and x.
    scans : int64 array, shape (levels, cells, 3)
        Frequencies from low to high.
    radii, positions : int64 array, shape (levels, cells)
        Classes of them.
    ratios : int64 array, shape (levels, levels)
        How the same mean differs between blocks of two levels, in 1/65536.
    axes : int
        Along how many axes blocks extend.
    """

    sizes: Int
    scans: Int
    radii: Int
    positions: Int
    ratios: Int
    axes: int


@dataclass(frozen=True)
class Layout:
    """What the axes of an array mean.

    Parameters
    ----------
    spatial : int
        How many axes are space, 1 to 3: the last ones, but for channels.
    channels : {"none", "first", "last"}
        Whether there is an axis of channels, before or after those of space. Axes before all of
        these count items.
    """

    spatial: int
    channels: str = "none"

    @property
    def axes(self) -> int:
        """The fewest that an array must have."""
        return self.spatial + (self.channels != "none")

    def sizes(self, shape: tuple[int, ...]) -> tuple[int, int, tuple[int, int, int]]:
        """Numbers of items and channels, and the extent of space."""
        batch, rest = shape[: len(shape) - self.axes], shape[len(shape) - self.axes :]
        n_channels = 1
        if self.channels == "first":
            n_channels, rest = rest[0], rest[1:]
        elif self.channels == "last":
            n_channels, rest = rest[-1], rest[:-1]
        z, y, x = (1,) * (_SPACE - self.spatial) + rest
        return prod(batch), n_channels, (z, y, x)

    def arrange(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """As (items, channels, z, y, x)."""
        items, n_channels, space = self.sizes(values.shape)
        if self.channels == "last":
            values = np.moveaxis(values.reshape(items, *space, n_channels), -1, 1)
        return values.reshape(items, n_channels, *space)

    def parts(
        self, region: tuple[slice, ...], shape: tuple[int, ...]
    ) -> tuple[Bool, tuple[slice, ...]]:
        """Which items, and which cells along z, y and x, a region of the array touches."""
        n_batch = len(shape) - self.axes
        items = np.zeros(shape[:n_batch], np.bool_)
        items[region[:n_batch]] = True
        space = region[n_batch:]
        if self.channels != "none":
            space = space[1:] if self.channels == "first" else space[:-1]
        return items.reshape(-1), (slice(0, 1),) * (_SPACE - self.spatial) + space

    def restore(self, arranged: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The opposite of :meth:`arrange`."""
        if self.channels == "last":
            arranged = np.moveaxis(arranged, 1, -1)
        return arranged.reshape(shape)


@dataclass(frozen=True)
class Patching:
    """Patches of some size, and how often they may be split.

    Parameters
    ----------
    size : tuple of int
        Cells of a patch along z, y and x.
    levels : int
        Sizes of blocks: 1 for none but the patch's own.
    """

    size: tuple[int, int, int]
    levels: int

    @classmethod
    def of(cls, size: tuple[int, ...]) -> Patching:
        """With as many levels as make sense."""
        z, y, x = (1,) * (_SPACE - len(size)) + tuple(size)
        levels, sides = 1, [n for n in (z, y, x) if n > 1]
        while sides and levels < LEVELS and all(n % 2 == 0 and n >= 2 * _SHORTEST for n in sides):
            levels, sides = levels + 1, [n // 2 for n in sides]
        return cls((z, y, x), levels)

    def fitted(self, space: tuple[int, int, int]) -> Patching:
        """Smaller patches along axes that are no longer than half of them."""
        size = list(self.size)
        for axis, n in enumerate(space):
            while size[axis] > 1 and size[axis] // 2 >= n:
                size[axis] = (size[axis] + 1) // 2
        return self if tuple(size) == self.size else Patching.of((size[0], size[1], size[2]))

    @cached_property
    def block_sizes(self) -> list[tuple[int, int, int]]:
        """Of every level, the patch's own first."""
        return [
            (max(self.size[0] >> k, 1), max(self.size[1] >> k, 1), max(self.size[2] >> k, 1))
            for k in range(self.levels)
        ]

    @property
    def axes(self) -> int:
        """Along how many axes patches extend."""
        return sum(n > 1 for n in self.size)

    @property
    def geometry(self) -> Geometry:
        return _geometry(self)

    def padded(self, space: tuple[int, int, int]) -> tuple[int, int, int]:
        """Extent of whole patches."""
        z, y, x = (-(-n // size) * size for n, size in zip(space, self.size, strict=True))
        return z, y, x

    def slabs(self, space: tuple[int, ...], channels: int) -> list[tuple[slice, slice, slice]]:
        """Whole patches that are worked on together, so that this takes little memory."""
        axis = int(np.argmax(space))
        across = max(channels * prod(space) // space[axis], 1)
        length = self.size[axis] * max(1, _CELLS_AT_ONCE // (across * self.size[axis]))
        slabs = []
        for start in range(0, space[axis], length):
            cut = [slice(None)] * _SPACE
            cut[axis] = slice(start, start + length)
            slabs.append((cut[0], cut[1], cut[2]))
        return slabs

    def least(self, slab: tuple[slice, ...]) -> tuple[slice, ...]:
        """The least blocks of a slab."""
        return tuple(
            slice(*(None if end is None else end // size for end in (part.start, part.stop)))
            for part, size in zip(slab, self.block_sizes[-1], strict=True)
        )

    def analyse(self, values: Float32, level: int) -> Float32:
        """Coefficients of the blocks of one level, for values of shape (channels, z, y, x)."""
        return _analyse(values, self.block_sizes[level])

    def values(
        self, symbols: Int32, levels: Int32, step: float, precision: npt.DTypeLike | None = None
    ) -> Floating:
        """What symbols of blocks of some levels stand for, shape (channels, z, y, x).

        In the precision that the largest of them needs, unless one is given.
        """
        coefficients = symbols.astype(precision or precision_of(symbols))
        coefficients *= coefficients.dtype.type(step)
        used = [level for level in range(self.levels) if (levels == level).any()]
        values = _synthesise(coefficients, self.block_sizes[used[0]])
        for level in used[1:]:
            other = _synthesise(coefficients, self.block_sizes[level])
            where = spread_out(levels == level, self.block_sizes[-1])[None]
            np.copyto(values, other, where=where)
        return values


def _analyse(values: Float32, size: tuple[int, ...]) -> Float32:
    def transform(rows: Float32) -> Float32:
        return rows @ cosine_transform(rows.shape[1]).astype(np.float32).T

    return _along_axes(transform, values, size)


def _synthesise(coefficients: Floating, size: tuple[int, ...]) -> Floating:
    """Values of blocks, the same on every machine."""
    dtype = coefficients.dtype

    def transform(rows: Floating) -> Floating:
        cosines = cosines_from_right(rows.shape[1], single=dtype == np.float32)
        return same_product(rows, cosines).astype(dtype, copy=False)

    return _along_axes(transform, coefficients, size)


def _along_axes(
    transform: Callable[[Floating], Floating], values: Floating, size: tuple[int, ...]
) -> Floating:
    """Transform rows, which are blocks along one axis after the other."""
    for axis, n in enumerate(size, start=1):
        if n > 1:
            rows = np.moveaxis(values, axis, -1)
            product = transform(rows.reshape(-1, n))
            values = np.moveaxis(product.reshape(rows.shape), -1, axis)
    return np.ascontiguousarray(values)


def spread_out(values: npt.NDArray[Any], size: tuple[int, ...]) -> npt.NDArray[Any]:
    """One value of every block → one of every cell."""
    for axis, n in enumerate(size):
        if n > 1:
            values = values.repeat(n, axis)
    return values


@remembered()
def _geometry(patching: Patching) -> Geometry:
    sizes = np.array(patching.block_sizes, np.int64)
    most = int(sizes[0].prod())
    scans = np.zeros((len(sizes), most, _SPACE), np.int64)
    radii = np.zeros((len(sizes), most), np.int64)
    positions = np.zeros((len(sizes), most), np.int64)
    for level, size in enumerate(sizes):
        offsets = np.indices(size).reshape(_SPACE, -1).T
        squared = (offsets**2).sum(axis=1)
        # Along diagonals: whatever is lower along one axis comes before.
        order = np.lexsort((offsets[:, 2], squared, offsets.sum(axis=1)))
        n, longest = len(order), int(size.max())
        scans[level, :n] = offsets[order]
        # Half octaves of the distance, relative to the longest side; eighths of them of the rank.
        # In integers: bits depend on them.
        for place, square in enumerate(squared[order].tolist()):
            half_octaves = (square * _FREQUENCIES**2 // longest**2).bit_length()
            radii[level, place] = min(max(half_octaves, 1), RADII - 1) if square else 0
        exact = POSITIONS * 2 // 3
        for rank in range(n):
            eighths = (max(rank, exact) ** 8 // exact**8).bit_length() - 1
            beyond = min(exact + eighths, POSITIONS - 1)
            positions[level, rank] = rank if rank < exact else beyond
    cells = sizes.prod(axis=1)
    ratios = np.rint(np.sqrt(cells[None, :] / cells[:, None]) * 65536).astype(np.int64)
    return Geometry(sizes, scans, radii, positions, ratios, patching.axes)


def check_patch_size(size: Any, spatial: int) -> tuple[int, ...]:
    """Check cells of a patch along its axes.

    Raises
    ------
    ValueError
    """
    numbers = [size] * spatial if isinstance(size, int | np.integer) else list(size)
    whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in numbers)
    right = whole and len(numbers) == spatial and min(numbers) >= 1 and max(numbers) <= LONGEST
    if not right or prod(numbers) > MOST_CELLS:
        raise ValueError(
            f"patch_size must be {spatial} whole number(s) from 1 to {LONGEST}, at most "
            f"{MOST_CELLS} cells in all, got {shown(size)}"
        )
    return tuple(int(n) for n in numbers)
