"""Networks of the pyramid, trained as the whole numbers that they will be.

Needs numpy and torch only. What they learn from are observations of many passes: of many variables,
grids and bounds (:mod:`coinpp_xr.coding.pyramid.observing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, pairwise
from math import cos, log, pi
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from coinpp_xr.coding.pyramid.expert_units import (
    ACTIVATION,
    HIGHEST_SCALE,
    LARGEST_ACTIVATION,
    LOWEST_SCALE,
    N_INPUTS,
    REFERENCES,
    SCALE_PARTS,
    WEIGHT,
)

# Parts of a step.
_UNIT = 64
_BATCH, _LEARNING_RATE = 8192, 4e-3
# From this part of the time on, weights and activations are whole numbers.
_QUANTISED_FROM = 0.5
# No weight and no bias is further from zero: sums stay far below 2^24.
_LARGEST_WEIGHT, _LARGEST_BIAS = 8.0, 32.0
_CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, eq=False)
class Observed:
    """Points that a network learns from, or is judged by.

    Parameters
    ----------
    inputs : int16 array, shape (points, 50)
    offsets, sizes : float32 arrays, shape (points,)
        Where values are and how large errors were expected to be, in 1/64 of a step.
    """

    inputs: npt.NDArray[np.int16]
    offsets: npt.NDArray[np.float32]
    sizes: npt.NDArray[np.float32]

    @classmethod
    def load(cls, paths: Iterable[Path], most: int, *, referring: bool) -> Observed:
        """At most so many points of each file: of fields that refer to others, or of the rest.

        A file holds ``inputs``, ``offsets``, ``sizes`` and ``counts``: how many points of a field
        each of them stands for.
        """
        parts = []
        for path in paths:
            with np.load(path) as file:
                parts.append(cls.of(file, most, referring=referring))
        return cls.joined(parts)

    @classmethod
    def of(
        cls, observed: Mapping[str, npt.NDArray[Any]], most: int, *, referring: bool
    ) -> Observed:
        """At most so many points of what :func:`coinpp_xr.coding.pyramid.observing.observe` saw."""
        inputs = observed["inputs"]
        refers = inputs[:, REFERENCES].any(axis=1)
        counts = observed["counts"].astype(np.float64) * (refers == referring)
        count = min(most, int(np.count_nonzero(counts)))
        chances = counts / max(counts.sum(), 1)
        generator, some = np.random.default_rng(0), np.arange(0)
        if count:
            some = generator.choice(len(counts), count, p=chances)
        return cls(inputs[some], observed["offsets"][some], observed["sizes"][some])

    @classmethod
    def joined(cls, parts: Sequence[Observed]) -> Observed:
        return cls(
            np.concatenate([part.inputs for part in parts]),
            np.concatenate([part.offsets for part in parts]),
            np.concatenate([part.sizes for part in parts]),
        )


def _straight_through(value: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Whole numbers whose gradient is that of what was rounded."""
    return value + (whole - value).detach()


