"""Readers of data sets in the form in which they are distributed: one item after another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coinpp_xr.data import cifar
from coinpp_xr.data.media import Media, read_media
from coinpp_xr.data.sources import DEFLATE_RATIO, check_claim, errors_name, existing, optional

SPLITS = ("train", "val", "test")
# How data sets name the folders of these splits, apart from their plain names.
_FOLDERS = {
    "train": ("multicoil_train", "train-clean-100"),
    "val": ("multicoil_val", "dev-clean"),
    "test": ("multicoil_test", "test-clean"),
}
_FULL_SCALE = {"int8": 2**7, "uint8": 2**7, "int16": 2**15, "int32": 2**31}
FASTMRI_SLICES = 16
LIBRISPEECH_RATE, LIBRISPEECH_SAMPLES = 16_000, 48_000


class Item(NamedTuple):
    """One item in the unit of its file.

    Parameters
    ----------
    name : str
        File, relative to the source, and which part of it.
    source : str
        What neighbouring items share: a file, a speaker, a sequence.
    values : float32 array, shape (*space, channels)
        Belongs to the item alone: it may be changed.
    usual : (offset, scale), optional
        What takes the values to [0, 1], if that follows from the file's type.
    """

    name: str
    source: str
    values: npt.NDArray[np.float32]
    usual: tuple[float, float] | None = None


def read_images(source: Path, split: str) -> Iterator[Item]:
    """PNG, TIFF and JPEG: grey or RGB, alpha dropped; every page of a TIFF is an item."""
    for path, name in _files(source, split, (".png", ".tif", ".tiff", ".jpg", ".jpeg")):
        yield from _image_items(path, name, name)


def read_vimeo90k(source: Path, split: str) -> Iterator[Item]:
    """All frames of the triplets in a list: the first of every sequence, the second, the third."""
    root = existing(source)
    root = root / "vimeo_triplet" if (root / "vimeo_triplet").is_dir() else root
    if split == "val":
        raise ValueError(f"{root}: Vimeo-90k has the splits train and test; hold out some of train")
    listing = existing(root / f"tri_{split}list.txt")
    sequences = listing.read_text().split()
    if not sequences:
        raise ValueError(f"{listing} names no sequence")
    for frame in ("im1.png", "im2.png", "im3.png"):
        for sequence in sequences:
            path = root / "sequences" / sequence / frame
            yield from _image_items(path, f"{sequence}/{frame}", sequence)


def read_cifar10(source: Path, split: str) -> Iterator[Item]:
    """The batches of CIFAR-10 for Python."""
    path = existing(source)
    if path.is_file():
        batches = [path]
    else:
        path = path / "cifar-10-batches-py" if (path / "cifar-10-batches-py").is_dir() else path
        if split == "val":
            raise ValueError(f"{path}: CIFAR-10 has the splits train and test; hold out some")
        pattern = "data_batch_[1-5]" if split == "train" else "test_batch"
        batches = sorted(path.glob(pattern))
        if not batches:
            raise ValueError(f"{path} holds no {pattern}; unpack cifar-10-python.tar.gz there")
    for batch in batches:
        with errors_name(existing(batch)):
            images, names = cifar.read_batch(batch)
        for image, name in zip(images, names, strict=True):
            name = f"{batch.name}/{name}"
            yield Item(name, name, image.astype(np.float32), (0.0, 255.0))


def read_nifti_volumes(source: Path, split: str) -> Iterator[Item]:
    """NIfTI volumes in real units (slope applied); of 4 axes, the last counts items."""
    for path, name in _files(source, split, (".nii", ".nii.gz")):
        media = _read(path, "volume")
        if media.values.dtype.kind not in "iuf":
            raise ValueError(f"{path} holds {media.values.dtype}; only real numbers can be fitted")
        stored = media.values if media.values.ndim == 4 else media.values[..., None]
        for index in range(stored.shape[3]):
            part = f"#{index}" if stored.shape[3] > 1 else ""
            values = stored[..., index] * media.metadata["scl_slope"] + media.metadata["scl_inter"]
            if not np.isfinite(values).all():
                raise ValueError(f"{path} holds NaN or Inf; fill them first")
            yield Item(name + part, name, values.astype(np.float32)[..., None])


def read_fastmri(source: Path, split: str) -> Iterator[Item]:
    """FastMRI brains, multicoil: T2-weighted reconstructions of 16 slices."""
    h5py = optional("h5py", "reading FastMRI")
    left_out = loaded = 0
    for path, name in _files(source, split, (".h5",)):
        with errors_name(existing(path)), h5py.File(path, "r") as file:
            # Names are like file_brain_AXT2_200_2000019.h5.
            acquisition = file.attrs.get("acquisition", "AXT2" if "_AXT2_" in name else "")
            if acquisition not in ("AXT2", b"AXT2"):
                left_out += 1
                continue
            if "reconstruction_rss" not in file:
                raise ValueError(
                    "holds no reconstruction_rss (the test split has none); load split='val'"
                )
            stored = file["reconstruction_rss"]
            if stored.is_virtual or stored.external or stored.file != file:
                raise ValueError("takes reconstruction_rss from another file")
            check_claim(stored.nbytes, path.stat().st_size, DEFLATE_RATIO)
            if stored.ndim != 3 or stored.dtype.kind != "f":
                raise ValueError(f"reconstruction_rss has shape {stored.shape}, {stored.dtype}")
            if len(stored) != FASTMRI_SLICES:
                left_out += 1
                continue
            values = np.asarray(stored, dtype=np.float32)[..., None]
        if not np.isfinite(values).all():
            raise ValueError(f"{path} holds NaN or Inf; leave it out")
        loaded += 1
        yield Item(name, name, values)
    if not loaded:
        raise ValueError(
            f"{source}: none of {left_out} files is a T2-weighted brain of {FASTMRI_SLICES} slices"
        )


def read_audio(source: Path, split: str) -> Iterator[Item]:
    """WAV and FLAC of any rate in whole length; every channel is an item."""
    for path, name in _files(source, split, (".wav", ".flac")):
        media = _read(path, "audio")
        values = media.values.reshape(len(media.values), -1).astype(np.float32)
        if media.values.dtype == np.uint8:
            values -= 128
        if media.values.dtype.kind in "iu":
            bits24 = media.metadata["subtype"] == "PCM_24"
            values /= 2**23 if bits24 else _FULL_SCALE[media.values.dtype.name]
        channels = values.shape[1]
        for index in range(channels):
            part = f"#{index}" if channels > 1 else ""
            yield Item(name + part, name, values[:, index : index + 1].copy(), (-1.0, 2.0))


def read_librispeech(source: Path, split: str) -> Iterator[Item]:
    """The first 3 s of every utterance; shorter ones in whole length. Sources are speakers."""
    soundfile = optional("soundfile", "reading FLAC")
    for path, name in _files(source, split, (".flac",)):
        with errors_name(existing(path)), soundfile.SoundFile(path) as file:
            if (file.samplerate, file.channels) != (LIBRISPEECH_RATE, 1):
                raise ValueError(
                    f"has {file.channels} channels at {file.samplerate} Hz; LibriSpeech is mono at "
                    f"{LIBRISPEECH_RATE} Hz: load it as 'audio'"
                )
            values = file.read(LIBRISPEECH_SAMPLES, dtype="float32")
            if len(values) < min(LIBRISPEECH_SAMPLES, file.frames) or len(values) == 0:
                raise ValueError(f"holds {len(values)} of {file.frames} samples")
        # Utterances are named SPEAKER-CHAPTER-NUMBER.flac.
        speaker = path.stem.replace("_", "-").partition("-")[0]
        yield Item(name, speaker, values[:, None], (-1.0, 2.0))


def _image_items(path: Path, name: str, source: str) -> Iterator[Item]:
    media = _read(path, "image")
    pages = media.values if media.metadata.get("pages", 1) > 1 else media.values[None]
    usual = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0)}.get(pages.dtype.name)
    for index, page in enumerate(pages):
        pixels = page if page.ndim == 3 else page[..., None]
        if pixels.shape[-1] > 4:
            raise ValueError(f"{path} has {pixels.shape[-1]} channels; grey or RGB can be loaded")
        colours = 3 if pixels.shape[-1] > 2 else 1
        part = f"#{index}" if len(pages) > 1 else ""
        yield Item(name + part, source, pixels[..., :colours].astype(np.float32), usual)


def _read(path: Path, kind: str) -> Media:
    media = read_media(path)
    if media.kind != kind:
        raise ValueError(f"{path} is no {kind} file: it holds {media.metadata['format']}")
    return media


def _files(source: Path, split: str, suffixes: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """The files of a split in sorted order, each with its name relative to the folder."""
    root = _folder_of_split(source, split)
    if root.is_file():
        yield root, root.name
        return
    found = {
        path.relative_to(root).as_posix(): path
        for path in root.rglob("*")
        if path.name.lower().endswith(suffixes) and not path.name.startswith(".")
    }
    if not found:
        raise ValueError(f"{root} holds no {', '.join(suffixes)} files")
    for name in sorted(found):
        yield found[name], name


def _folder_of_split(source: Path, split: str) -> Path:
    """ROOT_split or a folder within ROOT, where there are such; otherwise ROOT itself."""
    beside = source.parent / f"{source.name}_{split}"
    if not source.exists() and beside.is_dir():
        return beside
    root = existing(source)
    within = {
        known: root / folder
        for known in SPLITS
        for folder in (known, *_FOLDERS[known])
        if (root / folder).is_dir()
    }
    if within and split not in within:
        raise ValueError(f"{root} has no split {split!r}; there are: {', '.join(within)}")
    return within.get(split, root)
