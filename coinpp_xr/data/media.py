"""Files of images, volumes and sound ↔ arrays, with what it takes to write the file again."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data import image_files, nifti, sound
from coinpp_xr.data.sources import errors_name, existing, npy_array, read_whole
from coinpp_xr.files import write_atomically


@dataclass(frozen=True, eq=False)
class Media:
    """What one file holds.

    Parameters
    ----------
    kind : "image", "volume", "audio" or "array"
    values : array
        In the file's own type and native byte order. Image: ([pages, ]rows, columns[, channels]);
        volume: the stored voxels (x, y, z[, t]), before ``scl_slope``; audio: (samples,) or
        (samples, channels), 24-bit samples as int32 within ±2²³; array: any shape.
    metadata : dict
        Can be stored as JSON, and is what writing the file again needs. ``format`` is the file's;
        ``left_out`` names what is in the file but not here.
    """

    kind: str
    values: npt.NDArray[Any]
    metadata: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Format:
    name: str
    kind: str
    suffixes: tuple[str, ...]
    read: Callable[[bytes], tuple[npt.NDArray[Any], dict[str, Any]]]
    write: Callable[[npt.NDArray[Any], dict[str, Any]], bytes]
    keeps: frozenset[str] = frozenset()


def _read_npy(data: bytes) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    return npy_array(data), {}


def _write_npy(values: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=False)
    return file.getvalue()


def _write_jpeg(values: npt.NDArray[Any], metadata: dict[str, Any]) -> bytes:
    raise ValueError("JPEG would change the pixels; write .png or .tif")


_NIFTI_KEEPS = frozenset(
    {"version", "header", "affine", "zooms", "units", "scl_slope", "scl_inter"}
)
_SOUND_KEEPS = frozenset({"sample_rate", "subtype", "container"})
_FORMATS = (
    _Format(
        "NIfTI", "volume", (".nii", ".nii.gz"), nifti.read_nifti, nifti.write_nifti, _NIFTI_KEEPS
    ),
    _Format(
        "WAV", "audio", (".wav",), sound.read_sound,
        lambda values, metadata: sound.write_sound(values, metadata, "WAV"), _SOUND_KEEPS,
    ),
    _Format(
        "FLAC", "audio", (".flac",), sound.read_sound,
        lambda values, metadata: sound.write_sound(values, metadata, "FLAC"), _SOUND_KEEPS,
    ),
    _Format(
        "PNG", "image", (".png",), image_files.read_png, image_files.write_png,
        frozenset({"dpi", "chunks"}),
    ),
    _Format(
        "TIFF", "image", (".tif", ".tiff"), image_files.read_tiff, image_files.write_tiff,
        frozenset({"dpi", "pages", "white_is_zero"}),
    ),
    _Format("JPEG", "image", (".jpg", ".jpeg"), image_files.read_jpeg, _write_jpeg),
    _Format("NumPy", "array", (".npy",), _read_npy, _write_npy),
)  # fmt: skip
SUFFIXES = tuple(suffix for known in _FORMATS for suffix in known.suffixes)


def read_media(path: str | Path) -> Media:
    """Read a file of an image, a volume, sound, or an array.

    Parameters
    ----------
    path : path
        Of a NIfTI (.nii, .nii.gz), WAV, FLAC, PNG, TIFF, JPEG or NumPy (.npy) file. What it is
        is told by its first bytes, then by its suffix.

    Returns
    -------
    Media

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty, damaged, or of another format.
    ImportError
        If the format needs a package of the extra ``media`` that is not installed.
    """
    path, known = _locate(path)
    with errors_name(path):
        values, metadata = known.read(read_whole(path))
    return Media(known.kind, values, {"format": known.name} | metadata)


def write_media(media: Media, path: str | Path) -> list[str]:
    """Write a file, whole or not at all; its format follows from its suffix.

    Parameters
    ----------
    media : Media
    path : path
        An existing file is replaced.

    Returns
    -------
    list of str
        One line for everything in the metadata, or left out before, that the file does not hold.

    Raises
    ------
    FileNotFoundError
        If the folder does not exist.
    ValueError
        If the suffix is unknown or the format cannot hold the array.
    """
    path = Path(path)
    known = _by_suffix(path)
    if known is None:
        raise ValueError(f"{path}: unknown suffix; known are {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {path.parent}; make it first")
    if known.kind not in (media.kind, "array") and media.kind != "array":
        usual = ", ".join(s for k in _FORMATS if k.kind == media.kind for s in k.suffixes)
        raise ValueError(
            f"{path}: {known.name} does not hold {media.kind} data; write {usual} or .npy"
        )
    notes = [f"{what} left out" for what in media.metadata.get("left_out", [])]
    with errors_name(path, "written"):
        data = known.write(media.values, media.metadata)
    if path.name.lower().endswith(".gz"):
        data = gzip.compress(data, 6, mtime=0)
    lost = sorted(media.metadata.keys() - known.keeps - {"format", "left_out"})
    if lost:
        names = ", ".join(name.replace("_", " ") for name in lost)
        notes.append(f"{known.name} does not hold: {names}")
    write_atomically(path, data)
    return notes


def guess_kind(path: str | Path) -> str:
    """Whether a file holds an "image", a "volume", "audio" or an "array".

    Parameters
    ----------
    path : path
        Of an existing file, which is told by its first bytes and then by its suffix.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is empty or of an unknown format.
    """
    return _locate(path)[1].kind


def _locate(source: str | Path) -> tuple[Path, _Format]:
    path = existing(source)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give one file")
    with path.open("rb") as file:
        start = file.read(4096)
    known = _by_first_bytes(start) or _by_suffix(path)
    if known is None:
        names = ", ".join(known.name for known in _FORMATS)
        raise ValueError(f"{path} is none of {names}: it starts with {start[:4]!r}")
    return path, known


def _by_first_bytes(start: bytes) -> _Format | None:
    if start[:2] == b"\x1f\x8b":
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, 540)
        except zlib.error:
            return None
    found = ""
    if start[344:347] in (b"n+1", b"ni1") or start[4:7] in (b"n+2", b"ni2"):
        found = "NIfTI"
    elif start[:4] in (b"RIFF", b"RF64", b"RIFX") and start[8:12] == b"WAVE":
        found = "WAV"
    elif start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        found = "TIFF"
    elif start[:4] == b"fLaC":
        found = "FLAC"
    elif start[:8] == b"\x89PNG\r\n\x1a\n":
        found = "PNG"
    elif start[:3] == b"\xff\xd8\xff":
        found = "JPEG"
    elif start[:6] == b"\x93NUMPY":
        found = "NumPy"
    return next((known for known in _FORMATS if known.name == found), None)


def _by_suffix(path: Path) -> _Format | None:
    name = path.name.lower()
    return next((known for known in _FORMATS if name.endswith(known.suffixes)), None)
