"""Speed of the codecs for images, volumes and sound, beside JPEG 2000 and AVIF.

    COINPP_DATA=... python benchmarks/media_throughput.py

Kodak images at a PSNR and at a rate (megapixels per second); speech of three seconds at the
paper's rates (how many seconds of sound are coded in one); a head tiled to 256³ voxels in floats
and in bytes (seconds). Encoding and decoding with one and with two threads, each after a run that
warms up, median of several; images and clips as many at a time as there are threads. JPEG 2000
(OpenJPEG) and AVIF (libaom at speeds 4 and 8) code the same images at the quality that comes
nearest to 0.54 bits per pixel, in the same run, for scale.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import imagecodecs
import numpy as np
import soundfile
from common import write_result
from media import folder
from volumes import load

import coinpp_xr
from coinpp_xr import AudioPatchCodec, ImagePatchCodec, VolumePatchCodec

THREADS = (1, 2)
IMAGES, CLIPS, REPEATS = 4, 8, 3
HERTZ, SECONDS, SIDE = 16000, 3, 256


def seconds(work: Callable[[], object], repeats: int) -> float:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def both_ways(
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any],
    items: list[Any],
    repeats: int,
    at_a_time: int,
) -> tuple[float, float, int]:
    """Seconds to encode and to decode all items, and their bytes."""
    payloads = [encode(item) for item in items]
    decode(payloads[0])
    with ThreadPoolExecutor(at_a_time) as pool:
        writing = seconds(lambda: list(pool.map(encode, items)), repeats)
        reading = seconds(lambda: list(pool.map(decode, payloads)), repeats)
    return (
        writing,
        reading,
        sum(map(len, payloads)),
    )


def nearest(
    encode: Callable[[np.ndarray, float], bytes], image: np.ndarray, levels: range, rate: float
) -> float:
    bits = {level: 8 * len(encode(image, level)) / image[..., 0].size for level in levels}
    return min(bits, key=lambda level: abs(bits[level] - rate))


def photographs(images: list[np.ndarray], threads: int) -> dict[str, dict[str, float]]:
    pixels = sum(image[..., 0].size for image in images)
    ic = imagecodecs

    def jpeg2000(image: np.ndarray, level: float) -> bytes:
        return ic.jpeg2k_encode(image, level=level, codecformat="j2k", resolutions=6, numthreads=1)

    def avif(speed: int) -> Callable[[np.ndarray, float], bytes]:
        return lambda image, level: ic.avif_encode(
            image, level=int(level), speed=speed, pixelformat="420", numthreads=1
        )

    ways: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {}
    for goal in ({"target_psnr": 30}, {"target_psnr": 35}, {"target_bpp": 0.266},
                 {"target_bpp": 0.54}):  # fmt: skip
        codec = ImagePatchCodec(**goal)
        label = "coinpp-xr, " + ", ".join(f"{key}={value:g}" for key, value in goal.items())
        ways[label] = (codec.encode, codec.decode)
    for label, encode, decode, levels in (
        ("JPEG 2000", jpeg2000, ic.jpeg2k_decode, range(20, 44)),
        ("AVIF, speed 8", avif(8), ic.avif_decode, range(10, 90, 4)),
        ("AVIF, speed 4", avif(4), ic.avif_decode, range(40, 75, 10)),
    ):
        qualities = {id(image): nearest(encode, image, levels, 0.54) for image in images}
        ways[label] = (lambda image, e=encode, at=qualities: e(image, at[id(image)]), decode)
    found = {}
    for label, (encode, decode) in ways.items():
        writing, reading, nbytes = both_ways(encode, decode, images, REPEATS, threads)
        found[label] = {
            "encode_megapixels_per_s": pixels / 1e6 / writing,
            "decode_megapixels_per_s": pixels / 1e6 / reading,
            "bpp": 8 * nbytes / pixels,
        }
        print(threads, label, found[label], flush=True)
    return found


def speech(clips: list[np.ndarray], threads: int) -> dict[str, dict[str, float]]:
    found = {}
    for kilobits in (5.631, 13.807, 27.482):
        codec = AudioPatchCodec(target_bpp=1000 * kilobits / HERTZ)
        writing, reading, _ = both_ways(codec.encode, codec.decode, clips, REPEATS, threads)
        found[f"{kilobits:g} kbps"] = {
            "encode_times_real_time": SECONDS * len(clips) / writing,
            "decode_times_real_time": SECONDS * len(clips) / reading,
        }
    print(found, flush=True)
    return found


def heads(volume: np.ndarray) -> dict[str, dict[str, float]]:
    found = {}
    for values in (volume, np.rint(255 * volume).astype(np.uint8)):
        codec = VolumePatchCodec(target_bpp=0.1)
        writing, reading, _ = both_ways(codec.encode, codec.decode, [values], 1, 1)
        found[f"{values.dtype}, target_bpp=0.1"] = {"encode_s": writing, "decode_s": reading}
    print(found, flush=True)
    return found


def main() -> None:
    load_before = round(os.getloadavg()[0], 2)
    files = sorted((folder("images") / "kodak").glob("*.png"))[:IMAGES]
    images = [imagecodecs.png_decode(file.read_bytes()) for file in files]
    clips = [
        soundfile.read(file, dtype="float32")[0][: SECONDS * HERTZ]
        for file in sorted((folder("audio") / "test").rglob("*.flac"))
        if soundfile.info(file).frames >= SECONDS * HERTZ
    ][:CLIPS]
    head = load(folder("mri") / "heads" / "spm152_t1.nii.gz")
    volume = np.ascontiguousarray(
        np.pad(head, [(0, max(0, SIDE - n)) for n in head.shape], mode="wrap")[:SIDE, :SIDE, :SIDE]
    )
    found: dict[str, Any] = {}
    for threads in THREADS:
        with coinpp_xr.config.set(threads=threads):
            found[str(threads)] = {
                "images": photographs(images, threads),
                "speech": speech(clips, threads),
                f"volume of {SIDE}^3": heads(volume),
            }
    result = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.4g}"))
    write_result(
        "media_throughput",
        {
            "data": f"{IMAGES} Kodak images, {CLIPS} clips of {SECONDS} s, one head tiled",
            "load_before": load_before,
            "by_threads": result,
        },
    )


if __name__ == "__main__":
    main()
