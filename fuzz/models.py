"""Models that are not what they say: files and embedded ones, with fingerprints that are right.

``mutate`` makes one, of either form; ``judge`` reads it. Whatever is read must be refused in one
line, with no more memory and time than a model may take, or be a model that works.
"""

from __future__ import annotations

import json
import lzma
import math
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from coinpp_xr import coefficients
from coinpp_xr.compact import _FILTERS, pack_model, unpack_model
from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.exact import pack_bytes
from coinpp_xr.model import Model
from coinpp_xr.model_schema import MOST_ARRAY_BYTES

TESTS = Path(__file__).parent.parent / "tests"
sys.path.append(str(TESTS))

from bound_cases import golden_models  # noqa: E402

Rng = np.random.Generator
Parts = tuple[dict[str, Any], dict[str, Any]]

# What refusing a model may take, and what an accepted one may take beside ten times its arrays.
MOST_BYTES, MOST_SECONDS = 64 << 20, 2.0
FILE, PACKED = b"FILE", b"PACK"
_NUMBERS = (
    0, 1, -1, 2, 3, 63, 64, 65, 255, 4096, 2**16, 2**31, 2**32, 2**63, 10**400, 0.0, 0.5, 1e-320,
    1e6, 1e300, math.inf, -math.inf, math.nan, True, None, "2", [], {}, [3], "x" * 5000,
)  # fmt: skip
_VALUES = (math.nan, math.inf, -math.inf, 1e38, -1e38, 1e7, 0.0, 1e-45, -1.0)
_DTYPES = ("<f4", ">f4", "<f8", "<f2", "<i2", "|i1", "|u1", "<u4", "<i8", "|b1", "<c8", "V0", "|S3",
           "O", "<M8[s]", "float32", "")  # fmt: skip
_SIZES = (0, 1, 2, 3, 7, 16, 255, 511, 512, 513, 4096, 8192, 65536)
_LENGTHS = (*_SIZES, -1, 2**31, 2**32, 2**40, 2**63, 2**64, 10**30, 1.0, True, None, "3")


def mutate(rng: Rng) -> bytes:
    """A hostile model: four bytes that say in which form, and the model."""
    definition, tensors = parts_of(_models()[int(rng.integers(2))])
    for _ in range(int(rng.geometric(0.5))):
        _one_of(rng, _CHANGES)(rng, definition, tensors)
    as_file = rng.random() < 0.5
    try:
        data = (_some_file if as_file else _some_packed)(rng, definition, tensors)
    except (ValueError, TypeError, OverflowError, AttributeError, KeyError):
        # What cannot be written that way is a lesser danger.
        data = _seed(int(rng.integers(2)), as_file)
    if rng.random() < 0.2:
        data = _bytes_changed(rng, data)
    return (FILE if as_file else PACKED) + data


def judge(data: bytes) -> str:
    """Read a model; what came of it.

    Raises
    ------
    AssertionError
        If reading did what it must not do.
    """
    import tracemalloc

    tracing = tracemalloc.is_tracing()
    if not tracing:
        tracemalloc.start()
    tracemalloc.reset_peak()
    before, started = tracemalloc.get_traced_memory()[0], perf_counter()
    try:
        model = _read(data)
    except (ValueError, ModelNotFoundError) as error:
        outcome, allowed, message = "refused", MOST_BYTES, str(error)
    except (MemoryError, Exception) as error:
        raise AssertionError(f"{type(error).__name__}: {str(error)[:200]}") from error
    else:
        outcome, message = "model", ""
        allowed = MOST_BYTES + 10 * sum(tensor.nbytes for tensor in model.tensors.values())
    taken = tracemalloc.get_traced_memory()[1] - before
    seconds = perf_counter() - started
    if not tracing:
        tracemalloc.stop()
    assert "\n" not in message, f"a message of several lines: {message!r}"
    assert len(message) < 1000, f"a long message: {message[:80]}..."
    assert taken <= allowed, f"{outcome}: takes {taken:,} bytes, {allowed:,} are allowed"
    # Measuring memory takes longer than all that is measured.
    assert seconds <= 5 * MOST_SECONDS or outcome == "model", f"refused after {seconds:.1f} s"
    if outcome == "model":
        _use(model)
    return outcome


