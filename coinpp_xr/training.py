"""The outer loop: meta-learn a base network whose latents describe one item each.

Needs numpy, torch and safetensors only, so that it runs on a bare GPU machine.

Three objectives. ``paper`` is COIN++ as published: a few gradient steps from zero latents, Adam on
the base network through those steps with second-order gradients (eqs. 9, 10). ``matrix-step`` puts
one Gauss-Newton step in their place: its matrix is the same for the whole batch, so that exact
gradients through it cost little, and there is no inner learning rate. ``warm-start``
takes every training item's EOF scores as its latents, jitters them, and regresses the
base network on what the EOFs make of them: targets without noise, as many as one likes, also
where the archive has none. A last part of the steps (``warm_fraction``) may then learn from the
data itself while the latents follow. At a solved inner problem the outer gradient is the plain one
at fixed latents (envelope theorem): no second-order terms, and the gradient with respect to the
latents, which the same backward pass yields, moves them on by preconditioned steps.
"""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as safetensors_bytes
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from coinpp_xr.files import write_atomically
from coinpp_xr.fitting import gauss_newton, sgd_step
from coinpp_xr.siren import ModulatedSiren, check_parameterization

Record = dict[str, Any]

# A batch whose loss is this many times the recent median is a spike: it is logged and skipped.
# Several in a row mean that the network itself went astray: back to the last good state.
_SPIKE = 8.0
_SPIKES_BEFORE_ROLLBACK = 5
# Gradients longer than this many times the recent median are shortened to it.
_LONG_GRADIENT = 2.0
_WARM_UP_STEPS = 200
_LARGEST_SCORE = 3.0
_PRECONDITIONER_STEPS = 25
# Of the mean diagonal. More than an encoder needs: directions that the network hardly has yet
# would otherwise be filled with very large latents.
_MATRIX_DAMPING = 1e-3


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
        for name in ("latent_dim", "width", "depth", "batch_size", "inner_steps", "map_width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}"
                )
        check_parameterization(self.modulation, self.latent_map)


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


