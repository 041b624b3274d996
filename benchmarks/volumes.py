"""MRI heads at the same rates: this package beside codecs for slices and for three axes.

    COINPP_DATA=... python benchmarks/volumes.py [--ours-only]

Those volumes of the data folder's mri/heads that the model `mri-16` was neither trained nor
validated on (one person each: T2-weighted, T2-weighted with the skull, echo-planar), each divided
by the 99.99 % percentile of its voxels and clipped to [0, 1] as in the COIN++ paper (which takes
the percentile of its training set). PSNR over a whole volume, ours at the payload that keeps to the
rate, that of others interpolated between the two settings around it, at every rate whichever of
its ways is better:

- JPEG 2000 (irreversible, five resolutions) and JPEG XL (effort 5, and slices of half the size):
  slices of 8 bits, whose rounding lies at 59 dB and more, across the axis that takes the fewest
  bytes. The slices share the bits where these help most.
- HEVC-intra and, which is more, HEVC as a film of the slices: x265 at preset slow tuned for PSNR,
  across the axis that takes the fewest bytes, the film also in 12 bits.
- SZ3: the float32 volume with its axes in every order.
- SPERR: with a rate or with a PSNR as its goal.
- ZFP: fixed accuracy or fixed precision.

Slices as raw streams; parameters of HEVC count once, headers of JPEG 2000 not at all. What is
outside [0, 1] is clipped for all. The paper's points, which stand beside, are of other data
(FastMRI).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Any

import imagecodecs
import nibabel
import numpy as np
from media import Points, folder, mean_square_error, measure, points
from PIL import Image

from coinpp_xr import VolumePatchCodec
from coinpp_xr.reproduction.ffmpeg import hevc, jpeg2000_sizes

# Bits per voxel.
RATES = (0.05, 0.1, 0.2, 0.4)
Encode = Callable[[np.ndarray, float], bytes]
Decode = Callable[[bytes], np.ndarray]

HELD_OUT = ("m2208_t2w", "register_epi_bold", "register_t2w_head")


def slices_across(volume: np.ndarray, axis: int, bits: int = 8) -> list[np.ndarray]:
    whole = np.rint(np.moveaxis(volume, axis, 0) * (2**bits - 1))
    return [np.ascontiguousarray(part) for part in whole.astype(f"u{(bits + 7) // 8}")]


def per_slice(
    volume: np.ndarray,
    settings: Sequence[float],
    middle: float,
    encode: Encode,
    decode: Any,
    measured: Callable[[bytes], int] = len,
) -> Points:
    """Slices across the best axis, each at the setting that is best at one price of a bit."""

    def size(axis: int) -> int:
        return sum(measured(encode(part, middle)) for part in slices_across(volume, axis))

    axis = min(range(3), key=size)
    slices, originals = slices_across(volume, axis), np.moveaxis(volume, axis, 0)
    sizes, errors = np.empty((2, len(settings), len(slices)))
    for row, setting in enumerate(settings):
        for column, (part, original) in enumerate(zip(slices, originals, strict=True)):
            data = encode(part, setting)
            sizes[row, column] = measured(data)
            decoded = decode(data, part.shape) / 255
            errors[row, column] = mean_square_error(original, decoded) * part.size
    prices = -np.diff(errors.sum(1)) / np.maximum(np.diff(sizes.sum(1)), 1)
    prices = prices[prices > 0]
    columns = np.arange(len(slices))
    for price in np.geomspace(10 * prices.max(), prices.min(), 40):
        chosen = np.argmin(errors + price * sizes, axis=0)
        yield sizes[chosen, columns].sum(), errors[chosen, columns].sum() / volume.size


def as_film(
    volume: np.ndarray, qualities: Sequence[int], middle: int, *, intra: bool, bits: int = 8
) -> Points:
    form = "gray" if bits == 8 else f"gray{bits}le"

    def code(axis: int, quality: float) -> tuple[int, np.ndarray]:
        frames = [[part] for part in slices_across(volume, axis, bits)]
        size, decoded = hevc(frames, form, quality, preset="slow", intra=intra)
        whole = np.moveaxis(np.stack([planes[0] for planes in decoded]), 0, axis)
        return size, whole / (2**bits - 1)

    axis = min(range(3), key=lambda axis: code(axis, middle)[0])
    yield from points(volume, lambda quality: code(axis, quality), qualities)


def whole(
    volume: np.ndarray, settings: Sequence[float], encode: Encode, decode: Decode
) -> Iterator[tuple[float, float]]:
    for setting in settings:
        data = encode(volume, setting)
        yield len(data), mean_square_error(volume, np.clip(decode(data), 0, 1))


def jpeg_xl(part: np.ndarray, distance: float) -> bytes:
    return imagecodecs.jpegxl_encode(part, distance=distance, effort=5, numthreads=1)


def of_half_size(part: np.ndarray, distance: float) -> bytes:
    height, width = part.shape
    smaller = ((width + 1) // 2, (height + 1) // 2)
    picture = Image.fromarray(part).resize(smaller, Image.Resampling.LANCZOS)
    return jpeg_xl(np.asarray(picture), distance)


def back_to_size(data: bytes, shape: tuple[int, int]) -> np.ndarray:
    picture = Image.fromarray(imagecodecs.jpegxl_decode(data))
    return np.asarray(picture.resize(shape[::-1], Image.Resampling.LANCZOS)).astype(np.float64)


def peers(volume: np.ndarray) -> dict[str, list[Points]]:
    ic = imagecodecs
    distances = (25, 19.9, 14, 10, 6, 3.5, 2, 1)

    def sz3(axes: tuple[int, ...]) -> Points:
        turned = np.ascontiguousarray(volume.transpose(axes))
        return whole(
            turned,
            np.geomspace(0.7, 0.004, 24),
            lambda values, bound: bytes(ic.sz3_encode(values, "abs", abs=bound)),
            lambda data: np.asarray(ic.sz3_decode(data, turned.shape, turned.dtype)),
        )

    def sperr(mode: Any, settings: Sequence[float]) -> Points:
        return whole(
            volume,
            settings,
            lambda values, goal: bytes(ic.sperr_encode(values, goal, mode, numthreads=1)),
            lambda data: np.asarray(
                ic.sperr_decode(data, shape=volume.shape, dtype=volume.dtype, numthreads=1)
            ),
        )

    def zfp(mode: str, settings: Sequence[float]) -> Points:
        return whole(
            volume,
            settings,
            lambda values, goal: bytes(ic.zfp_encode(values, level=goal, mode=mode)),
            lambda data: np.asarray(ic.zfp_decode(data)).reshape(volume.shape),
        )

    return {
        "JPEG 2000": [
            per_slice(
                volume,
                range(14, 56, 3),
                32,
                lambda part, level: ic.jpeg2k_encode(
                    part, level=level, codecformat="j2k", resolutions=5, numthreads=1
                ),
                lambda data, shape: ic.jpeg2k_decode(data),
                lambda data: jpeg2000_sizes(data)[1],
            )
        ],
        "JPEG XL": [
            per_slice(
                volume, distances, 6, jpeg_xl, lambda data, shape: ic.jpegxl_decode(data)
            ),
            per_slice(volume, distances[:-1], 6, of_half_size, back_to_size),
        ],
        "HEVC-intra": [as_film(volume, range(51, 10, -4), 35, intra=True)],
        "HEVC film": [
            as_film(volume, range(51, 10, -4), 35, intra=False),
            as_film(volume, range(31, 5, -4), 31, intra=False, bits=12),
        ],
        "SZ3": [sz3(axes) for axes in permutations(range(3))],
        "SPERR": [
            sperr("bpp", np.geomspace(0.02, 1, 14)),
            sperr("psnr", range(14, 50, 4)),
        ],
        "ZFP": [zfp("a", np.geomspace(8, 0.002, 18)), zfp("p", range(1, 16))],
    }  # fmt: skip


def ours(volume: np.ndarray, rate: float) -> tuple[int, np.ndarray]:
    codec = VolumePatchCodec(target_bpp=rate)
    payload = codec.encode(volume)
    return len(payload), np.clip(codec.decode(payload), 0, 1)


def load(file: Any) -> np.ndarray:
    values = np.asarray(nibabel.load(file).get_fdata(dtype=np.float32))
    return np.ascontiguousarray(np.clip(values / np.percentile(values, 99.99), 0, 1))


def main() -> None:
    files = [folder("mri") / "heads" / f"{name}.nii.gz" for name in HELD_OUT]
    volumes = {file.name.removesuffix(".nii.gz"): load(file) for file in files}
    data = f"{len(files)} MRI volumes of heads that no model has seen"
    measure(
        "volumes", data, volumes, RATES, ours, peers,
        paper="fastmri",
    )  # fmt: skip


if __name__ == "__main__":
    main()
