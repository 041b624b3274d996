"""What is in a store: checked, unpacked for readers without this package, and shown."""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr
import zarr

from coinpp_xr.archiving.cluster import a_client, check_workers, in_windows
from coinpp_xr.archiving.growing import offset_of
from coinpp_xr.archiving.manifest import Rows, column, entries_of, entry, variables_of
from coinpp_xr.archiving.parts import Options, Part, part_of
from coinpp_xr.archiving.places import place_of
from coinpp_xr.archiving.sources import open_source
from coinpp_xr.archiving.tiling import Tiling, block_shape
from coinpp_xr.archiving.work import Failure, Job, examine, in_plain_errors, stored
from coinpp_xr.bitstream import Payload
from coinpp_xr.data.sources import one_line
from coinpp_xr.labels import place_label
from coinpp_xr.model_choice import Choice
from coinpp_xr.selection import Layout
from coinpp_xr.stores import codec_of, dims_of, local_path, stored_payloads

if TYPE_CHECKING:
    from distributed import Client


# ---- verify -------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Verification:
    """What a look at everything in a store found.

    Parameters
    ----------
    store : str
    n_blocks : int
        That were looked at.
    n_compared : int
        That were also held against the source.
    problems : tuple of Failure
    missing : dict
        Blocks by variable that the manifest does not know as done.
    seconds : float
    has_source : bool
        Whether there was one to compare with; it must hold a block whole to be of use.
    """

    store: str
    n_blocks: int
    n_compared: int
    problems: tuple[Failure, ...]
    missing: dict[str, int]
    seconds: float

    has_source: bool = False

    @property
    def is_sound(self) -> bool:
        """Whether everything is there and as it should be; with a source, compared with it."""
        compared = self.n_compared > 0 or not self.has_source
        return not self.problems and not self.missing and compared

    def __str__(self) -> str:
        compared = f", {self.n_compared:,} of them held against the source" * self.has_source
        lines = [
            f"{self.store}: {self.n_blocks:,} blocks read and decoded{compared}, "
            f"{len(self.problems)} problems ({self.seconds:.1f} s)"
        ]
        lines += [f"{name}: {count:,} blocks are missing" for name, count in self.missing.items()]
        return "\n".join([*lines, *map(str, self.problems)])

    __repr__ = __str__


def verify(
    store: Any,
    source: Any = None,
    *,
    client: Client | None = None,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    forget: bool = False,
) -> Verification:
    """Read everything that is compressed in a store, and hold it against what it should be.

    Every payload is read, its checksum checked, and decoded. Of an archive, size and checksum
    must be those of the manifest. With the source, every promise on errors is checked again.

    Parameters
    ----------
    store : str, path, Zarr store or icechunk.Repository
        An archive, or a store written by ``ds.coinpp.to_zarr`` or ``ds.to_zarr``.
    source : path, URL, pattern, list of these, Dataset or DataArray, optional
        What it was made from, or a part of that along time.
    client, workers, storage_options
        As for :func:`coinpp_xr.archive`.
    forget : bool
        Take blocks with problems out of the archive's manifest, so that :func:`coinpp_xr.archive`
        writes them again.

    Returns
    -------
    Verification

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such store, or nothing compressed in it.
    """
    place = place_of(store, storage_options, only_read=True)
    group = place.root(read_only=True)
    names = compressed_in(group)
    if not names:
        raise ValueError(f"{place}: no variable is compressed by coinpp-xr")
    dataset = xr.open_zarr(group.store, consolidated=False, chunks=None)
    opened = None if source is None else open_source(source, names, 1).dataset
    if opened is not None and (unknown := [n for n in names if n not in opened]) == names:
        raise ValueError(f"the source has none of {', '.join(unknown)}")
    started = time.perf_counter()
    known = variables_of(group)
    n_blocks = n_compared = 0
    problems: list[Failure] = []
    missing: dict[str, int] = {}
    with a_client(client, workers) as connected:
        threads = check_workers(connected, gpu=False)
        for name in names:
            array = group[name]
            assert isinstance(array, zarr.Array)
            rows: Rows | None = None
            if name in known:
                _, manifest = entry(group, name)
                tiling, rows = manifest.tiling(array), manifest.rows
            else:
                tiling = _tiling(array)
            part = None if opened is None else _part(dataset[name], opened, name, tiling)
            latitude = Layout.of(dataset[name]).latitude
            job = Job(
                place.store, place.storage_options, name, tiling, latitude, verify=True,
                zarr_format=group.metadata.zarr_format,
            )  # fmt: skip
            todo = [i for i in range(len(tiling)) if rows is None or np.isfinite(rows[i, 0])]
            if len(todo) < len(tiling):
                missing[name] = len(tiling) - len(todo)
            covered = set() if part is None else set(part.blocks())
            lazy = (
                dask.delayed(check_block, pure=False)(
                    part.block(index) if part is not None and index in covered else None,
                    job, index, None if rows is None else rows[index],
                )
                for index in todo
            )  # fmt: skip
            for position, future in in_windows(connected, lazy, threads):
                index = todo[position]
                n_blocks += 1
                n_compared += index in covered
                reason = _reason(future)
                if reason:
                    where = place_label(dataset[name], tiling.dims[:-2], tiling.where(index)[:-2])
                    problems.append(Failure(name, index, where, reason))
    seconds = time.perf_counter() - started
    problems.sort(key=lambda problem: (problem.variable, problem.index))
    if forget and problems:
        with place.changing() as current:
            root = current.root()
            for problem in problems:
                if problem.variable in known:
                    entry(root, problem.variable)[1].forget([problem.index])
    return Verification(
        str(place), n_blocks, n_compared, tuple(problems), missing, seconds, opened is not None
    )


