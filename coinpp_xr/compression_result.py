"""What ``ds.coinpp.compress()`` gives: a reconstruction, its report, pictures, and parts of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from coinpp_xr.bits_map import plot_bits
from coinpp_xr.blockwise import WorstGlobe, cuts
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.errors import shown
from coinpp_xr.labels import in_digits
from coinpp_xr.lattice import Bound
from coinpp_xr.metrics import GLOBE_ERRORS
from coinpp_xr.notebook_html import block, details, head, numbers, picture
from coinpp_xr.plots import plot_result
from coinpp_xr.report import Report, times_smaller
from coinpp_xr.selection import Layout
from coinpp_xr.text_tables import WIDTH, printable
from coinpp_xr.variable_report import VariableReport, measured_errors

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
    _codecs: Mapping[Any, COINppCodec] = field(default_factory=dict, kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes of all payloads, without the model; of a part, too, those of the whole."""
        return self.report.nbytes

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes of the encoded variables per compressed byte, without the model."""
        return self.report.ratio

    def plot(self, kind: str = "errors", *, variable: str | None = None, item: int = 0) -> Figure:
        """Pictures of one variable: what came back, or where its bits went.

        Parameters
        ----------
        kind : {"errors", "bits"}
            Maps of original, reconstruction and residual, errors by area, and power spectra; or,
            under a bound, a map of about how many bits a cell takes.
        variable : str, optional
            Default: the first one that was encoded.
        item : int
            Position of the globe on the maps along the other axes, flattened in C order;
            ``result.report["t2m"].worst_globe_index`` is the one with the largest error.

        Returns
        -------
        matplotlib.figure.Figure
            See :func:`coinpp_xr.plots.plot_result` and :func:`coinpp_xr.bits_map.plot_bits`.
            Save it with ``figure.savefig("maps.png")``.

        Raises
        ------
        ImportError
            Without matplotlib.
        ValueError, IndexError
            If there is no such picture, the variable was not encoded or has not that many
            globes, or a part of it is too narrow for a map.
        """
        encoded = [v.name for v in self.report.encoded]
        name = encoded[0] if variable is None else variable
        if name not in encoded:
            raise ValueError(
                f"variable {name!r} was not compressed; there are: {', '.join(encoded)}"
            )
        if kind == "errors":
            return plot_result(self._original[name], self.dataset[name], item=item)
        if kind != "bits":
            hint = f"; for a variable: plot(variable={kind!r})" if kind in encoded else ""
            raise ValueError(f"kind must be 'errors' or 'bits', got {shown(kind)}{hint}")
        report = self.report[name]
        if not report.bound:
            raise ValueError(f"a map of bits needs max_error, and {name} was compressed without it")
        bound = Bound(report.bound, report.bound_relative)
        return plot_bits(self._original[name], bound, item=item)

    def decode_at(
        self, *, latitude: Any, longitude: Any, variable: str | None = None
    ) -> xr.DataArray:
        """One variable on other axes than those that were stored, from its latents.

        Parameters
        ----------
        latitude, longitude : array_like, shapes (n_lat,) and (n_lon,)
            Degrees.
        variable : str, optional
            Default: the first one that was encoded.

        Returns
        -------
        DataArray, shape (..., n_lat, n_lon)
            The network evaluated there: no finer than what its latents hold.

        Raises
        ------
        ValueError
            If the variable was not compressed with ``bits``, or not by the model's latents.
        """
        encoded = [v.name for v in self.report.encoded]
        name = encoded[0] if variable is None else variable
        codec = self._codecs.get(name)
        if codec is None or codec.bits is None:
            raise ValueError(f"{name!r} has no latents: compress it with bits to have it elsewhere")
        original = self._original[name]
        layout = Layout.of(original)
        values = original.transpose(*layout.dims).to_numpy()
        found = codec.decode_at(codec.encode(values), latitude=latitude, longitude=longitude)
        coords = {dim: original[dim] for dim in layout.batch if dim in original.coords}
        axes = {"latitude": np.asarray(latitude), "longitude": np.asarray(longitude)}
        dims = (*layout.batch, *axes)
        return xr.DataArray(found, {**coords, **axes}, dims, name, original.attrs)

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
                pair = (_with_cells(part[name], whole) for part in (original, decoded))
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
        first = printable(f"<coinpp_xr.CompressionResult: {self.report.headline}>")
        return f"{fill(first, WIDTH)}\n{self.report}"

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


def _measure(original: xr.DataArray, decoded: xr.DataArray) -> tuple[dict[str, Any], bytes]:
    """The errors of what is decoded already, block by block, and a picture of the worst globe."""
    layout, worst = Layout.of(original), WorstGlobe()
    errors = np.zeros([original.sizes[dim] for dim in layout.batch], GLOBE_ERRORS)
    for where in product(*cuts(original.variable, layout)):
        place = dict(zip(layout.dims, where, strict=True))
        before, after = (
            array.isel(place).transpose(*layout.dims).to_numpy() for array in (original, decoded)
        )
        errors[where[: -layout.cell_axes]] = worst.measure(before, after, layout)
    return measured_errors(original, errors), worst.picture(layout)


def _with_cells(part: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """A part whose dimensions of cells are there again where one of either is left."""
    cells = Horizontal.of(whole)
    for dim in () if cells.is_regular else cells.dims:
        if dim not in part.dims:
            part = part.expand_dims(dim)
    for axis in cells.axes or () if cells.is_regular else ():
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
