"""What was decoded lately: a loop over the steps of a chunk does not decode it each time.

One store for the whole process, bounded by the setting ``decoded_cache_bytes``: chunks that can
only be decoded as a whole, and fields that others of their chunk refer to.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Any

from coinpp_xr.settings import config

_lock = threading.Lock()
_entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
_bytes = 0


def find(key: Hashable) -> Any:
    """What was kept under a key, None if nothing is. It must not be changed."""
    with _lock:
        _make_room(int(config.get("decoded_cache_bytes")))
        if key not in _entries:
            return None
        _entries.move_to_end(key)
        return _entries[key][0]


def keep(key: Hashable, value: Any, nbytes: int) -> None:
    """Keep a value until it is the one not asked for longest when there is no more room."""
    global _bytes
    limit = int(config.get("decoded_cache_bytes"))
    with _lock:
        if key in _entries or not 0 < nbytes <= limit:
            return
        _entries[key] = value, nbytes
        _bytes += nbytes
        _make_room(limit)


def _make_room(limit: int) -> None:
    global _bytes
    while _bytes > limit:
        _, (_, gone) = _entries.popitem(last=False)
        _bytes -= gone


def forget_all() -> None:
    """Give back the memory."""
    global _bytes
    with _lock:
        _entries.clear()
        _bytes = 0


def _start_anew() -> None:
    global _lock
    _lock = threading.Lock()
    forget_all()


# The lock may be held by a thread that a child process does not have.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
