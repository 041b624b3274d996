"""Models for data in °C or °F: converted on the way in and out, as the store's metadata says."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

from coinpp_xr import COINppCodec, archive, load_model
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.labels import unit_settings
from coinpp_xr.model_units import in_unit_of_data
from coinpp_xr.stores import codec_of

CELSIUS, FAHRENHEIT = [1.0, 273.15], [5 / 9, 273.15 - 160 / 9]


@pytest.fixture
def kelvin(era5) -> xr.Dataset:
    return era5[["t2m"]].isel(time=slice(0, 6))


def celsius(kelvin: xr.Dataset) -> xr.Dataset:
    return (kelvin - 273.15).assign(
        t2m=lambda ds: ds.t2m.astype("f4").assign_attrs(units="degC")
    )  # fmt: skip


def fahrenheit(kelvin: xr.Dataset) -> xr.Dataset:
    return ((kelvin - 273.15) * 1.8 + 32).assign(
        t2m=lambda ds: ds.t2m.astype("f4").assign_attrs(units="degF")
    )  # fmt: skip


@pytest.mark.parametrize(
    ("convert", "degree", "unit"), [(celsius, 1.0, "°C"), (fahrenheit, 1.8, "°F")]
)
def test_bits_cost_and_err_as_in_kelvin(kelvin, convert, degree, unit) -> None:
    known = kelvin.coinpp.compress(bits=8).report["t2m"]
    found = convert(kelvin).coinpp.compress(bits=8).report["t2m"]
    assert found.schemes == known.schemes == {"latents": 1}
    assert found.unit == unit
    assert found.nbytes == pytest.approx(known.nbytes, rel=0.01)
    assert found.rmse == pytest.approx(degree * known.rmse, rel=0.01)


@pytest.mark.parametrize(
    ("convert", "rate", "zarr_format"),
    [
        (celsius, {"bits": 8}, 2),
        (fahrenheit, {"bits": 8}, 3),
        (celsius, {"target_rmse": 3.0}, 3),
        (fahrenheit, {"target_rmse": 5.4}, 2),
        (celsius, {"max_error": 0.5}, 2),
    ],
)
def test_stores_are_read_by_their_metadata_alone(
    kelvin, tmp_path, convert, rate, zarr_format
) -> None:
    ds = convert(kelvin)
    report = ds.coinpp.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, **rate)
    codec = codec_of(zarr.open_group(tmp_path / "a.zarr", mode="r")["t2m"])
    assert codec.to_model_unit == pytest.approx(CELSIUS if convert is celsius else FAHRENHEIT)
    assert report["t2m"].model == "t2m-46x90"
    np.save(tmp_path / "expected.npy", ds.t2m)
    script = (
        "import sys, numpy as np, xarray as xr\n"
        "found = xr.open_zarr(sys.argv[1], consolidated=False).t2m.values\n"
        "print(np.sqrt(((found - np.load(sys.argv[2])) ** 2).mean()))"
    )
    paths = [str(tmp_path / "a.zarr"), str(tmp_path / "expected.npy")]
    done = subprocess.run(
        [sys.executable, "-c", script, *paths], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) == pytest.approx(report["t2m"].rmse_plain, rel=1e-5)


def test_an_embedded_model_is_converted_too(kelvin, tmp_path, tiny_model) -> None:
    card = {**tiny_model.card, "units": "K"}
    model = replace(tiny_model, offset=200.0, scale=120.0, card=card)
    ds = celsius(kelvin)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.coinpp.to_zarr(tmp_path / "a.zarr", bits=8, model=model, embed_model=True)
    codec = codec_of(zarr.open_group(tmp_path / "a.zarr", mode="r")["t2m"])
    assert codec.to_model_unit == CELSIUS
    back = xr.open_zarr(tmp_path / "a.zarr", consolidated=False).t2m
    assert float(abs(back - ds.t2m).mean()) < 60


@pytest.mark.parametrize(("convert", "bound"), [(celsius, 0.5), (fahrenheit, 0.9)])
def test_a_bound_is_kept_with_a_model_of_another_unit(era5, convert, bound) -> None:
    ds = convert(era5[["t2m"]].isel(time=slice(6, 12)))
    result = ds.coinpp.compress(max_error=bound)
    assert float(np.abs(result.dataset.t2m.astype(float) - ds.t2m.astype(float)).max()) <= bound


def test_reference_fields_help_in_celsius_as_in_kelvin(kelvin) -> None:
    values = celsius(kelvin).t2m
    place = {"latitude": kelvin.lat.values, "longitude": kelvin.lon.values}
    with_unit = COINppCodec(max_error=0.5, to_model_unit=CELSIUS, **place)
    payload = with_unit.encode(values.values)
    assert Payload.unpack(payload).kind == Kind.RESIDUAL_FROM_MODEL
    assert len(payload) < 0.9 * len(
        COINppCodec("none", max_error=0.5, **place).encode(values.values)
    )
    assert float(np.abs(with_unit.decode(payload) - values.values).max()) <= 0.5 + 1e-6


def test_archives_know_the_unit(kelvin, tmp_path) -> None:
    report = archive(
        celsius(kelvin), tmp_path / "a.zarr", target_rmse=3.0, workers=1, model="t2m-46x90"
    )
    assert report.report["t2m"].model == "t2m-46x90"
    codec = codec_of(zarr.open_group(tmp_path / "a.zarr", mode="r")["t2m"])
    assert codec.to_model_unit == CELSIUS


def test_the_model_fits_and_compares(kelvin) -> None:
    known = kelvin.coinpp.models()["t2m-46x90"]
    found = celsius(kelvin).coinpp.models()["t2m-46x90"]
    assert found.fits
    assert found.rmse == pytest.approx(known.rmse, rel=0.01)
    table = celsius(kelvin).coinpp.compare(max_error=0.5, peers=[])
    assert table.seen == kelvin.coinpp.compare(max_error=0.5, peers=[]).seen > 0


# ---- the setting --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"units": "K"}, None),
        ({"units": "kelvin"}, None),
        ({"units": "degC"}, CELSIUS),
        ({"units": "Fahrenheit"}, FAHRENHEIT),
        ({"units": "m s-1"}, None),
        ({}, None),
        ({"units": "degC", "units_metadata": "temperature: difference"}, None),
        ({"units": "degC", "standard_name": "air_temperature_anomaly"}, None),
    ],
)
def test_the_unit_follows_from_the_attributes(attrs, expected) -> None:
    found = unit_settings(load_model("t2m-46x90"), attrs).get("to_model_unit")
    assert found == (None if expected is None else pytest.approx(tuple(expected)))
    assert unit_settings(None, attrs) == {}


def test_the_setting_is_plain_json_and_comes_back() -> None:
    codec = COINppCodec(bits=8, to_model_unit=(1, 273.15))
    config = json.loads(json.dumps(codec.get_config()))
    assert config["to_model_unit"] == CELSIUS
    assert COINppCodec.from_config(config) == codec
    assert "to_model_unit" not in COINppCodec(bits=8, to_model_unit=(1, 0)).get_config()


@pytest.mark.parametrize("value", [1.0, "12", [1], [0, 1], [-1, 0], [1, float("nan")], [True, 0]])
def test_bad_units_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="to_model_unit must be two numbers"):
        COINppCodec(bits=8, to_model_unit=value)


def test_without_a_model_there_is_no_unit() -> None:
    with pytest.raises(ValueError, match="with a model only"):
        COINppCodec("none", max_error=1.0, to_model_unit=CELSIUS)


def test_a_model_in_another_unit_is_one_object_with_the_same_fingerprint() -> None:
    model = load_model("t2m-46x90")
    moved = in_unit_of_data(model, 1.0, 273.15)
    assert moved is in_unit_of_data(model, 1.0, 273.15)
    assert moved.fingerprint == model.fingerprint
    assert (moved.offset, moved.scale) == (model.offset - 273.15, model.scale)
    assert in_unit_of_data(model, 5 / 9, 255.0).reference is None
