"""Without loss: every bit comes back, and what was quantized before takes few bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import coinpp_xr
from coinpp_xr import COINppArrayCodec, COINppCodec, CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.float_digits import Mantissas
from coinpp_xr.source_steps import Arithmetic, SourceSteps, Steps
from coinpp_xr.step_search import find_steps


def field(shape=(3, 20, 30), seed=0) -> np.ndarray:
    """Something smooth with a little noise, of a few hundred steps, as whole numbers."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[-2], : shape[-1]]
    smooth = 300 * np.sin(x / 9) * np.cos(y / 7 + np.arange(np.prod(shape[:-2]))[:, None, None] / 5)
    return np.rint(smooth + 3 * rng.standard_normal(smooth.shape)).astype(np.int64).reshape(shape)


def tenths(n: np.ndarray) -> np.ndarray:
    return n / 10


def grib(n: np.ndarray) -> np.ndarray:
    """Simple packing, as ecCodes unpacks it: E = -2, D = 2."""
    return ((n - n.min()) * 2.0**-2 + float(np.float32(27315.27))) * 10.0**-2


def packed(n: np.ndarray) -> np.ndarray:
    return n * 0.0021312222851791987 + 249.9451242692285


def packed_single(n: np.ndarray) -> np.ndarray:
    return n.astype("f4") * np.float32(0.013) + np.float32(250.7)


def packed_twice(n: np.ndarray) -> np.ndarray:
    """A GRIB message that a download service has written as int16."""
    unpacked = n * 2.0**-9 + 271.3
    lowest, highest = unpacked.min(), unpacked.max()
    scale, offset = (highest - lowest) / 65532, (lowest + highest) / 2
    return np.rint((unpacked - offset) / scale) * scale + offset


ARITHMETIC = [tenths, grib, packed, packed_single]


def is_same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def round_trip(values: np.ndarray, **settings) -> bytes:
    codec = COINppCodec(model="none", max_error=0, **settings)
    payload = codec.encode(values)
    assert is_same(codec.decode(payload), values)
    return payload


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", ">f8"])
@pytest.mark.parametrize("arithmetic", ARITHMETIC)
def test_values_that_were_quantized_come_back_in_few_bytes(arithmetic, dtype) -> None:
    values = arithmetic(field()).astype(dtype)
    payload = round_trip(values)
    # Noise of 3 steps takes 3.6 bits.
    assert 8 * len(payload) < 6.5 * values.size
    assert Tag.STEPS in Payload.unpack(payload).sections


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
def test_efforts(effort) -> None:
    values = tenths(field((2, 3, 20, 30))).astype("f4")
    payload = round_trip(values, effort=effort, time_axis=1)
    assert 8 * len(payload) < 6.5 * values.size


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_was_packed_twice_takes_what_it_took_before(dtype) -> None:
    """Some 29,000 numbers in 65,532."""
    numbers = 48 * field() + np.random.default_rng(5).integers(0, 48, (3, 20, 30))
    values = packed_twice(numbers).astype(dtype)
    steps = find_steps(values.ravel())
    assert steps is not None
    assert steps.ratio == pytest.approx(65532 / np.ptp(numbers), rel=1e-4)
    once = len(round_trip((numbers * 0.25).astype(dtype)))
    assert len(round_trip(values)) < once + 250


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", ">i2", "u2", "i4", "u4"])
def test_integers(dtype) -> None:
    numbers = field()
    if np.dtype(dtype).itemsize == 1:
        numbers = numbers // 8
    values = (numbers - (numbers.min() if np.dtype(dtype).kind == "u" else 0)).astype(dtype)
    payload = round_trip(values)
    assert 8 * len(payload) < 6.5 * values.size


@pytest.mark.parametrize("dtype", ["i8", "u8", "?", "c8", "S3", "f2", "M8[ns]"])
def test_other_types_come_back_too(dtype) -> None:
    round_trip((field((2, 5, 8)) % 50).astype(dtype))


def test_what_is_no_number_and_what_lies_beside_the_steps() -> None:
    values = tenths(field()).astype("f4")
    values[0, :4] = np.nan
    values[1, 3:5, 7:9] = np.array([[np.inf, -np.inf], [-0.0, 0.0]])
    values[2, 0, 0] = np.float32(1e20)
    values[2, 5, 5] = 3.14159
    bits = values.view("u4")
    bits[0, 0, :3] = [0x7FC00001, 0xFFC00000, 0x7F800001]  # NaN with payloads
    round_trip(values)
    round_trip(values[:, ::2, ::-1])
    round_trip(np.asfortranarray(values[0]))


