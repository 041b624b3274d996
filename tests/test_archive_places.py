"""Archives in object stores and Icechunk repositories, and several processes in one archive."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from distributed import Client

from coinpp_xr.archiving import archive, verify
from coinpp_xr.archiving.claims import _put, claimed
from coinpp_xr.archiving.manifest import CLAIMS, GROUP

RATES = {
    "max_error": 0.5, "max_mean_error": 0.5, "model": "none", "chunk_time": 8, "effort": "fast"
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


def weather(steps: int = 24) -> xr.Dataset:
    rng = np.random.default_rng(5)
    latitude, longitude = np.linspace(78.75, -78.75, 8), np.arange(0, 360, 22.5)
    wave = np.sin(3 * np.radians(longitude) + 0.1 * np.arange(steps)[:, None, None])
    t = 280 + 30 * np.cos(np.radians(latitude))[:, None] + 5 * wave
    t = (t + 0.3 * rng.standard_normal(t.shape)).astype("f4")
    dims = ("time", "latitude", "longitude")
    return xr.Dataset(
        {"t": (dims, t, {"units": "K"}), "u": (dims, (t - 280) / 5, {"units": "K"})},
        coords={
            "time": pd.date_range("2001-01-01", periods=steps, freq="6h"),
            "latitude": latitude,
            "longitude": longitude,
        },
    )


# ---- object stores ------------------------------------------------------------------------------


def _in_a_bucket() -> None:
    """Archives on an S3-compatible server on this machine; in a process of its own.

    The clients' sessions are only closed when they are collected, with a warning that would hit
    any other test.
    """
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "test", "secret": "test"}
    s3fs.S3FileSystem(**options).mkdir("archives")
    how = {"storage_options": options, "variables": "t"}
    with Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=":0"):
        for number, check in enumerate((_begun_grown_and_verified, _in_zarr_format_2)):
            check(f"s3://archives/{number}.zarr", RATES | how)
    server.stop()


def _begun_grown_and_verified(url: str, settings: dict) -> None:
    options = settings["storage_options"]
    first = archive(weather(), url, times=slice("2001-01-01", "2001-01-02"), **settings)
    assert not first.is_complete
    report = archive(weather(32), url, **settings)
    assert report.is_complete
    assert report.n_new == 3
    with xr.open_zarr(url, storage_options=options) as ds:
        assert abs(ds.t - weather(32).t).max() <= 0.5
    found = verify(url, weather(32), storage_options=options)
    assert found.is_sound
    assert found.n_compared == 4


def _in_zarr_format_2(url: str, settings: dict) -> None:
    assert archive(weather(16), url, zarr_format=2, **settings).is_complete
    with xr.open_zarr(url, storage_options=settings["storage_options"]) as ds:
        assert abs(ds.t - weather(16).t).max() <= 0.5


def test_archives_in_an_object_store() -> None:
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    process = multiprocessing.get_context("spawn").Process(target=_in_a_bucket)
    process.start()
    process.join(120)
    assert process.exitcode == 0


# ---- Icechunk -----------------------------------------------------------------------------------


def test_an_archive_in_an_icechunk_repository(tmp_path) -> None:
    icechunk = pytest.importorskip("icechunk")
    storage = icechunk.local_filesystem_storage(str(tmp_path))
    repository = icechunk.Repository.create(storage)
    archive(weather(), repository, times=slice("2001-01-01", "2001-01-02"), **RATES)
    report = archive(weather(), repository, **RATES)
    assert report.is_complete
    assert report.n_new == 4
    session = repository.readonly_session("main")
    with xr.open_zarr(session.store, consolidated=False) as ds:
        assert abs(ds.t - weather().t).max() <= 0.5
    messages = [commit.message for commit in repository.ancestry(branch="main")]
    assert "4 blocks" in messages
    assert verify(repository, weather()).is_sound
    assert archive(weather(32), repository, **RATES).n_new == 2


# ---- several processes --------------------------------------------------------------------------


def _archive_in_another_process(store: str, variables: str, times: slice | None, start) -> None:
    with Client(processes=False, threads_per_worker=1, dashboard_address=":0"):
        start.wait()
        archive(weather(), store, variables=variables, times=times, **RATES)


def test_processes_share_an_archive_by_variables_and_times(tmp_path) -> None:
    shares = [("t", slice(None, "2001-01-03")), ("t", slice("2001-01-03T06", None)), ("u", None)]
    store = str(tmp_path / "a.zarr")
    # One of them begins it; here nobody has to wait for that.
    names = ["t", "u"]
    nothing = slice("1900", "1901")
    archive(weather(), store, variables=names, times=nothing, **RATES)
    context = multiprocessing.get_context("spawn")
    start = context.Event()
    processes = [
        context.Process(target=_archive_in_another_process, args=(store, *share, start))
        for share in shares
    ]
    for process in processes:
        process.start()
    start.set()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    report = archive(weather(), store, variables=names, **RATES)
    assert report.is_complete
    assert report.n_new == 0
    assert verify(store, weather()).is_sound


def test_the_same_blocks_are_refused_to_a_second_process(tmp_path) -> None:
    store = tmp_path / "a.zarr"
    archive(weather(), store, times=slice("2001-01-01", "2001-01-02"), **RATES)
    group = zarr.open_group(store, mode="r+")
    with claimed(group, {"t": range(8, 16)}):
        with pytest.raises(RuntimeError, match=r"is writing t \(steps 8 to 15 along time\)"):
            archive(weather(), store, **RATES)
        # Other variables and other times are nobody's.
        archive(weather(), store, variables="u", **RATES)
        archive(weather(), store, times=slice("2001-01-05", None), **RATES)
        with pytest.raises(RuntimeError, match="cannot grow while others write"):
            archive(weather(32), store, **RATES)
    assert archive(weather(), store, **RATES).is_complete


def test_what_the_dead_claimed_is_free(tmp_path) -> None:
    store = tmp_path / "a.zarr"
    archive(weather(), store, times=slice("2001-01-01", "2001-01-02"), **RATES)
    child = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(str(store),))
    child.start()
    child.join(60)
    assert len(list((store / "coinpp_manifest/claims").glob("*.json"))) == 2  # with zarr.json
    assert archive(weather(), store, **RATES).is_complete
    assert len(list((store / "coinpp_manifest/claims").glob("*.json"))) == 1


def _claim_and_die(store: str) -> None:
    with claimed(zarr.open_group(store, mode="r+"), {"t": range(24)}):
        os._exit(1)


def test_a_claim_on_another_machine_lasts_as_long_as_it_gives_signs_of_life(
    tmp_path, monkeypatch
) -> None:
    store = tmp_path / "a.zarr"
    archive(weather(), store, times=slice("2001-01-01", "2001-01-02"), **RATES)
    group = zarr.open_group(store, mode="r+")
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with claimed(group, {"t": range(24)}):
        monkeypatch.undo()
        with pytest.raises(RuntimeError, match=r"process .* on elsewhere is writing t"):
            archive(weather(), store, **RATES)
    folder = group.store_path / GROUP / CLAIMS
    dead = {"host": "elsewhere", "pid": 1, "process_started": "", "parts": {"t": [0, 24]}}
    monkeypatch.setattr("coinpp_xr.archiving.claims._BEAT_SECONDS", 0.1)
    for seconds in (500, -500):
        _put(folder / "dead.json", dead | {"time": time.time() - seconds, "beat": 7})
        assert archive(weather(), store, **RATES).is_complete


def test_claims_leave_nothing_behind(tmp_path) -> None:
    archive(weather(), tmp_path / "a.zarr", **RATES)
    left = [path.name for path in Path(tmp_path / "a.zarr/coinpp_manifest/claims").iterdir()]
    assert left == ["zarr.json"]
