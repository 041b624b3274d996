"""Figures 6 and 8 to 11: rate against PSNR beside other codecs and the published points."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from coinpp_xr.reproduction import published, usual
from coinpp_xr.reproduction.coin_runs import CoinRuns
from coinpp_xr.reproduction.datasets import PAPER_RANGE, Material
from coinpp_xr.reproduction.measures import Coder, decibels, gradient_steps, matrix_steps
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.studies import SPEECH_SAMPLES, STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, Task, tasks_of

PAPER_METHOD, OUR_METHOD = "COIN++", "COIN++ by matrix steps (ours)"


def images(bench: Bench) -> Result:
    """Figure 6: small images."""
    data = material("cifar10", bench.data, bench.quick)
    curves = [
        *_networks(bench, ("cifar10",)),
        _coin(bench, "cifar10"),
        *_others(bench, data, {
            "JPEG": (usual.jpeg, range(1, 100, 12)),
            "JPEG2000": (usual.jpeg2000, range(14, 46, 4)),
            "HEVC-intra (for BPG)": (usual.hevc_intra, range(15, 52, 4)),
            "coinpp-xr, photo-32": (usual.image_codec, (0.5, 1.0, 2.0, 3.0, 4.0)),
        }),
    ]  # fmt: skip
    return _result("cifar10", {"cifar10": data.note}, data.unit, curves)


def globes(bench: Bench) -> Result:
    """Figure 8: temperature on the globe."""
    data = material("era5", bench.data, bench.quick)
    curves = [
        *_networks(bench, ("era5",)),
        *_others(bench, data, {"JPEG2000": (usual.jpeg2000_deep, range(20, 70, 8))}),
        _series_codec(data),
    ]
    return _result("era5", {"era5": data.note}, data.unit, curves, log_x=True)


def photographs(bench: Bench) -> Result:
    """Figure 9: photographs in patches."""
    data = material("kodak", bench.data, bench.quick)
    curves = [
        *_networks(bench, ("kodak",)),
        *_others(bench, data, {
            "JPEG": (usual.jpeg, range(5, 60, 8)),
            "JPEG2000": (usual.jpeg2000, range(22, 40, 3)),
            "HEVC-intra (for BPG)": (usual.hevc_intra, range(24, 46, 3)),
            "coinpp-xr, photo-32": (usual.image_codec, (0.07, 0.13, 0.27, 0.54, 1.0)),
        }),
    ]  # fmt: skip
    return _result("kodak", {"kodak": data.note}, data.unit, curves)


def speech(bench: Bench) -> Result:
    """Figure 10: speech, where the size of patches sets the rate."""
    names = [f"librispeech-{samples}" for samples in SPEECH_SAMPLES]
    notes = {name: material(name, bench.data, bench.quick).note for name in names[:1]}
    data = material(names[0], bench.data, bench.quick)
    curves = [
        *_networks(bench, names),
        *_others(bench, data, {
            "MP3": (usual.mp3, (16, 24, 32, 48, 64)),
            "coinpp-xr, speech-16k": (usual.audio_codec, (6.0, 14.0, 27.0, 64.0)),
        }),
    ]  # fmt: skip
    return _result("librispeech", notes, data.unit, curves)


def volumes(bench: Bench) -> Result:
    """Figure 11: volumes of magnetic resonance."""
    data = material("fastmri", bench.data, bench.quick)
    curves = [
        *_networks(bench, ("fastmri",)),
        *_others(bench, data, {
            "JPEG": (usual.slices(usual.jpeg), range(1, 60, 8)),
            "JPEG2000": (usual.slices(usual.jpeg2000), range(16, 40, 3)),
            "HEVC-intra (for BPG)": (usual.slices(usual.hevc_intra), range(24, 52, 3)),
            "coinpp-xr, mri-16": (usual.volume_codec, (0.05, 0.1, 0.2, 0.4)),
        }),
    ]  # fmt: skip
    return _result("fastmri", {"fastmri": data.note}, data.unit, curves)


def _result(
    dataset: str, notes: dict[str, str], unit: str, curves: Sequence[Series], *, log_x: bool = False
) -> Result:
    here = Panel("measured here", unit, "PSNR, dB", list(curves), log_x)
    theirs = Panel("published", unit, "PSNR, dB", published.rate_distortion(dataset), log_x)
    findings = {series.label: {"rate": series.x, "psnr": series.y} for series in curves}
    return Result(notes, [here, theirs], findings, [0])


def _networks(bench: Bench, studies: Iterable[str]) -> list[Series]:
    """The paper's method; and meta-learning through one matrix step, encoding with three."""
    tasks: dict[str, list[Task]] = {PAPER_METHOD: [], OUR_METHOD: []}
    for name in studies:
        study = STUDIES[name]
        latents = study.latents if bench.quick else study.preset_latents
        tasks[PAPER_METHOD] += tasks_of(name, latents, (0,), quick=bench.quick)
        tasks[OUR_METHOD] += tasks_of(
            name, latents, (0,), quick=bench.quick, **study.matrix_changes(bench.quick)
        )
    bench.networks([task for method in tasks.values() for task in method])
    return [_best_bits(bench, label, tasks[label]) for label in tasks]


