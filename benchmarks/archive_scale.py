"""Archives of 1,000, 10,000 and 100,000 globes with one and with two workers, and what follows.

    COINPP_DATA=... python benchmarks/archive_scale.py [--sizes 1000 ...] [--rates|--quick|--plot]

How time grows with the number of globes, how long workers are not busy, what a block costs the
process that schedules it, and, on paper, how many workers that process could keep busy and how
long a petabyte would take. Results are saved after every case, and a run replaces those of its own
sizes only; ``--quick`` writes nothing, ``--plot`` alone draws what was measured before.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import dask.array
import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
import zarr
from common import RESULTS, climate, machine, open_variable
from distributed import Client, get_task_stream

from coinpp_xr import archive
from coinpp_xr.archiving import cluster
from coinpp_xr.archiving.cluster import Task, a_client, work_off
from coinpp_xr.archiving.manifest import FIELDS, entry
from coinpp_xr.archiving.parts import Part
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.tiling import Tiling
from coinpp_xr.archiving.work import Failure, Job, Outcome

FILE = "gcm_6hourly_test_46x90.nc"
RESULT = RESULTS / "archive_scale.json"
IMAGE = Path(__file__).parent.parent / "docs" / "images" / "archive-scale.png"

SIZES, QUICK_SIZES, WORKERS = (1_000, 10_000, 100_000), (512, 1_024), (1, 2)
# Cases of seconds are repeated, and the run in the middle counts.
SMALL, REPEATS = 2_000, 3
# Globes in a chunk, which is a block here.
DEPTH = 256
TARGET, NOISE, SEED = 0.5, 0.1, 20
DATA = (
    "simulated 6-hourly globes of 46 × 90 (720, from after the model's training data) over and "
    f"over, with white noise of {NOISE:g} K that is different in every block; made by the workers "
    "when a block is read"
)
SETTINGS = {
    "target_rmse": TARGET, "model": "t2m-46x90", "chunk_time": DEPTH, "noise_K": NOISE,
    "threads_per_worker": 1,
}  # fmt: skip

# On paper: grid, globes in a chunk, chunks in a block (a shard, where there are several).
LARGE_GRID = (721, 1440)
BLOCKS = (
    ((46, 90), 64, 1), ((46, 90), 256, 1), ((46, 90), 1024, 1),
    (LARGE_GRID, 16, 1), (LARGE_GRID, 16, 8),
)  # fmt: skip
PETABYTE, MANY_WORKERS = 1e15, (100, 1000)

# What a worker may be asked for, on so many globes.
RATES: tuple[dict[str, float], ...] = ({"target_rmse": TARGET}, {"max_error": 0.5}, {"bits": 8})
RATE_GLOBES = 1_024

Maker = Callable[..., npt.NDArray[np.float32]]
Case = dict[str, Any]


# ---- data, made by workers ----------------------------------------------------------------------


@lru_cache(maxsize=1)
def simulated(path: str) -> npt.NDArray[np.float32]:
    """The globes that are written over and over; every worker reads them once."""
    return open_variable(Path(path)).values.astype(np.float32)


def noisy(path: str, globes: int, block_id: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """A block of the source, the same whoever makes it."""
    index = block_id[0]
    steps = np.arange(index * DEPTH, min((index + 1) * DEPTH, globes))
    own = simulated(path)
    random = np.random.default_rng([SEED, index])
    noise = random.standard_normal((len(steps), *own.shape[1:]), np.float32)
    return own[steps % len(own)] + np.float32(NOISE) * noise


def empty(path: str, globes: int, block_id: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """As :func:`noisy`, without work and without memory."""
    return np.broadcast_to(np.float32(0), (min(DEPTH, globes - block_id[0] * DEPTH), 46, 90))


def source_of(globes: int, make: Maker) -> xr.DataArray:
    """So many globes, of which none is made yet."""
    path = climate(FILE)
    with xr.open_dataset(path, engine="netcdf4") as ds:
        lat, lon, attributes = ds["lat"].load(), ds["lon"].load(), ds["t2m"].attrs
    depths = tuple(min(DEPTH, globes - start) for start in range(0, globes, DEPTH))
    values = dask.array.map_blocks(
        make, str(path), globes, chunks=(depths, (lat.size,), (lon.size,)), dtype=np.float32,
        meta=np.empty((0, 0, 0), np.float32),
    )  # fmt: skip
    times = pd.date_range("1950-01-01", periods=globes, freq="6h")
    coordinates = {"time": times, "lat": lat, "lon": lon}
    return xr.DataArray(values, coordinates, ("time", "lat", "lon"), "t2m", attributes)


# ---- measuring ----------------------------------------------------------------------------------


def measure(globes: int, workers: int) -> Case:
    """One archive in a folder that is removed, and then as many blocks in which nothing is done."""
    load = round(os.getloadavg()[0], 2)
    # What archive(workers=...) starts, held here because its tasks are to be looked at.
    with a_client(None, workers) as client:
        client.wait_for_workers(workers)
        return {"globes": globes, "workers": workers, "load_before": load} | {
            **written(client, globes, workers),
            "empty_blocks": nothing_done(client, globes, workers),
        }


def written(
    client: Client, globes: int, workers: int, rate: dict[str, float] | None = None
) -> Case:
    source, rate = source_of(globes, noisy), rate or {"target_rmse": TARGET}
    with TemporaryDirectory() as folder:
        store = Path(folder) / "archive.zarr"
        with get_task_stream(client) as stream:
            started = time.perf_counter()
            report = archive(source, store, client=client, chunk_time=DEPTH, **rate)
            total = time.perf_counter() - started
        files = [path.stat().st_size for path in store.rglob("*") if path.is_file()]
        reading = seconds_for_the_manifest(store)
    if not report.is_complete:
        raise RuntimeError(f"not all blocks were written: {report.failures[:1]}")
    found = report.to_dict()
    making = seconds_of_others(stream.data, found["seconds"])
    busy = sum(found["work_seconds"].values()) + making
    variable = found["variables"]["t2m"]
    return {
        "blocks": found["n_blocks"],
        "raw_nbytes": found["raw_nbytes"],
        "seconds": found["seconds"],
        "seconds_with_begin_and_end": total,
        "globes_per_s": globes / found["seconds"],
        "mb_per_s": found["raw_nbytes"] / found["seconds"] / 1e6,
        "work_seconds": found["work_seconds"],
        "source_seconds": making,
        "busy_seconds": busy,
        "share_not_busy": 1 - busy / (workers * found["seconds"]),
        "by_worker": found["workers"],
        "peak_nbytes_per_worker": max(own["peak_nbytes"] for own in found["workers"].values()),
        "dask_tasks_per_block": len(stream.data) / found["n_blocks"],
        "nbytes": variable["nbytes"],
        "ratio": variable["ratio"],
        "rmse": variable["rmse"],
        "files": len(files),
        "files_nbytes": sum(files),
        "manifest_seconds_per_block": reading / found["n_blocks"],
    }


def seconds_of_others(tasks: list[dict[str, Any]], seconds: float) -> float:
    """What workers spent on tasks that make the source, which no archive counts as its work.

    Of the last ``seconds`` alone: before, an archive tries a sample of the source.
    """
    spans = [
        (str(task["key"]), span["start"], span["stop"])
        for task in tasks
        for span in task["startstops"]
        if span["action"] == "compute"
    ]
    begin = max(stop for _, _, stop in spans) - seconds
    return sum(
        stop - start
        for key, start, stop in spans
        if not key.startswith("archive-") and start >= begin
    )


def seconds_for_the_manifest(store: Path) -> float:
    """Time to find out which blocks are done."""
    manifest = entry(zarr.open_group(store, mode="r"), "t2m")[1]
    started = time.perf_counter()
    manifest.done()
    return time.perf_counter() - started


def nothing(variable: xr.Variable, job: Job, index: int) -> Outcome:
    """What stands in for a block's work."""
    return Outcome(
        variable=job.name, index=index, row=np.zeros(len(FIELDS)), raw_nbytes=0, seconds={},
        worker="", peak_nbytes=0,
    )  # fmt: skip


