"""The pyramid's arithmetic, all but bits and fitting, on a GPU: GB/s of float32 fields both ways.

    python benchmarks/devices.py

Where there is no GPU it says so and takes the processor. Fields are synthetic: speed does not
depend on what they hold. Beside it, in the same run, the whole codec on the processor.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from common import write_result

from coinpp_xr import COINppCodec
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.fitting import usual_weights
from coinpp_xr.coding.pyramid.levels import PASSES, level_count, reach_of
from coinpp_xr.coding.pyramid.limits import UNIT
from coinpp_xr.coding.pyramid.prediction import USUAL_COEFFICIENTS
from coinpp_xr.coding.pyramid.tensors import TensorWalk
from coinpp_xr.coding.pyramid.walk import Walk

SHAPE, GLOBES, QUICK, REPEATS = (721, 1440), 8, 48, 5
BOUND = 0.1


def gigabytes_per_second(work: Callable[[], Any], nbytes: int, device: str) -> float:
    """By the fastest of a few runs."""
    seconds = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        work()
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return round(nbytes / min(seconds[1:]) / 1e9, 4)


def synthetic(globes: int) -> np.ndarray:
    """Smooth waves and some noise, in kelvin."""
    latitude = np.linspace(np.pi / 2, -np.pi / 2, SHAPE[0])[:, None]
    longitude = np.linspace(0, 2 * np.pi, SHAPE[1], endpoint=False)
    phases = np.arange(globes)[:, None, None] / 9
    waves = 280 + 25 * np.cos(latitude) + 6 * np.sin(5 * longitude + phases) * np.cos(latitude) ** 3
    noise = np.random.default_rng(0).standard_normal((globes, *SHAPE))
    return (waves + 0.2 * noise).astype(np.float32)


def main() -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = torch.cuda.get_device_name() if device == "cuda" else "no GPU here: the processor"
    print(name)
    fields = synthetic(GLOBES)
    parameters = {
        (level, number): PassParameters(
            usual_weights(reach_of(QUICK).neighbours[number], 0, False, None)[None],
            False, USUAL_COEFFICIENTS,
        )
        for level in range(level_count(SHAPE))
        for number in range(len(PASSES))
    }  # fmt: skip
    walk = TensorWalk(Walk(SHAPE, around=True, quick=QUICK), parameters, [])
    target = torch.from_numpy((fields.astype(np.float64) - 280) * (UNIT / (2 * BOUND))).to(device)
    step = 1 << level_count(SHAPE)
    anchors = torch.round(target[:, ::step, ::step]).to(torch.int64)
    steps = walk.steps(target, anchors)
    off = float((walk.fields(steps, anchors) - target).abs().max()) / UNIT
    if off > 0.5:
        raise SystemExit(f"fields are off by {off} steps")
    arithmetic = {
        "to_steps": gigabytes_per_second(
            lambda: walk.steps(target, anchors), fields.nbytes, device
        ),
        "to_fields": gigabytes_per_second(
            lambda: walk.fields(steps, anchors), fields.nbytes, device
        ),
    }
    codec = COINppCodec("none", max_error=BOUND, effort="fast")
    payload = codec.encode(fields)
    whole = {
        "encode": gigabytes_per_second(lambda: codec.encode(fields), fields.nbytes, "cpu"),
        "decode": gigabytes_per_second(lambda: codec.decode(payload), fields.nbytes, "cpu"),
    }
    print(f"arithmetic, GB/s: {arithmetic}; the whole codec on the processor: {whole}")
    result = {
        "device": name,
        "gpu": device == "cuda",
        "data": f"{GLOBES} synthetic globes of {SHAPE[0]} × {SHAPE[1]}, max_error {BOUND}",
        "arithmetic_gb_per_s": arithmetic,
        "codec_fast_on_the_processor_gb_per_s": whole,
    }
    write_result("devices", result)


if __name__ == "__main__":
    main()
