"""Which model pays for an archive of which size: chunks plus weights, in bytes.

    COINPP_DATA=… python benchmarks/model_size.py

Two parts: ``ds.coinpp.to_zarr(..., target_rmse=1.0, train_minutes=5, embed_model=True)`` on 1,440
and 7,200 simulated globes beside SPERR in three dimensions on the same chunks; and the break-even
between no model, a mean field, few and many EOFs, from bits per globe on months that no model was
made from.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from common import climate, open_variable, write_result
from peers import sperr

import coinpp_xr  # noqa: F401 - registers ds.coinpp
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.models import load_model
from coinpp_xr.sizing import Sized, smallest_model

TARGET, DEPTH = 1.0, 256


def whole_archive(array: xr.DataArray, globes: int, minutes: float) -> dict[str, Any]:
    """One call that trains, writes and verifies, beside SPERR-3D on the same chunks."""
    part = array[:globes]
    with tempfile.TemporaryDirectory() as folder:
        report = part.to_dataset(name="t2m").coinpp.to_zarr(
            Path(folder) / "archive.zarr", target_rmse=TARGET, train_minutes=minutes,
            embed_model=True, chunk_time=DEPTH,
        )  # fmt: skip
        variable = report["t2m"]
    chunks = [part.to_numpy()[start : start + DEPTH] for start in range(0, globes, DEPTH)]
    peer = [sperr(chunk, array["lat"].to_numpy(), TARGET) for chunk in chunks]
    peer_nbytes = sum(result.nbytes for result in peer if result is not None)
    total = variable.nbytes + variable.model_nbytes
    return {
        "globes": globes, "chunk_nbytes": variable.nbytes, "model_nbytes": variable.model_nbytes,
        "metadata_nbytes": report.metadata_nbytes, "rmse": variable.rmse,
        "sperr_nbytes": peer_nbytes, "ratio": round(total / peer_nbytes, 4),
    }  # fmt: skip


def break_even(array: xr.DataArray, test: xr.DataArray) -> list[dict[str, Any]]:
    """The best of the models for archives of 10² to 10⁶ globes like these."""
    grid = SphereGrid(test["lat"].to_numpy(), test["lon"].to_numpy())
    # So many globes that every size is tried.
    _, sizes = smallest_model(array, target_rmse=TARGET, globes=10**7, max_minutes=None)
    values = test.to_numpy().astype(np.float32)
    chunks = [values[start : start + DEPTH] for start in (0, DEPTH)]

    def bits(model: Any) -> float:
        payloads = [encode_chunk(c, model, target_rmse=TARGET, grid=grid) for c in chunks]
        return 8 * sum(map(len, payloads)) / sum(map(len, chunks))

    held_out = [Sized(s.model, s.latents, s.model_nbytes, bits(s.model)) for s in sizes]
    shipped = load_model("t2m-46x90")
    rows = []
    for globes in (10**n for n in range(2, 7)):
        best = min(held_out, key=lambda sized: sized.total(globes))
        rows.append(
            {
                "globes": globes,
                "best_latents": best.latents if best.model else None,
                "best_model_nbytes": best.model_nbytes,
                "best_total_nbytes": round(best.total(globes)),
                "no_model_nbytes": round(held_out[0].total(globes)),
                "shipped_model_nbytes": round(
                    Sized(shipped, 0, shipped.nbytes, bits(shipped)).total(globes)
                ),
            }
        )
    tried = [
        {"latents": s.latents if s.model else None, "model_nbytes": s.model_nbytes,
         "bits_per_globe": round(s.bits_per_globe, 2)}
        for s in held_out
    ]  # fmt: skip
    return [{"tried": tried}, *rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="training time per archive")
    minutes = parser.parse_args().minutes
    array = open_variable(climate("gcm_6hourly_46x90.nc"))
    test = open_variable(climate("gcm_6hourly_test_46x90.nc"))
    archives = [whole_archive(array, globes, minutes) for globes in (1440, 7200)]
    tried, *rows = break_even(array, test)
    write_result(
        "model_size",
        {
            "data": "simulated 6-hourly near-surface temperature, 46 x 90; break-even: models made "
            "from 7,200 globes, bits per globe on the first 512 of the half year after them",
            "target_rmse": TARGET,
            "archives": archives,
            "break_even": rows,
            **tried,
        },
    )


if __name__ == "__main__":
    main()
