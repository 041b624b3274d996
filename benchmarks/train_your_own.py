"""A model trained on one's own archive within minutes, against EOF truncation and COIN++'s recipe.

Trains on the first 7,000 globes of simulated 6-hourly temperature (the last tenth of them, at most
720, judge), and looks at the test file, the half year after that file's end, once.

    COINPP_DATA=... python benchmarks/train_your_own.py --minutes 10
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import climate, eof_rmse, open_variable, weighted_rmse, write_result

import coinpp_xr
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import fit, predict
from coinpp_xr.models import Model

GLOBES = 7000
HELD_OUT = 700


def row(
    recipe: str, model: Model, minutes: float, test: np.ndarray, grid: SphereGrid, effort: str
) -> dict[str, object]:
    """Errors of a model on test globes, with area weights and without."""
    features = ((test - model.offset) / model.scale)[..., None].astype(np.float32)
    options: dict[str, object] = {}
    if effort == "paper":
        settings = model.card["configuration"]
        options = {
            "inner_steps": settings["inner_steps"], "learning_rate": settings["inner_lr"],
        }  # fmt: skip
    latents = fit(model.network, grid.points, features, grid.area_weights, effort=effort, **options)
    back = predict(model.network, grid.points, latents)[..., 0] * model.scale + model.offset
    return {
        "latents": model.latent_dim,
        "recipe": recipe,
        "minutes": round(minutes, 2),
        "network": model.card.get("network", "the SIREN alone"),
        "candidates": model.card.get("candidates", {}),
        "rmse_K": weighted_rmse(back, test, grid.area_weights),
        "rmse_plain_K": weighted_rmse(back, test, np.full(back.shape[1], 1 / back.shape[1])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="wall time per model")
    parser.add_argument("--latents", type=int, nargs="+", default=[16, 32, 64, 256])
    parser.add_argument("--quick", action="store_true", help="seconds per model, nothing written")
    arguments = parser.parse_args()
    minutes = 0.1 if arguments.quick else arguments.minutes

    archive = open_variable(climate("gcm_6hourly_46x90.nc"))[:GLOBES]
    grid = SphereGrid(archive.lat.values, archive.lon.values)
    test = open_variable(climate("gcm_6hourly_test_46x90.nc")).values
    test = test.reshape(len(test), -1).astype(np.float32)

    def trained(recipe: str, k: int, **options: object) -> dict[str, object]:
        started = time.perf_counter()
        model = coinpp_xr.train(
            archive, latent_dim=k, max_minutes=minutes, validation_items=HELD_OUT,
            name=f"own-{k}", **options,
        )  # fmt: skip
        spent = (time.perf_counter() - started) / 60
        effort = "paper" if recipe == "COIN++" else "best" if k <= 64 else "default"
        return row(recipe, model, spent, test, grid, effort)

    rows = [trained("default", k) for k in arguments.latents]
    if 16 in arguments.latents:
        # The published method at a size and with step sizes that learn within minutes.
        weighting = {"weighting": "area"}
        rows.append(trained("COIN++", 16, preset="small-paper-16", settings=weighting))
    globes = archive.values.reshape(GLOBES, -1)
    plain = np.full(globes.shape[1], 1 / globes.shape[1])
    # The held-out globes chose between our candidates; EOFs are also given them to train on.
    eofs = {
        "rmse_K": eof_rmse(globes[:-HELD_OUT], test, grid.area_weights, arguments.latents),
        "rmse_all_globes_K": eof_rmse(globes, test, grid.area_weights, arguments.latents),
        "rmse_plain_K": eof_rmse(globes[:-HELD_OUT], test, plain, arguments.latents),
    }
    for entry in rows:
        for name, by_count in eofs.items():
            entry[f"eof_{name}"] = by_count[entry["latents"]]
        entry["ratio_to_eof"] = entry["rmse_K"] / entry["eof_rmse_K"]
        entry["ratio_to_eof_plain"] = entry["rmse_plain_K"] / entry["eof_rmse_plain_K"]
    result = {
        "data": f"simulated 6-hourly near-surface temperature, 46 x 90: {GLOBES - HELD_OUT:,} "
        f"globes to train, {HELD_OUT} to judge by, {len(test)} test globes from the half year "
        "after the file",
        "metric": "RMSE in K, area-weighted by cos(latitude) unless called plain; EOFs are fitted "
        "to the same training globes in the same weights",
        "models": rows,
    }
    if arguments.quick:
        for entry in rows:
            print(entry)
    else:
        write_result("train_your_own", result)


if __name__ == "__main__":
    main()
