"""What compression did to the data: error metrics, tables, an HTML repr and maps."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind
from coinpp_xr.codecs.base import NO_MODEL, Rate
from coinpp_xr.coordinates import area_weights
from coinpp_xr.data import horizontal_axes

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure
    from rich.console import Group

    from coinpp_xr.models import Model

COMPRESSED = "compressed"

_TEXT_WIDTH = 100
# Errors are summed in slabs of about this many cells, so that float64 copies stay small.
_CELLS_PER_SLAB = 2**20

# Per-globe sums: of area weights, weighted squared and signed errors, plain squared errors; the
# largest absolute error; numbers of valid and missing cells; the original's lowest and highest
# value (∞ and −∞ without a valid cell).
GLOBE_ERRORS = np.dtype(
    [
        ("weight", "f8"),
        ("squared", "f8"),
        ("signed", "f8"),
        ("plain", "f8"),
        ("largest", "f8"),
        ("valid", "i8"),
        ("missing", "i8"),
        ("low", "f8"),
        ("high", "f8"),
    ]
)


# ---- units ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DisplayUnit:
    """The unit that people read: shown = scale × value + offset; differences take no offset."""

    label: str
    scale: float = 1.0
    offset: float = 0.0


def display_unit(attrs: Mapping[Any, Any]) -> DisplayUnit:
    """°C for temperatures in K, °C or °F, otherwise the unit that the attributes name.

    Parameters
    ----------
    attrs : mapping
        Attributes of a variable. ``units`` is parsed; ``units_metadata`` (CF 1.11) or a standard
        name with ``anomaly`` marks a temperature difference, which has no zero to move.

    Returns
    -------
    DisplayUnit
        With an empty label where there are no units.
    """
    text = str(attrs.get("units", ""))
    celsius = _to_celsius(text)
    if celsius is None:
        return DisplayUnit(text)
    scale, offset = celsius
    is_difference = attrs.get("units_metadata") == "temperature: difference" or "anomaly" in str(
        attrs.get("standard_name", "")
    )
    return DisplayUnit("°C", scale, 0.0 if is_difference else offset)


@cache
def _to_celsius(text: str) -> tuple[float, float] | None:
    """Scale and offset from a temperature unit to °C; None for any other unit."""
    # No name of these units holds a digit, and arithmetic in an attribute is not worth parsing.
    if not text or any(c.isdigit() for c in text):
        return None
    from cf_xarray.units import units

    scales = {
        units.Unit("kelvin"): (1.0, -273.15),
        units.Unit("degree_Celsius"): (1.0, 0.0),
        units.Unit("degree_Fahrenheit"): (5 / 9, -160 / 9),
    }
    for spelling in (text, text.lower()):  # "Kelvin" and "Fahrenheit" are common in files
        try:
            unit = units.Unit(spelling)
        except Exception:  # pint's parser has errors of many kinds
            continue
        return scales.get(unit)
    return None


# ---- metrics ----------------------------------------------------------------------------------


def globe_errors(
    original: npt.NDArray[Any], reconstruction: npt.NDArray[Any], latitude: npt.ArrayLike
) -> npt.NDArray[np.void]:
    """Sums over every globe from which all errors of a report follow.

    Parameters
    ----------
    original, reconstruction : float array, shape (..., n_lat, n_lon)
        Cells where the original is NaN or infinite count as missing.
    latitude : array_like, shape (n_lat,)
        Degrees north; a cell weighs as cos(latitude).

    Returns
    -------
    structured array of dtype GLOBE_ERRORS, shape (...)
        In the unit of the data.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if original.shape != reconstruction.shape:
        raise ValueError(
            f"original and reconstruction differ in shape: {original.shape}, {reconstruction.shape}"
        )
    batch, (n_lat, n_lon) = original.shape[:-2], original.shape[-2:]
    weights = area_weights(latitude, n_lon)
    globes = original.reshape(-1, n_lat, n_lon)
    decoded = reconstruction.reshape(-1, n_lat, n_lon)
    sums = np.zeros(len(globes), GLOBE_ERRORS)
    per_slab = max(1, _CELLS_PER_SLAB // (n_lat * n_lon))
    for start in range(0, len(globes), per_slab):
        slab = slice(start, start + per_slab)
        valid = np.isfinite(globes[slab])
        error = np.zeros(valid.shape)
        # Half precision is converted first: its differences would overflow at 65,504.
        np.subtract(decoded[slab], globes[slab], out=error, where=valid, dtype=np.float64)
        row = sums[slab]
        row["weight"] = (weights * valid).sum((1, 2))
        row["squared"] = (weights * error**2).sum((1, 2))
        row["signed"] = (weights * error).sum((1, 2))
        row["plain"] = (error**2).sum((1, 2))
        row["largest"] = np.abs(error).max((1, 2))
        row["valid"] = valid.sum((1, 2))
        row["missing"] = n_lat * n_lon - row["valid"]
        row["low"] = np.min(globes[slab], (1, 2), where=valid, initial=np.inf)
        row["high"] = np.max(globes[slab], (1, 2), where=valid, initial=-np.inf)
    return sums.reshape(batch)


@dataclass(frozen=True)
class StoredChunk:
    """One payload: which globes it holds, and how.

    Parameters
    ----------
    where : tuple of slice
        Along the axes other than latitude and longitude, in the array's order.
    nbytes : int
    kind : Kind
    """

    where: tuple[slice, ...]
    nbytes: int
    kind: Kind


@dataclass(frozen=True, kw_only=True)
class VariableReport:
    """What happened to one variable, and at what cost and error.

    Parameters
    ----------
    name : str
    outcome : str
        ``compressed``, or in plain words why the variable, or parts of it, were not.
    unit : str
        Of all errors: °C for temperatures in K, °C or °F, else the variable's own, "" if unknown.
    n_globes, n_points, missing_cells : int
        Missing cells are NaN or infinite in the original; no error counts them.
    nbytes : int or None
        Of all payloads, without a model; None for a variable that was left alone.
    schemes : dict
        How many chunks are stored in which way, such as ``{"latents in time": 3, "grid": 1}``.
    model : str
        Name of the model that decoding needs; ``none`` if it needs none.
    model_nbytes : int
        What it takes: in the store's metadata if it is embedded, else the size of its file. A
        model that is embedded in vain counts, too.
    model_embedded : bool
    model_choice : str
        Why this model, where several could be had.
    bits : int or None
        Per latent, as asked.
    target_rmse : float or None
        As asked, for every chunk.
    bound : float or None
        As asked, for every value; a fraction of it where ``bound_relative``.
    bound_relative : bool
    rmse : float or None
        Weighted by cos(latitude), over all valid cells of all globes.
    rmse_plain : float or None
        Every cell of the grid counts the same, those at the poles too.
    max_error : float or None
        Largest absolute error of a cell.
    bias : float or None
        Area-weighted mean of reconstruction − original.
    worst_chunk_rmse : float or None
        The largest area-weighted RMSE of a single chunk, which the target holds for.
    worst_chunk_label : str
        Its coordinates along the axes other than latitude and longitude.
    worst_globe_rmse : float or None
        The largest area-weighted RMSE of a single globe.
    worst_globe_index : int or None
        Its position in C order along the axes other than latitude and longitude.
    worst_globe_label : str
        Its coordinates along those axes.
    encode_seconds, decode_seconds : float or None
        Time in the codec alone, without reading the data.

    All errors are None where nothing was encoded or no cell is valid.
    """

    name: str
    outcome: str
    unit: str = ""
    n_globes: int = 0
    n_points: int = 0
    missing_cells: int = 0
    nbytes: int | None = None
    schemes: dict[str, int] = field(default_factory=dict)
    model: str = NO_MODEL
    model_nbytes: int = 0
    model_embedded: bool = False
    model_choice: str = ""
    bits: int | None = None
    target_rmse: float | None = None
    bound: float | None = None
    bound_relative: bool = False
    rmse: float | None = None
    rmse_plain: float | None = None
    max_error: float | None = None
    bias: float | None = None
    worst_chunk_rmse: float | None = None
    worst_chunk_label: str = ""
    worst_globe_rmse: float | None = None
    worst_globe_index: int | None = None
    worst_globe_label: str = ""
    encode_seconds: float | None = None
    decode_seconds: float | None = None

    @property
    def raw_nbytes_float32(self) -> int:
        """Size of the values as plain float32, whatever their own dtype."""
        return 4 * self.n_points

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes per compressed byte."""
        return _per_byte(self.raw_nbytes_float32, self.nbytes)

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with the model added to the compressed bytes."""
        return _per_byte(self.raw_nbytes_float32, (self.nbytes or 0) + self.model_nbytes)

    @property
    def bits_per_point(self) -> float | None:
        """Compressed bits per grid point (bpp), without the model."""
        return None if self.nbytes is None else 8 * self.nbytes / self.n_points

    @property
    def asked(self) -> str:
        """The target or bound, for people; empty if there was none."""
        if self.bound is not None:
            return f"±{100 * self.bound:g} %" if self.bound_relative else f"±{_number(self.bound)}"
        return "" if self.target_rmse is None else f"RMSE {_number(self.target_rmse)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings and None."""
        return asdict(self) | {
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "bits_per_point": self.bits_per_point,
        }


def _per_byte(raw: int, nbytes: int | None) -> float | None:
    return raw / nbytes if nbytes else None


def variable_report(
    array: xr.DataArray,
    errors: npt.NDArray[np.void],
    chunks: Sequence[StoredChunk],
    *,
    model: Model | None,
    rate: Rate,
    embedded_nbytes: int = 0,
    model_choice: str = "",
    encode_seconds: float | None = None,
    decode_seconds: float | None = None,
) -> VariableReport:
    """Summarise the errors of one variable.

    Parameters
    ----------
    array : DataArray
        The original: its name, attributes and coordinates are used, not its values.
    errors : structured array of dtype GLOBE_ERRORS
        One entry per globe, in the shape and order of the array's axes other than latitude and
        longitude; see :func:`globe_errors`.
    chunks : sequence of StoredChunk
        What was written. A chunk of fill values only, which Zarr does not write, is not among
        them.
    model : Model or None
        That was at hand for it.
    rate : Rate
        In the data's unit.
    embedded_nbytes : int
        What the model takes in the store's metadata; 0 if it is not there.
    model_choice : str
    encode_seconds, decode_seconds : float, optional
    """
    latitude, longitude = horizontal_axes(array)
    horizontal = {*latitude.dims, *longitude.dims}
    batch = [dim for dim in array.dims if dim not in horizontal]
    unit = display_unit(array.attrs)
    measured: dict[str, Any] = {}
    if (seen := errors[errors["valid"] > 0]).size:
        mean_squares = np.zeros(errors.shape)
        np.divide(errors["squared"], errors["weight"], out=mean_squares, where=errors["valid"] > 0)
        worst = int(mean_squares.argmax())
        area = seen["weight"].sum()
        measured = {
            "rmse": unit.scale * float(np.sqrt(seen["squared"].sum() / area)),
            "rmse_plain": unit.scale * float(np.sqrt(seen["plain"].sum() / seen["valid"].sum())),
            "max_error": unit.scale * float(seen["largest"].max()),
            "bias": unit.scale * float(seen["signed"].sum() / area),
            "worst_globe_rmse": unit.scale * float(np.sqrt(mean_squares.max())),
            "worst_globe_index": worst,
            "worst_globe_label": _globe_label(array, batch, worst),
        }
        if chunks:
            rmse, chunk = max(
                ((chunk_rmse(errors[chunk.where]), chunk) for chunk in chunks), key=lambda c: c[0]
            )
            measured["worst_chunk_rmse"] = unit.scale * rmse
            measured["worst_chunk_label"] = place_label(array, batch, chunk.where)
    needed = model is not None and any(chunk.kind.has_model for chunk in chunks)
    target, bound = rate.target_rmse, rate.bound
    if bound is not None and not bound.relative:
        bound = replace(bound, error=unit.scale * bound.error)
    return VariableReport(
        name=str(array.name),
        outcome=_outcome(errors, chunks, model, rate.bits),
        unit=unit.label,
        n_globes=errors.size,
        n_points=array.size,
        missing_cells=int(errors["missing"].sum()),
        nbytes=sum(chunk.nbytes for chunk in chunks),
        schemes=dict(Counter(_in_words(chunk.kind) for chunk in chunks)),
        model=model.name if model is not None and (needed or embedded_nbytes) else NO_MODEL,
        model_nbytes=embedded_nbytes or (model.nbytes if model is not None and needed else 0),
        model_embedded=embedded_nbytes > 0,
        model_choice=model_choice,
        bits=rate.bits,
        target_rmse=None if target is None else unit.scale * target,
        bound=None if bound is None else bound.error,
        bound_relative=bound is not None and bound.relative,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        **measured,
    )


def chunk_rmse(errors: npt.NDArray[np.void]) -> float:
    """Area-weighted RMSE over the valid cells of some globes; 0 if there are none."""
    weight = float(errors["weight"].sum())
    return float(np.sqrt(errors["squared"].sum() / weight)) if weight else 0.0


def _in_words(kind: Kind) -> str:
    return kind.name.lower().replace("_", " ")


def _outcome(
    errors: npt.NDArray[np.void],
    chunks: Sequence[StoredChunk],
    model: Model | None,
    bits: int | None,
) -> str:
    """``compressed``, or why some chunks were not."""
    if not errors["valid"].any():
        return "stored without loss: missing values only"
    kept = [errors[chunk.where] for chunk in chunks if chunk.kind == Kind.LOSSLESS]
    if not kept:
        return COMPRESSED
    lows, highs = [e["low"].min() for e in kept], [e["high"].max() for e in kept]
    if all(low > high for low, high in zip(lows, highs, strict=True)):
        reason = "missing values only"
    elif all(low >= high for low, high in zip(lows, highs, strict=True)):
        reason = "constant, or missing values only"
    elif bits is None or model is None:
        reason = "nothing smaller meets the target"
    else:
        reason = (
            f"values {min(lows):.6g} … {max(highs):.6g}, which model {model.name!r} "
            f"({model.offset:.6g} … {model.offset + model.scale:.6g} {model.units}) does not "
            "explain, or too few to gain anything"
        )
    if len(kept) == len(chunks):
        return f"stored without loss: {reason}"
    return (
        f"{COMPRESSED}, except for {len(kept)} of {len(chunks)} chunks stored without loss: "
        f"{reason}"
    )


def _globe_label(array: xr.DataArray, batch: list[Any], index: int) -> str:
    """``time=2026-03-25T07:00, member=3`` for a flat index along the batch dimensions."""
    if not batch:
        return ""
    positions = np.unravel_index(index, [array.sizes[dim] for dim in batch])
    pairs = zip(batch, positions, strict=True)
    return ", ".join(f"{dim}={_coordinate(array, dim, int(position))}" for dim, position in pairs)


def place_label(array: xr.DataArray, dims: Sequence[Any], where: Sequence[slice]) -> str:
    """``time=2026-03-25T07:00 … 2026-05-28T01:00, member=3`` for a part of an array."""
    parts = []
    for dim, part in zip(dims, where, strict=True):
        first, last, _ = part.indices(array.sizes[dim])
        ends = dict.fromkeys(str(_coordinate(array, dim, i)) for i in (first, last - 1))
        parts.append(f"{dim}={' … '.join(ends)}")
    return ", ".join(parts)


def _coordinate(array: xr.DataArray, dim: Any, position: int) -> Any:
    """The coordinate at a position, or the position where there is none."""
    if dim not in array.coords:
        return position
    value = array[dim].to_numpy()[position]
    return np.datetime_as_string(value, unit="m") if isinstance(value, np.datetime64) else value


def plain_text(shown: Any) -> str:
    """What rich shows of a thing, as text without colours, whatever it would be shown in."""
    from rich.console import Console

    # Told not to, rich neither looks for a notebook to write into nor adds colours.
    console = Console(
        file=io.StringIO(),
        width=_TEXT_WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
    )
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(map(str.rstrip, capture.get().splitlines())).strip("\n")


# ---- report -----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Report:
    """What compression did to every variable of a dataset.

    Indexed by variable name. Prints as a table, shows as HTML in notebooks.

    Parameters
    ----------
    variables : tuple of VariableReport
        In the order of the dataset.
    metadata_nbytes : int or None
        Of the store's metadata, without the models in it; None where there is no store.
    other_nbytes : int or None
        What coordinates and the variables that were left alone take in the store.
    """

    variables: tuple[VariableReport, ...]
    metadata_nbytes: int | None = None
    other_nbytes: int | None = None

    def __getitem__(self, name: str) -> VariableReport:
        for variable in self.variables:
            if variable.name == name:
                return variable
        names = ", ".join(variable.name for variable in self.variables)
        raise KeyError(f"no variable {name!r} in this report; there are: {names}")

    def __iter__(self) -> Iterator[VariableReport]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    @property
    def encoded(self) -> tuple[VariableReport, ...]:
        """The variables that went through the codec, with or without loss."""
        return tuple(v for v in self.variables if v.nbytes is not None)

    @property
    def nbytes(self) -> int:
        """Compressed bytes of all encoded variables, without the model."""
        return sum(v.nbytes or 0 for v in self.encoded)

    @property
    def model(self) -> str:
        """Names of the models that decoding needs; ``none`` if it needs none."""
        return ", ".join(dict.fromkeys(model.model for model in self._models)) or NO_MODEL

    @property
    def model_nbytes(self) -> int:
        """What they take: each file counted once, and each copy in the store's metadata."""
        return sum(model.model_nbytes for model in self._models)

    @property
    def _models(self) -> list[VariableReport]:
        """One variable for every model that takes room of its own."""
        models: dict[Any, VariableReport] = {}
        for v in self.encoded:
            if v.model != NO_MODEL:
                models.setdefault(v.name if v.model_embedded else (v.model, v.model_nbytes), v)
        return list(models.values())

    @property
    def raw_nbytes_float32(self) -> int:
        """Size of the encoded variables as plain float32."""
        return sum(v.raw_nbytes_float32 for v in self.encoded)

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes per compressed byte, over all encoded variables."""
        return _per_byte(self.raw_nbytes_float32, self.nbytes)

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with all models added to the compressed bytes."""
        return _per_byte(self.raw_nbytes_float32, self.nbytes + self.model_nbytes)

    @property
    def headline(self) -> str:
        """All encoded variables in one line."""
        without = f"{self.nbytes:,} bytes, {_times(self.ratio)} smaller than float32"
        if not self.model_nbytes:
            return f"{without} (no model needed)"
        return (
            f"{without}; with the model {self.nbytes + self.model_nbytes:,} bytes, "
            f"{_times(self.ratio_with_model)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: nested dictionaries of numbers, strings and None."""
        return {
            "model": self.model,
            "model_nbytes": self.model_nbytes,
            "nbytes": self.nbytes,
            "metadata_nbytes": self.metadata_nbytes,
            "other_nbytes": self.other_nbytes,
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "variables": {v.name: v.to_dict() for v in self.variables},
        }

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        columns = self._columns()
        for column in columns:
            table.add_column(
                column.title.replace(" ", "\n"), justify=column.justify, overflow="fold"
            )
        for variable in self.encoded:
            table.add_row(*(Text(column.cell(variable)) for column in columns))
        notes = [Padding(Text(note), (0, 0, 0, 1)) for note in self._notes()]
        return Group(*([table] if self.encoded else []), *notes)

    def __str__(self) -> str:
        return plain_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        columns = self._columns()
        heads = "".join(
            f'<th class="coinpp-{column.justify}">{escape(column.title)}</th>' for column in columns
        )
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td class="coinpp-{column.justify}">{escape(column.cell(variable))}</td>'
                for column in columns
            )
            + "</tr>"
            for variable in self.encoded
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        notes = "".join(f"<li>{escape(note)}</li>" for note in self._notes())
        return (
            f'<div class="coinpp-report"><style>{_CSS}</style>{table if rows else ""}'
            f"<ul>{notes}</ul></div>"
        )

    def _columns(self) -> list[_Column]:
        """Those that say anything: not every rate control is a target."""
        has_target = any(v.asked for v in self.encoded)
        return [c for c in _COLUMNS if has_target or c.title != "asked"]

    def _notes(self) -> list[str]:
        """What does not fit into the table, one line each."""
        notes = [
            f"{variable.name}: {variable.outcome}"
            for variable in self.variables
            if variable.outcome != COMPRESSED
        ]
        notes += [
            f"{v.name}: {v.missing_cells:,} missing cells came back as they were"
            for v in self.encoded
            if v.missing_cells
        ]
        notes += [_chunks_note(v) for v in self.encoded if v.schemes]
        notes += [
            f"{v.name}: worst of {v.n_globes:,} globes is {v.worst_globe_label}"
            for v in self.encoded
            if v.n_globes > 1 and v.worst_globe_rmse
        ]
        notes += [f"{v.name}: {v.model_choice}" for v in self.encoded if v.model_choice]
        if len(self.encoded) > 1:
            notes.append(f"together {self.headline}")
        elif self.encoded:
            notes.append(self.headline)
        notes += [
            f"model {v.model}: {v.model_nbytes:,} bytes "
            + (f"in the metadata of {v.name}" if v.model_embedded else "in its file")
            for v in self._models
        ]
        if self.metadata_nbytes is not None:
            notes.append(
                f"beside them in the store: metadata {self.metadata_nbytes:,} bytes, coordinates "
                f"and other variables {self.other_nbytes or 0:,} bytes"
            )
        timed = [v for v in self.encoded if v.encode_seconds is not None]
        if timed:
            times = (
                f"{verb} in {sum(getattr(v, name) or 0 for v in timed):.2g} s"
                for verb, name in (("encoded", "encode_seconds"), ("decoded", "decode_seconds"))
            )
            notes.append(", ".join(times))
        return notes


def _chunks_note(variable: VariableReport) -> str:
    """``t: 3 chunks (2 latents in time, 1 grid), the worst has RMSE 0.499 K (time=0 … 255)``."""
    count = sum(variable.schemes.values())
    listed = ", ".join(
        f"{n} {scheme}" if len(variable.schemes) > 1 else scheme
        for scheme, n in variable.schemes.items()
    )
    note = f"{variable.name}: {count:,} chunk{'s' if count > 1 else ''} ({listed})"
    if count == 1 or not variable.worst_chunk_rmse:
        return note
    rmse = f"{_number(variable.worst_chunk_rmse)} {variable.unit}".rstrip()
    return f"{note}, the worst has RMSE {rmse} ({variable.worst_chunk_label})"


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[VariableReport], str]
    justify: Any = "right"


