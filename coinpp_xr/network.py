"""The base network: a modulated SIREN, and a linear tail for what it misses."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import isqrt, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import cosines
from coinpp_xr.caching import remembered
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.harmonics import harmonics
from coinpp_xr.siren import Array, ModulatedSiren, concatenate

# Modes on small grids are kept, on large ones evaluated anew, block by block.
_CACHED_VALUES = 1 << 23
# Of waves along longitude; and bytes that do not matter.
_ITEMS_AT_ONCE, _LITTLE = 64, 1 << 25


@dataclass(frozen=True, eq=False)
class LinearTail:
    """A mean field and modes of variation, as spherical harmonics or as cosines in a box.

    Being functions they can be evaluated on any grid, as a SIREN can.

    Parameters
    ----------
    mean : array, shape (size,)
        Added to the SIREN's output.
    modes : array, shape (latent_dim, size)
        Each is added as often as its latent says; in order of falling variance.
    box : BoxGrid, optional
        None for the sphere: ``size`` is (degree + 1)². In a box it is channels · cells.
    """

    mean: Array
    modes: Array
    box: BoxGrid | None = None

    @property
    def latent_dim(self) -> int:
        return int(self.modes.shape[0])

    @property
    def degree(self) -> int:
        """Of the spherical harmonics."""
        return isqrt(int(self.mean.shape[0])) - 1

    def truncated(self, latent_dim: int) -> LinearTail:
        """The tail with its first latents only."""
        return LinearTail(self.mean, self.modes[:latent_dim], self.box)

    def __call__(self, coordinates: Array, latents: Array) -> Array:
        """Fields of shape (batch, points, channels)."""
        if self.box is not None or self._is_small_on(coordinates):
            mean, modes = self.linearise(coordinates)
            rows = modes.reshape(mean.shape[1] * mean.shape[2], self.latent_dim)
            return (latents @ rows.T).reshape(-1, *mean.shape[1:]) + mean
        coefficients = self.mean + latents @ self.modes
        return (coefficients @ self._harmonics(coordinates).T)[..., None]

    def linearise(self, coordinates: Array) -> tuple[Array, Array]:
        """Mean field, shape (1, points, channels), and modes, (1, points, channels, latent_dim)."""
        if self._is_small_on(coordinates):
            mean, modes = _on_points(self, coordinates.tobytes(), coordinates.shape[1])
        else:
            mean, modes = self._evaluate(coordinates)
        return mean[None], modes[None]

    def _is_small_on(self, coordinates: Array) -> bool:
        small = len(coordinates) * self.latent_dim <= _CACHED_VALUES
        return small and isinstance(coordinates, np.ndarray)

    def _evaluate(self, coordinates: Array) -> tuple[Array, Array]:
        """Mean field, shape (points, channels), and modes, shape (points, channels, latent_dim)."""
        if self.box is None:
            on_points = self._harmonics(coordinates, kept=not self._is_small_on(coordinates))
            return (on_points @ self.mean)[:, None], (on_points @ self.modes.T)[:, None]
        if not isinstance(coordinates, np.ndarray):
            import torch

            own = LinearTail(self.mean.cpu().numpy(), self.modes.cpu().numpy(), self.box)
            found = own._evaluate(coordinates.cpu().numpy())
            return tuple(torch.from_numpy(part).to(coordinates) for part in found)  # type: ignore
        rows = np.concatenate([self.mean[None], self.modes])
        cells = int(np.prod(self.box.shape))
        values = cosines.synthesise(rows.reshape(-1, cells), coordinates, self.box)
        by_point = np.moveaxis(values.reshape(len(rows), -1, len(coordinates)), 0, -1)
        by_point = np.ascontiguousarray(by_point.swapaxes(0, 1))
        return np.ascontiguousarray(by_point[..., 0]), np.ascontiguousarray(by_point[..., 1:])

    def _harmonics(self, coordinates: Array, *, kept: bool = True) -> Array:
        if isinstance(coordinates, np.ndarray):
            return harmonics(coordinates, self.degree, kept=kept)
        import torch

        values = harmonics(coordinates.cpu().numpy(), self.degree)
        return torch.from_numpy(values.copy()).to(coordinates)


@remembered()
def _on_points(tail: LinearTail, points: bytes, axes: int) -> tuple[Array, Array]:
    """Mean and modes on a grid, which serve chunk after chunk."""
    return tail._evaluate(np.frombuffer(points, np.float32).reshape(-1, axes))


@dataclass(frozen=True, eq=False)
class QuantizedTail:
    """A :class:`LinearTail` as model files hold it.

    Parameters
    ----------
    symbols : int16 array, shape (1 + latent_dim, size)
        The mean field, then the modes, each in steps of its own.
    steps : float32 array, shape (1 + latent_dim,)
    box : BoxGrid, optional
        See :class:`LinearTail`.
    """

    symbols: npt.NDArray[np.int16]
    steps: npt.NDArray[np.float32]
    box: BoxGrid | None = None

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
        # Every row gets the same share of the error; the functions' mean square is one.
        steps = tolerance * np.sqrt(12 / rows.size) / size
        largest = np.abs(rows).max(axis=1)
        steps = np.maximum(np.minimum(steps, np.maximum(largest, 1e-12)), largest / 32000)
        steps = steps.astype(np.float32)
        return cls(np.rint(rows / steps[:, None]).astype(np.int16), steps, tail.box)

    @cached_property
    def tail(self) -> LinearTail:
        # One exact product per value: the same floats on every machine.
        rows = self.symbols.astype(np.float32) * self.steps[:, None]
        return LinearTail(rows[0], rows[1:], self.box)


@dataclass(frozen=True, eq=False)
class BaseNetwork:
    """Coordinates and latents → features; the first latents are the SIREN's, the rest the tail's.

    Parameters
    ----------
    siren : ModulatedSiren
        May have no latents at all: then it is one field.
    tail : LinearTail, optional
        On the sphere only for one output.
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

    def is_small_for(self, shape: tuple[int, ...], nbytes: int) -> bool:
        """Whether what evaluating takes for the axes of a grid is little beside fields on it.

        Parameters
        ----------
        shape : tuple of int
            Of fields, (..., rows, columns).
        nbytes : int
            Of the fields.
        """
        if self.tail is None or self.tail.box is not None:
            return True
        degree = self.tail.degree
        items = min(prod(shape[:-2]), _ITEMS_AT_ONCE)
        per_row = 4 * (degree + 1) ** 2 + 20 * items * (2 * degree + 1)
        most = 4 * nbytes + _LITTLE
        return shape[-2] * per_row <= most and shape[-1] * 48 * (2 * degree + 1) <= most

    def truncated(self, latent_dim: int) -> BaseNetwork:
        """The network with its first latents only."""
        if latent_dim >= self.latent_dim:
            return self
        own = min(latent_dim, self.siren.latent_dim)
        siren = self.siren.with_shift_map(self.siren.shift_map[:, :own])
        if self.tail is None:
            return BaseNetwork(siren)
        return BaseNetwork(siren, self.tail.truncated(latent_dim - own))

    def map(self, function: Any) -> BaseNetwork:
        """The same network with every parameter array replaced by ``function(array)``."""
        tail = self.tail
        if tail is not None:
            tail = LinearTail(function(tail.mean), function(tail.modes), tail.box)
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
        modes = self.tail.linearise(coordinates)[1]
        output = field + self.tail(coordinates, latents[:, own:])
        # One Jacobian serves all items where the SIREN has no part in it.
        return output, concatenate([jacobian, modes + jacobian[..., :1] * 0]) if own else modes
