"""Whole archives: from GRIB, NetCDF or Zarr to a compressed, verified Zarr store, by dask."""

from __future__ import annotations

import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from coinpp_xr.archiving.beginning import Options, Part, Wanted, begin
from coinpp_xr.archiving.claims import changing_structure, claimed
from coinpp_xr.archiving.cluster import Task, a_client, check_workers, prepared, work_off
from coinpp_xr.archiving.manifest import column, entry
from coinpp_xr.archiving.outcome import ArchiveReport, report_on, write_attributes
from coinpp_xr.archiving.places import Place, place_of
from coinpp_xr.archiving.progress import Progress
from coinpp_xr.archiving.sources import Source, open_source
from coinpp_xr.archiving.work import Failure, Outcome, source_checksum
from coinpp_xr.planning import Settings
from coinpp_xr.stores import codec_of

if TYPE_CHECKING:
    from distributed import Client

    from coinpp_xr.models import Model

Bound = float | Mapping[str, float] | None

# Blocks of each variable that are read again to see whether the source is still the same.
_SPOT_CHECKS = 2


def archive(
    source: Any,
    store: Any,
    *,
    client: Client | None = None,
    variables: str | Iterable[str] | None = None,
    bits: int | Mapping[str, int] | None = None,
    target_rmse: Bound = None,
    max_error: Bound = None,
    max_error_relative: Bound = None,
    model: str | Model = "t2m-46x90",
    train_minutes: float | None = None,
    embed_model: bool = False,
    chunk_time: int = 256,
    shards: int | Mapping[str, int] | None = None,
    effort: str = "default",
    zarr_format: int = 3,
    times: slice | None = None,
    verify: bool = True,
    resume: bool = True,
    consolidated: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    gpu: bool = False,
    progress: bool | None = None,
) -> ArchiveReport:
    """Write a compressed Zarr archive, block by block on a dask cluster, and verify all of it.

    Metadata is written first. Then every block (some chunks along time) is one task: read from
    the source, encoded, written, read back, held against the original, and noted in the archive's
    manifest. Called again after any interruption it does what is missing; the result is the same,
    bit for bit, as without the interruption. Called with a source that goes on in time it makes
    the archive longer.

    Parameters
    ----------
    source : path, URL, pattern, list of these, Dataset or DataArray
        NetCDF, GRIB, Zarr, or anything that xarray reads when it is needed. Several files are
        combined by their coordinates.
    store : str, path, Zarr store or icechunk.Repository
        A folder, a URL that fsspec knows, or what Zarr can write to from several processes.
    client : distributed.Client, optional
        Default: dask's current one, or else threads of this process; see ``workers``.
    variables : str or iterable of str, optional
        Default: every float variable with latitude and longitude is compressed, and all others
        are written as they are. Those that are named are written alone.
    bits, target_rmse, max_error, max_error_relative : number or mapping, optional
        As for ``ds.coinpp.to_zarr``: one for all variables, or by name.
    model : str or Model
        A model, or "none".
    train_minutes : float, optional
        Train a model on each variable for so long, on a sample, and use it where it pays.
    embed_model : bool
        Models travel in the archive's metadata.
    chunk_time : int
        How many globes a chunk holds at most along time.
    shards : int or mapping, optional
        Files of many chunks (Zarr format 3): steps along time, or ``{"time": 8192, "level": 37}``.
    effort : {"default", "fast", "best", "paper"}
    zarr_format : {2, 3}
        Of a new archive.
    times : slice, optional
        Of time labels: write only blocks that begin there, so that several processes can share
        an archive.
    verify : bool
        Decode what was written and hold it against the original. Otherwise checksums alone are
        checked, and no errors are reported.
    resume : bool
        Go on with an archive that exists; False refuses.
    consolidated : bool, optional
        Whether the root holds a copy of all metadata; default: yes, unless models are embedded.
    storage_options : mapping, optional
        For fsspec.
    workers : int, optional
        Start so many processes on this machine.
    gpu : bool
        Encode on workers that have dask's resource ``GPU``; others read and verify.
    progress : bool, optional
        Show how far it is; default: in terminals and notebooks.

    Returns
    -------
    ArchiveReport
        ``is_complete`` is False if blocks failed; ``failures`` tells which and why.

    Raises
    ------
    FileNotFoundError, FileExistsError, ValueError
        If an argument makes no sense, the source cannot be read, or the archive was begun from
        another source or with other settings.
    RuntimeError
        If somebody else is writing the same part of the archive.
    """
    settings = Settings(
        rates={
            "bits": bits, "max_error": max_error, "max_error_relative": max_error_relative,
            "target_rmse": target_rmse,
        },
        variables=_names(variables), model=model, train_minutes=train_minutes,
        embed_model=embed_model, chunk_time=chunk_time, effort=effort,
    )  # fmt: skip
    if zarr_format not in (2, 3):
        raise ValueError(f"zarr_format must be 2 or 3, got {zarr_format!r}")
    options = Options(zarr_format, shards, times, verify, resume)
    place = place_of(store, storage_options)
    opened = open_source(source, settings.variables, chunk_time)
    wanted = Wanted.of(opened, settings)
    with a_client(client, workers, gpu=gpu) as connected:
        threads = check_workers(connected, gpu=gpu)
        parts = begin(opened, place, wanted, options)
        group = place.open()
        assert group is not None
        _consolidate(group, parts, consolidated)
        with (
            claimed(group, {part.name: part.steps for part in parts}),
            prepared(
                connected,
                [part.choice.model for part in parts if part.choice.model is not None],
                sharded=any(entry(group, part.name)[0].shards is not None for part in parts),
                gpu=gpu,
            ),
        ):
            _check_source(connected, group, opened, parts, place)
            run = _Run(connected, group, place, parts, options.verify, threads, gpu)
            outcomes, failures, seconds = run.do(progress)
        return _finish(group, wanted, parts, outcomes, failures, seconds, place, consolidated)


