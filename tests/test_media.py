"""Files of images, volumes and sound: what is read, written again, and refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from coinpp_xr.data import Media, guess_kind, read_media, write_media

nibabel = pytest.importorskip("nibabel")
soundfile = pytest.importorskip("soundfile")
imagecodecs = pytest.importorskip("imagecodecs")
TIFF = imagecodecs.TIFF


def needs_data(test: Any) -> Any:
    reason = "COINPP_DATA does not name the data folder"
    return pytest.mark.data(
        pytest.mark.skipif("COINPP_DATA" not in os.environ, reason=reason)(test)
    )


def noise(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Numbers all over the type's range."""
    rng = np.random.default_rng(5)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return rng.standard_normal(shape).astype(kind)
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def nifti_bytes(values: np.ndarray, image: type = nibabel.Nifti1Image) -> bytes:
    """A volume of oblique voxels with units, a slope and an extension."""
    affine = np.array([[0, -2, 0, 10], [1.5, 0, 0.1, -5], [0, 0, 3, 7], [0, 0, 0, 1.0]])
    made = image(values, affine)
    made.header.set_xyzt_units("mm", "sec")
    made.header.set_slope_inter(0.25, -3)
    made.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a scan"))
    # nibabel would divide the voxels by the slope, so they are put behind its header.
    header = made.header.copy()
    file = io.BytesIO()
    header["vox_offset"] = header.single_vox_offset + 16
    header["magic"] = header.single_magic
    file.write(header.binaryblock + b"\1\0\0\0" + b"\x10\0\0\0\6\0\0\0a scan\0\0")
    file.write(values.tobytes(order="F"))
    return file.getvalue()


def png_with(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    plain = bytes(imagecodecs.png_encode(values))
    extra = b""
    for name, content in chunks:
        body = name + content
        extra += struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + extra + plain[33:]


def sound_bytes(values: np.ndarray, container: str, subtype: str, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, values, rate, subtype, format=container)
    return file.getvalue()


def npy_bytes(values: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, values, allow_pickle=allow_pickle)
    return file.getvalue()


def read(tmp_path: Path, name: str, content: bytes) -> Media:
    (tmp_path / name).write_bytes(content)
    return read_media(tmp_path / name)


def again(tmp_path: Path, media: Media, name: str) -> Media:
    """Written and read once more, the metadata by way of JSON."""
    stored = Media(media.kind, media.values, json.loads(json.dumps(media.metadata)))
    write_media(stored, tmp_path / name)
    return read_media(tmp_path / name)


def assert_same(one: Media, other: Media) -> None:
    assert (one.kind, one.metadata) == (other.kind, other.metadata)
    assert one.values.dtype == other.values.dtype
    np.testing.assert_array_equal(one.values, other.values)


# ---- volumes ----------------------------------------------------------------------------------


def test_a_volume_holds_the_stored_voxels_and_what_they_mean(tmp_path: Path) -> None:
    voxels = noise((3, 4, 5), "int16")

    media = read(tmp_path, "v.nii", nifti_bytes(voxels))

    assert (media.kind, media.values.dtype, media.values.flags.c_contiguous) == (
        "volume", np.int16, True,
    )  # fmt: skip
    np.testing.assert_array_equal(media.values, voxels)
    assert (media.metadata["scl_slope"], media.metadata["scl_inter"]) == (0.25, -3.0)
    assert media.metadata["units"] == ["mm", "sec"]
    np.testing.assert_allclose(media.metadata["zooms"], [1.5, 2, 3.0016662], rtol=1e-6)
    np.testing.assert_allclose(media.metadata["affine"][0], [0, -2, 0, 10])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
@pytest.mark.parametrize("image", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_volume_is_written_byte_for_byte(
    tmp_path: Path, image: type, shape: tuple[int, ...], dtype: str
) -> None:
    content = nifti_bytes(noise(shape, dtype), image)

    media = read(tmp_path, "v.nii", content)
    notes = write_media(media, tmp_path / "w.nii")

    assert notes == []
    assert (tmp_path / "w.nii").read_bytes() == content


def test_a_volume_of_the_other_byte_order_is_read_in_ours_and_written_in_its_own(
    tmp_path: Path,
) -> None:
    header = nibabel.Nifti1Header(endianness=">")
    header.set_data_shape((2, 3, 4))
    header.set_data_dtype(">i2")
    header["magic"], header["vox_offset"] = b"n+1", 352
    voxels = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    content = header.binaryblock + bytes(4) + voxels.tobytes(order="F")

    media = read(tmp_path, "v.nii", content)
    write_media(media, tmp_path / "w.nii")

    assert media.values.dtype == np.dtype("int16")
    np.testing.assert_array_equal(media.values, voxels)
    assert (tmp_path / "w.nii").read_bytes() == content


def test_what_nibabel_reads_is_what_was_there(tmp_path: Path) -> None:
    media = read(tmp_path, "v.nii", nifti_bytes(noise((3, 4, 5), "int16")))

    write_media(media, tmp_path / "w.nii.gz")

    one, other = nibabel.load(tmp_path / "v.nii"), nibabel.load(tmp_path / "w.nii.gz")
    np.testing.assert_array_equal(one.get_fdata(), other.get_fdata())
    np.testing.assert_array_equal(one.affine, other.affine)
    np.testing.assert_array_equal(one.get_fdata(), media.values * 0.25 - 3)


def test_a_changed_volume_is_written_with_its_shape_and_type(tmp_path: Path) -> None:
    media = read(tmp_path, "v.nii", nifti_bytes(noise((3, 4, 5), "int16")))
    smaller = Media("volume", media.values[:2].astype(np.float32), media.metadata)

    np.testing.assert_array_equal(again(tmp_path, smaller, "w.nii").values, smaller.values)


def test_an_array_becomes_a_volume_with_an_affine(tmp_path: Path) -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0]).tolist()

    written = again(
        tmp_path, Media("array", noise((3, 4, 5), "uint8"), {"affine": affine}), "w.nii.gz"
    )

    assert (written.metadata["affine"], written.metadata["zooms"]) == (affine, [2.0, 3.0, 4.0])


