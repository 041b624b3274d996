"""Other codecs on a chunk of globes, each at its best setting for a given error.

Every peer gets the chunk in the layouts that suit it (whole, with its axes in several orders, globe
by globe, and all globes in one picture), and its settings are searched: the smallest stream counts
whose decoded values, measured, keep the goal. Counted are the peer's own streams, nothing for
shapes, scales or for separating the globes, and no mask: missing cells are filled with the mean
before.

Codecs that know nothing of bounds (image codecs, EOFs) get a residual on a lattice on top, packed
by PCodec; the share of both is searched, too.
"""

from __future__ import annotations

import importlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coin
from coinpp_xr.coordinates import SphereGrid, area_weights

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Order = tuple[int, int, int]

ALL_ORDERS: list[Order] = [(a, b, c) for a, b, c in permutations(range(3))]
_AXES = ("time", "lat", "lon")
# Bisections end when two settings differ by this share.
_CLOSE = 5e-4
_LEAST_WEIGHT = 0.05
# Enough to give fields without any value a network.
_MISSING_WEIGHT = 1e-6
# x265 refuses smaller frames.
_SMALLEST_FRAME = 32
# Wavelets and wasm take the process down far from ordinary numbers.
_ORDINARY = 1e15


class NotInstalledError(Exception):
    """What a peer needs is not there; the message says what."""


