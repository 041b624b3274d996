"""What becomes of means, extremes, gradients, trends and spectra, at every rate control.

The simulated half year after the training data in chunks of 240 globes, and real ERA5 snapshots at
1 degree. SZ3 at the same bounds stands beside, for what another codec does to the same numbers.
The rows at ±90 degrees are left out of all but one number: they have no area, all their columns are
one point, and the simulation's differ by several K.

    COINPP_DATA=... python benchmarks/science.py            # a few minutes on one core
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import RESULTS, climate, open_variable, write_result

from coinpp_xr import COINppCodec
from coinpp_xr.coordinates import SphereGrid, area_weights
from coinpp_xr.metrics import zonal_spectrum
from coinpp_xr.peers import Chunk, Goal, smallest

Values = npt.NDArray[np.float64]
# Bytes, and the values that come back.
Coded = tuple[int, Values]

GLOBES = 240
CONTROLS: dict[str, dict[str, float]] = {
    "max_error=0.1": {"max_error": 0.1},
    "max_error=0.5": {"max_error": 0.5},
    "max_error=1": {"max_error": 1.0},
    "target_rmse=0.25": {"target_rmse": 0.25},
    "target_rmse=0.5": {"target_rmse": 0.5},
    "target_rmse=1": {"target_rmse": 1.0},
    "bits=8": {"bits": 8},
}
BESIDE = {"SZ3, bound 0.1": 0.1, "SZ3, bound 0.5": 0.5, "SZ3, bound 1": 1.0}
EARTH_RADIUS = 6371.0  # km
FREEZING = 273.15  # K
# Extremes are values above this percentile of their own cell.
HOT = 99
# A wave is kept where the error has less than this share of its power.
KEPT = 0.1
IMAGES = RESULTS.parent.parent / "docs" / "images"


def ours(control: dict[str, float], array: xr.DataArray) -> Coded:
    """This package's codec."""
    latitude, longitude = array[array.dims[1]].values, array[array.dims[2]].values
    codec = COINppCodec("t2m-46x90", latitude=latitude, longitude=longitude, **control)

    def code(chunk: Values) -> Coded:
        payload = codec.encode(chunk)
        return len(payload), codec.decode(payload)

    return in_chunks(array, code)


def sz3(bound: float, array: xr.DataArray) -> Coded:
    """SZ3 at its best layout for a bound."""
    latitude = array[array.dims[1]].values

    def code(chunk: Values) -> Coded:
        found = smallest("SZ3", Chunk.of(chunk, latitude), Goal(max_error=bound))
        if found is None:
            raise RuntimeError(f"SZ3 does not keep a bound of {bound}")
        return found[0].nbytes, found[1]

    return in_chunks(array, code)


def in_chunks(array: xr.DataArray, code: Callable[[Values], Coded]) -> Coded:
    """As a store holds them."""
    starts = range(0, len(array), GLOBES)
    sizes, decoded = zip(*(code(array.values[n : n + GLOBES]) for n in starts), strict=True)
    return sum(sizes), np.concatenate(decoded).astype(np.float64)


# ---- what is looked at ---------------------------------------------------------------------------


def errors(original: Values, decoded: Values, grid: SphereGrid) -> dict[str, float]:
    """Sizes, means, and what the errors have to do with each other and with the fields."""
    error = decoded - original
    weights = area_weights(grid.latitude, original.shape[2])
    of_globes = (error * weights).sum((1, 2))
    return {
        "rmse": rms(error, weights),
        "max_error": float(np.abs(error).max()),
        "bias": float(of_globes.mean()),
        "largest_bias_of_a_globe": float(np.abs(of_globes).max()),
        "correlation_with_values": correlation(error, original - original.mean(0)),
        "correlation_with_eastern_neighbour": correlation(error, np.roll(error, -1, 2)),
        "correlation_with_next_time": correlation(error[:-1], error[1:]),
    }


def climate_of(original: Values, decoded: Values, grid: SphereGrid) -> dict[str, float]:
    """Means, variability, extremes, thresholds and trends of a series."""
    weights = area_weights(grid.latitude, original.shape[2])
    mean = decoded.mean(0) - original.mean(0)
    spread = decoded.std(0) / original.std(0)
    before, after = trend(original), trend(decoded)
    threshold = np.percentile(original, HOT, 0)
    hot, still_hot = original > threshold, decoded > threshold
    frost, still_frost = original < FREEZING, decoded < FREEZING
    return {
        "rms_error_of_time_mean": rms(mean, weights),
        "largest_error_of_time_mean": float(np.abs(mean).max()),
        "spread_ratio_median": float(np.median(spread)),
        "spread_ratio_least": float(spread.min()),
        "spread_ratio_most": float(spread.max()),
        "rms_error_of_maximum": rms(decoded.max(0) - original.max(0), weights),
        "largest_error_of_maximum": float(np.abs(decoded.max(0) - original.max(0)).max()),
        "mean_error_of_maximum": float(((decoded.max(0) - original.max(0)) * weights).sum()),
        "hot_values_after": float(still_hot.sum() / hot.sum()),
        "hot_values_kept": float((hot & still_hot).sum() / hot.sum()),
        "share_across_freezing": float(((frost != still_frost) * weights).sum((1, 2)).mean()),
        "rms_trend": rms(before, weights),
        "rms_error_of_trend": rms(after - before, weights),
        "error_of_mean_trend": float(((after - before) * weights).sum()),
    }


