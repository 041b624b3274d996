"""Figures from results: ours as lines, published points as hollow marks of the same colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

# Colour-blind safe (Wong 2011).
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999", "#000000")
_PUBLISHED = " (published)"


def draw(path: Path, record: dict[str, Any], pictures: list[list[tuple[str, Any]]]) -> None:
    """Write a PNG of a result's panels, or of its rows of pictures.

    Parameters
    ----------
    path : Path
    record : dict
        As :meth:`Result.record` makes it.
    pictures : list of rows of (title, array)
    """
    figure = _mosaic(pictures) if pictures else _panels(record["panels"])
    figure.suptitle(record["title"], fontsize=11)
    note = "; ".join(record["data"].values())
    figure.text(0.5, 0.002, _wrapped(note), ha="center", va="bottom", fontsize=6, color="#555555")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _wrapped(note: str, width: int = 170) -> str:
    from textwrap import fill

    return fill(note, width)


def _panels(panels: list[dict[str, Any]]) -> Any:
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(5.2 * columns, 3.6 * rows + 0.5), squeeze=False
    )
    for axis, panel in zip(axes.flat, panels, strict=False):
        _panel(axis, panel)
    for axis in axes.flat[len(panels) :]:
        axis.axis("off")
    figure.tight_layout(rect=(0, 0.05, 1, 0.97))
    return figure


def _panel(axis: Axes, panel: dict[str, Any]) -> None:
    colours: dict[str, str] = {}
    bars = any(isinstance(x, str) for series in panel["series"] for x in series["x"])
    for series in panel["series"]:
        name = series["label"].removesuffix(_PUBLISHED)
        colour = colours.setdefault(name, _COLOURS[len(colours) % len(_COLOURS)])
        (_bars if bars else _curve)(axis, series, colour)
    axis.set_title(panel["title"], fontsize=9)
    axis.set_xlabel(panel["x_label"], fontsize=8)
    axis.set_ylabel(panel["y_label"], fontsize=8)
    if panel["log_x"]:
        axis.set_xscale("log")
    if panel["log_y"]:
        axis.set_yscale("log")
    if panel["lowest"] is not None:
        axis.set_ylim(bottom=panel["lowest"])
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=6, framealpha=0.8)


def _curve(axis: Axes, series: dict[str, Any], colour: str) -> None:
    points = [(x, y) for x, y in zip(series["x"], series["y"], strict=True) if y is not None]
    if not points:
        return
    x, y = np.array(points, dtype=float).T
    if series["published"]:
        axis.plot(x, y, "o--", color=colour, mfc="none", lw=0.7, ms=4, label=series["label"])
        return
    axis.plot(x, y, ".-", color=colour, lw=1.4, ms=5, label=series["label"])
    if series["spread"] is not None and len(points) == len(series["y"]):
        spread = np.array(series["spread"], dtype=float)
        axis.fill_between(x, y - spread, y + spread, color=colour, alpha=0.2, lw=0)


def _bars(axis: Axes, series: dict[str, Any], colour: str) -> None:
    hatch = "//" if series["published"] else None
    names = [str(x) for x in series["x"]]
    axis.barh(
        names, series["y"], color="white" if hatch else colour, edgecolor=colour, hatch=hatch,
        label=series["label"], xerr=series["spread"],
    )  # fmt: skip
    for name, value in zip(names, series["y"], strict=True):
        axis.annotate(
            f" {value:.3g}", (value, name), va="center", fontsize=6, xytext=(2, 0),
            textcoords="offset points",
        )  # fmt: skip


def _mosaic(rows: list[list[tuple[str, Any]]]) -> Any:
    columns = max(map(len, rows))
    figure, axes = plt.subplots(
        len(rows), columns, figsize=(1.55 * columns, 1.75 * len(rows) + 0.7), squeeze=False
    )
    for row, titled in zip(axes, rows, strict=True):
        for axis in row:
            axis.axis("off")
        for axis, (title, values) in zip(row, titled, strict=False):
            axis.imshow(np.clip(values, 0, 1), vmin=0, vmax=1, cmap="viridis")
            axis.set_title(title, fontsize=6)
    figure.tight_layout(rect=(0, 0.05, 1, 0.97))
    return figure
