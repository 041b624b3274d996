"""What is to be kept, and the search for the smallest stream of a peer that keeps it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import area_weights
from coinpp_xr.peers.layouts import Float32, Layout

Float64 = npt.NDArray[np.float64]

# Bisections end when two settings differ by this share.
_CLOSE = 5e-4


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
        n_lon = np.shape(values)[-1]
        around = np.arange(n_lon) * 360 / n_lon if longitude is None else longitude
        weights = area_weights(latitude, n_lon)
        return cls._of(values, weights, np.asarray(latitude), np.asarray(around))

    @classmethod
    def on_index(cls, values: npt.ArrayLike, weights: Float64) -> Chunk:
        """From any float array (..., rows, columns) on no latitudes and longitudes.

        Parameters
        ----------
        values : array_like
        weights : float64 array, shape (rows, columns)
            Of any sum.

        Raises
        ------
        ValueError
            If nothing in it is finite.
        """
        rows, columns = weights.shape
        return cls._of(values, weights / weights.sum(), np.zeros(rows), np.zeros(columns))

    @classmethod
    def _of(
        cls,
        values: npt.ArrayLike,
        weights: Float64,
        latitude: npt.NDArray[Any],
        longitude: npt.NDArray[Any],
    ) -> Chunk:
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
        return cls(
            filled, valid, weights, exact, latitude.astype(np.float64), longitude.astype(np.float64)
        )

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

    def at_the_bound(self, layout: Layout, method: Method) -> Result | None:
        """For codecs that take the bound; single precision may want it a little smaller.

        Returns what meets it.
        """
        bound = self.goal.size
        for setting in (bound, bound * (1 - 1e-6), bound * (1 - 1e-4), bound * 0.99, bound * 0.9):
            result = self.attempt(layout, method, setting)
            if result is None or self.meets(result):
                return result
        return None

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


def need(module: str, package: str | None = None) -> Any:
    """A library that a peer is made of, or what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise NotInstalledError(f"pip install {package or module}") from error
