"""Errors of globes, and spectra of fields."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.coordinates import SphereGrid, area_weights

# Errors are summed in slabs of about this many cells, so that float64 copies stay small.
_CELLS_PER_SLAB = 2**20

# Per-globe sums: of area weights, weighted squared and signed errors, plain squared errors; the
# largest absolute error; numbers of valid and missing cells; the original's lowest and highest
# value (∞ and −∞ without a valid cell), its weighted mean, and the weighted sum of its squared
# differences from that mean.
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
        ("mean", "f8"),
        ("scatter", "f8"),
    ]
)


def field_errors(
    original: npt.NDArray[Any], reconstruction: npt.NDArray[Any], areas: CellWeights
) -> npt.NDArray[np.void]:
    """Sums over every field from which all errors of a report follow.

    Parameters
    ----------
    original, reconstruction : float array, shape (..., cells in one axis or two)
        Cells where the original is NaN or infinite count as missing.
    areas : CellWeights
        Of the cells of a field.

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
    batch, weights = original.shape[: original.ndim - areas.axes], areas.of_rows
    globes, decoded = areas.in_rows(original), areas.in_rows(reconstruction)
    cells = globes.shape[1] * globes.shape[2]
    sums = np.zeros(len(globes), GLOBE_ERRORS)
    per_slab = max(1, _CELLS_PER_SLAB // max(cells, 1))
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
        row["missing"] = cells - row["valid"]
        values = globes[slab]
        if values.dtype.kind != "f":
            values = values.astype(np.float64)  # integers have no infinity
        row["low"] = np.min(values, (1, 2), initial=np.inf, **known)
        row["high"] = np.max(values, (1, 2), initial=-np.inf, **known)
        row["mean"], row["scatter"] = _mean_and_scatter(globes[slab], valid, count, weights)
    return sums.reshape(batch)


def _mean_and_scatter(
    globes: npt.NDArray[Any],
    valid: npt.NDArray[np.bool_],
    count: npt.NDArray[np.int_],
    weights: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Weighted mean of every globe and squares around it, of ``count`` valid cells per row."""
    weight = count @ weights
    values = globes.astype(np.float64)
    if not valid.all():
        values[~valid] = 0
    # Squares of what is left of the mean: those of the values would lose all digits at 100,000 Pa.
    with np.errstate(over="ignore", invalid="ignore"):
        mean = values.sum(axis=2) @ weights
        np.divide(mean, weight, out=mean, where=weight > 0)
        values -= mean[:, None, None]
        if not valid.all():
            values[~valid] = 0
        return mean, np.einsum("gij,gij->gi", values, values) @ weights


def pooled(errors: npt.NDArray[np.void], axis: int | None = None) -> npt.NDArray[np.void]:
    """Globes taken together: weight, mean and scatter, as fields of a structured array.

    Parameters
    ----------
    errors : structured array with the fields weight, mean and scatter of GLOBE_ERRORS
    axis : int, optional
        Along which globes are taken together; default: all.
    """
    weight, mean = errors["weight"], errors["mean"]
    total = np.asarray(weight.sum(axis))
    together = np.zeros(total.shape, [(name, "f8") for name in ("weight", "mean", "scatter")])
    with np.errstate(over="ignore", invalid="ignore"):
        middle = np.asarray((weight * mean).sum(axis))
        np.divide(middle, total, out=middle, where=total > 0)
        apart = mean - (middle if axis is None else np.expand_dims(middle, axis))
        together["weight"], together["mean"] = total, middle
        together["scatter"] = (errors["scatter"] + weight * apart**2).sum(axis)
    return together


def spread(errors: npt.NDArray[np.void], time_axis: int | None = None) -> float | None:
    """Area-weighted standard deviation of the original's valid cells.

    Parameters
    ----------
    errors : structured array with the fields weight, mean and scatter of GLOBE_ERRORS
    time_axis : int, optional
        Of the errors: each index along the other axes is looked at by itself, and the smallest
        deviation that is not zero is returned. Default: all cells together.

    Returns
    -------
    float or None
        None without a cell that differs from the others.
    """
    together = pooled(errors, time_axis if errors.ndim else None)
    weight = together["weight"]
    variance = np.zeros(weight.shape)
    np.divide(together["scatter"], weight, out=variance, where=weight > 0)
    deviation = np.sqrt(variance)
    # A constant has what rounding leaves of it.
    known = np.isfinite(deviation) & (deviation > 1e-12 * np.abs(together["mean"]))
    return float(deviation[known].min()) if known.any() else None


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
