"""Photographs at the COIN++ paper's rates: this package beside JPEG 2000, JPEG, JPEG XL and AVIF.

    COINPP_DATA=... python benchmarks/images.py

The Kodak images of the data folder (16 of the 24, on which nothing was fitted). PSNR of each image
in 8 bits, averaged; every codec gets the quality, found by bisection, whose bytes just keep to the
rate, JPEG 2000 without its file format's boxes. Images that a codec cannot make so small are left
out of its mean, and counted. Beside them stand the points that the paper published, which are means
over all 24 images.
"""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from common import write_result

from coinpp_xr import ImagePatchCodec

# Of the paper's curve.
RATES = (0.132, 0.266, 0.4, 0.537)
_TRIALS = 8


def psnr(image: np.ndarray, decoded: np.ndarray) -> float:
    mse = np.mean((image.astype(np.float64) - decoded) ** 2)
    return float(-10 * np.log10(max(mse, 1e-12) / 255**2))


def bisected(
    image: np.ndarray,
    rate: float,
    encode: Callable[[float], bytes],
    decode: Callable[[bytes], np.ndarray],
    low: float,
    high: float,
) -> float | None:
    """PSNR at the highest quality whose bytes keep to a rate in bits per pixel."""
    best, allowed = None, rate * image[..., 0].size / 8
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        payload = encode(middle)
        if len(payload) <= allowed:
            best, low = psnr(image, decode(payload)), middle
        else:
            high = middle
    return best


def better(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def peers(image: np.ndarray, rate: float) -> dict[str, float | None]:
    ic = imagecodecs
    return {
        "JPEG 2000": bisected(
            image, rate,
            lambda q: ic.jpeg2k_encode(
                image, level=q, mct=True, codecformat="j2k", resolutions=6, numthreads=1
            ),
            ic.jpeg2k_decode, 10, 60,
        ),
        "JPEG": better(
            bisected(
                image, rate,
                lambda q, c=colours: ic.jpeg8_encode(
                    image, level=int(q), optimize=True, subsampling=c
                ),
                ic.jpeg8_decode, 1, 100,
            )
            for colours in ("420", "444")
        ),
        "JPEG XL": bisected(
            image, rate,
            lambda q: ic.jpegxl_encode(image, distance=-q, effort=7, numthreads=1),
            ic.jpegxl_decode, -25, 0,
        ),
        "AVIF": better(
            bisected(
                image, rate,
                lambda q, c=colours: ic.avif_encode(
                    image, level=int(q), speed=6, pixelformat=c, numthreads=1
                ),
                ic.avif_decode, 1, 100,
            )
            for colours in ("420", "444")
        ),
    }  # fmt: skip


def published(folder: Path) -> dict[str, list[list[float]]]:
    points: dict[str, list[list[float]]] = {}
    with (folder / "paper" / "rd_points.csv").open() as file:
        for row in csv.DictReader(file):
            if row["dataset"] == "kodak" and row["variant"] in ("paper_curve", "baseline"):
                point = [round(float(row["bpp_or_kbps"]), 4), round(float(row["psnr_db"]), 2)]
                points.setdefault(row["codec"], []).append(point)
    return points


def main() -> None:
    if "COINPP_DATA" not in os.environ:
        sys.exit("set COINPP_DATA to the folder with the images")
    folder = Path(os.environ["COINPP_DATA"])
    files = sorted((folder / "images" / "kodak").glob("*.png"))
    ours, found = "coinpp-xr", {}
    for file in files:
        image = imagecodecs.png_decode(file.read_bytes())
        for rate in RATES:
            codec = ImagePatchCodec(target_bpp=rate)
            decoded = codec.decode(codec.encode(image))
            results: dict[str, Any] = {ours: psnr(image, decoded), **peers(image, rate)}
            for name, value in results.items():
                found.setdefault((name, rate), []).append(value)
        print(file.name, {name: values[-1] for (name, _), values in found.items()}, flush=True)
    rows = [
        {
            "codec": name,
            "bpp": rate,
            "images": sum(value is not None for value in values),
            "psnr_db": round(float(np.mean([v for v in values if v is not None])), 3)
            if any(v is not None for v in values)
            else None,
            "better_than_ours_on": sum(
                value is not None and value > own
                for value, own in zip(values, found[ours, rate], strict=True)
            ),
        }
        for (name, rate), values in found.items()
    ]
    write_result(
        "images",
        {
            "data": f"{len(files)} Kodak images",
            "rows": rows,
            "published_by_the_paper": published(folder),
        },
    )


if __name__ == "__main__":
    main()
