"""Fields of a chunk as COIN's networks, for the search that compares codecs."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coin
from coinpp_xr.peers.layouts import Float32

# Units × points × steps of one fit, some ten seconds of one core; fewer steps than the least
# leave a network half fitted.
_MOST_WORK = 1e9
_MOST_STEPS, _LEAST_STEPS = 5000, 300
# Fields are smooth, and the steps few.
_FIELD_RATE = 5e-3
_WIDTHS = (4, 6, 8, 11, 16, 22, 31, 43)


class CoinFields:
    """Fields on one grid as networks of several widths; every width is fitted only once.

    Parameters
    ----------
    features : array, shape (fields, points, 1)
        Around 0 .. 1.
    coordinates : float32 array, shape (points, dim_in)
    weights : array, shape (fields, points)
        What points count in the error.
    """

    def __init__(
        self, features: npt.NDArray[Any], coordinates: Float32, weights: npt.NDArray[Any]
    ) -> None:
        self._features, self._coordinates, self._weights = features, coordinates, weights
        self._fitted: dict[int, Float32] = {}
        self.seconds: dict[int, float] = {}

    def widths(self) -> list[int]:
        """Widths worth trying: with fewer weights than points, and not too much work.

        Raises
        ------
        ValueError
            If the fields are too many or too large for a fit that ends within a minute.
        """
        affordable = [width for width in _WIDTHS if self._steps(width) >= _LEAST_STEPS]
        if not affordable:
            raise ValueError("too many points for COIN, it would take hours: give it fewer fields")
        points = self._features.shape[1]
        return [w for w in affordable if self._network(w).parameter_count < points]

    def encode(self, width: int, bits: int) -> bytes:
        """The codes of all fields, one after the other."""
        if width not in self._fitted:
            start = time.perf_counter()
            schedule = coin.Schedule(self._steps(width), _FIELD_RATE)
            self._fitted[width] = coin.fit(
                self._features, self._coordinates, self._network(width), schedule,
                weights=self._weights,
            )  # fmt: skip
            self.seconds[width] = time.perf_counter() - start
        return b"".join(coin.encode(parameters, bits) for parameters in self._fitted[width])

    def decode(self, payload: bytes, width: int, bits: int) -> Float32:
        """Features from codes, float32, shape (fields, points, 1)."""
        network = self._network(width)
        length = network.nbytes(bits)
        starts = range(0, len(payload), length)
        codes = (payload[start : start + length] for start in starts)
        return np.stack([coin.decode(code, network, self._coordinates, bits) for code in codes])

    def _network(self, width: int) -> coin.CoinNetwork:
        return coin.CoinNetwork(self._coordinates.shape[1], self._features.shape[2], width)

    def _steps(self, width: int) -> int:
        values = self._features.shape[0] * self._features.shape[1]
        return min(_MOST_STEPS, int(_MOST_WORK / (width * values)))