@dataclass(frozen=True)
class TrainingData:
    """Normalised fields on one grid.

    Parameters
    ----------
    points : float32 array, shape (points, dim_in)
    weights : array, shape (points,)
        Error weights that sum to one.
    train, validation : float32 array, shape (items, points, channels)
        Features in [0, 1].
    scale : float
        One unit of a feature in the unit of the data, for reports.
    random_patches : callable, optional
        For domains that train on random patches of larger items: (rng, batch size) → features,
        shape (batch, points, channels). The ``paper`` objective then draws its batches from it;
        everything else (validation, tables) uses the fixed patches above.
    """

    points: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    train: npt.NDArray[np.float32]
    validation: npt.NDArray[np.float32]
    scale: float = 1.0
    random_patches: Callable[[np.random.Generator, int], npt.NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            fields = getattr(self, name)
            if fields.ndim != 3 or fields.shape[1] != len(self.points) or len(fields) == 0:
                raise ValueError(
                    f"{name} must have shape (items, {len(self.points)}, channels) and hold at "
                    f"least one item, got {fields.shape}"
                )
            if not np.isfinite(fields).all():
                raise ValueError(f"{name} holds NaN or Inf; fill or drop them before training")

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` that a machine without xarray can train from."""
        np.savez_compressed(
            path, points=self.points, weights=self.weights, train=self.train,
            validation=self.validation, scale=self.scale,
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> TrainingData:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{**arrays, "scale": float(arrays["scale"])})


@dataclass
class _State:
    """All that changes during training; what a checkpoint holds."""

    siren: ModulatedSiren
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    latents: torch.Tensor | None
    steps: int | None
    step: int = 0
    seconds: float = 0.0
    spikes: int = 0
    spikes_in_a_row: int = 0
    following: bool = False
    lr_factor: float = 1.0
    recent: list[float] = field(default_factory=list)
    recent_gradients: list[float] = field(default_factory=list)


def meta_learn(
    data: TrainingData,
    config: TrainingConfig,
    *,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    max_minutes: float | None = None,
    device: str = "cpu",
    log: Callable[[Record], None] | None = None,
) -> ModulatedSiren:
    """Run the outer loop.

    Parameters
    ----------
    data : TrainingData
    config : TrainingConfig
    checkpoint : path, optional
        Safetensors file written at every validation, at the end, and on Ctrl-C. A JSON-lines
        log is kept beside it (``.log.jsonl``).
    resume : bool
        Go on from ``checkpoint`` if it exists. On one machine and number of threads a resumed
        run ends with the same bits as an uninterrupted one (unless spikes force a rollback before
        its next validation: it then goes back to the checkpoint).
    max_minutes : float, optional
        Stop after this time. Without ``config.steps`` it also sets the length of the schedule.
    device : str
        A torch device.
    log : callable, optional
        Receives every log record (a dict), for progress bars.

    Returns
    -------
    ModulatedSiren
        With numpy parameters.
    """
    if config.steps is None and max_minutes is None:
        raise ValueError("give config.steps or max_minutes: otherwise training never ends")
    return _Training(data, config, checkpoint, device, log).run(resume, max_minutes)


class _Training:
    def __init__(
        self,
        data: TrainingData,
        config: TrainingConfig,
        checkpoint: str | Path | None,
        device: str,
        log: Callable[[Record], None] | None,
    ) -> None:
        self.config, self.device, self.scale = config, torch.device(device), data.scale
        self.checkpoint = Path(checkpoint) if checkpoint else None
        self.listener, self.last_told = log, 0.0
        self.preconditioner: torch.Tensor | None = None
        self.random_patches = data.random_patches
        self.data_crc = f"{zlib.crc32(np.ascontiguousarray(data.train).tobytes()):08x}"
        if config.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        weights = data.weights if config.weighting == "area" else np.ones(len(data.points))
        self.weights = self._tensor(weights / weights.sum())
        self.cumulative_weights = np.cumsum(weights / weights.sum())
        self.points, self.train = self._tensor(data.points), self._tensor(data.train)
        # A spread of validation items: enough to steer by, cheap enough to look at often.
        chosen = np.linspace(0, len(data.validation) - 1, min(64, len(data.validation)))
        self.validation = self._tensor(data.validation[chosen.round().astype(int)])

    # ---- the loop -------------------------------------------------------------------------

    def run(self, resume: bool, max_minutes: float | None) -> ModulatedSiren:
        state = self._resumed() if resume else None
        if state is None:
            state = self._fresh()
        started, seconds_before = time.perf_counter(), state.seconds
        deadline = math.inf if max_minutes is None else 60 * max_minutes
        measure_speed = state.steps is None
        if measure_speed:
            deadline *= 1.2  # the schedule is laid out for the time given; let it end
        snapshot = self._snapshot(state)

        def elapsed() -> float:
            return time.perf_counter() - started

        first, calibration = state.step, (state.step, 0.0)
        with _interrupts_deferred() as interrupted:
            while state.steps is None or state.step < state.steps:
                if interrupted():
                    self._log({"event": "interrupted", "step": state.step})
                    self._save(state)
                    raise KeyboardInterrupt
                if elapsed() > deadline:
                    break
                loss = self._outer_step(state)
                state.seconds = seconds_before + elapsed()
                self._tell_progress(state, loss)
                if measure_speed and state.steps is None and max_minutes is not None:
                    if state.step == first + 10:  # the first steps warm up caches and allocators
                        calibration = (state.step, elapsed())
                    elif state.step == first + 40 or elapsed() > 6 * max_minutes:
                        per_step = (elapsed() - calibration[1]) / (state.step - calibration[0])
                        # Leave room for validation: a schedule cut off loses more than a short one.
                        left = 0.72 * (60 * max_minutes - elapsed()) / per_step
                        state.steps = state.step + max(1, int(left))
                if state.spikes_in_a_row >= _SPIKES_BEFORE_ROLLBACK:
                    self._roll_back(state, snapshot)
                total = state.steps or 10**9
                if state.step % max(100, total // 15) == 0 or state.step == total:
                    self._validate(state, loss)
                    if state.spikes_in_a_row == 0:
                        snapshot = self._snapshot(state)
                    self._save(state)
        self._save(state)
        return state.siren.map(lambda p: p.detach().cpu().numpy().copy())

    def _outer_step(self, state: _State) -> float:
        """One step of Adam, unless the loss spikes; returns the loss."""
        config = self.config
        for group in state.optimiser.param_groups:
            group["lr"] = state.lr_factor * self._learning_rate(state)
        if self.random_patches is not None and state.latents is None:
            pool = self._tensor(self.random_patches(state.rng, config.batch_size))
            items = torch.arange(len(pool), device=self.device)
        else:
            pool = self.train
            few = len(pool) < config.batch_size
            drawn = state.rng.choice(len(pool), config.batch_size, replace=few)
            items = torch.from_numpy(drawn).to(self.device)
        cells, points, weights = self._sample(state.rng)
        targets = pool[items] if cells is None else pool[items[:, None], cells]

        state.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16"
        ):
            if state.latents is None:
                latents = self._inner_loop(state.siren, points, targets, weights)
            else:
                latents = state.latents[items]
                if state.step < config.warm_fraction * (state.steps or math.inf):
                    noise = state.rng.standard_normal(latents.shape)
                    # Rare items lie tens of standard deviations out. Their direction is worth
                    # learning; at their full length they would wreck the network for the rest.
                    spread = state.latents.std(0, unbiased=False)
                    latents = latents.clamp(-_LARGEST_SCORE * spread, _LARGEST_SCORE * spread)
                    latents = latents + config.jitter * spread * self._tensor(noise)
                    targets = self._eof_reconstruction(latents, cells)
                else:
                    if not state.following:  # another loss: what was usual no longer counts
                        state.following, state.recent, state.recent_gradients = True, [], []
                    latents.requires_grad_()
            error = (state.siren(points, latents).float() - targets).square().mean(-1)
        loss = (error * weights).sum(-1).mean()
        loss.backward()
        value = float(loss.item())
        state.step += 1

        norm = math.sqrt(sum(p.grad.square().sum().item() for p in state.siren.parameters))
        if not (math.isfinite(value) and math.isfinite(norm)) or (
            len(state.recent) >= 50 and value > _SPIKE * float(np.median(state.recent))
        ):
            state.spikes += 1
            state.spikes_in_a_row += 1
            self._log({"event": "spike", "step": state.step, "loss": value})
            return value
        state.spikes_in_a_row = 0
        if state.following and state.latents is not None:
            state.latents[items] = self._followed(state, latents)
        state.recent = [*state.recent[-99:], value]
        state.recent_gradients = [*state.recent_gradients[-99:], norm]
        longest = _LONG_GRADIENT * float(np.median(state.recent_gradients))
        for p in state.siren.parameters:
            p.grad *= min(1.0, longest / max(norm, 1e-30))
        state.optimiser.step()
        return value

    def _learning_rate(self, state: _State) -> float:
        config = self.config
        # Without a gentle start Adam's first steps can throw a SIREN where it never learns.
        rate = config.outer_lr * min(1.0, (state.step + 1) / _WARM_UP_STEPS)
        if config.schedule == "constant" or state.steps is None:
            return rate
        return rate * 0.5 * (1 + math.cos(math.pi * state.step / state.steps))

    def _sample(
        self, rng: np.random.Generator
    ) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Cells of a batch (None for all), their points and error weights.

        Cells are drawn in proportion to their weight, which then is equal.
        """
        n = self.config.points_per_item
        if n is None or n >= len(self.points):
            return None, self.points, self.weights[None]
        drawn = np.searchsorted(self.cumulative_weights, rng.random(n))
        cells = torch.from_numpy(drawn.clip(0, len(self.points) - 1)).to(self.device)
        return cells, self.points[cells], torch.full((1, n), 1 / n, device=self.device)

    def _eof_reconstruction(
        self, latents: torch.Tensor, cells: torch.Tensor | None
    ) -> torch.Tensor:
        mean, patterns = self.eofs
        if cells is not None:
            mean, patterns = mean[cells], patterns[:, cells]
        return mean + torch.einsum("bk,kpc->bpc", latents, patterns)

    # ---- inner problems -------------------------------------------------------------------

    def _inner_loop(
        self,
        siren: ModulatedSiren,
        points: torch.Tensor,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        if self.config.objective == "matrix-step":
            return matrix_step(siren, points, targets, weights=weights)
        return inner_loop(
            siren, points, targets, weights=weights, steps=self.config.inner_steps,
            learning_rate=self.config.inner_lr,
        )  # fmt: skip

    def _followed(self, state: _State, latents: torch.Tensor) -> torch.Tensor:
        """Latents after a clipped step (J0ᵀWJ0)⁻¹ JᵀWr towards their inner solution.

        JᵀWr, with each item's own Jacobian, is what the outer backward pass has left in their
        gradient: following costs no pass of its own. The matrix, taken at zero latents, is the
        same for all items and changes slowly.
        """
        config = self.config
        if self.preconditioner is None or state.step % _PRECONDITIONER_STEPS == 0:
            with torch.no_grad():
                zeros = torch.zeros(1, config.latent_dim, device=self.device)
                jacobian = state.siren.linearise(self.points, zeros)[1][0]
                matrix = torch.einsum("p,pck,pcl->kl", self.weights, jacobian, jacobian)
                matrix += 1e-3 * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix)
                self.preconditioner = torch.linalg.inv(matrix / state.siren.dim_out)
        assert latents.grad is not None
        # The loss is the mean over the items of the weighted square of r.
        slope = -0.5 * len(latents) * latents.grad
        limit = config.largest_move
        move = (config.relaxation * slope @ self.preconditioner).clamp(-limit, limit)
        return latents.detach() + move

    # ---- start, validation, checkpoints ---------------------------------------------------

    def _fresh(self) -> _State:
        config = self.config
        rng = np.random.default_rng(config.seed)
        siren = ModulatedSiren.initialise(
            dim_in=self.points.shape[1], dim_out=self.train.shape[2], width=config.width,
            depth=config.depth, latent_dim=config.latent_dim, omega0=config.omega0,
            shift_scale=config.shift_scale, rng=rng, modulation=config.modulation,
            latent_map=config.latent_map, map_width=config.map_width,
        )  # fmt: skip
        latents = None
        if config.objective == "warm-start":
            latents = eof_scores(self.train, self.weights, config.latent_dim, rng)
            self.eofs = regress(self.train, latents)
        return self._state(siren, rng, latents, steps=config.steps)

    def _state(
        self,
        siren: ModulatedSiren,
        rng: np.random.Generator,
        latents: torch.Tensor | None,
        **progress: Any,
    ) -> _State:
        siren = siren.map(lambda p: self._tensor(p).requires_grad_())
        # A short memory of squared gradients: with 0.999 a sudden large gradient is scaled by
        # what gradients used to be, and one such step can be the end of a SIREN.
        optimiser = torch.optim.Adam(siren.parameters, lr=self.config.outer_lr, betas=(0.9, 0.99))
        return _State(siren, optimiser, rng, latents, **progress)

    def _validate(self, state: _State, loss: float) -> None:
        with torch.no_grad():
            if self.config.objective != "warm-start":
                latents = self._inner_loop(
                    state.siren, self.points, self.validation, self.weights[None]
                )
            else:
                latents = torch.cat(
                    [
                        gauss_newton(
                            state.siren, self.points, part, weights=self.weights[None],
                            chord_steps=1, own_steps=2,
                        )
                        for part in self.validation.split(8)
                    ]
                )  # fmt: skip
            error = torch.cat(
                [
                    (state.siren(self.points, z) - y).square().mean(-1)
                    for z, y in zip(latents.split(8), self.validation.split(8), strict=True)
                ]
            )
        mse = float((error * self.weights).sum(-1).mean())
        self._log(
            {
                "event": "validation",
                "step": state.step,
                "steps": state.steps,
                "loss": loss,
                "learning_rate": state.optimiser.param_groups[0]["lr"],
                "validation_rmse": self.scale * math.sqrt(mse),
                "validation_psnr": -10 * math.log10(max(mse, 1e-30)),
                "spikes": state.spikes,
                "seconds": round(state.seconds, 2),
            }
        )

    def _tell_progress(self, state: _State, loss: float) -> None:
        """Tell the listener about once a second how far it is; not a record of the log."""
        if self.listener and state.seconds - self.last_told > 1:
            self.last_told = state.seconds
            self.listener(
                {
                    "event": "progress", "step": state.step, "steps": state.steps, "loss": loss,
                    "seconds": round(state.seconds, 2), "spikes": state.spikes,
                }
            )  # fmt: skip

    def _log(self, record: Record) -> None:
        if self.listener:
            self.listener(record)
        if self.checkpoint:
            self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
            with log_path(self.checkpoint).open("a") as lines:
                lines.write(json.dumps(record) + "\n")

    def _snapshot(self, state: _State) -> dict[str, torch.Tensor]:
        tensors = {f"parameter.{i}": p.detach() for i, p in enumerate(state.siren.parameters)}
        for i, p in enumerate(state.siren.parameters):
            for name, value in state.optimiser.state.get(p, {}).items():
                tensors[f"adam.{name}.{i}"] = value
        if state.latents is not None:
            tensors["latents"] = state.latents
            tensors["eof.mean"], tensors["eof.patterns"] = self.eofs
        if self.preconditioner is not None:
            tensors["preconditioner"] = self.preconditioner
        return {name: t.detach().cpu().clone().contiguous() for name, t in tensors.items()}

    def _restore(self, state: _State, tensors: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for i, p in enumerate(state.siren.parameters):
                p.copy_(tensors[f"parameter.{i}"])
                moments = {
                    name.split(".")[1]: tensor.clone()
                    for name, tensor in tensors.items()
                    if name.startswith("adam.") and name.endswith(f".{i}")
                }
                state.optimiser.state[p] = {
                    name: t if name == "step" else t.to(self.device) for name, t in moments.items()
                }
        if "latents" in tensors:
            state.latents = tensors["latents"].clone().to(self.device)
            if "preconditioner" in tensors:
                self.preconditioner = tensors["preconditioner"].clone().to(self.device)
            self.eofs = (
                tensors["eof.mean"].to(self.device), tensors["eof.patterns"].to(self.device)
            )  # fmt: skip

    def _roll_back(self, state: _State, snapshot: dict[str, torch.Tensor]) -> None:
        self._restore(state, snapshot)
        state.lr_factor *= 0.5
        state.spikes_in_a_row = 0
        self._log({"event": "rollback", "step": state.step, "lr_factor": state.lr_factor})

    def _save(self, state: _State) -> None:
        if not self.checkpoint:
            return
        progress = {
            name: getattr(state, name)
            for name in (
                "steps",
                "step",
                "seconds",
                "spikes",
                "spikes_in_a_row",
                "following",
                "lr_factor",
                "recent",
                "recent_gradients",
            )
        }
        metadata = {
            "config": json.dumps(asdict(self.config)),
            "progress": json.dumps(progress),
            "rng": json.dumps(state.rng.bit_generator.state),
            "data": self.data_crc,
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.checkpoint, safetensors_bytes(self._snapshot(state), metadata))

    def _resumed(self) -> _State | None:
        if self.checkpoint is None:
            raise ValueError("to resume, say which checkpoint")
        if not self.checkpoint.exists():
            return None
        tensors, metadata = read_checkpoint(self.checkpoint)
        if TrainingConfig(**json.loads(metadata["config"])) != self.config:
            raise ValueError(
                f"{self.checkpoint} was written with another configuration; "
                "use another checkpoint path or the same settings"
            )
        if metadata["data"] != self.data_crc:
            raise ValueError(
                f"{self.checkpoint} was written with other training data; "
                "use another checkpoint path or the same data"
            )
        rng = np.random.default_rng()
        rng.bit_generator.state = json.loads(metadata["rng"])
        siren = siren_from_checkpoint(self.checkpoint)
        state = self._state(siren, rng, None, **json.loads(metadata["progress"]))
        self._restore(state, tensors)
        return state

    def _tensor(self, array: npt.NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.array(array, dtype=np.float32)).to(self.device)


@contextmanager
def _interrupts_deferred() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C wait for the end of a step: a checkpoint holds whole steps only."""
    pressed = False

    def note(_signal: int, _frame: Any) -> None:
        nonlocal pressed
        pressed = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # Python delivers signals to the main thread alone
        return
    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)


def inner_loop(
    siren: ModulatedSiren,
    points: torch.Tensor,
    targets: torch.Tensor,
    *,
    weights: torch.Tensor,
    steps: int,
    learning_rate: float,
) -> torch.Tensor:
    """Latents after N gradient steps from zero (COIN++, eq. 9), differentiable in the network.

    Every step is recomputed in the backward pass, so that memory does not grow with their number.

    Parameters
    ----------
    points : tensor, shape (points, dim_in) or (batch, points, dim_in)
    targets : tensor, shape (batch, points, dim_out)
    weights : tensor, shape (1 or batch, points)
        Error weights that sum to one.

    Returns
    -------
    tensor, shape (batch, latent_dim)
    """

    def step(latents: torch.Tensor) -> torch.Tensor:
        return sgd_step(
            siren, points, targets, latents, weights=weights, learning_rate=learning_rate
        )

    latents = targets.new_zeros(len(targets), siren.latent_dim)
    for _ in range(steps):
        if torch.is_grad_enabled():
            latents = recompute_in_backward(step, latents, use_reentrant=False)
        else:
            latents = step(latents)
    return latents


def matrix_step(
    siren: ModulatedSiren, points: torch.Tensor, targets: torch.Tensor, *, weights: torch.Tensor
) -> torch.Tensor:
    """Latents after one Gauss-Newton step from zero, differentiable in the network.

    Parameters
    ----------
    points : tensor, shape (points, dim_in)
    targets : tensor, shape (batch, points, dim_out)
    weights : tensor, shape (1, points)
        Error weights that sum to one.

    Returns
    -------
    tensor, shape (batch, latent_dim)
    """
    output, jacobian = siren.linearise(points, targets.new_zeros(1, siren.latent_dim))
    # In single precision the solution needs numbers of ordinary size, whatever the map's are.
    rows = (jacobian[0] * weights[0, :, None, None].sqrt()).flatten(0, 1).float()
    residuals = ((targets - output) * weights[:, :, None].sqrt()).flatten(1).float()
    size = rows.square().sum(0).mean().detach().sqrt().clamp_min(1e-20)
    rows = rows / size
    matrix = rows.T @ rows + _MATRIX_DAMPING * torch.eye(rows.shape[1]).to(rows)
    return torch.linalg.solve(matrix, rows.T @ residuals.T).T / size


def eof_scores(
    fields: torch.Tensor, weights: torch.Tensor, count: int, rng: np.random.Generator
) -> torch.Tensor:
    """Scores of the leading EOFs, shape (items, count).

    They are half whitened: the first has unit variance, the others the square root of their share
    of it. Fully whitened, the many weak EOFs would drive the network far into its nonlinear range.

    Subspace iteration: a few products with the data matrix instead of a full decomposition.
    """
    n = len(fields)
    data = (fields * weights[:, None].sqrt()).reshape(n, -1)
    data = data - data.mean(0)
    kept = min(count, n - 1, data.shape[1])
    start = rng.standard_normal((data.shape[1], min(kept + 10, n, data.shape[1])))
    basis = torch.as_tensor(start, dtype=torch.float32).to(data.device)
    for _ in range(8):
        basis = torch.linalg.qr(data.T @ (data @ basis))[0]
    left, spread, _ = torch.linalg.svd(data @ basis, full_matrices=False)
    left = left[:, :kept] * math.sqrt(n) * (spread[:kept] / spread[0]).sqrt()
    # More latents than EOFs (few items): the rest starts at zero and finds its own use.
    return torch.nn.functional.pad(left, (0, count - kept))


def regress(fields: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean field and the patterns that best map uncorrelated latents to fields.

    Returns
    -------
    mean : tensor, shape (points, channels)
    patterns : tensor, shape (latent_dim, points, channels)
    """
    mean = fields.mean(0)
    # The scores have zero mean and no correlation; unused ones are zero.
    variance = latents.square().mean(0).clamp_min(1e-12)
    patterns = (latents / variance).T @ fields.reshape(len(fields), -1) / len(fields)
    return mean, patterns.reshape(-1, *mean.shape)


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


def siren_from_checkpoint(path: str | Path) -> ModulatedSiren:
    """The base network in a checkpoint, with numpy parameters."""
    tensors, metadata = read_checkpoint(path)
    config = TrainingConfig(**json.loads(metadata["config"]))
    count = sum(name.startswith("parameter.") for name in tensors)
    return ModulatedSiren.of(
        tuple(tensors[f"parameter.{i}"].numpy() for i in range(count)), depth=config.depth,
        omega0=config.omega0, modulation=config.modulation, latent_map=config.latent_map,
    )  # fmt: skip


def log_path(checkpoint: Path) -> Path:
    """The JSON-lines log beside a checkpoint."""
    return checkpoint.with_suffix(".log.jsonl")
