"""Images, volumes and sound: every rate control, shape and type; what a user of each relies on."""

from __future__ import annotations

import pickle
from itertools import pairwise
from types import SimpleNamespace

import numcodecs
import numpy as np
import pytest
import zarr
from patch_cases import PatchCase

from coinpp_xr import (
    AudioPatchCodec,
    COINppCodec,
    CorruptPayloadError,
    ImagePatchCodec,
    VolumePatchCodec,
)
from coinpp_xr.bitstream import Payload
from coinpp_xr.fields import round_to
from coinpp_xr.stepping import search_step

CODECS = [ImagePatchCodec, VolumePatchCodec, AudioPatchCodec]
CONTROLS = [
    {"target_rmse": 2.0},
    {"target_psnr": 40.0, "data_range": 100.0},
    {"target_bpp": 2.0},
    {"max_error": 1.5},
    {"max_error_relative": 0.02},
]


def waves(shape, dtype="<f4"):
    rng = np.random.default_rng(3)
    values = 60 + 20 * np.sin(np.indices(shape).sum(axis=0) / 6) + rng.standard_normal(shape)
    return values.astype(dtype)


def photo():
    rows, columns = np.mgrid[:120, :150]
    shapes = 80 * np.sin(rows / 11) * np.cos(columns / 17) + 60 * (rows + columns > 140)
    noise = np.random.default_rng(1).standard_normal((120, 150, 3))
    return np.clip(100 + shapes[..., None] * [1.0, 0.8, 0.5] + 3 * noise, 0, 255).astype(np.uint8)


def rmse(one, other):
    return float(np.sqrt(np.mean((one.astype(np.float64) - other.astype(np.float64)) ** 2)))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: next(iter(c)))
@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<f2", "|u1", ">i2", "<i8", ">i8", ">u8"])
def test_every_control_is_kept(codec, control, dtype) -> None:
    values = waves((3, 21, 40), dtype)
    payload = codec(**control).encode(values)
    decoded = codec(**control).decode(payload)
    assert decoded.shape == values.shape
    assert decoded.dtype == values.dtype
    given, got = values.astype(np.float64), decoded.astype(np.float64)
    if "target_bpp" in control:
        assert 8 * len(payload) <= control["target_bpp"] * values.size + 8 * 100
    elif "max_error" in control:
        assert np.abs(got - given).max() <= control["max_error"]
    elif "max_error_relative" in control:
        assert (np.abs(got - given) <= control["max_error_relative"] * np.abs(given)).all()
    else:
        assert rmse(got, given) <= control.get("target_rmse", 1.0)
    if "max_error_relative" not in control:
        assert Payload.unpack(payload).kind.of_patches


@pytest.mark.parametrize("dtype", ["<i8", ">i8", "<u8", ">u8"])
@pytest.mark.parametrize("around", [2**53 - 40, 2**53 + 40, 2**62])
@pytest.mark.parametrize("control", [{"max_error": 3}, {"max_error_relative": 1e-16}], ids=str)
def test_bound_of_integers_that_no_float_holds(dtype, around, control) -> None:
    values = (waves((21, 40), "i8") + around).astype(dtype)
    values[3, 5:9] = np.iinfo(dtype).max
    values[4, 5:9] = np.iinfo(dtype).min
    made = ImagePatchCodec(**control)
    decoded = made.decode(made.encode(values))
    assert decoded.dtype == values.dtype
    errors = [abs(int(a) - int(b)) for a, b in zip(decoded.ravel(), values.ravel(), strict=True)]
    assert max(errors) <= control.get("max_error", 1)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["<f4", "|u1"])
@pytest.mark.parametrize("control", [{"target_rmse": 0.5}, {"max_error": 0.5}], ids=str)
def test_any_shape(codec, dtype, control) -> None:
    shapes = [
        (1, 1, 1),
        (0, 4, 4),
        (5, 0, 2),
        (1, 1, 1, 1),
        (2, 1, 3, 33, 2),
        (3, 5, 7),
        (65, 3, 1),
    ]
    for shape in shapes:
        values = waves(shape, dtype)
        decoded = codec(**control).decode(codec(**control).encode(values))
        assert decoded.shape == shape
        assert values.size == 0 or rmse(decoded, values) <= 0.5


