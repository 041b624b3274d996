"""Whole archives: written in blocks on dask, gone on with, growing, verified."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client

import coinpp_xr
from coinpp_xr import CorruptPayloadError
from coinpp_xr.archiving import archive, decompress, plan_archive, verify
from coinpp_xr.archiving.manifest import GROUP, entry
from coinpp_xr.archiving.progress import beginning

RATE = {"max_error": 0.5, "max_mean_error": 0.5, "model": "none", "effort": "fast"}


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


@pytest.fixture(autouse=True)
def _as_the_current_client(client):
    with client.as_current():
        yield


@pytest.fixture(scope="module")
def weather() -> xr.Dataset:
    """Forty six-hourly globes and a level pair, 8 × 16, that change from step to step."""
    rng = np.random.default_rng(5)
    latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(0, 360, 22.5)
    lat, lon = np.radians(latitude)[:, None], np.radians(longitude)
    step = np.arange(40)[:, None, None]
    t = 280 + 30 * np.cos(lat) + 5 * np.sin(3 * lon + 0.1 * step)
    t = t + 0.3 * rng.standard_normal(t.shape)
    z = np.stack([15000 + 20 * t, 55000 + 10 * t], axis=1)
    return xr.Dataset(
        {
            "t": (("time", "latitude", "longitude"), t.astype("f4"), {"units": "K"}),
            "z": (("time", "level", "latitude", "longitude"), z.astype("f4"), {"units": "m2 s-2"}),
            "mask": (("latitude", "longitude"), (t[0] > 290).astype("i1")),
        },
        coords={
            "time": pd.date_range("2001-01-01", periods=40, freq="6h"),
            "level": [850, 500],
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
    )


# Means of so few cells are off by much: to keep them closer would take several tries a chunk.
RATES = {
    "max_error": {"t": 0.5, "z": 20.0}, "max_mean_error": {"t": 0.5, "z": 20.0}, "model": "none",
    "chunk_time": 8, "effort": "fast",
}  # fmt: skip
ONLY_T = {**RATES, "max_error": 0.5, "max_mean_error": 0.5, "variables": "t"}
ONLY_Z = {**RATES, "max_error": 20.0, "max_mean_error": 20.0, "variables": "z"}


@pytest.fixture(scope="module")
def archived(weather, client, tmp_path_factory) -> Path:
    """The weather's archive, to be copied."""
    store = tmp_path_factory.mktemp("archived") / "a.zarr"
    with client.as_current():
        archive(weather, store, **RATES)
    return store


@pytest.fixture
def store(archived, tmp_path) -> Path:
    """A copy of that."""
    return Path(shutil.copytree(archived, tmp_path / "a.zarr"))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_blocks_become_an_archive(weather, tmp_path) -> None:
    report = archive(weather, tmp_path / "a.zarr", **RATES)
    assert report.is_complete
    assert not report.failures
    assert report.n_blocks == report.n_new == 10
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert abs(ds.t - weather.t).max() <= 0.5
        assert abs(ds.z - weather.z).max() <= 20
        assert ds.mask.equals(weather.mask)
        assert ds.t.attrs["lossy_compression_max_error"] == 0.5
        assert ds.t.attrs["lossy_compression_largest_error"] == pytest.approx(
            float(abs(ds.t.astype("f8") - weather.t).max())
        )
    own = report.report["t"]
    assert own.unit == "°C"
    assert own.max_error == pytest.approx(ds.t.attrs["lossy_compression_largest_error"])
    assert own.bound == 0.5
    json.dumps(report.to_dict())
    assert "complete" in str(report)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_archive_is_the_same_in_pieces(weather, tmp_path, zarr_format) -> None:
    settings = RATES | {"zarr_format": zarr_format}
    archive(weather, tmp_path / "whole.zarr", **settings)
    for start in range(0, 40, 16):
        times = slice(*weather.time.values[[start, min(start + 15, 39)]])
        report = archive(weather, tmp_path / "pieces.zarr", times=times, **settings)
        assert report.is_complete == (start == 32)
    assert tree(tmp_path / "whole.zarr") == tree(tmp_path / "pieces.zarr")


