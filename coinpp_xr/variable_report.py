"""What compression did to one variable, at what cost and error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind
from coinpp_xr.codecs.base import NO_MODEL, Rate
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.labels import batch_dims, display_unit, globe_label, in_digits, place_label
from coinpp_xr.lattice import Bound
from coinpp_xr.metrics import chunk_rmse, spread
from coinpp_xr.selection import Layout
from coinpp_xr.step_search import find_steps

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.models import Model

COMPRESSED = "compressed"


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
        Of all errors: °C for temperatures in K, else the variable's own, "" if unknown.
    n_globes, n_points, missing_cells : int
        Missing cells are NaN or infinite in the original; no error counts them.
    nbytes : int or None
        Of all payloads, without a model; None for a variable that was left alone.
    source_nbytes : int or None
        What the values take where they were read from, before any compression there: as packed
        integers if xarray knows that they were, else in their dtype. None if unknown.
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
    spread : float or None
        Area-weighted standard deviation of the original over all valid cells; None if it is zero.
    least_spread : float or None
        The smallest of those over the cells of one level, member or other index along an axis
        that is not time; ``spread`` where there is none.
    source_step : float or None
        That of the values themselves, which were quantized before, where a bound is finer: then
        nothing is lost.
    worst_chunk_rmse : float or None
        The largest area-weighted RMSE of a single chunk, which the target holds for.
    worst_chunk_label : str
    weighting : str
        What RMSE and bias are weighted by, where that is not the cosine of a latitude axis.
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
    source_nbytes: int | None = None
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
    spread: float | None = None
    least_spread: float | None = None
    source_step: float | None = None
    worst_chunk_rmse: float | None = None
    worst_chunk_label: str = ""
    weighting: str = ""
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
    def ratio_to_source(self) -> float | None:
        """Bytes of the values where they were read from, per compressed byte."""
        return None if self.source_nbytes is None else per_byte(self.source_nbytes, self.nbytes)

    @property
    def is_source_float32(self) -> bool:
        """Whether the values took what plain float32 takes where they were read from."""
        return self.source_nbytes in (None, self.raw_nbytes_float32)

    @property
    def asked_of_spread(self) -> float | None:
        """The target or absolute bound per ``least_spread``; a relative bound has none."""
        asked = self.target_rmse if self.bound is None else self.bound
        return None if self.bound_relative or asked == 0 else share(asked, self.least_spread)

    @property
    def rmse_of_spread(self) -> float | None:
        """The RMSE per ``least_spread``; under a relative bound per ``spread``."""
        return share(self.rmse, self.spread if self.bound_relative else self.least_spread)

    @property
    def bits_per_point(self) -> float | None:
        """Compressed bits per grid point (bpp), without the model."""
        return None if self.nbytes is None else 8 * self.nbytes / self.n_points

    @property
    def asked(self) -> str:
        """The target or bound with its unit, for people; empty if there was none."""
        if self.bound is not None and self.bound_relative:
            return f"±{100 * self.bound:g} %"
        if self.bound == 0:
            return "exact"
        if self.bound is not None:
            return f"±{in_digits(self.bound)} {self.unit}".rstrip()
        if self.target_rmse is None:
            return ""
        return f"RMSE {in_digits(self.target_rmse)} {self.unit}".rstrip()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings and None."""
        return asdict(self) | {
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "ratio_to_source": self.ratio_to_source,
            "asked_of_spread": self.asked_of_spread,
            "rmse_of_spread": self.rmse_of_spread,
            "bits_per_point": self.bits_per_point,
        }


def per_byte(raw: int, nbytes: int | None) -> float | None:
    return raw / nbytes if nbytes else None


def share(part: float | None, whole: float | None) -> float | None:
    return part / whole if part is not None and whole else None


def source_itemsize(array: xr.DataArray) -> int:
    """Bytes of a value where an array was read from, if xarray knows; else in memory."""
    try:
        dtype = np.dtype(array.encoding.get("dtype") or array.dtype)
    except TypeError:
        dtype = array.dtype
    return int(dtype.itemsize if dtype.kind in "fiu" else array.dtype.itemsize)