@needs_data
def test_real_volumes_come_back(tmp_path: Path) -> None:
    for path in sorted((Path(os.environ["COINPP_DATA"]) / "mri/heads").glob("*.nii.gz")):
        media = read_media(path)

        assert write_media(media, tmp_path / "w.nii") == []
        assert (tmp_path / "w.nii").read_bytes() == gzip.decompress(path.read_bytes())


# ---- sound ------------------------------------------------------------------------------------

SOUND = [
    ("WAV", "PCM_U8", "uint8"),
    ("WAV", "PCM_16", "int16"),
    ("WAV", "PCM_24", "int32"),
    ("WAV", "PCM_32", "int32"),
    ("WAV", "FLOAT", "float32"),
    ("WAV", "DOUBLE", "float64"),
    ("FLAC", "PCM_S8", "int8"),
    ("FLAC", "PCM_16", "int16"),
    ("FLAC", "PCM_24", "int32"),
]


@pytest.mark.parametrize(("container", "subtype", "dtype"), SOUND)
@pytest.mark.parametrize("shape", [(500,), (500, 2)])
def test_sound_comes_back_in_its_own_type(
    tmp_path: Path, shape: tuple[int, ...], container: str, subtype: str, dtype: str
) -> None:
    samples = noise(shape, dtype)
    if subtype == "PCM_24":
        samples >>= 8
    metadata = {"sample_rate": 44100, "subtype": subtype}
    name = f"s.{container.lower()}"

    write_media(Media("audio", samples, metadata), tmp_path / name)
    media = read_media(tmp_path / name)

    assert (media.kind, media.values.dtype) == ("audio", np.dtype(dtype))
    np.testing.assert_array_equal(media.values, samples)
    assert (media.metadata["sample_rate"], media.metadata["subtype"]) == (44100, subtype)
    assert_same(again(tmp_path, media, f"again-{name}"), media)


@pytest.mark.parametrize(
    ("container", "subtype", "read_as"),
    [("WAV", "PCM_16", "int16"), ("FLAC", "PCM_24", "int32"), ("WAV", "FLOAT", "float32")],
)
def test_samples_are_those_that_libsndfile_wrote(
    tmp_path: Path, container: str, subtype: str, read_as: str
) -> None:
    content = sound_bytes(noise((300, 2), "float32").clip(-0.9, 0.9), container, subtype)

    media = read(tmp_path, "s.dat", content)

    expected, _ = soundfile.read(io.BytesIO(content), dtype=read_as)
    np.testing.assert_array_equal(media.values, expected >> 8 if subtype == "PCM_24" else expected)


def test_compressed_wav_is_read_as_16_bit_and_says_so(tmp_path: Path) -> None:
    media = read(tmp_path, "s.wav", sound_bytes(noise((300,), "int16"), "WAV", "ULAW"))

    assert media.values.dtype == np.int16
    assert write_media(media, tmp_path / "w.wav") == ["ULAW coding (now 16-bit PCM) left out"]


