"""``.coinpp`` files that are not what they say, with checksums that are right.

``mutate`` makes one, ``judge`` unpacks it and writes what it held. All that may come of it is the
file that it was made from, or an error of the package in one line, soon and with little memory.

    python fuzz/files.py 10000 1
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import tracemalloc
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np

from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.compressed_file import CompressedFile, compress, modality_of
from coinpp_xr.data.media import SUFFIXES, Media, write_media
from coinpp_xr.errors import CompressionWarning, CorruptPayloadError, ModelNotFoundError
from coinpp_xr.file_header import _USUAL
from coinpp_xr.settings import config

Rng = np.random.Generator

# What an input may take: so many times the array that it declares and its own bytes, and a
# constant. Seconds are of the processor, since a busy machine is slow.
PER_BYTE, CONSTANT_BYTES, SECONDS = 10, 64 << 20, 2.0
# Larger arrays are refused.
MOST_BYTES = 1 << 20
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 5, 16, 17, 255, 2**31, 2**32, 2**63, 10**400, -(10**400), 0.0,
    -0.0, 0.5, 1e-320, 1e300, float("inf"), float("-inf"), float("nan"), "", "none", "auto", "last",
    "photo-32", "mri-16", "../x", "/etc/passwd", "C:\\x", "http://localhost/x", "x" * 5000, "\0",
    "\x1b[2J", "\u202e", "\ud800", "é", "[red]", "1", "coinpp-image", "coinpp-audio", "coinpp",
    "image", "audio", "volume", "array", [], [1], [[]], ["x"], [1e999, 1], [10**400], {}, {"a": 1},
    {"": {}},
    "A" * 464, "XAEAAAAA", "0" * 16, "ffffffffffffffff",
)  # fmt: skip
_DTYPES = ("u1", "<i4", ">f8", "<f2", "|b1", "<c16", "S9", "<M8[s]")
_KEYS = (
    "id", "model", "fingerprint", "channels", "data_range", "band_cells", "patch_size", "bits",
    "target_psnr", "target_rmse", "target_bpp", "max_error", "max_error_relative", "embed_model",
    "format", "left_out", "version", "header", "affine", "zooms", "units", "scl_slope", "scl_inter",
    "sample_rate", "subtype", "container", "dpi", "chunks", "pages", "white_is_zero", "path", "",
    "__class__", "n", "k", "m", "c",
)  # fmt: skip


# ---- inputs -------------------------------------------------------------------------------------


@cache
def seeds() -> list[CompressedFile]:
    """One of every kind and rate."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.indices((3, 12, 14, 6)).sum(0) / 3)
    nifti = {
        "scl_slope": 2.0,
        "scl_inter": 0.5,
        "affine": np.eye(4).tolist(),
        "units": ["mm", "sec"],
    }
    stereo = (99 * waves.reshape(-1, 2)).astype("i2")
    film = np.moveaxis(waves, 0, -1).astype("f4")
    sound = {"sample_rate": 8000, "subtype": "PCM_16", "container": "WAV"}
    gamma = {"chunks": {"gAMA": "AACxjw=="}}
    image = (100 + 90 * waves[0, ..., :3]).astype("u1")
    made: list[tuple[str, Media, dict[str, float]]] = [
        ("a.png", Media("image", image, {"format": "PNG", "dpi": [72.0] * 2}), {"target_psnr": 40}),
        ("b.png", Media("image", image[..., 0], gamma), {"max_error": 3}),
        ("c.tif", Media("image", waves[..., 0].astype("f4"), {"pages": 3}), {"target_rmse": 0.05}),
        ("d.tif", Media("image", rng.integers(0, 9, (9, 8), "u2"), {}), {"target_bpp": 9.0}),
        ("e.nii", Media("volume", waves[0], nifti), {"max_error": 0.01}),
        ("f.nii.gz", Media("volume", film), {"target_psnr": 30}),
        ("g.wav", Media("audio", (9999 * waves.ravel()).astype("i2"), sound), {"target_psnr": 40}),
        ("h.flac", Media("audio", stereo, sound), {"max_error": 1}),
        ("i.npy", Media("array", waves[0]), {"max_error_relative": 0.01}),
        ("j.npy", Media("array", np.zeros((0, 4))), {"max_error": 1}),
        ("k.npy", Media("array", np.where(waves[0, 0] > 0.5, np.nan, 1.0)), {"max_error": 1}),
    ]  # fmt: skip
    return [compress(media, name, modality_of(media), rate) for name, media, rate in made]