def _names(variables: str | Iterable[str] | None) -> list[str] | None:
    if variables is None:
        return None
    return [variables] if isinstance(variables, str) else list(variables)


class _Run:
    """The blocks that are missing, one after the other."""

    def __init__(
        self,
        client: Client,
        group: zarr.Group,
        place: Place,
        parts: list[Part],
        verify: bool,
        threads: int,
        gpu: bool,
    ) -> None:
        self._client, self._threads, self._gpu = client, threads, gpu
        self._place = place
        self._todo: list[tuple[Part, int]] = []
        self._done_before = 0
        for part in parts:
            done = entry(group, part.name)[1].done()
            self._done_before += int(sum(done[index] for index in part.blocks()))
            self._todo += [(part, index) for index in part.blocks() if not done[index]]
        self._verify = verify

    def do(self, show: bool | None) -> tuple[list[Outcome], list[Failure], float]:
        outcomes: list[Outcome] = []
        failures: list[Failure] = []
        started = time.perf_counter()
        with Progress(show, len(self._todo), self._client) as progress:
            for batch in self._place.batches(self._todo):
                with self._place.transaction() as transaction:
                    jobs = {
                        part.name: part.job(transaction.place, verify=self._verify)
                        for part, _ in batch
                    }
                    tasks = [Task(part, jobs[part.name], index) for part, index in batch]
                    for _, result in work_off(
                        self._client, tasks, self._threads, gpu=self._gpu,
                        watch=progress.watch,
                    ):  # fmt: skip
                        if isinstance(result, Failure):
                            failures.append(result)
                        else:
                            outcomes.append(result)
                            transaction.add(result.session)
                        progress.step(result)
        return outcomes, failures, time.perf_counter() - started


def _check_source(
    client: Client, group: zarr.Group, source: Source, parts: list[Part], place: Place
) -> None:
    """Refuse a source that is not the one that the archive was begun from.

    If files look as before, a few blocks are read again; if not, all that are done and that the
    source holds: a file that was copied, mended or got longer is fine if its values are.

    Raises
    ------
    ValueError
    """
    import dask

    for part in parts:
        manifest = entry(group, part.name)[1]
        rows = manifest.rows
        done = [index for index in part.blocks() if np.isfinite(rows[index, 0])]
        known = manifest.attributes["source_files"]
        if any(known.get(name, sign) != sign for name, sign in source.files.items()):
            checked = done
        else:
            checked = sorted({*done[:1], *done[-1:]})
        job = part.job(place, verify=True)
        lazy = [
            dask.delayed(source_checksum, pure=False)(part.block(index), job) for index in checked
        ]
        for index, future in zip(checked, client.compute(lazy), strict=True):
            if future.result() != int(column(rows, "source_crc32")[index]):
                raise ValueError(
                    f"{part.name} {part.label(index)}: the source holds other values than when "
                    "this was archived; write another archive, or delete this one and begin anew"
                )
        if source.files and known != known | source.files:
            manifest.array.attrs["source_files"] = known | source.files


def _finish(
    group: zarr.Group,
    wanted: Wanted,
    parts: list[Part],
    outcomes: list[Outcome],
    failures: list[Failure],
    seconds: float,
    place: Place,
    consolidated: bool | None,
) -> ArchiveReport:
    """Write what can only be known at the end."""
    reasons = wanted.reasons | {part.name: part.choice.reason for part in parts}
    with place.changing() as group:
        report = report_on(group, reasons)
        write_attributes(group, report)
    _consolidate(group, parts, consolidated)
    work: dict[str, float] = defaultdict(float)
    workers: dict[str, dict[str, float]] = {}
    for outcome in outcomes:
        for phase, took in outcome.seconds.items():
            work[phase] += took
        own = workers.setdefault(outcome.worker, {"blocks": 0, "seconds": 0.0, "peak_nbytes": 0})
        own["blocks"] += 1
        own["seconds"] += sum(outcome.seconds.values())
        own["peak_nbytes"] = max(own["peak_nbytes"], outcome.peak_nbytes)
    states = [entry(group, part.name)[1].done() for part in parts]
    return ArchiveReport(
        str(place), report, tuple(failures), sum(map(len, states)),
        int(sum(state.sum() for state in states)), len(outcomes), seconds,
        sum(outcome.raw_nbytes for outcome in outcomes), dict(work), workers,
    )  # fmt: skip


def _consolidate(group: zarr.Group, parts: list[Part], asked: bool | None) -> None:
    """Copy all metadata to the root, unless that would hold every model a second time."""
    is_v3 = group.metadata.zarr_format == 3
    embedded = any(codec_of(entry(group, part.name)[0]).embed_model for part in parts)
    if asked is False or (asked is None and is_v3 and embedded):
        return
    with changing_structure(group), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(group.store, zarr_format=group.metadata.zarr_format)
