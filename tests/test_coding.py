"""Quantizer, entropy coder and container."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import entropy
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.quantization import UniformQuantizer

RNG = np.random.default_rng(0)
TRAIN = RNG.standard_normal((4000, 8)) * np.linspace(0.5, 3, 8) + 1
MEAN, STD = TRAIN.mean(0), TRAIN.std(0)
HISTOGRAM = entropy.fit_histogram(TRAIN, MEAN, STD)
HELD_OUT = RNG.standard_normal((256, 8)) * np.linspace(0.5, 3, 8) + 1


@pytest.mark.parametrize("bits", range(1, 17))
def test_quantizer_has_the_papers_levels(bits) -> None:
    """2^b levels, evenly spread from −3σ to +3σ, both included."""
    levels = np.linspace(-3, 3, 2**bits)
    clipped = ((HELD_OUT - MEAN) / STD).clip(-3, 3)
    nearest = levels[np.abs(clipped[:20, :1] - levels).argmin(axis=1)]
    quantizer = UniformQuantizer(MEAN, STD, bits)
    got = quantizer.dequantize(quantizer.quantize(HELD_OUT[:20], clip=True))[:, 0]
    np.testing.assert_allclose((got - MEAN[0]) / STD[0], nearest, atol=1e-5)


def test_clipping_is_optional() -> None:
    quantizer = UniformQuantizer(MEAN, STD, 5)
    far = MEAN + 10 * STD
    assert quantizer.quantize(far[None], clip=True).max() == 31
    assert quantizer.quantize(far[None]).min() > 31


@pytest.mark.parametrize("bits", [0, 17, 5.0, True, "8", None])
def test_bits_outside_1_to_16_are_refused(bits) -> None:
    with pytest.raises(ValueError, match="bits must be a whole number from 1 to 16"):
        UniformQuantizer(MEAN, STD, bits)


def ideal_bits(symbols: np.ndarray, bits: int) -> float:
    """What the tables allow; an escape is a symbol, five bits and the digits of its value."""
    levels, table = 1 << bits, entropy.frequencies(HISTOGRAM, bits)
    cost = np.log2(table.sum(axis=1, keepdims=True)) - np.log2(table)
    escaped = (symbols < 0) | (symbols >= levels)
    coded = np.where(escaped, levels, symbols)
    values = symbols[escaped].astype(np.int64)
    unsigned = np.where(values < 0, -2 * values - 1, 2 * values)
    digits = sum(int(number).bit_length() for number in unsigned)
    return float(cost[np.arange(len(table)), coded].sum()) + 5 * len(values) + digits


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 12, 16])
def test_stream_is_as_short_as_its_tables_allow(bits) -> None:
    symbols = UniformQuantizer(MEAN, STD, bits).quantize(HELD_OUT)
    stream = entropy.encode(symbols, HISTOGRAM, bits)
    ideal = ideal_bits(symbols, bits) / 8
    assert ideal <= len(stream) + 1
    assert len(stream) <= 1.01 * ideal + 8


@pytest.mark.parametrize("bits", [1, 5, 8, 11, 16])
def test_tables_are_integers_of_every_symbol(bits) -> None:
    table = entropy.frequencies(HISTOGRAM, bits)
    assert table.dtype == np.int64
    assert table.shape == (8, 2**bits + 1)
    assert table.min() >= 1


def test_tables_follow_the_training_frequencies() -> None:
    table = entropy.frequencies(HISTOGRAM, 4)
    share = table / table.sum(axis=1, keepdims=True)
    symbols = UniformQuantizer(MEAN, STD, 4).quantize(TRAIN, clip=True)
    seen = np.stack([(symbols == s).mean(axis=0) for s in range(16)], axis=1)
    assert np.abs(share[:, :16] - seen).max() < 0.02


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 16),
    values=st.lists(st.integers(-(2**31), 2**31 - 1), min_size=0, max_size=40),
)
def test_any_symbol_survives(bits, values) -> None:
    symbols = np.resize(np.array(values, dtype=np.int32), (len(values), 8))
    stream = entropy.encode(symbols, HISTOGRAM, bits)
    assert np.array_equal(entropy.decode(stream, len(values), HISTOGRAM, bits), symbols)


@pytest.mark.parametrize(
    "spoil", [lambda s: s[:-4], lambda s: s + bytes([255] * 8), lambda s: s[:-1]]
)
def test_a_stream_of_another_length_is_noticed(spoil) -> None:
    symbols = UniformQuantizer(MEAN, STD, 8).quantize(HELD_OUT)
    stream = entropy.encode(symbols, HISTOGRAM, 8)
    try:
        decoded = entropy.decode(spoil(stream), 256, HISTOGRAM, 8)
    except CorruptPayloadError:
        return
    # Other symbols: only the container's checksum can tell.
    assert not np.array_equal(decoded, symbols)


# ---- container ----------------------------------------------------------------------------


def payload(**changes) -> Payload:
    fields = {
        "kind": Kind.LATENTS, "shape": (12, 46, 90), "dtype": np.dtype("<f4"),
        "sections": {Tag.LATENTS: b"stream"}, "fingerprint": "00ff" * 4, "layout": 3, "bits": 8,
    }  # fmt: skip
    return Payload(**{**fields, **changes})


def with_checksum(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layout": 255, "coordinates_crc": 123456789},
        {"shape": (), "kind": Kind.LOSSLESS, "fingerprint": "", "layout": 0, "bits": 0},
        {"shape": (0, 3), "dtype": np.dtype("<M8[ns]")},
        {"dtype": np.dtype("S7")},
    ],
)
def test_container_round_trip(changes) -> None:
    assert Payload.unpack(payload(**changes).pack()) == payload(**changes)


@pytest.mark.parametrize("shape", [(256, 46, 90), (3000, 721, 1440), (2, 10, 256, 721, 1440)])
@pytest.mark.parametrize("layout", [0, 255])
def test_container_adds_at_most_40_bytes(shape, layout) -> None:
    stream = bytes(20_000)
    packed = payload(shape=shape, layout=layout, sections={Tag.LATENTS: stream}).pack()
    assert len(packed) <= len(stream) + 40


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "too short"),
        (b"PK\x03\x04" + bytes(20), "does not start with CNPP"),
        (payload().pack()[:-3], "checksum"),
        (with_checksum(b"CNPP\x07" + payload().pack()[5:-4]), "format 7"),
        (with_checksum(payload().pack()[:-5]), "cut short"),
        (with_checksum(payload().pack()[:-4] + b"\x02\x00"), "twice"),
        (with_checksum(payload().pack()[:-4] + b"\x63\x00"), "99"),
        (with_checksum(payload().pack()[:5] + b"\x4f" + payload().pack()[6:-4]), "79"),
        (with_checksum(payload().pack()[:6] + b"\xc8" + payload().pack()[7:-4]), "dtype code 200"),
        (with_checksum(payload().pack()[:7] + b"\xfa" + payload().pack()[8:-4]), "250 dimensions"),
    ],
)
def test_damage_is_named_in_one_line(data, message) -> None:
    with pytest.raises(CorruptPayloadError, match=message) as caught:
        Payload.unpack(data)
    assert "\n" not in str(caught.value)


def test_objects_are_refused() -> None:
    with pytest.raises(TypeError, match="plain fixed-size types"):
        payload(dtype=np.dtype(object)).pack()
