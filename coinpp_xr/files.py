"""Writing files and folders whole or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: a full disk or Ctrl-C leaves the old one as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    with cleared_up():
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:  # a full disk does not say for which file
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            with suppress(OSError):
                temporary.unlink()


def put_in_place(complete: Path, path: Path) -> None:
    """Move a file or folder to where it belongs, in place of what is there.

    Parameters
    ----------
    complete, path : Path
        On the same disk.

    Raises
    ------
    OSError
        If that fails; what was there is there again, or the message says where it is.
    """
    if not path.is_dir() and not (path.exists() and complete.is_dir()):
        complete.replace(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.replaced")
    path.rename(old)
    try:
        complete.rename(path)
    except BaseException:
        try:
            old.rename(path)
        except OSError as error:
            raise OSError(f"{path} could not be replaced; what it was is in {old} now") from error
        raise
    if old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    else:
        old.unlink(missing_ok=True)


@contextmanager
def cleared_up() -> Iterator[None]:
    """Let SIGTERM end this block as Ctrl-C does, then the process: nothing unfinished is left.

    Batch systems end jobs by SIGTERM. In other threads than the main one, and where the program
    handles SIGTERM itself, nothing is changed.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    terminated = False

    def interrupt(number: int, frame: Any) -> None:
        nonlocal terminated
        terminated = True
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # whoever is impatient sends SIGKILL
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if terminated:
            os.kill(os.getpid(), signal.SIGTERM)