def test_fields_with_steps_of_their_own() -> None:
    numbers = field((4, 20, 30))
    steps = np.array([0.01, 0.02, 0.25, 0.01])[:, None, None]
    values = (numbers * steps + np.array([250, 270.3, 280, 260.017])[:, None, None]).astype("f4")
    payload = Payload.unpack(round_trip(values))
    assert len(SourceSteps.unpack(payload.section(Tag.STEPS), 4).kinds) >= 3


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_what_was_never_quantized(dtype) -> None:
    rng = np.random.default_rng(1)
    values = np.cumsum(rng.standard_normal((2, 20, 30)), axis=2).astype(dtype)
    assert len(round_trip(values)) < 1.1 * values.nbytes
    round_trip(np.full((2, 4, 8), 3.25, dtype))
    round_trip(np.zeros((0, 4, 8), dtype))
    round_trip(np.array([[1e-310, 2.0], [1e308, -1e-300]]))


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["f4", "f8"]),
    step=st.floats(1e-6, 1e3) | st.sampled_from([0.01, 0.1, 0.25, 1e-3, 2.0**-9]),
    offset=st.floats(-1e5, 1e5) | st.sampled_from([0.0, 273.15, 100000.0]),
    ten=st.integers(-1, 4),
    single=st.booleans(),
    gaps=st.sampled_from(["none", "mask", "zeros"]),
    seed=st.integers(0, 3),
)
def test_any_scale_and_offset(dtype, step, offset, ten, single, gaps, seed) -> None:
    numbers = field((2, 12, 18), seed)
    if single:
        values = numbers.astype("f4") * np.float32(step) + np.float32(offset)
    else:
        values = (numbers * step + offset) * 10.0**-ten
    values = values.astype(dtype)
    if gaps == "mask":
        values[:, 3:7, 2:9] = np.nan
    elif gaps == "zeros":
        values[numbers < 0] = -0.0 if seed % 2 else 0.0
    round_trip(values, effort="fast")


def test_a_bound_below_half_a_step_is_met_exactly() -> None:
    values = tenths(field()).astype("f4")
    tiny = COINppCodec(model="none", max_error=1e-6).encode(values)
    assert is_same(COINppCodec(max_error=1, model="none").decode(tiny), values)
    assert len(tiny) <= len(round_trip(values))
    coarse = COINppCodec(model="none", max_error=0.5).encode(values)
    assert len(coarse) < len(tiny)


def test_where_a_field_lies_beside_all_steps_a_bound_still_helps() -> None:
    values = np.rint(field((7, 60, 90))).astype("f4")
    values[6] += np.random.default_rng(5).uniform(-0.4, 0.4, (60, 90)).astype("f4")
    codec = COINppCodec(model="none", max_error=0.3)
    payload = codec.encode(values)
    assert np.abs(codec.decode(payload) - values).max() <= 0.3
    assert len(payload) < 0.8 * len(round_trip(values))


def test_lossless_is_a_bound_of_zero(era5) -> None:
    codec = COINppCodec(model="none", lossless=True)
    assert codec == COINppCodec(model="none", max_error=0)
    assert codec == COINppCodec.from_config(codec.get_config())
    with pytest.raises(ValueError, match="not lossless and max_error"):
        COINppCodec(model="none", lossless=True, max_error=0.5)
    with pytest.raises(ValueError, match="give one rate control"):
        COINppCodec(lossless=True, bits=8)
    with pytest.raises(ValueError, match="must be a positive number"):
        COINppCodec(max_error=-1)
    values = era5.t2m.values
    assert is_same(codec.decode(codec.encode(values)), values)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stores_are_exact_and_say_so(tmp_path, zarr_format) -> None:
    ds = xr.Dataset(
        {
            "t": (("time", "lat", "lon"), tenths(field()).astype("f4"), {"units": "K"}),
            "q": (("time", "lat", "lon"), (field() * 1e-6).astype("f4"), {"units": "kg kg-1"}),
        },
        {"lat": np.linspace(85.5, -85.5, 20), "lon": np.arange(30) * 12.0},
    )
    store = tmp_path / "x.zarr"
    report = ds.coinpp.to_zarr(store, max_error=0, zarr_format=zarr_format, consolidated=False)
    with xr.open_zarr(store, consolidated=False) as back:
        assert back.equals(ds)
        assert not any(key.startswith("lossy") for key in back.t.attrs)
        assert set(back.data_vars) == {"t", "q"}
    assert report["t"].asked == "exact"
    assert report["t"].max_error == 0
    assert "exact" in str(report)
    assert ds.coinpp.verify(store).is_sound


