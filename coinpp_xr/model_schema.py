"""The arrays and numbers that make a model: names, types, shapes and ranges.

Model files, embedded models and models made in Python are checked against the same tables, files
and embedded ones before any of their arrays is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import isqrt, prod
from sys import float_info
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.expert_units import N_INPUTS, WIDEST
from coinpp_xr.entropy import CELLS

FORMAT = "coinpp-xr model 0"
# Five times what the largest shipped model takes. Reading takes up to four times the arrays.
MOST_ARRAY_BYTES = 15 << 20
# Definition and card of a model, and the index of its arrays.
MOST_TEXT = 1 << 18
_DEEPEST_JSON = 16
_LONGEST_UNIT = 80
_LARGEST = 1e6
_LARGEST_UNIT = 1e30
_MOST_CELLS, _MOST_DEGREES = 8192, 1000.0
_MOST_DEBLOCKING_WEIGHTS = 1 << 16

# Smallest and largest of every extent, about eight times what shipped models and presets have.
_EXTENTS = {
    "depth": (1, 64),
    "width": (1, 1024),
    "dim_in": (1, 3),
    "dim_out": (1, 32),
    "siren_latents": (0, 4096),
    "coded_latents": (0, 4096),
    "tail_rows": (1, 8192),
    "functions": (1, 1 << 15),
    "latents": (0, 8192),
    "bands": (1, 160),
    "times": (2, 64),
    "latitudes": (1, 512),
    "longitudes": (1, 1024),
    "prior_bytes": (1, 1 << 20),
    "climatology_bytes": (1, 1 << 22),
    "rows": (1, 1 << 13),
    "columns": (1, 1 << 13),
    "hidden": (1, WIDEST),
    "kernel": (1, 27),
    "channels": (1, 128),
}
_MOST_FUNCTIONS_ON_SPHERE = 90**2  # degree 89


@dataclass(frozen=True)
class Field:
    """A kind of array: its type, the names of its extents and the range of its values.

    Parameters
    ----------
    dtype : str
        As numpy spells it.
    extents : tuple of str or int
        Names in a table of sizes; a name that ends with ``.`` and a number is of the kind before
        it. Two names joined by ``*`` stand for their product.
    low, high : float
        Of its values; unused for whole numbers.
    """

    dtype: str
    extents: tuple[str | int, ...]
    low: float = -_LARGEST
    high: float = _LARGEST


_REQUIRED = {
    "shift_map": Field("<f4", ("depth*width", "siren_latents")),
    "latent_mean": Field("<f8", ("coded_latents",)),
    "latent_std": Field("<f8", ("coded_latents",), low=1 / _LARGEST_UNIT),
    "histogram": Field("<u4", ("coded_latents", CELLS)),
}
_OPTIONAL = [
    {
        "tail.symbols": Field("<i2", ("tail_rows", "functions")),
        "tail.steps": Field("<f4", ("tail_rows",), low=0.0),
    },
    {"spectrum": Field("|i1", ("bands", "latents"))},
    {
        "reference.numbers": Field("<i2", ("times", "latitudes", "longitudes")),
        "reference.latitude": Field("<f8", ("latitudes",), -_MOST_DEGREES, _MOST_DEGREES),
        "reference.longitude": Field("<f8", ("longitudes",), -_MOST_DEGREES, _MOST_DEGREES),
    },
    {"prior": Field("|u1", ("prior_bytes",))},
    {
        "climatology.packed": Field("|u1", ("climatology_bytes",)),
        "climatology.latitude": Field("<f8", ("rows",), -_MOST_DEGREES, _MOST_DEGREES),
        "climatology.longitude": Field("<f8", ("columns",), -_MOST_DEGREES, _MOST_DEGREES),
    },
    {
        "climatology.first": Field("<i2", ("hidden.1", N_INPUTS)),
        "climatology.first.bias": Field("<i4", ("hidden.1",)),
        "climatology.second": Field("<i2", ("hidden.2", "hidden.1")),
        "climatology.second.bias": Field("<i4", ("hidden.2",)),
        "climatology.last": Field("<i2", (2, "hidden.2")),
        "climatology.last.bias": Field("<i4", (2,)),
    },
]
_NUMBERS = {
    "offset": (-_LARGEST_UNIT, _LARGEST_UNIT),
    "scale": (1 / _LARGEST_UNIT, _LARGEST_UNIT),
    "omega0": (1 / _LARGEST, _LARGEST),
}

# By name: numpy's type and the shape, before there is an array.
Declared = Mapping[str, tuple[str, tuple[int, ...]]]


def parse_json(text: bytes | str, most: int = MOST_TEXT) -> dict[str, Any]:
    """An object of JSON, not too long and not too deep.

    Raises
    ------
    ValueError
    """
    if len(text) > most:
        raise ValueError(f"its description takes {len(text):,} bytes, at most {most:,} are read")
    try:
        found = json.loads(text)
    except (RecursionError, UnicodeDecodeError) as error:
        raise ValueError("its description is no JSON that can be read") from error
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > _DEEPEST_JSON:
            raise ValueError(f"its description is nested deeper than {_DEEPEST_JSON} levels")
        inner = [v.values() if isinstance(v, dict) else v for v in level if type(v) in (dict, list)]
        level = [value for values in inner for value in values]
    if not isinstance(found, dict):
        raise ValueError("its description is no JSON object")
    return found


def is_number(value: Any, low: float = -float_info.max, high: float = float_info.max) -> bool:
    """Whether a value is a number in a range, and no boolean; NaN is in none."""
    # Python compares whole numbers that are too large for a float with floats exactly.
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def reason_of(error: Exception) -> str:
    """Why something is no model, in one line for people."""
    if isinstance(error, LookupError | TypeError | AttributeError):
        return "what it says of itself is incomplete or of wrong types"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def check_definition(definition: Mapping[str, Any]) -> None:
    """Check the numbers of a model.

    Raises
    ------
    ValueError
    """
    if definition.get("format") != FORMAT:
        raise ValueError(f"it is of format {str(definition.get('format'))[:40]!r}, not {FORMAT!r}")
    if definition.get("domain") not in ("sphere", "patch"):
        raise ValueError(f"its domain is {str(definition.get('domain'))[:40]!r}")
    for name, (low, high) in _NUMBERS.items():
        if not is_number(definition.get(name), low, high):
            raise ValueError(f"its {name} must be a number from {low:g} to {high:g}")
    _check_extent("depth", definition.get("depth"))
    if ("box" in definition) != (definition["domain"] == "patch"):
        raise ValueError("only models of patches have a box, and all of them do")
    if "box" in definition:
        _check_box(definition["box"])


def check_units(units: Any) -> str:
    """The unit of a model's card.

    Raises
    ------
    ValueError
    """
    if not isinstance(units, str) or len(units) > _LONGEST_UNIT or not (units + " ").isprintable():
        raise ValueError(f"its unit must be text of at most {_LONGEST_UNIT} characters")
    return units


def check_network(width: int, depth: int, latents: int) -> None:
    """Refuse a network of which no model could be made, before it is trained.

    Raises
    ------
    ValueError
    """
    for name, size in (("width", width), ("depth", depth), ("latents", latents)):
        low, high = _EXTENTS[name]
        if not low <= size <= high:
            raise ValueError(f"models have from {low} to {high:,} for {name}, not {size:,}")
    nbytes = 4 * width * width * (depth - 1)
    if nbytes > MOST_ARRAY_BYTES:
        raise ValueError(
            f"a network of {depth} layers of width {width} takes {nbytes:,} bytes, a model at most "
            f"{MOST_ARRAY_BYTES:,}; make it smaller"
        )


def check_arrays(
    definition: Mapping[str, Any], declared: Declared, most: int = MOST_ARRAY_BYTES
) -> None:
    """Check types and shapes of a model's arrays against each other and against the limits.

    Parameters
    ----------
    definition : mapping
        That passed :func:`check_definition`.
    declared : mapping of str to (str, tuple of int)
        Type and shape of every array.
    most : int
        Bytes that all arrays may take.

    Raises
    ------
    ValueError
    """
    sizes: dict[str, int] = {"depth": definition["depth"]}
    expected = dict(_fields(definition["depth"], declared))
    for name in declared:
        if name not in expected:
            raise ValueError(f"it has an array {name[:40]!r}, which no model has")
    for name, field in expected.items():
        if name not in declared:
            raise ValueError(f"it has no array {name!r}")
        dtype, shape = declared[name]
        if dtype != field.dtype:
            raise ValueError(f"its array {name!r} is of type {dtype[:20]}, not {field.dtype}")
        if len(shape) != len(field.extents):
            raise ValueError(f"its array {name!r} has {len(shape)} axes, not {len(field.extents)}")
        for extent, length in zip(field.extents, shape, strict=True):
            if _size_of(extent, length, sizes) != length:
                raise ValueError(f"its array {name!r} has shape {shape}, which does not fit others")
    total = sum(prod(shape) * np.dtype(dtype).itemsize for dtype, shape in declared.values())
    if total > most:
        raise ValueError(f"its arrays take {total:,} bytes, at most {most:,} are read")
    _check_relations(definition, sizes)
    kernels = [s for name, (_, s) in declared.items() if name.startswith("deblocking.kernel.")]
    if sum(map(prod, kernels)) > _MOST_DEBLOCKING_WEIGHTS:
        raise ValueError(
            f"its layers against blocking have over {_MOST_DEBLOCKING_WEIGHTS} weights"
        )


def check_values(tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Check that the values of arrays are finite and not out of all proportion.

    Raises
    ------
    ValueError
    """
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f" or tensor.size == 0:
            continue
        field = (_REQUIRED | {k: v for group in _OPTIONAL for k, v in group.items()}).get(name)
        low, high = (field.low, field.high) if field else (-_LARGEST, _LARGEST)
        # NaN is the smallest and the largest value of its array, and fails both comparisons.
        with np.errstate(invalid="ignore"):
            least, most = tensor.min(), tensor.max()
        if not (low <= least and most <= high):
            raise ValueError(
                f"the values of its array {name!r} must be finite, from {low:g} to {high:g}"
            )


