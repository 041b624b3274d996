"""Table 1: seconds to encode and decode an image, one at a time, all in one run on one thread.

COIN++ is a modulated SIREN with its paper's inner loop. It is meta-learned through matrix steps and
its latents are then turned and scaled so that JᵀJ is the identity, which the inner loop needs to
converge in few steps. *One matrix step* is the same network, encoded by one matrix product that all
images share. Bits count quantized, entropy-coded latents.

COIN is timed at several widths, from networks smaller than the paper's on: COIN++ is compared with
the best of those that it equals or beats in PSNR.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from coinpp_xr import coin, entropy
from coinpp_xr.building import standard_form
from coinpp_xr.quantization import UniformQuantizer
from coinpp_xr.reproduction import published, usual
from coinpp_xr.reproduction.coin_runs import CoinRuns
from coinpp_xr.reproduction.datasets import STUDIES, Material, material
from coinpp_xr.reproduction.measures import Coder, decibels, gradient_steps, matrix_steps
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.training_runs import Bench, Task

_LATENTS, _BITS = {True: 256, False: 384}, 6
# At quick sizes: as many latents need more modulations.
_WIDE = {"width": 192, "depth": 2, "steps": 2000}
# Of a network whose latents are in standard form, for which this is a Newton step.
_NEWTON_RATE = 0.5
_REPEATS = 5
_COIN_WIDTHS = (6, 8, 10, 12)
_FAST = ", fast schedule"
# What the paper's table has for 32 × 32 images.
_PUBLISHED = {
    "HEVC-intra (for BPG)": "BPG",
    "COIN, width 12": "COIN",
    "COIN++, 3 steps": "COIN++ 3 steps latent dim 384",
    "COIN++, 10 steps": "COIN++ 10 steps latent dim 384",
}


@dataclass(frozen=True)
class Row:
    """Per image.

    Parameters
    ----------
    encode, decode : float
        Seconds.
    rate : float
        Bits per pixel.
    psnr : float
        dB.
    """

    encode: float
    decode: float
    rate: float
    psnr: float


def table(bench: Bench) -> Result:
    """Seconds per image of HEVC-intra, COIN, COIN++ and one matrix step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            rows = _rows(bench)
    finally:
        torch.set_num_threads(threads)
    data = material("cifar10", bench.data, bench.quick)
    theirs = published.encoding_times()
    here = Series("measured here", list(rows), [row.encode for row in rows.values()])
    paper = Series(
        "published (1080Ti GPU; BPG on a CPU)", list(_PUBLISHED),
        [theirs[name] for name in _PUBLISHED.values()], None, True,
    )  # fmt: skip
    panels = [
        Panel("encoding", "seconds per image", "", [here], log_x=True),
        Panel("encoding, published", "seconds per image", "", [paper], log_x=True),
    ]
    findings = {
        "rows": {label: vars(row) for label, row in rows.items()},
        "against_coin": _ratios(rows),
        "latents": _LATENTS[bench.quick],
        "bits": _BITS,
    }
    return Result({"cifar10": data.note}, panels, findings, [0])


def _rows(bench: Bench) -> dict[str, Row]:
    data = material("cifar10", bench.data, bench.quick)
    runs = CoinRuns(bench, "cifar10")
    shown = replace(data, items=runs.items)
    coder = _network(bench, shown)
    rows = {"HEVC-intra (for BPG)": _hevc(runs.items)} if _has_av() else {}
    for width in _COIN_WIDTHS:
        rows[f"COIN, width {width}"] = _coin(runs, width, coin.PAPER)
        rows[f"COIN, width {width}{_FAST}"] = _coin(runs, width, coin.DEFAULT)
    config = replace(STUDIES["cifar10"].config(1, quick=bench.quick), inner_lr=_NEWTON_RATE)
    for label, fit in (
        ("COIN++, 10 steps", gradient_steps(config, 10)),
        ("COIN++, 3 steps", gradient_steps(config, 3)),
        ("COIN++, 3 matrix steps (ours)", matrix_steps(3)),
    ):
        rows[label] = _coinpp(replace(coder, fit=fit), one_at_a_time=True)
    rows["COIN++, one matrix step (ours)"] = _coinpp(_shared(coder), one_at_a_time=True)
    rows["COIN++, one matrix step, all images at once"] = _coinpp(
        _shared(coder), one_at_a_time=False
    )
    return rows


def _has_av() -> bool:
    from importlib.util import find_spec

    return find_spec("av") is not None


def _network(bench: Bench, data: Material) -> Coder:
    """The network in standard form, in which gradient steps are Newton steps."""
    study = STUDIES["cifar10"]
    changes = study.matrix_changes(bench.quick) | (_WIDE if bench.quick else {})
    task = Task("cifar10", study.config(_LATENTS[bench.quick], quick=bench.quick, **changes))
    coder = Coder(bench.networks([task])[0], data, matrix_steps(1))
    latents = coder.statistics[2]
    weights = np.full(len(data.points), 1 / len(data.points))
    siren = standard_form(coder.siren, data.points, weights, latents)
    return Coder(siren, data, coder.fit)


