"""COINppCodec as a numcodecs codec: what goes in comes back, or one line says why not."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numcodecs
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec, CompressionWarning, CorruptPayloadError, ModelNotFoundError
from coinpp_xr.axes import axis_values, compact_axis
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.caching import MOST_BYTES, computed
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.exact import pack_bytes, unpack_bytes


@pytest.fixture
def codec(tiny_model) -> COINppCodec:
    return COINppCodec(tiny_model, bits=8)


def rmse(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- the normal case ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2", ">f2"])
def test_every_float_type_comes_back_as_it_was(codec, tiny_globes, dtype) -> None:
    values = tiny_globes.astype(dtype)
    back = codec.decode(codec.encode(values))
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    assert rmse(back, values) < 0.5


@pytest.mark.parametrize("shape", [(4, 4140), (4140, 4), (3, 2, 9000), (90, 46)])
@pytest.mark.parametrize("control", ["target_rmse", "max_error"])
def test_cells_in_any_order_are_no_globe(shape, control) -> None:
    """Whatever the values look like: temperatures as they stand, times along rows."""
    cell = np.arange(np.prod(shape)).reshape(shape) % 4140
    values = (288 - 60 * np.sin(np.pi * (cell // 90 / 45 - 0.5)) ** 2).astype(np.float32)
    values += np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    codec = COINppCodec(**{control: 0.5})
    payload = codec.encode(values)
    back = codec.decode(payload)
    # All cells count alike, those in the first and the last row, too.
    if control == "target_rmse":
        assert rmse(back, values) <= 0.5
    assert np.abs(back - values).max() <= (0.5 if control == "max_error" else 5)
    assert not Payload.unpack(payload).kind.has_model


@pytest.mark.parametrize("shape", [(10, 20), (1, 10, 20), (5, 10, 20), (1, 5, 10, 20)])
def test_any_batch_axes(codec, tiny_globes, shape) -> None:
    values = np.resize(tiny_globes, shape)
    assert codec.decode(codec.encode(values)).shape == shape


@pytest.mark.parametrize(
    "view",
    [np.asfortranarray, lambda a: np.repeat(a, 2, axis=0)[::2], lambda a: a.T.copy().T],
)
def test_memory_order_does_not_matter(codec, tiny_globes, view) -> None:
    other = codec.decode(codec.encode(view(tiny_globes)))
    assert np.array_equal(other, codec.decode(codec.encode(tiny_globes)))
    assert other.flags.f_contiguous == view(tiny_globes).flags.f_contiguous


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 12, 16])
def test_more_bits_cost_more(tiny_model, tiny_globes, bits) -> None:
    values = np.resize(tiny_globes, (500, 10, 20))
    payload = COINppCodec(tiny_model, bits=bits).encode(values)
    assert len(payload) < 40 + 500 * 3 * (bits + 2) / 8


def test_decoding_is_the_same_for_any_number_of_threads(codec, tiny_globes) -> None:
    values = np.resize(tiny_globes, (64, 10, 20))
    payload = codec.encode(values)
    with coinpp_xr.config.set(threads=1):
        alone = codec.decode(payload)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda _: codec.decode(payload), range(8)))
    assert all(np.array_equal(alone, other) for other in together)


def test_real_era5_fits_to_some_degrees(era5) -> None:
    """Sanity only: the model has not seen ERA5, and a 46 × 90 globe has a spread of 21 K."""
    values = era5.t2m.values
    codec = COINppCodec(bits=8)
    back = codec.decode(codec.encode(values))
    assert rmse(back, values) < 0.4 * values.std()


# ---- grids ------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", [False, True])
def test_what_a_model_says_of_a_grid_is_worked_out_once(era5, told, monkeypatch) -> None:
    grid = {"latitude": era5.lat.values, "longitude": era5.lon.values} if told else {}
    first = COINppCodec(max_error=0.5, **grid)
    computed.forget_all()
    values = era5.t2m.values[:4]
    first.decode(first.encode(values))
    kept = computed.nbytes
    assert 0 < kept < MOST_BYTES
    again = []
    monkeypatch.setattr(computed, "keep", lambda key, *_: again.append(key))
    # As another array, another store or the next chunk has it.
    other = COINppCodec.from_config(first.get_config())
    other.decode(other.encode(values))
    assert computed.nbytes == kept
    assert not again


@pytest.mark.parametrize("layout", range(16))
def test_the_usual_layouts_are_recognised(era5, layout) -> None:
    """A smooth globe sampled in any layout is decoded on that layout."""
    model = coinpp_xr.load_model("t2m-46x90")
    grid = list(SphereGrid.usual_layouts(60, 120))[layout]
    latents = np.random.default_rng(0).standard_normal((3, len(model.latent_std)))
    latents = (0.5 * latents * model.latent_std).astype(np.float32)
    values = model.coded_network(grid.points, latents)[..., 0].reshape(3, 60, 120)
    values = (values * model.scale + model.offset).astype(np.float32)
    codec = COINppCodec(model, bits=12)
    assert rmse(codec.decode(codec.encode(values)), values) < 1.5


def test_explicit_coordinates_of_another_size(era5, data_folder) -> None:
    import xarray as xr

    with xr.open_dataset(data_folder / "climate/era5_snapshots_1deg.nc", engine="netcdf4") as ds:
        da = ds.t2m[:2].load()
    codec = COINppCodec(bits=8, latitude=da.latitude, longitude=da.longitude)
    fine = rmse(codec.decode(codec.encode(da.values)), da.values)
    coarse = COINppCodec(bits=8)
    values = era5.t2m[:2].values
    assert fine < 1.1 * rmse(coarse.decode(coarse.encode(values)), values)


def test_flipped_latitudes_compress_the_same(era5) -> None:
    values = era5.t2m.values
    lat, lon = era5.lat.values, era5.lon.values
    down = COINppCodec(bits=8, latitude=lat, longitude=lon)
    up = COINppCodec(bits=8, latitude=lat[::-1], longitude=lon)
    back = up.decode(up.encode(values[:, ::-1]))
    np.testing.assert_allclose(back[:, ::-1], down.decode(down.encode(values)), atol=0.01)


def test_decoding_with_other_coordinates_is_refused(tiny_model, tiny_globes) -> None:
    lat, lon = np.linspace(90, -90, 10), np.arange(20) * 18.0
    payload = COINppCodec(tiny_model, bits=8, latitude=lat, longitude=lon).encode(tiny_globes)
    other = COINppCodec(tiny_model, bits=8, latitude=lat, longitude=lon - 180)
    with pytest.raises(CorruptPayloadError, match="other coordinates"):
        other.decode(payload)


@pytest.mark.parametrize(
    ("turn", "how"),
    [(lambda v: v[:, ::-1], "upside down"), (lambda v: np.roll(v, 45, axis=2), "half the globe")],
)
def test_data_that_was_flipped_or_rolled_after_its_coordinates_is_refused(era5, turn, how) -> None:
    codec = COINppCodec(bits=8, latitude=era5.lat, longitude=era5.lon)
    with pytest.raises(ValueError, match=how):
        codec.encode(turn(era5.t2m.values))


# ---- what cannot be fitted survives exactly --------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        np.arange(200, dtype=np.int16).reshape(1, 10, 20),
        np.ones((2, 10, 20), dtype=bool),
        np.full((3, 10, 20), 273.15, dtype=np.float32),
        np.full((3, 10, 20), np.nan, dtype=np.float64),
        np.zeros((0, 10, 20), dtype=np.float32),
        np.zeros((3, 0, 20), dtype=np.float32),
        np.full((10, 20), -0.0, dtype=np.float32),
        np.arange(12, dtype=np.uint8),
        np.array(["2000-01-01"], dtype="M8[ns]"),
        np.full((2, 10, 20), 1 + 2j),
    ],
    ids=lambda v: f"{v.dtype}-{v.shape}",
)
def test_what_is_no_field_is_stored_without_loss(codec, values) -> None:
    assert same_bits(codec.decode(codec.encode(values)), values)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("size", [2, 4, 8])
def test_special_values_come_back_bit_for_bit(codec, tiny_globes, order, size) -> None:
    values = tiny_globes.astype(f"{order}f{size}")
    values[0, :3] = np.nan
    values[1, 4, 5], values[1, 4, 6] = np.inf, -np.inf
    values[2] = np.nan
    quiet_nan = values[0, 0, 0].tobytes()
    pattern = bytearray(quiet_nan)
    pattern[0 if order == "<" else -1] ^= 1  # another NaN payload
    values[3, 0, 0] = np.frombuffer(bytes(pattern), dtype=values.dtype)[0]
    back = codec.decode(codec.encode(values))
    special = ~np.isfinite(values)
    assert np.array_equal(~np.isfinite(back), special)
    assert values[special].tobytes() == back[special].tobytes()
    assert rmse(back[4], values[4]) < 0.5


def test_fill_values_are_not_fitted(codec, tiny_globes) -> None:
    values = tiny_globes.copy()
    values[:, 2:4, 3:9] = np.float32(9.96921e36)
    back = codec.decode(codec.encode(values))
    assert (back[:, 2:4, 3:9] == np.float32(9.96921e36)).all()
    assert rmse(back[:, 5:], values[:, 5:]) < 0.5


def test_a_fill_value_near_the_data_is_not_fitted_either(codec, tiny_globes) -> None:
    values = tiny_globes.copy()
    values[:, 2:4, 3:9] = 150.0  # within what the model could represent
    back = codec.decode(codec.encode(values))
    assert (back[:, 2:4, 3:9] == 150.0).all()
    assert rmse(back[:, 5:], values[:, 5:]) < 0.5


@pytest.mark.parametrize("fill", [0.0, np.nan, -9999.0])
def test_padded_globes_come_back_exactly(codec, tiny_globes, fill) -> None:
    values = np.concatenate([tiny_globes, np.full_like(tiny_globes, fill)])
    back = codec.decode(codec.encode(values))
    assert same_bits(back[5:], values[5:])
    assert rmse(back[:5], tiny_globes) < 0.5


def test_one_valid_cell_survives(codec) -> None:
    values = np.full((1, 10, 20), np.nan, dtype=np.float32)
    values[0, 4, 7] = 251.5
    back = codec.decode(codec.encode(values))
    assert np.isnan(back).sum() == 199
    assert abs(back[0, 4, 7] - 251.5) < 2


def test_a_constant_mask_is_stored_once(codec, tiny_globes) -> None:
    one, many = tiny_globes[:1].copy(), np.resize(tiny_globes, (200, 10, 20)).copy()
    land = np.random.default_rng(0).random((10, 20)) < 0.3
    one[:, land], many[:, land] = np.nan, np.nan
    bits_of_latents = 200 * 3 * 10
    assert len(codec.encode(many)) < len(codec.encode(one)) + bits_of_latents / 8


@pytest.mark.parametrize("count", [1, 5, 255, 256, 257, 70_000])
@pytest.mark.parametrize("dtype", [np.uint8, np.float64])
def test_packed_values_of_another_number_are_refused(count, dtype) -> None:
    values = np.random.default_rng(count).integers(0, 9, count).astype(dtype)
    packed = pack_bytes(values)
    assert same_bits(unpack_bytes(packed, count, values.dtype), values)
    for other in (count + 1, 2 * count, max(1, count - 1)):
        if other != count:
            with pytest.raises(CorruptPayloadError, match="as there should be"):
                unpack_bytes(packed, other, values.dtype)
    with pytest.raises(CorruptPayloadError, match="damaged"):
        unpack_bytes(packed[: len(packed) // 2], count, values.dtype)


def test_wrong_unit_is_stored_without_loss_and_said(codec, tiny_globes) -> None:
    celsius = tiny_globes - 1000
    with pytest.warns(CompressionWarning, match="stored without loss"):
        payload = codec.encode(celsius)
    assert same_bits(codec.decode(payload), celsius)


def test_noise_is_stored_without_loss_and_said(codec) -> None:
    noise = np.random.default_rng(0).uniform(200, 300, (3, 10, 20)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompressionWarning)
        payload = codec.encode(noise)
    assert Payload.unpack(payload).kind == Kind.LATENTS or same_bits(codec.decode(payload), noise)


def test_too_few_bits_for_the_data_are_said(era5) -> None:
    with pytest.warns(CompressionWarning, match="explains only|stored without loss"):
        COINppCodec(bits=1).encode(era5.t2m.values)


def test_the_papers_inner_loop_needs_a_model_of_the_papers_kind(tiny_model, tiny_globes) -> None:
    codec = COINppCodec(tiny_model, bits=8, effort="paper")
    with pytest.raises(ValueError, match="trained by the paper's recipe"):
        codec.encode(tiny_globes)


def test_a_tiny_chunk_is_never_made_larger_than_without_the_model(codec) -> None:
    values = np.array([[250.0, 251.0]], dtype=np.float32)
    assert len(codec.encode(values)) <= 60


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    values=hnp.arrays(
        dtype=st.sampled_from(["<f2", "<f4", ">f4", "<f8", "<i4", "|u1", "|b1"]),
        shape=hnp.array_shapes(min_dims=2, max_dims=4, min_side=0, max_side=6),
    )
)
def test_any_array_keeps_shape_dtype_and_special_values(tiny_model, values) -> None:
    codec = COINppCodec(tiny_model, bits=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CompressionWarning)
        back = codec.decode(codec.encode(values))
    assert back.dtype == values.dtype
    assert back.shape == values.shape
    if values.dtype.kind == "f":
        special = ~np.isfinite(values)
        assert values[special].tobytes() == back[special].tobytes()
    else:
        assert same_bits(back, values)


# ---- configuration --------------------------------------------------------------------------


def test_configuration_is_plain_json_and_round_trips(tiny_model) -> None:
    codec = COINppCodec(tiny_model, bits=5, latitude=[90, 0, -90], longitude=[0, 90, 180, 270])
    config = json.loads(json.dumps(codec.get_config()))
    assert numcodecs.get_codec(config) == codec
    assert config["fingerprint"] == tiny_model.fingerprint


AXES = {
    "quarters": np.linspace(90, -90, 721),
    "cell centres": 90 - (np.arange(180) + 0.5),
    "tenths": np.arange(3600) / 10,
    "single precision": np.linspace(90, -90, 451, dtype=np.float32),
    "summed up": np.cumsum(np.full(300, 0.1)),
    "off by units in the last place": np.linspace(-90, 90, 192),
    "a minus zero": np.array([-2.0, -1.0, -0.0, 1.0, 2.0]),
}


@pytest.mark.parametrize("degrees", AXES.values(), ids=AXES)
def test_regular_coordinates_take_few_bytes_of_a_configuration(tiny_model, degrees) -> None:
    if np.abs(degrees).max() <= 90:
        arguments: dict[str, Any] = {"latitude": degrees, "longitude": [0, 120, 240]}
    else:
        arguments = {"latitude": [1, 0, -1], "longitude": degrees}
    codec = COINppCodec(tiny_model, bits=5, **arguments)
    text = json.dumps(codec.get_config())
    assert len(text) < 600
    again = numcodecs.get_codec(json.loads(text))
    for axis in ("latitude", "longitude"):
        wanted = np.asarray(arguments[axis], np.float64)
        assert np.asarray(getattr(again, axis)).tobytes() == wanted.tobytes()
        assert isinstance(getattr(again, axis), list)


@given(
    st.lists(st.floats(-90, 90), min_size=1, max_size=50, unique=True),
    st.sampled_from([np.float32, np.float64]),
)
def test_any_coordinates_come_back_from_a_configuration_bit_for_bit(degrees, dtype) -> None:
    values = np.unique(np.array(degrees, dtype)).astype(np.float64)
    form = json.loads(json.dumps(compact_axis(values)))
    assert np.asarray(axis_values(form), np.float64).tobytes() == values.tobytes()


def test_lists_in_configurations_are_read_too(tiny_model) -> None:
    codec = COINppCodec(tiny_model, bits=5, latitude=AXES["quarters"], longitude=AXES["tenths"])
    config = codec.get_config() | {"latitude": codec.latitude, "longitude": codec.longitude}
    assert COINppCodec.from_config(config) == codec


@pytest.mark.parametrize(
    "damage",
    [{"count": 0}, {"count": "4"}, {"count": 10**9}, {"dtype": "O"}, {"packed": "~~~"},
     {"packed": "c-n"}, {"start": "north"}],
    ids=str,
)  # fmt: skip
def test_damaged_coordinates_are_refused(damage) -> None:
    axis = {"start": 0.0, "step": 1.0, "count": 4} | damage
    config = {"model": "none", "max_error": 1.0, "latitude": axis, "longitude": [0, 1]}
    assert "is damaged" in refusal(lambda: COINppCodec.from_config(config))


def test_codec_survives_pickling_and_hashing(codec) -> None:
    again = pickle.loads(pickle.dumps(codec))
    assert again == codec
    assert hash(again) == hash(codec)
    assert COINppCodec(codec.model, bits=7) != codec


def test_repr_stays_short() -> None:
    codec = COINppCodec(bits=8, latitude=np.linspace(90, -90, 721), longitude=np.arange(1440) / 4)
    assert len(repr(codec)) < 200


def test_out_argument_of_numcodecs(codec, tiny_globes) -> None:
    payload, out = codec.encode(tiny_globes), np.empty_like(tiny_globes)
    codec.decode(payload, out=out)
    assert np.array_equal(out, codec.decode(payload))


def test_no_rate_control_warns_that_no_error_is_bounded(tiny_model) -> None:
    with pytest.warns(CompressionWarning, match="bounds no error"):
        assert COINppCodec(tiny_model).bits == 8


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"bits": 8, "max_error": 0.5}, ValueError, "give one rate control"),
        ({"bits": 0}, ValueError, "from 1 to 16"),
        ({"max_error": -0.5}, ValueError, "max_error must be a positive number"),
        ({"max_error": float("nan")}, ValueError, "max_error must be a positive number"),
        ({"max_error_relative": 1.5}, ValueError, "a fraction of the value, below 1"),
        ({"target_rmse": 0}, ValueError, "target_rmse must be a positive number"),
        ({"target_rmse": 1, "time_axis": -1}, ValueError, "time_axis must be 0 or a larger"),
        ({"model": "none", "bits": 8}, ValueError, "bits needs a model"),
        ({"model": "none", "target_rmse": 1, "embed_model": True}, ValueError, "no model to embed"),
        ({"bits": 8, "embed_model": True}, ValueError, "train a smaller one"),
        ({"bits": 8, "effort": "max"}, ValueError, "effort must be one of"),
        ({"bits": 8, "latitude": [1, 2]}, ValueError, "together"),
        ({"bits": 8, "latitude": [1, 1], "longitude": [1, 2]}, ValueError, "strictly monotonic"),
        ({"bits": 8, "latitude": [91, 0], "longitude": [1, 2]}, ValueError, "beyond -90 .. 90"),
        ({"bits": 8, "latitude": [1, 0], "longitude": [0, 361]}, ValueError, "more than 360"),
        ({"bits": 8, "latitude": [np.nan, 0], "longitude": [1, 2]}, ValueError, "not finite"),
        ({"bits": 8, "model": "t2m-46x9"}, ModelNotFoundError, "shipped are"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, error, message) -> None:
    with pytest.raises(error, match=re.escape(message)) as caught:
        COINppCodec(**arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.zeros(5, np.float32), ValueError, "at least two axes"),
        (np.float32(3), ValueError, "at least two axes"),
        (np.array([[object()]]), TypeError, "cannot compress objects"),
    ],
)
def test_bad_arrays_are_named_in_one_line(codec, values, error, message) -> None:
    with pytest.raises(error, match=message) as caught:
        codec.encode(np.asarray(values))
    assert "\n" not in str(caught.value)


def test_latitude_of_wrong_length(tiny_model, tiny_globes) -> None:
    codec = COINppCodec(
        tiny_model, bits=8, latitude=np.linspace(90, -90, 11), longitude=np.arange(20) * 18
    )
    with pytest.raises(ValueError, match="does not match the codec's grid of 11 × 20"):
        codec.encode(tiny_globes)


# ---- damage -----------------------------------------------------------------------------------


def test_every_single_byte_flip_is_noticed(codec, tiny_globes) -> None:
    payload = codec.encode(tiny_globes)
    for position in range(len(payload)):
        for flip in (0x01, 0x80, 0xFF):
            damaged = bytearray(payload)
            damaged[position] ^= flip
            with pytest.raises(CorruptPayloadError):
                codec.decode(bytes(damaged))


def test_every_truncation_is_noticed(codec, tiny_globes) -> None:
    payload = codec.encode(tiny_globes)
    for length in range(len(payload)):
        with pytest.raises(CorruptPayloadError):
            codec.decode(payload[:length])


def test_a_payload_of_an_unknown_model_says_how_to_get_it(codec, tiny_globes) -> None:
    payload = Payload.unpack(codec.encode(tiny_globes))
    foreign = Payload(**{**vars(payload), "fingerprint": "0123456789abcdef"}).pack()
    with pytest.raises(ModelNotFoundError, match="load_model"):
        codec.decode(foreign)


def test_a_payload_that_claims_too_much_is_refused_before_memory_is_taken(codec) -> None:
    huge = Payload(Kind.LOSSLESS, (2**40, 46, 90), np.dtype("f4"), {}).pack()
    with pytest.raises(CorruptPayloadError, match="max_decode_bytes"):
        codec.decode(huge)


@pytest.mark.parametrize(
    "shape", [(0, 65536, 65536), (1, 5, 0), (1, 0, 5), (2**30, 1, 1), (5,), (2**62, 2**62, 0)]
)
@pytest.mark.parametrize("kind", Kind)
def test_impossible_headers_are_refused(codec, tiny_model, shape, kind) -> None:
    sections = {Tag.LATENTS: b"", Tag.RAW: b""}
    crafted = Payload(
        kind, shape, np.dtype("f2"), sections, fingerprint=tiny_model.fingerprint, bits=8
    )
    if kind == Kind.LOSSLESS and 0 in shape and max(shape) < 2**62:
        assert codec.decode(crafted.pack()).shape == shape
    else:
        with pytest.raises(CorruptPayloadError):
            codec.decode(crafted.pack())


def test_a_store_that_expects_another_shape_refuses(tiny_model, tiny_globes) -> None:
    payload = encode_chunk(tiny_globes, tiny_model, bits=8)
    with pytest.raises(CorruptPayloadError, match="the store expects"):
        decode_chunk(payload, lambda _: tiny_model, expected=((4, 10, 20), np.dtype("f4")))
