"""What commands print."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from coinpp_xr.models import Model


def tell(line: str) -> None:
    typer.echo(line, err=True)


def print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns. Control characters, which a model's card may hold, are left out."""
    cells = [["".join(filter(str.isprintable, cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


def network_line(model: Model) -> str:
    siren, tail = model.siren, model.tail
    parts = [f"{model.latent_dim} latents", f"{siren.depth} x {siren.width} SIREN"]
    if tail is not None:
        parts[-1] += f" with {siren.latent_dim} of them"
        kind = "cosines" if model.box is not None else f"degree {tail.tail.degree}"
        parts.append(f"{tail.tail.latent_dim} in a linear tail of {kind}")
    return ", ".join([*parts, f"{model.network.parameter_count:,} parameters"])


def duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
