"""Selections of a chunk in Zarr v3 read and decode no more fields than they need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.codec import ArrayBytesCodecPartialDecodeMixin
from zarr.abc.store import RangeByteRequest

from coinpp_xr.bitstream import Payload
from coinpp_xr.chunk_reading import check_expected, known_of
from coinpp_xr.codecs import recently_decoded
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.field_reading import FieldReader, items_of
from coinpp_xr.kept_cells import fold_in
from coinpp_xr.models import Model

# Read at once, in the hope that the head of a payload is in it; then four times as much.
_FIRST_BYTES = 1 << 14


class PartialDecoding(ArrayBytesCodecPartialDecodeMixin):
    """For an :class:`~coinpp_xr.codecs.base.ArrayCodec` of fields on a grid."""

    _decode_payload: Callable[..., npt.NDArray[Any]]
    _load: Callable[[str], Model]
    _grid_in: Callable[[Payload], SphereGrid | None]
    # How many of the last axes hold the cells of a field.
    _cell_axes: int

    async def _decode_partial_single(
        self, byte_getter: Any, selection: Any, chunk_spec: Any
    ) -> Any:
        """The selected part of a chunk, None where there is none."""
        dtype = np.dtype(chunk_spec.dtype.to_native_dtype())
        shape, prototype = tuple(chunk_spec.shape), chunk_spec.prototype

        def reader_of(payload: Payload) -> FieldReader:
            check_expected(payload, shape, dtype)
            return FieldReader(payload, *known_of(payload, self._load, self._grid_in(payload)))

        batch = shape[: -self._cell_axes]
        values = await _decode_fields(byte_getter, selection, batch, prototype, reader_of)
        if values is None:
            whole = await byte_getter.get(prototype=prototype)
            if whole is None:
                return None
            values = self._decode_payload(whole.to_bytes(), (shape, dtype))
        selected = np.ascontiguousarray(values[selection], dtype=dtype)
        return prototype.nd_buffer.from_numpy_array(selected)


async def _decode_fields(
    byte_getter: Any,
    selection: Any,
    batch: tuple[int, ...],
    prototype: Any,
    reader_of: Callable[[Payload], FieldReader],
) -> npt.NDArray[Any] | None:
    """A chunk of which the selected fields are decoded; None where all of it is needed."""
    if not isinstance(selection, tuple) or not batch or 0 in batch:
        return None
    if len(items_of(batch, selection)) == np.prod(batch):
        return None

    async def read(start: int, end: int) -> bytes:
        found = await byte_getter.get(prototype=prototype, byte_range=RangeByteRequest(start, end))
        return b"" if found is None else bytes(found.to_bytes())

    size, begun = _FIRST_BYTES, await read(0, _FIRST_BYTES)
    parsed = Payload.unpack_head(begun)
    while parsed is None and len(begun) == size and Payload.has_streams(begun):
        begun += await read(size, 4 * size)
        size *= 4
        parsed = Payload.unpack_head(begun)
    if parsed is None:
        return None
    payload, at = parsed
    reader = reader_of(payload)
    items = items_of(payload.shape[:-2], selection)
    # The head holds checksums of all streams: it tells one chunk from every other.
    chunk = hashlib.blake2b(begun[:at], digest_size=16).digest()
    found = {number: recently_decoded.find((chunk, number)) for number in range(reader.units)}
    known = {number: unit for number, unit in found.items() if unit is not None}
    parts = {0: begun[at:]}
    for start, end in reader.ranges(items, known):
        if at + end > len(begun):
            there = begun[at + start :]
            parts[start] = there + await read(at + start + len(there), at + end)

    def part(start: int, end: int) -> bytes:
        for first, data in parts.items():
            if first <= start and end <= first + len(data):
                return data[start - first : end - first]
        return b""

    def keep(number: int, unit: Any, nbytes: int) -> None:
        recently_decoded.keep((chunk, number), unit, nbytes)

    values = reader.decode(part, items, known=known, keep=keep)
    fold = fold_in(payload)
    values = values.reshape(payload.shape)
    return values if fold is None else fold.unfold(values)
