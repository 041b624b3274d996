"""What an archive will take, from a sample: tasks, memory, size and time, before it is begun."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from inspect import signature
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import psutil
import xarray as xr
import zarr

from coinpp_xr.archiving.beginning import begin, check_same, designs_of
from coinpp_xr.archiving.growing import offsets_in
from coinpp_xr.archiving.manifest import entry, is_archive, variables_of
from coinpp_xr.archiving.parts import Options, Part, part_of, tiling_of
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.requests import request
from coinpp_xr.coarseness import checked_before
from coinpp_xr.errors import refuse_unknown
from coinpp_xr.labels import display_unit
from coinpp_xr.metrics import chunk_rmse, spread
from coinpp_xr.model_choice import Choice
from coinpp_xr.parallel import KEPT_BYTES, give_back_memory, thread_count
from coinpp_xr.report import by_text, is_much, share_of_spread
from coinpp_xr.settings import config
from coinpp_xr.stores import codec_of
from coinpp_xr.text_tables import Column, plain_text, text_tables
from coinpp_xr.variable_report import VariableReport, share
from coinpp_xr.verification import block_errors

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_SAMPLE_BLOCKS = 2


@dataclass(frozen=True)
class VariableForecast:
    """One variable of an archive to be.

    Parameters
    ----------
    name : str
    tasks, left : int
        Blocks, and those that are not done yet.
    block, chunks : tuple of int
        Shape of a block and of a chunk.
    raw_nbytes : int
        All values, as they are in memory.
    nbytes : int
        Expected size, without models and metadata.
    seconds : float
        Expected time per task: encode, decode and compare, on one thread of this machine.
    memory_nbytes : int
        What a task needs beside what the worker has anyway.
    asked : str
        The target or bound, for people; empty under ``bits``.
    rmse, spread : float or None
        Area-weighted error, and the standard deviation of the original (of the level or the like
        with the smallest one), in the blocks that were looked at and in the variable's unit.
    asked_of_spread : float or None
        The target or absolute bound per spread.
    remarks : str
    """

    name: str
    tasks: int
    left: int
    block: tuple[int, ...]
    chunks: tuple[int, ...]
    raw_nbytes: int
    nbytes: int
    seconds: float
    memory_nbytes: int
    asked: str = ""
    rmse: float | None = None
    spread: float | None = None
    asked_of_spread: float | None = None
    remarks: str = ""

    @property
    def ratio(self) -> float:
        return self.raw_nbytes / self.nbytes if self.nbytes else float("inf")

    @property
    def rmse_of_spread(self) -> float | None:
        return share(self.rmse, self.spread)


@dataclass(frozen=True, repr=False)
class ArchivePlan:
    """What :func:`coinpp_xr.archive` would do.

    Parameters
    ----------
    store : str
    variables : tuple of VariableForecast
    left_alone : dict
        Why each of the other variables is not compressed.
    workers : int
        For which the time is told.
    idle_nbytes : int
        What a process takes that has imported everything.
    """

    store: str
    variables: tuple[VariableForecast, ...]
    left_alone: dict[str, str]
    workers: int
    idle_nbytes: int

    @property
    def worker_nbytes(self) -> int:
        """Expected memory of a worker of one thread, with what it keeps for its next block."""
        task = max((v.memory_nbytes for v in self.variables), default=0)
        return self.idle_nbytes + task + KEPT_BYTES

    @property
    def seconds(self) -> float:
        """Expected time of what is left, if reading and writing cost nothing."""
        return sum(v.left * v.seconds for v in self.variables) / self.workers

    @property
    def nbytes(self) -> int:
        return sum(v.nbytes for v in self.variables)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        totals = {"seconds": self.seconds, "nbytes": self.nbytes}
        return asdict(self) | totals | {"worker_nbytes": self.worker_nbytes}

    @property
    def notes(self) -> list[str]:
        tasks, left = sum(v.tasks for v in self.variables), sum(v.left for v in self.variables)
        done = "" if tasks == left else f" ({tasks - left:,} are done)"
        raw = sum(v.raw_nbytes for v in self.variables)
        lines = [
            f"{self.store}: {left:,} tasks{done}, {_size(raw)} become about {_size(self.nbytes)}",
            f"about {_duration(self.seconds)} with {self.workers} workers of one thread as fast as "
            "here, reading and writing not counted; about "
            f"{_size(self.worker_nbytes)} of memory each",
        ]
        if any(is_much(s) for v in self.variables for s in (v.asked_of_spread, v.rmse_of_spread)):
            lines.append(
                "!: more than a tenth of the spread, the standard deviation of the blocks that "
                "were looked at"
            )
        lines += by_text((v.name, v.remarks) for v in self.variables if v.remarks)
        return lines + by_text(self.left_alone.items())

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        for columns in self._tables() if self.variables else ():
            yield from text_tables(columns, options.max_width)
        for note in self.notes:
            yield Padding(Text(note), (0, 0, 0, 1), expand=False)

    def _tables(self) -> Iterator[list[Column]]:
        """What is to come of every variable, and what it takes."""
        of = self.variables
        names = Column("variable", [v.name for v in of], "left", least=10)
        yield [
            names,
            Column("asked", [v.asked or "–" for v in of], least=10),
            Column("asked of spread", [share_of_spread(v.asked_of_spread) for v in of]),
            Column("RMSE of spread", [share_of_spread(v.rmse_of_spread) for v in of]),
            Column("values", [_size(v.raw_nbytes) for v in of]),
            Column("size", [_size(v.nbytes) for v in of]),
            Column("ratio", [f"{v.ratio:.3g}×" for v in of]),
        ]
        yield [
            names,
            Column("tasks", [f"{v.left:,}" for v in of]),
            Column("block", ["×".join(map(str, v.block)) for v in of]),
            Column("chunk", ["×".join(map(str, v.chunks)) for v in of]),
            Column("seconds per task", [f"{v.seconds:.2g}" for v in of]),
            Column("memory per task", [_size(v.memory_nbytes) for v in of]),
        ]

    def __str__(self) -> str:
        return plain_text(self)

    __repr__ = __str__


def plan_archive(
    source: Any, store: Any, *, workers: int | None = None, **settings: Any
) -> ArchivePlan:
    """What :func:`coinpp_xr.archive` would do, from two blocks of every variable; writes nothing.

    Parameters
    ----------
    source, store
        As for :func:`coinpp_xr.archive`.
    workers : int, optional
        How many there will be; default: as many as this process has cores.
    **settings
        As for :func:`coinpp_xr.archive`. No model is trained.

    Returns
    -------
    ArchivePlan

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
        As :func:`coinpp_xr.archive`.
    """
    refuse_unknown(settings, plan_archive, signature(request).parameters, "archive")
    place, opened, wanted, options = request(source, store, **settings)
    group = place.open(read_only=True)
    if group is not None and not (is_archive(group) and options.resume):
        begin(opened, place, wanted, options, lambda: None, lambda parts: None)  # says why not
    there = [] if group is None else variables_of(group)
    old = [name for name in wanted.chosen if str(name) in there]
    offsets = {} if group is None or not old else offsets_in(group, wanted)
    untrained = replace(wanted, settings=replace(wanted.settings, train_minutes=None))
    variables = []
    for name in wanted.chosen:
        array = wanted.dataset[name]
        remarks = []
        if name in old:
            assert group is not None
            check_same(group, name, wanted, options)
            part, codec, left = _rest(group, array, offsets, options)
        else:
            new, _ = designs_of(untrained, [name], options)[name]
            tiling, _ = tiling_of(array, new, options)
            part, codec = part_of(array, tiling, 0, options, new.choice), new.codec
            left = len(part.blocks())
            remarks = [new.choice.reason] if new.choice.reason else []
            if minutes := wanted.settings.train_minutes:
                remarks.append(f"{minutes:g} minutes of training come first and may save bytes")
        variables.append(_forecast(part, codec, left, "; ".join(remarks), options))
    left_alone = {str(name): reason for name, reason in wanted.reasons.items()}
    give_back_memory()
    idle = int(psutil.Process().memory_info().rss)
    return ArchivePlan(str(place), tuple(variables), left_alone, workers or thread_count(), idle)


def _rest(
    group: zarr.Group, array: xr.DataArray, offsets: Mapping[str, int], options: Options
) -> tuple[Part, Any, int]:
    """A variable that was begun: its blocks when it has grown, its codec, and what is left."""
    stored, manifest = entry(group, str(array.name))
    now = manifest.tiling(stored)
    dim = now.dims[now.time_axis]
    offset = offsets.get(dim, 0)
    length = max(now.shape[now.time_axis], offset + array.sizes[dim])
    shape = tuple(length if axis == now.time_axis else n for axis, n in enumerate(now.shape))
    grown = replace(now, shape=shape)
    part = part_of(array, grown, offset, options, Choice(None))
    done = manifest.done()
    full = {i for i in range(len(now)) if done[i] and now.where(i) == grown.where(i)}
    return part, codec_of(stored), sum(index not in full for index in part.blocks())


def _forecast(
    part: Part, codec: Any, left: int, remarks: str, options: Options
) -> VariableForecast:
    """Encode, decode and compare some blocks in the middle of equal parts, as a worker would."""
    tiling, array, job = part.tiling, part.array, part.job(Place(None), options)
    whole = part.blocks()
    count = min(_SAMPLE_BLOCKS, len(whole))
    sample = [whole[(2 * i + 1) * len(whole) // (2 * count)] for i in range(count)]
    raw = nbytes = 0
    errors = []
    seconds, memory = 0.0, 0
    for index in sample:
        values = job.values(part.block(index))
        with config.set(threads=1), checked_before(), _MemoryWatch() as watch:
            started = time.perf_counter()
            decoded = np.empty_like(values)
            for chunk in tiling.chunks_of(tuple(slice(0, n) for n in values.shape)):
                payload = codec._encode_array(values[chunk])
                decoded[chunk] = codec._decode_payload(payload).reshape(decoded[chunk].shape)
                nbytes += len(payload)
            if job.verify:
                measured = block_errors(values, decoded, job.areas, part.name, codec.rate.bound)
                errors.append(measured)
            zlib.crc32(values.tobytes())
            seconds += time.perf_counter() - started
        raw += values.nbytes
        memory = max(memory, watch.grown_nbytes + values.nbytes)
    total = array.dtype.itemsize * prod(tiling.shape)
    bound, target = codec.rate.bound, codec.rate.target_rmse
    # Under a relative bound every level has its own errors.
    axis = None if bound is not None and bound.relative else tiling.time_axis
    errors_of = _spread_and_rmse(errors, axis)
    words = VariableReport(
        name=part.name, outcome="", unit=display_unit(array.attrs).label, target_rmse=target,
        bound=None if bound is None else bound.error,
        bound_relative=bound is not None and bound.relative, least_spread=errors_of["spread"],
    )  # fmt: skip
    return VariableForecast(
        name=part.name, tasks=len(tiling), left=left, block=tiling.block, chunks=tiling.chunks,
        raw_nbytes=total, nbytes=round(nbytes * total / raw) if raw else 0,
        seconds=seconds / count if count else 0.0, memory_nbytes=memory, remarks=remarks,
        asked=words.asked, asked_of_spread=words.asked_of_spread, **errors_of,
    )  # fmt: skip


def _spread_and_rmse(
    errors: list[npt.NDArray[np.void]], axis: int | None
) -> dict[str, float | None]:
    """Of blocks that lie anywhere: the smallest spread in one of them, and the RMSE.

    The spread is that of a level, if the axis of time is given, else of the whole block.
    """
    if not errors:
        return {"spread": None, "rmse": None}
    spreads = (spread(block, axis) for block in errors)
    known = [one for one in spreads if one is not None]
    rmse = chunk_rmse(np.concatenate([block.ravel() for block in errors]))
    return {"spread": min(known, default=None), "rmse": rmse}


class _MemoryWatch:
    """How much a process grows while a block runs."""

    def __enter__(self) -> _MemoryWatch:
        give_back_memory()
        self._process = psutil.Process()
        self._before = self._most = self._process.memory_info().rss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stopped.wait(0.005):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        self._most = max(self._most, self._process.memory_info().rss)

    @property
    def grown_nbytes(self) -> int:
        return int(self._most - self._before)


def _size(nbytes: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if nbytes < 1000:
            return f"{nbytes:.3g} {unit}"
        nbytes /= 1000
    return f"{nbytes:.3g} PB"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} seconds"
