"""Writes registry.txt (sha256 of every model file in this folder) and a card in Markdown for each.

Run it after adding or replacing a model. Entries of models that are not in this folder (those
that are only downloaded) stay as they are.

Example: python pretrained/update_registry.py
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from coinpp_xr.models import Model

FOLDER = Path(__file__).parent


def markdown(model: Model) -> str:
    """The model's card for people."""
    card = dict(model.card)
    scores, configuration = card.pop("validation_rmse"), card.pop("configuration")
    candidates = card.pop("candidates", {})
    by_latents = card.pop("validation_rmse_by_latents", {})
    siren, tail = model.siren, model.tail
    network = f"SIREN of {siren.depth} sine layers of width {siren.width}"
    if tail is not None:
        functions = (
            f"of spherical harmonics up to degree {tail.tail.degree}"
            if model.box is None
            else f"of cosines in patches of {' x '.join(map(str, model.box.shape))}"
        )
        network += (
            f" with {siren.latent_dim} of the latents, linear tail {functions} with "
            f"{tail.tail.latent_dim}"
        )
    facts = {
        "latents per item": model.latent_dim,
        "base network": network,
        "file": f"{model.nbytes:,} bytes",
        "fingerprint": model.fingerprint,
        **{name.replace("_", " "): value for name, value in card.items() if name != "description"},
    }
    units = model.units or "the unit of the data"
    measure = f"area-weighted, in {units}"
    if model.box is not None:
        facts |= {
            "against blocking": _layers(model),
            "coder": f"{0 if model.prior is None else model.prior.packed.nbytes:,} bytes of prior",
        }
        measure = "of patches, features in [0, 1] (PSNR = −20 log10)"
    lines = [f"# {model.name}", "", card.get("description", ""), "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    of_bits = f", {len(model.histogram)} latents"
    rows = [
        *((f"{count} latents", by_latents[count]) for count in sorted(by_latents, key=int)),
        *((f"{rate}{of_bits}", rmse) for rate, rmse in scores.items() if "bits" in rate),
    ]
    if not by_latents:
        rows = [("unquantized", scores["unquantized"]), *rows]
    lines += _table(f"Held-out RMSE, {measure}", rows)
    if candidates:
        ranked = sorted(candidates.items(), key=lambda entry: float(entry[1]))
        lines += _table("What was tried, judged on a spread of held-out fields", ranked)
    lines += ["", "Training configuration:", "", "```json", json.dumps(configuration, indent=1)]
    return "\n".join([*lines, "```", ""])


def _layers(model: Model) -> str:
    if model.deblocking is None:
        return "nothing"
    shapes = [" x ".join(map(str, kernel.shape[2:])) for kernel in model.deblocking.kernels]
    widths = [str(len(kernel)) for kernel in model.deblocking.kernels]
    return f"{len(shapes)} layers of {', '.join(widths)} channels, {shapes[0]}"


def _table(title: str, rows: Iterable[tuple[str, float]]) -> list[str]:
    lines = ["", f"{title}:", "", "| | RMSE |", "| --- | ---: |"]
    return [*lines, *(f"| {label} | {rmse} |" for label, rmse in rows)]


def main() -> None:
    registry = FOLDER / "registry.txt"
    lines = registry.read_text().splitlines() if registry.exists() else []
    digests = dict(line.split() for line in lines if line.strip() and not line.startswith("#"))
    for path in FOLDER.glob("*.safetensors"):
        digests[path.name] = sha256(path.read_bytes()).hexdigest()
        path.with_suffix(".md").write_text(markdown(Model.from_file(path)))
    registry.write_text("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())))


if __name__ == "__main__":
    main()
