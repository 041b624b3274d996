"""Tables of fields at native resolution, from ``results/native.json``.

python benchmarks/native_tables.py prints them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, prod
from typing import Any

import numpy as np
from common import load, table

EFFORTS = ("fast", "default", "best")
GROUPS = {
    "globes": "single globes, 0.25°",
    "rough": "masks, zeros, edges",
    "sequences": "sequences",
}
BEST, BEST_BUT = "times_smaller_than_best_peer", "times_smaller_than_best_peer_but_jpeg2000"


def rmse_table(result: dict[str, Any]) -> str:
    """One line per field and target, from ``results/native_rmse.json``."""
    rows = []
    for case in result["cases"]:
        by_codec = {row["codec"]: row for row in case["rows"]}
        own, quick = by_codec["COIN++ default"], by_codec["COIN++ fast"]
        others = [f"{by_codec[name]['nbytes']:,}" for name in ("SPERR", "JPEG 2000", "SZ3")]
        rows.append(
            [
                f"{case['field']}, {100 * case['share of spread']:g} %",
                f"{quick['nbytes']:,}", f"{own['nbytes']:,}", *others,
                f"{own['times_smaller_than_best_peer']:.2f} ×",
                f"{own['encode_seconds']:.1f} s", f"{1000 * own['decode_seconds']:.0f} ms",
            ]
        )  # fmt: skip
    heads = [
        "field (share of its spread)", "fast, bytes", "default, bytes", "SPERR", "JPEG 2000", "SZ3",
        "default, than the smallest of these", "encoding", "decoding",
    ]  # fmt: skip
    means, machine = result["times smaller than best peer"], result["machine"]
    times = {
        (effort, step): [
            row[f"{step}_time_of_sperr"]
            for case in result["cases"]
            for row in case["rows"]
            if row["codec"] == f"COIN++ {effort}" and case["half"] != "together"
        ]
        for effort in ("fast", "default")
        for step in ("encode", "decode")
    }

    def usual(effort: str, step: str) -> str:
        return f"{np.median(times[effort, step]):.1f}"

    def most(effort: str, step: str) -> str:
        return f"{max(times[effort, step]):.0f}"

    told = (
        "Fields in wavelets or waves, and with gaps at fine errors, such as `t_pv`, through the "
        "pyramid. "
        "Geometric mean of what `default` takes: "
        f"{means['default, tuned']} × smaller than the smallest of the others on "
        "the first three fields, which constants were chosen with, "
        f"{means['default, held out']} × on the next three, {means['default, together']} × on "
        f"sequences and levels; `fast`: {means['fast, tuned']}, {means['fast, held out']} and "
        f"{means['fast, together']} ×. In the median of single globes `default` took "
        f"{usual('default', 'encode')} times as long as SPERR for encoding and "
        f"{usual('default', 'decode')} for decoding, `fast` {usual('fast', 'encode')} and "
        f"{usual('fast', 'decode')}; `default` at most {most('default', 'encode')} and "
        f"{most('default', 'decode')} times ([results](../benchmarks/results/native_rmse.json), "
        f"`python benchmarks/native_rmse.py`; {machine['cores']} cores, {machine['cpu']}, "
        f"{machine['date']}). EBCC was left out.\n"
    )
    return told + "\n" + table(heads, rows)


def transform_coders(result: dict[str, Any]) -> str:
    """Why there are two, from ``results/transform_coders.json``."""
    times, machine = result["subbands, times smaller than"], result["machine"]
    return (
        "Globes in subbands and images, volumes and sound in patches are each the shorter way for "
        "their own data: at equal RMSE, globes of 0.25° take "
        f"{times['globes, patches']} times fewer bytes in subbands than in patches (and "
        f"{times['globes, JPEG XL']} times fewer than by JPEG XL), photographs and heads "
        f"{100 / times['images, patches'] - 100:.0f} and "
        f"{100 / times['volumes, patches'] - 100:.0f} % more. A filter of neighbours behind the "
        "subbands, fitted to each field, would save "
        f"{100 * times['filter saves, mean']:.1f} % on average, before its weights are told: there "
        "is none ([results](../benchmarks/results/transform_coders.json), "
        f"`python benchmarks/transform_coders.py`; {machine['date']}).\n"
    )


def native_summary(result: dict[str, Any]) -> str:
    """One line per group, half and effort."""
    rows = []
    for line in result["summary"]:
        half = "" if line["half"] == "all" else f", {line['half']}"
        rows.append(
            [
                GROUPS[line["group"]] + half,
                line["effort"],
                str(line["cases"]),
                *(spread(line, name, " ×") for name in (BEST, BEST_BUT)),
                str(line["losses"]),
                *(speed(line, step) for step in ("encode", "decode")),
                *(mean(line, f"{step}_time_of_sz3") for step in ("encode", "decode")),
            ]
        )
    header = [
        "fields", "effort", "cases", "smaller than the best other", "… but JPEG 2000", "losses",
        "encode MB/s", "decode MB/s", "encode time of SZ3's", "decode time of SZ3's",
    ]  # fmt: skip
    others = dict.fromkeys(
        row["codec"]
        for case in result["cases"]
        for row in case["rows"]
        if "effort" not in row and "nbytes" in row
    )
    return (
        f"How many times smaller than the best of {', '.join(others)}, each at its best settings, "
        "at equal pointwise bounds: geometric mean over all fields and bounds, and the least. "
        "Masks of missing cells are counted here, not for the others. *Tuned* fields were in sight "
        "when constants of the coder were chosen, *held out* ones not. Speeds in MB of float32 a "
        "second, in brackets those of SZ3 in the same run; times as multiples of its time, "
        "geometric means ([results](benchmarks/results/native.json)):\n\n" + table(header, rows)
    )


def kind_of_grid(case: dict[str, Any]) -> str:
    """What tells fast grids from slow ones: how many cells and fields a chunk has."""
    *batch, n_lat, n_lon = case["shape"]
    fields, cells = prod(batch), n_lat * n_lon
    if cells > 500_000:
        return "one globe of 0.25°" + (", masks, zeros, edges" if case["group"] == "rough" else "")
    if cells > 20_000:
        return f"{'one globe' if fields == 1 else 'sequences'} of 0.4° to 1°"
    if (n_lat, n_lon) == (46, 90):
        return "46 × 90, sequences"
    return "other sequences of small grids"


def efforts(result: dict[str, Any]) -> str:
    """One line per kind of grid and effort: ratio and speed."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for case in result["cases"]:
        kinds.setdefault(kind_of_grid(case), []).append(case)
    rows = []
    for kind, cases in kinds.items():
        for effort in EFFORTS:
            some = [
                (case, row) for case in cases for row in case["rows"] if row.get("effort") == effort
            ]
            # All efforts on the same cases, or the lines of a kind would not compare.
            if len(some) < len(cases):
                continue
            ratios = [row["ratio"] for _, row in some]
            default = [
                other["nbytes"]
                for case, _ in some
                for other in case["rows"]
                if other.get("effort") == "default"
            ]
            smaller = [
                before / row["nbytes"] for before, (_, row) in zip(default, some, strict=True)
            ]
            megabytes = sum(case["float32_bytes"] for case, _ in some) / 1e6
            speeds = [
                megabytes / sum(row[f"{step}_seconds"] for _, row in some)
                for step in ("encode", "decode")
            ]
            rows.append(
                [
                    kind,
                    effort,
                    str(len(some)),
                    f"{geometric_mean(ratios):.1f} ×",
                    f"{geometric_mean(smaller):.3f} ×",
                    *(f"{number:.3g}" for number in speeds),
                ]
            )
    header = [
        "grid", "effort", "cases", "ratio to float32", "smaller than the default",
        "encode MB/s", "decode MB/s",
    ]  # fmt: skip
    machine = result["machine"]
    return (
        f"Measured on {machine['cores']} cores ({machine['date']}), without a model, on the fields "
        "and bounds of [the comparison](comparison.md#native-resolution) "
        "([results](../benchmarks/results/native.json)):\n\n" + table(header, rows)
    )


