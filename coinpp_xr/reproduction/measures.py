"""Latents of test items, their bits as the paper counts them, and the PSNR that comes back.

The paper's quantizer has one mean and one standard deviation for all latents, and its entropy coder
one table; both are those of the training items' latents. The bits are those of a real range coder,
all test items in one stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coinpp_xr import entropy
from coinpp_xr.fitting import gauss_newton
from coinpp_xr.quantization import UniformQuantizer
from coinpp_xr.reproduction.datasets import Material
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training import TrainingConfig, inner_loop

Float32 = npt.NDArray[np.float32]
Latents = list[npt.NDArray[np.float32]]

# Patches that are fitted together.
_TOGETHER = 32
# Training patches whose latents make the quantizer and the table.
_LEARNED_FROM = 128

Fit = Callable[[ModulatedSiren, torch.Tensor, torch.Tensor], torch.Tensor]


def gradient_steps(config: TrainingConfig, steps: int) -> Fit:
    """The paper's inner loop with so many steps of plain gradient descent."""

    def fit(siren: ModulatedSiren, points: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weights = torch.full((1, len(points)), 1 / len(points), device=points.device)
        return inner_loop(
            siren, points, targets, weights=weights, steps=steps, learning_rate=config.inner_lr
        )

    return fit


def matrix_steps(chord_steps: int, own_steps: int = 0) -> Fit:
    """Gauss-Newton steps in place of gradient steps; the first is one matrix product."""

    def fit(siren: ModulatedSiren, points: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        weights = torch.full((1, len(points)), 1 / len(points), device=points.device)
        return gauss_newton(
            siren, points, targets, weights=weights, chord_steps=chord_steps, own_steps=own_steps
        )

    return fit


@dataclass(frozen=True, eq=False)
class Coder:
    """A trained network that codes the items of a material.

    Parameters
    ----------
    siren : ModulatedSiren
        With numpy parameters.
    material : Material
    fit : callable
        (network, points, patches) → latents.
    device : str
        A torch device.
    """

    siren: ModulatedSiren
    material: Material
    fit: Fit
    device: str = "cpu"

    @cached_property
    def _network(self) -> ModulatedSiren:
        return self.siren.map(self._tensor)

    @cached_property
    def _points(self) -> torch.Tensor:
        return self._tensor(self.material.points)

    def _tensor(self, array: Float32) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def latents_of(self, patches: Float32) -> Float32:
        """Shape (patches, latent_dim)."""
        parts = self._tensor(patches).split(_TOGETHER)
        with torch.no_grad():
            found = [self.fit(self._network, self._points, part) for part in parts]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)

    def values_of(self, latents: Float32) -> Float32:
        """Shape (patches, points, channels)."""
        parts = self._tensor(latents).split(_TOGETHER)
        with torch.no_grad():
            found = [self._network(self._points, part) for part in parts]
        return np.asarray(torch.cat(found).cpu().numpy(), np.float32)

    @cached_property
    def latents(self) -> Latents:
        """Of every test item."""
        patches = self.material.patches()
        found = self.latents_of(np.concatenate(patches))
        return np.split(found, np.cumsum([len(p) for p in patches])[:-1])

    @cached_property
    def statistics(self) -> tuple[float, float, Float32]:
        """Mean and standard deviation over all latents of training patches, and these latents."""
        train = self.material.training.train
        chosen = np.linspace(0, len(train) - 1, min(_LEARNED_FROM, len(train))).round().astype(int)
        learned = self.latents_of(np.ascontiguousarray(train[chosen]))
        return float(learned.mean()), float(learned.std()), learned

    def psnr(self, latents: Latents | None = None) -> float:
        """Mean over the test items, dB."""
        scores = []
        for patches, z in zip(self.material.patches(), latents or self.latents, strict=True):
            scores.append(decibels(self.values_of(z), patches))
        return float(np.mean(scores))

    def quantized(self, bits: int) -> tuple[Latents, float]:
        """Latents at ``bits`` bits each, and the bits of all items after entropy coding."""
        mean, std, learned = self.statistics
        quantizer = UniformQuantizer(np.array([mean]), np.array([std]), bits)
        symbols = [quantizer.quantize(z.reshape(-1, 1), clip=True) for z in self.latents]
        histogram = entropy.fit_histogram(learned.reshape(-1, 1), quantizer.mean, quantizer.std)
        stream = entropy.encode(np.concatenate(symbols), histogram, bits)
        decoded = [
            quantizer.dequantize(s).reshape(z.shape)
            for s, z in zip(symbols, self.latents, strict=True)
        ]
        return decoded, 8.0 * len(stream)

    def rate_distortion(self, bits: int) -> dict[str, float]:
        """Rates without and with entropy coding, and the PSNR, at ``bits`` bits a latent."""
        decoded, coded = self.quantized(bits)
        plain = bits * sum(z.size for z in self.latents)
        return {
            "bits": bits,
            "quantized_rate": self.material.rate(plain),
            "coded_rate": self.material.rate(coded),
            "psnr": self.psnr(decoded),
        }

    @property
    def unquantized_rate(self) -> float:
        """With 32-bit floats for latents."""
        return self.material.rate(32 * sum(z.size for z in self.latents))


def decibels(decoded: npt.NDArray[Any], original: npt.NDArray[Any]) -> float:
    """PSNR of values in [0, 1]; what ran away counts as −99 dB."""
    error = np.square(decoded.astype(np.float64) - original).mean()
    return float(np.clip(-10 * np.log10(max(error, 1e-30)), -99, None)) if error < np.inf else -99.0