def variable_report(
    array: xr.DataArray,
    errors: npt.NDArray[np.void],
    chunks: Sequence[StoredChunk],
    *,
    model: Model | None,
    rate: Rate,
    source_nbytes: int | None = None,
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
        longitude; see :func:`field_errors`.
    chunks : sequence of StoredChunk
        What was written. A chunk of fill values only, which Zarr does not write, is not among
        them.
    model : Model or None
        That was at hand for it.
    rate : Rate
        In the data's unit.
    source_nbytes : int, optional
    embedded_nbytes : int
        What the model takes in the store's metadata; 0 if it is not there.
    model_choice : str
    encode_seconds, decode_seconds : float, optional
    """
    measured = measured_errors(array, errors)
    if chunks and measured["rmse"] is not None:
        rmse, chunk = max(
            ((chunk_rmse(errors[chunk.where]), chunk) for chunk in chunks), key=lambda c: c[0]
        )
        measured["worst_chunk_rmse"] = rmse
        measured["worst_chunk_label"] = place_label(array, batch_dims(array), chunk.where)
    needed = model is not None and any(chunk.kind.has_model for chunk in chunks)
    bound = rate.bound
    return VariableReport(
        name=str(array.name),
        outcome=_outcome(errors, chunks, model, rate),
        unit=display_unit(array.attrs).label,
        n_points=array.size,
        nbytes=sum(chunk.nbytes for chunk in chunks),
        source_nbytes=source_nbytes,
        schemes=dict(Counter(_in_words(chunk.kind) for chunk in chunks)),
        model=model.name if model is not None and (needed or embedded_nbytes) else NO_MODEL,
        model_nbytes=embedded_nbytes or (model.nbytes if model is not None and needed else 0),
        model_embedded=embedded_nbytes > 0,
        model_choice=model_choice,
        bits=rate.bits,
        target_rmse=rate.target_rmse,
        bound=None if bound is None else bound.error,
        bound_relative=bound is not None and bound.relative,
        source_step=_source_step(array, bound) if measured["max_error"] == 0 else None,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        **measured,
    )


def measured_errors(array: xr.DataArray, errors: npt.NDArray[np.void]) -> dict[str, Any]:
    """The fields of a :class:`VariableReport` that tell the errors, in the data's unit.

    Parameters
    ----------
    array : DataArray
        The original: its attributes and coordinates are used, not its values.
    errors : structured array of dtype GLOBE_ERRORS
        See :func:`variable_report`.
    """
    facts: dict[str, Any] = {
        "n_globes": errors.size,
        "weighting": weighting_of(array),
        "missing_cells": int(errors["missing"].sum()),
        **dict.fromkeys(("rmse", "rmse_plain", "max_error", "bias", "spread", "least_spread")),
        "worst_globe_rmse": None,
        "worst_globe_index": None,
        "worst_globe_label": "",
    }
    seen = errors[errors["valid"] > 0]
    if not seen.size:
        return facts
    mean_squares = np.zeros(errors.shape)
    np.divide(errors["squared"], errors["weight"], out=mean_squares, where=errors["valid"] > 0)
    worst = int(mean_squares.argmax())
    area = seen["weight"].sum()
    return facts | {
        "rmse": float(np.sqrt(seen["squared"].sum() / area)),
        "rmse_plain": float(np.sqrt(seen["plain"].sum() / seen["valid"].sum())),
        "max_error": float(seen["largest"].max()),
        "bias": float(seen["signed"].sum() / area),
        "spread": spread(errors),
        "least_spread": spread(errors, Layout.of(array).time_axis),
        "worst_globe_rmse": float(np.sqrt(mean_squares.max())),
        "worst_globe_index": worst,
        "worst_globe_label": globe_label(array, batch_dims(array), worst),
    }


def weighting_of(array: xr.DataArray) -> str:
    """What errors of an array are weighted by; empty for the cosine of a latitude axis."""
    cells = Horizontal.of(array)
    return "" if cells.is_regular else cells.weighting


def _source_step(array: xr.DataArray, bound: Bound | None) -> float | None:
    """The step that a field was quantized with before, if it is wider than twice a bound."""
    if bound is None or bound.relative or bound.is_exact or not array.size:
        return None
    field = array.isel(dict.fromkeys(batch_dims(array), 0)).to_numpy()
    steps = find_steps(field[np.isfinite(field)])
    return steps.size if steps is not None and steps.size > 2 * bound.error else None


def _in_words(kind: Kind) -> str:
    return kind.name.lower().replace("_", " ")


def _outcome(
    errors: npt.NDArray[np.void],
    chunks: Sequence[StoredChunk],
    model: Model | None,
    rate: Rate,
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
    elif rate.is_lossless:
        reason = "nothing else is smaller"
    elif rate.bits is None or model is None:
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