def test_smooth_data_shrink_and_more_bits_are_better() -> None:
    image = photo()
    sizes, errors = [], []
    for psnr in (30.0, 35.0, 40.0):
        codec = ImagePatchCodec(target_psnr=psnr)
        payload = codec.encode(image)
        error = rmse(codec.decode(payload), image)
        # The target is met closely.
        assert 0.97 < error / (255 / 10 ** (psnr / 20)) <= 1
        sizes.append(len(payload))
        errors.append(error)
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)
    assert sizes[0] < image.nbytes / 100


def test_empty_patches_are_almost_free() -> None:
    volume = np.zeros((64, 64, 64), np.float32)
    volume[10:30, 10:30, 10:30] = waves((20, 20, 20))
    codec = VolumePatchCodec(target_rmse=0.5)
    alone, padded = (len(codec.encode(v)) for v in (volume[8:32, 8:32, 8:32], volume))
    assert padded < 1.6 * alone


def test_channels_share_what_they_have_in_common() -> None:
    grey = photo()[..., 0].astype(np.float32)
    alike = np.stack([grey, 0.5 * grey + 3, 20 - grey], axis=-1)
    for channels, values in (("last", alike), ("first", np.moveaxis(alike, -1, 0).copy())):
        together = len(ImagePatchCodec(target_rmse=2, channels=channels).encode(values))
        apart = len(
            ImagePatchCodec(target_rmse=2, channels="none").encode(np.moveaxis(alike, -1, 0))
        )
        assert together < 0.8 * apart
    auto = ImagePatchCodec(target_rmse=2)
    assert len(auto.encode(alike)) == len(
        ImagePatchCodec(target_rmse=2, channels="last").encode(alike)
    )


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: next(iter(c)))
def test_what_is_no_number_comes_back_bit_for_bit(codec, control) -> None:
    values = waves((3, 30, 40))
    values[0, :10] = np.nan
    values[1, 3, 4:6] = np.inf, -np.inf
    values[2, 5, 5] = np.frombuffer(b"\x01\x00\xc0\x7f", "<f4")[0]
    values[2, 7] = -0.0
    values[0, 20, 20] = 3e38
    decoded = codec(**control).decode(codec(**control).encode(values))
    special = ~np.isfinite(values)
    assert decoded[special].tobytes() == values[special].tobytes()
    if "max_error" in next(iter(control)):
        assert decoded[2, 7].tobytes() == values[2, 7].tobytes()
        with np.errstate(invalid="ignore"):
            error = np.abs(decoded.astype(np.float64) - values)[~special]
        allowed = control.get("max_error") or 0.02 * np.abs(values[~special])
        assert (error <= allowed).all()


@pytest.mark.parametrize("order", ["C", "F", "strided", "reversed"])
def test_memory_order_does_not_matter(order) -> None:
    values = photo()
    turned = {
        "C": values, "F": np.asfortranarray(values), "strided": np.repeat(values, 2, 0)[::2],
        "reversed": values[::-1].copy()[::-1],
    }[order]  # fmt: skip
    codec = ImagePatchCodec(target_psnr=35)
    expected = codec.decode(codec.encode(values))
    np.testing.assert_array_equal(codec.decode(codec.encode(turned)), expected)


@pytest.mark.parametrize(
    ("codec", "values", "region"),
    [
        (ImagePatchCodec(target_psnr=35, band_cells=4096), photo(), np.s_[40:60, 100:]),
        (ImagePatchCodec(max_error=2), photo(), np.s_[3:5]),
        (VolumePatchCodec(target_rmse=1, band_cells=4096), waves((2, 40, 20, 20)), np.s_[1:, :9]),
        (AudioPatchCodec(target_rmse=1, band_cells=1600), waves((9000,)), np.s_[3000:3100]),
    ],
    ids=["bands", "bound", "batch", "sound"],
)
def test_a_region_is_what_the_whole_has_there(codec, values, region) -> None:
    region = region if isinstance(region, tuple) else (region,)
    payload = codec.encode(values)
    expected = codec.decode(payload)[region]
    np.testing.assert_array_equal(codec.decode_region(payload, *region), expected)


def test_a_region_needs_only_its_bands() -> None:
    codec = AudioPatchCodec(target_rmse=1, band_cells=1600)
    payload = Payload.unpack(codec.encode(waves((16000,))))
    sections = dict(payload.sections)
    tag = next(t for t in sections if t.name == "COEFFICIENTS")
    sections[tag] = sections[tag][:-40] + bytes(40)  # the last band
    damaged = Payload(
        payload.kind, payload.shape, payload.dtype, sections, payload.fingerprint,
        exponent=payload.exponent,
    ).pack()  # fmt: skip
    assert codec.decode_region(damaged, slice(0, 1000)).shape == (1000,)
    with pytest.raises(CorruptPayloadError):
        codec.decode(damaged)


