"""What the benchmark scripts share: data, machine, result files."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from coinpp_xr import config

# Decoding is measured, again and again.
config.set(decoded_cache_bytes=0)

RESULTS = Path(__file__).parent / "results"


def data_file(path: str) -> Path:
    """A file of the data folder named by COINPP_DATA."""
    if "COINPP_DATA" not in os.environ:
        sys.exit("set COINPP_DATA to the folder with the climate data")
    return Path(os.environ["COINPP_DATA"]) / path


def climate(name: str) -> Path:
    """A file of the data folder's ``climate``."""
    return data_file(f"climate/{name}")


def open_variable(path: Path, name: str = "t2m") -> xr.DataArray:
    with xr.open_dataset(path, engine="netcdf4") as ds:
        return ds[name].load()


def weighted_rmse(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> float:
    """Root of the weighted mean square over all globes; weights sum to one."""
    squared = (a.astype(np.float64) - b.astype(np.float64)) ** 2
    return float(np.sqrt((squared.reshape(len(a), -1) @ weights.ravel()).mean()))


def eof_rmse(
    train: np.ndarray, test: np.ndarray, weights: np.ndarray, counts: list[int]
) -> dict[int, float]:
    """Weighted RMSE of ``test`` truncated to the leading EOFs of ``train`` in the same weights."""
    root = np.sqrt(weights)
    mean = train.mean(0)
    scaled = (train - mean) * root
    vectors = np.linalg.eigh(scaled.T.astype(np.float64) @ scaled)[1][:, ::-1]
    rest = (test - mean) * root
    return {
        k: float(np.sqrt((((rest - rest @ vectors[:, :k] @ vectors[:, :k].T) ** 2).sum(1)).mean()))
        for k in counts
    }


def seconds_of(work: Callable[[], Any], repeats: int = 1) -> float:
    """Of the fastest run."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def machine() -> dict[str, Any]:
    return {
        "cpu": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "torch", "zarr", "xarray", "constriction")},
        "date": date.today().isoformat(),
    }


def write_result(name: str, result: dict[str, Any], *, show: bool = True) -> None:
    """Write ``results/NAME.json`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"machine": machine(), **result}, indent=1)
    # Whoever interrupts a long run keeps the file as it was.
    unfinished = RESULTS / f"{name}.json.part"
    unfinished.write_text(text + "\n")
    unfinished.replace(RESULTS / f"{name}.json")
    if show:
        print(text)


def load(name: str) -> dict[str, Any]:
    """A result file."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    """In Markdown; all columns but the first are numbers."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
