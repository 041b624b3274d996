"""The codec inside Zarr 2 and 3 and behind xarray's ``to_zarr``."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from coinpp_xr import COINppArrayCodec, COINppCodec, CompressionWarning, models

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])


def globes(n: int, n_lat: int = 46, n_lon: int = 90) -> xr.Dataset:
    """Temperature-like fields: a cold pole-to-pole profile with slow waves."""
    lat, lon = np.linspace(90, -90, n_lat), np.arange(n_lon) * 360 / n_lon
    time = np.arange(n)
    profile = 245 + 55 * np.cos(np.deg2rad(lat)) ** 2
    wave = np.cos(np.deg2rad(lat))[:, None] * np.cos(np.deg2rad(2 * lon))
    t2m = profile[:, None] + 3 * np.sin(time / 9)[:, None, None] * wave
    return xr.Dataset(
        {"t2m": (("time", "lat", "lon"), t2m.astype(np.float32), {"units": "K"})},
        {"time": time, "lat": lat, "lon": lon},
    )


def write(ds: xr.Dataset, store: Path, **encoding: object) -> None:
    ds.to_zarr(store, encoding={"t2m": encoding}, mode="w", consolidated=False)


def rmse(a: xr.DataArray, b: xr.DataArray) -> float:
    return float(np.sqrt(((a - b) ** 2).mean()))


# ---- the design line --------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize("key", ["compressor", "compressors"])
def test_the_line_works_as_written(tmp_path, era5, zarr_format, key) -> None:
    codec = COINppCodec(bits=8)
    era5.to_zarr(
        tmp_path / "x.zarr",
        encoding={"t2m": {key: codec if key == "compressor" else [codec]}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    expected = codec.decode(codec.encode(era5.t2m.values))
    assert np.array_equal(back.t2m.values, expected)
    assert back.t2m.attrs == era5.t2m.attrs


@FORMATS
def test_compressor_in_the_variables_own_encoding_is_not_dropped(tmp_path, zarr_format) -> None:
    ds = globes(3)
    ds.t2m.encoding["compressor"] = COINppCodec(bits=8)
    ds.to_zarr(tmp_path / "x.zarr", zarr_format=zarr_format, consolidated=False)
    assert chunk_bytes(tmp_path / "x.zarr/t2m") < ds.t2m.nbytes / 20


@FORMATS
def test_a_process_that_never_imports_the_package_can_read(tmp_path, era5, zarr_format) -> None:
    store = tmp_path / "x.zarr"
    era5.to_zarr(
        store,
        encoding={"t2m": {"compressor": COINppCodec(bits=8)}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    script = f"""
        import sys

        sys.modules["torch"] = None  # as if it were not installed: reading must not need it
        import xarray as xr
        ds = xr.open_zarr({str(store)!r}, consolidated=False)
        print(repr(float(ds.t2m.astype("f8").sum())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    here = xr.open_zarr(store, consolidated=False).t2m
    # Symbols are the same everywhere; the prediction may round differently in the last digit.
    assert abs(float(done.stdout) - float(here.astype("f8").sum())) < 1e-3 * here.size


def test_importing_is_cheap_and_brings_in_nothing_heavy() -> None:
    script = """
        import sys, time, xarray
        start = time.perf_counter()
        import coinpp_xr
        seconds = time.perf_counter() - start
        heavy = {"torch", "zarr", "numcodecs", "dask", "constriction", "matplotlib"}
        before = heavy & set(sys.modules)
        assert seconds < 0.3, seconds
        assert not before, before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


# ---- chunks -----------------------------------------------------------------------------------


@FORMATS
@pytest.mark.parametrize(
    ("n", "expected"), [(12, (12, 46, 90)), (256, (256, 46, 90)), (600, (256, 46, 90))]
)
def test_chunks_hold_whole_globes(tmp_path, zarr_format, n, expected) -> None:
    ds = globes(n)
    ds.to_zarr(
        tmp_path / "x.zarr",
        encoding={"t2m": {"compressor": COINppCodec(bits=6, effort="fast")}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert back.t2m.encoding["chunks"] == expected
    assert rmse(back.t2m, ds.t2m) < 12


@pytest.mark.filterwarnings("ignore:model .* explains only")  # coarse and unlike the Earth
def test_7200_globes(tmp_path) -> None:
    ds = globes(7200, 8, 16)
    write(ds, tmp_path / "x.zarr", compressor=COINppCodec(bits=6, effort="fast"))
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert back.t2m.encoding["chunks"] == (256, 8, 16)
    assert rmse(back.t2m, ds.t2m) < 15


@pytest.mark.parametrize("shape", [(181, 360), (721, 1440)])
def test_finer_grids(tmp_path, shape) -> None:
    ds = globes(2, *shape)
    write(ds, tmp_path / "x.zarr", compressor=COINppCodec(bits=8))
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert back.t2m.encoding["chunks"][-2:] == shape
    assert rmse(back.t2m, ds.t2m) < 12


def test_dask_arrays(tmp_path) -> None:
    ds = globes(12)
    write(ds.chunk(time=5), tmp_path / "x.zarr", compressor=COINppCodec(bits=8))
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert back.t2m.encoding["chunks"] == (5, 46, 90)
    assert rmse(back.t2m, ds.t2m) < 12


@pytest.mark.parametrize("chunks", [{"lat": 23}, {"lon": 45}])
def test_dask_chunks_that_cut_a_globe_are_refused(tmp_path, chunks) -> None:
    with pytest.raises(ValueError, match="do not hold whole fields"):
        write(globes(4).chunk(chunks), tmp_path / "x.zarr", compressor=COINppCodec(bits=8))


@pytest.mark.parametrize("codec", [COINppCodec(bits=8), COINppArrayCodec(bits=8)])
def test_zarr_refuses_chunks_that_cut_a_globe(tmp_path, codec) -> None:
    where = {"serializer": codec} if isinstance(codec, COINppArrayCodec) else {"compressors": codec}
    with pytest.raises(ValueError, match="do not hold whole fields"):
        zarr.create_array(
            tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 23, 45), dtype="f4", **where
        )


@FORMATS
def test_a_region_of_an_opened_store_is_noticed(tmp_path, zarr_format) -> None:
    globes(4).to_zarr(
        tmp_path / "x.zarr",
        encoding={"t2m": {"compressor": COINppCodec(bits=8)}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    region = xr.open_zarr(tmp_path / "x.zarr", consolidated=False).sel(lat=slice(60, 20)).load()
    with pytest.raises(ValueError, match="drop_encoding"):
        region.to_zarr(tmp_path / "y.zarr", consolidated=False, zarr_format=zarr_format)
    region.drop_encoding().to_zarr(tmp_path / "z.zarr", consolidated=False, zarr_format=zarr_format)
    again = xr.open_zarr(tmp_path / "z.zarr", consolidated=False)
    assert np.array_equal(again.t2m.values, region.t2m.values)


def test_an_inherited_codec_on_fewer_axes_is_noticed(tmp_path) -> None:
    write(globes(4), tmp_path / "x.zarr", compressor=COINppCodec(bits=8))
    opened = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    with pytest.raises(ValueError, match="drop_encoding"):
        opened[["t2m"]].isel(lat=20).load().to_zarr(tmp_path / "y.zarr", consolidated=False)


@FORMATS
def test_one_number_for_all_chunks_is_checked_too(tmp_path, zarr_format) -> None:
    with pytest.raises(ValueError, match="do not hold whole fields"):
        globes(4).to_zarr(
            tmp_path / "x.zarr",
            encoding={"t2m": {"compressor": COINppCodec(bits=8), "chunks": 45}},
            zarr_format=zarr_format,
            consolidated=False,
        )


def test_a_codec_for_another_grid_is_noticed(tmp_path) -> None:
    codec = COINppCodec(bits=8, latitude=np.linspace(90, -90, 23), longitude=np.arange(45) * 8)
    with pytest.raises(ValueError, match="made for a grid of 23 × 45"):
        write(globes(4), tmp_path / "x.zarr", compressor=codec)


@FORMATS
def test_edge_chunks_are_padded_without_harm(tmp_path, zarr_format) -> None:
    ds = globes(7)
    ds.to_zarr(
        tmp_path / "x.zarr",
        encoding={"t2m": {"compressor": COINppCodec(bits=8), "chunks": (4, 46, 90)}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert back.t2m.shape == (7, 46, 90)
    assert rmse(back.t2m, ds.t2m) < 12


def test_packed_integers_are_stored_without_loss_and_said(tmp_path) -> None:
    ds = globes(3)
    with pytest.warns(CompressionWarning, match="stored without loss"):
        write(
            ds,
            tmp_path / "x.zarr",
            compressor=COINppCodec(bits=8), dtype="i2", scale_factor=0.01, add_offset=250.0,
            _FillValue=-1,
        )  # fmt: skip
    back = xr.open_zarr(tmp_path / "x.zarr", consolidated=False)
    assert abs(back.t2m - ds.t2m).max() < 0.006


# ---- the forms of Zarr v3 -------------------------------------------------------------------


@pytest.mark.parametrize("endian", ["little", "big"])
def test_the_serializer_sees_the_array_in_any_byte_order(tmp_path, era5, endian) -> None:
    order = "<" if endian == "little" else ">"
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 46, 90), dtype=f"{order}f4",
        serializer=COINppArrayCodec(bits=8), compressors=None,
    )  # fmt: skip
    array[:] = era5.t2m.values
    codec = COINppCodec(bits=8)
    np.testing.assert_allclose(array[:], codec.decode(codec.encode(era5.t2m.values)), atol=1e-3)


def test_sharding(tmp_path, era5) -> None:
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(3, 46, 90), shards=(12, 46, 90),
        dtype="f4", compressors=[COINppCodec(bits=8)],
    )  # fmt: skip
    array[:] = era5.t2m.values
    codec = COINppCodec(bits=8)
    expected = codec.decode(codec.encode(era5.t2m.values[3:6]))
    np.testing.assert_allclose(array[3:6], expected, atol=1e-3)


@pytest.mark.parametrize("order", ["C", "F"])
def test_memory_order_of_format_2(tmp_path, era5, order) -> None:
    codec = COINppCodec(bits=8)
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 46, 90), dtype="f4", zarr_format=2,
        order=order, compressors=[codec],
    )  # fmt: skip
    array[:] = era5.t2m.values
    expected = codec.decode(codec.encode(era5.t2m.values))
    np.testing.assert_allclose(array[:], expected, atol=1e-3)


def test_big_endian_bytes_before_the_compressor_are_refused(tmp_path, era5) -> None:
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 46, 90), dtype="f4",
        serializer=zarr.codecs.BytesCodec(endian="big"), compressors=[COINppCodec(bits=8)],
    )  # fmt: skip
    with pytest.raises(ValueError, match="big-endian"):
        array[:] = era5.t2m.values


def test_swapped_axes_are_refused(tmp_path, era5) -> None:
    """By the look of the data, or earlier by a Zarr that tells codecs what a transpose makes."""

    def write_transposed() -> None:
        array = zarr.create_array(
            tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 46, 90), dtype="f4",
            filters=[zarr.codecs.TransposeCodec(order=(0, 2, 1))],
            compressors=[COINppCodec(bits=8)],
        )  # fmt: skip
        array[:] = era5.t2m.values

    with pytest.raises(ValueError, match=r"look like \(longitude, latitude\)|whole globes"):
        write_transposed()


def test_filters_before_ours_are_refused(tmp_path, era5) -> None:
    transpose = zarr.codecs.TransposeCodec(order=(1, 0, 2))
    with pytest.raises(ValueError, match="remove them"):
        write(era5, tmp_path / "x.zarr", compressor=COINppCodec(bits=8), filters=[transpose])


def test_another_compressor_before_ours_is_refused(tmp_path, era5) -> None:
    array = zarr.create_array(
        tmp_path / "x.zarr", shape=(12, 46, 90), chunks=(12, 46, 90), dtype="f4",
        compressors=[zarr.codecs.ZstdCodec(), COINppCodec(bits=8)],
    )  # fmt: skip
    with pytest.raises(ValueError, match="directly after the 'bytes' codec"):
        array[:] = era5.t2m.values


def test_metadata_hold_name_and_fingerprint_and_no_path(tmp_path, era5) -> None:
    write(era5, tmp_path / "x.zarr", compressor=COINppCodec(bits=8))
    metadata = json.loads((tmp_path / "x.zarr/t2m/zarr.json").read_text())
    (codec,) = [c for c in metadata["codecs"] if c["name"] == "coinpp"]
    assert set(codec["configuration"]) == {"model", "fingerprint", "bits"}
    assert "/" not in codec["configuration"]["model"]


@FORMATS
def test_a_missing_model_gives_one_line(tmp_path, era5, zarr_format, monkeypatch) -> None:
    store = tmp_path / "x.zarr"
    era5.to_zarr(
        store,
        encoding={"t2m": {"compressor": COINppCodec(bits=8)}},
        zarr_format=zarr_format,
        consolidated=False,
    )
    path = store / "t2m" / ("zarr.json" if zarr_format == 3 else ".zarray")
    text = path.read_text()
    codec = COINppCodec(bits=8)
    path.write_text(text.replace(codec.fingerprint, "00" * 8).replace(codec.model, "gone"))
    monkeypatch.setattr("coinpp_xr.models._loaded", models.Loaded())
    with pytest.raises(LookupError, match="no model 'gone'") as caught:
        xr.open_zarr(store, consolidated=False).t2m.load()
    assert "\n" not in str(caught.value)


def chunk_bytes(array: Path) -> int:
    metadata = {"zarr.json", ".zarray", ".zattrs", ".zgroup"}
    return sum(p.stat().st_size for p in array.rglob("*") if p.is_file() and p.name not in metadata)
