"""Means, budgets, extremes and zeros of water, before and after: rain, humidity, cloud, snow, ice.

Real fields on the grids on which their sources offer them, without a model, at a fine and a coarse
control and others that suit. SZ3 at the same bounds stands beside. Fields are float32, as in
``native.py``; shares are by area, of all times together.

    COINPP_DATA=... python benchmarks/water.py            # about five minutes on two cores
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import data_file, open_variable, write_result

from coinpp_xr import COINppCodec
from coinpp_xr.coordinates import area_weights
from coinpp_xr.peers import Chunk, Goal, smallest

Values = npt.NDArray[np.float32]
Row = dict[str, Any]
# Bytes, and the values that come back.
Coded = tuple[int, Values]

MILLIMETRES, GRAMS = 1000.0, 1000.0
# A wet day has a millimetre; these are hours, in m.
WET_HOUR = 1e-3 / 24
ABSOLUTE, RELATIVE, RMSE = "max_error", "max_error_relative", "target_rmse"


@dataclass(frozen=True)
class Field:
    """A variable of a file of the data folder, and what is asked of it.

    Parameters
    ----------
    label, file, variable : str
    data : str
        What it is, for readers.
    unit, scale : str, float
        The unit that is shown, and how many of them are one of the file's.
    controls : tuple of (str, float)
        In the file's unit. SZ3 is measured at those that are a ``max_error``.
    exact : tuple of float
        Values of which cells are counted that hold exactly these.
    beyond : dict of str to float
        Thresholds, in the file's unit, above which areas are measured.
    high : float
        In the file's unit; cells above it are counted.
    """

    label: str
    file: str
    variable: str
    data: str
    unit: str
    scale: float
    controls: tuple[tuple[str, float], ...]
    exact: tuple[float, ...] = (0.0,)
    beyond: dict[str, float] = field(default_factory=dict)
    high: float = np.inf

    @cached_property
    def array(self) -> xr.DataArray:
        return open_variable(data_file(self.file), self.variable).astype(np.float32)


HOURLY = "native/era5_hourly"
BOX = "24 hours from 2022-08-31 00 UTC, 0.25°, 45–55° N, 0–10° E"
BOX_CONTROLS = ((ABSOLUTE, 1e-6), (ABSOLUTE, 1e-5), (RMSE, 5e-6))
BOX_RAIN = Field(
    "precipitation of a box", f"{HOURLY}_surface.nc", "tp",
    f"ERA5 hourly precipitation, {BOX}", "mm", MILLIMETRES, BOX_CONTROLS,
    beyond={"wetter than 1 mm a day": WET_HOUR}, high=2e-3,
)  # fmt: skip
BOX_EVAPORATION = Field(
    "evaporation of a box", f"{HOURLY}_surface.nc", "e",
    f"ERA5 hourly evaporation (negative: upward), {BOX}", "mm", MILLIMETRES, BOX_CONTROLS,
    exact=(), beyond={"of dew or frost (above 0)": 0.0},
)  # fmt: skip
FIELDS = (
    Field(
        "precipitation", "native/era5_tp_1deg.nc", "tp",
        "ERA5 hourly precipitation, 12 hours within 2026-03-25 to 28, 1°", "mm", MILLIMETRES,
        ((ABSOLUTE, 1e-5), (ABSOLUTE, 1e-4), (RMSE, 5e-5), (RELATIVE, 0.05)),
        beyond={"wetter than 1 mm a day": WET_HOUR}, high=5e-3,
    ),
    BOX_RAIN,
    BOX_EVAPORATION,
    Field(
        "specific humidity", f"{HOURLY}_levels_q.nc", "q",
        f"ERA5 hourly specific humidity, 22 of 137 model levels, {BOX}", "g/kg", GRAMS,
        ((ABSOLUTE, 1e-6), (ABSOLUTE, 1e-4), (RMSE, 5e-5), (RELATIVE, 0.01)),
        exact=(), high=0.013,
    ),
    Field(
        "cloud cover", "native/ifs_cloud_snow_0p25.nc", "tcc",
        "IFS total cloud cover, 2026-03-10 00 UTC, 0.25°", "", 1.0,
        ((ABSOLUTE, 0.01), (ABSOLUTE, 0.05), (RMSE, 0.02)),
        exact=(0.0, 1.0), beyond={"more than half covered": 0.5},
    ),
    Field(
        "snow", "native/ifs_cloud_snow_0p25.nc", "sd",
        "IFS snow depth in water, 10 m on glaciers, 2026-03-10 00 UTC, 0.25°", "mm", MILLIMETRES,
        ((ABSOLUTE, 0.001), (ABSOLUTE, 0.01), (RMSE, 0.01), (RELATIVE, 0.05)),
        exact=(0.0, 10.0), beyond={"of more than 10 mm": 0.01}, high=1.0,
    ),
    Field(
        "sea ice", "native/era5_surface_1deg.nc", "siconc",
        "ERA5 sea ice concentration, 2008-10-01, 1°, land is missing", "", 1.0,
        ((ABSOLUTE, 0.001), (ABSOLUTE, 0.05), (RMSE, 0.01)),
        exact=(0.0, 1.0), beyond={"of ice (above 0.15)": 0.15},
    ),
)  # fmt: skip


def ours(of: Field, name: str, value: float) -> Coded:
    """This package's codec, all of the variable in one chunk."""
    latitude, longitude = (of.array[axis].values for axis in of.array.dims[-2:])
    codec = COINppCodec("universal", latitude=latitude, longitude=longitude, **{name: value})
    payload = codec.encode(of.array.values)
    return len(payload), np.asarray(codec.decode(payload)).reshape(of.array.shape)


