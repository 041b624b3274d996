"""What stands in a Zarr store, byte by byte, and putting a new one in its place whole."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal

import google_crc32c  # zarr needs it, too
import numpy as np
import zarr
from zarr.codecs import ShardingCodec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath, ZipStore

from coinpp_xr.bitstream import Payload
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.files import cleared_up, put_in_place
from coinpp_xr.variable_report import StoredChunk
from coinpp_xr.xarray_encoding import find_codec

DOCUMENTS = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
# Requests to a store that are under way at once.
_AT_ONCE = 32
# Offset and length of a chunk that a shard does not hold.
_NOT_THERE = np.iinfo(np.uint64).max

# Who wants documents compact now, and what undoes that.
_compact_lock = threading.Lock()
_compacting = 0
_compact: Any = None


@contextmanager
def put_whole(store: Any, *, replace: bool, group: str | None) -> Iterator[Any]:
    """Where to write a new store: beside its place, where it appears when the block is done.

    An error in the block leaves things as they were. That is for local folders, and for zip files,
    which are made from a folder; other stores, and groups of stores that exist, are written where
    they are.

    Parameters
    ----------
    store : str, path or Zarr store
    replace : bool
        Whether what is there makes way.
    group : str, optional

    Raises
    ------
    FileExistsError
        If something is there that is not to be replaced.
    """
    if is_zip(store):
        with _put_zip_whole(store, replace=replace) as folder:
            yield folder
        return
    path = local_path(store)
    is_there = path is not None and path.exists() and not _is_empty_folder(path)
    if path is None or (is_there and group):
        yield store
        return
    if is_there and not replace:
        raise FileExistsError(
            f"{path} exists; give mode='w' to replace it, append_dim or region to add to it, or "
            "another name"
        )
    if is_there and not _is_store(path):
        raise FileExistsError(f"{path} is no Zarr store, mode='w' would delete it; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    # A worker on another machine may still write when an error ends the block: that error matters.
    with (
        cleared_up(),
        tempfile.TemporaryDirectory(
            prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True
        ) as folder,
    ):
        complete = Path(folder) / path.name
        yield str(complete)
        if path.exists() and not replace and not _is_empty_folder(path):  # somebody was faster
            raise FileExistsError(f"{path} exists by now; it was left as it is")
        put_in_place(complete, path)


def refuse_read_only(store: Any) -> None:
    """Say at once that a Zarr store cannot be written.

    Raises
    ------
    ValueError
    """
    if getattr(store, "read_only", False):
        raise ValueError(f"{store} is for reading only; give a store that can be written")


def is_zip(store: Any) -> bool:
    """Whether a store is one local file: a ZipStore, or a path that ends with ``.zip``."""
    if isinstance(store, ZipStore):
        return True
    path = local_path(store)
    return path is not None and path.suffix == ".zip" and not path.is_dir()


@contextmanager
def _put_zip_whole(store: Any, *, replace: bool) -> Iterator[str]:
    """A folder to write to, which becomes a zip file in its place when the block is done."""
    given = store if isinstance(store, ZipStore) else None
    path = (local_path(store) if given is None else given.path.resolve()) or Path()
    compression = zipfile.ZIP_STORED if given is None else given.compression
    # A store of mode "w" that was opened has emptied its file already.
    opened = given is not None and given._is_open
    if given is not None:
        if given.read_only:
            raise ValueError(f"{path}: this ZipStore is for reading; give one with mode='w'")
        replace = replace or given._zmode == "w"
    empty = not path.exists() or path.stat().st_size == 0
    if given is not None and opened:
        empty, replace = not given._zf.namelist(), False
    if not empty and not replace:
        raise FileExistsError(
            f"{path} exists, and nothing can be added to a zip file; give mode='w' to replace it, "
            "or another name"
        )
    if not empty and given is None and not _is_zipped_store(path):
        raise FileExistsError(f"{path} is no Zarr store, mode='w' would delete it; move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    existed = path.exists()
    try:
        with (
            cleared_up(),
            tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder,
        ):
            unzipped, complete = Path(folder) / "store", Path(folder) / path.name
            yield str(unzipped)
            _zip(unzipped, complete, compression)
            if path.exists() and not (existed or replace):
                raise FileExistsError(f"{path} exists by now; it was left as it is")
            if given is not None and opened:
                given.close()
            complete.replace(path)
    except BaseException:
        if given is not None and opened:
            given.close()
            path.unlink(missing_ok=True)
        raise
    if given is not None:
        # The caller may go on with the same object, which in mode "w" would empty the file, and
        # which Zarr opens for reading only if it is read-only.
        given._zmode, given._read_only = "r", True
        given._sync_open()


def _is_zipped_store(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as file:
        return any(name in file.namelist() for name in DOCUMENTS)


def _zip(folder: Path, target: Path, compression: int) -> None:
    """Write all files of a folder into a zip file, on the disk when this returns, and check it."""
    with target.open("wb") as raw:
        with zipfile.ZipFile(raw, "w", compression) as file:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    file.write(path, path.relative_to(folder).as_posix())
        raw.flush()
        os.fsync(raw.fileno())
    with zipfile.ZipFile(target) as file:
        if (damaged := file.testzip()) is not None:
            raise OSError(f"{target.name}: {damaged} came back from the disk damaged")


def local_path(store: Any) -> Path | None:
    """The folder that a store is, or None if it is elsewhere."""
    if isinstance(store, LocalStore):
        store = None if store.read_only else store.root
    if isinstance(store, str):
        store = store.removeprefix("file://")
        return None if "://" in store else Path(store).resolve()
    return Path(store).resolve() if isinstance(store, os.PathLike) else None


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())


def _is_store(path: Path) -> bool:
    return any((path / name).exists() for name in DOCUMENTS)


def open_group(
    store: Any, group: str | None, storage_options: Any = None, *, mode: Literal["r", "r+"] = "r"
) -> zarr.Group | None:
    """A group by its own metadata, for reading unless told otherwise; None if it is not there."""
    store = os.fspath(store) if isinstance(store, os.PathLike) else store
    try:
        return zarr.open_group(
            store, mode=mode, path=group or "", storage_options=storage_options,
            use_consolidated=False,
        )  # fmt: skip
    except FileNotFoundError:
        return None


@contextmanager
def compact_documents() -> Iterator[None]:
    """Zarr writes metadata without line breaks and indentation, which take up to half of it."""
    # The setting belongs to the whole process: the last of several threads restores it.
    global _compacting, _compact
    with _compact_lock:
        if _compacting == 0:
            _compact = zarr.config.set({"json_indent": None})
        _compacting += 1
    try:
        yield
    finally:
        with _compact_lock:
            _compacting -= 1
            if _compacting == 0:
                _compact.__exit__(None, None, None)


def is_consolidated(group: zarr.Group) -> bool:
    """Whether the store's root holds the metadata of everything below it."""
    return zarr.open_group(group.store, mode="r").metadata.consolidated_metadata is not None


