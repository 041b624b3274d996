"""A model in few bytes, to travel inside a codec's configuration."""

from __future__ import annotations

import base64
import json
import lzma
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coefficients
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model

# A store's metadata is read as a whole by everyone who opens it.
LARGEST = 256 * 1024
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

    Raises
    ------
    ValueError
        If the data is damaged.
    """
    try:
        size = int.from_bytes(data[:4], "little")
        unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_FILTERS)
        plain = unpacker.decompress(data[4 : 4 + size], max_length=64 * LARGEST)
        text, _, planes = plain.partition(b"\n")
        head = json.loads(text)
        tensors, position = {}, 0
        for name, (dtype, *shape) in head.pop("tensors").items():
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            tensors[name] = _from_planes(planes[position : position + count], dtype, shape)
            position += count
        if (shape := head.pop("tail")) is not None:
            if max(shape) > 1 << 14:
                raise ValueError("it claims too large a tail")
            stream = data[4 + size :]
            symbols = coefficients.decode(stream, (1, shape[0], 1, shape[1]))
            tensors["tail.symbols"] = symbols[0, :, 0].astype(np.int16)
        name, units = head.pop("name"), head.pop("units")
        return Model.from_parts(name, head, tensors, {"units": units})
    except (lzma.LZMAError, CorruptPayloadError, LookupError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"the embedded model is damaged: {reason}") from error


def pack_text(model: Model) -> str:
    """:func:`pack_model` as text for JSON.

    Raises
    ------
    ValueError
        If the model is too large for a store's metadata.
    """
    packed = pack_model(model)
    if len(packed) > LARGEST:
        raise ValueError(
            f"model {model.name!r} takes {len(packed):,} bytes, at most {LARGEST:,} can be "
            "embedded: train a smaller one, or keep the model file beside the store"
        )
    return base64.b85encode(packed).decode("ascii")


def unpack_text(text: str) -> Model:
    """The model of :func:`pack_text`."""
    try:
        packed = base64.b85decode(text)
    except ValueError as error:
        raise ValueError(f"the embedded model is damaged: {error}") from error
    return unpack_model(packed)


def _planes(tensor: npt.NDArray[Any]) -> bytes:
    flat = np.ascontiguousarray(tensor).reshape(-1)
    return flat.view(np.uint8).reshape(flat.size, flat.itemsize).T.tobytes()


def _from_planes(data: bytes, dtype: str, shape: list[int]) -> npt.NDArray[Any]:
    itemsize = np.dtype(dtype).itemsize
    planes = np.frombuffer(data, np.uint8).reshape(itemsize, len(data) // itemsize)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype).reshape(shape)
