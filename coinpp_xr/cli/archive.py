"""``coinpp archive`` and ``coinpp verify``: whole archives on a dask cluster."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr.cli.text import print_report, say, tell

if TYPE_CHECKING:
    from distributed import Client

# Some blocks are not as they should be, everything else is.
INCOMPLETE = 3


def archive(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="NetCDF, GRIB or Zarr: files, patterns in quotes, URLs.",
            show_default=False,
        ),
    ],
    store: Annotated[
        str,
        typer.Argument(
            metavar="DST", help="The store to write: a folder or a URL.", show_default=False
        ),
    ],
    max_error: Annotated[
        str | None,
        typer.Option(
            metavar="E|NAME=E,...", help="Largest error of any value, in the variable's unit; 0: "
            "nothing is lost; or recommended.",
        ),
    ] = None,
    max_error_relative: Annotated[
        str | None,
        typer.Option(metavar="E|NAME=E,...", help="The same as a fraction of each value."),
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Every bit comes back.")
    ] = False,
    target_rmse: Annotated[
        str | None,
        typer.Option(
            metavar="X|NAME=X,...",
            help="At most this area-weighted RMSE in every chunk, in the variable's unit.",
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="V,V|NAME=V:V,...", help="Values that come back exactly, such as 0,1."
        ),
    ] = None,
    max_mean_error: Annotated[
        str | None,
        typer.Option(metavar="E|NAME=E,...", help="Largest error of any globe's mean."),
    ] = None,
    bits: Annotated[
        str | None, typer.Option(metavar="B|NAME=B,...", help="Bits per latent; bounds no error.")
    ] = None,
    variables: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Only these.  [default: all; what is no field is "
                     "stored as it is]"),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A model's name or file, universal, or none.")
    ] = "t2m-46x90",
    train_minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Train a model on each variable first, for so long."),
    ] = None,
    embed_model: Annotated[
        bool,
        typer.Option("--embed-model", help="Models travel in the archive: it opens without them."),
    ] = False,
    chunk_time: Annotated[
        int, typer.Option(metavar="N", help="Time steps per chunk, at most.")
    ] = 256,
    shards: Annotated[
        str | None,
        typer.Option(metavar="N|DIM=N,...", help="Files of many chunks: steps along time, or along "
                     "each dimension."),
    ] = None,
    effort: Annotated[
        str,
        typer.Option(
            metavar="EFFORT", help="How hard to fit every globe: fast, default, best or paper."
        ),
    ] = "default",
    allow_coarse: Annotated[
        bool,
        typer.Option("--allow-coarse", help="Take bounds as large as half of the data's own "
                     "spread, and one bound for several units."),
    ] = False,
    zarr_format: Annotated[int, typer.Option(metavar="N", help="Zarr's format: 2 or 3.")] = 3,
    times: Annotated[
        str | None,
        typer.Option(metavar="FROM/TO", help="Write only blocks that begin in these times, such as "
                     "1990/1999-12-31."),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A dask scheduler that runs already, or its file."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes on this machine.  [default: one per core]",
                     min=1),
    ] = None,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Encode on workers with dask's resource GPU.")
    ] = False,
    storage_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="For fsspec, such as anon=true. Repeatable."),
    ] = None,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Check checksums of what was written, not errors.")
    ] = False,
    no_resume: Annotated[
        bool, typer.Option("--no-resume", help="Refuse if the archive exists.")
    ] = False,
    no_check: Annotated[
        bool,
        typer.Option("--no-check", help="Do not look at checksums of what the archive holds."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say what it would take, from a sample; write nothing."),
    ] = False,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="Write the report as JSON, too.")
    ] = None,
) -> None:  # fmt: skip
    """Compress files into one checked Zarr store.

    Say how large errors may be: --max-error for every value, --target-rmse for the mean. Every
    block is decoded and checked. The store opens with xr.open_zarr where coinpp-xr is installed.
    Interrupted, the same command goes on. With more files later, it makes the archive longer.

    \b
    Examples:
      coinpp archive "era5/*.nc" out.zarr --max-error 0.5 --dry-run
      coinpp archive era5.grib out.zarr --max-error t=0.5,z=50
      coinpp archive "era5/*.nc" out.zarr --target-rmse 0.1 --workers 8
      coinpp archive "era5/*.nc" s3://bucket/out.zarr --max-error 0.5

    \b
    Exit codes:
      3    some blocks could not be written; the same command tries them again
    """
    if scheduler is not None and workers is not None:
        raise typer.BadParameter("give --scheduler or --workers, not both")
    if report is not None and not report.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {report.parent}; make it first")
    from coinpp_xr.archiving import archive as write_archive
    from coinpp_xr.archiving import plan_archive

    settings: dict[str, Any] = {
        "max_error": _by_name(max_error, _bound, "--max-error"),
        "max_error_relative": _by_name(max_error_relative, float, "--max-error-relative"),
        "target_rmse": _by_name(target_rmse, float, "--target-rmse"),
        "lossless": lossless,
        "keep": _values_to_keep(keep),
        "max_mean_error": _by_name(max_mean_error, float, "--max-mean-error"),
        "bits": _by_name(bits, int, "--bits"),
        "variables": variables.split(",") if variables else None,
        "model": model, "train_minutes": train_minutes, "embed_model": embed_model,
        "chunk_time": chunk_time, "shards": _by_name(shards, int, "--shards"), "effort": effort,
        "allow_coarse": allow_coarse, "zarr_format": zarr_format, "times": _times(times),
        "verify": not no_verify, "resume": not no_resume, "check": not no_check,
        "storage_options": _storage_options(storage_option),
    }  # fmt: skip
    outcome: Any
    if dry_run:
        with _warnings_told():
            outcome = plan_archive(sources, store, workers=workers, **settings)
        failed = False
    else:
        with _client(scheduler) as client:
            if client is None and workers is None:
                workers = _cores()
            try:
                with _warnings_told():
                    outcome = write_archive(
                        sources, store, client=client, workers=workers, gpu=gpu, **settings
                    )
            except KeyboardInterrupt:
                tell("coinpp: stopped; the same command goes on with what is missing")
                raise typer.Exit(130) from None
        failed = bool(outcome.failures)
    print_report(outcome)
    if report is not None:
        from coinpp_xr.files import write_atomically

        write_atomically(report, json.dumps(outcome.to_dict(), indent=1).encode())
    if failed:
        tell(f"coinpp: {len(outcome.failures)} blocks failed; the same command tries them again")
        raise typer.Exit(INCOMPLETE)


def verify(
    store: Annotated[
        str,
        typer.Argument(
            metavar="STORE", help="A Zarr store: a folder or a URL.", show_default=False
        ),
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SRC", help="What it was made from, to check every error again. Repeatable."
        ),
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A dask scheduler that runs already.")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes on this machine.  [default: one per core]",
                     min=1),
    ] = None,
    storage_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For fsspec. Repeatable.")
    ] = None,
    forget: Annotated[
        bool,
        typer.Option("--forget", help="Let coinpp archive write blocks with problems again."),
    ] = False,
) -> None:  # fmt: skip
    """Check a store against itself and its source.

    Everything is read and decoded. Chunks must be those that were written, each in its place, and
    none may be missing; with --source every error is held against its bound, too.

    \b
    Examples:
      coinpp verify out.zarr
      coinpp verify out.zarr --source "era5/*.nc"

    \b
    Exit codes:
      3    something is missing or not as it should be
    """
    from coinpp_xr.archiving import verify as verify_store

    with _client(scheduler) as client:
        if client is None and workers is None:
            workers = _cores()
        found = verify_store(
            store, source or None, client=client, workers=workers, forget=forget,
            storage_options=_storage_options(storage_option),
        )  # fmt: skip
    say(str(found))
    if not found.is_sound:
        raise typer.Exit(INCOMPLETE)


def _cores() -> int:
    from coinpp_xr.parallel import thread_count

    return thread_count()


@contextmanager
def _client(scheduler: str | None) -> Iterator[Client | None]:
    if scheduler is None:
        yield None
        return
    from distributed import Client

    where = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**where, timeout="5s")
    except (OSError, TimeoutError, ValueError) as error:
        raise OSError(f"no dask scheduler answers at {scheduler}") from error
    with client:
        yield client


def _by_name(text: str | None, kind: Callable[[str], Any], option: str) -> Any:
    """``0.5``, or ``t=0.5,z=50`` as a dictionary."""
    if text is None:
        return None
    try:
        if "=" not in text:
            return kind(text)
        pairs = [part.split("=", 1) for part in text.split(",") if part]
        return {name.strip(): kind(value) for name, value in pairs}
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r} is neither X nor NAME=X,NAME=X") from error


def _bound(text: str) -> float | str:
    return text if text == "recommended" else float(text)


def _values_to_keep(text: str | None) -> Any:
    """``0,1``, or ``siconc=0:1,tp=0`` as a dictionary."""
    if text is None:
        return None
    if "=" in text:
        return _by_name(text, lambda part: [float(value) for value in part.split(":")], "--keep")
    try:
        return [float(value) for value in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"--keep {text!r} is neither V,V nor NAME=V:V") from error


@contextmanager
def _warnings_told() -> Iterator[None]:
    """Warnings of this package as one line each."""
    from coinpp_xr.errors import CompressionWarning

    with warnings.catch_warnings():
        show = warnings.showwarning

        def told(message: Any, category: Any, *place: Any, **more: Any) -> None:
            if issubclass(category, CompressionWarning):
                tell(f"coinpp: {message}")
            else:
                show(message, category, *place, **more)

        warnings.showwarning = told
        warnings.simplefilter("always", CompressionWarning)
        yield


def _times(text: str | None) -> slice | None:
    if text is None:
        return None
    start, separator, stop = text.partition("/")
    if not separator:
        raise typer.BadParameter(f"--times {text!r} must be FROM/TO; either may be empty")
    return slice(start or None, stop or None)


def _storage_options(pairs: list[str] | None) -> dict[str, Any] | None:
    if not pairs:
        return None
    options: dict[str, Any] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator:
            raise typer.BadParameter(f"--storage-option {pair!r} must be KEY=VALUE")
        try:
            options[key] = json.loads(value)
        except ValueError:
            options[key] = value
    return options
