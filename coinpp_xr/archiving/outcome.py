"""What an archive holds and what a run did: from the manifest to reports and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
import zarr

from coinpp_xr.archiving.manifest import Manifest, Rows, column, entries_of, kinds_of
from coinpp_xr.archiving.tiling import Tiling
from coinpp_xr.archiving.work import Failure
from coinpp_xr.bitstream import Kind
from coinpp_xr.codecs.base import NO_MODEL, WITHOUT_MODEL
from coinpp_xr.data import with_areas
from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.labels import display_unit, place_label
from coinpp_xr.metrics import spread
from coinpp_xr.notebook_html import items
from coinpp_xr.provenance import PREFIX
from coinpp_xr.report import Report
from coinpp_xr.stores import chunk_nbytes, codec_of, metadata_documents
from coinpp_xr.text_tables import plain_text
from coinpp_xr.variable_report import COMPRESSED, VariableReport, weighting_of

if TYPE_CHECKING:
    from rich.console import Group

# What a worker does with a block.
PHASES = ("read", "encode", "verify", "record")


@dataclass(frozen=True, repr=False)
class ArchiveReport:
    """What a run did, and what the archive holds after it.

    Parameters
    ----------
    store : str
    report : Report
        On everything in the archive, by this run or an earlier one.
    failures : tuple of Failure
        Blocks that could not be written; everything else is done.
    n_blocks, n_done, n_new : int
        Of the variables that this run was about; done by now; done by this run.
    seconds : float
        From the first block to the last one of this run.
    workers : dict
        From a worker's name to its number of ``blocks``, busy ``seconds`` and ``peak_nbytes`` of
        memory.
    variables : dict
        From a variable to what this run did: ``blocks``, ``raw_nbytes`` (values as they are in
        memory), and seconds of all workers together to ``read``, ``encode`` (and write),
        ``verify`` and ``record``.
    """

    store: str
    report: Report
    failures: tuple[Failure, ...] = ()
    n_blocks: int = 0
    n_done: int = 0
    n_new: int = 0
    seconds: float = 0.0
    workers: dict[str, dict[str, float]] = field(default_factory=dict)
    variables: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether every block of every variable is there."""
        return self.n_done == self.n_blocks

    @property
    def raw_nbytes(self) -> int:
        """Values that this run archived, as they are in memory."""
        return int(sum(one["raw_nbytes"] for one in self.variables.values()))

    @property
    def work_seconds(self) -> dict[str, float]:
        """Time of all workers together, by what they did."""
        return {p: sum(one[p] for one in self.variables.values()) for p in PHASES}

    @property
    def throughput(self) -> float | None:
        """Bytes of values per second; None where nothing was left to do."""
        return self.raw_nbytes / self.seconds if self.seconds and self.raw_nbytes else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: nested dictionaries of numbers, strings and None."""
        return {
            "store": self.store,
            "complete": self.is_complete,
            "n_blocks": self.n_blocks,
            "n_done": self.n_done,
            "n_new": self.n_new,
            "failures": [vars(failure) for failure in self.failures],
            "seconds": self.seconds,
            "raw_nbytes": self.raw_nbytes,
            "bytes_per_second": self.throughput,
            "work_seconds": self.work_seconds,
            "workers": self.workers,
            "variables_in_this_run": self.variables,
            **self.report.to_dict(),
        }

    @property
    def notes(self) -> list[str]:
        """The run in a few lines."""
        state = "complete" if self.is_complete else f"{self.n_blocks - self.n_done:,} missing"
        lines = [f"{self.store}: {self.n_done:,} of {self.n_blocks:,} blocks are done ({state})"]
        if self.throughput:
            lines.append(
                f"{self.n_new:,} blocks, {self.raw_nbytes / 1e6:,.1f} MB in {self.seconds:.1f} s: "
                f"{self.throughput / 1e6:.2f} MB/s with {len(self.workers)} "
                f"{'worker' if len(self.workers) == 1 else 'workers'}, at most "
                f"{max(w['peak_nbytes'] for w in self.workers.values()) / 2**20:,.0f} MiB each"
            )
        for name, own in self.variables.items():
            busy = sum(own[phase] for phase in PHASES)
            spent = ", ".join(f"{phase} {own[phase]:.1f}" for phase in PHASES)
            rate = own["raw_nbytes"] / max(busy, 1e-9) / 1e6
            lines.append(f"{name}: {rate:.2f} MB/s per worker; seconds of work: {spent}")
        lines += [f"failed: {failure}" for failure in self.failures]
        return lines

    def __rich__(self) -> Group:
        from rich.console import Group
        from rich.padding import Padding
        from rich.text import Text

        notes = [Padding(Text(note), (0, 0, 0, 1), expand=False) for note in self.notes]
        return Group(self.report, *notes)

    def __str__(self) -> str:
        return plain_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"{self.report._repr_html_()}{items(self.notes)}"


def report_on(
    group: zarr.Group,
    reasons: Mapping[Any, str] | None = None,
    entries: Mapping[str, tuple[zarr.Array[Any], Manifest]] | None = None,
) -> Report:
    """What an archive holds, by its manifest alone.

    Parameters
    ----------
    group : zarr.Group
        Its root.
    reasons : mapping, optional
        Why variables were not compressed, or which model was chosen, by name.
    entries : mapping, optional
        Where they were read already.
    """
    reasons = reasons or {}
    entries = entries_of(group) if entries is None else entries
    dataset = with_areas(xr.open_zarr(group.store, consolidated=False, chunks=None))
    documents = metadata_documents(group)
    texts = [codec_of(array).embed_model for array, _ in entries.values()]
    variables, embedded = [], 0
    for name, (array, manifest) in entries.items():
        text = codec_of(array).embed_model
        nbytes = len(text) * sum(d.count(text.encode()) for d in documents) if text else 0
        # The same text stands in the metadata of several variables.
        nbytes //= texts.count(text)
        embedded += nbytes
        variables.append(
            _variable(dataset[name], array, manifest, nbytes, str(reasons.get(name, "")))
        )
    variables += [
        VariableReport(name=str(name), outcome=reason)
        for name, reason in reasons.items()
        if name not in entries
    ]
    others = (array for name, array in group.arrays() if name not in entries)
    return Report(
        tuple(variables),
        metadata_nbytes=sum(map(len, documents)) - embedded,
        other_nbytes=chunk_nbytes(others),
    )


def _variable(
    dataarray: xr.DataArray,
    array: zarr.Array[Any],
    manifest: Manifest,
    embedded_nbytes: int,
    model_choice: str,
) -> VariableReport:
    codec, tiling, rows = codec_of(array), manifest.tiling(array), manifest.rows
    done = np.isfinite(rows[:, 0])
    indices, rows = np.flatnonzero(done), rows[done]
    kinds = kinds_of(rows)
    model, model_nbytes = _model_of(
        codec, any(Kind[k.upper().replace(" ", "_")].has_model for k in kinds)
    )
    if embedded_nbytes:
        model, model_nbytes = codec.model, embedded_nbytes
    rate = codec.rate
    bound = rate.bound
    cells = prod(tiling.shape[-tiling.cell_axes :])
    globes = int(column(rows, "globes").sum())
    itemsize = manifest.attributes.get("source_itemsize")
    return VariableReport(
        name=str(dataarray.name),
        outcome=_outcome(rows, kinds, len(done)),
        unit=display_unit(dataarray.attrs).label,
        n_globes=globes,
        n_points=globes * cells,
        missing_cells=int(column(rows, "missing").sum()),
        nbytes=int(column(rows, "nbytes").sum()) if len(rows) else None,
        source_nbytes=None if itemsize is None else globes * cells * int(itemsize),
        schemes=kinds,
        model=model,
        model_nbytes=model_nbytes,
        model_embedded=embedded_nbytes > 0,
        model_choice=model_choice,
        bits=rate.bits,
        target_rmse=rate.target_rmse,
        bound=None if bound is None else bound.error,
        bound_relative=bound is not None and bound.relative,
        **_errors(rows, indices, tiling, dataarray),
    )


def _errors(rows: Rows, indices: Any, tiling: Tiling, dataarray: xr.DataArray) -> dict[str, Any]:
    """Errors of a variable, where they were measured."""
    seen = np.isfinite(column(rows, "squared")) & (column(rows, "valid") > 0)
    rows, indices = rows[seen], indices[seen]
    if not len(rows):
        return {}
    area = column(rows, "weight").sum()
    worst = int(column(rows, "worst_globe_rmse").argmax())
    in_chunk = int(column(rows, "worst_chunk_rmse").argmax())
    chunks = tiling.chunks_of(tiling.where(int(indices[in_chunk])))
    chunk = list(chunks)[int(column(rows, "worst_chunk")[in_chunk])]
    dims, where = tiling.batch, tiling.fields_where(int(indices[worst]))
    in_block = int(column(rows, "worst_globe")[worst])
    inside = np.unravel_index(in_block, [w.stop - w.start for w in where]) if where else ()
    position = [w.start + int(i) for w, i in zip(where, inside, strict=True)]
    index = int(np.ravel_multi_index(position, tiling.shape[: len(dims)])) if position else 0
    return {
        "rmse": float(np.sqrt(column(rows, "squared").sum() / area)),
        "rmse_plain": float(np.sqrt(column(rows, "plain").sum() / column(rows, "valid").sum())),
        "max_error": float(column(rows, "largest").max()),
        "bias": float(column(rows, "signed").sum() / area),
        **_spreads(rows, indices, tiling),
        "worst_globe_rmse": float(column(rows, "worst_globe_rmse").max()),
        "worst_globe_index": index,
        "worst_globe_label": place_label(dataarray, dims, [slice(i, i + 1) for i in position]),
        "worst_chunk_rmse": float(column(rows, "worst_chunk_rmse").max()),
        "worst_chunk_label": place_label(dataarray, dims, chunk[: len(dims)]),
        "weighting": weighting_of(dataarray),
    }


def _spreads(rows: Rows, indices: Any, tiling: Tiling) -> dict[str, float | None]:
    """Of the original: over everything, and the smallest of a level's within blocks."""
    names = ("weight", "mean", "scatter")
    sums = np.zeros(len(rows), [(name, "f8") for name in names])
    for name in names:
        sums[name] = column(rows, name)
    whole = spread(sums)
    if all(
        n == 1
        for axis, n in enumerate(tiling.shape[: len(tiling.batch)])
        if axis != tiling.time_axis
    ):
        return {"spread": whole, "least_spread": whole}
    # Time is the slowest axis of blocks: these are their positions along the others.
    beside = indices % (len(tiling) // tiling.counts[tiling.time_axis])
    variances = column(rows, "least_spread") ** 2
    known = variances > 0
    blocks = np.bincount(beside[known])
    means = np.bincount(beside[known], variances[known])[blocks > 0] / blocks[blocks > 0]
    return {"spread": whole, "least_spread": float(np.sqrt(means.min())) if means.size else None}


def _outcome(rows: Rows, kinds: Mapping[str, int], n_blocks: int) -> str:
    if not len(rows):
        return "nothing written yet"
    missing = n_blocks - len(rows)
    unfinished = f"; {missing:,} of {n_blocks:,} blocks are missing" if missing else ""
    if not column(rows, "valid").any():
        return f"stored without loss: missing values only{unfinished}"
    chunks, lossless = sum(kinds.values()), kinds.get("lossless", 0)
    if not lossless:
        return f"{COMPRESSED}{unfinished}" if unfinished else COMPRESSED
    if lossless == chunks:
        return f"stored without loss: nothing smaller meets the target{unfinished}"
    return f"{COMPRESSED}, except for {lossless} of {chunks} chunks without loss{unfinished}"


def _model_of(codec: Any, needed: bool) -> tuple[str, int]:
    if codec.model in WITHOUT_MODEL or not needed:
        return NO_MODEL, 0
    try:
        return codec.model, codec.own_model().nbytes
    except ModelNotFoundError:
        return codec.model, 0


def write_attributes(
    entries: Mapping[str, tuple[zarr.Array[Any], Manifest]], report: Report
) -> None:
    """Add what was measured to what attributes say of the losses of complete variables.

    In their own units, and the same for the same data.
    """
    for variable in report.encoded:
        array, manifest = entries[variable.name]
        if not manifest.done().all() or codec_of(array).rate.is_lossless:
            continue
        measured = {
            "rmse": variable.rmse, "largest_error": variable.max_error, "bias": variable.bias
        }  # fmt: skip
        said: dict[str, Any] = {
            f"{PREFIX}_{name}": value for name, value in measured.items() if value is not None
        }
        if variable.ratio is not None:
            said[f"{PREFIX}_ratio"] = variable.ratio
        if any(array.attrs.get(key) != value for key, value in said.items()):
            array.update_attributes(said)