class ExpertTraining:
    """Training of one network, which can go on from a checkpoint.

    Parameters
    ----------
    widths : (int, int)
        Of the hidden layers.
    device : str
    seed : int
    learning_rate : float
        At first.
    """

    def __init__(
        self,
        widths: tuple[int, int],
        device: str = "cpu",
        seed: int = 0,
        learning_rate: float = _LEARNING_RATE,
    ) -> None:
        self._learning_rate = learning_rate
        self._device = torch.device(device)
        self._generator = torch.Generator().manual_seed(seed)
        sizes = [N_INPUTS, *widths, 2]
        self.layers: list[torch.Tensor] = []
        for inputs, outputs in pairwise(sizes):
            bound = 0.0 if outputs == 2 else inputs**-0.5
            weights = torch.rand((outputs, inputs), generator=self._generator)
            biases = torch.rand(outputs, generator=self._generator)
            for values in (weights, biases):
                start = ((2 * values - 1) * bound).to(self._device)
                self.layers.append(start.requires_grad_())
        self._optimiser = torch.optim.Adam(self.layers, learning_rate)
        self.seconds, self.steps = 0.0, 0

    def outputs(self, inputs: torch.Tensor, *, quantised: bool = True) -> torch.Tensor:
        """Centres in expected sizes and scales in octaves, shape (points, 2).

        ``inputs`` are numbers of 1/128.
        """
        x, most = inputs / ACTIVATION, LARGEST_ACTIVATION / ACTIVATION
        for k in range(0, len(self.layers), 2):
            weights, biases = self.layers[k], self.layers[k + 1]
            if quantised:
                weights = _straight_through(weights, torch.round(weights * WEIGHT) / WEIGHT)
                unit = WEIGHT * ACTIVATION
                biases = _straight_through(biases, torch.round(biases * unit) / unit)
            x = functional.linear(x, weights, biases)
            if k + 2 < len(self.layers):
                x = functional.leaky_relu(x, 0.125)
                if quantised:
                    x = _straight_through(x, torch.floor(x * ACTIVATION) / ACTIVATION)
                x = x.clamp(-most, most)
        return x

    def bits(
        self,
        inputs: torch.Tensor,
        offsets: torch.Tensor,
        sizes: torch.Tensor,
        *,
        quantised: bool = True,
    ) -> torch.Tensor:
        """What every point would take by the network alone."""
        out = self.outputs(inputs.float(), quantised=quantised)
        size, offset = sizes / _UNIT, offsets / _UNIT
        octaves = out[:, 1].clamp(LOWEST_SCALE / SCALE_PARTS, HIGHEST_SCALE / SCALE_PARTS)
        centre, scale = size * out[:, 0], size * torch.exp2(octaves) / 2 + 1e-3
        step = torch.round(offset)
        above, below = (step + 0.5 - centre) / scale, (step - 0.5 - centre) / scale
        # Both on the side where chances are small, which single precision can tell apart.
        upper = above + below > 0
        above, below = torch.where(upper, -below, above), torch.where(upper, -above, below)
        chance = torch.sigmoid(above) - torch.sigmoid(below)
        inside = torch.log(-torch.expm1((below - above).clamp(max=-1e-6)))
        far = functional.logsigmoid(above) + inside
        near = torch.log(chance.clamp_min(1e-9))
        return -torch.where(chance > 1e-6, near, far) / log(2)

    def train(self, data: Observed, seconds: float, checkpoint: Path | None = None) -> None:
        """Train for so long in all, what a checkpoint has behind it included."""
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)
        try:
            self._train(data, seconds, checkpoint)
        finally:  # Ctrl-C loses nothing
            if checkpoint is not None:
                self.save(checkpoint)

    def _train(self, data: Observed, seconds: float, checkpoint: Path | None) -> None:
        inputs, offsets, sizes = (
            torch.from_numpy(values).to(self._device)
            for values in (data.inputs, data.offsets, data.sizes)
        )
        before, last, saved = self.seconds, monotonic(), monotonic()
        started = last
        while (part := self.seconds / seconds) < 1:
            some = torch.randint(0, len(inputs), (_BATCH,), generator=self._generator)
            some = some.to(self._device)
            rate = self._learning_rate * (1 + cos(pi * part)) / 2 + 1e-5
            for group in self._optimiser.param_groups:
                group["lr"] = rate
            quantised = part > _QUANTISED_FROM
            loss = self.bits(inputs[some], offsets[some], sizes[some], quantised=quantised).mean()
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            with torch.no_grad():
                for k, layer in enumerate(self.layers):
                    most = _LARGEST_BIAS if k % 2 else _LARGEST_WEIGHT
                    layer.clamp_(-most, most)
            self.steps += 1
            last = monotonic()
            self.seconds = before + last - started
            if checkpoint is not None and last - saved > _CHECKPOINT_SECONDS:
                self.save(checkpoint)
                saved = last

    def start_from(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        """Go on from weights and biases of :meth:`arrays`."""
        units = (WEIGHT, WEIGHT * ACTIVATION)
        with torch.no_grad():
            for k, (layer, whole) in enumerate(zip(self.layers, arrays, strict=True)):
                layer.copy_(torch.from_numpy(np.asarray(whole, np.float32)) / units[k % 2])

    def arrays(self) -> list[npt.NDArray[Any]]:
        """Weights in 1/256, int16, and biases in 1/32768, int32, layer by layer."""
        kinds = ((WEIGHT, np.int16), (WEIGHT * ACTIVATION, np.int32))
        return [
            torch.round(layer.detach().double().cpu() * unit).numpy().astype(dtype)
            for layer, (unit, dtype) in zip(self.layers, cycle(kinds), strict=False)
        ]

    def save(self, path: Path) -> None:
        state: dict[str, Any] = {
            "layers": [layer.detach() for layer in self.layers],
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
            "seconds": self.seconds, "steps": self.steps,
        }  # fmt: skip
        unfinished = path.with_suffix(".part")
        torch.save(state, unfinished)
        unfinished.replace(path)

    def _resume(self, path: Path) -> None:
        state = torch.load(path, map_location=self._device, weights_only=True)
        with torch.no_grad():
            for layer, saved in zip(self.layers, state["layers"], strict=True):
                layer.copy_(saved)
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"].cpu())
        self.seconds, self.steps = state["seconds"], state["steps"]
