"""Beginning an archive, adding variables to it, and going on with it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import xarray as xr
import zarr

from coinpp_xr.archiving.growing import grow, offsets_in, undo_growth
from coinpp_xr.archiving.manifest import (
    GROUP,
    Manifest,
    create_group,
    entry,
    forget_note,
    is_archive,
    note,
    noted,
    variables_of,
)
from coinpp_xr.archiving.parts import Options, Part, part_of, tiling_of
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.requests import Wanted
from coinpp_xr.archiving.sources import Source
from coinpp_xr.data import without_areas
from coinpp_xr.model_choice import Choice
from coinpp_xr.planning import Design, check_codec, design
from coinpp_xr.provenance import described
from coinpp_xr.selection import Layout
from coinpp_xr.stores import codec_of, put_whole
from coinpp_xr.variable_report import source_itemsize

# How values lie in a file, where a variable is kept as it is.
_PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "units", "calendar")
_ADDING = "adding"


def designs_of(
    wanted: Wanted, names: Sequence[Any], options: Options
) -> dict[Any, tuple[Design, dict[str, Any]]]:
    """How each new variable is to lie in the archive, and at what rate."""
    rates = {name: wanted.rates[name] for name in names}
    if isinstance(options.shards, Mapping):
        dims = {str(dim) for name in names for dim in Layout.of(wanted.dataset[name]).batch}
        if names and (unknown := set(options.shards) - dims):
            raise ValueError(
                f"shards along {', '.join(sorted(map(str, unknown)))} cannot be; there are: "
                f"{', '.join(sorted(dims)) or 'none'}"
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


def begin(
    source: Source,
    place: Place,
    wanted: Wanted,
    options: Options,
    check_stored: Callable[[], None],
    check_source: Callable[[Sequence[Part]], None],
) -> list[Part]:
    """Bring the archive's metadata to where this run can write its blocks.

    Before anything changes in an archive that is gone on with, ``check_stored`` looks at what it
    holds, and ``check_source`` at the parts that are to be gone on with.

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
    if place.open() is None:
        try:
            with (
                place.changing() as current,
                put_whole(current.store, replace=False, group=None) as target,
            ):
                new = Place(target, place.storage_options)
                zarr.create_group(
                    target, zarr_format=options.zarr_format,  # type: ignore[arg-type]
                    storage_options=place.storage_options,
                )  # fmt: skip
                create_group(new.root())
                return _add(new.root(), new, wanted, wanted.chosen, source, options)
        except FileExistsError as error:  # another process was faster: go on with what it began
            if place.open() is None:
                raise FileExistsError(
                    f"{place} exists and is no archive; give another name"
                ) from error
    with place.changing() as current:
        return _go_on(current, wanted, source, options, check_stored, check_source)


def _go_on(
    place: Place,
    wanted: Wanted,
    source: Source,
    options: Options,
    check_stored: Callable[[], None],
    check_source: Callable[[Sequence[Part]], None],
) -> list[Part]:
    """With an archive that is there."""
    group = place.root()
    if not is_archive(group):
        raise FileExistsError(
            f"{place} exists and is no archive that could be gone on with; give another name"
        )
    if not options.resume:
        raise FileExistsError(f"{place} exists; go on with it (resume), or give another name")
    undo_growth(group)
    _undo_adding(group)
    check_stored()
    options = replace(options, zarr_format=int(group.metadata.zarr_format))
    there = variables_of(group)
    old = [name for name in wanted.chosen if str(name) in there]
    added = [name for name in wanted.chosen if name not in old]
    for name in added:
        if str(name) in group:
            raise ValueError(f"{name!r} is in {place} without compression; leave it out")
    for name in old:
        check_same(group, name, wanted, options)
    offsets = offsets_in(group, wanted)
    check_source([_continued(group, wanted.dataset[name], offsets, options) for name in old])
    grow(group, place, wanted, offsets)
    parts = _add(group, place, wanted, added, source, options)
    parts += [_continued(group, wanted.dataset[name], offsets, options) for name in old]
    return sorted(parts, key=lambda part: wanted.chosen.index(part.array.name))


# ---- new variables ------------------------------------------------------------------------------


