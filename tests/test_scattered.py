"""Cells anywhere on the sphere: who their neighbours are, what these foretell, and coding by it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refusal
from typer.testing import CliRunner

from coinpp_xr import COINppArrayCodec, COINppCodec
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.cells import places
from coinpp_xr.cli import app
from coinpp_xr.coding.scattered.kriging import WEIGHT_BITS, weights_of
from coinpp_xr.coding.scattered.nearest import nearest
from coinpp_xr.coding.scattered.passes import passes_of
from coinpp_xr.coding.scattered.surroundings import surroundings_of
from coinpp_xr.data import Horizontal
from coinpp_xr.errors import CorruptPayloadError

CELLS = 3000


def points(count: int, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(count, 3))
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def spiral(count: int = CELLS) -> tuple[np.ndarray, np.ndarray]:
    """Evenly spread latitudes and longitudes, in an order in which neighbours are far apart."""
    k = np.random.default_rng(3).permutation(count)
    latitude = np.rad2deg(np.arcsin(1 - 2 * (k + 0.5) / count))
    return latitude, (k * 137.50776405) % 360


def fields(times: int, count: int = CELLS) -> np.ndarray:
    latitude, longitude = np.deg2rad(spiral(count))
    time = np.arange(times)[:, None]
    waves = 9 * np.cos(3 * longitude + time / 3) * np.cos(latitude) ** 2
    return (280 + 20 * np.cos(latitude) + waves + np.sin(7 * latitude)).astype(np.float32)


def dataset(times: int) -> xr.Dataset:
    latitude, longitude = spiral()
    attrs = {"units": "K", "standard_name": "air_temperature"}
    return xr.Dataset(
        {"t": (("time", "cell"), fields(times), attrs)},
        {"lat": ("cell", latitude), "lon": ("cell", longitude), "time": np.arange(times)},
    )


def codec(**rate) -> COINppCodec:
    latitude, longitude = spiral()
    if not {"max_error_relative", "target_rmse", "lossless"} & set(rate):
        rate = {"max_error": 0.1} | rate
    return COINppCodec("universal", grid={"latitude": latitude, "longitude": longitude}, **rate)


# ---- neighbours ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 400), st.integers(1, 20), st.integers(0, 99), st.booleans())
def test_the_nearest_are_found(count, wanted, seed, alike) -> None:
    where = points(count, seed)
    if alike:  # many at the same place: the smaller number is nearer
        where = np.round(where)
    rng = np.random.default_rng(seed)
    members = rng.permutation(count)[: max(2, count // 2)]
    queries = rng.permutation(count)[:30]
    wanted = min(wanted, len(members) - 1)
    found, squared = nearest(where, members, queries, wanted)
    for query, near, far in zip(queries, found, squared, strict=True):
        others = np.sort(members[members != query])
        apart = ((where[others] - where[query]) ** 2).sum(axis=1)
        order = np.lexsort((others, apart))[:wanted]
        np.testing.assert_array_equal(near, others[order])
        np.testing.assert_allclose(far, apart[order])


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 700])
@pytest.mark.parametrize("alike", [False, True])
def test_every_cell_is_in_one_pass(count, alike) -> None:
    where = points(1).repeat(count, axis=0) if alike else points(count)
    anchors, passes = passes_of(where)
    every = np.concatenate([anchors, *passes])
    np.testing.assert_array_equal(np.sort(every), np.arange(count))
    assert len(anchors) <= 24
    assert all(len(cells) for cells in passes)


def test_hexagons_are_thinned_to_a_third() -> None:
    latitude, longitude = np.mgrid[-5:5:0.2165, -5:5:0.25]
    longitude[::2] += 0.125
    lat, lon = np.deg2rad(latitude.ravel()), np.deg2rad(longitude.ravel())
    where = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], -1)
    *_, second, last = passes_of(where)[1]
    assert 0.3 < len(last) / len(where) < 0.37
    assert 0.3 < len(second) / len(where) < 0.37


def test_weights_reproduce_what_is_flat_and_planes() -> None:
    latitude, longitude = np.deg2rad(spiral(900))
    across = np.cos(latitude)
    where = np.stack([across * np.cos(longitude), across * np.sin(longitude), np.sin(latitude)], -1)
    cells = np.arange(300)
    neighbours, _ = nearest(where, np.arange(300, 900), cells, 12)
    weights = weights_of(where, cells, neighbours).astype(np.int64)
    assert (weights.sum(axis=1) == 1 << WEIGHT_BITS).all()
    # A plane through the point itself, seen from there: what its neighbours say is the point.
    apart = where[neighbours] - where[cells, None]
    across = apart - (apart * where[cells, None]).sum(-1, keepdims=True) * where[cells, None]
    for of_kind in weights[2:]:
        said = np.einsum("kc,ckd->cd", of_kind / (1 << WEIGHT_BITS), across)
        assert np.quantile(np.abs(said).max(axis=1), 0.95) < 1e-4
        assert np.abs(apart).mean() > 0.05


def test_few_neighbours_say_what_the_nearest_does() -> None:
    where = points(20)
    neighbours, _ = nearest(where, np.arange(5, 20), np.arange(5), 3)
    weights = weights_of(where, np.arange(5), neighbours)
    assert (weights[:, 0] == 1 << WEIGHT_BITS).all()
    assert not weights[:, 1:].any()


def test_surroundings_depend_on_nothing_but_places() -> None:
    degrees = np.stack(spiral())
    found = surroundings_of(degrees)
    assert found is surroundings_of(degrees.copy())
    # As every machine must find them, too: payloads hold this number.
    assert surroundings_of(np.round(degrees, 3)).checksum == 0xDD875B24


# ---- places in configurations -------------------------------------------------------------------


def test_places_are_kept_to_a_part_of_their_distance() -> None:
    latitude, longitude = spiral()
    latitude[:2], longitude[:2] = (90, -90), (10, 20)
    told = json.loads(json.dumps(places.pack(latitude, longitude)))
    lat, lon = places.unpack(told)
    assert np.abs(lat - latitude).max() <= told["step"] / 2 + 1e-9
    along = (lon - longitude + 180) % 360 - 180
    assert np.abs(along * np.cos(np.deg2rad(lat))).max() <= told["step"] / 2 + 1e-9
    assert told["step"] < np.rad2deg(np.sqrt(4 * np.pi / CELLS)) / 6
    # What is unpacked is packed to the same.
    assert set(told) == {"step", "cells", "packed"}
    grid = places.pack(latitude.reshape(50, -1), longitude.reshape(50, -1))
    assert grid == {**told, "columns": CELLS // 50}


def test_places_that_are_none_are_refused() -> None:
    latitude, longitude = spiral()
    refused = [
        ((latitude, longitude[1:]), "have shapes"),
        ((latitude * 2, longitude), "latitude must be finite degrees, within ±90"),
        ((latitude, np.where(longitude > 5, longitude, np.nan)), "longitude must be finite"),
        (([], []), "one value per cell"),
    ]
    for given_places, said in refused:
        assert said in refusal(lambda at=given_places: places.pack(*at))
    told = places.pack(latitude, longitude)
    damaged = [
        {}, 3, {**told, "step": 0.0}, {**told, "step": 1}, {**told, "cells": 1 << 30},
        {**told, "cells": CELLS + 1}, {**told, "packed": told["packed"][:50]},
        {**told, "packed": "zz"}, {**told, "columns": 7}, {**told, "more": 1},
    ]  # fmt: skip
    for one in damaged:
        assert "damaged" in refusal(lambda one=one: places.unpack(one))
        assert "damaged" in refusal(lambda one=one: COINppCodec("universal", grid={"places": one},
                                                                max_error=1.0))  # fmt: skip


# ---- the codec ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rate",
    [
        {"max_error": 0.1}, {"max_error_relative": 1e-3}, {"target_rmse": 0.05},
        {"max_error": 0.1, "effort": "fast"}, {"max_error": 0.05, "effort": "best"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("times", [1, 5])
def test_what_is_asked_for_is_kept(rate, times) -> None:
    values = fields(times)
    values[0, 7], values[-1, 9], values[:, 2500:2600] = np.inf, -0.0, np.nan
    one = codec(**rate)
    again = COINppCodec.from_config(json.loads(json.dumps(one.get_config())))
    decoded = again.decode(one.encode(values)).reshape(values.shape)
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.isnan(decoded), np.isnan(values))
    assert decoded[0, 7] == np.inf
    assert "target_rmse" in rate or np.signbit(decoded[-1, 9])
    errors = np.abs(decoded[finite].astype(float) - values[finite])
    if "target_rmse" in rate:
        assert np.sqrt((errors**2).mean()) <= rate["target_rmse"]
    else:
        most = rate.get("max_error") or rate["max_error_relative"] * np.abs(values[finite])
        assert (errors <= most).all()


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_values_of_any_type_and_order(dtype, order) -> None:
    values = np.asarray(fields(3), dtype, order=order)
    decoded = codec(max_error=0.25).decode(codec(max_error=0.25).encode(values))
    decoded = decoded.reshape(values.shape, order=order)
    assert decoded.dtype == values.dtype
    assert np.abs(decoded.astype(float) - values.astype(float)).max() <= 0.25


def test_nothing_is_lost_of_whole_numbers() -> None:
    values = np.rint(fields(3)).astype(np.int16)
    payload = codec(lossless=True).encode(values)
    assert Payload.unpack(payload).kind == Kind.PYRAMID
    np.testing.assert_array_equal(codec(lossless=True).decode(payload).reshape(3, -1), values)
    assert len(payload) < 0.8 * len(COINppCodec("universal", grid="cells", lossless=True)
                                    .encode(values))  # fmt: skip


def test_neighbours_and_times_save_bytes() -> None:
    sizes = [len(codec().encode(fields(times))) for times in (1, 2)]
    order = [
        len(COINppCodec("universal", grid="cells", max_error=0.1).encode(fields(times)))
        for times in (1, 2)
    ]
    assert sizes[0] < 0.5 * order[0]
    copies = np.repeat(fields(1), 2, axis=0)
    assert len(codec().encode(copies)) < 1.8 * sizes[0]


def test_levels_refer_to_each_other() -> None:
    values = np.stack([fields(4) + 3 * level for level in range(4)])
    values += np.random.default_rng(0).normal(0, 0.3, values[0].shape).astype("f4")
    one = codec(time_axis=1)
    payload = one.encode(values)
    assert np.abs(one.decode(payload).reshape(values.shape) - values).max() <= 0.1
    assert len(payload) < 0.6 * sum(len(codec().encode(level)) for level in values)


def test_other_places_do_not_decode() -> None:
    payload = codec().encode(fields(2))
    latitude, longitude = spiral()
    moved = COINppCodec(
        "universal", grid={"latitude": -latitude, "longitude": longitude}, max_error=0.1
    )
    for other, said in (
        (moved, "other latitudes and longitudes of cells than the codec's"),
        (COINppCodec("universal", grid="cells", max_error=0.1), "cells at known places"),
        (COINppCodec("universal", max_error=0.1), "cells at known places"),
    ):
        with pytest.raises(CorruptPayloadError, match=said):
            other.decode(payload)
    assert "has (3000,) cells, the array (2999,)" in refusal(
        lambda: codec().encode(fields(2)[:, :-1])
    )


def test_one_field_is_read_by_itself(tmp_path) -> None:
    latitude, longitude = spiral()
    serializer = COINppArrayCodec(
        "universal", grid={"latitude": latitude, "longitude": longitude}, max_error=0.1
    )
    values = fields(6)
    array = zarr.create_array(
        tmp_path / "t.zarr", shape=values.shape, dtype="f4", chunks=values.shape,
        serializer=serializer, compressors=None,
    )  # fmt: skip
    array[:] = values
    read = zarr.open_array(tmp_path / "t.zarr", mode="r")
    assert np.abs(read[4] - values[4]).max() <= 0.1
    np.testing.assert_array_equal(read[4], read[:][4])


@pytest.mark.parametrize("count", [1, 2, 23, 30, 60])
def test_few_cells(count) -> None:
    latitude, longitude = spiral(count)
    one = COINppCodec(
        "universal", grid={"latitude": latitude, "longitude": longitude}, max_error=0.1
    )
    values = fields(2, count)
    assert np.abs(one.decode(one.encode(values)).reshape(2, -1) - values).max() <= 0.1


def test_cells_at_the_same_place() -> None:
    latitude, longitude = np.zeros((2, 500))
    one = COINppCodec(
        "universal", grid={"latitude": latitude, "longitude": longitude}, max_error=0.1
    )
    values = np.random.default_rng(0).normal(size=(2, 500)).astype("f4")
    assert np.abs(one.decode(one.encode(values)).reshape(2, -1) - values).max() <= 0.1


# ---- datasets -----------------------------------------------------------------------------------


def test_places_are_told_where_they_pay() -> None:
    assert Horizontal.of(dataset(2)["t"]).grid.name == "cells"
    assert Horizontal.of(dataset(12)["t"]).grid.name == "placed"
    without = dataset(12).assign_coords(lat=("cell", np.full(CELLS, np.nan)))
    assert Horizontal.of(without["t"]).grid.name == "cells"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_of_cells_grows(tmp_path, zarr_format) -> None:
    whole, path = dataset(12), tmp_path / "t.zarr"
    start = whole.isel(time=slice(0, 9))
    start.coinpp.to_zarr(path, max_error=0.1, chunk_time=3, zarr_format=zarr_format)
    whole.isel(time=slice(9, 12)).coinpp.to_zarr(path, append_dim="time")
    with xr.open_zarr(path) as opened:
        assert float(np.abs(opened["t"] - whole["t"]).max()) <= 0.1
        assert opened["t"].sizes == whole["t"].sizes
    other = whole.isel(time=slice(9, 12)).assign_coords(lon=-whole["lon"])
    message = refusal(lambda: other.coinpp.to_zarr(path, append_dim="time"))
    assert message == "'t' is on another grid than in the store"


def test_others_get_cells_along_a_curve(tmp_path) -> None:
    dataset(9).to_netcdf(tmp_path / "cells.nc")
    saved = tmp_path / "sizes.json"
    result = CliRunner().invoke(
        app,
        ["compare", str(tmp_path / "cells.nc"), "--max-error", "0.1", "--peers", "sz3,sperr",
         "--save", str(saved)],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    rows = {row["codec"]: row for row in json.loads(saved.read_text())["rows"]}
    assert all("curve" in rows[name]["setting"] for name in ("SZ3", "SPERR"))
    assert all(row["max_error"] <= 0.1 for row in rows.values())
    assert rows["COIN++"]["nbytes"] < rows["SZ3"]["nbytes"]
