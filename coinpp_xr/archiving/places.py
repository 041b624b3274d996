"""Where an archive lies: a folder, a URL, a Zarr store, or an Icechunk repository."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import zarr
from zarr.storage import MemoryStore, ZipStore

from coinpp_xr.archiving.claims import changing_structure
from coinpp_xr.stores import open_group

Item = TypeVar("Item")


@dataclass(frozen=True, eq=False)
class Place:
    """A store that several processes can open and write to.

    Parameters
    ----------
    store : str or Zarr store
    storage_options : dict, optional
        For fsspec.
    """

    store: Any
    storage_options: dict[str, Any] | None = None

    def open(self) -> zarr.Group | None:
        """The root, for writing; None if nothing is there."""
        return open_group(self.store, None, self.storage_options, mode="r+")

    @contextmanager
    def changing(self) -> Iterator[zarr.Group]:
        """The root, whose metadata nobody else changes in this block."""
        group = self.open()
        assert group is not None
        with changing_structure(group):
            yield group

    def batches(self, blocks: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Blocks that are written in one transaction."""
        if blocks:
            yield blocks

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """What is written in this block stays if it ends well; here it stays at once."""
        yield Transaction(self)

    def __str__(self) -> str:
        return str(self.store)


@dataclass(eq=False)
class Transaction:
    """Blocks on their way to a place.

    Parameters
    ----------
    place : Place
        That workers write to.
    """

    place: Place

    def add(self, session: Any) -> None:
        """Take what a worker wrote."""


def place_of(store: Any, storage_options: Mapping[str, Any] | None) -> Place:
    """The place that a user names.

    Raises
    ------
    ValueError
        If several processes cannot write to it.
    """
    options = dict(storage_options) if storage_options else None
    if isinstance(store, MemoryStore | dict):
        raise ValueError(
            "a store in memory cannot be shared with workers; give a folder or a URL, or use "
            "ds.coinpp.to_zarr"
        )
    if isinstance(store, ZipStore) or str(store).endswith(".zip"):
        raise ValueError("a zip file cannot be written in parts; zip a folder later")
    if isinstance(store, os.PathLike):
        store = os.fspath(store)
    return Place(store, options)
