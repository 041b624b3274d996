"""How an error must look: one line."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def refusal(call: Callable[[], object], kind: type[Exception] = ValueError) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message
