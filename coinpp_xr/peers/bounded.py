"""Peers that take a bound themselves: SZ3 (of imagecodecs and the newest), SPERR, ZFP, EBCC."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.peers.layouts import ALL_ORDERS, Float32, Layout, Order, layouts, pictures
from coinpp_xr.peers.search import Method, Result, Search, need

# Wavelets and wasm take the process down far from ordinary numbers.
_ORDINARY = 1e15
# What SZ3 3.4 may be told of an interpolation, one after the other: how it interpolates and in
# which order of the axes (all others are layouts), how much tighter the bound is on coarse levels,
# and between which points that are stored.
_INTERPOLATIONS: list[list[dict[str, str]]] = [
    [
        {"InterpolationAlgo": f"INTERP_ALGO_{kind}", "InterpolationDirection": direction}
        for kind in ("LINEAR", "CUBIC")
        for direction in ("0", "1", "5")
    ],
    [
        {"InterpolationAlpha": alpha, "InterpolationBeta": beta}
        for alpha, beta in (("1", "1"), ("1.1", "1.5"), ("1.25", "2"), ("1.5", "2.5"), ("2", "3"))
    ],
    [{"InterpolationAnchorStride": stride} for stride in ("0", "64", "256")],
]


def sz3(search: Search) -> None:
    """SZ3 at an absolute bound, in all orders of the axes."""
    codecs = need("imagecodecs")
    method = Method(
        "abs",
        lambda array, bound: bytes(codecs.sz3_encode(array, "abs", abs=bound)),
        lambda stream, like: np.asarray(codecs.sz3_decode(stream, like.shape, like.dtype)),
    )
    _best_sz3(search, [method])


def newest_sz3(search: Search) -> None:
    """SZ3 3.4 at an absolute bound, in all orders of the axes, with every predictor it has.

    Its own choice of an interpolation comes from a sample, and it never chooses the Lorenzo
    predictor or none by itself: all are tried, and interpolations tuned in the two best layouts.
    """
    package = need("pysz")
    algorithms = package.szAlgorithm

    def method(name: str, algorithm: int, options: dict[str, str]) -> Method:
        config = package.szConfig()
        # Most options can only be set by a file.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "options.ini"
            lines = ["[GlobalSettings]", "[AlgoSettings]", *map("=".join, options.items())]
            path.write_text("\n".join(lines) + "\n")
            config.loadcfg(str(path))
        config.errorBoundMode, config.cmprAlgo = package.szErrorBoundMode.ABS, algorithm

        def encode(array: Float32, bound: float) -> bytes:
            config.absErrorBound = bound
            return bytes(package.sz.compress(array, config)[0])

        def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
            codes = np.frombuffer(stream, np.uint8)
            return np.asarray(package.sz.decompress(codes, like.dtype, like.shape)[0])

        return Method(f"{name} abs".lstrip(), encode, decode)

    methods = [
        method("", algorithms.INTERP_LORENZO, {}),
        method("Lorenzo", algorithms.LORENZO_REG, {"Regression": "no"}),
        method("Lorenzo and regression", algorithms.LORENZO_REG, {}),
        method("no predictor", algorithms.NOPRED, {}),
    ]
    for layout, best in _best_sz3(search, methods):
        chosen: dict[str, str] = {}
        for options in _INTERPOLATIONS:
            sizes = []
            for option in options:
                tried = {**chosen, **option}
                values = (f"{key.lower()} {value.lower()}" for key, value in tried.items())
                name = " ".join(values).replace("interpolation", "").replace("interp_algo_", "")
                tuned = method(name, algorithms.INTERP, tried)
                if search.goal.max_error is not None:
                    result = search.at_the_bound(layout, tuned)
                else:
                    result = search.scan(layout, tuned, best.parameter * np.geomspace(1.5, 0.7, 16))
                if result is not None:
                    sizes.append((result.nbytes, tried))
            if sizes:
                chosen = min(sizes, key=lambda item: item[0])[1]


def _best_sz3(search: Search, methods: Sequence[Method]) -> list[tuple[Layout, Result]]:
    """Every layout with every method; the two best layouts, and what was best in them."""
    size = search.goal.size
    found = []
    for layout in layouts(search.chunk.values, ALL_ORDERS, tables=True):
        for method in methods:
            if search.goal.max_error is not None:
                best = search.at_the_bound(layout, method)
            else:
                # Size and RMSE jump about with the bound: scan, and more finely below. Fields of
                # few values are sometimes smaller at tiny bounds, or without loss.
                best = search.scan(layout, method, size * np.geomspace(32, 0.7, 48))
                for tiny in size * np.array([0, 0.3, 0.1, 0.01, 1e-3]):
                    result = search.attempt(layout, method, float(tiny))
                    if result and search.best and result.nbytes > 4 * search.best.nbytes:
                        break
            if best is not None:
                found.append((best.nbytes, layout.name, layout, method, best))
    found.sort(key=lambda item: item[:2])
    first = {name: (layout, method, best) for _, name, layout, method, best in reversed(found)}
    names = list(dict.fromkeys(item[1] for item in found))[:2]
    if search.goal.max_error is None:
        for layout, method, best in map(first.__getitem__, names):
            for finer in best.parameter * np.geomspace(1.3, 0.8, 40):
                search.attempt(layout, method, float(finer))
    return [(first[name][0], first[name][2]) for name in names]


def sperr(search: Search, *, with_pictures: bool = True) -> None:
    """SPERR at fixed pointwise error; for an RMSE also at fixed rate and fixed PSNR."""
    codecs = need("imagecodecs")

    def method(mode: str) -> Method:
        def encode(array: Float32, setting: float) -> bytes:
            level = setting
            if mode == "psnr":
                # Its peak is the range of each array: equal noise is another PSNR for each.
                peak = max(float(np.ptp(array)), 1e-30)
                level = float(np.clip(20 * np.log10(peak / setting), 0.1, 250))
            # The 2-D header repeats what a container knows, and is read past the stream.
            header = array.ndim == 3
            return bytes(codecs.sperr_encode(array, level, mode, header=header, numthreads=1))

        def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
            return np.asarray(
                codecs.sperr_decode(
                    stream, shape=like.shape, dtype=like.dtype, header=like.ndim == 3, numthreads=1
                )
            )

        return Method(mode, encode, decode)

    largest, size = float(np.abs(search.chunk.values).max()), search.goal.size
    # The pointwise mode dies on huge values and at tolerances far below their precision.
    pointwise = 1e-7 * largest < size and largest < _ORDINARY
    # The wavelet transform treats the first axis on its own and the other two alike.
    orders: list[Order] = [(0, 1, 2), (1, 0, 2), (2, 0, 1)]
    drawn = pictures(search.chunk.values) if with_pictures else []
    for layout in (*layouts(search.chunk.values, orders), *drawn):
        if search.goal.max_error is not None:
            if pointwise:
                search.at_the_bound(layout, method("pwe"))
            continue
        # A budget below one bit means "no limit".
        search.bisect(layout, method("bpp"), 64.0, 8 / layout.arrays[0].size)
        for mode in ("psnr", "pwe")[: 1 + pointwise]:
            search.bisect(layout, method(mode), size / 4, size * 64)


def zfp(search: Search) -> None:
    """ZFP at fixed accuracy, which it keeps with much to spare: searched for the goal."""
    codecs = need("imagecodecs")
    method = Method(
        "accuracy",
        lambda array, level: bytes(codecs.zfp_encode(array, level=level, mode="a", header=False)),
        lambda stream, like: np.asarray(
            codecs.zfp_decode(stream, shape=like.shape, dtype=like.dtype)
        ),
    )
    with_header = Method(
        "accuracy",
        lambda array, level: bytes(codecs.zfp_encode(array, level=level, mode="a")),
        lambda stream, like: np.asarray(codecs.zfp_decode(stream)).reshape(like.shape),
    )
    size = search.goal.size
    probe = search.chunk.values[0]
    try:
        method.decode(method.encode(probe, size), probe)
    except (RuntimeError, ValueError, TypeError):
        method = with_header
    for layout in layouts(search.chunk.values, ALL_ORDERS):
        # Its accuracy is a power of two.
        search.scan(layout, method, size * 2.0 ** np.arange(7, -3, -1))


def ebcc(search: Search) -> None:
    """EBCC: JPEG 2000 with a residual that keeps a bound."""
    package = need("numcodecs_wasm_ebcc", "numcodecs-wasm-ebcc")
    if float(np.abs(search.chunk.values).max()) > _ORDINARY:
        raise ValueError("values too large for it")

    def method(base_cr: float) -> Method:
        def codec(bound: float) -> Any:
            return package.Ebcc(residual="absolute", error=bound, base_cr=base_cr)

        return Method(
            f"base {base_cr:g}:1",
            lambda array, bound: np.asarray(codec(bound).encode(array)).tobytes(),
            lambda stream, like: np.asarray(
                codec(1.0).decode(np.frombuffer(stream, np.uint8), out=np.empty_like(like))
            ),
        )

    values, size = search.chunk.values, search.goal.size
    found: list[tuple[int, Layout]] = []
    for layout in (*layouts(values, [(0, 1, 2)]), *pictures(values)):
        search.attempt(layout, method(30.0), size)  # compiling is not its speed
        result = search.attempt(layout, method(30.0), size)
        if result is not None:
            found.append((result.nbytes, layout))
    # It is slow: only the best layout gets a search, one parameter after the other.
    for _, layout in sorted(found, key=lambda pair: pair[0])[:1]:
        sizes: dict[float, int] = {}
        for base_cr in (10.0, 30.0, 100.0, 300.0, 1000.0):
            result = search.attempt(layout, method(base_cr), size)
            if result is not None:
                sizes[base_cr] = result.nbytes
        best = method(min(sizes, key=lambda base_cr: sizes[base_cr]))
        # Its errors stay below its bound, an RMSE further than the largest.
        coarse = 1.5 if search.goal.max_error is not None else 8.0
        search.bisect(layout, best, size, size * coarse, close=0.02)
