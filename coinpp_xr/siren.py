"""The base network: a SIREN whose sine layers are shifted by a few latent modulations.

One implementation serves numpy (reading needs no torch) and torch (training, GPUs): the arrays
in a :class:`ModulatedSiren` decide. Nothing here keeps state, so threads may share a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor


@dataclass(frozen=True, eq=False)
class ModulatedSiren:
    """A SIREN with shift modulations on every sine layer (COIN++, eq. 4).

    Layer l computes ``h_l = sin(ω0 (W_l h_{l-1} + b_l + β_l))``, the output is linear plus 0.5.
    The shifts β of all layers come from the latents φ by one linear map, ``β = shift_map φ``.

    Parameters
    ----------
    weights : tuple of arrays
        ``depth + 1`` matrices, shape (out, in); the last one is the linear output layer.
    biases : tuple of arrays
        ``depth + 1`` vectors.
    shift_map : array, shape (depth * width, latent_dim)
    omega0 : float
        Frequency of the sines.
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    shift_map: Array
    omega0: float

    @classmethod
    def initialise(
        cls,
        *,
        dim_in: int,
        dim_out: int,
        width: int,
        depth: int,
        latent_dim: int,
        omega0: float,
        shift_scale: float,
        rng: np.random.Generator,
    ) -> ModulatedSiren:
        """Draw a fresh float32 network as in the SIREN paper (Sitzmann et al. 2020, §3.2).

        ``shift_scale`` bounds the uniform entries of the latent → shift map. Small values keep
        the network nearly linear in the latents at the start; large ones memorise the data.
        """
        sizes = [dim_in, *[width] * depth, dim_out]
        weights, biases = [], []
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = 1 / fan_in if layer == 0 else sqrt(6 / fan_in) / omega0
            weights.append(rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
            biases.append(rng.uniform(-bound, bound, fan_out).astype(np.float32))
        shift_map = rng.uniform(-shift_scale, shift_scale, (depth * width, latent_dim))
        return cls(tuple(weights), tuple(biases), shift_map.astype(np.float32), float(omega0))

    @property
    def depth(self) -> int:
        return len(self.weights) - 1

    @property
    def width(self) -> int:
        return int(self.weights[0].shape[0])

    @property
    def dim_in(self) -> int:
        return int(self.weights[0].shape[1])

    @property
    def dim_out(self) -> int:
        return int(self.weights[-1].shape[0])

    @property
    def latent_dim(self) -> int:
        return int(self.shift_map.shape[1])

    @property
    def parameters(self) -> tuple[Array, ...]:
        return (*self.weights, *self.biases, self.shift_map)

    @property
    def parameter_count(self) -> int:
        return sum(int(np.prod(p.shape)) for p in self.parameters)

    def map(self, function: Callable[[Array], Array]) -> ModulatedSiren:
        """The same network with every parameter array replaced by ``function(array)``."""
        return ModulatedSiren(
            tuple(map(function, self.weights)),
            tuple(map(function, self.biases)),
            function(self.shift_map),
            self.omega0,
        )

    def zeros(self, batch: int) -> Array:
        """Zero latents, shape (batch, latent_dim), in the parameters' library and device."""
        return concatenate([self.shift_map[:1] * 0] * batch, axis=0)

    def __call__(self, coordinates: Array, latents: Array) -> Array:
        """Evaluate the network.

        Parameters
        ----------
        coordinates : array, shape (points, dim_in) or (batch, points, dim_in)
        latents : array, shape (batch, latent_dim)

        Returns
        -------
        array, shape (batch, points, dim_out)
        """
        hidden = coordinates
        for phase in self._layer_shifts(latents):
            hidden = _sine(phase(hidden))
        return self._output(hidden)

    def pullback(
        self, coordinates: Array, latents: Array
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Evaluate the network and keep what its derivative with respect to the shifts needs.

        Points do not see each other, so one backward pass yields the derivative of every point's
        output with respect to all shifts at once; the Jacobian of the latents is one matrix
        product away, however many latents there are.

        Returns
        -------
        output : array, shape (batch, points, dim_out)
        shift_cotangents : callable
            Maps cotangents of the output, shape (batch, points, dim_out), to those of the
            shifts *per point*, shape (batch, points, depth * width). Differentiable in torch,
            which makes exact second-order outer gradients possible.
        """
        hidden, slopes = coordinates, []
        for phase in self._layer_shifts(latents):
            z = phase(hidden)
            slopes.append(self.omega0 * _cosine(z))
            hidden = _sine(z)

        def shift_cotangents(cotangent: Array) -> Array:
            per_layer = []
            for slope, weight in zip(reversed(slopes), reversed(self.weights), strict=False):
                cotangent = (cotangent @ weight) * slope
                per_layer.append(cotangent)
            return concatenate(per_layer[::-1])

        return self._output(hidden), shift_cotangents

    def linearise(self, coordinates: Array, latents: Array) -> tuple[Array, Array]:
        """Output and its Jacobian with respect to the latents.

        Returns
        -------
        output : array, shape (batch, points, dim_out)
        jacobian : array, shape (batch, points, dim_out, latent_dim)
        """
        output, shift_cotangents = self.pullback(coordinates, latents)
        channels = []
        for channel in range(self.dim_out):
            unit = output * 0  # same shape, dtype and device in both libraries
            unit[..., channel] = 1
            channels.append((shift_cotangents(unit) @ self.shift_map)[..., None, :])
        return output, channels[0] if len(channels) == 1 else concatenate(channels, axis=-2)

    def _layer_shifts(self, latents: Array) -> list[Callable[[Array], Array]]:
        """For every sine layer the function hidden → ω0 (W hidden + b + β)."""
        shifts = (latents @ self.shift_map.T).reshape(len(latents), self.depth, 1, self.width)

        def layer(index: int) -> Callable[[Array], Array]:
            weight = (self.omega0 * self.weights[index]).T
            offset = self.omega0 * (self.biases[index] + shifts[:, index])

            def phase(hidden: Array) -> Array:
                z = hidden @ weight
                if z.ndim == 2:  # coordinates shared by the batch
                    return z + offset
                z += offset
                return z

            return phase

        return [layer(index) for index in range(self.depth)]

    def _output(self, hidden: Array) -> Array:
        # Features are normalised to [0, 1], so the network predicts around their middle.
        return hidden @ self.weights[-1].T + (self.biases[-1] + 0.5)


def _sine(z: Array) -> Array:
    return np.sin(z, out=z) if isinstance(z, np.ndarray) else z.sin()


def _cosine(z: Array) -> Array:
    return np.cos(z) if isinstance(z, np.ndarray) else z.cos()


def concatenate(parts: list[Array], axis: int = -1) -> Array:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis=axis)
    import torch

    return torch.cat(parts, dim=axis)
