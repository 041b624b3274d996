"""The training curve: loss and validation error against time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def training_curve(log: str | Path, units: str = "") -> Figure:
    """Draw a training log.

    Parameters
    ----------
    log : path
        JSON lines as written by :func:`coinpp_xr.training.meta_learn`.
    units : str
        Of the data, for the axis of the validation RMSE.

    Returns
    -------
    Figure
        Save it with ``figure.savefig("curve.png")``.

    Raises
    ------
    ValueError
        If the log holds no validation.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = []
    for line in Path(log).read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:  # a run that was killed may leave half a line
            continue
    # After a crash a resumed run repeats some steps: the later record counts.
    by_step = {r["step"]: r for r in records if r["event"] == "validation"}
    if not by_step:
        raise ValueError(f"{log} holds no validation yet")
    steps = sorted(by_step)
    seconds, loss, rmse = (
        np.array([by_step[step][name] for step in steps])
        for name in ("seconds", "loss", "validation_rmse")
    )
    spikes = np.interp([r["step"] for r in records if r["event"] == "spike"], steps, seconds)

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot(xlabel="time (s)")
    left.set_ylabel("training loss", color="tab:blue")
    left.semilogy(seconds, loss, ".-", color="tab:blue")
    right = left.twinx()
    right.set_ylabel(f"validation RMSE ({units})" if units else "validation RMSE", color="tab:red")
    right.plot(seconds, rmse, ".-", color="tab:red")
    for spike in spikes:
        left.axvline(spike, color="0.6", linewidth=0.8)
    left.set_title(f"{steps[-1]} steps, spikes (grey): {len(spikes)}")
    return figure
