"""Pure SIREN against EOF truncation and the paper's recipe, at equal latents and equal time.

Trains on the simulated 6-hourly temperature (all but its last 720 globes, which steer), and looks
once at the test file. Every model gets the same wall time. Also measures what quantization costs.

    COINPP_DATA=... python benchmarks/siren_vs_eof.py --minutes 5
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

import numpy as np
from common import climate, eof_rmse, open_variable, weighted_rmse, write_result

from coinpp_xr import entropy
from coinpp_xr.building import build_model
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data import Fields, to_training_data
from coinpp_xr.devices import fit, predict
from coinpp_xr.models import Model
from coinpp_xr.quantization import UniformQuantizer
from coinpp_xr.training import PRESETS, TrainingConfig, TrainingData, meta_learn


def decibel_loss(before: float, after: float) -> float:
    return 20 * float(np.log10(after / before))


def quantization(
    model: Model, data: TrainingData, test: np.ndarray, weights: np.ndarray
) -> list[dict[str, float]]:
    """PSNR lost and real bits spent, ours and with the paper's quantizer."""
    features = ((test - model.offset) / model.scale)[..., None].astype(np.float32)
    latents = fit(model.siren, data.points, features, weights)
    train = fit(model.siren, data.points, data.train[::4], weights).astype(np.float64)

    def rmse(z: np.ndarray) -> float:
        back = predict(model.siren, data.points, z)[..., 0] * model.scale + model.offset
        return weighted_rmse(back, test, weights)

    exact = rmse(latents)
    # The paper: one mean, one standard deviation and one table for all latents, clipped at 3σ.
    k = model.latent_dim
    mean, std = np.full(k, train.mean()), np.full(k, train.std())
    pooled = entropy.fit_histogram(train.reshape(-1, 1), mean[:1], std[:1]).repeat(k, axis=0)
    rows = []
    for bits in (3, 4, 5, 6, 8):
        ours = model.quantizer(bits)
        symbols = ours.quantize(latents)
        papers = UniformQuantizer(mean, std, bits)
        clipped = papers.quantize(latents, clip=True)
        rows.append(
            {
                "bits": bits,
                "ours_db_lost": decibel_loss(exact, rmse(ours.dequantize(symbols))),
                "ours_bits_per_globe": 8
                * len(entropy.encode(symbols, model.histogram, bits))
                / len(test),
                "papers_db_lost": decibel_loss(exact, rmse(papers.dequantize(clipped))),
                "papers_bits_per_globe": 8 * len(entropy.encode(clipped, pooled, bits)) / len(test),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="wall time per model")
    parser.add_argument("--latents", type=int, nargs="+", default=[8, 16, 32])
    arguments = parser.parse_args()

    archive = open_variable(climate("gcm_6hourly_46x90.nc"))
    grid = SphereGrid(archive.lat.values, archive.lon.values)
    fields = Fields(archive.values.astype(np.float32), grid, "t2m", "K")
    data, normalisation = to_training_data([fields], validation_items=720)
    test = open_variable(climate("gcm_6hourly_test_46x90.nc")).values
    test = test.reshape(len(test), -1).astype(np.float32)
    train = data.train[..., 0] * normalisation[1] + normalisation[0]
    area, equal = grid.area_weights, np.full(grid.area_weights.size, 1 / grid.area_weights.size)
    eof = eof_rmse(train, test, area, arguments.latents)
    eof_plain = eof_rmse(train, test, equal, arguments.latents)

    def score(name: str, config: TrainingConfig, **fit_options: object) -> tuple[dict, Model]:
        started = time.perf_counter()
        siren = meta_learn(data, config, max_minutes=arguments.minutes)
        minutes = (time.perf_counter() - started) / 60
        model = build_model("benchmark", siren, data, config, normalisation, {})
        features = ((test - model.offset) / model.scale)[..., None].astype(np.float32)
        latents = fit(model.siren, data.points, features, area, **fit_options)
        back = predict(model.siren, data.points, latents)[..., 0] * model.scale + model.offset
        k = config.latent_dim
        rmse = weighted_rmse(back, test, area)
        return {
            "latents": k,
            "recipe": name,
            "training_minutes": round(minutes, 2),
            "parameters": siren.parameter_count,
            "rmse_K": rmse,
            "eof_rmse_K": eof[k],
            "ratio_to_eof": rmse / eof[k],
            "rmse_plain_K": weighted_rmse(back, test, equal),
            "eof_rmse_plain_K": eof_plain[k],
        }, model

    rows, losses = [], {}
    for k in arguments.latents:
        row, model = score("warm start", TrainingConfig(latent_dim=k), effort="best")
        rows.append(row)
        losses[str(k)] = quantization(model, data, test, area)
        config = replace(PRESETS[f"small-paper-{k}"], weighting="area")
        options = {"inner_steps": config.inner_steps, "learning_rate": config.inner_lr}
        rows.append(score("paper's recipe", config, effort="paper", **options)[0])
        print(rows[-2:], flush=True)
    write_result(
        "siren_vs_eof",
        {
            "data": "simulated 6-hourly near-surface temperature, 46 x 90: 6,480 globes to train, "
            "720 test globes from the half year after",
            "metric": "RMSE in K, area-weighted by cos(latitude) unless called plain; EOFs are "
            "fitted in the same weights. Plain RMSE counts the two pole rows, where the data has "
            "90 different values in one point of the sphere, which no function on it can hold",
            "models": rows,
            "quantization": losses,
        },
    )


if __name__ == "__main__":
    main()
