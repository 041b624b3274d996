"""``target_rmse`` holds for any field, mask, type, grid and chunk length."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from conftest import EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.coordinates import SphereGrid, area_weights
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model

# Errors of any size, also those that leave nothing: that the codec warns is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:.* of this chunk's standard deviation")

LATITUDE = np.linspace(90, -90, 8)


def weighted_rmse(values: np.ndarray, decoded: np.ndarray, latitude=LATITUDE) -> float:
    weights = np.broadcast_to(area_weights(latitude, values.shape[-1]), values.shape)
    valid = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        squared = np.where(valid, (decoded.astype(float) - values.astype(float)) ** 2, 0)
    return float(np.sqrt((weights * squared).sum() / max((weights * valid).sum(), 1e-300)))


def fields(kind: str, n: int, rng: np.random.Generator, model: Model) -> np.ndarray:
    shape = (n, 8, 12)
    if kind == "model":
        walk = np.cumsum(rng.standard_normal((n, model.latent_dim)), axis=0) / np.sqrt(n)
        points = next(SphereGrid.usual_layouts(8, 12)).points
        features = model.network(points, walk.astype(np.float32))[..., 0]
        return model.offset + model.scale * features.reshape(shape)
    if kind == "noise":
        return rng.standard_normal(shape)
    if kind == "smooth":
        return rng.standard_normal(shape).cumsum(0).cumsum(1).cumsum(2)
    if kind == "levels":
        return rng.integers(0, 3, shape).astype(float)
    if kind == "heavy tails":
        return rng.standard_cauchy(shape)
    if kind == "tiny":
        return 1e-30 * rng.standard_normal(shape)
    if kind == "huge":
        return 1e30 * rng.standard_normal(shape)
    spike = np.zeros(shape)
    spike[n // 2, 3, 4] = 1e6
    return spike


@given(
    kind=st.sampled_from(
        ["model", "noise", "smooth", "levels", "heavy tails", "tiny", "huge", "spike"]
    ),
    n=st.sampled_from([1, 2, 3, 12, 47, 300]),
    fraction=st.sampled_from([1e-5, 1e-3, 0.02, 0.3, 0.9, 5.0]),
    dtype=st.sampled_from(["<f4", "<f8", ">f4", "<f2"]),
    gaps=st.sampled_from(["none", "land", "cells", "globes", "almost all"]),
    seed=st.integers(0, 5),
)
@settings(max_examples=25, deadline=None)
def test_the_target_is_never_missed(tiny_model, kind, n, fraction, dtype, gaps, seed) -> None:
    rng = np.random.default_rng(seed)
    if dtype == "<f2" and kind in ("tiny", "huge", "heavy tails", "spike"):
        kind = "smooth"
    values = fields(kind, n, rng, tiny_model).astype(dtype)
    missing = {
        "none": np.zeros(values.shape, bool),
        "land": np.broadcast_to(rng.random((8, 12)) < 0.4, values.shape),
        "cells": rng.random(values.shape) < 0.2,
        "globes": np.broadcast_to(rng.random((n, 1, 1)) < 0.3, values.shape),
        "almost all": rng.random(values.shape) < 0.99,
    }[gaps]
    values[missing] = np.nan
    if not np.isfinite(values).any():
        return
    spread = float(np.nanstd(values.astype(float))) or 1.0
    target = fraction * spread
    payload = encode_chunk(values, tiny_model, target_rmse=target)
    decoded = decode_chunk(payload, lambda _: tiny_model)
    assert decoded.dtype == values.dtype
    assert decoded.shape == values.shape
    assert weighted_rmse(values, decoded) <= target
    assert decoded[missing].tobytes() == values[missing].tobytes()
    assert len(payload) <= values.nbytes + 100


def test_large_errors_are_allowed_and_small_payloads_come_of_it(tiny_model) -> None:
    values = fields("smooth", 40, np.random.default_rng(0), tiny_model).astype("f4")
    spread = float(values.std())
    sizes = [
        len(encode_chunk(values, tiny_model, target_rmse=spread * fraction))
        for fraction in (0.001, 0.01, 0.1, 0.5)
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0] / 10


def test_each_kind_of_data_goes_its_own_way(tiny_model) -> None:
    rng = np.random.default_rng(1)
    kinds = {
        name: Payload.unpack(
            encode_chunk(
                fields(name, 60, rng, tiny_model).astype("f4"), tiny_model, target_rmse=target
            )
        ).kind
        for name, target in (("model", 0.05), ("noise", 0.1), ("smooth", 5.0))
    }
    assert kinds == {"model": Kind.LATENTS_IN_TIME, "noise": Kind.GRID, "smooth": Kind.GRID}


def test_time_pays_and_disorder_costs_nothing(tiny_model) -> None:
    rng = np.random.default_rng(3)
    walk = np.sin(np.arange(120)[:, None] / 25 + np.arange(tiny_model.latent_dim))
    points = next(SphereGrid.usual_layouts(8, 12)).points
    features = tiny_model.network(points, walk.astype(np.float32))[..., 0]
    values = (tiny_model.offset + tiny_model.scale * features).reshape(-1, 8, 12).astype("f4")
    target = 0.02

    def size(chunk: np.ndarray) -> int:
        return len(encode_chunk(chunk, tiny_model, target_rmse=target))

    shuffled = values[rng.permutation(len(values))]
    one_by_one = sum(size(globe[None]) for globe in shuffled)
    assert size(values) < 0.5 * size(shuffled)
    assert size(shuffled) <= 1.02 * one_by_one


def test_without_a_model(tiny_model) -> None:
    values = fields("smooth", 20, np.random.default_rng(2), tiny_model).astype("f4")
    codec = COINppCodec("none", target_rmse=0.5)
    payload = codec.encode(values)
    assert not Payload.unpack(payload).kind.has_model
    assert weighted_rmse(values, codec.decode(payload)) <= 0.5
    assert COINppCodec.from_config(codec.get_config()) == codec
    with pytest.raises(ValueError, match="bits needs a model"):
        COINppCodec("none", bits=8)


def test_members_and_levels_are_sequences_of_their_own(tiny_model) -> None:
    rng = np.random.default_rng(4)
    level = np.array([1.0, 100.0, 1e4])[:, None, None, None]
    drift = np.linspace(0, 3, 50)[None, :, None, None]
    values = level + level * 0.1 * np.sin(drift + rng.random((3, 1, 8, 12))).astype("f4")
    by_level = np.ascontiguousarray(values.astype("f4"))  # (level, time, lat, lon)
    by_time = np.ascontiguousarray(by_level.swapaxes(0, 1))
    payloads = [
        encode_chunk(array, None, target_rmse=0.5, time_axis=axis)
        for array, axis in ((by_level, 1), (by_time, 0))
    ]
    for array, payload in zip((by_level, by_time), payloads, strict=True):
        assert weighted_rmse(array, decode_chunk(payload, lambda _: tiny_model)) <= 0.5
    assert abs(len(payloads[0]) - len(payloads[1])) <= 8
    wrong = encode_chunk(by_level, None, target_rmse=0.5, time_axis=0)
    assert len(payloads[0]) < len(wrong)


def test_time_axis_must_exist(tiny_model) -> None:
    codec = COINppCodec("none", target_rmse=0.5, time_axis=1)
    values = np.random.default_rng(0).random((5, 8, 12))
    assert "time_axis=1 is not one of the 1 axes" in refusal(lambda: codec.encode(values))


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_symbol(tiny_model, threads) -> None:
    values = fields("smooth", 30, np.random.default_rng(5), tiny_model).astype("f4")
    payload = encode_chunk(values, tiny_model, target_rmse=0.2)
    expected = decode_chunk(payload, lambda _: tiny_model)
    with coinpp_xr.config.set(threads=threads):
        got = decode_chunk(payload, lambda _: tiny_model)
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_gaps_are_filled_with_what_continues_the_field() -> None:
    x, y, z = next(SphereGrid.usual_layouts(24, 48)).points.T
    drift = np.arange(20)[:, None] / 10
    values = (10 * np.sin(2 * x + drift) + 5 * np.cos(3 * y - z)).reshape(20, 24, 48).astype("f4")
    land = np.broadcast_to((x + y > 0.1).reshape(24, 48), values.shape)
    # Of many values: one that many cells share would be set aside, too.
    flat = np.broadcast_to((x - y) / 100, (20, x.size)).reshape(values.shape).astype("f4")
    with_gaps, with_steps = np.where(land, np.nan, values), np.where(land, flat, values)
    gaps, steps = (len(encode_chunk(v, None, target_rmse=0.1)) for v in (with_gaps, with_steps))
    assert gaps < 0.8 * steps


@pytest.mark.parametrize("target", [0, -1.0, np.nan, np.inf, "1", True, [1]])
def test_impossible_targets_are_refused(target) -> None:
    message = refusal(lambda: COINppCodec(target_rmse=target))
    assert "target_rmse must be a positive number" in message


def test_damage_inside_a_valid_checksum_is_refused(tiny_model) -> None:
    values = fields("smooth", 6, np.random.default_rng(7), tiny_model).astype("f4")
    payload = Payload.unpack(encode_chunk(values, None, target_rmse=5.0))
    assert payload.kind == Kind.GRID
    for change in (
        {"time_axis": 3}, {"layout": 99}, {"shape": (6, 8)}, {"shape": (2**28, 2, 2)},
        {"sections": {}}, {"kind": Kind.PATTERNS},
    ):  # fmt: skip
        forged = Payload(**{**vars(payload), **change}).pack()
        with pytest.raises(CorruptPayloadError):
            decode_chunk(forged, lambda _: tiny_model)


def test_nothing_warns_about_foreign_data_whose_error_is_held(tiny_model) -> None:
    values = fields("noise", 5, np.random.default_rng(8), tiny_model).astype("f4")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_chunk(values, tiny_model, target_rmse=0.1)


@pytest.mark.parametrize("effort", ["fast", "default"])
@pytest.mark.parametrize("gaps", [False, True])
def test_larger_grids_are_coded_in_wavelets(effort, gaps) -> None:
    """In steps that just meet the target, which are found by decoding."""
    with xr.open_dataset(EXAMPLES / "gfs_t2m_0p25_asia.nc") as asia:
        array = asia.t2m.load()
    values, latitude = array.values.astype("f4"), array.latitude.values
    if gaps:
        values[30:50, 20:70] = np.nan
    codec = COINppCodec(
        "none", target_rmse=0.1, effort=effort, latitude=latitude,
        longitude=array.longitude.values,
    )  # fmt: skip
    payload = codec.encode(values)
    assert Payload.unpack(payload).kind == Kind.WAVELETS
    assert 0.096 < weighted_rmse(values, codec.decode(payload), latitude) <= 0.1
