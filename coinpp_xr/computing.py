"""Dask computations that Ctrl-C and SIGTERM end at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from contextvars import copy_context
from functools import partial
from typing import Any

from coinpp_xr.parallel import stopped, thread_count

# Seconds after which a signal is seen at the latest.
_LOOK_UP = 0.5


def compute(writes: Any) -> None:
    """Compute what dask was told to write; when this ends, in an error too, so have all writes."""
    import dask.base
    import dask.threaded

    if dask.base.get_scheduler(collections=[writes]) is not dask.threaded.get:
        writes.compute()
        return
    workers = dask.config.get("num_workers", None) or thread_count()
    with (
        ExitStack() as until_all_ended,
        ThreadPoolExecutor(1) as waiting,
        ThreadPoolExecutor(workers) as pool,
    ):
        try:
            run = waiting.submit(copy_context().run, partial(writes.compute, pool=pool))
            # A signal that comes just before a wait without end begins is seen after it.
            while not wait([run], _LOOK_UP).done:
                pass
            run.result()
        except KeyboardInterrupt:
            until_all_ended.enter_context(stopped())
            pool.shutdown(wait=False, cancel_futures=True)
            raise
