"""Whole numbers digit by digit: any fields come back, and damaged streams are refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import COINppCodec, CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.coding import digits


def encoded(
    fields: np.ndarray, valid: np.ndarray | None = None, *, times: int | None = None, **options
) -> tuple[bytes, np.ndarray, np.ndarray]:
    valid = np.ones(fields.shape, np.bool_) if valid is None else valid
    order = np.arange(len(fields)).reshape(-1, times or len(fields))
    counted = fields[valid]
    ends = (int(counted.min()), int(counted.max())) if counted.size else (0, 0)
    settings = {"around": True, "copying": False, **options}
    shape = fields.shape[1:]
    section = digits.encode(order, lambda k: (fields[k], valid[k]), shape, ends, **settings)
    return section, order, valid


def decoded(section: bytes, order: np.ndarray, valid: np.ndarray) -> np.ndarray:
    found = np.zeros(valid.shape, np.int64)
    shape, coded = valid.shape[1:], int(valid.sum())
    for item, numbers in digits.decode(section, order, lambda k: valid[k], shape, coded):
        found[item] = numbers
    return found


def check(fields: np.ndarray, valid: np.ndarray | None = None, **options) -> int:
    section, order, valid = encoded(fields, valid, **options)
    back = decoded(section, order, valid)
    assert (back[valid] == fields[valid]).all()
    return len(section)


@given(
    st.integers(1, 5), st.integers(1, 9), st.integers(1, 12), st.integers(0, 24), st.booleans(),
    st.booleans(), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_any_fields_come_back(items, rows, columns, size, around, copying, seed) -> None:
    rng = np.random.default_rng(seed)
    fields = rng.integers(-(1 << size), (1 << size) + 1, (items, rows, columns))
    if seed % 3 == 0:
        fields = fields.cumsum(2) >> 6
    if seed % 5 == 0:
        fields = np.repeat(fields, 2, axis=2)
    valid = rng.random(fields.shape) < (1.0, 0.7, 0.0)[seed % 3]
    check(np.clip(fields, -(1 << 24), (1 << 24) - 1), valid, around=around, copying=copying)


@pytest.mark.parametrize("copying", [False, True])
def test_extremes(copying) -> None:
    largest = (1 << digits.MOST_DIGITS) - 1
    for fields in (
        np.zeros((2, 3, 4), np.int64),
        np.full((1, 1, 1), -7),
        np.array([[[0, largest] * 8, [largest, 0] * 8]] * 3),
        np.random.default_rng(0).integers(0, largest + 1, (3, 5, 7)) - (1 << 29),
    ):
        check(fields, copying=copying)


def test_noise_takes_no_more_than_it_must() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1, 100, 200))
    assert 8 * check(noise) < 8.2 * noise.size


def test_smooth_fields_take_few_bits() -> None:
    y, x = np.mgrid[:100, :200]
    fields = np.rint(3000 * np.sin(x / 30) * np.cos(y / 20 + np.arange(3)[:, None, None] / 5))
    assert 8 * check(fields.astype(np.int64)) < 1.7 * fields.size


def test_copies_pay_where_there_are_many() -> None:
    rng = np.random.default_rng(2)
    doubled = rng.integers(0, 1 << 16, (1, 60, 60)).repeat(3, axis=2)
    with_copies, without = (check(doubled, copying=flag) for flag in (True, False))
    assert with_copies < 0.85 * without


def test_sequences_start_anew() -> None:
    rng = np.random.default_rng(3)
    fields = rng.integers(0, 1000, (1, 20, 30)) + rng.integers(0, 3, (6, 20, 30))
    one_after_the_other, alone = check(fields), check(fields, times=1)
    assert one_after_the_other < 0.6 * alone
    check(fields, times=3)


def test_bands_of_large_fields_are_coded_by_themselves() -> None:
    y, x = np.mgrid[:1000, :1001]
    field = (np.sin(x / 90) * np.cos(y / 70) * 200).astype(np.int64)[None]
    section, order, valid = encoded(field)
    assert (decoded(section, order, valid) == field).all()


def test_damage_is_refused() -> None:
    rng = np.random.default_rng(4)
    section, order, valid = encoded(rng.integers(0, 5000, (2, 12, 15)))
    for broken in (
        b"", section[:13], section[:-1], section + b"\0", section[:8] + b"\x1a" + section[9:],
        section[:9] + b"\x04" + section[10:], b"\xff" * 7 + b"\x7f" + section[8:],
        section[:10] + b"\0\0\0\0" + section[14:], section[:10] + b"\0\0\0\0",
    ):  # fmt: skip
        with pytest.raises(CorruptPayloadError):
            decoded(broken, order, valid)
    refused = 0
    for _ in range(300):
        broken = bytearray(section)
        broken[int(rng.integers(14, len(section)))] ^= 1 << int(rng.integers(8))
        try:
            decoded(bytes(broken), order, valid)
        except CorruptPayloadError:
            refused += 1
    # The payload's checksum finds the others.
    assert refused > 290


def test_what_is_too_short_is_refused_before_it_is_decoded() -> None:
    section, _, _ = encoded(np.zeros((1, 4, 4), np.int64))
    valid = np.ones((1, 4000, 4000), np.bool_)
    with pytest.raises(CorruptPayloadError, match="do not fit"):
        decoded(section[:10] + section[10:14] * 8 + section[14:], np.zeros((1, 1), int), valid)


# ---- under a bound ------------------------------------------------------------------------------


def showers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Zeros, and what grows out of them by chance."""
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    smooth = np.maximum(np.sin(x / 5) * np.cos(y / 4) - 0.2, 0) ** 2
    return (30 * smooth * np.random.default_rng(seed).lognormal(0, 1, shape)).astype(np.float32)


