"""The table of docs/safeguards.md, from ``results/safeguards.json``."""

from __future__ import annotations

from typing import Any

from common import table


def safeguards_table(result: dict[str, Any]) -> str:
    rows = []
    for case in result["cases"]:
        tighter = "–"
        if "tighter" in case:
            tighter = f"{case['bytes_tighter']:,} (`max_error={case['tighter']:.3g}`)"
        rows.append(
            [
                f"{case['wanted']}; {case['data']}",
                f"{case['bytes']:,} (`max_error={case['max_error']:g}`)",
                f"{100 * case['share_failing']:.2g} %",
                f"{case['bytes_safeguarded']:,}",
                f"{case['bytes_safeguarded_iterative']:,}",
                tighter,
            ]
        )
    header = [
        "guarantee; data", "bytes without it", "where it fails then", "bytes with correction",
        "… made iteratively", "bytes of a bound that implies it",
    ]  # fmt: skip
    return table(header, rows)
