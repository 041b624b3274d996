"""The table of fields without loss in docs/choose.md, from ``results/lossless.json``."""

from __future__ import annotations

from typing import Any

from common import table

EFFORTS = ("fast", "default", "best")
PEERS = {
    "PCodec": "PCodec",
    "PCodec, whole numbers": "PCodec*",
    "Blosc, whole numbers": "Blosc*",
    "JPEG XL, whole numbers": "JPEG XL*",
}


def lossless_table(result: dict[str, Any]) -> str:
    """How many times smaller every variable gets, and what that is beside the best of others."""
    rows = []
    for row in result["rows"]:
        own, others = row["bytes"]["default"], [row["bytes"][name] for name in PEERS]
        shape = " × ".join(map(str, row["shape"]))
        ratios = (row["nbytes"] / row["bytes"][name] for name in (*EFFORTS, *PEERS))
        stem, name = row["name"].split()
        rows.append(
            [name, f"{stem}, {shape}", *(f"{ratio:.1f}" for ratio in ratios),
             f"{min(others) / own:.2f}"]
        )  # fmt: skip
    header = ["variable", "of", *EFFORTS, *PEERS.values(), "others over ours"]
    means = {name: result["summary"][f"default beside {name}"] for name in ("PCodec",)}
    best = result["summary"]["default beside best of all others"]
    return (
        f"How many times smaller than float32, without loss. At the default effort that is "
        f"{means['PCodec']['mean']:.2f} times smaller than PCodec on the same floats (geometric "
        f"mean; never less than {means['PCodec']['least']:.2f}), and {best['mean']:.2f} times "
        f"smaller than the best of the others (at least {best['least']:.2f}) even where those are "
        "given the whole numbers (*) that only a search finds. Each at its best settings "
        "([results](../benchmarks/results/lossless.json), `python benchmarks/lossless.py`):\n\n"
        + table(header, rows)
    )
