"""An archive of globes of 0.25° on two workers, beside what its plan said of time and memory.

    COINPP_DATA=... python benchmarks/archive_native.py

Sources are NetCDF files of steps that are synthetic in time, see ``reading.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from common import write_result
from reading import BOUND, globes

from coinpp_xr import archive, plan_archive

FILES, STEPS, WORKERS = 4, 32, 2
EFFORTS = ("fast", "default")


def sources(folder: Path) -> list[Path]:
    """Files of hourly steps, one after the other."""
    values = globes(FILES * STEPS)
    hours = pd.date_range("2020-01-01", periods=len(values), freq="h")
    coordinates = {
        "latitude": ("latitude", np.linspace(90, -90, values.shape[1]), {"units": "degrees_north"}),
        "longitude": ("longitude", np.arange(values.shape[2]) / 4, {"units": "degrees_east"}),
    }
    paths = []
    for start in range(0, len(values), STEPS):
        part = slice(start, start + STEPS)
        ds = xr.Dataset(
            {"t2m": (("time", "latitude", "longitude"), values[part], {"units": "K"})},
            {"time": hours[part], **coordinates},
        )
        paths.append(folder / f"t2m-{start:04}.nc")
        ds.to_netcdf(paths[-1])
    return paths


def measured(paths: list[Path], store: Path, effort: str) -> dict[str, Any]:
    settings: dict[str, Any] = {"max_error": BOUND, "model": "universal", "effort": effort}
    plan = plan_archive(paths, store, workers=WORKERS, **settings)
    (forecast,) = plan.variables
    done = archive(paths, store, workers=WORKERS, progress=False, **settings)
    if not done.is_complete:
        raise RuntimeError(str(done))
    work = done.work_seconds
    peak = max(worker["peak_nbytes"] for worker in done.workers.values())
    return {
        "effort": effort,
        "globes_per_chunk": forecast.chunks[0],
        "blocks": done.n_blocks,
        "raw_mb": round(done.raw_nbytes / 1e6, 1),
        "ratio": round(forecast.ratio, 2),
        "planned_seconds": round(plan.seconds, 2),
        "seconds": round(done.seconds, 2),
        "seconds_of_plan": round(done.seconds / plan.seconds, 2),
        "mb_per_s": round(done.raw_nbytes / 1e6 / done.seconds, 1),
        "work_seconds": {phase: round(seconds, 2) for phase, seconds in work.items()},
        "planned_per_worker_mb": round(plan.worker_nbytes / 1e6, 1),
        "peak_per_worker_mb": round(peak / 1e6, 1),
    }


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = []
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = sources(folder)
        for effort in EFFORTS:
            rows.append(measured(paths, folder / f"{effort}.zarr", effort))
            print(rows[-1], flush=True)
    result = {
        "data": f"{FILES} NetCDF files of {STEPS} steps of 2 m temperature on 0.25°, synthetic in "
        "time",
        "settings": {"max_error": BOUND, "model": "universal", "workers": WORKERS},
        "metric": "time from the first block to the last, every block read back and compared; the "
        "plan's time is for coding alone; peak: the most memory that a worker ever had",
        "rows": rows,
    }
    write_result("archive_native", result, show=False)


if __name__ == "__main__":
    main()
