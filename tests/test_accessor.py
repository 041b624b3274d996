"""``ds.coinpp.compress`` and ``da.coinpp.compress``: what they keep, change, refuse and report."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import pytest
import xarray as xr
from refusals import refusal

import coinpp_xr
from coinpp_xr import COINppCodec, CompressionWarning, accessor
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.model_files import shipped_models

# The network's output differs by rounding between batches and threads.
ROUNDING = 1e-3


@pytest.fixture
def ds(tiny_globes) -> xr.Dataset:
    """Five globes of a temperature on a 10 × 20 grid."""
    grid = next(SphereGrid.usual_layouts(10, 20))
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), tiny_globes, {"units": "K", "long_name": "temperature"})},
        coords={"time": np.arange(5), "lat": grid.latitude, "lon": grid.longitude},
        attrs={"title": "test"},
    )


@pytest.fixture
def compress(tiny_model) -> Callable[..., Any]:
    def call(data: xr.Dataset | xr.DataArray, bits: Any = 8, **arguments: Any) -> Any:
        bits = None if "target_rmse" in arguments else bits
        return data.coinpp.compress(bits, **{"model": tiny_model} | arguments)

    return call


def many(ds: xr.Dataset, count: int) -> xr.Dataset:
    """``count`` globes that repeat those of the dataset."""
    return ds.isel(time=np.arange(count) % 5).assign_coords(time=np.arange(count))


def largest_difference(a: Any, b: Any) -> float:
    return float(np.abs(np.asarray(a, float) - np.asarray(b, float)).max())


# ---- registration -----------------------------------------------------------------------------


def test_importing_the_package_stays_cheap() -> None:
    heavy = ["torch", "zarr", "numcodecs", "cf_xarray", "pint", "matplotlib", "rich", "dask"]
    script = f"import sys, coinpp_xr; print([m for m in {heavy} if m in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert answer.stdout.decode().strip() == "[]"


def test_registering_twice_is_silent(ds) -> None:
    accessor.register()
    assert isinstance(ds.coinpp, accessor.DatasetAccessor)
    assert isinstance(ds.t.coinpp, accessor.DataArrayAccessor)


# ---- the reconstruction -------------------------------------------------------------------------


def test_the_reconstruction_is_what_the_codec_gives(ds, compress, tiny_model) -> None:
    codec = COINppCodec(tiny_model, bits=8, latitude=ds.lat, longitude=ds.lon)
    expected = codec.decode(codec.encode(ds.t.values))
    assert largest_difference(compress(ds).dataset.t, expected) < ROUNDING


def test_a_model_can_be_given_by_name_and_the_shipped_one_is_the_default(era5) -> None:
    result = era5.isel(time=slice(2)).coinpp.compress(bits=8)
    assert result.report.model == "t2m-46x90"
    assert result.report["t2m"].outcome == "compressed"
    assert result.report["t2m"].unit == "°C"
    assert result.ratio > 1


def test_structure_and_attributes_stay(ds, compress) -> None:
    ds["t"].encoding = {"_FillValue": -1.0}
    ds = ds.assign(count=("time", np.arange(5)), t2=ds.t + 1).set_coords("count")
    result = compress(ds).dataset
    xr.testing.assert_identical(result.drop_vars(["t", "t2"]), ds.drop_vars(["t", "t2"]))
    assert list(result.variables) == list(ds.variables)
    assert result.t.attrs == ds.t.attrs
    assert result.t.encoding == ds.t.encoding
    assert result.attrs == ds.attrs


def test_the_original_stays_as_it_was(ds, compress) -> None:
    before = ds.copy(deep=True)
    compress(ds)
    xr.testing.assert_identical(ds, before)


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
def test_dtypes_stay_and_the_ratio_is_against_float32(ds, compress, dtype) -> None:
    result = compress(ds.astype(dtype))
    assert result.dataset.t.dtype == dtype
    assert result.report["t"].raw_nbytes_float32 == 4 * ds.t.size
    assert result.report["t"].rmse < 0.5


@pytest.mark.parametrize(
    "dims", [("lat", "lon", "time"), ("lon", "lat", "time"), ("time", "lon", "lat")]
)
def test_latitude_and_longitude_may_stand_anywhere(ds, compress, dims) -> None:
    result = compress(ds.transpose(*dims))
    assert result.dataset.t.dims == dims
    straight = compress(ds).dataset.t
    assert largest_difference(result.dataset.t.transpose("time", "lat", "lon"), straight) < ROUNDING


@pytest.mark.parametrize(
    "rearranged",
    [
        lambda ds: ds.sortby("lat"),
        lambda ds: ds.sortby("lon", ascending=False),
        lambda ds: ds.assign_coords(lon=(ds.lon + 180) % 360 - 180).sortby("lon"),
    ],
    ids=["ascending latitude", "descending longitude", "-180 .. 180"],
)
def test_every_orientation_is_fitted_equally_well(ds, compress, rearranged) -> None:
    straight, other = compress(ds), compress(rearranged(ds))
    assert other.report["t"].rmse == pytest.approx(straight.report["t"].rmse, rel=0.05)


def test_several_batch_axes_and_none(ds, compress) -> None:
    members = xr.concat([ds, ds, ds], "member").transpose("time", "member", "lat", "lon")
    assert compress(members).report["t"].n_globes == 15
    globe = compress(ds.isel(time=1))
    assert globe.report["t"].n_globes == 1
    assert globe.dataset.t.dims == ("lat", "lon")


def test_missing_values_come_back_and_are_counted(ds, compress) -> None:
    land = ds.lat < -40
    masked = ds.where(~land)
    result = compress(masked)
    np.testing.assert_array_equal(np.isnan(result.dataset.t), np.isnan(masked.t))
    assert result.report["t"].missing_cells == int(land.sum()) * 20 * 5
    assert result.report["t"].rmse < 0.5


# ---- sizes and chunks -------------------------------------------------------------------------


def test_nbytes_is_the_sum_of_the_payloads_of_256_globes_each(ds, compress, tiny_model) -> None:
    ds = many(ds, 600)
    codec = COINppCodec(tiny_model, bits=8, latitude=ds.lat, longitude=ds.lon)
    chunks = [ds.t.values[start : start + 256] for start in range(0, 600, 256)]
    result = compress(ds)
    assert result.nbytes == sum(len(codec.encode(chunk)) for chunk in chunks)
    assert result.ratio == 4 * ds.t.size / result.nbytes


def test_members_are_chunks_of_their_own(ds, compress, tiny_model) -> None:
    members = xr.concat([ds.t, ds.t + 1], "member").transpose("time", "member", "lat", "lon")
    codec = COINppCodec(tiny_model, bits=8, latitude=ds.lat, longitude=ds.lon)
    chunks = [members.values[:, i : i + 1] for i in range(2)]
    assert compress(members).nbytes == sum(len(codec.encode(chunk)) for chunk in chunks)


def test_the_report_adds_up_over_chunks(ds, compress) -> None:
    ds = many(ds, 300)
    result = compress(ds)
    error = (result.dataset.t - ds.t).astype(float)
    per_globe = (error**2).weighted(np.cos(np.deg2rad(ds.lat))).mean(("lat", "lon"))
    report = result.report["t"]
    assert report.rmse == pytest.approx(float(np.sqrt(per_globe.mean())), rel=1e-5)
    assert report.worst_globe_rmse == pytest.approx(float(np.sqrt(per_globe.max())), rel=1e-5)
    assert report.max_error == pytest.approx(float(np.abs(error).max()), rel=1e-5)


def test_the_worst_globe_is_found_in_any_chunk(ds, compress) -> None:
    ds = many(ds, 300)
    ds.t[270, 3:6, 3:6] += 20  # three rows that three latents cannot follow
    report = compress(ds).report["t"]
    assert (report.worst_globe_index, report.worst_globe_label) == (270, "time=270")


# ---- dask ---------------------------------------------------------------------------------------


def test_dask_data_gives_the_same_as_numpy(ds, compress) -> None:
    plain, lazy = compress(ds), compress(ds.chunk(time=5))
    assert lazy.nbytes == plain.nbytes
    assert largest_difference(lazy.dataset.t, plain.dataset.t) < ROUNDING
    assert lazy.report["t"].rmse == pytest.approx(plain.report["t"].rmse, rel=1e-4)


def test_the_reconstruction_of_dask_data_is_a_dask_array_in_the_same_chunks(ds, compress) -> None:
    ds = ds.chunk(time=(2, 3)).transpose("lat", "time", "lon")
    result = compress(ds).dataset.t
    assert result.chunks == ds.t.chunks
    assert result.dtype == ds.t.dtype


def test_dask_data_is_read_once_and_one_chunk_at_a_time(ds, compress) -> None:
    reads: list[int] = []

    def read(block: np.ndarray) -> np.ndarray:
        reads[-1] += 1
        return block

    def scheduler(graph: Any, keys: Any, **arguments: Any) -> Any:
        reads.append(0)
        return dask.get(graph, keys, **arguments)

    source = dask.array.from_array(ds.t.values, chunks=(1, 10, 20))
    source = source.map_blocks(read, dtype=source.dtype, meta=source._meta)
    with dask.config.set(scheduler=scheduler):
        compress(ds.assign(t=(ds.t.dims, source)))
    assert reads == [1, 1, 1, 1, 1]


def test_dask_chunks_that_cut_globes_are_read_across(ds, compress) -> None:
    plain, cut = compress(ds), compress(ds.chunk(time=2, lat=5, lon=7))
    assert cut.nbytes == plain.nbytes
    assert largest_difference(cut.dataset.t, plain.dataset.t) < ROUNDING


def test_deep_dask_chunks_become_several_payloads(ds, compress) -> None:
    ds = many(ds, 300)
    plain, deep = compress(ds), compress(ds.chunk(time=300))
    assert deep.nbytes == plain.nbytes
    assert largest_difference(deep.dataset.t, plain.dataset.t) < ROUNDING


def test_dask_data_that_is_kept_without_loss_comes_back_bit_for_bit(ds, compress) -> None:
    lazy = (ds * 1000).chunk(time=2)
    with pytest.warns(CompressionWarning, match="without loss"):
        result = compress(lazy)
    np.testing.assert_array_equal(result.dataset.t, lazy.t)


def test_a_file_is_read_without_dask(ds, compress, tmp_path) -> None:
    ds.transpose("lon", "time", "lat").to_netcdf(tmp_path / "t.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "t.nc", engine="netcdf4") as opened:
        result = compress(opened)
    straight = compress(ds).dataset.t
    assert largest_difference(result.dataset.t.transpose(*straight.dims), straight) < ROUNDING


# ---- what is left alone -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        (lambda ds: ds.t.astype(int), "integers: kept as they are"),
        (lambda ds: ds.t > 250, "booleans: kept as they are"),
        (lambda ds: ds.time.astype("M8[s]").drop_vars("time"), "dates: kept as they are"),
        (lambda ds: ds.lat.astype(str).variable, "text or objects: kept as they are"),
        (lambda ds: ds.t.mean(("lat", "lon")), "no latitude/longitude"),
        (lambda ds: ds.t.mean(), "no latitude/longitude"),
        (lambda ds: ds.t.mean("lon"), "no latitude/longitude: has no longitude coordinate"),
        (lambda ds: ds.t[:0].rename(time="none"), "no values"),
    ],
)
def test_other_variables_stay_as_they_are_and_the_report_says_why(
    ds, compress, variable, reason
) -> None:
    ds = ds.assign(other=variable(ds))
    result = compress(ds)
    xr.testing.assert_identical(result.dataset.other, ds.other)
    assert result.report["other"].outcome.startswith(reason)
    assert result.report["other"].nbytes is None


def test_variables_that_were_not_asked_for_stay_as_they_are(ds, compress) -> None:
    ds = ds.assign(u=ds.t + 1)
    result = compress(ds, variables="t")
    xr.testing.assert_identical(result.dataset.u, ds.u)
    assert result.report["u"].outcome == "left alone: not asked for"
    assert result.report["t"].outcome == "compressed"


def test_a_variable_the_model_was_not_made_for_is_stored_without_loss(ds, compress) -> None:
    ds = ds.assign(pressure=(ds.t * 1000).assign_attrs(units="Pa"))
    with pytest.warns(CompressionWarning, match=r"^pressure: values .* stored without loss"):
        result = compress(ds)
    report = result.report["pressure"]
    assert report.outcome.startswith("stored without loss: values ")
    assert "which model 'tiny' (200 … 300 K) does not explain" in report.outcome
    assert (report.model, report.model_nbytes) == ("none", 0)
    assert report.max_error == 0
    assert report.nbytes > 0
    np.testing.assert_array_equal(result.dataset.pressure, ds.pressure)


def test_the_warning_comes_once_per_variable_and_points_here(ds, compress, tiny_model) -> None:
    ds = many(ds, 600) * 1000
    with pytest.warns(CompressionWarning) as caught:
        ds.coinpp.compress(8, model=tiny_model)
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize(
    ("value", "reason"), [(np.nan, "missing values only"), (273.15, "constant")]
)
def test_what_cannot_be_fitted_is_stored_without_loss(ds, compress, value, reason) -> None:
    result = compress(ds.t * 0 + value)
    report = result.report["t"]
    assert report.outcome.startswith(f"stored without loss: {reason}")
    assert result.dataarray.isnull().all() or report.max_error == 0


def test_a_report_counts_the_chunks_that_were_stored_without_loss(ds, compress) -> None:
    ds = many(ds, 300)
    ds.t[256:] = 273.15
    outcome = compress(ds).report["t"].outcome
    assert outcome.startswith("compressed, except for 1 of 2 chunks stored without loss: constant")


# ---- targets ----------------------------------------------------------------------------------


def test_a_target_is_met_for_every_variable_and_shown_beside_what_was_reached(ds, compress) -> None:
    ds = ds.assign(u=(ds.t - 250).assign_attrs(units="m s-1"))
    report = compress(ds, target_rmse={"t": 1.0, "u": 0.25}).report
    for name, target in (("t", 1.0), ("u", 0.25)):
        assert report[name].target_rmse == target
        assert 0 < report[name].rmse <= report[name].worst_chunk_rmse <= target
    assert report["u"].schemes in ({"grid": 1}, {"grid from model": 1})


def test_without_a_model_nothing_of_it_is_counted(ds, compress) -> None:
    report = compress(ds, model="none", target_rmse=1.0).report
    assert report["t"].rmse <= 1.0
    assert (report.model, report.model_nbytes) == ("none", 0)
    assert "no model needed" in str(report)


@pytest.mark.parametrize("model", ["none", "t2m-46x90"])
def test_without_a_rate_a_bound_is_asked_for_where_none_is_recommended(ds, compress, model) -> None:
    message = refusal(lambda: compress(ds.assign(u=ds.t), bits=None, model=model))
    assert "write max_error={'t': …, 'u': …}" in message


def test_time_is_transformed_wherever_it_stands(ds, compress) -> None:
    members = xr.concat([ds.t, ds.t + 1], "member")  # member, time, lat, lon
    straight = compress(members.transpose("time", "member", "lat", "lon"), target_rmse=0.5)
    assert compress(members, target_rmse=0.5).nbytes == straight.nbytes


# ---- arguments ----------------------------------------------------------------------------------


def test_a_typo_in_variables_names_what_is_near(ds, compress) -> None:
    ds = ds.rename(t="temperature")
    message = refusal(lambda: compress(ds, variables=["temprature"]))
    assert message == "no variable 'temprature'; did you mean temperature?"


def test_an_unknown_variable_without_near_names_lists_all(ds, compress) -> None:
    message = refusal(lambda: compress(ds.assign(u=ds.t), variables="precipitation"))
    assert message == "no variable 'precipitation'; there are: t, u"


def test_a_typo_in_the_mapping_of_a_rate_control_is_noticed(ds, compress) -> None:
    ds = ds.rename(t="temperature")
    assert "did you mean temperature?" in refusal(lambda: compress(ds, bits={"temperatur": 8}))


def test_a_variable_that_cannot_be_compressed_is_refused_when_asked_for(ds, compress) -> None:
    ds = ds.assign(count=ds.t.astype(int))
    message = refusal(lambda: compress(ds, variables=["t", "count"]))
    assert message == "cannot compress 'count': integers: kept as they are"


def test_nothing_to_compress_is_an_error(ds, compress) -> None:
    message = refusal(lambda: compress(ds.astype(int)))
    assert message == "no variable can be compressed (t: integers: kept as they are)"
    assert "there is none" in refusal(lambda: compress(xr.Dataset()))


def test_a_rate_control_can_be_given_by_variable(ds, compress) -> None:
    ds = ds.assign(u=ds.t)
    report = compress(ds, bits={"t": 2, "u": 12}).report
    assert report["t"].nbytes < report["u"].nbytes
    assert report["t"].rmse > report["u"].rmse


def test_variables_without_a_rate_control_are_left_as_they_are(ds, compress) -> None:
    ds = ds.assign(u=ds.t)
    result = compress(ds, bits={"t": 8})
    assert result.report["u"].outcome == "no rate control given for it: written without loss"
    xr.testing.assert_identical(result.dataset.u, ds.u)


@pytest.mark.parametrize("arguments", [{"bits": 0}, {"bits": 8, "max_error": 1.0}, {"effort": "?"}])
def test_wrong_settings_are_refused_before_anything_is_compressed(ds, compress, arguments) -> None:
    refusal(lambda: compress(ds, **arguments))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda da: da.coinpp.compress(max_eror=1.0),
            "compress() has no argument 'max_eror'; did you mean max_error?",
        ),
        (
            lambda da: da.to_dataset().coinpp.compress(target_rsme=1.0),
            "compress() has no argument 'target_rsme'; did you mean target_rmse?",
        ),
        (
            lambda da: da.coinpp.to_zarr("never.zarr", max_eror=1.0),
            "to_zarr() has no argument 'max_eror'; did you mean max_error?",
        ),
        (
            lambda da: da.to_dataset().coinpp.to_zarr("never.zarr", max_error=1.0, mdoe="w"),
            "to_zarr() has no argument 'mdoe'; did you mean mode?",
        ),
        (
            lambda da: da.coinpp.compare(bound=1.0),
            "compare() has no argument 'bound'; it takes: max_error, target_rmse, peers, model, "
            "chunk, curves, whole",
        ),
        (
            lambda da: coinpp_xr.COINppCodec(max_eror=1.0),
            "COINppCodec() has no argument 'max_eror'; did you mean max_error?",
        ),
        (
            lambda da: coinpp_xr.ImagePatchCodec(target_pnsr=40),
            "ImagePatchCodec() has no argument 'target_pnsr'; did you mean target_psnr?",
        ),
        (
            lambda da: coinpp_xr.train(da, latents=4),
            "train() has no argument 'latents'; did you mean latent_dim?",
        ),
        (
            lambda da: coinpp_xr.archive(da, "never.zarr", max_eror=1.0),
            "archive() has no argument 'max_eror'; did you mean max_error?",
        ),
        (
            lambda da: coinpp_xr.plan_archive(da, "never.zarr", max_eror=1.0),
            "plan_archive() has no argument 'max_eror'; did you mean max_error?",
        ),
        (
            lambda da: coinpp_xr.plan_archive(da, "never.zarr", colour=1.0),
            "plan_archive() has no argument 'colour'; it takes: source, store, workers, and what "
            "archive takes",
        ),
    ],
)
def test_a_mistyped_argument_is_named_with_the_one_that_was_meant(ds, call, message) -> None:
    assert refusal(lambda: call(ds.t), TypeError) == message


@pytest.mark.parametrize("control", ["max_error", "target_rmse"])
def test_a_negative_error_is_refused_by_its_name(ds, compress, control) -> None:
    message = refusal(lambda: compress(ds, bits=None, **{control: -1.0}))
    assert message == f"{control} must be a positive number in the data's unit, got -1.0"


def test_data_without_coordinates_is_told_which_are_missing(ds, compress) -> None:
    message = refusal(lambda: compress(ds.drop_vars(["lat", "lon"])))
    assert "bits needs to know where cells are" in message
    alone = ds.drop_vars(["lat", "lon"]).rename(lat="a", lon="b")
    message = refusal(lambda: compress(alone))
    assert "has no latitude coordinate; name it 'latitude', or name dimensions of rows" in message


def test_an_unknown_model_is_refused(ds) -> None:
    refusal(lambda: ds.coinpp.compress(8, model="no-such-model"), coinpp_xr.ModelNotFoundError)


# ---- DataArrays ---------------------------------------------------------------------------------


def test_a_data_array_comes_back_as_one_and_as_a_dataset(ds, compress) -> None:
    result = compress(ds.t)
    xr.testing.assert_identical(result.dataarray, result.dataset.t)
    assert largest_difference(result.dataarray, compress(ds).dataset.t) < ROUNDING


@pytest.mark.parametrize("name", [None, "t", "a b"])
def test_a_data_array_keeps_its_name(ds, compress, name) -> None:
    array = ds.t.rename(name)
    result = compress(array)
    assert result.dataarray.name == name
    assert result.dataarray.dims == array.dims
    assert result.dataarray.attrs == array.attrs
    assert list(result.dataset) == [name or "field"]


def test_a_dataset_gives_no_data_array(ds, compress) -> None:
    assert compress(ds).dataarray is None


def test_a_data_array_without_latitude_and_longitude_is_refused(ds, compress) -> None:
    nameless = ds.t.drop_vars("lat").rename(lat="a")
    assert "no latitude/longitude" in refusal(lambda: compress(nameless))
    assert "coordinate 'lat'" in refusal(lambda: compress(ds.lat))


# ---- what is shown ------------------------------------------------------------------------------


def test_the_repr_shows_size_and_table(ds, compress) -> None:
    result = compress(ds)
    assert f"{result.nbytes:,} bytes" in repr(result)
    assert str(result.report) in repr(result)


def test_times_are_measured(ds, compress) -> None:
    report = compress(ds).report["t"]
    assert report.encode_seconds > 0
    assert report.decode_seconds > 0


def test_the_report_is_json(ds, compress) -> None:
    report = compress(ds.assign(count=1)).report.to_dict()
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_plot_draws_the_first_encoded_variable(ds, compress) -> None:
    figure = compress(ds.assign(count=1)).plot(item=3)
    assert figure.get_suptitle() == "t  time=3"
    titles = [axes.get_title().split(",")[0] for axes in figure.axes]
    assert titles[3:5] == ["errors by area", "power spectrum"]


def test_plot_refuses_what_was_not_encoded(ds, compress) -> None:
    result = compress(ds.assign(count=1))
    message = refusal(lambda: result.plot(variable="count"))
    assert message == "variable 'count' was not compressed; there are: t"


def test_a_map_of_bits(ds, compress) -> None:
    result = compress(ds)
    message = refusal(lambda: result.plot("t"))
    assert message == "kind must be 'errors' or 'bits', got 't'; for a variable: plot(variable='t')"
    message = refusal(lambda: result.plot("bits"))
    assert message == "a map of bits needs max_error, and t was compressed without it"
    with xr.open_dataset(Path(__file__).parent.parent / "examples/gfs_t2m_0p25_asia.nc") as asia:
        bounded = asia.load().coinpp.compress(max_error=0.25)
    figure = bounded.plot("bits")
    bits = figure.axes[0].collections[0].get_array()
    own = 8 * bounded.nbytes / asia.t2m.size
    assert figure.axes[0].get_title().endswith(" bits a cell")
    assert float(bits.mean()) == pytest.approx(own, rel=0.05)
    # Mountains take more than plains and seas.
    assert float(bits.max()) > 2 * float(bits.mean())
    message = refusal(lambda: bounded.isel(latitude=slice(0, 4)).plot("bits"))
    assert "no map of bits for t2m" in message


def test_a_bound_by_variable_holds_and_is_reported(era5) -> None:
    two = era5[["t2m"]].isel(time=slice(0, 3)).assign(warm=lambda ds: ds.t2m - 273.15)
    result = two.coinpp.compress(max_error={"t2m": 0.5}, max_error_relative={"warm": 0.02})
    t2m, warm = result.dataset.t2m, result.dataset.warm
    assert float(np.abs(t2m - two.t2m).max()) <= 0.5
    assert bool((np.abs(warm - two.warm) <= 0.02 * np.abs(two.warm)).all())
    assert [result.report[name].asked for name in ("t2m", "warm")] == ["±0.5 °C", "±2 %"]
    assert result.report["t2m"].max_error <= 0.5


# ---- parts of a result --------------------------------------------------------------------------


def rmse_by_area(original: xr.DataArray, decoded: xr.DataArray) -> float:
    squares = (decoded - original).astype(float) ** 2
    return float(np.sqrt(squares.weighted(np.cos(np.deg2rad(original.lat))).mean()))


@pytest.mark.parametrize(
    "place",
    [
        {"lat": slice(60, -20), "lon": slice(50, 200)},
        {"time": slice(1, 3)},
        {"time": 2},
        {"time": [4, 0], "lon": [18.0]},
    ],
    ids=str,
)
def test_the_errors_of_a_part_are_measured_again(ds, compress, place) -> None:
    result = compress(ds)
    part = result.sel(place)
    xr.testing.assert_identical(part.dataset, result.dataset.sel(place))
    assert part.report["t"].rmse == pytest.approx(
        rmse_by_area(ds.t.sel(place), result.dataset.t.sel(place)), rel=1e-5
    )
    largest = largest_difference(ds.t.sel(place), result.dataset.t.sel(place))
    assert part.report["t"].max_error == pytest.approx(largest, rel=1e-5)


def test_bytes_and_ratio_of_a_part_are_those_of_the_whole_and_the_report_says_so(
    ds, compress
) -> None:
    result = compress(ds)
    part = result.isel(time=0).isel(lat=slice(2, 5))
    assert (part.nbytes, part.ratio) == (result.nbytes, result.ratio)
    assert part.report["t"].n_globes == 1
    assert part.report["t"].worst_chunk_rmse is None
    assert part.report.part == "time=0, lat=50.0 … 10.0"
    assert "errors of a part (time=0, lat=50.0 … 10.0)" in repr(part)


def test_a_part_of_a_dataarray_is_one(ds, compress) -> None:
    part = compress(ds.t).sel(lat=50, lon=18, method="nearest")
    assert part.dataarray.dims == ("time",)
    xr.testing.assert_identical(part.dataarray, part.dataset.t)
    assert part.report["t"].max_error == pytest.approx(
        largest_difference(part.dataarray, ds.t.sel(lat=50, lon=18, method="nearest")), rel=1e-5
    )


def test_other_variables_are_selected_too(ds, compress) -> None:
    part = compress(ds.assign(count=("time", np.arange(5)))).isel(time=[1, 2])
    assert part.dataset["count"].values.tolist() == [1, 2]
    assert part.report["count"].nbytes is None


def test_a_part_of_dask_data_stays_lazy(ds, compress) -> None:
    part = compress(ds.chunk(time=2)).isel(time=slice(1, 4))
    assert part.dataset.t.chunks is not None
    assert part.report["t"].rmse == pytest.approx(
        compress(ds).isel(time=slice(1, 4)).report["t"].rmse, rel=1e-3
    )


def test_a_part_can_be_drawn_but_not_a_row_of_it(ds, compress) -> None:
    region = compress(ds).sel(lat=slice(60, -20), lon=slice(50, 200))
    assert region.plot(item=2).get_suptitle() == "t  time=2"
    message = refusal(lambda: region.isel(lat=[0]).plot())
    assert "select a larger part" in message


def test_selections_that_make_no_grid_or_hold_nothing_are_refused(ds, compress) -> None:
    result = compress(ds)
    points = {
        "lat": xr.DataArray([50.0, 30.0], dims="p"),
        "lon": xr.DataArray([0.0, 18.0], dims="p"),
    }
    assert "select lat by a value, a list or a slice" in refusal(lambda: result.sel(points))
    assert "nothing is left" in refusal(lambda: result.sel(time=slice(7, 9)))


# ---- models that fit ----------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path) -> Any:
    """An empty folder of cached models."""
    with coinpp_xr.config.set(cache=str(tmp_path)):
        yield tmp_path


def test_the_models_that_fit_come_first_with_the_smallest_error(ds, cache, tiny_model) -> None:
    tiny_model.save(cache / "tiny.safetensors")
    models = ds.coinpp.models()
    assert models[0].name == "tiny"
    assert (models["tiny"].fits, models["tiny"].where) == (True, "cached")
    assert models["tiny"].rmse == pytest.approx(0.2, abs=0.3)
    assert [fit.fits for fit in models] == sorted((fit.fits for fit in models), reverse=True)
    assert len(models) == 1 + len(shipped_models())


def test_models_of_patches_do_not_fit_globes(ds, cache) -> None:
    fit = ds.coinpp.models()["photo-32"]
    assert not fit.fits
    assert fit.reason == "made for patches of images, volumes or sound, not for globes"


@pytest.mark.parametrize(
    ("attrs", "shift", "reason"),
    [
        ({"units": "m s-1"}, -250, "made for values in K, and the variable is in m s-1"),
        ({}, 5000, "do not look like globes that model 't2m-46x90' was made for"),
        ({"units": "K"}, 5000, "do not look like globes that model 't2m-46x90' was made for"),
    ],
)
def test_a_model_that_does_not_fit_says_why(ds, cache, attrs, shift, reason) -> None:
    array = (ds.t + shift).assign_attrs(attrs)
    array.attrs = attrs
    fit = array.coinpp.models()["t2m-46x90"]
    assert not fit.fits
    assert reason in fit.reason


def test_spellings_of_a_unit_are_one(era5, cache) -> None:
    array = era5.t2m.assign_attrs(units="kelvin")
    assert array.coinpp.models()["t2m-46x90"].fits


def test_a_standard_name_that_differs_is_a_reason(ds, cache, tiny_model) -> None:
    card = tiny_model.card | {"standard_name": "air_temperature"}
    replace(tiny_model, card=card).save(cache / "tiny.safetensors")
    array = ds.t.assign_attrs(standard_name="sea_surface_temperature")
    reason = array.coinpp.models()["tiny"].reason
    assert reason == "made for air_temperature, and the variable is sea_surface_temperature"


def test_what_a_model_was_trained_on_is_remarked(era5, cache) -> None:
    coarse = era5.rename(t2m="tas").isel(lat=slice(None, None, 2))
    reason = coarse.coinpp.models("tas")["t2m-46x90"].reason
    assert reason == "trained on t2m; trained on a grid of 46 x 90"


def test_a_damaged_model_is_listed_with_the_reason(ds, cache) -> None:
    (cache / "broken.safetensors").write_bytes(b"not a model")
    fit = ds.coinpp.models()["broken"]
    assert (fit.fits, fit.model) == (False, None)
    assert "damaged" in fit.reason
    assert "broken" in repr(ds.coinpp.models())


def test_listing_models_does_not_change_which_one_a_name_means(ds, cache, tiny_model) -> None:
    other = replace(tiny_model, name="t2m-46x90")
    other.save(cache / "other.safetensors")
    ds.coinpp.models()
    assert coinpp_xr.load_model("t2m-46x90").fingerprint != other.fingerprint


def test_only_a_part_of_a_fine_grid_and_two_globes_are_read(cache) -> None:
    shape = (50, 721, 1440)
    grid = next(SphereGrid.usual_layouts(*shape[1:]))
    reads = []

    def read(block: np.ndarray) -> np.ndarray:
        reads.append(block.shape)
        return block

    values = dask.array.random.default_rng(1).normal(280, 5, shape, chunks=(1, *shape[1:]))
    values = values.astype("f4").map_blocks(read, dtype="f4", meta=np.empty((0, 0, 0), "f4"))
    coords = {"lat": grid.latitude, "lon": grid.longitude}
    array = xr.DataArray(values, coords, ("time", "lat", "lon"), "t", {"units": "K"})
    array.coinpp.models()
    assert len(reads) == 2


def test_the_variable_is_named_where_it_does_not_exist(ds, cache) -> None:
    assert refusal(lambda: ds.coinpp.models("T2")) == "no variable 'T2'; there are: t"
    assert "cannot compress 'count': integers" in refusal(
        lambda: ds.assign(count=ds.t.astype(int)).coinpp.models("count")
    )
    with pytest.raises(KeyError, match="no model 'nemo' in this list; there are: "):
        ds.coinpp.models()["nemo"]
