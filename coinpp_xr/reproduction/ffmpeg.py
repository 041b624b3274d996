"""Pictures and sound through ffmpeg's coders (PyAV): x265, SVT-AV1, LAME, libopus.

Sizes are those of raw streams without a container.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

os.environ.setdefault("SVT_LOG", "1")  # errors only

import av
import numpy as np
from numpy.typing import NDArray

# ---- pictures ------------------------------------------------------------------------------------

# One two-dimensional array of whole numbers per plane.
Planes = Sequence[NDArray[Any]]


class Stream(NamedTuple):
    """A raw stream without a container.

    Parameters
    ----------
    packets : list of av.Packet
    parameter_sets : bytes
        What the decoder needs before the first packet; empty where packets hold it, too.
    """

    packets: list[Any]
    parameter_sets: bytes

    @property
    def size(self) -> int:
        """Bytes; parameter sets count once."""
        size: int = sum(packet.size for packet in self.packets)
        return size + len(self.parameter_sets)


def _encoded(
    frames: Sequence[Planes], pixel_format: str, encoder_name: str, options: dict[str, str]
) -> Stream:
    height, width = frames[0][0].shape
    encoder: Any = av.CodecContext.create(encoder_name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, pixel_format
    encoder.time_base = Fraction(1, 25)
    encoder.flags |= av.codec.context.Flags.global_header
    encoder.options = options
    dtype = np.dtype("<u2" if pixel_format.endswith("le") else "u1")
    packets = []
    for number, planes in enumerate(frames):
        frame = av.VideoFrame(width, height, pixel_format)
        for plane, values in zip(frame.planes, planes, strict=True):
            lines = np.zeros((plane.height, plane.line_size // dtype.itemsize), dtype)
            lines[:, : values.shape[1]] = values
            plane.update(lines.tobytes())
        frame.pts = number
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    return Stream(packets, bytes(encoder.extradata or b""))


def decoded(stream: Stream, decoder_name: str) -> list[list[NDArray[Any]]]:
    """Planes of all frames."""
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoder.extradata = stream.parameter_sets or None
    pictures = [frame for packet in stream.packets for frame in decoder.decode(packet)]
    pictures = sorted(pictures + decoder.decode(None), key=lambda frame: frame.pts)
    assert len(pictures) == len(stream.packets)
    return [
        [
            np.frombuffer(bytes(plane), _dtype_of(frame)).reshape(plane.height, -1)[
                :, : plane.width
            ]
            for plane in frame.planes
        ]
        for frame in pictures
    ]


def _dtype_of(frame: Any) -> np.dtype[Any]:
    return np.dtype("<u2" if frame.format.name.endswith("le") else "u1")


def hevc_stream(
    frames: Sequence[Planes], pixel_format: str, quality: float, *, preset: str, intra: bool = True
) -> Stream:
    """x265, tuned for PSNR."""
    parameters = f"qp={int(quality)}:info=0:log-level=none:frame-threads=1:pools=none"
    if intra:
        parameters += ":keyint=1:min-keyint=1"
    options = {"preset": preset, "tune": "psnr", "x265-params": parameters}
    return _encoded(frames, pixel_format, "libx265", options)


def hevc(
    frames: Sequence[Planes], pixel_format: str, quality: float, *, preset: str, intra: bool = True
) -> tuple[int, list[list[NDArray[Any]]]]:
    """Bytes and decoded planes of :func:`hevc_stream`."""
    stream = hevc_stream(frames, pixel_format, quality, preset=preset, intra=intra)
    return stream.size, decoded(stream, "hevc")


def svt_av1(
    frames: Sequence[Planes], pixel_format: str, quality: float, *, preset: int
) -> tuple[int, list[list[NDArray[Any]]]]:
    """SVT-AV1 for stills, tuned for PSNR."""
    options = {
        "preset": str(preset),
        "crf": str(int(quality)),
        "svtav1-params": "tune=1:lp=1:avif=1",
    }
    stream = _encoded(frames, pixel_format, "libsvtav1", options)
    # AV1's packets hold the header, too.
    return sum(packet.size for packet in stream.packets), decoded(stream, "libdav1d")


_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def photograph(
    image: NDArray[Any],
    code: Callable[[Sequence[Planes], str], tuple[int, list[list[NDArray[Any]]]]],
    *,
    halved: bool,
) -> tuple[int, NDArray[Any]]:
    """An RGB image as full-range YCbCr of 10 bits, its chroma at half the resolution or not."""
    planes = np.moveaxis(image @ _TO_YCC.T, -1, 0).copy()
    planes[1:] += 128
    height, width = image.shape[:2]
    parts = list(planes)
    if halved:
        small = planes[1:].reshape(2, height // 2, 2, width // 2, 2).mean((2, 4))
        parts = [planes[0], *small]
    whole = [np.clip(np.rint(4 * part), 0, 1023) for part in parts]
    size, (decoded,) = code([whole], "yuv420p10le" if halved else "yuv444p10le")
    parts = [part / 4 for part in decoded]
    if halved:
        parts[1:] = [_doubled(_doubled(part).T).T for part in parts[1:]]
    result = np.stack(parts)
    result[1:] -= 128
    rgb = np.moveaxis(result, 0, -1) @ np.linalg.inv(_TO_YCC).T
    return size, np.clip(np.rint(rgb), 0, 255)


def _doubled(rows: NDArray[Any]) -> NDArray[Any]:
    """Twice as many rows, linear between their centres."""
    padded = np.concatenate([rows[:1], rows, rows[-1:]])
    result = np.empty((2 * len(rows), *rows.shape[1:]))
    result[0::2] = 0.25 * padded[:-2] + 0.75 * rows
    result[1::2] = 0.75 * rows + 0.25 * padded[2:]
    return result


def jpeg2000_sizes(data: bytes) -> tuple[int, int]:
    """Bytes of a raw stream's headers, without the comment, and of what follows them."""
    body = data.index(b"\xff\x93") + 2  # start of data
    comment = data.find(b"\xff\x64", 0, body)
    named = 2 + int.from_bytes(data[comment + 2 : comment + 4], "big") if comment >= 0 else 0
    return body - named, len(data) - body


