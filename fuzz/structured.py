"""Payloads whose structure is sound and whose every field may say anything; checksums are right."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from mutations import (
    DTYPES,
    EXTENTS,
    FLOATS,
    MOST_BYTES,
    Rng,
    damaged,
    forgeries,
    header_field,
    one_of,
    repaired,
)
from numcodecs.zstd import compress as zstd

from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.byte_reading import ByteReader, varint
from coinpp_xr.coding import masks
from coinpp_xr.coding.pyramid.schedule import schedule
from coinpp_xr.exact import pack_bytes, pack_mask, pack_special_values
from coinpp_xr.fields import Sequences
from coinpp_xr.patterns import encode as pack_levels

Change = Callable[[Rng, Payload, Payload], dict[str, Any]]

_COUNTS = (0, 1, 2, 3, 4, 7, 8, 16, 63, 255, 256, 65535, 1 << 16, 1 << 20, 1 << 31, (1 << 32) - 1)
# Of an array that sections are made anew for.
_MOST_CELLS = 1 << 18
_HEAD, _ENTRY, _LIMITS = struct.Struct("<ddBBII"), struct.Struct("<II"), struct.Struct("<iiBi")
_RESIDUAL = struct.Struct("<ddB")
_DIGITS = struct.Struct("<qBBI")
_MANTISSAS = struct.Struct("<hI")
_PATCHES = struct.Struct("<BBHHHBIff")
_WAVELETS = struct.Struct("<fBBfBBB")


def structured(rng: Rng, payload: bytes, other: bytes) -> bytes:
    """A payload of sound structure of which one to three things are changed."""
    try:
        one, another = Payload.unpack(payload), Payload.unpack(other)
        for _ in range(int(rng.integers(1, 4))):
            changed = replace(one, **_change_of(rng, one)(rng, one, another))
            if sum(map(len, changed.sections.values())) <= MOST_BYTES:
                one = changed
        if one.kind.has_model and not one.fingerprint:
            one = replace(one, fingerprint=another.fingerprint or "0" * 16)
        return one.pack()
    except (ValueError, TypeError, LookupError, OverflowError, struct.error):
        # What was changed before may not be parsed, or not be put together, any more.
        return repaired(rng, payload, other)


def _change_of(rng: Rng, payload: Payload) -> Change:
    own = [change for tag in payload.sections for change in _CHANGES.get(tag, ())]
    if own and rng.random() < 0.6:
        return one_of(rng, own)
    return one_of(rng, [header_field, _mask, _special_values, _finish, *forgeries])


def _number(rng: Rng, code: str, now: float | int) -> float | int:
    """Another number for a field of a structure: far, near, or random."""
    if code in "fd":
        number = one_of(rng, (*FLOATS, now * 2, now / 2, -now, now * (1 + 1e-9)))
        with np.errstate(over="ignore"):
            return float(np.float32(number)) if code == "f" else float(number)
    bits = 8 * struct.calcsize("<" + code)
    low, high = (
        (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if code.islower() else (0, (1 << bits) - 1)
    )
    near = int(now) + int(rng.integers(-3, 4))
    flipped = int(now) ^ (1 << int(rng.integers(bits - code.islower())))
    number = one_of(rng, (*_COUNTS, near, near, flipped, flipped, low, high))
    return min(max(int(number), low), high)


def _with_field(rng: Rng, layout: struct.Struct, content: bytes) -> bytes:
    """A section that begins with such a structure, with one of its fields changed."""
    if len(content) < layout.size:
        return content
    fields = list(layout.unpack_from(content))
    number = int(rng.integers(len(fields)))
    fields[number] = _number(rng, layout.format[1 + number], fields[number])
    return layout.pack(*fields) + content[layout.size :]


def _sections(payload: Payload, changed: dict[Tag, bytes]) -> dict[str, Any]:
    sections = dict(payload.sections) | changed
    return {"sections": {tag: sections[tag] for tag in sorted(sections, key=_streams_last)}}


def _streams_last(tag: Tag) -> tuple[bool, Tag]:
    return tag == Tag.STREAMS, tag


def _damaged_section(tag: Tag) -> Change:
    def change(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
        theirs = other.sections.get(tag, b"\0" * 8)
        start = one_of(rng, (0, 1, 4, 8, 17, 22, 32))
        content = payload.sections[tag]
        new = content[:start] + damaged(rng, content[start:], theirs)
        if tag in (Tag.COEFFICIENTS, Tag.LATENTS) and rng.random() < 0.8:
            new = new[: len(new) // 4 * 4]  # whole words
        return _sections(payload, {tag: new})

    return change


def _field_of(tag: Tag, layout: struct.Struct) -> Change:
    return lambda rng, payload, other: _sections(
        payload, {tag: _with_field(rng, layout, payload.sections[tag])}
    )


# ---- what all kinds may have ---------------------------------------------------------------------


def _table(payload: Payload) -> tuple[int, int]:
    if payload.kind.of_patches:
        return prod(payload.shape[:-2]), prod(payload.shape[-2:])
    return prod(payload.shape[:-2]), prod(payload.shape[-2:])


def _random_mask(rng: Rng, payload: Payload) -> np.ndarray | None:
    items, cells = _table(payload)
    if not 0 < items * cells <= _MOST_CELLS:
        return None
    mask = np.zeros((items, cells), np.bool_)
    match int(rng.integers(6)):
        case 0:
            mask[:] = True
        case 1:
            mask[:] = rng.random(cells) < rng.random()
        case 2:
            mask[rng.random(items) < rng.random()] = True
        case 3:
            mask[:] = rng.random((items, cells)) < rng.random()
        case 4:
            mask[:, : int(rng.integers(cells + 1))] = True
        case _:
            mask[int(rng.integers(items)) :, int(rng.integers(cells)) :] = True
    return mask


def _mask(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Other cells are missing, and values for them are there."""
    mask = _random_mask(rng, payload)
    if mask is None or payload.dtype.itemsize not in (1, 2, 4, 8):
        return header_field(rng, payload, other)
    columns = payload.shape[-1] if len(payload.shape) > 1 else None
    new = {Tag.MASK: pack_mask(mask, one_of(rng, (columns, None)))}
    if rng.random() < 0.9:
        values = np.zeros(int(mask.sum()), f"u{payload.dtype.itemsize}")
        if rng.random() < 0.5:
            values = rng.integers(0, one_of(rng, (2, 3, 20, 200)), len(values)).astype(values.dtype)
        if len(values):
            new[Tag.SPECIAL_VALUES] = pack_special_values(values, mask, columns)
        else:
            new[Tag.SPECIAL_VALUES] = b"\0" + pack_bytes(values)
    return _sections(payload, new)


