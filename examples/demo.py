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

from coinpp_xr import COINppCodec

# It never names coinpp_xr: Zarr finds the codec by its entry point.
READER = """
import sys, xarray
sys.stdout.buffer.write(xarray.open_zarr(sys.argv[1]).t2m.values.tobytes())
"""
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

    ds.to_zarr(store, encoding={"t2m": {"compressor": COINppCodec(model="t2m-46x90", bits=8)}})

    chunks = [file for file in (store / "t2m" / "c").rglob("*") if file.is_file()]
    stored = sum(file.stat().st_size for file in chunks)
    print(f"{store}: {ds.t2m.size:,} values of t2m in {stored:,} bytes")

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

    result = ds.coinpp.compress(bits=8, model="t2m-46x90")
    print(result.report)

    maps = folder / "era5_t2m.png"
    result.plot("t2m", item=result.report["t2m"].worst_globe_index).savefig(maps, dpi=120)
    print(f"\nMaps of the worst globe: {maps}")
    print(
        "The shipped model has not seen ERA5, and bits=8 bounds no error: the error above is "
        "whatever\nthe model makes of this data. Train a model on your own data for a smaller one."
    )
    print(f"Done in {perf_counter() - start:.1f} s.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
