"""What the pyramid's network saves: bytes with it over bytes without, on real fields.

The same fields that it has learned from, with the network that ships; and, for fields that were
left out, with one that has never seen them. Everything else of the coder is the same.
``pretrained/universal.py`` makes both.

    COINPP_DATA=... python benchmarks/network.py left-out.safetensors    # some ten minutes
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from common import write_result
from safetensors import safe_open
from safetensors.numpy import load_file

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrained"))
from universal import fields

from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.experts import Expert, shipped
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound
from coinpp_xr.recognition import layouts_of

SIZES = {"default": "small", "best": "large"}
# The encoder tries without it, too, where so few bytes come out.
HARDLY_ANYTHING = 1 << 12


def nbytes(known: Any, error: float, effort: str, expert: Expert | None) -> int:
    """Of the pyramid alone, head and streams."""
    coded = bounded.encode(known, Bound(error), known.sequences, effort, expert)
    assert coded is not None
    return len(coded)


def main(path: str) -> None:
    tensors = load_file(path)
    with safe_open(path, framework="numpy") as file:
        about = json.loads(file.metadata()["about"])
    left_out = about["small.alone"]["left out"]
    unseen = {
        size: Expert.of(tensors, size)
        for size in SIZES.values()
        if f"{size}.alone.first" in tensors
    }
    rows = []
    for name, values, shares in fields():
        known = Fields.of_sequence(values, layouts_of(*values.shape[-2:])[0])
        spread = float(known.values.std(where=known.valid))
        for share in shares:
            for effort, size in SIZES.items():
                if effort == "best" and share not in (0.008, 0.01):
                    continue
                without = nbytes(known, share * spread, effort, None)
                row = {
                    "field": name, "fields": len(values), "cells": values[0].size,
                    "bound": share * spread, "effort": effort, "without": without,
                }  # fmt: skip
                experts = {"seen": shipped()[size]}
                if size in unseen and any(word in f"{name}@{share}.npz" for word in left_out):
                    experts["unseen"] = unseen[size]
                for label, expert in experts.items():
                    found = nbytes(known, share * spread, effort, expert) / without
                    row[label] = round(min(found, 1.0) if without < HARDLY_ANYTHING else found, 4)
                rows.append(row)
                print(row, flush=True)
    result = {"left out": left_out, "cases": rows}
    write_result("network", result)


if __name__ == "__main__":
    main(sys.argv[1])
