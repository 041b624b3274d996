"""The command line: ``coinpp train``, ``coinpp compare`` and ``coinpp models``.

Nothing heavy is imported here: help and typing errors answer at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr import __version__
from coinpp_xr.errors import ModelNotFoundError

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.models import Model

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
models_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(models_app, name="models")


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
      coinpp train era5.nc --latent-dim 16 --max-minutes 10 -o mine.safetensors

    \b
    Exit codes:
      0    done
      1    it did not work; one line on stderr says why
      2    the command line is wrong
      130  stopped by Ctrl-C; training can go on with --resume
    """


# ---- train --------------------------------------------------------------------------------


def _print_presets(asked: bool) -> None:
    if not asked:
        return
    _need_torch()
    from coinpp_xr.training import PRESETS

    rows: list[Sequence[str]] = [("NAME", "LATENTS", "WIDTH", "DEPTH", "OBJECTIVE", "STEPS")]
    for name, preset in PRESETS.items():
        steps = "by --max-minutes" if preset.steps is None else f"{preset.steps:,}"
        sizes = (preset.latent_dim, preset.width, preset.depth)
        rows.append((name, *map(str, sizes), preset.objective, steps))
    _print_columns(rows)
    raise typer.Exit


def _parse_model_path(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise typer.BadParameter(f"a model file ends with .safetensors, got {path.name!r}")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder")
    return path


@app.command()
def train(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="NetCDF, GRIB, Zarr or npz of the paper's data; all on one grid.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="MODEL.safetensors", callback=_parse_model_path,
            help="The model file to write.", show_default=False,
        ),
    ],
    variable: Annotated[
        str | None, typer.Option(help="Which variable, where a source holds several.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the model.  [default: that of the output file]")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Settings under one name; see --list-presets.")
    ] = None,
    latent_dim: Annotated[
        int | None, typer.Option(min=1, help="Latents per globe in all.  [default: 16]")
    ] = None,
    tail: Annotated[
        bool,
        typer.Option(
            "--tail/--no-tail",
            help="Whether localised EOFs may take latents over from the SIREN, where that holds "
            "held-out fields better.",
        ),
    ] = True,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            help="Time for training.  [default: 10; no limit where the steps are given]",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Outer steps.  [default: as many as fit into the time]"),
    ] = None,
    width: Annotated[
        int | None, typer.Option(min=1, help="Width of the base network.  [default: 64]")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(min=1, help="Sine layers of the base network.  [default: 4]")
    ] = None,
    validation_items: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many of the first source's last items to hold out.  "
            "[default: a tenth, at most 720]",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Resumable state.  [default: beside the output, removed when training is done]"
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint; repeat all other options."),
    ] = False,
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, ...  [default: a GPU if there is one]")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam on the base network.", min=0.0)
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of all random numbers.  [default: 0]")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, or on a GPU tf32 or bf16.  [default: float32]")
    ] = None,
    describe: Annotated[
        str | None, typer.Option(metavar="TEXT", help="A description for the model's card.")
    ] = None,
    curve: Annotated[
        Path | None,
        typer.Option(
            metavar="PNG",
            help="Plot of loss and validation RMSE (needs matplotlib).  "
            "[default: beside the output]",
        ),
    ] = None,
    list_presets: Annotated[
        bool,
        typer.Option(
            "--list-presets", callback=_print_presets, is_eager=True,
            help="Print the presets and exit.",
        ),
    ] = False,
) -> None:  # fmt: skip
    """Train a model on one's own archive.

    \b
    Examples:
      coinpp train era5_2019.nc era5_2020.nc --variable t2m -o t2m.safetensors
      coinpp train era5.zarr --latent-dim 256 --max-minutes 30 -o t2m.safetensors
      coinpp train era5.zarr --latent-dim 256 --max-minutes 30 -o t2m.safetensors --resume
    """
    if preset is not None and latent_dim is not None:
        raise typer.BadParameter("give --preset or --latent-dim, not both")
    _need_torch()
    from coinpp_xr.building import train as train_model
    from coinpp_xr.devices import compute_device
    from coinpp_xr.models import parse_name
    from coinpp_xr.settings import config
    from coinpp_xr.training import PRESETS, log_path, read_checkpoint

    name = parse_name(name or output.stem)
    given = {
        "width": width, "depth": depth, "steps": steps, "outer_lr": learning_rate, "seed": seed,
        "precision": precision,
    }  # fmt: skip
    settings = {key: value for key, value in given.items() if value is not None}
    if preset is not None and preset not in PRESETS:
        raise typer.BadParameter(f"no preset {preset!r}; see --list-presets")
    endless = steps is None and (preset is None or PRESETS[preset].steps is None)
    if max_minutes is None and endless:
        max_minutes = 10.0
    state = checkpoint or output.with_suffix(".checkpoint.safetensors")
    _prepare_checkpoint(state, log_path(state), resume)

    try:
        with nullcontext() if device is None else config.set(device=device):
            compute_device()  # a wrong device should show before long files are read
            fields = [_read(source, variable) for source in sources]
            units = str(fields[0].attrs["units"])
            _tell(
                f"{fields[0].name} ({units or 'no unit'}): {sum(map(len, fields))} items of "
                f"{fields[0].shape[1]} x {fields[0].shape[2]}; checkpoint {state}"
            )
            with _progress(units) as show:
                model = train_model(
                    fields,
                    latent_dim=latent_dim or 16,
                    max_minutes=max_minutes,
                    name=name,
                    preset=preset,
                    tail=tail,
                    settings=settings,
                    validation_items=validation_items,
                    checkpoint=state,
                    resume=resume,
                    log=show,
                    card={
                        "data": ", ".join(Path(source).name for source in sources),
                        **({"description": describe} if describe else {}),
                    },
                )
        model.save(output)
    except KeyboardInterrupt:
        if state.exists():
            _tell(f"coinpp: stopped; repeat the command with --resume to go on from {state}")
        else:
            _tell("coinpp: stopped before training began; there is nothing to resume")
        raise typer.Exit(130) from None

    progress = json.loads(read_checkpoint(state)[1]["progress"])
    if progress["steps"] is None or progress["step"] < progress["steps"]:
        of_all = "" if progress["steps"] is None else f" of {progress['steps']}"
        _tell(
            f"the time was over after {progress['step']} steps{of_all}; repeat the command with "
            f"--resume to go on from {state}"
        )
    elif checkpoint is None:
        state.unlink()
    _print_summary(model, output)
    _write_curve(log_path(state), curve, output, units)


