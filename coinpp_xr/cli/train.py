"""``coinpp train``: a model of one's own archive."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr.cli.sources import read_fields
from coinpp_xr.cli.text import duration, network_line, print_columns, tell

if TYPE_CHECKING:
    from coinpp_xr.models import Model


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
    print_columns(rows)
    raise typer.Exit


def _parse_model_path(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise typer.BadParameter(f"a model file ends with .safetensors, got {path.name!r}")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder")
    return path


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
            fields = [read_fields(source, variable) for source in sources]
            units = str(fields[0].attrs["units"])
            tell(
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
            tell(f"coinpp: stopped; repeat the command with --resume to go on from {state}")
        else:
            tell("coinpp: stopped before training began; there is nothing to resume")
        raise typer.Exit(130) from None

    progress = json.loads(read_checkpoint(state)[1]["progress"])
    if progress["steps"] is None or progress["step"] < progress["steps"]:
        of_all = "" if progress["steps"] is None else f" of {progress['steps']}"
        tell(
            f"the time was over after {progress['step']} steps{of_all}; repeat the command with "
            f"--resume to go on from {state}"
        )
    elif checkpoint is None:
        state.unlink()
    _print_summary(model, output)
    _write_curve(log_path(state), curve, output, units)


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
            tell(f"no checkpoint {checkpoint} yet: training starts from the beginning")
        log.unlink(missing_ok=True)  # of a run that is over


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
            parts.append(f"{duration(left)} left")
        return ", ".join(parts)

    console = Console(stderr=True)
    if not console.is_terminal:

        def print_line(record: dict[str, Any]) -> None:
            line = learn(record)
            if record["event"] == "validation":
                tell(line)

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
        ("network", network_line(model)),
        *(("tried", f"{rmse:g}: {label}") for label, rmse in card.get("candidates", {}).items()),
        (
            "trained on",
            f"{card['training_items']:,} items in {duration(card['training_seconds'])}",
        ),
        ("held-out RMSE", f"{scores} {model.units}; {card['validation_items']:,} items"),
        ("use it", f'COINppCodec(model="{path}", bits=8)'),
        ("by name", f"coinpp models install {path}"),
    ]
    print_columns(rows)


def _write_curve(log: Path, curve: Path | None, output: Path, units: str) -> None:
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
