"""What is in a store: checked, unpacked for readers without this package, and shown."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from coinpp_xr.archiving.checking import is_in_place, refuse_unsound
from coinpp_xr.archiving.manifest import entries_of
from coinpp_xr.archiving.places import place_of
from coinpp_xr.bitstream import Payload
from coinpp_xr.chunk_places import places_of
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.files import cleared_up, put_in_place
from coinpp_xr.stores import compressed_in, local_path, payloads_in

# ---- decompress ---------------------------------------------------------------------------------


def decompress(
    store: Any,
    target: str | Path,
    *,
    overwrite: bool = False,
    partial: bool = False,
    check: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write what is in a store as plain data, for readers that do not have this package.

    Chunk by chunk: memory does not grow with the archive. The target appears when it is whole.

    Parameters
    ----------
    store : str, path, Zarr store or icechunk.Repository
    target : str or path
        ``.nc`` (NetCDF-4, deflated) or ``.zarr`` (Zarr's default codecs).
    overwrite : bool
        Whether an existing target makes way.
    partial : bool
        Whether an archive may have blocks that are not written yet; they become NaN.
    check : bool
        Look at all payloads first: whether they are those that were written, where they belong.
    storage_options : mapping, optional
        For fsspec.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
    CorruptPayloadError
        If a chunk is damaged, lost, or another than was written; nothing is written then.
    """
    target = Path(target)
    if target.suffix not in (".nc", ".zarr"):
        raise ValueError(f"{target}: give a name that ends with .nc or .zarr")
    place = place_of(store, storage_options, only_read=True)
    group = place.root(read_only=True)
    if (local := local_path(place.store)) is not None and local == target.resolve():
        raise ValueError(f"{target} is the store itself; give another name")
    for name, (_, manifest) in entries_of(group).items():
        if (left := int((~manifest.done()).sum())) and not partial:
            raise ValueError(
                f"{place}: {left:,} blocks of {name!r} are missing; finish the archive first, or "
                "take them as NaN (partial)"
            )
    if check:
        _check_appearing(target, overwrite=overwrite)
        refuse_unsound(place, group)
    try:
        _unpack(group, target, overwrite=overwrite)
    except (CorruptPayloadError, RuntimeError):
        refuse_unsound(place, group, decode=True)  # says where
        raise


def _unpack(group: zarr.Group, target: Path, *, overwrite: bool) -> None:
    with _appearing(target, overwrite=overwrite) as unfinished:
        dataset = xr.open_zarr(group.store, consolidated=False, chunks={})
        ours = compressed_in(group)
        encoding: dict[Any, dict[str, Any]] = {}
        for name in dataset.data_vars:
            array = dataset[name]
            if name in ours:
                array.encoding = {}
            if target.suffix == ".nc" and array.ndim and array.dtype.kind in "fiu":
                chunks = tuple(sizes[0] for sizes in array.chunks or ()) or None
                encoding[name] = {"zlib": True, "complevel": 1, "chunksizes": chunks}
        if target.suffix == ".nc":
            dataset.to_netcdf(unfinished, engine="netcdf4", encoding=encoding)
            return
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            dataset.to_zarr(unfinished, zarr_format=group.metadata.zarr_format)


def _check_appearing(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target} exists; say overwrite (--force) to replace it, or give another name"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}; make it first")


@contextmanager
def _appearing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A place beside the target, which becomes the target when the block ends well."""
    _check_appearing(target, overwrite=overwrite)
    with (
        cleared_up(),
        tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder,
    ):
        unfinished = Path(folder) / target.name
        yield unfinished
        put_in_place(unfinished, target)


# ---- look into ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkView:
    """One payload of a store, from outside."""

    name: str
    where: tuple[slice, ...]
    nbytes: int
    kind: str
    shape: tuple[int, ...]
    dtype: str
    fingerprint: str | None
    sections: dict[str, int]
    # Whether it lies where it belongs; None if it does not say.
    in_place: bool | None


def look_at_chunk(group: zarr.Group, key: str) -> ChunkView:
    """A chunk by its key.

    Parameters
    ----------
    group : zarr.Group
    key : str
        ``t2m/3/0/0``, or as its file is called: ``t2m/c/3/0/0``, ``t2m/3.0.0``.

    Raises
    ------
    ValueError
        If there is no such chunk.
    """
    name, _, rest = key.strip("/").partition("/")
    names = compressed_in(group)
    if name not in names:
        raise ValueError(f"no compressed variable {name!r}; there are: {', '.join(names)}")
    array = group[name]
    assert isinstance(array, zarr.Array)
    numbers = [part for part in rest.replace(".", "/").split("/") if part not in ("", "c")]
    counts = [-(-n // depth) for n, depth in zip(array.shape, array.chunks, strict=True)]
    if len(numbers) != array.ndim or not all(
        part.isdigit() and int(part) < count for part, count in zip(numbers, counts, strict=False)
    ):
        example = "/".join(str(count - 1) for count in counts)
        raise ValueError(f"no chunk {key!r}; the last one is {name}/{example}")
    where = tuple(
        slice(int(i) * depth, min((int(i) + 1) * depth, n))
        for i, depth, n in zip(numbers, array.chunks, array.shape, strict=True)
    )
    for place, payload in payloads_in(array, where):
        unpacked = Payload.unpack(payload)
        sections = {tag.name.lower(): len(data) for tag, data in unpacked.sections.items()}
        return ChunkView(
            name, place, len(payload), unpacked.kind.name.lower().replace("_", " "),
            tuple(unpacked.shape), str(unpacked.dtype), unpacked.fingerprint or None, sections,
            is_in_place(payload, places_of(array).of([int(number) for number in numbers])),
        )  # fmt: skip
    raise ValueError(
        f"chunk {key!r} is not stored: it is lost or not done, or it holds the fill value only and "
        "the store was not written by this package"
    )
