"""Compress real fields within an error bound, read them back elsewhere, and compare.

A field of 0.25° comes first, then globes of 46 × 90, the grid of the COIN++ paper.

Run it with ``make demo`` or ``python examples/demo.py [folder]``; the store, the maps and the
comparison go into the folder, ``out`` by default.
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
BOUND = TARGET = 0.5  # K
# Those that keep a bound by themselves.
BOUNDED = ("SZ3", "SZ3 3.4", "SPERR", "ZFP")
# Some seconds together; `coinpp compare` knows more, slower ones among them.
PEERS = ("SZ3", "SPERR", "ZFP", "JPEG 2000", "JPEG XL", "EOF truncation", "BitRound + Zstd",
         "PCodec")  # fmt: skip


def main(folder: Path) -> None:
    start = perf_counter()
    # Zarr says this of every store that xarray writes in format 3, whatever its codecs.
    warnings.filterwarnings("ignore", message="Consolidated metadata")
    folder.mkdir(parents=True, exist_ok=True)

    native = xr.open_dataset(Path(__file__).with_name("gfs_t2m_0p25_asia.nc"), engine="netcdf4")
    print(f"2 m temperature of GFS at 0.25°, no value further than {BOUND} K from the original:")
    fine = native.astype("float32").coinpp.compare(
        max_error=BOUND, peers=BOUNDED, model="universal"
    )
    print(f"{fine}\n")

    store = folder / "era5_t2m.zarr"
    shutil.rmtree(store, ignore_errors=True)  # of an earlier run
    sample = xr.open_dataset(Path(__file__).with_name("era5_t2m_46x90.nc"), engine="netcdf4")
    # The model knows the six globes before these.
    ds = sample.isel(time=slice(6, None))

    report = ds.coinpp.to_zarr(store, max_error=BOUND)
    print(f"{store}: no value further than {BOUND} K from the original, read back:\n{report}\n")

    values = xr.open_zarr(store).t2m.values
    command = [sys.executable, "-c", READER, str(store)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
    elsewhere = np.frombuffer(answer, values.dtype).reshape(values.shape)
    largest = float(np.abs(elsewhere.astype(np.float64) - ds.t2m.values).max())
    if largest > BOUND:
        sys.exit(f"a fresh process reads values that are off by {largest} K")
    print(
        "A fresh process that does not import coinpp_xr reads them, too; the largest error there "
        f"is {largest:.4f} K.\n"
    )

    for goal in ({"max_error": BOUND}, {"target_rmse": TARGET}):
        (kind,) = goal
        comparison = ds.coinpp.compare(**goal, peers=PEERS)
        print(comparison)
        maps = folder / f"era5_t2m_{kind}.png"
        comparison.maps(item=0).savefig(maps, dpi=120)
        comparison.save(folder / f"era5_t2m_{kind}.json")
        print(f"Maps of the errors: {maps}\n")

    print("The paper's way, 8 bits per latent and nothing else. What comes back is what the model\n"
          "makes of data that its network has never seen:")  # fmt: skip
    print(ds.coinpp.compress(bits=8).report)
    print(f"Done in {perf_counter() - start:.1f} s.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
