"""Tables of this package and other codecs, from ``results/against_others.json``."""

from __future__ import annotations

from typing import Any

from common import load, table
from native_tables import native_cases, native_summary

from coinpp_xr.peers import PEERS

PARTS = {
    "era5": "real ERA5 temperature, 46 × 90",
    "gcm": "simulation, 46 × 90",
    "era5_1deg": "real ERA5 at 1°",
}

# Codecs that a bound is made for, the others on a residual of ours or rounded beforehand.
BOUNDED = ("SZ3", "SZ3 3.4", "SPERR", "ZFP", "EBCC", "JPEG 2000 + residual")


def against_others() -> str:
    """One line per chunk and goal: this package, the best of the codecs, and how they compare."""
    result = load("against_others")
    rows = []
    for entry in result["tables"]:
        own, best = size_of(entry, "COIN++"), size_of(entry, entry["best_peer"])
        goal = f"±{entry['max_error']:g}" if entry["max_error"] else f"{entry['target_rmse']:g}"
        kind = "every value" if entry["max_error"] else "RMSE"
        rows.append(
            [
                entry["chunk"],
                f"{kind} {goal} {entry['unit']}".strip(),
                f"{own:,}",
                f"{entry['best_peer']} {best:,}",
                f"{best / own:.2f} ×",
            ]
        )
    header = ["chunk", "goal", "COIN++ bytes", "best of the others", "times smaller"]
    return table(header, rows)


def summary(goals: tuple[float, ...] | None = None) -> str:
    """Per kind of data and goal, the mean over chunks of how many times smaller.

    Parameters
    ----------
    goals : tuple of float, optional
        Those to list; what the others come to is said below. None for all.
    """
    result = load("against_others")
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for entry in result["tables"]:
        if "no model" in entry["chunk"]:
            continue
        name = PARTS[entry["part"]]
        if entry["part"] == "era5_1deg":
            name += f", {entry['chunk'].split()[1]}"
        limit = "max_error" if entry["max_error"] else "target_rmse"
        groups.setdefault((name, limit, f"{entry[limit]:g} {entry['unit']}"), []).append(entry)
    rows, shares = [], []
    for (name, limit, goal), entries in groups.items():
        own = sum(size_of(e, "COIN++") for e in entries)
        raw = sum(4 * size_in_values(e) for e in entries)
        best = sum(size_of(e, e["best_peer"]) for e in entries)
        made_for_bounds = "–"
        if limit == "max_error":
            theirs = [
                min(r["nbytes"] for r in e["rows"] if r["codec"] in BOUNDED and "nbytes" in r)
                for e in entries
            ]
            made_for_bounds = f"{sum(theirs) / own:.2f} ×"
        peers = " / ".join(sorted({e["best_peer"] for e in entries}))
        cells = [name, f"{limit}={goal}", f"{raw / own:.1f} ×", f"{best / own:.2f} ×", peers]
        shares.append((best / own, f"{name}, {limit}={goal}, against {peers}"))
        if goals is None or entries[0][limit] in goals:
            rows.append([*cells, made_for_bounds])
    header = [
        "data", "goal", "ratio to float32", "than the best other", "which is", "than SZ3 … EBCC",
    ]  # fmt: skip
    names = measured_peers(result)
    text = (
        f"How many times smaller than other codecs at their best settings, {len(names)} of them: "
        f"{', '.join(names[:-1])} and {names[-1]} (fewer on large chunks; "
        "HEVC-intra was not installed; *SZ3 … EBCC* are those that keep a bound by themselves, and "
        "JPEG 2000 with a residual). Real ERA5 at 46 × 90 in two halves of six globes, each "
        "with the other as the model's reference (constants of the coder were chosen with these in "
        "sight); "
        "at 1° nothing was learned from ERA5 t2m of that resolution:\n\n" + table(header, rows)
    )
    if goals is None:
        return text
    (least, where), (most, there) = min(shares), max(shares)
    return (
        f"{text}\nOf all {len(shares)} goals, from {least:.2f} × ({where}) to {most:.1f} × "
        f"({there}): [every goal, chunk and codec](docs/comparison.md).\n"
    )


def comparison_page() -> str:
    """Every chunk and goal with every codec."""
    result = load("against_others")
    parts = [
        "# This package and other codecs\n",
        "Bytes of the same chunk at the same error, every codec at the best of its settings that "
        "keeps the goal; measured by `benchmarks/against_others.py`, written by "
        "`benchmarks/tables.py`. " + result["metric"][0].upper() + result["metric"][1:] + ".\n",
        "Where we lose: in speed, by two orders of magnitude to SZ3, ZFP and PCodec. The margin is "
        "smallest at fine bounds on rough fields, where noise decides. Image codecs get a residual "
        "packed by PCodec under a bound. EOFs are those of the chunk itself, counted with it. "
        "Masks and shapes are not counted for others.\n",
        "## Native resolution\n",
        native_summary(load("native")).replace("](benchmarks/", "](../benchmarks/"),
        native_cases(load("native")),
        "## In short\n",
        summary(),
        "## All chunks\n",
        against_others(),
        "## All codecs\n",
    ]
    for entry in result["tables"]:
        goal = f"max_error={entry['max_error']:g}" if entry["max_error"] else ""
        goal = goal or f"target_rmse={entry['target_rmse']:g}"
        rows = [
            [
                row["codec"], row.get("setting", row.get("note", "")),
                *(
                    f"{row[name]:{form}}" if name in row else "–"
                    for name, form in (
                        ("nbytes", ","), ("ratio", ".2f"), ("max_error", ".3g"), ("rmse", ".3g"),
                        ("encode_mb_per_s", ".3g"), ("decode_mb_per_s", ".3g"),
                    )
                ),
            ]
            for row in entry["rows"]
        ]  # fmt: skip
        header = [
            "codec", "setting", "bytes", "ratio", "max error", "RMSE", "encode MB/s", "decode MB/s",
        ]  # fmt: skip
        parts += [f"### {entry['chunk']}, {goal} {entry['unit']}\n", table(header, rows)]
    return "\n".join(parts)


def measured_peers(result: dict[str, Any]) -> list[str]:
    """Other codecs with a size in any of the tables, in the package's order."""
    rows = [row for entry in result["tables"] for row in entry["rows"] if "nbytes" in row]
    known = {row["codec"].removesuffix(" + residual") for row in rows}
    return [name.removesuffix(" + Zstd") for name in PEERS if name in known]


def size_of(entry: dict[str, Any], codec: str) -> int:
    return next(row["nbytes"] for row in entry["rows"] if row["codec"] == codec)


def size_in_values(entry: dict[str, Any]) -> int:
    own = next(row for row in entry["rows"] if row["codec"] == "COIN++")
    return round(own["ratio"] * own["nbytes"] / 4)
