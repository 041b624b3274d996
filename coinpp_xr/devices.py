"""Where the numeric work runs: batches split over CPU threads (numpy) or sent to a GPU (torch)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import nbytes_of, remembered
from coinpp_xr.coordinates import IndexGrid, SphereGrid
from coinpp_xr.evaluation import Evaluation, tail_in_box
from coinpp_xr.fitting import Network, Origin, gauss_newton, sgd_step
from coinpp_xr.harmonics import synthesise
from coinpp_xr.network import BaseNetwork
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.products import right, same_product
from coinpp_xr.settings import config
from coinpp_xr.siren import Array, ModulatedSiren

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

EFFORTS = ("fast", "default", "best", "paper")

# Activations of one block should stay in the processor's cache: about 4,000 points at a time.
_POINTS_PER_BLOCK = 4608
# Where all items share one matrix.
_ITEMS_PER_BLOCK = 64


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


@remembered(lambda found, *_: nbytes_of(list(vars(found).values())))
def _origin(network: Network, points: bytes, weights: bytes, curved: bool) -> Origin:
    """The matrix step of a network on a grid: the same for chunk after chunk."""
    xyz = np.frombuffer(points, np.float32).reshape(-1, network.dim_in)
    shared = np.frombuffer(weights, np.float32)[None]
    # In the pool, because several BLAS threads would round differently from one.
    (origin,) = map_in_threads(lambda net: Origin.of(net, xyz, shared, curved=curved), [network])
    return origin


def predict(network: Network, points: Float32, latents: Float32) -> Float32:
    """Output of the base network for a batch of latents, as decoders see it.

    The same on every machine and device, but for a tail on the sphere: of that
    :func:`predict_on_grid` is.

    Returns
    -------
    float32 array, shape (batch, points, dim_out)
    """
    siren = network.siren if isinstance(network, BaseNetwork) else network
    tail = network.tail if isinstance(network, BaseNetwork) else None
    own, device = siren.latent_dim, compute_device()
    evaluate = _evaluation(siren, device)
    output = np.empty((len(latents), len(points), siren.dim_out), dtype=np.float32)

    def fill(where: tuple[slice, slice]) -> None:
        items, rows = where
        if own:
            output[items, rows] = evaluate(points[rows], latents[items, :own])
        else:
            output[items, rows] = _field_of(siren, points[rows].tobytes())
        if tail is not None:
            evaluate_tail = tail if tail.box is None else partial(tail_in_box, tail)
            output[items, rows] = output[items, rows] + evaluate_tail(
                points[rows], latents[items, own:]
            )

    if own and device != "cpu":
        everywhere = slice(0, len(points))
        _in_slices(lambda items: fill((items, everywhere)), len(latents))
        return output
    # With one matrix product: the more items share it, the better.
    per_block = max(1, _POINTS_PER_BLOCK // max(1, len(points))) if own else _ITEMS_PER_BLOCK
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
    tail, own = network.tail, network.siren.latent_dim
    if tail is None:
        return predict(network, grid.points, latents)[..., 0]
    # Parallels: all at once, or one by one where each has longitudes of its own.
    parallels = [(grid.latitude, grid.longitude, slice(None))]
    if isinstance(grid, IndexGrid) and grid.places is not None:
        parallels = _parallels(grid.places)
    fields = predict(network.siren, grid.points, latents[:, :own])[..., 0]
    modes = right(tail.modes)

    def add_tail(start: int) -> None:
        items = slice(start, start + _ITEMS_PER_BLOCK)
        coefficients = tail.mean + same_product(latents[items, own:], modes)
        for latitude, longitude, cells in parallels:
            added = synthesise(coefficients.astype(np.float32), latitude, longitude)
            fields[items, cells] = fields[items, cells] + added.reshape(len(added), -1)

    map_in_threads(add_tail, range(0, len(latents), _ITEMS_PER_BLOCK))
    return fields


def _parallels(places: Float64) -> list[tuple[Float64, Float64, Any]]:
    """Latitude, longitudes and numbers of the cells of every parallel."""
    latitudes, which = np.unique(places[0], return_inverse=True)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(np.bincount(which))[:-1]
    return [
        (latitudes[k : k + 1], places[1, cells], cells)
        for k, cells in enumerate(np.split(order, ends))
    ]


@remembered(lambda found, *_: found.nbytes)
def _evaluation(siren: ModulatedSiren, device: str) -> Evaluation:
    return Evaluation(siren, device)


@remembered()
def _field_of(siren: ModulatedSiren, points: bytes) -> Float32:
    """The one field of a SIREN without latents, shape (1, points, dim_out)."""
    coordinates = np.frombuffer(points, np.float32).reshape(-1, siren.dim_in)
    return _evaluation(siren, "cpu")(coordinates, np.zeros((1, 0), np.float32))


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
        # However many threads there are: a product rounds otherwise when it is split otherwise.
        per_block = max(per_block, _ITEMS_PER_BLOCK)

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
    """Run ``block`` over slices of the batch on a GPU."""
    import torch

    to_device = partial(_like_on, device=device)
    net, xyz = network.map(to_device), to_device(points)

    def run(items: slice) -> Float32:
        found: Float32 = block(net, xyz, *[to_device(a[items]) for a in arrays]).cpu().numpy()
        return found

    with torch.no_grad():
        return np.concatenate(_in_slices(run, n_items))


def _in_slices(function: Callable[[slice], Any], n_items: int) -> list[Any]:
    """Results for slices of a batch, smaller ones when the memory of a GPU runs out."""
    import torch

    results, start, size = [], 0, n_items
    while start < n_items:
        try:
            results.append(function(slice(start, start + size)))
            start += size
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            torch.cuda.empty_cache()
            size = (size + 1) // 2
    return results


def _like_on(array: Any, device: str) -> Any:
    import torch

    return torch.as_tensor(np.ascontiguousarray(array)).to(device)


def _like(array: Any, example: Array) -> Array:
    return array if isinstance(example, np.ndarray) else _like_on(array, example.device)