def avif_stream_size(data: bytes) -> int:
    """Bytes of an AVIF file's coded picture, without the boxes around it."""
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start : start + 4], "big")
        if data[start + 4 : start + 8] == b"mdat":
            return size - 8 if size else len(data) - start - 8
        start += size
    raise ValueError("no mdat")


# ---- sound ---------------------------------------------------------------------------------------


def ffmpeg_audio(
    samples: NDArray[Any],
    rate: int,
    encoder_name: str,
    decoder_name: str,
    bits_per_second: int,
    **options: str,
) -> tuple[float, NDArray[Any]]:
    """Bytes of the packets and decoded samples, as near to those given as a filter brings them.

    The encoder's delay makes more packets than the sound is long; only its time's share counts.
    """
    encoder: Any = av.CodecContext.create(encoder_name, "w")
    encoder.sample_rate, encoder.layout, encoder.bit_rate = rate, "mono", bits_per_second
    encoder.format = encoder.codec.audio_formats[-1]
    encoder.time_base = Fraction(1, rate)
    encoder.options = options
    encoder.open()
    wanted = encoder.format.name
    length, packets = encoder.frame_size, []
    whole = np.concatenate([samples, np.zeros(-len(samples) % length, np.float32)])
    for start in range(0, len(whole), length):
        part = whole[None, start : start + length]
        if wanted.startswith("s16"):
            part = np.clip(np.rint(part * 32768), -32768, 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(part, format=wanted, layout="mono")
        frame.sample_rate, frame.pts = rate, start
        packets += encoder.encode(frame)
    packets = [bytes(packet) for packet in packets + encoder.encode(None)]
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoder.extradata = encoder.extradata
    decoder.sample_rate, decoder.layout = rate, "mono"
    frames = [frame for data in packets for frame in decoder.decode(av.Packet(data))]
    frames += decoder.decode(None)
    decoded = np.concatenate([_as_floats(frame) for frame in frames])
    times = frames[0].sample_rate // rate
    size = sum(map(len, packets)) * len(samples) / (length * len(packets))
    return size, _filtered(samples, _aligned(samples, decoded, times))


def _as_floats(frame: av.AudioFrame) -> NDArray[Any]:
    values = frame.to_ndarray()[0]
    samples: NDArray[Any] = values / 32768 if values.dtype == np.int16 else values * 1.0
    return samples


def _aligned(samples: NDArray[Any], decoded: NDArray[Any], times: int) -> NDArray[Any]:
    """Decoded samples at the delay, in fine samples, where they resemble the original most."""
    n = len(samples) * times
    decoded = np.concatenate([decoded, np.zeros(2 * n)])[: 2 * n]
    if times > 1:  # what is above half the lower rate folds back otherwise
        spectrum = np.fft.rfft(decoded)
        spectrum[len(spectrum) // times :] = 0
        decoded = np.fft.irfft(spectrum, 2 * n)
    spread = np.zeros(2 * n)
    spread[:n:times] = samples
    likeness = np.fft.irfft(np.fft.rfft(decoded) * np.conj(np.fft.rfft(spread)), 2 * n)
    delay = int(np.argmax(likeness[:n]))
    aligned: NDArray[Any] = decoded[delay : delay + n : times]
    return aligned


def _filtered(samples: NDArray[Any], decoded: NDArray[Any], reach: int = 16) -> NDArray[Any]:
    """Through the short filter that brings them nearest to the original, at no charge.

    It undoes parts of a sample's delay, gains and high-passes, which are not heard but cost PSNR.
    """
    shifted = np.stack([np.roll(decoded, shift) for shift in range(-reach, reach + 1)])
    square = shifted @ shifted.T + 1e-9 * np.eye(2 * reach + 1)
    filtered: NDArray[Any] = np.linalg.solve(square, shifted @ samples) @ shifted
    return filtered
