"""The base network: a SIREN whose sine layers are modulated by a few latents.

One implementation serves numpy (reading needs no torch) and torch (training, GPUs): the arrays
in a :class:`ModulatedSiren` decide. Nothing here keeps state, so threads may share a network.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import sqrt

import numpy as np

from coinpp_xr.latent_maps import LATENT_MAPS, Array, LatentMap, concatenate, cosine, sine

__all__ = [
    "Array",
    "LatentMap",
    "ModulatedSiren",
    "check_for_models",
    "check_parameterization",
    "concatenate",
]

# What is modulated, and in which order the latent map yields it.
MODULATIONS = {
    "shifts": ("shift",),
    "scales": ("scale",),
    "both": ("scale", "shift"),
    "amplitudes": ("amplitude",),
}


@dataclass(frozen=True, eq=False)
class ModulatedSiren:
    """A SIREN with modulations on every sine layer.

    With shifts β (COIN++, eq. 4) layer l computes ``h_l = sin(ω0 z_l)`` of
    ``z_l = W_l h_{l-1} + b_l + β_l``; the output is linear plus 0.5. The other parameterizations
    are ``scales``, ``z_l = γ_l ⊙ (W_l h_{l-1} + b_l)``; ``both``,
    ``z_l = γ_l ⊙ (W_l h_{l-1} + b_l) + β_l``; and ``amplitudes`` (Mehta et al. 2021),
    ``h_l = α_l ⊙ sin(ω0 (W_l h_{l-1} + b_l))``. A latent map yields β, γ − 1 and α − 1.

    Parameters
    ----------
    weights : tuple of arrays
        ``depth + 1`` matrices, shape (out, in); the last one is the linear output layer.
    biases : tuple of arrays
        ``depth + 1`` vectors.
    latent_map : LatentMap
        Latents → modulations, shape (depth * width,): those of the first layer, then of the
        second and so on. With ``both`` twice as many: all scales, then all shifts.
    omega0 : float
        Frequency of the sines.
    modulation : {"shifts", "scales", "both", "amplitudes"}
    """

    weights: tuple[Array, ...]
    biases: tuple[Array, ...]
    latent_map: LatentMap
    omega0: float
    modulation: str = "shifts"

    def __post_init__(self) -> None:
        check_parameterization(self.modulation, self.latent_map.kind)

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
        modulation: str = "shifts",
        latent_map: str = "linear",
        map_width: int = 64,
    ) -> ModulatedSiren:
        """Draw a fresh float32 network as in the SIREN paper (Sitzmann et al. 2020, §3.2).

        ``shift_scale`` bounds the uniform entries of the matrix that yields the modulations. Small
        values keep the network nearly linear in the latents at the start; large ones memorise the
        data. ``latent_map`` is the kind of a :class:`LatentMap`, ``map_width`` the width of its
        hidden layer.
        """
        check_parameterization(modulation, latent_map)
        sizes = [dim_in, *[width] * depth, dim_out]
        weights, biases = [], []
        for layer, (fan_in, fan_out) in enumerate(pairwise(sizes)):
            bound = 1 / fan_in if layer == 0 else sqrt(6 / fan_in) / omega0
            weights.append(rng.uniform(-bound, bound, (fan_out, fan_in)).astype(np.float32))
            biases.append(rng.uniform(-bound, bound, fan_out).astype(np.float32))
        mapping = LatentMap.initialise(
            latent_map, latent_dim=latent_dim, hidden=map_width,
            modulations=len(MODULATIONS[modulation]) * depth * width, depth=depth,
            omega0=float(omega0), scale=shift_scale, rng=rng,
        )  # fmt: skip
        return cls(tuple(weights), tuple(biases), mapping, float(omega0), modulation)

    @classmethod
    def of(
        cls,
        parameters: tuple[Array, ...],
        *,
        depth: int,
        omega0: float,
        modulation: str = "shifts",
        latent_map: str = "linear",
    ) -> ModulatedSiren:
        """The network with these :attr:`parameters`."""
        layers = depth + 1
        mapping = LatentMap.of(latent_map, tuple(parameters[2 * layers :]), omega0)
        weights, biases = parameters[:layers], parameters[layers : 2 * layers]
        return cls(tuple(weights), tuple(biases), mapping, omega0, modulation)

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
        return self.latent_map.latent_dim

    @property
    def parameters(self) -> tuple[Array, ...]:
        return (*self.weights, *self.biases, *self.latent_map.parameters)

    @property
    def parameter_count(self) -> int:
        return sum(int(np.prod(p.shape)) for p in self.parameters)

    def map(self, function: Callable[[Array], Array]) -> ModulatedSiren:
        """The same network with every parameter array replaced by ``function(array)``."""
        return ModulatedSiren.of(
            tuple(map(function, self.parameters)), depth=self.depth, omega0=self.omega0,
            modulation=self.modulation, latent_map=self.latent_map.kind,
        )  # fmt: skip

    @property
    def shift_map(self) -> Array:
        """The matrix latents → shifts, shape (depth * width, latent_dim).

        Raises
        ------
        ValueError
            If the network has another parameterization.
        """
        check_for_models(self.modulation, self.latent_map.kind)
        return self.latent_map.weights[0]

    def with_shift_map(self, matrix: Array) -> ModulatedSiren:
        """The network with another matrix latents → shifts."""
        return replace(self, latent_map=LatentMap("linear", (matrix,)), modulation="shifts")

    def zeros(self, batch: int) -> Array:
        """Zero latents, shape (batch, latent_dim), in the parameters' library and device."""
        return concatenate([self.latent_map.weights[0][:1] * 0] * batch, axis=0)

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
        for layer in self._layers(latents):
            hidden = layer(hidden)
        return self._output(hidden)

    def pullback(
        self, coordinates: Array, latents: Array
    ) -> tuple[Array, Callable[[Array], Array]]:
        """Evaluate the network and keep what its derivative by the modulations needs.

        Points do not see each other, so one backward pass yields the derivative of every point's
        output with respect to all modulations at once; the Jacobian of the latents is one
        :meth:`latent_cotangents` away, however many latents there are.

        Returns
        -------
        output : array, shape (batch, points, dim_out)
        modulation_cotangents : callable
            Maps cotangents of the output, shape (batch, points, dim_out), to those of the
            modulations *per point*, shape (batch, points, modulations). Differentiable in torch,
            which makes exact second-order outer gradients possible.
        """
        hidden, pullbacks = coordinates, []
        for layer in self._layers(latents):
            hidden, back = layer.pullback(hidden)
            pullbacks.append(back)

        def modulation_cotangents(cotangent: Array) -> Array:
            per_layer = []
            for back, weight in zip(reversed(pullbacks), reversed(self.weights), strict=False):
                cotangent, own = back(cotangent, weight)
                per_layer.append(own)
            kinds = MODULATIONS[self.modulation]
            return concatenate([own[kind] for kind in kinds for own in reversed(per_layer)])

        return self._output(hidden), modulation_cotangents

    def latent_cotangents(self, cotangents: Array, latents: Array) -> Array:
        """Cotangents of the modulations → those of the latents at these latents.

        Parameters
        ----------
        cotangents : array, shape (batch, modulations) or (batch, points, modulations)
            Of the points together, or per point.
        latents : array, shape (batch, latent_dim)

        Returns
        -------
        array, shape (batch, latent_dim) or (batch, points, latent_dim)
        """
        return self.latent_map.pull_back(cotangents, latents)

    def linearise(self, coordinates: Array, latents: Array) -> tuple[Array, Array]:
        """Output and its Jacobian with respect to the latents.

        Returns
        -------
        output : array, shape (batch, points, dim_out)
        jacobian : array, shape (batch, points, dim_out, latent_dim)
        """
        output, modulation_cotangents = self.pullback(coordinates, latents)
        channels = []
        for channel in range(self.dim_out):
            unit = output * 0  # same shape, dtype and device in both libraries
            unit[..., channel] = 1
            row = self.latent_cotangents(modulation_cotangents(unit), latents)
            channels.append(row[..., None, :])
        return output, channels[0] if len(channels) == 1 else concatenate(channels, axis=-2)

    def _layers(self, latents: Array) -> list[_SineLayer]:
        kinds = MODULATIONS[self.modulation]
        modulations = self.latent_map(latents)
        parts = modulations.reshape(len(latents), len(kinds), self.depth, 1, self.width)
        return [
            _SineLayer(
                self.weights[layer], self.biases[layer], self.omega0,
                {kind: parts[:, part, layer] for part, kind in enumerate(kinds)},
            )
            for layer in range(self.depth)
        ]  # fmt: skip

    def _output(self, hidden: Array) -> Array:
        # Features are normalised to [0, 1], so the network predicts around their middle.
        return hidden @ self.weights[-1].T + (self.biases[-1] + 0.5)


