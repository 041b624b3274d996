"""The paper's data sets with the networks that are fitted to them, at quick sizes and in full."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from coinpp_xr.patch_building import patch_presets
from coinpp_xr.reproduction.datasets import (
    Material,
    cifar10,
    era5,
    fastmri,
    kodak,
    librispeech,
    weather,
)
from coinpp_xr.training import PRESETS, TrainingConfig


@dataclass(frozen=True)
class Study:
    """One data set of the paper: its material and the networks fitted to it.

    Parameters
    ----------
    name : str
        As on the command line and in ``rd_points.csv``.
    load : callable
        (folder or None, quick) → Material.
    latents : tuple of int
        Of the networks at quick sizes.
    quick : TrainingConfig
        At quick sizes, but for latents and seed.
    preset : str
        Name of the paper's networks (appendix B) among the presets, with ``{}`` for the latents.
    preset_latents : tuple of int
    bits : tuple of int
        Per latent, in the paper's figure.
    inner_steps : int
        Of encoding, in the paper's figure.
    """

    name: str
    load: Callable[[Path | None, bool], Material]
    latents: tuple[int, ...]
    quick: TrainingConfig
    preset: str
    preset_latents: tuple[int, ...]
    bits: tuple[int, ...]
    inner_steps: int

    def config(
        self, latent_dim: int, *, quick: bool, seed: int = 0, **changes: Any
    ) -> TrainingConfig:
        """Settings of one network."""
        if quick:
            base = replace(self.quick, latent_dim=latent_dim)
        else:
            name = self.preset.format(latent_dim)
            base = PRESETS[name] if name in PRESETS else patch_presets()[name].config
        return replace(base, seed=seed, **changes)

    def matrix_changes(self, quick: bool) -> dict[str, Any]:
        """What meta-learning through one matrix step changes in the configuration."""
        if not quick:
            return {"objective": "matrix-step", "outer_lr": 1e-4, "schedule": "cosine"}
        return {
            "objective": "matrix-step", "batch_size": 32, "points_per_item": 512, "outer_lr": 2e-3,
        }  # fmt: skip


# The paper's method at a size and with step sizes that learn within a minute of one core, chosen on
# validation data. With larger outer steps the inner loop may run away half way.
_SMALL = TrainingConfig(
    latent_dim=16, width=96, depth=3, omega0=30.0, objective="paper", steps=600, batch_size=8,
    points_per_item=256, outer_lr=5e-4, inner_lr=3.0, inner_steps=3, shift_scale=0.04,
    weighting="equal",
)  # fmt: skip
_SMALL_GLOBE = replace(_SMALL, outer_lr=1e-3, inner_lr=10.0, shift_scale=0.02)
SPEECH_SAMPLES = (1600, 800, 400, 200)


def _speech(samples: int) -> Study:
    return Study(
        f"librispeech-{samples}", librispeech(samples),
        (128,), _SMALL, f"paper-librispeech-{samples}-{{}}",
        (128, 256) if samples == min(SPEECH_SAMPLES) else (128,), (5, 6, 7), 3,
    )  # fmt: skip


STUDIES = {
    study.name: study
    for study in (
        Study(
            "cifar10", cifar10, (32, 64, 128, 256, 512), _SMALL,
            "paper-cifar10-{}", (128, 256, 384, 512, 768, 1024), (5, 6), 10,
        ),
        Study(
            "kodak", kodak, (16, 32, 64, 128), _SMALL,
            "paper-kodak-{}", (16, 32, 64, 96, 128, 256), (5, 6), 10,
        ),
        Study(
            "fastmri", fastmri, (16, 32, 64, 128, 256), _SMALL,
            "paper-fastmri-{}", (16, 32, 64, 128, 256), (5, 6), 10,
        ),
        Study(
            "era5", era5, (4, 8, 12, 16), _SMALL_GLOBE,
            "paper-era5-{}", (4, 8, 12, 16), (5, 6, 7, 8), 3,
        ),
        Study(
            "weather", weather, (4, 8, 16, 32), _SMALL_GLOBE,
            "paper-era5-{}", (4, 8, 12, 16), (5, 6, 7, 8), 3,
        ),
        *(_speech(samples) for samples in SPEECH_SAMPLES),
    )
}  # fmt: skip


@lru_cache(maxsize=2)
def material(name: str, folder: Path | None, quick: bool) -> Material:
    """The material of a study; the last two are kept."""
    return STUDIES[name].load(folder, quick)


@cache
def fingerprint(name: str, folder: Path | None, quick: bool) -> str:
    """Of what a study trains on: a network trained on other data is another network."""
    training = material(name, folder, quick).training
    digest = sha256(training.points.tobytes())
    for part in (training.train, training.validation):
        digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()