def nothing_done(client: Client, globes: int, workers: int) -> dict[str, float]:
    """Seconds per block for all but the work: graphs, scheduling, messages, results.

    In real time with all workers at it, and in time of the processor in this process, where both
    client and scheduler run.
    """
    # Of another length, so that dask takes no result of these for one of those.
    first, tasks = tasks_of(8 * DEPTH - 1), tasks_of(globes)
    # Workers get the function along with a block, so that replacing it here is enough.
    with mock.patch.object(cluster, "archive_block", nothing):
        through(client, first, workers)
        real, own = time.perf_counter(), time.process_time()
        through(client, tasks, workers)
        real, own = time.perf_counter() - real, time.process_time() - own
    return {
        "blocks": len(tasks),
        "seconds_per_block": real / len(tasks),
        "processor_seconds_per_block": own / len(tasks),
    }


def tasks_of(globes: int) -> list[Task]:
    source = source_of(globes, empty)
    block = (DEPTH, *source.shape[1:])
    part = Part(source, Tiling(source.dims, source.shape, block, block, 0), 0, range(globes))
    job = part.job(Place("nowhere"), verify=True)
    return [Task(part, job, index) for index in part.blocks()]


def through(client: Client, tasks: list[Task], workers: int) -> None:
    for result in work_off(client, tasks, workers, gpu=False):
        if isinstance(result, Failure):
            raise RuntimeError(str(result))