@in_plain_errors
def check_block(original: xr.Variable | None, job: Job, index: int, row: Rows | None) -> None:
    """Read and decode a block; hold it against the manifest and the original where there are.

    Raises
    ------
    Exception
        That says what is wrong.
    """
    array = job.open(job.name, read_only=True)
    where = job.tiling.where(index)
    nbytes, checksum, _ = stored(array, where)
    if row is not None:
        expected = int(column(row, "nbytes")), int(column(row, "payload_crc32"))
        if (nbytes, checksum) != expected:
            raise RuntimeError(
                f"{nbytes:,} bytes with checksum {checksum:08x} are stored, "
                f"{expected[0]:,} with {expected[1]:08x} were written"
            )
    if original is None:
        np.asarray(array[where])
        return
    values = job.values(original)
    found = examine(values, array, job, index)
    if row is not None and column(found, "source_crc32") != column(row, "source_crc32"):
        raise RuntimeError("the source holds other values than when this was archived")


def _reason(future: Any) -> str:
    try:
        future.result()
    except Exception as error:  # whatever is wrong with a block
        return one_line(error)
    return ""


def _tiling(array: zarr.Array[Any]) -> Tiling:
    """Blocks of a store that has no manifest."""
    dims = dims_of(array)
    axis = getattr(codec_of(array), "time_axis", None) or 0
    block = block_shape(array.shape, array.chunks, array.dtype.itemsize, array.shards)
    return Tiling(dims, array.shape, array.chunks, block, axis)


def _part(dataarray: xr.DataArray, source: xr.Dataset, name: str, tiling: Tiling) -> Part | None:
    """The source's part of a variable, where it has it."""
    if name not in source:
        return None
    own, dim = source[name], tiling.dims[tiling.time_axis]
    offset: int | None = 0
    if dim in own.coords and dim in dataarray.coords:
        offset = offset_of(dataarray[dim].to_numpy(), own[dim].to_numpy())
    if offset is None or set(map(str, own.dims)) != set(tiling.dims):
        raise ValueError(f"{name!r}: the source does not lie on the coordinates of the store")
    return part_of(own, tiling, offset, Options(zarr_format=3), Choice(None))


# ---- decompress ---------------------------------------------------------------------------------


def decompress(
    store: Any,
    target: str | Path,
    *,
    overwrite: bool = False,
    partial: bool = False,
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
    storage_options : mapping, optional
        For fsspec.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
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


@contextmanager
def _appearing(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """A place beside the target, which becomes the target when the block ends well."""
    if target.exists() and not overwrite:
        raise FileExistsError(
            f"{target} exists; say overwrite (--force) to replace it, or give another name"
        )
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}; make it first")
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        unfinished = Path(folder) / target.name
        yield unfinished
        if target.is_dir():
            shutil.move(target, Path(folder) / "replaced")
        unfinished.replace(target)


# ---- look into ----------------------------------------------------------------------------------


def compressed_in(group: zarr.Group) -> list[str]:
    """Names of the arrays at a group's root that our codecs compress."""
    return sorted(name for name, array in group.arrays() if codec_of(array) is not None)


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
    for place, payload in stored_payloads(array, where):
        unpacked = Payload.unpack(payload)
        sections = {tag.name.lower(): len(data) for tag, data in unpacked.sections.items()}
        return ChunkView(
            name, place, len(payload), unpacked.kind.name.lower().replace("_", " "),
            tuple(unpacked.shape), str(unpacked.dtype), unpacked.fingerprint or None, sections,
        )  # fmt: skip
    raise ValueError(f"chunk {key!r} is not stored: it holds the fill value only, or is not done")
