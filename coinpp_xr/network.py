"""The base network: a modulated SIREN, and a linear tail for what it misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.harmonics import harmonics
from coinpp_xr.siren import Array, ModulatedSiren, concatenate

# Modes on small grids are kept, on large ones evaluated anew, block by block.
_CACHED_VALUES = 1 << 24


@dataclass(frozen=True, eq=False)
class LinearTail:
    """A mean field and modes of variation, as spherical harmonics.

    Being functions on the sphere they can be evaluated on any grid, as a SIREN can.

    Parameters
    ----------
    mean : array, shape ((degree + 1)²,)
        Added to the SIREN's output.
    modes : array, shape (latent_dim, (degree + 1)²)
        Each is added as often as its latent says; in order of falling variance.
    """

    mean: Array
    modes: Array

    @property
    def latent_dim(self) -> int:
        return int(self.modes.shape[0])

    @property
    def degree(self) -> int:
        return isqrt(int(self.mean.shape[0])) - 1

    def __call__(self, coordinates: Array, latents: Array) -> Array:
        """Fields of shape (batch, points, 1)."""
        if self._is_small_on(coordinates):
            mean, modes = _on_points(self, coordinates.tobytes())
            return (latents @ modes.T + mean)[..., None]
        coefficients = self.mean + latents @ self.modes
        return (coefficients @ self._harmonics(coordinates).T)[..., None]

    def linearise(self, coordinates: Array) -> tuple[Array, Array]:
        """Mean field, shape (1, points, 1), and modes, shape (1, points, 1, latent_dim)."""
        if self._is_small_on(coordinates):
            mean, modes = _on_points(self, coordinates.tobytes())
        else:
            mean, modes = self._evaluate(coordinates)
        return mean[None, :, None], modes[None, :, None]

    def _is_small_on(self, coordinates: Array) -> bool:
        small = len(coordinates) * self.latent_dim <= _CACHED_VALUES
        return small and isinstance(coordinates, np.ndarray)

    def _evaluate(self, coordinates: Array) -> tuple[Array, Array]:
        on_points = self._harmonics(coordinates)
        return on_points @ self.mean, on_points @ self.modes.T

    def _harmonics(self, coordinates: Array) -> Array:
        if isinstance(coordinates, np.ndarray):
            return harmonics(coordinates, self.degree)
        import torch

        values = harmonics(coordinates.cpu().numpy(), self.degree)
        return torch.from_numpy(values.copy()).to(coordinates)


@lru_cache(maxsize=8)
def _on_points(tail: LinearTail, points: bytes) -> tuple[Array, Array]:
    """Mean and modes on a grid, which serve chunk after chunk."""
    return tail._evaluate(np.frombuffer(points, np.float32).reshape(-1, 3))


@dataclass(frozen=True, eq=False)
class QuantizedTail:
    """A :class:`LinearTail` as model files hold it.

    Parameters
    ----------
    symbols : int16 array, shape (1 + latent_dim, (degree + 1)²)
        The mean field, then the modes, each in steps of its own.
    steps : float32 array, shape (1 + latent_dim,)
    """

    symbols: npt.NDArray[np.int16]
    steps: npt.NDArray[np.float32]

    @classmethod
    def of(cls, tail: LinearTail, spread: npt.ArrayLike, tolerance: float) -> QuantizedTail:
        """Quantize a tail so that rounding moves a typical field by about ``tolerance`` (RMS).

        Parameters
        ----------
        tail : LinearTail
        spread : array_like, shape (latent_dim,)
            Standard deviations of the latents: a mode that moves much needs fine steps.
        tolerance : float
            In the unit of the features.
        """
        rows = np.concatenate([tail.mean[None], tail.modes]).astype(np.float64)
        size = np.concatenate([[1.0], np.maximum(np.asarray(spread, np.float64), 1e-12)])
        # Every row gets the same share of the error; a harmonic's mean square is one.
        steps = tolerance * np.sqrt(12 / rows.size) / size
        largest = np.abs(rows).max(axis=1)
        steps = np.maximum(np.minimum(steps, np.maximum(largest, 1e-12)), largest / 32000)
        steps = steps.astype(np.float32)
        return cls(np.rint(rows / steps[:, None]).astype(np.int16), steps)

    @cached_property
    def tail(self) -> LinearTail:
        # One exact product per value: the same floats on every machine.
        rows = self.symbols.astype(np.float32) * self.steps[:, None]
        return LinearTail(rows[0], rows[1:])


@dataclass(frozen=True, eq=False)
class BaseNetwork:
    """Coordinates and latents → features; the first latents are the SIREN's, the rest the tail's.

    Parameters
    ----------
    siren : ModulatedSiren
        May have no latents at all: then it is one field.
    tail : LinearTail, optional
        Only for one output on the sphere.
    """

    siren: ModulatedSiren
    tail: LinearTail | None = None

    @property
    def latent_dim(self) -> int:
        return self.siren.latent_dim + (self.tail.latent_dim if self.tail else 0)

    @property
    def dim_in(self) -> int:
        return self.siren.dim_in

    @property
    def dim_out(self) -> int:
        return self.siren.dim_out

    @property
    def parameter_count(self) -> int:
        tail = (self.tail.mean.size + self.tail.modes.size) if self.tail else 0
        return self.siren.parameter_count + tail

    @property
    def linear(self) -> bool:
        """Whether the output is linear in the latents, so that one matrix step fits them."""
        return self.siren.latent_dim == 0

    def truncated(self, latent_dim: int) -> BaseNetwork:
        """The network with its first latents only."""
        if latent_dim >= self.latent_dim:
            return self
        own = min(latent_dim, self.siren.latent_dim)
        siren = ModulatedSiren(
            self.siren.weights, self.siren.biases, self.siren.shift_map[:, :own], self.siren.omega0
        )
        if self.tail is None:
            return BaseNetwork(siren)
        return BaseNetwork(siren, LinearTail(self.tail.mean, self.tail.modes[: latent_dim - own]))

    def map(self, function: Any) -> BaseNetwork:
        """The same network with every parameter array replaced by ``function(array)``."""
        tail = self.tail and LinearTail(function(self.tail.mean), function(self.tail.modes))
        return BaseNetwork(self.siren.map(function), tail)

    def zeros(self, batch: int) -> Array:
        """Zero latents, shape (batch, latent_dim), in the parameters' library and device."""
        own = self.siren.zeros(batch)
        if self.tail is None:
            return own
        return concatenate([own, self.tail.modes[:, :1].T * 0 + own.sum(-1)[:, None] * 0])

    def __call__(self, coordinates: Array, latents: Array) -> Array:
        """Features of shape (batch, points, dim_out) for latents of shape (batch, latent_dim)."""
        if self.tail is None:
            return self.siren(coordinates, latents)
        own = self.siren.latent_dim
        # Without latents the SIREN is the same field for every item.
        field = self.siren(coordinates, latents[:, :own] if own else latents[:1, :0])
        return self.tail(coordinates, latents[:, own:]) + field

    def linearise(self, coordinates: Array, latents: Array) -> tuple[Array, Array]:
        """Output, shape (batch, points, dim_out), and its Jacobian, (…, latent_dim)."""
        if self.tail is None:
            return self.siren.linearise(coordinates, latents)
        own = self.siren.latent_dim
        field, jacobian = self.siren.linearise(coordinates, latents[:, :own])
        mean, modes = self.tail.linearise(coordinates)
        output = field + mean + (latents[:, own:] @ modes[0, :, 0].T)[..., None]
        # One Jacobian serves all items where the SIREN has no part in it.
        return output, concatenate([jacobian, modes + jacobian[..., :1] * 0]) if own else modes
