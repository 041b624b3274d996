"""Data sets of images, volumes and sound in their own formats, and how they become features."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_files import (
    write_brain,
    write_cifar,
    write_image,
    write_nifti,
    write_sound,
    write_triplets,
)
from refusals import refusal

from coinpp_xr.data import DATA_TYPES, Items, Media, load_items, split_by_source, write_media

h5py = pytest.importorskip("h5py")
nibabel = pytest.importorskip("nibabel")
soundfile = pytest.importorskip("soundfile")
imagecodecs = pytest.importorskip("imagecodecs")

RNG = np.random.default_rng(11)


def needs_data(test: Any) -> Any:
    reason = "COINPP_DATA does not name the data folder"
    return pytest.mark.data(
        pytest.mark.skipif("COINPP_DATA" not in os.environ, reason=reason)(test)
    )


# ---- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "scale"), [("uint8", 255.0), ("uint16", 65535.0)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize(("channels", "kept"), [(None, 1), (2, 1), (3, 3), (4, 3)])
def test_images_become_features_without_alpha(
    tmp_path: Path, channels: int | None, kept: int, suffix: str, dtype: str, scale: float
) -> None:
    shape = (5, 7) if channels is None else (5, 7, channels)
    pixels = RNG.integers(0, scale, shape, dtype=dtype, endpoint=True)
    write_image(tmp_path / f"i{suffix}", pixels)

    items = load_items(tmp_path, "image")

    assert (items.spatial, items.offset, items.scale) == (2, 0.0, scale)
    (values,) = items.values
    assert (values.shape, values.dtype) == ((5, 7, kept), np.float32)
    expected = pixels.reshape(5, 7, -1)[..., :kept] / scale
    np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_folder_is_searched_at_any_depth_in_sorted_order(tmp_path: Path) -> None:
    for name, level in (("b/2.png", 2), ("a/deep/1.PNG", 1), ("c.tif", 3), (".hidden.png", 9)):
        write_image(tmp_path / name, np.full((2, 3), level, np.uint8))
    (tmp_path / "notes.txt").write_text("no image")

    items = load_items(tmp_path, "image")

    assert items.names == items.sources == ["a/deep/1.PNG", "b/2.png", "c.tif"]
    assert [round(255 * float(values[0, 0, 0])) for values in items.values] == [1, 2, 3]


def test_jpeg_files_are_images(tmp_path: Path) -> None:
    content = imagecodecs.jpeg_encode(np.full((16, 24, 3), 100, np.uint8))
    (tmp_path / "i.jpeg").write_bytes(content)

    (values,) = load_items(tmp_path / "i.jpeg", "image").values

    assert values.shape == (16, 24, 3)
    np.testing.assert_allclose(values, 100 / 255, atol=0.02)


def test_pages_are_items_of_one_source(tmp_path: Path) -> None:
    pages = RNG.integers(0, 256, (3, 5, 7), dtype=np.uint8)
    write_media(Media("image", pages, {"pages": 3}), tmp_path / "i.tif")

    items = load_items(tmp_path, "image")

    assert (items.names, set(items.sources)) == (["i.tif#0", "i.tif#1", "i.tif#2"], {"i.tif"})


def test_unlike_images_are_not_mixed(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((4, 5, 3), np.uint8))
    write_image(tmp_path / "b.png", np.zeros((4, 5), np.uint8))
    write_image(tmp_path / "c.png", np.zeros((4, 5, 3), np.uint16))

    assert "load unlike items apart" in refusal(lambda: load_items(tmp_path, "image", limit=2))
    assert "different types" in refusal(lambda: load_items(tmp_path, "image"))


def test_pictures_of_other_numbers_need_a_normalisation(tmp_path: Path) -> None:
    write_image(tmp_path / "i.tif", np.array([[10, 20]], np.float32))

    assert "give normalisation" in refusal(lambda: load_items(tmp_path, "image"))
    items = load_items(tmp_path, "image", normalisation=(10.0, 10.0))
    assert items.values[0].ravel().tolist() == [0.0, 1.0]


@needs_data
def test_real_photographs_are_loaded() -> None:
    items = load_items(Path(os.environ["COINPP_DATA"]) / "images/kodak", "image", limit=2)

    assert [values.shape for values in items.values] == [(512, 768, 3)] * 2
    assert all(0 <= values.min() < values.max() <= 1 for values in items.values)


# ---- CIFAR-10 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [bytes, str])
def test_cifar_batches_are_read_in_order(tmp_path: Path, keys: type) -> None:
    images = [write_cifar(tmp_path / f"data_batch_{n}", keys=keys) for n in (1, 2)]
    test_images = write_cifar(tmp_path / "test_batch", keys=keys)

    train = load_items(tmp_path, "cifar10")
    test = load_items(tmp_path, "cifar10", split="test")

    assert (train.values[0].shape, train.scale) == ((32, 32, 3), 255.0)
    np.testing.assert_allclose(train.values, np.concatenate(images) / 255, atol=1e-6)
    np.testing.assert_allclose(test.values, test_images / 255, atol=1e-6)
    assert train.names[3] == "data_batch_2/camion_s_000000.png"


def test_the_folder_that_the_archive_makes_is_found(tmp_path: Path) -> None:
    write_cifar(tmp_path / "cifar-10-batches-py/data_batch_1")

    assert len(load_items(tmp_path, "cifar10", limit=2).values) == 2


def python_2_pickle(images: np.ndarray) -> bytes:
    """What Python 2 wrote: numbers and names as byte strings, with opcodes of its own."""
    raw = images.transpose(0, 3, 1, 2).tobytes()

    def string(text: bytes) -> bytes:
        if len(text) < 256:
            return b"U" + bytes([len(text)]) + text
        return b"T" + len(text).to_bytes(4, "little") + text

    integer = b"J" + len(images).to_bytes(4, "little")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85" + string(b"b") + b"tR"
        b"(K\1" + integer + b"M\0\x0c\x86cnumpy\ndtype\n" + string(b"u1") + b"K\0K\1\x87R"
        b"(K\3" + string(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
        b"\x89" + string(raw) + b"tb"
    )
    return b"\x80\2}" + string(b"data") + array + b"s."


def test_batches_written_by_python_2_are_read(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    content = python_2_pickle(images)
    np.testing.assert_array_equal(  # the pickle is one that Python itself can read
        pickle.loads(content, encoding="bytes")[b"data"],
        images.transpose(0, 3, 1, 2).reshape(2, -1),
    )
    (tmp_path / "test_batch").write_bytes(content)

    items = load_items(tmp_path / "test_batch", "cifar10")

    np.testing.assert_allclose(items.values, images / 255, atol=1e-6)
    assert items.names == ["test_batch/0", "test_batch/1"]


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch hostile",)


def test_a_pickle_that_asks_for_anything_else_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Hostile()}, protocol=2))

    message = refusal(lambda: load_items(tmp_path / "test_batch", "cifar10"))

    assert "asks for posix.system" in message or "asks for nt.system" in message
    assert not (tmp_path / "hostile").exists()


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ([1, 2], "no dictionary"),
        ({b"labels": [1]}, "no array named data"),
        ({b"data": b"text"}, "no array named data"),
        ({b"data": np.zeros((2, 3072))}, "not uint8"),
        ({b"data": np.zeros((2, 100), np.uint8)}, "not (images, 3072)"),
        ({b"data": np.array([None, 1])}, "not uint8"),
    ],
)
def test_other_pickles_are_refused(tmp_path: Path, batch: Any, reason: str) -> None:
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))

    assert reason in refusal(lambda: load_items(tmp_path / "test_batch", "cifar10"))


def test_cifar_has_no_validation_split(tmp_path: Path) -> None:
    write_cifar(tmp_path / "data_batch_1")

    assert "train and test" in refusal(lambda: load_items(tmp_path, "cifar10", split="val"))
    assert "test_batch" in refusal(lambda: load_items(tmp_path, "cifar10", split="test"))


# ---- Vimeo-90k --------------------------------------------------------------------------------


def test_first_frames_of_all_sequences_come_first(tmp_path: Path) -> None:
    written = write_triplets(tmp_path, "train", ["00001/0001", "00001/0002", "00002/0001"])

    items = load_items(tmp_path, "vimeo90k", limit=4)

    assert items.names == [
        "00001/0001/im1.png", "00001/0002/im1.png", "00002/0001/im1.png", "00001/0001/im2.png",
    ]  # fmt: skip
    assert items.sources[0] == items.sources[3] == "00001/0001"
    for values, name in zip(items.values, items.names, strict=True):
        np.testing.assert_allclose(values, written[name] / 255, atol=1e-6)


def test_each_split_of_vimeo_has_its_list(tmp_path: Path) -> None:
    root = tmp_path / "vimeo_triplet"
    write_triplets(root, "train", ["00001/0001"])
    write_triplets(root, "test", ["00002/0007"])

    test = load_items(tmp_path, "vimeo90k", split="test", limit=9)

    assert set(test.sources) == {"00002/0007"}
    assert "train and test" in refusal(
        lambda: load_items(tmp_path, "vimeo90k", split="val", limit=1)
    )


def test_all_of_vimeo_is_too_much(tmp_path: Path) -> None:
    assert "limit=10000" in refusal(lambda: load_items(tmp_path, "vimeo90k"))


def test_a_missing_frame_is_named(tmp_path: Path) -> None:
    write_triplets(tmp_path, "train", ["00001/0001"])
    (tmp_path / "sequences/00001/0001/im2.png").unlink()

    message = refusal(lambda: load_items(tmp_path, "vimeo90k", limit=9), FileNotFoundError)

    assert "im2.png" in message


# ---- NIfTI ------------------------------------------------------------------------------------


def test_every_volume_is_scaled_by_its_own_percentile(tmp_path: Path) -> None:
    voxels = [RNG.integers(0, top, (20, 30, 40), dtype=np.int16) for top in (100, 3000)]
    for index, volume in enumerate(voxels):
        write_nifti(tmp_path / f"{index}.nii", volume)

    items = load_items(tmp_path, "nifti")

    assert (items.spatial, items.offset, items.scale) == (3, 0.0, 1.0)
    for values, volume in zip(items.values, voxels, strict=True):
        expected = np.clip(volume / np.percentile(volume, 99.99), 0, 1)[..., None]
        np.testing.assert_allclose(values, expected, atol=1e-6)


def test_a_given_normalisation_is_used_in_real_units(tmp_path: Path) -> None:
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    write_nifti(tmp_path / "v.nii", voxels, slope=2.0, inter=10.0)

    items = load_items(tmp_path / "v.nii", "nifti", normalisation=(10.0, 40.0))

    assert (items.offset, items.scale) == (10.0, 40.0)
    np.testing.assert_allclose(items.values[0][..., 0], np.clip(2 * voxels / 40, 0, 1))


def test_the_last_of_four_axes_counts_items(tmp_path: Path) -> None:
    voxels = RNG.integers(0, 100, (4, 5, 6, 3), dtype=np.uint8)
    write_nifti(tmp_path / "v.nii.gz", voxels)

    items = load_items(tmp_path, "nifti", normalisation=(0.0, 100.0))

    assert (items.names[2], items.sources) == ("v.nii.gz#2", ["v.nii.gz"] * 3)
    np.testing.assert_allclose(items.values[2][..., 0], voxels[..., 2] / 100, atol=1e-6)


def test_volumes_below_zero_keep_their_values(tmp_path: Path) -> None:
    voxels = RNG.integers(-1000, 2000, (8, 9, 10), dtype=np.int16)
    write_nifti(tmp_path / "ct.nii", voxels)

    (values,) = load_items(tmp_path, "nifti").values

    assert len(np.unique(values)) >= len(np.unique(voxels)) - 1


@pytest.mark.parametrize("level", [0, 7])
def test_constant_volumes_and_masks_are_not_divided_by_zero(tmp_path: Path, level: int) -> None:
    write_nifti(tmp_path / "a.nii", np.full((4, 5, 6), level, np.int16))
    mask = np.zeros((30, 30, 30), np.uint8)
    mask[0, 0, 0] = 5
    write_nifti(tmp_path / "b.nii", mask)

    items = load_items(tmp_path, "nifti")

    assert [float(values.max()) for values in items.values] == [min(level, 1), 1.0]


def test_missing_voxels_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "v.nii", np.full((4, 5, 6), np.nan, np.float32))

    assert "NaN" in refusal(lambda: load_items(tmp_path, "nifti"))


@needs_data
def test_real_volumes_are_loaded() -> None:
    items = load_items(Path(os.environ["COINPP_DATA"]) / "mri/heads", "nifti", limit=3)

    assert items.values[0].shape == (165, 198, 168, 1)
    assert all(0 == values.min() < values.max() == 1 for values in items.values)


# ---- FastMRI ----------------------------------------------------------------------------------


def test_brains_are_scaled_by_the_percentile_of_all_training_values(tmp_path: Path) -> None:
    brains = [
        write_brain(tmp_path / f"multicoil_train/file_brain_AXT2_200_{n}.h5", scale=1e-4 * n)
        for n in (1, 2, 3)
    ]

    items = load_items(tmp_path, "fastmri")

    assert (items.spatial, items.offset) == (3, 0.0)
    assert items.scale == pytest.approx(np.percentile(brains, 99.99, method="higher"), rel=1e-3)
    for values, brain in zip(items.values, brains, strict=True):
        np.testing.assert_allclose(
            values[..., 0], np.clip(brain / items.scale, 0, 1), rtol=1e-5, atol=1e-7
        )


def test_other_splits_take_the_normalisation_of_the_training_items(tmp_path: Path) -> None:
    write_brain(tmp_path / "multicoil_train/file_brain_AXT2_200_1.h5")
    write_brain(tmp_path / "multicoil_val/file_brain_AXT2_200_2.h5", scale=1e-3)
    train = load_items(tmp_path / "multicoil", "fastmri")

    normalisation = train.offset, train.scale
    val = load_items(tmp_path / "multicoil", "fastmri", split="val", normalisation=normalisation)

    assert (val.offset, val.scale) == normalisation
    assert val.values[0].max() == 1
    message = refusal(lambda: load_items(tmp_path / "multicoil", "fastmri", split="val"))
    assert "normalisation=(items.offset, items.scale)" in message


def test_other_acquisitions_and_numbers_of_slices_are_left_out(tmp_path: Path) -> None:
    write_brain(tmp_path / "file_brain_AXT1_200_1.h5", acquisition="AXT1")
    write_brain(tmp_path / "file_brain_AXT2_200_2.h5", slices=14)
    write_brain(tmp_path / "file_brain_AXT2_200_3.h5", slices=18)
    message = refusal(lambda: load_items(tmp_path, "fastmri"))
    write_brain(tmp_path / "file_brain_AXT2_200_4.h5")

    assert "none of 3 files" in message
    assert load_items(tmp_path, "fastmri").names == ["file_brain_AXT2_200_4.h5"]


def test_files_without_reconstruction_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file_brain_AXT2_200_1.h5", "w") as file:
        file["kspace"] = np.zeros((16, 2, 4, 4), np.complex64)
        file.attrs["acquisition"] = "AXT2"

    assert "the test split has none" in refusal(lambda: load_items(tmp_path, "fastmri"))


def test_brains_without_a_signal_are_refused(tmp_path: Path) -> None:
    write_brain(tmp_path / "file_brain_AXT2_200_1.h5", scale=0.0)

    assert "no values above zero" in refusal(lambda: load_items(tmp_path, "fastmri"))


# ---- sound ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "subtype", "full_scale"),
    [("int16", "PCM_16", 2**15), ("int32", "PCM_24", 2**23), ("int32", "PCM_32", 2**31)],
)
def test_sound_at_full_scale_fills_0_to_1(
    tmp_path: Path, dtype: str, subtype: str, full_scale: int
) -> None:
    samples = np.array([-full_scale, 0, full_scale // 2, full_scale - 1], dtype)
    write_sound(tmp_path / "s.wav", samples, 44100, subtype)

    items = load_items(tmp_path / "s.wav", "audio")

    assert (items.spatial, items.offset, items.scale, items.units) == (1, -1.0, 2.0, "full scale")
    np.testing.assert_allclose(items.values[0], [[0], [0.5], [0.75], [1]], atol=2e-5)


def test_bytes_of_sound_are_centred(tmp_path: Path) -> None:
    write_sound(tmp_path / "s.wav", np.array([0, 128, 255], np.uint8))

    np.testing.assert_allclose(
        load_items(tmp_path, "audio").values[0], [[0], [0.5], [1]], atol=4e-3
    )


def test_channels_are_items_of_one_source(tmp_path: Path) -> None:
    samples = RNG.integers(-(2**15), 2**15, (100, 2), dtype=np.int16)
    write_sound(tmp_path / "s.flac", samples)

    items = load_items(tmp_path, "audio")

    assert (items.names, items.sources) == (["s.flac#0", "s.flac#1"], ["s.flac"] * 2)
    np.testing.assert_allclose(
        np.concatenate(items.values, axis=1), (samples / 2**15 + 1) / 2, atol=1e-6
    )


def test_speech_is_cut_to_three_seconds_and_named_by_speaker(tmp_path: Path) -> None:
    lengths = {"103/1240/103-1240-0000.flac": 50_000, "103/1241/103-1241-0001.flac": 20_000}
    for name, length in lengths.items():
        samples = RNG.integers(-(2**15), 2**15, length, dtype=np.int16)
        write_sound(tmp_path / "train-clean-100" / name, samples)
    write_sound(tmp_path / "test-clean/61/70968/61-70968-0000.flac", samples)

    train = load_items(tmp_path, "librispeech")
    test = load_items(tmp_path, "librispeech", split="test")

    assert [len(values) for values in train.values] == [48_000, 20_000]
    np.testing.assert_allclose(train.values[1][:, 0], (samples / 2**15 + 1) / 2, atol=1e-6)
    assert (train.sources, test.sources) == (["103", "103"], ["61"])
    assert "there are: train, test" in refusal(
        lambda: load_items(tmp_path, "librispeech", split="val")
    )


@pytest.mark.parametrize(("rate", "shape"), [(44100, (100,)), (16000, (100, 2))])
def test_what_is_not_like_librispeech_is_refused(
    tmp_path: Path, rate: int, shape: tuple[int, ...]
) -> None:
    write_sound(tmp_path / "1-2-3.flac", np.zeros(shape, np.int16), rate)

    assert "load it as 'audio'" in refusal(lambda: load_items(tmp_path, "librispeech"))


@needs_data
@pytest.mark.parametrize("data_type", ["audio", "librispeech"])
def test_real_speech_is_loaded(data_type: str) -> None:
    folder = Path(os.environ["COINPP_DATA"]) / "audio"

    items = load_items(folder, data_type, split="test", limit=3)

    assert items.names[0].startswith("1688-142285")
    assert all(0 < values.min() < 0.5 < values.max() < 1 for values in items.values)


# ---- splits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["ROOT_{}", "ROOT/{}"])
def test_folders_of_splits_are_read_one_by_one(tmp_path: Path, layout: str) -> None:
    for level, split in enumerate(("train", "val", "test")):
        path = tmp_path / layout.format(split) / "i.png"
        write_image(path, np.full((2, 3), level, np.uint8))

    for level, split in enumerate(("train", "val", "test")):
        (values,) = load_items(tmp_path / "ROOT", "image", split=split).values
        assert round(255 * float(values[0, 0, 0])) == level


def test_a_folder_without_splits_is_read_whole(tmp_path: Path) -> None:
    write_image(tmp_path / "i.png", np.zeros((2, 3), np.uint8))

    assert len(load_items(tmp_path, "image", split="test").values) == 1


def items_of(sources: str) -> Items:
    """One item per letter, which names its source."""
    values = [np.full((2, 2, 1), index, np.float32) for index in range(len(sources))]
    names = [f"{source}{index}" for index, source in enumerate(sources)]
    return Items(values, 2, 0.0, 1.0, names, list(sources), "")


@pytest.mark.parametrize(
    ("sources", "count", "train", "validation"),
    [
        ("abcd", 1, "a0 b1 c2", "d3"),
        ("abcd", 3, "a0", "b1 c2 d3"),
        ("aabbb", 1, "a0 a1", "b2 b3 b4"),
        ("abcabc", 2, "a0 b1 a3 b4", "c2 c5"),
        ("abcabc", 3, "a0 a3", "b1 c2 b4 c5"),
    ],
)
def test_the_last_sources_are_held_out_whole(
    sources: str, count: int, train: str, validation: str
) -> None:
    parts = split_by_source(items_of(sources), count)

    assert [" ".join(part.names) for part in parts] == [train, validation]
    assert [f"{int(values[0, 0, 0])}" for values in parts[1].values] == [
        name[1:] for name in parts[1].names
    ]


@pytest.mark.parametrize(("sources", "count"), [("aaaa", 1), ("ab", 2), ("ab", 0)])
def test_something_must_be_left_for_training(sources: str, count: int) -> None:
    refusal(lambda: split_by_source(items_of(sources), count))


# ---- what is refused --------------------------------------------------------------------------

SUFFIX = {
    "image": ".png", "cifar10": "", "vimeo90k": "", "nifti": ".nii.gz", "fastmri": ".h5",
    "audio": ".wav", "librispeech": ".flac",
}  # fmt: skip


def sample(data_type: str, path: Path) -> None:
    """A file of the type that it should be."""
    noise = RNG.integers(0, 255, (30, 40), dtype=np.uint8)
    writers: dict[str, Callable[[], object]] = {
        "image": lambda: write_image(path, noise),
        "cifar10": lambda: write_cifar(path),
        "nifti": lambda: write_nifti(path, noise.reshape(10, 12, 10)),
        "fastmri": lambda: write_brain(path),
        "audio": lambda: write_sound(path, noise.ravel().astype(np.int16)),
        "librispeech": lambda: write_sound(path, noise.ravel().astype(np.int16)),
    }
    writers[data_type]()


@pytest.mark.parametrize("data_type", sorted(set(DATA_TYPES) - {"vimeo90k"}))
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.98])
def test_a_file_cut_short_is_refused_by_name(tmp_path: Path, data_type: str, part: float) -> None:
    path = tmp_path / f"file_brain_AXT2_200_1{SUFFIX[data_type]}"
    sample(data_type, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])

    assert path.name in refusal(lambda: load_items(path, data_type))


@pytest.mark.parametrize("data_type", sorted(set(DATA_TYPES) - {"vimeo90k"}))
def test_another_kind_of_file_is_refused_by_name(tmp_path: Path, data_type: str) -> None:
    path = tmp_path / f"x{SUFFIX[data_type]}"
    file = io.BytesIO()
    np.save(file, np.zeros(300))
    path.write_bytes(file.getvalue())

    assert path.name in refusal(lambda: load_items(path, data_type))


@pytest.mark.parametrize("data_type", DATA_TYPES)
def test_a_missing_source_is_reported_with_the_nearest_name(tmp_path: Path, data_type: str) -> None:
    (tmp_path / "dataset").mkdir()

    message = refusal(
        lambda: load_items(tmp_path / "datset", data_type, limit=1), FileNotFoundError
    )

    assert message.endswith(f"did you mean {tmp_path / 'dataset'}?")


@pytest.mark.parametrize("data_type", sorted(set(DATA_TYPES) - {"vimeo90k"}))
def test_an_empty_folder_is_refused(tmp_path: Path, data_type: str) -> None:
    assert "holds no" in refusal(lambda: load_items(tmp_path, data_type))


def test_a_folder_without_a_list_is_not_vimeo(tmp_path: Path) -> None:
    message = refusal(lambda: load_items(tmp_path, "vimeo90k", limit=1), FileNotFoundError)

    assert "tri_trainlist.txt" in message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"data_type": "imagenet"}, "one of image, cifar10"),
        ({"split": "validation"}, "one of train, val, test"),
        ({"limit": 0}, "at least 1"),
        ({"normalisation": (0.0, 0.0)}, "above zero"),
    ],
)
def test_impossible_arguments_are_refused(
    tmp_path: Path, arguments: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(lambda: load_items(tmp_path, **({"data_type": "image"} | arguments)))
