"""Everything that defines a training run apart from its data, and presets of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from numbers import Integral, Real
from typing import Any

from coinpp_xr.siren import check_parameterization


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that defines a training run apart from its data.

    Parameters
    ----------
    latent_dim, width, depth : int
        Latents per item; width and number of sine layers of the base network.
    omega0 : float
        Frequency of the sines.
    objective : {"warm-start", "paper", "matrix-step"}
    steps : int or None
        Outer steps. None: as many as fit into ``max_minutes``, measured at the start.
    batch_size : int
        Items per outer step.
    points_per_item : int or None
        Random coordinates per step, the same for the whole batch; None takes all.
    outer_lr : float
        Adam's learning rate.
    schedule : {"cosine", "constant"}
    inner_lr, inner_steps :
        Of the paper's inner loop.
    shift_scale : float
        Bound of the uniform initial latent → shift map, or of what takes its place.
    modulation : {"shifts", "scales", "both", "amplitudes"}
        What latents modulate; see :class:`coinpp_xr.siren.ModulatedSiren`.
    latent_map : {"linear", "relu", "siren", "network"}
        How; see :class:`coinpp_xr.latent_maps.LatentMap`. Models can only be built from
        networks of shifts by a linear map.
    map_width : int
        Width of the hidden layer of ``relu`` and ``siren``.
    warm_fraction : float
        Part of the steps with EOF scores for latents.
    jitter : float
        Standard deviation of the noise on those scores.
    relaxation, largest_move : float
        Fraction and clip (in standard deviations) of each move of a latent that follows.
    weighting : {"area", "equal"}
        Error weights of the grid's cells.
    precision : {"float32", "tf32", "bf16"}
        Of matrix products; the last two need a GPU.
    seed : int
    """

    latent_dim: int
    width: int = 64
    depth: int = 4
    omega0: float = 30.0
    objective: str = "warm-start"
    steps: int | None = None
    batch_size: int = 32
    points_per_item: int | None = 512
    outer_lr: float = 6e-4
    schedule: str = "cosine"
    inner_lr: float = 1e-2
    inner_steps: int = 3
    shift_scale: float = 0.004
    modulation: str = "shifts"
    latent_map: str = "linear"
    map_width: int = 64
    warm_fraction: float = 1.0
    jitter: float = 0.5
    relaxation: float = 0.2
    largest_move: float = 0.2
    weighting: str = "area"
    precision: str = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            kinds = str(field.type).split(" | ")
            if value is None and "None" in kinds:
                continue
            if not isinstance(value, _KINDS[kinds[0]]) or isinstance(value, bool):
                raise ValueError(f"{field.name} must be {field.type}, got {value!r:.80}")
            if kinds[0] != "str" and not -_LARGEST <= value <= _LARGEST:
                raise ValueError(f"{field.name} must be within ±{_LARGEST:g}, got {value!r:.80}")
        for name in ("latent_dim", "width", "depth", "batch_size", "inner_steps", "map_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        check_parameterization(self.modulation, self.latent_map)


# Python types by the annotation of a setting; numpy's numbers are among them.
_KINDS: dict[str, Any] = {"int": Integral, "float": Real, "str": str}
_LARGEST = 2.0**63
_CHOICES = {
    "objective": ("warm-start", "paper", "matrix-step"),
    "schedule": ("cosine", "constant"),
    "weighting": ("area", "equal"),
    "precision": ("float32", "tf32", "bf16"),
}


def paper(
    latent_dim: int, width: int, outer_lr: float, batch_size: int, steps: int
) -> TrainingConfig:
    """A network of COIN++, appendix B.

    The paper's code counts the linear output as one of its 10 layers; here depth counts sines.
    """
    return TrainingConfig(
        latent_dim=latent_dim, width=width, depth=9, omega0=50.0, objective="paper",
        steps=steps, batch_size=batch_size, points_per_item=None, outer_lr=outer_lr,
        schedule="constant", inner_lr=1e-2, inner_steps=3, shift_scale=1 / math.sqrt(latent_dim),
        weighting="equal",
    )  # fmt: skip


PRESETS: dict[str, TrainingConfig] = {
    # Appendix B.4.
    **{f"paper-era5-{k}": paper(k, 384, 3e-6, 32, 1_000_000) for k in (4, 8, 12, 16)},
    **{f"small-{k}": TrainingConfig(latent_dim=k) for k in (8, 16, 32)},
    "small-64": TrainingConfig(latent_dim=64, width=96),
    # The paper's method at a size and with step sizes that learn within CPU minutes.
    **{
        f"small-paper-{k}": TrainingConfig(
            latent_dim=k, objective="paper", inner_lr=10.0, shift_scale=0.02, outer_lr=1e-3,
            batch_size=16,
        )
        for k in (8, 16, 32)
    },
}  # fmt: skip
