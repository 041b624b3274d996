"""The tables of docs/science.md, from ``results/science.json``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import table

from coinpp_xr.labels import in_digits

Row = dict[str, Any]

# One line of a table: what it says, and how a control's numbers say it.
LINES: dict[str, dict[str, Callable[[Row], str]]] = {
    "Sizes": {
        "ratio to float32": lambda r: f"{r['ratio']:,.0f} ×",
        "RMSE by area, K": lambda r: in_digits(r["rmse"]),
        "largest error, K": lambda r: in_digits(r["max_error"]),
        "largest error in the rows at ±90°, K": lambda r: in_digits(r["max_error_at_poles"]),
    },
    "Means": {
        "mean error of all globes, mK": lambda r: f"{1000 * r['bias']:+.2f}",
        "largest mean error of one globe, K": lambda r: in_digits(r["largest_bias_of_a_globe"]),
        "time mean at a cell: RMS error, K": lambda r: in_digits(r["rms_error_of_time_mean"]),
        "time mean at a cell: largest error, K": lambda r: in_digits(
            r["largest_error_of_time_mean"]
        ),
    },
    "Variability and extremes": {
        "standard deviation in time, of the original's: least … median … most": lambda r: (
            f"{r['spread_ratio_least']:.2f} … {r['spread_ratio_median']:.3f} … "
            f"{r['spread_ratio_most']:.2f}"
        ),
        "highest value of a cell: mean error, K": lambda r: f"{r['mean_error_of_maximum']:+.3f}",
        "highest value of a cell: largest error, K": lambda r: in_digits(
            r["largest_error_of_maximum"]
        ),
        "values above a cell's own 99th percentile: how many": lambda r: (
            f"{100 * r['hot_values_after']:.0f} %"
        ),
        "… of the original's, still above": lambda r: f"{100 * r['hot_values_kept']:.0f} %",
        "area × time on the other side of freezing": lambda r: (
            f"{100 * r['share_across_freezing']:.2f} %"
        ),
    },
    "Trends": {
        "change over the half year at a cell: RMS error, K": lambda r: (
            f"{in_digits(r['rms_error_of_trend'])} of {r['rms_trend']:.1f}"
        ),
        "change of the global mean: error, K": lambda r: f"{r['error_of_mean_trend']:+.4f}",
    },
    "Gradients and spectra": {
        "gradient: RMS error, K per 100 km": lambda r: (
            f"{in_digits(r['rms_error_of_gradient'])} of {r['rms_gradient']:.2f}"
        ),
        "steepest gradient": lambda r: (
            f"{r['largest_gradient_after']:.1f} of {r['largest_gradient']:.1f}"
        ),
        "waves around the globe with an error below a tenth of their power": lambda r: (
            f"1 to {r['last_wave_kept']} of {r['waves']}"
        ),
    },
    "What the errors look like": {
        "correlation with the neighbour's error": lambda r: (
            f"{r['correlation_with_eastern_neighbour']:.2f}"
        ),
        "correlation with the error at the next time": lambda r: (
            f"{r['correlation_with_next_time']:.2f}"
        ),
        "correlation with what differs from the time mean": lambda r: (
            f"{r['correlation_with_values']:+.2f}"
        ),
    },
}


def science_tables(result: dict[str, Any]) -> str:
    data = {part: text.replace(" x ", " × ") for part, text in result["data"].items()}
    parts = [
        f"### Half a year of simulated weather\n\n{data['simulation']}, from after the data that "
        "the model was trained on.\n",
        grid(result["simulation"]),
        f"### Real weather\n\nERA5: {data['era5']}; too few times for the numbers that need a "
        "series.\n",
        grid(result["era5"]),
    ]
    return "\n".join(parts)


def grid(rows: dict[str, Row]) -> str:
    """One column for every control; lines for which there are numbers."""
    header = ["", *(f"`{name}`" if "=" in name else name for name in rows)]
    out: list[list[str]] = []
    for title, lines in LINES.items():
        cells = {}
        for label, show in lines.items():
            try:
                cells[label] = [show(row) for row in rows.values()]
            except KeyError:  # a series' number, and this is none
                continue
        if cells:
            out.append([f"**{title}**", *[""] * len(rows)])
            out += [[label, *found] for label, found in cells.items()]
    return table(header, out)