def geometric_mean(numbers: Sequence[float]) -> float:
    return exp(sum(map(log, numbers)) / len(numbers))


def native_cases(result: dict[str, Any]) -> str:
    """One line per field and bound; what is larger than another codec's is in bold."""
    efforts = [
        effort
        for effort in EFFORTS
        if any(row.get("effort") == effort for case in result["cases"] for row in case["rows"])
    ]
    rows = []
    for case in result["cases"]:
        by_codec = {row["codec"]: row for row in case["rows"]}
        rows.append(
            [
                case["field"],
                case["half"],
                f"{case['max_error']:g} {case['unit']}".removesuffix(" 1").strip(),
                *(sized(by_codec, case[key]) for key in ("best_peer", "best_peer_but_jpeg2000")),
                *(compared(by_codec.get(f"COIN++ {effort}", {})) for effort in efforts),
            ]
        )
    header = ["field", "half", "bound", "best other, bytes", "best but JPEG 2000, bytes", *efforts]
    return (
        "Every field and bound: bytes, and in brackets how many times smaller than the best of the "
        "others, and than the best but JPEG 2000; **larger than the best other**:\n\n"
        + table(header, rows)
    )


def sized(by_codec: dict[str, dict[str, Any]], codec: str | None) -> str:
    return f"{codec} {by_codec[codec]['nbytes']:,}" if codec else "–"


def compared(row: dict[str, Any]) -> str:
    """Bytes of one effort, and the two ratios."""
    if "nbytes" not in row:
        return "–"
    ratios = [row[name] for name in (BEST, BEST_BUT) if name in row]
    text = f"{row['nbytes']:,}"
    if ratios:
        text += f" ({' / '.join(f'{ratio:.3f}' for ratio in ratios)} ×)"
    return f"**{text}**" if ratios and ratios[0] < 1 else text


def spread(line: dict[str, Any], name: str, unit: str) -> str:
    if name not in line:
        return "–"
    return f"{line[name]['geometric_mean']:.3f}{unit}, least {line[name]['minimum']:.3f}{unit}"


def mean(line: dict[str, Any], name: str) -> str:
    return f"{line[name]['geometric_mean']:.3g} ×" if name in line else "–"


def speed(line: dict[str, Any], step: str) -> str:
    beside = line.get(f"sz3_{step}_mb_per_s")
    return f"{line[f'{step}_mb_per_s']:.3g}" + (f" ({beside:.0f})" if beside else "")


if __name__ == "__main__":
    found = load("native")
    print("\n".join([native_summary(found), native_cases(found)]))
