"""Files of images, volumes and sound as their data sets are distributed, of random values."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coinpp_xr.data import Media, write_media

h5py = pytest.importorskip("h5py")

RNG = np.random.default_rng(11)


def write_image(path: Path, pixels: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_media(Media("image", pixels), path)
    return pixels


def write_nifti(path: Path, voxels: np.ndarray, slope: float = 1.0, inter: float = 0.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_media(Media("array", voxels), path)
    if (slope, inter) != (1.0, 0.0):
        content = bytearray(path.read_bytes())
        content[112:120] = np.array([slope, inter], "<f4").tobytes()
        path.write_bytes(content)


def write_sound(path: Path, samples: np.ndarray, rate: int = 16000, subtype: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_media(Media("audio", samples, {"sample_rate": rate, "subtype": subtype}), path)


def write_brain(
    path: Path, *, slices: int = 16, acquisition: str = "AXT2", scale: float = 1e-4
) -> np.ndarray:
    """A file as FastMRI's, without the measurements of the coils."""
    path.parent.mkdir(parents=True, exist_ok=True)
    brain = (scale * RNG.gamma(2.0, size=(slices, 12, 10))).astype(np.float32)
    with h5py.File(path, "w") as file:
        file["reconstruction_rss"] = brain
        file.attrs["acquisition"] = acquisition
        file.attrs["patient_id"] = "0" * 64
    return brain


def cifar_batch(images: np.ndarray, *, keys: type = bytes, **changes: Any) -> dict[Any, Any]:
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    batch = {
        "batch_label": "training batch 1 of 5",
        "labels": list(range(len(images))),
        "data": rows,
        "filenames": [f"camion_s_{index:06}.png" for index in range(len(images))],
    }
    return {
        (key.encode() if keys is bytes else key): value for key, value in (batch | changes).items()
    }


def write_cifar(path: Path, count: int = 3, **options: Any) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = RNG.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    path.write_bytes(pickle.dumps(cifar_batch(images, **options), protocol=2))
    return images


def write_triplets(root: Path, split: str, sequences: list[str]) -> dict[str, np.ndarray]:
    written = {}
    for sequence in sequences:
        for frame in ("im1.png", "im2.png", "im3.png"):
            pixels = RNG.integers(0, 256, (4, 6, 3), dtype=np.uint8)
            name = f"{sequence}/{frame}"
            written[name] = write_image(root / "sequences" / name, pixels)
    (root / f"tri_{split}list.txt").write_text("\n".join(sequences) + "\n\n")
    return written
