"""Errors of globes, and spectra of fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid, area_weights

# Errors are summed in slabs of about this many cells, so that float64 copies stay small.
_CELLS_PER_SLAB = 2**20

# Per-globe sums: of area weights, weighted squared and signed errors, plain squared errors; the
# largest absolute error; numbers of valid and missing cells; the original's lowest and highest
# value (∞ and −∞ without a valid cell).
GLOBE_ERRORS = np.dtype(
    [
        ("weight", "f8"),
        ("squared", "f8"),
        ("signed", "f8"),
        ("plain", "f8"),
        ("largest", "f8"),
        ("valid", "i8"),
        ("missing", "i8"),
        ("low", "f8"),
        ("high", "f8"),
    ]
)


def globe_errors(
    original: npt.NDArray[Any], reconstruction: npt.NDArray[Any], latitude: npt.ArrayLike
) -> npt.NDArray[np.void]:
    """Sums over every globe from which all errors of a report follow.

    Parameters
    ----------
    original, reconstruction : float array, shape (..., n_lat, n_lon)
        Cells where the original is NaN or infinite count as missing.
    latitude : array_like, shape (n_lat,)
        Degrees north; a cell weighs as cos(latitude).

    Returns
    -------
    structured array of dtype GLOBE_ERRORS, shape (...)
        In the unit of the data.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if original.shape != reconstruction.shape:
        raise ValueError(
            f"original and reconstruction differ in shape: {original.shape}, {reconstruction.shape}"
        )
    batch, (n_lat, n_lon) = original.shape[:-2], original.shape[-2:]
    weights = area_weights(latitude, n_lon)[:, 0]
    globes = original.reshape(-1, n_lat, n_lon)
    decoded = reconstruction.reshape(-1, n_lat, n_lon)
    sums = np.zeros(len(globes), GLOBE_ERRORS)
    per_slab = max(1, _CELLS_PER_SLAB // (n_lat * n_lon))
    for start in range(0, len(globes), per_slab):
        slab = slice(start, start + per_slab)
        valid = np.isfinite(globes[slab])
        known: dict[str, Any] = {} if valid.all() else {"where": valid}
        error = np.zeros(valid.shape)
        # Half precision is converted first: its differences would overflow at 65,504.
        np.subtract(decoded[slab], globes[slab], out=error, dtype=np.float64, **known)
        # Weights are those of rows, and numbers of valid cells are exact.
        squared, count = np.einsum("gij,gij->gi", error, error), valid.sum(axis=2)
        row = sums[slab]
        row["weight"], row["squared"] = count @ weights, squared @ weights
        row["signed"], row["plain"] = error.sum(axis=2) @ weights, squared.sum(axis=1)
        row["largest"] = np.maximum(error.max((1, 2)), -error.min((1, 2)))
        row["valid"] = count.sum(axis=1)
        row["missing"] = n_lat * n_lon - row["valid"]
        row["low"] = np.min(globes[slab], (1, 2), initial=np.inf, **known)
        row["high"] = np.max(globes[slab], (1, 2), initial=-np.inf, **known)
    return sums.reshape(batch)


def chunk_rmse(errors: npt.NDArray[np.void]) -> float:
    """Area-weighted RMSE over the valid cells of some globes; 0 if there are none."""
    weight = float(errors["weight"].sum())
    return float(np.sqrt(errors["squared"].sum() / weight)) if weight else 0.0


def zonal_spectrum(
    fields: npt.NDArray[Any], grid: SphereGrid
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Power by zonal wavenumber, averaged over globes and, by area, over latitudes.

    Summed over all wavenumbers it is the area-weighted mean square of the fields.

    Parameters
    ----------
    fields : float array, shape (globes, n_lat, n_lon)
        Circles of latitude with missing cells are left out.
    grid : SphereGrid

    Returns
    -------
    wavenumbers, power : float64 array
        Waves around the globe, from 0; the square of the fields' unit. None where a Fourier
        transform along longitude means nothing: in a region, on uneven longitudes, without a
        complete circle.
    """
    longitude = grid.longitude
    steps = np.abs(np.diff(longitude))
    if not grid.goes_around or steps.max() - steps.min() > 1e-2 * steps.max():
        return None
    # A meridian that is stored twice counts once.
    count = len(longitude) - int(np.ptp(longitude) > 360 - steps.max() / 2)
    circles = np.asarray(fields[..., :count], np.float64)
    complete = np.asarray(np.isfinite(circles).all(axis=-1))
    if not complete.any():
        return None
    waves = np.abs(np.fft.rfft(np.where(complete[..., None], circles, 0), axis=-1) / count) ** 2
    # All but the mean and the shortest wave stand for two complex ones.
    waves[..., 1 : (count + 1) // 2] *= 2
    weights = area_weights(grid.latitude, 1)[:, 0] * complete
    power = np.einsum("gl,glm->m", weights, waves) / weights.sum()
    return np.arange(len(power), dtype=np.float64), power
