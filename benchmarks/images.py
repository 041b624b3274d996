"""Photographs at the COIN++ paper's rates: this package beside what else compresses them.

    COINPP_DATA=... python benchmarks/images.py [--ours-only]

The Kodak images of the data folder (16 of the 24; no model has seen them). PSNR of each image
in 8 bits of RGB, averaged: ours at the payload that keeps to the rate, that of others interpolated
between the two qualities around it, each at whichever of its ways is best there:

- JPEG 2000 (OpenJPEG): irreversible, colour transform, six resolutions.
- JPEG (libjpeg-turbo): optimised tables, chroma at full or half resolution.
- JPEG XL (libjxl): efforts 5 and 7; also pictures of half the size. It does not aim at PSNR.
- AVIF: SVT-AV1 at preset 1 tuned for PSNR, 10 bits, chroma halved, or libaom at speed 4, chroma
  whole.
- HEVC-intra: x265 at preset veryslow tuned for PSNR, 10 bits, chroma halved or whole.

All but JPEG as raw streams without a file's boxes. Images that a codec cannot make so small are
left out of its mean, and counted. Beside them stand the points that the paper published, which are
means over all 24 images.
"""

from __future__ import annotations

import imagecodecs
import numpy as np
from media import Coder, Points, folder, measure, points
from PIL import Image

from coinpp_xr import ImagePatchCodec
from coinpp_xr.reproduction.ffmpeg import (
    avif_stream_size,
    hevc,
    jpeg2000_sizes,
    photograph,
    svt_av1,
)

# Of the paper's curve.
RATES = (0.067, 0.132, 0.266, 0.4, 0.537)


def jpeg2000(image: np.ndarray) -> Coder:
    def code(level: float) -> tuple[int, np.ndarray]:
        data = imagecodecs.jpeg2k_encode(
            image, level=level, mct=True, codecformat="j2k", resolutions=6, numthreads=1
        )
        return sum(jpeg2000_sizes(data)), imagecodecs.jpeg2k_decode(data)

    return code


def jpeg(image: np.ndarray, subsampling: str) -> Coder:
    def code(level: float) -> tuple[int, np.ndarray]:
        data = imagecodecs.jpeg8_encode(
            image, level=int(level), optimize=True, subsampling=subsampling
        )
        return len(data), imagecodecs.jpeg8_decode(data)

    return code


def jpeg_xl(image: np.ndarray, effort: int) -> Coder:
    def code(distance: float) -> tuple[int, np.ndarray]:
        data = imagecodecs.jpegxl_encode(image, distance=distance, effort=effort, numthreads=1)
        return len(data), imagecodecs.jpegxl_decode(data)

    return code


def at_half_size(image: np.ndarray, distance: float) -> tuple[int, np.ndarray]:
    """JPEG XL of a smaller picture, for rates that its largest distance does not reach."""
    height, width = image.shape[:2]
    smaller = Image.fromarray(image).resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    size, decoded = jpeg_xl(np.asarray(smaller), 7)(distance)
    again = Image.fromarray(decoded).resize((width, height), Image.Resampling.LANCZOS)
    return size, np.asarray(again)


def avif(image: np.ndarray) -> Coder:
    def code(level: float) -> tuple[int, np.ndarray]:
        data = imagecodecs.avif_encode(
            image, level=int(level), speed=4, pixelformat="444", numthreads=1,
            matrix=imagecodecs.AVIF.MATRIX_COEFFICIENTS.YCGCO,
        )  # fmt: skip
        return avif_stream_size(data), imagecodecs.avif_decode(data)

    return code


def peers(image: np.ndarray) -> dict[str, list[Points]]:
    def hevc_intra(halved: bool) -> Coder:
        return lambda quality: photograph(
            image, lambda *frames: hevc(*frames, quality, preset="veryslow"), halved=halved
        )

    def av1(quality: float) -> tuple[int, np.ndarray]:
        return photograph(image, lambda *frames: svt_av1(*frames, quality, preset=1), halved=True)

    distances = (25, 19.9, 16, 13, 10, 8, 6.5, 5, 4, 3, 2.2, 1.5, 1)
    return {
        "JPEG 2000": [points(image, jpeg2000(image), np.arange(16, 46, 1.5))],
        "JPEG": [
            points(image, jpeg(image, c), (1, 2, 4, 6, 8, 11, 15, 20, 30, 45, 60, 80))
            for c in ("420", "444")
        ],
        "JPEG XL": [
            *(points(image, jpeg_xl(image, effort), distances) for effort in (5, 7)),
            points(image, lambda distance: at_half_size(image, distance), distances[:-3]),
        ],
        "AVIF": [
            points(image, av1, (63, 57, 51, 45, 39, 33, 27, 21)),
            points(image, avif(image), (20, 30, 40, 50, 60, 70, 80)),
        ],
        "HEVC-intra": [
            points(image, hevc_intra(halved), range(51, 18, -3)) for halved in (True, False)
        ],
    }


def ours(image: np.ndarray, rate: float) -> tuple[int, np.ndarray]:
    codec = ImagePatchCodec(target_bpp=rate)
    payload = codec.encode(image)
    return len(payload), codec.decode(payload)


def main() -> None:
    files = sorted((folder("images") / "kodak").glob("*.png"))
    images = {file.stem: imagecodecs.png_decode(file.read_bytes()) for file in files}
    measure(
        "images", f"{len(files)} Kodak images", images, RATES, ours, peers, paper="kodak",
        cells=lambda image: image[..., 0].size, peak=255,
    )  # fmt: skip


if __name__ == "__main__":
    main()
