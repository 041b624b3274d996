"""Which part of the latents should be a SIREN's: decided on held-out fields.

The candidates are made from one trained SIREN: its first few latents, in order of the variance
they explain, or none of them, each with localised EOFs of the rest as a linear tail. Only what
holds unseen fields best is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coinpp_xr.devices import fit, predict
from coinpp_xr.eofs import (
    PLAIN,
    HarmonicBasis,
    Localisation,
    LocalisedEofs,
    choose_localisation,
)
from coinpp_xr.network import BaseNetwork, LinearTail
from coinpp_xr.siren import ModulatedSiren

if TYPE_CHECKING:
    from coinpp_xr.training import TrainingData

Float64 = npt.NDArray[np.float64]

# How many of the SIREN's latents are tried, besides none and all.
SIREN_LATENTS = (4, 8)
# Neighbouring fields are alike: a spread of them judges as well as all.
_JUDGED_ITEMS = 240
# Of the time for all candidates, for the settings of the tail.
_SEARCH_TIME = 0.75
# What the shortest search and another candidate take, in times of what all of them share.
_SEARCH_UNITS, _SIREN_UNITS = 30, 6
_CURVATURE_ITEMS = 128


@dataclass(frozen=True, eq=False)
class Candidate:
    """One base network and how it did.

    Parameters
    ----------
    network : BaseNetwork
    localisation : Localisation or None
        Of the tail's covariance; None where all latents are the SIREN's.
    rmse : float
        Area-weighted, on held-out fields, in the unit of the features.
    """

    network: BaseNetwork
    localisation: Localisation | None
    rmse: float

    @property
    def label(self) -> str:
        """What it consists of, for people."""
        own, local = self.network.siren.latent_dim, self.localisation
        parts = [f"{own} latents of the SIREN"] if own else []
        if local is not None:
            count = self.network.latent_dim - own
            if local == PLAIN:
                parts.append(f"{count} EOFs")
            else:
                parts.append(
                    f"{count} EOFs localised at {local.half_width:g} rad "
                    f"(all but {local.global_modes}, {local.share:.0%})"
                )
        return " + ".join(parts)


def tail_basis(data: TrainingData, latent_dim: int) -> HarmonicBasis | None:
    """The spherical harmonics for a linear tail.

    None where the data is not one feature on a grid of the whole sphere.

    Raises
    ------
    ValueError
        If the grid does not resolve that many latents.
    """
    if data.train.shape[2] != 1:
        return None
    basis = HarmonicBasis.of(data.points, data.weights)
    if basis is not None and latent_dim > basis.size:
        raise ValueError(
            f"{latent_dim} latents are more than the {basis.size} spherical harmonics that a grid "
            f"of {len(data.points)} points resolves; ask for fewer, or train without a linear tail"
        )
    return basis


def choose_network(
    siren: ModulatedSiren,
    data: TrainingData,
    latent_dim: int,
    seconds: float = inf,
    basis: HarmonicBasis | None = None,
) -> tuple[Candidate, list[Candidate]]:
    """The best base network of ``latent_dim`` latents that can be made from a trained SIREN.

    Parameters
    ----------
    siren : ModulatedSiren
        In standard form: see :func:`coinpp_xr.building.standard_form`.
    data : TrainingData
    latent_dim : int
        Of SIREN and tail together.
    seconds : float
        Time for all. Where it is short, first the search of the tail's settings is left out, then
        SIRENs of fewer latents, and in the end all but the tail alone.
    basis : HarmonicBasis, optional
        From :func:`tail_basis`.

    Returns
    -------
    Candidate, list of Candidate
        The one with the smallest error on held-out fields, and all.

    Raises
    ------
    ValueError
        If the data is not one feature on a grid of the whole sphere that resolves that many
        latents.
    """
    started = time.perf_counter()
    basis = basis or tail_basis(data, latent_dim)
    if basis is None:
        raise ValueError("a linear tail needs fields of one feature on a grid of the whole sphere")
    before = time.perf_counter()
    maker = _Maker(siren, data, basis)
    # All that follows works on the same fields and takes some times as long.
    unit = time.perf_counter() - before

    def in_time(units: float) -> bool:
        return time.perf_counter() - started + units * unit <= seconds

    linear = maker.linear(latent_dim, _SEARCH_TIME * seconds if in_time(_SEARCH_UNITS) else 0)
    most = min(siren.latent_dim, latent_dim)
    counts = [*(n for n in SIREN_LATENTS if n < most), most]
    taper = linear.localisation or PLAIN
    candidates = [linear]
    for count in reversed(counts):
        if in_time(_SIREN_UNITS):
            candidates.append(maker.with_siren(count, latent_dim, taper))
    return min(candidates, key=lambda candidate: candidate.rmse), candidates


class _Maker:
    """What all candidates share."""

    def __init__(self, siren: ModulatedSiren, data: TrainingData, basis: HarmonicBasis) -> None:
        self.siren, self.basis, self.data = siren, basis, data
        self.weights = basis.weights
        chosen = np.linspace(0, len(data.validation) - 1, min(_JUDGED_ITEMS, len(data.validation)))
        self.judged = data.validation[np.unique(chosen.round().astype(int))]
        self.mean = data.train[..., 0].mean(0, dtype=np.float64)
        mean = self.mean.astype(np.float32)
        self.train = basis.analyse(data.train[..., 0] - mean)

    def linear(self, latent_dim: int, seconds: float) -> Candidate:
        """All latents the tail's; its settings searched for."""
        siren = self._as_mean_field(BaseNetwork(self.siren).truncated(0).siren)
        field = siren(self.data.points, siren.zeros(1))[0, :, 0]
        localisation, _ = choose_localisation(self.basis, self.train, latent_dim, seconds)
        modes = LocalisedEofs(self.basis, self.train).modes(localisation, latent_dim)
        return self._candidate(siren, self.mean - field, localisation, modes)

    def with_siren(
        self, siren_latents: int, latent_dim: int, localisation: Localisation
    ) -> Candidate:
        """The SIREN's first latents, and EOFs for the others, tapered as is best without it."""
        siren = BaseNetwork(self.siren).truncated(siren_latents).siren
        tangent, missed = self._tangent_and_mean(siren)
        count = latent_dim - siren_latents
        if count == 0:
            return self._candidate(siren, missed, None, np.zeros((self.basis.size, 0)))
        # What the SIREN describes are the leading, global modes.
        kept = max(localisation.global_modes - siren_latents, 0)
        localisation = replace(localisation, global_modes=kept)
        modes = LocalisedEofs(self.basis, self.train, tangent).modes(localisation, count)
        return self._candidate(siren, missed, localisation, modes)

    def _candidate(
        self,
        siren: ModulatedSiren,
        missed: Float64,
        localisation: Localisation | None,
        modes: Float64,
    ) -> Candidate:
        """With a tail that adds what the SIREN misses of the mean field, and these modes."""
        mean = self.basis.analyse(missed[None].astype(np.float32))
        tail = LinearTail(self.basis.to_harmonics(mean)[0], self.basis.to_harmonics(modes.T))
        network = BaseNetwork(siren, tail)
        return Candidate(network, localisation, self._rmse(network))

    def _as_mean_field(self, siren: ModulatedSiren) -> ModulatedSiren:
        """A SIREN without latents with its output layer changed so that, together with the
        harmonics, it comes closest to the mean field.

        A network that still has much to learn has fine structure of its own, which no harmonics
        of the tail could take away.
        """
        identity = np.eye(siren.width, dtype=np.float32)
        hidden = replace(
            siren,
            weights=(*siren.weights[:-1], identity),
            biases=(*siren.biases[:-1], np.full(siren.width, -0.5, np.float32)),
        )
        points = self.data.points
        features = hidden(points, siren.zeros(1))[0]
        missed = self.mean - siren(points, siren.zeros(1))[0, :, 0]
        both = np.concatenate([features, missed[:, None]], axis=1).T.astype(np.float32)
        # What the harmonics cannot hold of either, in the area metric.
        rest = both - self.basis.synthesise(self.basis.analyse(both))
        rest = (rest * np.sqrt(self.weights)).astype(np.float64)
        normal = rest[:-1] @ rest[:-1].T
        damping = 1e-3 * np.trace(normal) / siren.width * np.eye(siren.width)
        change = np.linalg.solve(normal + damping, rest[:-1] @ rest[-1])
        output = siren.weights[-1] + change[None].astype(np.float32)
        return replace(siren, weights=(*siren.weights[:-1], output))

    def _tangent_and_mean(self, siren: ModulatedSiren) -> tuple[Float64, Float64]:
        """Directions that the SIREN's latents describe, and what it misses of the mean field.

        Curved as it is, a SIREN with latents of zero mean has another mean than at zero latents.
        """
        points = self.data.points
        field, jacobian = siren.linearise(points, siren.zeros(1))
        tangent = self.basis.analyse(jacobian[0, :, 0].T).T
        few = self.data.train[:: -(-len(self.data.train) // _CURVATURE_ITEMS)]
        latents = fit(siren, points, few, self.weights)
        linear = field[..., 0] + latents @ jacobian[0, :, 0].T
        curved = (predict(siren, points, latents)[..., 0] - linear).mean(0)
        return tangent, self.mean - field[0, :, 0] - curved

    def _rmse(self, network: BaseNetwork) -> float:
        latents = fit(network, self.data.points, self.judged, self.weights)
        error = predict(network, self.data.points, latents) - self.judged
        return float(np.sqrt(((error[..., 0] ** 2) @ self.weights).mean()))
