"""Loaders of images, volumes and sound: from data sets to features in [0, 1], as in COIN++."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coinpp_xr.data import readers
from coinpp_xr.data.readers import Item

_PERCENTILE = 99.99


@dataclass(frozen=True, eq=False)
class Items:
    """Items of one kind, each of a size of its own.

    Parameters
    ----------
    values : list of float32 arrays, each of shape (*space, channels)
        Features: (value - offset) / scale, in [0, 1] but for sound beyond full scale.
    spatial : int
        Number of axes of space: 1 for sound, 2 for images, 3 for volumes.
    offset, scale : float
        In ``units``. 0 and 1 where every volume is scaled by itself.
    names : list of str
        One per item: the file, and which part of it.
    sources : list of str
        One per item: what neighbours share (a file, a speaker, a sequence). Items of one source
        belong on one side of a split.
    units : str
        Of the values.

    Raises
    ------
    ValueError
        If there is no item, or they do not have the same number of channels.
    """

    values: list[npt.NDArray[np.float32]]
    spatial: int
    offset: float
    scale: float
    names: list[str]
    sources: list[str]
    units: str

    def __post_init__(self) -> None:
        if not self.values or not len(self.values) == len(self.names) == len(self.sources):
            raise ValueError("give at least one item, and a name and a source for each")
        channels = self.values[0].shape[-1]
        for values, name in zip(self.values, self.names, strict=True):
            if values.ndim != self.spatial + 1 or values.shape[-1] != channels or not values.size:
                raise ValueError(
                    f"{name} has shape {values.shape}; {self.names[0]} has {channels} channels on "
                    f"{self.spatial} axes: load unlike items apart"
                )


@dataclass(frozen=True)
class _DataType:
    spatial: int
    units: str
    read: Callable[[Path, str], Iterator[Item]]


_DATA_TYPES = {
    "image": _DataType(2, "grey levels", readers.read_images),
    "cifar10": _DataType(2, "grey levels", readers.read_cifar10),
    "vimeo90k": _DataType(2, "grey levels", readers.read_vimeo90k),
    "nifti": _DataType(3, "arbitrary", readers.read_nifti_volumes),
    "fastmri": _DataType(3, "arbitrary", readers.read_fastmri),
    "audio": _DataType(1, "full scale", readers.read_audio),
    "librispeech": _DataType(1, "full scale", readers.read_librispeech),
}
DATA_TYPES = tuple(_DATA_TYPES)


def load_items(
    source: str | Path,
    data_type: str,
    *,
    split: str = "train",
    limit: int | None = None,
    normalisation: tuple[float, float] | None = None,
) -> Items:
    """Read a data set of images, volumes or sound.

    Parameters
    ----------
    source : path
        A file or a folder, which is searched at any depth. A folder with subfolders ``train``,
        ``val`` and ``test`` (or the data set's own names of them), and the prefix ``ROOT`` of
        ``ROOT_train``, ... are read split by split; everything else is read whole.
    data_type : str
        ``image``: PNG, TIFF, JPEG; 8 or 16 bits; grey or RGB, alpha dropped.
        ``cifar10``: the pickled batches, which are read without running what they hold.
        ``vimeo90k``: triplets; the first frame of every sequence comes first.
        ``nifti``: volumes, each by itself divided by its 99.99 % percentile and clipped.
        ``fastmri``: T2-weighted multicoil brains of 16 slices, divided by the 99.99 % percentile
        of the training values and clipped.
        ``audio``: WAV and FLAC in whole length, every channel an item; (x + 1) / 2.
        ``librispeech``: the first 3 s of every utterance at 16 kHz; (x + 1) / 2.
    split : "train", "val" or "test"
    limit : int, optional
        Read so many items, the first ones in sorted order. ``vimeo90k`` needs it: all its frames
        would take some 200 GB.
    normalisation : (offset, scale), optional
        In the unit of the values, in place of the data type's own. ``fastmri`` needs that of the
        training items for the other splits.

    Returns
    -------
    Items

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    ValueError
        If it holds nothing of that type, or something damaged.
    ImportError
        If a package of the extra ``media`` is needed and not installed.
    """
    if data_type not in _DATA_TYPES:
        raise ValueError(f"data_type must be one of {', '.join(DATA_TYPES)}, got {data_type!r}")
    if split not in readers.SPLITS:
        raise ValueError(f"split must be one of {', '.join(readers.SPLITS)}, got {split!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    if limit is None and data_type == "vimeo90k":
        raise ValueError("say how many frames to load, for example limit=10000 (14 GB)")
    if normalisation is not None and not normalisation[1] > 0:
        raise ValueError(f"the scale of a normalisation must be above zero, got {normalisation[1]}")
    if data_type == "fastmri" and split != "train" and normalisation is None:
        raise ValueError(
            f"split {split!r} needs the training items' normalisation=(items.offset, items.scale)"
        )
    kind = _DATA_TYPES[data_type]
    found = list(islice(kind.read(Path(source), split), limit))
    if normalisation is None and data_type == "nifti":
        for item in found:
            _normalise([item.values], *_own_range(item.values), clip=True)
        offset, scale = 0.0, 1.0
    else:
        if normalisation is None and data_type == "fastmri":
            normalisation = 0.0, _percentile([item.values for item in found])
        offset, scale = map(float, normalisation or _usual(found))
        _normalise([item.values for item in found], offset, scale, clip=kind.spatial == 3)
    return Items(
        values=[item.values for item in found],
        spatial=kind.spatial,
        offset=offset,
        scale=scale,
        names=[item.name for item in found],
        sources=[item.source for item in found],
        units=kind.units,
    )


def split_by_source(items: Items, validation_items: int) -> tuple[Items, Items]:
    """Hold out the last items, in whole sources.

    Parameters
    ----------
    items : Items
    validation_items : int
        At least so many are held out: sources are never shared between the two parts.

    Returns
    -------
    train, validation : Items

    Raises
    ------
    ValueError
        If no source would be left for training.
    """
    if validation_items < 1:
        raise ValueError(f"validation_items must be at least 1, got {validation_items}")
    sizes = Counter(items.sources)
    held_out: set[str] = set()
    count = 0
    for source in reversed(sizes):
        if count >= validation_items:
            break
        held_out.add(source)
        count += sizes[source]
    train = [i for i, source in enumerate(items.sources) if source not in held_out]
    if not train:
        raise ValueError(
            f"{validation_items} items of {len(sizes)} sources cannot be held out: "
            "none would be left for training; load more files"
        )
    validation = [i for i, source in enumerate(items.sources) if source in held_out]
    return _take(items, train), _take(items, validation)


def _percentile(arrays: Sequence[npt.NDArray[np.float32]]) -> float:
    """The 99.99 % percentile of all values that are not negative, to 1 part in 2,000.

    Parameters
    ----------
    arrays : sequence of float32 arrays

    Raises
    ------
    ValueError
        If there is no value above zero.
    """
    # Floats above zero are ordered as their bits are; the upper ones make bins of about
    # equal ratio.
    histogram = np.zeros(2**19, dtype=np.int64)
    for values in arrays:
        bits = np.maximum(values, 0).reshape(-1).view(np.uint32) >> 12
        histogram += np.bincount(bits, minlength=len(histogram))
    reached = np.cumsum(histogram) >= _PERCENTILE / 100 * histogram.sum()
    edge = (int(np.argmax(reached)) + 1) << 12
    if edge == 1 << 12:
        raise ValueError("there are no values above zero to scale by")
    return float(np.array(edge, np.uint32).view(np.float32))


def _own_range(volume: npt.NDArray[np.float32]) -> tuple[float, float]:
    """Offset and scale of one volume; scans without negative values keep their zero."""
    low = min(float(volume.min()), 0.0)
    high = float(np.percentile(volume, _PERCENTILE))
    # A mask may be zero but for a few voxels.
    high = high if high > low else float(volume.max())
    return low, (high - low) or 1.0


def _usual(found: Sequence[Item]) -> tuple[float, float]:
    first = found[0]
    if first.usual is None:
        raise ValueError(f"{first.name} has neither 8 nor 16 bits; give normalisation=(0.0, 1.0)")
    for item in found:
        if item.usual != first.usual:
            raise ValueError(
                f"{first.name} and {item.name} are of different types (8 and 16 bits?); load them "
                "apart or give normalisation=(offset, scale)"
            )
    return first.usual


def _normalise(
    arrays: Sequence[npt.NDArray[np.float32]], offset: float, scale: float, *, clip: bool
) -> None:
    for values in arrays:
        values -= np.float32(offset)
        values /= np.float32(scale)
        if clip:
            np.clip(values, 0, 1, out=values)


def _take(items: Items, indices: Sequence[int]) -> Items:
    return replace(
        items,
        values=[items.values[i] for i in indices],
        names=[items.names[i] for i in indices],
        sources=[items.sources[i] for i in indices],
    )