def test_growing_an_archive(weather, archived, tmp_path) -> None:
    """27 steps first: the last block is not full, and is encoded again from the source."""
    archive(weather.isel(time=slice(27)), tmp_path / "grown.zarr", **RATES)
    report = archive(weather.isel(time=slice(24, None)), tmp_path / "grown.zarr", **RATES)
    assert report.is_complete
    assert report.n_new == 4
    whole, grown = tree(archived), tree(tmp_path / "grown.zarr")
    # Time is stored in chunks as long as it was at first.
    different = {name for name in whole.keys() | grown.keys() if whole.get(name) != grown.get(name)}
    assert different <= {name for name in different if name.startswith(("time/", "zarr.json"))}
    with xr.open_zarr(tmp_path / "grown.zarr") as ds:
        assert ds.time.equals(weather.time)


def test_growing_needs_what_fills_the_last_block(weather, tmp_path) -> None:
    archive(weather.isel(time=slice(27)), tmp_path / "a.zarr", **RATES)
    with pytest.raises(ValueError, match="give the source from time=2001-01-07"):
        archive(weather.isel(time=slice(27, None)), tmp_path / "a.zarr", **RATES)
    later = weather.assign_coords(time=weather.time - np.timedelta64(3, "h"))
    with pytest.raises(ValueError, match="neither matches nor continues"):
        archive(later, tmp_path / "a.zarr", **RATES)


def test_only_the_new_times_are_needed(weather, tmp_path) -> None:
    archive(weather.isel(time=slice(24)), tmp_path / "a.zarr", **RATES)
    new = weather.isel(time=slice(24, None))
    plan = plan_archive(new, tmp_path / "a.zarr", **RATES)
    assert [(v.tasks, v.left) for v in plan.variables] == [(5, 2), (5, 2)]
    assert archive(new, tmp_path / "a.zarr", **RATES).n_new == 4
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert abs(ds.t - weather.t).max() <= 0.5
        assert ds.time.equals(weather.time)


def test_other_variables_grow_along(weather, tmp_path) -> None:
    """Nobody is left with another number of times; what they miss is written later."""
    archive(weather.isel(time=slice(24)), tmp_path / "a.zarr", **RATES)
    assert archive(weather, tmp_path / "a.zarr", **ONLY_T).is_complete
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert ds.sizes["time"] == 40
        assert abs(ds.t - weather.t).max() <= 0.5
        assert bool(ds.z.isel(time=slice(24, None)).isnull().all())
    assert archive(weather, tmp_path / "a.zarr", **RATES).n_new == 2


def test_a_variable_is_added_in_all_its_length(weather, tmp_path) -> None:
    archive(weather, tmp_path / "a.zarr", **ONLY_T)
    with pytest.raises(ValueError, match="a source that holds all 40 steps along time"):
        archive(weather.isel(time=slice(16)), tmp_path / "a.zarr", **ONLY_Z)
    archive(weather, tmp_path / "a.zarr", times=slice(None, "2001-01-03"), **ONLY_Z)
    assert archive(weather.isel(time=slice(8, 40)), tmp_path / "a.zarr", **ONLY_Z).is_complete


def test_only_what_is_missing_is_done_again(weather, store) -> None:
    before = tree(store)
    assert archive(weather, store, **RATES).n_new == 0
    assert tree(store) == before
    entry(zarr.open_group(store, mode="r+"), "t")[1].forget([3])
    (store / "t/c/3/0/0").unlink()
    assert archive(weather, store, **RATES).n_new == 1
    assert tree(store) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.assign(t=ds.t + 1), "t time=2001-01-01T00:00 … .*holds other values"),
        (lambda ds: ds.assign_coords(level=[850, 501]), "level of the source is not that"),
        (lambda ds: ds.assign(t=ds.t.astype("f8")), "'t' is float64, in the archive float32"),
        (lambda ds: ds.isel(latitude=slice(1, None)), "latitude of the source is not that"),
    ],
)
def test_another_source_is_refused(weather, store, change, message) -> None:
    before = tree(store)
    with pytest.raises(ValueError, match=message):
        archive(change(weather), store, **RATES)
    assert tree(store) == before


@pytest.mark.parametrize(
    "other",
    [
        {"max_error": {"t": 0.25, "z": 20.0}},
        {"max_error": None, "target_rmse": {"t": 0.5, "z": 20.0}},
        {"chunk_time": 16},
        {"effort": "best"},
        {"model": "t2m-46x90"},
    ],
)
def test_other_settings_are_refused(weather, store, other) -> None:
    with pytest.raises(ValueError, match="'t' was begun with"):
        archive(weather, store, **RATES | other)


