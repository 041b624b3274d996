"""Tables of chunk lengths, memory and archives at 0.25°."""

from __future__ import annotations

from typing import Any

from common import table


def chunk_lengths(result: dict[str, Any]) -> str:
    """One line per length, and what memory it takes."""
    rows = [
        [
            str(row["globes"]),
            f"{row['ratio']:.1f} ×",
            f"{row['write_mb_per_s']:.0f}",
            f"{row['read_mb_per_s']:.0f}",
            f"{1000 * row['whole_seconds']:.0f}",
            f"{1000 * row['one_step_seconds']['median']:.0f}",
            f"{1000 * row['one_step_seconds']['longest']:.0f}",
            f"{100 * row['one_step_of_whole']['seconds']:.0f} %",
            f"{100 * row['one_step_of_whole']['bytes']:.0f} %",
            f"{row['all_steps_of_whole']:.2f} ×",
        ]
        for row in result["lengths"]
    ]
    header = [
        "globes", "ratio", "write MB/s", "read MB/s", "whole, ms", "one step, ms", "longest, ms",
        "of the whole's time", "of its bytes", "all steps, of the whole's time",
    ]  # fmt: skip
    memory, machine, settings = result["memory"], result["machine"], result["settings"]
    return (
        f"Measured on {machine['cores']} cores ({machine['cpu']}, {machine['system']}, Python "
        f"{machine['python']}, {machine['date']}): {result['data']}. "
        f"`max_error={settings['max_error']:g}`, "
        f'`effort="{settings["effort"]}"`, {result["metric"]} '
        "([results](../benchmarks/results/reading.json)):\n\n"
        + table(header, rows)
        + f"\nA process that encodes {memory['globes']} of these globes "
        f"({memory['chunk_mb']:.0f} MB) takes {memory['encode_peak_mb']:.0f} MB at most, one that "
        f"decodes them {memory['decode_peak_mb']:.0f} MB; {memory['imports_mb']:.0f} MB of each "
        "are what it imported. The first use of a bound in a fresh installation takes "
        f"{result['compiling_seconds']:.0f} seconds, because it is compiled then.\n"
    )


def native_archive(result: dict[str, Any]) -> str:
    """Archives of globes of 0.25°, beside their plans."""
    rows = [
        [
            row["effort"],
            str(row["blocks"]),
            str(row["globes_per_chunk"]),
            f"{row['raw_mb']:.0f}",
            f"{row['ratio']:.1f} ×",
            f"{row['planned_seconds']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['mb_per_s']:.0f}",
            f"{row['planned_per_worker_mb']:.0f}",
            f"{row['peak_per_worker_mb']:.0f}",
        ]
        for row in result["rows"]
    ]
    header = [
        "effort", "blocks", "globes in one", "MB", "ratio", "planned s", "s", "MB/s",
        "planned MB per worker", "peak MB per worker",
    ]  # fmt: skip
    settings, machine = result["settings"], result["machine"]
    return (
        f"Globes of 0.25°, {settings['workers']} workers on {machine['cores']} cores "
        f"({machine['date']}): {result['data']}; `max_error={settings['max_error']:g}`, "
        f"{result['metric']} ([results](../benchmarks/results/archive_native.json)):\n\n"
        + table(header, rows)
    )
