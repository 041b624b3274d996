"""Write the tables of README.md from the result files, or check that they are up to date.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
START, END = "<!-- results -->\n", "<!-- /results -->"


def load(name: str) -> dict[str, Any]:
    return json.loads((HERE / "results" / f"{name}.json").read_text())


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def shipped_model() -> str:
    result = load("shipped_model")
    rows = []
    for data, by_bits in result.items():
        if not isinstance(by_bits, list):
            continue
        rows += [
            [
                data,
                str(row["bits"]),
                f"{row['bits_per_point']:.4f}",
                f"{row['ratio']:,.0f} ×",
                f"{row['rmse']:.2f}",
                f"{row['max_error']:.1f}",
            ]
            for row in by_bits
            if row["bits"] in (4, 6, 8)
        ]
    header = ["data", "bits", "bits per cell", "ratio to float32", "RMSE °C", "max error °C"]
    size = result["model_bytes"] / 1e3
    return (
        f"The shipped model ({result['latents']} latents per globe, a file of {size:.0f} kB, which "
        "the ratios do not count); RMSE is area-weighted "
        "([results](benchmarks/results/shipped_model.json)):\n\n" + table(header, rows)
    )


def siren_vs_eof() -> str:
    result = load("siren_vs_eof")
    rows = [
        [
            row["recipe"],
            str(row["latents"]),
            f"{row['training_minutes']:.1f}",
            f"{row['rmse_K']:.3f}",
            f"{row['eof_rmse_K']:.3f}",
            f"{row['ratio_to_eof']:.3f}",
            f"{row['rmse_plain_K'] / row['eof_rmse_plain_K']:.3f}",
        ]
        for row in result["models"]
    ]
    header = [
        "recipe",
        "latents",
        "minutes",
        "RMSE K",
        "EOF truncation K",
        "ratio",
        "ratio, plain RMSE",
    ]
    return (
        "Unquantized networks against EOF truncation with as many components, on simulated months "
        "after the training data ([results](benchmarks/results/siren_vs_eof.json)). RMSE is "
        "area-weighted, as the training was; the last column counts all cells alike, the two pole "
        "rows included, where this data has 90 values in one point of the sphere:\n\n"
        + table(header, rows)
    )


def throughput() -> str:
    result = load("throughput")
    cores = result["machine"]["cores"]
    rows = [
        *(
            [f"encode, effort={effort!r}", f"{rate:,.0f}"]
            for effort, rate in result["encode_globes_per_second"].items()
        ),
        ["decode", f"{result['decode_globes_per_second']:,.0f}"],
    ]
    return (
        f"Speed on {cores} CPU cores, chunks of 64 globes "
        "([results](benchmarks/results/throughput.json)):\n\n"
        + table(["", "globes per second"], rows)
    )


def main() -> None:
    text = README.read_text()
    before, rest = text.split(START)
    _, after = rest.split(END)
    tables = "\n".join([shipped_model(), siren_vs_eof(), throughput()])
    new = f"{before}{START}\n{tables}\n{END}{after}"
    if "--check" in sys.argv:
        sys.exit(
            None if new == text else "README's tables are old: run python benchmarks/tables.py"
        )
    README.write_text(new)


if __name__ == "__main__":
    main()