def codec_of(array: zarr.Array[Any]) -> Any:
    """Our codec of an array, sharded or not, or None."""
    metadata = array.metadata
    codecs = list(metadata.codecs) if metadata.zarr_format == 3 else [metadata.compressor]
    for codec in codecs:
        if isinstance(codec, ShardingCodec):
            codecs = list(codec.codecs)
    return find_codec({"compressors": codecs})


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """The names of an array's dimensions as xarray writes them."""
    if array.metadata.zarr_format == 3:
        return tuple(name or "" for name in array.metadata.dimension_names or ())
    return tuple(str(name) for name in array.attrs.get("_ARRAY_DIMENSIONS", ()))  # type: ignore[union-attr]


def stored_chunks(array: zarr.Array[Any], where: Sequence[slice]) -> list[StoredChunk]:
    """What the store holds of a part of an array that begins and ends with its chunks.

    Parameters
    ----------
    array : zarr.Array
        Written with one of our codecs.
    where : sequence of slice
        One for every axis, with start and stop.

    Returns
    -------
    list of StoredChunk
        Placed relative to the part, along all axes but those of cells. Zarr does not write chunks
        that hold the fill value only.
    """
    chunks, before = [], array.ndim - cell_axes_in(array)
    for place, payload in payloads_in(array, where):
        inside = tuple(
            slice(p.start - w.start, p.stop - w.start)
            for p, w in zip(place[:before], where, strict=False)
        )
        chunks.append(StoredChunk(inside, len(payload), Payload.unpack(payload).kind))
    return chunks


def cell_axes_in(array: zarr.Array[Any]) -> int:
    """How many of the last axes of an array hold the cells of a field."""
    codec = codec_of(array)
    return 2 if codec is None else int(codec.cell_axes_of(array.shape))


def compressed_in(group: zarr.Group) -> list[str]:
    """Names of the arrays at a group's root that our codecs compress."""
    return sorted(name for name, array in group.arrays() if codec_of(array) is not None)


