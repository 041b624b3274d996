"""Figures 7 and 14: how many bits a latent needs, and what entropy coding adds."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from coinpp_xr.reproduction import published
from coinpp_xr.reproduction.coin_runs import CoinRuns
from coinpp_xr.reproduction.measures import Coder, decibels, gradient_steps
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.studies import STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, tasks_of

SEEDS = (0, 1, 2)
BITS = tuple(range(1, 17))
# Studies with their latents at quick sizes; the middle one is shown where the paper has only one.
_LATENTS: dict[str, tuple[int, ...]] = {"cifar10": (32, 64, 128), "weather": (4, 8, 16)}
_COIN_WIDTH = 16
_RATE_BITS = (3, 4, 5, 6, 7, 8)
_SHOWN_BITS = (1, 2, 3, 4, 5)
_PSNR, _DROP = "PSNR, dB", "PSNR lost, dB"
# Below this the curves of the paper's figure are cut off, too.
_LOWEST_DROP = -20.0


def studies(bench: Bench) -> dict[str, tuple[int, ...]]:
    """Names with latents; in full the paper's, and its own globes in place of simulated ones."""
    if bench.quick and bench.data is None:
        return _LATENTS
    if bench.quick:
        return {"cifar10": _LATENTS["cifar10"], "era5": _LATENTS["weather"]}
    return {name: STUDIES[name].preset_latents for name in ("cifar10", "era5")}


@lru_cache(maxsize=4)
def coders(bench: Bench, study: str, latents: tuple[int, ...]) -> dict[int, list[Coder]]:
    """Networks of all latents and seeds, each with the paper's number of inner steps.

    Figures share them, and the latents that they have found.
    """
    tasks = tasks_of(study, latents, SEEDS, quick=bench.quick)
    data, steps = material(study, bench.data, bench.quick), STUDIES[study].inner_steps
    found: dict[int, list[Coder]] = {k: [] for k in latents}
    for task, siren in zip(tasks, bench.networks(tasks), strict=True):
        fit = gradient_steps(task.config, steps)
        found[task.config.latent_dim].append(Coder(siren, data, fit, device=bench.device))
    return found


def bit_widths(bench: Bench) -> Result:
    """Figure 7a: rate and PSNR at several numbers of bits."""
    panels, findings, notes = [], {}, {}
    for name, latents in studies(bench).items():
        data, found = material(name, bench.data, bench.quick), coders(bench, name, latents)
        notes[name] = data.note
        curves, scores = [], {}
        for bits in _RATE_BITS:
            points = {k: [c.rate_distortion(bits) for c in found[k]] for k in latents}
            curves.append(_mean_curve(f"{bits} bits", points.values()))
            scores[bits] = {k: [p["psnr"] for p in points[k]] for k in latents}
        panels.append(Panel(data.title, data.unit, _PSNR, curves))
        findings[name] = {"best_bits_at_equal_rate": _best_bits(curves), "psnr": scores}
    cifar = [published.ablation("cifar10", "full", 10, bits) for bits in _RATE_BITS]
    panels.append(Panel("CIFAR-10, published", "bits per pixel", _PSNR, cifar))
    return Result(notes, panels, findings, list(SEEDS))


def _mean_curve(label: str, points: Any, rate: str = "coded_rate") -> Series:
    """Means over seeds, for each number of latents."""
    rows = [
        (
            float(np.mean([p[rate] for p in seeds])),
            float(np.mean([p["psnr"] for p in seeds])),
            float(np.std([p["psnr"] for p in seeds], ddof=1)) if len(seeds) > 1 else 0.0,
        )
        for seeds in points
    ]
    x, y, spread = (list(column) for column in zip(*rows, strict=True))
    return Series(label, x, y, spread)


def _best_bits(curves: list[Series]) -> dict[str, int]:
    """At rates that several curves reach, the number of bits whose curve lies highest."""
    low = max(min(c.x) for c in curves)
    high = min(max(c.x) for c in curves)
    if low >= high:
        low, high = min(min(c.x) for c in curves), max(max(c.x) for c in curves)
    best = {}
    for rate in np.linspace(low, high, 5):
        heights = {
            c.label: float(np.interp(rate, c.x, c.y))
            for c in curves
            if min(c.x) <= rate <= max(c.x)
        }
        if heights:
            label = max(heights, key=lambda name: heights[name])
            best[f"{rate:.4g}"] = int(label.split()[0])
    return best


