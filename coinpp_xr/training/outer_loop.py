"""The outer loop: steps of Adam on the base network, spikes, validation, checkpoints."""

from __future__ import annotations

import json
import math
import signal
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coinpp_xr.fitting import gauss_newton
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training.checkpoints import State, log_path, resumed_state
from coinpp_xr.training.configuration import TrainingConfig
from coinpp_xr.training.data import TrainingData
from coinpp_xr.training.objectives import (
    eof_scores,
    inner_loop,
    matrix_step,
    reconstructed,
    regress,
)

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
# How often the number of steps is held against the time that is left.
_STEPS_PER_LOOK = 25
# So many steps take as long as a validation, until one was measured.
_VALIDATION_STEPS = 25


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
        Stop after this time. Without ``config.steps`` it also sets the length of the schedule,
        which gets shorter where the machine gets slower.
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
        started = time.perf_counter()
        if resume and self.checkpoint is None:
            raise ValueError("to resume, say which checkpoint")
        if resume and self.checkpoint is not None and self.checkpoint.exists():
            state = resumed_state(self.checkpoint, self.config, self.data_crc, self.device)
        else:
            state = self._fresh()
        seconds_before = state.seconds
        deadline = math.inf if max_minutes is None else 60 * max_minutes
        measure_speed = state.steps is None
        # The last one is left out where it would take more.
        validating, most_validating = 0.0, 0.14 * deadline
        snapshot = state.snapshot()

        def elapsed() -> float:
            return time.perf_counter() - started

        first, calibration = state.step, (state.step, elapsed())
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
                        validating = validating or _VALIDATION_STEPS * per_step
                        # Leave room: a schedule cut off loses more than a short one.
                        left = 0.86 * (deadline - elapsed()) - min(validating, most_validating)
                        state.steps = state.step + max(1, int(left / per_step))
                        calibration = (state.step, elapsed())
                elif measure_speed and state.step % _STEPS_PER_LOOK == 0 and state.steps:
                    # A machine that got busier: the schedule is to end, not to be cut off.
                    per_step = (elapsed() - calibration[1]) / max(state.step - calibration[0], 1)
                    left = 0.95 * (deadline - elapsed()) - min(validating, most_validating)
                    state.steps = min(state.steps, state.step + max(1, int(left / per_step)))
                if state.spikes_in_a_row >= _SPIKES_BEFORE_ROLLBACK:
                    self._roll_back(state, snapshot)
                total = state.steps or 10**9
                due = state.step % max(100, total // 15) == 0 or state.step == total
                if due and elapsed() + validating < deadline:
                    before = elapsed()
                    self._validate(state, loss)
                    validating = elapsed() - before
                    if state.spikes_in_a_row == 0:
                        snapshot = state.snapshot()
                    self._save(state)
        self._save(state)
        return state.siren.map(lambda p: p.detach().cpu().numpy().copy())

    def _outer_step(self, state: State) -> float:
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
            if state.latents is None or state.eofs is None:
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
                    targets = reconstructed(latents, state.eofs, cells)
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

    def _learning_rate(self, state: State) -> float:
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

    def _followed(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        """Latents after a clipped step (J0ᵀWJ0)⁻¹ JᵀWr towards their inner solution.

        JᵀWr, with each item's own Jacobian, is what the outer backward pass has left in their
        gradient: following costs no pass of its own. The matrix, taken at zero latents, is the
        same for all items and changes slowly.
        """
        config = self.config
        if state.preconditioner is None or state.step % _PRECONDITIONER_STEPS == 0:
            with torch.no_grad():
                zeros = torch.zeros(1, config.latent_dim, device=self.device)
                jacobian = state.siren.linearise(self.points, zeros)[1][0]
                matrix = torch.einsum("p,pck,pcl->kl", self.weights, jacobian, jacobian)
                matrix += 1e-3 * matrix.diagonal().mean() * torch.eye(len(matrix)).to(matrix)
                state.preconditioner = torch.linalg.inv(matrix / state.siren.dim_out)
        assert latents.grad is not None
        # The loss is the mean over the items of the weighted square of r.
        slope = -0.5 * len(latents) * latents.grad
        limit = config.largest_move
        move = (config.relaxation * slope @ state.preconditioner).clamp(-limit, limit)
        return latents.detach() + move

    def _save(self, state: State) -> None:
        if self.checkpoint:
            state.save(self.checkpoint, self.config, self.data_crc)

    # ---- start, validation, log -----------------------------------------------------------

    def _fresh(self) -> State:
        config = self.config
        rng = np.random.default_rng(config.seed)
        siren = ModulatedSiren.initialise(
            dim_in=self.points.shape[1], dim_out=self.train.shape[2], width=config.width,
            depth=config.depth, latent_dim=config.latent_dim, omega0=config.omega0,
            shift_scale=config.shift_scale, rng=rng, modulation=config.modulation,
            latent_map=config.latent_map, map_width=config.map_width,
        )  # fmt: skip
        state = State.of(siren, rng, config.outer_lr, self.device, steps=config.steps)
        if config.objective == "warm-start":
            state.latents = eof_scores(self.train, self.weights, config.latent_dim, rng)
            state.eofs = regress(self.train, state.latents)
        return state

    def _validate(self, state: State, loss: float) -> None:
        with torch.no_grad():
            # A few items at a time stay in the processor's cache.
            parts = self.validation.split(8)
            longer = partial(gauss_newton, chord_steps=1, own_steps=2)
            fit = longer if self.config.objective == "warm-start" else self._inner_loop
            latents = [
                fit(state.siren, self.points, part, weights=self.weights[None]) for part in parts
            ]
            error = torch.cat(
                [
                    (state.siren(self.points, z) - y).square().mean(-1)
                    for z, y in zip(latents, parts, strict=True)
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

    def _tell_progress(self, state: State, loss: float) -> None:
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

    def _roll_back(self, state: State, snapshot: dict[str, torch.Tensor]) -> None:
        state.restore(snapshot)
        state.lr_factor *= 0.5
        state.spikes_in_a_row = 0
        self._log({"event": "rollback", "step": state.step, "lr_factor": state.lr_factor})

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
