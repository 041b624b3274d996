"""What an experiment leaves behind: numbers, curves, and a line on its data."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from coinpp_xr.files import write_atomically
from coinpp_xr.version import __version__

_PACKAGES = ("torch", "numpy", "constriction", "imagecodecs", "av")


@dataclass(frozen=True)
class Series:
    """One curve, or the bars of one kind.

    Parameters
    ----------
    label : str
    x, y : list of float
    spread : list of float, optional
        Standard deviation over seeds, or over items.
    published : bool
        Of the paper, not of this run.
    """

    label: str
    x: list[Any]
    y: list[float]
    spread: list[float] | None = None
    published: bool = False


@dataclass(frozen=True)
class Panel:
    """One plot of a figure.

    Parameters
    ----------
    title, x_label, y_label : str
    series : list of Series
    log_x, log_y : bool
    lowest : float, optional
        Of the y axis, where curves fall off a cliff.
    """

    title: str
    x_label: str
    y_label: str
    series: list[Series]
    log_x: bool = False
    log_y: bool = False
    lowest: float | None = None


@dataclass(frozen=True)
class Result:
    """Of one experiment.

    Parameters
    ----------
    data : dict
        Name of a study → what its data is and how it differs from the paper's.
    panels : list of Panel
    findings : dict
        Numbers that claims are judged by.
    seeds : list of int
    pictures : list of (title, float array (height, width[, 3])), rows of pictures
        Kept in the figure only.
    """

    data: dict[str, str]
    panels: list[Panel]
    findings: dict[str, Any]
    seeds: list[int]
    pictures: list[list[tuple[str, Any]]] = field(default_factory=list)

    def record(self, name: str, title: str, *, seconds: float) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "item": name,
            "title": title,
            "data": self.data,
            "seeds": self.seeds,
            "seconds": round(seconds, 1),
            "machine": machine(),
            "versions": versions(),
            "findings": _rounded(self.findings),
            "panels": [_rounded(asdict(panel)) for panel in self.panels],
        }


def write(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(record, indent=1) + "\n").encode())


def machine() -> dict[str, Any]:
    """The processor and how much of it there is."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        pass
    return {"processor": model, "cores": os.cpu_count()}


def versions() -> dict[str, str]:
    """Of this package and of those whose work shows in results."""
    found = {"coinpp-xr": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _rounded(value: Any) -> Any:
    """Numbers with five digits; what is not finite as null, which JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if abs(value) < float("inf") else None
    return value
