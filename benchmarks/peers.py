"""What other codecs need for a chunk of globes at a given area-weighted RMSE.

SPERR and SZ3 at their best settings (:mod:`coinpp_xr.peers`), and EOF truncation with modes that
were trained elsewhere: it is charged with the ideal length of its code and, as a trained method,
not with its basis and tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import area_weights
from coinpp_xr.peers import Chunk, Goal, bounded
from coinpp_xr.peers.search import Search

Float64 = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


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


def sperr(chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> PeerResult | None:
    """SPERR at fixed rate, fixed PSNR and fixed point-wise error; None if it fails."""
    search = _search("SPERR", chunk, latitude, target_rmse)
    # Globes as layers or one by one, as all results so far.
    bounded.sperr(search, with_pictures=False)
    return _smallest(search)


def sz3(chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> PeerResult | None:
    """SZ3 at an absolute error bound; None if it fails."""
    search = _search("SZ3", chunk, latitude, target_rmse)
    bounded.sz3(search)
    return _smallest(search)


def _search(name: str, chunk: npt.ArrayLike, latitude: npt.ArrayLike, target_rmse: float) -> Search:
    return Search(name, Chunk.of(chunk, latitude), Goal(target_rmse=target_rmse))


def _smallest(search: Search) -> PeerResult | None:
    result = search.best
    if result is None:
        return None
    *words, _ = result.setting.split()
    return PeerResult(
        f"{search.peer}-{' '.join(words)}", result.nbytes, result.rmse, result.parameter
    )  # fmt: skip


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
