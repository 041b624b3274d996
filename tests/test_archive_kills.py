"""Archives that are disturbed: the finished store is the undisturbed one, or the error says where.

Workers and clients that are killed, full disks, damaged sources, and Ctrl-C. What happens when is
drawn from seeded generators, relative to how long an undisturbed run takes here.
"""

from __future__ import annotations

import errno
import logging
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import psutil
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from zarr.storage import LocalStore

from coinpp_xr.archiving import archive
from coinpp_xr.archiving.manifest import CLAIMS, GROUP

# Means of so few cells are off by much: to keep them closer would take several tries a chunk.
RATES = {
    "max_error": {"t": 0.5, "z": 20.0}, "max_mean_error": {"t": 0.5, "z": 20.0}, "model": "none",
    "chunk_time": 8, "effort": "fast",
}  # fmt: skip
N_BLOCKS = 10
# Every death takes some seconds until a new worker is there; for a thorough look set it to 20.
KILLS = int(os.environ.get("COINPP_TEST_KILLS", "4"))
# What zarr writes a file under before it gets its name; a process that is killed leaves it.
UNFINISHED = ".partial"

# A server forks children that have imported everything: they start in milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["coinpp_xr.archiving.running", "coinpp_xr.causal", "bokeh.plotting", "cf_xarray", "pytest"]
)


def made_weather() -> xr.Dataset:
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


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.suffix != UNFINISHED
    }


def left_behind(store: Path) -> list[str]:
    """Files that nobody will ever finish, in a store and beside it."""
    found = [*store.rglob(f"*{UNFINISHED}"), *store.parent.glob(f".{store.name}.*")]
    return [str(path.relative_to(store.parent)) for path in found]


def blocks_done(store: Path) -> int:
    """Rows of the manifest."""
    rows = (store / GROUP).glob("*/c/*/0")
    return sum(path.suffix != UNFINISHED for path in rows)


def differences(folder: Path, expected: dict[str, bytes]) -> list[str]:
    """Names of files that are not as they should be."""
    found = tree(folder)
    names = found.keys() | expected.keys()
    return sorted(name for name in names if found.get(name) != expected.get(name))


@dataclass(frozen=True)
class Undisturbed:
    """An archive that nothing happened to, and how long it took: warm, and in a new process."""

    tree: dict[str, bytes]
    seconds: float
    child_seconds: float


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """The weather as a plain Zarr folder, in chunks of eight steps."""
    path = tmp_path_factory.mktemp("source") / "weather.zarr"
    weather = made_weather()
    encoding = {
        name: {"compressors": None, "chunks": (8, *weather[name].shape[1:])} for name in "tz"
    }
    weather.to_zarr(path, encoding=encoding, zarr_format=3, consolidated=False)
    return path


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two processes, which their nannies start again when they die."""
    # Some seconds after a death dask looks whether that worker is back, and gives up its place for
    # ever if it has just died again.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})
    with (
        patient,
        LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=logging.CRITICAL
        ) as cluster,
    ):
        yield cluster


@pytest.fixture(scope="module")
def processes(cluster) -> Iterator[Client]:
    with Client(cluster) as client:
        yield client


@pytest.fixture(scope="module")
def threads() -> Iterator[Client]:
    """Workers in this process, whose store can be made to fail."""
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    ) as client:  # fmt: skip
        yield client


@pytest.fixture(scope="module")
def undisturbed(source, processes, tmp_path_factory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    for name in ("cold", "warm"):
        started = time.perf_counter()
        assert archive(source, folder / name, client=processes, **RATES).is_complete
        seconds = time.perf_counter() - started
    expected = tree(folder / "warm")
    child = Child(source, folder / "child")
    child.process.join(60)
    child_seconds = time.perf_counter() - child.started
    assert child.process.exitcode == 0
    assert differences(folder / "cold", expected) == []
    assert differences(folder / "child", expected) == []
    assert blocks_done(folder / "warm") == N_BLOCKS
    return Undisturbed(expected, seconds, child_seconds)


class Child:
    """A process that archives, with threads of its own or on a cluster that outlives it."""

    def __init__(self, source: Path, store: Path, address: str | None = None) -> None:
        self.store = store
        receiver, sender = CONTEXT.Pipe(duplex=False)
        self.process = CONTEXT.Process(
            target=_archive_in_child, args=(str(source), str(store), address, sender), daemon=True
        )
        self.process.start()
        sender.close()
        with receiver:
            assert receiver.poll(60)
            receiver.recv()
        self.started = time.perf_counter()

    def kill(self, after: float, ready: Callable[[], bool] = lambda: True) -> int:
        """SIGKILL some seconds after something is ready.

        Returns how many blocks were done then, -1 if it ended before.
        """
        while self.process.is_alive() and not ready():
            time.sleep(0.002)
        self.process.join(after)
        ended = not self.process.is_alive()
        self.process.kill()
        self.process.join()
        assert self.process.exitcode == (0 if ended else -signal.SIGKILL)
        return -1 if ended else blocks_done(self.store)


def _archive_in_child(source: str, store: str, address: str | None, begun: Any) -> None:
    with nullcontext() if address is None else Client(address) as client:
        begun.send("begun")
        archive(source, store, client=client, **RATES)


# What is started in the background, as jobs of CI may be, inherits that Ctrl-C is ignored.
SCRIPT = """\
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from coinpp_xr.archiving import archive

    print("begun", flush=True)
    archive(
        sys.argv[1], sys.argv[2], workers=eval(sys.argv[3]), max_error={"t": 0.5, "z": 20.0},
        max_mean_error={"t": 0.5, "z": 20.0}, model="none", chunk_time=8, effort="fast",
    )
    print("ended", flush=True)