def check_model(definition: Mapping[str, Any], tensors: Mapping[str, npt.NDArray[Any]]) -> None:
    """Check the definition and the arrays of a model.

    Raises
    ------
    ValueError
    """
    check_definition(definition)
    check_arrays(definition, {n: (t.dtype.str, t.shape) for n, t in tensors.items()})
    check_values(tensors)


def _fields(depth: int, declared: Declared) -> Iterator[tuple[str, Field]]:
    """The arrays of a model, in an order in which extents become known before they are used."""
    extents = ["dim_in", *["width"] * depth, "dim_out"]
    for layer, (inputs, outputs) in enumerate(pairwise(extents)):
        yield f"weight.{layer}", Field("<f4", (outputs, inputs))
        yield f"bias.{layer}", Field("<f4", (outputs,))
    yield from _REQUIRED.items()
    for group in _OPTIONAL:
        if any(name in declared for name in group):
            yield from group.items()
    layers = sum(name.startswith("deblocking.kernel.") for name in declared)
    for i in range(layers):
        # The last layer has one output.
        after = 1 if i + 1 == layers else f"channels.{i + 1}"
        kernel = (f"kernel.{axis}{i}" for axis in "zyx")
        yield f"deblocking.kernel.{i}", Field("<f4", (after, f"channels.{i}", *kernel))
        yield f"deblocking.bias.{i}", Field("<f4", (after,))


