"""The command line: ``coinpp`` with its commands, one module each.

Nothing heavy is imported before a command runs: help and typing errors answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from coinpp_xr.cli import (
    archive,
    compare,
    completion,
    doctor,
    files,
    models,
    reproduce,
    train,
)
from coinpp_xr.cli.text import safe_warnings, tell
from coinpp_xr.errors import ModelNotFoundError, UnsuitableBoundError
from coinpp_xr.version import __version__

# NotImplementedError and what torch raises (no such device, out of memory) are RuntimeErrors.
_EXPECTED_ERRORS = (
    ValueError,
    OSError,
    ModelNotFoundError,
    RuntimeError,
    ArithmeticError,
    ImportError,
    MemoryError,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# As the help lists them: stores first, there and back. Groups always come last.
app.command()(archive.archive)
app.command()(archive.verify)
app.command()(files.inspect)
app.command()(files.decompress)
app.command()(compare.compare)
app.command()(train.train)
app.add_typer(models.app, name="models")
app.command()(files.compress)
app.command()(reproduce.reproduce)
app.command()(doctor.doctor)
app.command()(completion.completion)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of this process.
    """
    completion.answer_shells()
    try:
        with safe_warnings():
            app(arguments, prog_name="coinpp")
    except _EXPECTED_ERRORS as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            message = f"{error.filename}: {error.strerror}"
        else:
            text = error.on_command_line if isinstance(error, UnsuitableBoundError) else str(error)
            message = " ".join(text.split()) or type(error).__name__
        tell(f"coinpp: {message}")
        sys.exit(1)


def _print_version(context: typer.Context, asked: bool) -> None:
    if asked and not context.resilient_parsing:  # a shell may only look for completions
        typer.echo(f"coinpp-xr {__version__}")
        raise typer.Exit


@app.callback()
def _coinpp(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """COIN++ neural compression for gridded climate data.

    NetCDF, GRIB or Zarr becomes a Zarr store that xr.open_zarr reads, with errors no larger than
    you allow. Each command has a help of its own: coinpp archive --help.

    \b
    Examples:
      coinpp compare era5.nc --target-rmse 0.5
      coinpp archive "era5/*.nc" out.zarr --max-error 0.5
      coinpp verify out.zarr --source "era5/*.nc"

    \b
    Exit codes:
      0    done
      1    it did not work; one line on stderr says why
      2    the command line is wrong
      3    some blocks of an archive are missing or wrong
      130  stopped by Ctrl-C; archives and training can go on
    """
