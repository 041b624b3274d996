"""What a store holds, held against what it says of itself, block by block."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import dask
import numpy as np
import xarray as xr
import zarr

from coinpp_xr.archiving.cluster import in_windows
from coinpp_xr.archiving.growing import offset_of
from coinpp_xr.archiving.manifest import Rows, column, entry, variables_of
from coinpp_xr.archiving.parts import Options, Part, part_of
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.tiling import Tiling, block_shape
from coinpp_xr.archiving.work import Failure, Job, examine, in_plain_errors
from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.chunk_places import places_of
from coinpp_xr.data.sources import one_line
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.labels import place_label
from coinpp_xr.model_choice import Choice
from coinpp_xr.selection import Layout
from coinpp_xr.stores import cell_axes_in, codec_of, compressed_in, dims_of, payloads_in

if TYPE_CHECKING:
    from distributed import Client

Index = tuple[int, ...]
# In the place of a block: the whole array.
WHOLE = -1
# Blocks that are looked at together in this process: most of the time is the store's.
_THREADS, _AT_ONCE = 8, 256
_ELSEWHERE = "it is not the chunk that was written here"
_UNKNOWN = "it does not say where it belongs, though others of this array do"
_LOST = "it is not in the store"


# ---- one block ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class BlockState:
    """What a look at a block found.

    Parameters
    ----------
    n_placed : int
        Chunks that are where they belong.
    elsewhere, unplaced, lost : tuple of index
        Chunks that belong elsewhere, that do not say where, and that are not there.
    wrong : tuple of (index or None, str)
        What else is wrong with a chunk, or with the block as a whole.
    """

    n_placed: int = 0
    elsewhere: tuple[Index, ...] = ()
    unplaced: tuple[Index, ...] = ()
    lost: tuple[Index, ...] = ()
    wrong: tuple[tuple[Index | None, str], ...] = ()


def look_at_block(
    array: zarr.Array[Any],
    tiling: Tiling,
    number: int,
    row: Rows | None,
    places: Mapping[Index, bytes],
    decode: bool,
) -> BlockState:
    """Read all payloads of a block, and hold them against their own checksums and the manifest.

    Parameters
    ----------
    array : zarr.Array
    tiling : Tiling
    number : int
        Of the block.
    row : array or None
        Of the manifest.
    places : mapping
        What the block's chunks should say of where they belong.
    decode : bool
        Whether payloads that are as they were written are decoded, too.
    """
    where = tiling.where(number)
    expected = {_index(array, chunk): chunk for chunk in tiling.chunks_of(where)}
    elsewhere, unplaced, n_placed, nbytes, checksum = [], [], 0, 0, 0
    wrong: list[tuple[Index | None, str]] = []
    seen: set[Index] = set()
    for chunk, payload in payloads_in(array, where):
        index = _index(array, chunk)
        seen.add(index)
        nbytes += len(payload)
        checksum = zlib.crc32(payload[:-4], checksum)
        try:
            is_there = is_in_place(payload, places[index])
        except CorruptPayloadError as error:
            wrong.append((index, str(error)))
            continue
        n_placed += is_there is True
        unplaced += [index] * (is_there is None)
        elsewhere += [index] * (is_there is False)
    lost = tuple(index for index in expected if index not in seen)
    if row is not None and not (wrong or lost or elsewhere):
        known = int(column(row, "nbytes")), int(column(row, "payload_crc32"))
        if (nbytes, checksum) != known:
            text = (
                f"{nbytes:,} bytes with checksum {checksum:08x} are stored, {known[0]:,} with "
                f"{known[1]:08x} were written"
            )
            wrong.append((next(iter(expected)) if len(expected) == 1 else None, text))
    if decode and not wrong:
        for index in seen & expected.keys():
            try:
                array[expected[index]]
            except Exception as error:  # whatever is wrong with it
                wrong.append((index, one_line(error)))
    return BlockState(n_placed, tuple(elsewhere), tuple(unplaced), lost, tuple(wrong))


def is_in_place(payload: bytes, place: bytes) -> bool | None:
    """Whether a payload belongs to a place; None if it does not say.

    Raises
    ------
    CorruptPayloadError
    """
    found = Payload.unpack(payload).sections.get(Tag.PLACE)
    return None if found is None else found == place


def _index(array: zarr.Array[Any], chunk: Sequence[slice]) -> Index:
    return tuple(part.start // n for part, n in zip(chunk, array.chunks, strict=True))


@in_plain_errors
def check_block(
    original: xr.Variable | None,
    job: Job,
    number: int,
    row: Rows | None,
    places: Mapping[Index, bytes],
    decode: bool,
) -> BlockState:
    """What a worker does: look at a block, and hold it against the original where there is one.

    Raises
    ------
    RuntimeError
        If it cannot be read.
    """
    array = job.open(job.name, read_only=True)
    state = look_at_block(array, job.tiling, number, row, places, decode and original is None)
    if original is None or state.wrong or state.lost or state.elsewhere:
        return state
    found = examine(job.values(original), array, job, number)
    if row is not None and column(found, "source_crc32") != column(row, "source_crc32"):
        raise RuntimeError("the source holds other values than when this was archived")
    return state


# ---- all blocks ---------------------------------------------------------------------------------

# Arguments of check_block.
_Call = tuple[xr.Variable | None, Job, int, Rows | None, Mapping[Index, bytes], bool]
# Gives, for calls in any order, their number and what came of them: a reason where that failed.
Runner = Callable[[Iterable[_Call]], Iterator[tuple[int, BlockState | str]]]


def here(calls: Iterable[_Call]) -> Iterator[tuple[int, BlockState | str]]:
    """Look at blocks in threads of this process."""

    def look(call: _Call) -> BlockState | str:
        try:
            return check_block(*call)
        except RuntimeError as error:
            return one_line(error)

    waiting, start = iter(calls), 0
    with ThreadPoolExecutor(_THREADS) as pool:
        while batch := list(islice(waiting, _AT_ONCE)):
            yield from enumerate(pool.map(look, batch), start)
            start += len(batch)


def on_workers(
    client: Client, threads: int, calls: Iterable[_Call]
) -> Iterator[tuple[int, BlockState | str]]:
    """Look at blocks on the workers of a dask cluster."""
    lazy = (dask.delayed(check_block, pure=False)(*call) for call in calls)
    for position, future in in_windows(client, lazy, threads):
        try:
            yield position, future.result()
        except Exception as error:  # whatever is wrong with a block
            yield position, one_line(error)


@dataclass
class Findings:
    """What a look at everything in a group found.

    Parameters
    ----------
    problems : list of Failure
    missing : dict
        Blocks by variable that the manifest does not know as done.
    unplaced : dict
        Chunks by variable that do not say where they belong.
    n_placed, n_blocks, n_compared : int
        Chunks that are where they belong, blocks that were looked at and held against the source.
    """

    problems: list[Failure] = field(default_factory=list)
    missing: dict[str, int] = field(default_factory=dict)
    unplaced: dict[str, int] = field(default_factory=dict)
    n_placed: int = 0
    n_blocks: int = 0
    n_compared: int = 0


def look_through(
    place: Place,
    group: zarr.Group,
    run: Runner,
    *,
    source: xr.Dataset | None = None,
    decode: bool = True,
) -> Findings:
    """Look at everything in a group that is compressed, and read everything else.

    Parameters
    ----------
    place : Place
    group : zarr.Group
    run : callable
        :func:`here`, or :func:`on_workers` for some client.
    source : Dataset, optional
    decode : bool
    """
    found = Findings()
    names = compressed_in(group)
    coordinates = {dim for name in names for dim in dims_of(_array(group, name))}
    for name, array in group.arrays():
        if name not in names and (reason := _unreadable(array)):
            found.problems.append(Failure(name, WHOLE, "", reason))
    if any(problem.variable in coordinates for problem in found.problems):
        return found  # not even the rest can be opened
    dataset = xr.open_zarr(group.store, group=group.path, consolidated=False, chunks=None)
    known = variables_of(group)
    for name in names:
        array = _array(group, name)
        tiling, rows = _tiling(array), None
        if name in known:
            _, manifest = entry(group, name)
            tiling, rows = manifest.tiling(array), manifest.rows
        part = None if source is None else _part(dataset[name], source, name, tiling)
        areas = None if part is None else Layout.of(part.array).cells.areas
        areas = areas or CellWeights(np.ones(1), tiling.cell_axes)
        job = Job(
            place.store, place.storage_options, array.path, tiling, areas, verify=True,
            zarr_format=group.metadata.zarr_format,
        )  # fmt: skip
        todo = [i for i in range(len(tiling)) if rows is None or np.isfinite(rows[i, 0])]
        if len(todo) < len(tiling):
            found.missing[name] = len(tiling) - len(todo)
        covered = set() if part is None else set(part.blocks())
        places = places_of(array)  # once: it reads the coordinate
        calls: Iterator[_Call] = (
            (
                part.block(number) if part is not None and number in covered else None,
                job, number, None if rows is None else rows[number],
                places.within(tiling.where(number)), decode,
            )
            for number in todo
        )  # fmt: skip
        states = {todo[position]: state for position, state in run(calls)}
        found.n_blocks += len(states)
        found.n_compared += len(covered & states.keys())
        _add(found, dataset[name], tiling, dict(sorted(states.items())), has_rows=rows is not None)
    if found.n_placed or known:
        # Our writers leave no chunk out, so that what is not there was lost.
        found.problems[:0] = [
            Failure(name, WHOLE, "", f"{lost} of its chunks are not in the store")
            for name, array in group.arrays()
            if name in coordinates and (lost := array.nchunks - array.nchunks_initialized)
        ]
    return found


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array


def _add(
    found: Findings,
    variable: xr.DataArray,
    tiling: Tiling,
    states: Mapping[int, BlockState | str],
    *,
    has_rows: bool,
) -> None:
    """What was found in the blocks of one variable, chunk by chunk where that is known."""
    name = str(variable.name)
    sound = {n: state for n, state in states.items() if isinstance(state, BlockState)}
    n_placed = sum(state.n_placed for state in sound.values())
    elsewhere = [index for state in sound.values() for index in state.elsewhere]
    unplaced = [index for state in sound.values() for index in state.unplaced]
    found.n_placed += n_placed
    if not n_placed and not elsewhere:
        found.unplaced |= {name: len(unplaced)} if unplaced else {}
    if not n_placed and len(elsewhere) > 1:
        time = tiling.dims[tiling.time_axis]
        found.problems.append(
            Failure(name, WHOLE, "", "no chunk was written where it lies: it had another name, or "
                    f"{time} other values, when it was written")
        )  # fmt: skip
        sound = {n: replace(state, elsewhere=()) for n, state in sound.items()}

    def problem(number: int, index: Index | None, reason: str) -> None:
        where: Sequence[slice] = tiling.where(number)
        if index is not None:
            where = [slice(i * n, (i + 1) * n) for i, n in zip(index, tiling.chunks, strict=True)]
            reason = f"chunk {'/'.join(map(str, index))}: {reason}"
        label = place_label(variable, tiling.batch, where[: len(tiling.batch)])
        found.problems.append(Failure(name, number, label, reason))

    for number, state in states.items():
        if isinstance(state, str):
            problem(number, None, state)
            continue
        state = sound[number]
        reasons = dict.fromkeys(state.elsewhere, _ELSEWHERE)
        reasons |= dict.fromkeys(state.unplaced, _UNKNOWN) if n_placed else {}
        reasons |= dict.fromkeys(state.lost, _LOST) if n_placed or elsewhere or has_rows else {}
        for index, reason in [*state.wrong, *reasons.items()]:
            problem(number, index, reason)


def _unreadable(array: zarr.Array[Any]) -> str:
    """Why an array that our codecs do not compress cannot be read; empty if it can."""
    tiling = Tiling(("",) * array.ndim, array.shape, array.chunks, array.chunks, 0)
    for number in range(len(tiling)):
        where = tiling.where(number) if array.ndim else ()
        try:
            array[where]
        except Exception as error:  # whatever is wrong with it
            return f"chunk {'/'.join(map(str, _index(array, where)))}: {one_line(error)}"
    return ""


def _tiling(array: zarr.Array[Any]) -> Tiling:
    """Blocks of a store that has no manifest."""
    dims = dims_of(array)
    axis = getattr(codec_of(array), "time_axis", None) or 0
    axes = cell_axes_in(array)
    block = block_shape(array.shape, array.chunks, array.dtype.itemsize, array.shards, axes)
    return Tiling(dims, array.shape, array.chunks, block, axis, axes)


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


def refuse_unsound(
    place: Place, group: zarr.Group, run: Runner = here, *, decode: bool = False, advice: str = ""
) -> Findings:
    """Raise the first problem of a store whose payloads are not those that were written.

    Parameters
    ----------
    place, group, run, decode
        As for :func:`look_through`.
    advice : str
        What to do about it.

    Raises
    ------
    CorruptPayloadError
    """
    found = look_through(place, group, run, decode=decode)
    if found.problems:
        more = f" (and {len(found.problems) - 1:,} more problems)" * (len(found.problems) > 1)
        advice = advice or "coinpp verify tells more"
        raise CorruptPayloadError(
            f"{place}: {found.problems[0]}{more}; {advice}, --no-check (check=False) goes on "
            "regardless"
        )
    return found