@pytest.mark.parametrize("codec", CODECS)
def test_configuration_travels(codec) -> None:
    made = codec(target_psnr=33, data_range=2.5, band_cells=5000)
    assert pickle.loads(pickle.dumps(made)) == made
    assert numcodecs.get_codec(made.get_config()) == made
    assert codec.from_dict(made.to_dict()) == made
    assert made.get_config()["id"] == codec.codec_id


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("codec", "values", "chunks"),
    [
        (ImagePatchCodec(target_rmse=3), photo(), (64, 64, 3)),
        (VolumePatchCodec(target_rmse=1), waves((20, 30, 40)), (16, 16, 40)),
        (AudioPatchCodec(target_rmse=1), waves((2, 5000)), (1, 3000)),
        (ImagePatchCodec(max_error=1), waves((70, 50), ">i8"), (40, 50)),
    ],
    ids=["image", "volume", "sound", "big-endian"],
)
def test_zarr_store(tmp_path, zarr_format, codec, values, chunks) -> None:
    array = zarr.create_array(
        tmp_path / "out.zarr", shape=values.shape, chunks=chunks, dtype=values.dtype,
        zarr_format=zarr_format, compressors=[codec],
    )  # fmt: skip
    array[:] = values
    read = zarr.open_array(tmp_path / "out.zarr", mode="r")[:]
    # Chunks at the edges are filled up, which must not count.
    assert rmse(read, values) <= (codec.target_rmse or codec.max_error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give one rate control: target_psnr"),
        ({"target_psnr": 30, "max_error": 1}, "give one rate control, not"),
        ({"target_psnr": -3}, "positive number in dB"),
        ({"target_bpp": "much"}, "bits per cell"),
        ({"target_psnr": 30, "patch_size": 0}, "patch_size must be"),
        ({"target_psnr": 30, "patch_size": (400, 400, 400)}, "patch_size must be"),
        ({"target_psnr": 30, "channels": "lst"}, "channels must be one of auto, none, first, last"),
        ({"target_psnr": 30, "band_cells": 1.5}, "band_cells must be"),
        ({"target_psnr": 30, "data_range": 0}, "data_range must be"),
    ],
)
@pytest.mark.parametrize("codec", CODECS)
def test_bad_settings(codec, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        codec(**arguments)


def test_too_few_axes() -> None:
    with pytest.raises(ValueError, match="needs at least 3 axes"):
        VolumePatchCodec(target_rmse=1).encode(np.zeros((4, 4)))


@pytest.mark.parametrize("codec", CODECS)
def test_damaged_payloads_are_refused(codec) -> None:
    payload = codec(target_rmse=1.0).encode(waves((3, 20, 20)))
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(payload), 60):
        flipped = bytearray(payload)
        flipped[position] ^= 1 << int(rng.integers(8))
        with pytest.raises(CorruptPayloadError):
            codec(target_rmse=1.0).decode(bytes(flipped))
    for length in (0, 3, 20, len(payload) - 1):
        with pytest.raises(CorruptPayloadError):
            codec(target_rmse=1.0).decode(payload[:length])


def test_empty_slices_do_not_decide_about_the_rest() -> None:
    volume = np.zeros((48, 32, 32), np.float32)
    volume[20:40, 4:28, 4:28] = waves((20, 24, 24))
    codec = VolumePatchCodec(target_bpp=0.5, band_cells=4096)
    payload = codec.encode(volume)
    assert 8 * len(payload) <= 0.5 * volume.size
    assert rmse(codec.decode(payload), volume) < 0.25 * volume.std()


@pytest.mark.parametrize("bpp", [0.3, 0.7, 1.5, 3.0])
def test_bits_per_cell_are_never_exceeded(bpp) -> None:
    values = waves((40, 41))
    values += 0.1 * np.random.default_rng(0).standard_normal(values.shape).astype(values.dtype)
    assert 8 * len(ImagePatchCodec(target_bpp=bpp).encode(values)) <= max(bpp * values.size, 8 * 90)


