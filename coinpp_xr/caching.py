"""What is worked out once and used again, kept within so many bytes in all."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import wraps
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])

# Of all that :func:`remembered` keeps: matrices of transforms, functions on grids, tables.
MOST_BYTES = 2**27


class Recent:
    """Values by key; those that were not asked for longest make room for others.

    Parameters
    ----------
    most_bytes : callable
        How many bytes there is room for, now.
    """

    def __init__(self, most_bytes: Callable[[], int]) -> None:
        self._most_bytes = most_bytes
        self._start_anew()
        # The lock may be held by a thread that a child process does not have.
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._start_anew)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def find(self, key: Hashable) -> Any:
        """What was kept under a key, None if nothing is. It must not be changed."""
        most = self._most_bytes()
        with self._lock:
            self._make_room(most)
            if key not in self._entries:
                return None
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def keep(self, key: Hashable, value: Any, nbytes: int) -> None:
        """Keep a value, if there can be room for it."""
        most = self._most_bytes()
        with self._lock:
            if key in self._entries or not 0 < nbytes <= most:
                return
            self._entries[key] = value, nbytes
            self._bytes += nbytes
            self._make_room(most)

    def _make_room(self, most: int) -> None:
        while self._bytes > most:
            _, (_, gone) = self._entries.popitem(last=False)
            self._bytes -= gone

    def forget_all(self) -> None:
        """Give back the memory."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    @property
    def nbytes(self) -> int:
        """Bytes of what is kept."""
        return self._bytes


computed = Recent(lambda: MOST_BYTES)


def remembered(
    size: Callable[..., int] = lambda result, *arguments: nbytes_of(result),
) -> Callable[[Function], Function]:
    """Keep what a function returns, as ``functools.lru_cache`` does, within bytes shared by all.

    The function's arguments are hashable, and nobody changes what it returns. Where that is None,
    it is not kept.

    Parameters
    ----------
    size : callable
        The result and the arguments → bytes that it takes; by default those of its arrays.
    """

    def decorate(function: Function) -> Function:
        @wraps(function)
        def call(*arguments: Any, **named: Any) -> Any:
            key = (function, arguments, tuple(sorted(named.items())))
            found = computed.find(key)
            if found is None:
                found = function(*arguments, **named)
                keys = sum(len(a) for a in arguments if isinstance(a, bytes))
                computed.keep(key, found, size(found, *arguments) + keys + 1)
            return found

        return cast(Function, call)

    return decorate


def nbytes_of(value: Any) -> int:
    """Bytes of an array, or of all arrays in tuples and lists."""
    if isinstance(value, tuple | list):
        return sum(map(nbytes_of, value))
    return int(getattr(value, "nbytes", 0))
