"""What workers do: read a block, encode and write it, read it back, verify it, and note it down."""

from __future__ import annotations

import time
import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
import psutil
import xarray as xr
import zarr

from coinpp_xr.archiving.manifest import GROUP, Rows, new_row
from coinpp_xr.archiving.tiling import Tiling
from coinpp_xr.bitstream import Payload
from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.chunk_places import placing_array
from coinpp_xr.coarseness import checked_before
from coinpp_xr.data.sources import one_line
from coinpp_xr.metrics import GLOBE_ERRORS, chunk_rmse, pooled, spread
from coinpp_xr.stores import codec_of, payloads_in
from coinpp_xr.verification import block_errors, check_target

Values = npt.NDArray[Any]
Params = ParamSpec("Params")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Job:
    """One variable of an archive, as a worker must know it.

    Parameters
    ----------
    store : str or Zarr store
    storage_options : dict or None
    name : str
    tiling : Tiling
    areas : CellWeights
        Of the cells of a field.
    verify : bool
        Whether to decode what was written and hold it against the original.
    zarr_format : {2, 3}
    """

    store: Any
    storage_options: Mapping[str, Any] | None
    name: str
    tiling: Tiling
    areas: CellWeights
    verify: bool
    zarr_format: Any

    def open(self, path: str, *, read_only: bool = False) -> zarr.Array[Any]:
        """An array of the archive, without a look at anything else."""
        return zarr.open_array(
            self.store, path=path, mode="r" if read_only else "r+", zarr_format=self.zarr_format,
            storage_options=dict(self.storage_options) if self.storage_options else None,
        )  # fmt: skip

    def values(self, variable: xr.Variable) -> Values:
        """A block of the source, in the order of the store."""
        return np.ascontiguousarray(variable.transpose(*self.tiling.dims).to_numpy())


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a block.

    Parameters
    ----------
    variable : str
    index : int
    row : array
        For the manifest.
    raw_nbytes : int
    seconds : dict
        Time to ``read``, ``encode`` (and write), ``verify``, ``record``.
    worker : str
        Which process did it.
    peak_nbytes : int
        The most memory that this process has ever had.
    session : object
        What a transaction is made of, where the store has transactions.
    """

    variable: str
    index: int
    row: Rows
    raw_nbytes: int
    seconds: dict[str, float]
    worker: str
    peak_nbytes: int
    session: Any = None


@dataclass(frozen=True)
class Failure:
    """A block that could not be written.

    Parameters
    ----------
    variable : str
    index : int
    label : str
        Its coordinates.
    reason : str
        In one line.
    """

    variable: str
    index: int
    label: str
    reason: str

    def __str__(self) -> str:
        return f"{' '.join([self.variable, self.label]).strip()}: {self.reason}"


def in_plain_errors(task: Callable[Params, Result]) -> Callable[Params, Result]:
    """Errors of readers and stores travel as their text: not all of them can be pickled."""

    @wraps(task)
    def with_plain_errors(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        try:
            return task(*args, **kwargs)
        except RuntimeError:
            raise
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__}: {one_line(error)}") from None

    return with_plain_errors


@in_plain_errors
def archive_block(variable: xr.Variable, job: Job, index: int) -> Outcome:
    """All that is to be done for one block.

    Parameters
    ----------
    variable : Variable
        Of the source, the block alone; what it stands for is read here.
    job : Job
    index : int
        Of the block.

    Raises
    ------
    RuntimeError
        If what was read back is not what it should be.
    """
    started = time.perf_counter()
    values = read_block(variable, job)
    read = time.perf_counter()
    write_block(values, job, index)
    written = time.perf_counter()
    outcome = verify_block(values, job, index)
    outcome.seconds.update(read=read - started, encode=written - read)
    return outcome


@in_plain_errors
def read_block(variable: xr.Variable, job: Job) -> Values:
    return job.values(variable)


@in_plain_errors
def write_block(values: Values, job: Job, index: int) -> None:
    """Encode and write, chunk by chunk, so that memory is that of a chunk."""
    array = placing_array(_unchanged(job.open(job.name), job))
    where = job.tiling.where(index)
    with checked_before():
        if array.shards is not None:
            array[where] = values
            return
        for chunk in job.tiling.chunks_of(where):
            array[chunk] = values[within(chunk, where)]


@in_plain_errors
def verify_block(values: Values, job: Job, index: int) -> Outcome:
    """Read back what the store holds, and note it in the manifest if that is right."""
    started = time.perf_counter()
    row = examine(values, _unchanged(job.open(job.name), job), job, index)
    verified = time.perf_counter()
    job.open(f"{GROUP}/{job.name}")[index] = row
    seconds = {"verify": verified - started, "record": time.perf_counter() - verified}
    session = getattr(job.store, "session", None)
    return Outcome(job.name, index, row, values.nbytes, seconds, _worker(), peak_nbytes(), session)


def _unchanged(array: zarr.Array[Any], job: Job) -> zarr.Array[Any]:
    """The array, unless the archive has grown since this work was given out by a client now dead.

    Raises
    ------
    RuntimeError
    """
    if array.shape != job.tiling.shape:
        raise RuntimeError(f"{job.name!r} has another shape by now; this block is left alone")
    return array


def examine(values: Values, array: zarr.Array[Any], job: Job, index: int) -> Rows:
    """The manifest's row of a block, from what the store holds and from the original.

    Raises
    ------
    RuntimeError
    """
    where = job.tiling.where(index)
    nbytes, checksum, kinds = stored(array, where)
    axes = job.areas.axes
    before = values.ndim - axes
    errors = np.zeros(values.shape[:before], GLOBE_ERRORS)
    errors["valid"] = np.isfinite(values).sum(tuple(range(-axes, 0)))
    errors["missing"] = np.prod(values.shape[before:]) - errors["valid"]
    chunk_rmses = [np.nan]
    if job.verify:
        rate = codec_of(array).rate
        decoded = np.asarray(array[where])
        errors = block_errors(values, decoded, job.areas, job.name, rate.bound)
        check_target(job.name, rate.target_rmse, errors, job.tiling.chunks[:before])
        chunks = (within(c, where)[:before] for c in job.tiling.chunks_of(where))
        chunk_rmses = [chunk_rmse(errors[chunk]) for chunk in chunks]
    weight = errors["weight"].ravel()
    rmse = np.sqrt(
        np.divide(errors["squared"].ravel(), weight, out=np.zeros_like(weight), where=weight > 0)
    )
    lossy = dict.fromkeys(("squared", "signed", "plain", "largest"), np.nan)
    summary: dict[str, float] = {
        name: float(errors[name].max() if name == "largest" else errors[name].sum())
        for name in GLOBE_ERRORS.names or ()
    } | {"low": float(errors["low"].min()), "high": float(errors["high"].max())}
    together = pooled(errors)
    summary |= {name: float(together[name]) for name in ("mean", "scatter")}
    if not job.verify:
        summary |= lossy | dict.fromkeys(("low", "high", "mean", "scatter"), np.nan)
    return new_row(
        {
            "globes": errors.size, "nbytes": nbytes, "payload_crc32": checksum,
            "source_crc32": zlib.crc32(values.tobytes()), **summary,
            "worst_chunk_rmse": max(chunk_rmses), "worst_chunk": int(np.argmax(chunk_rmses)),
            "worst_globe_rmse": float(rmse.max()) if job.verify else np.nan,
            "worst_globe": int(rmse.argmax()),
            "least_spread": spread(errors, job.tiling.time_axis) or 0.0,
        },
        kinds,
    )  # fmt: skip


def stored(array: zarr.Array[Any], where: tuple[slice, ...]) -> tuple[int, int, Counter[Any]]:
    """Bytes, CRC-32 and kinds of the payloads of a block; every payload's own CRC is checked."""
    nbytes = checksum = 0
    kinds: Counter[Any] = Counter()
    for _, payload in payloads_in(array, where):
        kinds[Payload.unpack(payload).kind] += 1
        nbytes += len(payload)
        # Without their own CRC, with which every payload has the same one.
        checksum = zlib.crc32(payload[:-4], checksum)
    return nbytes, checksum, kinds


@in_plain_errors
def source_checksum(variable: xr.Variable, job: Job) -> int:
    """CRC-32 of a block of the source."""
    return zlib.crc32(job.values(variable).tobytes())


def within(part: tuple[slice, ...], whole: tuple[slice, ...]) -> tuple[slice, ...]:
    """A part of a block, counted from where the block begins."""
    return tuple(
        slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True)
    )


def _worker() -> str:
    from distributed import get_worker

    try:
        return str(get_worker().name)
    except ValueError:  # outside a cluster
        return "here"


def peak_nbytes() -> int:
    """The most memory that this process has had; what it has now where that is not known."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage, which counts what the parent had when this process was born.
        lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        if lines:
            return 1024 * int(lines[0].split()[1])
    return int(psutil.Process().memory_info().rss)
