"""``ds.coinpp`` and ``da.coinpp``: compression and its report, straight from xarray objects."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from itertools import accumulate, pairwise, product
from time import perf_counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data import horizontal_axes
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.report import (
    COMPRESSED,
    GLOBE_ERRORS,
    Report,
    VariableReport,
    globe_errors,
    plot_maps,
    variable_report,
)
from coinpp_xr.xarray_encoding import whole_globe_chunks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from coinpp_xr.codecs.sphere import COINppCodec
    from coinpp_xr.models import Model

Values = npt.NDArray[Any]
Bits = int | Mapping[str, int] | None
Bound = float | Mapping[str, float] | None

_KINDS = {
    "i": "integers",
    "u": "integers",
    "b": "booleans",
    "c": "complex numbers",
    "M": "dates",
    "m": "time spans",
}


def register() -> None:
    """Make ``coinpp`` an attribute of every Dataset and DataArray; once is enough."""
    if not hasattr(xr.Dataset, "coinpp"):
        xr.register_dataset_accessor("coinpp")(DatasetAccessor)  # type: ignore[no-untyped-call]
        xr.register_dataarray_accessor("coinpp")(DataArrayAccessor)  # type: ignore[no-untyped-call]


class DatasetAccessor:
    """COIN++ compression of the variables of a Dataset, as ``ds.coinpp``."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def compress(
        self,
        bits: Bits = None,
        *,
        model: str | Model = "t2m-46x90",
        effort: str = "default",
        variables: str | Iterable[str] | None = None,
        max_error: Bound = None,
        target_rmse: Bound = None,
    ) -> CompressionResult:
        """Compress in memory and decompress again, to see size and error.

        The codec gets the data's own latitude and longitude. Each chunk of at most 256 globes
        becomes one payload. Data in dask arrays is read chunk by chunk, and the reconstruction is
        a dask array that decodes the payloads when it is computed.

        Parameters
        ----------
        bits : int or mapping, optional
            Bits per latent, 1 to 16. Like the other rate controls for all variables, or
            ``{"t2m": 8}`` by name; of the controls a variable takes one.
        model : str or Model
        effort : {"default", "fast", "best", "paper"}
            How hard the encoder looks for the latents.
        variables : str or iterable of str, optional
            Default: every float variable with latitude and longitude. Others are left alone,
            and the report says why.
        max_error, target_rmse : float or mapping, optional
            In the unit of the variable.

        Returns
        -------
        CompressionResult

        Raises
        ------
        ValueError
            If a variable does not exist or cannot be compressed, or if none can.
        ModelNotFoundError

        Warns
        -----
        CompressionWarning
            If the codec stores a variable without loss because the model was not made for it, or
            if no rate control is given.
        """
        return _compress(
            self._dataset,
            variables=variables,
            rates={"bits": bits, "max_error": max_error, "target_rmse": target_rmse},
            model=model,
            effort=effort,
        )


