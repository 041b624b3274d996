"""A model in few bytes, to travel inside a codec's configuration."""

from __future__ import annotations

import base64
import hashlib
import json
import lzma
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coefficients
from coinpp_xr.model_schema import (
    MOST_TEXT,
    check_arrays,
    check_definition,
    check_units,
    parse_json,
    reason_of,
)
from coinpp_xr.models import Model, parse_name, register_embedded

# A store's metadata is read as a whole by everyone who opens it.
LARGEST = 256 * 1024
_LONGEST_TEXT = -(-LARGEST * 5 // 4)
# The tail's coder takes microseconds per number; as many bytes of the shipped model's tail hold
# fewer than this.
MOST_TAIL_NUMBERS = 1 << 19
# Weights hardly shrink; histograms and the like do.
MOST_ARRAY_BYTES = 12 * LARGEST
_INSTEAD = "train a smaller one, or keep the model file beside the store"
_NOT_DEFINITION = ("name", "units", "tensors", "tail")
# Digests of texts that were unpacked once, with their fingerprints.
_MOST_CHECKED = 1 << 12
_checked: set[tuple[bytes, str]] = set()
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6 | lzma.PRESET_EXTREME, "lc": 0, "pb": 0}]


def pack_model(model: Model) -> bytes:
    """Everything that decoding depends on, without the card.

    The tail goes through the same coder as data does; the rest are byte planes through LZMA.
    """
    tensors = dict(sorted(model.tensors.items()))
    symbols = tensors.pop("tail.symbols", None)
    stream = b""
    if symbols is not None:
        stream = coefficients.encode(symbols.astype(np.int32)[None, :, None, :])
    planes = b"".join(_planes(tensor) for tensor in tensors.values())
    head = {
        **model.definition,
        "name": model.name,
        "units": model.units,
        "tensors": {name: [t.dtype.str, *t.shape] for name, t in tensors.items()},
        "tail": list(symbols.shape) if symbols is not None else None,
    }
    text = json.dumps(head, sort_keys=True, separators=(",", ":")).encode()
    packed = lzma.compress(text + b"\n" + planes, format=lzma.FORMAT_RAW, filters=_FILTERS)
    return len(packed).to_bytes(4, "little") + packed + stream


