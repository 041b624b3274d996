"""What the benchmarks of images, volumes and sound share: peers through ffmpeg, curves, results.

Pictures and sound are coded by x265, SVT-AV1, LAME and libopus through PyAV. Every peer's curve of
rate and PSNR is kept in the result file, so that ``--ours-only`` measures this package again and
takes the peers from there, as long as neither the data nor a peer's version has changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

os.environ.setdefault("SVT_LOG", "1")  # errors only

import av
import imagecodecs
import numpy as np
from common import RESULTS, machine

# A setting's bytes and what comes back.
Coder = Callable[[float], tuple[float, np.ndarray]]
# Bytes and mean square error, from small to large.
Points = Iterable[tuple[float, float]]
Curve = list[tuple[float, float]]
OURS = "coinpp-xr"


def folder(name: str) -> Path:
    """Part of the data folder named by COINPP_DATA."""
    if "COINPP_DATA" not in os.environ:
        sys.exit(f"set COINPP_DATA to the folder with {name}/")
    return Path(os.environ["COINPP_DATA"]) / name


def mean_square_error(values: np.ndarray, decoded: np.ndarray) -> float:
    return float(np.mean((values.astype(np.float64) - decoded) ** 2))


def decibels(mse: float, peak: float) -> float:
    return float(-10 * np.log10(max(mse, 1e-12) / peak**2))


def points(values: np.ndarray, coder: Coder, settings: Iterable[float]) -> Points:
    for setting in settings:
        size, decoded = coder(setting)
        yield size, mean_square_error(values, decoded)


# ---- curves --------------------------------------------------------------------------------------


def at_rate(curve: Curve, rate: float) -> float | None:
    """PSNR between the two points around a rate, linear in its logarithm; None beyond them.

    This favours codecs of few settings: no file of exactly that size need exist.
    """
    if not curve or not curve[0][0] <= rate <= curve[-1][0]:
        return None
    bits, scores = np.array(curve).T
    return float(np.interp(np.log(rate), np.log(bits), scores))


def rate_at(curve: Curve, score: float) -> float | None:
    """Rate between the two points around a PSNR; None beyond them."""
    if not curve or not curve[0][1] <= score <= curve[-1][1]:
        return None
    bits, scores = np.array(curve).T
    return float(np.exp(np.interp(score, scores, np.log(bits))))


def rising(found: Curve) -> Curve:
    """Points that no smaller file reaches."""
    best: Curve = []
    for bits, score in sorted(found):
        if not best or score > best[-1][1]:
            if best and bits == best[-1][0]:
                best.pop()
            best.append((bits, score))
    return best


def envelope(ways: Sequence[Curve]) -> Curve:
    """One curve of all ways of a codec: at the rate of every point the PSNR of the best way."""
    ways = [rising(way) for way in ways]
    rates = {bits for way in ways for bits, _ in way}
    return rising(
        [
            (bits, round(max(s for way in ways if (s := at_rate(way, bits)) is not None), 3))
            for bits in rates
        ]
    )


# ---- results -------------------------------------------------------------------------------------


def published(dataset: str) -> dict[str, Curve]:
    """The COIN++ paper's points of a data set, by codec."""
    found: dict[str, Curve] = {}
    with (folder("paper") / "rd_points.csv").open() as file:
        for row in csv.DictReader(file):
            if row["dataset"] == dataset and row["variant"] in ("paper_curve", "baseline", "coin"):
                point = (round(float(row["bpp_or_kbps"]), 4), round(float(row["psnr_db"]), 2))
                found.setdefault(row["codec"], []).append(point)
    return {codec: sorted(curve) for codec, curve in found.items()}


def versions() -> dict[str, str]:
    """Of everything that encodes for others."""
    known = dict(part.rsplit("-", 1) for part in imagecodecs.version().split(", ") if "-" in part)
    names = ("libjpeg_turbo", "openjpeg", "libjxl", "libavif", "sz3", "sperr", "zfp")
    # PyAV's wheels pin their ffmpeg with x265, SVT-AV1, LAME and libopus.
    return {"imagecodecs": imagecodecs.__version__, "PyAV": av.__version__} | {
        name: known[name] for name in names if name in known
    }