def _shared(coder: Coder) -> Coder:
    """One matrix step with the matrix made beforehand: it is the network's, not the image's."""
    points = torch.from_numpy(coder.material.points)
    siren = coder.siren.map(torch.from_numpy)
    output, jacobian = siren.linearise(points, torch.zeros(1, siren.latent_dim))
    rows = jacobian[0].flatten(0, 1).double()
    damping = 1e-6 * rows.square().sum(0).mean()
    matrix = torch.linalg.solve(rows.T @ rows + damping * torch.eye(rows.shape[1]), rows.T)
    step, start = matrix.float().contiguous(), output.flatten(1)

    def fit(_siren: Any, _points: Any, targets: torch.Tensor) -> torch.Tensor:
        return (targets.flatten(1) - start) @ step.T

    return replace(coder, fit=fit)


def _coinpp(coder: Coder, *, one_at_a_time: bool) -> Row:
    """Fit, quantize and entropy-code; and back."""
    mean, std, learned = coder.statistics
    quantizer = UniformQuantizer(np.array([mean]), np.array([std]), _BITS)
    histogram = entropy.fit_histogram(learned.reshape(-1, 1), quantizer.mean, quantizer.std)
    every = np.concatenate(coder.material.patches())
    groups = np.split(every, len(every)) if one_at_a_time else [every]

    def encode(patches: Any) -> bytes:
        latents = coder.latents_of(patches).reshape(-1, 1)
        return entropy.encode(quantizer.quantize(latents, clip=True), histogram, _BITS)

    def decode(stream: bytes) -> Any:
        count = len(groups[0]) * coder.siren.latent_dim
        symbols = entropy.decode(stream, count, histogram, _BITS)
        return coder.values_of(quantizer.dequantize(symbols).reshape(len(groups[0]), -1))

    streams = [encode(group) for group in groups]
    back = [decode(stream) for stream in streams]
    return Row(
        _seconds(lambda: [encode(group) for group in groups]) / len(every),
        _seconds(lambda: [decode(stream) for stream in streams]) / len(every),
        coder.material.rate(8 * sum(map(len, streams))),
        float(np.mean([decibels(v, p) for v, p in zip(np.concatenate(back), every, strict=True)])),
    )


def _coin(runs: CoinRuns, width: int, schedule: coin.Schedule) -> Row:
    fitted = runs.fitted(width, schedule)
    network, points = runs.network(width), runs.material.points
    payloads = [coin.encode(parameters) for parameters in fitted.parameters]
    values = [coin.decode(payload, network, points) for payload in payloads]
    scores = [
        decibels(v.reshape(item.shape), item) for v, item in zip(values, runs.items, strict=True)
    ]
    decoding = _seconds(lambda: [coin.decode(payload, network, points) for payload in payloads])
    return Row(fitted.seconds, decoding / len(payloads), runs.rate(width), float(np.mean(scores)))


def _hevc(items: list[Any]) -> Row:
    """At the quality whose rate is nearest to two bits per pixel; decoding is not timed apart."""
    cells = items[0][..., 0].size

    def coded(quality: float) -> list[usual.Coded]:
        return [usual.hevc_intra(item, quality) for item in items]

    rates = {q: np.mean([8 * size / cells for size, _ in coded(q)]) for q in range(20, 44, 4)}
    quality = min(rates, key=lambda q: abs(rates[q] - 2))
    scores = [decibels(back, item) for (_, back), item in zip(coded(quality), items, strict=True)]
    seconds = _seconds(lambda: coded(quality)) / len(items)
    return Row(seconds, float("nan"), float(rates[quality]), float(np.mean(scores)))


def _seconds(work: Callable[[], object]) -> float:
    """The shortest of several runs."""
    found = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def _ratios(rows: dict[str, Row]) -> dict[str, dict[str, Any]]:
    """Encoding against the best COIN whose PSNR is no higher, with either schedule."""
    found: dict[str, dict[str, Any]] = {}
    for label, row in rows.items():
        if not label.startswith("COIN++"):
            continue
        beaten = [
            name for name, other in rows.items()
            if name.startswith("COIN, ") and not name.endswith(_FAST) and other.psnr <= row.psnr
        ]  # fmt: skip
        if not beaten:
            found[label] = {"coin": None}
            continue
        best = max(beaten, key=lambda name: rows[name].psnr)
        found[label] = {
            "coin": best,
            "times_as_fast": rows[best].encode / row.encode,
            "times_as_fast_as_its_fast_schedule": rows[best + _FAST].encode / row.encode,
        }
    return found