def against_coin(bench: Bench) -> Result:
    """Figure 7b: COIN and COIN++ under quantization."""
    panels, findings, notes = [], {}, {}
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        ours = coders(bench, name, latents)[latents[len(latents) // 2]]
        runs = CoinRuns(bench, name)
        drops = {
            "COIN++": np.array([_drops(coder) for coder in ours]),
            "COIN": np.array([_coin_drops(runs)]),
        }
        curves = [_drop_curve(label, values) for label, values in drops.items()]
        panels.append(Panel(data.title, "bits", _DROP, curves, lowest=_LOWEST_DROP))
        findings[name] = {
            label: {bits: values[:, i].tolist() for i, bits in enumerate(BITS)}
            for label, values in drops.items()
        }
    return Result(notes, panels, findings, list(SEEDS))


def _drops(coder: Coder) -> list[float]:
    whole = coder.psnr()
    return [coder.psnr(coder.quantized(bits)[0]) - whole for bits in BITS]


def _coin_drops(runs: CoinRuns) -> list[float]:
    whole = float(np.mean(runs.scores(_COIN_WIDTH, None)))
    found = []
    for bits in BITS:
        scores = runs.scores(_COIN_WIDTH, bits)
        found.append(float(np.mean(scores)) - whole)
    return found


def _drop_curve(label: str, drops: Any) -> Series:
    spread = drops.std(0, ddof=1).tolist() if len(drops) > 1 else None
    return Series(label, list(BITS), drops.mean(0).tolist(), spread)


def per_latents(bench: Bench) -> Result:
    """Figure 7c: what quantization costs for each number of latents."""
    panels, findings, notes = [], {}, {}
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        drops = {
            k: np.array([_drops(coder) for coder in found])
            for k, found in coders(bench, name, latents).items()
        }
        curves = [_drop_curve(f"{k} latents", values) for k, values in drops.items()]
        panels.append(Panel(data.title, "bits", _DROP, curves, lowest=_LOWEST_DROP))
        findings[name] = {
            k: {bits: values[:, i].tolist() for i, bits in enumerate(BITS)}
            for k, values in drops.items()
        }
    return Result(notes, panels, findings, list(SEEDS))


def entropy_coding(bench: Bench) -> Result:
    """Figure 7d: with and without quantization and entropy coding."""
    panels, findings, notes = [], {}, {}
    bits = 5
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        found = coders(bench, name, latents)
        plain = {
            k: [{"rate": c.unquantized_rate, "psnr": c.psnr()} for c in found[k]] for k in latents
        }
        points = {k: [c.rate_distortion(bits) for c in found[k]] for k in latents}
        curves = [
            _mean_curve("32 bits", plain.values(), "rate"),
            _mean_curve("5 bits", points.values(), "quantized_rate"),
            _mean_curve("5 bits, entropy coded", points.values()),
        ]
        panels.append(Panel(data.title, data.unit, _PSNR, curves))
        saved = {}
        for more in (5, 6):
            coded = [c.rate_distortion(more) for k in latents for c in found[k]]
            saved[more] = [1 - p["coded_rate"] / p["quantized_rate"] for p in coded]
        findings[name] = {"share_saved_by_entropy_coding": saved}
    theirs = [
        published.ablation("cifar10", "base", 10, 32),
        published.ablation("cifar10", "with_quantization", 10, bits),
        published.ablation("cifar10", "full", 10, bits),
    ]
    theirs[2] = Series("5 bits, entropy coded (published)", theirs[2].x, theirs[2].y, None, True)
    panels.append(Panel("CIFAR-10, published", "bits per pixel", _PSNR, theirs))
    return Result(notes, panels, findings, list(SEEDS))


def pictures(bench: Bench) -> Result:
    """Figure 14: items at one to five bits a latent."""
    rows, notes = [], {}
    findings: dict[str, Any] = {}
    for name, latents in studies(bench).items():
        data = material(name, bench.data, bench.quick)
        notes[name] = data.note
        coder = coders(bench, name, latents)[latents[-1]][0]
        versions = {"32 bits": coder.latents}
        versions |= {f"{bits} bits": coder.quantized(bits)[0] for bits in _SHOWN_BITS[::-1]}
        findings[name] = {label: coder.psnr(found) for label, found in versions.items()}
        for index in np.linspace(0, len(data.items) - 1, 3).round().astype(int):
            item = data.items[index]
            row = [("original", _drawn(item))]
            for label, found in versions.items():
                values = coder.values_of(found[index]).reshape(item.shape)
                row.append((f"{label}, {decibels(values, item):.1f} dB", _drawn(values)))
            rows.append(row)
    return Result(notes, [], findings, [0], rows)


def _drawn(values: Any) -> Any:
    return values[..., 0] if values.shape[-1] == 1 else values