def unpack_model(data: bytes) -> Model:
    """The model of :func:`pack_model`, with an empty card but for the unit.

    Types and shapes are checked before any array is unpacked: no more memory is taken than a
    consistent model of that size needs.

    Raises
    ------
    ValueError
        If the data is damaged.
    """
    try:
        size = int.from_bytes(data[:4], "little")
        if not 0 < size <= len(data) - 4:
            raise ValueError("it is cut short")
        plain = _Plain(data[4 : 4 + size])
        head = parse_json(plain.line())
        check_definition(head)
        name, units = parse_name(head["name"]), check_units(head["units"])
        declared = {
            str(array): (str(dtype), _shape(shape))
            for array, (dtype, *shape) in head["tensors"].items()
        }
        tail = None if head["tail"] is None else _shape(head["tail"])
        if tail is not None:
            if prod(tail) > MOST_TAIL_NUMBERS:
                raise ValueError(f"its tail has more than {MOST_TAIL_NUMBERS:,} numbers")
            declared["tail.symbols"] = "<i2", tail
        check_arrays(head, declared, MOST_ARRAY_BYTES)
        tensors = {array: plain.array(*declared[array]) for array in head["tensors"]}
        plain.finish()
        if tail is not None:
            symbols = coefficients.decode(data[4 + size :], (1, tail[0], 1, tail[1]))[0, :, 0]
            if symbols.size and not -(1 << 15) <= symbols.min() <= symbols.max() < 1 << 15:
                raise ValueError("its tail has numbers of more than 16 bits")
            tensors["tail.symbols"] = symbols.astype(np.int16)
        definition = {name: value for name, value in head.items() if name not in _NOT_DEFINITION}
        return Model.from_parts(name, definition, tensors, {"units": units})
    except (lzma.LZMAError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the embedded model is damaged: {reason_of(error)}") from error


class _Plain:
    """An LZMA stream that is unpacked no further than what is asked for."""

    def __init__(self, packed: bytes) -> None:
        self._unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
        self._packed, self._ahead = packed, b""

    def _more(self, most: int) -> bytes:
        if self._unpacker.eof:
            return b""
        found = self._unpacker.decompress(self._packed, max_length=most)
        self._packed = b""
        return found

    def line(self) -> bytes:
        while b"\n" not in self._ahead:
            more = self._more(1 << 12)
            if not more or len(self._ahead) > MOST_TEXT:
                raise ValueError("it does not begin with its description")
            self._ahead += more
        line, _, self._ahead = self._ahead.partition(b"\n")
        return line

    def array(self, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        itemsize = np.dtype(dtype).itemsize
        planes = np.empty(prod(shape) * itemsize, np.uint8)
        position = 0
        while position < planes.size:
            piece = self._ahead[: planes.size - position]
            self._ahead = self._ahead[len(piece) :]
            piece = piece or self._more(min(planes.size - position, 1 << 20))
            if not piece:
                raise ValueError("it holds less than it declares")
            planes[position : position + len(piece)] = np.frombuffer(piece, np.uint8)
            position += len(piece)
        values = np.ascontiguousarray(planes.reshape(itemsize, -1).T) if planes.size else planes
        return values.reshape(-1).view(dtype).reshape(shape)

    def finish(self) -> None:
        if self._ahead or self._more(1):
            raise ValueError("it holds more than it declares")


def _shape(lengths: Any) -> tuple[int, ...]:
    if not isinstance(lengths, list) or not all(type(n) is int and 0 <= n < 2**32 for n in lengths):
        raise ValueError("it declares an array that has no shape")
    return tuple(lengths)


def pack_text(model: Model) -> str:
    """:func:`pack_model` as text for JSON.

    Raises
    ------
    ValueError
        If the model is too large for a store's metadata.
    """
    if model.tail is not None and model.tail.symbols.size > MOST_TAIL_NUMBERS:
        raise ValueError(
            f"the tail of model {model.name!r} has {model.tail.symbols.size:,} numbers, at most "
            f"{MOST_TAIL_NUMBERS:,} can be embedded: {_INSTEAD}"
        )
    nbytes = sum(tensor.nbytes for tensor in model.tensors.values())
    if nbytes > MOST_ARRAY_BYTES:
        raise ValueError(
            f"the arrays of model {model.name!r} take {nbytes:,} bytes, at most "
            f"{MOST_ARRAY_BYTES:,} can be embedded: {_INSTEAD}"
        )
    packed = pack_model(model)
    if len(packed) > LARGEST:
        raise ValueError(
            f"model {model.name!r} takes {len(packed):,} bytes, at most {LARGEST:,} can be "
            f"embedded: {_INSTEAD}"
        )
    return base64.b85encode(packed).decode("ascii")


def unpack_text(text: str) -> Model:
    """The model of :func:`pack_text`.

    Raises
    ------
    ValueError
        If the text is damaged or too long.
    """
    if len(text) > _LONGEST_TEXT:
        raise ValueError(
            f"the embedded model has {len(text):,} characters, at most {_LONGEST_TEXT:,} are read"
        )
    try:
        packed = base64.b85decode(text)
    except ValueError as error:
        raise ValueError(f"the embedded model is damaged: {error}") from error
    return unpack_model(packed)


def embedded_model(text: str, fingerprint: str) -> Model:
    """The model that a codec's configuration carries, checked against its fingerprint.

    It is kept by that fingerprint, and never answers to its name: what data brings along must not
    change what this process writes.

    Raises
    ------
    ValueError
        If the text is damaged, or of another model.
    """
    # Longer ones are refused before this is of use.
    key = hashlib.sha256(text[: _LONGEST_TEXT + 1].encode()).digest(), fingerprint
    model = register_embedded(fingerprint, lambda: unpack_text(text), trusted=key in _checked)
    if len(_checked) >= _MOST_CHECKED:
        _checked.clear()
    _checked.add(key)
    return model


def _planes(tensor: npt.NDArray[Any]) -> bytes:
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, flat.itemsize).T.tobytes()
