"""Which model a variable is written with: the one that was asked for, a new one, or none."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.bitstream import Payload
from coinpp_xr.choice import BASE_RMSE, MEDIUM_GLOBE
from coinpp_xr.codecs.base import NO_MODEL, UNIVERSAL
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.compact import LARGEST, pack_text
from coinpp_xr.labels import unit_settings
from coinpp_xr.model_files import cache_folder
from coinpp_xr.models import Model, load_model
from coinpp_xr.sizing import smallest_model

# The sizes of so many chunks, spread over the data, stand for those of all.
_SAMPLE_CHUNKS = 3
# Of the bytes without a model, what there may be with one.
_WORTHWHILE = 0.95
_TRAINED_LATENTS = 64


@dataclass(frozen=True)
class Choice:
    """A model, and why it is that one.

    Parameters
    ----------
    model : Model or None
    embed : bool
        Whether it is to travel with the store.
    reason : str
        Empty where there was nothing to choose.
    """

    model: Model | None
    embed: bool = False
    reason: str = ""


def train_model(
    array: xr.DataArray,
    minutes: float,
    *,
    target_rmse: float | None,
    max_error: float | None,
    effort: str,
    depth: int,
    most: float,
) -> Model | None:
    """Train a model on a variable: under a target or bound, of the size that pays for this archive.

    Parameters
    ----------
    array : DataArray
    minutes : float
    target_rmse, max_error : float or None
        What its latents should reach, where they are of use; the bound.
    effort : str
    depth : int
        Globes per chunk.
    most : float
        Bytes that a model may take.

    Returns
    -------
    Model or None
        None where no model pays.
    """
    if max_error is not None and prod(array.shape[-2:]) >= MEDIUM_GLOBE:
        from coinpp_xr.climatology_building import climatology_model

        return climatology_model(
            array, max_error=max_error, chunk_time=depth, effort=effort, max_minutes=minutes,
            most_nbytes=most,
        )[0]  # fmt: skip
    if target_rmse is not None:
        model, _ = smallest_model(
            array, target_rmse=target_rmse, chunk_time=depth, max_minutes=minutes, most_nbytes=most
        )
        return model
    from coinpp_xr.building import train

    return train(array, latent_dim=_TRAINED_LATENTS, max_minutes=minutes)


def choose_model(
    array: xr.DataArray,
    chunks: Sequence[int],
    codec_settings: dict[str, Any],
    *,
    given: Model | None,
    train_minutes: float | None,
    embed: bool,
) -> Choice:
    """The model to write a variable with.

    Where there is a target or bound, the one with which a sample of the chunks and the model
    together take least: only at equal errors can sizes be compared. A model that neither travels
    nor was trained now is thought to be at hand, but a store should not depend on it for nothing:
    it must save a twentieth.

    Parameters
    ----------
    array : DataArray
        With latitude and longitude last.
    chunks : sequence of int
        Shape of a chunk.
    codec_settings : dict
        Arguments of the codec beside the model.
    given : Model or None
        The one that was asked for.
    train_minutes : float, optional
        Whether to train one, and for how long.
    embed : bool
        Whether the store should be complete in itself.

    Raises
    ------
    ValueError
        If under ``bits`` a model is too large to embed.
    """
    if codec_settings.get("max_error") == 0:  # no model helps
        return Choice(None, False, "")
    has_target = "bits" not in codec_settings
    trained, remarks = None, []
    if train_minutes is not None:
        try:
            trained = train_model(
                array, train_minutes, target_rmse=_rmse_of_base(codec_settings),
                max_error=codec_settings.get("max_error"),
                effort=codec_settings.get("effort", "default"),
                depth=prod(chunks[:-2]), most=LARGEST if embed else inf,
            )  # fmt: skip
        except ValueError as error:  # a grid without enough cells, no complete field, ...
            remarks.append(f"no model was trained: {error}")
        else:
            if trained is None:
                remarks.append("no model of its own would pay for its bytes")
            else:
                trained = _named(trained, array)
    if not has_target:
        model = trained or given
        if embed and model is not None:
            pack_text(model)  # says so if it is too large
        return Choice(model, embed, "; ".join([*remarks, *_keep(trained, embed)]))
    if trained is None and not embed:
        if given is None or _is_worth_having(
            given, _sample(array, chunks, 1), codec_settings, array.attrs
        ):
            return Choice(given, False, "; ".join(remarks))
        remarks.insert(0, f"written without model {given.name}, which would save next to nothing")
        return Choice(None, False, "; ".join(remarks))

    costs: dict[Model | None, int] = {None: 0}
    for model in (given, trained):
        if model is None:
            continue
        # The given one is with the readers already if it does not travel.
        costs[model] = 0 if model is given else model.nbytes
        if embed:
            try:
                costs[model] = len(pack_text(model))
            except ValueError:
                del costs[model]
                remarks.append(f"{model.name} is too large to embed (at most {LARGEST:,} bytes)")
    if len(costs) == 1:
        return Choice(None, False, "; ".join(["written without a model", *remarks]))
    sample = _sample(array, chunks, _SAMPLE_CHUNKS)
    scale = array.size / sum(values.size for values in sample)
    totals = {
        model: round(scale * _nbytes(sample, model, codec_settings, array.attrs)) + cost
        for model, cost in costs.items()
    }
    best = min(totals, key=lambda model: totals[model])
    listed = ", ".join(f"{_label(model)} {total:,}" for model, total in totals.items())
    remarks.insert(0, f"model {_label(best)} pays best; bytes with model, by a sample: {listed}")
    if best is trained:
        remarks += _keep(trained, embed)
    return Choice(best, embed and best is not None, "; ".join(remarks))


def _rmse_of_base(codec_settings: dict[str, Any]) -> float | None:
    """What the model's part of a chunk should reach; None under ``bits``.

    Raises
    ------
    ValueError
        If no model is of use.
    """
    if "max_error_relative" in codec_settings:
        raise ValueError("max_error_relative has no use for one")
    if "max_error" in codec_settings:
        return BASE_RMSE[1] * float(codec_settings["max_error"])
    target: float | None = codec_settings.get("target_rmse")
    return target


def _named(model: Model, array: xr.DataArray) -> Model:
    """The model under a name that no other has: stores of long ago must find theirs."""
    n_lat, n_lon = array.shape[-2:]
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", f"{array.name}"[:32]).lstrip("_-") or "model"
    stem = f"{stem}-{n_lat}x{n_lon}"
    return load_model(replace(model, name=f"{stem}-{model.fingerprint[:8]}"))


def _keep(model: Model | None, embedded: bool) -> list[str]:
    """Save a model that would otherwise be gone with this process; a remark that says so."""
    if model is None or embedded:
        return []
    path = model.save(cache_folder() / f"{model.name}.safetensors")
    return [f"readers need {path}, or write with embed_model=True"]


def _is_worth_having(
    model: Model,
    sample: Sequence[npt.NDArray[Any]],
    codec_settings: dict[str, Any],
    attrs: Mapping[Any, Any],
) -> bool:
    codec = COINppCodec(model, **codec_settings, **unit_settings(model, attrs))
    payloads = [codec.encode(values) for values in sample]
    if not any(Payload.unpack(payload).kind.has_model for payload in payloads):
        return False
    return sum(map(len, payloads)) < _WORTHWHILE * _nbytes(sample, None, codec_settings, attrs)


def _sample(array: xr.DataArray, chunks: Sequence[int], count: int) -> list[npt.NDArray[Any]]:
    """At most so many chunks, spread evenly."""
    counts = [-(-length // depth) for length, depth in zip(array.shape, chunks, strict=True)]
    n_chunks = prod(counts)
    # In the middle of equal parts: the last chunk is often smaller than the others.
    positions = (np.arange(min(count, n_chunks)) + 0.5) * n_chunks / min(count, n_chunks)
    return [
        array[
            tuple(
                slice(int(i) * depth, (int(i) + 1) * depth)
                for i, depth in zip(np.unravel_index(int(position), counts), chunks, strict=True)
            )
        ].to_numpy()
        for position in positions
    ]


def _nbytes(
    sample: Sequence[npt.NDArray[Any]],
    model: Model | None,
    codec_settings: dict[str, Any],
    attrs: Mapping[Any, Any],
) -> int:
    codec = COINppCodec(model or UNIVERSAL, **codec_settings, **unit_settings(model, attrs))
    return sum(len(codec.encode(values)) for values in sample)


def _label(model: Model | None) -> str:
    return NO_MODEL if model is None else model.name
