"""From images, volumes or sound to a model: cut patches, train, let the coder learn."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.building import MOST_SIREN_LATENTS, build_model
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.data.items import Items, split_by_source
from coinpp_xr.devices import compute_device
from coinpp_xr.model_schema import check_network
from coinpp_xr.models import Model, load_model, parse_name
from coinpp_xr.patch_candidates import check_latent_dim
from coinpp_xr.patch_learning import learn_prior
from coinpp_xr.patches import DEFAULT_SIZES, Layout, Patching, check_patch_size
from coinpp_xr.siren import check_for_models

if TYPE_CHECKING:
    from coinpp_xr.training import Record, TrainingConfig, TrainingData

Float32 = npt.NDArray[np.float32]

# Patches that are kept in memory, in values of all of them.
_MOST_VALUES = 1 << 25
_MOST_PATCHES, _MOST_VALIDATION = 16384, 2048
# Between which coordinates a patch lies: sound needs higher frequencies (COIN++, appendix A.1).
_REACH = {1: 5.0, 2: 1.0, 3: 1.0}
# What the coder learns from, in cells: more changes little.
_MOST_LEARNED = 1 << 26
# Of the time given, for the SIREN and for the layers against blocking; the rest is for components,
# tables and the coder.
_SIREN_TIME, _DEBLOCKING_TIME = 0.4, 0.4
_REST = 0.3
# Without a time, the layers get as long as the SIREN took, but no longer.
_MOST_DEBLOCKING_MINUTES = 5.0
# Channels of the inner layers by the number of axes, and the gain in dB that they must bring.
_DEBLOCKING_WIDTH, _LEAST_GAIN = {1: 16, 2: 12, 3: 8}, 0.02


@dataclass(frozen=True)
class PatchPreset:
    """Settings under one name.

    Parameters
    ----------
    patch_size : tuple of int
    config : TrainingConfig
    box : (low, high)
        Between which coordinates a patch lies.
    """

    patch_size: tuple[int, ...]
    config: TrainingConfig
    box: tuple[float, float]


def patch_presets() -> dict[str, PatchPreset]:
    """All of them, by name: the networks of COIN++, appendices B.1 to B.3 and B.5, and small ones.

    Needs torch. Steps are the paper's epochs of its data sets (50,000 images, 51,313 triplets, 565
    volumes, 28,539 clips). Its code has images and volumes between 0 and 1, sound between -5 and 5.
    """
    from coinpp_xr.training import TrainingConfig, paper

    unit, sound = (0.0, 1.0), (-5.0, 5.0)
    small = TrainingConfig(latent_dim=16, weighting="equal")
    return {
        **{
            f"paper-cifar10-{k}": PatchPreset((32, 32), paper(k, 512, 3e-6, 64, 390_000), unit)
            for k in (128, 256, 384, 512, 768, 1024)
        },
        **{
            f"paper-kodak-{k}": PatchPreset((32, 32), paper(k, 512, 1e-6, 64, 480_000), unit)
            for k in (16, 32, 64, 96, 128, 256)
        },
        **{
            f"paper-fastmri-{k}": PatchPreset(
                (16, 16, 16), paper(k, 512, 3e-6, 16, 1_130_000), unit
            )
            for k in (16, 32, 64, 128, 256)
        },
        **{
            f"paper-librispeech-{size}-{k}": PatchPreset(
                (size,), paper(k, 256, 1e-6, 64, 446_000), sound
            )
            for size, k in ((200, 256), (200, 128), (400, 128), (800, 128), (1600, 128))
        },
        "small-image": PatchPreset((32, 32), replace(small, latent_dim=64), (-1.0, 1.0)),
        "small-volume": PatchPreset((16, 16, 16), replace(small, latent_dim=64), (-1.0, 1.0)),
        "small-audio": PatchPreset((400,), replace(small, latent_dim=64), sound),
    }


def train_patches(
    items: Items,
    validation: Items | None = None,
    *,
    latent_dim: int = 64,
    patch_size: int | tuple[int, ...] | None = None,
    max_minutes: float | None = 10.0,
    deblocking_minutes: float | None = None,
    name: str = "custom",
    preset: str | None = None,
    tail: bool = True,
    settings: dict[str, Any] | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    log: Callable[[Record], None] | None = None,
    card: dict[str, Any] | None = None,
) -> Model:
    """Train a model for patches of images, volumes or sound.

    As for globes (:func:`coinpp_xr.train`): a SIREN learns at most 16 latents of patches from
    random places, then principal components take over what held-out patches are better off with.
    Then the coder of the other rate controls codes the items, and what it has learned becomes part
    of the model. A small network learns to take the artefacts of blocks away; it is kept if
    held-out items gain from it.

    Parameters
    ----------
    items : Items
        See :func:`coinpp_xr.data.load_items`.
    validation : Items, optional
        Default: the last tenth of the items, by source.
    latent_dim : int
        Latents per patch in all.
    patch_size : int or tuple of int, optional
        Default: 32 × 32 pixels, 16³ voxels, 400 samples.
    max_minutes : float, optional
        Wall time. Without ``steps`` in the preset or settings it sets the length of training.
    deblocking_minutes : float, optional
        Of these, for the layers against blocking; 0 for none. Default: two fifths.
    name : str
    preset : str, optional
        One of :func:`patch_presets`; replaces ``latent_dim`` and ``patch_size``.
    tail : bool
        False makes all latents the SIREN's, as the ``paper`` objective does.
    settings : dict, optional
        Further fields of :class:`coinpp_xr.training.TrainingConfig`.
    checkpoint, resume, log, card :
        As of :func:`coinpp_xr.train`.

    Returns
    -------
    Model
        Loaded in this process.

    Raises
    ------
    ValueError
        If an argument makes no sense, or there is nothing to learn.
    """
    try:
        from coinpp_xr.training import meta_learn
    except ModuleNotFoundError as error:
        raise ImportError(
            "training needs torch; install it with: pip install 'coinpp-xr[torch]'"
        ) from error

    parse_name(name)  # now, not after the training
    config, box = _choose(items.spatial, latent_dim, patch_size, preset, settings)
    check_for_models(config.modulation, config.latent_map)
    check_network(config.width, config.depth, config.latent_dim)
    if validation is None:
        items, validation = split_by_source(items, max(1, len(items.values) // 10))
    data = to_patches(items, validation, box, seed=config.seed)
    if (data.train == data.train[0]).all():
        raise ValueError("all patches are the same: there is nothing to learn; give more items")
    latent_dim, minutes = config.latent_dim, max_minutes
    if minutes is not None and deblocking_minutes is not None:
        minutes = max(minutes - deblocking_minutes, 0.01)
    tail = tail and config.objective != "paper"
    if tail:
        check_latent_dim(latent_dim, data)  # now, not after the training
        config = replace(config, latent_dim=min(latent_dim, MOST_SIREN_LATENTS))
        if minutes is not None:
            minutes *= _SIREN_TIME if deblocking_minutes is None else 1 - _REST
    started = time.perf_counter()
    siren = meta_learn(
        data, config, checkpoint=checkpoint, resume=resume, max_minutes=minutes,
        device=compute_device(), log=log,
    )  # fmt: skip
    shape = " x ".join(map(str, box.shape))
    description = {
        "units": "",
        "patch": shape,
        "sources": len(items.values),
        "training_seconds": round(time.perf_counter() - started, 1),
        **(card or {}),
    }
    model = build_model(
        name, siren, data, config, (0.0, 1.0), description,
        latent_dim=latent_dim if tail else None, box=box,
        deadline=math.inf if max_minutes is None else started + 60 * max_minutes,
    )  # fmt: skip
    model = replace(model, prior=_prior(items, config.seed))
    if deblocking_minutes is None:
        deblocking_minutes = min(description["training_seconds"] / 60, _MOST_DEBLOCKING_MINUTES)
        if max_minutes is not None:
            left = max_minutes - (time.perf_counter() - started) / 60
            deblocking_minutes = min(_DEBLOCKING_TIME * max_minutes, max(left, 0.0))
    if deblocking_minutes > 0:
        model = with_deblocking(model, items, validation, deblocking_minutes, log=log)
    return load_model(model)


def with_deblocking(
    model: Model,
    items: Items,
    validation: Items,
    minutes: float,
    *,
    seed: int = 0,
    log: Callable[[Record], None] | None = None,
) -> Model:
    """The model with new layers against blocking, if held-out items gain from them.

    Parameters
    ----------
    model : Model
        With a prior.
    items, validation : Items
    minutes : float
        Time for training.
    seed : int
    log : callable, optional
    """
    from coinpp_xr.deblocking_training import learn_deblocking

    layers, gains = learn_deblocking(
        items.values, validation.values, Layout(items.spatial, "last"),
        Patching.of(DEFAULT_SIZES[items.spatial]), model,
        minutes=minutes, width=_DEBLOCKING_WIDTH[items.spatial], seed=seed, log=log,
    )  # fmt: skip
    kept = sum(gains) / len(gains) > _LEAST_GAIN
    text = "+" + ", +".join(f"{gain:g}" for gain in gains) + " dB from fine to coarse steps"
    card = {**model.card, "deblocking": text if kept else f"left out ({text})"}
    return replace(model, card=card, deblocking=layers if kept else None)


def to_patches(items: Items, validation: Items, box: BoxGrid, seed: int = 0) -> TrainingData:
    """Patches from random places for training, and patches side by side for validation.

    The ``paper`` objective draws new ones at every step.

    Parameters
    ----------
    items, validation : Items
        Of as many axes and channels as each other.
    box : BoxGrid
    seed : int

    Raises
    ------
    ValueError
        If the items do not fit each other or the box.
    """
    from coinpp_xr.training import TrainingData

    spatial, channels = items.spatial, {v.shape[-1] for v in (*items.values, *validation.values)}
    if len(box.shape) != spatial or validation.spatial != spatial:
        raise ValueError(f"items of {spatial} axes cannot be cut into patches of {box.shape}")
    if len(channels) != 1:
        raise ValueError(
            f"items have {sorted(channels)} channels; train on those of one kind at a time"
        )
    rng = np.random.default_rng(seed)
    per_patch = prod(box.shape) * channels.pop()
    count = max(1, min(_MOST_PATCHES, _MOST_VALUES // per_patch))

    def draw(rng: np.random.Generator, count: int) -> Float32:
        return _random_patches(items, box.shape, rng, count)

    side_by_side = np.concatenate([all_patches(v, box.shape) for v in validation.values])
    chosen = np.linspace(0, len(side_by_side) - 1, min(_MOST_VALIDATION, len(side_by_side)))
    return TrainingData(
        box.points, box.area_weights, draw(rng, count), side_by_side[chosen.round().astype(int)],
        random_patches=draw,
    )  # fmt: skip


def _choose(
    spatial: int,
    latent_dim: int,
    patch_size: int | tuple[int, ...] | None,
    preset: str | None,
    settings: dict[str, Any] | None,
) -> tuple[TrainingConfig, BoxGrid]:
    from coinpp_xr.training import TrainingConfig

    presets = patch_presets()
    if preset is not None:
        if preset not in presets:
            raise ValueError(f"no preset {preset!r} for patches; there are: {', '.join(presets)}")
        chosen = presets[preset]
        if len(chosen.patch_size) != spatial:
            raise ValueError(
                f"preset {preset!r} is for patches of {len(chosen.patch_size)} axes, the items "
                f"have {spatial}"
            )
        return replace(chosen.config, **(settings or {})), BoxGrid(chosen.patch_size, *chosen.box)
    if patch_size is None:
        patch_size = DEFAULT_SIZES[spatial] if spatial > 1 else (400,)
    size = check_patch_size(patch_size, spatial)
    config = TrainingConfig(latent_dim=latent_dim, weighting="equal")
    return replace(config, **(settings or {})), BoxGrid(size, -_REACH[spatial], _REACH[spatial])


def _random_patches(
    items: Items, size: tuple[int, ...], rng: np.random.Generator, count: int
) -> Float32:
    """Shape (count, points, channels): every place as likely as any other."""
    cells = np.array([v.size for v in items.values], np.float64)
    patches = []
    for index in rng.choice(len(cells), count, p=cells / cells.sum()):
        values = at_least(items.values[index], size)
        corner = [rng.integers(n - m + 1) for n, m in zip(values.shape[:-1], size, strict=True)]
        part = values[tuple(slice(a, a + m) for a, m in zip(corner, size, strict=True))]
        patches.append(part.reshape(-1, part.shape[-1]))
    return np.stack(patches)


def all_patches(values: Float32, size: tuple[int, ...]) -> Float32:
    """Whole patches side by side, shape (patches, points, channels)."""
    values = at_least(values, size)
    n = [a // m for a, m in zip(values.shape[:-1], size, strict=True)]
    whole = values[tuple(slice(a * m) for a, m in zip(n, size, strict=True))]
    blocks = whole.reshape(*(k for pair in zip(n, size, strict=True) for k in pair), -1)
    axes = len(size)
    order = (*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes)
    return blocks.transpose(order).reshape(prod(n), prod(size), -1)


def at_least(values: Float32, size: tuple[int, ...]) -> Float32:
    """Continued by what is at the edge where an item is smaller than a patch."""
    missing = [max(m - n, 0) for n, m in zip(values.shape[:-1], size, strict=True)]
    if not any(missing):
        return values
    return np.pad(values, [*((0, n) for n in missing), (0, 0)], mode="edge")


def _prior(items: Items, seed: int) -> Any:
    total = sum(v.size for v in items.values)
    arrays = items.values[:: ceil(total / _MOST_LEARNED)]
    patching = Patching.of(DEFAULT_SIZES[items.spatial])
    return learn_prior(arrays, Layout(items.spatial, "last"), patching, seed)
