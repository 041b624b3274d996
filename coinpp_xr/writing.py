"""Compressed Zarr stores: chunks and codecs for every variable, written, read back and verified."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
import zarr

from coinpp_xr.chunk_places import placing
from coinpp_xr.coarseness import checked_before
from coinpp_xr.codecs.base import WITHOUT_MODEL
from coinpp_xr.codecs.sphere import COINppArrayCodec, COINppCodec
from coinpp_xr.computing import compute
from coinpp_xr.data import with_areas, without_areas
from coinpp_xr.metrics import GLOBE_ERRORS
from coinpp_xr.model_choice import Choice
from coinpp_xr.models import Model, load_model
from coinpp_xr.planning import Settings, check_codec, check_new, design
from coinpp_xr.provenance import described, without_containers
from coinpp_xr.rate_requests import BESIDE, settle
from coinpp_xr.report import Report
from coinpp_xr.selection import Layout
from coinpp_xr.stores import (
    chunk_nbytes,
    codec_of,
    compact_documents,
    dims_of,
    is_consolidated,
    is_zip,
    metadata_documents,
    open_group,
    put_whole,
    refuse_read_only,
    stored_chunks,
)
from coinpp_xr.variable_report import VariableReport, source_itemsize, variable_report
from coinpp_xr.verification import block_errors, check_target
from coinpp_xr.xarray_encoding import find_codec

# What xarray keeps in the encoding of a variable without changing its values by it.
_HARMLESS_ENCODING = ("coordinates", "grid_mapping")


@dataclass(frozen=True, eq=False)
class _Plan:
    """How one variable is written.

    Parameters
    ----------
    array : DataArray
        The original, in the order of the store, in dask chunks that are those of the store.
    codec : COINppCodec or COINppArrayCodec
    where : tuple of slice
        Its place in the store's array.
    encoding : dict
        For xarray; empty where the store has the array already.
    choice : Choice
        Of the model.
    """

    array: xr.DataArray
    codec: COINppCodec | COINppArrayCodec
    where: tuple[slice, ...]
    encoding: dict[str, Any]
    choice: Choice


def write(
    dataset: xr.Dataset, store: Any, settings: Settings, arguments: Mapping[str, Any]
) -> Report:
    """Write, read back, verify.

    Parameters
    ----------
    dataset : Dataset
    store : str, path or Zarr store
    settings : Settings
    arguments : mapping
        For :meth:`xarray.Dataset.to_zarr`.
    """
    arguments = {name: value for name, value in arguments.items() if value is not None}
    if not arguments.pop("compute", True):
        raise ValueError("compute=False cannot be verified; leave it out")
    if not arguments.setdefault("write_empty_chunks", True):
        raise ValueError(
            "write_empty_chunks=False: nobody could tell whether chunks are empty or lost; "
            "leave it out"
        )
    if not is_zip(store):  # which tells more of it
        refuse_read_only(store)
    _check_zip(store, arguments)
    quiet = "consolidated" not in arguments
    existing = _existing(store, arguments)
    dataset = with_areas(dataset)
    settled = settle(
        dataset, settings.variables, settings.rates, beside=settings.beside,
        allow_coarse=settings.allow_coarse, there=() if existing is None else set(existing),
        check=lambda name: _check_new(dataset[name], arguments),
    )  # fmt: skip
    chosen, reasons, rates = settled.chosen, settled.reasons, settled.rates
    new = [name for name in chosen if existing is None or name not in existing]
    found = None if settings.model in WITHOUT_MODEL else load_model(settings.model)

    zarr_format = _zarr_format(existing, arguments)
    for name in new:
        check_codec(dataset[name], rates[name], found, settings)
    plans: dict[Any, _Plan] = {}
    if existing is not None:
        _check_left_alone(reasons, existing)
        own = {name: rates[name] for name in chosen if name not in new}
        plans |= {
            name: _plan_continued(dataset[name], existing[name], own[name], settings, arguments)
            for name in own
        }
        # What is consolidated must stay true, and what is not need not become so.
        arguments.setdefault("consolidated", is_consolidated(existing))
    place: AbstractContextManager[Any] = nullcontext(store)
    if existing is None:
        replace = arguments.get("mode") == "w"
        place = put_whole(store, replace=replace, group=arguments.get("group"))
    with place as target:
        for name in new:
            plans[name] = _plan_new(
                dataset[name], rates[name], found, settings, arguments, zarr_format
            )
        if zarr_format == 3 and any(plan.codec.embed_model for plan in plans.values()):
            arguments.setdefault("consolidated", False)
        arguments["encoding"] = {
            **arguments.get("encoding", {}),
            **{name: plan.encoding for name, plan in plans.items() if plan.encoding},
        }
        # What is added to variables of the store was not looked at before.
        known = settings.allow_coarse or len(new) == len(chosen)
        looked_at: AbstractContextManager[Any] = checked_before() if known else nullcontext()
        with warnings.catch_warnings(), compact_documents(), looked_at:
            if quiet:  # Zarr warns of what format 3 does not specify; nobody has asked for it
                warnings.filterwarnings("ignore", message="Consolidated metadata")
            writes = _to_write(dataset, plans, arguments, existing)
            where = (arguments.pop(key, None) for key in ("group", "storage_options"))
            placed, group = placing(target, plans, *where)
            compute(writes.to_zarr(placed, group=group or None, compute=False, **arguments))
        return _report(dataset, plans, reasons, placed, group)


# ---- new arrays -------------------------------------------------------------------------------


def _check_new(array: xr.DataArray, arguments: Mapping[str, Any]) -> None:
    if arguments.get("append_dim") or arguments.get("region"):
        raise ValueError(f"{array.name!r} is not in the store, there is nothing to add to")
    check_new(array, arguments.get("encoding", {}).get(array.name, {}))


def _plan_new(
    array: xr.DataArray,
    rate: Mapping[str, Any],
    found: Model | None,
    settings: Settings,
    arguments: Mapping[str, Any],
    zarr_format: int,
) -> _Plan:
    own_chunks = arguments.get("encoding", {}).get(array.name, {}).get("chunks")
    new = design(array, rate, found, settings, zarr_format, own_chunks)
    arranged = _arranged(array, new.layout.dims, new.chunks)
    where = tuple(slice(0, length) for length in arranged.shape)
    return _Plan(arranged, new.codec, where, new.encoding, new.choice)


def _arranged(array: xr.DataArray, dims: Sequence[Any], chunks: Sequence[int]) -> xr.DataArray:
    """In the order of the store, every dask chunk one chunk of it, and without packing."""
    variable = array.variable.transpose(*dims).chunk(dict(zip(dims, chunks, strict=True)))
    # From the file it was read from: with scale_factor, an integer dtype or a _FillValue xarray
    # would hand packed integers or fill values to the codec, which would take them for data.
    kept = [key for key in _HARMLESS_ENCODING if key in variable.encoding]
    variable.encoding = {key: variable.encoding[key] for key in kept}
    return xr.DataArray(variable, array.coords, name=array.name)


def _to_write(
    dataset: xr.Dataset,
    plans: Mapping[Any, _Plan],
    arguments: Mapping[str, Any],
    existing: zarr.Group | None,
) -> xr.Dataset:
    dataset = without_areas(dataset)
    dataset = dataset.assign({name: plan.array.variable for name, plan in plans.items()})
    new = {name: plan.codec for name, plan in plans.items() if plan.encoding}
    there = existing.arrays() if existing is not None else ()
    dataset = described(dataset, new, ((name, dict(array.attrs)) for name, array in there))
    for name, variable in dataset.variables.items():
        # Read from a compressed store, and now to be kept without loss.
        if name not in plans and find_codec(variable.encoding) is not None:
            dataset[name] = variable.copy(deep=False)
            dataset[name].encoding = {}
    region = arguments.get("region")
    if region or arguments.get("append_dim"):
        dataset = without_containers(dataset)
    if region:
        # xarray refuses to write again what the region does not concern.
        unconcerned = [name for name, c in dataset.coords.items() if not set(c.dims) & set(region)]
        dataset = dataset.drop_vars(unconcerned)
    return dataset


# ---- arrays that are there already --------------------------------------------------------------


def _check_zip(store: Any, arguments: Mapping[str, Any]) -> None:
    """Refuse to add to a zip file, whose entries cannot be replaced."""
    adds = arguments.get("append_dim") or arguments.get("region")
    adds = adds or arguments.get("mode") in ("a", "a-", "r+")
    if adds and (is_zip(store) or (isinstance(store, str) and store.endswith(".zip"))):
        raise ValueError(
            "nothing can be added to a zip file; add to a folder, and zip it when it is complete"
        )


def _existing(store: Any, arguments: Mapping[str, Any]) -> zarr.Group | None:
    """The group that is added to; None where a new one is written."""
    adds = arguments.get("append_dim") or arguments.get("region")
    if arguments.get("region") == "auto":
        raise ValueError("region='auto' is not supported; give slices, region={'time': slice(…)}")
    if not adds and arguments.get("mode") not in ("a", "a-", "r+"):
        return None
    group = open_group(store, arguments.get("group"), arguments.get("storage_options"))
    if adds and group is None:
        raise FileNotFoundError(f"there is no store to add to: {store}")
    return group


def _zarr_format(existing: zarr.Group | None, arguments: Mapping[str, Any]) -> int:
    if existing is not None:
        return int(existing.metadata.zarr_format)
    return int(arguments.get("zarr_format") or zarr.config.get("default_zarr_format"))


def _check_left_alone(reasons: Mapping[Any, str], existing: zarr.Group) -> None:
    for name in reasons:
        array = existing.get(str(name))
        if isinstance(array, zarr.Array) and codec_of(array) is not None:
            raise ValueError(
                f"{name!r} is compressed in the store; name it in variables, or drop it "
                "(ds.drop_vars)"
            )


def _plan_continued(
    array: xr.DataArray,
    stored: Any,
    rate: Mapping[str, Any],
    settings: Settings,
    arguments: Mapping[str, Any],
) -> _Plan:
    """How to add to an array of the store, with the codec that it has."""
    name = array.name
    append_dim, region = arguments.get("append_dim"), arguments.get("region", {})
    if not append_dim and not region:
        raise ValueError(
            f"{name!r} is in the store; give append_dim or region to add to it, or mode='w' to "
            "replace the store"
        )
    if settings.train_minutes is not None:
        raise ValueError("train_minutes cannot be given where data is added to a store")
    codec = codec_of(stored)
    if not isinstance(codec, COINppCodec | COINppArrayCodec):
        raise ValueError(f"{name!r} is in the store without this codec; write it with ds.to_zarr")
    also = {name: getattr(codec, name, None) for name in BESIDE}
    written = codec.rate.controls | {name: v for name, v in also.items() if v is not None}
    if rate and rate != written:
        listed = ", ".join(f"{control}={value}" for control, value in written.items())
        raise ValueError(f"{name!r} was written with {listed}; give the same, or nothing")
    layout, dims = Layout.of(array), dims_of(stored)
    if set(dims) != set(layout.dims):
        raise ValueError(f"{name!r} has dimensions {layout.dims}, in the store {dims}")
    _check_cells(name, layout, codec)
    sizes, depths = (dict(zip(dims, s, strict=True)) for s in (stored.shape, stored.chunks))
    places = [
        _place(name, dim, sizes[dim], depths[dim], array.sizes[dim], append_dim, region)
        for dim in dims
    ]
    choice = Choice(codec.own_model())
    return _Plan(_arranged(array, dims, stored.chunks), codec, tuple(places), {}, choice)


def _check_cells(name: Any, layout: Layout, codec: COINppCodec | COINppArrayCodec) -> None:
    """Refuse an array whose cells lie elsewhere than those in the store."""
    if codec.latitude is None and codec.grid is None:
        return
    if not layout.cells.lies_on(codec.grid):
        raise ValueError(f"{name!r} is on another grid than in the store")
    if codec.grid is None:
        for axis, own in (("latitude", layout.latitude), ("longitude", layout.longitude)):
            known = getattr(codec, axis)
            if len(known) != len(own) or not np.allclose(known, own, atol=1e-4):
                raise ValueError(f"{name!r} has another {axis} than in the store")


def _place(
    name: Any,
    dim: str,
    size: int,
    depth: int,
    added: int,
    append_dim: Hashable | None,
    region: Mapping[Any, Any],
) -> slice:
    """Where data goes along one dimension of the store, if no chunk is coded twice."""
    if dim == append_dim:
        if size % depth:
            raise ValueError(
                f"{name!r} has {size} steps along {dim} in chunks of {depth}: appending would "
                f"decode and encode the last {size % depth} again; write the store anew with "
                f"chunk_time a divisor of {size}, or append to full chunks"
            )
        return slice(size, size + added)
    if dim not in region:
        return slice(0, size)
    start, stop, step = region[dim].indices(size)
    if step != 1 or stop - start != added:
        raise ValueError(f"region has {stop - start} steps along {dim}, {name!r} has {added}")
    if start % depth or (stop % depth and stop != size):
        raise ValueError(
            f"region {start}:{stop} along {dim} cuts chunks of {name!r}, which would be decoded "
            f"and encoded again; begin and end at multiples of {depth}"
        )
    return slice(start, stop)


# ---- verification -------------------------------------------------------------------------------


def _report(
    dataset: xr.Dataset,
    plans: Mapping[Any, _Plan],
    reasons: Mapping[Any, str],
    store: Any,
    path: str,
) -> Report:
    """Compare what is in the store with the original, and count its bytes."""
    import dask

    group = open_group(store, path)
    assert group is not None
    # Together, so that dask computes what several variables are made from only once.
    lazy = [_errors(plan, group[str(name)]) for name, plan in plans.items()]
    errors = dict(zip(plans, dask.compute(*lazy), strict=True))
    documents = metadata_documents(group)
    reports, embedded = [], 0
    for name in dataset.data_vars:
        if name not in plans:
            reports.append(VariableReport(name=str(name), outcome=reasons[name]))
            continue
        plan = plans[name]
        fields = plan.array.ndim - Layout.of(plan.array).cell_axes
        depths = [sizes[0] for sizes in plan.array.chunks or ()][:fields]
        check_target(name, plan.codec.target_rmse, errors[name], depths)
        copies = sum(other.codec.embed_model == plan.codec.embed_model for other in plans.values())
        nbytes = _text_nbytes(plan.codec.embed_model, documents) // copies
        embedded += nbytes
        reports.append(
            variable_report(
                plan.array, errors[name],
                stored_chunks(group[str(name)], plan.where),  # type: ignore[arg-type]
                model=plan.choice.model, rate=plan.codec.rate,
                source_nbytes=plan.array.size * source_itemsize(dataset[name]),
                embedded_nbytes=nbytes, model_choice=plan.choice.reason,
            )
        )  # fmt: skip
    return Report(
        tuple(reports),
        metadata_nbytes=sum(map(len, documents)) - embedded,
        other_nbytes=chunk_nbytes(a for name, a in group.arrays() if name not in plans),
    )


def _errors(plan: _Plan, stored: Any) -> Any:
    """A dask array of GLOBE_ERRORS, one per globe."""
    import dask.array

    original = plan.array.data
    # There is no packing that xarray would undo.
    decoded = dask.array.from_zarr(stored)[plan.where].rechunk(original.chunks)
    areas = Layout.of(plan.array).cells.areas
    batch = original.ndim - areas.axes
    return dask.array.map_blocks(
        block_errors, original, decoded, areas=areas, variable=plan.array.name,
        bound=plan.codec.rate.bound, dtype=GLOBE_ERRORS,
        drop_axis=list(range(batch, original.ndim)),
        meta=np.empty((0,) * batch, GLOBE_ERRORS),
    )  # fmt: skip


def _text_nbytes(text: str | None, documents: Iterable[bytes]) -> int:
    """Bytes that an embedded model takes in metadata, every copy of it."""
    if not text:
        return 0
    return len(text) * sum(document.count(text.encode()) for document in documents)
