"""How large a model an archive can pay for: chunks plus weights, counted in bytes.

A learned basis saves bits in every globe and costs bytes once. Small archives want no model, or
one that is hardly more than a mean field; large ones want many modes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.chunk import encode_chunk
from coinpp_xr.coarseness import checked_before
from coinpp_xr.compact import LARGEST, MOST_TAIL_NUMBERS, pack_model
from coinpp_xr.data import Fields, load_fields
from coinpp_xr.eofs import HarmonicBasis, Localisation, LocalisedEofs
from coinpp_xr.models import Model, parse_name
from coinpp_xr.network import LinearTail, QuantizedTail
from coinpp_xr.transform import fit_spectrum

Float64 = npt.NDArray[np.float64]

_LATENTS = (0, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
# Error that rounding the weights may add, as shares of the target.
_ROUNDING = (0.15, 0.3, 0.45)
# Modes must hold the fields with some of the allowed error to spare.
_MOST_MISFIT = 0.95
_SAMPLE_CHUNKS = 3
# What is usually a good localisation; searching for the best takes longer than it saves bytes.
_GLOBAL_MODES, _SHARE = 4, 0.7
_MOST_SPECTRUM_ITEMS = 4096


@dataclass(frozen=True, eq=False)
class Sized:
    """What an archive takes with one model, or with none.

    Parameters
    ----------
    model : Model or None
    latents : int
    model_nbytes : int
        Of the model in its compact form.
    bits_per_globe : float
        Measured on sample chunks of the archive.
    """

    model: Model | None
    latents: int
    model_nbytes: int
    bits_per_globe: float

    def total(self, globes: int) -> float:
        """Bytes of an archive of so many globes, the model counted."""
        return self.model_nbytes + self.bits_per_globe * globes / 8


def smallest_model(
    source: Any,
    *,
    target_rmse: float,
    variable: str | None = None,
    chunk_time: int = 256,
    max_minutes: float | None = 5.0,
    most_nbytes: float = inf,
    globes: int | None = None,
    name: str = "custom",
) -> tuple[Model | None, list[Sized]]:
    """The model with which an archive takes the fewest bytes, its own included.

    Parameters
    ----------
    source : DataArray, Dataset or path
        The archive: fields with latitude and longitude; see :func:`coinpp_xr.data.load_fields`.
    target_rmse : float
        Area-weighted, in the data's unit.
    variable : str, optional
        Which variable, where the source holds several.
    chunk_time : int
        Globes per chunk.
    max_minutes : float, optional
        Larger models are not tried once this time is over.
    most_nbytes : float
        Larger models are left out.
    globes : int, optional
        How many globes the archive will have; default: those of the source.
    name : str
        Name of the model.

    Returns
    -------
    Model or None
        None where no model pays.
    list of Sized
        All that were tried.
    """
    started = time.perf_counter()
    parse_name(name)
    fields = load_fields(source, variable)
    sizes = [_measure(None, 0, fields, target_rmse, chunk_time)]
    count = len(fields.values) if globes is None else globes
    best = sizes[0]
    for model in _models(fields, target_rmse, name):
        if most_nbytes <= LARGEST and model.tail and model.tail.symbols.size > MOST_TAIL_NUMBERS:
            break  # from here on none can be embedded
        nbytes = len(pack_model(model))
        if nbytes < min(best.total(count), most_nbytes):
            sizes.append(_measure(model, nbytes, fields, target_rmse, chunk_time))
            best = min(best, sizes[-1], key=lambda sized: sized.total(count))
        if max_minutes is not None and time.perf_counter() - started > 60 * max_minutes:
            break
    return best.model, sizes


def _models(fields: Fields, target_rmse: float, name: str) -> Iterator[Model]:
    """From small to large."""
    values = fields.values[np.isfinite(fields.values).all(axis=(1, 2))]
    grid = fields.grid
    basis = HarmonicBasis.of(grid.points, grid.area_weights)
    if basis is None or len(values) < 2 or (scale := float(np.ptp(values))) == 0:
        return
    offset = float(values.min())
    features = ((values.reshape(len(values), -1) - offset) / scale).astype(np.float32)
    mean = features.mean(axis=0, dtype=np.float64)
    coordinates = basis.analyse(features - mean.astype(np.float32))
    mean_field = basis.to_harmonics(basis.analyse(mean[None].astype(np.float32)))[0]
    most = min(_LATENTS[-1], basis.size, len(values) - 1)
    modes = np.zeros((basis.size, 0))
    if most >= _LATENTS[1]:
        localisation = Localisation(min(_GLOBAL_MODES, most), _SHARE)
        modes = LocalisedEofs(basis, coordinates).modes(localisation, most)
    all_scores = coordinates @ modes
    energy = float((coordinates**2).sum(axis=1).mean())
    held = np.cumsum((all_scores**2).mean(axis=0))
    for latents in _LATENTS:
        if latents > modes.shape[1]:
            return
        if latents and scale**2 * (energy - held[latents - 1]) > (_MOST_MISFIT * target_rmse) ** 2:
            continue
        tail = LinearTail(mean_field, basis.to_harmonics(modes[:, :latents].T))
        scores = all_scores[:, :latents]
        for rounding in _ROUNDING:
            quantized = QuantizedTail.of(tail, scores.std(axis=0), rounding * target_rmse / scale)
            spectrum = fit_spectrum([scores[-_MOST_SPECTRUM_ITEMS:]]) if latents else None
            card = {
                "variable": fields.name,
                "units": fields.units,
                "grid": f"{grid.shape[0]} x {grid.shape[1]}",
                "network": f"a mean field and {latents} EOFs of the archive itself",
                "training_items": len(values),
            }
            yield Model.without_siren(name, offset, scale, card, tail=quantized, spectrum=spectrum)


def _measure(
    model: Model | None, nbytes: int, fields: Fields, target_rmse: float, chunk_time: int
) -> Sized:
    """Bits per globe of a few chunks, spread over the archive."""
    values = fields.values
    starts = np.arange(0, max(len(values) - chunk_time + 1, 1), chunk_time)
    few = np.unique(np.linspace(0, len(starts) - 1, min(_SAMPLE_CHUNKS, len(starts))).astype(int))
    chunks = [values[start : start + chunk_time] for start in starts[few]]
    with checked_before():  # a size is wanted, and no error
        payloads = [
            encode_chunk(chunk, model, target_rmse=target_rmse, grid=fields.grid)
            for chunk in chunks
        ]
    bits = 8 * sum(map(len, payloads)) / max(sum(map(len, chunks)), 1)
    return Sized(model, model.latent_dim if model else 0, nbytes, bits)
