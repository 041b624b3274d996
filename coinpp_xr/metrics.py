"""What compression did to the data, in numbers: units, errors, spectra, one variable's report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind
from coinpp_xr.codecs.base import NO_MODEL, Rate
from coinpp_xr.coordinates import SphereGrid, area_weights
from coinpp_xr.data import horizontal_axes

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.models import Model

COMPRESSED = "compressed"

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
    celsius = temperature_scale(text)
    if celsius is None:
        return DisplayUnit(text)
    scale, offset = celsius
    is_difference = attrs.get("units_metadata") == "temperature: difference" or "anomaly" in str(
        attrs.get("standard_name", "")
    )
    return DisplayUnit("°C", scale, 0.0 if is_difference else offset)


@cache
def temperature_scale(text: str) -> tuple[float, float] | None:
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


# ---- spectra ----------------------------------------------------------------------------------


def zonal_spectrum(
    fields: npt.NDArray[Any], grid: SphereGrid
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Power by zonal wavenumber, averaged over globes and, by area, over latitudes.

    Summed over all wavenumbers it is the area-weighted mean square of the fields.

    Parameters
    ----------
    fields : float array, shape (globes, n_lat, n_lon)
        Circles of latitude with missing cells are left out.
    grid : SphereGrid

    Returns
    -------
    wavenumbers, power : float64 array
        Waves around the globe, from 0; the square of the fields' unit. None where a Fourier
        transform along longitude means nothing: in a region, on uneven longitudes, without a
        complete circle.
    """
    longitude = grid.longitude
    steps = np.abs(np.diff(longitude))
    if not grid.goes_around or steps.max() - steps.min() > 1e-2 * steps.max():
        return None
    # A meridian that is stored twice counts once.
    count = len(longitude) - int(np.ptp(longitude) > 360 - steps.max() / 2)
    circles = np.asarray(fields[..., :count], np.float64)
    complete = np.asarray(np.isfinite(circles).all(axis=-1))
    if not complete.any():
        return None
    waves = np.abs(np.fft.rfft(np.where(complete[..., None], circles, 0), axis=-1) / count) ** 2
    # All but the mean and the shortest wave stand for two complex ones.
    waves[..., 1 : (count + 1) // 2] *= 2
    weights = area_weights(grid.latitude, 1)[:, 0] * complete
    power = np.einsum("gl,glm->m", weights, waves) / weights.sum()
    return np.arange(len(power), dtype=np.float64), power


# ---- one variable -----------------------------------------------------------------------------


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
        return per_byte(self.raw_nbytes_float32, self.nbytes)

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with the model added to the compressed bytes."""
        return per_byte(self.raw_nbytes_float32, (self.nbytes or 0) + self.model_nbytes)

    @property
    def bits_per_point(self) -> float | None:
        """Compressed bits per grid point (bpp), without the model."""
        return None if self.nbytes is None else 8 * self.nbytes / self.n_points

    @property
    def asked(self) -> str:
        """The target or bound, for people; empty if there was none."""
        if self.bound is not None:
            return (
                f"±{100 * self.bound:g} %" if self.bound_relative else f"±{in_digits(self.bound)}"
            )
        return "" if self.target_rmse is None else f"RMSE {in_digits(self.target_rmse)}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings and None."""
        return asdict(self) | {
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "bits_per_point": self.bits_per_point,
        }


def per_byte(raw: int, nbytes: int | None) -> float | None:
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
    unit = display_unit(array.attrs)
    measured = measured_errors(array, errors)
    if chunks and measured["rmse"] is not None:
        rmse, chunk = max(
            ((chunk_rmse(errors[chunk.where]), chunk) for chunk in chunks), key=lambda c: c[0]
        )
        measured["worst_chunk_rmse"] = unit.scale * rmse
        measured["worst_chunk_label"] = place_label(array, batch_dims(array), chunk.where)
    needed = model is not None and any(chunk.kind.has_model for chunk in chunks)
    target, bound = rate.target_rmse, rate.bound
    if bound is not None and not bound.relative:
        bound = replace(bound, error=unit.scale * bound.error)
    return VariableReport(
        name=str(array.name),
        outcome=_outcome(errors, chunks, model, rate.bits),
        unit=unit.label,
        n_points=array.size,
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


def measured_errors(array: xr.DataArray, errors: npt.NDArray[np.void]) -> dict[str, Any]:
    """The fields of a :class:`VariableReport` that tell the errors, in the display unit.

    Parameters
    ----------
    array : DataArray
        The original: its attributes and coordinates are used, not its values.
    errors : structured array of dtype GLOBE_ERRORS
        See :func:`variable_report`.
    """
    facts: dict[str, Any] = {
        "n_globes": errors.size,
        "missing_cells": int(errors["missing"].sum()),
        **dict.fromkeys(("rmse", "rmse_plain", "max_error", "bias")),
        "worst_globe_rmse": None,
        "worst_globe_index": None,
        "worst_globe_label": "",
    }
    seen = errors[errors["valid"] > 0]
    if not seen.size:
        return facts
    scale = display_unit(array.attrs).scale
    mean_squares = np.zeros(errors.shape)
    np.divide(errors["squared"], errors["weight"], out=mean_squares, where=errors["valid"] > 0)
    worst = int(mean_squares.argmax())
    area = seen["weight"].sum()
    return facts | {
        "rmse": scale * float(np.sqrt(seen["squared"].sum() / area)),
        "rmse_plain": scale * float(np.sqrt(seen["plain"].sum() / seen["valid"].sum())),
        "max_error": scale * float(seen["largest"].max()),
        "bias": scale * float(seen["signed"].sum() / area),
        "worst_globe_rmse": scale * float(np.sqrt(mean_squares.max())),
        "worst_globe_index": worst,
        "worst_globe_label": globe_label(array, batch_dims(array), worst),
    }


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


def batch_dims(array: xr.DataArray) -> list[Any]:
    """The dimensions other than latitude and longitude, in the array's order."""
    latitude, longitude = horizontal_axes(array)
    return [dim for dim in array.dims if dim not in {*latitude.dims, *longitude.dims}]


def globe_label(array: xr.DataArray, batch: list[Any], index: int) -> str:
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


def in_digits(value: float | None) -> str:
    """Three digits, never in powers of ten where that can be helped."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "−") if value < 0 else text
