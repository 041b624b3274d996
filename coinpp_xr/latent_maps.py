"""From latents to the modulations of a base network: a matrix, or a small network of its own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt
from typing import Any

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor

LATENT_MAPS = ("linear", "relu", "siren", "network")


@dataclass(frozen=True, eq=False)
class LatentMap:
    """A map from latents φ to modulations; a modulation of zero leaves the base network as it is.

    Parameters
    ----------
    kind : {"linear", "relu", "siren", "network"}
        ``linear`` is one matrix (COIN++). ``relu`` and ``siren`` have a hidden layer of ReLUs
        (as pi-GAN, Chan et al. 2021) or of sines before it, and biases. ``network`` is the
        modulation network of Mehta et al. 2021, ``g_0 = ReLU(V_0 φ + c_0)`` and
        ``g_l = ReLU(V_l [g_{l-1}; φ] + c_l)``, with one layer per sine layer of the base network:
        its modulations are ``g_l − 1``.
    weights : tuple of arrays
        One matrix per layer, shape (out, in).
    biases : tuple of arrays
        One vector per layer; none for ``linear``.
    omega0 : float
        Frequency of the hidden sines.
    """

    kind: str
    weights: tuple[Array, ...]
    biases: tuple[Array, ...] = ()
    omega0: float = 1.0

    @classmethod
    def initialise(
        cls,
        kind: str,
        *,
        latent_dim: int,
        hidden: int,
        modulations: int,
        depth: int,
        omega0: float,
        scale: float,
        rng: np.random.Generator,
    ) -> LatentMap:
        """Draw a fresh float32 map that is zero at zero latents.

        Parameters
        ----------
        hidden : int
            Width of the hidden layer.
        modulations : int
            Of all layers of the base network together.
        depth : int
            Sine layers of the base network.
        scale : float
            Bound of the uniform entries of the matrix that yields the modulations; in ``network``
            of all that multiply latents.
        """

        def uniform(bound: float, *shape: int) -> Array:
            return rng.uniform(-bound, bound, shape).astype(np.float32)

        if kind == "linear":
            return cls(kind, (uniform(scale, modulations, latent_dim),))
        if kind == "network":
            width = modulations // depth
            own = [uniform(scale, width, latent_dim) for _ in range(depth)]
            # All ReLUs are open at first: these bounds let changes fade from layer to layer.
            before = [uniform(1 / sqrt(width), width, width) for _ in range(depth - 1)]
            weights = [np.concatenate(v, axis=1) for v in zip(before, own[1:], strict=True)]
            # At zero latents every layer hands ones to the next.
            ones = np.ones(width, np.float32)
            return cls(kind, (own[0], *weights), (ones, *(ones - v.sum(1) for v in before)))
        last = uniform(scale, modulations, hidden)
        bound = sqrt(6 / latent_dim) / (omega0 if kind == "siren" else 1)
        # Without biases zero latents would sit at the kink of all ReLUs, where no gradient is.
        first, bias = uniform(bound, hidden, latent_dim), uniform(bound, hidden)
        started = cls(kind, (first, last), (bias, np.zeros(modulations, np.float32)), omega0)
        return replace(started, biases=(bias, -started(np.zeros((1, latent_dim), np.float32))[0]))

    @classmethod
    def of(cls, kind: str, parameters: tuple[Array, ...], omega0: float) -> LatentMap:
        """The map with these :attr:`parameters`."""
        layers = (len(parameters) + 1) // 2
        return cls(kind, tuple(parameters[:layers]), tuple(parameters[layers:]), omega0)

    @property
    def parameters(self) -> tuple[Array, ...]:
        return (*self.weights, *self.biases)

    @property
    def latent_dim(self) -> int:
        return int(self.weights[0].shape[1])

    def __call__(self, latents: Array) -> Array:
        """Modulations, shape (batch, modulations), for latents of shape (batch, latent_dim)."""
        hidden = [value for value, _ in self._hidden_layers(latents)]
        if self.kind == "network":
            return concatenate(hidden) - 1
        output = (hidden[-1] if hidden else latents) @ self.weights[-1].T
        return output + self.biases[-1] if self.biases else output

    def pull_back(self, cotangents: Array, latents: Array) -> Array:
        """Cotangents of the modulations → those of the latents.

        Parameters
        ----------
        cotangents : array, shape (batch, modulations) or (batch, points, modulations)
        latents : array, shape (batch, latent_dim)
            Where to differentiate.

        Returns
        -------
        array, shape (batch, latent_dim) or (batch, points, latent_dim)
            Differentiable in torch.
        """
        slopes = [slope for _, slope in self._hidden_layers(latents)]
        if cotangents.ndim == 3:
            slopes = [slope[:, None] for slope in slopes]
        if self.kind == "network":
            return self._pull_back_network(cotangents, slopes)
        cotangents = cotangents @ self.weights[-1]
        for slope, weight in zip(slopes, self.weights, strict=False):
            cotangents = (cotangents * slope) @ weight
        return cotangents

    def _pull_back_network(self, cotangents: Array, slopes: list[Array]) -> Array:
        width = len(self.biases[0])
        of_latents, of_hidden = 0, 0
        for layer in reversed(range(len(slopes))):
            own = cotangents[..., layer * width : (layer + 1) * width]
            of_inputs = ((own + of_hidden) * slopes[layer]) @ self.weights[layer]
            of_hidden = of_inputs[..., : -self.latent_dim]
            of_latents = of_latents + of_inputs[..., -self.latent_dim :]
        return of_latents

    def _hidden_layers(self, latents: Array) -> list[tuple[Array, Array]]:
        """Values of every hidden layer, and their derivatives by its linear map."""
        found: list[tuple[Array, Array]] = []
        layers = self.biases if self.kind == "network" else self.biases[:-1]
        for weight, bias in zip(self.weights, layers, strict=False):
            inputs = concatenate([found[-1][0], latents]) if found else latents
            z = inputs @ weight.T + bias
            if self.kind == "siren":
                z = self.omega0 * z
                slope = self.omega0 * cosine(z)
                found.append((sine(z), slope))
            else:
                found.append((z * (z > 0), z > 0))
        return found


def sine(z: Array) -> Array:
    """In numpy it overwrites its argument."""
    return np.sin(z, out=z) if isinstance(z, np.ndarray) else z.sin()


def cosine(z: Array) -> Array:
    return np.cos(z) if isinstance(z, np.ndarray) else z.cos()


def concatenate(parts: list[Array], axis: int = -1) -> Array:
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis=axis)
    import torch

    return torch.cat(parts, dim=axis)