def test_variables_can_be_added(weather, tmp_path) -> None:
    archive(weather, tmp_path / "a.zarr", **ONLY_T)
    report = archive(weather, tmp_path / "a.zarr", **ONLY_Z)
    assert report.is_complete
    assert [v.name for v in report.report.encoded] == ["t", "z"]
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert set(ds.data_vars) == {"t", "z", "lossy_compression_info"}
        assert abs(ds.z - weather.z).max() <= 20


def test_shards(weather, tmp_path) -> None:
    report = archive(weather, tmp_path / "a.zarr", shards={"time": 16, "level": 2}, **RATES)
    plain = archive(weather, tmp_path / "b.zarr", **RATES)
    assert report.report["z"].nbytes == plain.report["z"].nbytes
    assert report.n_blocks == 6
    assert len(list((tmp_path / "a.zarr/z/c").rglob("*/0/0/0"))) == 3
    with xr.open_zarr(tmp_path / "a.zarr") as a, xr.open_zarr(tmp_path / "b.zarr") as b:
        assert a.z.equals(b.z)
    with pytest.raises(ValueError, match="shards of 12 steps along time do not hold whole chunks"):
        archive(weather, tmp_path / "c.zarr", shards=12, **RATES)
    with pytest.raises(ValueError, match="shards need Zarr format 3"):
        archive(weather, tmp_path / "c.zarr", shards=16, zarr_format=2, **RATES)


def test_what_is_there_is_not_touched(weather, store, tmp_path) -> None:
    weather.to_zarr(tmp_path / "other.zarr", consolidated=False)
    with pytest.raises(FileExistsError, match="no archive that could be gone on with"):
        archive(weather, tmp_path / "other.zarr", **RATES)
    with pytest.raises(FileExistsError, match="go on with it"):
        archive(weather, store, resume=False, **RATES)
    with pytest.raises(ValueError, match="in memory"):
        archive(weather, {}, **RATES)


def test_missing_values_dask_arrays_and_cut_globes(weather, tmp_path) -> None:
    ds = weather.copy(deep=True)
    ds.t[3, :4] = np.nan
    cut = ds.chunk(time=7, latitude=5, longitude=9)
    report = archive(cut, tmp_path / "a.zarr", **RATES)
    assert report.report["t"].missing_cells == 4 * 16
    with xr.open_zarr(tmp_path / "a.zarr") as out:
        assert out.t.isnull().equals(ds.t.isnull())
        assert abs(out.t - ds.t).max() <= 0.5


def test_without_verifying_errors_are_not_known(weather, tmp_path) -> None:
    report = archive(weather, tmp_path / "a.zarr", verify=False, **RATES)
    assert report.is_complete
    assert report.report["t"].rmse is None
    assert report.report["t"].ratio > 5


def test_the_manifest_is_plain_zarr(store) -> None:
    with warnings.catch_warnings(), xr.open_zarr(store, group=GROUP) as manifest:
        assert manifest.t.dims == ("block_of_t", "field")
        assert not bool(manifest.t.isnull().any())
    assert coinpp_xr.archive is archive


def test_encoding_where_there_is_a_gpu(weather, tmp_path) -> None:
    """A worker that says it has one; what is written is the same."""
    archive(weather[["t"]], tmp_path / "a.zarr", **RATE, chunk_time=8)
    report = archive(weather[["t"]], tmp_path / "b.zarr", **RATE, chunk_time=8, workers=1, gpu=True)
    assert report.is_complete
    assert tree(tmp_path / "a.zarr") == tree(tmp_path / "b.zarr")
    with pytest.raises(ValueError, match="no dask worker has a GPU"):
        archive(weather, tmp_path / "c.zarr", **RATES, gpu=True)


def test_a_dimension_without_coordinates_grows_too(weather, tmp_path) -> None:
    plain = weather[["t"]].drop_vars("time").rename(time="step")
    archive(plain.isel(step=slice(20)), tmp_path / "a.zarr", **RATE, chunk_time=8)
    assert archive(plain, tmp_path / "a.zarr", **RATE, chunk_time=8).n_new == 3
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert abs(ds.t - plain.t).max() <= 0.5