def test_a_smaller_error_never_takes_fewer_bytes() -> None:
    # Where the error is that of the noise, it hardly depends on the step.
    noise = 0.1 * np.random.default_rng(0).standard_normal((3, 46, 90))
    values = (np.sin(np.indices(noise.shape).sum(axis=0) / 9) + noise).astype(np.float32)
    targets = [1, 0.5, 0.2, 0.12, 0.102, 0.1, 0.098, 0.09, 0.05, 0.01]
    sizes = [len(ImagePatchCodec(target_rmse=target).encode(values)) for target in targets]
    assert all(a <= 1.02 * b for a, b in pairwise(sizes))
    assert sizes[-1] < values.nbytes / 5


@pytest.mark.filterwarnings("ignore:.*of this chunk's standard deviation")
@pytest.mark.parametrize("codec", [*CODECS, COINppCodec])
@pytest.mark.parametrize("magnitude", [1e-300, 1e-40, 1e25, 1e40, 1e200, 1e302])
@pytest.mark.parametrize("share", [0.1, 1e5])
def test_any_magnitude(codec, magnitude, share) -> None:
    values = waves((3, 21, 40), "f8") * magnitude
    for control in ("target_rmse", "max_error"):
        made = codec(**{control: share * magnitude})
        decoded = made.decode(made.encode(values))
        error = np.abs(decoded / magnitude - values / magnitude)
        if control == "max_error":
            assert error.max() <= 1.001 * share
        elif codec is not COINppCodec:  # whose cells have areas
            assert rmse(error, 0 * error) <= 1.001 * share


@pytest.mark.parametrize("dtype", ["|i1", "|u1", ">i2", "<u4", "<i8", ">i8", "<u8", ">u8"])
def test_rounding_is_to_the_nearest_that_the_type_holds(dtype) -> None:
    least, most = np.iinfo(dtype).min, np.iinfo(dtype).max
    values = np.array([-1e300, least, -0.6, -0.4, 0.0, 0.6, 99.5, float(most), 1e300])
    rounded = round_to(values, np.dtype(dtype))
    assert rounded.dtype == np.dtype(dtype)
    assert rounded.tolist() == [least, least, max(-1, least), 0, 0, 1, 100, most, most]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("dtype", ["<f4", ">i4", "<u8"])
@pytest.mark.parametrize("target", [0.3, 3, 30])
def test_an_rmse_takes_no_more_bytes_than_the_same_bound(codec, dtype, target) -> None:
    steps = 1000 * (np.indices((7, 31, 40)).sum(axis=0) // 9).astype(dtype)
    steps[2, 3:9, 4] = 123_456_789
    payloads = [
        codec(**{control: target}).encode(steps) for control in ("target_rmse", "max_error")
    ]
    assert len(payloads[0]) <= len(payloads[1])
    assert rmse(codec(target_rmse=1).decode(payloads[0]), steps) <= target


@pytest.mark.parametrize("codec", CODECS)
def test_what_fits_into_the_rate_is_without_loss(codec) -> None:
    values = np.random.default_rng(0).integers(0, 2, (9, 40, 50)).astype(np.uint8)
    exact = codec(max_error=0.5).encode(values)
    for bpp in (1.5, 4, 16):
        decoded = codec(target_bpp=bpp).decode(codec(target_bpp=bpp).encode(values))
        assert (decoded == values).all()
    assert 8 * len(exact) < 1.5 * values.size


def test_arrays_of_every_kind_under_every_control() -> None:
    rng = np.random.default_rng(0)
    for _ in range(15):
        case = PatchCase.random(rng)
        assert case.check() == "", case


@pytest.mark.parametrize("growing", [True, False])
@pytest.mark.parametrize("cliff", [-1000, -300, -37, 0, 41, 500, 2000])
def test_the_search_does_not_creep_up_to_a_cliff(growing, cliff) -> None:
    """What is measured hardly depends on the step beyond some, and falls steeply before it."""
    sign, tried = (1 if growing else -1), []

    def code(exponent: int) -> SimpleNamespace:
        tried.append(exponent)
        return SimpleNamespace(exponent=exponent)

    def measure(coded: SimpleNamespace) -> float:
        beyond = sign * (coded.exponent - cliff)
        return 1.01 + 1e-5 * min(beyond, 1000) if beyond > 0 else 2 ** (beyond / 8)

    found = search_step(
        code, measure, lambda e: 2.0 ** (sign * e / 32), 1.0, growing=growing, start=0
    )
    assert found is not None
    assert measure(found) <= 1
    assert sign * (cliff - found.exponent) <= max(2, abs(cliff) / 10)
    assert len(tried) <= 20
