"""What comes back exactly, stays in its range and keeps its mean, whatever the control."""

from __future__ import annotations

import numpy as np
import pytest
from exact_cases import ExactCase, smooth, wrong
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import COINppCodec, CorruptPayloadError
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.coding import masks
from coinpp_xr.coding.pyramid import stream
from coinpp_xr.coding.pyramid.limits import UNIT, Limits
from coinpp_xr.exact import pack_mask, pack_special_values, unpack_special_values
from coinpp_xr.finishing import Finish
from coinpp_xr.lattice import Bound, Lattice
from coinpp_xr.shared_values import Exactly, are_categories, shared_values, ways_to_keep

# Coarse bounds are meant here.
pytestmark = pytest.mark.filterwarnings("ignore:.*of this chunk's standard deviation")
CONTROLS = (
    {"max_error": 0.05},
    {"max_error": 0.3},
    {"max_error": 0.002},
    {"max_error_relative": 0.02},
    {"target_rmse": 0.03},
    {"target_rmse": 0.2},
)


def check(values, control, effort="fast", **exact):
    rows, columns = values.shape[-2:]
    codec = COINppCodec(
        model="none", effort=effort, **control, **exact,
        latitude=np.linspace(90, -90, rows), longitude=np.arange(columns) * 360 / columns,
    )  # fmt: skip
    payload = codec.encode(values)
    back = codec.decode(payload)
    assert not (what := wrong(values, back, control, exact)), what
    finite = np.isfinite(values).reshape(-1, rows, columns)
    shared = shared_values(values.reshape(-1, rows, columns), finite)
    return payload, back, shared


@pytest.mark.parametrize("part", range(4))
def test_ranges_shared_values_and_means_of_random_fields(part) -> None:
    rng = np.random.default_rng(part)
    for case in (ExactCase.random(rng) for _ in range(40)):
        assert not (what := case.check()), (what, case)


@pytest.mark.parametrize("control", CONTROLS, ids=str)
@pytest.mark.parametrize("effort", ["fast", "default"])
def test_zeros_and_ones_of_a_fraction_come_back(control, effort) -> None:
    values = np.clip(smooth(np.random.default_rng(1), (3, 46, 90)) + 0.3, 0, 1).astype("f4")
    _, back, shared = check(values, control, effort)
    assert set(shared) == {0.0, 1.0}
    assert ((back > 0) & (back < 1)).any()


def test_a_value_in_the_middle_comes_back() -> None:
    rng = np.random.default_rng(2)
    values = smooth(rng, (2, 46, 90))
    values[np.abs(smooth(rng, (2, 46, 90))) < 0.3] = 0.25  # night
    _, _, shared = check(values.astype("f4"), {"max_error": 0.1})
    assert shared == [0.25]


def test_more_shared_values_than_a_lattice_can_hold() -> None:
    rng = np.random.default_rng(3)
    values = np.clip(smooth(rng, (2, 46, 90)), -0.9, 0.9)
    for low, value in ((-0.5, -0.45), (0.1, 0.111), (0.4, 0.47)):
        values[(values > low) & (values < low + 0.15)] = value
    for control in ({"max_error": 0.1}, {"target_rmse": 0.1}):
        _, _, shared = check(values.astype("f4"), control)
        assert len(shared) == 5


def test_values_that_are_named_come_back() -> None:
    values = smooth(np.random.default_rng(4), (2, 30, 60)).astype("f4")
    values[0, 3, 4] = values[1, 7, 7] = 0.125
    for control in ({"max_error": 0.2}, {"target_rmse": 0.2}, {"max_error_relative": 0.1}):
        check(values, control, keep=[0.125, 77.0])


def test_means_can_be_asked_for() -> None:
    values = np.clip(smooth(np.random.default_rng(5), (4, 30, 60)), 0, None).astype("f4")
    for control in ({"max_error": 0.2}, {"target_rmse": 0.2}):
        check(values, control, max_mean_error=1e-4)


def test_values_beyond_the_valid_range_are_no_values() -> None:
    values = np.abs(smooth(np.random.default_rng(6), (2, 30, 60))).astype("f4")
    values[0, :2, :5] = -999.0
    values[1, 4, 4] = -1e30
    codec = COINppCodec("none", max_error=0.1, valid_range=(0, 5))
    back = codec.decode(codec.encode(values))
    outside = values < 0
    assert (back[outside] == values[outside]).all()
    assert back[~outside].min() >= 0
    assert COINppCodec.from_config(codec.get_config()) == codec


def test_a_valid_range_of_packed_numbers_is_not_believed() -> None:
    values = 280 + smooth(np.random.default_rng(7), (2, 30, 60)).astype("f4")
    sizes = [
        len(COINppCodec("none", max_error=0.1, valid_range=ends).encode(values))
        for ends in (None, (-32000, 100))
    ]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("control", [*CONTROLS, {"bits": 4}], ids=str)
