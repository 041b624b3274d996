"""Fields that a codec made for smooth globes may do badly on, with targets for each."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
from common import climate, open_variable

from coinpp_xr.coordinates import area_weights

# Target RMSE as a fraction of the area-weighted standard deviation.
FRACTIONS = (0.02, 0.1, 0.3)
SHAPE = (12, 46, 90)

# Values (time, lat, lon), latitude and longitude.
Field = tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]


def _smooth_noise(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """White noise without its short waves, periodic in longitude, new in every globe."""
    time, n_lat, n_lon = SHAPE
    # On twice the latitudes, of which half are kept: the poles are no neighbours.
    spectrum = np.fft.fft2(rng.standard_normal((time, 2 * n_lat, n_lon)))
    row, column = np.fft.fftfreq(2 * n_lat)[:, None], np.fft.fftfreq(n_lon)
    wavenumber = n_lon * np.hypot(row, column)
    smooth = np.fft.ifft2(spectrum * np.exp(-((wavenumber / 6) ** 2))).real[:, :n_lat]
    return smooth / smooth.std()


def _synthetic() -> dict[str, npt.NDArray[np.float64]]:
    rng = np.random.default_rng(2023)
    time, _, n_lon = SHAPE
    smooth = _smooth_noise(rng)
    spike = np.zeros(SHAPE)
    spike[:, 15, 40] = 1.0
    spikes = np.zeros(SHAPE)
    # Away from the poles, where a cell hardly counts.
    spikes[np.arange(time), rng.integers(8, 38, time), rng.integers(0, n_lon, time)] = 1.0
    return {
        "white noise": rng.standard_normal(SHAPE),
        # Regions between contour lines, each with its own value.
        "steps": rng.permutation(9)[np.clip(np.floor(2 * smooth), -4, 4).astype(int) + 4],
        "checkerboard": np.indices(SHAPE).sum(0) % 2.0,
        "spike": spike,
        "spikes elsewhere in every globe": spikes,
        # From 0 to 356 and back to 0 at the seam.
        "ramp in longitude": np.broadcast_to(np.arange(n_lon) * 360.0 / n_lon, SHAPE),
        "smooth noise": smooth,
    }


def hostile_fields() -> dict[str, Field]:
    """The named fields; the real and simulated ones only if COINPP_DATA is set."""
    latitude = np.linspace(90, -90, SHAPE[1])
    longitude = np.arange(SHAPE[2]) * 360 / SHAPE[2]
    fields: dict[str, Field] = {
        name: (np.ascontiguousarray(values, dtype=np.float32), latitude, longitude)
        for name, values in _synthetic().items()
    }
    if "COINPP_DATA" not in os.environ:
        return fields

    def add(
        name: str,
        file: str,
        variable: str,
        every: int = 1,
        globes: slice | npt.NDArray[np.int64] = slice(None),
    ) -> None:
        array = open_variable(climate(file), variable)
        values = array.values[globes, ::every, ::every]
        fields[name] = (
            np.ascontiguousarray(values, dtype=np.float32),
            array[array.dims[1]].values[::every].astype(np.float64),
            array[array.dims[2]].values[::every].astype(np.float64),
        )

    snapshots = "era5_snapshots_1deg.nc"
    for variable in ("u10", "v10", "msl"):
        add(f"ERA5 {variable}", snapshots, variable, every=4)
    add("ERA5 t2m 1 degree", snapshots, "t2m")
    add("ERA5 t2m one globe", "era5_t2m_46x90.nc", "t2m", globes=slice(0, 1))
    order = np.random.default_rng(64).permutation(720)[:64]
    add("GCM t2m shuffled", "gcm_6hourly_test_46x90.nc", "t2m", globes=order)
    return fields


def targets(field: npt.ArrayLike, latitude: npt.ArrayLike) -> dict[float, float]:
    """Target RMSE for each of `FRACTIONS`; none for a field without variation."""
    values = np.asarray(field, dtype=np.float64)
    weights = area_weights(latitude, values.shape[2])
    mean = (values * weights).sum((1, 2)).mean()
    std = float(np.sqrt((((values - mean) ** 2) * weights).sum((1, 2)).mean()))
    # Rounding of the mean alone is no variation.
    if not std > 1e-6 * np.abs(values).max():
        return {}
    return {fraction: fraction * std for fraction in FRACTIONS}