def test_tags_of_sound_are_named(tmp_path: Path) -> None:
    for name in ("s.wav", "s.flac"):
        with soundfile.SoundFile(tmp_path / name, "w", 8000, 1, "PCM_16") as file:
            file.title = "a title"
            file.write(np.zeros(100, np.int16))

        assert "tags" in read_media(tmp_path / name).metadata["left_out"]


def test_flac_with_a_writer_and_no_tags_leaves_nothing_out(tmp_path: Path) -> None:
    media = read(tmp_path, "s.flac", sound_bytes(noise((300,), "int16"), "FLAC", "PCM_16"))

    assert "left_out" not in media.metadata


@needs_data
def test_real_speech_comes_back(tmp_path: Path) -> None:
    for path in sorted((Path(os.environ["COINPP_DATA"]) / "audio/test").glob("*.flac"))[:5]:
        media = read_media(path)

        assert (media.metadata["sample_rate"], media.values.dtype) == (16000, np.int16)
        assert_same(again(tmp_path, media, "w.flac"), media)


# ---- images -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 2), (7, 9, 3), (7, 9, 4)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_images_come_back(tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: str) -> None:
    pixels = noise(shape, dtype)

    media = again(tmp_path, Media("image", pixels, {"dpi": [300.0, 300.0]}), f"i{suffix}")

    assert (media.kind, media.values.dtype) == ("image", pixels.dtype)
    np.testing.assert_array_equal(media.values, pixels)
    np.testing.assert_allclose(media.metadata["dpi"], 300, rtol=1e-4)
    assert "pages" not in media.metadata
    assert_same(again(tmp_path, media, f"again{suffix}"), media)


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_tiff_holds_other_numbers(tmp_path: Path, shape: tuple[int, ...], dtype: str) -> None:
    media = Media("image", noise(shape, dtype), {"format": "TIFF"})

    assert_same(again(tmp_path, media, "i.tiff"), media)


@pytest.mark.parametrize("shape", [(3, 7, 9), (2, 7, 9, 3)])
def test_pages_of_a_tiff_are_the_first_axis(tmp_path: Path, shape: tuple[int, ...]) -> None:
    media = Media("image", noise(shape, "uint16"), {"format": "TIFF", "pages": shape[0]})

    assert_same(again(tmp_path, media, "i.tif"), media)


def test_channels_of_a_tiff_go_last_even_if_stored_apart(tmp_path: Path) -> None:
    planes = noise((3, 7, 9), "uint8")
    options = {"photometric": TIFF.PHOTOMETRIC.RGB, "planarconfig": TIFF.PLANARCONFIG.SEPARATE}
    content = imagecodecs.tiff_encode(planes, **options)

    media = read(tmp_path, "i.tif", bytes(content))

    np.testing.assert_array_equal(media.values, np.moveaxis(planes, 0, -1))


def test_a_tiff_whose_white_is_zero_stays_so(tmp_path: Path) -> None:
    pixels = noise((7, 9), "uint8")
    content = imagecodecs.tiff_encode(pixels, photometric=TIFF.PHOTOMETRIC.MINISWHITE)

    media = read(tmp_path, "i.tif", bytes(content))

    np.testing.assert_array_equal(media.values, pixels)
    assert media.metadata["white_is_zero"] is True
    assert_same(again(tmp_path, media, "again.tif"), media)


def test_smaller_copies_in_a_tiff_are_no_pages(tmp_path: Path) -> None:
    pixels = noise((8, 10), "uint8")
    content = imagecodecs.tiff_encode(
        pixels[::2, ::2].copy(),
        subfiletype=TIFF.FILETYPE.REDUCEDIMAGE,
        appendto=bytes(imagecodecs.tiff_encode(pixels)),
    )

    media = read(tmp_path, "i.tif", bytes(content))

    np.testing.assert_array_equal(media.values, pixels)
    assert media.metadata["left_out"] == ["smaller copies"]


def test_pages_of_different_shapes_are_refused(tmp_path: Path) -> None:
    pixels = noise((8, 10), "uint8")
    first = bytes(imagecodecs.tiff_encode(pixels))
    content = imagecodecs.tiff_encode(pixels[:4].copy(), appendto=first)

    assert "different shapes" in refusal(lambda: read(tmp_path, "i.tif", bytes(content)))


def test_a_tiff_with_a_palette_is_refused(tmp_path: Path) -> None:
    options = {"photometric": TIFF.PHOTOMETRIC.PALETTE, "colormap": noise((3, 256), "uint16")}
    content = imagecodecs.tiff_encode(noise((7, 9), "uint8"), **options)

    assert "has a palette" in refusal(lambda: read(tmp_path, "i.tif", bytes(content)))


