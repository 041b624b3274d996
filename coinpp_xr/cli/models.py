"""``coinpp models``: list, show, download and install models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from coinpp_xr.cli.text import print_columns, say

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _models() -> None:
    """List, show, download and install models.

    A store opens where the model that it was written with is found: shipped with the package,
    in the user's cache, or in the store itself.

    \b
    Examples:
      coinpp models list
      coinpp models show t2m-46x90
    """


@app.command("list")
def list_models() -> None:
    """List models at hand and to download.

    \b
    Example:
      coinpp models list
    """
    from coinpp_xr.model_files import models_at_hand, registry
    from coinpp_xr.models import Model

    rows = [("NAME", "LATENTS", "PARAMETERS", "BYTES", "UNITS", "WHERE")]
    found = models_at_hand()
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
    print_columns(rows)


@app.command("show")
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
            "tail_degree": found.tail.tail.degree if found.tail and not found.box else None,
            "parameters": found.network.parameter_count,
            "nbytes": found.nbytes,
            "offset": found.offset,
            "scale": found.scale,
            "card": found.card,
        }
        say(json.dumps(description, indent=2))
        return
    normalisation = f"(value - {found.offset:g}) / {found.scale:g}"
    rows = [
        ("name", found.name),
        ("fingerprint", found.fingerprint),
        ("size", f"{found.nbytes:,} bytes"),
        ("domain", found.domain),
        ("network", found.outline),
        ("features", f"{normalisation}, in {found.units}" if found.units else normalisation),
    ]
    print_columns([*rows, *_card_rows(found.card)])


@app.command("fetch")
def fetch(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name in the registry.", show_default=False)
    ],
) -> None:
    """Download a model and check its hash.

    It must be listed in the registry that comes with the package.
    The address of the folder to download from is taken from COINPP_XR_MODEL_URL.

    \b
    Example:
      coinpp models fetch t2m-46x90
    """
    from coinpp_xr.model_files import fetch_model, shipped_models

    if name in shipped_models():
        say(f"{name} comes with the package: {shipped_models()[name]}")
    else:
        say(str(fetch_model(name)))


@app.command()
def install(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Model file.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Also where another model has the same name.")
    ] = False,
) -> None:
    """Install a model file for all your processes.

    It is checked, and copied to where models are looked up. Stores that were written with it then
    open everywhere on this account.

    \b
    Example:
      coinpp models install mine.safetensors
    """
    from coinpp_xr.files import write_atomically
    from coinpp_xr.model_files import cache_folder, shipped_models
    from coinpp_xr.models import Model

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
    say(f"{model.name}, fingerprint {model.fingerprint}: {target}")


def _card_rows(card: dict[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(card.items(), key=lambda entry: isinstance(entry[1], dict)):
        label = indent + key.replace("_", " ")
        if isinstance(value, dict):
            yield label, ""
            yield from _card_rows(value, indent + "  ")
        else:
            yield label, f"{value:,}" if type(value) is int else str(value)