@app.command()
def compare(
    source: Annotated[str, typer.Argument(help="A NetCDF, GRIB or Zarr file.")],
    max_error: Annotated[
        float | None, typer.Option(help="Largest error of any value, in the variable's unit.")
    ] = None,
    target_rmse: Annotated[
        float | None, typer.Option(help="Area-weighted RMSE, in the variable's unit.")
    ] = None,
    variable: Annotated[
        str | None, typer.Option(help="Default: the first that can be compressed.")
    ] = None,
    peers: Annotated[
        str | None, typer.Option(help="Codecs to compare with, such as sz3,zfp. Default: all.")
    ] = None,
    model: Annotated[str, typer.Option(help="A model, or none.")] = "t2m-46x90",
    chunk: Annotated[int, typer.Option(min=1, help="How many globes, at most.")] = 64,
    save: Annotated[
        list[Path] | None,
        typer.Option(help="Write the table as .json or .html, or a plot as .png; repeatable."),
    ] = None,
) -> None:
    """Compress a chunk of globes with this and other codecs at the same error."""
    for path in save or []:
        if path.suffix not in (".json", ".html", ".png"):
            raise typer.BadParameter(f"{path}: give a name that ends in .json, .html or .png")
    from rich.console import Console

    from coinpp_xr.comparison import WIDTH
    from coinpp_xr.comparison import compare as compare_codecs

    drawn = any(path.suffix != ".json" for path in save or [])
    comparison = compare_codecs(
        _read(source, variable), max_error=max_error, target_rmse=target_rmse,
        names=peers.split(",") if peers else None, model=model, chunk=chunk, curves=drawn,
    )  # fmt: skip
    console = Console()
    Console(width=max(console.width, WIDTH)).print(comparison)
    for path in save or []:
        typer.echo(f"wrote {comparison.save(path)}")


def _need_torch() -> None:
    if find_spec("torch") is None:
        raise ImportError("training needs torch; install it with: pip install 'coinpp-xr[torch]'")


