"""What else compresses the items of an experiment, and this package's own codecs.

Every function takes an item with values in [0, 1] and a setting, and returns bytes and what comes
back, in [0, 1] again. Those of images and volumes work in 8 bits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.codecs.patches import AudioPatchCodec, ImagePatchCodec, VolumePatchCodec
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.data.sources import optional
from coinpp_xr.reproduction.datasets import Float32

Coded = tuple[float, npt.NDArray[Any]]
Code = Callable[[Float32, float], Coded]

_HERTZ = 16_000


def jpeg(image: Float32, level: float) -> Coded:
    """libjpeg-turbo with chroma at full resolution."""
    codecs = optional("imagecodecs", "JPEG")
    data = codecs.jpeg8_encode(
        _plain(_bytes(image)), level=int(level), optimize=True, subsampling="444"
    )
    return len(data), _floats(codecs.jpeg8_decode(data), image)


def jpeg2000(image: Float32, level: float) -> Coded:
    """OpenJPEG at a PSNR; the raw stream without its comment."""
    return _jpeg2000(_bytes(image), image, level)


def jpeg2000_deep(image: Float32, level: float) -> Coded:
    """The same in 16 bits, for fields."""
    return _jpeg2000(np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16), image, level)


def _jpeg2000(values: npt.NDArray[Any], image: Float32, level: float) -> Coded:
    codecs = optional("imagecodecs", "JPEG 2000")
    from coinpp_xr.reproduction.ffmpeg import jpeg2000_sizes

    # As many halvings as the smaller side allows.
    resolutions = max(1, min(6, int(np.log2(min(image.shape[:2])))))
    data = codecs.jpeg2k_encode(
        _plain(values), level=level, codecformat="j2k", resolutions=resolutions,
        mct=values.shape[-1] == 3, numthreads=1,
    )  # fmt: skip
    return sum(jpeg2000_sizes(data)), _floats(codecs.jpeg2k_decode(data), image)


def hevc_intra(
    image: Float32, quality: float, note: Callable[[float, float], None] | None = None
) -> Coded:
    """x265 at its slowest preset, intra frames of 10 bits, chroma in full: the core of BPG.

    Without parameter sets, in place of which BPG has a header of a few bytes. ``note`` gets the
    seconds of the encoder and of the decoder alone.
    """
    from coinpp_xr.reproduction.ffmpeg import decoded, hevc_stream, photograph

    def code(frames: Sequence[Any], pixel_format: str) -> tuple[int, list[Any]]:
        start = time.perf_counter()
        stream = hevc_stream(frames, pixel_format, quality, preset="veryslow")
        middle = time.perf_counter()
        planes = decoded(stream, "hevc")
        if note is not None:
            note(middle - start, time.perf_counter() - middle)
        return stream.size - len(stream.parameter_sets), planes

    values = _bytes(image)
    if values.shape[-1] == 1:
        size, ((plane,),) = code([[4 * values[..., 0].astype(np.int64)]], "gray10le")
        return size, np.clip(plane[..., None] / 1020, 0, 1)
    size, rgb = photograph(values, code, halved=False)
    return size, rgb / 255


def slices(code: Code) -> Code:
    """A codec of images for volumes: all slices side by side in one picture with one header."""

    def of_volume(volume: Float32, setting: float) -> Coded:
        count, height, width = volume.shape[:3]
        picture = volume.transpose(1, 0, 2, 3).reshape(height, count * width, -1)
        size, back = code(np.ascontiguousarray(picture), setting)
        return size, back.reshape(height, count, width, -1).transpose(1, 0, 2, 3)

    return of_volume


def mp3(clip: Float32, kilobits: float) -> Coded:
    """LAME at a constant rate, aligned with the original."""
    from coinpp_xr.reproduction.ffmpeg import ffmpeg_audio

    samples = np.ascontiguousarray(2 * clip[..., 0] - 1)
    size, back = ffmpeg_audio(
        samples, _HERTZ, "libmp3lame", "mp3", int(1000 * kilobits), compression_level="9"
    )
    return size, (back[:, None] + 1) / 2


def image_codec(image: Float32, rate: float) -> Coded:
    """This package's, at bits per pixel."""
    values = _bytes(image)
    codec = ImagePatchCodec(target_bpp=rate)
    payload = codec.encode(values)
    return len(payload), codec.decode(payload) / 255


def volume_codec(volume: Float32, rate: float) -> Coded:
    """This package's, at bits per voxel."""
    codec = VolumePatchCodec(target_bpp=rate)
    values = np.ascontiguousarray(volume[..., 0])
    payload = codec.encode(values)
    return len(payload), np.clip(codec.decode(payload), 0, 1)[..., None]


def audio_codec(clip: Float32, kilobits: float) -> Coded:
    """This package's, at kilobits per second."""
    codec = AudioPatchCodec(target_bpp=1000 * kilobits / _HERTZ)
    payload = codec.encode(np.ascontiguousarray(2 * clip[..., 0] - 1))
    return len(payload), (codec.decode(payload)[..., None] + 1) / 2


def globe_codec(fields: Float32, target_rmse: float) -> Coded:
    """This package's, all fields (time, lat, lon) in K as one chunk, at an area-weighted RMSE."""
    codec = COINppCodec(target_rmse=target_rmse)
    payload = codec.encode(fields)
    return len(payload), np.asarray(codec.decode(payload)).reshape(fields.shape)


def _bytes(image: Float32) -> npt.NDArray[np.uint8]:
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _plain(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Without an axis of one channel, which coders take for something else."""
    return np.ascontiguousarray(values[..., 0] if values.shape[-1] == 1 else values)


def _floats(values: npt.NDArray[Any], like: Float32) -> npt.NDArray[Any]:
    return np.reshape(values / np.iinfo(values.dtype).max, like.shape)
