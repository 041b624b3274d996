"""Figures 12, 13 and 15: what training and encoding take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from coinpp_xr.reproduction import published
from coinpp_xr.reproduction.coin_runs import PAPER_WIDTHS, CoinRuns
from coinpp_xr.reproduction.measures import Coder, decibels, gradient_steps, matrix_steps
from coinpp_xr.reproduction.quantization import SEEDS, studies
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.studies import STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, Task, tasks_of

INNER_STEPS = (3, 10, 50)
_CURVE_STEPS = (*range(1, 13), *range(15, 51, 5))
_PSNR = "PSNR, dB"


def meta_learning(bench: Bench) -> Result:
    """Figure 12: validation PSNR during meta-learning."""
    panels, notes = [], {}
    findings: dict[str, dict[str, Any]] = {}
    for name in ("cifar10", "era5", "kodak", "fastmri", "librispeech-400"):
        study = STUDIES[name]
        latents = study.latents if bench.quick else study.preset_latents
        tasks = tasks_of(name, latents, (0,), quick=bench.quick)
        changes = study.matrix_changes(bench.quick)
        ours = tasks_of(name, latents[-1:], (0,), quick=bench.quick, **changes)
        bench.networks([*tasks, *ours])
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        curves = [_learning(bench, task, f"{task.config.latent_dim} latents") for task in tasks]
        curves.append(_learning(bench, ours[0], f"{latents[-1]} latents, one matrix step"))
        panels.append(Panel(data.title, "training step", _PSNR, curves))
        findings[name] = {c.label: {"step": c.x, "psnr": c.y} for c in curves}
    panels.append(
        Panel("ERA5, published", "training step", _PSNR, published.meta_learning_curves())
    )
    return Result(notes, panels, findings, [0])


def _learning(bench: Bench, task: Task, label: str) -> Series:
    records = bench.curve(task)
    return Series(label, [r["step"] for r in records], [r["validation_psnr"] for r in records])


def inner_steps(bench: Bench) -> Result:
    """Figure 13: encoding with 3, 10 and 50 gradient steps, and with matrix steps."""
    panels, notes = [], {}
    findings: dict[str, dict[str, Any]] = {}
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        tasks = tasks_of(name, latents, SEEDS, quick=bench.quick)
        networks = bench.networks(tasks)
        curves, findings[name] = [], {}
        for label in [*map(_steps_label, INNER_STEPS), "3 matrix steps"]:
            scores: dict[int, list[float]] = {k: [] for k in latents}
            rates: dict[int, float] = {}
            for task, siren in zip(tasks, networks, strict=True):
                steps = int(label.split()[0])
                gradient = gradient_steps(task.config, steps)
                fit = matrix_steps(3) if "matrix" in label else gradient
                coder = Coder(siren, data, fit, device=bench.device)
                scores[task.config.latent_dim].append(coder.psnr())
                rates[task.config.latent_dim] = coder.unquantized_rate
            findings[name][label] = {str(k): scores[k] for k in latents}
            curves.append(
                Series(
                    label, [rates[k] for k in latents],
                    [float(np.mean(scores[k])) for k in latents],
                    [float(np.std(scores[k], ddof=1)) for k in latents],
                )
            )  # fmt: skip
        panels.append(Panel(f"{data.title}, 32 bits", data.unit, _PSNR, curves))
    theirs = [
        Series(f"{_steps_label(steps)} (published)", found.x, found.y, None, True)
        for steps in INNER_STEPS
        for found in [published.ablation("cifar10", "base", steps, 32)]
    ]
    panels.append(Panel("CIFAR-10, published, 32 bits", "bits per pixel", _PSNR, theirs))
    return Result(notes, panels, findings, list(SEEDS))


def _steps_label(steps: int) -> str:
    return f"{steps} steps"


def encoding_curves(bench: Bench) -> Result:
    """Figure 15: PSNR while an item is encoded, by COIN and by COIN++."""
    panels, notes = [], {}
    findings: dict[str, dict[str, Any]] = {}
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        task = tasks_of(name, latents[-1:], SEEDS[:1], quick=bench.quick)[0]
        coder = Coder(
            bench.networks([task])[0], data, gradient_steps(task.config, 0), device=bench.device
        )
        ours = _gradient_curve(coder, task)
        fitted = CoinRuns(bench, name).fitted(PAPER_WIDTHS[0])
        scores = -10 * np.log10(np.maximum(fitted.losses, 1e-30))
        theirs = Series(
            "COIN", fitted.steps.tolist(), scores.mean(1).tolist(), scores.std(1, ddof=1).tolist()
        )
        panels.append(
            Panel(f"{data.title}, {latents[-1]} latents", "encoding step", _PSNR,
                  [ours, theirs], log_x=True)
        )  # fmt: skip
        reached = ours.y[2]  # after three steps
        later = [step for step, y in zip(theirs.x, theirs.y, strict=True) if y >= reached]
        findings[name] = {
            "coinpp_psnr_after_3_steps": reached,
            "coinpp_psnr_after_10_steps": ours.y[9],
            "coin_steps_to_reach_3_steps": later[0] if later else None,
            "coin_psnr_at_the_end": theirs.y[-1],
        }
    return Result(notes, panels, findings, [0])


def _gradient_curve(coder: Coder, task: Task) -> Series:
    """Mean PSNR over test items after 1, 2, ... steps."""
    means, spreads = [], []
    whole = np.concatenate(coder.material.patches())
    for steps in _CURVE_STEPS:
        stepped = replace(coder, fit=gradient_steps(task.config, steps))
        values = stepped.values_of(stepped.latents_of(whole))
        scores = [decibels(v, p) for v, p in zip(values, whole, strict=True)]
        means.append(float(np.mean(scores)))
        spreads.append(float(np.std(scores, ddof=1)))
    return Series("COIN++", list(_CURVE_STEPS), means, spreads)
