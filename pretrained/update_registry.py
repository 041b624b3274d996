"""Writes registry.txt (sha256 of every model file in this folder) and a card in Markdown for each.

Run it after adding or replacing a model. Entries of models that are not in this folder (those
that are only downloaded) stay as they are.

Example: python pretrained/update_registry.py
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from coinpp_xr.models import Model

FOLDER = Path(__file__).parent


def markdown(model: Model) -> str:
    """The model's card for people."""
    card = dict(model.card)
    scores, configuration = card.pop("validation_rmse"), card.pop("configuration")
    facts = {
        "latents per item": model.latent_dim,
        "base network": f"{model.siren.depth} sine layers of width {model.siren.width}",
        "file": f"{model.nbytes:,} bytes",
        "fingerprint": model.fingerprint,
        **{name.replace("_", " "): value for name, value in card.items() if name != "description"},
    }
    lines = [f"# {model.name}", "", card.get("description", ""), "", "| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", f"Held-out RMSE, area-weighted, in {model.units or 'the unit of the data'}:", ""]
    lines += ["| latents | RMSE |", "| --- | ---: |"]
    lines += [f"| {rate} | {rmse} |" for rate, rmse in scores.items()]
    lines += ["", "Training configuration:", "", "```json", json.dumps(configuration, indent=1)]
    return "\n".join([*lines, "```", ""])


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
