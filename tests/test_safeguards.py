"""Our codec under compression-safeguards, and its corrections beside our stores."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safeguard_cases import bound, stencil

from coinpp_xr import COINppCodec
from coinpp_xr.stores import codec_of

numcodecs_safeguards = pytest.importorskip("numcodecs_safeguards")
xarray_safeguards = pytest.importorskip("xarray_safeguards")
zarr_any_numcodecs = pytest.importorskip("zarr_any_numcodecs")

# Zarr says this of every store that xarray writes in format 3.
pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata")

FREEZING = float(np.float32(273.15))
FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def safeguarded(codec: COINppCodec, *safeguards: dict[str, Any]) -> Any:
    return numcodecs_safeguards.SafeguardedCodec(codec=codec, safeguards=safeguards)


def encoding_of(codec: Any, zarr_format: int) -> dict[str, Any]:
    if zarr_format == 2:
        return {"compressors": [codec]}
    serializer = zarr_any_numcodecs.AnyNumcodecsArrayBytesCodec(codec)
    return {"serializer": serializer, "compressors": None}


def largest_error(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max())


# ---- one codec around the other -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "with_coordinates"),
    [
        ({"max_error": 0.5}, True),
        ({"max_error": 0.5, "model": "none"}, False),
        ({"max_error_relative": 0.01}, False),
        ({"target_rmse": 1.0}, True),
        ({"bits": 8}, False),
    ],
    ids=str,
)
def test_a_wrapped_codec_keeps_what_it_does_not_promise_itself(
    era5, inner, with_coordinates
) -> None:
    if with_coordinates:
        inner = {**inner, "latitude": era5.lat.values, "longitude": era5.lon.values}
    values = era5.t2m.values[:2]
    codec = safeguarded(COINppCodec(**inner), {"kind": "sign", "offset": FREEZING}, bound(0.25))
    decoded = codec.decode(payload := codec.encode(values))
    assert largest_error(decoded, values) <= 0.25
    assert np.array_equal(decoded < FREEZING, values < FREEZING)

    out = np.empty_like(values)
    codec.decode(payload, out)
    assert np.array_equal(out, decoded)

    again = numcodecs.get_codec(json.loads(json.dumps(codec.get_config())))
    assert again.codec == codec.codec
    assert np.array_equal(again.decode(payload), decoded)


def test_a_guarantee_that_holds_anyway_costs_three_bytes(era5) -> None:
    values, ours = era5.t2m.values[:4], COINppCodec(max_error=0.5)
    assert len(safeguarded(ours, bound(0.5)).encode(values)) == len(ours.encode(values)) + 3


# The inner bound is coarse on purpose, whatever the field.
@pytest.mark.filterwarnings("ignore:max_error=10 reaches")
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    hnp.arrays(
        st.sampled_from([np.float32, np.float64]),
        (2, 5, 8),
        elements=st.floats(-1e3, 1e3, width=32) | st.sampled_from([np.nan, -0.0, 0.0]),
    )
)
def test_signs_are_kept_whatever_the_field(values) -> None:
    codec = safeguarded(COINppCodec(model="none", max_error=10.0), {"kind": "sign"}, bound(5.0))
    decoded = codec.decode(codec.encode(values))
    assert decoded.dtype == values.dtype
    assert np.array_equal(np.sign(decoded), np.sign(values), equal_nan=True)
    known = ~np.isnan(values)
    assert largest_error(decoded[known], values[known]) <= 5 if known.any() else True


# ---- through xarray and Zarr --------------------------------------------------------------------


@FORMATS
def test_a_store_opens_in_a_program_that_imports_xarray_alone(tmp_path, era5, zarr_format) -> None:
    codec = safeguarded(COINppCodec(max_error=0.5), bound(0.25))
    encoding = {"t2m": encoding_of(codec, zarr_format)}
    era5.to_zarr(tmp_path / "x", encoding=encoding, zarr_format=zarr_format, consolidated=False)
    program = (
        "import sys, xarray\n"
        "xarray.open_zarr(sys.argv[1], consolidated=False).t2m.to_numpy().tofile(sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, tmp_path / "x", tmp_path / "v"], check=True)
    read = np.fromfile(tmp_path / "v", np.float32).reshape(era5.t2m.shape)
    assert 0 < largest_error(read, era5.t2m) <= 0.25


@FORMATS
def test_chunks_of_a_wrapped_codec_hold_whole_globes(tmp_path, zarr_format) -> None:
    # As large as this, Zarr would choose chunks that cut them.
    field = xr.DataArray(np.zeros((24, 241, 480), np.float32), dims=("time", "lat", "lon"))
    encoding = encoding_of(safeguarded(COINppCodec(max_error=1.0), bound(1)), zarr_format)
    given = {"zarr_format": zarr_format, "consolidated": False}
    field.to_dataset(name="t").to_zarr(tmp_path / "x", encoding={"t": encoding}, **given)
    array = zarr.open_group(tmp_path / "x", mode="r")["t"]
    assert array.chunks[1:] == (241, 480)
    # What it holds is no payload of ours, though.
    assert codec_of(array) is None

    encoding["chunks"] = (24, 121, 480)
    with pytest.raises(ValueError, match="do not hold whole fields"):
        field.to_dataset(name="t").to_zarr(tmp_path / "y", encoding={"t": encoding}, **given)


# ---- corrections beside the data: docs/safeguards.md, which is run, has more --------------------


def eastward(values: Any) -> Any:
    values = np.asarray(values, np.float64)
    return (np.roll(values, -1, -1) - np.roll(values, 1, -1)) / 2


def test_a_correction_beside_a_store_is_made_chunk_by_chunk(tmp_path, era5) -> None:
    era5.coinpp.to_zarr(tmp_path / "x.zarr", max_error=0.5)
    decoded = xr.open_zarr(tmp_path / "x.zarr", chunks=None).t2m

    chunks = {"time": 6}
    correction = xarray_safeguards.produce_data_array_correction(
        era5.t2m.chunk(chunks),
        decoded.chunk(chunks),
        safeguards=[stencil("(X[2] - X[0]) / 2", 2, 1, "wrap", 0.3), bound(0.5)],
    )
    correction.to_dataset().to_zarr(tmp_path / "x.zarr", mode="a")

    safe = xr.open_zarr(tmp_path / "x.zarr", chunks=None).chunk(chunks).safeguarded.t2m
    assert largest_error(eastward(decoded), eastward(era5.t2m)) > 0.3
    assert largest_error(eastward(safe), eastward(era5.t2m)) <= 0.3
    assert largest_error(safe, era5.t2m) <= 0.5


@pytest.mark.data
def test_wind_speed_of_two_components(tmp_path, data_folder) -> None:
    with xr.open_dataset(data_folder / "climate/era5_snapshots_1deg.nc", engine="netcdf4") as ds:
        winds = ds[["u10", "v10"]].isel(time=slice(2)).load()

    def wind(fields: xr.Dataset) -> xr.DataArray:
        return xr.concat([fields.u10, fields.v10], "component").rename("wind")

    def speed(wind: xr.DataArray) -> Any:
        u, v = wind.values.astype(np.float64)
        return np.sqrt(u * u + v * v)

    winds.coinpp.to_zarr(tmp_path / "x.zarr", max_error=0.5)
    decoded = wind(xr.open_zarr(tmp_path / "x.zarr", chunks=None).load())
    correction = xarray_safeguards.produce_data_array_correction(
        wind(winds),
        decoded,
        safeguards=[stencil("sqrt(X[0] * X[0] + X[1] * X[1])", 0, 0, "valid", 0.5), bound(0.5)],
    )
    safe = xarray_safeguards.apply_data_array_correction(decoded, correction)
    assert largest_error(speed(decoded), speed(wind(winds))) > 0.5
    assert largest_error(speed(safe), speed(wind(winds))) <= 0.5
    assert largest_error(safe, wind(winds)) <= 0.5
