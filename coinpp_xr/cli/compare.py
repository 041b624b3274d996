"""``coinpp compare``: other codecs at the same error."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coinpp_xr.cli.text import print_report, say


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
        str, typer.Option(metavar="MODEL", help="A model's name or file, universal, or none.")
    ] = "t2m-46x90",
    chunk: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many globes to take, at most.")
    ] = 64,
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="Take all of these globes.  [default: of more than 270,000 values, the first "
            "globes and the middle of their rows and columns]",
        ),
    ] = False,
    curves: Annotated[
        bool, typer.Option("--curves", help="Look at several errors, for the plot.")
    ] = False,
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
    --max-error or --target-rmse. What is not installed is left out and named. Ctrl-C ends it with a
    table of what is done.

    \b
    Examples:
      coinpp compare era5.nc --target-rmse 0.5
      coinpp compare era5.nc --variable t2m --max-error 0.5 --peers sz3,zfp
      coinpp compare era5.nc --target-rmse 0.5 --save table.html --save sizes.png
      coinpp compare era5.nc --target-rmse 0.5 --curves --save curves.png
    """
    for path in save or []:
        if path.suffix not in (".json", ".html", ".png"):
            raise typer.BadParameter(f"{path}: give a name that ends in .json, .html or .png")
    from coinpp_xr.comparison import INTERRUPTED
    from coinpp_xr.comparison import compare as compare_codecs
    from coinpp_xr.data.fields import open_fields
    from coinpp_xr.data.sources import errors_name

    with open_fields(source, variable) as array, errors_name(source):
        comparison = compare_codecs(
            array, max_error=max_error, target_rmse=target_rmse,
            names=peers.split(",") if peers else None, model=model, chunk=chunk, curves=curves,
            whole=whole,
        )  # fmt: skip
    print_report(comparison)
    for path in save or []:
        say(f"wrote {comparison.save(path)}")
    if any(row.note == INTERRUPTED for row in comparison.rows):
        raise typer.Exit(130)
