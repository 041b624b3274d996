"""What a store says of its losses: a container variable and attributes, after CF's section 8.4.

CF 1.12 describes quantization by a variable without data, with the attributes ``algorithm`` and
``implementation``, which data variables name. Its vocabulary knows four ways to round mantissas; an
error bound is none of them, so the structure is CF's and the names, but for these two, are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from coinpp_xr.bitstream import VERSION
from coinpp_xr.codecs.base import WITHOUT_MODEL
from coinpp_xr.version import __version__

PREFIX = "lossy_compression"
CONTAINER = f"{PREFIX}_info"

_IMPLEMENTATION = f"coinpp-xr version {__version__}"
_HISTORY = f"{PREFIX}_history"
# Controls in the unit of the variable.
_IN_UNITS = ("max_error", "target_rmse")


def container() -> xr.Variable:
    """The variable that tells what compressed others; its value means nothing."""
    attributes = {
        "algorithm": f"coinpp (bitstream format {VERSION})",
        "implementation": _IMPLEMENTATION,
        "comment": f"Variables that name this one in {PREFIX} lost something; their attributes "
        f"{PREFIX}_* say what was promised.",
    }
    return xr.Variable((), np.int8(0), attributes)


def container_name(others: Mapping[Any, Mapping[str, Any]]) -> str:
    """A name for the container: that of one which says the same, or a free one.

    Parameters
    ----------
    others : mapping
        From the names of variables that are there to their attributes.
    """
    own, name, number = container().attrs, CONTAINER, 1
    while name in others and any(others[name].get(key) != own[key] for key in own):
        number += 1
        name = f"{CONTAINER}_{number}"
    return name


def without_containers(dataset: xr.Dataset) -> xr.Dataset:
    """What is added to a store brings no containers along: it has its own."""
    scalars = [name for name, array in dataset.data_vars.items() if not array.ndim]
    return dataset.drop_vars([name for name in scalars if str(name).startswith(CONTAINER)])


def attributes(before: Mapping[Any, Any], codec: Any, named: str) -> dict[Any, Any]:
    """The attributes of a variable that a codec is about to compress.

    Parameters
    ----------
    before : mapping
        Its attributes. What they say of earlier losses moves to ``lossy_compression_history``,
        the oldest first.
    codec : COINppCodec or COINppArrayCodec
    named : str
        Name of the container.
    """
    if codec.rate.is_lossless:  # whatever was lost before
        return dict(before)
    earlier = {key: value for key, value in before.items() if str(key).startswith(PREFIX)}
    said: dict[Any, Any] = {key: v for key, v in before.items() if key not in earlier}
    controls = dict(codec.rate.controls)
    for beside in ("max_mean_error", "keep"):
        if getattr(codec, beside) is not None:
            controls[beside] = getattr(codec, beside)
    said |= {PREFIX: named, f"{PREFIX}_implementation": _IMPLEMENTATION}
    said |= {f"{PREFIX}_{control}": value for control, value in controls.items()}
    if before.get("units") and set(controls) & set(_IN_UNITS):
        said[f"{PREFIX}_unit"] = str(before["units"])
    if codec.model not in WITHOUT_MODEL:
        said[f"{PREFIX}_model"] = f"{codec.model}, fingerprint {codec.fingerprint}"
    if history := _history(earlier):
        said[_HISTORY] = history
    return said


def _history(earlier: Mapping[Any, Any]) -> str:
    """One line for every earlier generation."""
    lines = [str(earlier[_HISTORY])] if _HISTORY in earlier else []
    last = {
        str(key).removeprefix(f"{PREFIX}_"): value
        for key, value in earlier.items()
        # Without what names a container; somebody else may mean something else by it.
        if key != _HISTORY and not (key == PREFIX and str(value).startswith(CONTAINER))
    }
    if last:
        by = last.pop("implementation", "unknown software")
        listed = [f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in last.items()]
        lines.append(f"{by}: {', '.join(listed)}")
    return "\n".join(lines)


def described(
    dataset: xr.Dataset, codecs: Mapping[Any, Any], there: Iterable[tuple[str, Any]] = ()
) -> xr.Dataset:
    """A dataset whose variables say what their codecs do to them, with the container.

    Parameters
    ----------
    dataset : Dataset
    codecs : mapping
        From the name of a variable to its codec.
    there : iterable of (name, attributes)
        Of arrays that the store has already.
    """
    if all(codec.rate.is_lossless for codec in codecs.values()):
        return dataset
    others = {name: array.attrs for name, array in dataset.variables.items()} | dict(there)
    named = container_name(others)
    said: dict[Any, xr.Variable] = {}
    for name, codec in codecs.items():
        said[name] = dataset[name].variable.copy(deep=False)
        said[name].attrs = attributes(dataset[name].attrs, codec, named)
    if named not in others:
        said[named] = container()
    return dataset.assign(said)