def payloads_in(
    array: zarr.Array[Any], where: Sequence[slice]
) -> Iterator[tuple[tuple[slice, ...], bytes]]:
    """The payloads of a part of an array, whether they lie in shards or in files of their own.

    Parameters
    ----------
    array, where
        As for :func:`stored_chunks`.

    Yields
    ------
    where : tuple of slice
        In the array.
    payload : bytes
    """
    files = array.shards or array.chunks
    grid = [range(p.start // n, -(-p.stop // n)) for p, n in zip(where, files, strict=True)]
    positions = list(product(*grid))
    keys = [array.metadata.encode_chunk_key(position) for position in positions]
    for position, content in zip(positions, _read(array.store_path, keys), strict=True):
        if content is None:
            continue
        corner = [i * n for i, n in zip(position, files, strict=True)]
        payloads = {(0,) * len(corner): content}
        if array.shards:
            payloads = unpacked_shard(chunks_in_shard(array), content)
        for inner, payload in payloads.items():
            starts = [c + i * n for c, i, n in zip(corner, inner, array.chunks, strict=True)]
            place = tuple(
                slice(start, min(start + n, length))
                for start, n, length in zip(starts, array.chunks, array.shape, strict=True)
            )
            if all(
                p.start < w.stop and p.stop > w.start for p, w in zip(place, where, strict=True)
            ):
                yield place, payload


def chunks_in_shard(array: Any) -> tuple[int, ...]:
    """How many chunks a file of an array holds along every axis."""
    files = array.shards or array.chunks
    return tuple(length // n for length, n in zip(files, array.chunks, strict=True))


def unpacked_shard(counts: Sequence[int], shard: bytes) -> dict[tuple[int, ...], bytes]:
    """The chunks of a shard as zarr writes it: at its end offset and length of each, and a CRC.

    Parameters
    ----------
    counts : sequence of int
        Chunks in a shard along every axis.
    shard : bytes

    Returns
    -------
    dict
        From a chunk's index in the shard to its bytes, in the order of the file; chunks that are
        not there are left out.

    Raises
    ------
    CorruptPayloadError
    """
    raw = shard[-16 * prod(counts) - 4 : -4]
    checksum = google_crc32c.value(raw).to_bytes(4, "little")
    if len(raw) != 16 * prod(counts) or checksum != shard[-4:]:
        raise CorruptPayloadError("the index of a shard is damaged")
    index = np.frombuffer(raw, "<u8").reshape(*counts, 2)
    there = [inner for inner in np.ndindex(*counts) if index[inner][0] != _NOT_THERE]
    return {
        inner: shard[int(index[inner][0]) : int(index[inner].sum())]
        for inner in sorted(there, key=lambda inner: int(index[inner][0]))
    }


def packed_shard(counts: Sequence[int], chunks: Mapping[tuple[int, ...], bytes]) -> bytes:
    """The inverse of :func:`unpacked_shard`."""
    index = np.full((*counts, 2), _NOT_THERE, "<u8")
    offset = 0
    for inner, chunk in chunks.items():
        index[inner] = offset, len(chunk)
        offset += len(chunk)
    checksum = google_crc32c.value(index.tobytes())
    return b"".join([*chunks.values(), index.tobytes(), checksum.to_bytes(4, "little")])


def metadata_documents(group: zarr.Group) -> list[bytes]:
    """The metadata of a group and its arrays, and what is consolidated at the store's root."""
    folders = {"", group.path, *(array.path for _, array in group.arrays())}
    keys = [f"{folder}/{name}".lstrip("/") for folder in folders for name in DOCUMENTS]
    return [document for document in _read(StorePath(group.store), keys) if document is not None]


def chunk_nbytes(arrays: Iterable[zarr.Array[Any]]) -> int:
    """Bytes that arrays take in the store without their metadata."""
    total = 0
    for array in arrays:
        documents = _read(array.store_path, DOCUMENTS)
        total += array.nbytes_stored() - sum(len(d) for d in documents if d is not None)
    return total


def _read(folder: StorePath, keys: Sequence[str]) -> Iterator[bytes | None]:
    async def get(some: Sequence[str]) -> list[Any]:
        prototype = default_buffer_prototype()
        return await asyncio.gather(*((folder / key).get(prototype) for key in some))

    for start in range(0, len(keys), _AT_ONCE):
        for buffer in sync(get(keys[start : start + _AT_ONCE])):
            yield None if buffer is None else buffer.to_bytes()
