"""Compression in memory: a dataset through the codec and back, with a report."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise, product
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.data import horizontal_axes
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.labels import in_digits
from coinpp_xr.metrics import GLOBE_ERRORS, globe_errors
from coinpp_xr.models import Model, load_model
from coinpp_xr.notebook_html import block, details, field_png, head, numbers, picture
from coinpp_xr.plots import plot_result
from coinpp_xr.progress import Progress
from coinpp_xr.report import Report, times_smaller
from coinpp_xr.selection import Layout, check_rates, choose_variables, rates_by_variable
from coinpp_xr.variable_report import StoredChunk, VariableReport, measured_errors, variable_report
from coinpp_xr.xarray_encoding import whole_globe_chunks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = npt.NDArray[Any]
Slices = tuple[slice, ...]


@dataclass(repr=False)
class CompressionResult:
    """A reconstruction and what it cost.

    Parameters
    ----------
    dataset : Dataset
        The original's structure, attributes and dtypes with the values that decoding gives.
    report : Report
        Bytes, ratios, errors and times of every variable.
    dataarray : DataArray or None
        The reconstruction where a DataArray was compressed.
    """

    dataset: xr.Dataset
    report: Report
    dataarray: xr.DataArray | None = field(default=None, kw_only=True)
    _original: xr.Dataset = field(kw_only=True)
    # By variable: the residual of its worst globe, so that a notebook's view computes nothing.
    _pictures: dict[str, bytes] = field(default_factory=dict, kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads, without the model; of a part, too, those of the whole."""
        return self.report.nbytes

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes of the encoded variables per compressed byte, without the model."""
        return self.report.ratio

    def plot(self, variable: str | None = None, item: int = 0) -> Figure:
        """Maps of original, reconstruction and residual, errors by area, and power spectra.

        Parameters
        ----------
        variable : str, optional
            Default: the first one that was encoded.
        item : int
            Position of the globe on the maps along the other axes, flattened in C order;
            ``result.report["t2m"].worst_globe_index`` is the one with the largest error.

        Returns
        -------
        matplotlib.figure.Figure
            See :func:`coinpp_xr.plots.plot_result`. Save it with ``figure.savefig("maps.png")``.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError, IndexError
            If the variable was not encoded or has not that many globes, or a part of it is too
            narrow for a map.
        """
        encoded = [v.name for v in self.report.encoded]
        name = encoded[0] if variable is None else variable
        if name not in encoded:
            raise ValueError(
                f"variable {name!r} was not compressed; there are: {', '.join(encoded)}"
            )
        return plot_result(self._original[name], self.dataset[name], item=item)

    def sel(
        self,
        indexers: Mapping[Any, Any] | None = None,
        *,
        method: str | None = None,
        tolerance: Any = None,
        **indexers_by_name: Any,
    ) -> CompressionResult:
        """The result for a part, by coordinates: its errors are measured again.

        Bytes, ratios and chunks remain those of the whole, since a part has none of its own; the
        report says so.

        Parameters
        ----------
        indexers, method, tolerance, **indexers_by_name
            As for :meth:`xarray.Dataset.sel`.

        Returns
        -------
        CompressionResult
            With the selected reconstruction.

        Raises
        ------
        KeyError, ValueError
            If there are no such coordinates, or nothing is left.

        Examples
        --------
        >>> result.sel(time="2026-03", lat=slice(60, 30)).report  # doctest: +SKIP
        """
        chosen = {**(indexers or {}), **indexers_by_name}
        return self._part(chosen, lambda d: d.sel(chosen, method=method, tolerance=tolerance))

    def isel(
        self, indexers: Mapping[Any, Any] | None = None, **indexers_by_name: Any
    ) -> CompressionResult:
        """The result for a part, by positions; see :meth:`sel`."""
        chosen = {**(indexers or {}), **indexers_by_name}
        return self._part(chosen, lambda d: d.isel(chosen))

    def _part(self, chosen: Mapping[Any, Any], select: Callable[[Any], Any]) -> CompressionResult:
        original, decoded = select(self._original), select(self.dataset)
        variables: list[VariableReport] = []
        pictures: dict[str, bytes] = {}
        for variable in self.report:
            name = variable.name
            if variable.nbytes is not None:
                whole = self._original[name]
                pair = (_with_both_axes(part[name], whole) for part in (original, decoded))
                facts, picture = _measure(*pair)
                variable = replace(variable, **facts, worst_chunk_rmse=None, worst_chunk_label="")
                pictures |= {name: picture} if picture else {}
            variables.append(variable)
        labels = [_part_label(dim, original) for dim in chosen]
        part = ", ".join(filter(None, (self.report.part, *labels)))
        return CompressionResult(
            decoded,
            replace(self.report, variables=tuple(variables), part=part),
            dataarray=None if self.dataarray is None else select(self.dataarray),
            _original=original,
            _pictures=pictures,
        )

    def __repr__(self) -> str:
        return f"<coinpp_xr.CompressionResult: {self.report.headline}>\n{self.report}"

    def _repr_html_(self) -> str:
        report = self.report
        several = len(report.encoded) > 1
        return block(
            head("coinpp_xr.CompressionResult", report.headline),
            self._numbers_html(),
            self._picture_html(),
            # What the numbers above say of the first variable only should not be hidden.
            details("Table and notes", report.table_html(), is_open=several),
            details("Reconstruction", self.dataset._repr_html_()),
        )

    def _numbers_html(self) -> str:
        first = self.report.encoded[0]
        of = f" of {first.name}" if len(self.report.encoded) > 1 else ""
        return numbers([
            (times_smaller(self.ratio), "smaller than float32"),
            (f"{in_digits(first.rmse)} {first.unit}".rstrip(), f"RMSE{of}"),
            (f"{in_digits(first.max_error)} {first.unit}".rstrip(), f"largest error{of}"),
        ])  # fmt: skip

    def _picture_html(self) -> str:
        first = self.report.encoded[0]
        if first.name not in self._pictures:
            return ""
        caption = f"{first.name}: reconstruction − original"
        if first.n_globes > 1:
            caption += f", the worst of {first.n_globes:,} globes ({first.worst_globe_label})"
        return picture(self._pictures[first.name], f"{caption}; blue is too low, red too high")


def compress(
    dataset: xr.Dataset,
    *,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any],
    model: str | Model,
    effort: str,
) -> CompressionResult:
    """See :meth:`coinpp_xr.accessor.DatasetAccessor.compress`, which passes all arguments on."""
    check_rates(rates, dataset)
    chosen, reasons = choose_variables(dataset, variables)
    found = None if model == NO_MODEL else load_model(model)
    own = rates_by_variable(rates, chosen, has_model=found is not None)
    # A wrong argument for the last variable should not wait for the first ones.
    codecs = {}
    for name in chosen:
        settings: dict[str, Any] = {**Layout.of(dataset[name]).codec_settings, **own[name]}
        codecs[name] = COINppCodec(found or NO_MODEL, effort=effort, **settings)

    reports, decoded = [], {}
    pictures: dict[str, bytes] = {}
    with Progress("compressing", sum(dataset[name].size for name in chosen)) as progress:
        for name in dataset.data_vars:
            if name in reasons:
                reports.append(VariableReport(name=str(name), outcome=reasons[name]))
                continue
            decoded[name], variable, picture = _round_trip(
                dataset[name], codecs[name], found, progress
            )
            reports.append(variable)
            pictures |= {variable.name: picture} if picture else {}
    return CompressionResult(
        dataset.assign(decoded), Report(tuple(reports)), _original=dataset, _pictures=pictures
    )


def _round_trip(
    array: xr.DataArray, codec: COINppCodec, model: Model | None, progress: Progress
) -> tuple[xr.Variable, VariableReport, bytes]:
    """Encode and decode one variable block by block; also a picture of its worst globe."""
    variable, layout = array.variable, Layout.of(array)
    to_order = [variable.dims.index(dim) for dim in layout.dims]
    from_order = [layout.dims.index(dim) for dim in variable.dims]
    lazy = variable.chunks is not None

    cuts = _cuts(variable, layout)
    errors = np.zeros([variable.sizes[dim] for dim in layout.dims[:-2]], GLOBE_ERRORS)
    worst = _WorstGlobe()
    blocks = np.empty([len(slices) for slices in cuts], dtype=object)
    values = None if lazy else np.empty(variable.shape, variable.dtype)
    chunks: list[StoredChunk] = []
    warned: list[str] = []
    encode_seconds = decode_seconds = 0.0
    for location in np.ndindex(*blocks.shape):
        where = tuple(slices[i] for slices, i in zip(cuts, location, strict=True))
        selected = variable.isel(dict(zip(layout.dims, where, strict=True)))
        original = selected.to_numpy().transpose(to_order)
        decoded = np.empty_like(original)
        payloads, kinds = [], []
        for part in _parts(original.shape, original.dtype, layout.time_axis):
            start = perf_counter()
            with _codec_warnings(warned):
                payload: bytes = codec.encode(original[part])
            encoded = perf_counter()
            decoded[part] = codec.decode(payload)
            encode_seconds += encoded - start
            decode_seconds += perf_counter() - encoded
            payloads.append(payload)
            kinds.append(Payload.unpack(payload).kind)
            chunks.append(StoredChunk(_within(where, part)[:-2], len(payload), kinds[-1]))
            progress.step(original[part].size)
        errors[where[:-2]] = worst.measure(original, decoded, layout)
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
        encode_seconds=encode_seconds, decode_seconds=decode_seconds,
    )  # fmt: skip
    return variable.copy(deep=False, data=values), report, worst.picture(layout)


def _measure(original: xr.DataArray, decoded: xr.DataArray) -> tuple[dict[str, Any], bytes]:
    """The errors of what is decoded already, block by block, and a picture of the worst globe."""
    layout, worst = Layout.of(original), _WorstGlobe()
    errors = np.zeros([original.sizes[dim] for dim in layout.dims[:-2]], GLOBE_ERRORS)
    for where in product(*_cuts(original.variable, layout)):
        place = dict(zip(layout.dims, where, strict=True))
        before, after = (
            array.isel(place).transpose(*layout.dims).to_numpy() for array in (original, decoded)
        )
        errors[where[:-2]] = worst.measure(before, after, layout)
    return measured_errors(original, errors), worst.picture(layout)


class _WorstGlobe:
    """Measures block after block and keeps the residual of the globe with the largest RMSE."""

    def __init__(self) -> None:
        self._mean_square = -1.0
        self._residual: npt.NDArray[np.float32] | None = None

    def measure(self, original: Values, decoded: Values, layout: Layout) -> npt.NDArray[np.void]:
        errors = globe_errors(original, decoded, layout.latitude)
        mean_squares = np.full(errors.shape, -1.0)
        np.divide(errors["squared"], errors["weight"], out=mean_squares, where=errors["valid"] > 0)
        place = np.unravel_index(mean_squares.argmax(), errors.shape)
        if mean_squares[place] > self._mean_square:
            self._mean_square = float(mean_squares[place])
            globe = original[place].astype(np.float64)
            with np.errstate(invalid="ignore"):
                residual = decoded[place] - globe
            self._residual = np.where(np.isfinite(globe), residual, np.nan).astype(np.float32)
        return errors

    def picture(self, layout: Layout) -> bytes:
        """A PNG; empty where no cell is valid."""
        if self._residual is None:
            return b""
        return field_png(self._residual, layout.latitude, layout.longitude)


def _with_both_axes(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """A part whose latitude and longitude are dimensions again where one of either is left."""
    for axis in horizontal_axes(whole):
        (dim,) = axis.dims
        if dim in part.dims:
            continue
        if axis.name not in part.coords or part[axis.name].ndim:
            raise ValueError(
                f"{whole.name}: select {axis.name} by a value, a list or a slice, not by an array "
                "with a dimension of its own: errors are measured on a grid"
            )
        value = part[axis.name].to_numpy()
        part = part.expand_dims(dim).assign_coords({axis.name: (dim, [value], axis.attrs)})
    if part.size == 0:
        raise ValueError(f"{whole.name}: nothing is left by this selection, which has no cells")
    return part


def _part_label(dim: Any, part: xr.Dataset) -> str:
    """``lat=60 … 30``: what is left of a dimension."""
    if dim not in part.coords:
        return f"{dim}: {part.sizes.get(dim, 1)} of its positions"
    values = part[dim].to_numpy().reshape(-1)
    if values.dtype.kind == "M":
        values = np.datetime_as_string(values, unit="m")
    return f"{dim}={' … '.join(dict.fromkeys(str(value) for value in values[[0, -1]]))}"


def _cuts(variable: xr.Variable, layout: Layout) -> list[list[slice]]:
    """Along every axis of the layout, the slices that are read at a time; globes stay whole."""
    if variable.chunks is not None:
        sizes = [variable.chunksizes[dim] for dim in layout.dims]
        if all(len(parts) == 1 for parts in sizes[-2:]):
            edges = ([0, *accumulate(parts)] for parts in sizes)
            return [
                [slice(*pair) for pair in pairwise(axis) if pair[0] < pair[1]] for axis in edges
            ]
    # In memory, in a file, or in dask chunks that cut globes, which are then read across.
    shape = [variable.sizes[dim] for dim in layout.dims]
    return _regular(shape, layout.chunks(variable.sizes, variable.dtype.itemsize))


def _parts(shape: tuple[int, ...], dtype: np.dtype[Any], time_axis: int) -> Iterator[Slices]:
    """Slices of a block that make one payload each: a dask chunk may be deeper than that."""
    in_line = (prod(shape[:-2]), *shape[-2:])
    if in_line[0] <= whole_globe_chunks(in_line, dtype.itemsize)[0]:
        yield (slice(None),) * len(shape)
        return
    yield from product(
        *_regular(shape, whole_globe_chunks(shape, dtype.itemsize, time_axis=time_axis))
    )


def _regular(shape: Iterable[int], chunks: Iterable[int]) -> list[list[slice]]:
    return [
        [slice(start, min(start + depth, length)) for start in range(0, length, depth)]
        for length, depth in zip(shape, chunks, strict=True)
    ]


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
    parts = _parts(shape, dtype, codec.time_axis or 0)
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