def _read(data: bytes) -> Model:
    if data[:4] == PACKED:
        return unpack_model(data[4:])
    handle, path = tempfile.mkstemp(suffix=".safetensors")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data[4:])
        return Model.from_file(path)
    finally:
        Path(path).unlink()


def _use(model: Model) -> None:
    """Evaluate an accepted model at a few points: finite numbers, without a warning."""
    points = np.full((3, model.network.dim_in), 0.5, np.float32)
    latents = np.stack([model.latent_mean, model.latent_mean + 3 * model.latent_std])
    with np.errstate(all="raise", under="ignore"):
        values = model.coded_network(points, latents.astype(np.float32))
    assert np.isfinite(values).all(), "values that are not finite"
    assert (model.quantizer(8).step > 0).all(), "a quantizer without steps"


# ---- the forms --------------------------------------------------------------------------------


@cache
def _models() -> list[Model]:
    return list(golden_models().values())


@cache
def _seed(number: int, as_file: bool) -> bytes:
    model = _models()[number]
    return model.to_bytes() if as_file else pack_model(model)


def parts_of(model: Model) -> Parts:
    """Definition (with name, unit and card) and arrays of a model, to be changed."""
    definition = json.loads(json.dumps(model.definition)) | {
        "name": model.name, "units": model.units, "card": dict(model.card),
    }  # fmt: skip
    return definition, dict(model.tensors)


def fingerprint_of(definition: dict[str, Any], tensors: dict[str, Any]) -> str:
    """What the package works out for these parts, so that this check is passed."""
    known = {k: definition[k] for k in _models()[1].definition if k in definition}
    with patch.multiple(Model, definition=known, tensors=tensors):
        return str(Model.fingerprint.func(_models()[0]))  # type: ignore[attr-defined]


def file_of(
    definition: dict[str, Any], tensors: dict[str, Any], functions: Any = None, **description: Any
) -> bytes:
    """A model file of these parts, whether or not they make a model.

    Parameters
    ----------
    definition, tensors : dict
    functions : optional
        What the file says of its tail instead of the truth.
    **description
        Other entries of the description, such as ``fingerprint``.
    """
    described = {**definition, "fingerprint": fingerprint_of(definition, tensors), **description}
    stored = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    if (symbols := stored.get("tail.symbols")) is not None:
        described["tail_functions"] = functions or (symbols.shape[-1] if symbols.ndim else 1)
        stored["tail.symbols"] = np.frombuffer(pack_bytes(symbols), np.uint8)
    return bytes(safetensors_bytes(stored, {"coinpp_xr": json.dumps(described, sort_keys=True)}))


def with_index(data: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """A model file with another index of its arrays: what ``change`` makes of it, in place."""
    length = int.from_bytes(data[:8], "little")
    index = json.loads(data[8 : 8 + length])
    change(index)
    return with_index_text(data, json.dumps(index).encode())


def with_index_text(data: bytes, text: bytes) -> bytes:
    """A model file with another text in place of the index of its arrays."""
    return len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :]


def packed_of(
    definition: dict[str, Any],
    tensors: dict[str, Any],
    declared: dict[str, Any] | None = None,
    planes: Callable[[bytes], bytes] = bytes,
    text: bytes | None = None,
    size: int | None = None,
    **head: Any,
) -> bytes:
    """A packed model of these parts, whether or not they make a model.

    Parameters
    ----------
    definition, tensors : dict
    declared : dict, optional
        Types and shapes that are said to be those of some arrays.
    planes : callable
        Makes other bytes of those of the arrays.
    text : bytes, optional
        Instead of the head.
    size : int, optional
        Said to be that of the compressed part.
    **head
        Other entries of the head, such as ``tail``.
    """
    stored = dict(sorted(tensors.items()))
    symbols = stored.pop("tail.symbols", None)
    stream, tail = b"", None
    if symbols is not None:
        tail = list(symbols.shape)
        stream = coefficients.encode(symbols.astype(np.int32)[None, :, None, :])
    plain = b"".join(
        np.ascontiguousarray(t).reshape(-1).view(np.uint8).reshape(t.size, -1).T.tobytes()
        for t in stored.values() if t.size
    )  # fmt: skip
    said = {key: value for key, value in definition.items() if key not in ("card", "fingerprint")}
    said["tensors"] = {n: [t.dtype.str, *t.shape] for n, t in stored.items()} | (declared or {})
    if text is None:
        text = json.dumps({**said, "tail": tail, **head}).encode()
    packed = lzma.compress(text + b"\n" + planes(plain), format=lzma.FORMAT_RAW, filters=_FILTERS)
    return (len(packed) if size is None else size).to_bytes(4, "little") + packed + stream