def test_flags_are_stored_without_loss(control, tiny_model) -> None:
    rng = np.random.default_rng(8)
    flags = np.floor(3 * smooth(rng, (2, 46, 90))).astype("f4")
    codec = COINppCodec(tiny_model, **control)
    payload = codec.encode(flags)
    assert Payload.unpack(payload).kind == Kind.LOSSLESS
    assert codec.decode(payload).tobytes() == flags.tobytes()


def test_what_are_categories() -> None:
    rng = np.random.default_rng(9)
    everywhere = np.ones((1, 5000), np.bool_)

    def are(values):
        return are_categories(values.reshape(1, -1).astype("f4"), everywhere)

    assert are(rng.integers(0, 200, 5000))
    assert are(rng.choice(rng.standard_normal(100), 5000))
    assert are(rng.integers(0, 9, 5000) / 8)
    assert not are(rng.integers(0, 200, 5000) / 254)  # packed in eight bits
    assert not are(rng.integers(0, 1000, 5000))
    assert not are(rng.standard_normal(5000))


def test_packed_values_are_not_shared_ones() -> None:
    values = np.round(smooth(np.random.default_rng(10), (1, 90, 180)), 2)
    assert shared_values(values, np.ones(values.shape, np.bool_)) == []


def test_poles_are_not_shared_values() -> None:
    values = smooth(np.random.default_rng(11), (1, 45, 90))
    values[0, 0], values[0, -1] = 0.3, -0.2
    assert shared_values(values, np.ones(values.shape, np.bool_)) == []


