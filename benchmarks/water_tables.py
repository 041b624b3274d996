"""The section on water of docs/science.md, from ``results/water.json``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from common import table

from coinpp_xr.labels import in_digits

Row = dict[str, Any]


def number(value: float) -> str:
    """Five digits: means and highest values differ late."""
    return f"{value:.5g}".replace("-", "−")


def percent(share: float) -> str:
    return f"{100 * share:,.0f} %" if share >= 1 else f"{100 * share:.3g} %"


def water_section(result: dict[str, Any]) -> str:
    """What one sees, a table for every field, and one of a budget."""
    fields = result["fields"]
    out = [prose(result)]
    for name, part in fields.items():
        note = ""
        if part["per_unit_of_the_file"] != 1:
            file_unit = "m" if part["unit"] == "mm" else "kg/kg"
            note = f" Controls are in {file_unit}, the file's unit."
        out.append(f"### {name.capitalize()}\n\n{part['data']}.{note}\n")
        out.append(field_table(part))
        if name == "evaporation of a box":
            out.append(
                "### Precipitation minus evaporation of the box\n\nSums of the 24 hours, mm; both "
                "variables at the same control.\n"
            )
            out.append(budget_table(result["net"]))
    return "\n".join(out)


def prose(result: dict[str, Any]) -> str:
    """The figures that matter most, in words."""
    fields = result["fields"]
    ours, peers = ways(fields, "="), ways(fields, "SZ3")
    times = [
        row["bytes"] / fields[name]["after"][f"max_error={way.split()[-1]}"]["bytes"]
        for name, way, row in peers
    ]
    outside = max(row["below_minimum"] + row["above_maximum"] for _, _, row in ours)
    kept = [min(row["exactly_kept"].values(), default=1) for _, _, row in ours]
    lost = [share for _, _, row in peers for share in row["exactly_kept"].values()]
    negative = max(row["negative"] for name, _, row in peers if name == "precipitation")
    overfull = max(row["above_maximum"] for name, _, row in peers if name == "cloud cover")

    before, rain = fields["precipitation"]["before"], fields["precipitation"]["after"]
    fine, coarse = rain["max_error=1e-05"], rain["max_error=0.0001"]
    rmse, relative = rain["target_rmse=5e-05"], rain["max_error_relative=0.05"]

    def wet(row: Row) -> str:
        return percent(row["beyond"]["wetter than 1 mm a day"])

    def mean(row: Row) -> str:
        return relative_change(before["mean"], row["mean"])

    level = {
        way: percent(row["largest_relative_mean_change_of_a_field"])
        for way, row in fields["specific humidity"]["after"].items()
    }
    budget = result["net"]["max_error=1e-05"]
    sentences = [
        "Whatever the field and the control, "
        + (f"up to {outside:,}" if outside else "no")
        + " values leave the range of the original, and "
        + ("all" if min(kept) == 1 else f"at least {percent(min(kept))}")
        + " of the area that is dry, clear, overcast, or full or free of snow or ice comes back "
        "exactly so.",
        f"SZ3 at the same bounds takes {min(times):.2g} to {max(times):.2g} times the bytes, "
        f"keeps {percent(min(lost))} to {percent(max(lost))} of such areas, and makes up to "
        f"{negative:,} values of precipitation negative and {overfull:,} of cloud cover larger "
        "than 1.",
        "But cells may join such areas: at a bound of 0.1 mm an hour, the dry area grows from "
        f"{percent(before['exactly']['0'])} to {percent(coarse['exactly']['0'])}, and what is "
        f"wetter than 1 mm a day, less than that bound, shrinks from {wet(before)} to "
        f"{wet(coarse)}; at 0.01 mm it is {wet(fine)}, with `max_error_relative=0.05` "
        f"{wet(relative)}. Count above thresholds that are far above the bound, or relative ones.",
        "A twentieth of a bound can be much beside a small mean: that of precipitation changes "
        f"by {mean(coarse)} at 0.1 mm, by {mean(fine)} at 0.01 mm and by {mean(rmse)} with "
        "`target_rmse=5e-5`, and the mean humidity of a dry level by up to "
        f"{level['max_error=0.0001']} with `max_error=1e-4`, but none's by more than "
        f"{level['max_error_relative=0.01']} with `max_error_relative=0.01`; `max_mean_error` "
        "asks for less.",
        "Precipitation minus evaporation of the box, summed over the day, goes from "
        f"{number(budget['before'])} to {number(budget['after'])} mm at 0.01 mm an hour.",
        f"Of extremes, {before['cells_above']:,} values above 5 mm an hour become "
        f"{fine['cells_above']:,} at 0.01 mm, {coarse['cells_above']:,} at 0.1 mm and "
        f"{rmse['cells_above']:,} with `target_rmse=5e-5`.",
    ]
    return "\n".join(sentences) + "\n"


def ways(fields: dict[str, Row], sign: str) -> list[tuple[str, str, Row]]:
    """Field, control and numbers of the codec whose labels have that sign."""
    return [
        (name, way, row)
        for name, part in fields.items()
        for way, row in part["after"].items()
        if sign in way
    ]


def field_table(part: Row) -> str:
    before, after = part["before"], list(part["after"].values())
    out: list[list[str]] = []

    def both(label: str, show: Callable[[Row], str]) -> None:
        out.append([label, show(before), *map(show, after)])

    def loss(label: str, show: Callable[[Row], str]) -> None:
        out.append([label, "", *map(show, after)])

    def mean(label: str, key: str) -> None:
        out.append([label, number(before[key]), *(changed(before[key], r[key]) for r in after)])

    unit = f" {part['unit']}" if part["unit"] else ""
    comma = f",{unit}" if unit else ""
    loss("ratio to float32", lambda r: f"{r['ratio']:,.3g} ×")
    mean(f"mean by area{comma}", "mean")
    if "rms_error_of_total" in after[0] or "column_mean" in before:
        one = "a time and level" if "column_mean" in before else "one time"
        loss(
            f"mean of {one}: largest change{comma}",
            lambda r: in_digits(r["largest_mean_change_of_a_field"]),
        )
        loss(
            "… of that mean itself, at most",
            lambda r: percent(r["largest_relative_mean_change_of_a_field"]),
        )
    loss("… of bound or target, at most", lambda r: percent(r["mean_change_as_share_of_control"]))
    if "rms_error_of_total" in after[0]:
        loss(
            f"sum over the times at a cell: RMS error{comma}",
            lambda r: f"{in_digits(r['rms_error_of_total'])} of {in_digits(r['mean_total'])}",
        )
        loss(f"… largest error{comma}", lambda r: in_digits(r["largest_error_of_total"]))
    if "column_mean" in before:
        mean(f"sum over the levels, mean{comma}", "column_mean")
        loss(
            "… largest change at a cell",
            lambda r: percent(r["largest_relative_error_of_column"]),
        )
    both(f"highest value{comma}", lambda r: number(r["maximum"]))
    both(f"99.9th percentile{comma}", lambda r: number(r["percentile_99_9"]))
    if part["high"] is not None:
        both(f"values above {part['high']:,g}{unit}", lambda r: f"{r['cells_above']:,}")
    for value in before["exactly"]:
        shown = f"{float(value) * part['per_unit_of_the_file']:,g}"
        both(f"area of exactly {shown}{unit}", lambda r, v=value: percent(r["exactly"][v]))
        loss("… of it, kept so", lambda r, v=value: percent(r["exactly_kept"][v]))
    for name in before["beyond"]:
        both(f"area {name}", lambda r, name=name: percent(r["beyond"][name]))
    lowest = "negative values" if "0" in before["exactly"] else "values below the original's lowest"
    loss(lowest, lambda r: f"{r['below_minimum']:,}")
    loss("values above its highest", lambda r: f"{r['above_maximum']:,}")
    if not before["negative"] and lowest != "negative values":
        loss("negative values", lambda r: f"{r['negative']:,}")
    return table(["", "before", *map(heading, part["after"])], out)


def budget_table(net: dict[str, Row]) -> str:
    rows = list(net.values())
    return table(
        ["", "before", *map(heading, net)],
        [
            [
                "mean by area, mm",
                number(rows[0]["before"]),
                *(changed(r["before"], r["after"]) for r in rows),
            ],
            [
                "at a cell: RMS, and of its error, mm",
                in_digits(rows[0]["rms_at_a_cell"]),
                *(in_digits(r["rms_error_at_a_cell"]) for r in rows),
            ],
            [
                "… largest error, mm",
                "",
                *(in_digits(r["largest_error_at_a_cell"]) for r in rows),
            ],
        ],
    )


def changed(before: float, after: float) -> str:
    return f"{number(after)} ({relative_change(before, after)})"


def relative_change(before: float, after: float) -> str:
    change = 100 * (after - before) / abs(before)
    return "±0.00 %" if abs(change) < 0.005 else f"{change:+.2g} %".replace("-", "−")


def heading(label: str) -> str:
    short = label.replace("e-0", "e-").replace("0.0001", "1e-4")
    return f"`{short}`" if "=" in short else short
