"""How an error must look: one line; and data that makes one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr


def refusal(call: Callable[[], object], kind: type[Exception] = ValueError) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def torn(lazy: xr.DataArray, first: int = 0) -> xr.DataArray:
    """An array in chunks of which those from one on, along its first axis, cannot be computed."""

    def fail(values: np.ndarray, block_info: Any = None) -> np.ndarray:
        if block_info and block_info[0]["chunk-location"][0] >= first:
            raise OSError("the tape is torn")
        return values

    return lazy.copy(data=lazy.data.map_blocks(fail, dtype=lazy.dtype))
