"""``coinpp archive``, ``verify``, and what ``inspect`` and ``decompress`` do with stores."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from distributed import Client

from coinpp_xr.cli import main

EXAMPLES = Path(__file__).parent.parent / "examples"
SAMPLE = EXAMPLES / "era5_t2m_46x90.nc"


@pytest.fixture(scope="module")
def scheduler():
    """A cluster of one thread in this process, which commands reach by its address."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0",
        protocol="tcp", host="127.0.0.1",
    ) as client:  # fmt: skip
        yield client.scheduler.address


@pytest.fixture
def run(capsys):
    """Run the command line: exit code, output, errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return int(end.value.code or 0), output.out, output.err

    return run


@pytest.fixture(scope="module")
def store(scheduler, tmp_path_factory) -> Path:
    """The sample as an archive of three blocks."""
    folder = tmp_path_factory.mktemp("archive")
    with pytest.raises(SystemExit) as end:
        main([
            "archive", str(SAMPLE), str(folder / "a.zarr"), "--max-error", "0.5", "--chunk-time",
            "4", "--scheduler", scheduler, "--report", str(folder / "report.json"),
        ])  # fmt: skip
    assert not end.value.code
    return folder / "a.zarr"


def test_a_report_in_words_and_as_json(store, scheduler, run) -> None:
    report = json.loads((store.parent / "report.json").read_text())
    assert report["complete"]
    assert report["variables"]["t2m"]["max_error"] <= 0.5
    code, output, _ = run(
        "archive", SAMPLE, store, "--max-error", "0.5", "--chunk-time", 4, "--scheduler", scheduler
    )
    assert code == 0
    assert "3 of 3 blocks are done (complete)" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 80


def test_a_dry_run_writes_nothing(tmp_path, run) -> None:
    code, output, _ = run(
        "archive", SAMPLE, tmp_path / "a.zarr", "--max-error", "t2m=0.5", "--chunk-time", 4,
        "--dry-run",
    )  # fmt: skip
    assert code == 0
    assert "3 tasks, 199 kB become about" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 80
    assert "±0.5 °C" in output
    assert not list(tmp_path.iterdir())


def test_inspect(store, run) -> None:
    code, output, _ = run("inspect", store)
    assert code == 0
    assert "float32, time: 12, lat: 46, lon: 90" in output
    assert "3 of 3 done" in output
    assert "max_error=0.5" in output
    code, output, _ = run("inspect", store, "--chunk", "t2m/c/2/0/0")
    assert "8:12, 0:46, 0:90" in output
    for key, message in {
        "t2m/3/0/0": "the last one is t2m/2/0/0",
        "t2": "no compressed variable 't2'; there are: t2m",
    }.items():
        code, _, error = run("inspect", store, "--chunk", key)
        assert code == 1
        assert message in error


def test_verify(store, scheduler, run) -> None:
    code, output, _ = run("verify", store, "--source", SAMPLE, "--scheduler", scheduler)
    assert code == 0
    assert "3 blocks read and decoded, 3 of them held against the source, 0 problems" in output
    chunk = store / "t2m/c/1/0/0"
    sound = chunk.read_bytes()
    chunk.write_bytes(sound[:50] + bytes([sound[50] ^ 1]) + sound[51:])
    code, output, _ = run("verify", store, "--scheduler", scheduler)
    chunk.write_bytes(sound)
    assert code == 3
    assert "1 problems" in output
    assert "t2m time=" in output


def test_a_store_of_another_writer_can_be_verified(tmp_path, scheduler, run) -> None:
    with xr.open_dataset(SAMPLE, engine="netcdf4") as ds:
        ds.coinpp.to_zarr(
            tmp_path / "a.zarr", target_rmse=0.5, model="none", chunk_time=5, consolidated=False
        )
    code, output, _ = run(
        "verify", tmp_path / "a.zarr", "--source", SAMPLE, "--scheduler", scheduler
    )
    assert code == 0
    assert "3 blocks read and decoded, 3 of them held against the source" in output


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_decompress(store, tmp_path, run, suffix) -> None:
    target = tmp_path / f"plain{suffix}"
    code, output, _ = run("decompress", store, target)
    assert code == 0
    assert f"{target} (" in output
    engine = "netcdf4" if suffix == ".nc" else "zarr"
    with xr.open_zarr(store) as ds, xr.open_dataset(target, engine=engine, chunks={}) as plain:
        assert plain.t2m.identical(ds.t2m)
    if suffix == ".zarr":
        codecs = json.loads((target / "t2m/zarr.json").read_text())["codecs"]
        assert [codec["name"] for codec in codecs] == ["bytes", "zstd"]
    code, _, error = run("decompress", store, target)
    assert code == 1
    assert "exists" in error
    assert run("decompress", store, target, "--force")[0] == 0
    assert run("decompress", store)[0] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothere.nc", "a.zarr", "--max-error", "1"], 1, "no such file or folder: nothere.nc"),
        (["*.nothere", "a.zarr", "--max-error", "1"], 1, "no file matches *.nothere"),
        ([SAMPLE, "a.zarr", "--max-error", "t2=1"], 1, "did you mean t2m?"),
        ([SAMPLE, "a.zarr", "--max-error", "t2m:1"], 2, "is neither X nor NAME=X,NAME=X"),
        ([SAMPLE, "a.zarr", "--max-error", "1", "--bits", "8"], 1, "give one rate control"),
        ([SAMPLE, "a.zarr", "--max-error", "1", "--shards", "6"], 1, "hold whole chunks of 4"),
        ([SAMPLE, "a.zarr", "--max-error", "1", "--times", "1990"], 2, "must be FROM/TO"),
        ([SAMPLE, "a.zarr", "--max-error", "1", "--times", "x/y"], 1, "are none of time"),
        ([SAMPLE, "a.zarr", "--max-error", "1", "--zarr-format", "4"], 1, "must be 2 or 3, got 4"),
        ([SAMPLE, "a.zip", "--max-error", "1"], 1, "a zip file cannot be written in parts"),
        ([SAMPLE], 2, "Missing argument 'SRC'"),
        ([SAMPLE, "a.zarr", "--scheduler", "x", "--workers", "2"], 2, "not both"),
    ],
)  # fmt: skip
def test_bad_command_lines(tmp_path, monkeypatch, run, scheduler, arguments, code, message) -> None:
    monkeypatch.chdir(tmp_path)
    own = [] if "--scheduler" in arguments else ["--scheduler", scheduler]
    found, _, error = run("archive", *arguments, "--chunk-time", "4", *own)
    assert found == code
    assert message in " ".join(error.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_no_scheduler_no_archive(tmp_path, run) -> None:
    code, _, error = run(
        "archive", SAMPLE, tmp_path / "a.zarr", "--max-error", 1, "--scheduler", "tcp://127.0.0.1:9"
    )
    assert code == 1
    assert "no dask scheduler answers at tcp://127.0.0.1:9" in error


# ---- real GRIB ----------------------------------------------------------------------------------


@pytest.mark.data
def test_members_and_levels_of_a_grib_file(data_folder, tmp_path) -> None:
    """One command, with processes of its own."""
    source = data_folder / "grib/era5-levels-members.grib"
    before = sorted(path.name for path in source.parent.iterdir())
    script = [sys.executable, "-c", "from coinpp_xr.cli import main; main()"]
    subprocess.run(
        [*script, "archive", source, "out.zarr", "--max-error", "t=0.5,z=50", "--effort", "fast"],
        cwd=tmp_path, check=True,
    )  # fmt: skip
    assert sorted(path.name for path in source.parent.iterdir()) == before
    how = {"engine": "cfgrib", "backend_kwargs": {"indexpath": ""}}
    with xr.open_dataset(source, **how) as ds, xr.open_zarr(tmp_path / "out.zarr") as out:
        assert abs(out.t - ds.t).max() <= 0.5
        assert abs(out.z - ds.z).max() <= 50
        assert out.t.encoding["chunks"] == (1, 4, 1, 61, 120)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("era5-levels-corrupted", "cannot be read (damaged or incomplete?): Wrong message length"),
        ("empty_file", "is empty (0 bytes)"),
        ("spherical_harmonics", "holds spherical harmonics"),
        ("tp_on_different_grid_resolutions", "there several times, on different grids or levels"),
    ],
)
def test_grib_that_cannot_be_archived(data_folder, tmp_path, run, scheduler, name, message) -> None:
    source = data_folder / f"grib/{name}.grib"
    code, _, error = run(
        "archive", source, tmp_path / "a.zarr", "--max-error", "0.5", "--scheduler", scheduler
    )
    assert code == 1
    assert message in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "weighting"), [("reduced_gg", "areas of rows"), ("lambert_grid", "cos(latitude)")]
)
def test_other_grids_are_archived(data_folder, tmp_path, run, scheduler, name, weighting) -> None:
    source = data_folder / f"grib/{name}.grib"
    where = "--scheduler", scheduler
    code, out, error = run(
        "archive", source, tmp_path / "a.zarr", "--max-error", "0.5", "--allow-coarse", *where
    )
    assert code == 0, error
    assert f"weighted by {weighting}" in out
    code, _, error = run("verify", tmp_path / "a.zarr", "--source", source, *where)
    assert code == 0, error


@pytest.mark.data
def test_a_region_is_archived_and_called_one(data_folder, tmp_path, run, scheduler) -> None:
    source = data_folder / "grib/era5-2mt-2019-03-uk.grib"
    code, output, _ = run(
        "archive", source, tmp_path / "a.zarr", "--target-rmse", "0.5", "--scheduler", scheduler
    )
    assert code == 0
    assert "a region, no globe: 50 to 58° north, -10 to 2° east" in output


@pytest.mark.data
def test_levels_of_two_kinds_become_two_variables(data_folder, tmp_path, run, scheduler) -> None:
    source = data_folder / "grib/t_on_different_level_types.grib"
    code, _, _ = run(
        "archive", source, tmp_path / "a.zarr", "--max-error", "0.5", "--scheduler", scheduler
    )
    assert code == 0
    with xr.open_zarr(tmp_path / "a.zarr") as ds:
        assert set(ds.data_vars) == {"t_hybrid", "t_isobaricInhPa", "lossy_compression_info"}


def test_files_of_other_times_and_variables(tmp_path, run, scheduler) -> None:
    with xr.open_dataset(SAMPLE, engine="netcdf4") as ds:
        ds.load()
    for i, part in enumerate([slice(0, 5), slice(5, 12)]):
        ds.isel(time=part).to_netcdf(tmp_path / f"t2m_{i}.nc", engine="netcdf4")
        wind = (ds.isel(time=part) - 280).rename(t2m="u10")
        wind.u10.attrs["units"] = "m s-1"
        wind.to_netcdf(tmp_path / f"u10_{i}.nc", engine="netcdf4")
    code, _, error = run(
        "archive", tmp_path / "*.nc", tmp_path / "a.zarr", "--max-error", "t2m=0.5,u10=0.5",
        "--chunk-time", 4,
        "--model", "none", "--scheduler", scheduler,
    )  # fmt: skip
    assert code == 0, error
    with xr.open_zarr(tmp_path / "a.zarr") as out:
        assert np.abs(out.t2m - ds.t2m).max() <= 0.5
        assert np.abs(out.u10 - (ds.t2m - 280)).max() <= 0.5
        assert out.time.equals(ds.time)
