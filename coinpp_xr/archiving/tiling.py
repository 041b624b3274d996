"""A variable in blocks: what one task reads, encodes and writes, and no other task touches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

# Chunks of members and levels share a task up to this size: a task should take seconds.
_BLOCK_BYTES = 2**22


@dataclass(frozen=True)
class Tiling:
    """The blocks of an array.

    Parameters
    ----------
    dims : tuple of str
        Of the array in the store: those of the cells of a field last.
    shape, chunks, block : tuple of int
        A block holds whole chunks, and whole shards where there are any.
    time_axis : int
        The axis along which an archive can grow.
    cell_axes : int
        How many of the last axes hold the cells of a field.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    block: tuple[int, ...]
    time_axis: int
    cell_axes: int = 2

    @property
    def batch(self) -> tuple[str, ...]:
        """The dimensions before those of cells."""
        return self.dims[: -self.cell_axes]

    @property
    def counts(self) -> tuple[int, ...]:
        """Blocks along every axis."""
        return tuple(-(-n // depth) for n, depth in zip(self.shape, self.block, strict=True))

    def __len__(self) -> int:
        return prod(self.counts)

    def where(self, index: int) -> tuple[slice, ...]:
        """The place of a block. Time is the slowest axis, so that growing keeps all indices."""
        order = self._order
        position = np.unravel_index(index, [self.counts[axis] for axis in order])
        corner = dict(zip(order, map(int, position), strict=True))
        return tuple(
            slice(corner[axis] * depth, min((corner[axis] + 1) * depth, n))
            for axis, (n, depth) in enumerate(zip(self.shape, self.block, strict=True))
        )

    def fields_where(self, index: int) -> tuple[slice, ...]:
        """The place of a block along the dimensions before those of cells."""
        return self.where(index)[: -self.cell_axes]

    @property
    def _order(self) -> list[int]:
        axes = range(len(self.shape))
        return sorted(axes, key=lambda axis: (axis != self.time_axis, axis))

    def beginning_in(self, times: range) -> range:
        """Blocks that begin within some steps along time."""
        if not len(self):
            return range(0)
        per_step = len(self) // self.counts[self.time_axis]
        depth = self.block[self.time_axis]
        first, last = -(-times.start // depth), -(-times.stop // depth)
        return range(min(first * per_step, len(self)), min(last * per_step, len(self)))

    def chunks_of(self, where: Sequence[slice]) -> Iterator[tuple[slice, ...]]:
        """The places of the chunks of a block, in the array."""
        starts = (range(w.start, w.stop, n) for w, n in zip(where, self.chunks, strict=True))
        for corner in product(*starts):
            yield tuple(
                slice(i, min(i + n, w.stop))
                for i, n, w in zip(corner, self.chunks, where, strict=True)
            )


def block_shape(
    shape: Sequence[int],
    chunks: Sequence[int],
    itemsize: int,
    shards: Sequence[int] | None,
    cell_axes: int = 2,
) -> tuple[int, ...]:
    """How much a task takes: a shard, or a chunk with its neighbours along members and levels.

    Nothing but the array decides on it, so that the same archive is the same on any cluster.
    """
    if shards is not None:
        return tuple(shards)
    block = list(chunks)
    for axis in reversed(range(len(shape) - cell_axes)):
        if chunks[axis] >= shape[axis] or chunks[axis] > 1:
            continue
        most = _BLOCK_BYTES // (prod(block) * itemsize)
        block[axis] = max(1, min(shape[axis], most * block[axis]))
        if block[axis] < shape[axis]:
            break
    return tuple(block)


def shard_shape(
    asked: int | Mapping[str, int] | None,
    dims: Sequence[str],
    shape: Sequence[int],
    chunks: Sequence[int],
    time_axis: int,
    cell_axes: int = 2,
) -> tuple[int, ...] | None:
    """The shards that were asked for, in the order of the array.

    Parameters
    ----------
    asked : int or mapping
        Steps along time, or along every dimension that is named.

    Raises
    ------
    ValueError
        If they are no multiples of the chunks.
    """
    if asked is None:
        return None
    lengths: dict[Any, int] = {}
    by_dim = asked if isinstance(asked, Mapping) else {dims[time_axis]: asked}
    for dim, length in by_dim.items():
        if isinstance(length, bool) or not isinstance(length, int | np.integer) or length < 1:
            raise ValueError(f"shards must be whole numbers of at least 1, got {length!r}")
        if dim in dims[: len(dims) - cell_axes]:
            lengths[dim] = int(length)
    shards = []
    for dim, n, depth in zip(dims, shape, chunks, strict=True):
        # No shard need be longer than the array, in whole chunks.
        length = min(lengths.get(dim, depth), -(-n // depth) * depth)
        if length % depth:
            raise ValueError(
                f"shards of {length} steps along {dim} do not hold whole chunks of {depth}; give "
                f"a multiple, such as {max(1, length // depth) * depth}"
            )
        shards.append(length)
    return tuple(shards)