@dataclass(frozen=True)
class Goal:
    """What has to be kept: one of the two.

    Parameters
    ----------
    max_error : float, optional
        Pointwise, absolute.
    target_rmse : float, optional
        Area-weighted, over the chunk.
    """

    max_error: float | None = None
    target_rmse: float | None = None

    @property
    def size(self) -> float:
        return float(self.max_error or self.target_rmse or 0)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Globes as peers get them.

    Parameters
    ----------
    values : float32 array, shape (time, lat, lon)
        What peers get, finite everywhere.
    valid : bool array of the same shape
        Cells that errors are measured in.
    weights : float64 array, shape (lat, lon)
        Area weights that sum to one.
    exact : float64 array of the same shape as values
        What errors are measured against: the values before they became float32.
    latitude, longitude : float64 arrays, shapes (lat,) and (lon,)
        Degrees.
    """

    values: Float32
    valid: npt.NDArray[np.bool_]
    weights: Float64
    exact: Float64
    latitude: Float64
    longitude: Float64

    @classmethod
    def of(
        cls,
        values: npt.ArrayLike,
        latitude: npt.ArrayLike,
        longitude: npt.ArrayLike | None = None,
    ) -> Chunk:
        """From any float array (..., lat, lon); what float32 cannot hold counts as missing.

        Without ``longitude``, columns go once around the globe.

        Raises
        ------
        ValueError
            If nothing in it is finite.
        """
        given = np.asarray(values)
        given = given.reshape(-1, *given.shape[-2:])
        with np.errstate(over="ignore"):
            globes = given.astype(np.float32)
        valid = np.isfinite(globes)
        if not valid.any():
            raise ValueError("there is no finite value to compare codecs on")
        mean = globes[valid].mean(dtype=np.float64)
        filled = np.where(valid, globes, np.float32(mean))
        exact = np.where(valid, given, mean).astype(np.float64)
        n_lon = globes.shape[2]
        around = np.arange(n_lon) * 360 / n_lon if longitude is None else longitude
        return cls(
            filled, valid, area_weights(latitude, n_lon), exact,
            np.asarray(latitude, np.float64), np.asarray(around, np.float64),
        )  # fmt: skip

    def errors(self, decoded: npt.NDArray[Any]) -> dict[str, float]:
        """max_error, rmse and bias of what came back, in the unit of the values."""
        difference = np.where(self.valid, decoded.astype(np.float64) - self.exact, 0)
        weights = self.weights * self.valid
        total = weights.sum()
        return {
            "max_error": float(np.abs(difference).max()),
            "rmse": float(np.sqrt((weights * difference**2).sum() / total)),
            "bias": float((weights * difference).sum() / total),
        }


@dataclass(frozen=True, eq=False)
class Layout:
    """A chunk cut and turned into the arrays that a peer gets."""

    name: str
    arrays: list[Float32]
    restore: Callable[[list[npt.NDArray[Any]]], npt.NDArray[Any]]


def layouts(chunk: Float32, orders: Sequence[Order], *, tables: bool = False) -> Iterator[Layout]:
    """The whole chunk with its axes in ``orders``, if it has more than one globe; globe by globe.

    ``tables`` adds (time, cell) and (cell, time) as two-dimensional arrays.
    """
    # SPERR aborts the process on a 3-D array with a single layer.
    for order in orders if min(chunk.shape) > 1 else []:
        axes = "×".join(_AXES[axis] for axis in order)
        yield Layout(
            "3D" if order == (0, 1, 2) else f"3D {axes}",
            [np.ascontiguousarray(chunk.transpose(order))],
            partial(_turn_back, order),
        )
    yield Layout("2D", [np.ascontiguousarray(globe) for globe in chunk], np.stack)
    if tables and len(chunk) > 1:
        table = np.ascontiguousarray(chunk.reshape(len(chunk), -1))
        yield Layout("2D time×cell", [table], lambda arrays: arrays[0].reshape(chunk.shape))
        yield Layout(
            "2D cell×time",
            [np.ascontiguousarray(table.T)],
            lambda arrays: arrays[0].T.reshape(chunk.shape),
        )


def _turn_back(order: Order, arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0].transpose(np.argsort(order))


def pictures(chunk: Float32) -> Iterator[Layout]:
    """All globes in one picture, side by side and stacked: headers are paid for once."""
    count, n_lat, n_lon = chunk.shape
    if count == 1:
        return
    row = chunk.transpose(1, 0, 2).reshape(n_lat, -1)
    yield Layout(
        "2D side by side",
        [np.ascontiguousarray(row)],
        lambda arrays: arrays[0].reshape(n_lat, count, n_lon).transpose(1, 0, 2),
    )
    column = np.ascontiguousarray(chunk.reshape(-1, n_lon))
    yield Layout("2D stacked", [column], lambda arrays: arrays[0].reshape(chunk.shape))


@dataclass(frozen=True)
class Method:
    """One way of using a peer: bytes from an array at a setting, and back.

    Parameters
    ----------
    name : str
        Of the mode, where a peer has several.
    encode : callable
        (array, setting) → bytes.
    decode : callable
        (bytes, array of the shape and dtype that is wanted) → array.
    whole : bool
        Only whole numbers are settings.
    """

    name: str
    encode: Callable[[Float32, float], bytes]
    decode: Callable[[bytes, Float32], npt.NDArray[Any]]
    whole: bool = False


@dataclass(frozen=True)
class Result:
    """What a peer needs for a chunk.

    Parameters
    ----------
    peer, setting : str
        The setting in words: layout, mode and parameter.
    nbytes : int
    max_error, rmse, bias : float
        Measured after decoding.
    encode_seconds, decode_seconds : float
        At this setting, without the search.
    parameter : float
        The number in the setting, in full.
    """

    peer: str
    setting: str
    nbytes: int
    max_error: float
    rmse: float
    bias: float
    encode_seconds: float
    decode_seconds: float
    parameter: float = 0.0


@dataclass(eq=False)
class Search:
    """Tries settings on one chunk and keeps the smallest stream that meets the goal."""

    peer: str
    chunk: Chunk
    goal: Goal
    best: Result | None = None
    decoded: npt.NDArray[Any] | None = None

    def attempt(self, layout: Layout, method: Method, setting: float) -> Result | None:
        """What the peer makes of the chunk at one setting, None if it fails."""
        try:
            start = time.perf_counter()
            streams = [method.encode(array, setting) for array in layout.arrays]
            middle = time.perf_counter()
            back = [
                method.decode(stream, array)
                for stream, array in zip(streams, layout.arrays, strict=True)
            ]
            end = time.perf_counter()
            decoded = layout.restore(back)
            errors = self.chunk.errors(decoded)
        except Exception:  # each library has its own, EBCC a plain one
            return None
        words = " ".join(filter(None, [layout.name, method.name, f"{setting:.4g}"]))
        result = Result(
            self.peer, words, sum(map(len, streams)), **errors,
            encode_seconds=middle - start, decode_seconds=end - middle, parameter=setting,
        )  # fmt: skip
        if self.meets(result) and (self.best is None or result.nbytes < self.best.nbytes):
            self.best, self.decoded = result, decoded
        return result

    def meets(self, result: Result) -> bool:
        if self.goal.max_error is not None:
            return result.max_error <= self.goal.max_error
        return result.rmse <= self.goal.size

    def bisect(
        self, layout: Layout, method: Method, fine: float, coarse: float, close: float = _CLOSE
    ) -> None:
        """Close in on the coarsest setting that meets the goal, between two positive ones.

        Assumes that finer settings give larger streams.
        """
        while abs(np.log(fine / coarse)) > close:
            middle = float(np.sqrt(fine * coarse))
            if method.whole:
                middle = round((fine + coarse) / 2)
                if middle in (fine, coarse):
                    return
            result = self.attempt(layout, method, middle)
            # NaN and failures count as too coarse.
            if result is not None and self.meets(result):
                fine = middle
            else:
                coarse = middle
                # Anything that meets it is larger than this, and this has already lost.
                if result is not None and self.best and result.nbytes > self.best.nbytes:
                    return

    def scan(
        self, layout: Layout, method: Method, settings: Sequence[float] | npt.NDArray[Any]
    ) -> Result | None:
        """Try settings from coarse to fine until the streams are clearly beyond the smallest."""
        here: Result | None = None
        for setting in settings:
            result = self.attempt(layout, method, float(setting))
            if result is None:
                continue
            if self.meets(result) and (here is None or result.nbytes < here.nbytes):
                here = result
            if self.best is not None and result.nbytes > 1.5 * self.best.nbytes:
                break
        return here


# ---- codecs that know a bound -------------------------------------------------------------------


def sz3(search: Search) -> None:
    """SZ3 at an absolute bound, in all orders of the axes."""
    codecs = _need("imagecodecs")
    method = Method(
        "abs",
        lambda array, bound: bytes(codecs.sz3_encode(array, "abs", abs=bound)),
        lambda stream, like: np.asarray(codecs.sz3_decode(stream, like.shape, like.dtype)),
    )
    size = search.goal.size
    if search.goal.max_error is not None:
        for layout in layouts(search.chunk.values, ALL_ORDERS, tables=True):
            _at_the_bound(search, layout, method)
        return
    # Size and RMSE jump about with the bound: scan, then more finely in the two best layouts.
    # Fields of few values are sometimes smaller at tiny bounds, or without loss.
    found = []
    for layout in layouts(search.chunk.values, ALL_ORDERS, tables=True):
        best = search.scan(layout, method, size * np.geomspace(32, 0.7, 48))
        for tiny in size * np.array([0, 0.3, 0.1, 0.01, 1e-3]):
            result = search.attempt(layout, method, float(tiny))
            if result and search.best and result.nbytes > 4 * search.best.nbytes:
                break
        if best is not None:
            found.append((best.nbytes, layout.name, layout, best))
    for _, _, layout, best in sorted(found, key=lambda item: item[:2])[:2]:
        for finer in best.parameter * np.geomspace(1.3, 0.8, 40):
            search.attempt(layout, method, float(finer))


def _at_the_bound(search: Search, layout: Layout, method: Method) -> None:
    """A codec that takes the bound itself; single precision may want it a little smaller."""
    bound = search.goal.size
    for setting in (bound, bound * (1 - 1e-6), bound * (1 - 1e-4), bound * 0.99, bound * 0.9):
        result = search.attempt(layout, method, setting)
        if result is None or search.meets(result):
            return


def sperr(search: Search, *, with_pictures: bool = True) -> None:
    """SPERR at fixed pointwise error; for an RMSE also at fixed rate and fixed PSNR."""
    codecs = _need("imagecodecs")

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
                _at_the_bound(search, layout, method("pwe"))
            continue
        # A budget below one bit means "no limit".
        search.bisect(layout, method("bpp"), 64.0, 8 / layout.arrays[0].size)
        for mode in ("psnr", "pwe")[: 1 + pointwise]:
            search.bisect(layout, method(mode), size / 4, size * 64)


def zfp(search: Search) -> None:
    """ZFP at fixed accuracy, which it keeps with much to spare: searched for the goal."""
    codecs = _need("imagecodecs")
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
    package = _need("numcodecs_wasm_ebcc", "numcodecs-wasm-ebcc")
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


# ---- rounding, then lossless coding -------------------------------------------------------------


def bitround(search: Search) -> None:
    """BitRound to the fewest mantissa bits, then Zstandard over shuffled bytes."""
    numcodecs = _need("numcodecs")
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


def _lattice_step(search: Search) -> float:
    """Twice the bound; a little less leaves room for rounding to single precision."""
    largest = float(np.abs(search.chunk.values).max())
    room = 1 - min(0.5, 2e-7 * largest / search.goal.size)
    return 2 * search.goal.size * room


def pcodec(search: Search) -> None:
    """PCodec on whole steps of twice the bound."""
    package = _need("pcodec")

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        return np.asarray(package.standalone.simple_decompress(stream)).reshape(like.shape)

    for name, settings in _deltas(package).items():

        def encode(array: Float32, step: float, settings: Any = settings) -> bytes:
            return bytes(package.standalone.simple_compress(_steps(array, step).ravel(), settings))

        _rounded(search, f"{name} step".lstrip(), encode, decode)


def _deltas(package: Any) -> dict[str, Any]:
    """Settings of PCodec; what it predicts with by itself is not always the best."""
    specs = package.DeltaSpec
    known = {"": specs.auto(), "delta": specs.try_consecutive(1), "lookback": specs.try_lookback()}
    return {
        name: package.ChunkConfig(compression_level=12, delta_spec=spec)
        for name, spec in known.items()
    }


def blosc(search: Search) -> None:
    """Blosc (Zstandard, byte or bit shuffle) on whole steps of twice the bound."""
    numcodecs = _need("numcodecs")
    for name, shuffle in (("bytes", 1), ("bits", 2)):
        codec = numcodecs.Blosc("zstd", clevel=9, shuffle=shuffle)

        def encode(array: Float32, step: float, codec: Any = codec) -> bytes:
            return bytes(codec.encode(_steps(array, step)))

        def decode(stream: bytes, like: Float32, codec: Any = codec) -> npt.NDArray[Any]:
            return np.frombuffer(codec.decode(stream), np.int32).reshape(like.shape)

        _rounded(search, f"{name} step", encode, decode)


def _steps(array: npt.NDArray[Any], step: float) -> npt.NDArray[np.int32]:
    steps = np.rint(array.astype(np.float64) / step)
    if np.abs(steps).max() > 2**31 - 1:
        raise ValueError("more steps than 32 bits can count")
    return steps.astype(np.int32)


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
            search.attempt(layout, method, _lattice_step(search))
        else:
            # Errors of rounding are as if uniform, unless the steps are larger than the field.
            typical = search.goal.size * np.sqrt(12)
            for share in (0.9, 0.95, 1.0, 1.05):
                search.attempt(layout, method, share * typical)
            search.bisect(layout, method, 0.9 * typical, 4 * typical)


# ---- codecs that know a quality, with a residual on top -----------------------------------------


def _image_peer(
    depths: Sequence[int],
    encode: Callable[[Any, npt.NDArray[Any], float, int], bytes],
    decode: Callable[[Any, bytes], npt.NDArray[Any]],
    qualities: Callable[[float], Float64],
    *,
    whole: bool = False,
) -> Callable[[Search], None]:
    """A peer from an image codec.

    Parameters
    ----------
    depths : sequence of int
        Bits of the integers that values are scaled to, each tried.
    encode, decode : callable
        With imagecodecs as first argument, quality and bits as last ones of ``encode``.
    qualities : callable
        From the goal as a share of the range to settings, from coarse to fine.
    whole : bool
        Qualities are whole numbers.
    """

    def peer(search: Search) -> None:
        codecs = _need("imagecodecs")
        values = search.chunk.values
        low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)

        def method(bits: int) -> Method:
            top, dtype = 2**bits - 1, np.uint8 if bits == 8 else np.uint16

            def to_bytes(array: Float32, quality: float) -> bytes:
                image = np.rint((array.astype(np.float64) - low) / span * top).astype(dtype)
                return encode(codecs, image, quality, bits)

            def to_array(stream: bytes, like: Float32) -> npt.NDArray[Any]:
                image = np.asarray(decode(codecs, stream)).reshape(like.shape)
                return np.asarray(image / top * span + low).astype(np.float32)

            return Method(f"{bits} bits, quality", to_bytes, to_array, whole)

        for bits in depths:
            cuts = (*pictures(values), *layouts(values, []))
            _search_qualities(search, cuts, method(bits), qualities(search.goal.size / span))

    return peer


def _search_qualities(
    search: Search, cuts: Sequence[Layout], method: Method, qualities: Float64
) -> None:
    """All qualities, from coarse to fine, in the first layout; those around its best in others."""
    tried = qualities
    for layout in cuts:
        found = (_coarsest if search.goal.max_error is None else _with_residual)(
            search, layout, method, tried
        )
        if found is not None:
            where = int(np.argmin(np.abs(qualities - found)))
            tried = qualities[max(where - 1, 0) : where + 2]


def _with_residual(
    search: Search, layout: Layout, method: Method, qualities: Float64
) -> float | None:
    """Every quality with what it misses in steps of twice the bound, by PCodec.

    Returns the quality that takes the fewest bytes together with its residual.
    """
    package = _need("pcodec")
    step = _lattice_step(search)
    # What is missed in a whole chunk may be flattened in any order.
    orders: list[Order | None] = [None]
    if layout.arrays[0].ndim == 3 and len(layout.arrays[0]) > 1:
        orders = [(0, 1, 2), (1, 0, 2), (1, 2, 0)]
    best, best_quality = None, 0.0
    first = _residual_method(method, package, _deltas(package)[""], step, orders[0])

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
        for settings in _deltas(package).values():
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
        steps = _steps(array - method.decode(base, array).astype(np.float64), step)
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


def _decibels(share: float) -> Float64:
    """PSNR of errors around this share of the range, from coarse to fine."""
    return np.asarray(-20 * np.log10(share) + np.linspace(-18, 12, 16))


jpeg2000 = _image_peer(
    [16],
    lambda c, image, level, bits: bytes(
        c.jpeg2k_encode(image, level=level, codecformat="j2k", reversible=False, numthreads=1)
    ),
    lambda c, stream: np.asarray(c.jpeg2k_decode(stream)),
    _decibels,
)
jpeg_xl = _image_peer(
    [16],
    lambda c, image, distance, bits: bytes(
        c.jpegxl_encode(image, distance=distance, effort=7, usecontainer=False, numthreads=1)
    ),
    lambda c, stream: np.asarray(c.jpegxl_decode(stream)),
    lambda share: np.geomspace(25, 0.02, 16),
)
jpeg = _image_peer(
    [8, 12],
    lambda c, image, level, bits: bytes(
        c.jpeg8_encode(image, level=int(level), optimize=True, bitspersample=bits)
    ),
    lambda c, stream: np.asarray(c.jpeg8_decode(stream)),
    lambda share: np.array([1.0, 5, 10, 30, 50, 70, 80, 90, 95, 98, 100]),
    whole=True,
)
avif = _image_peer(
    [12],
    # Grey images are stored without loss whatever the level; grey as a colour costs no bits.
    lambda c, image, level, bits: bytes(
        c.avif_encode(
            np.repeat(image[..., None], 3, axis=2),
            level=int(level), bitspersample=bits, pixelformat="420", numthreads=1,
        )
    ),
    lambda c, stream: np.asarray(c.avif_decode(stream))[..., 1],
    lambda share: np.array([20.0, 40, 50, 60, 70, 80, 90, 95, 99]),
    whole=True,
)  # fmt: skip


def hevc(search: Search) -> None:
    """HEVC-intra (x265, 12 bits), the core of the BPG that the COIN++ paper compares with."""
    program = shutil.which("ffmpeg")
    known = program and subprocess.run(
        [program, "-v", "error", "-encoders"], capture_output=True, check=False, timeout=60
    )
    if program is None or not known or b"libx265" not in known.stdout:
        raise NotInstalledError("needs ffmpeg with libx265")
    values = search.chunk.values
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)

    def run(arguments: list[str], data: bytes) -> bytes:
        command = [program, "-v", "error", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=600)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[-200:])
        return done.stdout

    def raw(shape: tuple[int, ...]) -> list[str]:
        return ["-f", "rawvideo", "-pix_fmt", "gray12le", "-s", f"{shape[-1]}x{shape[-2]}"]

    def even(length: int) -> int:
        return max(length + length % 2, _SMALLEST_FRAME)

    def encode(array: Float32, quality: float) -> bytes:
        image = np.rint((array.astype(np.float64) - low) / span * 4095).astype("<u2")
        missing = [(0, even(length) - length) for length in image.shape[-2:]]
        image = np.pad(image, [(0, 0)] * (image.ndim - 2) + missing, mode="edge")
        # Its parameters would take two thousand bytes more in every frame.
        options = f"crf={quality:g}:keyint=1:info=0:log-level=none"
        coder = ["-c:v", "libx265", "-preset", "slow", "-x265-params", options, "-f", "hevc", "-"]
        return run([*raw(image.shape), "-i", "-", *coder], image.tobytes())

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        n_lat, n_lon = like.shape[-2:]
        back = run(["-f", "hevc", "-i", "-", *raw(like.shape)[:4], "-"], stream)
        frames = np.frombuffer(back, "<u2").reshape(-1, even(n_lat), even(n_lon))
        image = frames[:, :n_lat, :n_lon].reshape(like.shape)
        return np.asarray(image / 4095 * span + low).astype(np.float32)

    method = Method("crf", encode, decode)
    frames = Layout("2D frames", [values], lambda arrays: arrays[0])
    cuts = (*pictures(values), frames)
    _search_qualities(search, cuts, method, np.array([*np.arange(50.0, 0, -5), 0.5]))


def eof_truncation(search: Search) -> None:
    """EOFs of the chunk itself: leading modes and scores, quantized and packed by PCodec."""
    package = _need("pcodec")
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
        steps = _steps(numbers, step).ravel()
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
        _search_qualities(search, [whole], method(kept), steps)


def coin_networks(search: Search) -> None:
    """COIN: a small SIREN for every globe, of the width and the bits that make it smallest.

    Steps are capped (``coin.Fields``), which is some two minutes for twelve globes of 46 × 90.
    """
    chunk, values = search.chunk, search.chunk.values
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)
    # Rows at the poles weigh nothing in an RMSE, but a bound holds for them, too.
    floor = _LEAST_WEIGHT if search.goal.max_error is not None else 0.0
    areas = np.maximum(chunk.weights, floor * chunk.weights.max())
    weights = np.where(chunk.valid, areas, _MISSING_WEIGHT * areas)
    fields = coin.Fields(
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
    _search_qualities(search, [whole], method(coin.HALF), widths)
    if search.best is None:
        return
    width = search.best.parameter
    for bits in (14, 12, 10, 8):
        if search.goal.max_error is not None:
            _with_residual(search, whole, method(bits), np.array([width]))
            continue
        # Coarser weights want a slightly wider network.
        for wider in (0, 1, 2):
            search.attempt(whole, method(bits), width + wider)
    # Fits are kept from one trial to the next.
    seconds = max(fields.seconds[int(search.best.parameter)], search.best.encode_seconds)
    search.best = replace(search.best, encode_seconds=seconds)


def _need(module: str, package: str | None = None) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotInstalledError(f"pip install {package or module}") from error


# Name → search; those with a residual under a bound say so.
PEERS: dict[str, Callable[[Search], None]] = {
    "SZ3": sz3,
    "SPERR": sperr,
    "ZFP": zfp,
    "EBCC": ebcc,
    "JPEG 2000": jpeg2000,
    "JPEG XL": jpeg_xl,
    "JPEG": jpeg,
    "AVIF": avif,
    "HEVC-intra": hevc,
    "EOF truncation": eof_truncation,
    "BitRound + Zstd": bitround,
    "PCodec": pcodec,
    "Blosc": blosc,
}
# These take minutes: only when they are named.
SLOW_PEERS: dict[str, Callable[[Search], None]] = {"COIN": coin_networks}
WITHOUT_BOUND = frozenset(
    {"JPEG 2000", "JPEG XL", "JPEG", "AVIF", "HEVC-intra", "EOF truncation", "COIN"}
)


def smallest(
    name: str, chunk: Chunk, goal: Goal
) -> tuple[Result, npt.NDArray[np.floating[Any]]] | None:
    """The smallest stream of a peer (of both lists) that meets the goal, and what it decodes to.

    None where no setting meets it.

    Raises
    ------
    NotInstalledError
    """
    title = name
    if goal.max_error is not None and name in WITHOUT_BOUND:
        title = f"{name} + residual"
    search = Search(title, chunk, goal)
    {**PEERS, **SLOW_PEERS}[name](search)
    if search.best is None or search.decoded is None:
        return None
    return search.best, search.decoded
