"""Peers that round and then code without loss: BitRound, PCodec, Blosc."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.peers.layouts import ALL_ORDERS, Float32, layouts
from coinpp_xr.peers.search import Method, Search, need


def bitround(search: Search) -> None:
    """BitRound to the fewest mantissa bits, then Zstandard over shuffled bytes."""
    numcodecs = need("numcodecs")
    shuffle, zstd = numcodecs.Shuffle(4), numcodecs.Zstd(level=19)

    def encode(array: Float32, setting: float) -> bytes:
        rounded = numcodecs.BitRound(keepbits=int(setting)).encode(array.copy())
        return bytes(zstd.encode(shuffle.encode(np.ascontiguousarray(rounded))))

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        raw = np.asarray(shuffle.decode(zstd.decode(stream)))
        return raw.view(np.float32).reshape(like.shape)

    method = Method("mantissa bits", encode, decode)
    for layout in layouts(search.chunk.values, [(0, 1, 2), (1, 2, 0)]):
        for keepbits in range(1, 24):
            result = search.attempt(layout, method, keepbits)
            if result is not None and search.meets(result):
                break


def pcodec(search: Search) -> None:
    """PCodec on whole steps of twice the bound."""
    package = need("pcodec")

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        return np.asarray(package.standalone.simple_decompress(stream)).reshape(like.shape)

    for name, settings in deltas(package).items():

        def encode(array: Float32, step: float, settings: Any = settings) -> bytes:
            steps = steps_of(array, step).ravel()
            return bytes(package.standalone.simple_compress(steps, settings))

        _rounded(search, f"{name} step".lstrip(), encode, decode)


def blosc(search: Search) -> None:
    """Blosc (Zstandard, byte or bit shuffle) on whole steps of twice the bound."""
    numcodecs = need("numcodecs")
    for name, shuffle in (("bytes", 1), ("bits", 2)):
        codec = numcodecs.Blosc("zstd", clevel=9, shuffle=shuffle)

        def encode(array: Float32, step: float, codec: Any = codec) -> bytes:
            return bytes(codec.encode(steps_of(array, step)))

        def decode(stream: bytes, like: Float32, codec: Any = codec) -> npt.NDArray[Any]:
            return np.frombuffer(codec.decode(stream), np.int32).reshape(like.shape)

        _rounded(search, f"{name} step", encode, decode)


def _rounded(
    search: Search,
    name: str,
    encode: Callable[[Float32, float], bytes],
    decode: Callable[[bytes, Float32], npt.NDArray[Any]],
) -> None:
    """Rounding to steps, and a lossless codec for the whole numbers."""
    step_of = [0.0]  # what a container would know

    def remember(array: Float32, step: float) -> bytes:
        step_of[0] = step
        return encode(array, step)

    def values(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        return np.asarray((decode(stream, like) * step_of[0]).astype(np.float32))

    method = Method(name, remember, values)
    for layout in layouts(search.chunk.values, ALL_ORDERS):
        if search.goal.max_error is not None:
            search.attempt(layout, method, lattice_step(search))
        else:
            # Errors of rounding are as if uniform, unless the steps are larger than the field.
            typical = search.goal.size * np.sqrt(12)
            for share in (0.9, 0.95, 1.0, 1.05):
                search.attempt(layout, method, share * typical)
            search.bisect(layout, method, 0.9 * typical, 4 * typical)


def lattice_step(search: Search) -> float:
    """Twice the bound; a little less leaves room for rounding to single precision."""
    largest = float(np.abs(search.chunk.values).max())
    room = 1 - min(0.5, 2e-7 * largest / search.goal.size)
    return 2 * search.goal.size * room


def steps_of(array: npt.NDArray[Any], step: float) -> npt.NDArray[np.int32]:
    """Values as whole numbers of steps."""
    steps = np.rint(array.astype(np.float64) / step)
    if np.abs(steps).max() > 2**31 - 1:
        raise ValueError("more steps than 32 bits can count")
    return steps.astype(np.int32)


def deltas(package: Any) -> dict[str, Any]:
    """Settings of PCodec; what it predicts with by itself is not always the best."""
    specs = package.DeltaSpec
    known = {"": specs.auto(), "delta": specs.try_consecutive(1), "lookback": specs.try_lookback()}
    return {
        name: package.ChunkConfig(compression_level=12, delta_spec=spec)
        for name, spec in known.items()
    }
