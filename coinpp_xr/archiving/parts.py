"""One variable as far as one run is concerned with it: blocks of the archive, and of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import xarray as xr

from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.tiling import Tiling, block_shape, shard_shape
from coinpp_xr.archiving.work import Job
from coinpp_xr.labels import place_label
from coinpp_xr.model_choice import Choice
from coinpp_xr.planning import Design
from coinpp_xr.selection import Layout


@dataclass(frozen=True)
class Options:
    """How an archive is to be written, beside :class:`coinpp_xr.planning.Settings`."""

    zarr_format: int
    shards: int | Mapping[str, int] | None = None
    times: slice | None = None
    verify: bool = True
    resume: bool = True
    consolidated: bool | None = None
    check: bool = True

    def __post_init__(self) -> None:
        if self.zarr_format not in (2, 3):
            raise ValueError(f"zarr_format must be 2 or 3, got {self.zarr_format!r}")
        if self.times is not None and not isinstance(self.times, slice):
            raise ValueError(f"times must be a slice of labels, got {self.times!r}")


@dataclass(frozen=True, eq=False)
class Part:
    """One variable, as far as this run is concerned with it.

    Parameters
    ----------
    array : DataArray
        Of the source.
    tiling : Tiling
        Of the variable in the archive.
    offset : int
        Where the source begins, in steps along time of the archive.
    steps : range
        Along time, that this run is to write.
    choice : Choice
        Of the model.
    """

    array: xr.DataArray
    tiling: Tiling
    offset: int
    steps: range
    choice: Choice = field(default_factory=lambda: Choice(None))

    @property
    def name(self) -> str:
        return str(self.array.name)

    def block(self, index: int) -> xr.Variable:
        """A block of the source, not read yet."""
        where = dict(zip(self.tiling.dims, self.tiling.where(index), strict=True))
        time = self.tiling.dims[self.tiling.time_axis]
        steps = where[time]
        where[time] = slice(steps.start - self.offset, steps.stop - self.offset)
        return self.array.variable.isel(where)

    def blocks(self) -> range:
        """Blocks that are to be written, done or not; the source holds all of them whole."""
        return self.tiling.beginning_in(self.steps)

    def job(self, place: Place, options: Options) -> Job:
        """What workers must know of it."""
        areas = Layout.of(self.array).cells.areas
        return Job(
            place.store, place.storage_options, self.name, self.tiling, areas, options.verify,
            options.zarr_format,
        )  # fmt: skip

    def label(self, index: int) -> str:
        """The coordinates of a block."""
        where = list(self.tiling.fields_where(index))
        if not where:
            return "as a whole"
        steps = where[self.tiling.time_axis]
        where[self.tiling.time_axis] = slice(steps.start - self.offset, steps.stop - self.offset)
        return place_label(self.array, self.tiling.batch, where)


def tiling_of(
    array: xr.DataArray, new: Design, options: Options
) -> tuple[Tiling, tuple[int, ...] | None]:
    """The blocks of a new variable, and its shards."""
    dims = tuple(map(str, new.layout.dims))
    shape = tuple(array.sizes[dim] for dim in new.layout.dims)
    axes = new.layout.cell_axes
    shards = shard_shape(options.shards, dims, shape, new.chunks, new.layout.time_axis, axes)
    block = block_shape(shape, new.chunks, array.dtype.itemsize, shards, axes)
    return Tiling(dims, shape, new.chunks, block, new.layout.time_axis, axes), shards


def part_of(
    array: xr.DataArray, tiling: Tiling, offset: int, options: Options, choice: Choice
) -> Part:
    """What of a variable is to be written: what was asked for and the source holds whole."""
    dim = tiling.dims[tiling.time_axis]
    own, length = array.sizes[dim], tiling.shape[tiling.time_axis]
    steps = range(offset, offset + own)
    if options.times is not None and tiling.batch:
        if dim not in array.coords:
            raise ValueError(f"times cannot be chosen: {dim} of {array.name!r} has no coordinate")
        try:
            chosen = array.indexes[dim].slice_indexer(options.times.start, options.times.stop)
        except (TypeError, ValueError, KeyError) as error:
            raise ValueError(f"times {options.times} are none of {dim}: {error}") from error
        start, stop, _ = chosen.indices(own)
        steps = range(offset + start, offset + max(start, stop))
    depth = tiling.block[tiling.time_axis]
    # A block of which the source holds a part only is left to a run that holds all of it.
    stop = offset + own
    if stop < length:
        steps = range(steps.start, min(steps.stop, stop - stop % depth))
    # To the beginnings of blocks: what is claimed is what is written.
    steps = range(-(-steps.start // depth) * depth, -(-steps.stop // depth) * depth)
    return Part(array, tiling, offset, steps, choice)