def test_archives_are_exact(tmp_path) -> None:
    values = tenths(field((6, 20, 30))).astype("f4")
    ds = xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"})},
        {"time": np.arange(6), "lat": np.linspace(85.5, -85.5, 20), "lon": np.arange(30) * 12.0},
    )
    report = coinpp_xr.archive(ds, tmp_path / "a.zarr", max_error=0, chunk_time=4, workers=None)
    assert report.is_complete
    with xr.open_zarr(tmp_path / "a.zarr") as back:
        assert is_same(back.t.values, values)
        assert not any(key.startswith("lossy") for key in back.t.attrs)


def test_single_fields_are_read_by_themselves(tmp_path) -> None:
    values = tenths(field((9, 20, 30))).astype("f4")
    codec = COINppArrayCodec(model="none", lossless=True)
    array = zarr.create_array(
        tmp_path / "x", shape=values.shape, chunks=values.shape, dtype="f4", serializer=codec,
        compressors=None,
    )  # fmt: skip
    array[:] = values
    assert is_same(array[4:6], values[4:6])
    codec = COINppCodec(model="none", lossless=True)
    smooth = np.rint(field((4, 60, 90)) / 3).cumsum(-1).cumsum(-2) / 100
    quick = COINppCodec(model="none", lossless=True, effort="fast")
    assert Payload.unpack(quick.encode(smooth)).kind == Kind.PYRAMID
    assert Payload.unpack(codec.encode(values)).kind == Kind.DIGITS


def test_steps_that_make_no_sense_are_refused() -> None:
    values = np.stack([tenths(field()[0]), field()[1] * 0.25]).astype("f4")
    payload = Payload.unpack(round_trip(values))
    section = payload.section(Tag.STEPS)
    assert len(SourceSteps.unpack(section, 2).kinds) == 2
    broken = [
        b"", section[:3], section[:-1], section + b"\0", b"\0\0\0\0" + section[4:],
        b"\xff\xff\xff\xff" + section[4:],
    ]  # fmt: skip
    one = SourceSteps([Steps(0.1)], np.zeros(2, np.intp)).pack()
    for steps in (
        Steps(0.0), Steps(-1.0), Steps(np.nan), Steps(1.0, np.inf), Steps(1.0, factor=0.0),
        Steps(1.0, ratio=0.5), Steps(1.0, first=1 << 62 | 1),
    ):  # fmt: skip
        broken.append(SourceSteps([steps], np.zeros(2, np.intp)).pack())
    broken.append(one[:4] + b"\x09" + one[5:])
    broken.append(SourceSteps([Steps(0.1), Steps(0.2)], np.array([0, 5])).pack())
    for data in broken:
        with pytest.raises(CorruptPayloadError, match="are damaged"):
            SourceSteps.unpack(data, 2)


def test_what_is_exact_has_no_finish() -> None:
    smooth = np.rint(field((4, 60, 90)) / 3).cumsum(-1).cumsum(-2) / 100
    for values in (smooth, field().astype(">i2")):
        payload = Payload.unpack(round_trip(values, effort="fast"))
        payload = replace(payload, sections={Tag.FINISH: bytes(9), **payload.sections})
        with pytest.raises(CorruptPayloadError, match="contradicts itself"):
            COINppCodec(model="none", max_error=0).decode(payload.pack())


def test_searching_finds_what_somebody_wrote() -> None:
    numbers = field().ravel()
    found = find_steps(packed(numbers))
    assert found is not None
    assert found.step == pytest.approx(0.0021312222851791987, rel=1e-14)
    assert found.exactly(packed(numbers))[1].all()
    found = find_steps(grib(numbers))
    assert found is not None
    assert found.arithmetic in (Arithmetic.MULTIPLIED, Arithmetic.DOUBLE, Arithmetic.DIVIDED)
    assert found.exactly(grib(numbers))[1].all()
    assert find_steps(np.random.default_rng(0).standard_normal(5000)) is None
    assert find_steps(np.empty(0, np.float32)) is None


# ---- asked for in other ways, and of other types ------------------------------------------------


def dataset(values: np.ndarray, **attrs) -> xr.Dataset:
    times, n_lat, n_lon = values.shape
    latitude, longitude = np.linspace(85.5, -85.5, n_lat), np.arange(n_lon) * 360 / n_lon
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"} | attrs)},
        {"time": np.arange(times), "lat": latitude, "lon": longitude},
    )