def _size_of(extent: str | int, length: int, sizes: dict[str, int]) -> int:
    """What an extent must be; a length that is seen for the first time is noted."""
    if isinstance(extent, int):
        return extent
    if "*" in extent:
        return prod(sizes[name] for name in extent.split("*"))
    if extent == "latents":
        sizes.setdefault(extent, sizes["siren_latents"] + sizes.get("tail_rows", 1) - 1)
    if extent not in sizes:
        _check_extent(extent, length)
        sizes[extent] = length
    return sizes[extent]


def _check_relations(definition: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
    latents = sizes["siren_latents"] + sizes.get("tail_rows", 1) - 1
    _check_extent("latents", latents)
    if sizes["coded_latents"] > latents:
        raise ValueError(f"it codes {sizes['coded_latents']} of {latents} latents")
    functions = sizes.get("functions")
    if definition["domain"] == "sphere":
        if (sizes["dim_in"], sizes["dim_out"]) != (3, 1):
            raise ValueError("a network of globes has three inputs and one output")
        wrong = functions and (
            isqrt(functions) ** 2 != functions or functions > _MOST_FUNCTIONS_ON_SPHERE
        )
    else:
        shape = definition["box"][0]
        if sizes["dim_in"] != len(shape):
            raise ValueError(f"its network has {sizes['dim_in']} inputs, its box {len(shape)} axes")
        wrong = functions and functions != sizes["dim_out"] * prod(shape)
    if wrong:
        raise ValueError(f"its tail has {functions} functions, which does not fit its domain")


def _check_box(box: Any) -> None:
    if not isinstance(box, list) or len(box) != 3 or not isinstance(box[0], list):
        raise ValueError("its box is no shape and two ends")
    shape, low, high = box
    whole = all(type(n) is int and n > 0 for n in shape)
    if not whole or not 1 <= len(shape) <= 3 or prod(shape) > _MOST_CELLS:
        raise ValueError(f"its box must have one to three axes and at most {_MOST_CELLS} cells")
    ends = all(is_number(end, -_LARGEST, _LARGEST) for end in (low, high))
    if not ends or high - low < 1 / _LARGEST:
        raise ValueError("its box must lie between two numbers, the lower one first")


def _check_extent(name: str, length: Any) -> None:
    kind = name.partition(".")[0]
    low, high = _EXTENTS[kind]
    if type(length) is not int or not low <= length <= high:
        raise ValueError(f"its {kind} must be a whole number from {low} to {high}")
