"""From fields to a model that can compress: train, bring latents into standard form, tabulate."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

import numpy as np
import numpy.typing as npt

from coinpp_xr.candidates import Candidate, choose_network, tail_basis
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.data import load_fields, to_training_data
from coinpp_xr.devices import compute_device, fit, predict
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.eofs import HarmonicBasis
from coinpp_xr.errors import refuse_unknown
from coinpp_xr.model_schema import check_network
from coinpp_xr.models import Model, load_model, parse_name
from coinpp_xr.network import BaseNetwork, QuantizedTail
from coinpp_xr.parallel import is_busy, single_threaded_blas
from coinpp_xr.patch_candidates import choose_patch_network
from coinpp_xr.siren import ModulatedSiren, check_for_models
from coinpp_xr.transform import fit_spectrum

if TYPE_CHECKING:
    from coinpp_xr.training import Record, TrainingConfig, TrainingData

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# More latents than these go to the linear tail: beyond them SIRENs only learn the training data.
MOST_SIREN_LATENTS = 16
# Of the time given, with and without a tail; the rest is for that, and for what coding needs.
_SIREN_TIME, _SIREN_TIME_ALONE = 0.6, 0.85
_LEAST_SIREN_TIME = 0.1
# The simplest tail takes so many times as long as the basis for it.
_LEAST_TAIL_TIME = 2.5
# Of the time that is left: to choose a network, and for each fit of many items.
_CHOICE_TIME, _FIT_TIME = 0.6, 0.2
_TIMED_ITEMS = 8
_FEWEST_ITEMS = 32
# The `bits` mode stores at most these; its tables would outgrow the rest of a model.
_MOST_CODED = 64
# Rounding the tail may cost this share of the held-out RMSE, added in squares: 0.12 %.
_TAIL_ROUNDING = 0.05
_MOST_SPECTRUM_ITEMS = 4096


def train(
    source: Any,
    *,
    latent_dim: int = 16,
    max_minutes: float | None = 10.0,
    name: str = "custom",
    variable: str | None = None,
    preset: str | None = None,
    tail: bool = True,
    settings: dict[str, Any] | None = None,
    validation_items: int | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: Callable[[Record], None] | None = None,
    card: dict[str, Any] | None = None,
    **unknown: Never,
) -> Model:
    """Train a model on one's own archive.

    A SIREN learns the first latents (at most 16), then several networks are made from it: with
    all, some or none of its latents, and localised EOFs as a linear tail for the rest. The one
    with the smallest error on held-out fields becomes the model; its card lists them all.

    Parameters
    ----------
    source : DataArray, Dataset, path, or a list of them
        Fields with latitude and longitude; see :func:`coinpp_xr.data.load_fields`. All sources
        must share a grid. The last ``validation_items`` of the first are held out (default: a
        tenth, at most 720).
    latent_dim : int
        Latents per globe in all.
    max_minutes : float, optional
        Wall time for all of it, on a busy machine too: what is left when the SIREN is trained
        decides on how many items the rest is done. Without ``steps`` in the preset or settings it
        sets the length of training.
    name : str
        Name of the model.
    variable : str, optional
        Which variable, where a source holds several.
    preset : str, optional
        One of ``coinpp_xr.training.PRESETS``; replaces ``latent_dim``.
    tail : bool
        False makes all latents the SIREN's. So do the ``paper`` objective and grids that do not
        cover the globe.
    settings : dict, optional
        Further fields of :class:`coinpp_xr.training.TrainingConfig`.
    checkpoint : path, optional
        Resumable state of the SIREN, written during training and on Ctrl-C.
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

    Raises
    ------
    ValueError
        If the grid does not resolve ``latent_dim`` latents, or an argument makes no sense.
    TypeError
        If there is no such argument; the message names the one that was meant.
    """
    called = time.perf_counter()
    refuse_unknown(unknown, train)
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
    check_for_models(config.modulation, config.latent_map)
    check_network(config.width, config.depth, config.latent_dim)
    sources = source if isinstance(source, list | tuple) else [source]
    fields = [load_fields(s, variable) for s in sources]
    data, normalisation = to_training_data(fields, validation_items=validation_items)
    latent_dim = config.latent_dim
    tail = tail and config.objective != "paper"
    before = time.perf_counter()
    with _blas_for(max_minutes):
        basis = tail_basis(data, latent_dim) if tail else None
    basis_seconds = time.perf_counter() - before
    if tail and basis is None:
        tail = False
        card = {
            "network": "the SIREN alone: a tail needs a grid of the whole sphere",
            **(card or {}),
        }
    if tail:
        config = replace(config, latent_dim=min(latent_dim, MOST_SIREN_LATENTS))
    siren_minutes = None
    if max_minutes is not None:
        # On a busy machine it takes a while to come to here.
        left = max_minutes - (time.perf_counter() - called) / 60
        share = _SIREN_TIME if tail else _SIREN_TIME_ALONE
        siren_minutes = min(share * left, left - _LEAST_TAIL_TIME * basis_seconds / 60)
        siren_minutes = max(siren_minutes, _LEAST_SIREN_TIME * max_minutes)
    started = time.perf_counter()
    siren = meta_learn(
        data, config, checkpoint=checkpoint, resume=resume, max_minutes=siren_minutes,
        device=compute_device(), log=log,
    )  # fmt: skip
    description = {
        "variable": fields[0].name,
        "units": fields[0].units,
        "grid": f"{fields[0].grid.shape[0]} x {fields[0].grid.shape[1]}",
        "training_seconds": round(time.perf_counter() - started, 1),
        **(card or {}),
    }
    with _blas_for(max_minutes):
        model = build_model(
            name, siren, data, config, normalisation, description,
            latent_dim=latent_dim if tail else None,
            basis=basis, deadline=math.inf if max_minutes is None else called + 60 * max_minutes,
            consecutive=len(data.train) - sum(len(f.without_missing().values) for f in fields[1:]),
        )  # fmt: skip
    return load_model(model)


def _blas_for(max_minutes: float | None) -> AbstractContextManager[None]:
    """On a busy machine with little time several threads take longer than one."""
    return single_threaded_blas() if max_minutes is not None and is_busy() else nullcontext()


def build_model(
    name: str,
    siren: ModulatedSiren,
    data: TrainingData,
    config: TrainingConfig,
    normalisation: tuple[float, float],
    card: dict[str, Any],
    *,
    latent_dim: int | None = None,
    basis: HarmonicBasis | None = None,
    deadline: float = math.inf,
    consecutive: int | None = None,
    box: BoxGrid | None = None,
) -> Model:
    """Add to a trained SIREN a tail, what coding needs, and a card with held-out scores.

    Parameters
    ----------
    name : str
    siren : ModulatedSiren
        With numpy parameters.
    data : TrainingData
        What it was trained on.
    config : TrainingConfig
        How it was trained.
    normalisation : (offset, scale)
        Of the features, in the unit of the data.
    card : dict
        Entries for the model's card.
    latent_dim : int, optional
        Latents in all; None leaves the SIREN without a tail.
    basis : HarmonicBasis, optional
        Of the tail, where it was made already.
    deadline : float
        Of ``time.perf_counter``. What takes longest is done with fewer items where it is near.
    consecutive : int, optional
        How many of the first training items follow each other in time; default: all.
    box : BoxGrid, optional
        Of patches; None for globes.

    Raises
    ------
    ValueError
        If the data is not on a grid that resolves ``latent_dim`` latents.
    """
    weights = data.weights if config.weighting == "area" else np.ones(len(data.points))
    # Thousands of items make smooth tables and a good covariance; more only take time.
    sample = data.train[:: -(-len(data.train) // 4096)]
    effort = "paper" if config.objective == "paper" else "default"
    options: dict[str, Any] = {"inner_steps": config.inner_steps, "learning_rate": config.inner_lr}
    if config.objective != "paper":
        few = _affordable(sample[:: max(1, len(sample) // 512)], siren, data, weights, deadline)
        latents = fit(siren, data.points, few, weights)
        siren = standard_form(siren, data.points, weights, latents)
    card = {
        **card,
        "training_items": len(data.train),
        "validation_items": len(data.validation),
        "configuration": asdict(config),
        "machine": f"{platform.system()} {platform.machine()}, device {compute_device()}",
    }
    scale, quantized = normalisation[1], None
    if latent_dim is not None:
        if box is None:
            left = _CHOICE_TIME * max(deadline - time.perf_counter(), 0.0)
            best, tried = choose_network(siren, data, latent_dim, left, basis)
        else:
            best, tried = choose_patch_network(siren, data, latent_dim, box)
        card["candidates"] = {
            candidate.label: round(scale * candidate.rmse, 4) for candidate in tried
        }
        card["network"] = f"{best.label}: the smallest RMSE on held-out fields"
        some = _affordable(sample, best.network, data, weights, deadline)
        siren, quantized = best.network.siren, _quantize_tail(best, data.points, some, weights)
    network = BaseNetwork(siren, quantized.tail if quantized else None)
    # A SIREN alone has no first and last latents: without some of them it is another function.
    coded = network if latent_dim is None else network.truncated(_MOST_CODED)
    sample = _affordable(sample, coded, data, weights, deadline, effort=effort, **options)
    latents = fit(coded, data.points, sample, weights, effort=effort, **options).astype(np.float64)
    mean, std = latents.mean(0), latents.std(0)
    # A latent that never moves still needs a step; any will do.
    std = np.maximum(std, 1e-6 * max(float(std.max()), 1e-12))
    spectrum = None
    if box is None:
        run = data.train[:consecutive][-_MOST_SPECTRUM_ITEMS:]
        run = run[-_affordable_count(len(run), network, data, weights, deadline) :]
        sequence = fit(network, data.points, run, weights, effort=effort, **options)
        spectrum = fit_spectrum([sequence]) if len(sequence) else None
    card["parameters"] = network.parameter_count
    model = Model(
        name, siren, "patch" if box else "sphere", *normalisation, mean, std,
        fit_histogram(latents, mean, std), card, tail=quantized, spectrum=spectrum, box=box,
    )  # fmt: skip
    held_out = _affordable(
        data.validation, network, data, weights, deadline, effort=effort, **options
    )
    card |= _validation_scores(model, replace(data, validation=held_out), effort, options)
    return model


def _affordable(
    items: Float32,
    network: ModulatedSiren | BaseNetwork,
    data: TrainingData,
    weights: npt.NDArray[Any],
    deadline: float,
    **how: Any,
) -> Float32:
    """As many items, spread over all, as can be fitted in a share of the time that is left."""
    count = _affordable_count(len(items), network, data, weights, deadline, **how)
    return items[:: -(-len(items) // count)] if count else items


def _affordable_count(
    count: int,
    network: ModulatedSiren | BaseNetwork,
    data: TrainingData,
    weights: npt.NDArray[Any],
    deadline: float,
    **how: Any,
) -> int:
    if deadline == math.inf or count <= _FEWEST_ITEMS:
        return count
    few = data.train[:_TIMED_ITEMS]
    for _ in range(2):  # the first time machine code may be made
        started = time.perf_counter()
        fit(network, data.points, few, weights, **how)
    each = (time.perf_counter() - started) / len(few)
    left = max(deadline - time.perf_counter(), 0.0)
    return min(count, max(_FEWEST_ITEMS, int(_FIT_TIME * left / max(each, 1e-9))))


def _quantize_tail(
    best: Candidate, points: Float32, sample: Float32, weights: npt.NDArray[Any]
) -> QuantizedTail:
    network = best.network
    assert network.tail is not None
    spread = fit(network, points, sample, weights).std(0)[network.siren.latent_dim :]
    return QuantizedTail.of(network.tail, spread, _TAIL_ROUNDING * best.rmse)


def standard_form(
    siren: ModulatedSiren,
    points: Float32,
    weights: npt.NDArray[Any],
    latents: npt.ArrayLike,
) -> ModulatedSiren:
    """The same network with latents in a form that is good to quantize.

    The training latents get zero mean and no correlation, in the principal axes of the error
    metric: at zero latents (where every fit starts, the mean state) JᵀWJ is the identity, so that
    an error in any latent costs the same error of the field. Their variance falls from the first
    to the last. Exact: the mean moves into the biases, the rotation into the latent → shift map.

    Parameters
    ----------
    siren : ModulatedSiren
    points : float32 array, shape (points, dim_in)
    weights : array, shape (points,)
        Error weights.
    latents : array_like, shape (items, latent_dim)
        Of training fields, at least two.

    Returns
    -------
    ModulatedSiren
    """
    latents = np.asarray(latents, dtype=np.float64)
    mean = latents.mean(0)
    shift = siren.shift_map.astype(np.float64)
    offsets = (shift @ mean).reshape(siren.depth, siren.width)
    biases = (*(b + o for b, o in zip(siren.biases, offsets, strict=False)), siren.biases[-1])
    centred = replace(siren, biases=tuple(b.astype(np.float32) for b in biases))
    _, jacobian = centred.linearise(points, np.zeros((1, siren.latent_dim), np.float32))
    rows = jacobian[0].astype(np.float64)
    per_point = (weights / np.sum(weights))[:, None, None] / siren.dim_out
    metric = ((per_point * rows).reshape(-1, siren.latent_dim)).T @ rows.reshape(
        -1, siren.latent_dim
    )
    # Principal axes of the reconstructions: metric^½ cov metric^½ is diagonal in them.
    values, vectors = np.linalg.eigh(metric + 1e-9 * np.trace(metric) * np.eye(len(metric)))
    root = vectors * np.sqrt(values) @ vectors.T
    spread = np.atleast_2d(np.cov(latents.T)) + 1e-12 * np.eye(len(metric))
    axes = np.linalg.eigh(root @ spread @ root)[1][:, ::-1]
    back = np.linalg.solve(root, axes)
    return centred.with_shift_map((shift @ back).astype(np.float32))


def _validation_scores(
    model: Model, data: TrainingData, effort: str, options: dict[str, Any]
) -> dict[str, dict[str, float]]:
    """Card entries: area-weighted RMSE in the data's unit on the validation items.

    Of all latents and of what the ``bits`` mode stores; where there is a tail, also by number of
    unquantized latents.
    """

    def fitted(network: BaseNetwork) -> Float32:
        return fit(network, data.points, data.validation, data.weights, effort=effort, **options)

    def rmse(network: BaseNetwork, latents: Float32) -> float:
        squared = (predict(network, data.points, latents) - data.validation) ** 2
        mean = (squared.mean((0, 2)) * data.weights).sum()
        return round(float(model.scale * np.sqrt(mean)), 4)

    scores = {"unquantized": rmse(model.network, fitted(model.network))}
    coded = fitted(model.coded_network)
    for bits in (4, 5, 6, 8):
        quantizer = model.quantizer(bits)
        symbols = quantizer.quantize(coded)
        scores[f"{bits} bits"] = rmse(model.coded_network, quantizer.dequantize(symbols))
    if model.tail is None:
        return {"validation_rmse": scores}
    by_latents = {str(model.latent_dim): scores["unquantized"]}
    for count in (16, 64, 256):
        if count < model.latent_dim:
            fewer = model.network.truncated(count)
            by_latents[str(count)] = rmse(fewer, fitted(fewer))
    return {"validation_rmse": scores, "validation_rmse_by_latents": by_latents}
