"""What a base network learns from: normalised fields or patches on one grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class TrainingData:
    """Normalised fields on one grid.

    Parameters
    ----------
    points : float32 array, shape (points, dim_in)
    weights : array, shape (points,)
        Error weights that sum to one.
    train, validation : float32 array, shape (items, points, channels)
        Features in [0, 1].
    scale : float
        One unit of a feature in the unit of the data, for reports.
    random_patches : callable, optional
        For domains that train on random patches of larger items: (rng, batch size) → features,
        shape (batch, points, channels). The ``paper`` objective then draws its batches from it;
        everything else (validation, tables) uses the fixed patches above.
    """

    points: npt.NDArray[np.float32]
    weights: npt.NDArray[np.float64]
    train: npt.NDArray[np.float32]
    validation: npt.NDArray[np.float32]
    scale: float = 1.0
    random_patches: Callable[[np.random.Generator, int], npt.NDArray[np.float32]] | None = None

    def __post_init__(self) -> None:
        for name in ("train", "validation"):
            fields = getattr(self, name)
            if fields.ndim != 3 or fields.shape[1] != len(self.points) or len(fields) == 0:
                raise ValueError(
                    f"{name} must have shape (items, {len(self.points)}, channels) and hold at "
                    f"least one item, got {fields.shape}"
                )
            if not np.isfinite(fields).all():
                raise ValueError(f"{name} holds NaN or Inf; fill or drop them before training")

    def save(self, path: str | Path) -> None:
        """Write one ``.npz`` that a machine without xarray can train from."""
        np.savez_compressed(
            path, points=self.points, weights=self.weights, train=self.train,
            validation=self.validation, scale=self.scale,
        )  # fmt: skip

    @classmethod
    def load(cls, path: str | Path) -> TrainingData:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{**arrays, "scale": float(arrays["scale"])})
