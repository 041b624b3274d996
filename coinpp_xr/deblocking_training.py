"""How the layers against blocking are learned: from items coded at many steps. Needs torch."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from coinpp_xr.deblocking import TAPS, Deblocking, inputs
from coinpp_xr.devices import compute_device
from coinpp_xr.models import Model
from coinpp_xr.patch_learning import coded_at
from coinpp_xr.patches import Layout, Patching

Float32 = npt.NDArray[np.float32]

# Cells of a crop along each axis, by the number of axes; and crops of a step.
_CROPS = {1: (2048,), 2: (48, 48), 3: (16, 24, 24)}
_BATCH = 16
_LEARNING_RATE, _LAST_RATE = 2e-3, 2e-5
# Crops that are nearly without error, in steps squared, should not count more than others.
_LEAST_ERROR = 3e-3
# Coded items that are kept in memory, in cells; how often each is coded.
_MOST_CELLS, _MOST_ROUNDS = 1 << 26, 8
# Of a validation item its middle will do, of so many cells; and of so many items.
_MOST_JUDGED, _JUDGED_ITEMS = 1 << 18, 32
# Steps of the items, in standard deviations, and those of the validation items.
_STEPS, _JUDGED = (0.1, 2.5), (0.2, 0.6, 1.5)


@dataclass(frozen=True, eq=False)
class _Sample:
    """One part of an item coded at a step: what the network sees, and what it should add."""

    inputs: torch.Tensor
    missing: torch.Tensor


def learn_deblocking(
    arrays: Sequence[npt.NDArray[Any]],
    validation: Sequence[npt.NDArray[Any]],
    layout: Layout,
    patching: Patching,
    model: Model,
    *,
    minutes: float,
    width: int = 8,
    depth: int = 4,
    seed: int = 0,
    log: Callable[[dict[str, Any]], None] | None = None,
) -> tuple[Deblocking, list[float]]:
    """Train on random crops of arrays that were coded at random steps.

    Parameters
    ----------
    arrays, validation : sequence of array
        As of :func:`coinpp_xr.patch_chunk.encode_patches`.
    layout : Layout
    patching : Patching
    model : Model
        With the prior that the coder starts from.
    minutes : float
        Wall time, without the coding.
    width, depth : int
        Channels of the inner layers; layers in all.
    seed : int
    log : callable, optional
        Receives records (dict).

    Returns
    -------
    Deblocking
    list of float
        By how many dB the first channel of the validation arrays gets better at three steps, from
        fine to coarse.
    """
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    low, high = np.log(_STEPS)
    samples: list[_Sample] = []
    for index in np.concatenate([rng.permutation(len(arrays)) for _ in range(_MOST_ROUNDS)]):
        step = float(np.std(arrays[index])) * math.exp(rng.uniform(low, high))
        samples += _samples(arrays[index], layout, patching, model, step)
        if sum(sample.missing.numel() for sample in samples) >= _MOST_CELLS:
            break
    if not samples:
        raise ValueError("there is nothing to learn from: all values are the same")
    middles = [_middle(v) for v in validation[:: -(-len(validation) // _JUDGED_ITEMS)]]
    judged = [
        [s for v in middles for s in _samples(v, layout, patching, model, float(np.std(v)) * q)]
        for q in _JUDGED
    ]
    device = torch.device(compute_device())
    layers = [
        (kernel.to(device).requires_grad_(), bias.to(device).requires_grad_())
        for kernel, bias in _fresh(2 + patching.axes, width, depth, patching)
    ]
    optimiser = torch.optim.Adam([p for layer in layers for p in layer], lr=_LEARNING_RATE)
    started, told, steps = time.perf_counter(), 0.0, 0
    while (share := (time.perf_counter() - started) / (60 * minutes)) < 1:
        for group in optimiser.param_groups:
            cosine = 0.5 * (1 + math.cos(math.pi * share))
            group["lr"] = _LAST_RATE + (_LEARNING_RATE - _LAST_RATE) * cosine
        seen, missing = (part.to(device) for part in _crops(samples, patching, rng))
        error = (_apply(layers, seen) - missing).square().flatten(1).mean(1)
        # A crop counts by the share of its error that goes, not by its size.
        loss = (error + _LEAST_ERROR).log().mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        steps += 1
        if log is not None and share - told > 0.1:
            told = share
            log({"event": "deblocking", "step": steps, "gain_db": _gains(layers, judged)})
    kernels, biases = zip(*layers, strict=True)
    # numpy's order is (out, in, z, y, x), whatever axes there are.
    lifted = tuple(_lifted(_centred(k) if i == 0 else k, patching) for i, k in enumerate(kernels))
    network = Deblocking(lifted, tuple(b.detach().cpu().numpy().copy() for b in biases))
    return network, _gains(layers, judged)


def _samples(
    values: npt.NDArray[Any], layout: Layout, patching: Patching, model: Model, step: float
) -> list[_Sample]:
    if not step > 0:
        return []
    kept = [a for a in range(3) if patching.size[a] > 1]
    found = []
    for decoded, exact, levels in coded_at(values, layout, patching, model, step):
        seen = torch.from_numpy(inputs(decoded, levels, patching, step))
        missing = torch.from_numpy((exact - decoded) * np.float32(1 / step))
        shape = [missing.shape[a] for a in kept]
        found.append(_Sample(seen.reshape(len(seen), *shape), missing.reshape(shape)))
    return found


def _middle(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The middle of an item, (*space, channels), as many cells along every axis as will do."""
    most = max(1, round(_MOST_JUDGED ** (1 / (values.ndim - 1))))
    starts = [max(0, (n - most) // 2) for n in values.shape[:-1]]
    return values[tuple(slice(a, a + most) for a in starts)]


def _crops(
    samples: list[_Sample], patching: Patching, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    size = _CROPS[patching.axes]
    fitting = [
        s for s in samples if all(n >= m for n, m in zip(s.missing.shape, size, strict=True))
    ]
    if not fitting:
        size = tuple(min(n) for n in zip(size, *(s.missing.shape for s in samples), strict=True))
        fitting = samples
    seen, missing = [], []
    for index in rng.integers(len(fitting), size=_BATCH):
        sample = fitting[index]
        where = []
        for n, m in zip(sample.missing.shape, size, strict=True):
            start = int(rng.integers(n - m + 1))
            where.append(slice(start, start + m))
        seen.append(sample.inputs[(slice(None), *where)])
        missing.append(sample.missing[tuple(where)])
    return torch.stack(seen), torch.stack(missing)


def _fresh(
    features: int, width: int, depth: int, patching: Patching
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Layers of random numbers; the last ones are small, so that little is added at first."""
    layers = []
    # Sound is cheap: it gets a longer reach.
    taps = TAPS if patching.axes > 1 else 3 * TAPS
    sizes = [features, *[width] * (depth - 1), 1]
    for i, (fan_in, fan_out) in enumerate(pairwise(sizes)):
        shape = (fan_out, fan_in, *[taps] * patching.axes)
        bound = math.sqrt(3 / (fan_in * taps**patching.axes)) * (0.05 if i == depth - 1 else 1.4)
        kernel = torch.empty(shape).uniform_(-bound, bound)
        layers.append((kernel, torch.zeros(fan_out)))
    return layers


def _apply(layers: list[tuple[torch.Tensor, torch.Tensor]], seen: torch.Tensor) -> torch.Tensor:
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[seen.ndim - 3]
    found = seen
    for i, (kernel, bias) in enumerate(layers):
        reach = [n // 2 for n in reversed(kernel.shape[2:]) for _ in range(2)]
        padded = functional.pad(found, reach, mode="replicate")
        found = convolve(padded, _centred(kernel) if i == 0 else kernel, bias)
        if i + 1 < len(layers):
            found = functional.relu(found)
    return found[:, 0]


def _centred(kernel: torch.Tensor) -> torch.Tensor:
    """Blind to a constant added to all values: only differences between neighbours count."""
    values = kernel[:, :1]
    mean = values.flatten(2).mean(2).reshape(*values.shape[:2], *[1] * (kernel.ndim - 2))
    return torch.cat([values - mean, kernel[:, 1:]], dim=1)


def _lifted(kernel: torch.Tensor, patching: Patching) -> Float32:
    """With axes of length one where patches do not extend."""
    extents = iter(kernel.shape[2:])
    shape = [next(extents) if n > 1 else 1 for n in patching.size]
    lifted: Float32 = kernel.detach().cpu().numpy().reshape(*kernel.shape[:2], *shape).copy()
    return lifted


def _gains(
    layers: list[tuple[torch.Tensor, torch.Tensor]], judged: list[list[_Sample]]
) -> list[float]:
    """Mean gain in dB at every judged step."""
    gains, device = [], layers[0][0].device
    with torch.no_grad():
        for samples in judged:
            if not samples:  # all values are the same
                return [0.0] * len(judged)
            before = torch.stack([s.missing.square().mean() for s in samples])
            improved = [_apply(layers, s.inputs[None].to(device))[0].cpu() for s in samples]
            after = torch.stack(
                [(a - s.missing).square().mean() for a, s in zip(improved, samples, strict=True)]
            )
            ratio = before.clamp_min(1e-12) / after.clamp_min(1e-12)
            gains.append(round(10 * float(ratio.log10().mean()), 3))
    return gains
