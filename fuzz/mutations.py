"""Ways to damage a payload: its bytes, or what they stand for."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from coinpp_xr.bitstream import EXPLICIT_COORDINATES, MAGIC, VERSION, Kind, Payload, Tag

Rng = np.random.Generator

# Where lengths, types and axes stand: half of all changes are made there.
_HEADER = 40
MOST_BYTES = 1 << 16
_MOST_AXES = 40
_BYTES = (0, 1, 2, 3, 7, 8, 31, 32, 33, 64, 127, 128, 129, 254, 255)
EXTENTS = (0, 1, 2, 3, 5, 255, 256, 8192, 8193, 1 << 14, 1 << 17, 1 << 20, 1 << 31, 1 << 62)
FLOATS = (0.0, -1.0, 5e-324, 1e-300, 1e-3, 1.0, 1e9, 1e300, 1.7e308, np.inf, -np.inf, np.nan)
DTYPES = (
    "<f4", ">f4", "<f8", ">f8", "<f2", ">f2", "|b1", "<i2", ">i8", "|u1", "<c8", "<c16", "<f16",
    "<M8[ns]", "|S3", "<U2", "|V7",
)  # fmt: skip
_FINGERPRINTS = ("0000000000000000", "ffffffffffffffff", "0123456789abcdef")


def damaged(rng: Rng, payload: bytes, other: bytes) -> bytes:
    """A payload with up to four changes of its bytes."""
    for _ in range(int(rng.integers(1, 5))):
        payload = one_of(rng, _CHANGES)(rng, payload, other)[:MOST_BYTES]
    return payload


def repaired(rng: Rng, payload: bytes, other: bytes) -> bytes:
    """A damaged payload whose checksum is right."""
    if rng.random() < 0.5:
        try:
            return forged(rng, Payload.unpack(payload), Payload.unpack(other))
        except (ValueError, TypeError):
            pass  # what was damaged before can often not be parsed any more
    body = damaged(rng, payload[:-4], other[:-4])
    if rng.random() < 0.9:  # anything else is refused at once
        body = MAGIC + bytes([VERSION]) + body[5:]
    return body + zlib.crc32(body).to_bytes(4, "little")


def forged(rng: Rng, payload: Payload, other: Payload) -> bytes:
    """A payload of sound structure that says something else."""
    for _ in range(int(rng.integers(1, 4))):
        changed = one_of(rng, forgeries)(rng, payload, other)
        payload = replace(payload, **changed)
    if payload.kind.has_model and not payload.fingerprint:
        payload = replace(payload, fingerprint=other.fingerprint or one_of(rng, _FINGERPRINTS))
    return payload.pack()


def one_of(rng: Rng, choices: Any) -> Any:
    return choices[int(rng.integers(len(choices)))]


def _place(rng: Rng, payload: bytes) -> int:
    end = min(len(payload), _HEADER) if rng.random() < 0.5 else len(payload)
    return int(rng.integers(end + 1))


def _length(rng: Rng) -> int:
    return int(rng.geometric(0.2 if rng.random() < 0.8 else 0.01))


# ---- bytes -------------------------------------------------------------------------------------

Change = Callable[[Rng, bytes, bytes], bytes]


def _flip_bits(rng: Rng, payload: bytes, other: bytes) -> bytes:
    changed = bytearray(payload)
    for _ in range(min(_length(rng), len(payload))):
        changed[_place(rng, payload[:-1])] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _set_byte(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at = _place(rng, payload)
    return payload[:at] + bytes([one_of(rng, _BYTES)]) + payload[at + 1 :]


def _cut(rng: Rng, payload: bytes, other: bytes) -> bytes:
    return payload[: _place(rng, payload)]


def _delete(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at = _place(rng, payload)
    return payload[:at] + payload[at + _length(rng) :]


def _insert(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at = _place(rng, payload)
    return payload[:at] + rng.bytes(_length(rng)) + payload[at:]


def _overwrite(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at, length = _place(rng, payload), _length(rng)
    return payload[:at] + rng.bytes(length) + payload[at + length :]


def _repeat(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at = _place(rng, payload)
    return payload[: at + _length(rng)] + payload[at:]


def _splice(rng: Rng, payload: bytes, other: bytes) -> bytes:
    return payload[: _place(rng, payload)] + other[_place(rng, other) :]


def _same_place_of_other(rng: Rng, payload: bytes, other: bytes) -> bytes:
    at, length = _place(rng, payload), _length(rng)
    return payload[:at] + other[at : at + length] + payload[at + length :]


def _noise(rng: Rng, payload: bytes, other: bytes) -> bytes:
    head = payload[: int(rng.integers(min(len(payload), _HEADER) + 1))]
    return head + rng.bytes(int(rng.integers(100)))


_CHANGES: list[Change] = [
    _flip_bits, _flip_bits, _flip_bits, _set_byte, _set_byte, _cut, _delete, _insert, _overwrite,
    _repeat, _splice, _same_place_of_other, _noise,
]  # fmt: skip

# ---- what they stand for -------------------------------------------------------------------------

Forgery = Callable[[Rng, Payload, Payload], dict[str, Any]]


def _extent(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    shape = list(payload.shape or (1,))
    near = shape[-1] + int(rng.integers(-2, 3))
    shape[int(rng.integers(len(shape)))] = max(0, one_of(rng, (*EXTENTS, near, near)))
    return {"shape": tuple(shape)}


def _arrangement(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """As many cells, or some more, in other axes."""
    cells = min(prod(payload.shape), 1 << 20) * one_of(rng, (1, 1, 1, 2, 16, 256, 4096))
    shape: list[int] = []
    while cells > 1 and len(shape) < 4:
        divisor = one_of(rng, [d for d in (1, 2, 3, 5, 64, 1024, cells) if cells % d == 0])
        shape.append(divisor)
        cells //= divisor
    return {"shape": tuple(int(n) for n in rng.permutation([*shape, cells, 1][:4]))}


def _axes(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    more = (1,) * int(rng.integers(_MOST_AXES)) + payload.shape
    return {"shape": one_of(rng, (payload.shape[1:], payload.shape[::-1], other.shape, more))}


def _kind(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    return {"kind": one_of(rng, list(Kind)), "fingerprint": payload.fingerprint}


def header_field(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    return one_of(
        rng,
        [
            {"dtype": np.dtype(one_of(rng, DTYPES))},
            {"layout": one_of(rng, (0, 1, 7, 15, 16, 200, EXPLICIT_COORDINATES))},
            {"coordinates_crc": int(rng.integers(1 << 32))},
            {"bits": one_of(rng, (*range(18), 255))},
            {"exponent": int(rng.integers(-(1 << 15), 1 << 15))},
            {"exponent": int(np.clip(payload.exponent + rng.integers(-99, 99), -32768, 32767))},
            {"time_axis": one_of(rng, (0, 1, 2, 3, 127))},
            {"along_time": not payload.along_time},
            {"fortran": not payload.fortran},
            {"fingerprint": one_of(rng, (*_FINGERPRINTS, other.fingerprint))},
        ],
    )


def _section(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A section is missing, of another payload, under another name, or damaged."""
    sections = dict(payload.sections)
    tag = one_of(rng, list(sections) or list(Tag))
    content = sections.pop(tag, b"")
    theirs = one_of(rng, list(other.sections.values()) or [b""])
    match int(rng.integers(6)):
        case 0:
            pass
        case 1:
            sections[tag] = theirs
        case 2:
            sections[one_of(rng, list(Tag))] = content
        case 3:
            sections = {tag: content, **sections, one_of(rng, list(Tag)): theirs}
        case 4:
            sections[tag] = _with_float(rng, content)
        case _:
            sections[tag] = damaged(rng, content, theirs)
    return {"sections": sections}


