"""Where each chunk belongs: hashed into its payload by our writers, checked by our readers.

A codec sees values, and Zarr hands it whatever lies under a chunk's key: one chunk in the place of
another decodes without a complaint. So the stores that we write through add to every payload a hash
of the array's name, the chunk's index and its first time. Nothing in it depends on where the store
lies, so that stores can be copied and renamed; an index along time stays what it is when the array
grows.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
import zarr
from zarr.abc.store import Store
from zarr.core.array import AsyncArray
from zarr.core.buffer import Buffer
from zarr.core.sync import sync
from zarr.storage import StorePath, WrapperStore
from zarr.storage._common import make_store_path

from coinpp_xr.bitstream import Payload
from coinpp_xr.stores import (
    DOCUMENTS,
    chunks_in_shard,
    codec_of,
    dims_of,
    packed_shard,
    unpacked_shard,
)

_PLACE_BYTES = 8


@dataclass(frozen=True, eq=False)
class ChunkPlaces:
    """The places of an array's chunks.

    Parameters
    ----------
    name : str
        Of the array, without the groups that it is in.
    chunks : tuple of int
        Shape of a chunk.
    in_shard : tuple of int or None
        Chunks in a shard along every axis, where there are shards.
    time_axis : int
    times : list of str
        The first time of every chunk along time; empty where there is no such coordinate.
    """

    name: str
    chunks: tuple[int, ...]
    in_shard: tuple[int, ...] | None
    time_axis: int
    times: list[str]

    def of(self, index: Sequence[int]) -> bytes:
        """The place of a chunk, 8 bytes.

        Parameters
        ----------
        index : sequence of int
            Of the chunk along every axis.
        """
        number = index[self.time_axis]
        # What a shard holds behind the end of its array has no time.
        first = self.times[number] if number < len(self.times) else None
        text = json.dumps([self.name, [int(i) for i in index], first])
        return hashlib.blake2b(text.encode(), digest_size=_PLACE_BYTES).digest()

    def within(self, where: Sequence[slice]) -> dict[tuple[int, ...], bytes]:
        """The places of all chunks of a part of the array, by their index."""
        numbers = (
            range(w.start // n, -(-w.stop // n)) for w, n in zip(where, self.chunks, strict=True)
        )
        return {index: self.of(index) for index in product(*numbers)}

    def placed(self, position: Sequence[int], content: bytes) -> bytes:
        """A file of the array, a payload or a shard of them, with the places of its chunks.

        Parameters
        ----------
        position : sequence of int
            Of the file along every axis.
        content : bytes
        """
        if self.in_shard is None:
            return Payload.unpack(content).placed(self.of(position)).pack()
        payloads = {}
        for inner, payload in unpacked_shard(self.in_shard, content).items():
            index = [p * n + i for p, n, i in zip(position, self.in_shard, inner, strict=True)]
            payloads[inner] = Payload.unpack(payload).placed(self.of(index)).pack()
        return packed_shard(self.in_shard, payloads)


class PlacingStore(WrapperStore[Store]):
    """A store that tells the chunks of some arrays where they belong as they are written.

    Parameters
    ----------
    store : Store
    paths : iterable of str
        Arrays that one of our codecs compresses, and nothing else after it.
    """

    # Zarr would write past us.
    _supports_sync_io = False

    def __init__(self, store: Store, paths: Iterable[str] = ()) -> None:
        super().__init__(store)
        self._paths = tuple(paths)
        self._places: dict[str, ChunkPlaces] = {}

    def _with_store(self, store: Store) -> PlacingStore:
        return type(self)(store, self._paths)

    async def set(self, key: str, value: Buffer) -> None:
        path = next((path for path in self._paths if key.startswith(f"{path}/")), None)
        if path is not None and key.rpartition("/")[2] not in DOCUMENTS:
            if path not in self._places:
                # By now coordinates are written: they are before any chunk.
                self._places[path] = await _places(StorePath(self._store, path))
            position = [int(number) for number in re.findall(r"\d+", key[len(path) :])]
            placed = self._places[path].placed(position, value.to_bytes())
            value = type(value).from_bytes(placed)
        await super().set(key, value)


def placing(store: Any, names: Iterable[Any], group: str | None, options: Any) -> tuple[Any, str]:
    """A store for xarray to write to, whose arrays of some names are :class:`PlacingStore`'s.

    Parameters
    ----------
    store : str, path or Zarr store
    names : iterable
        Of arrays in the group.
    group : str, optional
    options : dict, optional
        For fsspec.

    Returns
    -------
    (PlacingStore, str)
        The store, and the group's path in it.
    """
    where = sync(make_store_path(store, path=group or "", mode="a", storage_options=options))
    paths = [f"{where.path}/{name}".lstrip("/") for name in names]
    return PlacingStore(where.store, paths), where.path


def placing_array(array: zarr.Array[Any]) -> zarr.Array[Any]:
    """An array that is there, to be written with places, also chunks of fill values alone."""
    store = PlacingStore(array.store, [array.path])
    config: Any = {"write_empty_chunks": True}
    inner: Any = AsyncArray(array.metadata, StorePath(store, array.path), config)
    return zarr.Array(inner)


def places_of(array: zarr.Array[Any]) -> ChunkPlaces:
    """The places that an array's chunks should have, by what its store holds now."""
    return sync(_places(array.store_path))


async def _places(path: StorePath) -> ChunkPlaces:
    array: Any = await AsyncArray.open(path, zarr_format=None)
    dims = dims_of(array)
    axis = getattr(codec_of(array), "time_axis", None) or 0
    folder, _, name = path.path.rpartition("/")
    times: list[str] = []
    if axis < array.ndim - 2 and axis < len(dims) and dims[axis]:
        try:
            coordinate: Any = await AsyncArray.open(
                StorePath(path.store, f"{folder}/{dims[axis]}".lstrip("/")), zarr_format=None
            )
        except FileNotFoundError:
            coordinate = None
        if coordinate is not None and coordinate.shape == (array.shape[axis],):
            values = np.asarray(await coordinate.getitem(slice(None)))
            times = _as_text(values[:: array.chunks[axis]], dict(coordinate.attrs))
    in_shard = None if array.shards is None else chunks_in_shard(array)
    return ChunkPlaces(name, array.chunks, in_shard, axis, times)


def _as_text(times: npt.NDArray[Any], attributes: dict[str, Any]) -> list[str]:
    """Dates to a millisecond, whatever their unit in the store; other coordinates as they are."""
    if " since " in str(attributes.get("units", "")):
        encoded = xr.Variable("time", times, attributes)
        with suppress(ValueError, OverflowError):  # of units that are none
            times = xr.conventions.decode_cf_variable("time", encoded).to_numpy()
    half = timedelta(milliseconds=0.5)
    if times.dtype.kind == "M":
        return list(np.datetime_as_string((times + np.timedelta64(half)).astype("M8[ms]")))
    return [
        (time + half).isoformat(timespec="milliseconds")
        if hasattr(time, "isoformat")  # cftime's
        else repr(time)
        for time in times.tolist()
    ]