class DataArrayAccessor:
    """COIN++ compression of a DataArray, as ``da.coinpp``."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def compress(
        self,
        bits: Bits = None,
        *,
        model: str | Model = "t2m-46x90",
        effort: str = "default",
        max_error: Bound = None,
        target_rmse: Bound = None,
    ) -> CompressionResult:
        """Compress in memory and decompress again; see :meth:`DatasetAccessor.compress`."""
        name = "field" if self._array.name is None else self._array.name
        if name in self._array.coords:
            raise ValueError(f"cannot compress the coordinate {name!r}")
        result = _compress(
            self._array.to_dataset(name=name),
            variables=[name],
            rates={"bits": bits, "max_error": max_error, "target_rmse": target_rmse},
            model=model,
            effort=effort,
        )
        result.dataarray = result.dataset[name].rename(self._array.name)
        return result


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

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads, without the model."""
        return self.report.nbytes

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes of the encoded variables per compressed byte."""
        return self.report.ratio

    def plot(self, variable: str | None = None, item: int = 0) -> Figure:
        """Maps of original, reconstruction and residual.

        Parameters
        ----------
        variable : str, optional
            Default: the first one that was encoded.
        item : int
            Position of the globe along the other axes, flattened in C order;
            ``result.report["t2m"].worst_globe_index`` is the one with the largest error.

        Raises
        ------
        ValueError, IndexError
            If the variable was not encoded or has not that many globes.
        """
        encoded = [v.name for v in self.report.encoded]
        name = encoded[0] if variable is None else variable
        if name not in encoded:
            raise ValueError(f"{name!r} was not compressed; there are: {', '.join(encoded)}")
        return plot_maps(self._original[name], self.dataset[name], item=item)

    def __repr__(self) -> str:
        return f"<coinpp_xr.CompressionResult: {self.report.headline}>\n{self.report}"

    def _repr_html_(self) -> str:
        return (
            f'<div class="coinpp-report"><div class="coinpp-head">'
            f"<span>coinpp_xr.CompressionResult</span>{escape(self.report.headline)}</div>"
            f"{self.report._repr_html_()}"
            f"<details><summary>Reconstruction</summary>{self.dataset._repr_html_()}</details>"
            "</div>"
        )


# ---- the round trip -----------------------------------------------------------------------------


def _compress(
    dataset: xr.Dataset,
    *,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any],
    model: str | Model,
    effort: str,
) -> CompressionResult:
    from coinpp_xr.models import load_model

    for control in rates.values():
        if isinstance(control, Mapping):
            _check_names(control, dataset)
    asked = None
    if variables is not None:
        asked = [variables] if isinstance(variables, str) else list(variables)
        _check_names(asked, dataset)

    reasons = {}
    for name, array in dataset.data_vars.items():
        reason = _why_not(array)
        if reason and asked is not None and name in asked:
            raise ValueError(f"cannot compress {name!r}: {reason}")
        if not reason and asked is not None and name not in asked:
            reason = "left alone: not asked for"
        reasons[name] = reason
    if all(reasons.values()):
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"no variable can be compressed ({listed or 'there is none'})")

    found = load_model(model)
    # A wrong argument for the last variable should not wait for the first ones.
    codecs, warned = {}, {}
    for name, reason in reasons.items():
        if not reason:
            with _codec_warnings() as texts:
                codecs[name] = _codec(dataset[name], found, effort, rates)
            if texts:
                warned[name] = texts[0]
    if warned:
        text = f"{_join(warned)}: {next(iter(warned.values()))}"
        warnings.warn(text, CompressionWarning, stacklevel=3)
    reports, decoded = [], {}
    for name, reason in reasons.items():
        if reason:
            reports.append(VariableReport(name=str(name), outcome=reason))
            continue
        decoded[name], variable = _round_trip(dataset[name], codecs[name], found)
        reports.append(variable)
    return CompressionResult(dataset.assign(decoded), Report.of(reports, found), _original=dataset)


def _check_names(names: Iterable[Any], dataset: xr.Dataset) -> None:
    known = list(map(str, dataset.data_vars))
    for name in names:
        if name not in dataset.data_vars:
            near = difflib.get_close_matches(str(name), known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {_join(known)}"
            raise ValueError(f"no variable {name!r}; {hint}")


def _join(names: Iterable[Any]) -> str:
    return ", ".join(map(str, names)) or "none at all"


def _why_not(array: xr.DataArray) -> str:
    """Why a variable cannot be compressed, in plain words; empty if it can."""
    if array.dtype.kind != "f":
        return f"{_KINDS.get(array.dtype.kind, 'text or objects')}: kept as they are"
    try:
        latitude, longitude = horizontal_axes(array)
    except ValueError as error:
        if array.ndim < 2:
            return "no latitude/longitude"
        # The message opens with the variable's name and dimensions, which the reader sees anyway.
        return f"no latitude/longitude: {str(error).partition(') ')[2]}"
    if array.size == 0:
        return "no values"
    try:
        SphereGrid(latitude.to_numpy(), longitude.to_numpy())
    except ValueError as error:
        return str(error)
    return ""


def _codec(array: xr.DataArray, model: Model, effort: str, rates: Mapping[str, Any]) -> COINppCodec:
    from coinpp_xr.codecs.sphere import COINppCodec

    latitude, longitude = horizontal_axes(array)
    own: dict[str, Any] = {
        control: value.get(array.name) if isinstance(value, Mapping) else value
        for control, value in rates.items()
    }
    return COINppCodec(
        model,
        latitude=latitude.to_numpy(),
        longitude=longitude.to_numpy(),
        effort=effort,
        **own,
    )


def _round_trip(
    array: xr.DataArray, codec: COINppCodec, model: Model
) -> tuple[xr.Variable, VariableReport]:
    """Encode and decode one variable block by block."""
    variable = array.variable
    latitude, longitude = horizontal_axes(array)
    horizontal = (*latitude.dims, *longitude.dims)
    order = [*(dim for dim in variable.dims if dim not in horizontal), *horizontal]
    to_order = [variable.dims.index(dim) for dim in order]
    from_order = [order.index(dim) for dim in variable.dims]
    lazy = variable.chunks is not None

    cuts = _cuts(variable, order)
    errors = np.zeros([variable.sizes[dim] for dim in order[:-2]], GLOBE_ERRORS)
    blocks = np.empty([len(slices) for slices in cuts], dtype=object)
    values = None if lazy else np.empty(variable.shape, variable.dtype)
    tally = _Tally()
    for location in np.ndindex(*blocks.shape):
        where = tuple(slices[i] for slices, i in zip(cuts, location, strict=True))
        selected = variable.isel(dict(zip(order, where, strict=True)))
        original = selected.to_numpy().transpose(to_order)
        decoded = np.empty_like(original)
        payloads = []
        for part in _parts(original):
            payloads.append(tally.encode(codec, original[part]))
            decoded[part] = tally.decode(codec, payloads[-1])
        errors[where[:-2]] = globe_errors(original, decoded, latitude.to_numpy())
        if values is not None:
            values.transpose(to_order)[where] = decoded
        elif all(_is_lossless(payload) for payload in payloads):
            # The same bits again: no need to hold payloads that are about as large as the data.
            blocks[location] = selected.data.transpose(to_order)
        else:
            blocks[location] = _decode_later(codec, payloads, original.shape, original.dtype)

    if values is None:
        import dask.array

        values = dask.array.block(blocks.tolist()).transpose(from_order)
    if tally.warned:
        warnings.warn(f"{array.name}: {tally.warned[0]}", CompressionWarning, stacklevel=4)
    report = variable_report(
        array,
        errors,
        nbytes=tally.nbytes,
        model_nbytes=model.nbytes,
        outcome=tally.outcome(),
        encode_seconds=tally.encode_seconds,
        decode_seconds=tally.decode_seconds,
    )
    return variable.copy(deep=False, data=values), report


def _cuts(variable: xr.Variable, order: list[Any]) -> list[list[slice]]:
    """Along every axis in ``order``, the slices that are read at a time; globes stay whole."""
    shape = [variable.sizes[dim] for dim in order]
    if variable.chunks is not None:
        sizes = [variable.chunksizes[dim] for dim in order]
        if all(len(parts) == 1 for parts in sizes[-2:]):
            edges = ([0, *accumulate(parts)] for parts in sizes)
            return [
                [slice(*pair) for pair in pairwise(axis) if pair[0] < pair[1]] for axis in edges
            ]
    # In memory, in a file, or in dask chunks that cut globes, which are then read across.
    array = SimpleNamespace(shape=shape, dtype=variable.dtype, chunks=None)
    return _regular(shape, whole_globe_chunks(array))


def _parts(values: Values) -> Iterator[tuple[slice, ...]]:
    """Slices of a block that make one payload each: a dask chunk may be deeper than that."""
    globes = values.reshape(-1, *values.shape[-2:])
    in_line = SimpleNamespace(shape=globes.shape, dtype=values.dtype, chunks=None)
    if len(globes) <= whole_globe_chunks(in_line)[0]:
        yield (slice(None),) * values.ndim
        return
    as_is = SimpleNamespace(shape=values.shape, dtype=values.dtype, chunks=None)
    yield from product(*_regular(values.shape, whole_globe_chunks(as_is)))


def _regular(shape: Iterable[int], chunks: Iterable[int]) -> list[list[slice]]:
    return [
        [slice(start, min(start + depth, length)) for start in range(0, length, depth)]
        for length, depth in zip(shape, chunks, strict=True)
    ]


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
    for part, payload in zip(_parts(values), payloads, strict=True):
        values[part] = codec.decode(payload)
    return values


def _is_lossless(payload: bytes) -> bool:
    from coinpp_xr.bitstream import Kind, Payload

    return Payload.unpack(payload).kind == Kind.LOSSLESS


@contextmanager
def _codec_warnings() -> Iterator[list[str]]:
    """What the codec warns of: once per chunk it would bury the one line that matters."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CompressionWarning)
        yield texts
    for warning in caught:
        if issubclass(warning.category, CompressionWarning):
            texts.append(str(warning.message))
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )


