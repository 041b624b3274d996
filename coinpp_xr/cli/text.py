"""What commands print."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import typer

from coinpp_xr.text_tables import Printable, printable


def say(text: str, *, err: bool = False) -> None:
    """Print a text, which may be several lines; what files hold stays without effect."""
    typer.echo(printable(text, keep="\n"), err=err)


def tell(line: str) -> None:
    """Print one line beside the results."""
    say(line.replace("\n", "\\n"), err=True)


def print_report(report: Any) -> None:
    """Print what rich can show."""
    from rich.console import Console

    Console(highlight=False).print(Printable(report))


@contextmanager
def safe_warnings() -> Iterator[None]:
    """Let Python print warnings as it does, without control characters of files."""
    usual = warnings.formatwarning

    def formatted(*warned: Any, **more: Any) -> str:
        return printable(usual(*warned, **more), keep="\n")

    warnings.formatwarning = formatted
    try:
        yield
    finally:
        warnings.formatwarning = usual


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns."""
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
