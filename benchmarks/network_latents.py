"""What modulations of the pyramid's network would save if they were fitted to every chunk.

COIN++ shifts the hidden units of a shared network by a few latents of each item. Here the network
that ships is fitted to one chunk's own points: the shifts of its hidden units (its biases), which
is what any number of latents could reach at most, and the whole network, which is what no latents
could. What these numbers would take in the payload is counted at eight bits for each shift, and not
at all for the whole network.

    COINPP_DATA=... python benchmarks/network_latents.py    # some minutes
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from common import write_result

sys.path.insert(0, str(Path(__file__).parent.parent / "pretrained"))
from universal import fields

from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.experts import Expert, shipped
from coinpp_xr.coding.pyramid.observing import observe
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound
from coinpp_xr.recognition import layouts_of
from coinpp_xr.training.expert_training import ExpertTraining, Observed

CASES = {
    "t2m-gfs_t2m_0p25": 0.008, "msl-era5_msl_0p25": 0.008, "u10-1deg-1": 0.008, "t2m-1deg-6": 0.008,
    "t-erainterim": 0.01, "u-erainterim": 0.01, "u-hourly-5": 0.01, "gcm-3000": 0.01,
}  # fmt: skip
MOST_OF_PASS, POINTS = 40_000, 200_000
SECONDS, LEARNING_RATE = 20.0, 3e-3


def fitted(observed: dict[str, Any], start: Any, *, referring: bool, shifts: bool) -> list[Any]:
    """Weights and biases after some seconds on a chunk's own points."""
    widths = len(start.first_bias), len(start.second_bias)
    training = ExpertTraining(widths, learning_rate=LEARNING_RATE)
    training.start_from(start[: len(training.layers)])
    if shifts:  # only biases of hidden layers learn
        for k, layer in enumerate(training.layers):
            layer.requires_grad_(k in (1, 3))
    training.train(Observed.of(observed, POINTS, referring=referring), SECONDS)
    return training.arrays()


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    small = shipped()["small"]
    for name, values, _ in fields():
        if name not in CASES:
            continue
        known = Fields.of_sequence(values, layouts_of(*values.shape[-2:])[0])
        bound = Bound(CASES[name] * float(known.values.std(where=known.valid)))
        observed = observe(known, bound, MOST_OF_PASS)

        def nbytes(expert: Expert | None, known: Any = known, bound: Bound = bound) -> int:
            coded = bounded.encode(known, bound, known.sequences, "default", expert)
            assert coded is not None
            return len(coded)

        row: dict[str, Any] = {"field": name, "fields": len(values), "bound": bound.error}
        row |= {"without": nbytes(None), "shipped": nbytes(small)}
        for label, shifts in (("shifts", True), ("whole network", False)):
            tensors, count = {}, 0
            for kind in ("alone", "referring"):
                start = getattr(small, kind)
                arrays = [array.astype("i4") for array in start[:6]]
                if len(values) > 1 or kind == "alone":
                    referring = kind == "referring"
                    arrays = fitted(observed, start, referring=referring, shifts=shifts)
                    count += len(start.first_bias) + len(start.second_bias)
                names = ("first", "first.bias", "second", "second.bias", "last", "last.bias")
                for array_name, array in zip(names, arrays, strict=True):
                    tensors[f"own.{kind}.{array_name}"] = array
            row[label] = nbytes(Expert.of(tensors, "own"))
            if shifts:
                row["bytes of shifts"] = count
        rows.append(row)
        print(row, flush=True)
    write_result("network_latents", {"seconds": SECONDS, "cases": rows})


if __name__ == "__main__":
    main()