@pytest.mark.parametrize("dtype", ["f4", ">f8"])
def test_showers_are_coded_digit_by_digit_within_their_bound(dtype) -> None:
    values = showers((2, 60, 90)).astype(dtype)
    values[0, 5:9, 10:20], values[1, 0, 0] = np.nan, -0.0
    codec = COINppCodec(model="none", max_error=0.1)
    payload = codec.encode(values)
    assert Payload.unpack(payload).kind == Kind.DIGITS
    back = codec.decode(payload)
    assert back.dtype == values.dtype
    known = np.isfinite(values)
    error = np.abs(back.astype(float) - values.astype(float))[known]
    assert error.max() <= 0.1
    assert (back[values == 0] == 0).all()
    assert back.tobytes() == codec.decode(payload).tobytes()
    assert back[~known].tobytes() == values[~known].tobytes()
    assert back[known].max() <= values[known].max()
    assert np.signbit(back[1, 0, 0])
    weights = np.cos(np.deg2rad(np.linspace(88.5, -88.5, 60)))[:, None] * known
    off = np.where(known, back.astype(float) - np.where(known, values, 0), 0) * weights
    assert (np.abs(off.sum((1, 2)) / weights.sum((1, 2))) <= 0.1 / 20 * 1.1).all()


def test_fast_does_not_look_for_digits() -> None:
    values = showers((2, 60, 90))
    fast, default = (
        COINppCodec(model="none", max_error=0.1, effort=effort).encode(values)
        for effort in ("fast", "default")
    )
    assert Payload.unpack(fast).kind == Kind.PYRAMID
    assert len(default) < 0.93 * len(fast)


def test_integers_have_no_finish() -> None:
    codec = COINppCodec(model="none", lossless=True)
    values = np.random.default_rng(5).integers(-9, 10, (2, 30, 40)).cumsum(2).astype("i2")
    payload = Payload.unpack(codec.encode(values))
    assert payload.kind == Kind.DIGITS
    payload.sections[Tag.FINISH] = bytes([0])
    with pytest.raises(CorruptPayloadError, match="contradicts itself"):
        codec.decode(payload.pack())


@pytest.mark.parametrize(
    ("shape", "dtype"), [((1, 1 << 17), "f4"), ((1 << 13, 1 << 12), "f4"), ((4, 1 << 13), "f2")]
)
def test_fields_out_of_proportion_are_refused_before_memory_is_taken(shape, dtype) -> None:
    values = np.random.default_rng(0).integers(0, 50, (20, 30)).cumsum(1).astype("f4")
    payload = Payload.unpack(COINppCodec(model="none", lossless=True).encode(values))
    assert payload.kind == Kind.DIGITS
    sections = dict(payload.sections)
    if dtype == "f2":
        sections.pop(Tag.STEPS)
        sections[Tag.MANTISSAS] = b"\0\0\xff\xff\xff\x7f" + bytes(20)
    hostile = replace(payload, shape=shape, dtype=np.dtype(dtype), sections=sections).pack()
    tracemalloc.start()
    try:
        with pytest.raises(CorruptPayloadError):
            COINppCodec(model="none", lossless=True).decode(hostile)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