def test_single_bits_become_bytes(tmp_path: Path) -> None:
    bits = noise((7, 9), "uint8") > 99

    media = read(tmp_path, "i.tif", bytes(imagecodecs.tiff_encode(bits)))

    np.testing.assert_array_equal(media.values, bits * np.uint8(255))
    assert media.metadata["left_out"] == ["1 bit per pixel (now 8)"]


def test_colour_space_of_a_png_is_kept_and_other_parts_are_named(tmp_path: Path) -> None:
    content = png_with(
        noise((7, 9), "uint8"),
        (b"gAMA", struct.pack(">I", 45455)),
        (b"iCCP", b"name\0\0" + zlib.compress(b"profile")),
        (b"tEXt", b"Title\0a title"),
        (b"eXIf", b"MM\0*"),
        (b"pHYs", struct.pack(">2IB", 2835, 2835, 1)),
    )

    media = read(tmp_path, "i.png", content)
    notes = write_media(media, tmp_path / "again.png")

    assert notes == ["ICC profile left out", "text left out", "EXIF left out"]
    written = read_media(tmp_path / "again.png").metadata
    assert (written["chunks"], written["dpi"]) == (media.metadata["chunks"], [2835 * 0.0254] * 2)


def test_other_parts_of_a_tiff_are_named(tmp_path: Path) -> None:
    content = imagecodecs.tiff_encode(noise((7, 9), "uint8"), description="a description")

    assert read(tmp_path, "i.tif", bytes(content)).metadata["left_out"] == ["description"]


def test_jpeg_is_read_and_not_written(tmp_path: Path) -> None:
    grey = np.full((16, 24), 77, np.uint8)

    media = read(tmp_path, "i.jpg", bytes(imagecodecs.jpeg_encode(grey)))

    np.testing.assert_array_equal(media.values, grey)
    message = refusal(lambda: write_media(media, tmp_path / "w.jpg"))
    assert message.endswith("write .png or .tif")


@needs_data
def test_real_photographs_come_back(tmp_path: Path) -> None:
    for path in sorted((Path(os.environ["COINPP_DATA"]) / "images/kodak").glob("*.png"))[:3]:
        media = read_media(path)

        written = again(tmp_path, media, "w.png")

        np.testing.assert_array_equal(written.values, media.values)
        assert written.metadata["chunks"] == media.metadata["chunks"]


# ---- arrays -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (4,), (2, 3, 4, 5, 6)])
def test_arrays_of_any_shape_come_back(tmp_path: Path, shape: tuple[int, ...]) -> None:
    media = Media("array", noise(shape, "float64"), {"format": "NumPy"})

    assert_same(again(tmp_path, media, "a.npy"), media)


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    content = npy_bytes(np.array([None]), allow_pickle=True)

    assert "objects" in refusal(lambda: read(tmp_path, "a.npy", content))


# ---- which format -----------------------------------------------------------------------------