def _number(value: float | None) -> str:
    """Three digits, never in powers of ten where that can be helped."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−") if value < 0 else text


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{_number(ratio)}×"


_COLUMNS = (
    _Column("variable", lambda v: v.name, "left"),
    _Column("bytes", lambda v: f"{v.nbytes:,}"),
    _Column("ratio", lambda v: _times(v.ratio)),
    _Column("with model", lambda v: _times(v.ratio_with_model)),
    _Column("bpp", lambda v: _number(v.bits_per_point)),
    _Column("asked", lambda v: v.asked or "–"),
    _Column("RMSE", lambda v: _number(v.rmse)),
    _Column("plain RMSE", lambda v: _number(v.rmse_plain)),
    _Column("max error", lambda v: _number(v.max_error)),
    _Column("bias", lambda v: _number(v.bias)),
    _Column("worst globe", lambda v: _number(v.worst_globe_rmse)),
    _Column("unit", lambda v: v.unit, "left"),
)

# Colours come from the page, lines are translucent grey: readable in light and dark themes.
_CSS = """
.coinpp-report { color: inherit; line-height: 1.6; overflow-x: auto; padding-bottom: 4px; }
.coinpp-report .coinpp-head { border-bottom: 1px solid rgba(128, 128, 128, 0.4);
  padding: 6px 2px; margin-bottom: 4px; }
