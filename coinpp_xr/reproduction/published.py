"""The paper's own numbers, which the package carries beside its licence.

Dupont, Loya, Alizadeh, Golinski, Teh, Doucet: COIN++: Neural Compression Across Modalities, TMLR
2022 (arXiv:2201.12904); result files of github.com/EmilienDupont/coinpp, MIT licence. None of it
was measured by this package, nor on the data that quick runs use.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from functools import cache
from pathlib import Path

from coinpp_xr.reproduction.results import Series

_FOLDER = Path(__file__).parent / "published"


@cache
def _rows(name: str) -> list[dict[str, str]]:
    with (_FOLDER / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def rate_distortion(dataset: str) -> list[Series]:
    """The curves of the paper's main figure for a data set: rate against PSNR."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows("rd_points"):
        if row["dataset"] == dataset and row["variant"] in ("paper_curve", "coin", "baseline"):
            curves[row["codec"]].append((float(row["bpp_or_kbps"]), float(row["psnr_db"])))
    return [_series(codec, points) for codec, points in curves.items()]


def ablation(dataset: str, variant: str, inner_steps: int, bits: int) -> Series:
    """COIN++ at all its latent sizes: ``base``, ``with_quantization`` or ``full``."""
    label = {"base": "COIN++, 32 bits", "with_quantization": f"{bits} bits", "full": f"{bits} bits"}
    points = [
        (float(row["bpp_or_kbps"]), float(row["psnr_db"]))
        for row in _rows("rd_points")
        if (row["dataset"], row["codec"], row["variant"]) == (dataset, "COIN++", variant)
        and (int(row["inner_steps"]), int(row["bits"])) == (inner_steps, bits)
    ]
    return _series(label[variant], points)


def meta_learning_curves() -> list[Series]:
    """Validation PSNR of ERA5's networks against the training step."""
    curves: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in _rows("era5_learning_curves"):
        curves[int(row["latent_dim"])].append((float(row["step"]), float(row["psnr_db"])))
    return [_series(f"{k} latents", points) for k, points in sorted(curves.items())]


def encoding_times() -> dict[str, float]:
    """Seconds per CIFAR-10 image, by codec, as in Table 1's source."""
    return {
        row["setting"]: float(row["encoding_s"])
        for row in _rows("encoding_time")
        if row["dataset"] == "cifar10" and row["scope"] == "per_example"
    }


def _series(label: str, points: list[tuple[float, float]]) -> Series:
    points = sorted(points)
    return Series(
        f"{label} (published)", [x for x, _ in points], [y for _, y in points], published=True
    )
