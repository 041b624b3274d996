"""Who is writing what: two processes may share an archive, but no block of it."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psutil
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import StorePath

from coinpp_xr.archiving.manifest import CLAIMS, GROUP

# The part of an archive that is its metadata: one at a time changes it.
STRUCTURE = ".structure"

_BEAT_SECONDS = 20.0
# Whoever did not give a sign of life for so long is dead. Clocks may differ by some of it.
_DEAD_SECONDS = 120.0
_PATIENCE_SECONDS = 60.0


@contextmanager
def claimed(group: zarr.Group, what: Mapping[str, range]) -> Iterator[None]:
    """Keep others off some steps along time of some variables while the block runs.

    Parameters
    ----------
    group : zarr.Group
        Root of the archive.
    what : mapping
        From the name of a variable to steps along time.

    Raises
    ------
    RuntimeError
        If somebody else is writing some of it.
    """
    folder = group.store_path / GROUP / CLAIMS
    key = folder / f"{uuid.uuid4().hex}.json"
    claim: dict[str, Any] = {
        "host": socket.gethostname(), "pid": os.getpid(),
        "process_started": psutil.Process().create_time(),
        "parts": {name: [steps.start, steps.stop] for name, steps in what.items()},
    }  # fmt: skip

    def sign_of_life() -> None:
        _put(key, claim | {"time": time.time()})

    sign_of_life()
    stopped = threading.Event()

    def keep_alive() -> None:
        while not stopped.wait(_BEAT_SECONDS):
            with suppress(OSError):  # a full disk; the next time may do
                sign_of_life()

    beat = threading.Thread(target=keep_alive, name="coinpp_xr-claim", daemon=True)
    try:
        # All put theirs first and look then: two that come at once both see each other.
        for path, other in _others(folder, key):
            if not _is_alive(other):
                with suppress(FileNotFoundError):
                    sync(path.delete())
            elif name := _common_part(claim, other):
                raise _refusal(name, other)
        beat.start()
        yield
    finally:
        stopped.set()
        if beat.is_alive():
            beat.join()
        with suppress(FileNotFoundError):
            sync(key.delete())


@contextmanager
def changing_structure(group: zarr.Group) -> Iterator[None]:
    """Change metadata alone: wait a little for others that do the same."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            with claimed(group, {STRUCTURE: range(1)}):
                yield
                return
        except _Busy:
            if time.monotonic() > deadline:
                raise
            # Different for everyone, so that two do not meet again and again.
            time.sleep(0.05 + 0.2 * uuid.uuid4().int / 2**128)


def others_at_work(group: zarr.Group) -> bool:
    """Whether any other process that is alive has a claim on something but the structure."""
    folder = group.store_path / GROUP / CLAIMS
    return any(
        _is_alive(other) and set(other["parts"]) != {STRUCTURE}
        for _, other in _others(folder, folder)
    )


class _Busy(RuntimeError):
    """Somebody else changes the metadata at the moment."""


def _others(folder: StorePath, own: StorePath) -> Iterator[tuple[StorePath, dict[str, Any]]]:
    async def listed() -> list[str]:
        return [name async for name in folder.store.list_dir(folder.path)]

    for name in sorted(sync(listed())):
        path = folder / name.rsplit("/", 1)[-1]
        if not path.path.endswith(".json") or path.path.endswith("zarr.json") or path == own:
            continue
        content = sync(path.get(default_buffer_prototype()))
        if content is not None:
            with suppress(ValueError):
                yield path, json.loads(content.to_bytes())


def _is_alive(claim: Mapping[str, Any]) -> bool:
    if claim["host"] == socket.gethostname():
        try:
            process = psutil.Process(claim["pid"])
            started = process.create_time()
            if process.status() == psutil.STATUS_ZOMBIE:  # dead, and nobody has looked
                return False
        except psutil.NoSuchProcess:
            return False
        return bool(abs(started - claim["process_started"]) < 2)
    return bool(time.time() - claim["time"] < _DEAD_SECONDS)


def _common_part(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """A variable that both write at the same times, or empty."""
    for name, (start, stop) in one["parts"].items():
        first, last = other["parts"].get(name, (0, 0))
        if max(start, first) < min(stop, last):
            return str(name)
    return ""


def _refusal(name: str, other: Mapping[str, Any]) -> RuntimeError:
    who = f"process {other['pid']} on {other['host']}"
    if name == STRUCTURE:
        return _Busy(f"{who} is changing the metadata of this archive; try again later")
    first, last = other["parts"][name]
    return RuntimeError(
        f"{who} is writing {name} (steps {first} to {last - 1} along time) into this archive; "
        "wait for it, or choose other variables or times"
    )


def _put(path: StorePath, content: Mapping[str, Any]) -> None:
    data = json.dumps(content).encode()
    sync(path.set(default_buffer_prototype().buffer.from_bytes(data)))