def _add(
    group: zarr.Group,
    place: Place,
    wanted: Wanted,
    names: Sequence[Any],
    source: Source,
    options: Options,
) -> list[Part]:
    """Write the metadata of new variables, and everything that is not compressed."""
    if not names:
        return []
    dataset = wanted.dataset
    _check_whole(group, dataset, names)
    designed = designs_of(wanted, names, options)
    tilings = {n: tiling_of(dataset[n], new, options) for n, (new, _) in designed.items()}
    codecs = {name: new.codec for name, (new, _) in designed.items()}
    there = ((name, dict(array.attrs)) for name, array in group.arrays())
    dataset = described(without_areas(dataset), codecs, there)
    missing = [n for n in dataset.variables if str(n) not in group]
    coordinates = dataset.coords.to_dataset()
    # What this note names is taken away should this end half-way.
    note(group, _ADDING, [str(name) for name in missing])
    written = (
        coordinates[[n for n in coordinates.coords if n in missing]]
        .compute()
        .assign({n: _placeholder(dataset[n], new) for n, (new, _) in designed.items()})
        .assign_attrs(dataset.attrs)
    )
    written = written.drop_vars([n for n in written.variables if n not in missing])
    encoding = {}
    for name, (new, _) in designed.items():
        shards = tilings[name][1]
        encoding[name] = new.encoding | ({"shards": shards} if shards is not None else {})
    arguments: dict[str, Any] = {
        "mode": "a", "consolidated": False, "zarr_format": options.zarr_format,
        "storage_options": place.storage_options, "write_empty_chunks": True,
    }  # fmt: skip
    plain = _plain(dataset[[n for n in dataset.data_vars if n in missing and n not in names]])
    with warnings.catch_warnings():
        # Of text, for every variable again and again.
        warnings.filterwarnings("ignore", message=".*Zarr V3 specification")
        # The placeholders' values are never computed.
        written.to_zarr(place.store, compute=False, encoding=encoding, **arguments)
        if plain.data_vars:
            plain.drop_vars(list(plain.coords)).to_zarr(place.store, **arguments)
    for name, (_, rate) in designed.items():
        Manifest.create(
            group, str(name), tilings[name][0], wanted.asked(name, rate, options),
            dataset[name].dtype.itemsize, source_itemsize(dataset[name]), source.files,
        )  # fmt: skip
    forget_note(group, _ADDING)
    return [
        part_of(wanted.dataset[name], tilings[name][0], 0, options, new.choice)
        for name, (new, _) in designed.items()
    ]


def _check_whole(group: zarr.Group, dataset: xr.Dataset, names: Sequence[Any]) -> None:
    """A new variable must be as long as the archive."""
    for dim in {dim for name in names for dim in dataset[name].dims}:
        stored = group.get(str(dim))
        if isinstance(stored, zarr.Array) and stored.shape != (dataset.sizes[dim],):
            raise ValueError(
                f"to add {', '.join(map(str, names))} give a source that holds all "
                f"{stored.shape[0]} steps along {dim} that the archive has, not "
                f"{dataset.sizes[dim]}; choose times to write a part of them"
            )


def _undo_adding(group: zarr.Group) -> None:
    """Take away what was being added when a run was interrupted; it is added anew then."""
    for name in noted(group, _ADDING) or ():
        for path in (f"{GROUP}/{name}", name):
            if path in group:
                del group[path]
    forget_note(group, _ADDING)


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


def check_same(group: zarr.Group, name: Any, wanted: Wanted, options: Options) -> None:
    """Refuse to go on with other settings than those that a variable was begun with."""
    was = entry(group, str(name))[1].attributes["asked"]
    controls = {key: was[key] for key in was if key not in wanted.asked(name, {}, options)}
    rate = wanted.rates[name] or controls
    now = wanted.asked(name, rate, options)
    for key in sorted({*was, *now}, key=str):
        if was.get(key) != now.get(key):
            raise ValueError(
                f"{name!r} was begun with {key}={was.get(key)!r}, not {now.get(key)!r}: go on with "
                "the same settings, or write another archive"
            )


def _continued(
    group: zarr.Group, array: xr.DataArray, offsets: Mapping[str, int], options: Options
) -> Part:
    name = str(array.name)
    stored, manifest = entry(group, name)
    tiling = manifest.tiling(stored)
    if set(tiling.dims) != set(map(str, array.dims)):
        raise ValueError(f"{name!r} has dimensions {array.dims}, in the archive {tiling.dims}")
    units = str(stored.attrs.get("units", "")), str(array.attrs.get("units", ""))
    if units[0] != units[1]:
        raise ValueError(f"{name!r} is in {units[1]!r}, in the archive in {units[0]!r}; convert it")
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
    choice = Choice(codec.own_model(), codec.embed_model is not None)
    return part_of(array, tiling, offset, options, choice)
