"""Compression in memory: a dataset through the codec and back, with a report."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import product
from math import prod
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.blockwise import WorstGlobe, cuts, regular_cuts
from coinpp_xr.coarseness import checked_before
from coinpp_xr.codecs.base import WITHOUT_MODEL, without_model
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.compression_result import CompressionResult
from coinpp_xr.data import with_areas, without_areas
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.labels import unit_settings
from coinpp_xr.metrics import GLOBE_ERRORS
from coinpp_xr.models import Model, load_model
from coinpp_xr.progress import Progress
from coinpp_xr.rate_requests import settle
from coinpp_xr.report import Report
from coinpp_xr.selection import Layout
from coinpp_xr.variable_report import (
    StoredChunk,
    VariableReport,
    source_itemsize,
    variable_report,
)
from coinpp_xr.xarray_encoding import whole_field_chunks

Values = npt.NDArray[Any]
Slices = tuple[slice, ...]


def compress(
    dataset: xr.Dataset,
    *,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any],
    model: str | Model,
    effort: str,
    beside: Mapping[str, Any],
    allow_coarse: bool,
) -> CompressionResult:
    """See :meth:`coinpp_xr.accessor.DatasetAccessor.compress`, which passes all arguments on."""
    dataset = with_areas(dataset)
    settled = settle(dataset, variables, rates, beside=beside, allow_coarse=allow_coarse)
    chosen, reasons = settled.chosen, settled.reasons
    found = None if model in WITHOUT_MODEL else load_model(model)
    # A wrong argument for the last variable should not wait for the first ones.
    codecs = {}
    for name in chosen:
        array = dataset[name]
        settings: dict[str, Any] = {
            **Layout.of(array).codec_settings(settled.rates[name]),
            **settled.rates[name],
        }
        settings |= unit_settings(found, array.attrs)
        codecs[name] = COINppCodec(found or without_model(model), effort=effort, **settings)

    reports, decoded = [], {}
    pictures: dict[str, bytes] = {}
    total = sum(dataset[name].size for name in chosen)
    with checked_before(), Progress("compressing", total) as progress:
        for name in dataset.data_vars:
            if name in reasons:
                reports.append(VariableReport(name=str(name), outcome=reasons[name]))
                continue
            decoded[name], variable, picture = _round_trip(
                dataset[name], codecs[name], found, progress
            )
            reports.append(variable)
            pictures |= {variable.name: picture} if picture else {}
    result = without_areas(dataset.assign(decoded))
    return CompressionResult(
        result,
        Report(tuple(reports)),
        _original=dataset,
        _pictures=pictures,
        _codecs=codecs,
    )


def _round_trip(
    array: xr.DataArray, codec: COINppCodec, model: Model | None, progress: Progress
) -> tuple[xr.Variable, VariableReport, bytes]:
    """Encode and decode one variable block by block; also a picture of its worst globe."""
    variable, layout = array.variable, Layout.of(array)
    to_order = [variable.dims.index(dim) for dim in layout.dims]
    from_order = [layout.dims.index(dim) for dim in variable.dims]
    lazy = variable.chunks is not None

    axes = cuts(variable, layout)
    errors = np.zeros([variable.sizes[dim] for dim in layout.batch], GLOBE_ERRORS)
    worst = WorstGlobe()
    blocks = np.empty([len(slices) for slices in axes], dtype=object)
    values = None if lazy else np.empty(variable.shape, variable.dtype)
    chunks: list[StoredChunk] = []
    warned: list[str] = []
    encode_seconds = decode_seconds = 0.0
    for location in np.ndindex(*blocks.shape):
        where = tuple(slices[i] for slices, i in zip(axes, location, strict=True))
        selected = variable.isel(dict(zip(layout.dims, where, strict=True)))
        original = selected.to_numpy().transpose(to_order)
        decoded = np.empty_like(original)
        payloads, kinds = [], []
        for part in _parts(original.shape, original.dtype, layout.time_axis, layout.cell_axes):
            start = perf_counter()
            with _codec_warnings(warned):
                payload: bytes = codec.encode(original[part])
            encoded = perf_counter()
            # codec.decode might find the chunk among those decoded lately; this is measured.
            decoded[part] = codec._decode_payload(payload)
            encode_seconds += encoded - start
            decode_seconds += perf_counter() - encoded
            payloads.append(payload)
            kinds.append(Payload.unpack(payload).kind)
            chunks.append(
                StoredChunk(_within(where, part)[: -layout.cell_axes], len(payload), kinds[-1])
            )
            progress.step(original[part].size)
        errors[where[: -layout.cell_axes]] = worst.measure(original, decoded, layout)
        if values is not None:
            values.transpose(to_order)[where] = decoded
        elif all(kind == Kind.LOSSLESS for kind in kinds):
            # The same bits again: no need to hold payloads that are about as large as the data.
            blocks[location] = selected.data.transpose(to_order)
        else:
            blocks[location] = _decode_later(codec, payloads, original.shape, original.dtype)

    if values is None:
        import dask.array

        values = dask.array.block(blocks.tolist()).transpose(from_order)
    if warned:
        warnings.warn(f"{array.name}: {warned[0]}", CompressionWarning, stacklevel=4)
    report = variable_report(
        array, errors, chunks, model=model, rate=codec.rate,
        source_nbytes=array.size * source_itemsize(array),
        encode_seconds=encode_seconds, decode_seconds=decode_seconds,
    )  # fmt: skip
    return variable.copy(deep=False, data=values), report, worst.picture(layout)


def _parts(
    shape: tuple[int, ...], dtype: np.dtype[Any], time_axis: int, cell_axes: int
) -> Iterator[Slices]:
    """Slices of a block that make one payload each: a dask chunk may be deeper than that."""
    before = len(shape) - cell_axes
    in_line = (prod(shape[:before]), *shape[before:])
    if in_line[0] <= whole_field_chunks(in_line, dtype.itemsize, cell_axes=cell_axes)[0]:
        yield (slice(None),) * len(shape)
        return
    chunks = whole_field_chunks(shape, dtype.itemsize, time_axis=time_axis, cell_axes=cell_axes)
    yield from product(*regular_cuts(shape, chunks))


def _within(block: Slices, part: Slices) -> Slices:
    """A part of a block, counted from where the array begins."""
    located = []
    for outer, inner in zip(block, part, strict=True):
        start, stop, _ = inner.indices(outer.stop - outer.start)
        located.append(slice(outer.start + start, outer.start + stop))
    return tuple(located)


def _decode_later(
    codec: COINppCodec, payloads: list[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Any:
    """A dask array of one block."""
    import dask
    import dask.array

    return dask.array.from_delayed(
        dask.delayed(_decode_block, pure=False)(codec, payloads, shape, dtype), shape, dtype
    )


def _decode_block(
    codec: COINppCodec, payloads: list[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> Values:
    values = np.empty(shape, dtype)
    parts = _parts(shape, dtype, codec.time_axis or 0, codec.cell_axes_of(shape))
    for part, payload in zip(parts, payloads, strict=True):
        values[part] = codec.decode(payload)
    return values


@contextmanager
def _codec_warnings(texts: list[str]) -> Iterator[None]:
    """Collects what the codec warns of: once per chunk it would bury the one line that matters."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CompressionWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, CompressionWarning):
            texts.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
