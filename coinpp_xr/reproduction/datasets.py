"""What the networks are trained and tested on: the paper's data sets, or smaller ones at hand.

A material is named as the paper names its data set. What stands in for it at quick sizes, and how
the two differ, is said in its note, which every result carries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.data.fields import Fields, load_fields, to_training_data
from coinpp_xr.data.items import Items, load_items
from coinpp_xr.patch_building import all_patches, at_least, to_patches
from coinpp_xr.training import TrainingData

Float32 = npt.NDArray[np.float32]

# What takes ERA5's temperatures to [0, 1] in the paper, K.
PAPER_RANGE = (202.66, 118.27)
_SPOKEN_RATE = 16.0  # samples per millisecond: bits per sample × 16 are kilobits per second


@dataclass(frozen=True, eq=False)
class Material:
    """Data for training, and items to test on.

    Parameters
    ----------
    training : TrainingData
        Training and validation patches; hyper-parameters are chosen on the latter.
    items : list of float32 array
        Test items with values in [0, 1], shape (*space, channels); whole patches in each axis.
    patch : tuple of int
        Cells of a patch along each axis.
    title : str
        What the data is, for figures.
    note : str
        What the data is and how it differs from the paper's.
    unit : {"bits per pixel", "bits per voxel", "bits per cell", "kilobits per second"}
        Of rates.
    scale : float
        One unit of a value in the unit of the data, for RMSE; 0 where that says nothing.
    box : BoxGrid, optional
        Of patches that are no globes.
    """

    training: TrainingData
    items: list[Float32]
    patch: tuple[int, ...]
    title: str
    note: str
    unit: str
    scale: float = 0.0
    box: BoxGrid | None = None

    @property
    def points(self) -> Float32:
        return self.training.points

    @property
    def cells(self) -> int:
        """Of all test items, each counted once whatever its channels."""
        return sum(item[..., 0].size for item in self.items)

    def rate(self, bits: float) -> float:
        """Of all test items together, in :attr:`unit`."""
        rate = bits / self.cells
        return rate * _SPOKEN_RATE if self.unit == "kilobits per second" else rate

    def patches(self) -> list[Float32]:
        """Of every test item, shape (patches, points, channels)."""
        return [all_patches(item, self.patch) for item in self.items]


# ---- the folders ---------------------------------------------------------------------------------


def folder_at_hand(name: str) -> Path:
    """A part of the data folder that ``COINPP_DATA`` names.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    root = os.environ.get("COINPP_DATA")
    if not root or not (Path(root) / name).exists():
        raise FileNotFoundError(
            f"no data at hand: set COINPP_DATA to a folder with {name}, or give the paper's own "
            "data with --data"
        )
    return Path(root) / name


def _own(folder: Path, name: str) -> Path:
    """The data set called ``name`` in a folder of several, or the folder itself."""
    return folder / name if (folder / name).exists() else folder


# ---- images --------------------------------------------------------------------------------------

# Photographs of the Kodak suite by number: neighbours in it show different scenes.
_TRAIN, _TEST, _VALIDATION = range(1, 9), range(9, 13), range(13, 17)
# Of the 51,313 that the paper trains on: 770,000 patches. All of them would take 70 GB of memory.
_VIMEO_FRAMES = 5000


@cache
def _photographs() -> Items:
    return load_items(folder_at_hand("images/kodak"), "image")


def _numbered(items: Items, numbers: Sequence[int]) -> Items:
    wanted = {f"kodim{number:02d}.png" for number in numbers}
    chosen = [i for i, name in enumerate(items.names) if name in wanted]
    if len(chosen) < len(wanted):
        raise FileNotFoundError(f"photographs are missing: {', '.join(sorted(wanted))}")
    return replace(
        items, values=[items.values[i] for i in chosen],
        names=[items.names[i] for i in chosen], sources=[items.sources[i] for i in chosen],
    )  # fmt: skip


