"""WAV and FLAC: bytes ↔ samples in the file's own type, with rate and encoding."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data.sources import check_claim, optional

# The type of the samples, the type libsndfile reads them in, and by how many bits that is more.
_SUBTYPES: dict[str, tuple[str, str, int]] = {
    "PCM_S8": ("int8", "int16", 8),
    "PCM_U8": ("uint8", "int16", 8),
    "PCM_16": ("int16", "int16", 0),
    "PCM_24": ("int32", "int32", 8),
    "PCM_32": ("int32", "int32", 0),
    "FLOAT": ("float32", "float32", 0),
    "DOUBLE": ("float64", "float64", 0),
}
# Bytes of samples that one byte of a file can stand for: a FLAC frame of a few dozen bytes holds
# 65,535 equal samples of up to eight channels, and codings of WAV take two bits or more for each.
_FLAC_RATIO, _WAV_RATIO = 65536.0, 64.0
_OTHER_THAN_SOUND: dict[bytes | int, str] = {
    b"LIST": "tags", b"id3 ": "tags", b"bext": "broadcast information", b"cue ": "cue points",
    b"smpl": "loops", b"inst": "instrument", b"iXML": "production notes",
    2: "application data", 4: "tags", 5: "cue sheet", 6: "picture",
}  # fmt: skip


def read_sound(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    """Decode a WAV or FLAC file.

    Parameters
    ----------
    data : bytes
        Of the whole file.

    Returns
    -------
    values : array, shape (samples,) or (samples, channels)
        In the file's own type; 24-bit samples as int32 within ±2²³. What has no such type
        (A-law, ADPCM, ...) is read as int16.
    metadata : dict
        ``sample_rate`` (Hz), ``subtype`` and ``container`` as libsndfile names them, and
        ``left_out``.

    Raises
    ------
    ValueError
        If samples are missing or not those that were written.
    """
    soundfile = optional("soundfile", "reading WAV or FLAC")
    is_flac = data[:4] == b"fLaC"
    if not is_flac and data[:4] not in (b"RIFF", b"RF64", b"RIFX"):
        raise ValueError("is neither WAV nor FLAC")
    with soundfile.SoundFile(io.BytesIO(data)) as file:
        subtype, container = file.subtype, file.format
        kept, read_as, shift = _SUBTYPES.get(subtype, ("int16", "int16", 0))
        frames, rate = file.frames, file.samplerate
        nbytes = max(frames, 0) * file.channels * np.dtype(read_as).itemsize
        check_claim(nbytes, len(data), _FLAC_RATIO if is_flac else _WAV_RATIO)
        values = file.read(dtype=read_as)
    if len(values) != frames or frames == 0:
        raise ValueError(f"holds {len(values)} of {frames} samples")
    if shift:
        values >>= shift
    if subtype == "PCM_U8":
        values += 128
    values = values.astype(kept, copy=False)
    left_out = _check_flac(data, values, subtype) if is_flac else _check_wav(data)
    if subtype not in _SUBTYPES:
        left_out.append(f"{subtype} coding (now 16-bit PCM)")
        subtype = "PCM_16"
    metadata = {"sample_rate": rate, "subtype": subtype, "container": container}
    if left_out:
        metadata["left_out"] = left_out
    return values, metadata


def write_sound(values: npt.NDArray[Any], metadata: dict[str, Any], container: str) -> bytes:
    """Encode sound without loss.

    Parameters
    ----------
    values : array, shape (samples,) or (samples, channels)
    metadata : dict
        ``sample_rate`` (Hz) is needed; ``subtype`` tells 24-bit samples from 32-bit ones.
    container : "WAV" or "FLAC"

    Raises
    ------
    ValueError
        If the container has no such samples.
    """
    soundfile = optional("soundfile", "writing WAV or FLAC")
    if values.ndim not in (1, 2) or len(values) == 0:
        raise ValueError(f"sound has shape (samples[, channels]), not {values.shape}")
    if "sample_rate" not in metadata:
        raise ValueError("sound needs a rate in Hz: metadata={'sample_rate': 16000}")
    possible = [
        name
        for name, (kept, _, _) in _SUBTYPES.items()
        if kept == values.dtype.name and soundfile.check_format(container, name)
    ]
    if metadata.get("subtype") in possible:
        subtype = metadata["subtype"]
    elif values.dtype == np.int32 and "PCM_32" not in possible and _fits(values, 24):
        subtype = "PCM_24"
    elif values.dtype == np.int32 and container == "FLAC":
        raise ValueError("FLAC holds up to 24 bits per sample here; write .wav")
    elif possible:
        subtype = possible[-1]
    else:
        raise ValueError(f"{container} cannot hold {values.dtype} samples; write .wav or .npy")
    _, read_as, shift = _SUBTYPES[subtype]
    if subtype == "PCM_24" and not _fits(values, 24):
        raise ValueError("24-bit samples must lie within ±8388608")
    samples = values.astype(read_as)
    if subtype == "PCM_U8":
        samples -= 128
    if shift:
        samples <<= shift
    if container == "WAV" and values.nbytes > 2**32 - 2**20:
        container = "RF64"
    file = io.BytesIO()
    soundfile.write(file, samples, metadata["sample_rate"], subtype, format=container)
    return file.getvalue()


def _fits(values: npt.NDArray[Any], bits: int) -> bool:
    return bool(values.min() >= -(2 ** (bits - 1)) and values.max() < 2 ** (bits - 1))


def _check_flac(data: bytes, values: npt.NDArray[Any], subtype: str) -> list[str]:
    """Hold the samples against the MD5 sum in the file; return what else the file has."""
    start, others, last = 4, [], False
    while not last:
        kind, size = data[start] & 127, int.from_bytes(data[start + 1 : start + 4], "big")
        block = data[start + 4 : start + 4 + size]
        last = data[start] >= 128
        if kind == 0 and any(block[18:34]):
            width = 3 if subtype == "PCM_24" else values.itemsize
            octets = values.astype(values.dtype.newbyteorder("<"), copy=False).reshape(-1, 1)
            octets = np.ascontiguousarray(octets.view(np.uint8)[:, :width])
            if hashlib.md5(octets.data, usedforsecurity=False).digest() != block[18:34]:
                raise ValueError("holds other samples than were written (MD5 differs): damaged")
        # Every file names its writer in a block of tags, which may hold nothing else.
        if kind != 4 or block[4 + int.from_bytes(block[:4], "little") :][:4].strip(b"\0"):
            others.append(kind)
        start += 4 + size
    return [_OTHER_THAN_SOUND[kind] for kind in others if kind in _OTHER_THAN_SOUND]


def _check_wav(data: bytes) -> list[str]:
    """Refuse a file cut short, which libsndfile would not; return what else the file has."""
    start, found = 12, []
    while data[:4] == b"RIFF" and start + 8 <= len(data):
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], "little")
        # Programs that write to a pipe leave the largest number or 0 as the size.
        if name == b"data" and size < 2**32 - 1 and start + 8 + size > len(data):
            raise ValueError(f"is cut short: {start + 8 + size - len(data)} bytes are missing")
        found.append(name)
        start += 8 + size + size % 2
    return [_OTHER_THAN_SOUND[name] for name in found if name in _OTHER_THAN_SOUND]
