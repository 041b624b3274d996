"""Compress real ERA5 globes into a Zarr store, read it back elsewhere, and report the error.

Run it with ``make demo`` or ``python examples/demo.py [folder]``; the store and the maps go into
the folder, ``out`` by default.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import warnings
from pathlib import Path
from time import perf_counter

import numpy as np
import xarray as xr

import coinpp_xr  # noqa: F401 - gives datasets their .coinpp

# It never names coinpp_xr: Zarr finds the codec by its entry point.
READER = """
import sys, xarray
sys.stdout.buffer.write(xarray.open_zarr(sys.argv[1]).t2m.values.tobytes())
"""
TARGET = 0.5  # K
# The network's output may differ by rounding, for example with another number of threads.
ROUNDING = 1e-3  # K


def main(folder: Path) -> None:
    start = perf_counter()
    # Zarr says this of every store that xarray writes in format 3, whatever its codecs.
    warnings.filterwarnings("ignore", message="Consolidated metadata")
    folder.mkdir(parents=True, exist_ok=True)
    store = folder / "era5_t2m.zarr"
    shutil.rmtree(store, ignore_errors=True)  # of an earlier run
    ds = xr.open_dataset(Path(__file__).with_name("era5_t2m_46x90.nc"), engine="netcdf4")

    report = ds.coinpp.to_zarr(store, target_rmse=TARGET)
    print(f"{store}, written for an RMSE of at most {TARGET} K and read back:\n{report}\n")

    values = xr.open_zarr(store).t2m.values
    command = [sys.executable, "-c", READER, str(store)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    elsewhere = np.frombuffer(answer, values.dtype).reshape(values.shape)
    difference = np.abs(elsewhere - values).max()
    if not difference <= ROUNDING:
        sys.exit(f"a fresh process reads other values than this one: they differ by {difference} K")
    print(
        "A fresh process that does not import coinpp_xr reads the same values as this one "
        f"(largest\ndifference {difference:.2g} K).\n"
    )

    result = ds.coinpp.compress(target_rmse=TARGET)
    maps = folder / "era5_t2m.png"
    result.plot("t2m", item=result.report["t2m"].worst_globe_index).savefig(maps, dpi=120)
    print(f"Maps of the worst globe: {maps}\n")

    print("The paper's way, 8 bits per latent and nothing else, with a model that never saw ERA5:")
    print(ds.coinpp.compress(bits=8).report)
    print(f"Done in {perf_counter() - start:.1f} s.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
