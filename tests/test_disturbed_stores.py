"""Stores for reading only, writers that compete, renames that fail, clocks that jump, SIGTERM."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

from coinpp_xr.archiving import archive, claims, decompress, verify, work
from coinpp_xr.archiving.claims import claimed, others_at_work
from coinpp_xr.archiving.manifest import CLAIMS, GROUP
from coinpp_xr.files import write_atomically

RATE = {"max_error": 0.5, "model": "none", "chunk_time": 4, "effort": "fast"}


@pytest.fixture(scope="module")
def globes() -> xr.Dataset:
    """Eight globes of 4 × 8 in two chunks."""
    values = np.random.default_rng(0).normal(280, 5, (8, 4, 8)).astype("f4")
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K"})},
        {
            "time": pd.date_range("2001-01-01", periods=8, freq="6h"),
            "lat": [67.5, 22.5, -22.5, -67.5],
            "lon": np.arange(0, 360, 45.0),
        },
    )


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---- stores for reading only --------------------------------------------------------------------


def test_a_store_for_reading_is_read_and_not_written(globes, tmp_path) -> None:
    path = tmp_path / "a.zarr"
    archive(globes, path, **RATE)
    before = tree(tmp_path)
    store = LocalStore(path, read_only=True)
    assert verify(store, globes).is_sound
    decompress(store, tmp_path / "a.nc")
    (tmp_path / "a.nc").unlink()
    for write in (
        lambda: globes.coinpp.to_zarr(store, **RATE, mode="w"),
        lambda: globes.coinpp.to_zarr(store, region={"time": slice(0, 8)}),
        lambda: archive(globes, store, **RATE),
        lambda: verify(store, forget=True),
    ):
        with pytest.raises(ValueError, match=r"is for reading only; give .* can be written") as why:
            write()
        assert "\n" not in str(why.value)
    assert tree(tmp_path) == before


# ---- competing writers --------------------------------------------------------------------------


def test_of_two_writers_of_one_region_every_chunk_is_of_one_of_them(globes, tmp_path) -> None:
    """The slower one wins, or is told that another's values came back."""
    store = tmp_path / "a.zarr"
    globes.coinpp.to_zarr(store, **RATE)
    together, errors = threading.Barrier(2), []

    def write(offset: int) -> None:
        together.wait()
        try:
            (globes + offset).coinpp.to_zarr(store, region={"time": slice(0, 8)})
        except RuntimeError as error:
            errors.append(str(error))

    writers = [threading.Thread(target=write, args=(offset,)) for offset in (100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert all("came back from the store with an error beyond" in error for error in errors)
    assert verify(store).is_sound
    with xr.open_zarr(store) as back:
        off = (back.t - globes.t).values.reshape(2, -1)
    for chunk in off:
        assert any((abs(chunk - offset) <= 0.51).all() for offset in (100, 200))
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


# ---- renames that fail --------------------------------------------------------------------------


def renames_fail(monkeypatch, name: str) -> None:
    """Nothing new can get a name any more; what was moved aside can be moved back."""
    for method in ("rename", "replace"):
        original = getattr(Path, method)

        def fail(self: Path, target: Any, original: Any = original) -> Any:
            if Path(target).name == name and not self.name.endswith(".replaced"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
            return original(self, target)

        monkeypatch.setattr(Path, method, fail)


def test_what_cannot_get_its_name_leaves_the_old_as_it_was(globes, tmp_path, monkeypatch) -> None:
    def replace(path: Path) -> None:
        (globes + 1).coinpp.to_zarr(path, **RATE, mode="w")

    def unpack(path: Path) -> None:
        decompress(tmp_path / "a.zarr", path, overwrite=True)

    names = {"a.zarr": replace, "a.zip": replace, "b.zarr": unpack, "b.nc": unpack}
    names["file"] = lambda path: write_atomically(path, b"new")
    globes.coinpp.to_zarr(tmp_path / "a.zarr", **RATE)
    globes.coinpp.to_zarr(tmp_path / "a.zip", **RATE)
    for name in ("b.zarr", "b.nc"):
        decompress(tmp_path / "a.zarr", tmp_path / name)
    write_atomically(tmp_path / "file", b"old")
    before = tree(tmp_path)
    for name, write in names.items():
        with monkeypatch.context() as patch:
            renames_fail(patch, name)
            with pytest.raises(OSError, match="No space left on device"):
                write(tmp_path / name)
        assert tree(tmp_path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_an_old_store_that_cannot_be_moved_back_is_kept(globes, tmp_path, monkeypatch) -> None:
    globes.coinpp.to_zarr(tmp_path / "a.zarr", **RATE)
    before, original = tree(tmp_path / "a.zarr"), Path.rename

    def fail(self: Path, target: Any) -> Any:
        if Path(target).name == "a.zarr":
            raise OSError(errno.EIO, "I/O error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(OSError, match=r"what it was is in .*replaced now"):
        globes.coinpp.to_zarr(tmp_path / "a.zarr", **RATE, mode="w")
    (left,) = tmp_path.iterdir()
    assert tree(left) == before


def test_a_chunk_that_cannot_get_its_name_leaves_the_old_one(globes, tmp_path, monkeypatch) -> None:
    store = tmp_path / "a.zarr"
    globes.coinpp.to_zarr(store, **RATE)
    before = tree(store)

    def fail(*args: Any) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        for name in ("rename", "replace"):
            patch.setattr(Path, name, fail)
        with pytest.raises(OSError, match="Permission denied"):
            (globes + 1).coinpp.to_zarr(store, region={"time": slice(0, 8)})
    assert tree(store) == before
    assert verify(store, globes).is_sound


# ---- clocks that jump ---------------------------------------------------------------------------


@pytest.fixture
def group(globes, tmp_path) -> zarr.Group:
    archive(globes, tmp_path / "a.zarr", **RATE, times=slice("1900", "1901"))
    return zarr.open_group(tmp_path / "a.zarr", mode="r+")


class Clock:
    """The wall clock as a process sees it that looks at claims."""

    monotonic, sleep = staticmethod(time.monotonic), staticmethod(time.sleep)

    def __init__(self, jump: float) -> None:
        self._jump = jump

    def time(self) -> float:
        return time.time() + self._jump


@pytest.mark.parametrize("host", ["here", "elsewhere"])
@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_makes_nobody_dead(group, monkeypatch, jump, host) -> None:
    """Neither here, where psutil adds the time of booting, nor on another machine."""
    monkeypatch.setattr(claims, "_BEAT_SECONDS", 0.2)
    started = psutil.Process.create_time
    with monkeypatch.context() as there:
        there.setattr(claims.socket, "gethostname", lambda: host)
        claim = claimed(group, {"t": range(4)})
        claim.__enter__()
    with monkeypatch.context() as now:
        if host == "here":
            now.setattr(claims.socket, "gethostname", lambda: host)
        now.setattr(claims, "time", Clock(jump))
        now.setattr(psutil.Process, "create_time", lambda self: started(self) + jump)
        assert others_at_work(group)
        with pytest.raises(RuntimeError, match="is writing t"), claimed(group, {"t": range(8)}):
            pass
    claim.__exit__(None, None, None)
    assert not others_at_work(group)


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_nobody_lives_for_ever_because_a_clock_was_wrong(group, monkeypatch, jump) -> None:
    """Claims from the future are no sign of life either."""
    monkeypatch.setattr(claims, "_BEAT_SECONDS", 0.2)
    who = {"host": "elsewhere", "pid": 1, "process_started": "", "parts": {"t": [0, 8]}}
    dead = who | {"time": time.time() + jump, "beat": 3}
    claims._put(group.store_path / GROUP / CLAIMS / "dead.json", dead)
    with claimed(group, {"t": range(8)}):
        pass


def test_an_archive_is_written_while_the_clock_jumps(globes, tmp_path, monkeypatch) -> None:
    """In all of this process, dask included, when blocks are being written."""
    now, place = time.time, work.write_block

    def write_block(*args: Any) -> Any:
        monkeypatch.setattr(time, "time", lambda: now() + 3600)
        return place(*args)

    monkeypatch.setattr(work, "write_block", write_block)
    assert archive(globes, tmp_path / "a.zarr", **RATE).is_complete
    monkeypatch.undo()
    assert archive(globes, tmp_path / "a.zarr", **RATE).n_new == 0
    assert verify(tmp_path / "a.zarr", globes).is_sound


# ---- SIGTERM ------------------------------------------------------------------------------------

SCRIPT = """\
import os
import sys
import time
from pathlib import Path

import dask.array
import numpy as np
import xarray as xr

import coinpp_xr
from coinpp_xr.files import write_atomically
from coinpp_xr.parallel import map_in_threads

what, target = sys.argv[1:]


def slow(values, block_info=None):
    if block_info and block_info[0]["chunk-location"][0] == 1:
        print("working", flush=True)
        for _ in range(300):  # numeric work in many steps takes long, or processes wait for disks
            map_in_threads(time.sleep, [0.1] * 2)
    return values


if __name__ == "__main__":
    values = dask.array.ones((8, 4, 8), chunks=(4, 4, 8), dtype="f4").map_blocks(slow)
    axes = {"lat": [67.5, 22.5, -22.5, -67.5], "lon": np.arange(0, 360, 45.0)}
    globes = xr.Dataset({"t": (("time", "lat", "lon"), values)}, axes)
    rate = {"max_error": 0.5, "model": "none", "chunk_time": 4, "effort": "fast"}
    rate["allow_coarse"] = True
    if what == "to_zarr":
        globes.coinpp.to_zarr(target, **rate)
    elif what == "file":
        os.fsync = slow_sync = lambda file: slow(None, [{"chunk-location": [1]}])
        write_atomically(Path(target), b"new")
    else:
        coinpp_xr.archive(globes, target, workers=2 if what == "workers" else None, **rate)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM")
def test_sigterm_leaves_nothing_beside_a_store(globes, tmp_path) -> None:
    """All at once, because a process takes seconds to start."""
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    children = {}
    for what in ("to_zarr", "file", "threads", "workers"):
        folder = tmp_path / what
        (folder / "tmp").mkdir(parents=True)
        (folder / "store").mkdir()
        children[what] = subprocess.Popen(
            [sys.executable, str(script), what, str(folder / "store/a.zarr")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            cwd=folder / "store", env={**os.environ, "TMPDIR": str(folder / "tmp")},
        )  # fmt: skip
    try:
        for child in children.values():
            assert child.stdout is not None
            while child.stdout.readline() != "working\n":
                assert child.poll() is None
            child.terminate()
        for what, child in children.items():
            child.wait(timeout=60)
            assert child.returncode == -signal.SIGTERM, what
    finally:
        for child in children.values():
            child.kill()
            child.communicate()
    for what in children:
        store = tmp_path / what / "store/a.zarr"
        begun = what in ("threads", "workers")
        assert [path.name for path in store.parent.iterdir()] == ["a.zarr"] * begun, what
        if begun:
            assert [path.name for path in (store / GROUP / CLAIMS).iterdir()] == ["zarr.json"]
            assert not [path for path in store.rglob("*") if path.suffix == ".partial"]
            steps = globes.drop_vars("time") * 0 + 1
            rate = RATE | {"allow_coarse": True}
            steps["t"].attrs = {}
            assert archive(steps, store, **rate).is_complete
