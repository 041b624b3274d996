"""Dask: where blocks are worked on, and how they get there."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from multiprocessing import resource_tracker
from typing import Any

import dask
import zarr
from distributed import (
    Client,
    LocalCluster,
    Nanny,
    Scheduler,
    SpecCluster,
    WorkerPlugin,
    as_completed,
    get_client,
)
from distributed.utils import LoopRunner, silence_logging_cmgr

from coinpp_xr.archiving.parts import Part
from coinpp_xr.archiving.work import (
    Failure,
    Job,
    Outcome,
    archive_block,
    read_block,
    verify_block,
    write_block,
)
from coinpp_xr.data.sources import one_line
from coinpp_xr.models import Model, register_model
from coinpp_xr.parallel import keep_freed_memory, stopped, thread_count
from coinpp_xr.settings import config

# How often dask tries a block again that failed; a worker that dies is no failure of the block.
RETRIES = 2
# Blocks that the scheduler knows of, per thread: enough to keep everyone busy.
_PER_THREAD = 8
_QUIET_SECONDS = 10.0
_WAIT_SECONDS = 60.0
_ATTEMPTS = 20


@dataclass(frozen=True, eq=False)
class Task:
    """A block to be worked on."""

    part: Part
    job: Job
    index: int


class Preparation(WorkerPlugin):  # type: ignore[misc]
    """Readies every worker, also those that come later: models loaded once, one thread per task.

    Parallel work is dask's: a task that took more threads than its own would also round its sums
    in another order. Several runs may share a worker.
    """

    def __init__(self, models: Sequence[Model], *, sharded: bool, gpu: bool) -> None:
        self.name = f"coinpp_xr-{uuid.uuid4().hex[:8]}"
        self._models, self._sharded, self._gpu = list(models), sharded, gpu

    def setup(self, worker: Any) -> None:
        # Dask starts workers with a trim threshold of 64 KiB: the kernel would take two fifths of
        # their time.
        if "MALLOC_TRIM_THRESHOLD_" in os.environ:
            keep_freed_memory()
        _leave_interrupts_to_the_client()
        for model in self._models:
            register_model(model)
        settings: dict[str, Any] = {"threads": 1}
        if self._gpu and not worker.state.total_resources.get("GPU"):
            settings["device"] = "cpu"
        # Zarr would encode ten chunks of a shard at once, each with all its memory.
        _settings_of_runs.enter(self.name, settings, 1 if self._sharded else None)

    def teardown(self, worker: Any) -> None:
        _settings_of_runs.leave(self.name)


class _SettingsOfRuns:
    """Settings of a process that hold as long as any run needs them."""

    def __init__(self) -> None:
        self._runs: set[str] = set()
        self._before: tuple[dict[str, Any], int] | None = None
        self._lock = threading.Lock()

    def enter(self, run: str, settings: dict[str, Any], concurrency: int | None) -> None:
        with self._lock:
            self._runs.add(run)
            if self._before is None:
                before = {"threads": config.get("threads"), "device": config.get("device")}
                self._before = before, zarr.config.get("async.concurrency")
            config.set(settings)
            if concurrency is not None:
                zarr.config.set({"async.concurrency": concurrency})

    def leave(self, run: str) -> None:
        with self._lock:
            self._runs.discard(run)
            if not self._runs and self._before is not None:
                config.set(self._before[0])
                zarr.config.set({"async.concurrency": self._before[1]})
                self._before = None


_settings_of_runs = _SettingsOfRuns()


def _leave_interrupts_to_the_client() -> None:
    """A terminal sends Ctrl-C to all processes; what workers do is for the client to say."""
    is_worker = multiprocessing.parent_process() is not None
    if is_worker and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Threads that are started in this block, and processes that those start, know no Ctrl-C."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # When it starts, it takes the mask away again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _kill_workers(clusters: Iterable[SpecCluster]) -> None:
    """Kill the processes of clusters, which would end their blocks first if they were asked.

    What they write appears whole or not at all.
    """
    for cluster in clusters:
        for nanny in list(cluster.workers.values()):
            nanny.auto_restart = False
            if nanny.pid:
                with suppress(ProcessLookupError):
                    os.kill(nanny.pid, signal.SIGKILL)


@contextmanager
def a_client(
    client: Client | None, workers: int | None = None, *, gpu: bool = False
) -> Iterator[Client]:
    """The client to work with: the given one, dask's current one, or one of our own.

    Parameters
    ----------
    client : Client, optional
    workers : int, optional
        Processes on this machine, one thread each; default: threads of this process.
    gpu : bool
        One more process that has all GPUs to itself.
    """
    if client is not None:
        with client.as_current():
            yield client
        return
    if workers is None:
        try:
            current = get_client(timeout=0)
        except ValueError:
            pass
        else:
            yield current
            return
    # The dashboard needs a package of its own; without it dask would warn.
    own: dict[str, Any] = {
        "dashboard_address": ":0" if find_spec("bokeh") else None, "silence_logs": logging.CRITICAL,
    }  # fmt: skip
    if workers is None and not gpu:
        own |= {"processes": False, "n_workers": 1, "threads_per_worker": thread_count()}
        with ExitStack() as stack, LocalCluster(**own) as cluster, Client(cluster) as new:
            try:
                yield new
            except KeyboardInterrupt:
                stack.enter_context(stopped())
                raise
        return
    with _silent_processes(workers, gpu=gpu, own=own) as new:
        yield new


@contextmanager
def _silent_processes(workers: int | None, *, gpu: bool, own: dict[str, Any]) -> Iterator[Client]:
    """Processes of our own, which end at once when the run is interrupted."""
    with _deaf_to_interrupts():
        loop = LoopRunner()
        loop.start()
    own["loop"] = loop.loop
    # Of workers that are killed it would complain.
    loop.loop.asyncio_loop.set_exception_handler(lambda *_: None)
    # A worker that dies twice would be given up, and with the last one the run would never end.
    patience = {"distributed.deploy.lost-worker-timeout": "1 day"}
    (silence := ExitStack()).enter_context(silence_logging_cmgr(logging.CRITICAL))
    lift: Callable[[], None] = silence.close
    try:
        with dask.config.set(patience), _processes(workers, gpu, own) as all_, Client(all_) as new:
            try:
                yield new
            except KeyboardInterrupt:
                _kill_workers([all_])
                raise
    except KeyboardInterrupt:  # what watches over workers has something to say for a while
        later = threading.Timer(_QUIET_SECONDS, silence.close)
        later.daemon, lift = True, later.start
        raise
    finally:
        loop.stop()
        lift()


def _processes(workers: int | None, gpu: bool, own: dict[str, Any]) -> Any:
    """A cluster on this machine; where starting it is interrupted, nothing is left of it."""
    before = set(SpecCluster._instances)
    try:
        if gpu:
            return _with_a_gpu(workers or thread_count(), **own)
        own |= {"processes": True, "n_workers": workers, "threads_per_worker": 1}
        return LocalCluster(**own)
    except KeyboardInterrupt:
        for half_started in set(SpecCluster._instances) - before:
            _kill_workers([half_started])
            # Dask would close it at the end of the process, and say that it cannot.
            SpecCluster._instances.discard(half_started)
        raise


def _with_a_gpu(
    workers: int, *, dashboard_address: str | None, silence_logs: int, loop: Any
) -> SpecCluster:
    """Processes for reading and verifying, and one more for all that is encoded."""

    def nanny(resources: dict[str, int]) -> dict[str, Any]:
        options = {"nthreads": 1, "resources": resources, "silence_logs": silence_logs}
        return {"cls": Nanny, "options": options}

    specs = {index: nanny({}) for index in range(workers)} | {"gpu": nanny({"GPU": 1})}
    dashboard = {"dashboard": dashboard_address is not None, "dashboard_address": dashboard_address}
    return SpecCluster(
        workers=specs, scheduler={"cls": Scheduler, "options": dashboard}, loop=loop,
        silence_logs=silence_logs,
    )  # fmt: skip


def check_workers(client: Client, *, gpu: bool) -> int:
    """Wait for workers, and tell how many threads they have.

    Raises
    ------
    RuntimeError, ValueError
        If there are none, or none with a GPU where one is needed.
    """
    try:
        client.wait_for_workers(1, timeout=_WAIT_SECONDS)
    except TimeoutError as error:
        raise RuntimeError(
            f"the dask scheduler {client.scheduler_info()['address']} has no workers; start some"
        ) from error
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    if gpu and not any(worker["resources"].get("GPU") for worker in workers):
        raise ValueError(
            "no dask worker has a GPU: start one with dask worker … --resources 'GPU=1'"
        )
    return sum(worker["nthreads"] for worker in workers)


@contextmanager
def prepared(
    client: Client, models: Sequence[Model], *, sharded: bool, gpu: bool
) -> Iterator[None]:
    """All workers ready, as long as the block runs."""
    plugin = Preparation(models, sharded=sharded, gpu=gpu)
    _while_workers_die(lambda: client.register_plugin(plugin))
    try:
        yield
    finally:
        with suppress(ValueError):  # an attempt got through before a worker died of it
            _while_workers_die(lambda: client.unregister_worker_plugin(plugin.name))


def _while_workers_die(call: Callable[[], Any]) -> None:
    """Dask tells all workers at once, and gives up if one of them has just died."""
    for attempt in range(_ATTEMPTS):
        try:
            call()
            return
        except OSError:
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(0.5)


def work_off(
    client: Client,
    tasks: Iterable[Task],
    threads: int,
    *,
    gpu: bool,
    watch: Callable[[list[Any]], None] | None = None,
) -> Iterator[Outcome | Failure]:
    """Let the workers do all tasks; yields them as they are done, in any order.

    Parameters
    ----------
    client : Client
    tasks : iterable of Task
    threads : int
        Of all workers together.
    gpu : bool
        Encode where there is a GPU; read and verify anywhere else.
    watch : callable, optional
        Gets dask's futures, of all tasks at once.
    """
    listed, run = list(tasks), uuid.uuid4().hex[:8]
    lazy = (_lazy(task, run, gpu=gpu) for task in listed)
    for position, future in in_windows(client, lazy, threads, watch):
        yield _result(future, listed[position])


def in_windows(
    client: Client,
    lazy: Iterable[Any],
    threads: int,
    watch: Callable[[list[Any]], None] | None = None,
) -> Iterator[tuple[int, Any]]:
    """Compute some delayed objects, so many at a time that the scheduler is not flooded.

    Yields
    ------
    position : int
        Of the object.
    future
        That is done, well or not.
    """
    waiting = enumerate(lazy)
    window = _PER_THREAD * threads
    under_way: dict[str, int] = {}

    def submit(count: int | None) -> list[Any]:
        batch = list(islice(waiting, count))
        if not batch:
            return []
        futures = client.compute([one for _, one in batch], retries=RETRIES)
        under_way.update(
            zip((future.key for future in futures), (i for i, _ in batch), strict=True)
        )
        return list(futures)

    first = submit(window if watch is None else None)
    if watch is not None:
        watch(first)
    futures = as_completed(first)
    try:
        for future in futures:
            yield under_way.pop(future.key), future
            # Graphs of several blocks are built faster together.
            if len(under_way) <= window // 2:
                futures.update(submit(window // 2))
    finally:
        # Left early, by Ctrl-C for one: what has not begun never will.
        client.cancel(list(futures.futures), force=True)


def _lazy(task: Task, run: str, *, gpu: bool) -> Any:
    """A block's work, which reads the source only where it is done."""
    name = f"{task.part.name}-{task.index}"
    block = task.part.block(task.index)
    if not gpu:
        return dask.delayed(archive_block, pure=False)(
            block, task.job, task.index, dask_key_name=f"archive-{run}-{name}"
        )
    values = dask.delayed(read_block, pure=False)(block, task.job)
    with dask.annotate(resources={"GPU": 1}):
        written = dask.delayed(write_block, pure=False)(values, task.job, task.index)
    return dask.delayed(_verify_after, pure=False)(written, values, task.job, task.index)


def _verify_after(written: None, values: Any, job: Job, index: int) -> Outcome:
    return verify_block(values, job, index)


def _result(future: Any, task: Task) -> Outcome | Failure:
    try:
        outcome = future.result()
    except Exception as error:  # whatever happened on a worker
        label = task.part.label(task.index)
        return Failure(task.part.name, task.index, label, one_line(error))
    assert isinstance(outcome, Outcome)
    return outcome
