"""What other codecs need for a chunk of globes at a given area-weighted RMSE.

Every peer gets its best setting: its rate parameter is searched in each of its modes, over the
whole chunk and globe by globe, and with the axes in other orders. The size is that of the peer's
own stream(s), nothing added for shapes or for separating the globes; EOF truncation is charged
with the ideal length of its code and, as a trained method, not with its basis and tables.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import imagecodecs
import numpy as np
import numpy.typing as npt
from common import weighted_rmse

from coinpp_xr.coordinates import area_weights

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
# Encodes and decodes one array at one setting: number of bytes and what comes back.
RoundTrip = Callable[[Float32, float], tuple[int, Float32]]


@dataclass(frozen=True)
class PeerResult:
    """The smallest stream found within the target.

    Parameters
    ----------
    name : str
        Peer, layout and mode.
    nbytes : int
        Bytes of the whole chunk.
    rmse : float
        Area-weighted, over all globes of the chunk.
    setting : float
        The rate parameter: bits per value (bpp), RMS noise (psnr), largest error (pwe, abs), number
        of components (EOF truncation) or step (EOF, equal steps).
    """

    name: str
    nbytes: int
    rmse: float
    setting: float


@dataclass(frozen=True, eq=False)
class Layout:
    """A chunk cut and turned into the arrays that a peer gets."""

    name: str
    arrays: list[Float32]
    restore: Callable[[list[Float32]], Float32]


def layouts(
    chunk: Float32, orders: list[tuple[int, int, int]], *, tables: bool
) -> Iterator[Layout]:
    """The whole chunk with its axes in ``orders``, if it has more than one globe; globe by globe.

    ``tables`` adds (time, cell) and (cell, time) as two-dimensional arrays.
    """
    # SPERR aborts the process on a 3-D array with a single layer.
    for order in orders if min(chunk.shape) > 1 else []:
        axes = "×".join(("time", "lat", "lon")[axis] for axis in order)
        yield Layout(
            "3D" if order == (0, 1, 2) else f"3D {axes}",
            [np.ascontiguousarray(chunk.transpose(order))],
            lambda arrays, order=order: arrays[0].transpose(np.argsort(order)),
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


class Search:
    """Tries settings on one chunk and keeps the smallest stream within the target.

    Raises
    ------
    ValueError
        If the chunk is not (time, lat, lon), not finite, or the target is not positive.
    """

    def __init__(self, chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> None:
        self.chunk = np.ascontiguousarray(chunk, dtype=np.float32)
        if self.chunk.ndim != 3 or not np.isfinite(self.chunk).all() or not target_rmse > 0:
            raise ValueError("needs finite (time, lat, lon) and a positive target")
        self.weights = area_weights(latitude, self.chunk.shape[2])
        self.target = target_rmse
        self.best: PeerResult | None = None

    def attempt(
        self, name: str, layout: Layout, trip: RoundTrip, setting: float
    ) -> PeerResult | None:
        """What the peer makes of the chunk at one setting, None if it fails."""
        try:
            pairs = [trip(array, setting) for array in layout.arrays]
        except (RuntimeError, ValueError):
            return None
        back = layout.restore([decoded for _, decoded in pairs])
        rmse = weighted_rmse(back, self.chunk, self.weights)
        result = PeerResult(name, sum(nbytes for nbytes, _ in pairs), rmse, float(setting))
        if rmse <= self.target and (self.best is None or result.nbytes < self.best.nbytes):
            self.best = result
        return result

    def bisect(
        self, name: str, layout: Layout, trip: RoundTrip, fine: float, coarse: float
    ) -> None:
        """Close in on the coarsest setting within the target, between two positive ones.

        Assumes that finer settings give larger streams.
        """
        while abs(np.log(fine / coarse)) > 5e-4:
            middle = float(np.sqrt(fine * coarse))
            result = self.attempt(name, layout, trip, middle)
            # NaN and failures count as too coarse.
            if result is not None and result.rmse <= self.target:
                fine = middle
            else:
                coarse = middle
                # Anything within the target is larger than this, and this has already lost.
                if result is not None and self.best and result.nbytes > self.best.nbytes:
                    return

    def scan(
        self, name: str, layout: Layout, trip: RoundTrip, settings: npt.ArrayLike
    ) -> PeerResult | None:
        """Try settings from coarse to fine until the streams are clearly beyond the smallest."""
        here: PeerResult | None = None
        for setting in np.asarray(settings):
            result = self.attempt(name, layout, trip, setting)
            if result is None:
                continue
            if result.rmse <= self.target and (here is None or result.nbytes < here.nbytes):
                here = result
            if self.best is not None and result.nbytes > 1.5 * self.best.nbytes:
                break
        return here


def _sperr_trip(array: Float32, setting: float, mode: str) -> tuple[int, Float32]:
    level = setting
    if mode == "psnr":
        # SPERR's peak is the range of each array: the same noise in all globes is a PSNR for each.
        level = float(np.clip(20 * np.log10(max(float(np.ptp(array)), 1e-30) / setting), 0.1, 250))
    # The 2-D header repeats what a container knows, and decoding with it reads past the stream.
    header = array.ndim == 3
    stream = imagecodecs.sperr_encode(array, level, mode, header=header, numthreads=1)
    back = imagecodecs.sperr_decode(
        stream, shape=array.shape, dtype=array.dtype, header=header, numthreads=1
    )
    return len(stream), back


def sperr(chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> PeerResult | None:
    """SPERR at fixed rate, fixed PSNR and fixed point-wise error; None if it fails."""
    search = Search(chunk, latitude, target_rmse)
    modes = ["psnr"]
    # The point-wise mode takes the process down on huge values and at tolerances far below their
    # precision. It only ever wins on checkerboards and spikes.
    largest = float(np.abs(search.chunk).max())
    if 1e-7 * largest < target_rmse and largest < 1e15:
        modes.append("pwe")
    # The wavelet transform treats the first axis on its own and the other two alike.
    for layout in layouts(search.chunk, [(0, 1, 2), (1, 0, 2), (2, 0, 1)], tables=False):
        # A budget below one bit means "no limit" to SPERR.
        least = 8 / layout.arrays[0].size
        rate = partial(_sperr_trip, mode="bpp")
        search.bisect(f"SPERR-{layout.name} bpp", layout, rate, 64.0, least)
        for mode in modes:
            error = partial(_sperr_trip, mode=mode)
            name = f"SPERR-{layout.name} {mode}"
            search.bisect(name, layout, error, target_rmse / 4, target_rmse * 64)
    return search.best


def _sz3_trip(array: Float32, setting: float) -> tuple[int, Float32]:
    stream = imagecodecs.sz3_encode(array, "abs", abs=setting)
    return len(stream), imagecodecs.sz3_decode(stream, array.shape, array.dtype)


def sz3(chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> PeerResult | None:
    """SZ3 at an absolute error bound; None if it fails.

    Its relative bound is the absolute one divided by the range of the array. Size and RMSE jump
    about with the bound, so it is scanned, then scanned more finely in the two best layouts.
    """
    search = Search(chunk, latitude, target_rmse)
    coarse = target_rmse * np.geomspace(32, 0.7, 48)
    # Fields of few values are sometimes smaller at tiny bounds, or without loss.
    tiny = target_rmse * np.array([0, 0.3, 0.1, 0.01, 1e-3])
    found = []
    for layout in layouts(search.chunk, list(permutations(range(3))), tables=True):
        name = f"SZ3-{layout.name} abs"
        best = search.scan(name, layout, _sz3_trip, coarse)
        for setting in tiny:
            result = search.attempt(name, layout, _sz3_trip, setting)
            if result and search.best and result.nbytes > 4 * search.best.nbytes:
                break
        if best is not None:
            found.append((best.nbytes, name, layout, best.setting))
    for _, name, layout, setting in sorted(found, key=lambda item: item[0])[:2]:
        for finer in setting * np.geomspace(1.3, 0.8, 40):
            search.attempt(name, layout, _sz3_trip, finer)
    return search.best


def best_peer(chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> PeerResult:
    """The smaller of SPERR and SZ3.

    Raises
    ------
    ValueError
        If neither reaches the target.
    """
    both = [peer(chunk, latitude, target_rmse) for peer in (sperr, sz3)]
    results = [result for result in both if result is not None]
    if not results:
        raise ValueError(f"no peer reaches an RMSE of {target_rmse:g}")
    return min(results, key=lambda result: result.nbytes)


@dataclass(frozen=True, eq=False)
class Eofs:
    """Leading EOFs of training globes, in area weights.

    Parameters
    ----------
    mean : float64 array, shape (cells,)
    root : float64 array, shape (cells,)
        Square root of the area weights.
    vectors : float64 array, shape (cells, components)
    scores : float64 array, shape (globes, components)
        Of the training globes.
    """

    mean: Float64
    root: Float64
    vectors: Float64
    scores: Float64

    @classmethod
    def fit(cls, train: npt.ArrayLike, latitude: npt.ArrayLike, components: int = 600) -> Eofs:
        globes = np.asarray(train)
        # Beyond the rank there is nothing but rounding errors.
        components = min(components, len(globes) - 1, globes[0].size)
        root = np.sqrt(area_weights(latitude, globes.shape[2]).ravel())
        globes = globes.reshape(len(globes), -1).astype(np.float64)
        mean = globes.mean(0)
        scaled = (globes - mean) * root
        vectors = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :components]
        return cls(mean, root, vectors, scaled @ vectors)

    def encode(
        self,
        chunk: npt.ArrayLike,
        target_rmse: float,
        lowest: Float64,
        step: Float64,
        levels: Integers,
    ) -> tuple[int, float, int] | None:
        """Fewest leading components within the target, with one quantizer per component.

        Level ``i`` stands for ``lowest + i * step``; scores beyond the levels are clipped. Code
        lengths are those of add-one smoothed tables of the training scores.

        Returns
        -------
        tuple of (bytes of the chunk, RMSE, number of components), or None
        """
        globes = np.asarray(chunk, dtype=np.float64).reshape(-1, len(self.mean))
        scaled = (globes - self.mean) * self.root
        scores = scaled @ self.vectors

        def quantize(values: Float64, j: int | slice) -> Integers:
            return np.clip(np.rint((values - lowest[j]) / step[j]), 0, levels[j] - 1).astype(
                np.int64
            )

        symbols = quantize(scores, slice(None))
        # The EOFs are orthonormal: a kept score leaves its own quantization error and no other.
        gained = scores**2 - (lowest + symbols * step - scores) ** 2
        squared = (scaled**2).sum(1).mean() - np.cumsum(gained.mean(0))
        within = np.flatnonzero(squared <= target_rmse**2)
        if not within.size:
            return None
        last = int(within[0])
        bits = 0.0
        for j in range(last + 1):
            counts = np.bincount(quantize(self.scores[:, j], j), minlength=levels[j]) + 1
            bits += float(np.log2(counts.sum() / counts[symbols[:, j]]).sum())
        return int(np.ceil(bits / 8)), float(np.sqrt(squared[last])), last + 1


def eof_truncation(
    train: npt.ArrayLike | Eofs, chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float
) -> PeerResult | None:
    """EOF truncation with b bits for the mean ± 3σ of every component; best over b from 1 to 10.

    ``train`` is globes (time, lat, lon) or, so that many chunks share one fit, fitted EOFs. None
    if the target is out of reach.
    """
    eofs = train if isinstance(train, Eofs) else Eofs.fit(train, latitude)
    mean, std = eofs.scores.mean(0), eofs.scores.std(0)
    best: PeerResult | None = None
    for bits in range(1, 11):
        step = 6 * std / 2**bits
        levels = np.full(len(std), 2**bits)
        found = eofs.encode(chunk, target_rmse, mean - 3 * std + step / 2, step, levels)
        if found is not None and (best is None or found[0] < best.nbytes):
            best = PeerResult(f"EOF truncation, {bits} bits", *found[:2], float(found[2]))
    return best


def eof_equal_steps(
    train: npt.ArrayLike | Eofs, chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float
) -> PeerResult | None:
    """EOF truncation with one quantization step for all components; best over the step.

    The same as `eof_truncation` in all else. At equal steps a bit buys the same error in every
    component, which bits spread over each component's own range do not.
    """
    eofs = train if isinstance(train, Eofs) else Eofs.fit(train, latitude)
    low, high = eofs.scores.min(0), eofs.scores.max(0)
    # New globes may go somewhat beyond the training scores.
    low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
    best: PeerResult | None = None
    for step in target_rmse * np.geomspace(0.02, 1, 32):
        levels = ((high - low) / step).astype(np.int64) + 1
        found = eofs.encode(chunk, target_rmse, low, np.full(len(low), step), levels)
        if found is not None and (best is None or found[0] < best.nbytes):
            best = PeerResult(f"EOF equal steps, {found[2]} components", *found[:2], float(step))
    return best
