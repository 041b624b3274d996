"""Beginning an archive, adding variables to it, letting it grow, and going on with it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
import zarr

from coinpp_xr.archiving.manifest import (
    GROUP,
    Manifest,
    create_group,
    entry,
    is_archive,
    variables_of,
)
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.sources import Source, coordinates_differ
from coinpp_xr.archiving.tiling import Tiling, block_shape, shard_shape
from coinpp_xr.archiving.work import Job
from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.model_choice import Choice
from coinpp_xr.models import Model, load_model
from coinpp_xr.planning import Design, Settings, check_codec, check_new, design, with_a_rate
from coinpp_xr.report import place_label
from coinpp_xr.selection import (
    Layout,
    check_rates,
    choose_variables,
    rates_of,
)
from coinpp_xr.stores import codec_of, dims_of, put_whole

# How values lie in a file, where a variable is kept as it is.
_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "units", "calendar")
_GROWING = "growing"


@dataclass(frozen=True)
class Options:
    """How an archive is to be written, beside :class:`coinpp_xr.planning.Settings`."""

    zarr_format: int
    shards: int | Mapping[str, int] | None = None
    times: slice | None = None
    verify: bool = True
    resume: bool = True
    consolidated: bool | None = None

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

    def job(self, place: Place, *, verify: bool) -> Job:
        latitude = Layout.of(self.array).latitude
        return Job(place.store, place.storage_options, self.name, self.tiling, latitude, verify)

    def label(self, index: int) -> str:
        """The coordinates of a block."""
        where = list(self.tiling.where(index)[:-2])
        steps = where[self.tiling.time_axis]
        where[self.tiling.time_axis] = slice(steps.start - self.offset, steps.stop - self.offset)
        return place_label(self.array, self.tiling.dims[:-2], where)


@dataclass(frozen=True, eq=False)
class Wanted:
    """What was asked for, all arguments checked."""

    dataset: xr.Dataset
    chosen: list[Any]
    reasons: dict[Any, str]
    found: Model | None
    settings: Settings

    @classmethod
    def of(cls, source: Source, settings: Settings) -> Wanted:
        """Choose variables and check all arguments that need no values.

        Raises
        ------
        ValueError
        """
        dataset = source.dataset
        check_rates(settings.rates, dataset)
        chosen, reasons = choose_variables(dataset, settings.variables)
        if any(isinstance(rate, Mapping) for rate in settings.rates.values()):
            chosen = with_a_rate(chosen, reasons, settings)
        for name in chosen:
            check_new(dataset[name], {})
        if settings.variables is not None:
            dataset = dataset.drop_vars(list(reasons))
            reasons = {}
        found = None if settings.model == NO_MODEL else load_model(settings.model)
        return cls(dataset, chosen, reasons, found, settings)

    def asked(self, name: Any, rate: Mapping[str, Any], options: Options) -> dict[str, Any]:
        """What must stay the same when the archive is gone on with; plain JSON."""
        shards = options.shards
        return {
            **rate,
            "model": self.found.name if self.found else NO_MODEL,
            "fingerprint": self.found.fingerprint if self.found else None,
            "effort": self.settings.effort,
            "chunk_time": int(self.settings.chunk_time),
            "train_minutes": self.settings.train_minutes,
            "embed_model": self.settings.embed_model,
            "shards": dict(shards) if isinstance(shards, Mapping) else shards,
        }


def designs_of(
    wanted: Wanted, names: Sequence[Any], options: Options
) -> dict[Any, tuple[Design, dict[str, Any]]]:
    """How each new variable is to lie in the archive, and at what rate."""
    rates = {name: rates_of(wanted.settings.rates, name) for name in names}
    if without := [str(name) for name in names if not rates[name]]:
        raise ValueError(
            f"{', '.join(without)}: give max_error or target_rmse in the variable's unit, or bits"
        )
    if options.shards is not None and options.zarr_format == 2 and names:
        raise ValueError("shards need Zarr format 3; give zarr_format=3 or leave them out")
    for name in names:
        check_codec(wanted.dataset[name], rates[name], wanted.found, wanted.settings)
    return {
        name: (
            design(
                wanted.dataset[name], rates[name], wanted.found, wanted.settings,
                options.zarr_format,
            ),
            rates[name],
        )
        for name in names
    }  # fmt: skip


def tiling_of(
    array: xr.DataArray, new: Design, options: Options
) -> tuple[Tiling, tuple[int, ...] | None]:
    """The blocks of a new variable, and its shards."""
    dims = tuple(map(str, new.layout.dims))
    shape = tuple(array.sizes[dim] for dim in new.layout.dims)
    shards = shard_shape(options.shards, dims, shape, new.chunks, new.layout.time_axis)
    block = block_shape(shape, new.chunks, array.dtype.itemsize, shards)
    return Tiling(dims, shape, new.chunks, block, new.layout.time_axis), shards


def begin(source: Source, place: Place, wanted: Wanted, options: Options) -> list[Part]:
    """Bring the archive's metadata to where this run can write its blocks.

    Nobody else may change it meanwhile.

    Returns
    -------
    list of Part

    Raises
    ------
    FileExistsError
        If something else is there.
    ValueError
        If the archive was begun with other settings, or from other data.
    """
    group = place.open()
    if group is None:
        with put_whole(place.store, replace=False, group=None) as target:
            new = Place(target, place.storage_options)
            return _add(new, wanted, wanted.chosen, source, options, first=True)
    if not is_archive(group):
        raise FileExistsError(
            f"{place} exists and is no archive that could be gone on with; give another name"
        )
    if not options.resume:
        raise FileExistsError(f"{place} exists; go on with it (resume), or give another name")
    _undo_growth(group)
    options = _same_format(group, options)
    there = variables_of(group)
    old = [name for name in wanted.chosen if str(name) in there]
    new_names = [name for name in wanted.chosen if name not in old]
    for name in new_names:
        if str(name) in group:
            raise ValueError(f"{name!r} is in {place} without compression; leave it out")
    for name in old:
        _check_same(group, name, wanted, options)
    offsets = _offsets(group, wanted)
    _grow(group, place, wanted, offsets)
    parts = _add(place, wanted, new_names, source, options, first=False)
    for name in old:
        parts.append(_continued(group, wanted.dataset[name], offsets, options))
    return sorted(parts, key=lambda part: wanted.chosen.index(part.array.name))


# ---- new variables ------------------------------------------------------------------------------


def _add(
    place: Place,
    wanted: Wanted,
    names: Sequence[Any],
    source: Source,
    options: Options,
    *,
    first: bool,
) -> list[Part]:
    """Write the metadata of new variables, and everything that is not compressed."""
    if not names:
        return []
    dataset = wanted.dataset
    designed = designs_of(wanted, names, options)
    tilings = {n: tiling_of(dataset[n], new, options) for n, (new, _) in designed.items()}
    present: list[Any] = []
    if not first:
        group = place.open()
        assert group is not None
        present = [n for n in dataset.variables if str(n) in group and n not in names]
    coordinates = dataset.coords.to_dataset().compute()
    written = coordinates.assign(
        {name: _placeholder(dataset[name], new) for name, (new, _) in designed.items()}
    ).assign_attrs(dataset.attrs)
    encoding = {}
    for name, (new, _) in designed.items():
        shards = tilings[name][1]
        encoding[name] = new.encoding | ({"shards": shards} if shards is not None else {})
    arguments: dict[str, Any] = {
        "consolidated": False, "zarr_format": options.zarr_format,
        "storage_options": place.storage_options,
    }  # fmt: skip
    # The placeholders' values are never computed.
    written.drop_vars(present, errors="ignore").to_zarr(
        place.store, mode="w-" if first else "a", compute=False, encoding=encoding, **arguments
    )
    plain = _plain(dataset.drop_vars([*coordinates.coords, *names, *present], errors="ignore"))
    if plain.data_vars:
        plain.to_zarr(place.store, mode="a", **arguments)
    group = place.open()
    assert group is not None
    for name, (_, rate) in designed.items():
        manifest = Manifest.create(
            group, str(name), tilings[name][0], wanted.asked(name, rate, options),
            dataset[name].dtype.itemsize,
        )  # fmt: skip
        manifest.array.attrs["source_files"] = source.files
    # Last: it says that an archive was begun and can be gone on with.
    create_group(group)
    return [
        part_of(dataset[name], tilings[name][0], 0, options, new.choice)
        for name, (new, _) in designed.items()
    ]


def _placeholder(array: xr.DataArray, new: Design) -> xr.Variable:
    """A variable of which only metadata is written."""
    import dask.array

    shape = tuple(array.sizes[dim] for dim in new.layout.dims)
    values = dask.array.zeros(shape, dtype=array.dtype, chunks=shape)
    variable = xr.Variable(new.layout.dims, values, array.attrs)
    kept = ("coordinates", "grid_mapping")
    variable.encoding = {key: array.encoding[key] for key in kept if key in array.encoding}
    return variable


def _plain(dataset: xr.Dataset) -> xr.Dataset:
    """Variables that are not compressed, to be written chunk by chunk."""
    for name, array in dataset.data_vars.items():
        variable = array.variable.chunk("auto") if array.ndim else array.variable.copy(deep=False)
        kept = {key: value for key, value in array.encoding.items() if key in _PACKING}
        variable.encoding = kept
        dataset = dataset.assign({name: variable})
    return dataset


# ---- variables that are there -------------------------------------------------------------------


def _same_format(group: zarr.Group, options: Options) -> Options:
    return replace(options, zarr_format=int(group.metadata.zarr_format))


def _check_same(group: zarr.Group, name: Any, wanted: Wanted, options: Options) -> None:
    """Refuse to go on with other settings than those that a variable was begun with."""
    was = entry(group, str(name))[1].attributes["asked"]
    controls = {key: was[key] for key in was if key not in wanted.asked(name, {}, options)}
    rate = rates_of(wanted.settings.rates, name) or controls
    now = wanted.asked(name, rate, options)
    for key in sorted({*was, *now}, key=str):
        if was.get(key) != now.get(key):
            raise ValueError(
                f"{name!r} was begun with {key}={was.get(key)!r}, not {now.get(key)!r}: go on with "
                "the same settings, or write another archive"
            )


def _offsets(group: zarr.Group, wanted: Wanted) -> dict[str, int]:
    """Where the source begins along the dimensions that archives grow along.

    Raises
    ------
    ValueError
        If the source lies on other coordinates than the archive.
    """
    offsets: dict[str, int] = {}
    stored = _coordinates(group)
    growing = {str(_time_dim(wanted.dataset[name])) for name in wanted.chosen}
    for dim in {str(d) for name in wanted.chosen for d in wanted.dataset[name].dims}:
        if dim not in stored or dim not in wanted.dataset.coords:
            if dim in growing:  # nothing tells where it begins but that values must be the same
                offsets[dim] = 0
            continue
        before, own = stored[dim], wanted.dataset[dim]
        if dim not in growing:
            if coordinates_differ(before, own):
                raise ValueError(
                    f"{dim} of the source is not that of the archive ({_span(own)}; there "
                    f"{_span(before)})"
                )
            continue
        offset = offset_of(before.to_numpy(), own.to_numpy())
        if offset is None:
            raise ValueError(
                f"{dim} of the source ({_span(own)}) neither matches nor continues that of the "
                f"archive ({_span(before)})"
            )
        offsets[dim] = offset
    return offsets


def offset_of(before: Any, own: Any) -> int | None:
    """Where ``own`` begins in ``before``, or right after it; None if they do not fit."""
    at = np.flatnonzero(before == own[0])
    if len(at) == 1:
        common = before[at[0] :][: len(own)]
        return int(at[0]) if np.array_equal(common, own[: len(common)]) else None
    if len(at) == 0 and len(before):
        step = before[-1] - before[0]
        follows = own[0] > before[-1] if not step < step * 0 else own[0] < before[-1]
        return len(before) if follows else None
    return None


def _coordinates(group: zarr.Group) -> xr.Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset: xr.Dataset = xr.open_zarr(group.store, consolidated=False, chunks=None)
    return dataset.coords.to_dataset().load()


def _span(coordinate: xr.DataArray) -> str:
    values = coordinate.to_numpy()
    return f"{values.size} values" + (f", {values[0]} … {values[-1]}" if values.size else "")


def _time_dim(array: xr.DataArray) -> Any:
    """The dimension that can grow; None for a single field."""
    layout = Layout.of(array)
    return layout.dims[layout.time_axis] if len(layout.dims) > 2 else None


def _grow(group: zarr.Group, place: Place, wanted: Wanted, offsets: Mapping[str, int]) -> None:
    """Make room for new times in everything that has them."""
    for dim, offset in offsets.items():
        length, own = _length(group, dim), wanted.dataset.sizes[dim]
        if offset + own <= length:
            continue
        _check_can_grow(group, dim, length, offset, wanted)
        names = variables_of(group)
        plain = [
            name for name, array in group.arrays() if dim in dims_of(array) and name not in names
        ]
        if missing := [name for name in plain if name not in wanted.dataset.variables]:
            raise ValueError(
                f"the archive also holds {', '.join(missing)} along {dim}, the source does not: "
                "it cannot grow without"
            )
        group[GROUP].attrs[_GROWING] = {"dim": dim, "from": length}
        if plain:
            _append_plain(place, wanted.dataset[plain], dim, length - offset)
        for name in names:
            array, manifest = entry(group, name)
            if dim not in dims_of(array):
                continue
            before = manifest.tiling(array)
            _resize(array, dim, offset + own)
            after = manifest.tiling(array)
            manifest.array.resize((len(after), manifest.array.shape[1]))
            changed = [i for i in range(len(before)) if before.where(i) != after.where(i)]
            manifest.forget(changed)
        _forget_growth(group)


def _append_plain(place: Place, dataset: xr.Dataset, dim: str, start: int) -> None:
    """Append what is not compressed, coordinates above all."""
    names = set(dataset.variables) - {n for n in dataset.coords if dim not in dataset[n].dims}
    added = dataset.isel({dim: slice(start, None)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        added.drop_vars([name for name in added.variables if name not in names]).to_zarr(
            place.store, append_dim=dim, consolidated=False, storage_options=place.storage_options
        )  # type: ignore[call-overload]


def _check_can_grow(group: zarr.Group, dim: str, length: int, offset: int, wanted: Wanted) -> None:
    """The last block, if it is not full, is encoded again from the source, never from itself."""
    for name in variables_of(group):
        array, manifest = entry(group, name)
        tiling = manifest.tiling(array)
        if tiling.dims[tiling.time_axis] != dim:
            continue
        start = length - length % tiling.block[tiling.time_axis]
        if start < length and offset > start:
            first = _coordinates(group)[dim].to_numpy()[start]
            raise ValueError(
                f"the last block of {name!r} is not full: to fill it give the source from "
                f"{dim}={first} on, too ({length - start} steps before the new ones)"
            )


def _length(group: zarr.Group, dim: str) -> int:
    lengths = {a.shape[dims_of(a).index(dim)] for _, a in group.arrays() if dim in dims_of(a)}
    return max(lengths)


def _resize(array: zarr.Array[Any], dim: str, length: int) -> None:
    axis = dims_of(array).index(dim)
    array.resize(tuple(length if i == axis else n for i, n in enumerate(array.shape)))


def _undo_growth(group: zarr.Group) -> None:
    """Take back what an interrupted growth left; it begins anew then."""
    state: Any = group[GROUP].attrs.get(_GROWING)
    if state is None:
        return
    dim, length = state["dim"], state["from"]
    for _, array in group.arrays():
        if dim in dims_of(array):
            _resize(array, dim, length)
    for name in variables_of(group):
        array, manifest = entry(group, name)
        manifest.array.resize((len(manifest.tiling(array)), manifest.array.shape[1]))
    _forget_growth(group)


def _forget_growth(group: zarr.Group) -> None:
    state = dict(group[GROUP].attrs)
    state.pop(_GROWING, None)
    group[GROUP].attrs.put(state)


def _continued(
    group: zarr.Group, array: xr.DataArray, offsets: Mapping[str, int], options: Options
) -> Part:
    name = str(array.name)
    stored, manifest = entry(group, name)
    tiling = manifest.tiling(stored)
    if set(tiling.dims) != set(map(str, array.dims)):
        raise ValueError(f"{name!r} has dimensions {array.dims}, in the archive {tiling.dims}")
    if array.dtype != stored.dtype:
        raise ValueError(f"{name!r} is {array.dtype}, in the archive {stored.dtype}")
    offset = offsets.get(tiling.dims[tiling.time_axis], 0)
    for axis, dim in enumerate(tiling.dims):
        own = array.sizes[dim]
        if axis != tiling.time_axis and own != tiling.shape[axis]:
            raise ValueError(
                f"{name!r} has {own} steps along {dim}, in the archive {tiling.shape[axis]}"
            )
    codec = codec_of(stored)
    model = None
    if codec.model != NO_MODEL:
        model = load_model(codec.model, codec.fingerprint)
    return part_of(array, tiling, offset, options, Choice(model, codec.embed_model is not None))


def part_of(
    array: xr.DataArray, tiling: Tiling, offset: int, options: Options, choice: Choice
) -> Part:
    """What of a variable is to be written: what was asked for and the source holds whole."""
    dim = tiling.dims[tiling.time_axis]
    own, length = array.sizes[dim], tiling.shape[tiling.time_axis]
    steps = range(offset, offset + own)
    if options.times is not None and array.ndim > 2:
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
