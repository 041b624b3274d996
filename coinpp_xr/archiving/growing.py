"""Archives that get longer, and sources that hold a part of them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr

from coinpp_xr.archiving.claims import others_at_work
from coinpp_xr.archiving.manifest import entries_of, entry, forget_note, note, noted, variables_of
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.requests import Wanted
from coinpp_xr.archiving.sources import coordinates_differ
from coinpp_xr.archiving.tiling import Tiling
from coinpp_xr.selection import Layout
from coinpp_xr.stores import dims_of

_GROWING = "growing"


def offsets_in(group: zarr.Group, wanted: Wanted) -> dict[str, int]:
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
    if not len(before) or not len(own):
        return None
    at = np.flatnonzero(before == own[0])
    if len(at) == 1:
        common = before[at[0] :][: len(own)]
        return int(at[0]) if np.array_equal(common, own[: len(common)]) else None
    try:
        falling = before[-1] < before[0]
        follows = own[0] < before[-1] if falling else own[0] > before[-1]
    except TypeError:  # dates of another calendar
        return None
    return len(before) if follows and not len(at) else None


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


def grow(group: zarr.Group, place: Place, wanted: Wanted, offsets: Mapping[str, int]) -> None:
    """Make room for new times in everything that has them.

    Raises
    ------
    RuntimeError
        If others are writing, whose last blocks would change under their hands.
    ValueError
        If the source does not hold what is needed for that.
    """
    for dim, offset in offsets.items():
        length, own = _length(group, dim), wanted.dataset.sizes[dim]
        if offset + own <= length:
            continue
        if others_at_work(group):
            raise RuntimeError(f"{place} cannot grow while others write; wait for them")
        _check_can_grow(group, dim, length, offset)
        names = variables_of(group)
        plain = [
            name for name, array in group.arrays() if dim in dims_of(array) and name not in names
        ]
        if missing := [name for name in plain if name not in wanted.dataset.variables]:
            raise ValueError(
                f"the archive also holds {', '.join(missing)} along {dim}, the source does not: "
                "it cannot grow without"
            )
        note(group, _GROWING, {"dim": dim, "from": length})
        try:
            if plain:
                _append_plain(place, wanted.dataset[plain], dim, length - offset)
            _lengthen(group, dim, length, offset + own)
        except Exception:
            undo_growth(group)
            raise
        forget_note(group, _GROWING)


def _lengthen(group: zarr.Group, dim: str, before: int, now: int) -> None:
    """What is compressed; blocks that were not full are no longer done."""
    for array, manifest in entries_of(group).values():
        if dim not in dims_of(array):
            continue
        tiling = manifest.tiling(array)
        manifest.forget(tiling.beginning_in(range(_full(tiling, before), before)))
        _resize(array, dim, now)
        manifest.array.resize((len(manifest.tiling(array)), manifest.array.shape[1]))


def _append_plain(place: Place, dataset: xr.Dataset, dim: str, start: int) -> None:
    """Append what is not compressed, coordinates above all."""
    names = set(dataset.variables) - {n for n in dataset.coords if dim not in dataset[n].dims}
    # In memory, because chunks of a store may be cut where those of files end.
    added = dataset.isel({dim: slice(start, None)}).load()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        added.drop_vars([name for name in added.variables if name not in names]).to_zarr(
            place.store,
            append_dim=dim,
            consolidated=False,
            write_empty_chunks=True,
            storage_options=place.storage_options,
        )  # type: ignore[call-overload]


def _full(tiling: Tiling, length: int) -> int:
    """Steps along time in blocks that are full."""
    return length - length % tiling.block[tiling.time_axis]


def _check_can_grow(group: zarr.Group, dim: str, length: int, offset: int) -> None:
    """The last block, if it is not full, is encoded again from the source, never from itself."""
    for name in variables_of(group):
        array, manifest = entry(group, name)
        tiling = manifest.tiling(array)
        if tiling.dims[tiling.time_axis] != dim:
            continue
        start = _full(tiling, length)
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


def undo_growth(group: zarr.Group) -> None:
    """Take back what an interrupted growth left; it begins anew then."""
    if (state := noted(group, _GROWING)) is None:
        return
    dim, length = state["dim"], state["from"]
    for _, array in group.arrays():
        if dim in dims_of(array):
            _resize(array, dim, length)
    for name in variables_of(group):
        array, manifest = entry(group, name)
        manifest.array.resize((len(manifest.tiling(array)), manifest.array.shape[1]))
    forget_note(group, _GROWING)
