"""What training shows: progress, a summary, the curve."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import inf, log10
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coinpp_xr.cli.text import duration, print_columns, tell
from coinpp_xr.text_tables import printable

if TYPE_CHECKING:
    from coinpp_xr.models import Model

# Codecs for patches, by their number of axes.
_CODECS = {1: "AudioPatchCodec", 2: "ImagePatchCodec", 3: "VolumePatchCodec"}


@contextmanager
def progress(units: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows training records: as a live bar, or as lines where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    known: dict[str, Any] = {"spikes": 0}

    def learn(record: dict[str, Any]) -> str:
        """Take in a record; returns what to show."""
        if record["event"] == "deblocking":
            gains = ", ".join(f"{gain:+.2f}" for gain in record["gain_db"])
            return f"layers against blocking: step {record['step']}, {gains} dB"
        if record["event"] == "spike":
            known.update(step=record["step"], spikes=known["spikes"] + 1)
        else:
            known.update(record)
        parts = [f"step {known['step']} of {known.get('steps') or '?'}"]
        if "loss" in known:
            parts.append(f"loss {known['loss']:.3g}")
        if "validation_rmse" in known:
            parts.append(f"RMSE {known['validation_rmse']:.4g} {units}".rstrip())
            parts.append(f"PSNR {known['validation_psnr']:.1f} dB")
        parts.append(f"spikes {known['spikes']}")
        if known.get("steps") and known.get("seconds"):
            left = known["seconds"] / known["step"] * (known["steps"] - known["step"])
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    console = Console(stderr=True)
    if not console.is_terminal:

        def print_line(record: dict[str, Any]) -> None:
            line = learn(record)
            if record["event"] in ("validation", "deblocking"):
                tell(line)

        yield print_line
        return
    # A column of its own makes the text wrap in narrow terminals.
    text = TextColumn("{task.description}", markup=False, table_column=Column())
    with Progress(text, BarColumn(bar_width=20), console=console) as bar:
        task = bar.add_task("training", total=None)

        def redraw(record: dict[str, Any]) -> None:
            line = learn(record)
            done, total = known.get("step"), known.get("steps")
            bar.update(task, description=printable(line), completed=done, total=total)

        yield redraw


def print_summary(model: Model, path: Path) -> None:
    card, box = model.card, model.box
    scores = ", ".join(f"{rmse:g} ({rate})" for rate, rmse in card["validation_rmse"].items())
    trained_on, held_out = (
        f"{card[key]:,} {'items' if box is None else 'patches'}"
        for key in ("training_items", "validation_items")
    )
    decibels, codec = [], "COINppCodec"
    if box is not None:
        trained_on += f" of {card['patch']} from {card['sources']:,} items"
        # Features have a range of one.
        psnr = {
            rate: -20 * log10(rmse) if rmse > 0 else inf
            for rate, rmse in card["validation_rmse"].items()
        }
        text = ", ".join(f"{value:.2f} ({rate})" for rate, value in psnr.items())
        decibels, codec = [("held-out PSNR", f"{text} dB")], _CODECS[len(box.shape)]
    rows = [
        ("model", f"{model.name}, fingerprint {model.fingerprint}"),
        ("file", f"{path}, {path.stat().st_size:,} bytes"),
        ("network", model.outline),
        *(("tried", f"{rmse:g}: {label}") for label, rmse in card.get("candidates", {}).items()),
        ("trained on", f"{trained_on} in {duration(card['training_seconds'])}"),
        ("held-out RMSE", f"{scores} {model.units}".rstrip() + f"; {held_out}"),
        *decibels,
        ("use it", f'{codec}(model="{path}", bits=8)'),
        ("by name", f"coinpp models install {path}"),
    ]
    print_columns(rows)


def write_curve(log: Path, curve: Path | None, output: Path, units: str) -> None:
    if find_spec("matplotlib") is None:
        if curve is not None:
            tell("no curve: matplotlib is missing; install it with: pip install 'coinpp-xr[plot]'")
        return
    from coinpp_xr.curves import training_curve

    try:
        figure = training_curve(log, units)
    except (FileNotFoundError, ValueError):
        tell("no curve: training ended before its first validation")
        return
    path = curve or output.with_suffix(".curve.png")
    figure.savefig(path, dpi=150)
    print_columns([("training curve", str(path))])
