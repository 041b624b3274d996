"""What compression did to the data: error metrics, tables, an HTML repr and maps."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

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
# largest absolute error; numbers of valid and missing cells.
GLOBE_ERRORS = np.dtype(
    [
        ("weight", "f8"),
        ("squared", "f8"),
        ("signed", "f8"),
        ("plain", "f8"),
        ("largest", "f8"),
        ("valid", "i8"),
        ("missing", "i8"),
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
    return sums.reshape(batch)


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
        Of all payloads; None for a variable that was left alone.
    model_nbytes : int
        Size of the model's file, which a reader needs once.
    rmse : float or None
        Weighted by cos(latitude), over all valid cells of all globes.
    rmse_plain : float or None
        Every cell of the grid counts the same, those at the poles too.
    max_error : float or None
        Largest absolute error of a cell.
    bias : float or None
        Area-weighted mean of reconstruction − original.
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
    model_nbytes: int = 0
    rmse: float | None = None
    rmse_plain: float | None = None
    max_error: float | None = None
    bias: float | None = None
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
        return None if self.nbytes is None else self.raw_nbytes_float32 / self.nbytes

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with the model's file added to the compressed bytes."""
        if self.nbytes is None:
            return None
        return self.raw_nbytes_float32 / (self.nbytes + self.model_nbytes)

    @property
    def bits_per_point(self) -> float | None:
        """Compressed bits per grid point (bpp)."""
        return None if self.nbytes is None else 8 * self.nbytes / self.n_points

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings and None."""
        return asdict(self) | {
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "bits_per_point": self.bits_per_point,
        }


def variable_report(
    array: xr.DataArray,
    errors: npt.NDArray[np.void],
    *,
    nbytes: int,
    model_nbytes: int,
    outcome: str = COMPRESSED,
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
    return VariableReport(
        name=str(array.name),
        outcome=outcome,
        unit=unit.label,
        n_globes=errors.size,
        n_points=array.size,
        missing_cells=int(errors["missing"].sum()),
        nbytes=nbytes,
        model_nbytes=model_nbytes,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        **measured,
    )


def _globe_label(array: xr.DataArray, batch: list[Any], index: int) -> str:
    """``time=2026-03-25T07:00, member=3`` for a flat index along the batch dimensions."""
    if not batch:
        return ""
    positions = np.unravel_index(index, [array.sizes[dim] for dim in batch])
    parts = []
    for dim, position in zip(batch, positions, strict=True):
        value: Any = int(position)
        if dim in array.coords:
            value = array[dim].to_numpy()[position]
            if isinstance(value, np.datetime64):
                value = np.datetime_as_string(value, unit="m")
        parts.append(f"{dim}={value}")
    return ", ".join(parts)


# ---- report -----------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Report:
    """What compression did to every variable of a dataset.

    Indexed by variable name. Prints as a table, shows as HTML in notebooks.

    Parameters
    ----------
    variables : tuple of VariableReport
        In the order of the dataset.
    model : str
        Name of the model.
    model_nbytes : int
        Size of its file.
    """

    variables: tuple[VariableReport, ...]
    model: str
    model_nbytes: int

    @classmethod
    def of(cls, variables: list[VariableReport], model: Model) -> Report:
        """The report on variables that were compressed with one model."""
        return cls(tuple(variables), model.name, model.nbytes)

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
    def raw_nbytes_float32(self) -> int:
        """Size of the encoded variables as plain float32."""
        return sum(v.raw_nbytes_float32 for v in self.encoded)

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes per compressed byte, over all encoded variables."""
        return self.raw_nbytes_float32 / self.nbytes if self.nbytes else None

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with the model's file counted once."""
        return self.raw_nbytes_float32 / (self.nbytes + self.model_nbytes) if self.nbytes else None

    @property
    def headline(self) -> str:
        """All encoded variables in one line."""
        return (
            f"{self.nbytes:,} bytes, {_times(self.ratio)} smaller than float32 "
            f"({_times(self.ratio_with_model)} with the model)"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: nested dictionaries of numbers, strings and None."""
        return {
            "model": self.model,
            "model_nbytes": self.model_nbytes,
            "nbytes": self.nbytes,
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
        for column in _COLUMNS:
            table.add_column(
                column.title.replace(" ", "\n"), justify=column.justify, overflow="fold"
            )
        for variable in self.encoded:
            table.add_row(*(Text(column.cell(variable)) for column in _COLUMNS))
        notes = [Padding(Text(note), (0, 0, 0, 1)) for note in self._notes()]
        return Group(*([table] if self.encoded else []), *notes)

    def __str__(self) -> str:
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
            console.print(self)
        return "\n".join(map(str.rstrip, capture.get().splitlines())).strip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        heads = "".join(
            f'<th class="coinpp-{column.justify}">{escape(column.title)}</th>'
            for column in _COLUMNS
        )
        rows = "".join(
            "<tr>"
            + "".join(
                f'<td class="coinpp-{column.justify}">{escape(column.cell(variable))}</td>'
                for column in _COLUMNS
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
        notes += [
            f"{v.name}: worst of {v.n_globes:,} globes is {v.worst_globe_label}"
            for v in self.encoded
            if v.n_globes > 1 and v.worst_globe_rmse
        ]
        if len(self.encoded) > 1:
            notes.append(f"together {self.headline}")
        timed = [v for v in self.encoded if v.encode_seconds is not None]
        times = ", ".join(
            f"{verb} in {sum(getattr(v, name) or 0 for v in timed):.2g} s"
            for verb, name in (("encoded", "encode_seconds"), ("decoded", "decode_seconds"))
        )
        notes.append(
            f"model {self.model}, {self.model_nbytes:,} bytes" + (f"; {times}" if timed else "")
        )
        return notes


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
    shown, decoded = (np.where(valid, field, np.nan) for field in (shown, decoded))
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
    for axes, (title, field, text, colours, vmin, vmax) in zip(
        figure.subplots(1, 3, sharey=True), panels, strict=True
    ):
        image = axes.pcolormesh(
            longitude.to_numpy(), latitude.to_numpy(), field, cmap=colours, vmin=vmin, vmax=vmax,
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
