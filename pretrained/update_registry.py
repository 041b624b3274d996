"""Writes the sha256 of every model file in this folder to registry.txt.

Run it after adding or replacing a model. Entries of models that are not in this folder (those
that are only downloaded) stay as they are.

Example: python pretrained/update_registry.py
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

folder = Path(__file__).parent
registry = folder / "registry.txt"
lines = registry.read_text().splitlines() if registry.exists() else []
digests = dict(line.split() for line in lines if line.strip() and not line.startswith("#"))
digests |= {p.name: sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.safetensors")}
registry.write_text("".join(f"{name} {digest}\n" for name, digest in sorted(digests.items())))