def test_a_single_field_and_a_single_time(weather, tmp_path) -> None:
    ds = weather[["t"]].assign(height=weather.t[0] - 280)
    report = archive(ds, tmp_path / "a.zarr", times=slice("2001-01-05", None), **RATE, chunk_time=8)
    assert not report.is_complete
    report = archive(ds, tmp_path / "a.zarr", **RATE, chunk_time=8)
    assert report.is_complete
    with xr.open_zarr(tmp_path / "a.zarr") as out:
        assert abs(out.height - ds.height).max() <= 0.5
    assert archive(weather[["t"]].isel(time=[3]), tmp_path / "b.zarr", **RATE).is_complete


@pytest.mark.parametrize("embed", [False, True])
def test_a_model_that_was_never_saved_travels(weather, tiny_model, tmp_path, embed) -> None:
    report = archive(
        weather[["t"]], tmp_path / "a.zarr", model=tiny_model, bits=6, embed_model=embed,
        workers=1, chunk_time=20,
    )  # fmt: skip
    assert report.is_complete
    assert report.report["t"].model_embedded == embed


def test_a_plan_tells_what_comes(weather, tmp_path) -> None:
    plan = plan_archive(weather, tmp_path / "a.zarr", workers=3, **RATES)
    assert plan.worker_nbytes > plan.idle_nbytes > 2**26
    assert plan.to_dict()["worker_nbytes"] == plan.worker_nbytes
    assert "of memory each" in " ".join(str(plan).split())
    assert not list(tmp_path.iterdir())
    report = archive(weather, tmp_path / "a.zarr", **RATES)
    assert sum(v.tasks for v in plan.variables) == report.n_blocks
    assert plan.nbytes == pytest.approx(report.report.nbytes, rel=0.2)
    assert plan.left_alone == {"mask": "integers: kept as they are"}
    assert plan_archive(weather, tmp_path / "a.zarr", **RATES).variables[0].left == 0
    json.dumps(plan.to_dict())
    assert "10 tasks" in " ".join(str(plan).split())


def test_a_plan_tells_how_large_errors_are_beside_what_varies(weather, tmp_path) -> None:
    (t,) = plan_archive(
        weather[["t"]], tmp_path / "a.zarr", target_rmse=1e4, allow_coarse=True
    ).variables
    assert t.spread == pytest.approx(float(weather.t.std()), rel=0.3)
    assert t.asked_of_spread == pytest.approx(1e4 / t.spread)
    assert 0 < t.rmse_of_spread <= 1.5
    text = str(
        plan_archive(weather[["t"]], tmp_path / "a.zarr", target_rmse=1e4, allow_coarse=True)
    )
    assert "% !" in text
    assert "more than a tenth of the spread" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 80
    rate = {"max_error_relative": 0.01, "model": "none"}
    (relative,) = plan_archive(weather[["t"]], tmp_path / "a.zarr", **rate).variables
    assert (relative.asked, relative.asked_of_spread) == ("±1 %", None)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_an_archive_says_of_spread_and_source_what_a_store_says(
    weather, tmp_path, zarr_format
) -> None:
    high = (weather.t - 250) / 9
    levels = xr.concat([weather.t, high], "level").transpose("time", "level", ...)
    packed = {"t": {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280, "_FillValue": -999}}
    levels.to_dataset(name="t").to_netcdf(tmp_path / "t.nc", encoding=packed, engine="netcdf4")
    rate = {"max_error": 0.5, "model": "none", "chunk_time": 16, "zarr_format": zarr_format}
    found = archive(tmp_path / "t.nc", tmp_path / "a.zarr", **rate).report["t"]
    with xr.open_dataset(tmp_path / "t.nc", engine="netcdf4") as ds:
        expected = ds.coinpp.to_zarr(tmp_path / "b.zarr", **rate)["t"]
        assert expected.least_spread == pytest.approx(
            float(ds.t[:, 1].astype(float).weighted(np.cos(np.deg2rad(ds.latitude))).std()),
            rel=1e-6,
        )
    assert found.source_nbytes == expected.source_nbytes == 2 * found.n_points
    assert found.spread == pytest.approx(expected.spread)
    # That of blocks, which do not see how they differ from each other.
    assert found.least_spread == pytest.approx(expected.least_spread, rel=0.02)
    assert found.asked_of_spread == pytest.approx(0.5 / found.least_spread)


