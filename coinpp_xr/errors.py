"""The package's own errors and warnings; every message is one line that says what to do."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Callable, Collection
from inspect import Parameter, signature
from typing import Any


class CorruptPayloadError(ValueError):
    """A payload is damaged, cut short, or was not written by this codec."""


class ModelNotFoundError(LookupError):
    """No model of that name or fingerprint is at hand."""


class UnsuitableBoundError(ValueError):
    """A bound or target that would leave little of a variable, or is meant for several units.

    Parameters
    ----------
    message : str
        With what to write in Python.
    on_command_line : str
        With what to write on the command line.
    """

    def __init__(self, message: str, on_command_line: str) -> None:
        super().__init__(message)
        self.on_command_line = on_command_line


class CompressionWarning(UserWarning):
    """Data was kept without loss, or with a larger error than its owner may expect."""


def shown(value: Any, most: int = 60) -> str:
    """A value in a message: on one line, and no longer than that, whatever it is.

    Parameters
    ----------
    value : Any
    most : int
        Characters.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 256:
        return "a whole number of more than 77 digits"
    if isinstance(value, str):  # a long one is not copied to be cut
        value = value[: most + 1]
    short = reprlib.Repr()
    short.maxlevel, short.maxlong, short.maxstring, short.maxother = 2, most, most, most
    try:
        text = short.repr(value)
    except Exception:  # whose own repr does not work
        text = f"a {type(value).__name__}"
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text[: most + 1])
    return text if len(text) <= most else text[: most - 1] + "…"


def refuse_unknown(
    arguments: Collection[str],
    function: Callable[..., Any],
    others: Collection[str] = (),
    whose: str = "",
) -> None:
    """Say which argument was meant: a mistyped bound must not be looked for in a traceback.

    Parameters
    ----------
    arguments : collection of str
        Names that ``function`` was called with and does not have.
    function : callable
    others : collection of str
        Names that it passes on.
    whose : str
        To what.

    Raises
    ------
    TypeError
        If there is an argument that nobody takes.
    """
    parameters = signature(function).parameters.values()
    own = [p.name for p in parameters if p.kind != Parameter.VAR_KEYWORD]
    for name in arguments:
        if name in others:
            continue
        near = difflib.get_close_matches(name, [*own, *others], n=1)
        hint = f"did you mean {near[0]}?" if near else f"it takes: {', '.join(own)}"
        if others and not near:
            hint += f", and what {whose} takes"
        raise TypeError(f"{function.__name__}() has no argument {name!r}; {hint}")
