"""Globes per second of the shipped model: alone, from several threads, and through Zarr.

COINPP_DATA=... python benchmarks/throughput.py
"""

from __future__ import annotations

import cProfile
import os
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from common import climate, open_variable, write_result

from coinpp_xr import COINppCodec

EXAMPLE = Path(__file__).parent.parent / "examples" / "era5_t2m_46x90.nc"
# Globes per chunk for `bits`, and for `target_rmse`, which wants many that follow in time.
GLOBES, IN_TIME = 64, 256
TARGETS, BOUNDS = (0.5, 1.0, 1.5), (0.1, 0.5, 1.0)
THREADS = (1, 2, 4, 8)


def per_second(work: Callable[[], object], globes: int, repeats: int = 5) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return globes / statistics.median(seconds)


def per_core_second(work: Callable[[], object], globes: int, repeats: int = 3) -> float:
    """Globes per second of processor time: what one core does when nothing disturbs it."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return repeats * globes / (time.process_time() - start)


def import_seconds(package: str, repeats: int = 7) -> float:
    script = f"import time; t = time.perf_counter(); import {package}; print(time.perf_counter()-t)"
    runs = [
        float(
            subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout
        )
        for _ in range(repeats)
    ]
    return statistics.median(runs)


def by_calling_threads(codec: COINppCodec, chunks: list[npt.NDArray[Any]]) -> dict[int, Any]:
    """Eight chunks at once from pools of several sizes."""
    globes = sum(len(chunk) for chunk in chunks)
    payloads = [codec.encode(chunk) for chunk in chunks]
    rates = {}
    for n in THREADS:
        with ThreadPoolExecutor(n) as pool:
            rates[n] = {
                "encode": per_second(lambda: list(pool.map(codec.encode, chunks)), globes, 3),
                "decode": per_second(lambda: list(pool.map(codec.decode, payloads)), globes, 3),
            }
    return rates


def through_zarr(codec: COINppCodec, chunks: list[npt.NDArray[Any]]) -> dict[int, Any]:
    """Writing and reading an array whose chunks are handled by several tasks at once."""
    values = np.concatenate(chunks)
    rates = {}
    for n in THREADS:
        with zarr.config.set({"async.concurrency": n}):
            array = zarr.create_array(
                zarr.storage.MemoryStore(), shape=values.shape, dtype=values.dtype,
                chunks=chunks[0].shape, compressors=[codec], filters=None,
            )  # fmt: skip

            def write(array: Any = array) -> None:
                array[:] = values

            rates[n] = {
                "write": per_second(write, len(values), 3),
                "read": per_second(lambda array=array: array[:], len(values), 3),
            }
    return rates


def under_a_bound(chunks: dict[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """MB of float32 a second for chunks of 64 globes: one at a time, and two from two threads."""
    rates: dict[str, Any] = {"data": f"chunks of {GLOBES} globes; ERA5: six, over and over"}
    for (name, values), bound, effort in product(chunks.items(), BOUNDS, ("default", "fast")):
        codec = COINppCodec(max_error=bound, effort=effort)
        payload = codec.encode(values)
        megabytes = values.nbytes / 1e6
        row = {"ratio": values.nbytes / len(payload)}
        with ThreadPoolExecutor(2) as pool:
            for label, work, item in (
                ("encode", codec.encode, values), ("decode", codec.decode, payload)
            ):  # fmt: skip
                row[label] = per_second(partial(work, item), 1, 3) * megabytes
                two = partial(in_two_threads, pool, work, item)
                row[f"{label}_two_threads"] = per_second(two, 2, 3) * megabytes
        rates[f"{name}, max_error={bound:g}, {effort}"] = row
        print(name, bound, effort, row, flush=True)
    return rates


def in_two_threads(pool: ThreadPoolExecutor, work: Callable[[Any], Any], item: Any) -> list[Any]:
    return list(pool.map(work, [item, item]))


def where_the_time_goes(values: npt.NDArray[Any]) -> dict[str, Any]:
    """Shares of the time for encoding a chunk of ERA5 at 0.5 K, by function and all in it."""
    codec = COINppCodec(max_error=0.5)
    codec.encode(values)
    profile = cProfile.Profile()
    profile.enable()
    codec.encode(values)
    profile.disable()
    stats = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = max(entry[3] for entry in stats.values())
    shares = {
        f"{Path(file).stem}.{name}": round(entry[3] / total, 3)
        for (file, _, name), entry in stats.items()
        if "coinpp_xr" in file and entry[3] > 0.01 * total
    }
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def main() -> None:
    load = round(os.getloadavg()[0], 2)
    values = np.resize(open_variable(EXAMPLE).values, (GLOBES, 46, 90))
    efforts = {}
    for effort in ("fast", "default", "best"):
        codec = COINppCodec(bits=8, effort=effort)
        efforts[effort] = per_second(lambda codec=codec: codec.encode(values), GLOBES)
    codec = COINppCodec(bits=8)
    payload = codec.encode(values)
    decode = per_second(lambda: codec.decode(payload), GLOBES)
    threads = by_calling_threads(codec, [values] * 8)

    test = open_variable(climate("gcm_6hourly_test_46x90.nc")).values.astype(np.float32)
    parts = [test[i : i + IN_TIME] for i in range(0, len(test) - IN_TIME + 1, IN_TIME)]
    in_time: dict[str, Any] = {
        "data": f"chunks of {IN_TIME} simulated 6-hourly globes of 46 x 90 from after the "
        "training data; by target in K"
    }
    for target in TARGETS:
        codec = COINppCodec(target_rmse=target)
        payload = codec.encode(parts[0])

        def encoded(codec: COINppCodec = codec) -> bytes:
            return codec.encode(parts[0])

        def decoded(codec: COINppCodec = codec, payload: bytes = payload) -> Any:
            return codec.decode(payload)

        in_time[f"{target:g}"] = {
            "encode_globes_per_second": per_second(encoded, IN_TIME),
            "decode_globes_per_second": per_second(decoded, IN_TIME),
            "encode_globes_per_core_second": per_core_second(encoded, IN_TIME),
            "decode_globes_per_core_second": per_core_second(decoded, IN_TIME),
        }
    codec = COINppCodec(target_rmse=1.0)
    eight = (parts * 8)[:8]
    in_time["by_calling_threads_at_1_K"] = by_calling_threads(codec, eight)
    in_time["through_zarr_by_concurrency_at_1_K"] = through_zarr(codec, eight)
    era5 = open_variable(EXAMPLE).values[6:]
    bounded = under_a_bound({"GCM": test[:GLOBES], "ERA5": np.resize(era5, (GLOBES, 46, 90))})
    shares = where_the_time_goes(np.resize(era5, (GLOBES, 46, 90)))
    write_result(
        "throughput",
        {
            "data": f"{GLOBES} globes of 46 x 90 per chunk, shipped model t2m-46x90, 8 bits",
            "load_before": load,
            "encode_globes_per_second": efforts,
            "decode_globes_per_second": decode,
            "by_calling_threads": threads,
            "target_rmse": in_time,
            "max_error_mb_per_s": bounded,
            "max_error_profile_cumulative_shares": shares,
            "import_seconds": {
                "xarray": import_seconds("xarray"),
                "xarray, coinpp_xr": import_seconds("xarray, coinpp_xr"),
            },
        },
    )


if __name__ == "__main__":
    main()
