"""The package's own errors and warnings; every message is one line that says what to do."""

from __future__ import annotations

import difflib
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
