"""Inner loops side by side: RMSE and time per globe of one SIREN with shift modulations.

The paper's gradient steps, at the learning rate that is best on training globes, against the
matrix step, chord and Gauss-Newton steps, and projection on EOFs. The network is trained first
(some minutes) and kept in .local/.

    COINPP_DATA=... python benchmarks/fitting.py
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import climate, open_variable, weighted_rmse, write_result

import coinpp_xr
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import compute_device, fit, predict
from coinpp_xr.fitting import Origin
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.siren import ModulatedSiren

Float32 = npt.NDArray[np.float32]

LATENTS, STEPS = 16, 5000
KEPT = Path(__file__).parent.parent / ".local" / f"fitting-{LATENTS}.safetensors"
VALIDATION = 720
BATCHES = (1, 16, 256, 4096)
SGD_STEPS = (1, 3, 10, 50)
# In standard form JᵀWJ is the identity at zero latents: a rate of 0.5 is a Newton step there.
RATES = (0.1, 0.2, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7, 0.8)
# A spread of test globes tells the error, one of training globes the learning rate.
JUDGED, SCANNED = 72, 24
# Rounds of every method in turn, so that whatever else the machine does hits all alike.
ROUNDS = 5
# Of a method at a batch size; less than it takes for one round leaves it out.
MOST_SECONDS = 60.0
YARDSTICK = "3 SGD steps"


def trained() -> Model:
    """The network of this benchmark, without a linear tail."""
    if not KEPT.is_file():
        model = coinpp_xr.train(
            climate("gcm_6hourly_46x90.nc"), latent_dim=LATENTS, max_minutes=None, tail=False,
            name=KEPT.stem, settings={"steps": STEPS}, validation_items=VALIDATION,
            log=lambda record: print(record.get("step"), record.get("validation_rmse", "")),
        )  # fmt: skip
        model.save(KEPT)
    return Model.from_file(KEPT)


class Globes:
    """Features of globes on one grid, and how well latents describe them.

    Parameters
    ----------
    values : float32 array, shape (items, points)
    grid : SphereGrid
    model : Model
        For the normalisation.
    """

    def __init__(self, values: Float32, grid: SphereGrid, model: Model) -> None:
        self.values, self.grid, self.model = values, grid, model
        scaled = (values - model.offset) / model.scale
        self.features = scaled.astype(np.float32)[..., None]

    def rmse(self, siren: ModulatedSiren, latents: Float32) -> float:
        """Area-weighted, in K."""
        back = predict(siren, self.grid.points, latents)[..., 0] * self.model.scale
        return weighted_rmse(back + self.model.offset, self.values, self.grid.area_weights)


def best_rate(siren: ModulatedSiren, globes: Globes, steps: int, rates: tuple[float, ...]) -> float:
    """The learning rate with the smallest error after so many steps."""

    def error(rate: float) -> float:
        with np.errstate(all="ignore"):
            latents = fit(
                siren, globes.grid.points, globes.features, globes.grid.area_weights,
                effort="paper", inner_steps=steps, learning_rate=rate,
            )  # fmt: skip
            rmse = globes.rmse(siren, latents)
        return rmse if np.isfinite(rmse) else np.inf

    return min(rates, key=error)


def whitened(siren: ModulatedSiren, std: npt.NDArray[np.float64]) -> ModulatedSiren:
    """The same network with training latents of unit variance, as training starts from."""
    return siren.with_shift_map((siren.shift_map * std).astype(np.float32))


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turn(
    methods: dict[str, Callable[[int], object]], batch: int, known: dict[str, float]
) -> dict[str, list[float]]:
    """Seconds per globe of every method in every round; slow ones take part in fewer rounds.

    ``known`` holds seconds per globe at a smaller batch.
    """

    def rounds(name: str) -> int:
        affordable = int(MOST_SECONDS / (batch * known.get(name, 1e-9)))
        return min(ROUNDS, max(affordable, int(name == YARDSTICK)))

    chosen = {name: (method, rounds(name)) for name, method in methods.items() if rounds(name)}
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for name, (method, _) in chosen.items():
        method(batch if batch * known.get(name, 1.0) < 1 else 2)  # caches, threads, GPU kernels
    for number in range(ROUNDS):
        for name, (method, last) in chosen.items():
            if number < last:
                # Of a short call the best of a few: a timer's tick and a thread's start are long.
                calls = 1 if batch * known.get(name, 1.0) > 0.02 else 5
                best = min(seconds(partial(method, batch)) for _ in range(calls))
                times[name].append(best / batch)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--quick", action="store_true", help="nothing written")
    arguments = parser.parse_args()

    model = trained()
    siren = model.siren
    archive = open_variable(climate("gcm_6hourly_46x90.nc"))
    grid = SphereGrid(archive.lat.values, archive.lon.values)
    weights, points = grid.area_weights, grid.points
    train = archive.values.reshape(len(archive), -1).astype(np.float32)[:-VALIDATION]
    test = open_variable(climate("gcm_6hourly_test_46x90.nc")).values.astype(np.float32)
    test = test.reshape(len(test), -1)
    judged = Globes(test[:: len(test) // JUDGED], grid, model)
    scanned = Globes(train[:: len(train) // SCANNED][:SCANNED], grid, model)

    rates = {steps: best_rate(siren, scanned, steps, RATES) for steps in SGD_STEPS[:-1]}
    # Many steps converge at any stable rate.
    rates[SGD_STEPS[-1]] = best_rate(siren, scanned, SGD_STEPS[-1], (0.3, 0.5))
    options: dict[str, dict[str, Any]] = {
        f"{steps} SGD steps": {"effort": "paper", "inner_steps": steps, "learning_rate": rate}
        for steps, rate in rates.items()
    }
    options |= {
        "matrix step (fast)": {"effort": "fast"},
        "default": {"effort": "default"},
        "best": {"effort": "best"},
    }
    rmse = {
        name: judged.rmse(siren, fit(siren, points, judged.features, weights, **option))
        for name, option in options.items()
    }
    print(rates, rmse, flush=True)

    root = np.sqrt(weights)
    mean = train.mean(0, dtype=np.float64)
    scaled = ((train - mean) * root)[::2]
    vectors = np.linalg.eigh(scaled.T @ scaled)[1][:, ::-1][:, :LATENTS]
    forward = (root[:, None] * vectors).astype(np.float32)
    back = (vectors / root[:, None]).astype(np.float32).T
    offset = mean.astype(np.float32)
    rest = (judged.values - mean) * root
    rest = rest - rest @ vectors @ vectors.T
    rmse["EOF projection"] = float(np.sqrt((rest**2).sum(1).mean()))

    most = max(arguments.batches)
    many = Globes(np.resize(test, (most, test.shape[1])), grid, model)
    latents = fit(siren, points, many.features, weights, effort="fast")

    def fitted(batch: int, option: dict[str, Any]) -> object:
        return fit(siren, points, many.features[:batch], weights, **option)

    methods: dict[str, Callable[[int], object]] = {
        name: partial(fitted, option=option) for name, option in options.items()
    }
    methods["decode"] = lambda batch: predict(siren, points, latents[:batch])
    methods["EOF projection"] = lambda batch: (many.values[:batch] - offset) @ forward
    methods["EOF decode"] = lambda batch: latents[:batch] @ back + offset

    shared = (weights / weights.sum()).astype(np.float32)[None]

    def precomputed(curved: bool) -> object:
        return map_in_threads(
            lambda network: Origin.of(network, points, shared, curved=curved), [siren]
        )

    # The first derivatives of the Jacobian are for chord steps only.
    preparations = {"matrix step (fast)": False, "default": True}
    devices = ["cpu"]
    with coinpp_xr.config.set(device="auto"):
        devices += [name for name in [compute_device()] if name != "cpu"]
    rows, precompute = [], {}
    for device in devices:
        with coinpp_xr.config.set(device=device):
            precompute[device] = {
                name: round(
                    1e3 * statistics.median(seconds(partial(precomputed, curved)) for _ in "12345"),
                    3,
                )
                for name, curved in preparations.items()
            }
            known: dict[str, float] = {}
            for batch in arguments.batches:
                times = in_turn(methods, batch, known)
                known = {name: min(rounds) for name, rounds in times.items()} | {
                    name: value for name, value in known.items() if name not in times
                }
                for name, rounds in times.items():
                    milliseconds = 1e3 * statistics.median(rounds)
                    row = {
                        "device": device,
                        "method": name,
                        "batch": batch,
                        "ms_per_globe": round(milliseconds, 5),
                        "rmse_K": round(rmse[name], 5) if name in rmse else None,
                    }
                    if YARDSTICK in times:
                        ratio = statistics.median(
                            slow / fast
                            for slow, fast in zip(times[YARDSTICK], rounds, strict=False)
                        )
                        row["times_as_fast_as_3_sgd_steps"] = round(ratio, 2)
                        if name in preparations:
                            whole = milliseconds + precompute[device][name] / batch
                            row["with_precomputation"] = round(ratio * milliseconds / whole, 2)
                    rows.append(row)
                    print(row, flush=True)

    other = whitened(siren, model.latent_std)
    unit_variance = {}
    for steps in (3, 10):
        rate = best_rate(other, scanned, steps, tuple(np.geomspace(0.5, 5000, 13)))
        found = fit(
            other, points, judged.features, weights,
            effort="paper", inner_steps=steps, learning_rate=rate,
        )  # fmt: skip
        unit_variance[f"{steps} SGD steps"] = {
            "learning_rate": round(rate, 3), "rmse_K": round(judged.rmse(other, found), 4)
        }  # fmt: skip
    print(unit_variance)
    if arguments.quick:
        return
    write_result(
        "fitting",
        {
            "data": f"simulated 6-hourly near-surface temperature, 46 x 90; errors are means over "
            f"{len(judged.values)} test globes from the half year after the training data",
            "network": f"SIREN of {siren.depth} sine layers of width {siren.width} with "
            f"{LATENTS} latents, {STEPS} training steps, in standard form (JᵀWJ is the identity at "
            "zero latents, which makes a learning rate of 0.5 a Newton step there)",
            "metric": "area-weighted RMSE in K; medians of the times of "
            f"{ROUNDS} rounds in which every method has its turn (fewer where a batch takes long; "
            f"what takes more than {MOST_SECONDS:g} s is left out)",
            "learning_rates": {str(steps): rate for steps, rate in rates.items()},
            "precomputation_ms": precompute,
            "rows": rows,
            "sgd_with_latents_of_unit_variance": unit_variance,
        },
    )


if __name__ == "__main__":
    main()