# ---- results ------------------------------------------------------------------------------------


def run(sizes: list[int], *, save: bool) -> list[Case]:
    """All cases, workers in turn, so that what slows the machine down slows down both."""
    cases = known_cases(sizes) if save else []
    began = time.perf_counter()
    for globes in sorted(sizes):
        runs: dict[int, list[Case]] = {workers: [] for workers in WORKERS}
        for repeat in range(REPEATS if save and globes < SMALL else 1):
            for workers in WORKERS:
                at = f"{time.perf_counter() - began:5.0f} s"
                print(f"{at}: {globes:,} globes, {workers} workers, run {repeat + 1}", flush=True)
                runs[workers].append(measure(globes, workers))
                print(in_a_line(runs[workers][-1]), flush=True)
                if save:
                    current = [middle(done) for done in runs.values() if done]
                    write(sorted([*cases, *current], key=order))
        cases += [middle(done) for done in runs.values()]
    return sorted(cases, key=order)


def rates() -> list[Case]:
    """What one worker does when it is asked for other things, one after the other."""
    found = []
    for rate in RATES:
        with a_client(None, 1) as client:
            client.wait_for_workers(1)
            case = written(client, RATE_GLOBES, 1, rate)
        kept = ("mb_per_s", "ratio", "peak_nbytes_per_worker")
        found.append({"rate": rate, "globes": RATE_GLOBES} | {key: case[key] for key in kept})
        print(found[-1], flush=True)
    return found


def order(case: Case) -> tuple[int, int]:
    return case["globes"], case["workers"]


def middle(runs: list[Case]) -> Case:
    """The run with the median time."""
    median = statistics.median_low([case["seconds"] for case in runs])
    return next(case for case in runs if case["seconds"] == median) | {"runs": len(runs)}


def in_a_line(case: Case) -> str:
    scheduling = 1e3 * case["empty_blocks"]["seconds_per_block"]
    return (
        f"  {case['seconds']:.1f} s, {case['mb_per_s']:.2f} MB/s, not busy "
        f"{100 * case['share_not_busy']:.1f} %, {case['peak_nbytes_per_worker'] / 2**20:.0f} MiB, "
        f"ratio {case['ratio']:.0f}, {scheduling:.1f} ms for an empty block"
    )


def known_cases(sizes: list[int]) -> list[Case]:
    """What stays in the result file: other sizes, if this machine measured them as they are now."""
    if not RESULT.exists():
        return []
    old, here = json.loads(RESULT.read_text()), machine()
    if {**old["machine"], "date": ""} != {**here, "date": ""} or old["settings"] != SETTINGS:
        print("what was measured elsewhere or otherwise is dropped from the results", flush=True)
        return []
    return [case for case in old["cases"] if case["globes"] not in sizes]


