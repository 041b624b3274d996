"""Compressed stores in one zip file: whole or not there, and read like any other."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from refusals import refusal, torn
from typer.testing import CliRunner
from zarr.storage import ZipStore

from coinpp_xr.archiving import verify
from coinpp_xr.cli import app

FORMATS = pytest.mark.parametrize("zarr_format", [2, 3])
BOUND = 0.25


@pytest.fixture
def fields(era5) -> xr.Dataset:
    return era5[["t2m"]].isel(time=slice(0, 3))


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "x.zip"


def write(fields: xr.Dataset, store: Any, **arguments: Any) -> Any:
    defaults = {"model": "none", "max_error": BOUND, "consolidated": False}
    return fields.coinpp.to_zarr(store, **{**defaults, **arguments})


def differs(fields: xr.Dataset, store: Any) -> float:
    with xr.open_zarr(store, consolidated=False) as back:
        return float(np.abs(back.t2m - fields.t2m).max())


@FORMATS
def test_a_zip_store_is_written_whole_and_read(fields, path, zarr_format) -> None:
    store = ZipStore(path, mode="w")
    report = write(fields, store, zarr_format=zarr_format)
    assert report["t2m"].max_error <= BOUND
    # The same object reads what was written, and closing it takes nothing away.
    assert differs(fields, store) <= BOUND
    store.close()
    assert differs(fields, ZipStore(path, mode="r")) <= BOUND
    with zipfile.ZipFile(path) as file:
        assert {entry.compress_type for entry in file.infolist()} == {zipfile.ZIP_STORED}
        assert len(file.namelist()) == len(set(file.namelist()))


@FORMATS
@pytest.mark.parametrize("kind", [str, Path])
def test_a_path_that_ends_with_zip_is_a_zip_file(fields, path, kind, zarr_format) -> None:
    write(fields, kind(path), zarr_format=zarr_format)
    assert zipfile.is_zipfile(path)
    assert differs(fields, ZipStore(path, mode="r")) <= BOUND
    assert [p.name for p in path.parent.iterdir()] == ["x.zip"]


def test_an_open_store_and_a_group_in_it(fields, path) -> None:
    with ZipStore(path, mode="w") as store:
        write(fields, store, group="surface")
        assert store.read_only
    with ZipStore(path, mode="r") as store:
        back = xr.open_zarr(store, group="surface", consolidated=False)
        assert float(np.abs(back.t2m - fields.t2m).max()) <= BOUND


def failing(fields: xr.Dataset) -> xr.Dataset:
    return fields.assign(t2m=torn(fields.t2m.chunk(time=1)))


@pytest.mark.parametrize("is_open", [False, True])
def test_a_write_that_fails_leaves_no_zip_file(fields, path, is_open) -> None:
    store = ZipStore(path, mode="w")
    if is_open:
        store._sync_open()
    assert refusal(lambda: write(failing(fields), store), OSError) == "the tape is torn"
    assert not any(path.parent.iterdir())


@pytest.mark.parametrize("as_store", [False, True])
def test_a_write_that_fails_leaves_the_old_zip_file(fields, path, as_store) -> None:
    write(fields, path)
    before = path.read_bytes()
    store = ZipStore(path, mode="w") if as_store else path
    assert "torn" in refusal(lambda: write(failing(fields), store, mode="w"), OSError)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["x.zip"]


def test_an_existing_zip_file_is_replaced_only_if_asked(fields, path) -> None:
    write(fields, path)
    before = path.read_bytes()
    for store in (path, str(path), ZipStore(path, mode="a")):
        message = refusal(lambda store=store: write(fields, store), FileExistsError)
        assert "exists, and nothing can be added to a zip file; give mode='w'" in message
    assert path.read_bytes() == before
    write(fields.isel(time=[0]), path, mode="w")
    assert differs(fields.isel(time=[0]), ZipStore(path)) <= BOUND
    write(fields, ZipStore(path, mode="w"))
    assert differs(fields, ZipStore(path)) <= BOUND


def test_a_file_that_is_no_store_is_never_replaced(fields, path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("letter.txt", "dear")
    message = refusal(lambda: write(fields, path, mode="w"), FileExistsError)
    assert "is no Zarr store" in message
    assert zipfile.ZipFile(path).namelist() == ["letter.txt"]


@pytest.mark.parametrize(
    "arguments", [{"append_dim": "time"}, {"region": {"time": slice(0, 3)}}, {"mode": "a"}]
)
def test_nothing_can_be_added_to_a_zip_file(fields, path, arguments) -> None:
    write(fields, path)
    before = path.read_bytes()
    for store in (path, ZipStore(path, mode="a"), ZipStore(path, mode="w")):
        message = refusal(lambda store=store: write(fields, store, **arguments), ValueError)
        assert message.startswith("nothing can be added to a zip file; add to a folder")
    assert path.read_bytes() == before


def test_a_store_for_reading_is_refused(fields, path) -> None:
    write(fields, path)
    message = refusal(lambda: write(fields, ZipStore(path, mode="r")), ValueError)
    assert "this ZipStore is for reading; give one with mode='w'" in message


def test_a_zip_file_is_verified_and_unpacked(fields, path, tmp_path) -> None:
    write(fields, path)
    found = verify(path, fields)
    assert found.is_sound
    assert found.n_compared
    run = CliRunner().invoke(app, ["decompress", str(path), str(tmp_path / "plain.nc")])
    assert run.exit_code == 0, run.output
    with xr.open_dataset(tmp_path / "plain.nc", engine="netcdf4") as plain:
        assert float(np.abs(plain.t2m - fields.t2m).max()) <= BOUND
    run = CliRunner().invoke(app, ["inspect", str(path)])
    assert run.exit_code == 0, run.output
    assert "t2m" in run.output
    path.write_bytes(path.read_bytes()[:-100])
    assert "is no zip file" in refusal(lambda: verify(path), ValueError)
