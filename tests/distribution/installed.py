"""Check an installation in an environment that has nothing else: codecs, commands, a round trip.

    build/wheel/bin/python -I tests/distribution/installed.py examples/era5_t2m_46x90.nc

Nothing can be downloaded meanwhile: every request goes to a port where nobody listens.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

WRITE = """
import xarray as xr
from coinpp_xr import COINppCodec
with xr.open_dataset({source!r}, engine="netcdf4") as ds:
    codec = COINppCodec(model="t2m-46x90", max_error=0.5)
    ds.to_zarr("t2m.zarr", encoding={{"t2m": {{"compressor": codec}}}}, consolidated=False)
"""
# Another process, which does not import the package: Zarr finds the codec by its entry point.
READ = """
import sys
import xarray as xr
back = xr.open_zarr("t2m.zarr", consolidated=False)["t2m"].load()
assert "torch" not in sys.modules
with xr.open_dataset({source!r}, engine="netcdf4") as ds:
    assert float(abs(back - ds["t2m"]).max()) <= 0.5
"""


def main(source: str) -> None:
    os.environ |= dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
    here = metadata.distribution("coinpp-xr")
    for point in here.entry_points:
        point.load()
    package = Path(sys.modules["coinpp_xr"].__file__ or "")
    if not package.is_relative_to(sys.prefix):
        raise SystemExit(f"imported from {package}, which is not in {sys.prefix}")

    coinpp = str(Path(sys.prefix) / "bin" / "coinpp")
    with tempfile.TemporaryDirectory() as folder:
        for command in (
            [coinpp, "--help"],
            [coinpp, "doctor"],
            [sys.executable, "-I", "-c", WRITE.format(source=source)],
            [sys.executable, "-I", "-c", READ.format(source=source)],
        ):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    print(f"coinpp-xr {here.version}: {len(here.entry_points)} entry points, doctor, a round trip")


if __name__ == "__main__":
    main(str(Path(sys.argv[1]).absolute()))