def reduced(image: Float32, times: int) -> Float32:
    """An image (height, width, channels) of fewer pixels, each the mean of ``times``²."""
    height, width = (n // times * times for n in image.shape[:2])
    blocks = image[:height, :width].reshape(height // times, times, width // times, times, -1)
    return np.asarray(blocks.mean((1, 3)), np.float32)


def _reduced(items: Items, reductions: Sequence[int]) -> Items:
    values = [reduced(image, times) for image in items.values for times in reductions]
    names = [f"{name}/{times}" for name in items.names for times in reductions]
    sources = [source for source in items.sources for _ in reductions]
    return replace(items, values=values, names=names, sources=sources)


def cifar10(folder: Path | None, quick: bool) -> Material:
    """Images of 32 × 32 pixels."""
    box = BoxGrid((32, 32), -1.0, 1.0) if quick else BoxGrid((32, 32), 0.0, 1.0)
    if folder is not None:
        root = _own(folder, "cifar10")
        every = load_items(root, "cifar10", limit=6000 if quick else None)
        train, held = _part(every, slice(0, -256)), _part(every, slice(-256, None))
        test = load_items(root, "cifar10", split="test", limit=16 if quick else None)
        title, note = (
            "CIFAR-10",
            "CIFAR-10" + (", 5,744 training and 16 test images" if quick else ""),
        )
        items = test.values
    else:
        photographs = _photographs()
        train = _reduced(_numbered(photographs, _TRAIN), (2, 3, 4))
        held = _reduced(_numbered(photographs, _VALIDATION), (4,))
        test = _reduced(_numbered(photographs, _TEST), (4,))
        tiles = [all_patches(image, (32, 32)) for image in test.values]
        items = [tile.reshape(32, 32, 3) for tile in np.concatenate(tiles)[::6]]
        title = "crops of photographs (for CIFAR-10)"
        note = (
            "no CIFAR-10: 32 × 32 crops of Kodak photographs reduced to a half, a third and a "
            f"quarter; trained on 8 photographs, tested on {len(items)} crops of 4 others"
        )
    return Material(
        to_patches(train, held, box), items, (32, 32), title, note, "bits per pixel", box=box
    )


def kodak(folder: Path | None, quick: bool) -> Material:
    """Photographs in patches of 32 × 32 pixels."""
    box = BoxGrid((32, 32), -1.0, 1.0) if quick else BoxGrid((32, 32), 0.0, 1.0)
    if folder is not None:
        train = load_items(
            _own(folder, "vimeo90k"), "vimeo90k", limit=500 if quick else _VIMEO_FRAMES
        )
        held = load_items(
            _own(folder, "vimeo90k"), "vimeo90k", split="test", limit=8 if quick else 64
        )
        images = load_items(folder / "kodak", "image").values
        note = f"{len(train.values):,} frames of Vimeo-90k for training, Kodak for testing"
        images = [_middle(v, (256, 256)) for v in images] if quick else images
    else:
        photographs = _photographs()
        train, held = _numbered(photographs, _TRAIN), _numbered(photographs, _VALIDATION)
        images = [_middle(v, (256, 256)) for v in _numbered(photographs, _TEST).values]
        note = (
            "no Vimeo-90k: trained on 8 Kodak photographs, tested on the middle 256 × 256 pixels "
            "of 4 others (the paper: all 24 in full)"
        )
    items = [_whole_patches(v, (32, 32)) for v in images]
    return Material(
        to_patches(train, held, box), items, (32, 32), "Kodak", note, "bits per pixel", box=box
    )


def _middle(values: Float32, size: Sequence[int]) -> Float32:
    corner = [max(0, (n - m) // 2) for n, m in zip(values.shape, size, strict=False)]
    return values[tuple(slice(a, a + m) for a, m in zip(corner, size, strict=True))]


def _whole_patches(values: Float32, patch: tuple[int, ...]) -> Float32:
    """As much of an item as whole patches cover, at least one."""
    values = at_least(values, patch)
    parts = [slice(0, n // m * m) for n, m in zip(values.shape, patch, strict=False)]
    return np.ascontiguousarray(values[tuple(parts)])


# ---- volumes and sound ---------------------------------------------------------------------------


def fastmri(folder: Path | None, quick: bool) -> Material:
    """Volumes in patches of 16³ voxels."""
    patch = (16, 16, 16)
    box = BoxGrid(patch, -1.0, 1.0) if quick else BoxGrid(patch, 0.0, 1.0)
    if folder is not None:
        root = _own(folder, "fastmri")
        train = load_items(root, "fastmri", limit=40 if quick else None)
        usual = (train.offset, train.scale)
        rest = load_items(root, "fastmri", split="val", normalisation=usual)
        n_test = 4 if quick else len(rest.values) // 2
        held = _part(rest, slice(n_test, None))
        volumes = rest.values[:n_test]
        title, note = "FastMRI", "FastMRI brains; tested on a part of the validation split"
    else:
        every = load_items(folder_at_hand("mri/hippocampus"), "nifti")
        train, held = _part(every, slice(0, -40)), _part(every, slice(-40, -20))
        volumes = every.values[-20::2]
        title = "hippocampus (for FastMRI)"
        note = (
            "no FastMRI: crops around a hippocampus of 31 to 59 voxels a side, "
            f"{len(train.values)} for training, {len(volumes)} for testing, each scaled by itself; "
            "two of them may be of one person"
        )
    items = [_whole_patches(v, patch) for v in volumes]
    return Material(to_patches(train, held, box), items, patch, title, note, "bits per voxel")


def librispeech(samples: int) -> Callable[[Path | None, bool], Material]:
    """Three seconds of speech in patches of so many samples."""

    def load(folder: Path | None, quick: bool) -> Material:
        box = BoxGrid((samples,), -5.0, 5.0)
        if folder is not None:
            root = _own(folder, "librispeech")
            train = load_items(root, "librispeech", limit=500 if quick else None)
            held = load_items(root, "librispeech", split="val", limit=60)
            spoken = load_items(root, "librispeech", split="test").values
            clips = spoken[:: max(1, len(spoken) // 60)] if quick else spoken
            note = "LibriSpeech train-clean-100, dev-clean for validation, test-clean for testing"
        else:
            root = folder_at_hand("audio")
            every = load_items(root, "librispeech")
            train, held = _part(every, slice(0, -25)), _part(every, slice(-25, None))
            clips = load_items(root, "librispeech", split="test").values[::3]
            note = (
                f"a small part of LibriSpeech: {len(train.values)} clips of train-clean-100, one a "
                f"speaker, for training; {len(clips)} of test-other (the paper: test-clean)"
            )
        items = [_whole_patches(clip, (samples,)) for clip in clips]
        title = f"LibriSpeech, patches of {samples}"
        return Material(
            to_patches(train, held, box), items, (samples,), title, note, "kilobits per second"
        )

    return load


def _part(items: Items, part: slice) -> Items:
    return replace(
        items, values=items.values[part], names=items.names[part], sources=items.sources[part]
    )


# ---- globes --------------------------------------------------------------------------------------


def _globes(train: Fields, held: Fields, test: Fields, title: str, note: str) -> Material:
    data, (offset, scale) = to_training_data([train], held, normalisation=PAPER_RANGE)
    # The paper counts grid points, not areas.
    data = replace(data, weights=np.full(len(data.points), 1 / len(data.points)), scale=scale)
    items = list(((test.values - np.float32(offset)) / np.float32(scale))[..., None])
    return Material(data, items, test.grid.shape, title, note, "bits per cell", scale)


def era5(folder: Path | None, quick: bool) -> Material:
    """Monthly means of temperature on the globe; the paper's are of each hour of the day."""
    if folder is not None:
        root = folder / "era5_temp2m_16x"
        parts = [load_fields(root, split=split) for split in ("train", "val", "test")]
        note = "the paper's ERA5 fields, monthly means of each hour of the day"
        if quick:
            parts[2] = replace(parts[2], values=parts[2].values[::30])
            note += "; every 30th for testing"
        return _globes(parts[0], parts[1], parts[2], "ERA5", note)
    import xarray as xr

    path = folder_at_hand("climate/monthly_46x90.nc")
    with xr.open_dataset(path, engine="netcdf4") as dataset:
        fields, sources = load_fields(dataset["tas"]), dataset["source"].values.astype(str)
        kinds = dataset["kind"].values.astype(str)
    family = np.array([source.partition("-")[0][:4] for source in sources])
    test = np.flatnonzero((family == "CMCC") & (kinds == "monthly"))[::5]
    parts = [
        replace(fields, values=fields.values[chosen])
        for chosen in ((family != "CMCC") & (family != "CanE"), family == "CanE", test)
    ]
    models = len(set(sources[(family != "CMCC") & (family != "CanE")]))
    note = (
        "no ERA5: monthly means and climatologies of climate models (some of skin temperature); "
        f"{len(parts[0].values)} fields of {models} models for training, {len(test)} monthly means "
        "of CMCC-CESM for testing"
    )
    return _globes(parts[0], parts[1], parts[2], "climate models (for ERA5)", note)


def weather(folder: Path | None, quick: bool) -> Material:
    """Temperature every six hours from a simulation, which the paper has not."""
    whole = load_fields(folder_at_hand("climate/gcm_6hourly_46x90.nc"))
    test = load_fields(folder_at_hand("climate/gcm_6hourly_test_46x90.nc"))
    note = (
        "simulated 6-hourly temperature (no real weather), 6,480 globes for training, every 72nd "
        "of the half year after them for testing"
    )
    return _globes(
        replace(whole, values=whole.values[:-720]), replace(whole, values=whole.values[-720:]),
        replace(test, values=test.values[::72]), "simulated weather", note,
    )  # fmt: skip
