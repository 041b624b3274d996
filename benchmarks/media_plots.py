"""Rate and PSNR of images, speech and heads as plots, from the result files, for docs/media.md.

    python benchmarks/media_plots.py

Ours and the peers' as measured by images.py, audio.py and volumes.py, means over the same items;
peers only at rates that they reach on every item. Dashed: what the COIN++ paper published, on
other data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from media import OURS, at_rate

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"
# File, results, rate's name and unit, title, published codecs, what the published points are of.
PLOTS: list[tuple[str, str, str, str, str, tuple[str, ...], str]] = [
    (
        "kodak", "images", "bpp", "bits per pixel", "16 Kodak images",
        ("COIN", "COIN++", "JPEG2000", "BPG", "VTM"), "all 24 Kodak images",
    ),
    (
        "speech", "audio", "kbps", "kilobits per second", "Speech, clips of test-other",
        ("COIN++", "MP3"), "LibriSpeech test-clean",
    ),
    (
        "heads", "volumes", "bpp", "bits per voxel", "MRI heads",
        ("COIN++", "JPEG2000", "BPG"), "FastMRI",
    ),
]  # fmt: skip


def mean_curve(result: dict[str, Any], codec: str, rates: np.ndarray) -> np.ndarray:
    """NaN where an item has no file of that size."""
    curves = [by_codec[codec] for by_codec in result["peers"]["curves"].values()]
    values = [[at_rate(curve, rate) for rate in rates] for curve in curves]
    return np.array(values, dtype=float).mean(axis=0)


def draw(
    file: str, name: str, rate_name: str, unit: str, title: str, codecs: tuple[str, ...], other: str
) -> None:
    result = json.loads((HERE / "results" / f"{name}.json").read_text())
    known = result[rate_name]
    rates = np.geomspace(known[0], known[-1], 41)
    figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
    ours = np.mean(list(result["ours"].values()), axis=0)
    axes.plot(known, ours, "o-", color="black", linewidth=2.2, label=OURS, zorder=5)
    for number, codec in enumerate(next(iter(result["peers"]["curves"].values()))):
        values = mean_curve(result, codec, rates)
        if np.isfinite(values).any():
            axes.plot(rates, values, "-", color=f"C{number}", label=codec)
    low, high = known[0] / 1.15, known[-1] * 1.15
    lowest, highest = axes.get_ylim()
    for marker, codec in zip("^sDv", codecs, strict=False):
        x, y = np.array(result["published_by_the_paper"][codec]).T
        shown = np.flatnonzero((x >= low) & (x <= high))
        # One more on either side, so that lines reach the edges.
        x, y = (v[max(0, shown[0] - 1) : shown[-1] + 2] for v in (x, y))
        lowest = min(lowest, y[x >= low].min())
        axes.plot(
            x, y, "--", marker=marker, color="gray", markersize=4, linewidth=1,
            label=f"{codec}, published",
        )  # fmt: skip
    axes.set(xlabel=unit, ylabel="mean PSNR, dB", title=f"{title} (dashed: published, {other})")
    axes.title.set_fontsize(10)
    axes.set_xscale("log")
    axes.set(xlim=(low, high), ylim=(lowest - 0.5, highest + 0.5))
    axes.set_xticks(known, [f"{rate:g}" for rate in known])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8)
    IMAGES.mkdir(exist_ok=True)
    figure.savefig(IMAGES / f"{file}.png", dpi=110, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    for plot in PLOTS:
        if (HERE / "results" / f"{plot[1]}.json").exists():
            draw(*plot)


if __name__ == "__main__":
    main()