def test_growing_along_with_what_is_not_compressed(weather, tmp_path) -> None:
    """Of several files, whose borders are none of the store's chunks."""
    bounds = np.stack([weather.time.values, weather.time.values], axis=1)
    ds = weather[["t"]].assign(time_bnds=(("time", "bnds"), bounds))
    for i, part in enumerate([slice(0, 24), slice(24, 35), slice(35, 40)]):
        ds.isel(time=part).to_netcdf(tmp_path / f"{i}.nc", engine="netcdf4")
    files = [str(tmp_path / f"{i}.nc") for i in range(3)]
    archive(files[0], tmp_path / "a.zarr", **RATE, chunk_time=8)
    assert archive(files, tmp_path / "a.zarr", **RATE, chunk_time=8).is_complete
    with xr.open_zarr(tmp_path / "a.zarr") as out:
        assert out.time_bnds.equals(ds.time_bnds)
        assert abs(out.t - ds.t).max() <= 0.5


def test_another_source_is_noticed_before_the_archive_gets_longer(weather, tmp_path) -> None:
    ds = weather[["t"]].assign(height=weather.t[0] - 280)
    archive(ds.isel(time=slice(24)), tmp_path / "a.zarr", **RATE, chunk_time=8)
    before = tree(tmp_path / "a.zarr")
    with pytest.raises(ValueError, match="height as a whole: the source holds other values"):
        archive(ds.assign(height=ds.height + 5), tmp_path / "a.zarr", **RATE, chunk_time=8)
    celsius = ds.assign(t=ds.t.assign_attrs(units="degC"))
    with pytest.raises(ValueError, match="'t' is in 'degC', in the archive in 'K'"):
        archive(celsius, tmp_path / "a.zarr", **RATE, chunk_time=8)
    noleap = ds.convert_calendar("noleap", use_cftime=True)
    with pytest.raises(ValueError, match="neither matches nor continues"):
        archive(noleap, tmp_path / "a.zarr", **RATE, chunk_time=8)
    assert tree(tmp_path / "a.zarr") == before


def test_damaged_blocks_are_found_forgotten_and_written_again(weather, tmp_path) -> None:
    store = tmp_path / "a.zarr"
    archive(weather[["t"]], store, **RATE, chunk_time=8)
    before = tree(store)
    # Sound by itself, but not where it belongs.
    (store / "t/c/1/0/0").write_bytes((store / "t/c/3/0/0").read_bytes())
    found = verify(store)
    assert [problem.index for problem in found.problems] == [1]
    with pytest.raises(CorruptPayloadError, match=r"chunk 1/0/0: it is not .* --forget"):
        archive(weather[["t"]], store, **RATE, chunk_time=8)
    assert archive(weather[["t"]], store, **RATE, chunk_time=8, check=False).n_new == 0
    assert not verify(store, forget=True).is_sound
    assert archive(weather[["t"]], store, **RATE, chunk_time=8).n_new == 1
    assert tree(store) == before


def test_a_source_that_holds_no_block_proves_nothing(weather, tmp_path) -> None:
    archive(weather[["t"]], tmp_path / "a.zarr", **RATE, chunk_time=8)
    found = verify(tmp_path / "a.zarr", weather[["t"]].isel(time=slice(9, 12)))
    assert not found.is_sound
    assert "0 of them held against the source" in str(found)


def test_what_is_missing_is_not_unpacked_in_silence(weather, tmp_path) -> None:
    store = tmp_path / "a.zarr"
    archive(weather[["t"]], store, times=slice(None, "2001-01-03"), **RATE, chunk_time=8)
    with pytest.raises(ValueError, match="3 blocks of 't' are missing"):
        decompress(store, tmp_path / "a.nc")
    decompress(store, tmp_path / "a.nc", partial=True)
    with pytest.raises(ValueError, match="is the store itself"):
        decompress(store, store, overwrite=True, partial=True)
    assert archive(weather[["t"]], f"file://{store}", **RATE, chunk_time=8).is_complete


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a terminal")
def test_what_is_done_before_the_first_block_is_said_in_a_terminal(monkeypatch) -> None:
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with beginning(None) as say:
            say("starting workers")
            time.sleep(0.3)
        with beginning(False) as say:
            say("nobody asked")
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "starting workers" in shown
    assert "nobody asked" not in shown
