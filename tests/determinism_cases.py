"""Digests of what golden payloads decode to, and of what small arrays are encoded to.

    python tests/determinism_cases.py decoded|encoded

prints them as JSON. Without a test framework, so that benchmarks can use the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bound_cases import GOLDEN, golden_array

from coinpp_xr import AudioPatchCodec, COINppCodec, ImagePatchCodec, VolumePatchCodec, config
from coinpp_xr.coordinates import SphereGrid


def digest(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def decoded() -> Iterator[tuple[str, str]]:
    """Names of golden payloads, and what arrays they decode to here."""
    for path in sorted(GOLDEN.glob("*.cnpp")):
        yield path.stem, digest(np.ascontiguousarray(golden_array(path)))


def expected() -> dict[str, str]:
    """The same of the stored arrays."""
    arrays = {path.stem: np.load(path) for path in sorted(GOLDEN.glob("*.npy"))}
    return {name: digest(np.ascontiguousarray(values)) for name, values in arrays.items()}


def encoded() -> Iterator[tuple[str, str]]:
    """Names of rate controls, and what they make of small arrays here."""
    rng = np.random.default_rng(17)
    grid = next(SphereGrid.usual_layouts(46, 90))
    waves = rng.standard_normal((150, 3)) @ grid.points.T
    globes = (275 + 20 * waves + 3 * np.sin(7 * waves)).reshape(-1, 46, 90).astype("<f4")
    rough = rng.standard_normal((6, 30, 44)).cumsum(1).cumsum(2).astype("<f4")
    gaps = np.where(rough > 20, np.nan, rough)
    rows, columns = np.mgrid[:150, :170]
    image = 120 + 60 * np.sin(rows / 9) * np.cos(columns / 7 + rows / 20) + 30 * (columns > 90)
    colours = image[..., None] + 4 * rng.standard_normal((150, 170, 3)).cumsum(axis=2)
    colours = colours.clip(0, 255).astype("u1")
    volume = (100 * np.sin(np.indices((40, 36, 34)).sum(axis=0) / 5)).astype("<f4")
    sound = (9000 * np.sin(np.arange(30000) ** 1.2 / 9)).astype("<i2")
    cases: list[tuple[str, Any, np.ndarray]] = [
        ("bits", COINppCodec(bits=8), globes),
        ("target_rmse, model", COINppCodec(target_rmse=2.0), globes[:24]),
        ("target_rmse", COINppCodec(model="none", target_rmse=4.0), rough),
        ("target_rmse, gaps", COINppCodec(model="none", target_rmse=4.0), gaps),
        ("max_error, model", COINppCodec(max_error=2.0), globes[:3]),
        ("max_error, coarse", COINppCodec(model="none", max_error=30.0), rough),
        ("max_error", COINppCodec(model="none", max_error=1.0), gaps),
        ("max_error_relative", COINppCodec(model="none", max_error_relative=0.01), rough),
        ("without loss", COINppCodec(model="none", max_error=0), (rough * 8).round() / 4),
        ("bits of patches", ImagePatchCodec(model="photo-32", bits=6), colours),
        ("target_psnr", ImagePatchCodec(target_psnr=34), colours),
        ("target_bpp", ImagePatchCodec(target_bpp=1.0), colours),
        ("max_error of patches", ImagePatchCodec(max_error=6), colours),
        ("target_rmse of volumes", VolumePatchCodec(target_rmse=2.0), volume),
        ("target_psnr of sound", AudioPatchCodec(target_psnr=45), sound),
    ]
    for name, codec, values in cases:
        yield name, digest(codec.encode(values))


def start(what: str, setting: Mapping[str, str], python: str = sys.executable) -> Any:
    """A process that prints digests, with these variables in its environment."""
    environment = {k: v for k, v in os.environ.items() if not k.endswith("_THREADS")}
    return subprocess.Popen(
        [python, str(Path(__file__)), what], stdout=subprocess.PIPE, text=True,
        env=environment | {"PYTHONWARNINGS": "ignore"} | dict(setting),
    )  # fmt: skip


def result(process: Any) -> dict[str, str]:
    output, _ = process.communicate()
    found: dict[str, str] = json.loads(output) if process.returncode == 0 else {}
    return found


if __name__ == "__main__":
    config.set(decoded_cache_bytes=0)
    print(json.dumps(dict({"decoded": decoded, "encoded": encoded}[sys.argv[1]]())))