def _special_values(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Few bytes that stand for many values, and bytes that stand for none."""
    size = max(payload.dtype.itemsize, 1)
    n = one_of(rng, (0, 1, 2, 16, 17, 255))
    lengths = struct.pack("<I", one_of(rng, _COUNTS))
    content = one_of(
        rng,
        (
            bytes([0]) + zstd(bytes(one_of(rng, (0, 1, 4, 100, 1 << 16, 1 << 22))), 1),
            bytes([n]) + rng.bytes(n * size) + lengths * n,
            bytes([2]) + bytes(2 * size) + lengths + masks.encode(np.ones((1, 2, 5), np.bool_)),
            rng.bytes(size),
            b"",
        ),
    )
    return _sections(payload, {Tag.SPECIAL_VALUES: content})


def _finish(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A last step of decoding, with any flags."""
    flags, size = int(rng.integers(64)), payload.dtype.itemsize
    n = one_of(rng, (0, 1, 2, 2, 3))
    longer = bool(flags & (4 | 16))
    numbers = (flags & 1) + (flags >> 1 & 1) + (n if longer else 0)
    content = bytes([flags, n] if longer else [flags])
    for _ in range(numbers):
        with np.errstate(all="ignore"):
            if payload.dtype.kind == "f":
                content += np.array(one_of(rng, FLOATS), payload.dtype).tobytes()
            else:
                content += rng.bytes(size)
    if flags & 16:
        content += struct.pack("<d", one_of(rng, FLOATS))
    if flags & 4:
        items = min(prod(payload.shape[:-2]), 1 << 12)
        shifts = rng.integers(-1, 2, items) << int(rng.integers(0, 26))
        content += struct.pack("<f", one_of(rng, (0.0, 1e-30, 1e-3, 1.0, 1e30, np.nan, np.inf)))
        content += masks.encode_numbers(shifts.astype(np.int64))
    return _sections(payload, {Tag.FINISH: content})


# ---- the pyramid ---------------------------------------------------------------------------------


def _pyramid_head(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A field of the head; or what keeps values to limits, where there may be none."""
    head = payload.sections[Tag.PYRAMID]
    if len(head) < _HEAD.size:
        return {}
    *start, flags, quick, distance, length = _HEAD.unpack_from(head)
    told, rest = head[_HEAD.size : _HEAD.size + length], head[_HEAD.size + length :]
    match int(rng.integers(5)):
        case 0 if flags & 4 and len(rest) >= _LIMITS.size:
            rest = _with_field(rng, _LIMITS, rest)
        case 1 if not flags & 4:
            flags |= 4
            limits = [one_of(rng, (0, 1, 64, -64, 1 << 30, -(1 << 30))) for _ in range(2)]
            rest = _LIMITS.pack(min(limits), max(limits), one_of(rng, (0, 1, 2, 4, 255)), 64) + rest
        case 2:
            told = damaged(rng, told, other.sections.get(Tag.PYRAMID, b"\0" * 40)[_HEAD.size :])
        case 3:
            quick = int(_number(rng, "B", quick))
        case _:
            return _field_of(Tag.PYRAMID, _HEAD)(rng, payload, other)
    new = _HEAD.pack(*start, flags, quick, distance, len(told)) + told + rest
    return _sections(payload, {Tag.PYRAMID: new})


def _pyramid_schedule(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Another distance between keys, or another shape, with as many streams as that needs."""
    head, streams = payload.sections[Tag.PYRAMID], payload.sections.get(Tag.STREAMS, b"")
    if len(head) < _HEAD.size or len(payload.shape) < 2:
        return {}
    step, origin, flags, quick, distance, length = _HEAD.unpack_from(head)
    if rng.random() < 0.7:
        distance = one_of(rng, (1, 2, 3, 4, 5, 8, 100, 1 << 20))
    shape = payload.shape
    if rng.random() < 0.5:
        batch = one_of(rng, ((1,), (2,), (7,), (64,), (3, 2), (1000,), (5000,)))
        rows = one_of(rng, ((1, 1), (1, 2), (2, 1), (3, 5), (1, 4000), (300, 1), shape[-2:]))
        if prod(batch) * prod(rows) <= _MOST_CELLS:
            shape = (*batch, *rows)
    items, cells = prod(shape[:-2]), prod(shape[-2:])
    if not 0 < items * cells <= _MOST_CELLS:
        return {}
    sequences = Sequences.of(shape[:-2], 0, np.ones(items, np.bool_))
    units = schedule(sequences.order, np.ones(items, np.bool_), cells, distance)
    limits = _LIMITS.size if flags & 4 else 0
    told = head[_HEAD.size : _HEAD.size + length + limits]
    cuts = np.sort(rng.integers(0, len(streams) + 1, max(len(units) - 1, 0))).tolist()
    parts = [streams[a:b] for a, b in zip([0, *cuts], [*cuts, len(streams)], strict=True)]
    parts = [part if len(part) >= 4 else bytes(4) for part in parts]
    index = b"".join(_ENTRY.pack(len(part), zlib.crc32(part)) for part in parts)
    new = _HEAD.pack(step, origin, flags, quick, distance, length) + told + index
    sections = _sections(payload, {Tag.PYRAMID: new, Tag.STREAMS: b"".join(parts)})
    return {**sections, "shape": shape, "time_axis": 0}


def _index_of_streams(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A length or a checksum of the index, at the end of the head."""
    tag = Tag.PYRAMID if Tag.PYRAMID in payload.sections else Tag.WAVELETS
    head = payload.sections[tag]
    if len(head) < 8:
        return {}
    at = len(head) - 4 * int(rng.integers(1, min(len(head) // 4, 20) + 1))
    new = struct.pack("<I", int(_number(rng, "I", int.from_bytes(head[at : at + 4], "little"))))
    return _sections(payload, {tag: head[:at] + new + head[at + 4 :]})


def _wavelet_head(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A number of the head, how fields are transformed, or what is told of subbands."""
    reader = ByteReader(payload.sections[Tag.WAVELETS])
    mean, how, *rest = _WAVELETS.unpack(reader.take(_WAVELETS.size))
    numbers = [reader.varint() for _ in range(4 if how & 16 else 2)]
    told, streams = reader.take(numbers[1]), reader.take(reader.left)
    if rng.random() < 0.3:
        told = damaged(rng, told, other.sections.get(Tag.WAVELETS, bytes(40)))
        numbers[1] = len(told)
    elif rng.random() < 0.4:
        how ^= one_of(rng, (1, 2, 16, 32, 64, 128))
        numbers = numbers[:2] + [one_of(rng, _COUNTS) for _ in range(2)] * (how & 16 > 0)
    else:
        numbers[int(rng.integers(len(numbers)))] = one_of(rng, _COUNTS)
    head = _WAVELETS.pack(mean, how & 255, *rest) + b"".join(map(varint, numbers))
    return _sections(payload, {Tag.WAVELETS: head + told + streams})


# ---- other sections ------------------------------------------------------------------------------


def _means(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    content = payload.sections[Tag.MEANS]
    code = "d" if payload.kind == Kind.PATCH_LATENTS else "f"
    size = struct.calcsize(code)
    numbers = list(np.frombuffer(content[: len(content) // size * size], f"<{code}"))
    at = int(rng.integers(len(numbers) + 1))
    with np.errstate(over="ignore"):
        numbers[at : at + 1] = [one_of(rng, FLOATS)] * one_of(rng, (0, 1, 1, 1, 2))
        return _sections(payload, {Tag.MEANS: np.array(numbers, f"<{code}").tobytes()})


def _levels(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Levels of any size, so that all sums overflow."""
    content = payload.sections[Tag.LEVELS]
    size = prod(payload.shape)
    if rng.random() < 0.5 or not 0 < size <= _MOST_CELLS:
        at = one_of(rng, (0, 1))
        new = content[:at] + bytes([one_of(rng, (0, 1, 2, 3, 4, 8, 255))]) + content[at + 1 :]
        step = struct.pack("<d", one_of(rng, FLOATS))
        return _sections(payload, {Tag.LEVELS: one_of(rng, (new, new[:2] + step + new[10:]))})
    largest = one_of(rng, (1, 100, 1 << 30, 1 << 39))
    values = rng.integers(-largest, largest + 1, (1, 1, size)).astype(np.float64)
    made = pack_levels(values, 1.0, 1 << 30) or content
    new = bytes([int(rng.integers(4))]) + made[1:2] + struct.pack("<d", one_of(rng, FLOATS))
    return _sections(payload, {Tag.LEVELS: new + made[10:]})


def _patches(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A field of the header of patches; offsets and axes for as many channels as the shape says."""
    content = payload.sections[Tag.PATCHES]
    if len(content) < _PATCHES.size:
        return {}
    if rng.random() < 0.5:
        return _sections(payload, {Tag.PATCHES: _with_field(rng, _PATCHES, content)})
    _, levels, *rest = _PATCHES.unpack_from(content)
    spatial, channels = one_of(rng, (1, 2, 3)), one_of(rng, (0, 1, 2))
    size = [1] * (3 - spatial) + [
        one_of(rng, (1, 2, 3, 8, 16, 31, 32, 2048, 8192)) for _ in range(spatial)
    ]
    space = payload.shape[len(payload.shape) - spatial - (channels > 0) :]
    n = 1
    if channels and len(space) > spatial:
        n = space[0] if channels == 1 else space[-1]
    n = min(n, 300)
    offsets = np.full(n, one_of(rng, FLOATS)).tobytes()
    axes = rng.integers(-128, 128, n * n).astype(np.int8) if rng.random() < 0.3 else 127 * np.eye(n)
    new = _PATCHES.pack(spatial | channels << 4, one_of(rng, (1, levels)), *size, *rest[3:])
    new += offsets + (axes.astype(np.int8).tobytes() if n > 1 else b"")
    return _sections(payload, {Tag.PATCHES: new})


def _raw(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """A frame of another length, or one that does not say it."""
    frame = zstd(bytes(one_of(rng, (0, 1, 100, payload.nbytes % (1 << 22), 1 << 22))), 1)
    shape, dtype = payload.shape, np.dtype(one_of(rng, DTYPES))
    if rng.random() < 0.5:
        shape = tuple(one_of(rng, EXTENTS) for _ in range(int(rng.integers(0, 4))))
    return {**_sections(payload, {Tag.RAW: frame}), "shape": shape, "dtype": dtype}


def _reversed(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Whole structures of another payload under this one's header."""
    tags = set(payload.sections) & set(other.sections)
    if not tags:
        return {"fingerprint": other.fingerprint or payload.fingerprint}
    tag = one_of(rng, sorted(tags))
    return _sections(payload, {tag: other.sections[tag]})


def _cells(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    """Another order, or another number of cells, and perhaps the shape that this would have."""
    cells = int(one_of(rng, (*EXTENTS, 768, 320, 12 << 20, 1 << 27)))
    section = bytes([int(rng.integers(0, 6))]) + varint(cells)
    changes = _sections(payload, {Tag.CELLS: section + bytes(int(rng.integers(0, 4)))})
    if rng.random() < 0.5:
        changes["shape"] = (*payload.shape[:-2], 1, cells)
    return changes


def _level_axis(rng: Rng, payload: Payload, other: Payload) -> dict[str, Any]:
    axis = bytes(rng.integers(0, 5, int(rng.integers(0, 3))).astype(np.uint8))
    return _sections(payload, {Tag.LEVEL_AXIS: axis})


_CHANGES: dict[Tag, list[Change]] = {
    Tag.RAW: [_raw],
    Tag.LATENTS: [_damaged_section(Tag.LATENTS)],
    Tag.MASK: [_mask, _damaged_section(Tag.MASK)],
    Tag.SPECIAL_VALUES: [_special_values, _damaged_section(Tag.SPECIAL_VALUES)],
    Tag.COEFFICIENTS: [_damaged_section(Tag.COEFFICIENTS)],
    Tag.MEANS: [_means],
    Tag.LEVELS: [_levels, _damaged_section(Tag.LEVELS)],
    Tag.RESIDUAL: [_field_of(Tag.RESIDUAL, _RESIDUAL), _damaged_section(Tag.RESIDUAL)],
    Tag.DIGITS: [_field_of(Tag.DIGITS, _DIGITS), _damaged_section(Tag.DIGITS), _reversed],
    Tag.MANTISSAS: [_field_of(Tag.MANTISSAS, _MANTISSAS), _damaged_section(Tag.MANTISSAS)],
    Tag.PATCHES: [_patches, _patches, _reversed],
    Tag.PYRAMID: [_pyramid_head, _pyramid_head, _pyramid_schedule, _index_of_streams, _reversed],
    Tag.WAVELETS: [
        _field_of(Tag.WAVELETS, _WAVELETS),
        _wavelet_head,
        _wavelet_head,
        _index_of_streams,
        _reversed,
    ],
    Tag.FINISH: [_finish, _damaged_section(Tag.FINISH)],
    Tag.CELLS: [_cells, _damaged_section(Tag.CELLS), _reversed],
    Tag.LEVEL_AXIS: [_level_axis],
}
