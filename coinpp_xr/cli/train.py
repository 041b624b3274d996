"""``coinpp train``: a model of one's own fields, images, volumes or sound."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr.cli.sources import read_fields
from coinpp_xr.cli.text import print_columns, tell
from coinpp_xr.cli.train_climatology import train_climatology
from coinpp_xr.cli.training import print_summary, progress, write_curve

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.data import Items
    from coinpp_xr.training import TrainingConfig

_FIELDS = "fields"
# Data types of single files, by what they hold.
_TYPES_OF_FILES = {"image": "image", "volume": "nifti", "audio": "audio"}
# Data sets that have no part for validation.
_HELD_OUT_SPLITS = {"cifar10": "test", "vimeo90k": "test"}


def _print_presets(context: typer.Context, asked: bool) -> None:
    if not asked or context.resilient_parsing:  # a shell may only look for completions
        return
    _need_torch()
    from coinpp_xr.patch_building import patch_presets
    from coinpp_xr.training import PRESETS

    known = [(name, "-", config) for name, config in PRESETS.items()]
    for name, preset in patch_presets().items():
        known.append((name, " x ".join(map(str, preset.patch_size)), preset.config))
    rows: list[Sequence[str]] = [
        ("NAME", "PATCH", "LATENTS", "WIDTH", "DEPTH", "OBJECTIVE", "STEPS")
    ]
    for name, patch, config in known:
        steps = "by --max-minutes" if config.steps is None else f"{config.steps:,}"
        sizes = (config.latent_dim, config.width, config.depth)
        rows.append((name, patch, *map(str, sizes), config.objective, steps))
    print_columns(rows)
    raise typer.Exit


def _parse_model_path(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise typer.BadParameter(f"a model file ends with .safetensors, got {path.name!r}")
    if path.is_dir():
        raise typer.BadParameter(f"{path} is a folder")
    return path


def _parse_data_type(name: str) -> str:
    if name != _FIELDS:
        from coinpp_xr.data import DATA_TYPES

        if name not in DATA_TYPES:
            known = ", ".join((_FIELDS, *DATA_TYPES))
            raise typer.BadParameter(f"one of {known}, got {name!r}")
    return name


def _parse_patch_size(text: str | None) -> str | None:
    if text is not None:
        _numbers(text)
    return text


def _numbers(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"cells along every axis, as in 32 or 16,16, got {text!r}"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def train(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC",
            help="Fields: NetCDF, GRIB, Zarr or npz of the paper's data, all on one grid. "
            "Others: files or folders.",
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
    data_type: Annotated[
        str,
        typer.Option(
            metavar="TYPE", callback=_parse_data_type,
            help="What the sources hold: fields, image, cifar10, vimeo90k, nifti, fastmri, audio "
            "or librispeech.",
        ),
    ] = _FIELDS,
    variable: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which variable, where a source holds several fields."),
    ] = None,
    patch_size: Annotated[
        str | None,
        typer.Option(
            metavar="N|N,N", callback=_parse_patch_size,
            help="Cells of a patch along every axis.  [default: 32 pixels, 16 voxels, 400 samples]",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1,
            help="Items of every source, the first in sorted order; vimeo90k needs it."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Name of the model.  [default: that of the output file]"),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Settings under one name; see --list-presets."),
    ] = None,
    latent_dim: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1,
            help="Latents per globe or patch in all.  [default: 16 per globe, 64 per patch]"
        ),
    ] = None,
    tail: Annotated[
        bool,
        typer.Option(
            "--tail/--no-tail",
            help="Whether EOFs may take latents over from the SIREN, where that holds held-out "
            "items better.",
        ),
    ] = True,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="X", min=0.0,
            help="Train for an archive of fields under this bound, in their unit: what they share "
            "on their own grid, of any resolution. Not for fields of several levels.",
        ),
    ] = None,
    chunk_time: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Globes per chunk, with --max-error.  [default: 1]"),
    ] = None,
    globes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1,
            help="How many globes the archive will have, with --max-error.  [default: the source's]"
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.001,
            help="Time for training.  [default: 10; no limit where the steps are given]",
        ),
    ] = None,
    deblocking_minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M", min=0.0,
            help="Of these, for the layers that take the artefacts of blocks away; 0 for none. "
            "Not for fields.  [default: two fifths]",
        ),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Outer steps.  [default: as many as fit into the time]"
        ),
    ] = None,
    width: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Width of the base network.  [default: 64]"),
    ] = None,
    depth: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Sine layers of the base network.  [default: 4]"),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            metavar="SRC",
            help="A source to hold out: a file or a folder; of a data set with parts, the one for "
            "validation. Not for fields.",
        ),
    ] = None,
    validation_items: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1,
            help="How many of the last items to hold out: of fields the first source's, else "
            "whole files, speakers or sequences.  [default: a tenth, of fields at most 720]",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Resumable state.  [default: beside the output, removed when training is done]",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint; repeat all other options."),
    ] = False,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="DEVICE", help="cpu, cuda, cuda:1, ...  [default: a GPU if there is one]"
        ),
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Of Adam on the base network.", min=0.0)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Of all random numbers.  [default: 0]")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="float32, or on a GPU tf32 or bf16.  [default: float32]"
        ),
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
    """Train a model on your own data.

    A model of an archive makes it smaller than the one that is shipped. Training needs torch.
    Stopped by Ctrl-C, it goes on with --resume.

    \b
    Examples:
      coinpp train era5_2019.nc era5_2020.nc --variable t2m -o t2m.safetensors
      coinpp train era5.zarr --latent-dim 256 --max-minutes 30 -o t2m.safetensors
      coinpp train era5.zarr --max-minutes 30 -o t2m.safetensors --resume
      coinpp train era5.zarr --variable t2m --max-error 0.1 -o t2m.safetensors
      coinpp train scans/ --data-type nifti --validation other/ -o mri.safetensors
      coinpp train photos/ --data-type image -o photos.safetensors

    \b
    Exit codes:
      130  stopped by Ctrl-C; the checkpoint stays
    """
    _check_combination(
        data_type, variable=variable, patch_size=patch_size, limit=limit, validation=validation,
        validation_items=validation_items, preset=preset, latent_dim=latent_dim,
        deblocking_minutes=deblocking_minutes, max_error=max_error, chunk_time=chunk_time,
        globes=globes, steps=steps, width=width, depth=depth, learning_rate=learning_rate,
        seed=seed, precision=precision, curve=curve,
    )  # fmt: skip
    _need_torch()
    if max_error is not None:
        train_climatology(
            sources, output, max_error, variable=variable, chunk_time=chunk_time or 1,
            globes=globes, max_minutes=max_minutes or 10.0, name=name or output.stem,
            checkpoint=checkpoint, resume=resume, device=device, describe=describe,
        )  # fmt: skip
        return
    from coinpp_xr.building import train as train_globes
    from coinpp_xr.devices import compute_device
    from coinpp_xr.models import parse_name
    from coinpp_xr.patch_building import train_patches
    from coinpp_xr.settings import config
    from coinpp_xr.training import log_path, read_checkpoint

    name = parse_name(name or output.stem)
    given = {
        "width": width, "depth": depth, "steps": steps, "outer_lr": learning_rate, "seed": seed,
        "precision": precision,
    }  # fmt: skip
    settings = {key: value for key, value in given.items() if value is not None}
    chosen = None if preset is None else _find_preset(preset, data_type)
    if max_minutes is None and steps is None and (chosen is None or chosen.steps is None):
        max_minutes = 10.0
    state = checkpoint or output.with_suffix(".checkpoint.safetensors")
    _prepare_checkpoint(state, log_path(state), resume)
    card = {"data": ", ".join(Path(source).name for source in sources)}
    if validation is not None:
        card["validation_data"] = Path(validation).name
    if describe:
        card["description"] = describe

    try:
        with nullcontext() if device is None else config.set(device=device):
            compute_device()  # a wrong device should show before long files are read
            run: partial[Any]
            if data_type == _FIELDS:
                fields = [_open_fields(source, variable) for source in sources]
                units = str(fields[0].attrs["units"])
                tell(
                    f"{fields[0].name} ({units or 'no unit'}): {sum(map(len, fields))} items of "
                    f"{fields[0].shape[1]} x {fields[0].shape[2]}; checkpoint {state}"
                )
                run = partial(
                    train_globes, fields, latent_dim=latent_dim or 16,
                    validation_items=validation_items,
                )  # fmt: skip
            else:
                items, held_out = _read_items(
                    sources, data_type, limit, validation, validation_items
                )
                units = ""
                tell(
                    f"{data_type}: {len(items.values)} items, "
                    f"{len(held_out.values) if held_out else 'a tenth of them'} held out; "
                    f"checkpoint {state}"
                )
                run = partial(
                    train_patches, items, held_out, latent_dim=latent_dim or 64,
                    patch_size=None if patch_size is None else _numbers(patch_size),
                    deblocking_minutes=deblocking_minutes,
                )  # fmt: skip
            with progress(units) as show:
                model = run(
                    max_minutes=max_minutes, name=name, preset=preset, tail=tail,
                    settings=settings, checkpoint=state, resume=resume, log=show, card=card,
                )  # fmt: skip
        model.save(output)
    except KeyboardInterrupt:
        if state.exists():
            tell(f"coinpp: stopped; repeat the command with --resume to go on from {state}")
        else:
            tell("coinpp: stopped before training began; there is nothing to resume")
        raise typer.Exit(130) from None

    done = json.loads(read_checkpoint(state)[1]["progress"])
    if done["steps"] is None or done["step"] < done["steps"]:
        of_all = "" if done["steps"] is None else f" of {done['steps']}"
        tell(
            f"the time was over after {done['step']} steps{of_all}; repeat the command with "
            f"--resume to go on from {state}"
        )
    elif checkpoint is None:
        state.unlink()
    print_summary(model, output)
    write_curve(log_path(state), curve, output, units)


def _check_combination(data_type: str, **given: Any) -> None:
    """What an option is for, and which of them exclude each other."""

    def option(name: str) -> str:
        return "--" + name.replace("_", "-")

    of_bound = ("chunk_time", "globes")
    of_patches = ("patch_size", "limit", "validation", "deblocking_minutes")
    unfit = of_patches if data_type == _FIELDS else ("variable", "max_error", *of_bound)
    for name in unfit:
        if given[name] is not None:
            hint = "; hold out --validation-items" if name == "validation" else ""
            raise typer.BadParameter(f"{option(name)} is not for {data_type}{hint}")
    if given["max_error"] is None:
        for name in of_bound:
            if given[name] is not None:
                raise typer.BadParameter(f"{option(name)} is of use with --max-error only")
    else:
        taken = ("variable", "max_error", *of_bound)
        for name in given:
            if name not in taken and given[name] is not None:
                raise typer.BadParameter(f"give {option(name)} or --max-error, not both")
    for one, other in (
        ("preset", "latent_dim"), ("preset", "patch_size"), ("validation", "validation_items")
    ):  # fmt: skip
        if given[one] is not None and given[other] is not None:
            raise typer.BadParameter(f"give {option(one)} or {option(other)}, not both")
    if data_type == "vimeo90k" and given["limit"] is None:
        raise typer.BadParameter("say how many frames to load: --limit 10000 takes 14 GB")


def _find_preset(name: str, data_type: str) -> TrainingConfig:
    from coinpp_xr.patch_building import patch_presets
    from coinpp_xr.training import PRESETS

    of_patches = {key: preset.config for key, preset in patch_presets().items()}
    own, others = (PRESETS, of_patches) if data_type == _FIELDS else (of_patches, PRESETS)
    if name not in own:
        other = "fields" if data_type != _FIELDS else "patches, with another --data-type"
        reason = f"preset {name!r} is for {other}" if name in others else f"no preset {name!r}"
        raise typer.BadParameter(f"{reason}; see --list-presets")
    return own[name]


def _open_fields(source: str, variable: str | None) -> xr.DataArray:
    try:
        return read_fields(source, variable)
    except ValueError as error:
        from coinpp_xr.data import guess_kind

        try:
            data_type = _TYPES_OF_FILES[guess_kind(source)]
        except (OSError, ValueError, KeyError):
            raise error from None
        raise ValueError(f"{source} holds no fields: add --data-type {data_type}") from error


def _read_items(
    sources: list[str],
    data_type: str,
    limit: int | None,
    validation: str | None,
    validation_items: int | None,
) -> tuple[Items, Items | None]:
    """What to train on, and what to hold out."""
    from coinpp_xr.data import load_items, split_by_source

    parts: list[Items] = []
    normalisation = None
    for source in sources:
        parts.append(load_items(source, data_type, limit=limit, normalisation=normalisation))
        if data_type == "fastmri":  # the first one's is for all
            normalisation = parts[0].offset, parts[0].scale
    items = replace(
        parts[0],
        values=[values for part in parts for values in part.values],
        names=[name for part in parts for name in part.names],
        # Speakers have the same names everywhere, files have not.
        sources=[
            name if data_type == "librispeech" else f"{source}/{name}"
            for source, part in zip(sources, parts, strict=True)
            for name in part.sources
        ],
    )
    if validation is not None:
        held_out = load_items(
            validation, data_type, split=_HELD_OUT_SPLITS.get(data_type, "val"), limit=limit,
            normalisation=normalisation,
        )  # fmt: skip
        return items, held_out
    return (items, None) if validation_items is None else split_by_source(items, validation_items)


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
