"""The table of other grids and of levels, from ``results/grids.json``."""

from __future__ import annotations

from math import exp, log
from typing import Any

from common import table


def chunks_table(result: dict[str, Any]) -> str:
    """What chunks of one level and of all levels cost."""
    machine = result["machine"]
    rows = [
        [
            f"{c['bound']:g} m/s", c["chunks"], f"{c['nbytes']:,}",
            f"{1000 * c['field_seconds']:.0f} ms", f"{1000 * c['column_seconds']:.0f} ms",
        ]
        for c in result["cases"]
    ]  # fmt: skip
    header = ["bound", "chunks of", "bytes", "one time of one level", "all levels of one time"]
    words = (
        "Wind of ERA5 on 22 levels of 41 × 41 cells and 24 hours, in stores of Zarr format 3: "
        "bytes, and the time to open the store and read, in "
        f"{machine['cores']} cores ({machine['cpu']}, {machine['date']}; "
        "[results](../benchmarks/results/level_chunks.json), "
        "`python benchmarks/level_chunks.py`)."
    )
    return f"{words}\n\n{table(header, rows)}"


def grids_table(result: dict[str, Any]) -> str:
    """By kind of grid: how many times smaller than the best other codec."""
    machine, rows = result["machine"], []
    for group, halves in result["summary"].items():
        for half, own in halves.items():
            cases = [c for c in result["cases"] if (c["group"], c["half"]) == (group, half)]
            saved = [
                100 * (1 - c["nbytes"] / c["without_levels"])
                for c in cases if "without_levels" in c
            ]  # fmt: skip
            rows.append([
                group, half, str(own["cases"]), f"{own['ratio']:.3f} ×", f"{own['least']:.3f} ×",
                f"{min(saved):.1f} to {max(saved):.1f} %" if saved else "–",
                f"{_mean_ratio(cases):.3f} ×" if "best_nbytes" in cases[0] else "–",
            ])  # fmt: skip
    header = [
        "grid", "fields", "cases", "smaller than the best other", "least",
        "saved by references to levels", '`effort="best"`',
    ]  # fmt: skip
    words = (
        f"Measured on {machine['cores']} cores ({machine['cpu']}, {machine['system']}, Python "
        f"{machine['python']}, {machine['date']}) at three pointwise bounds for each field, "
        '`effort="default"`: bytes of the best of SZ3, SPERR, ZFP and PCodec (on levels of SZ3 '
        "and SPERR) over those of this package, geometric means. Others get cells in the order of "
        "the array, of this package's folds and along a Hilbert curve, at no cost; levels in any "
        "order of the axes. HEALPix and reduced Gaussian fields were interpolated from 0.25°; "
        "*held out* fields were not in sight when anything was chosen "
        "([results](../benchmarks/results/grids.json), `python benchmarks/grids.py`). MPAS "
        "numbers its cells so that neighbours are far apart: the codec has their coordinates, "
        f"{result['places_nbytes']:,} bytes of configuration once for a variable, as the curve of "
        "the others has for nothing."
    )
    return f"{words}\n\n{table(header, rows)}"


def _mean_ratio(cases: list[dict[str, Any]]) -> float:
    """Of the best other to this package with the effort "best", geometric mean."""
    logarithms = [log(c["peer_nbytes"] / c["best_nbytes"]) for c in cases]
    return exp(sum(logarithms) / len(logarithms))
