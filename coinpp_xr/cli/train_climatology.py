"""``coinpp train --max-error``: what the fields of an archive share, at any resolution."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import typer

from coinpp_xr.cli.text import duration, print_columns, tell


def train_climatology(
    sources: list[str],
    output: Path,
    max_error: float,
    *,
    variable: str | None,
    chunk_time: int,
    globes: int | None,
    max_minutes: float,
    name: str,
    checkpoint: Path | None,
    resume: bool,
    device: str | None,
    describe: str | None,
) -> None:
    """Train, save and say what it brings."""
    if len(sources) > 1:
        raise typer.BadParameter(
            "--max-error takes one source; join files with xarray.open_mfdataset and to_zarr"
        )
    from coinpp_xr.climatology_building import climatology_model
    from coinpp_xr.devices import compute_device
    from coinpp_xr.settings import config

    state = checkpoint or output.with_suffix(".checkpoint.pt")
    if state.exists() and not resume:
        raise FileExistsError(
            f"{state} exists: add --resume to go on from it, or remove it to start again"
        )
    card = {"data": Path(sources[0]).name, **({"description": describe} if describe else {})}
    try:
        with nullcontext() if device is None else config.set(device=device):
            compute_device()  # a wrong device should show before long files are read
            model, tried = climatology_model(
                sources[0], max_error=max_error, variable=variable, chunk_time=chunk_time,
                globes=globes, max_minutes=max_minutes, name=name, checkpoint=state, log=tell,
                card=card,
            )  # fmt: skip
    except KeyboardInterrupt:
        again = f"; repeat the command with --resume to go on from {state}"
        tell("coinpp: stopped" + (again if state.exists() else ""))
        raise typer.Exit(130) from None
    if model is None:
        raise ValueError(
            f"{sources[0]}: no model would pay for its bytes; write the archive without one"
        )
    model.save(output)
    if checkpoint is None:
        state.unlink(missing_ok=True)
    rows = [
        ("model", f"{model.name}, fingerprint {model.fingerprint}"),
        ("file", f"{output}, {output.stat().st_size:,} bytes"),
        ("holds", model.card["network"]),
        *((one.label, f"{one.nbytes_per_globe:,.0f} bytes per held-out globe") for one in tried),
        ("trained in", duration(model.card["training_seconds"])),
        ("use it", f'COINppCodec(model="{output}", max_error={max_error:g})'),
        ("by name", f"coinpp models install {output}"),
    ]
    print_columns(rows)
