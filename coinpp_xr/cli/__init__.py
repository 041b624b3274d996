"""The command line: ``coinpp`` with its commands, one module each.

Nothing heavy is imported before a command runs: help and typing errors answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from coinpp_xr import __version__
from coinpp_xr.cli import archive, compare, files, models, reproduce, train
from coinpp_xr.errors import ModelNotFoundError

# NotImplementedError and what torch raises (no such device, out of memory) are RuntimeErrors.
_EXPECTED_ERRORS = (
    ValueError,
    OSError,
    ModelNotFoundError,
    RuntimeError,
    ImportError,
    MemoryError,
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(train.train)
app.command()(archive.archive)
app.command()(archive.verify)
app.command()(compare.compare)
app.command()(files.compress)
app.command()(files.decompress)
app.command()(files.inspect)
app.command()(reproduce.reproduce)
app.add_typer(models.app, name="models")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : sequence of str, optional
        Default: those of this process.
    """
    try:
        app(arguments, prog_name="coinpp")
    except _EXPECTED_ERRORS as error:
        if isinstance(error, OSError) and error.filename and error.strerror:
            message = f"{error.filename}: {error.strerror}"
        else:
            message = " ".join(str(error).split()) or type(error).__name__
        typer.echo(f"coinpp: {message}", err=True)
        sys.exit(1)


def _print_version(asked: bool) -> None:
    if asked:
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

    \b
    Example:
      coinpp archive "era5/*.nc" out.zarr --max-error 0.5

    \b
    Exit codes:
      0    done
      1    it did not work; one line on stderr says why
      2    the command line is wrong
      3    some blocks of an archive are missing or wrong
      130  stopped by Ctrl-C; archives and training can go on
    """