def measure(
    name: str,
    data: str,
    items: dict[str, np.ndarray],
    rates: Sequence[float],
    ours: Callable[[np.ndarray, float], tuple[int, np.ndarray]],
    peers: Callable[[np.ndarray], dict[str, list[Points]]],
    *,
    paper: str,
    cells: Callable[[np.ndarray], int] = lambda values: values.size,
    peak: float = 1.0,
    unit: float = 1.0,
    rate_name: str = "bpp",
    more: Callable[[dict[str, Any]], dict[str, Any]] = lambda old: {},
) -> None:
    """Write ``results/NAME.json``: this package at the rates, its peers as curves, both compared.

    ``unit`` is what one bit per cell is in the rates' unit. Each of ``peers``' ways is followed
    until it takes one and a half times the highest rate.
    """
    path = RESULTS / f"{name}.json"
    digest = hashlib.sha256()
    for label, values in items.items():
        digest.update(f"{label} {values.shape} {values.dtype}".encode() + values.tobytes())
    about: dict[str, Any] = {"data_sha256": digest.hexdigest(), "versions": versions()}
    kept: dict[str, Any] = {}
    if "--ours-only" in sys.argv:
        kept = json.loads(path.read_text()) if path.exists() else {}
        if any(kept.get("peers", {}).get(key) != value for key, value in about.items()):
            sys.exit(f"{path.name} has other data or peers: run without --ours-only")
    here = machine()
    about["machine"] = kept["peers"]["machine"] if kept else here
    curves: dict[str, dict[str, Curve]] = kept["peers"]["curves"] if kept else {}
    own: dict[str, list[float]] = {}
    result = {"machine": here, "data": data, rate_name: list(rates), "rows": []}
    ending = {
        "ours": own,
        "published_by_the_paper": published(paper),
        "peers": {**about, "curves": curves},
    }

    def per_byte(values: np.ndarray) -> float:
        return 8 * unit / cells(values)

    if not kept:
        for label, values in items.items():
            curves[label] = {
                peer: envelope(
                    [_followed(way, per_byte(values), peak, 1.5 * rates[-1]) for way in ways]
                )
                for peer, ways in peers(values).items()
            }
            shown = {peer: at_rate(curve, rates[-1]) for peer, curve in curves[label].items()}
            print(label, {k: v and round(v, 2) for k, v in shown.items()}, flush=True)
        _write(path, result | ending)  # peers are there, whatever becomes of ours
    for label, values in items.items():
        own[label] = []
        for rate in rates:
            size, decoded = ours(values, rate)
            if size > np.ceil(rate / per_byte(values) - 1e-9):
                sys.exit(f"{label}: {size} bytes are more than a rate of {rate}")
            own[label].append(round(decibels(mean_square_error(values, decoded), peak), 3))
        print(label, own[label], flush=True)
    result["rows"] = rows(own, curves, rates, rate_name)
    _write(path, result | more(kept) | ending)


