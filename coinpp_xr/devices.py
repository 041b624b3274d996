"""Where the numeric work runs: batches split over CPU threads (numpy) or sent to a GPU (torch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.fitting import gauss_newton, sgd_step
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.settings import config
from coinpp_xr.siren import Array, ModulatedSiren

Float32 = npt.NDArray[np.float32]

EFFORTS = ("fast", "default", "best", "paper")

# Activations of one block should stay in the processor's cache: about 4,000 points at a time.
_POINTS_PER_BLOCK = 4608


def fit(
    siren: ModulatedSiren,
    points: Float32,
    targets: Float32,
    weights: npt.NDArray[Any],
    *,
    effort: str = "default",
    inner_steps: int = 3,
    learning_rate: float = 1e-2,
) -> Float32:
    """Latents for a batch of normalised data on one grid.

    Parameters
    ----------
    siren : ModulatedSiren
        Base network with numpy parameters.
    points : float32 array, shape (points, dim_in)
    targets : float32 array, shape (batch, points, dim_out)
        Masked points may hold anything finite.
    weights : array, shape (points,) or (batch, points)
        Error weights, zero where a point is masked.
    effort : {"fast", "default", "best", "paper"}
        One matrix step; two chord steps more; five full Gauss-Newton steps more; or the paper's
        ``inner_steps`` gradient steps with ``learning_rate``.

    Returns
    -------
    float32 array, shape (batch, latent_dim)
    """
    if effort not in EFFORTS:
        raise ValueError(f"effort must be one of {', '.join(EFFORTS)}, got {effort!r}")
    weights = np.atleast_2d(np.asarray(weights, dtype=np.float32))
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), np.float32(1e-30))

    if effort == "paper":

        def block(net: ModulatedSiren, xyz: Array, y: Array, w: Array) -> Array:
            z = y[:, 0, :1] * 0 + net.shift_map[:1] * 0
            for _ in range(inner_steps):
                z = sgd_step(net, xyz, y, z, weights=w, learning_rate=learning_rate)
            return z
    else:
        steps = {"fast": (1, 0), "default": (3, 0), "best": (1, 5)}[effort]
        zero = np.zeros((1, siren.latent_dim), np.float32)
        # In the pool, because several BLAS threads would round differently from one.
        (origin,) = map_in_threads(lambda z: siren.linearise(points, z), [zero])

        def block(net: ModulatedSiren, xyz: Array, y: Array, w: Array) -> Array:
            at_zero = tuple(_like(part, xyz) for part in origin)
            return gauss_newton(
                net, xyz, y, weights=w, chord_steps=steps[0], own_steps=steps[1], origin=at_zero
            )

    return _over_items(block, siren, points, targets, weights)


def predict(siren: ModulatedSiren, points: Float32, latents: Float32) -> Float32:
    """Output of the base network for a batch of latents.

    Returns
    -------
    float32 array, shape (batch, points, dim_out)
    """
    if (device := compute_device()) != "cpu":

        def block(net: ModulatedSiren, xyz: Array, z: Array) -> Array:
            return net(xyz, z)

        return _on_gpu(block, siren, device, points, (latents,), len(latents))

    output = np.empty((len(latents), len(points), siren.dim_out), dtype=np.float32)

    def fill(where: tuple[slice, slice]) -> None:
        items, rows = where
        output[items, rows] = siren(points[rows], latents[items])

    per_block = max(1, _POINTS_PER_BLOCK // max(1, len(points)))
    map_in_threads(
        fill,
        [
            (slice(i, i + per_block), slice(p, p + _POINTS_PER_BLOCK))
            for i in range(0, len(latents), per_block)
            for p in range(0, len(points), _POINTS_PER_BLOCK)
        ],
    )
    return output


def compute_device() -> str:
    """The device for fitting and prediction: ``cpu`` (numpy) or a torch device name."""
    device = str(config.get("device"))
    if device == "auto":
        return "cuda" if _cuda_available() else "cpu"
    if device != "cpu" and not _cuda_available():
        raise RuntimeError(
            f"device {device!r} was asked for, but torch sees no GPU; set device='cpu' or 'auto'"
        )
    return device


@cache
def _cuda_available() -> bool:
    # Importing torch takes seconds: only ask it where an NVIDIA driver is loaded at all.
    if not any(Path(p).exists() for p in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg")):
        return False
    try:
        import torch
    except ImportError:
        return False
    return bool(torch.cuda.is_available())


def _over_items(
    block: Callable[..., Array],
    siren: ModulatedSiren,
    points: Float32,
    targets: Float32,
    weights: Float32,
) -> Float32:
    if len(targets) == 0:
        return np.zeros((0, siren.latent_dim), dtype=np.float32)
    shared = len(weights) == 1
    arrays = (targets,) if shared else (targets, weights)
    if (device := compute_device()) != "cpu":
        if shared:
            common = _like_on(weights, device)
            return _on_gpu(
                lambda net, xyz, y: block(net, xyz, y, common),
                siren,
                device,
                points,
                arrays,
                len(targets),
            )
        return _on_gpu(block, siren, device, points, arrays, len(targets))

    per_block = max(1, _POINTS_PER_BLOCK // len(points))

    def run(start: int) -> Array:
        items = slice(start, start + per_block)
        return block(siren, points, targets[items], weights if shared else weights[items])

    return np.concatenate(map_in_threads(run, range(0, len(targets), per_block)))


def _on_gpu(
    block: Callable[..., Array],
    siren: ModulatedSiren,
    device: str,
    points: Float32,
    arrays: tuple[Float32, ...],
    n_items: int,
) -> Float32:
    """Run ``block`` over slices of the batch on a GPU, with smaller slices when memory runs out."""
    import torch

    to_device = partial(_like_on, device=device)
    net, xyz = siren.map(to_device), to_device(points)
    results, start, size = [], 0, n_items
    with torch.no_grad():
        while start < n_items:
            try:
                part = [to_device(a[start : start + size]) for a in arrays]
                results.append(block(net, xyz, *part).cpu().numpy())
                start += size
            except torch.cuda.OutOfMemoryError:
                if size == 1:
                    raise
                torch.cuda.empty_cache()
                size = (size + 1) // 2
    return np.concatenate(results)


def _like_on(array: Any, device: str) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array)).to(device)


def _like(array: Any, example: Array) -> Array:
    return array if isinstance(example, np.ndarray) else _like_on(array, example.device)