class _SineLayer:
    """One sine layer with the modulations of a batch, each of shape (batch, 1, width)."""

    def __init__(
        self, weight: Array, bias: Array, omega0: float, modulations: dict[str, Array]
    ) -> None:
        self.omega0, self.weight, self.bias = omega0, (omega0 * weight).T, bias
        self.shift = modulations.get("shift", 0)
        self.scale = 1 + modulations["scale"] if "scale" in modulations else None
        self.amplitude = 1 + modulations["amplitude"] if "amplitude" in modulations else None

    def __call__(self, hidden: Array) -> Array:
        hidden = sine(self._phase(hidden)[0])
        return hidden if self.amplitude is None else self.amplitude * hidden

    def pullback(
        self, hidden: Array
    ) -> tuple[Array, Callable[[Array, Array], tuple[Array, dict[str, Array]]]]:
        """Output, and (cotangents of what the next weight makes of it, that weight) → cotangents
        of W h, and of the modulations per point."""
        phase, unscaled = self._phase(hidden)
        slope = self.omega0 * cosine(phase)
        output = sine(phase)
        sines = None
        if self.amplitude is not None:  # else nothing keeps the output in memory
            output, sines = self.amplitude * output, output

        def back(cotangent: Array, weight: Array) -> tuple[Array, dict[str, Array]]:
            own = {}
            if self.amplitude is None:
                cotangent = (cotangent @ weight) * slope  # in one line numpy makes no second array
            else:
                cotangent = cotangent @ weight
                own["amplitude"] = cotangent * sines
                cotangent = cotangent * (self.amplitude * slope)
            own["shift"] = cotangent
            if self.scale is not None:
                own["scale"] = cotangent * unscaled
                cotangent = cotangent * self.scale
            return cotangent, own

        return output, back

    def _phase(self, hidden: Array) -> tuple[Array, Array]:
        """ω0 z, and what the scales multiply in z."""
        z = hidden @ self.weight
        if self.scale is not None:
            z = z + self.omega0 * self.bias
            return self.scale * z + self.omega0 * self.shift, z / self.omega0
        offset = self.omega0 * (self.bias + self.shift)
        if z.ndim == 2:  # coordinates shared by the batch
            return z + offset, None
        z += offset
        return z, None


def check_parameterization(modulation: str, latent_map: str) -> None:
    """Refuse unknown names and a modulation network for anything but amplitudes.

    Raises
    ------
    ValueError
    """
    choices = {
        "modulation": (modulation, tuple(MODULATIONS)),
        "latent_map": (latent_map, LATENT_MAPS),
    }
    for name, (chosen, known) in choices.items():
        if chosen not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {chosen!r}")
    if latent_map == "network" and modulation != "amplitudes":
        raise ValueError(f"latent_map 'network' needs modulation 'amplitudes', got {modulation!r}")


def check_for_models(modulation: str, latent_map: str) -> None:
    """Refuse networks that model files do not hold.

    Raises
    ------
    ValueError
    """
    if (modulation, latent_map) != ("shifts", "linear"):
        raise ValueError(
            "models need a network with modulation 'shifts' and latent_map 'linear', got "
            f"{modulation!r} and {latent_map!r}"
        )