def _some_file(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> bytes:
    functions = _one_of(rng, _LENGTHS) if rng.random() < 0.2 else None
    data = file_of(definition, tensors, functions)
    if rng.random() < 0.7:
        return data
    if rng.random() < 0.2:
        text = (b"[" if rng.random() < 0.5 else b'{"a":') * int(rng.integers(1, 50_000))
        return with_index_text(data, text)
    return with_index(data, lambda index: _index_changed(rng, index))


def _index_changed(rng: Rng, index: dict[str, Any]) -> None:
    """Another type, shape or place of an array, or another description."""
    name = _one_of(rng, [key for key in index if key != "__metadata__"])
    match int(rng.integers(5)):
        case 0:
            index[name]["dtype"] = _one_of(rng, ("F32", "BF16", "F8_E4M3", "BOOL", "U64", "", 3))
        case 1:
            index[name]["shape"] = [_one_of(rng, _LENGTHS) for _ in range(int(rng.integers(5)))]
        case 2:
            index[name]["data_offsets"] = [_one_of(rng, _LENGTHS), _one_of(rng, _LENGTHS)]
        case 3:
            texts = ({"coinpp_xr": 3}, {"coinpp_xr": "[" * 9999})
            index["__metadata__"] = _one_of(rng, ({}, [], *texts))
        case _:
            index[name] = _one_of(rng, _NUMBERS)


def _some_packed(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> bytes:
    options: dict[str, Any] = {}
    if rng.random() < 0.3:
        name = _one_of(rng, list(tensors))
        dtype, shape = tensors[name].dtype.str, tensors[name].shape
        changes = (
            [_one_of(rng, _DTYPES), *shape],
            [dtype, *(_one_of(rng, _LENGTHS) for _ in shape)],
            _one_of(rng, _NUMBERS),
        )
        options["declared"] = {name: _one_of(rng, changes)}
    if rng.random() < 0.2:
        lengths = [_one_of(rng, _LENGTHS), _one_of(rng, _LENGTHS)]
        options["tail"] = _one_of(rng, (None, lengths, lengths, [], 3, "x"))
    if rng.random() < 0.1:
        options["planes"] = _one_of(rng, (lambda p: p[: len(p) // 2], lambda p: p + bytes(8 << 20)))
    if rng.random() < 0.05:
        options["text"] = b"[" * int(rng.integers(1, 300_000))
    if rng.random() < 0.05:
        options["size"] = _one_of(rng, (0, 1, 2**31, 2**32 - 1))
    return packed_of(definition, tensors, **options)


# ---- what is changed ----------------------------------------------------------------------------


def _number(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Another number of the definition, or none."""
    key = _one_of(rng, list(definition))
    if rng.random() < 0.2:
        del definition[key]
    else:
        definition[key] = _one_of(rng, _NUMBERS)


def _box(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    shape = [_one_of(rng, _LENGTHS) for _ in range(int(rng.integers(5)))]
    ends = [_one_of(rng, _NUMBERS), _one_of(rng, _NUMBERS)]
    definition["box"] = [shape, *ends] if rng.random() < 0.8 else _one_of(rng, _NUMBERS)


def _card(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    nested: Any = {"units": _one_of(rng, ("K", "\x1b[2J", "K" * 5000, 3, None))}
    for _ in range(int(rng.integers(40))):
        nested = {"inner": nested}
    definition["card"] = nested
    definition["units"] = _one_of(rng, ("K", "\x1b[2J", "K" * 5000, 3, None))


def _name(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    definition["name"] = _one_of(
        rng, ("../../x", "/etc/passwd", "a b", "\x1b[2J", "", "x" * 999, 3)
    )


def _value(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Another number in an array, or in all of it."""
    name = _one_of(rng, list(tensors))
    changed = np.array(tensors[name])
    if changed.size == 0:
        return
    with np.errstate(all="ignore"):
        if changed.dtype.kind == "f":
            new: Any = _one_of(rng, _VALUES)
        elif changed.dtype.kind in "iu":
            new = _one_of(rng, (np.iinfo(changed.dtype).min, np.iinfo(changed.dtype).max, 0))
        else:  # another mutation made it something else
            new = 0
        if rng.random() < 0.3:
            changed[...] = new
        else:
            changed.reshape(-1)[int(rng.integers(changed.size))] = new
    tensors[name] = changed


def _shape(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Another extent along an axis, another number of axes."""
    name = _one_of(rng, list(tensors))
    tensor = tensors[name]
    shape = list(tensor.shape)
    if rng.random() < 0.3:
        shape = shape[::-1] if rng.random() < 0.5 else [*shape, 1]
    elif shape:
        axis = int(rng.integers(len(shape)))
        near = max(0, shape[axis] + int(rng.integers(-2, 3)))
        shape[axis] = _one_of(rng, (*_SIZES, near, near, near))
    if math.prod(shape) * tensor.dtype.itemsize <= 2 * MOST_ARRAY_BYTES:
        tensors[name] = np.resize(tensor, shape) if tensor.size else np.zeros(shape, tensor.dtype)


def _dtype(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    name = _one_of(rng, list(tensors))
    with np.errstate(all="ignore"):
        tensors[name] = tensors[name].astype(
            _one_of(rng, ("f2", "f4", "f8", "i1", "i2", "u4", "?"))
        )


def _missing(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    del tensors[_one_of(rng, list(tensors))]


def _more(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    """An array that another model has, or none has."""
    others = dict(_models()[int(rng.integers(2))].tensors)
    name = _one_of(rng, [*others, "weight.99", "deblocking.kernel.9", "x"])
    tensors[name] = others.get(name, np.zeros((3, 3), np.float32))


def _larger(rng: Rng, definition: dict[str, Any], tensors: dict[str, Any]) -> None:
    """A consistent model of another width, depth or number of latents, all zeros."""
    width, depth = (int(_one_of(rng, (1, 8, 64, 512, 1024))) for _ in range(2))
    if width * width * depth * 4 > 2 * MOST_ARRAY_BYTES:
        return
    inputs = tensors["weight.0"].shape[-1] if "weight.0" in tensors else 3
    for name in [n for n in tensors if n.startswith(("weight.", "bias."))]:
        del tensors[name]
    sizes = [inputs, *[width] * depth, 1]
    for layer in range(depth + 1):
        tensors[f"weight.{layer}"] = np.zeros((sizes[layer + 1], sizes[layer]), np.float32)
        tensors[f"bias.{layer}"] = np.zeros(sizes[layer + 1], np.float32)
    if (old := tensors.get("shift_map")) is not None and old.ndim == 2:
        tensors["shift_map"] = np.zeros((depth * width, old.shape[1]), np.float32)
    definition["depth"] = depth


Change = Callable[[Rng, dict[str, Any], dict[str, Any]], None]
_CHANGES: list[Change] = [
    _number, _number, _box, _card, _name, _value, _value, _shape, _shape, _dtype, _missing, _more,
    _larger,
]  # fmt: skip


def _bytes_changed(rng: Rng, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.geometric(0.4))):
        if changed:
            near = min(len(changed), 200) if rng.random() < 0.5 else len(changed)
            changed[int(rng.integers(near))] ^= 1 << int(rng.integers(8))
    return bytes(changed[: int(rng.integers(len(changed) + 1))] if rng.random() < 0.2 else changed)


def _one_of(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]