def write(cases: list[Case], measured: list[Case] | None = None) -> None:
    if measured is None:
        measured = json.loads(RESULT.read_text()).get("rates", []) if RESULT.exists() else []
    result = {
        "machine": machine(), "data": DATA, "settings": SETTINGS, "cases": cases,
        "linear": {str(workers): linear(of(cases, workers)) for workers in WORKERS},
        "plan": plan(cases), "rates": measured,
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def of(cases: list[Case], workers: int) -> list[Case]:
    return [case for case in cases if case["workers"] == workers]


def linear(cases: list[Case]) -> dict[str, float] | None:
    """Seconds as a line over globes, all sizes of the same weight, and how far they are off it."""
    if len(cases) < 2:
        return None
    globes = np.array([case["globes"] for case in cases], float)
    seconds = np.array([case["seconds"] for case in cases])
    slope, start = np.polyfit(globes, seconds, 1, w=1 / seconds)
    off = (start + slope * globes) / seconds - 1
    return {
        "start_seconds": float(start),
        "seconds_per_globe": float(slope),
        "largest_relative_deviation": float(np.abs(off).max()),
        "exponent": float(np.polyfit(np.log(globes), np.log(seconds), 1)[0]),
    }


# ---- on paper -----------------------------------------------------------------------------------


def plan(cases: list[Case]) -> dict[str, Any]:
    """What the largest case says about clusters that are not here, and about a petabyte.

    A worker's MB/s are taken to be the same on all grids, and a block to cost client and scheduler
    the same whatever is in it.
    """
    # With most workers: they share this machine with the client, which is no advantage.
    case = max(cases, key=order)
    rate = case["raw_nbytes"] / case["busy_seconds"]
    cost = case["empty_blocks"]["seconds_per_block"]
    rows = [on_paper(grid, chunk * chunks, chunks, rate, cost) for grid, chunk, chunks in BLOCKS]
    return {
        "from": {"globes": case["globes"], "workers": case["workers"]},
        "mb_per_s_per_busy_worker": rate / 1e6,
        "scheduling_seconds_per_block": cost,
        "scheduling_processor_seconds_per_block": case["empty_blocks"][
            "processor_seconds_per_block"
        ],
        "blocks_per_s_at_most": 1 / cost,
        "blocks": rows,
        "petabyte": petabyte(rows, rate, cost, case),
    }


def on_paper(
    grid: tuple[int, int], globes: int, chunks: int, rate: float, cost: float
) -> dict[str, Any]:
    """How many workers blocks of this size allow."""
    nbytes = 4 * globes * math.prod(grid)
    seconds = nbytes / rate
    row: dict[str, Any] = {
        "grid": list(grid), "globes": globes, "chunks": chunks, "nbytes": nbytes,
        "busy_seconds": seconds, "workers_at_most": seconds / cost,
        "mb_per_s_at_most": nbytes / cost / 1e6,
    }  # fmt: skip
    return row | {
        "mb_per_s_by_workers": {
            str(workers): float(megabytes_per_s(row, workers, cost)) for workers in MANY_WORKERS
        }
    }


def megabytes_per_s(row: dict[str, Any], workers: Any, cost: float) -> Any:
    """Blocks come as fast as workers do them, or as the scheduler hands them out."""
    return np.minimum(workers / row["busy_seconds"], 1 / cost) * row["nbytes"] / 1e6


def petabyte(rows: list[dict[str, Any]], rate: float, cost: float, case: Case) -> dict[str, Any]:
    """Hourly float32 fields of a quarter of a degree, by what a block is."""
    globe = 4 * math.prod(LARGE_GRID)
    plans = []
    for row in (row for row in rows if tuple(row["grid"]) == LARGE_GRID):
        blocks = math.ceil(PETABYTE / row["nbytes"])
        clusters = [
            {
                "workers": workers,
                "days": PETABYTE / 1e6 / float(megabytes_per_s(row, workers, cost)) / 86400,
                "blocks_per_s_wanted": workers / row["busy_seconds"],
            }
            for workers in MANY_WORKERS
        ]
        plans.append(
            {
                "globes": row["globes"], "chunks": row["chunks"], "blocks": blocks,
                # A chunk, or a shard of them, and a row of the manifest.
                "files": 2 * blocks, "workers_at_most": row["workers_at_most"],
                "manifest_seconds": blocks * case["manifest_seconds_per_block"],
                "clusters": clusters,
            }
        )  # fmt: skip
    return {
        "nbytes": PETABYTE, "grid": list(LARGE_GRID), "globes": round(PETABYTE / globe),
        "archive_nbytes_at_this_ratio": PETABYTE / case["ratio"], "ratio": case["ratio"],
        "worker_days": PETABYTE / rate / 86400, "blocks_per_s_at_most": 1 / cost, "by_block": plans,
    }  # fmt: skip


# ---- plot ---------------------------------------------------------------------------------------


def draw() -> None:
    """Write the plot of docs/archives.md from the result file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    result = json.loads(RESULT.read_text())
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    draw_sizes(left, result)
    draw_clusters(right, result)
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.title.set_fontsize(10)
    IMAGE.parent.mkdir(exist_ok=True)
    figure.savefig(IMAGE, dpi=100, metadata={"Software": None})
    plt.close(figure)


def draw_sizes(axes: Any, result: dict[str, Any]) -> None:
    for color, workers in zip(("C0", "C1"), WORKERS, strict=True):
        cases = of(result["cases"], workers)
        globes = np.array([case["globes"] for case in cases], float)
        seconds = [case["seconds"] for case in cases]
        label = f"{workers} worker{'s' if workers > 1 else ''}"
        axes.plot(globes, seconds, "o", color=color, label=label)
        line = result["linear"][str(workers)]
        if line is not None:
            along = np.geomspace(globes.min(), globes.max(), 100)
            fitted = line["start_seconds"] + line["seconds_per_globe"] * along
            text = (
                f"{line['start_seconds']:.2g} s + {1e3 * line['seconds_per_globe']:.3g} s "
                "per 1,000 globes"
            )
            axes.plot(along, fitted, "-", color=color, linewidth=1, label=text)
    axes.set(xlabel="globes of 46 × 90", ylabel="seconds", title="Measured: time to archive")
    axes.legend(fontsize=8, loc="upper left")


def draw_clusters(axes: Any, result: dict[str, Any]) -> None:
    cost = result["plan"]["scheduling_seconds_per_block"]
    rows = result["plan"]["blocks"]
    most = 10 ** math.ceil(math.log10(2 * max(row["workers_at_most"] for row in rows)))
    workers = np.geomspace(1, most, 400)
    # The last one drawn lies on top: where all are the same, the smallest blocks'.
    for color, row in reversed(list(zip(("C0", "C1", "C2", "C3", "C4"), rows, strict=True))):
        knee = row["workers_at_most"]
        axes.plot(workers, megabytes_per_s(row, workers, cost), color=color, zorder=2)
        axes.plot(knee, row["mb_per_s_at_most"], "o", color=color, zorder=3)
    for color, row in zip(("C0", "C1", "C2", "C3", "C4"), rows, strict=True):
        label = f"{block_name(row)}: {row['workers_at_most']:,.0f} workers"
        axes.plot([], [], "o-", color=color, label=label)
    axes.set(
        xlabel="workers", ylabel="MB of float32 per second", ylim=(1, None),
        title="On paper: where one scheduler cannot feed more workers",
    )  # fmt: skip
    axes.legend(fontsize=8, loc="lower right")


def block_name(row: dict[str, Any]) -> str:
    """A block in words."""
    globes = f"{row['globes'] // row['chunks']:,} globes"
    if row["chunks"] > 1:
        globes = f"{row['chunks']} chunks of {globes}"
    return f"{globes}, {row['grid'][0]} × {row['grid'][1]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of globes")
    parser.add_argument("--quick", action="store_true", help="two small sizes, nothing written")
    parser.add_argument("--rates", action="store_true", help="only what other rates cost")
    parser.add_argument("--plot", action="store_true", help="draw what was measured before, only")
    arguments = parser.parse_args()
    if arguments.quick:
        print(json.dumps(plan(run(list(QUICK_SIZES), save=False)), indent=1))
        return
    if arguments.rates:
        write(known_cases([]), rates())
    elif not arguments.plot:
        run(list(arguments.sizes), save=True)
        write(known_cases([]), rates())
    draw()


if __name__ == "__main__":
    # As a module that workers can import: what they keep between blocks stays with it.
    import archive_scale

    archive_scale.main()
