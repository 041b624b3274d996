"""``coinpp compare``: other codecs at the same error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinpp_xr.cli.sources import read_fields


def compare(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="A NetCDF, GRIB or Zarr file.", show_default=False),
    ],
    max_error: Annotated[
        float | None,
        typer.Option(metavar="E", help="Largest error of any value, in the variable's unit."),
    ] = None,
    target_rmse: Annotated[
        float | None, typer.Option(metavar="X", help="Area-weighted RMSE, in the variable's unit.")
    ] = None,
    variable: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Which variable.  [default: the first that can be compressed]"
        ),
    ] = None,
    peers: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Codecs to compare with, such as sz3,zfp.  [default: all but coin, which fits a "
            "network to every globe and takes minutes]",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A model's name or file, or none.")
    ] = "t2m-46x90",
    chunk: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many globes to take, at most.")
    ] = 64,
    save: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Write the table as .json or .html, or a plot as .png. Repeatable.",
        ),
    ] = None,
) -> None:
    """Compare codecs on your data at equal error.

    A chunk of globes is compressed with this and other codecs, each at the error asked for: give
    --max-error or --target-rmse. What is not installed is left out and named.

    \b
    Examples:
      coinpp compare era5.nc --target-rmse 0.5
      coinpp compare era5.nc --variable t2m --max-error 0.5 --peers sz3,zfp
      coinpp compare era5.nc --target-rmse 0.5 --save table.html --save curves.png
    """
    for path in save or []:
        if path.suffix not in (".json", ".html", ".png"):
            raise typer.BadParameter(f"{path}: give a name that ends in .json, .html or .png")
    from rich.console import Console

    from coinpp_xr.comparison import compare as compare_codecs
    from coinpp_xr.comparison_table import WIDTH

    drawn = any(path.suffix != ".json" for path in save or [])
    comparison = compare_codecs(
        read_fields(source, variable), max_error=max_error, target_rmse=target_rmse,
        names=peers.split(",") if peers else None, model=model, chunk=chunk, curves=drawn,
    )  # fmt: skip
    console = Console()
    Console(width=max(console.width, WIDTH)).print(comparison)
    for path in save or []:
        typer.echo(f"wrote {comparison.save(path)}")