def mutate(rng: Rng) -> bytes:
    """A file with one to three changes, sealed again but for a few."""
    one, other = (seeds()[int(i)] for i in rng.integers(len(seeds()), size=2))
    header: Any = {"n": one.name, "k": one.kind, "m": dict(one.metadata), "c": dict(one.codec)}
    payload = one.payload
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.4:
            header = _changed(rng, header, other)
        else:
            payload = _other_payload(rng, payload, other.payload)
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    if rng.random() < 0.1:
        text = _other_text(rng, text)
    deflate = zlib.compressobj(int(rng.integers(10)), wbits=-zlib.MAX_WBITS, zdict=_USUAL)
    packed = deflate.compress(text) + deflate.flush()
    if rng.random() < 0.1:
        packed = _flipped(rng, packed)
    body = b"CNPF\x01" + packed + payload
    if rng.random() < 0.1:
        body = _cut_or_longer(rng, body)
    return body + zlib.crc32(body).to_bytes(4, "little")


def _one_of(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _changed(rng: Rng, header: Any, other: CompressedFile) -> Any:
    """Another value, key, part or order somewhere in the JSON."""
    if not isinstance(header, dict) or not header:
        return _one_of(rng, _VALUES)
    key = _one_of(rng, list(header))
    inner = header[key]
    match int(rng.integers(7)):
        case 0 | 1 if isinstance(inner, dict):
            return header | {key: _changed(rng, inner, other)}
        case 2 if isinstance(inner, list) and inner:
            at = int(rng.integers(len(inner)))
            return header | {key: [*inner[:at], _one_of(rng, _VALUES), *inner[at + 1 :]]}
        case 3:
            return {name: value for name, value in header.items() if name != key}
        case 4:
            theirs = other.metadata | other.codec | {"n": other.name, "k": other.kind}
            name = _one_of(rng, list(theirs))
            return header | {name: theirs[name]}
        case 5:
            return header | {_one_of(rng, _KEYS): _one_of(rng, _VALUES)}
    if isinstance(inner, int | float) and abs(inner) < 1e300 and rng.random() < 0.5:
        return header | {key: inner * _one_of(rng, (0, -1, 1e-9, 1e9, 1e300))}
    return header | {key: _one_of(rng, _VALUES)}


def _other_text(rng: Rng, text: bytes) -> bytes:
    """What no writer of JSON makes."""
    at = int(rng.integers(len(text) + 1))
    more: bytes = _one_of(
        rng,
        (b"[" * 50_000, b'{"a":' * 9999, b"9" * 5000, b"\0", b"\xff", b" " * (1 << 23), b"NaN",
         b"{},", b"[]," * 70_000, b'"' + b"a" * (1 << 22), b"1e999", b"\\ud800", b'"n":1,', b"-",
         b"\xef\xbb\xbf"),
    )  # fmt: skip
    return text[:at] + more + text[at + int(rng.integers(3)) :]


def _flipped(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.geometric(0.4))):
        changed[int(rng.integers(len(changed)))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut_or_longer(rng: Rng, data: bytes) -> bytes:
    if rng.random() < 0.7:
        return data[: int(rng.integers(len(data)))]
    return data + rng.bytes(int(rng.integers(1, 99)))


def _other_payload(rng: Rng, payload: bytes, other: bytes) -> bytes:
    """Another one, of another shape or type, or damaged; sealed as the file is."""
    match int(rng.integers(5)):
        case 0:
            return other
        case 1:
            return _cut_or_longer(rng, payload) if payload else other
        case 2:
            body = _flipped(rng, payload[:-4]) if len(payload) > 12 else payload
            return body + zlib.crc32(body).to_bytes(4, "little")
    try:
        parsed = Payload.unpack(payload)
    except CorruptPayloadError:
        return other
    change: dict[str, Any] = _one_of(
        rng,
        [
            {"shape": parsed.shape[::-1]},
            {"shape": (*parsed.shape, 1)},
            {"shape": (1, *parsed.shape)},
            {"shape": parsed.shape[1:] or (3,)},
            {"shape": tuple(int(n * _one_of(rng, (0, 1, 2, 1000))) for n in parsed.shape)},
            {"shape": tuple(rng.permutation(parsed.shape).tolist())},
            {"dtype": np.dtype(_one_of(rng, _DTYPES))},
            {"fortran": not parsed.fortran},
            {"kind": Kind.LOSSLESS},
            {"fingerprint": parsed.fingerprint and "0123456789abcdef"},
        ],
    )  # fmt: skip
    return replace(parsed, **change).pack()


# ---- what comes of them -------------------------------------------------------------------------


def declared(data: bytes) -> int:
    """Bytes of the array that a file's payload declares; 0 where there is none."""
    try:
        return Payload.unpack(CompressedFile.unpack(data).payload).nbytes
    except ValueError:
        return 0


def judge(data: bytes) -> str:
    """Unpack a file and write what it held.

    Returns
    -------
    str
        Name of the error, or of what was written.

    Raises
    ------
    AssertionError
        If anything happened that must not.
    """
    allowed = PER_BYTE * (min(declared(data), MOST_BYTES) + len(data)) + CONSTANT_BYTES
    traced = tracemalloc.is_tracing()
    if not traced:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, begun = tracemalloc.get_traced_memory()[0], time.process_time()
    try:
        with (
            warnings.catch_warnings(),
            config.set(max_decode_bytes=MOST_BYTES, decoded_cache_bytes=0, model_url=None),
        ):
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", CompressionWarning)
            outcome = _unpacked(data)
        spent, peak = time.process_time() - begun, tracemalloc.get_traced_memory()[1] - before
    finally:
        if not traced:
            tracemalloc.stop()
    assert peak <= allowed, f"takes {peak:,} bytes, {allowed:,} are allowed"
    assert spent <= SECONDS, f"takes {spent:.1f} seconds"
    return outcome


def _unpacked(data: bytes) -> str:
    try:
        found = CompressedFile.unpack(data)
        media = found.media()
    except (CorruptPayloadError, ModelNotFoundError) as error:
        return _refusal(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error!a:.300}") from error
    known = [suffix for suffix in SUFFIXES if found.name.lower().endswith(suffix)]
    with tempfile.TemporaryDirectory(dir=_quick_folder()) as folder:
        path = Path(folder) / f"x{known[0] if known else '.npy'}"
        try:
            notes = write_media(media, path)
        except ValueError as error:
            assert not list(Path(folder).iterdir()), "left a file behind that it refused to write"
            return f"not written: {_refusal(error)}"
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error!a:.300}") from error
        assert all(isinstance(note, str) for note in notes)
        return f"written as {path.suffix}"


def _refusal(error: Exception) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1, f"a message of several lines: {message!a:.200}"
    assert message.isprintable(), f"control characters in a message: {message!a:.200}"
    assert len(message) < 1000, f"a message of {len(message)} characters: {message!a:.200}"
    return type(error).__name__


@cache
def _quick_folder() -> str | None:
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


def main(count: int, seed: int, judged: Callable[[bytes], str] = judge) -> int:
    """Judge so many; findings are printed with the number that makes them again."""
    findings: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    for one in seeds():  # also compiles, and fills caches
        _unpacked(one.pack())
    for number in range(count):
        data = mutate(np.random.default_rng([seed, number]))
        try:
            outcomes[judged(data)] += 1
        except AssertionError as error:
            findings[str(error)] += 1
            if findings[str(error)] == 1:
                print(f"{number}: {error}", flush=True)
    print(json.dumps({"outcomes": outcomes, "findings": findings}, indent=1))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
