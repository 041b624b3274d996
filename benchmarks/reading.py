"""Globes of 0.25° in chunks of different lengths: size, speed, reading one step; and memory.

    COINPP_DATA=... python benchmarks/reading.py
    COINPP_DATA=... python benchmarks/reading.py --parts memory

The steps are made from one real globe: it is turned a little from step to step, by another angle at
every latitude, and gets a little white noise. They are synthetic in time.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import RESULTS, data_file, load, open_variable, seconds_of, write_result
from zarr.storage import LocalStore

from coinpp_xr import COINppCodec, config
from coinpp_xr.codecs.sphere import COINppArrayCodec

FILE, VARIABLE, BOUND = "native/gfs_t2m_0p25.nc", "t2m", 0.5
PARTS = ("memory", "compiling", "lengths")
LENGTHS, EFFORT = (1, 2, 4, 8, 16, 24, 48, 96), "default"
# Steps of a chunk that are read one by one, spread over it.
STEPS = 9
MEMORY_GLOBES = 24
# Of a step: degrees that the globe turns by, at the south pole and more at the north pole; and the
# noise, in the unit of the data.
TURN, SHEAR, NOISE = 0.0125, 0.1, 0.02


def globes(count: int) -> npt.NDArray[np.float32]:
    """Synthetic steps, shape (count, 721, 1440)."""
    first = open_variable(data_file(FILE), VARIABLE).to_numpy().astype(np.float64)
    first = first.reshape(first.shape[-2:])
    waves = np.fft.rfft(first, axis=1)
    numbers = np.arange(waves.shape[1])
    angle = np.radians(TURN + SHEAR * np.linspace(0, 1, len(first)))[:, None]
    rng = np.random.default_rng(0)
    steps = np.empty((count, *first.shape), np.float32)
    for step in range(count):
        turned = np.fft.irfft(waves * np.exp(-1j * numbers * angle * step), first.shape[1], axis=1)
        steps[step] = turned + NOISE * rng.standard_normal(first.shape)
    return steps


@contextmanager
def counting() -> Iterator[list[int]]:
    """Bytes of chunks that are read from stores."""
    read: list[int] = []
    get = LocalStore.get

    async def count(self: LocalStore, key: str, prototype: Any, byte_range: Any = None) -> Any:
        found = await get(self, key, prototype, byte_range)
        read.append(0 if found is None or "c/" not in key else len(found))
        return found

    LocalStore.get = count  # type: ignore[method-assign]
    try:
        yield read
    finally:
        LocalStore.get = get  # type: ignore[method-assign]


def of_length(values: npt.NDArray[np.float32]) -> dict[str, Any]:
    """A chunk of these globes, written and read through xarray and Zarr format 3."""
    count = len(values)
    ds = xr.Dataset({"t2m": (("time", "latitude", "longitude"), values)})
    encoding = {
        "serializer": COINppArrayCodec(model="universal", max_error=BOUND, effort=EFFORT),
        "compressors": None,
        "chunks": values.shape,
    }
    with TemporaryDirectory() as folder:
        path = Path(folder) / "chunk.zarr"
        writing = seconds_of(
            lambda: ds.to_zarr(path, encoding={"t2m": encoding}, consolidated=False, mode="w")
        )

        def opened() -> xr.DataArray:
            return xr.open_zarr(path, consolidated=False)["t2m"]

        nbytes = sum(part.stat().st_size for part in (path / "t2m/c").rglob("*") if part.is_file())
        whole = seconds_of(lambda: opened().to_numpy(), 2)
        error = float(np.abs(opened().to_numpy() - values).max())
        if error > BOUND:
            raise RuntimeError(f"an error of {error:g} exceeds {BOUND:g}")
        steps = np.unique(np.linspace(0, count - 1, STEPS).astype(int)).tolist()
        seconds, read = [], []
        for step in steps:
            seconds.append(seconds_of(lambda step=step: opened().isel(time=step).to_numpy(), 2))
            with counting() as parts:
                opened().isel(time=step).to_numpy()
            read.append(sum(parts))
        with config.set(decoded_cache_bytes=2**27):
            array = opened()
            one_by_one = seconds_of(
                lambda: [array.isel(time=step).to_numpy() for step in range(count)]
            )
    return {
        "globes": count,
        "nbytes_per_globe": round(nbytes / count),
        "ratio": round(values.nbytes / nbytes, 2),
        "write_mb_per_s": round(values.nbytes / 1e6 / writing, 1),
        "read_mb_per_s": round(values.nbytes / 1e6 / whole, 1),
        "whole_seconds": round(whole, 4),
        "one_step_seconds": {
            "median": round(float(np.median(seconds)), 4),
            "longest": round(max(seconds), 4),
        },
        "one_step_of_whole": {
            "seconds": round(max(seconds) / whole, 3),
            "bytes": round(max(read) / nbytes, 3),
        },
        "all_steps_of_whole": round(one_by_one / whole, 2),
    }


# ---- memory, in processes of their own ---------------------------------------------------------


def in_process(work: str, folder: Path) -> float:
    """Peak of the resident memory of a new process, MB."""
    command = [sys.executable, __file__, "--process", work, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def process(work: str, folder: Path) -> None:
    if work == "encode":
        values = np.load(folder / "values.npy")
        payload = COINppCodec("universal", max_error=BOUND, effort=EFFORT).encode(values)
        (folder / "payload").write_bytes(payload)
    elif work == "decode":
        payload = (folder / "payload").read_bytes()
        COINppCodec("universal", max_error=BOUND, effort=EFFORT).decode(payload)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(kilobytes * 1024 / 1e6)


def compiling() -> float:
    """Seconds that the first use of a bound takes where nothing is compiled yet."""
    script = (
        "import time, numpy as np; from coinpp_xr import COINppCodec; "
        "codec = COINppCodec('none', max_error=0.5); "
        "field = np.random.default_rng(0).standard_normal((2, 60, 90)).cumsum(1); "
        "start = time.perf_counter(); codec.decode(codec.encode(field)); "
        "print(time.perf_counter() - start)"
    )
    with TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", script], check=True, capture_output=True, text=True,
            env=os.environ | {"XDG_CACHE_HOME": cache},
        )  # fmt: skip
    return round(float(done.stdout), 1)


def memory() -> dict[str, Any]:
    values = globes(MEMORY_GLOBES)
    chunk = values.nbytes / 1e6
    with TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "values.npy", values)
        idle = in_process("nothing", folder)
        peaks = {work: in_process(work, folder) for work in ("encode", "decode")}
    return {
        "globes": MEMORY_GLOBES,
        "chunk_mb": round(chunk, 1),
        "imports_mb": round(idle, 1),
        "encode_peak_mb": round(peaks["encode"], 1),
        "decode_peak_mb": round(peaks["decode"], 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--process", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.process:
        process(arguments.process[0], Path(arguments.process[1]))
        return
    parts = arguments.parts
    result = load("reading") if (RESULTS / "reading.json").exists() else {}
    result.pop("machine", None)
    result |= {
        "data": "2 m temperature of GFS on 0.25°, one globe turned and sheared from step to step "
        f"with {NOISE:g} K of white noise: synthetic in time",
        "settings": {"max_error": BOUND, "effort": EFFORT, "model": "universal"},
        "metric": "through xarray and Zarr format 3, files in the cache of the system; one step: "
        f"of {STEPS} steps spread over the chunk, its share of the time and of the bytes of the "
        "whole chunk, the largest; all steps: one after the other, as a share of the time of the "
        "whole. Memory: peak of a process's resident memory, with everything it imported",
    }
    if "memory" in parts:
        result["memory"] = memory()
        print(result["memory"], flush=True)
    if "compiling" in parts:
        result["compiling_seconds"] = compiling()
        print(result["compiling_seconds"], flush=True)
    if "lengths" in parts:
        config.set(decoded_cache_bytes=0)
        values = globes(max(LENGTHS))
        of_length(values[:1])  # compiled now
        result["lengths"] = []
        for count in LENGTHS:
            row = of_length(values[:count])
            result["lengths"].append(row)
            print(row, flush=True)
    write_result("reading", result, show=False)


if __name__ == "__main__":
    main()
