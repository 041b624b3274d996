"""What the network of the pyramid saves, for its card, from ``results/network.json``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from common import table

Row = dict[str, Any]
GROUPS = {
    "single fields on 0.25° and 0.4°": lambda row: row["fields"] == 1 and row["cells"] > 100_000,
    "single fields on 1°": lambda row: row["fields"] == 1 and row["cells"] <= 100_000,
    "levels, hours, months": lambda row: row["fields"] > 1,
}


def saved(rows: Iterable[Row], column: str) -> str:
    """Geometric mean of what is saved, and the least."""
    ratios = [row[column] for row in rows if column in row]
    if not ratios:
        return "—"
    mean = 100 * (1 - float(np.exp(np.mean(np.log(ratios)))))
    return f"{mean:.1f} (at least {100 * (1 - max(ratios)):.1f})".replace("-", "−")


def network_table(result: dict[str, Any]) -> str:
    rows = []
    for effort in ("default", "best"):
        for group, belongs in GROUPS.items():
            some = [row for row in result["cases"] if row["effort"] == effort and belongs(row)]
            unseen = [row for row in some if "unseen" in row]
            rows.append(
                [
                    group, effort, str(len(some)), saved(some, "seen"), str(len(unseen)),
                    saved(unseen, "seen"), saved(unseen, "unseen"),
                ]
            )  # fmt: skip
    heads = [
        "fields", "effort", "cases", "saved, %", "cases left out", "saved by the shipped one, %",
        "by one that never saw them, %",
    ]  # fmt: skip
    machine = result["machine"]
    told = (
        "Bytes of the pyramid with the network and without, at bounds from 0.0005 to 0.1 of a "
        "field's spread ([results](../benchmarks/results/network.json), "
        f"`python benchmarks/network.py`; {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['date']}). Left out of training, with all times and levels, in the last column: "
        "gust and 2 m temperature at 0.25°, wind at 10 m and on levels, sea surface temperature "
        "and half of the simulation; those networks were trained for seven to nine minutes, the "
        "shipped ones for ten and twenty. "
        "`default` does not ask about single fields on grids of 131,072 cells and more.\n"
    )
    return told + "\n" + table(heads, rows)


def latents_table(result: dict[str, Any]) -> str:
    """What latents of the network, fitted to each chunk, would save."""
    counts = ["4", "8", "16"]
    rows = []
    for row in result["cases"]:
        usual = row["latents"]["0"]

        def change(nbytes: int | None, usual: int = usual) -> str:
            return "—" if nbytes is None else f"{100 * (nbytes / usual - 1):+.2f}".replace("-", "−")

        rows.append(
            [
                row["field"], str(row["fields"]), f"{row['without']:,}", f"{usual:,}",
                *(change(row["latents"].get(count)) for count in counts),
                change(row["shifts"]["1"]), change(row["shifts"]["5"]),
                f"{100 * row['bytes of shifts'] / usual:.2f}", change(row["gains and last layer"]),
                f"{100 * row['bytes of gains and last layer'] / usual:.2f}",
            ]
        )  # fmt: skip
    heads = [
        "chunk", "fields", "bytes without", "bytes with", *(f"{n} latents, %" for n in counts),
        "all shifts, one step, %", "five steps, %", "they take, %",
        "shifts, gains and last layer, %", "they take, %",
    ]  # fmt: skip
    machine = result["machine"]
    told = (
        "Latents of this network that are fitted to a chunk, as COIN++ has them, do not earn their "
        "bytes, and payloads hold none: what a chunk has of its own is in the weights of the "
        "linear predictions, which are fitted in every column. Bytes at a bound of a hundredth "
        "of the spread, and how many fewer they would be, numbers not counted, with 4, 8 or 16 "
        "latents (their map learned from chunks of other variables), with all shifts of hidden "
        "units free (the most that latents could reach) after one and five Gauss–Newton steps, "
        "and with gains of inputs and units and the last layer besides; and what the numbers "
        "would take at eight bits each ([results](../benchmarks/results/network_latents.json), "
        f"`python benchmarks/network_latents.py`; {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['date']}).\n"
    )
    return told + "\n" + table(heads, rows)
