"""Peers that are fitted to the chunk: its own EOFs, and COIN, a small network for every globe."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coin
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.peers.coin_fields import CoinFields
from coinpp_xr.peers.layouts import Float32, Layout
from coinpp_xr.peers.residuals import search_qualities, search_with_residual
from coinpp_xr.peers.rounding import steps_of
from coinpp_xr.peers.search import Float64, Method, Search, need

# Of rows at the poles, as a share of the largest.
_LEAST_WEIGHT = 0.05
# Enough to give fields without any value a network.
_MISSING_WEIGHT = 1e-6


def eof_truncation(search: Search) -> None:
    """EOFs of the chunk itself: leading modes and scores, quantized and packed by PCodec."""
    package = need("pcodec")
    settings = package.ChunkConfig(compression_level=12)
    values = search.chunk.values
    weights = search.chunk.weights.ravel()
    # Rows at the poles weigh nothing in an RMSE, but a bound holds for them, too.
    root = np.sqrt(np.maximum(weights, _LEAST_WEIGHT * weights.max()))
    table = values.reshape(len(values), -1).astype(np.float64)
    mean = table.mean(axis=0)
    scores, sizes, modes = np.linalg.svd((table - mean) * root, full_matrices=False)
    scores = scores * sizes

    def pack(numbers: Float64, step: float) -> bytes:
        steps = steps_of(numbers, step).ravel()
        packed = bytes(package.standalone.simple_compress(steps, settings))
        return len(packed).to_bytes(4, "little") + packed

    def unpack(stream: bytes, step: float) -> tuple[Float64, bytes]:
        end = 4 + int.from_bytes(stream[:4], "little")
        steps = np.asarray(package.standalone.simple_decompress(stream[4:end]))
        return steps * step, stream[end:]

    def method(kept: int) -> Method:
        # Errors of modes count by the size of their scores, and the other way round.
        spread = np.maximum(sizes[:kept] / np.sqrt(len(values)), 1e-30)

        def encode(array: Float32, step: float) -> bytes:
            fine = step / np.sqrt(max(kept, 1))
            return (
                pack(mean * root, step / np.sqrt(root.size))
                + pack(scores[:, :kept], fine)
                + pack(modes[:kept] * spread[:, None], fine / np.sqrt(root.size))
            )

        def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
            fine = step_of[0] / np.sqrt(max(kept, 1))
            average, rest = unpack(stream, step_of[0] / np.sqrt(root.size))
            own, rest = unpack(rest, fine)
            basis, _ = unpack(rest, fine / np.sqrt(root.size))
            fields = own.reshape(-1, kept) @ (basis.reshape(kept, -1) / spread[:, None])
            return np.asarray((fields + average) / root).reshape(like.shape).astype(np.float32)

        step_of = [0.0]

        def remember(array: Float32, step: float) -> bytes:
            step_of[0] = step
            return encode(array, step)

        return Method(f"{kept} modes, step", remember, decode)

    whole = Layout("", [values], lambda arrays: arrays[0])
    several = {*range(1, 9), *(n * 2**k for n in (5, 6, 7, 8) for k in range(1, 5))}
    counts = sorted({n for n in several if n < len(sizes)} | {len(sizes)})
    for kept in counts:
        steps = search.goal.size * np.array([16, 8, 4, 2, 1, 0.5])
        search_qualities(search, [whole], method(kept), steps)


def coin_networks(search: Search) -> None:
    """COIN: a small SIREN for every globe, of the width and the bits that make it smallest.

    Steps are capped (:class:`CoinFields`), which is some two minutes for twelve globes of 46 × 90.
    """
    chunk, values = search.chunk, search.chunk.values
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)
    # Rows at the poles weigh nothing in an RMSE, but a bound holds for them, too.
    floor = _LEAST_WEIGHT if search.goal.max_error is not None else 0.0
    areas = np.maximum(chunk.weights, floor * chunk.weights.max())
    weights = np.where(chunk.valid, areas, _MISSING_WEIGHT * areas)
    fields = CoinFields(
        ((values.astype(np.float64) - low) / span).reshape(len(values), -1, 1),
        SphereGrid(chunk.latitude, chunk.longitude).points,
        weights.reshape(len(values), -1),
    )
    width_of = [0]

    def method(bits: int) -> Method:
        def encode(array: Float32, width: float) -> bytes:
            width_of[0] = int(width)
            return fields.encode(int(width), bits)

        def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
            features = fields.decode(stream, width_of[0], bits).reshape(like.shape)
            return np.asarray(features * span + low).astype(np.float32)

        return Method(f"{bits} bits, width", encode, decode, whole=True)

    whole = Layout("", [values], lambda arrays: arrays[0])
    widths = np.array(fields.widths(), np.float64)
    search_qualities(search, [whole], method(coin.HALF), widths)
    if search.best is None:
        return
    width = search.best.parameter
    for bits in (14, 12, 10, 8):
        if search.goal.max_error is not None:
            search_with_residual(search, whole, method(bits), np.array([width]))
            continue
        # Coarser weights want a slightly wider network.
        for wider in (0, 1, 2):
            search.attempt(whole, method(bits), width + wider)
    # Fits are kept from one trial to the next.
    seconds = max(fields.seconds[int(search.best.parameter)], search.best.encode_seconds)
    search.best = replace(search.best, encode_seconds=seconds)