def _prepare_checkpoint(checkpoint: Path, log: Path, resume: bool) -> None:
    """Never overwrite what an earlier run may still want to go on from."""
    if not resume and checkpoint.exists():
        raise FileExistsError(
            f"{checkpoint} exists: add --resume to go on from it, or remove it to start again"
        )
    if not checkpoint.exists():
        if resume:
            _tell(f"no checkpoint {checkpoint} yet: training starts from the beginning")
        log.unlink(missing_ok=True)  # of a run that is over


def _read(source: str, variable: str | None) -> xr.DataArray:
    import xarray as xr

    from coinpp_xr.data import load_fields

    fields = load_fields(source, variable)
    return xr.DataArray(
        fields.values,
        dims=("item", "latitude", "longitude"),
        coords={"latitude": fields.grid.latitude, "longitude": fields.grid.longitude},
        name=fields.name,
        attrs={"units": fields.units},
    )


@contextmanager
def _progress(units: str) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Shows training records: as a live bar, or as lines where there is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    known: dict[str, Any] = {"spikes": 0}

    def learn(record: dict[str, Any]) -> str:
        """Take in a record; returns what to show."""
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
            parts.append(f"{_duration(left)} left")
        return ", ".join(parts)

    console = Console(stderr=True)
    if not console.is_terminal:

        def print_line(record: dict[str, Any]) -> None:
            line = learn(record)
            if record["event"] == "validation":
                _tell(line)

        yield print_line
        return
    # A column of its own makes the text wrap in narrow terminals.
    text = TextColumn("{task.description}", markup=False, table_column=Column())
    with Progress(text, BarColumn(bar_width=20), console=console) as bar:
        task = bar.add_task("training", total=None)

        def redraw(record: dict[str, Any]) -> None:
            line = learn(record)
            bar.update(task, description=line, completed=known["step"], total=known.get("steps"))

        yield redraw


def _print_summary(model: Model, path: Path) -> None:
    card = model.card
    scores = ", ".join(f"{rmse:g} ({rate})" for rate, rmse in card["validation_rmse"].items())
    rows = [
        ("model", f"{model.name}, fingerprint {model.fingerprint}"),
        ("file", f"{path}, {path.stat().st_size:,} bytes"),
        ("network", _network(model)),
        *(("tried", f"{rmse:g}: {label}") for label, rmse in card.get("candidates", {}).items()),
        (
            "trained on",
            f"{card['training_items']:,} items in {_duration(card['training_seconds'])}",
        ),
        ("held-out RMSE", f"{scores} {model.units}; {card['validation_items']:,} items"),
        ("use it", f'COINppCodec(model="{path}", bits=8)'),
        ("by name", f"coinpp models install {path}"),
    ]
    _print_columns(rows)


def _write_curve(log: Path, curve: Path | None, output: Path, units: str) -> None:
    if find_spec("matplotlib") is None:
        if curve is not None:
            _tell("no curve: matplotlib is missing; install it with: pip install 'coinpp-xr[plot]'")
        return
    from coinpp_xr.curves import training_curve

    try:
        figure = training_curve(log, units)
    except (FileNotFoundError, ValueError):
        _tell("no curve: training ended before its first validation")
        return
    path = curve or output.with_suffix(".curve.png")
    figure.savefig(path, dpi=150)
    _print_columns([("training curve", str(path))])


# ---- models -------------------------------------------------------------------------------


@models_app.callback()
def _models() -> None:
    """List, show, download and install models.

    \b
    Example:
      coinpp models list
    """


@models_app.command("list")
def list_models() -> None:
    """List the models that are at hand or can be downloaded.

    \b
    Example:
      coinpp models list
    """
    from coinpp_xr.models import Model, cache_folder, registry, shipped_models

    rows = [("NAME", "LATENTS", "PARAMETERS", "BYTES", "UNITS", "WHERE")]
    found = [(path, "shipped") for path in shipped_models().values()]
    found += [(path, "cached") for path in sorted(cache_folder().glob("*.safetensors"))]
    for path, where in found:
        size = f"{path.stat().st_size:,}"
        try:
            model = Model.from_file(path)
        except ValueError:
            rows.append((path.stem, "?", "?", size, "?", f"{where}, damaged: {path}"))
            continue
        sizes = (str(model.latent_dim), f"{model.network.parameter_count:,}", size)
        rows.append((path.stem, *sizes, model.units or "-", where))
    at_hand = {path.name for path, _ in found}
    for file_name in sorted(set(registry()) - at_hand):
        name = Path(file_name).stem
        rows.append((name, "-", "-", "-", "-", f"registry: coinpp models fetch {name}"))
    _print_columns(rows)


