"""``ds.coinpp.to_zarr``: what it writes, verifies, reports and refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from refusals import refusal, torn

import coinpp_xr
from coinpp_xr import model_choice
from coinpp_xr.compact import pack_text
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.lattice import Bound
from coinpp_xr.report import Report
from coinpp_xr.stores import codec_of

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])
METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
TARGETS = {"t": 0.5, "u": 0.1}


@pytest.fixture
def ds(tiny_globes) -> xr.Dataset:
    """Seven globes of a temperature, a wind and some integers on a 10 × 20 grid."""
    grid = next(SphereGrid.usual_layouts(10, 20))
    globes = tiny_globes[[0, 1, 2, 3, 4, 0, 1]]
    rng = np.random.default_rng(5)
    wind = np.cumsum(rng.standard_normal(globes.shape), axis=0)
    field = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "t": (field, globes, {"units": "K", "long_name": "temperature"}),
            "u": (field, wind.astype(np.float32), {"units": "m s-1"}),
            "mask": (field, (wind > 0).astype(np.int8)),
            "step": ("time", np.arange(7)),
        },
        coords={
            "time": np.datetime64("2020-01-01", "ns") + 6 * np.arange(7) * np.timedelta64(1, "h"),
            "lat": ("lat", grid.latitude, {"units": "degrees_north"}),
            "lon": grid.longitude,
            "area": (("lat", "lon"), grid.area_weights.reshape(10, 20)),
        },
        attrs={"title": "test"},
    )


@pytest.fixture
def weather(ds, tiny_model) -> xr.Dataset:
    """Temperature on 600 globes that have nothing in common but the tiny model."""
    latents = np.random.default_rng(1).standard_normal((600, 3)).astype(np.float32)
    points = SphereGrid(ds.lat.values, ds.lon.values).points
    values = 200 + 100 * tiny_model.siren(points, latents)[..., 0].reshape(600, 10, 20)
    coords = {"time": np.arange(600), "lat": ds.lat, "lon": ds.lon}
    return xr.Dataset({"t": (("time", "lat", "lon"), values, ds.t.attrs)}, coords)


@pytest.fixture
def store(tmp_path) -> Path:
    return tmp_path / "x.zarr"


def write(data: xr.Dataset | xr.DataArray, store: Any, **arguments: Any) -> Report:
    """In chunks of four times, without a model unless one is given."""
    defaults: dict[str, Any] = {"model": "none", "chunk_time": 4, "consolidated": False}
    if not {"bits", "max_error", "target_rmse"} & set(arguments):
        defaults["target_rmse"] = TARGETS
    report: Report = data.coinpp.to_zarr(store, **defaults | arguments)
    return report


def opened(store: Any, **arguments: Any) -> xr.Dataset:
    return xr.open_zarr(store, **{"consolidated": False, "chunks": None} | arguments)


def worst_rmse(one: xr.DataArray, other: xr.DataArray, depth: int = 4) -> float:
    """The largest area-weighted RMSE of the chunks along time."""
    squares = (one - other).astype(float) ** 2
    means = squares.weighted(np.maximum(np.cos(np.deg2rad(one.lat)), 1e-9)).mean(("lat", "lon"))
    chunks = [means.isel(time=slice(i, i + depth)) for i in range(0, len(means.time), depth)]
    return max(float(np.sqrt(chunk.mean("time").max())) for chunk in chunks)


def files(folder: Path) -> dict[str, int]:
    """Sizes of all files by their path."""
    return {str(p.relative_to(folder)): p.stat().st_size for p in folder.rglob("*") if p.is_file()}


# ---- what is in the store -------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("lazy", [False, True])
def test_no_chunk_misses_its_target(ds, store, zarr_format, lazy) -> None:
    report = write(ds.chunk(time=3, lat=5) if lazy else ds, store, zarr_format=zarr_format)
    back = opened(store)
    for name, target in TARGETS.items():
        rmse = worst_rmse(ds[name], back[name])
        assert rmse <= target
        assert report[name].worst_chunk_rmse == pytest.approx(rmse, rel=1e-6)
        assert back[name].encoding["chunks"] == (4, 10, 20)
        assert back[name].attrs.items() >= ds[name].attrs.items()
        assert back[name].dtype == ds[name].dtype
    assert zarr.open_group(store, mode="r").metadata.zarr_format == zarr_format


@FORMATS
def test_everything_else_is_as_xarray_writes_it(ds, store, zarr_format) -> None:
    report = write(ds, store, zarr_format=zarr_format)
    back = opened(store)
    ours = ["t", "u", "lossy_compression_info"]
    xr.testing.assert_identical(back.drop_vars(ours).load(), ds.drop_vars(ours[:2]))
    assert report["mask"].outcome == "integers: kept as they are"
    assert report["mask"].nbytes is None


@FORMATS
def test_bytes_are_those_of_the_files(ds, store, zarr_format) -> None:
    report = write(ds, store, zarr_format=zarr_format)
    sizes = files(store)
    documents = {name: n for name, n in sizes.items() if name.endswith(METADATA)}
    chunks = {name: n for name, n in sizes.items() if name not in documents}
    for name in TARGETS:
        assert report[name].nbytes == sum(n for p, n in chunks.items() if p.startswith(f"{name}/"))
        assert sum(report[name].schemes.values()) == 2
    assert report.metadata_nbytes == sum(documents.values())
    assert report.nbytes + report.other_nbytes == sum(chunks.values())
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()


@FORMATS
def test_metadata_of_a_fine_grid_is_small(store, zarr_format) -> None:
    axes = {"lat": np.linspace(90, -90, 721), "lon": np.arange(1440) / 4}
    globe = xr.DataArray(np.ones((721, 1440), np.float32), axes, name="t")
    report = globe.coinpp.to_zarr(store, model="none", max_error=0.5, zarr_format=zarr_format)
    assert report.metadata_nbytes < 6000
    assert xr.open_zarr(store)["t"].equals(globe)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">f4"])
def test_dtypes_stay(ds, store, dtype) -> None:
    write(ds[["u"]].astype(dtype), store, target_rmse=0.1)
    assert opened(store).u.dtype == np.dtype(dtype).newbyteorder("=")
    assert worst_rmse(ds.u, opened(store).u) <= 0.101


def test_latitude_and_longitude_become_the_last_dimensions(ds, store) -> None:
    write(ds.transpose("lon", "time", "lat"), store)
    back = opened(store)
    assert back.t.dims == ("time", "lat", "lon")
    assert worst_rmse(ds.t, back.t) <= TARGETS["t"]


def test_levels_are_sequences_of_their_own_in_chunks_of_their_own(ds, store) -> None:
    levels = xr.concat([ds.u, 10 + ds.u, ds.u - 20], "level").to_dataset(name="u")
    report = write(levels.transpose("level", ...), store, target_rmse=0.1)
    back = opened(store)
    assert back.u.encoding["chunks"] == (1, 4, 10, 20)
    codec = back.u.encoding["serializer"]
    assert codec.time_axis == 1
    for level in range(3):
        assert worst_rmse(levels.u[level], back.u[level]) <= 0.1
    assert sum(report["u"].schemes.values()) == 6


def test_levels_of_a_single_time_share_a_chunk(ds, store) -> None:
    levels = ds.u.rename(time="level").drop_vars("level").expand_dims("time")
    write(levels.to_dataset(name="u"), store, target_rmse=0.1)
    assert opened(store).u.encoding["chunks"] == (1, 4, 10, 20)


def test_dates_tell_which_dimension_is_time(ds, store) -> None:
    members = xr.concat([ds.u, 1 + ds.u, ds.u - 1], "member").rename(time="initial")
    write(members.to_dataset(name="u"), store, target_rmse=0.1)
    assert opened(store).u.encoding["chunks"] == (1, 4, 10, 20)


def test_a_single_globe_and_a_whole_array(ds, store) -> None:
    write(ds.u[2], store, target_rmse=0.1)
    assert opened(store).u.encoding["chunks"] == (10, 20)
    report = write(ds.u, store, target_rmse=0.1, mode="w", chunk_time=100)
    assert opened(store).u.encoding["chunks"] == (7, 10, 20)
    assert report["u"].schemes == {"grid": 1}


def test_an_array_without_a_name_is_a_field(ds, store) -> None:
    assert [v.name for v in write(ds.u.rename(None), store, target_rmse=0.1)] == ["field"]


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_missing_values_come_back_bit_for_bit(ds, store, missing) -> None:
    masked = ds.where(ds.lat > -40, missing)
    masked[{"time": slice(4, 7)}] = np.nan  # a chunk of its own
    report = write(masked[["t", "u"]], store)
    back = opened(store)
    for name in TARGETS:
        valid = np.isfinite(masked[name].values)
        np.testing.assert_array_equal(back[name].values[~valid], masked[name].values[~valid])
        assert report[name].missing_cells == (~valid).sum()
        assert report[name].rmse <= TARGETS[name]
        assert sum(report[name].schemes.values()) == 2


def test_a_variable_of_missing_values_only(ds, store) -> None:
    report = write(ds.u * np.nan, store, target_rmse=0.1)
    assert report["u"].outcome == "stored without loss: missing values only"
    assert report["u"].nbytes < 200
    assert opened(store).u.isnull().all()


def test_packing_of_a_file_is_not_applied_again(ds, tmp_path, store) -> None:
    packed = {"dtype": "i2", "scale_factor": 0.01, "add_offset": 250.0, "_FillValue": -1}
    ds[["t"]].to_netcdf(tmp_path / "t.nc", engine="netcdf4", encoding={"t": packed})
    with xr.open_dataset(tmp_path / "t.nc", engine="netcdf4") as file:
        report = write(file, store, target_rmse=0.2)
        assert worst_rmse(file.t, opened(store).t) <= 0.2
    assert report["t"].outcome == "compressed"


def test_the_encoding_of_a_compressed_store_is_not_inherited(ds, store, tmp_path) -> None:
    write(ds, store)
    report = write(opened(store), tmp_path / "y.zarr", variables="u", target_rmse=0.5)
    again = opened(tmp_path / "y.zarr")
    np.testing.assert_array_equal(again.t, opened(store).t)
    assert (
        "serializer" not in again.t.encoding
        or again.t.encoding["serializer"] is None
        or (not type(again.t.encoding["serializer"]).__module__.startswith("coinpp_xr"))
    )
    assert report["u"].target_rmse == 0.5


def test_chunks_of_ones_own(ds, store) -> None:
    encoding = {"u": {"chunks": (20, 10, 2)}, "step": {"chunks": (3,)}}
    write(ds.transpose("lon", "lat", "time"), store, encoding=encoding)
    assert opened(store).u.encoding["chunks"] == (2, 10, 20)
    assert opened(store).step.encoding["chunks"] == (3,)


def test_a_group_of_an_existing_store(ds, store) -> None:
    write(ds, store)
    report = write(ds, store, group="more")
    assert worst_rmse(ds.u, opened(store, group="more").u) <= TARGETS["u"]
    assert report["u"].nbytes > 0


def test_a_store_in_memory(ds) -> None:
    store = zarr.storage.MemoryStore()
    report = write(ds, store)
    assert report.nbytes > 0
    assert worst_rmse(ds.u, opened(store).u) <= TARGETS["u"]


def test_bits_are_an_alternative(ds, store, tiny_model) -> None:
    report = write(ds, store, bits={"t": 8}, model=tiny_model)
    assert report["t"].schemes == {"latents": 2}
    assert (report["t"].bits, report["t"].target_rmse) == (8, None)
    assert report["u"].outcome == "no rate control given for it: written without loss"
    np.testing.assert_array_equal(opened(store).u, ds.u)


# ---- models -----------------------------------------------------------------------------------


def test_a_store_does_not_depend_on_a_model_for_nothing(ds, store, tiny_model) -> None:
    report = write(ds[["u"]], store, model=tiny_model, target_rmse=0.1)
    assert (report.model, report.model_nbytes) == ("none", 0)
    assert opened(store).u.encoding["serializer"].model == "universal"
    assert report["u"].model_choice.startswith("written without model tiny")


def test_a_model_file_is_counted_once(weather, store, tiny_model) -> None:
    weather["t2"] = weather.t + 1
    report = write(weather.isel(time=slice(8)), store, model=tiny_model, target_rmse=0.5)
    assert report["t"].schemes == {"latents in time": 2}
    assert (report.model, report.model_nbytes) == ("tiny", tiny_model.nbytes)
    assert report.ratio_with_model < report.ratio


@FORMATS
def test_an_embedded_model_opens_in_a_process_that_has_nothing_of_it(
    weather, store, tiny_model, tmp_path, zarr_format
) -> None:
    report = weather.coinpp.to_zarr(
        store, target_rmse=0.5, model=tiny_model, embed_model=True, zarr_format=zarr_format
    )
    assert report["t"].model_embedded
    text = pack_text(tiny_model).encode()
    metadata = b"".join(p.read_bytes() for p in store.rglob("*") if p.name in METADATA)
    assert report.model_nbytes == len(text) * metadata.count(text)
    assert report.metadata_nbytes == len(metadata) - report.model_nbytes
    script = (
        "import sys, xarray; "
        f"t = xarray.open_zarr({str(store)!r}, consolidated=False).t[:7].values; "
        "sys.stdout.buffer.write(t.tobytes())"
    )
    (tmp_path / "cache").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True,
        env=os.environ | {"COINPP_XR_CACHE": str(tmp_path / "cache")},
    )  # fmt: skip
    there = np.frombuffer(done.stdout, "<f4").reshape(7, 10, 20)
    np.testing.assert_allclose(there, opened(store).t[:7], atol=1e-3)


@pytest.mark.parametrize("model", ["none", "universal"])
def test_a_store_is_written_without_a_model_as_that_was_asked_for(ds, store, model) -> None:
    report = write(ds[["u"]], store, model=model, max_error=0.1)
    assert (report.model, report.model_nbytes) == ("none", 0)
    assert opened(store).u.encoding["serializer"].model == model


def test_a_model_that_is_too_large_to_embed_is_done_without(ds, store) -> None:
    report = write(ds[["u"]], store, model="t2m-46x90", embed_model=True, target_rmse=0.1)
    assert "t2m-46x90 is too large to embed" in report["u"].model_choice


def test_a_model_that_does_not_pay_is_not_embedded(ds, store, tiny_model) -> None:
    report = write(ds, store, model=tiny_model, embed_model=True)
    assert (report.model, report.model_nbytes) == ("none", 0)
    assert report["t"].model_choice.startswith("model none pays best")
    assert all(b"embed_model" not in p.read_bytes() for p in store.rglob("zarr.json"))


@pytest.fixture
def trained(tiny_model, monkeypatch, tmp_path) -> Any:
    """In place of training: the model that the temperature was made with."""
    monkeypatch.setattr(model_choice, "train_model", lambda *_, **__: tiny_model)
    with coinpp_xr.config.set(cache=str(tmp_path / "cache")):
        yield tiny_model


def test_a_trained_model_that_pays_is_used_and_kept(weather, store, trained, tmp_path) -> None:
    report = write(weather, store, train_minutes=1, chunk_time=256, target_rmse=0.1)
    assert report["t"].model == f"t-10x20-{trained.fingerprint[:8]}"
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept.stat().st_size == report["t"].model_nbytes
    assert str(kept) in report["t"].model_choice
    assert worst_rmse(weather.t, opened(store).t, 256) <= 0.1


def test_a_trained_model_that_does_not_pay_is_left_out(ds, store, trained, tmp_path) -> None:
    report = write(ds[["t"]], store, train_minutes=1, target_rmse=0.5)
    assert report["t"].model == "none"
    assert "pays best" in str(report)
    assert not (tmp_path / "cache").exists()


def test_why_no_model_was_trained_is_said(ds, store, monkeypatch) -> None:
    def train_model(array: xr.DataArray, minutes: float, **_: object) -> None:
        raise ValueError("every item holds missing values")

    monkeypatch.setattr(model_choice, "train_model", train_model)
    report = write(ds, store, train_minutes=1)
    assert "no model was trained: every item holds missing values" in report["u"].model_choice


# ---- adding to a store --------------------------------------------------------------------------


@FORMATS
def test_full_chunks_can_be_appended_to(ds, store, zarr_format) -> None:
    ds = ds.drop_vars("area")
    write(ds.isel(time=slice(4)), store, zarr_format=zarr_format)
    report = write(ds.isel(time=slice(4, 7)), store, append_dim="time", target_rmse=None)
    back = opened(store)
    assert len(back.time) == 7
    for name, target in TARGETS.items():
        assert worst_rmse(ds[name], back[name]) <= target
        assert report[name].n_globes == 3
        assert report[name].target_rmse == target
        assert sum(report[name].schemes.values()) == 1


def test_consolidated_metadata_stays_true(ds, store) -> None:
    ds = ds.drop_vars("area")
    write(ds.isel(time=slice(4)), store, consolidated=True, zarr_format=2)
    write(ds.isel(time=slice(4, 7)), store, append_dim="time", consolidated=None, target_rmse=None)
    assert len(opened(store, consolidated=True).time) == 7


def test_partly_filled_chunks_are_not(ds, store) -> None:
    write(ds, store)
    before = files(store)
    message = refusal(lambda: write(ds, store, append_dim="time"))
    assert message.startswith("'t' has 7 steps along time in chunks of 4: appending would decode")
    assert files(store) == before


def test_regions_of_whole_chunks_can_be_written(ds, store) -> None:
    write(ds, store)
    other = (ds[["u"]] * -1).isel(time=slice(4, 7))
    write(other, store, region={"time": slice(4, 7)}, target_rmse=0.1)
    assert worst_rmse(other.u, opened(store).u[4:]) <= 0.1
    assert worst_rmse(ds.u[:4], opened(store).u[:4]) <= 0.1


def test_regions_that_cut_chunks_cannot(ds, store) -> None:
    write(ds, store)
    part = ds[["u"]].isel(time=slice(2, 4))
    message = refusal(lambda: write(part, store, region={"time": slice(2, 4)}, target_rmse=0.1))
    assert message.startswith("region 2:4 along time cuts chunks of 'u'")
    assert "region='auto'" in refusal(lambda: write(part, store, region="auto", target_rmse=0.1))


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (lambda ds: ds, {"target_rmse": 0.3}, "'t' was written with target_rmse=0.5; give"),
        (lambda ds: ds.assign_coords(lat=ds.lat * 0.9), {}, "'t' has another latitude"),
        (lambda ds: ds.assign(w=ds.u), {}, "'w' is not in the store"),
        (lambda ds: ds, {"variables": "t"}, "'u' is compressed in the store"),
        (lambda ds: ds, {"train_minutes": 1}, "train_minutes cannot be given"),
        (lambda ds: ds, {"append_dim": None, "mode": "a"}, "'t' is in the store; give append_dim"),
    ],
)
def test_what_does_not_fit_is_not_appended(ds, store, change, arguments, message) -> None:
    ds = ds.isel(time=slice(4))
    write(ds, store)
    before = files(store)
    defaults = {"append_dim": "time", "target_rmse": None}
    assert refusal(lambda: write(change(ds), store, **defaults | arguments)).startswith(message)
    assert files(store) == before


def test_there_must_be_something_to_append_to(ds, store) -> None:
    refusal(lambda: write(ds, store, append_dim="time"), FileNotFoundError)


# ---- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"variables": "tt"}, "no variable 'tt'; did you mean t?"),
        ({"target_rmse": {"uu": 1}}, "no variable 'uu'; did you mean u?"),
        ({"target_rmse": {"mask": 1}}, "cannot compress 'mask': integers"),
        ({"variables": ["t", "u"], "target_rmse": {"t": 1}}, "give a rate control for 'u', too"),
        ({"train_minutes": 0}, "train_minutes must be a number above 0, got 0"),
        ({"train_minutes": "1"}, "train_minutes must be"),
        ({"chunk_time": 0}, "chunk_time must be a whole number of at least 1, got 0"),
        ({"chunk_time": 2.5}, "chunk_time must be"),
        ({"embed_model": "yes"}, "embed_model must be True or False"),
        ({"target_rmse": 1, "bits": 8}, "give one rate control, not bits and target_rmse"),
        ({"target_rmse": 0}, "target_rmse must be a positive number in the data's unit, got 0"),
        ({"effort": "most"}, "effort must be one of"),
        ({"compute": False}, "compute=False cannot be verified"),
        ({"encoding": {"t": {"dtype": "i2"}}}, "encoding of 't': dtype cannot be given"),
        ({"encoding": {"t": {"chunks": (4, 5, 20)}}}, "chunks of 5 × 20 cells do not hold"),
        ({"encoding": {"t": {"chunks": (4,)}}}, "encoding of 't': chunks need 3 numbers"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    ds, store, arguments, message
) -> None:
    assert refusal(lambda: write(ds, store, **arguments)).startswith(message)
    assert not any(store.parent.iterdir())


def test_too_many_globes_for_one_chunk(ds, store) -> None:
    long = ds.u.isel(lat=slice(2), lon=slice(2), time=np.zeros(9000, int)).drop_vars("time")
    message = refusal(lambda: write(long, store, target_rmse=0.1, chunk_time=9000))
    assert "give a smaller chunk_time" in message


def test_packed_values_are_not_taken_for_data(ds, store) -> None:
    ds.u.attrs["_FillValue"] = -999.0
    assert "apply xr.decode_cf(ds) first" in refusal(lambda: write(ds, store))


def test_a_store_that_exists_is_refused_or_replaced(ds, store) -> None:
    write(ds, store)
    before = files(store)
    message = refusal(lambda: write(ds, store), FileExistsError)
    assert message.startswith(f"{store} exists; give mode='w'")
    assert files(store) == before
    write(ds[["u"]], store, mode="w", target_rmse=0.5)
    assert set(opened(store)) == {"u", "lossy_compression_info"}
    assert [p.name for p in store.parent.iterdir()] == ["x.zarr"]


def test_a_store_that_exists_is_refused_before_a_model_is_trained(ds, store, monkeypatch) -> None:
    write(ds, store)
    monkeypatch.setattr(model_choice, "train_model", None)
    refusal(lambda: write(ds, store, train_minutes=1), FileExistsError)


def test_a_store_can_be_written_anew_from_itself(ds, store) -> None:
    write(ds, store)
    write(opened(store, chunks={}), store, mode="w", target_rmse={"u": 0.5})
    assert 0.1 < worst_rmse(ds.u, opened(store).u) <= 0.6


def test_a_folder_that_is_no_store_is_never_replaced(ds, store) -> None:
    store.mkdir()
    (store / "thesis.tex").write_text("precious")
    refusal(lambda: write(ds, store, mode="w"), FileExistsError)
    assert (store / "thesis.tex").exists()


def failing(ds: xr.Dataset) -> xr.Dataset:
    """The same, but its last chunk of u cannot be computed."""
    return ds.assign(u=torn(ds.u.chunk(time=4), first=1))


@pytest.mark.parametrize("exists", [False, True])
def test_a_write_that_fails_leaves_things_as_they_were(ds, store, exists) -> None:
    if exists:
        write(ds, store)
    before = files(store.parent)
    assert refusal(lambda: write(failing(ds), store, mode="w"), OSError) == "the tape is torn"
    assert files(store.parent) == before
    assert store.exists() == exists
    assert len(list(store.parent.iterdir())) == exists


def test_a_store_that_reads_back_wrong_is_an_error(ds, store, monkeypatch) -> None:
    monkeypatch.setattr("coinpp_xr.verification.chunk_rmse", lambda errors: 0.7)
    message = refusal(lambda: write(ds, store), RuntimeError)
    assert message.startswith("'t' came back from the store with RMSE 0.7 in the chunk")
    assert not any(store.parent.iterdir())


def test_a_mask_that_reads_back_wrong_is_an_error(ds, store, monkeypatch) -> None:
    from coinpp_xr import chunk_reading

    original: Callable[..., Any] = chunk_reading.decode_chunk

    def decode(*arguments: Any, **keywords: Any) -> np.ndarray:
        return np.nan_to_num(original(*arguments, **keywords))

    monkeypatch.setattr("coinpp_xr.codecs.sphere.decode_chunk", decode)
    masked = ds[["u"]].where(ds.lat > 0)
    message = refusal(lambda: write(masked, store, target_rmse=0.1), RuntimeError)
    assert message == "missing values of 'u' came back from the store as others"


def test_a_bound_is_kept_and_checked_in_the_store(era5, tmp_path, monkeypatch) -> None:
    fields = era5[["t2m"]].isel(time=slice(0, 4))
    report = fields.coinpp.to_zarr(tmp_path / "store", max_error=0.25, zarr_format=2)
    back = xr.open_zarr(tmp_path / "store").load()
    assert float(np.abs(back.t2m - fields.t2m).max()) <= 0.25
    assert report["t2m"].asked == "±0.25 °C"
    codec = codec_of(zarr.open_group(tmp_path / "store")["t2m"])
    assert codec.max_error == 0.25
    monkeypatch.setattr(Bound, "holds", lambda self, decoded, values: np.zeros_like(values, bool))
    with pytest.raises(RuntimeError, match=r"beyond max_error=0\.25 in 16,560 values"):
        fields.coinpp.to_zarr(tmp_path / "other", max_error=0.25, zarr_format=2)
    assert not (tmp_path / "other").exists()
