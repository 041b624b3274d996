"""Whole archives: from GRIB, NetCDF or Zarr to a compressed, verified Zarr store, by dask."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Never

import dask
import numpy as np
import zarr

from coinpp_xr.archiving.beginning import begin
from coinpp_xr.archiving.checking import on_workers, refuse_unsound
from coinpp_xr.archiving.cluster import (
    Task,
    a_client,
    check_workers,
    in_windows,
    prepared,
    work_off,
)
from coinpp_xr.archiving.manifest import column, entries_of, entry
from coinpp_xr.archiving.outcome import PHASES, ArchiveReport, report_on, write_attributes
from coinpp_xr.archiving.parts import Options, Part
from coinpp_xr.archiving.places import Place
from coinpp_xr.archiving.progress import Progress, beginning
from coinpp_xr.archiving.requests import Bound, Wanted, request
from coinpp_xr.archiving.sources import Source
from coinpp_xr.archiving.work import Failure, Outcome, source_checksum
from coinpp_xr.data.sources import one_line
from coinpp_xr.errors import refuse_unknown
from coinpp_xr.files import cleared_up
from coinpp_xr.stores import codec_of, compact_documents

# Failures that one line can name.
_FEW = 5

if TYPE_CHECKING:
    from distributed import Client

    from coinpp_xr.models import Model


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
    lossless: bool = False,
    keep: Any = None,
    max_mean_error: Bound = None,
    model: str | Model = "t2m-46x90",
    train_minutes: float | None = None,
    embed_model: bool = False,
    chunk_time: int = 256,
    shards: int | Mapping[str, int] | None = None,
    effort: str = "default",
    allow_coarse: bool = False,
    zarr_format: int = 3,
    times: slice | None = None,
    verify: bool = True,
    resume: bool = True,
    check: bool = True,
    consolidated: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    gpu: bool = False,
    progress: bool | None = None,
    **unknown: Never,
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
        As for ``ds.coinpp.to_zarr``: one for all variables, or by name. ``max_error`` may be
        "recommended", and is where no control is given.
    lossless : bool
        Every bit comes back, as with ``max_error=0``.
    keep : float, sequence or mapping, optional
        Values that come back exactly, beside a bound or target.
    max_mean_error : float or mapping, optional
        Of every globe's area-weighted mean, beside a bound or target.
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
    allow_coarse : bool
        Take bounds and targets as they are; see ``ds.coinpp.to_zarr``.
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
    check : bool
        Look at all payloads of an archive that is gone on with first: whether they are those that
        were written, where they belong.
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
    TypeError
        If there is no such argument; the message names the one that was meant.
    CorruptPayloadError
        If a chunk of the archive is damaged, lost, or another than was written.
    RuntimeError
        If somebody else is writing the same part of the archive.
    """
    refuse_unknown(unknown, archive)
    with (
        cleared_up(),
        compact_documents(),
        ExitStack() as until_the_end,
        ExitStack() as while_writing,
    ):
        with beginning(progress) as say:
            say("reading the source")
            place, opened, wanted, options = request(
                source, store, variables=variables, bits=bits, target_rmse=target_rmse,
                max_error=max_error, max_error_relative=max_error_relative,
                lossless=lossless, keep=keep,
                max_mean_error=max_mean_error, model=model, train_minutes=train_minutes,
                embed_model=embed_model, chunk_time=chunk_time,
                shards=shards, effort=effort, allow_coarse=allow_coarse, zarr_format=zarr_format,
                times=times, verify=verify, resume=resume, check=check,
                consolidated=consolidated,
                storage_options=storage_options,
            )  # fmt: skip
            say("starting workers")
            connected = until_the_end.enter_context(a_client(client, workers, gpu=gpu))
            threads = check_workers(connected, gpu=gpu)
            run = _Run(connected, place, opened, wanted, options, threads, gpu)
            say("writing metadata and making workers ready")
            while_writing.enter_context(run.begun())
        run.work(progress)
        while_writing.close()
        try:
            return run.finish()
        except OSError as error:
            raise run.explained(error) from error


