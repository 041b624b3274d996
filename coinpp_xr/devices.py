"""Where the numeric work runs: batches split over CPU threads (numpy) or sent to a GPU (torch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fitting import Network, Origin, gauss_newton, sgd_step
from coinpp_xr.harmonics import synthesise
from coinpp_xr.network import BaseNetwork
from coinpp_xr.parallel import map_in_threads, thread_count
from coinpp_xr.settings import config
from coinpp_xr.siren import Array, ModulatedSiren

Float32 = npt.NDArray[np.float32]

EFFORTS = ("fast", "default", "best", "paper")

# Activations of one block should stay in the processor's cache: about 4,000 points at a time.
_POINTS_PER_BLOCK = 4608


def fit(
    network: Network,
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
    network : BaseNetwork or ModulatedSiren
        With numpy parameters.
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

        def block(net: Network, xyz: Array, y: Array, w: Array) -> Array:
            siren = net if isinstance(net, ModulatedSiren) else net.siren
            z = siren.zeros(len(y))
            for _ in range(inner_steps):
                z = sgd_step(siren, xyz, y, z, weights=w, learning_rate=learning_rate)
            return z
    else:
        steps = {"fast": (1, 0), "default": (3, 0), "best": (1, 5)}[effort]
        if isinstance(network, BaseNetwork) and network.linear:
            steps = (1, 0)
        curved = steps[0] > 1
        origin = _origin(network, points.tobytes(), weights.mean(0).tobytes(), curved)

        def block(net: Network, xyz: Array, y: Array, w: Array) -> Array:
            return gauss_newton(
                net, xyz, y, weights=w, chord_steps=steps[0], own_steps=steps[1],
                origin=origin.map(lambda part: _like(part, xyz)),
            )  # fmt: skip

    return _over_items(block, network, points, targets, weights)


@lru_cache(maxsize=4)
def _origin(network: Network, points: bytes, weights: bytes, curved: bool) -> Origin:
    """The matrix step of a network on a grid: the same for chunk after chunk."""
    xyz = np.frombuffer(points, np.float32).reshape(-1, network.dim_in)
    shared = np.frombuffer(weights, np.float32)[None]
    # In the pool, because several BLAS threads would round differently from one.
    (origin,) = map_in_threads(lambda net: Origin.of(net, xyz, shared, curved=curved), [network])
    return origin


def predict(network: Network, points: Float32, latents: Float32) -> Float32:
    """Output of the base network for a batch of latents.

    Returns
    -------
    float32 array, shape (batch, points, dim_out)
    """
    if (device := compute_device()) != "cpu":

        def block(net: Network, xyz: Array, z: Array) -> Array:
            return net(xyz, z)

        return _on_gpu(block, network, device, points, (latents,), len(latents))

    output = np.empty((len(latents), len(points), network.dim_out), dtype=np.float32)

    def fill(where: tuple[slice, slice]) -> None:
        items, rows = where
        output[items, rows] = network(points[rows], latents[items])

    per_block = max(1, _POINTS_PER_BLOCK // max(1, len(points)))
    if isinstance(network, BaseNetwork) and network.linear:
        # One matrix product: the more items share it, the better.
        per_block = max(per_block, -(-len(latents) // thread_count()))
    map_in_threads(
        fill,
        [
            (slice(i, i + per_block), slice(p, p + _POINTS_PER_BLOCK))
            for i in range(0, len(latents), per_block)
            for p in range(0, len(points), _POINTS_PER_BLOCK)
        ],
    )
    return output


def predict_on_grid(network: BaseNetwork, grid: SphereGrid, latents: Float32) -> Float32:
    """:func:`predict` for all cells of a globe, shape (batch, cells).

    The tail's harmonics are products of functions of latitude and of longitude, which makes
    large grids cheap.
    """
    if network.tail is None or compute_device() != "cpu":
        return predict(network, grid.points, latents)[..., 0]
    tail, own = network.tail, network.siren.latent_dim
    if own:
        fields = predict(network.siren, grid.points, latents[:, :own])[..., 0]
    else:
        fields = np.repeat(_field_of(network.siren, grid), len(latents), axis=0)
    per_block = -(-len(latents) // thread_count()) or 1

    def add_tail(start: int) -> None:
        items = slice(start, start + per_block)
        coefficients = tail.mean + latents[items, own:] @ tail.modes
        added = synthesise(coefficients, grid.latitude, grid.longitude)
        fields[items] += added.reshape(len(added), -1)

    map_in_threads(add_tail, range(0, len(latents), per_block))
    return fields


@lru_cache(maxsize=4)
def _field_of(siren: ModulatedSiren, grid: SphereGrid) -> Float32:
    """The one field of a SIREN without latents, shape (1, cells)."""
    return predict(siren, grid.points, np.zeros((1, 0), np.float32))[..., 0]


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
    network: Network,
    points: Float32,
    targets: Float32,
    weights: Float32,
) -> Float32:
    if len(targets) == 0:
        return np.zeros((0, network.latent_dim), dtype=np.float32)
    shared = len(weights) == 1
    arrays = (targets,) if shared else (targets, weights)
    if (device := compute_device()) != "cpu":
        if shared:
            common = _like_on(weights, device)
            return _on_gpu(
                lambda net, xyz, y: block(net, xyz, y, common),
                network,
                device,
                points,
                arrays,
                len(targets),
            )
        return _on_gpu(block, network, device, points, arrays, len(targets))

    per_block = max(1, _POINTS_PER_BLOCK // len(points))
    if shared and isinstance(network, BaseNetwork) and network.linear:
        per_block = max(per_block, -(-len(targets) // thread_count()))

    def run(start: int) -> Array:
        items = slice(start, start + per_block)
        return block(network, points, targets[items], weights if shared else weights[items])

    return np.concatenate(map_in_threads(run, range(0, len(targets), per_block)))


def _on_gpu(
    block: Callable[..., Array],
    network: Network,
    device: str,
    points: Float32,
    arrays: tuple[Float32, ...],
    n_items: int,
) -> Float32:
    """Run ``block`` over slices of the batch on a GPU, with smaller slices when memory runs out."""
    import torch

    to_device = partial(_like_on, device=device)
    net, xyz = network.map(to_device), to_device(points)
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
