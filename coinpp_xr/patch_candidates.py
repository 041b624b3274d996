"""Networks for patches: a SIREN's first latents, and principal components of what they miss.

As for globes (:mod:`coinpp_xr.candidates`), held-out patches decide how many latents the SIREN has.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coinpp_xr import cosines
from coinpp_xr.candidates import SIREN_LATENTS, Candidate
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.devices import fit, predict
from coinpp_xr.eofs import PLAIN, leading_modes
from coinpp_xr.network import BaseNetwork, LinearTail
from coinpp_xr.siren import ModulatedSiren

if TYPE_CHECKING:
    from coinpp_xr.training import TrainingData

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# Components are made of the cosines that vary most: the rest is noise, and takes bytes.
_MOST_FUNCTIONS = 1024
_TRACE = 1e-9
_JUDGED_ITEMS = 1024
_CURVATURE_ITEMS = 512


def choose_patch_network(
    siren: ModulatedSiren, data: TrainingData, latent_dim: int, box: BoxGrid
) -> tuple[Candidate, list[Candidate]]:
    """The best base network of ``latent_dim`` latents that can be made from a trained SIREN.

    Parameters
    ----------
    siren : ModulatedSiren
        In standard form: see :func:`coinpp_xr.building.standard_form`.
    data : TrainingData
        Patches on the box's points.
    latent_dim : int
        Of SIREN and tail together.
    box : BoxGrid

    Returns
    -------
    Candidate, list of Candidate
        The one with the smallest error on held-out patches, and all.

    Raises
    ------
    ValueError
        If there are more latents than components.
    """
    check_latent_dim(latent_dim, data)
    maker = _Maker(siren, data, box)
    most = min(siren.latent_dim, latent_dim)
    counts = [0, *(n for n in SIREN_LATENTS if n < most), most]
    candidates = [maker.candidate(count, latent_dim) for count in counts]
    return min(candidates, key=lambda candidate: candidate.rmse), candidates


def check_latent_dim(latent_dim: int, data: TrainingData) -> None:
    """Whether there can be so many components.

    Raises
    ------
    ValueError
    """
    values = prod(data.train.shape[1:])
    if latent_dim > min(values, _MOST_FUNCTIONS):
        most = f"the {values:,} values of a patch"
        if values > _MOST_FUNCTIONS:
            most = f"the {_MOST_FUNCTIONS:,} cosines that components are made of"
        raise ValueError(f"{latent_dim:,} latents are more than {most}; ask for fewer")


@dataclass(frozen=True, eq=False)
class _Maker:
    """What all candidates share."""

    siren: ModulatedSiren
    data: TrainingData
    box: BoxGrid

    def candidate(self, siren_latents: int, latent_dim: int) -> Candidate:
        """The SIREN's first latents, and principal components for the others."""
        siren = BaseNetwork(self.siren).truncated(siren_latents).siren
        points, mean = self.data.points, self.data.train.mean(0, dtype=np.float64)
        field, jacobian = siren.linearise(points, siren.zeros(1))
        missed, fixed = mean - field[0], np.zeros((len(self._kept), 0))
        if siren_latents:
            few = self.data.train[:: -(-len(self.data.train) // _CURVATURE_ITEMS)]
            latents = fit(siren, points, few, self.data.weights)
            # Curved as it is, a SIREN has another mean than at zero latents.
            missed = mean - predict(siren, points, latents).mean(0, dtype=np.float64)
            tangent = self._analyse(np.moveaxis(jacobian[0], -1, 0))
            fixed = tangent[:, self._kept].T.astype(np.float64)
        count = latent_dim - siren_latents
        found = leading_modes(self._covariance, fixed, count)
        modes = np.zeros((found.shape[1], self._mean.size), np.float32)
        modes[:, self._kept] = found.T
        tail = LinearTail(self._analyse(missed[None])[0], modes, self.box)
        network = BaseNetwork(siren, tail)
        return Candidate(network, PLAIN if count else None, self._rmse(network))

    def _analyse(self, patches: npt.NDArray[np.floating]) -> Float32:
        """Cosines of patches (items, points, channels): (items, channels · cells)."""
        by_channel = np.moveaxis(np.asarray(patches, np.float32), -1, 1)
        coefficients = cosines.analyse(by_channel.reshape(-1, by_channel.shape[-1]), self.box)
        return coefficients.reshape(len(patches), -1)

    @cached_property
    def _coefficients(self) -> Float32:
        return self._analyse(self.data.train)

    @cached_property
    def _mean(self) -> Float64:
        return np.asarray(self._coefficients.mean(0, dtype=np.float64))

    @cached_property
    def _kept(self) -> npt.NDArray[np.int64]:
        variance = self._coefficients.var(0, dtype=np.float64)
        return np.sort(np.argsort(-variance, kind="stable")[:_MOST_FUNCTIONS])

    @cached_property
    def _covariance(self) -> Float64:
        mean = self._mean.astype(np.float32)[self._kept]
        deviations = self._coefficients[:, self._kept] - mean
        covariance = (deviations.T @ deviations).astype(np.float64) / len(deviations)
        # Few or flat patches vary in few directions. Of the others all are as good, but for those
        # that the SIREN's latents describe already: a trace of variance tells them apart.
        trace = np.trace(covariance) / len(covariance)
        return np.asarray(covariance + (_TRACE * trace + 1e-30) * np.eye(len(covariance)))

    def _rmse(self, network: BaseNetwork) -> float:
        validation = self.data.validation
        chosen = np.linspace(0, len(validation) - 1, min(_JUDGED_ITEMS, len(validation)))
        judged = validation[np.unique(chosen.round().astype(int))]
        latents = fit(network, self.data.points, judged, self.data.weights)
        error = predict(network, self.data.points, latents) - judged
        return float(np.sqrt(((error**2).mean(2) @ self.data.weights).mean()))
