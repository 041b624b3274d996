"""What a model of one's own archive saves, from ``results/own_archive.json``."""

from __future__ import annotations

from typing import Any

from common import table

NAMES = {
    "t2m": "2 m temperature",
    "msl": "sea level pressure",
    "u10": "u at 10 m",
    "v10": "v at 10 m",
}
UNITS = {"t2m": "K", "msl": "Pa", "u10": "m/s", "v10": "m/s"}


def own_archive(result: dict[str, Any]) -> str:
    globes, rows = result["globes"], []
    for case in result["cases"]:
        unit = UNITS[case["variable"]]
        told = [f"{NAMES[case['variable']]}, ± {case['bound']:.2g} {unit}"]
        told += [f"{case['universal']:,.0f}"]
        if "own" not in case:
            rows.append([*told, "—", "—", "—", "none pays"])
            continue
        total = case["own"] + case["model"] / globes
        saved = 100 * (1 - total / case["universal"])
        rows.append(
            [
                *told, f"{case['mean field alone']:,.0f}", f"{case['own']:,.0f}",
                f"{case['model']:,}", f"{saved:.1f}".replace("-", "−"),
            ]
        )  # fmt: skip
    heads = [
        "variable, bound", "bytes a globe, no model", "with its mean field", "and a network",
        "bytes of the model", f"saved at {globes:,} globes, %",
    ]  # fmt: skip
    machine, sirens = result["machine"], []
    for case in result["SIREN"]:
        field, siren, none = case["mean field"], case["SIREN"], case["none"]
        sirens.append(
            f"{NAMES[case['variable']]}: {none['nbytes per globe']:,.0f} bytes a globe without, "
            f"{field['nbytes per globe']:,.0f} with a mean field of {field['nbytes']:,} bytes, "
            f"{siren['nbytes per globe']:,.0f} with a SIREN of {siren['nbytes']:,} "
            f"({case['depth']} × {case['width']}, {case['steps']:,} steps)"
        )
    told = (
        f"Twelve snapshots of ERA5 at 1° within three and a half days: trained on the first "
        f"{result['trained on']} for {result['minutes']:g} minute each, measured on the others, "
        "each a chunk of its own ([results](../benchmarks/results/own_archive.json), `python "
        f"benchmarks/own_archive.py`; {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['date']}). So few days share more than a year would.\n"
    )
    as_paper = (
        "A SIREN of the sphere's coordinates, as the paper would take for what fields share, is "
        f"no match for the mean field coded by the pyramid itself. {'; '.join(sirens)}.\n"
    )
    return "\n".join([told, table(heads, rows), as_paper])
