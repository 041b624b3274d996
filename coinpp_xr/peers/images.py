"""Image codecs and HEVC-intra on globes that are scaled to whole numbers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.peers.layouts import Float32, Layout, layouts, pictures
from coinpp_xr.peers.residuals import search_qualities
from coinpp_xr.peers.search import Float64, Method, NotInstalledError, Search, need

# x265 refuses smaller frames.
_SMALLEST_FRAME = 32


def _image_peer(
    depths: Sequence[int],
    encode: Callable[[Any, npt.NDArray[Any], float, int], bytes],
    decode: Callable[[Any, bytes], npt.NDArray[Any]],
    qualities: Callable[[float], Float64],
    *,
    whole: bool = False,
) -> Callable[[Search], None]:
    """A peer from an image codec.

    Parameters
    ----------
    depths : sequence of int
        Bits of the integers that values are scaled to, each tried.
    encode, decode : callable
        With imagecodecs as first argument, quality and bits as last ones of ``encode``.
    qualities : callable
        From the goal as a share of the range to settings, from coarse to fine.
    whole : bool
        Qualities are whole numbers.
    """

    def peer(search: Search) -> None:
        codecs = need("imagecodecs")
        values = search.chunk.values
        low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)

        def method(bits: int) -> Method:
            top, dtype = 2**bits - 1, np.uint8 if bits == 8 else np.uint16

            def to_bytes(array: Float32, quality: float) -> bytes:
                image = np.rint((array.astype(np.float64) - low) / span * top).astype(dtype)
                return encode(codecs, image, quality, bits)

            def to_array(stream: bytes, like: Float32) -> npt.NDArray[Any]:
                image = np.asarray(decode(codecs, stream)).reshape(like.shape)
                return np.asarray(image / top * span + low).astype(np.float32)

            return Method(f"{bits} bits, quality", to_bytes, to_array, whole)

        for bits in depths:
            cuts = (*pictures(values), *layouts(values, []))
            search_qualities(search, cuts, method(bits), qualities(search.goal.size / span))

    return peer


def _decibels(share: float) -> Float64:
    """PSNR of errors around this share of the range, from coarse to fine."""
    return np.asarray(-20 * np.log10(share) + np.linspace(-18, 12, 16))


jpeg2000 = _image_peer(
    [16],
    lambda c, image, level, bits: bytes(
        c.jpeg2k_encode(image, level=level, codecformat="j2k", reversible=False, numthreads=1)
    ),
    lambda c, stream: np.asarray(c.jpeg2k_decode(stream)),
    _decibels,
)
jpeg_xl = _image_peer(
    [16],
    lambda c, image, distance, bits: bytes(
        c.jpegxl_encode(image, distance=distance, effort=7, usecontainer=False, numthreads=1)
    ),
    lambda c, stream: np.asarray(c.jpegxl_decode(stream)),
    lambda share: np.geomspace(25, 0.02, 16),
)
jpeg = _image_peer(
    [8, 12],
    lambda c, image, level, bits: bytes(
        c.jpeg8_encode(image, level=int(level), optimize=True, bitspersample=bits)
    ),
    lambda c, stream: np.asarray(c.jpeg8_decode(stream)),
    lambda share: np.array([1.0, 5, 10, 30, 50, 70, 80, 90, 95, 98, 100]),
    whole=True,
)
avif = _image_peer(
    [12],
    # Grey images are stored without loss whatever the level; grey as a colour costs no bits.
    lambda c, image, level, bits: bytes(
        c.avif_encode(
            np.repeat(image[..., None], 3, axis=2),
            level=int(level), bitspersample=bits, pixelformat="420", numthreads=1,
        )
    ),
    lambda c, stream: np.asarray(c.avif_decode(stream))[..., 1],
    lambda share: np.array([20.0, 40, 50, 60, 70, 80, 90, 95, 99]),
    whole=True,
)  # fmt: skip


def hevc(search: Search) -> None:
    """HEVC-intra (x265, 12 bits), the core of the BPG that the COIN++ paper compares with."""
    program = shutil.which("ffmpeg")
    known = program and subprocess.run(
        [program, "-v", "error", "-encoders"], capture_output=True, check=False, timeout=60
    )
    if program is None or not known or b"libx265" not in known.stdout:
        raise NotInstalledError("needs ffmpeg with libx265")
    values = search.chunk.values
    low, span = float(values.min()), max(float(np.ptp(values)), 1e-30)

    def run(arguments: list[str], data: bytes) -> bytes:
        command = [program, "-v", "error", *arguments]
        done = subprocess.run(command, input=data, capture_output=True, check=False, timeout=600)
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace")[-200:])
        return done.stdout

    def raw(shape: tuple[int, ...]) -> list[str]:
        return ["-f", "rawvideo", "-pix_fmt", "gray12le", "-s", f"{shape[-1]}x{shape[-2]}"]

    def even(length: int) -> int:
        return max(length + length % 2, _SMALLEST_FRAME)

    def encode(array: Float32, quality: float) -> bytes:
        image = np.rint((array.astype(np.float64) - low) / span * 4095).astype("<u2")
        missing = [(0, even(length) - length) for length in image.shape[-2:]]
        image = np.pad(image, [(0, 0)] * (image.ndim - 2) + missing, mode="edge")
        # Its parameters would take two thousand bytes more in every frame.
        options = f"crf={quality:g}:keyint=1:info=0:log-level=none"
        coder = ["-c:v", "libx265", "-preset", "slow", "-x265-params", options, "-f", "hevc", "-"]
        return run([*raw(image.shape), "-i", "-", *coder], image.tobytes())

    def decode(stream: bytes, like: Float32) -> npt.NDArray[Any]:
        n_lat, n_lon = like.shape[-2:]
        back = run(["-f", "hevc", "-i", "-", *raw(like.shape)[:4], "-"], stream)
        frames = np.frombuffer(back, "<u2").reshape(-1, even(n_lat), even(n_lon))
        image = frames[:, :n_lat, :n_lon].reshape(like.shape)
        return np.asarray(image / 4095 * span + low).astype(np.float32)

    method = Method("crf", encode, decode)
    frames = Layout("2D frames", [values], lambda arrays: arrays[0])
    cuts = (*pictures(values), frames)
    search_qualities(search, cuts, method, np.array([*np.arange(50.0, 0, -5), 0.5]))
