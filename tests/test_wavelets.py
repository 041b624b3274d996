"""Fields in wavelets: the transform, what is promised, and one field at a time."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import COINppArrayCodec
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coding.wavelets import lifting, parameters
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.encoding import Coded
from coinpp_xr.coding.wavelets.estimating import estimated_bits
from coinpp_xr.coding.wavelets.filling import filled
from coinpp_xr.coding.wavelets.meeting import Meeting
from coinpp_xr.coding.wavelets.parameters import Told
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.stream import Head
from coinpp_xr.coding.wavelets.subbands import Wavelets, subbands_of
from coinpp_xr.coding.wavelets.waves import Waves
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.field_reading import FieldReader
from coinpp_xr.fields import Fields, Sequences
from coinpp_xr.lattice import Bound
from coinpp_xr.recognition import layouts_of

SHAPE = (120, 144)
GRID = layouts_of(*SHAPE)[0]


def weather(times: int, seed: int = 0) -> np.ndarray:
    """Fields with a steep spectrum and coasts that change slowly, shape (times, 120, 144)."""
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(2 * SHAPE[0])[:, None], np.fft.fftfreq(SHAPE[1]))
    noise = np.fft.fft2(rng.standard_normal((times, 2 * SHAPE[0], SHAPE[1])))
    rough = np.fft.ifft2(noise / (frequency + 0.01) ** 2).real[:, : SHAPE[0]]
    slow = rough[:1] + 0.3 * rough.cumsum(axis=0)
    slow = slow / slow.std()
    return 280 + 10 * slow + 4 * np.tanh(9 * np.roll(slow, 40, axis=2))


def weighted_rmse(got: np.ndarray, wanted: np.ndarray) -> float:
    areas = GRID.area_weights.reshape(SHAPE) * np.isfinite(wanted)
    squared = np.nan_to_num(got.astype(np.float64) - wanted.astype(np.float64)) ** 2
    return float(np.sqrt((areas * squared).sum() / areas.sum()))


def encoded(values: np.ndarray, target: float, **options) -> bytes:
    """A payload in wavelets: at this effort nothing else is tried at such errors."""
    payload = encode_chunk(values, None, target_rmse=target, grid=GRID, effort="fast", **options)
    assert Payload.unpack(payload).kind == Kind.WAVELETS
    return payload


def decoded(payload: bytes) -> np.ndarray:
    return decode_chunk(payload, {}.__getitem__, grid=GRID)


def arrays_of(values: np.ndarray, target: float, grid=GRID, **how: bool) -> Arrays:
    fields = Fields.of_sequence(values, grid)
    every = Sequences.of((len(values),), 0, np.ones(len(values), np.bool_))
    return Arrays(fields, every, fields.valid, target, **how)


def met(
    values: np.ndarray, target: float, effort: str = "default", grid=GRID, **how: bool
) -> Coded:
    found = Meeting(arrays_of(values, target, grid, **how), target, effort).smallest()
    assert found is not None
    return found


def fields_of(found: Coded, values: np.ndarray, grid=GRID, items=None) -> np.ndarray:
    """What is decoded of them, zeros elsewhere."""
    fields, got = Fields.of_sequence(values, grid), np.zeros(values.shape, np.float32)
    order = np.arange(len(values))[None]
    head = Head(found.head, fields.present, order, grid, values.size * 4)
    for item, field in head.decode(lambda a, b: found.streams[a:b], items):
        got[item] = field
    return got


# ---- the transform -------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 45), st.integers(2, 45), st.booleans(), st.integers(0, 2**32 - 1))
def test_a_field_comes_back(rows, columns, around, seed) -> None:
    field = np.random.default_rng(seed).standard_normal((rows, columns)).cumsum(1)
    averages, details = lifting.analyse(field, around=around)
    assert len(details) == lifting.level_count(field.shape)
    again = lifting.synthesise(averages, details, field.shape, around=around)
    assert np.allclose(again, field, rtol=0, atol=1e-11 * max(1, np.abs(field).max()))


def test_large_fields_come_back_by_threads() -> None:
    field = np.random.default_rng(1).standard_normal((700, 901))
    again = lifting.synthesise(*lifting.analyse(field, around=False), field.shape, around=False)
    assert np.allclose(again, field, rtol=0, atol=1e-12)


def test_longitudes_are_all_alike() -> None:
    """A field that is turned has coefficients that are turned, as far as columns are halved."""
    field = weather(1)[0]
    (low, high), (low_turned, high_turned) = (
        lifting.analyse(np.roll(field, turn, axis=1), around=True) for turn in (0, 16)
    )
    for one, other in zip(high[:4], high_turned[:4], strict=True):
        shift = 16 * one.across.shape[1] // SHAPE[1]
        for part, turned in zip(one, other, strict=True):
            assert np.allclose(np.roll(part, shift, axis=1), turned, atol=1e-9)
    assert np.allclose(np.roll(low, 1, axis=1), low_turned, atol=1e-9)


@pytest.mark.parametrize("kind", range(4))
def test_errors_of_all_subbands_count_alike(kind) -> None:
    """A unit in the middle of a subband changes the field by about one, as areas measure it."""
    shape, areas = (512, 512), np.ones(512)
    transform = Wavelets(shape, areas, around=True)
    for number, subband in enumerate(subbands_of(shape)):
        if subband.kind != kind or subband.level > 4:
            continue
        parts = [np.zeros(s.shape) for s in transform.subbands]
        parts[number][subband.shape[0] // 2, subband.shape[1] // 2] = 1
        (field,) = transform.inverse([parts])
        assert np.sqrt((field**2).sum()) == pytest.approx(1, rel=2e-3)


def test_gaps_are_closed_smoothly() -> None:
    field, valid = weather(1)[0], np.ones(SHAPE, np.bool_)
    valid[30:90, 40:110] = False
    closed = filled(np.where(valid, field, np.nan), valid)
    assert np.isfinite(closed).all()
    assert (closed[valid] == field[valid]).all()
    assert field[valid].min() <= closed.min()
    assert closed.max() <= field[valid].max()
    roughness = [np.abs(np.diff(x[35:85, 45:105], 2)).mean() for x in (closed, field)]
    assert roughness[0] < 0.2 * roughness[1]


# ---- what is promised ----------------------------------------------------------------------------


@pytest.mark.parametrize("effort", ["fast", "default", "best"])
@pytest.mark.parametrize("target", [0.01, 0.1, 1.0])
def test_the_target_is_met_and_nearly_reached(target, effort) -> None:
    values = weather(1).astype(np.float32)
    got = fields_of(met(values, target, effort), values, GRID)
    assert 0.97 * target < weighted_rmse(got, values) <= target


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_sequences_of_all_types(dtype) -> None:
    values = weather(7).astype(dtype)
    values[3] = np.nan
    values[:, 20:50, 30:70] = np.nan
    values[1, 0, 0] = np.inf
    payload = encoded(values, 0.5)
    got = decoded(payload)
    assert got.dtype == dtype
    assert (np.isnan(got) == np.isnan(values)).all()
    assert got[1, 0, 0] == np.inf
    assert weighted_rmse(got, np.where(np.isfinite(values), values, np.nan)) <= 0.5


def test_fields_that_follow_each_other_help() -> None:
    values = weather(9).astype(np.float32)
    together = len(encoded(values, 0.5))
    assert together < 0.9 * sum(len(encoded(field[None], 0.5)) for field in values)


def test_values_that_many_cells_share_come_back_exactly() -> None:
    values = np.maximum(weather(2) - 280, 0).astype(np.float32)
    got = decoded(encoded(values, 1.5))
    assert (got[values == 0] == 0).all()
    assert weighted_rmse(got, values) <= 1.5


def test_it_is_smaller_than_a_bound_of_the_same_error() -> None:
    values = weather(1, seed=3).astype(np.float32)
    bound = encode_chunk(values, None, bound=Bound(1.8), grid=GRID)
    target = weighted_rmse(decoded(bound), values)
    assert len(encoded(values, target)) < 0.8 * len(bound)


def test_threads_do_not_matter(monkeypatch) -> None:
    """Of a field that is coded in two bands of rows."""
    grid = layouts_of(720, 1440)[0]
    rng = np.random.default_rng(4)
    values = rng.standard_normal((1, 720, 1440)).cumsum(1).cumsum(2).astype(np.float32)
    payloads = []
    for threads in ("1", "2"):
        monkeypatch.setenv("COINPP_XR_THREADS", threads)
        found = met(values, 3.0, grid=grid)
        payloads.append(found.head + found.streams)
        got = fields_of(found, values, grid)
        fields = Fields.of_sequence(values, grid)
        assert fields.mean_squared_error(got.reshape(1, -1)) <= 9.0
    assert payloads[0] == payloads[1]


# ---- other transforms ----------------------------------------------------------------------------

HOW = [
    {"waves": waves, "along_time": along_time}
    for waves in (False, True)
    for along_time in (False, True)
]


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("target", [0.05, 1.0, 4.0])
def test_every_transform_meets_the_target(how, target) -> None:
    values = weather(5).astype(np.float32)
    values[3, :, 20:40] = np.nan
    values[1] = np.nan
    got = fields_of(met(values, target, **how), values)
    # Its own guess at a step is no more than a beginning.
    assert 0.95 * target < weighted_rmse(got, values) <= target


def test_waves_are_orthonormal_and_come_back() -> None:
    values = weather(2)
    transform = Waves(GRID)
    coefficients = transform.forward(list(values))
    for field, again in zip(values, transform.inverse(coefficients), strict=True):
        assert np.allclose(field, again, atol=1e-8)
    waves = np.zeros(SHAPE)
    waves[3, 7] = 17280
    (field,) = transform.inverse([[waves]])
    assert weighted_rmse(field, np.zeros(SHAPE)) ** 2 == pytest.approx(
        SHAPE[0] * SHAPE[1], rel=0.05
    )


def test_the_lowest_waves_alone_are_the_same_as_among_zeros() -> None:
    rng, all_ = np.random.default_rng(8), np.zeros(SHAPE)
    all_[:9, :14] = rng.standard_normal((9, 14))
    (wanted,), (got,) = (
        Waves(GRID, extent).inverse([[all_[: extent[0], : extent[1]]]])
        for extent in (SHAPE, (9, 14))
    )
    assert np.allclose(wanted, got, atol=1e-12)


def test_fields_of_an_annual_cycle_take_less_along_time() -> None:
    months = np.cos(2 * np.pi * np.arange(24) / 12)[:, None, None]
    values = (280 + 20 * months * weather(1) / 280 + 0.2 * weather(24, seed=5)).astype(np.float32)
    alone, along = (met(values, 0.5, along_time=along) for along in (False, True))
    assert len(along) < 0.9 * len(alone)
    payload = encode_chunk(values, None, target_rmse=0.5, grid=GRID)
    assert len(payload) < len(along) + 100


def test_fields_along_time_are_read_by_sequences() -> None:
    values = weather(12).astype(np.float32).reshape(2, 6, *SHAPE)
    fields = Fields.of_sequence(values.reshape(12, *SHAPE), GRID)
    order = Sequences.of((2, 6), 1, np.ones(12, np.bool_))
    arrays = Arrays(fields, order, fields.valid, 0.5, along_time=True)
    found = Meeting(arrays, 0.5, "default").smallest()
    head = Head(found.head, fields.present, order.order, GRID, values.nbytes)
    for item, others in ((2, set(range(6))), (8, set(range(6, 12)))):
        assert (head.ranges({item})[-1][1] == len(found.streams)) == (item == 8)
        got = dict(head.decode(lambda a, b: found.streams[a:b], {item}))
        assert set(got) == {item} <= others
        assert weighted_rmse(got[item], values.reshape(-1, *SHAPE)[item]) < 1.0


@pytest.mark.parametrize("target", [0.1, 1.0])
def test_guesses_tell_which_transform_is_shorter(target) -> None:
    smooth = met(weather(4).astype(np.float32), 2.0, waves=True)
    band_limited = fields_of(smooth, weather(4).astype(np.float32))
    for values in (weather(4).astype(np.float32), band_limited):
        sizes = [len(met(values, target, **how)) for how in HOW]
        bits = [estimated_bits(arrays_of(values, target, **how), target) for how in HOW]
        near = [size for size, guess in zip(sizes, bits, strict=True) if guess < 1.1 * min(bits)]
        assert min(near) <= 1.05 * min(sizes)
        for size, guess in zip(sizes, bits, strict=True):
            assert 0.7 < guess / (8 * size) < 1.6


def test_next_to_nothing_takes_few_bytes() -> None:
    """One short stream stands in the head, with no index."""
    values = weather(1).astype(np.float32)
    payload = encode_chunk(values, None, target_rmse=3.0, grid=GRID)
    assert Tag.STREAMS not in Payload.unpack(payload).sections
    assert len(payload) < 200
    assert weighted_rmse(decoded(payload), values) <= 3.0


@pytest.mark.parametrize("along_time", [False, True])
def test_nothing_but_a_mean(along_time) -> None:
    """Fields all of whose coefficients are below the step."""
    values = (280 + 1e-3 * weather(3)).astype(np.float32)
    got = fields_of(met(values, 1.0, along_time=along_time), values)
    assert weighted_rmse(got, values) <= 1.0


# ---- one field at a time -------------------------------------------------------------------------


def test_one_field_needs_its_own_bytes_and_those_of_few_others() -> None:
    values = weather(16).astype(np.float32)
    payload = Payload.unpack(encoded(values, 0.5))
    whole, streams = decoded(payload.pack()), payload.section(Tag.STREAMS)
    for item in (0, 3, 9, 15):
        reader, read = FieldReader(payload, None, GRID), []

        def part(start: int, end: int, read=read) -> bytes:
            read.append(end - start)
            return streams[start:end]

        assert (reader.decode(part, {item})[item] == whole[item]).all()
        assert sum(read) == sum(end - start for start, end in reader.ranges({item}))
        assert sum(read) < 0.7 * len(streams)


def test_a_selection_of_a_store_is_that_of_all_of_it(tmp_path) -> None:
    values = weather(6).astype(np.float32)
    array = zarr.create_array(
        tmp_path / "x", shape=values.shape, chunks=values.shape, dtype="f4",
        serializer=COINppArrayCodec("none", target_rmse=0.1), compressors=None,
    )  # fmt: skip
    array[:] = values
    whole = array[:]
    for item in (0, 2, 5, 2):
        assert (array[item, 10:20] == whole[item, 10:20]).all()


# ---- damage --------------------------------------------------------------------------------------


def test_damage_is_told_in_one_line() -> None:
    good = Payload.unpack(encoded(weather(3).astype(np.float32), 0.3))
    head = good.section(Tag.WAVELETS)
    rng = np.random.default_rng(6)
    for _ in range(60):
        new = bytearray(head)
        new[int(rng.integers(len(new)))] ^= int(rng.integers(1, 256))
        changed = replace(good, sections=good.sections | {Tag.WAVELETS: bytes(new)})
        with suppress(CorruptPayloadError):  # and nothing else
            decoded(changed.pack())
    for length in (0, 5, 20, len(head) - 1):
        cut = replace(good, sections=good.sections | {Tag.WAVELETS: head[:length]})
        with pytest.raises(CorruptPayloadError):
            decoded(cut.pack())


def test_waves_of_grids_out_of_proportion_are_refused() -> None:
    """Before matrices of cosines are made, of 60,000 columns."""
    found = met(weather(1).astype(np.float32), 3.0, waves=True)
    grid = layouts_of(16, 60_000)[0]
    with pytest.raises(CorruptPayloadError, match="no transform"):
        Head(found.head, np.ones(1, np.bool_), np.zeros((1, 1), int), grid, 4 * 16 * 60_000)


def test_parameters_come_back() -> None:
    rng = np.random.default_rng(7)
    subbands = subbands_of((40, 80))
    references = [0, 1, 2]
    told = [
        [
            Told(
                parameters.GRADES[rng.integers(0, len(parameters.GRADES), 9)],
                rng.integers(-100, 100, count),
            )
            for _ in subbands
        ]
        for count in references
    ]  # fmt: skip
    said, _ = parameters.code(told, None, references, subbands)
    _, again = parameters.code(None, said, references, subbands)
    for one, other in zip(told, again, strict=True):
        for a, b in zip(one, other, strict=True):
            assert (a.coefficients == b.coefficients).all()
            assert (a.weights == b.weights).all()
    _, usual = parameters.code(None, b"", references, subbands)
    assert parameters.code(usual, None, references, subbands)[0] == b""
    with pytest.raises(CorruptPayloadError):
        parameters.code(None, said[:-4], references, subbands)


def test_steps_come_back() -> None:
    steps = Steps(0.125, (16 / 256, 8 / 256, 3 / 256))
    assert Steps.unpack(steps.pack()) == steps
    values = steps.values(np.array([[0, 1, -1, 2, -5]], np.int32))
    assert values.tolist() == [
        [0, 0.125 * 15 / 16, -0.125 * 15 / 16, 0.125 * (2 - 1 / 32), -0.125 * (5 - 3 / 256)]
    ]
    for data in (b"", bytes(7), Steps(np.inf, (0, 0, 0)).pack()):
        with pytest.raises(CorruptPayloadError):
            Steps.unpack(data)
