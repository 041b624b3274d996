"""``max_error`` and ``max_error_relative`` hold for every value of any array."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import bound_cases
import numpy as np
import pytest
from bound_cases import Case, broken, golden_model, usual_layout
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import Zstd
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.lattice import Bound

# Errors of any size, also those that leave nothing: that the codec warns is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:.* of this chunk's standard deviation")


def round_trip(values: np.ndarray, model="none", **options) -> np.ndarray:
    codec = COINppCodec(model, **options)
    return codec.decode(codec.encode(values))


def cases(by: st.SearchStrategy[str], amount: st.SearchStrategy[float]) -> st.SearchStrategy[Case]:
    return st.builds(
        Case,
        kind=st.sampled_from(list(bound_cases.KINDS)),
        batch=st.sampled_from(bound_cases.BATCHES),
        grid=st.sampled_from(bound_cases.GRIDS),
        dtype=st.sampled_from(bound_cases.DTYPES),
        gaps=st.sampled_from(bound_cases.GAPS),
        layout=st.sampled_from(list(bound_cases.LAYOUTS)),
        by=by,
        amount=amount,
        effort=st.sampled_from(["default", "fast"]),
        model=st.booleans(),
        coordinates=st.booleans(),
        time_axis=st.integers(0, 2),
        seed=st.integers(0, 1000),
    )


@given(cases(st.just(bound_cases.BY_SPREAD), st.floats(-14, 3)))
@settings(max_examples=60, deadline=None)
def test_errors_from_far_below_the_precision_to_far_above_the_range(case: Case) -> None:
    assert case.check() == ""


@given(cases(st.just(bound_cases.BY_SPACING), st.sampled_from(bound_cases.SPACINGS)))
@settings(max_examples=30, deadline=None)
def test_errors_about_as_large_as_what_the_type_can_tell_apart(case: Case) -> None:
    assert case.check() == ""


@given(cases(st.just(bound_cases.BY_ITSELF), st.sampled_from(bound_cases.ABSOLUTE)))
@settings(max_examples=40, deadline=None)
def test_errors_of_any_size_whatever_the_data(case: Case) -> None:
    assert case.check() == ""


@given(
    cases(
        st.just(bound_cases.RELATIVE),
        st.sampled_from(bound_cases.FRACTIONS) | st.floats(0, 1, exclude_min=True),
    )
)
@settings(max_examples=60, deadline=None)
def test_relative_errors(case: Case) -> None:
    assert case.check() == ""


# ---- real data -----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["none", "t2m-46x90"])
@pytest.mark.parametrize("effort", ["default", "fast"])
def test_real_era5_keeps_its_bound_in_few_bytes(era5, model, effort) -> None:
    values = era5.t2m.values
    codec = COINppCodec(model, max_error=0.5, effort=effort)
    payload = codec.encode(values)
    decoded = codec.decode(payload)
    assert broken(values, decoded, {"max_error": 0.5}) == ""
    # A bound that is kept by far would have cost bytes for nothing.
    assert bound_cases.largest_share(values, decoded, {"max_error": 0.5}) > 0.9
    planes = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 4).T.tobytes()
    assert len(payload) < 0.25 * len(Zstd(9).encode(planes))


def test_real_era5_keeps_its_relative_bound_in_few_bytes(era5) -> None:
    values = era5.t2m.values
    codec = COINppCodec(max_error_relative=1e-3)
    payload = codec.encode(values)
    assert broken(values, codec.decode(payload), {"max_error_relative": 1e-3}) == ""
    assert len(payload) < values.nbytes / 6


@pytest.mark.parametrize("effort", ["default", "fast"])
def test_smaller_bounds_cost_more(era5, effort) -> None:
    values = era5.t2m.values[:1]
    sizes = [
        len(COINppCodec(max_error=error, effort=effort).encode(values))
        for error in (10.0, 1.0, 0.1, 0.01)
    ]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1] / 10


# ---- limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bound", [{"max_error": 1e-12}, {"max_error": 5e-324}, {"max_error_relative": 1e-12}]
)
def test_bounds_far_below_the_precision_return_everything(era5, bound) -> None:
    values = era5.t2m.values
    noise = np.random.default_rng(0).standard_normal((3, 20, 40)).astype(np.float32)
    for array in (values, noise):
        codec = COINppCodec(**bound)
        payload = codec.encode(array)
        assert codec.decode(payload).tobytes() == array.tobytes()
        lossless = encode_chunk(array.view(np.int32), None, bound=Bound(1.0))
        assert len(payload) <= len(lossless) + 100


@pytest.mark.parametrize("dtype", ["i1", "<u2", ">i4", "<i8", "?", "M8[ns]", "c8", "S3"])
def test_what_is_no_float_is_stored_without_loss(dtype) -> None:
    values = np.random.default_rng(0).integers(0, 100, (2, 6, 8)).astype(dtype)
    for bound in ({"max_error": 5.0}, {"max_error_relative": 0.5}):
        codec = COINppCodec("none", **bound)
        payload = codec.encode(values)
        decoded = codec.decode(payload)
        assert Payload.unpack(payload).kind == Kind.LOSSLESS
        assert (decoded.dtype, decoded.tobytes()) == (values.dtype, values.tobytes())


def test_zeros_stay_zeros_and_signs_stay_signs() -> None:
    rng = np.random.default_rng(0)
    values = np.where(rng.random((4, 9, 12)) < 0.5, 0.0, rng.standard_cauchy((4, 9, 12)) ** 3)
    values = values.astype(np.float32)
    decoded = round_trip(values, max_error_relative=0.3)
    assert broken(values, decoded, {"max_error_relative": 0.3}) == ""
    assert np.array_equal(np.sign(decoded), np.sign(values))


def test_relative_bounds_of_denormal_numbers_are_exact() -> None:
    """A hundredth of 100 units of the least significant bit is one unit, not one and a half."""
    rng = np.random.default_rng(0)
    for shape, error in (((2, 4, 8), 0.01), ((3, 10, 20), 0.3), ((3, 10, 20), 0.7)):
        values = 5e-324 * rng.integers(-1000, 1000, shape)
        decoded = round_trip(values, max_error_relative=error)
        assert broken(values, decoded, {"max_error_relative": error}) == ""


@pytest.mark.parametrize("grid", [(2, 2), (2, 9), (1, 1), (1, 2), (2, 1), (3, 1), (1, 300)])
@pytest.mark.parametrize("options", [{"max_error": 0.1}, {"target_rmse": 0.1}])
def test_grids_of_few_rows_or_columns(grid, options) -> None:
    values = np.random.default_rng(0).standard_normal((5, *grid))
    decoded = round_trip(values, **options)
    assert np.abs(decoded - values).max() < 1


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1e200, 1.7e308])
@pytest.mark.parametrize("share", [1e-4, 0.1, 10.0])
def test_units_of_any_size(scale, share) -> None:
    values = scale * np.random.default_rng(0).uniform(-1, 1, (3, 7, 9))
    error = min(max(share * scale, 5e-324), 1.7e308)
    assert broken(values, round_trip(values, max_error=error), {"max_error": error}) == ""


@pytest.mark.parametrize("error", [5e-324, 1e-300, 1.0, 1.7e308])
def test_nothing_but_zeros(error) -> None:
    values = np.zeros((2, 4, 5))
    values[0, 0], values[1, 1, 1], values[1, 0, 0] = np.nan, -0.0, np.inf
    assert broken(values, round_trip(values, max_error=error), {"max_error": error}) == ""


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_largest_numbers_of_a_type(dtype) -> None:
    largest = np.finfo(dtype).max
    values = (largest * np.random.default_rng(0).uniform(0.9, 1, (2, 7, 9))).astype(dtype)
    values[0, 0, 0], values[1, 1, 1] = largest, -largest
    for bound in ({"max_error": 0.02 * float(largest)}, {"max_error_relative": 0.5}):
        assert broken(values, round_trip(values, **bound), bound) == ""


def test_one_outlier_costs_little(era5) -> None:
    values = era5.t2m.values[:2].copy()
    plain = len(COINppCodec("none", max_error=0.5).encode(values))
    values[1, 7, 11] = 1e30
    codec = COINppCodec("none", max_error=0.5)
    payload = codec.encode(values)
    assert broken(values, codec.decode(payload), {"max_error": 0.5}) == ""
    assert len(payload) < 1.1 * plain + 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_error": False}, "max_error must be a positive number"),
        ({"max_error": -1.0}, "max_error must be a positive number"),
        ({"max_error": np.nan}, "max_error must be a positive number"),
        ({"max_error": np.inf}, "max_error must be a positive number"),
        ({"max_error": "1 K"}, "max_error must be a positive number"),
        ({"max_error_relative": 0.0}, "max_error_relative must be a positive number"),
        ({"max_error_relative": 1.0}, "below 1"),
        ({"max_error": 1.0, "max_error_relative": 0.1}, "give one rate control"),
        ({"max_error": 1.0, "target_rmse": 0.1}, "give one rate control"),
    ],
)
def test_impossible_bounds_are_refused(options, message) -> None:
    assert message in refusal(lambda: COINppCodec("none", **options))


# ---- the same everywhere -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["smooth", "known", "like the reference"])
def test_a_payload_gives_the_same_bits_on_any_thread(kind) -> None:
    values = bound_cases.KINDS[kind](np.random.default_rng(0), (20, 10, 20)).astype(np.float32)
    codec = COINppCodec(golden_model(), max_error=0.5)
    payload = codec.encode(values)
    with coinpp_xr.config.set(threads=1):
        alone = codec.decode(payload)
        assert codec.encode(values) == payload
    assert broken(values, alone, {"max_error": 0.5}) == ""
    with coinpp_xr.config.set(threads=3):
        assert codec.decode(payload).tobytes() == alone.tobytes()
    with ThreadPoolExecutor(4) as pool:
        for decoded in pool.map(lambda _: codec.decode(payload), range(8)):
            assert decoded.tobytes() == alone.tobytes()


def test_there_are_payloads_with_and_without_a_base() -> None:
    """What the tests above are about: each of the ways to keep a bound is taken by something."""
    wave = np.sin(np.arange(40)[:, None] / 25 + np.arange(5)).astype(np.float32)
    model, points = golden_model(), usual_layout((10, 20)).points
    slow = model.offset + model.scale * model.network(points, wave)[..., 0].reshape(-1, 10, 20)
    swell = np.sin(np.arange(60)[:, None] / 25 + points @ np.array([3.0, 5.0, 1.0]))
    alike = bound_cases.KINDS["like the reference"](np.random.default_rng(0), (3, 10, 20))
    found = set()
    for values, error in ((slow, 0.5), (20 * swell.reshape(-1, 10, 20), 0.2), (alike, 0.5)):
        values = values.astype(np.float32)
        for known in (model, None):
            payload = encode_chunk(values, known, bound=Bound(error))
            decoded = decode_chunk(payload, lambda _: model)
            assert broken(values, decoded, {"max_error": error}) == ""
            parsed = Payload.unpack(payload)
            assert Tag.RESIDUAL in parsed.sections
            found.add(parsed.kind)
    assert found >= {
        Kind.RESIDUAL, Kind.RESIDUAL_FROM_MODEL, Kind.LATENTS_IN_TIME, Kind.GRID
    }  # fmt: skip
