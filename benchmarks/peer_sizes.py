"""Sizes of other codecs at given area-weighted RMSE, for other benchmarks to compare with.

COINPP_DATA=... python benchmarks/peer_sizes.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from common import climate, open_variable, write_result
from hostile import hostile_fields, targets
from peers import Eofs, PeerResult, eof_equal_steps, eof_truncation, sperr, sz3

Peer = Callable[[npt.ArrayLike, npt.ArrayLike, float], PeerResult | None]
PEERS: dict[str, Peer] = {"sperr": sperr, "sz3": sz3}


def describe(result: PeerResult | None, globes: int) -> dict[str, Any] | None:
    if result is None:
        return None
    return {**asdict(result), "bits_per_globe": round(8 * result.nbytes / globes, 1)}


def measure(
    chunk: npt.NDArray[np.float32], latitude: npt.ArrayLike, target: float, peers: dict[str, Peer]
) -> dict[str, Any]:
    """Each peer's smallest stream for one chunk, and the name of the smaller codec."""
    results = {name: peer(chunk, latitude, target) for name, peer in peers.items()}
    codecs = {name: results[name] for name in PEERS if results[name] is not None}
    row = {
        "target_rmse": target,
        "globes": len(chunk),
        "best": min(codecs, key=lambda name: codecs[name].nbytes) if codecs else None,
        **{name: describe(result, len(chunk)) for name, result in results.items()},
    }
    print(row, flush=True)
    return row


def main() -> None:
    archive = open_variable(climate("gcm_6hourly_46x90.nc"))
    test = open_variable(climate("gcm_6hourly_test_46x90.nc"))
    era5 = open_variable(climate("era5_t2m_46x90.nc"))
    latitude = test.lat.values
    eofs = Eofs.fit(archive.values, latitude)
    trained: dict[str, Peer] = {
        "eof_truncation": partial(eof_truncation, eofs),
        "eof_equal_steps": partial(eof_equal_steps, eofs),
    }
    chunks = {start: test.values[start : start + 256] for start in range(0, len(test), 256)}

    gcm = [
        {"first_globe": start, **measure(chunk, latitude, target, {**PEERS, **trained})}
        for target in (0.5, 1.0, 1.5)
        for start, chunk in chunks.items()
    ]
    totals = [
        {
            "target_rmse": target,
            **{
                f"{name}_bits_per_globe": round(
                    8
                    * sum(row[name]["nbytes"] for row in gcm if row["target_rmse"] == target)
                    / len(test),
                    1,
                )
                for name in (*PEERS, *trained)
            },
        }
        for target in (0.5, 1.0, 1.5)
    ]
    hostile = {
        name: [
            {"fraction": fraction, **measure(field, lat, target, PEERS)}
            for fraction, target in targets(field, lat).items()
        ]
        for name, (field, lat, _) in hostile_fields().items()
    }
    write_result(
        "peer_sizes",
        {
            "versions": {
                "imagecodecs": version("imagecodecs"),
                "codecs": [imagecodecs.sperr_version(), imagecodecs.sz3_version()],
            },
            "data": {
                "gcm": "simulated 6-hourly near-surface temperature, 46 x 90: the 720 test globes "
                "in time order in chunks of 256, 256 and 208; EOFs of the 7,200 globes before them",
                "era5": "2 m temperature of ERA5, 46 x 90, 12 globes in one chunk",
                "hostile": "benchmarks/hostile.py; targets are fractions of the area-weighted "
                "standard deviation",
            },
            "metric": "bytes of the smallest stream with area-weighted RMSE (K for temperature) "
            "within the target; a codec's streams as they are, ideal code length for EOFs, whose "
            "basis and tables are not counted",
            "gcm_totals": totals,
            "gcm": gcm,
            "era5": [
                measure(era5.values, era5[era5.dims[1]].values, target, PEERS)
                for target in (0.25, 0.5, 1.0, 2.0)
            ],
            "hostile": hostile,
        },
    )


if __name__ == "__main__":
    main()