def shapes(original: Values, decoded: Values, grid: SphereGrid) -> dict[str, Any]:
    """Gradients, and power by zonal wavenumber."""
    weights = area_weights(grid.latitude, original.shape[2])
    before, after = gradients(original, grid), gradients(decoded, grid)
    found = {
        "rms_gradient": rms(before, weights),
        "rms_error_of_gradient": rms(after - before, weights),
        "largest_gradient": float(np.abs(before).max()),
        "largest_gradient_after": float(np.abs(after).max()),
    }
    powers = []
    for fields in (original, decoded, decoded - original):
        spectrum = zonal_spectrum(fields, grid)
        assert spectrum is not None
        powers.append(spectrum[1])
    blurred = np.flatnonzero(powers[2] > KEPT * powers[0])
    last = int(blurred[0]) - 1 if len(blurred) else len(powers[0]) - 1
    return found | {
        "waves": len(powers[0]) - 1,
        "last_wave_kept": last,
        "power": {
            name: [float(f"{p:.4g}") for p in power]
            for name, power in zip(("original", "decoded", "error"), powers, strict=True)
        },
    }


def correlation(a: Values, b: Values) -> float:
    if not (a.std() and b.std()):
        return 0.0
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def rms(values: Values, weights: Values) -> float:
    return float(np.sqrt((values**2 * weights).sum((-2, -1)).mean()))


def trend(values: Values) -> Values:
    """Least-squares slope at every cell, times the length of the series."""
    time = np.linspace(-0.5, 0.5, len(values))
    return np.tensordot(time, values, 1) / (time**2).sum()


def gradients(values: Values, grid: SphereGrid) -> Values:
    """Eastward and northward, K per 100 km, stacked as more globes; none beyond 80 degrees."""
    latitude = np.radians(grid.latitude)
    step = np.radians(360 / values.shape[2])
    inside = np.abs(grid.latitude) <= 80
    parallel = np.where(inside, np.cos(latitude), 1)[:, None]
    east = (np.roll(values, -1, 2) - np.roll(values, 1, 2)) / (2 * step * EARTH_RADIUS * parallel)
    north = np.gradient(values, latitude * EARTH_RADIUS, axis=1)
    return 100 * np.concatenate([east, north]) * inside[:, None]


# ---- the runs ------------------------------------------------------------------------------------


def measured(array: xr.DataArray, ways: dict[str, Callable[[], Coded]]) -> dict[str, Any]:
    latitude, longitude = (array[name].values for name in array.dims[1:])
    inside = np.abs(latitude) < 90
    whole = array.values.astype(np.float64)
    original, grid = whole[:, inside], SphereGrid(latitude[inside], longitude)
    rows = {}
    for label, way in ways.items():
        nbytes, decoded = way()
        row: dict[str, Any] = {"ratio": 4 * whole.size / nbytes}
        row["max_error_at_poles"] = float(np.abs(decoded - whole)[:, ~inside].max())
        decoded = decoded[:, inside]
        row |= errors(original, decoded, grid) | shapes(original, decoded, grid)
        if len(array) >= GLOBES:
            row |= climate_of(original, decoded, grid)
        rows[label] = row
        short = {key: value for key, value in row.items() if key != "power"}
        print(array.name, label, {k: float(f"{v:.4g}") for k, v in short.items()}, flush=True)
    return rows


def ways(array: xr.DataArray, names: list[str]) -> dict[str, Callable[[], Coded]]:
    found: dict[str, Callable[[], Coded]] = {
        name: lambda name=name: ours(CONTROLS[name], array) for name in CONTROLS if name in names
    }
    return found | {
        name: lambda name=name: sz3(BESIDE[name], array) for name in BESIDE if name in names
    }


def draw(results: dict[str, Any]) -> None:
    """Power of the fields and of the errors by zonal wavenumber."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(5.6, 7.4))
    panels = {"simulation": "simulation, 46 × 90", "era5": "ERA5 snapshots, 181 × 360"}
    for axis, (part, title) in zip(axes, panels.items(), strict=True):
        rows = results[part]
        power = next(iter(rows.values()))["power"]["original"]
        axis.loglog(range(1, len(power)), power[1:], "k", lw=2, label="original")
        for colour, label in enumerate(("max_error=0.5", "max_error=1", "target_rmse=0.5",
                                        "target_rmse=1", "bits=8")):  # fmt: skip
            if label not in rows:
                continue
            error = rows[label]["power"]["error"]
            axis.loglog(
                range(1, len(error)), error[1:], color=f"C{colour}",
                ls="--" if "rmse" in label else "-", label=f"error, {label}",
            )  # fmt: skip
        axis.set(title=title, xlabel="zonal wavenumber", ylabel="power, K²")
        axis.legend(fontsize=7)
    figure.tight_layout()
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / "spectra.png", dpi=120)


def main() -> None:
    series = open_variable(climate("gcm_6hourly_test_46x90.nc")).astype(np.float32)
    snapshots = open_variable(climate("era5_snapshots_1deg.nc")).astype(np.float32)
    every = [*CONTROLS, *BESIDE]
    # Bits ask for the model's own grid and for fields like those that it has seen.
    fine = [name for name in every if not name.startswith("bits")]
    results = {
        "data": {
            "simulation": f"{len(series)} globes 46 x 90, six hours apart",
            "era5": f"{len(snapshots)} real snapshots 181 x 360, no model of that grid",
        },
        "simulation": measured(series, ways(series, every)),
        "era5": measured(snapshots, ways(snapshots, fine)),
    }
    draw(results)
    write_result("science", results)


if __name__ == "__main__":
    main()
