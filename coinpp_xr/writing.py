"""Compressed Zarr stores: chunks and codecs for every variable, written, read back and verified."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.storage import ZipStore

from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.codecs.sphere import COINppArrayCodec, COINppCodec
from coinpp_xr.model_choice import Choice, choose_model
from coinpp_xr.models import Model, load_model
from coinpp_xr.parallel import thread_count
from coinpp_xr.report import (
    GLOBE_ERRORS,
    Report,
    VariableReport,
    chunk_rmse,
    globe_errors,
    variable_report,
)
from coinpp_xr.residual import Bound
from coinpp_xr.schemes import MOST_ITEMS
from coinpp_xr.selection import (
    Layout,
    check_rates,
    choose_variables,
    rates_by_variable,
    rates_of,
)
from coinpp_xr.stores import (
    chunk_nbytes,
    codec_of,
    dims_of,
    is_consolidated,
    metadata_documents,
    open_group,
    put_whole,
    stored_chunks,
)
from coinpp_xr.xarray_encoding import find_codec

# What xarray keeps in the encoding of a variable without changing its values by it.
_HARMLESS_ENCODING = ("coordinates", "grid_mapping")
# Attributes by which readers change values.
_PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset")
# Sums in another order differ by this much.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Settings:
    """What :meth:`coinpp_xr.accessor.DatasetAccessor.to_zarr` was asked for."""

    rates: Mapping[str, Any]
    variables: str | Iterable[Any] | None
    model: str | Model
    train_minutes: float | None
    embed_model: bool
    chunk_time: int
    effort: str

    def __post_init__(self) -> None:
        depth, minutes = self.chunk_time, self.train_minutes
        if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
            raise ValueError(f"chunk_time must be a whole number of at least 1, got {depth!r}")
        is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if minutes is not None and not (is_number and isfinite(minutes) and minutes > 0):
            raise ValueError(f"train_minutes must be a number above 0, got {minutes!r}")
        if not isinstance(self.embed_model, bool):
            raise ValueError(f"embed_model must be True or False, got {self.embed_model!r}")


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
    if isinstance(store, ZipStore):
        raise ValueError("a zip file cannot be verified while it is written; zip a folder later")
    check_rates(settings.rates, dataset)
    chosen, reasons = choose_variables(dataset, settings.variables)
    if any(isinstance(rate, Mapping) for rate in settings.rates.values()):
        chosen = _with_a_rate(chosen, reasons, settings)
    existing = _existing(store, arguments)
    new = [name for name in chosen if existing is None or name not in existing]
    for name in new:
        _check_new(dataset[name], arguments)
    found = None if settings.model == NO_MODEL else load_model(settings.model)
    rates = rates_by_variable(settings.rates, new, has_model=found is not None)

    zarr_format = _zarr_format(existing, arguments)
    # A wrong argument for the last variable should not wait for the model of the first one.
    for name in new:
        _codec(zarr_format, Choice(found), _codec_settings(dataset[name], rates[name], settings))
    plans: dict[Any, _Plan] = {}
    if existing is not None:
        _check_left_alone(reasons, existing)
        own = {name: rates_of(settings.rates, name) for name in chosen if name not in new}
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
        _compute(_to_write(dataset, plans, arguments).to_zarr(target, compute=False, **arguments))
        return _report(dataset, plans, reasons, target, arguments)


def _compute(writes: Any) -> None:
    """Compute what dask was told to write; when this ends, in an error too, so have all writes."""
    import dask.base
    import dask.threaded

    if dask.base.get_scheduler(collections=[writes]) is not dask.threaded.get:
        writes.compute()
        return
    with ThreadPoolExecutor(dask.config.get("num_workers", None) or thread_count()) as pool:
        writes.compute(pool=pool)


def _with_a_rate(chosen: list[Any], reasons: dict[Any, str], settings: Settings) -> list[Any]:
    """Of the chosen variables those that a rate control names; the rest gets its reason."""
    named = [name for name in chosen if rates_of(settings.rates, name)]
    for name in chosen:
        if name not in named:
            if settings.variables is not None:
                raise ValueError(f"give a rate control for {name!r}, too")
            reasons[name] = "no rate control given for it: written without loss"
    for rate in settings.rates.values():
        for name in rate if isinstance(rate, Mapping) else ():
            if name not in named:
                raise ValueError(f"cannot compress {name!r}: {reasons[name]}")
    return named


# ---- new arrays -------------------------------------------------------------------------------


def _check_new(array: xr.DataArray, arguments: Mapping[str, Any]) -> None:
    if arguments.get("append_dim") or arguments.get("region"):
        raise ValueError(f"{array.name!r} is not in the store, there is nothing to add to")
    if packing := [name for name in _PACKING if isfinite(array.attrs.get(name, np.nan))]:
        raise ValueError(
            f"attributes {', '.join(packing)} of {array.name!r} say that its values are packed: "
            "apply xr.decode_cf(ds) first, or remove them"
        )
    given = arguments.get("encoding", {}).get(array.name, {})
    if other := [key for key in given if key != "chunks"]:
        raise ValueError(
            f"encoding of {array.name!r}: {', '.join(other)} cannot be given, only chunks; the "
            "values are written by the codec in their own dtype"
        )


def _codec_settings(
    array: xr.DataArray, rate: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    return {**Layout.of(array).codec_settings, **rate, "effort": settings.effort}


def _codec(
    zarr_format: int, choice: Choice, codec_settings: Mapping[str, Any]
) -> COINppCodec | COINppArrayCodec:
    kind = COINppArrayCodec if zarr_format == 3 else COINppCodec
    return kind(choice.model or NO_MODEL, embed_model=choice.embed, **codec_settings)


def _plan_new(
    array: xr.DataArray,
    rate: Mapping[str, Any],
    found: Model | None,
    settings: Settings,
    arguments: Mapping[str, Any],
    zarr_format: int,
) -> _Plan:
    layout = Layout.of(array)
    chunks = layout.chunks(array.sizes, array.dtype.itemsize, settings.chunk_time)
    if own := arguments.get("encoding", {}).get(array.name, {}).get("chunks"):
        if len(own) != array.ndim:
            raise ValueError(f"encoding of {array.name!r}: chunks need {array.ndim} numbers")
        chunks = tuple(own[array.dims.index(dim)] for dim in layout.dims)
    if prod(chunks[:-2]) > MOST_ITEMS:
        raise ValueError(
            f"a chunk of {array.name!r} would hold {prod(chunks[:-2]):,} globes, at most "
            f"{MOST_ITEMS:,} can be; give a smaller chunk_time"
        )
    arranged = _arranged(array, layout.dims, chunks)
    codec_settings = _codec_settings(array, rate, settings)
    choice = choose_model(
        array.transpose(*layout.dims), chunks, codec_settings, given=found,
        train_minutes=settings.train_minutes, embed=settings.embed_model,
    )  # fmt: skip
    codec = _codec(zarr_format, choice, codec_settings)
    codec._check_chunks(arranged.shape, chunks)
    encoding: dict[str, Any] = {"chunks": chunks, "filters": None}
    if zarr_format == 3:
        encoding |= {"serializer": codec, "compressors": None}
    else:
        encoding["compressors"] = [codec]
    where = tuple(slice(0, length) for length in arranged.shape)
    return _Plan(arranged, codec, where, encoding, choice)


def _arranged(array: xr.DataArray, dims: Sequence[Any], chunks: Sequence[int]) -> xr.DataArray:
    """In the order of the store, every dask chunk one chunk of it, and without packing."""
    variable = array.variable.transpose(*dims).chunk(dict(zip(dims, chunks, strict=True)))
    # From the file it was read from: with scale_factor, an integer dtype or a _FillValue xarray
    # would hand packed integers or fill values to the codec, which would take them for data.
    kept = [key for key in _HARMLESS_ENCODING if key in variable.encoding]
    variable.encoding = {key: variable.encoding[key] for key in kept}
    return xr.DataArray(variable, array.coords, name=array.name)


def _to_write(
    dataset: xr.Dataset, plans: Mapping[Any, _Plan], arguments: Mapping[str, Any]
) -> xr.Dataset:
    dataset = dataset.assign({name: plan.array.variable for name, plan in plans.items()})
    for name, variable in dataset.variables.items():
        # Read from a compressed store, and now to be kept without loss.
        if name not in plans and find_codec(variable.encoding) is not None:
            dataset[name] = variable.copy(deep=False)
            dataset[name].encoding = {}
    if region := arguments.get("region"):
        # xarray refuses to write again what the region does not concern.
        unconcerned = [name for name, c in dataset.coords.items() if not set(c.dims) & set(region)]
        dataset = dataset.drop_vars(unconcerned)
    return dataset


# ---- arrays that are there already --------------------------------------------------------------


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
    written = codec.rate.controls
    if rate and rate != written:
        listed = ", ".join(f"{control}={value:g}" for control, value in written.items())
        raise ValueError(f"{name!r} was written with {listed}; give the same, or nothing")
    layout, dims = Layout.of(array), dims_of(stored)
    if set(dims) != set(layout.dims):
        raise ValueError(f"{name!r} has dimensions {layout.dims}, in the store {dims}")
    for axis, own in (("latitude", layout.latitude), ("longitude", layout.longitude)):
        known = getattr(codec, axis)
        if known is not None and (len(known) != len(own) or not np.allclose(known, own, atol=1e-4)):
            raise ValueError(f"{name!r} has another {axis} than in the store")
    sizes, depths = (dict(zip(dims, s, strict=True)) for s in (stored.shape, stored.chunks))
    places = [
        _place(name, dim, sizes[dim], depths[dim], array.sizes[dim], append_dim, region)
        for dim in dims
    ]
    choice = Choice(None if codec.model == NO_MODEL else load_model(codec.model, codec.fingerprint))
    return _Plan(_arranged(array, dims, stored.chunks), codec, tuple(places), {}, choice)


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
    place: Any,
    arguments: Mapping[str, Any],
) -> Report:
    """Compare what is in the store with the original, and count its bytes."""
    import dask

    group = open_group(place, arguments.get("group"), arguments.get("storage_options"))
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
        _check_target(plan, errors[name])
        copies = sum(other.codec.embed_model == plan.codec.embed_model for other in plans.values())
        nbytes = _text_nbytes(plan.codec.embed_model, documents) // copies
        embedded += nbytes
        reports.append(
            variable_report(
                plan.array, errors[name],
                stored_chunks(group[str(name)], plan.where),  # type: ignore[arg-type]
                model=plan.choice.model, rate=plan.codec.rate,
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
    latitude = Layout.of(plan.array).latitude
    batch = original.ndim - 2
    return dask.array.map_blocks(
        _block_errors, original, decoded, latitude=latitude, variable=plan.array.name,
        bound=plan.codec.rate.bound, dtype=GLOBE_ERRORS, drop_axis=[batch, batch + 1],
        meta=np.empty((0,) * batch, GLOBE_ERRORS),
    )  # fmt: skip


def _block_errors(
    original: npt.NDArray[Any],
    decoded: npt.NDArray[Any],
    latitude: npt.NDArray[Any],
    variable: Any,
    bound: Bound | None,
) -> npt.NDArray[np.void]:
    missing = ~np.isfinite(original)
    if not np.array_equal(original[missing], decoded[missing], equal_nan=True):
        raise RuntimeError(f"missing values of {variable!r} came back from the store as others")
    if bound is not None:
        held = missing | bound.holds(decoded.astype(np.float64), original.astype(np.float64))
        if not held.all():
            raise RuntimeError(
                f"{variable!r} came back from the store with an error beyond {bound} in "
                f"{(~held).sum():,} values: do not use this store"
            )
    return globe_errors(original, decoded, latitude)


def _check_target(plan: _Plan, errors: npt.NDArray[np.void]) -> None:
    target = plan.codec.target_rmse
    if target is None:
        return
    depths = [chunks[0] for chunks in plan.array.chunks or ()][:-2]
    starts = (range(0, n, depth) for n, depth in zip(errors.shape, depths, strict=True))
    for corner in product(*starts):
        block = tuple(slice(i, i + depth) for i, depth in zip(corner, depths, strict=True))
        rmse = chunk_rmse(errors[block])
        if not rmse <= target * (1 + _ROUNDING):
            raise RuntimeError(
                f"{plan.array.name!r} came back from the store with RMSE {rmse:.6g} in the chunk "
                f"at {corner}, more than target_rmse={target:g}: do not use this store"
            )


def _text_nbytes(text: str | None, documents: Iterable[bytes]) -> int:
    """Bytes that an embedded model takes in metadata, every copy of it."""
    if not text:
        return 0
    return len(text) * sum(document.count(text.encode()) for document in documents)