class _Tally:
    """Sizes, times and what the codec warned of, over all payloads of one variable."""

    def __init__(self) -> None:
        self.nbytes = self.payloads = self.lossless = self.missing_only = 0
        self.encode_seconds = self.decode_seconds = 0.0
        self.warned: list[str] = []

    def encode(self, codec: COINppCodec, values: Values) -> bytes:
        with _codec_warnings() as warned:
            start = perf_counter()
            payload: bytes = codec.encode(values)
            self.encode_seconds += perf_counter() - start
        self.warned += warned
        self.nbytes += len(payload)
        self.payloads += 1
        if _is_lossless(payload):
            self.lossless += 1
            self.missing_only += not np.isfinite(values).any()
        return payload

    def decode(self, codec: COINppCodec, payload: bytes) -> Values:
        start = perf_counter()
        values: Values = codec.decode(payload)
        self.decode_seconds += perf_counter() - start
        return values

    def outcome(self) -> str:
        if not self.lossless:
            return COMPRESSED
        if self.warned:
            reason = self.warned[0].partition(";")[0]
        elif self.missing_only == self.lossless:
            reason = "missing values only"
        else:
            reason = "constant, or so small that a lossless copy takes no more"
        if self.lossless == self.payloads:
            return f"stored without loss: {reason}"
        return (
            f"{COMPRESSED}, except for {self.lossless} of {self.payloads} chunks stored without "
            f"loss: {reason}"
        )