def sz3(of: Field, bound: float) -> Coded:
    """SZ3 at its best layout for a bound; missing cells are for free."""
    values = of.array.values
    found = smallest(
        "SZ3", Chunk.of(values, of.array[of.array.dims[-2]].values), Goal(max_error=bound)
    )
    if found is None:
        raise RuntimeError(f"SZ3 does not keep a bound of {bound}")
    decoded = found[1].reshape(values.shape).astype(np.float32)
    return found[0].nbytes, np.where(np.isfinite(values), decoded, values)


# ---- what is looked at ---------------------------------------------------------------------------


def weights_of(of: Field) -> npt.NDArray[np.float64]:
    """Shape of the variable; 0 where values are missing, they sum to one."""
    array = of.array
    weights = area_weights(array[array.dims[-2]].values, array.shape[-1])
    valid = np.isfinite(array.values) * weights
    return np.asarray(valid / valid.sum())


def seen(of: Field, values: Values) -> Row:
    """Of one version of a field, in the unit that is shown."""
    numbers, weights = values.astype(np.float64), weights_of(of)
    valid = np.isfinite(numbers)
    row: Row = {
        "mean": of.scale * mean(numbers, weights),
        "maximum": of.scale * float(numbers[valid].max()),
        "negative": int((numbers < 0).sum()),
        "percentile_99_9": of.scale * float(np.percentile(numbers[valid], 99.9)),
        "exactly": {f"{v:g}": float(weights[numbers == v].sum()) for v in of.exact},
        "beyond": {name: float(weights[numbers > v].sum()) for name, v in of.beyond.items()},
    }
    if np.isfinite(of.high):
        row["cells_above"] = int((numbers > of.high).sum())
    if numbers.ndim == 4:
        row["column_mean"] = of.scale * mean(numbers.sum(1), weights.sum(1))
    return row


