"""One media file ↔ one ``.coinpp`` file."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refusal

from coinpp_xr.compressed_file import CompressedFile, cells_of, compress, modality_of
from coinpp_xr.data.media import Media, read_media, write_media
from coinpp_xr.errors import CorruptPayloadError

RNG = np.random.default_rng(5)


def smooth(*shape: int) -> np.ndarray:
    """Waves and a little noise within ±1, float64."""
    waves = np.sin(sum((k + 1.3) * axis / 7 for k, axis in enumerate(np.indices(shape))))
    return np.asarray(0.9 * waves + 0.05 * RNG.uniform(-1, 1, shape))


def whole(dtype: str, *shape: int) -> np.ndarray:
    limits = np.iinfo(dtype)
    middle = (float(limits.max) + limits.min) / 2
    return (middle + smooth(*shape) * (limits.max - middle)).astype(dtype)


SOUND = {"sample_rate": 16000}
AFFINE = {"affine": np.diag([2.0, 2.0, 2.5, 1.0]).tolist()}
FILES: dict[str, Media] = {
    "grey.png": Media("image", whole("u1", 40, 50)),
    "grey16.png": Media("image", whole("u2", 40, 50)),
    "alpha.png": Media("image", whole("u1", 20, 30, 2)),
    "rgb.png": Media("image", whole("u1", 40, 50, 3), {"dpi": [300.0, 300.0]}),
    "rgba.png": Media("image", whole("u1", 33, 47, 4)),
    "rgb16.tif": Media("image", whole("u2", 40, 50, 3)),
    "float.tif": Media("image", smooth(40, 50).astype("f4")),
    "pages.tif": Media("image", whole("u1", 3, 40, 50), {"pages": 3}),
    "narrow_pages.tif": Media("image", whole("u1", 5, 40, 3), {"pages": 5}),
    "mono.wav": Media("audio", whole("i2", 4000), SOUND),
    "stereo.wav": Media("audio", whole("i2", 4000, 2), SOUND),
    "float.wav": Media("audio", smooth(4000).astype("f4"), SOUND),
    "deep.wav": Media("audio", whole("i2", 4000) * np.int32(256), SOUND | {"subtype": "PCM_24"}),
    "mono.flac": Media("audio", whole("i2", 4000), SOUND),
    "stereo.flac": Media("audio", whole("i2", 4000, 2), SOUND),
    "volume.nii": Media("volume", whole("i2", 18, 20, 22), AFFINE),
    "volume.nii.gz": Media("volume", smooth(18, 20, 22).astype("f4"), AFFINE),
    "film.nii.gz": Media("volume", whole("u1", 10, 12, 14, 5), AFFINE),
    "line.npy": Media("array", smooth(3000)),
    "plane.npy": Media("array", smooth(40, 50).astype(">f4")),
    "colours.npy": Media("array", whole("u1", 40, 50, 4)),
    "cube.npy": Media("array", whole("i4", 16, 18, 20)),
    "empty.npy": Media("array", np.empty((0, 7), "f4")),
    "bool.npy": Media("array", smooth(40, 50) > 0),
    "complex.npy": Media("array", smooth(40, 50) + 1j),
    "text.npy": Media("array", np.array(["one", "two"])),
    "gaps.npy": Media("array", np.where(smooth(40, 50) > 0.5, np.nan, 2.0)),
}


def through(media: Media, name: str, **rate: float) -> tuple[CompressedFile, Media]:
    """The file, and what is decoded from its bytes."""
    compressed = compress(media, name, modality_of(media), rate)
    return compressed, CompressedFile.unpack(compressed.pack()).media()


@pytest.fixture
def stored(tmp_path: Path) -> Any:
    """What is read back from a file that holds one of FILES."""

    def read(name: str) -> Media:
        write_media(FILES[name], tmp_path / name)
        return read_media(tmp_path / name)

    return read


# ---- round trips --------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_bound_below_the_precision_makes_the_same_file(
    name: str, stored: Any, tmp_path: Path
) -> None:
    media = stored(name)
    tiny = 0.5 if media.values.dtype.kind in "iu" else 1e-30

    _, decoded = through(media, name, max_error=tiny)

    assert (decoded.kind, decoded.metadata) == (media.kind, media.metadata)
    assert decoded.values.dtype == media.values.dtype
    assert decoded.values.shape == media.values.shape
    assert decoded.values.tobytes() == media.values.tobytes()
    write_media(decoded, tmp_path / f"again-{name}")
    again = read_media(tmp_path / f"again-{name}")
    assert again.metadata == media.metadata
    assert again.values.tobytes() == media.values.tobytes()


@pytest.mark.parametrize("name", [name for name in FILES if not name.endswith(".npy")])
def test_psnr_is_at_least_the_target(name: str, stored: Any) -> None:
    media = stored(name)
    values = media.values.astype(np.float64)
    peak = 2.0 if name == "float.wav" else np.ptp(values)
    if media.values.dtype.kind in "iu" and media.kind != "volume":
        limits = np.iinfo(media.values.dtype)
        peak = 2**24 - 1 if name == "deep.wav" else float(limits.max) - limits.min

    _, decoded = through(media, name, target_psnr=35)

    rmse = np.sqrt(np.mean((decoded.values.astype(np.float64) - values) ** 2))
    assert 0 < rmse <= peak / 10 ** (35 / 20)


@pytest.mark.parametrize("name", ["rgb.png", "pages.tif", "stereo.wav", "film.nii.gz"])
def test_bits_count_the_whole_file(name: str, stored: Any) -> None:
    media = stored(name)

    compressed, _ = through(media, name, target_bpp=1.5)

    bits = 8 * len(compressed.pack()) / cells_of(media.values.shape, compressed.codec)
    assert 1.3 < bits <= 1.5


def test_kbps_count_all_channels(stored: Any) -> None:
    compressed, _ = through(stored("stereo.wav"), "stereo.wav", kbps=24)

    kbps = 8 * len(compressed.pack()) / (4000 / 16000) / 1000
    assert 22 < kbps <= 24


def test_more_time_in_a_volume_is_more_volumes() -> None:
    volume = whole("i2", 16, 16, 16)
    film = np.repeat(volume[..., None], 3, axis=-1)
    once, thrice = (
        len(through(Media("volume", values), "v.nii", target_rmse=300)[0].payload)
        for values in (volume, film)
    )

    assert once < thrice < 3.3 * once


@pytest.mark.parametrize("slope", [0.25, -20.0])
def test_errors_are_in_the_unit_after_scl_slope(slope: float) -> None:
    values = whole("i2", 16, 16, 16) // 8
    media = Media("volume", values, {"scl_slope": slope, "scl_inter": 7.0})

    _, bounded = through(media, "v.nii", max_error=100)
    _, close = through(media, "v.nii", target_rmse=100)

    error = abs(slope) * (bounded.values.astype("f8") - values)
    assert 90 / 1.3 < np.abs(error).max() <= 100
    error = slope * (close.values.astype("f8") - values)
    assert 60 < np.sqrt(np.mean(error**2)) <= 100


def test_a_relative_bound_needs_a_true_zero() -> None:
    media = Media("volume", whole("i2", 8, 8, 8), {"scl_slope": 2.0, "scl_inter": 7.0})

    assert "scl_inter" in refusal(lambda: through(media, "v.nii", max_error_relative=0.1))


def test_kbps_are_for_sound() -> None:
    for media in (FILES["grey.png"], FILES["line.npy"]):
        assert "target_bpp" in refusal(lambda media=media: through(media, "x", kbps=6))


@pytest.mark.parametrize(
    ("shape", "modality"),
    [((9,), "audio"), ((9, 9), "image"), ((9, 9, 3), "image"), ((9, 9, 9), "volume")],
)
def test_arrays_are_taken_for_what_they_look_like(shape: tuple[int, ...], modality: str) -> None:
    assert modality_of(Media("array", np.zeros(shape))) == modality


def test_arrays_can_be_called_something_else() -> None:
    media = Media("array", smooth(6, 20, 20))

    assert modality_of(media, "image") == "image"
    assert compress(media, "a.npy", "image", {"max_error": 0.1}).media().kind == "array"


@pytest.mark.parametrize(
    ("media", "wanted", "hint"),
    [
        (Media("array", np.zeros((2, 2, 2, 2))), None, "volume"),
        (Media("array", np.zeros(())), None, "shape"),
        (Media("array", np.zeros(3)), "film", "'film'"),
        (FILES["grey.png"], "audio", "image"),
    ],
)
def test_what_cannot_be_taken_for_anything_is_said(
    media: Media, wanted: str | None, hint: str
) -> None:
    assert hint in refusal(lambda: modality_of(media, wanted))


def test_records_are_refused() -> None:
    media = Media("array", np.zeros(9, [("x", "f4"), ("y", "f4")]))

    assert "dtype" in refusal(lambda: through(media, "a.npy", max_error=1))


# ---- the container ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "most"),
    [("mono.wav", 70), ("stereo.flac", 70), ("rgb.png", 80), ("volume.nii", 500)],
)
def test_the_container_is_small(name: str, most: int, stored: Any) -> None:
    media = stored(name)
    compressed = compress(media, name, modality_of(media), {"target_psnr": 40})

    assert len(compressed.pack()) - len(compressed.payload) < most


def test_files_of_format_1_are_read() -> None:
    found = CompressedFile.unpack(
        bytes.fromhex(
            "434e50460183b8b304985429702b72728c29353048b544a43d6ceec8cd4f49cd41e4102cce020070"
            "61796c6f6164084e1e1c"
        )
    )

    assert found.name == "tone.wav"
    assert found.metadata == {"format": "WAV", "sample_rate": 16000, "left_out": ["é"]}
    assert found.codec == {"id": "coinpp-audio", "model": "none", "target_psnr": 60.0}
    assert found.payload == b"payload"


@pytest.fixture(scope="module")
def data() -> bytes:
    media = Media("audio", whole("i2", 2000), SOUND)
    return compress(media, "tone.wav", "audio", {"target_psnr": 30}).pack()


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def decode(data: bytes) -> Media:
    return CompressedFile.unpack(data).media()


def test_a_file_cut_short_is_refused_wherever(data: bytes) -> None:
    for length in range(len(data)):
        refusal(lambda length=length: decode(data[:length]), CorruptPayloadError)


def test_a_flipped_bit_is_refused_wherever(data: bytes) -> None:
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << position % 8
        refusal(lambda damaged=damaged: decode(bytes(damaged)), CorruptPayloadError)


def test_damage_under_a_valid_checksum_is_refused_or_decoded(data: bytes) -> None:
    refused = 0
    for position in range(5, len(data) - 4, 3):
        damaged = bytearray(data[:-4])
        damaged[position] ^= 1 << position % 8
        try:
            decode(sealed(bytes(damaged)))
        except CorruptPayloadError:
            refused += 1
    assert refused


CONFIG = {"id": "coinpp-image", "model": "none", "max_error": 1}


@pytest.mark.parametrize(
    "change",
    [
        {"n": 3}, {"k": "film"}, {"k": []}, {"m": []}, {"c": {}}, {"c": {"id": "pickle"}},
        {"c": CONFIG | {"max_error": None}}, {"c": CONFIG | {"max_error": -1}},
        {"c": CONFIG | {"nonsense": 1}}, {"c": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_header_of_nonsense_is_refused(change: dict[str, Any]) -> None:
    header = {"n": "a", "k": "image", "m": {}, "c": CONFIG}

    refusal(lambda: decode(with_header(json.dumps(header | change))), CorruptPayloadError)


@pytest.mark.parametrize("header", ["", "[]", "{}", "[" * 100_000, "1" * 5000, "\x00", "\udce9"])
def test_what_is_no_header_is_refused(header: str) -> None:
    refusal(lambda: decode(with_header(header)), CorruptPayloadError)


def test_a_header_that_unpacks_to_gigabytes_is_refused() -> None:
    bomb = " " * (1 << 26) + "{}"

    refusal(lambda: decode(with_header(bomb)), CorruptPayloadError)


def test_metadata_beyond_all_measure_is_not_written() -> None:
    media = Media("image", whole("u1", 8, 8), {"comment": "x" * (1 << 26)})

    assert "metadata" in refusal(lambda: compress(media, "a", "image", {"max_error": 1}).pack())


def with_header(header: str) -> bytes:
    """A file with that in place of its JSON, and a valid checksum."""
    deflate = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = deflate.compress(header.encode("utf-8", "surrogateescape")) + deflate.flush()
    return sealed(b"CNPF\x01" + packed)
