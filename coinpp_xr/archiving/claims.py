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
from itertools import count
from pathlib import Path
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
# Whoever did not give a sign of life for so long may be dead. Clocks differ by some of it, and they
# jump: who seems dead is watched for longer than a beat before its claim is taken away.
_DEAD_SECONDS = 120.0
_WATCHED_BEATS = 1.5
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
        "host": socket.gethostname(), "pid": os.getpid(), "process_started": _started(os.getpid()),
        "parts": {name: [steps.start, steps.stop] for name, steps in what.items()},
    }  # fmt: skip
    beats = count()

    def sign_of_life() -> None:
        _put(key, claim | {"time": time.time(), "beat": next(beats)})

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
            if not _is_alive(path, other):
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
        set(other["parts"]) != {STRUCTURE} and _is_alive(path, other)
        for path, other in _others(folder, folder)
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
        if (claim := _read(path)) is not None:
            yield path, claim


def _read(path: StorePath) -> dict[str, Any] | None:
    """A claim; None if it is not there (any more) or not whole."""
    content = sync(path.get(default_buffer_prototype()))
    with suppress(ValueError):
        return None if content is None else dict(json.loads(content.to_bytes()))
    return None


def _is_alive(path: StorePath, claim: Mapping[str, Any]) -> bool:
    """Whether the process that made a claim still runs."""
    if claim["host"] == socket.gethostname():
        with suppress(psutil.NoSuchProcess):
            return bool(claim["process_started"] == _started(claim["pid"]))
        return False
    if abs(time.time() - claim["time"]) < _DEAD_SECONDS:
        return True
    deadline = time.monotonic() + _WATCHED_BEATS * _BEAT_SECONDS
    while time.monotonic() < deadline:
        if (now := _read(path)) is None:
            return False
        if now["beat"] != claim["beat"]:
            return True
        time.sleep(_BEAT_SECONDS / 20)
    return False


def _started(pid: int) -> str | None:
    """When a process of this machine started, by a clock that nobody sets; None if it is dead.

    Raises
    ------
    psutil.NoSuchProcess
    """
    process = psutil.Process(pid)
    if process.status() == psutil.STATUS_ZOMBIE:  # dead, and nobody has looked
        return None
    # On Linux psutil adds these ticks since the machine was booted to what the wall clock says of
    # that.
    ticks = Path(f"/proc/{pid}/stat")
    if ticks.exists():
        boot = Path("/proc/sys/kernel/random/boot_id")
        since = ticks.read_text().rpartition(")")[2].split()[19]
        return f"{since} {boot.read_text().strip() if boot.exists() else ''}"
    return f"{process.create_time():.0f}"


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
