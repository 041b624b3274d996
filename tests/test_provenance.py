"""What stores say of their losses, and what becomes of it on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

from coinpp_xr import COINppCodec, archive, provenance
from coinpp_xr.archiving import decompress
from coinpp_xr.version import __version__

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])
CF_ALGORITHMS = {"bitround", "bitgroom", "digitround", "granular_bitround"}


@pytest.fixture
def fields(era5) -> xr.Dataset:
    """Six temperatures, a wind made from them, and a mask."""
    t2m = era5.t2m.isel(time=slice(0, 6))
    wind = (t2m - t2m.mean("time")).assign_attrs(units="m s-1")
    return xr.Dataset({"t2m": t2m, "u": wind, "mask": t2m.isel(time=0, drop=True) > 280})


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "x.zarr"


def write(data: xr.Dataset, store: Any, **arguments: Any) -> None:
    bounds = dict.fromkeys(set(data.data_vars) & {"t2m", "u"}, 0.5)
    defaults = {"model": "none", "max_error": bounds, "chunk_time": 3, "consolidated": False}
    data.coinpp.to_zarr(store, **{**defaults, **arguments})


def said(array: xr.DataArray) -> dict[str, Any]:
    return {
        key.removeprefix("lossy_compression").removeprefix("_"): value
        for key, value in array.attrs.items()
        if key.startswith("lossy_compression")
    }


@FORMATS
def test_a_store_says_what_was_promised_and_by_whom(fields, path, zarr_format) -> None:
    write(fields, path, max_error={"t2m": 0.5, "u": 0.25}, zarr_format=zarr_format)
    with xr.open_zarr(path, consolidated=False) as back:
        implementation = f"coinpp-xr version {__version__}"
        assert said(back.t2m) == {
            "": "lossy_compression_info",
            "implementation": implementation,
            "max_error": 0.5,
            "unit": "K",
        }
        assert said(back.u)["max_error"] == 0.25
        assert said(back.u)["unit"] == "m s-1"
        assert not said(back.mask)
        info = back.lossy_compression_info
        assert info.ndim == 0
        assert info.attrs["implementation"] == implementation
        assert info.attrs["algorithm"].startswith("coinpp ")
        # What CF's vocabulary does not have is not said in its words.
        assert info.attrs["algorithm"] not in CF_ALGORITHMS
        assert not [key for key in back.t2m.attrs if key.startswith("quantization")]
        assert {k: v for k, v in back.t2m.attrs.items() if "lossy" not in k} == fields.t2m.attrs


def test_a_model_is_named_with_its_fingerprint(tiny_model) -> None:
    codec = COINppCodec(tiny_model, bits=8)
    assert provenance.attributes({"units": "K"}, codec, "info") == {
        "units": "K",
        "lossy_compression": "info",
        "lossy_compression_implementation": f"coinpp-xr version {__version__}",
        "lossy_compression_bits": 8,
        "lossy_compression_model": f"tiny, fingerprint {tiny_model.fingerprint}",
    }


def test_it_takes_a_few_hundred_bytes(fields, path) -> None:
    write(fields[["t2m"]], path)
    files = (path / "lossy_compression_info").rglob("*")
    info = sum(file.stat().st_size for file in files if file.is_file())
    attributes = json.loads((path / "t2m" / "zarr.json").read_text())["attributes"]
    own = {key: v for key, v in attributes.items() if key.startswith("lossy")}
    assert info + len(json.dumps(own)) < 900


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_it_stays_when_a_store_is_unpacked(fields, path, tmp_path, suffix) -> None:
    write(fields, path)
    decompress(path, tmp_path / f"plain{suffix}")
    opened = xr.open_dataset(
        tmp_path / f"plain{suffix}", engine="netcdf4" if suffix == ".nc" else "zarr"
    )
    with opened as plain, xr.open_zarr(path, consolidated=False) as store:
        assert said(plain.t2m) == said(store.t2m)
        assert plain.lossy_compression_info.attrs == store.lossy_compression_info.attrs
    with xr.open_zarr(path, consolidated=False) as store:
        store.to_netcdf(tmp_path / "by-xarray.nc", engine="netcdf4")
        with xr.open_dataset(tmp_path / "by-xarray.nc", engine="netcdf4") as plain:
            assert said(plain.t2m) == said(store.t2m)


def test_it_stays_when_a_store_is_added_to(fields, path) -> None:
    write(fields.isel(time=slice(0, 3)), path)
    with xr.open_zarr(path, consolidated=False) as store:
        before = said(store.t2m), dict(store.lossy_compression_info.attrs)
    write(fields.isel(time=slice(3, 6)).drop_vars("mask"), path, append_dim="time")
    # What was read from a compressed store has a container of its own.
    again = xr.open_zarr(path, consolidated=False).isel(time=slice(3, 6)).drop_vars("mask").load()
    write(again.drop_encoding(), path, region={"time": slice(3, 6)})
    with xr.open_zarr(path, consolidated=False) as store:
        assert (said(store.t2m), dict(store.lossy_compression_info.attrs)) == before
        assert store.sizes["time"] == 6


def test_a_second_generation_remembers_the_first(fields, path, tmp_path) -> None:
    write(fields, path)
    second, third = tmp_path / "second.zarr", tmp_path / "third.zarr"
    write(
        xr.open_zarr(path, consolidated=False),
        second,
        max_error=None,
        target_rmse=0.2,
        variables="t2m",
    )
    again = {"t2m": 0.125, "u": 0.125}
    write(xr.open_zarr(second, consolidated=False), third, max_error=again)
    by = f"coinpp-xr version {__version__}"
    with xr.open_zarr(second, consolidated=False) as store:
        assert said(store.t2m)["target_rmse"] == 0.2
        assert "max_error" not in said(store.t2m)
        assert said(store.t2m)["history"] == f"{by}: max_error=0.5, unit=K"
        # What was written without loss this time says what it said.
        assert said(store.u)["max_error"] == 0.5
        assert "history" not in said(store.u)
    with xr.open_zarr(third, consolidated=False) as store:
        assert said(store.t2m)["max_error"] == 0.125
        assert said(store.t2m)["history"].splitlines() == [
            f"{by}: max_error=0.5, unit=K",
            f"{by}: target_rmse=0.2, unit=K",
        ]
        assert said(store.u)["history"] == f"{by}: max_error=0.5, unit=m s-1"
        assert [n for n in store if n.startswith("lossy")] == ["lossy_compression_info"]


def test_another_version_gets_a_container_of_its_own(fields, path, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(provenance, "_IMPLEMENTATION", "coinpp-xr version 0.0.9")
    write(fields, path)
    monkeypatch.undo()
    write(
        xr.open_zarr(path, consolidated=False),
        tmp_path / "second.zarr",
        variables="t2m",
        max_error=0.5,
    )
    with xr.open_zarr(tmp_path / "second.zarr", consolidated=False) as store:
        for name, version in (("t2m", __version__), ("u", "0.0.9")):
            named = store[store[name].attrs["lossy_compression"]]
            assert named.attrs["implementation"] == f"coinpp-xr version {version}"
        assert "0.0.9: max_error=0.5" in said(store.t2m)["history"]


def test_what_others_say_is_not_lost(fields, path) -> None:
    fields.t2m.attrs["lossy_compression"] = "rounded by hand"
    write(fields, path)
    with xr.open_zarr(path, consolidated=False) as store:
        assert "rounded by hand" in said(store.t2m)["history"]


@FORMATS
def test_an_archive_says_what_was_measured_too(fields, path, tmp_path, zarr_format) -> None:
    source = fields.isel(time=slice(0, 3))
    arguments: dict[str, Any] = {
        "model": "none", "max_error": {"t2m": 0.5, "u": 0.5}, "chunk_time": 3,
        "zarr_format": zarr_format,
    }  # fmt: skip
    alone = {**arguments, "max_error": {"t2m": 0.5}}
    archive(source, path, variables=["t2m"], **alone)
    archive(fields, path, variables=["t2m"], **alone)
    archive(fields, path, **arguments)
    with xr.open_zarr(path, consolidated=False) as store:
        assert said(store.t2m)["max_error"] == said(store.u)["max_error"] == 0.5
        worst = float(np.abs(store.t2m.astype("f8") - fields.t2m).max())
        assert said(store.t2m)["largest_error"] == pytest.approx(worst)
        assert store.t2m.attrs["lossy_compression"] in store
        assert [n for n in store if n.startswith("lossy")] == ["lossy_compression_info"]
        # An archive of an archive.
        finer = {"t2m": 0.25, "u": 0.25}
        archive(store, tmp_path / "again.zarr", **arguments | {"max_error": finer})
    with xr.open_zarr(tmp_path / "again.zarr", consolidated=False) as store:
        assert said(store.t2m)["max_error"] == 0.25
        assert "max_error=0.5, unit=K" in said(store.t2m)["history"]
        assert "largest_error=" in said(store.t2m)["history"]


@FORMATS
def test_what_stands_beside_a_bound_is_told(fields, path, zarr_format) -> None:
    write(fields[["t2m"]], path, max_mean_error=0.001, keep=[273.15], zarr_format=zarr_format)
    with xr.open_zarr(path, consolidated=False) as back:
        assert said(back.t2m)["max_mean_error"] == 0.001
        assert np.atleast_1d(said(back.t2m)["keep"]).tolist() == [273.15]
