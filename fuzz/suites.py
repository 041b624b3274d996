"""What a suite of the fuzzer is, and what is common to all: limits, and how refusals look.

A suite makes inputs (``mutate``) and says what came of one (``judge``). It is an object or a module
with these two functions; what else :class:`Suite` has is optional.
"""

from __future__ import annotations

import importlib
import importlib.util
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from coinpp_xr import CorruptPayloadError, ModelNotFoundError
from coinpp_xr.errors import CompressionWarning

Rng = np.random.Generator

# What decoding may take: so many times what it declares (an array) and what it is, and a constant.
PER_ARRAY_BYTE, PER_INPUT_BYTE, CONSTANT_BYTES = 10, 10, 64 << 20
# Before something is refused; and for what it returns.
SECONDS, SECONDS_PER_ARRAY_BYTE = 2.0, 1e-5
# Of an error's message.
MOST_CHARACTERS = 1000
# Modules with more suites, by the suite's name.
_OTHERS = {"configurations": "configurations", "models": "models", "files": "files"}
_OF_PAYLOADS = ("damaged", "repaired", "structured")


class Suite(Protocol):
    """Where inputs come from, and what must hold for them."""

    def mutate(self, rng: Rng) -> bytes:
        """An input that depends on the generator alone."""
        ...

    def judge(self, data: bytes) -> str:
        """What came of an input, in a word.

        Raises
        ------
        Finding
            If it is something that must not be.
        """
        ...

    def declared(self, data: bytes) -> int:
        """Bytes of what an input stands for; optional, else 0."""
        ...

    def warm_up(self) -> None:
        """What takes time and memory once: optional.

        Raises
        ------
        Finding
        """
        ...


class Finding(Exception):
    """The package did what it must not do."""


def names() -> list[str]:
    """Of all suites that there are."""
    there = [name for name, module in _OTHERS.items() if importlib.util.find_spec(module)]
    return [*_OF_PAYLOADS, *there]


def find(name: str) -> Suite:
    """A suite by its name."""
    if name in _OF_PAYLOADS:
        from payloads import PayloadSuite

        return PayloadSuite(name)
    suite: Any = importlib.import_module(_OTHERS[name])
    return suite  # type: ignore[no-any-return]


def allowed_bytes(suite: Suite, data: bytes) -> int:
    """The most memory that an input may take."""
    return (
        PER_ARRAY_BYTE * declared_bytes(suite, data) + PER_INPUT_BYTE * len(data) + CONSTANT_BYTES
    )


def allowed_seconds(suite: Suite, data: bytes) -> float:
    """The longest that it may take."""
    return SECONDS + SECONDS_PER_ARRAY_BYTE * declared_bytes(suite, data)


def declared_bytes(suite: Suite, data: bytes) -> int:
    """Bytes of what an input stands for."""
    declared: Callable[[bytes], int] = getattr(suite, "declared", lambda _: 0)
    return declared(data)


@contextmanager
def only_promised_errors(
    *kinds: type[Exception], refused: list[Exception] | None = None
) -> Iterator[None]:
    """Turn whatever else is raised, or warned of, into a :class:`Finding`.

    Parameters
    ----------
    *kinds : exceptions
        That may be raised beside the two that payloads are refused with.
    refused : list, optional
        Gets such an error.

    Raises
    ------
    Finding
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", CompressionWarning)
            yield
    except (CorruptPayloadError, ModelNotFoundError) as error:
        check_message(str(error))
        if refused is not None:
            refused.append(error)
    except Finding:
        raise
    except MemoryError as error:
        raise Finding(f"takes all memory in {place_of(error)}") from error
    except Exception as error:
        if type(error) in kinds:  # and nothing that is derived from it
            check_message(str(error))
            if refused is not None:
                refused.append(error)
            return
        text = f"{type(error).__name__} in {place_of(error)}: {str(error)[:200]!r}"
        raise Finding(text) from error


def check_message(message: str) -> None:
    """One line, not too long, that may be shown on a terminal.

    Raises
    ------
    Finding
    """
    if len(message.splitlines()) > 1:
        raise Finding(f"a message of several lines: {message[:200]!r}")
    if len(message) > MOST_CHARACTERS:
        raise Finding(f"a message of {len(message)} characters: {message[:200]!r}")
    if not message or not all(c.isprintable() for c in message):
        raise Finding(f"a message that is empty or has control characters: {message[:200]!r}")


def place_of(error: BaseException) -> str:
    """File and line where an error was raised."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(where.filename).name}:{where.lineno}"