FILES: dict[str, Callable[[], bytes]] = {
    "v.nii": lambda: nifti_bytes(noise((9, 9, 9), "int16")),
    "v2.nii": lambda: nifti_bytes(noise((9, 9, 9), "int16"), nibabel.Nifti2Image),
    "v.nii.gz": lambda: gzip.compress(nifti_bytes(noise((9, 9, 9), "int16"))),
    "s.wav": lambda: sound_bytes(noise((999,), "int16"), "WAV", "PCM_16"),
    "s.flac": lambda: sound_bytes(noise((999,), "int16"), "FLAC", "PCM_16"),
    "i.png": lambda: bytes(imagecodecs.png_encode(noise((20, 20), "uint8"))),
    "i.tif": lambda: bytes(imagecodecs.tiff_encode(noise((20, 20), "uint8"))),
    "i.jpg": lambda: bytes(imagecodecs.jpeg_encode(noise((20, 20), "uint8"))),
    "a.npy": lambda: npy_bytes(noise((99,), "int16")),
}
KINDS = {"v": "volume", "s": "audio", "i": "image", "a": "array"}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_known_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    (tmp_path / "wrong.tif").write_bytes(FILES[name]())

    assert guess_kind(tmp_path / "wrong.tif") == KINDS[name[0]]
    assert read_media(tmp_path / "wrong.tif").kind == KINDS[name[0]]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("part", [0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, name: str, part: float) -> None:
    content = FILES[name]()

    message = refusal(lambda: read(tmp_path, name, content[: int(part * len(content))]))

    assert str(tmp_path / name) in message


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_gives_an_array_or_one_line(tmp_path: Path, name: str) -> None:
    content = FILES[name]()
    rng = np.random.default_rng(1)

    messages = []
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(0, min(len(content), 600), 3):
            damaged[place] = rng.integers(256)
        try:
            read(tmp_path, name, bytes(damaged))
        except ValueError as error:
            messages.append(str(error))

    assert not [message for message in messages if "\n" in message]


def test_flac_with_other_samples_than_were_written_is_refused(tmp_path: Path) -> None:
    content = bytearray(FILES["s.flac"]())
    content[26] ^= 1  # of the MD5 sum

    assert "MD5 differs" in refusal(lambda: read(tmp_path, "s.flac", bytes(content)))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("v.nii", b"", "v.nii is empty"),
        ("v.nii", b"<html>not found</html>", "is not NIfTI"),
        ("s.dat", b"<html>not found</html>", "starts with b'<htm'"),
        ("v.hdr", bytes(344) + b"ni1\0", "NIfTI"),
        ("i.png", b"GIF89a", "is not PNG"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    assert reason in refusal(lambda: read(tmp_path, name, content))


def test_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Pair(noise((3, 4, 5), "int16"), np.eye(4)), tmp_path / "v.hdr")

    assert "convert it to one .nii" in refusal(lambda: read_media(tmp_path / "v.hdr"))


@pytest.mark.parametrize("shape", [(4,), (4, 5), (2, 3, 4, 1, 6)])
def test_a_nifti_file_that_is_no_volume_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nibabel.save(nibabel.Nifti1Image(noise(shape, "int16"), np.eye(4)), tmp_path / "v.nii")

    assert "3 or 4 axes" in refusal(lambda: read_media(tmp_path / "v.nii"))


def test_a_typo_in_a_file_name_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "speech.wav").write_bytes(b"")

    message = refusal(lambda: read_media(tmp_path / "spech.wav"), FileNotFoundError)

    assert message.endswith(f"did you mean {tmp_path / 'speech.wav'}?")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    assert "is a folder" in refusal(lambda: read_media(tmp_path))


# ---- writing ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("media", "name", "reason"),
    [
        (Media("volume", np.zeros((3, 4, 5), np.int16)), "w.png", "write .nii, .nii.gz or .npy"),
        (Media("audio", np.zeros(9, np.int16)), "w.nii", "write .wav, .flac or .npy"),
        (Media("audio", np.zeros(9, np.int16)), "w.wav", "'sample_rate': 16000"),
        (Media("audio", np.zeros(9, np.float32), {"sample_rate": 8000}), "w.flac", "write .wav"),
        (Media("audio", np.full(9, 2**30), {"sample_rate": 8000}), "w.wav", "int64"),
        (Media("audio", np.full(9, 2**30, np.int32), {"sample_rate": 8}), "w.flac", "24 bits"),
        (Media("image", np.zeros((4, 5), np.float32)), "w.png", "write .tif"),
        (Media("image", np.zeros((4, 5, 9), np.uint8)), "w.tif", "'pages'"),
        (Media("image", np.zeros((4, 5, 9), np.uint8)), "w.png", "1 to 4 channels"),
        (Media("array", np.zeros((4, 5), np.int16)), "w.nii", "3 or 4 axes"),
        (Media("array", np.zeros((4, 5, 6), np.float16)), "w.nii", "float16"),
        (Media("array", np.zeros(3, np.int16)), "w.xyz", "unknown suffix; known are .nii"),
        (Media("array", np.array([None])), "w.npy", "Object arrays"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(
    tmp_path: Path, media: Media, name: str, reason: str
) -> None:
    assert reason in refusal(lambda: write_media(media, tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    media = Media("array", np.zeros(3))

    message = refusal(lambda: write_media(media, tmp_path / "a/b.npy"), FileNotFoundError)

    assert message.startswith("no such folder")


def test_what_another_format_does_not_hold_is_named(tmp_path: Path) -> None:
    media = Media("audio", np.zeros(9, np.int16), {"sample_rate": 8000, "left_out": ["tags"]})

    notes = write_media(media, tmp_path / "w.npy")

    assert notes == ["tags left out", "NumPy does not hold: sample rate"]


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)

    message = refusal(lambda: read(tmp_path, "v.nii", FILES["v.nii"]()), ImportError)

    assert message.endswith("needs nibabel; install it with: pip install 'coinpp-xr[media]'")
