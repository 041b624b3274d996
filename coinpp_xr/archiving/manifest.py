"""The manifest of an archive: which blocks are done, and what is known about them.

It lies in the archive as plain Zarr arrays, one per variable, with a row of numbers for every
block. A row is one chunk, written in one go after the block was read back: where there is a row,
the block is done. Nothing in it depends on when, where or in how many attempts it was written.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from coinpp_xr.archiving.tiling import Tiling
from coinpp_xr.bitstream import Kind
from coinpp_xr.metrics import GLOBE_ERRORS
from coinpp_xr.stores import cell_axes_in
from coinpp_xr.version import __version__

GROUP = "coinpp_manifest"
# An array without elements, whose folder holds who is at work: Zarr's listings do not see it.
CLAIMS = "claims"

_KINDS = tuple(f"chunks_{kind.name.lower()}" for kind in Kind)
# Sums over the globes of a block, as in GLOBE_ERRORS; its worst chunk and globe by their
# position in it, in C order; the spread of the level (or other index beside time) that has the
# smallest one in it, 0 where nothing varies.
FIELDS = (
    "globes", "nbytes", "payload_crc32", "source_crc32", *(GLOBE_ERRORS.names or ()),
    "worst_chunk_rmse", "worst_chunk", "worst_globe_rmse", "worst_globe", "least_spread",
    *_KINDS,
)  # fmt: skip

Rows = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Manifest:
    """What an archive knows about one of its variables.

    Parameters
    ----------
    array : zarr.Array
        float64, shape (blocks, fields); NaN where a block is not done.
    """

    array: zarr.Array[Any]

    @classmethod
    def create(
        cls,
        group: zarr.Group,
        name: str,
        tiling: Tiling,
        asked: Mapping[str, Any],
        itemsize: int,
        source_itemsize: int,
        files: Mapping[str, str],
    ) -> Manifest:
        """Begin the manifest of a variable.

        Parameters
        ----------
        group : zarr.Group
            Root of the archive.
        name : str
            Of the variable.
        tiling : Tiling
        asked : mapping
            Plain JSON: how it is to be written; whoever goes on must ask for the same.
        itemsize : int
            Bytes of a value.
        source_itemsize : int
            Bytes of a value in the source's files.
        files : mapping
            Of the source, by name.
        """
        attributes: dict[str, Any] = {
            "description": f"blocks of {name} that are done",
            "dims": list(tiling.dims),
            "block": list(tiling.block),
            "time_axis": tiling.time_axis,
            "itemsize": itemsize,
            "source_itemsize": source_itemsize,
            "asked": dict(asked),
            "source_files": dict(files),
            "implementation": f"coinpp-xr {__version__}",
        }
        shape, chunks = (len(tiling), len(FIELDS)), (1, len(FIELDS))
        dims = f"block_of_{name}", "field"
        return cls(_create(group, f"{GROUP}/{name}", shape, chunks, dims, attributes))

    @property
    def attributes(self) -> dict[str, Any]:
        """What :meth:`create` wrote."""
        return dict(self.array.attrs)

    def tiling(self, array: zarr.Array[Any]) -> Tiling:
        """The blocks of the variable's array as it is now."""
        own = self.attributes
        return Tiling(
            tuple(own["dims"]), array.shape, array.chunks, tuple(own["block"]), own["time_axis"],
            cell_axes_in(array),
        )  # fmt: skip

    @cached_property
    def rows(self) -> Rows:
        """All rows as they are when first asked for, shape (blocks, fields)."""
        try:
            rows = np.asarray(self.array[:], np.float64)
        except Exception:  # a row was cut off: find out which, and take its block for not done
            rows = np.full(self.array.shape, np.nan)
            for index in range(len(rows)):
                try:
                    rows[index] = np.asarray(self.array[index])
                except Exception:
                    continue
        return rows

    def done(self) -> npt.NDArray[np.bool_]:
        """Which blocks are done."""
        return np.isfinite(self.rows[:, 0])

    def forget(self, indices: Sequence[int]) -> None:
        """Take blocks for not done."""
        for index in indices:
            self.array[index] = np.nan


def column(rows: Rows, field: str) -> npt.NDArray[np.float64]:
    """One field of some rows."""
    return rows[..., FIELDS.index(field)]


def new_row(values: Mapping[str, float], kinds: Mapping[Kind, int]) -> Rows:
    """The row of a block; fields that are not given are zero."""
    row = np.zeros(len(FIELDS))
    for field, value in values.items():
        row[FIELDS.index(field)] = value
    for kind, count in kinds.items():
        row[FIELDS.index(f"chunks_{kind.name.lower()}")] = count
    return row


def kinds_of(rows: Rows) -> dict[str, int]:
    """How many chunks are stored in which way."""
    counts = {kind: int(np.nansum(column(rows, f"chunks_{kind.name.lower()}"))) for kind in Kind}
    return {kind.name.lower().replace("_", " "): count for kind, count in counts.items() if count}


def create_group(group: zarr.Group) -> None:
    """Begin the manifest of an archive."""
    description = "state of an archive written by coinpp-xr; fields: the columns of all arrays"
    attributes = {"description": description, "format": 1, "fields": list(FIELDS)}
    group.create_group(GROUP, attributes=attributes)
    _create(group, f"{GROUP}/{CLAIMS}", (0,), (1,), ("claim",), {})


def is_archive(group: zarr.Group) -> bool:
    return f"{GROUP}/{CLAIMS}" in group


def variables_of(group: zarr.Group) -> list[str]:
    """The compressed variables of an archive."""
    found = group.get(GROUP)
    if not isinstance(found, zarr.Group):
        return []
    with warnings.catch_warnings():  # of what killed processes left
        warnings.filterwarnings("ignore", message="Object at")
        return sorted(name for name, _ in found.arrays() if name != CLAIMS)


def entries_of(group: zarr.Group) -> dict[str, tuple[zarr.Array[Any], Manifest]]:
    """All compressed variables of an archive and their manifests."""
    return {name: entry(group, name) for name in variables_of(group)}


def entry(group: zarr.Group, name: str) -> tuple[zarr.Array[Any], Manifest]:
    """A compressed variable of an archive and its manifest.

    Raises
    ------
    ValueError
        If one of them is not there.
    """
    array, manifest = group.get(name), group.get(f"{GROUP}/{name}")
    if not isinstance(array, zarr.Array) or not isinstance(manifest, zarr.Array):
        raise ValueError(f"{name!r} is no compressed variable of this archive")
    return array, Manifest(manifest)


def note(group: zarr.Group, key: str, value: Any) -> None:
    """Write down what is about to happen to the archive's metadata."""
    group[GROUP].attrs[key] = value


def noted(group: zarr.Group, key: str) -> Any:
    """What was written down and did not come to its end; None if there is nothing."""
    return group[GROUP].attrs.get(key)


def forget_note(group: zarr.Group, key: str) -> None:
    state = dict(group[GROUP].attrs)
    if state.pop(key, None) is not None:
        group[GROUP].attrs.put(state)


def _create(
    group: zarr.Group,
    path: str,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dims: tuple[str, ...],
    attributes: dict[str, Any],
) -> zarr.Array[Any]:
    is_v3 = group.metadata.zarr_format == 3
    return group.create_array(
        path, shape=shape, chunks=chunks, dtype="float64", fill_value=np.nan, compressors=None,
        dimension_names=dims if is_v3 else None,
        attributes=attributes if is_v3 else attributes | {"_ARRAY_DIMENSIONS": list(dims)},
    )  # fmt: skip