def _write(path: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1)
    # Numbers side by side.
    text = re.sub(r"\[[-\d.,\s]+\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text.replace("[ ", "[").replace(" ]", "]") + "\n")


def _followed(way: Points, per_byte: float, peak: float, most: float) -> Curve:
    found: Curve = []
    for size, mse in way:
        found.append((round(size * per_byte, 5), round(decibels(mse, peak), 3)))
        if found[-1][0] > most:
            break
    return found


def rows(
    own: dict[str, list[float]],
    curves: dict[str, dict[str, Curve]],
    rates: Sequence[float],
    rate_name: str,
) -> list[dict[str, Any]]:
    """Means per codec and rate; how many bits ours takes of a peer's at equal PSNR."""
    found = []
    for codec in (OURS, *next(iter(curves.values()))):
        for number, rate in enumerate(rates):
            scores, better, shares = [], 0, []
            for label, ours in own.items():
                if codec == OURS:
                    scores.append(ours[number])
                    continue
                curve = [(bits, score) for bits, score in curves[label][codec]]
                score = at_rate(curve, rate)
                if score is not None:
                    scores.append(score)
                    better += score > ours[number]
                bits = rate_at(curve, ours[number])
                if bits is not None:
                    shares.append(rate / bits)
            row = {"codec": codec, rate_name: rate, "items": len(scores)}
            row["psnr_db"] = round(float(np.mean(scores)), 3) if scores else None
            if codec != OURS:
                row["better_than_ours_on"] = better
                row["our_share_of_its_bits"] = (
                    round(float(np.exp(np.mean(np.log(shares)))), 4) if shares else None
                )
                row["shares"] = len(shares)
            found.append(row)
    return found


# ---- pictures ------------------------------------------------------------------------------------

# One two-dimensional array of whole numbers per plane.
Planes = Sequence[np.ndarray]


def _coded(
    frames: Sequence[Planes],
    pixel_format: str,
    encoder_name: str,
    decoder_name: str,
    options: dict[str, str],
) -> tuple[int, list[list[np.ndarray]]]:
    """Bytes and decoded planes; the raw stream without a container, parameter sets count once."""
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
    size = sum(packet.size for packet in packets)
    if encoder_name == "libx265":  # AV1's stream has its header inside, too
        size += len(encoder.extradata or b"")
    decoder: Any = av.CodecContext.create(decoder_name, "r")
    decoder.extradata = encoder.extradata
    pictures = [frame for packet in packets for frame in decoder.decode(packet)]
    pictures = sorted(pictures + decoder.decode(None), key=lambda frame: frame.pts)
    assert len(pictures) == len(frames)
    return size, [
        [
            np.frombuffer(bytes(plane), dtype).reshape(plane.height, -1)[:, : plane.width]
            for plane in frame.planes
        ]
        for frame in pictures
    ]


def hevc(
    frames: Sequence[Planes], pixel_format: str, quality: float, *, preset: str, intra: bool = True
) -> tuple[int, list[list[np.ndarray]]]:
    """x265, tuned for PSNR."""
    parameters = f"qp={int(quality)}:info=0:log-level=none:frame-threads=1:pools=none"
    if intra:
        parameters += ":keyint=1:min-keyint=1"
    options = {"preset": preset, "tune": "psnr", "x265-params": parameters}
    return _coded(frames, pixel_format, "libx265", "hevc", options)


def svt_av1(
    frames: Sequence[Planes], pixel_format: str, quality: float, *, preset: int
) -> tuple[int, list[list[np.ndarray]]]:
    """SVT-AV1 for stills, tuned for PSNR."""
    options = {
        "preset": str(preset),
        "crf": str(int(quality)),
        "svtav1-params": "tune=1:lp=1:avif=1",
    }
    return _coded(frames, pixel_format, "libsvtav1", "libdav1d", options)


_TO_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def photograph(
    image: np.ndarray,
    code: Callable[[Sequence[Planes], str], tuple[int, list[list[np.ndarray]]]],
    *,
    halved: bool,
) -> tuple[int, np.ndarray]:
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


def _doubled(rows: np.ndarray) -> np.ndarray:
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
    samples: np.ndarray,
    rate: int,
    encoder_name: str,
    decoder_name: str,
    bits_per_second: int,
    **options: str,
) -> tuple[float, np.ndarray]:
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


def _as_floats(frame: av.AudioFrame) -> np.ndarray:
    values = frame.to_ndarray()[0]
    return values / 32768 if values.dtype == np.int16 else values.astype(np.float64)


def _aligned(samples: np.ndarray, decoded: np.ndarray, times: int) -> np.ndarray:
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
    return decoded[delay : delay + n : times]


def _filtered(samples: np.ndarray, decoded: np.ndarray, reach: int = 16) -> np.ndarray:
    """Through the short filter that brings them nearest to the original, at no charge.

    It undoes parts of a sample's delay, gains and high-passes, which are not heard but cost PSNR.
    """
    shifted = np.stack([np.roll(decoded, shift) for shift in range(-reach, reach + 1)])
    square = shifted @ shifted.T + 1e-9 * np.eye(2 * reach + 1)
    return np.linalg.solve(square, shifted @ samples) @ shifted
