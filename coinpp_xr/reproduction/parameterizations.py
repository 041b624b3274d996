"""Figure 5: what latents modulate, and how.

Every way is trained alike on the same data, with as many latents: as many numbers are stored. Only
the inner learning rate is its own, since the gradients of scales, shifts and amplitudes differ in
size: at quick sizes it is chosen by the validation PSNR of the first seed after a third of the
steps, from a grid that grows as long as its best is at an edge. In full it is the paper's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from coinpp_xr.reproduction.measures import Coder, gradient_steps
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.studies import STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, Task

# Label → settings of the network.
OURS = "shifts, linear (COIN++)"
OTHERS: dict[str, dict[str, Any]] = {
    OURS: {},
    # Wide enough that the hidden layer is no bottleneck for the latents.
    "scales and shifts, ReLU (Chan et al.)": {
        "modulation": "both",
        "latent_map": "relu",
        "map_width": 256,
    },
    "amplitudes, network (Mehta et al.)": {"modulation": "amplitudes", "latent_map": "network"},
}
PLACES: dict[str, dict[str, Any]] = {
    OURS: {},
    "scales": {"modulation": "scales"},
    "scales and shifts": {"modulation": "both"},
}
# Latents of the compared networks, at quick sizes and in full.
_LATENTS = {"cifar10": (64, 384), "weather": (8, 8)}
_INNER_RATES = {"quick": (3.0, 10.0), "full": (1e-2,)}
_GRID = tuple(float(f"{digit}e{power}") for power in range(-2, 6) for digit in (1, 3))
_AT_A_TIME = 2
# The search for a rate takes this share of the steps: rates that run away do so early.
_SEARCHED = 1 / 3
SEEDS = (0, 1, 2)


def left(bench: Bench) -> Result:
    """Other parameterizations of families of SIRENs."""
    return _compared(bench, OTHERS)


def right(bench: Bench) -> Result:
    """Shifts, scales, and both."""
    return _compared(bench, PLACES)


def _compared(bench: Bench, ways: dict[str, dict[str, Any]]) -> Result:
    panels, notes = [], {}
    findings: dict[str, Any] = {}
    for study, latents in _LATENTS.items():
        if study == "weather" and bench.data is not None:
            study = "era5"
        latent_dim = latents[0] if bench.quick else latents[1]
        chosen, tried = _tasks(bench, study, latent_dim, ways)
        data = material(study, bench.data, bench.quick)
        notes[study] = data.note
        curves, findings[study] = [], {}
        for label, tasks in chosen.items():
            networks = bench.networks(tasks)
            fits = [gradient_steps(task.config, task.config.inner_steps) for task in tasks]
            scores = [
                Coder(siren, data, fit, device=bench.device).psnr()
                for siren, fit in zip(networks, fits, strict=True)
            ]
            curves.append(_curve(label, [bench.curve(task) for task in tasks]))
            findings[study][label] = {
                "test_psnr": scores,
                "mean": float(np.mean(scores)),
                "spread": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
                "inner_learning_rate": tasks[0].config.inner_lr,
                "validation_psnr_by_inner_rate": tried[label],
                "parameters": networks[0].parameter_count,
            }
        panels.append(
            Panel(
                f"{data.title}: {latent_dim} latents", "training step",
                "PSNR on validation data, dB", curves,
            )
        )  # fmt: skip
    return Result(notes, panels, findings, list(SEEDS))


def _tasks(
    bench: Bench, study: str, latent_dim: int, ways: dict[str, dict[str, Any]]
) -> tuple[dict[str, list[Task]], dict[str, dict[float, float]]]:
    """Tasks of all seeds for every way at its best inner learning rate, and what was tried."""

    def task(label: str, rate: float, seed: int, **changes: Any) -> Task:
        changes = ways[label] | {"inner_lr": rate} | changes
        return Task(
            study, STUDIES[study].config(latent_dim, quick=bench.quick, seed=seed, **changes)
        )

    trial_steps = round(_SEARCHED * (STUDIES[study].quick.steps or 0))
    tried: dict[str, dict[float, float]] = {label: {} for label in ways}
    rates = _INNER_RATES["quick" if bench.quick else "full"]
    missing = {label: list(rates) for label in ways}
    # A single rate, the paper's, needs no search.
    while any(missing.values()) and len(rates) > 1:
        tasks = {
            (label, rate): task(label, rate, SEEDS[0], steps=trial_steps)
            for label in ways
            for rate in missing[label]
        }
        bench.networks(list(tasks.values()))
        for (label, rate), done in tasks.items():
            tried[label][rate] = _validation_psnr(bench, done)
        missing = {label: _beyond(found) for label, found in tried.items()}
    best = {
        label: max(found, key=lambda rate: found[rate]) if found else rates[0]
        for label, found in tried.items()
    }
    chosen = {label: [task(label, best[label], seed) for seed in SEEDS] for label in ways}
    bench.networks([t for tasks in chosen.values() for t in tasks])
    return chosen, tried


def _validation_psnr(bench: Bench, task: Task) -> float:
    score = float(bench.curve(task)[-1]["validation_psnr"])
    return score if np.isfinite(score) else -99.0


def _beyond(found: dict[float, float]) -> list[float]:
    """The grid's next rates where the best so far is at an edge of what was tried.

    As many as a small machine trains at a time: others may have found theirs.
    """
    best = max(found, key=lambda rate: found[rate])
    place = _GRID.index(best)
    if best == max(found):
        return list(_GRID[place + 1 : place + 1 + _AT_A_TIME])
    if best == min(found):
        return list(_GRID[max(place - _AT_A_TIME, 0) : place])
    return []


def _curve(label: str, logs: list[list[dict[str, Any]]]) -> Series:
    steps = [record["step"] for record in logs[0]]
    scores = np.array([[record["validation_psnr"] for record in log] for log in logs])
    spread = scores.std(0, ddof=1).tolist() if len(scores) > 1 else None
    return Series(label, steps, scores.mean(0).tolist(), spread)
