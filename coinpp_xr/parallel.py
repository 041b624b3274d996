"""One pool of threads for all numeric work of this process.

Zarr and dask call the codec from many threads at once. Every call hands its blocks of globes to
the same pool, which is as large as the machine, so that callers never multiply the load; where
blocks take less than it costs to wake a thread, callers work, too. The matrix products are small:
one BLAS thread per block, several blocks at a time.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

from threadpoolctl import ThreadpoolController

from coinpp_xr.settings import config

Item = TypeVar("Item")
Result = TypeVar("Result")

# glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# What processes keep that are all ours.
KEPT_BYTES = 2**28

_lock = threading.Lock()
_active_callers = 0
_limit: _BlasLimit | None = None
_in_pool = threading.local()
_stopped = threading.Event()


class WorkStoppedError(RuntimeError):
    """What numeric work ends with while it is :func:`stopped`."""


@contextmanager
def stopped() -> Iterator[None]:
    """End all numeric work of this process as long as the block runs, at its next few items."""
    _stopped.set()
    try:
        yield
    finally:
        _stopped.clear()


def _unless_stopped(function: Callable[[Item], Result]) -> Callable[[Item], Result]:
    def run(item: Item) -> Result:
        if _stopped.is_set():
            raise WorkStoppedError("stopped")
        return function(item)

    return run


def thread_count() -> int:
    """Threads for numeric work: ``config.threads``, else OMP_NUM_THREADS, else all usable cores."""
    threads = config.get("threads") or os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if threads:
        return max(1, int(threads))
    # Not every system tells which cores this process may use.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """``[function(item) for item in items]`` on the shared pool, one BLAS thread each."""
    with single_threaded_blas():
        threads = _threads_for(len(items))
        if threads == 1:
            return list(map(_unless_stopped(function), items))
        # Threads see what was set around this call, such as numpy's errstate.
        contexts, run = [copy_context() for _ in items], _unless_stopped(function)
        return list(_pool(threads).map(lambda c, item: c.run(run, item), contexts, items))


def map_compiled(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The same for functions that do not use BLAS and take a fraction of a millisecond.

    To wake a thread costs a tenth of one, so the caller works, too, instead of being woken in the
    end; where all threads of the pool are busy it does everything.
    """
    threads = _threads_for(len(items))
    if threads == 1:
        return list(map(_unless_stopped(function), items))
    waiting = iter(range(len(items)))
    results: dict[int, Result] = {}

    def work() -> None:
        for number in waiting:
            results[number] = function(items[number])

    helpers = min(threads, len(items)) - 1
    futures = [_pool(threads).submit(copy_context().run, work) for _ in range(helpers)]
    try:
        _in_pool.yes = True  # what is called below does not look for more threads
        work()
    finally:
        _in_pool.yes = False
        started = [future for future in futures if not future.cancel()]
        wait(started)
    for future in started:
        future.result()  # raises what was raised there
    return [results[number] for number in range(len(items))]


def _threads_for(count: int) -> int:
    # With one thread every caller works in its own: dask has as many callers as it wants busy.
    return 1 if count == 1 or getattr(_in_pool, "yes", False) else thread_count()


def keep_freed_memory() -> None:
    """Let glibc keep what arrays leave behind, up to 256 MiB: for processes that are all ours.

    Otherwise every large array is mapped, cleared and unmapped again by the kernel.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(parameter, KEPT_BYTES)


def give_back_memory() -> None:
    """Return what arrays left behind to the system, as far as glibc can: to see what is in use."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    def mark() -> None:
        _in_pool.yes = True

    return ThreadPoolExecutor(threads, thread_name_prefix="coinpp_xr", initializer=mark)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")  # type: ignore[no-any-return]


def is_busy() -> bool:
    """Whether more wants to run on this machine than it has cores, as far as it tells."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > (os.cpu_count() or 1)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """One BLAS thread per caller: several wait for each other, for long on a busy machine."""
    # The BLAS setting belongs to the whole process: the first caller in sets it, the last one out
    # restores it. A limit per caller would restore the wrong number when callers overlap.
    global _active_callers, _limit
    with _lock:
        if _active_callers == 0:
            _limit = _BlasLimit()
        _active_callers += 1
    try:
        yield
    finally:
        with _lock:
            _active_callers -= 1
            if _active_callers == 0 and _limit is not None:
                _limit.lift()
                _limit = None


class _BlasLimit:
    """One BLAS thread until lifted, set and restored by a thread of its own.

    threadpoolctl lets a single thread control OpenBLAS and ignores all others in silence; callers
    come and go in many threads.
    """

    def __init__(self) -> None:
        self._set, self._lifted = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, name="coinpp_xr-blas", daemon=True)
        self._thread.start()
        self._set.wait()

    def _hold(self) -> None:
        try:
            with _blas().limit(limits=1):
                self._set.set()
                self._lifted.wait()
        finally:
            self._set.set()

    def lift(self) -> None:
        self._lifted.set()
        self._thread.join()


def _forget_pool() -> None:
    global _active_callers, _limit, _lock
    _pool.cache_clear()
    _active_callers, _limit, _lock = 0, None, threading.Lock()


# Threads do not survive a fork; a child that kept the pool would wait for them for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)