.coinpp-report .coinpp-head span { opacity: 0.65; margin-right: 10px; }
.coinpp-report table { border-collapse: collapse; margin: 4px 0; border: none; font-size: 100%;
  font-variant-numeric: tabular-nums; color: inherit; background: transparent; }
.coinpp-report tr, .coinpp-report tbody tr:nth-child(odd), .coinpp-report tbody tr:hover {
  background: transparent; color: inherit; }
.coinpp-report th, .coinpp-report td { padding: 2px 10px 2px 2px; border: none;
  color: inherit; white-space: nowrap; max-width: none; }
.coinpp-report th { font-weight: normal; opacity: 0.65; }
.coinpp-report thead tr { border-bottom: 1px solid rgba(128, 128, 128, 0.4); }
.coinpp-report .coinpp-right { text-align: right; }
.coinpp-report .coinpp-left { text-align: left; }
.coinpp-report ul { list-style: none; margin: 4px 0; padding-left: 2px; opacity: 0.75; }
.coinpp-report summary { cursor: pointer; opacity: 0.75; padding: 2px; }
"""


# ---- maps -------------------------------------------------------------------------------------


def plot_maps(original: xr.DataArray, reconstruction: xr.DataArray, *, item: int = 0) -> Figure:
    """Draw original, reconstruction and residual of one globe side by side.

    Needs matplotlib alone and no display; pyplot's state is not touched.

    Parameters
    ----------
    original, reconstruction : DataArray
        With latitude and longitude among their dimensions, in any order; values in the original's
        unit, drawn in the report's (°C for temperatures). Missing cells are grey.
    item : int
        Which globe: its position in C order along the other dimensions, negative from the end.

    Returns
    -------
    matplotlib.figure.Figure
        Save it with ``figure.savefig("maps.png")``.

    Raises
    ------
    ImportError
        Without matplotlib.
    IndexError
        If there are not that many globes.
    """
    latitude, longitude = horizontal_axes(original)
    order = (*latitude.dims, *longitude.dims)
    batch = {dim: n for dim, n in original.sizes.items() if dim not in order}
    count = int(np.prod(list(batch.values())))
    if not -count <= item < count:
        raise IndexError(f"item {item} is out of range: there are {count} globes")
    positions = [int(i) for i in np.unravel_index(item % count, tuple(batch.values()) or (1,))]
    where = dict(zip(batch, positions, strict=False))

    unit = display_unit(original.attrs)
    shown, decoded = (
        unit.scale * array.isel(where).transpose(*order).to_numpy().astype(np.float64) + unit.offset
        for array in (original, reconstruction)
    )
    valid = np.isfinite(shown)
    shown, decoded = (np.where(valid, values, np.nan) for values in (shown, decoded))
    with np.errstate(invalid="ignore"):
        residual = decoded - shown
    weights = np.where(valid, area_weights(latitude.to_numpy(), len(longitude)), 0)
    rmse = float(np.sqrt(np.nansum(weights * residual**2) / max(weights.sum(), 1e-300)))

    name = str(original.attrs.get("long_name", original.name or "value"))
    label = _globe_label(original, list(batch), item % count)
    suffix = f" ({unit.label})" if unit.label else ""
    low, high = (float(f(shown[valid])) if valid.any() else 0.0 for f in (np.min, np.max))
    largest = float(np.nanmax(np.abs(residual))) if valid.any() else 0.0
    largest = largest or 1.0  # an exact reconstruction still needs a colour scale
    panels = (
        ("original", shown, f"{name}{suffix}", "viridis", low, high),
        ("reconstruction", decoded, f"{name}{suffix}", "viridis", low, high),
        (
            f"residual, RMSE {_number(rmse)} {unit.label}".rstrip(),
            residual,
            f"reconstruction − original{suffix}",
            "RdBu_r",
            -largest,
            largest,
        ),
    )
    figure = _headless_figure()
    figure.suptitle(f"{original.name or name}  {label}".strip())
    for axes, (title, shades, text, colours, vmin, vmax) in zip(
        figure.subplots(1, 3, sharey=True), panels, strict=True
    ):
        image = axes.pcolormesh(
            longitude.to_numpy(), latitude.to_numpy(), shades, cmap=colours, vmin=vmin, vmax=vmax,
            shading="nearest", rasterized=True,
        )  # fmt: skip
        axes.set_facecolor("0.7")
        axes.set_title(title)
        axes.set_xlabel("longitude (°E)")
        # Cells at the poles reach half a row beyond them.
        bottom, top = axes.get_ylim()
        axes.set_ylim(max(bottom, -90), min(top, 90))
        axes.set_aspect("equal")
        figure.colorbar(image, ax=axes, label=text, orientation="horizontal", pad=0.03)
    figure.axes[0].set_ylabel("latitude (°N)")
    return figure


def plot_errors(
    original: xr.DataArray, decoded: Mapping[str, npt.NDArray[Any]], *, item: int = 0
) -> Figure:
    """Draw what several codecs make wrong of one globe, in the same colours.

    Parameters
    ----------
    original : DataArray
        With latitude and longitude last, in its own unit.
    decoded : mapping
        Name → what came back, shape (globes, n_lat, n_lon).
    item : int
        Which globe, in C order along the other dimensions.
    """
    latitude, longitude = horizontal_axes(original)
    unit = display_unit(original.attrs)
    shape = len(latitude), len(longitude)
    globe = original.to_numpy().reshape(-1, *shape)[item].astype(np.float64)
    errors = {name: unit.scale * (values[item] - globe) for name, values in decoded.items()}
    largest = max((float(np.nanmax(np.abs(e))) for e in errors.values()), default=0.0) or 1.0
    weights = area_weights(latitude.to_numpy(), len(longitude)) * np.isfinite(globe)
    figure = _headless_figure()
    axes = figure.subplots(1, len(errors), sharey=True, squeeze=False)[0]
    for axis, (name, error) in zip(axes, errors.items(), strict=True):
        rmse = float(np.sqrt(np.nansum(weights * error**2) / max(weights.sum(), 1e-300)))
        image = axis.pcolormesh(
            longitude.to_numpy(), latitude.to_numpy(), error, cmap="RdBu_r", vmin=-largest,
            vmax=largest, shading="nearest", rasterized=True,
        )  # fmt: skip
        axis.set_title(f"{name}, RMSE {_number(rmse)} {unit.label}".rstrip())
        axis.set_xlabel("longitude (°E)")
        axis.set_aspect("equal")
    figure.colorbar(image, ax=axes, label=f"error {unit.label}".rstrip(), shrink=0.7)
    axes[0].set_ylabel("latitude (°N)")
    return figure


def _headless_figure() -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need matplotlib: pip install 'coinpp-xr[plot]'") from error

    class HeadlessFigure(Figure):  # type: ignore[misc]
        """A figure that notebooks show although pyplot never heard of it."""

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png")
            return picture.getvalue()

    figure = HeadlessFigure(figsize=(13.5, 3.9), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
