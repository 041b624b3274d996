"""Table 1: seconds to encode and decode an image, one at a time, all in one run on one thread.

*COIN++ as in the paper* is meta-learned and encoded as the paper does. The other rows of COIN++ are
a network that was meta-learned through matrix steps; its latents are then turned and scaled so that
JᵀJ is the identity, and the paper's inner loop converges in few steps. *One matrix step* is the
same network, encoded by one matrix product. Like the network's weights that matrix is the same for
all images; making it is timed apart. *SIREN with a linear tail* is what this package's models are:
a SIREN's first latents, principal components for the others. Bits count quantized, entropy-coded
latents; every latent has a mean and a standard deviation of its own, as in the package's models,
and one table serves all.

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
from coinpp_xr.fitting import Origin
from coinpp_xr.patch_candidates import choose_patch_network
from coinpp_xr.quantization import UniformQuantizer
from coinpp_xr.reproduction import published, usual
from coinpp_xr.reproduction.coin_runs import CoinRuns
from coinpp_xr.reproduction.datasets import Material
from coinpp_xr.reproduction.measures import Coder, decibels, gradient_steps, matrix_steps
from coinpp_xr.reproduction.results import Panel, Result, Series
from coinpp_xr.reproduction.studies import STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, Task

_LATENTS, _BITS = {True: 256, False: 384}, 6
_PAPER_LATENTS = {True: 128, False: 384}
_TAIL_LATENTS, _OWN_LATENTS = 768, 16
# At quick sizes: as many latents need more modulations.
_WIDE = {"width": 192, "depth": 2, "steps": 2000}
# Of a network whose latents are in standard form, for which this is a Newton step.
_NEWTON_RATE = 0.5
_REPEATS = 5
_TIMED_STEPS = 300
_COIN_WIDTHS = (4, 6, 8, 10, 12)
_FAST = ", fast schedule"
# What the paper's table has for 32 × 32 images.
_PUBLISHED = {
    "HEVC-intra (for BPG)": "BPG",
    "COIN, width 12": "COIN",
    "COIN++ as in the paper, 3 steps": "COIN++ 3 steps latent dim 384",
    "COIN++ as in the paper, 10 steps": "COIN++ 10 steps latent dim 384",
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
            rows, setup = _rows(bench)
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
        "seconds_to_make_the_matrix": setup,
        "latents": _LATENTS[bench.quick],
        "latents_with_tail": _TAIL_LATENTS,
        "bits": _BITS,
    }
    return Result({"cifar10": data.note}, panels, findings, [0])


def _rows(bench: Bench) -> tuple[dict[str, Row], float]:
    """All rows, and the seconds that the shared matrix takes once."""
    data = material("cifar10", bench.data, bench.quick)
    runs = CoinRuns(bench, "cifar10")
    shown = replace(data, items=runs.items)
    coder = _trained(bench, _LATENTS[bench.quick], shown, **(_WIDE if bench.quick else {}))
    rows = {"HEVC-intra (for BPG)": _hevc(runs.items)} if _has_av() else {}
    for width in _COIN_WIDTHS:
        rows[f"COIN, width {width}"] = _coin(runs, width, coin.PAPER)
        rows[f"COIN, width {width}{_FAST}"] = _coin(runs, width, coin.DEFAULT)
    config = replace(STUDIES["cifar10"].config(1, quick=bench.quick), inner_lr=_NEWTON_RATE)
    paper = STUDIES["cifar10"].config(_PAPER_LATENTS[bench.quick], quick=bench.quick)
    trained = bench.networks([Task("cifar10", paper)])[0]
    rows["COIN++ as in the paper, 10 steps"] = _coinpp(
        shown, _way_of(Coder(trained, shown, gradient_steps(paper, 10)))
    )
    for label, fit in (
        ("COIN++, 10 steps", gradient_steps(config, 10)),
        ("COIN++, 3 steps", gradient_steps(config, 3)),
    ):
        rows[label] = _coinpp(shown, _way_of(replace(coder, fit=fit)))
    start = time.perf_counter()
    one_step = _shared(coder)
    setup = time.perf_counter() - start
    shared, tail = _way_of(one_step), _with_tail(bench, shown)
    rows["COIN++, one matrix step (ours)"] = _coinpp(shown, shared)
    rows["COIN++, one matrix step, all images at once (ours)"] = _coinpp(
        shown, shared, at_once=True
    )
    rows["SIREN with a linear tail, one matrix step (ours)"] = _coinpp(shown, tail)
    rows["SIREN with a linear tail, all at once (ours)"] = _coinpp(shown, tail, at_once=True)
    return rows, setup


def _has_av() -> bool:
    from importlib.util import find_spec

    return find_spec("av") is not None


@dataclass(frozen=True)
class _Way:
    """From patches to latents and back, and latents of training patches."""

    fit: Callable[[Any], Any]
    values: Callable[[Any], Any]
    learned: Any


def _way_of(coder: Coder) -> _Way:
    return _Way(coder.latents_of, coder.values_of, coder.statistics[2])


def _trained(bench: Bench, latent_dim: int, data: Material, **changes: Any) -> Coder:
    """A network in standard form, in which gradient steps are Newton steps."""
    study = STUDIES["cifar10"]
    changes = study.matrix_changes(bench.quick) | changes
    task = Task("cifar10", study.config(latent_dim, quick=bench.quick, **changes))
    coder = Coder(bench.networks([task])[0], data, matrix_steps(1))
    weights = np.full(len(data.points), 1 / len(data.points))
    siren = standard_form(coder.siren, data.points, weights, coder.statistics[2])
    return Coder(siren, data, coder.fit)


def _with_tail(bench: Bench, data: Material) -> _Way:
    """What the package's models are: held-out patches decide how many latents the SIREN has."""
    assert data.box is not None
    siren = _trained(bench, _OWN_LATENTS, data).siren
    best, _ = choose_patch_network(siren, data.training, _TAIL_LATENTS, data.box)
    network, points = best.network, data.points
    origin = Origin.of(network, points, np.full((1, len(points)), 1 / len(points), np.float32))
    step = np.ascontiguousarray(origin.step.T)

    def fit(patches: Any) -> Any:
        return (patches - origin.output).reshape(len(patches), -1) @ step

    train = data.training.train
    learned = fit(train[:: max(1, len(train) // 512)])
    return _Way(fit, lambda latents: network(points, latents), learned)


def _shared(coder: Coder) -> Coder:
    """One matrix step with the matrix made beforehand: it is the network's, not the image's."""
    points = torch.from_numpy(coder.material.points)
    weights = torch.full((1, len(points)), 1 / len(points))
    origin = Origin.of(coder.siren.map(torch.from_numpy), points, weights)
    step = origin.step.contiguous()

    def fit(_siren: Any, _points: Any, targets: torch.Tensor) -> torch.Tensor:
        return (targets - origin.output).flatten(1) @ step.T

    return replace(coder, fit=fit)


def _coinpp(data: Material, way: _Way, *, at_once: bool = False) -> Row:
    """Fit, quantize and entropy-code; and back."""
    mean, std = way.learned.mean(0, dtype=float), way.learned.std(0, dtype=float) + 1e-12
    quantizer = UniformQuantizer(mean, std, _BITS)
    standard = (way.learned - mean) / std
    histogram = entropy.fit_histogram(standard.reshape(-1, 1), np.zeros(1), np.ones(1))
    every = np.concatenate(data.patches())
    groups = [every] if at_once else np.split(every, len(every))

    def encode(patches: Any) -> bytes:
        symbols = quantizer.quantize(way.fit(patches), clip=True)
        return entropy.encode(symbols.reshape(-1, 1), histogram, _BITS)

    def decode(stream: bytes) -> Any:
        symbols = entropy.decode(stream, len(groups[0]) * len(mean), histogram, _BITS)
        return way.values(quantizer.dequantize(symbols.reshape(-1, len(mean))))

    streams = [encode(group) for group in groups]
    back = [decode(stream) for stream in streams]
    return Row(
        _seconds(lambda: [encode(group) for group in groups]) / len(every),
        _seconds(lambda: [decode(stream) for stream in streams]) / len(every),
        data.rate(8 * sum(map(len, streams))),
        float(np.mean([decibels(v, p) for v, p in zip(np.concatenate(back), every, strict=True)])),
    )


def _coin(runs: CoinRuns, width: int, schedule: coin.Schedule) -> Row:
    """PSNR of whole fits; seconds of a few hundred steps, one image at a time, here and now."""
    fitted = runs.fitted(width, schedule)
    network, points = runs.network(width), runs.material.points
    payloads = [coin.encode(parameters) for parameters in fitted.parameters]
    values = [coin.decode(payload, network, points) for payload in payloads]
    scores = [
        decibels(v.reshape(item.shape), item) for v, item in zip(values, runs.items, strict=True)
    ]
    some = replace(schedule, steps=min(_TIMED_STEPS, schedule.steps))
    item = runs.items[0].reshape(1, len(points), -1)
    per_step = _seconds(lambda: coin.fit(item, points, network, some)) / some.steps
    decoding = _seconds(lambda: [coin.decode(payload, network, points) for payload in payloads])
    return Row(
        per_step * schedule.steps, decoding / len(payloads), runs.rate(width),
        float(np.mean(scores)),
    )  # fmt: skip


def _hevc(items: list[Any]) -> Row:
    """At the quality whose rate is nearest to two bits per pixel; seconds of x265 alone."""
    cells = items[0][..., 0].size
    rates = {
        quality: np.mean([8 * usual.hevc_intra(item, quality)[0] / cells for item in items])
        for quality in range(20, 44, 4)
    }
    quality = min(rates, key=lambda q: abs(rates[q] - 2))
    clock: list[tuple[float, float]] = []
    for _ in range(_REPEATS):
        coded = [
            usual.hevc_intra(item, quality, lambda *seconds: clock.append(seconds))
            for item in items
        ]
    encoding, decoding = np.array(clock).reshape(_REPEATS, len(items), 2).mean(1).min(0)
    scores = [decibels(back, item) for (_, back), item in zip(coded, items, strict=True)]
    return Row(float(encoding), float(decoding), float(rates[quality]), float(np.mean(scores)))


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
        if not label.startswith(("COIN++", "SIREN")):
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
