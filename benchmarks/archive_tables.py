"""Tables of archives on clusters, from ``results/archive_scale.json``."""

from __future__ import annotations

from typing import Any

from common import load, table


def archive_scale() -> str:
    """Archives of several sizes, and what follows for clusters and a petabyte on paper."""
    result = load("archive_scale")
    machine, plan = result["machine"], result["plan"]
    seconds = {(case["globes"], case["workers"]): case["seconds"] for case in result["cases"]}
    rows = [
        [
            f"{case['globes']:,}",
            str(case["workers"]),
            f"{case['seconds']:,.1f}",
            f"{case['globes_per_s']:,.0f}",
            f"{case['mb_per_s']:.2f}",
            f"{seconds[case['globes'], 1] / case['seconds']:.2f} ×",
            f"{case['peak_nbytes_per_worker'] / 2**20:,.0f}",
            f"{100 * case['share_not_busy']:.1f} %",
            f"{case['ratio']:,.0f} ×",
            f"{case['raw_nbytes'] / case['files_nbytes']:,.0f} ×",
        ]
        for case in result["cases"]
    ]
    header = [
        "globes", "workers", "seconds", "globes/s", "MB/s", "speed-up", "peak MiB per worker",
        "not busy", "ratio", "ratio, all files",
    ]  # fmt: skip
    return "\n".join(
        [
            f"Measured on {machine['cores']} cores ({machine['cpu']}, {machine['system']}, Python "
            f"{machine['python']}, {machine['date']}), which workers share with client and "
            f"scheduler: {result['data']}. `target_rmse={result['settings']['target_rmse']:g}`, "
            f"model {result['settings']['model']}, chunks of {result['settings']['chunk_time']} "
            "globes, every block read back and verified. Workers are processes of one thread. "
            "*MB* are of float32, the time is that from the first block to the last one, *peak* is "
            "the most memory that a worker ever had, *not busy* the share of the workers' time in "
            "which they neither made nor archived a block, the last one's wait at the end "
            "included, *all files* counts metadata, coordinates and the manifest "
            "([results](../benchmarks/results/archive_scale.json)):\n",
            table(header, rows),
            growth(result),
            rates_of_a_worker(result),
            clusters_on_paper(plan),
            petabyte(plan),
        ]
    )


def rates_of_a_worker(result: dict[str, Any]) -> str:
    """In words, what other rate controls cost."""
    said = [
        ", ".join(f"`{name}={value:g}`" for name, value in case["rate"].items())
        + f" {case['mb_per_s']:.2f} MB/s at {case['ratio']:,.0f} ×"
        for case in result["rates"]
    ]
    return (
        f"What is asked for decides how fast it is: one worker, {result['rates'][0]['globes']:,} "
        f"globes in one run: {'; '.join(said)}.\n"
    )


def growth(result: dict[str, Any]) -> str:
    """In words, seconds over globes."""
    lines = [
        f"{count(int(workers), 'worker')}: {line['start_seconds']:.2f} s and "
        f"{1e3 * line['seconds_per_globe']:.2f} s per 1,000 globes, off by at most "
        f"{100 * line['largest_relative_deviation']:.0f} % (seconds grow like globes to the power "
        f"of {line['exponent']:.2f})"
        for workers, line in result["linear"].items()
        if line is not None
    ]
    if not lines:
        return ""
    return f"Seconds as a line over globes: {'; '.join(lines)}.\n"


def clusters_on_paper(plan: dict[str, Any]) -> str:
    """Where clusters stop scaling, by what is in a block."""
    rows = [
        [
            block_name(row),
            f"{row['nbytes'] / 1e6:,.1f}",
            f"{row['busy_seconds']:,.2f}",
            *(f"{rate:,.0f}" for rate in row["mb_per_s_by_workers"].values()),
            f"{row['workers_at_most']:,.0f}",
            f"{row['mb_per_s_at_most']:,.0f}",
        ]
        for row in plan["blocks"]
    ]
    header = [
        "block", "MB", "seconds of a worker",
        *(f"MB/s, {int(n):,} workers" for n in plan["blocks"][0]["mb_per_s_by_workers"]),
        "workers at most", "MB/s at most",
    ]  # fmt: skip
    workers, globes = plan["from"]["workers"], plan["from"]["globes"]
    return (
        f"On paper: a busy worker does {plan['mb_per_s_per_busy_worker']:.2f} MB/s (with "
        f"{count(workers, 'worker')} and {globes:,} globes, as above), and blocks in which "
        "nothing is done pass client, scheduler and workers at one per "
        f"{1e3 * plan['scheduling_seconds_per_block']:.1f} ms, "
        f"{plan['blocks_per_s_at_most']:,.0f} a second; "
        f"{1e3 * plan['scheduling_processor_seconds_per_block']:.1f} ms of it are the processor's "
        "time of client and scheduler. More workers than *at most* wait for their next block. That "
        "a worker does as many MB/s on every grid, that a block costs the scheduler the same "
        "whatever is in it, and that the store keeps up, is extrapolated, not measured:\n\n"
        + table(header, rows)
    )


def petabyte(plan: dict[str, Any]) -> str:
    """Days, files and tasks for a petabyte, extrapolated."""
    whole = plan["petabyte"]
    sizes = [cluster["workers"] for cluster in whole["by_block"][0]["clusters"]]
    rows = [
        [
            block_name(row),
            f"{row['blocks']:,}",
            f"{row['files']:,}",
            *(f"{cluster['days']:,.1f}" for cluster in row["clusters"]),
            *(f"{cluster['blocks_per_s_wanted']:,.2f}" for cluster in row["clusters"]),
            f"{row['manifest_seconds'] / 60:,.0f}",
        ]
        for row in whole["by_block"]
    ]
    header = [
        "block", "tasks", "files", *(f"days, {n:,} workers" for n in sizes),
        *(f"tasks/s, {n:,} workers" for n in sizes), "minutes to read the manifest",
    ]  # fmt: skip
    n_lat, n_lon = whole["grid"]
    return (
        f"One petabyte of float32, hourly fields of 0.25° ({n_lat} × {n_lon}): "
        f"{whole['globes'] / 1e6:,.0f} million globes, {whole['worker_days']:,.0f} days of one "
        f"worker. If they compressed {whole['ratio']:,.0f} × as the globes above do, the archive "
        f"would be {whole['archive_nbytes_at_this_ratio'] / 1e12:,.2f} TB. A task is a chunk, or a "
        "shard of several; each makes a file, and one of the manifest. "
        f"The scheduler is good for {whole['blocks_per_s_at_most']:,.0f} tasks/s; below are those "
        "that it would be asked for:\n\n" + table(header, rows)
    )


def block_name(row: dict[str, Any]) -> str:
    chunk = f"{row['globes'] // row['chunks']:,} globes"
    name = chunk if row["chunks"] == 1 else f"{row['chunks']} × {chunk} in a shard"
    return f"{name}, {row['grid'][0]} × {row['grid'][1]}" if "grid" in row else name


def count(number: int, noun: str) -> str:
    return f"{number} {noun}" + "s" * (number != 1)
