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
    mean, best = (
        result["summary"][f"default beside {name}"] for name in ("PCodec", "best of all others")
    )
    floats = result["summary_of_never_quantized"]["default beside best of all others"]
    seconds = {e: result["summary"][f"{e}, seconds beside SZ3 at half a step"] for e in EFFORTS}
    times = ", ".join(
        f"{one['encoding']:.1f} and {one['decoding']:.1f} for {effort}"
        for effort, one in seconds.items()
    )
    return (
        "How many times smaller than float32, without loss. At the default effort that is "
        f"{mean['mean']:.2f} times smaller than PCodec on the same floats (geometric mean; never "
        f"less than {mean['least']:.2f}), and {best['mean']:.2f} times smaller than the best of "
        f"the others (at least {best['least']:.2f}) even where those are given the whole numbers "
        "(*) that only a search finds. Each at its best settings "
        "([results](../benchmarks/results/lossless.json), `python benchmarks/lossless.py`). "
        "Encoding and decoding take so many times the seconds of SZ3 under a bound of half a step "
        "(of fields with 100,000 values and more, geometric means, two cores): "
        f"{times}.\n\n"
        + _table(result["rows"], PEERS, quantized=True)
        + f"\nWhat was never quantized, {floats['mean']:.2f} times smaller than the best of the "
        f'others (at least {floats["least"]:.2f}); `effort="fast"` leaves that to byte planes and '
        "Zstandard:\n\n"
        + _table(result["rows"], {"PCodec": "PCodec", "Blosc": "Blosc"}, quantized=False)
    )


def _table(rows: list[dict[str, Any]], peers: dict[str, str], *, quantized: bool) -> str:
    lines = []
    for row in rows:
        if row["quantized"] != quantized:
            continue
        own, others = row["bytes"]["default"], [row["bytes"][name] for name in peers]
        shape = " × ".join(map(str, row["shape"]))
        ratios = (row["nbytes"] / row["bytes"][name] for name in (*EFFORTS, *peers))
        stem, name = row["name"].split()
        lines.append(
            [name, f"{stem}, {shape}", *(f"{ratio:.1f}" for ratio in ratios),
             f"{min(others) / own:.2f}"]
        )  # fmt: skip
    return table(["variable", "of", *EFFORTS, *peers.values(), "others over ours"], lines)