@given(
    seed=st.integers(0, 999), free=st.integers(1, 5), apart=st.integers(0, 12),
    quick=st.sampled_from([0, 8, 48]), items=st.integers(1, 3), around=st.booleans(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_the_pyramid_meets_values_on_its_lattice(seed, free, apart, quick, items, around) -> None:
    rng = np.random.default_rng(seed)
    step, second = 0.1, 0.1 * apart
    values = 2 * smooth(rng, (items, 33, 47), rng.choice([0.01, 0.3]))
    values[values < 0] = 0.0
    values[(values > second - 0.2) & (values < second + 0.1)] = second
    limits = Limits(0, int(np.floor(values.max() / step * UNIT)), free, UNIT * apart)
    valid = rng.random(values.shape) < rng.choice([0.8, 2.0])
    order, lattice = np.arange(items)[None], Lattice(step, 0.0)
    made = stream.encode(values, valid, order, lattice, around=around, quick=quick, limits=limits)
    head = stream.Head.parse(made.head, valid, order, values.shape[1:])
    assert head.walk.limits == limits
    for item, field in head.decode(lambda start, end: made.streams[start:end], valid):
        back, given_, counted = lattice.of_fractions(field, UNIT), values[item], valid[item]
        assert (np.abs(back - given_)[counted] <= step / 2 * (1 + 1e-9)).all()
        assert (field[counted & (given_ == 0)] == 0).all()
        assert (field[counted & (given_ == second)] == UNIT * apart).all()
        assert field.min() >= 0
        assert field.max() <= limits.high


def test_a_lattice_through_two_values_is_no_coarser() -> None:
    for first, second, step in ((0.0, 1.0, 0.3), (1.0, 0.0, 0.1), (-1.8, 5.0, 0.0999999)):
        lattice = Lattice(step, 7.0).through((first, second))
        assert lattice.step <= step
        assert lattice.origin == first
        steps = (second - first) / lattice.step
        assert abs(steps - round(steps)) <= 1e-3


def test_jumps_are_kept_by_masks_and_smooth_edges_by_the_lattice() -> None:
    rng = np.random.default_rng(12)
    field = smooth(rng, (1, 180, 360), 0.01)
    everywhere = np.ones(field.shape, np.bool_)
    edge, jump = np.maximum(field, 0), np.where(field > 0, 5 + field, 0)
    (way,) = ways_to_keep([0.0], edge, everywhere, Bound(0.1), "fast")
    assert way == Exactly(on_lattice=(0.0,))
    (way,) = ways_to_keep([0.0], jump, everywhere, Bound(0.01), "fast")
    assert way == Exactly(masked=(0.0,))


@given(st.integers(0, 999), st.integers(1, 20), st.sampled_from(["f4", "f8", "f2"]))
@settings(max_examples=40, deadline=None)
def test_special_values_of_few_patterns_come_back(seed, count, dtype) -> None:
    rng = np.random.default_rng(seed)
    mask = smooth(rng, (3, 20, 30)).reshape(3, -1) > 0
    special = np.append(rng.standard_normal(count), np.nan).astype(dtype)
    values = special[rng.integers(0, len(special), int(mask.sum()))]
    for columns in (30, None):
        data = pack_special_values(values, mask, columns)
        back = unpack_special_values(data, mask, np.dtype(dtype), columns)
        assert back.tobytes() == values.tobytes()
        for cut in (0, 1, len(data) // 2, len(data) - 1):
            if cut not in (len(data), np.dtype(dtype).itemsize):
                with pytest.raises(CorruptPayloadError):
                    unpack_special_values(data[:cut], mask, np.dtype(dtype), columns)


@given(
    low=st.none() | st.just(-1.0), high=st.none() | st.just(2.0), snap=st.sampled_from([0, 0.01]),
    fixed=st.sampled_from([(0.0,), (0.0, 1.0)]), relative=st.booleans(),
    shifts=st.lists(st.integers(-(2**20), 2**20), min_size=3, max_size=3),
    dtype=st.sampled_from(["<f4", ">f8", "<f2"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_finish_comes_back(low, high, snap, fixed, relative, shifts, dtype) -> None:
    given_ = Finish(low, high, fixed, snap, 0.25, relative, np.array(shifts))
    section = given_.pack(np.dtype(dtype))
    back = Finish.unpack(section, np.dtype(dtype), 3)
    for item in range(3):
        one, other = (np.linspace(-3, 3, 50).astype(dtype) for _ in range(2))
        given_.apply(one, item)
        back.apply(other, item)
        assert one.tobytes() == other.tobytes()
    for cut in range(len(section)):
        with pytest.raises(CorruptPayloadError):
            Finish.unpack(section[:cut], np.dtype(dtype), 3)


@given(st.lists(st.integers(-(2**24), 2**24), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_numbers_of_fields_come_back(numbers) -> None:
    data = masks.encode_numbers(np.array(numbers))
    assert masks.decode_numbers(data, len(numbers)).tolist() == numbers


def test_one_field_of_many_is_finished_as_all_are() -> None:
    values = np.clip(smooth(np.random.default_rng(13), (6, 46, 90)) + 0.3, 0, 1).astype("f4")
    values[3] *= np.float32(0.2)
    payload, back, _ = check(values, {"max_error": 0.35})
    assert Tag.FINISH in Payload.unpack(payload).sections
    from coinpp_xr.chunk_reading import decode_chunk

    region = (slice(3, 4), slice(None), slice(None))
    some = decode_chunk(payload, {}.__getitem__, region=region)
    assert some.tobytes() == back[3:4].tobytes()


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"bits": 8, "max_mean_error": 0.1}, "beside a bound or target"),
        ({"max_error": 1, "max_mean_error": -1}, "max_mean_error must be a positive number"),
        ({"bits": 8, "keep": [0]}, "beside a bound or target"),
        ({"max_error": 1, "keep": ["zero"]}, "keep must be numbers"),
        ({"max_error": 1, "keep": "0"}, "keep must be numbers"),
        ({"max_error": 1, "keep": [np.nan]}, "keep must be finite"),
        ({"max_error": 1, "valid_range": (1, 0)}, "the lowest and the highest"),
        ({"max_error": 1, "valid_range": (1, 2, 3)}, "the lowest and the highest"),
    ],
)
def test_what_makes_no_sense_is_refused(settings_, message) -> None:
    with pytest.raises(ValueError, match=message):
        COINppCodec(**settings_)


def test_a_mask_among_others_takes_no_bits_for_them() -> None:
    land = smooth(np.random.default_rng(14), (1, 60, 90), 0.02) > 0
    sea_ice = land & (smooth(np.random.default_rng(15), (1, 60, 90), 0.02) > 0)
    among = masks.encode(sea_ice, land)
    assert (masks.decode(among, sea_ice.shape, land) == sea_ice).all()
    assert len(among) < len(masks.encode(sea_ice))
    assert len(pack_mask(sea_ice.reshape(1, -1), 90)) > 0


def test_what_is_snapped_is_not_shifted() -> None:
    """In double precision a second value is not quite on the lattice through the first."""
    case = ExactCase(
        1271454338, "fraction", (1, 12, 24), "f8", "none", "target_rmse", 0.0019059676600708074,
        "fast", "max_mean_error",
    )  # fmt: skip
    assert Tag.FINISH in Payload.unpack(case.code()[1]).sections
    assert not case.check()


def test_a_payload_that_changes_missing_values_is_not_kept(monkeypatch) -> None:
    values = smooth(np.random.default_rng(16), (1, 12, 24)).astype("f4")
    values[0, 2, 3:5] = np.nan
    codec = COINppCodec("none", max_error=0.1)
    assert Payload.unpack(codec.encode(values)).kind != Kind.LOSSLESS
    monkeypatch.setattr(
        "coinpp_xr.bitstream.pack_special_values", lambda *_: np.float32(7).tobytes()
    )
    payload = codec.encode(values)
    assert Payload.unpack(payload).kind == Kind.LOSSLESS
    assert codec.decode(payload).tobytes() == values.tobytes()