class _Run:
    """One call of :func:`archive`, after its arguments were checked."""

    def __init__(
        self,
        client: Client,
        place: Place,
        source: Source,
        wanted: Wanted,
        options: Options,
        threads: int,
        gpu: bool,
    ) -> None:
        self._client, self._place, self._source = client, place, source
        self._wanted, self._options = wanted, options
        self._threads, self._gpu = threads, gpu
        self._parts: list[Part] = []
        self._outcomes: list[Outcome] = []
        self._failures: list[Failure] = []
        self._seconds = 0.0

    @contextmanager
    def begun(self) -> Iterator[None]:
        """Metadata in place, others kept off and workers ready, as long as the block runs."""
        self._parts = begin(
            self._source, self._place, self._wanted, self._options, self._check_stored,
            self._check_source,
        )  # fmt: skip
        with self._place.changing() as place:
            self._consolidate(place)
        group = self._place.root()
        models = [part.choice.model for part in self._parts if part.choice.model is not None]
        sharded = any(entry(group, part.name)[0].shards is not None for part in self._parts)
        with (
            self._place.claimed({part.name: part.steps for part in self._parts}),
            prepared(self._client, models, sharded=sharded, gpu=self._gpu),
        ):
            yield

    def _check_stored(self) -> None:
        """Refuse to go on with an archive that does not hold what was written."""
        if self._options.check:
            run = partial(on_workers, self._client, self._threads)
            advice = "coinpp verify --forget (forget=True) lets the same call write it again"
            refuse_unsound(self._place, self._place.root(), run, advice=advice)

    def _check_source(self, parts: Sequence[Part]) -> None:
        """Refuse a source that is not the one that the archive was begun from.

        If its files look as before, a few blocks are read again; if not, all that are done and
        that the source holds: a file that was copied, mended or got longer is fine if its values
        are.

        Raises
        ------
        ValueError
        """
        group = self._place.root()
        for part in parts:
            manifest = entry(group, part.name)[1]
            rows, known = manifest.rows, manifest.attributes["source_files"]
            done = [index for index in part.blocks() if np.isfinite(rows[index, 0])]
            now = self._source.files
            if all(known.get(name, sign) == sign for name, sign in now.items()):
                done = sorted({*done[:1], *done[-1:]})
            job = part.job(self._place, self._options)
            lazy = (
                dask.delayed(source_checksum, pure=False)(part.block(index), job) for index in done
            )
            known_sums = column(rows, "source_crc32")
            changed = [
                done[position]
                for position, future in in_windows(self._client, lazy, self._threads)
                if future.result() != int(known_sums[done[position]])
            ]
            if changed:
                raise ValueError(
                    f"{part.name} {part.label(min(changed))}: the source holds other values than "
                    "when this was archived; write another archive, or delete this one and begin "
                    "anew"
                )

    def work(self, show: bool | None) -> None:
        """Write the blocks that are missing."""
        group = self._place.root()
        todo = []
        for part in self._parts:
            done = entry(group, part.name)[1].done()
            todo += [(part, index) for index in part.blocks() if not done[index]]
        started = time.perf_counter()
        with Progress(show, len(todo), self._client) as progress:
            for batch in self._place.batches(todo):
                with self._place.transaction() as transaction:
                    for result in self._results(batch, transaction.place, progress):
                        if isinstance(result, Failure):
                            self._failures.append(result)
                        else:
                            self._outcomes.append(replace(result, session=None))
                            transaction.add(result.session)
                        progress.step(result)
        self._seconds = time.perf_counter() - started

    def _results(
        self, batch: Sequence[tuple[Part, int]], place: Place, progress: Progress
    ) -> Iterator[Outcome | Failure]:
        # The format is that of the archive, whatever was asked for.
        options = replace(self._options, zarr_format=self._place.root().metadata.zarr_format)
        jobs = {part.name: part.job(place, options) for part, _ in batch}
        tasks = [Task(part, jobs[part.name], index) for part, index in batch]
        return work_off(self._client, tasks, self._threads, gpu=self._gpu, watch=progress.watch)

    def finish(self) -> ArchiveReport:
        """Write what can only be known at the end."""
        reasons = self._wanted.reasons | {part.name: part.choice.reason for part in self._parts}
        with self._place.changing() as place:
            group = place.root()
            entries = entries_of(group)
            for part in self._parts:
                manifest = entries[part.name][1].array
                known: Any = manifest.attrs["source_files"]
                if known != (now := known | self._source.files):
                    manifest.attrs["source_files"] = now
            report = report_on(group, reasons, entries)
            write_attributes(entries, report)
            self._consolidate(place)
            states = [entries[part.name][1].done() for part in self._parts]
        workers: dict[str, dict[str, float]] = {}
        variables: dict[str, dict[str, float]] = {}
        for outcome in self._outcomes:
            busy = sum(outcome.seconds.values())
            one = workers.setdefault(
                outcome.worker, {"blocks": 0, "seconds": 0.0, "peak_nbytes": 0}
            )
            one["blocks"] += 1
            one["seconds"] += busy
            one["peak_nbytes"] = max(one["peak_nbytes"], outcome.peak_nbytes)
            own = variables.setdefault(
                outcome.variable, {"blocks": 0, "raw_nbytes": 0, **dict.fromkeys(PHASES, 0.0)}
            )
            own["blocks"] += 1
            own["raw_nbytes"] += outcome.raw_nbytes
            for phase, took in outcome.seconds.items():
                own[phase] += took
        return ArchiveReport(
            store=str(self._place),
            report=report,
            failures=tuple(self._failures),
            n_blocks=sum(map(len, states)),
            n_done=int(sum(state.sum() for state in states)),
            n_new=len(self._outcomes),
            seconds=self._seconds,
            workers=workers,
            variables=variables,
        )

    def explained(self, error: OSError) -> OSError:
        """What kept the last metadata from being written, and what else is missing."""
        failed = "; ".join(map(str, self._failures[:_FEW])) or "none"
        return OSError(
            f"{self._place}: {len(self._outcomes):,} blocks were written, but no last metadata "
            f"({one_line(error)}); blocks that failed: {failed}; the same call goes on"
        )

    def _consolidate(self, place: Place) -> None:
        """Copy all metadata to the root, unless that would hold every model a second time."""
        group, asked = place.root(), self._options.consolidated
        if asked is None:
            is_v3 = group.metadata.zarr_format == 3
            embedded = any(codec_of(entry(group, p.name)[0]).embed_model for p in self._parts)
            asked = self._place.gains_by_consolidating and not (is_v3 and embedded)
        if asked:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Consolidated metadata")
                zarr.consolidate_metadata(group.store, zarr_format=group.metadata.zarr_format)
