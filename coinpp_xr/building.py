"""From fields to a model that can compress: train, bring latents into standard form, tabulate."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data import load_fields, to_training_data
from coinpp_xr.devices import compute_device, fit, predict
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.models import Model, load_model, parse_name
from coinpp_xr.siren import ModulatedSiren

if TYPE_CHECKING:
    from coinpp_xr.training import Record, TrainingConfig, TrainingData

Float32 = npt.NDArray[np.float32]


def train(
    source: Any,
    *,
    latent_dim: int = 16,
    max_minutes: float | None = 10.0,
    name: str = "custom",
    variable: str | None = None,
    preset: str | None = None,
    settings: dict[str, Any] | None = None,
    validation_items: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: Callable[[Record], None] | None = None,
    card: dict[str, Any] | None = None,
) -> Model:
    """Train a model on one's own archive.

    Parameters
    ----------
    source : DataArray, Dataset, path, or a list of them
        Fields with latitude and longitude; see :func:`coinpp_xr.data.load_fields`. All sources
        must share a grid. The last ``validation_items`` of the first are held out (default: a
        tenth, at most 720).
    latent_dim : int
        Latents per globe.
    max_minutes : float, optional
        Wall time. Without ``steps`` in the preset or settings it sets the length of training.
    name : str
        Name of the model.
    variable : str, optional
        Which variable, where a source holds several.
    preset : str, optional
        One of ``coinpp_xr.training.PRESETS``; replaces ``latent_dim``.
    settings : dict, optional
        Further fields of :class:`coinpp_xr.training.TrainingConfig`.
    checkpoint : path, optional
        Resumable state, written during training and on Ctrl-C.
    resume : bool
        Go on from ``checkpoint`` if it exists.
    log : callable, optional
        Receives progress records.
    card : dict, optional
        Entries for the model's card.

    Returns
    -------
    Model
        Loaded in this process; keep it with ``model.save("mine.safetensors")``.
    """
    try:
        from coinpp_xr.training import PRESETS, TrainingConfig, meta_learn
    except ModuleNotFoundError as error:
        raise ImportError(
            "training needs torch; install it with: pip install 'coinpp-xr[torch]'"
        ) from error

    parse_name(name)  # now, not after the training
    if preset is not None and preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; there are: {', '.join(PRESETS)}")
    config = PRESETS[preset] if preset else TrainingConfig(latent_dim=latent_dim)
    config = replace(config, **(settings or {}))
    sources = source if isinstance(source, list | tuple) else [source]
    fields = [load_fields(s, variable) for s in sources]
    data, normalisation = to_training_data(fields, validation_items=validation_items)
    started = time.perf_counter()
    siren = meta_learn(
        data, config, checkpoint=checkpoint, resume=resume, max_minutes=max_minutes,
        device=compute_device(), log=log,
    )  # fmt: skip
    description = {
        "variable": fields[0].name,
        "units": fields[0].units,
        "grid": f"{fields[0].grid.shape[0]} x {fields[0].grid.shape[1]}",
        "training_seconds": round(time.perf_counter() - started, 1),
        **(card or {}),
    }
    return load_model(build_model(name, siren, data, config, normalisation, description))


def build_model(
    name: str,
    siren: ModulatedSiren,
    data: TrainingData,
    config: TrainingConfig,
    normalisation: tuple[float, float],
    card: dict[str, Any],
) -> Model:
    """Add to a trained base network what coding needs, and a card with its held-out scores."""
    weights = data.weights if config.weighting == "area" else np.ones(len(data.points))
    # Thousands of items make smooth tables and a good covariance; more only take time.
    sample = data.train[:: -(-len(data.train) // 4096)]
    effort = "paper" if config.objective == "paper" else "default"
    options: dict[str, Any] = {"inner_steps": config.inner_steps, "learning_rate": config.inner_lr}
    if config.objective != "paper":
        few = sample[:: max(1, len(sample) // 512)]
        latents = fit(siren, data.points, few, weights, effort="best")
        siren = standard_form(siren, data.points, weights, latents)
    latents = fit(siren, data.points, sample, weights, effort=effort, **options).astype(np.float64)
    mean, std = latents.mean(0), latents.std(0)
    # A latent that never moves still needs a step; any will do.
    std = np.maximum(std, 1e-6 * max(float(std.max()), 1e-12))
    card = {
        **card,
        "training_items": len(data.train),
        "validation_items": len(data.validation),
        "parameters": siren.parameter_count,
        "configuration": asdict(config),
        "machine": f"{platform.system()} {platform.machine()}, device {compute_device()}",
    }
    model = Model(
        name, siren, "sphere", *normalisation, mean, std, fit_histogram(latents, mean, std), card
    )
    card["validation_rmse"] = {
        rate: round(rmse, 4) for rate, rmse in _validation_scores(model, data, effort, options)
    }
    return model


def standard_form(
    siren: ModulatedSiren,
    points: Float32,
    weights: npt.NDArray[Any],
    latents: npt.ArrayLike,
) -> ModulatedSiren:
    """The same network with latents in a form that is good to quantize.

    The training latents get zero mean, unit variance and no correlation, ordered by how much
    error variance each explains, so that zero latents (where every fit starts) are the mean
    state and one table per latent is all the entropy coder needs. Exact: the mean moves into the
    biases, the rotation into the latent → shift map.
    """
    latents = np.asarray(latents, dtype=np.float64)
    mean = latents.mean(0)
    shift = siren.shift_map.astype(np.float64)
    offsets = (shift @ mean).reshape(siren.depth, siren.width)
    biases = (*(b + o for b, o in zip(siren.biases, offsets, strict=False)), siren.biases[-1])
    centred = ModulatedSiren(
        siren.weights, tuple(b.astype(np.float32) for b in biases), siren.shift_map, siren.omega0
    )
    _, jacobian = centred.linearise(points, np.zeros((1, siren.latent_dim), np.float32))
    rows = jacobian[0].astype(np.float64)
    per_point = (weights / np.sum(weights))[:, None, None]
    metric = ((per_point * rows).reshape(-1, siren.latent_dim)).T @ rows.reshape(
        -1, siren.latent_dim
    )
    # Principal axes of the reconstructions: metric^½ cov metric^½ is diagonal in them.
    values, vectors = np.linalg.eigh(metric + 1e-9 * np.trace(metric) * np.eye(len(metric)))
    root = vectors * np.sqrt(values) @ vectors.T
    spread = np.atleast_2d(np.cov(latents.T)) + 1e-12 * np.eye(len(metric))
    power, axes = np.linalg.eigh(root @ spread @ root)
    back = np.linalg.solve(
        root, axes[:, ::-1] * np.sqrt(np.maximum(power[::-1], 1e-12 * power[-1]))
    )
    return ModulatedSiren(
        centred.weights, centred.biases, (shift @ back).astype(np.float32), siren.omega0
    )


def _validation_scores(
    model: Model, data: TrainingData, effort: str, options: dict[str, Any]
) -> Sequence[tuple[str, float]]:
    """Area-weighted RMSE in the data's unit on the validation items, unquantized and by bits."""
    fitted = fit(model.siren, data.points, data.validation, data.weights, effort=effort, **options)

    def rmse(latents: Float32) -> float:
        squared = (predict(model.siren, data.points, latents) - data.validation) ** 2
        return float(model.scale * np.sqrt((squared.mean((0, 2)) * data.weights).sum()))

    scores = [("unquantized", rmse(fitted))]
    for bits in (4, 5, 6, 8):
        quantizer = model.quantizer(bits)
        scores.append((f"{bits} bits", rmse(quantizer.dequantize(quantizer.quantize(fitted)))))
    return scores