def compared(of: Field, decoded: Values, control: tuple[str, float]) -> Row:
    """What differs between a field and what came back, in the unit that is shown."""
    before, after, weights = of.array.values, decoded, weights_of(of)
    valid = np.isfinite(before)
    error = np.where(valid, after.astype(np.float64) - before, 0)
    low, high = before[valid].min(), before[valid].max()
    # Of every field by itself.
    axes, sizes = (-2, -1), weights.sum((-2, -1))
    of_fields = np.abs((error * weights).sum(axes) / sizes)
    means = np.abs((np.where(valid, before, 0) * weights).sum(axes) / sizes)
    allowed = np.full(of_fields.shape, control[1])
    if control[0] == RELATIVE:
        allowed = allowed * (np.abs(np.where(valid, before, 0)) * weights).sum(axes) / sizes
    row: Row = {
        "largest_error": of.scale * float(np.abs(error).max()),
        "largest_mean_change_of_a_field": of.scale * float(of_fields.max()),
        "largest_relative_mean_change_of_a_field": float((of_fields / means).max()),
        "mean_change_as_share_of_control": float((of_fields / allowed).max()),
        "below_minimum": int((after[valid] < low).sum()),
        "above_maximum": int((after[valid] > high).sum()),
        "exactly_kept": {
            f"{v:g}": float(
                weights[(before == v) & (after == v)].sum() / weights[before == v].sum()
            )
            for v in of.exact
        },
    }
    if before.ndim == 3 and len(before) > 1:
        total = np.where(valid, before, 0).astype(np.float64).sum(0)
        row["mean_total"] = of.scale * mean(total, weights.sum(0))
        row["rms_error_of_total"] = of.scale * rms(error.sum(0), weights.sum(0))
        row["largest_error_of_total"] = of.scale * float(np.abs(error.sum(0)).max())
    if before.ndim == 4:
        column = before.astype(np.float64).sum(1)
        row["largest_relative_error_of_column"] = float(np.abs(error.sum(1) / column).max())
    return row


def net(rain: Values, evaporation: Values) -> Row:
    """Precipitation minus evaporation of the box, in mm; the files' evaporation is negative."""
    weights = weights_of(BOX_RAIN)

    def fluxes(one: Values, other: Values) -> npt.NDArray[np.float64]:
        return MILLIMETRES * (one.astype(np.float64) + other)

    before = fluxes(BOX_RAIN.array.values, BOX_EVAPORATION.array.values)
    after = fluxes(rain, evaporation)
    error = (after - before).sum(0)
    return {
        "before": len(before) * mean(before, weights),
        "after": len(before) * mean(after, weights),
        "rms_at_a_cell": rms(before.sum(0), weights.sum(0)),
        "rms_error_at_a_cell": rms(error, weights.sum(0)),
        "largest_error_at_a_cell": float(np.abs(error).max()),
    }


def mean(values: npt.NDArray[Any], weights: npt.NDArray[np.float64]) -> float:
    return float((np.where(weights > 0, values, 0) * weights).sum())


def rms(values: npt.NDArray[np.float64], weights: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt((values**2 * weights).sum()))


# ---- the runs ------------------------------------------------------------------------------------


def measured(of: Field) -> tuple[Row, dict[str, Values]]:
    """A field's part of the result, and what came back of every codec."""
    rows: dict[str, Row] = {}
    versions: dict[str, Values] = {}
    ways = [(f"{name}={value:g}", ours(of, name, value), (name, value))
            for name, value in of.controls]  # fmt: skip
    ways += [(f"SZ3, bound {value:g}", sz3(of, value), (name, value))
             for name, value in of.controls if name == ABSOLUTE]  # fmt: skip
    for label, (nbytes, decoded), control in ways:
        rows[label] = {
            "bytes": nbytes,
            "ratio": of.array.nbytes / nbytes,
            **seen(of, decoded),
            **compared(of, decoded, control),
        }
        versions[label] = decoded
        print(of.label, label, rows[label], flush=True)
    part = {
        "data": of.data, "unit": of.unit, "per_unit_of_the_file": of.scale,
        "high": of.scale * of.high if np.isfinite(of.high) else None,
        "before": seen(of, of.array.values), "after": rows,
    }  # fmt: skip
    return part, versions


def main() -> None:
    parts, versions = {}, {}
    # SZ3's settings are searched on one thread.
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        for of, (part, decoded) in zip(FIELDS, pool.map(measured, FIELDS), strict=True):
            parts[of.label], versions[of.label] = part, decoded
    rain, evaporation = versions[BOX_RAIN.label], versions[BOX_EVAPORATION.label]
    write_result(
        "water",
        {
            "data": "real reanalyses and initial states; controls in the unit of the file, other "
            "numbers in the unit that is named; shares by area",
            "fields": parts,
            "net": {label: net(rain[label], evaporation[label]) for label in rain},
        },
        show=False,
    )


if __name__ == "__main__":
    main()