@models_app.command("show")
def show_model(
    model: Annotated[
        str, typer.Argument(metavar="NAME_OR_PATH", help="Name or file.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a model and its card.

    \b
    Examples:
      coinpp models show t2m-46x90
      coinpp models show mine.safetensors --json
    """
    from coinpp_xr.models import load_model

    found = load_model(Path(model) if Path(model).is_file() else model)
    if as_json:
        description = {
            "name": found.name,
            "fingerprint": found.fingerprint,
            "domain": found.domain,
            "latent_dim": found.latent_dim,
            "siren_latents": found.siren.latent_dim,
            "width": found.siren.width,
            "depth": found.siren.depth,
            "tail_degree": found.tail.tail.degree if found.tail else None,
            "parameters": found.network.parameter_count,
            "nbytes": found.nbytes,
            "offset": found.offset,
            "scale": found.scale,
            "card": found.card,
        }
        typer.echo(json.dumps(description, indent=2))
        return
    normalisation = f"(value - {found.offset:g}) / {found.scale:g}"
    rows = [
        ("name", found.name),
        ("fingerprint", found.fingerprint),
        ("size", f"{found.nbytes:,} bytes"),
        ("domain", found.domain),
        ("network", _network(found)),
        ("features", f"{normalisation}, in {found.units}" if found.units else normalisation),
    ]
    _print_columns([*rows, *_card_rows(found.card)])


@models_app.command("fetch")
def fetch(
    name: Annotated[str, typer.Argument(help="Name in the registry.", show_default=False)],
) -> None:
    """Download a model and check its hash.

    It must be listed in the registry that comes with the package.
    The address of the folder to download from is taken from COINPP_XR_MODEL_URL.

    \b
    Example:
      coinpp models fetch t2m-46x90
    """
    from coinpp_xr.models import fetch_model, shipped_models

    if name in shipped_models():
        typer.echo(f"{name} comes with the package: {shipped_models()[name]}")
    else:
        typer.echo(str(fetch_model(name)))


@models_app.command()
def install(
    file: Annotated[Path, typer.Argument(help="Model file.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Also where another model has the same name.")
    ] = False,
) -> None:
    """Copy a model file to where models are looked up.

    It is checked first. Stores that were written with it then open in all of this user's processes.

    \b
    Example:
      coinpp models install mine.safetensors
    """
    from coinpp_xr.files import write_atomically
    from coinpp_xr.models import Model, cache_folder, shipped_models

    model = Model.from_file(file)
    target = cache_folder() / f"{model.name}.safetensors"
    for other in (shipped_models().get(model.name), target):
        if other is None or not other.exists() or force:
            continue
        try:
            differs = Model.from_file(other).fingerprint != model.fingerprint
        except ValueError:
            differs = True
        if differs:
            raise FileExistsError(
                f"another model named {model.name!r} is in {other}; train with another --name, or "
                "add --force"
                + (" to replace it" if other == target else " to have both: stores find theirs")
            )
    target.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target, file.read_bytes())
    typer.echo(f"{model.name}, fingerprint {model.fingerprint}: {target}")


# ---- text ---------------------------------------------------------------------------------


def _tell(line: str) -> None:
    typer.echo(line, err=True)


def _print_columns(rows: Iterable[Sequence[str]]) -> None:
    """Aligned columns. Control characters, which a model's card may hold, are left out."""
    cells = [["".join(filter(str.isprintable, cell)) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


def _card_rows(card: dict[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(card.items(), key=lambda entry: isinstance(entry[1], dict)):
        label = indent + key.replace("_", " ")
        if isinstance(value, dict):
            yield label, ""
            yield from _card_rows(value, indent + "  ")
        else:
            yield label, f"{value:,}" if type(value) is int else str(value)


def _network(model: Model) -> str:
    siren, tail = model.siren, model.tail
    parts = [f"{model.latent_dim} latents", f"{siren.depth} x {siren.width} SIREN"]
    if tail is not None:
        parts[-1] += f" with {siren.latent_dim} of them"
        parts.append(f"{tail.tail.latent_dim} in a linear tail of degree {tail.tail.degree}")
    return ", ".join([*parts, f"{model.network.parameter_count:,} parameters"])


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


if __name__ == "__main__":
    main()
