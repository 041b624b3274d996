"""Configurations of codecs, which come from a store's metadata and may hold anything.

Every entry is held to its type and size before a codec is made of it, so that what is wrong is told
in one line and takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from coinpp_xr.axes import MOST_DEGREES, axis_values
from coinpp_xr.errors import shown
from coinpp_xr.model_schema import MOST_TEXT, is_number

# Numbers of a list; characters of a name; those that a compact model may have as text.
_MOST_NUMBERS, _MOST_NAME = 1 << 10, 200
_MOST_AXES = 32

Check = Callable[[Any], bool]


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number that fits in 64 bits, and no boolean."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _MOST_NAME


def _are(check: Check, most: int) -> Check:
    return lambda value: (
        isinstance(value, list | tuple) and len(value) <= most and all(map(check, value))
    )


def _is_axis(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return _are(is_number, MOST_DEGREES)(value)
    axis_values(value)  # which says itself what is wrong
    return True


def _is_chunk(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return _are(is_whole, _MOST_AXES)(value[0]) and _is_name(value[1])


_NUMBER = (is_number, "a finite number")
_NUMBERS = (_are(is_number, _MOST_NUMBERS), f"a list of at most {_MOST_NUMBERS} finite numbers")
_AXIS = (_is_axis, f"a list of at most {MOST_DEGREES} finite numbers, or what describes them")
_WHOLE = (is_whole, "a whole number")
_NAME = (_is_name, f"text of at most {_MOST_NAME} characters")
_ENTRIES: dict[str, tuple[Check, str]] = {
    "bits": _WHOLE,
    "target_rmse": _NUMBER, "target_psnr": _NUMBER, "target_bpp": _NUMBER,
    "max_error": _NUMBER, "max_error_relative": _NUMBER, "max_mean_error": _NUMBER,
    "data_range": _NUMBER,
    "keep": _NUMBERS, "valid_range": _NUMBERS, "to_model_unit": _NUMBERS,
    "latitude": _AXIS, "longitude": _AXIS,
    "grid": (
        lambda value: _is_name(value) or isinstance(value, Mapping),
        "the name of a grid, or a mapping that describes it",
    ),
    "weights": (lambda value: isinstance(value, Mapping), "a mapping that describes them"),
    "time_axis": _WHOLE, "band_cells": _WHOLE,
    "patch_size": (
        lambda value: is_whole(value) or _are(is_whole, 3)(value),
        "a whole number, or a list of at most three",
    ),
    "channels": _NAME, "effort": _NAME, "model": _NAME, "fingerprint": _NAME,
    "embed_model": (
        lambda value: isinstance(value, str) and len(value) <= 2 * MOST_TEXT,
        "a model as text",
    ),
    "chunk": (_is_chunk, "a shape and the name of a dtype"),
}  # fmt: skip


def checked(configuration: Any, codec_id: str, arguments: list[str]) -> dict[str, Any]:
    """The arguments that a configuration gives to the constructor of a codec.

    Parameters
    ----------
    configuration : Any
        A mapping, if it is one.
    codec_id : str
    arguments : list of str
        That the constructor has.

    Raises
    ------
    ValueError
        If there is another entry, or one that is not what it has to be.
    """
    if not isinstance(configuration, Mapping):
        raise ValueError(f"the configuration of codec {codec_id!r} is {shown(configuration)}")
    given = {name: value for name, value in configuration.items() if name != "id"}
    for name, value in given.items():
        if name not in arguments or name not in _ENTRIES:
            raise ValueError(
                f"codec {codec_id!r} has no setting {shown(name)}: its configuration is damaged, "
                "or of a later version of coinpp-xr"
            )
        check, what = _ENTRIES[name]
        if not check(value):
            raise ValueError(
                f"the configuration of codec {codec_id!r} is damaged: {name} is {shown(value)} and "
                f"should be {what}"
            )
    return given