def _with_float(rng: Rng, content: bytes) -> bytes:
    """Steps and origins stand at the beginning of their sections."""
    at = one_of(rng, (0, 2, 8))
    return content[:at] + struct.pack("<d", one_of(rng, FLOATS)) + content[at + 8 :]


def _stream(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """One of the streams is damaged, and its length and checksum are right."""
    tag = Tag.WAVELETS if Tag.WAVELETS in payload.sections else Tag.PYRAMID
    head, streams = (payload.sections.get(t, b"") for t in (tag, Tag.STREAMS))
    # The index is the last of the head: a length and a checksum for every stream.
    lengths: list[int] = []
    while sum(lengths) < len(streams) and 8 * (len(lengths) + 1) <= len(head):
        at = len(head) - 8 * (len(lengths) + 1)
        lengths.insert(0, int.from_bytes(head[at : at + 4], "little"))
    if not lengths or sum(lengths) != len(streams):
        return _section(rng, payload, other)
    number = int(rng.integers(len(lengths)))
    start = sum(lengths[:number])
    end = start + lengths[number]
    new = damaged(rng, streams[start:end], other.sections.get(Tag.STREAMS, b""))
    entry = struct.pack("<II", len(new), zlib.crc32(new))
    at = len(head) - 8 * (len(lengths) - number)
    changed = {
        tag: head[:at] + entry + head[at + 8 :],
        Tag.STREAMS: streams[:start] + new + streams[end:],
    }
    return {"sections": dict(payload.sections) | changed}


forgeries: list[Forgery] = [
    _extent, _extent, _arrangement, _axes, _kind, header_field, header_field, _section, _section,
    _section, _stream, _stream,
]  # fmt: skip
