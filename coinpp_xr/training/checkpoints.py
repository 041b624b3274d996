"""The state of training, and the files that it is kept in."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes

from coinpp_xr.files import write_atomically
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training.configuration import TrainingConfig

# Of the state, what is plain JSON.
_PROGRESS = (
    "steps", "step", "seconds", "spikes", "spikes_in_a_row", "following", "lr_factor", "recent",
    "recent_gradients",
)  # fmt: skip


@dataclass
class State:
    """All that changes during training; what a checkpoint holds.

    Under ``warm-start`` also every training item's latents, and the mean field and patterns of
    the EOFs that they began as scores of; their preconditioner, once they follow.
    """

    siren: ModulatedSiren
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    steps: int | None
    step: int = 0
    seconds: float = 0.0
    spikes: int = 0
    spikes_in_a_row: int = 0
    following: bool = False
    lr_factor: float = 1.0
    recent: list[float] = field(default_factory=list)
    recent_gradients: list[float] = field(default_factory=list)
    latents: torch.Tensor | None = None
    eofs: tuple[torch.Tensor, torch.Tensor] | None = None
    preconditioner: torch.Tensor | None = None

    @classmethod
    def of(
        cls,
        siren: ModulatedSiren,
        rng: np.random.Generator,
        learning_rate: float,
        device: torch.device,
        **progress: Any,
    ) -> State:
        """With parameters that learn, on the device."""
        siren = siren.map(lambda p: torch.tensor(p, dtype=torch.float32, device=device))
        for p in siren.parameters:
            p.requires_grad_()
        # A short memory of squared gradients: with 0.999 a sudden large gradient is scaled by
        # what gradients used to be, and one such step can be the end of a SIREN.
        optimiser = torch.optim.Adam(siren.parameters, lr=learning_rate, betas=(0.9, 0.99))
        return cls(siren, optimiser, rng, **progress)

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Copies of all tensors, by the names that checkpoints use."""
        tensors = {f"parameter.{i}": p.detach() for i, p in enumerate(self.siren.parameters)}
        for i, p in enumerate(self.siren.parameters):
            for name, value in self.optimiser.state.get(p, {}).items():
                tensors[f"adam.{name}.{i}"] = value
        if self.latents is not None and self.eofs is not None:
            tensors["latents"] = self.latents
            tensors["eof.mean"], tensors["eof.patterns"] = self.eofs
        if self.preconditioner is not None:
            tensors["preconditioner"] = self.preconditioner
        return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Go back to a snapshot."""
        device = self.siren.parameters[0].device
        with torch.no_grad():
            for i, p in enumerate(self.siren.parameters):
                p.copy_(tensors[f"parameter.{i}"])
                moments = {
                    name.split(".")[1]: tensor.clone()
                    for name, tensor in tensors.items()
                    if name.startswith("adam.") and name.endswith(f".{i}")
                }
                self.optimiser.state[p] = {
                    name: t if name == "step" else t.to(device) for name, t in moments.items()
                }
        if "latents" in tensors:
            self.latents = tensors["latents"].clone().to(device)
            if "preconditioner" in tensors:
                self.preconditioner = tensors["preconditioner"].clone().to(device)
            self.eofs = tensors["eof.mean"].to(device), tensors["eof.patterns"].to(device)

    def save(self, path: Path, config: TrainingConfig, data_crc: str) -> None:
        """Write a checkpoint, whole or not at all."""
        metadata = {
            "config": json.dumps(asdict(config)),
            "progress": json.dumps({name: getattr(self, name) for name in _PROGRESS}),
            "rng": json.dumps(self.rng.bit_generator.state),
            "data": data_crc,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors_bytes(self.snapshot(), metadata))


def resumed_state(path: Path, config: TrainingConfig, data_crc: str, device: torch.device) -> State:
    """The state in a checkpoint.

    Raises
    ------
    ValueError
        If it was written with another configuration or other data.
    """
    tensors, metadata = read_checkpoint(path)
    if _config_in(metadata, path) != config:
        raise ValueError(
            f"{path} was written with another configuration; "
            "use another checkpoint path or the same settings"
        )
    if metadata["data"] != data_crc:
        raise ValueError(
            f"{path} was written with other training data; "
            "use another checkpoint path or the same data"
        )
    rng = np.random.default_rng()
    try:
        rng.bit_generator.state = json.loads(metadata["rng"])
        progress = {name: json.loads(metadata["progress"])[name] for name in _PROGRESS}
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {error!a:.80}") from error
    state = State.of(siren_from_checkpoint(path), rng, config.outer_lr, device, **progress)
    state.restore(tensors)
    return state


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors and metadata of a checkpoint.

    Raises
    ------
    ValueError
        If the file is not a checkpoint or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a training checkpoint or is damaged") from error
    if not {"config", "progress", "rng", "data"} <= set(metadata):
        raise ValueError(f"{path} is not a training checkpoint")
    return tensors, metadata


def _config_in(metadata: dict[str, str], path: str | Path) -> TrainingConfig:
    try:
        return TrainingConfig(**json.loads(metadata["config"]))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged: {str(error)!a:.80}") from error


def siren_from_checkpoint(path: str | Path) -> ModulatedSiren:
    """The base network in a checkpoint, with numpy parameters."""
    tensors, metadata = read_checkpoint(path)
    config = _config_in(metadata, path)
    count = sum(name.startswith("parameter.") for name in tensors)
    return ModulatedSiren.of(
        tuple(tensors[f"parameter.{i}"].numpy() for i in range(count)), depth=config.depth,
        omega0=config.omega0, modulation=config.modulation, latent_map=config.latent_map,
    )  # fmt: skip


def log_path(checkpoint: Path) -> Path:
    """The JSON-lines log beside a checkpoint."""
    return checkpoint.with_suffix(".log.jsonl")