"""


@contextmanager
def script(
    source: Path, store: Path, folder: Path, workers: str
) -> Iterator[subprocess.Popen[str]]:
    """A user's script that archives, in a process group of its own; killed in the end."""
    path = folder / "run.py"
    path.write_text(SCRIPT)
    with (folder / "stderr").open("wb") as stderr, subprocess.Popen(
        [sys.executable, str(path), str(source), str(store), workers],
        stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == "begun\n"
            yield child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- workers ------------------------------------------------------------------------------------


def wait_for_two_others(cluster: LocalCluster, client: Client, dead: str) -> None:
    """Until two workers are there, of which none is the dead one."""

    def are_there() -> bool:
        workers = client.scheduler_info(n_workers=-1)["workers"]
        return len(workers) == 2 and dead not in workers

    wait_for(are_there)


def test_workers_that_are_killed_change_nothing(
    source, cluster, processes, undisturbed, tmp_path
) -> None:
    at_work = 0
    left: list[str] = []
    for seed in range(KILLS):
        rng = np.random.default_rng(seed)
        store = tmp_path / f"{seed}.zarr"
        nanny = list(cluster.workers.values())[rng.integers(2)]
        dead, done_then = nanny.worker_address, []
        # Every other one when some blocks are done, the rest at any time.
        some = rng.integers(1, N_BLOCKS) if seed % 2 else 0
        after = 0 if some else rng.uniform(0, undisturbed.seconds)

        def kill(
            pid: int = nanny.pid, store: Path = store, some: int = some, after: float = after,
            done: list[int] = done_then,
        ) -> None:  # fmt: skip
            wait_for(lambda: blocks_done(store) >= some)
            time.sleep(after)
            done.append(blocks_done(store))
            os.kill(pid, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        try:
            report = archive(source, store, client=processes, **RATES)
        finally:
            killer.join()
            wait_for_two_others(cluster, processes, dead)
        assert report.is_complete, (seed, report.failures)
        assert differences(store, undisturbed.tree) == [], seed
        at_work += 0 < done_then[0] < N_BLOCKS
        left += left_behind(store)
    print("left behind:", left)
    assert at_work >= KILLS // 4


def test_a_worker_may_die_while_the_workers_are_made_ready(
    source, cluster, processes, undisturbed, tmp_path, monkeypatch
) -> None:
    """The scheduler still knows it when all workers are told what to load, or to let it go."""
    for name in ("register_plugin", "unregister_worker_plugin"):
        original = getattr(Client, name)
        nanny = next(iter(cluster.workers.values()))
        dead = nanny.worker_address

        def and_kill(
            self: Client, *args: Any, call: Callable[..., Any] = original,
            pid: int = nanny.pid, **kwargs: Any,
        ) -> Any:  # fmt: skip
            with suppress(ProcessLookupError):  # it is dead already
                os.kill(pid, signal.SIGKILL)
            return call(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Client, name, and_kill)
            try:
                report = archive(source, tmp_path / name, client=processes, **RATES)
            finally:
                wait_for_two_others(cluster, processes, dead)
        assert report.is_complete
        assert differences(tmp_path / name, undisturbed.tree) == []


def test_two_runs_share_a_cluster(source, processes, undisturbed, tmp_path) -> None:
    """Whoever ends first leaves the workers as the other needs them."""
    store = tmp_path / "a.zarr"
    archive(source, store, client=processes, times=slice("1990", "1991"), **RATES)
    errors: list[BaseException] = []

    def some(times: slice) -> None:
        try:
            archive(source, store, client=processes, times=times, **RATES)
        except BaseException as error:
            errors.append(error)

    halves = [slice(None, "2001-01-06T18"), slice("2001-01-07T00", None)]
    runs = [threading.Thread(target=some, args=(times,)) for times in halves]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert errors == []
    assert archive(source, store, client=processes, **RATES).n_new == 0
    assert differences(store, undisturbed.tree) == []


# ---- clients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["threads", "processes"])
def test_clients_that_are_killed_can_be_gone_on_with(
    source, cluster, processes, undisturbed, tmp_path, where
) -> None:
    """With workers that die with the client, and with those that go on without it for a while."""
    address = None if where == "threads" else cluster.scheduler_address
    duration = undisturbed.child_seconds if where == "threads" else undisturbed.seconds
    at_work = 0
    left: list[str] = []
    seeds = KILLS if where == "threads" else KILLS // 2
    for seed in range(seeds):
        store = tmp_path / f"{seed}.zarr"
        rng = np.random.default_rng(seed)
        # Every other one at any time, which is mostly before there are blocks.
        child, some = Child(source, store, address), rng.integers(1, N_BLOCKS)
        if seed % 2:
            done_then = child.kill(0, lambda store=store, some=some: blocks_done(store) >= some)
        else:
            done_then = child.kill(rng.uniform(0, duration))
        at_work += 0 < done_then < N_BLOCKS
        report = archive(source, store, client=processes, **RATES)
        assert report.is_complete, (seed, report.failures)
        # Workers that are left may finish blocks that they had begun.
        assert report.n_new <= N_BLOCKS - max(done_then, 0), seed
        assert report.n_new == N_BLOCKS - max(done_then, 0) or where == "processes" or done_then < 0
        assert differences(store, undisturbed.tree) == [], seed
        left += left_behind(store)
    print("left behind:", left)
    assert at_work >= seeds // 4


def test_a_killed_client_that_nobody_has_waited_for_yet_is_dead(
    source, processes, undisturbed, tmp_path
) -> None:
    """Its number stays taken until its parent asks for it; in containers that may be never."""
    store = tmp_path / "a.zarr"
    with script(source, store, tmp_path, "None") as child:
        wait_for(lambda: blocks_done(store) > 0)
        os.kill(child.pid, signal.SIGKILL)
        wait_for(lambda: psutil.Process(child.pid).status() == psutil.STATUS_ZOMBIE)
        assert blocks_done(store) < N_BLOCKS
        assert len(list((store / GROUP / CLAIMS).glob("*[!r].json"))) == 1
        report = archive(source, store, client=processes, **RATES)
    assert report.is_complete
    assert differences(store, undisturbed.tree) == []


def test_an_archive_may_be_killed_while_it_grows(source, processes, undisturbed, tmp_path) -> None:
    """In the middle of its metadata, and of its blocks."""
    short = tmp_path / "short.zarr"
    archive(made_weather().isel(time=slice(27)), short, client=processes, **RATES)
    # Two blocks are not full at first, and are forgotten when the archive grows.
    before, kept = blocks_done(short), blocks_done(short) - 2
    growing = at_work = 0
    for seed in range(5):
        store = tmp_path / f"{seed}.zarr"
        shutil.copytree(short, store)

        def is_growing(document: Path = store / GROUP / "zarr.json") -> bool:
            return "growing" in document.read_text()

        child, rng = Child(source, store), np.random.default_rng(seed)
        if seed < 3:
            child.kill(rng.uniform(0, 0.01), is_growing)
        else:
            wait_for(is_growing)
            wait_for(lambda store=store: blocks_done(store) == kept)
            some = kept + 1 + seed % 2
            done_then = child.kill(0, lambda store=store, some=some: blocks_done(store) >= some)
            at_work += kept < done_then < N_BLOCKS
        growing += is_growing()
        report = archive(source, store, client=processes, **RATES)
        assert report.is_complete, (seed, report.failures)
        check_grown(store, undisturbed)
    assert before < N_BLOCKS
    assert growing >= 1
    assert at_work >= 1


def test_what_killed_processes_leave_does_no_harm(source, threads, undisturbed, tmp_path) -> None:
    """Files that zarr had not named yet, and stores that were not in their place yet."""
    store = tmp_path / "a.zarr"
    times = slice("2001-01-01", "2001-01-04")
    archive(source, store, client=threads, times=times, **RATES)
    for folder in ("", "t", "t/c/3/0", "z/c/0/0/0", GROUP, f"{GROUP}/t/c/1", f"{GROUP}/{CLAIMS}"):
        (store / folder).mkdir(parents=True, exist_ok=True)
        (store / folder / f"zarr.0123{UNFINISHED}").write_bytes(b"cut o")
    shutil.copytree(store, tmp_path / ".a.zarr.0123/a.zarr")
    assert archive(source, store, client=threads, **RATES).is_complete
    assert differences(store, undisturbed.tree) == []
    with xr.open_zarr(store) as ds:
        assert abs(ds.t - made_weather().t).max() <= 0.5


def check_grown(store: Path, undisturbed: Undisturbed) -> None:
    """All but time, which lies in chunks as long as it was at first, is as if written at once."""
    weather = made_weather()
    with xr.open_zarr(store) as ds:
        assert ds.time.equals(weather.time)
        assert abs(ds.t - weather.t).max() <= 0.5
        assert abs(ds.z - weather.z).max() <= 20
        assert ds.mask.equals(weather.mask)
    different = differences(store, undisturbed.tree)
    known = ("time/", "zarr.json", f"{GROUP}/t/zarr.json", f"{GROUP}/z/zarr.json")
    assert [name for name in different if not name.startswith(known)] == []


# ---- disks --------------------------------------------------------------------------------------


@contextmanager
def writes_that_fail(monkeypatch, fails: Callable[[str], bool]) -> Iterator[None]:
    """No space on the disk for some keys; ``fails`` is asked about one write at a time."""
    original, lock = LocalStore.set, threading.Lock()

    async def full(self: LocalStore, key: str, value: Any) -> None:
        with lock:
            failing = fails(key)
        if failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await original(self, key, value)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "set", full)
        yield


def is_chunk(key: str) -> bool:
    return key.startswith(("t/c/", "z/c/"))


@pytest.mark.parametrize("seed", range(3))
def test_a_disk_that_is_full_once(
    source, threads, undisturbed, tmp_path, monkeypatch, seed
) -> None:
    """Dask tries again."""
    number = int(np.random.default_rng(seed).integers(N_BLOCKS))
    chunks: list[str] = []

    def fails(key: str) -> bool:
        if is_chunk(key):
            chunks.append(key)
        return is_chunk(key) and len(chunks) - 1 == number

    with writes_that_fail(monkeypatch, fails):
        report = archive(source, tmp_path / "a.zarr", client=threads, **RATES)
    assert len(chunks) > len(set(chunks))
    assert report.is_complete
    assert differences(tmp_path / "a.zarr", undisturbed.tree) == []


@pytest.mark.parametrize("what", ["t/c/2/0/0", f"{GROUP}/t/c/2/0"])
def test_a_block_that_cannot_be_written(
    source, threads, undisturbed, tmp_path, monkeypatch, what
) -> None:
    """Neither its values nor its row in the manifest."""
    store = tmp_path / "a.zarr"
    with writes_that_fail(monkeypatch, lambda key: key == what):
        report = archive(source, store, client=threads, **RATES)
    assert not report.is_complete
    assert report.n_done == report.n_new == N_BLOCKS - 1
    (failure,) = report.failures
    assert (failure.variable, failure.index) == ("t", 2)
    assert failure.label == "time=2001-01-05T00:00 … 2001-01-06T18:00"
    assert "No space left on device" in failure.reason
    assert "No space left on device" in " ".join(str(report).split())
    assert "\n" not in str(failure)
    assert archive(source, store, client=threads, **RATES).n_new == 1
    assert differences(store, undisturbed.tree) == []


@pytest.mark.parametrize("state", ["new", "growing", "another variable"])
def test_a_disk_that_is_full_from_some_moment_on(
    source, threads, undisturbed, tmp_path, monkeypatch, state
) -> None:
    """At any write, of metadata too; as if the power went off then."""
    begun = tmp_path / "begun.zarr"
    only_t = {"max_error": 0.5, "max_mean_error": 0.5}
    if state == "growing":
        archive(made_weather().isel(time=slice(27)), begun, client=threads, **RATES)
    elif state == "another variable":
        archive(source, begun, client=threads, variables="t", **RATES | only_t)

    def disturbed(store: Path, allowed: float) -> int:
        if begun.exists():
            shutil.copytree(begun, store)
        written: list[str] = []

        def fails(key: str) -> bool:
            written.append(key)
            return len(written) > allowed

        with writes_that_fail(monkeypatch, fails), suppress(OSError):
            report = archive(source, store, client=threads, **RATES)
            assert report.is_complete == (allowed == np.inf)
        assert len(written) > allowed or allowed == np.inf
        return len(written)

    total = disturbed(tmp_path / "all.zarr", np.inf)
    for seed in range(2):
        store = tmp_path / f"{seed}.zarr"
        allowed = int(np.random.default_rng(seed).integers(total))
        disturbed(store, allowed)
        report = archive(source, store, client=threads, **RATES)
        assert report.is_complete, (seed, allowed, report.failures)
        if state == "new":
            assert differences(store, undisturbed.tree) == [], (seed, allowed)
        else:
            check_grown(store, undisturbed)
        assert left_behind(store) == []


def test_a_disk_that_is_full_is_told_with_the_blocks_that_are_missing(
    source, threads, undisturbed, tmp_path, monkeypatch
) -> None:
    """Not even the metadata can be written at the end."""
    chunks: list[str] = []

    def fails(key: str) -> bool:
        chunks.extend([key] if is_chunk(key) else [])
        return len(chunks) > 3

    with writes_that_fail(monkeypatch, fails):
        try:
            said = str(archive(source, tmp_path / "a.zarr", client=threads, **RATES))
        except OSError as error:
            said = "\n".join([str(error), *getattr(error, "__notes__", [])])
    assert "No space left on device" in " ".join(said.split())
    assert re.search(r"[tz] time=2001-01-0\d", said), said
    # On a busy machine it is this block that was written before.
    assert "z time=2001-01-09T00:00" in said or blocks_done(tmp_path / "a.zarr") > 0, said
    assert archive(source, tmp_path / "a.zarr", client=threads, **RATES).is_complete
    assert differences(tmp_path / "a.zarr", undisturbed.tree) == []


# ---- sources ------------------------------------------------------------------------------------


def test_a_source_of_which_a_chunk_is_cut_off(source, processes, undisturbed, tmp_path) -> None:
    chunk, store = source / "z/c/3/0/0/0", tmp_path / "a.zarr"
    content = chunk.read_bytes()
    chunk.write_bytes(content[: len(content) // 2])
    try:
        report = archive(source, store, client=processes, **RATES)
    finally:
        chunk.write_bytes(content)
    assert not report.is_complete
    assert report.n_done == N_BLOCKS - 1
    (failure,) = report.failures
    assert (failure.variable, failure.index) == ("z", 3)
    assert "time=2001-01-07T00:00 … 2001-01-08T18:00" in failure.label
    assert failure.reason
    assert "\n" not in str(failure)
    assert archive(source, store, client=processes, **RATES).n_new == 1
    assert differences(store, undisturbed.tree) == []


@pytest.mark.parametrize("file_format", ["NETCDF4", "NETCDF3_64BIT"])
def test_a_netcdf_file_that_is_cut_off(threads, tmp_path, file_format) -> None:
    """Of the old format the library reads zeros where nothing is."""
    path, store, weather = tmp_path / "weather.nc", tmp_path / "a.zarr", made_weather()
    # Coordinates come first, as most programs write them: they are still there.
    coordinates = weather.drop_vars(list(weather.data_vars))
    coordinates.to_netcdf(path, engine="netcdf4", format=file_format)
    weather.to_netcdf(path, mode="a", engine="netcdf4", format=file_format)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(ValueError, match=r"weather\.nc") as caught:
        archive(path, store, client=threads, **RATES)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["weather.nc"]


# ---- Ctrl-C -------------------------------------------------------------------------------------


def group_members(group: int) -> list[str]:
    """Command lines of the processes of a group that still run."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
    return found


@pytest.mark.parametrize("seed", range(2))
def test_ctrl_c(source, processes, undisturbed, tmp_path, seed) -> None:
    """As a terminal does it, to all processes at once: workers have nothing to say about it."""
    store = tmp_path / "a.zarr"
    with script(source, store, tmp_path, "2") as child:
        # While workers are started, or when blocks are being written.
        if seed:
            wait_for(lambda: blocks_done(store) > 0)
        time.sleep(np.random.default_rng(seed).uniform(0, 0.3 if seed else 2))
        # On a busy machine it may have come to its end meanwhile.
        nearly_done = blocks_done(store) >= N_BLOCKS - 2
        os.killpg(child.pid, signal.SIGINT)
        rest = child.communicate(timeout=20)[0]
        wait_for(lambda: not group_members(child.pid), seconds=30)
    # A process that had only just been started finds nobody who says what it is for.
    said = (
        (tmp_path / "stderr").read_text().split('Traceback (most recent call last):\n  File "<s')[0]
    )
    # While workers are started it may be ignored; so soon one tries again.
    if "ended" not in rest or (seed and not nearly_done):
        assert rest == ""
        assert child.returncode in (-signal.SIGINT, 130)
        assert said.rstrip().endswith("KeyboardInterrupt"), said
    # Dask may add that a task of its own was left.
    assert said.count("Traceback") <= 2, said
    assert "Dask Worker" not in said, said
    assert archive(source, store, client=processes, **RATES).is_complete
    assert differences(store, undisturbed.tree) == []


LONG_SCRIPT = """\
import signal
import sys
import time

import dask.array
import numpy as np
import xarray as xr

from coinpp_xr.archiving import archive
from coinpp_xr.parallel import map_in_threads


def slow(values, block_info=None):
    # What takes long is numeric work in many steps; processes may just as well wait for a disk.
    for _ in range(600):
        print("working", flush=True)
        map_in_threads(time.sleep, [0.1] * 2)
    return values


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    values = dask.array.zeros((40, 8, 16), chunks=(8, 8, 16), dtype="f4").map_blocks(slow)
    coordinates = {"lat": np.linspace(78.75, -78.75, 8), "lon": np.arange(0, 360, 22.5)}
    field = xr.DataArray(values, coordinates, ("time", "lat", "lon"), name="t")
    print("begun", flush=True)
    rate = {"max_error": 0.5, "model": "none", "chunk_time": 8}
    archive(field, sys.argv[1], workers=eval(sys.argv[2]), **rate)
"""


@pytest.mark.parametrize("workers", ["2", "None"])
def test_ctrl_c_does_not_wait_for_long_blocks(tmp_path, workers) -> None:
    """Neither in processes nor in threads of the script."""
    store, path = tmp_path / "a.zarr", tmp_path / "run.py"
    path.write_text(LONG_SCRIPT)
    with (tmp_path / "stderr").open("wb") as stderr, subprocess.Popen(
        [sys.executable, str(path), str(store), workers],
        stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True,
    ) as child:  # fmt: skip
        try:
            assert child.stdout is not None
            while child.stdout.readline() != "working\n":
                assert child.poll() is None
            os.killpg(child.pid, signal.SIGINT)
            pressed = time.monotonic()
            child.communicate(timeout=30)
            wait_for(lambda: not group_members(child.pid), seconds=30)
            took = time.monotonic() - pressed
        finally:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    said = (tmp_path / "stderr").read_text()
    assert child.returncode in (-signal.SIGINT, 130), said
    assert said.rstrip().endswith("KeyboardInterrupt"), said
    # Some two seconds on an idle machine.
    assert took < 10, took
    assert not list((store / GROUP / CLAIMS).glob("*.json"))
    assert left_behind(store) == []