def _best_bits(bench: Bench, label: str, tasks: Sequence[Task]) -> Series:
    """Points of all networks at all numbers of bits that no other point beats at fewer bits."""
    found = []
    for task in tasks:
        study = STUDIES[task.study]
        data = material(task.study, bench.data, bench.quick)
        steps = gradient_steps(task.config, study.inner_steps)
        fit = steps if label == PAPER_METHOD else matrix_steps(3)
        coder = Coder(bench.networks([task])[0], data, fit, device=bench.device)
        for bits in study.bits:
            point = coder.rate_distortion(bits)
            found.append((point["coded_rate"], point["psnr"]))
    return _frontier(label, found)


def _frontier(label: str, points: Iterable[tuple[float, float]]) -> Series:
    kept: list[tuple[float, float]] = []
    for rate, score in sorted(points):
        if not kept or score > kept[-1][1]:
            kept.append((rate, score))
    return Series(label, [rate for rate, _ in kept], [score for _, score in kept])


def _coin(bench: Bench, study: str) -> Series:
    runs = CoinRuns(bench, study)
    points = [
        (runs.rate(width), float(np.mean(runs.scores(width, bits=16)))) for width in runs.widths
    ]
    return _frontier("COIN", points)


def _others(
    bench: Bench, data: Material, codecs: dict[str, tuple[usual.Code, Iterable[float]]]
) -> list[Series]:
    """Codecs that need no training by us, on the same items; those not installed are left out."""
    found = []
    for label, (code, settings) in codecs.items():
        try:
            points = [_point(data, code, setting) for setting in settings]
        except ImportError as error:
            bench.tell(f"{label} is left out: {error}")
            continue
        found.append(_frontier(label, points))
    return found


def _point(data: Material, code: usual.Code, setting: float) -> tuple[float, float]:
    sizes, scores = 0.0, []
    for item in data.items:
        nbytes, decoded = code(item, setting)
        sizes += nbytes
        scores.append(decibels(decoded, item))
    return data.rate(8 * sizes), float(np.mean(scores))


def _series_codec(data: Material) -> Series:
    """The package's codec for globes on all test fields as one chunk."""
    low, scale = (np.float32(n) for n in PAPER_RANGE)
    fields = np.stack([item[..., 0] for item in data.items]) * scale + low
    points = []
    for target in (2.0, 1.0, 0.7, 0.5):
        nbytes, decoded = usual.globe_codec(fields, target)
        scores = [
            decibels((back - low) / scale, item[..., 0])
            for back, item in zip(decoded, data.items, strict=True)
        ]
        points.append((data.rate(8 * nbytes), float(np.mean(scores))))
    return _frontier("coinpp-xr, target_rmse", points)
