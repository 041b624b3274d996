"""Globes per second of the shipped model, alone and from several Zarr threads; import time.

python benchmarks/throughput.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from common import open_variable, write_result

from coinpp_xr import COINppCodec

EXAMPLE = Path(__file__).parent.parent / "examples" / "era5_t2m_46x90.nc"
GLOBES = 64


def per_second(work: Callable[[], object], globes: int, repeats: int = 5) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return globes / statistics.median(seconds)


def import_seconds(package: str, repeats: int = 7) -> float:
    script = f"import time; t = time.perf_counter(); import {package}; print(time.perf_counter()-t)"
    runs = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        )
        for _ in range(repeats)
    ]
    return statistics.median(runs)


def main() -> None:
    values = np.resize(open_variable(EXAMPLE).values, (GLOBES, 46, 90))
    efforts = {}
    for effort in ("fast", "default", "best"):
        codec = COINppCodec(bits=8, effort=effort)
        efforts[effort] = per_second(lambda codec=codec: codec.encode(values), GLOBES)
    codec = COINppCodec(bits=8)
    payload = codec.encode(values)
    threads = {}
    for n in (1, 2, 4, 8):
        with ThreadPoolExecutor(n) as pool:
            threads[n] = {
                "encode": per_second(
                    lambda: list(pool.map(codec.encode, [values] * 8)), 8 * GLOBES, 3
                ),
                "decode": per_second(
                    lambda: list(pool.map(codec.decode, [payload] * 8)), 8 * GLOBES, 3
                ),
            }
    write_result(
        "throughput",
        {
            "data": f"{GLOBES} globes of 46 x 90 per chunk, shipped model t2m-46x90, 8 bits",
            "encode_globes_per_second": efforts,
            "decode_globes_per_second": per_second(lambda: codec.decode(payload), GLOBES),
            "by_calling_threads": threads,
            "import_seconds": {
                "xarray": import_seconds("xarray"),
                "xarray, coinpp_xr": import_seconds("xarray, coinpp_xr"),
            },
        },
    )


if __name__ == "__main__":
    main()
