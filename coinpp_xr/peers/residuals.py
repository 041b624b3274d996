"""Peers that know a quality, not a bound: the search for it, and a residual on top of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.peers.layouts import Float32, Layout, Order
from coinpp_xr.peers.rounding import deltas, lattice_step, steps_of
from coinpp_xr.peers.search import Float64, Method, Search, need


def search_qualities(
    search: Search, cuts: Sequence[Layout], method: Method, qualities: Float64
) -> None:
    """All qualities, from coarse to fine, in the first layout; those around its best in others."""
    tried = qualities
    for layout in cuts:
        found = (_coarsest if search.goal.max_error is None else search_with_residual)(
            search, layout, method, tried
        )
        if found is not None:
            where = int(np.argmin(np.abs(qualities - found)))
            tried = qualities[max(where - 1, 0) : where + 2]


def search_with_residual(
    search: Search, layout: Layout, method: Method, qualities: Float64
) -> float | None:
    """Every quality with what it misses in steps of twice the bound, by PCodec.

    Returns the quality that takes the fewest bytes together with its residual.
    """
    package = need("pcodec")
    step = lattice_step(search)
    # What is missed in a whole chunk may be flattened in any order.
    orders: list[Order | None] = [None]
    if layout.arrays[0].ndim == 3 and len(layout.arrays[0]) > 1:
        orders = [(0, 1, 2), (1, 0, 2), (1, 2, 0)]
    best, best_quality = None, 0.0
    first = _residual_method(method, package, deltas(package)[""], step, orders[0])

    def attempt(quality: float) -> None:
        nonlocal best, best_quality
        result = search.attempt(layout, first, quality)
        if result is not None and (best is None or result.nbytes < best):
            best, best_quality = result.nbytes, quality

    for quality in qualities:
        attempt(float(quality))
    if best is None:
        return None
    # Twice between the best and its neighbours.
    gaps = np.diff(qualities) if len(qualities) > 1 else np.zeros(1)
    where = int(np.argmin(np.abs(qualities - best_quality)))
    around = [gaps[max(where - 1, 0)], gaps[min(where, len(gaps) - 1)]]
    for share in (0.5, 0.25):
        middle = best_quality
        for other in (middle - share * around[0], middle + share * around[1]):
            attempt(round(other) if method.whole else float(other))
    for order in orders:
        for settings in deltas(package).values():
            packed = _residual_method(method, package, settings, step, order)
            search.attempt(layout, packed, best_quality)
    return best_quality


def _coarsest(search: Search, layout: Layout, method: Method, qualities: Float64) -> float | None:
    """The first of the qualities that meets the goal, and what is between it and the one before.

    Returns the first one.
    """
    before = None
    for quality in map(float, qualities):
        result = search.attempt(layout, method, quality)
        if result is not None and search.meets(result):
            if before is not None and min(before, quality) > 0:
                search.bisect(layout, method, quality, before)
            return quality
        # What meets the goal is larger still.
        if result is not None and search.best and result.nbytes > search.best.nbytes:
            return None
        before = quality
    return None


def _residual_method(
    method: Method, package: Any, settings: Any, step: float, order: Order | None
) -> Method:
    def encode(array: Float32, quality: float) -> bytes:
        base = method.encode(array, quality)
        steps = steps_of(array - method.decode(base, array).astype(np.float64), step)
        flat = (steps if order is None else steps.transpose(order)).ravel()
        rest = bytes(package.standalone.simple_compress(flat, settings)) if flat.any() else b""
        return len(base).to_bytes(4, "little") + base + rest

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        length = 4 + int.from_bytes(stream[:4], "little")
        base = method.decode(stream[4:length], like).astype(np.float64)
        if len(stream) == length:
            return np.asarray(base.astype(np.float32))
        steps = np.asarray(package.standalone.simple_decompress(stream[length:]))
        if order is None:
            steps = steps.reshape(like.shape)
        else:
            turned = [like.shape[axis] for axis in order]
            steps = steps.reshape(turned).transpose(np.argsort(order))
        return np.asarray(base + steps * step).astype(np.float32)

    return Method(method.name, encode, decode, method.whole)
