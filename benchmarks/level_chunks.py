"""What chunks of one level and chunks of all levels cost: bytes, and the time to read a field.

The hourly box on 22 levels, written through the accessor under two bounds; a field is one time of
one level, a column all levels of one time.

    COINPP_DATA=... python benchmarks/level_chunks.py      # a minute
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import xarray as xr
from common import data_file, machine, write_result

import coinpp_xr  # noqa: F401  (the accessor)
from coinpp_xr.codecs import recently_decoded

BOUNDS, TIMES = (0.05, 0.25), 5


def seconds(path: Path, **selection: Any) -> float:
    """The median time to open a store and read a part, with nothing decoded before."""
    taken = []
    for _ in range(TIMES):
        recently_decoded.forget_all()
        start = perf_counter()
        with xr.open_zarr(path) as opened:
            opened["u"].isel(**selection).load()
        taken.append(perf_counter() - start)
    return float(np.median(taken))


def main() -> None:
    hourly = xr.open_dataset(data_file("native/era5_hourly_levels_u.nc"))[["u"]].load()
    hourly["u"] = hourly["u"].astype(np.float32)
    time, level, *_ = hourly["u"].dims
    whole = {"u": {"chunks": hourly["u"].shape}}
    rows = []
    for bound in BOUNDS:
        for label, encoding in (("one level", {}), ("all levels", whole)):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "u.zarr"
                report = hourly.coinpp.to_zarr(path, max_error=bound, encoding=encoding)
                seconds(path, **{time: 0, level: 0})  # compiles
                rows.append({
                    "bound": bound, "chunks": label, "nbytes": report.nbytes,
                    "field_seconds": seconds(path, **{time: 12, level: 10}),
                    "column_seconds": seconds(path, **{time: 12}),
                })  # fmt: skip
                print(rows[-1], flush=True)
    write_result("level_chunks", {"machine": machine(), "cases": rows})


if __name__ == "__main__":
    main()