def test_lossless_in_accessor_and_archive(tmp_path) -> None:
    ds = dataset(tenths(field()).astype("f4"))
    result = ds.coinpp.compress(lossless=True, model="none")
    assert is_same(result.dataset.t.values, ds.t.values)
    assert "exact" in str(result.report)
    assert is_same(ds.t.coinpp.compress(lossless=True, model="none").dataarray.values, ds.t.values)
    ds.coinpp.to_zarr(tmp_path / "a.zarr", lossless=True, model="none")
    coinpp_xr.archive(ds, tmp_path / "b.zarr", lossless=True, model="none", workers=None)
    for name in "ab":
        with xr.open_zarr(tmp_path / f"{name}.zarr") as back:
            assert is_same(back.t.values, ds.t.values)
    for control in ({"max_error": 0.1}, {"target_rmse": 1, "bits": 8}):
        with pytest.raises(ValueError, match="give one rate control, not lossless and "):
            ds.coinpp.compress(lossless=True, **control)
    with pytest.raises(ValueError, match="lossless must be True or False, got 'yes'"):
        ds.coinpp.compress(lossless="yes")


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_is_packed_stays_packed(tmp_path, zarr_format) -> None:
    numbers = field().astype("i2")
    numbers[0, 3:9, 4:20] = -32768
    packing = {"scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32768)}
    ds = dataset(numbers, **packing)
    report = ds.coinpp.to_zarr(
        tmp_path / "a.zarr", lossless=True, model="none", zarr_format=zarr_format
    )
    assert report["t"].max_error == 0
    assert 8 * report["t"].nbytes < 7 * numbers.size
    assert ds.coinpp.verify(tmp_path / "a.zarr").is_sound
    unpacked = xr.decode_cf(ds)
    # In the words of xarray, whose packing the codec then never sees.
    unpacked.to_zarr(
        tmp_path / "b.zarr", zarr_format=zarr_format, consolidated=False,
        encoding={"t": {
            **packing, "dtype": "i2", "compressor": COINppCodec("none", lossless=True)
        }},
    )  # fmt: skip
    for name in "ab":
        with xr.open_zarr(tmp_path / f"{name}.zarr", consolidated=name == "a") as back:
            assert {key: back.t.encoding[key] for key in packing} == packing
            assert back.t.encoding["dtype"] == "i2"
            assert is_same(back.t.values, unpacked.t.values)
        with xr.open_zarr(
            tmp_path / f"{name}.zarr", consolidated=name == "a", mask_and_scale=False
        ) as back:
            assert is_same(back.t.values, numbers)


def test_integers_are_compressed_without_loss_only(tmp_path) -> None:
    counts = dataset(field().astype("i4"))
    with pytest.raises(ValueError, match="integers: kept as they are"):
        counts.coinpp.compress(max_error=1, model="none")
    result = counts.coinpp.compress(max_error={"t": 0}, model="none")
    assert is_same(result.dataset.t.values, counts.t.values)
    both = counts.assign(u=counts.t.astype("f4") / 8, flag=("time", [True, False, True]))
    report = both.coinpp.to_zarr(tmp_path / "x.zarr", lossless=True, model="none")
    assert {v.name for v in report.encoded} == {"t", "u"}
    report = coinpp_xr.archive(both, tmp_path / "y.zarr", lossless=True)
    assert report.is_complete


def test_integers_under_a_bound_go_the_same_way() -> None:
    values = field().astype("<i2")
    payload = COINppCodec(model="none", max_error=3).encode(values)
    assert is_same(COINppCodec(model="none", max_error=3).decode(payload), values)
    assert Payload.unpack(payload).kind == Kind.DIGITS
    # What no grid of the codec's is like is kept all the same.
    codec = COINppCodec(model="none", max_error=3, latitude=[10, 0], longitude=[0, 1])
    assert is_same(codec.decode(codec.encode(values)), values)
    # A fill value that many cells share.
    values[:, 2:6] = -32768
    values[:, 0] += 20000
    assert is_same(round_trip_of(values), values)


def round_trip_of(values: np.ndarray) -> np.ndarray:
    codec = COINppCodec(model="none", max_error=0)
    return codec.decode(codec.encode(values))


def test_reports_tell_the_step_that_a_bound_is_finer_than() -> None:
    ds = dataset((field() * np.float32(0.25)).astype("f4"))
    report = ds.coinpp.compress(max_error=0.02, model="none").report
    assert report["t"].source_step == pytest.approx(0.25)
    assert "t: exact (the source's step is 0.25 °C)" in str(report)
    report = ds.coinpp.compress(max_error=0.5, model="none", allow_coarse=True).report
    assert report["t"].source_step is None
    noise = dataset(np.random.default_rng(0).standard_normal((3, 20, 30)).astype("f4"))
    assert noise.coinpp.compress(max_error=0.01, model="none").report["t"].source_step is None


def test_recommended_bounds_below_the_steps_say_so() -> None:
    pytest.importorskip("compression_recommendations")
    for step, finer in ((0.25, True), (0.001, False)):
        ds = dataset((field() * step + 280).astype("f4")).rename(t="t2m")
        (found,) = ds.coinpp.recommend()
        assert ("finer than the source's steps of 0.25: exact" in found.remarks) == finer


# ---- floats that were never quantized -----------------------------------------------------------


@given(
    st.sampled_from(["f4", ">f4", "f8", ">f8", "f2"]), st.sampled_from([0, 1, 2]),
    st.floats(-30, 30), st.integers(0, 2**32),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_floats_that_were_never_quantized_come_back(dtype, axis, power, seed) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((3, 2, 2, 14, 18)).cumsum(-1).cumsum(-2) * 10**power
    with np.errstate(all="ignore"):
        values = values.astype(dtype)
        if seed % 2:
            values[rng.random(values.shape) < 0.05] = rng.choice([np.nan, np.inf, 0, -0.0, 1e-45])
    round_trip(values, time_axis=axis)


def test_floats_that_were_never_quantized_take_fewer_bytes_than_their_planes() -> None:
    rng = np.random.default_rng(0)
    values = (field((3, 60, 90)) + rng.standard_normal((3, 60, 90))).astype("f4")
    payload = round_trip(values)
    assert Tag.MANTISSAS in Payload.unpack(payload).sections
    assert len(payload) < 0.9 * len(round_trip(values, effort="fast"))


def test_damaged_mantissas_are_refused() -> None:
    values = (field() + np.random.default_rng(0).standard_normal((3, 20, 30))).astype("f4")
    payload = Payload.unpack(round_trip(values))
    section = payload.section(Tag.MANTISSAS)
    longer = Mantissas.unpack(section, 1 << 20)
    longer = Mantissas(longer.exponent, longer.planes + b"\0")
    shorter = Mantissas(longer.exponent, longer.planes[:-9])
    for broken in (b"", section[:5], section[:-1], longer.pack(), shorter.pack(),
                   section[:2] + b"\xff\xff\xff\xff" + section[6:]):  # fmt: skip
        payload.sections[Tag.MANTISSAS] = broken
        with pytest.raises(CorruptPayloadError):
            COINppCodec(model="none", max_error=0).decode(payload.pack())
    payload.sections[Tag.MANTISSAS] = section
    payload.sections[Tag.STEPS] = SourceSteps([Steps(0.1)], np.zeros(3, np.intp)).pack()
    with pytest.raises(CorruptPayloadError, match="contradicts itself"):
        COINppCodec(model="none", max_error=0).decode(payload.pack())


# ---- bounds near the steps ----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_a_bound_of_little_more_than_a_step_takes_every_third(dtype) -> None:
    values = (field((3, 90, 180)) * 0.5 + 280).astype(dtype)
    codec = COINppCodec(model="none", max_error=0.55)
    payload = codec.encode(values)
    (steps,) = SourceSteps.unpack(Payload.unpack(payload).section(Tag.STEPS), 3).kinds
    assert steps.step == pytest.approx(1.5)
    assert np.abs(codec.decode(payload).astype(float) - values).max() == pytest.approx(0.5)
    # Log2 of 1.5 / 1.1 is 0.45.
    noise = np.random.default_rng(0).uniform(0, 1e-3, values.shape)
    beside = codec.encode((values + noise).astype(dtype))
    assert 8 * (len(beside) - len(payload)) > 0.25 * values.size


def test_fields_of_other_steps_are_within_their_bound_all_the_same() -> None:
    values = np.stack([field()[0] * 0.5, field()[1] * 0.3 + 0.1, field()[2] * 0.7]) + 280
    codec = COINppCodec(model="none", max_error=0.55)
    assert np.abs(codec.decode(codec.encode(values)) - values).max() <= 0.55


def test_no_multiple_of_steps_goes_beyond_a_bound() -> None:
    for error in (0.5, 1.0, 1.5):  # what rounding adds in single precision would be too much
        values = (field() * np.float32(0.5) + np.float32(280.3)).astype("f4")
        codec = COINppCodec(model="none", max_error=error)
        back = codec.decode(codec.encode(values))
        assert np.abs(back.astype(float) - values.astype(float)).max() <= error
