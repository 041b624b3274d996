"""The table of other grids and of levels, from ``results/grids.json``."""

from __future__ import annotations

from typing import Any

from common import table


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
            ])  # fmt: skip
    header = [
        "grid", "fields", "cases", "smaller than the best other", "least",
        "saved by references to levels",
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
