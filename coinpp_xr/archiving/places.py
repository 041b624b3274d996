"""Where an archive lies: a folder, a URL, a Zarr store, or an Icechunk repository."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import zarr
from zarr.storage import MemoryStore, ZipStore

from coinpp_xr.archiving.claims import changing_structure, claimed, others_at_work
from coinpp_xr.archiving.manifest import GROUP, is_archive
from coinpp_xr.stores import is_zip, local_path, open_group, refuse_read_only

Item = TypeVar("Item")
# A commit takes about a second; what is lost between two of them is done again.
_BLOCKS_PER_COMMIT = 256


@dataclass(eq=False)
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

    # Whether a copy of all metadata at the root makes opening faster.
    gains_by_consolidating = True

    def open(self, *, read_only: bool = False) -> zarr.Group | None:
        """The root; None if nothing is there."""
        mode: Literal["r", "r+"] = "r" if read_only else "r+"
        return open_group(self.store, None, self.storage_options, mode=mode)

    def root(self, *, read_only: bool = False) -> zarr.Group:
        """The root of a store that must be there.

        Raises
        ------
        FileNotFoundError
        """
        group = self.open(read_only=read_only)
        if group is None:
            raise FileNotFoundError(f"no Zarr store: {self}")
        return group

    @contextmanager
    def claimed(self, what: Mapping[str, range]) -> Iterator[None]:
        """Keep others off some steps along time of some variables while this block runs."""
        with claimed(self.root(), what):
            yield

    @contextmanager
    def changing(self) -> Iterator[Place]:
        """Where to change metadata, which nobody else does in this block."""
        group = self.open()
        if group is None or not is_archive(group):
            yield self
            return
        with changing_structure(group):
            self._sweep(group)
            yield self

    def _sweep(self, group: zarr.Group) -> None:
        """Remove what killed processes left half-written: Zarr stumbles over it when it lists."""
        folder = local_path(self.store)
        if folder is None or others_at_work(group):
            return
        for place in (folder, folder / GROUP):
            for left in place.glob("*.partial"):
                left.unlink(missing_ok=True)

    def batches(self, blocks: Sequence[Item]) -> Iterator[Sequence[Item]]:
        """Blocks that are written in one transaction."""
        if blocks:
            yield blocks

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """What is written in this block; here it stays at once."""
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
    sessions : list
        What they wrote, where a place has transactions.
    """

    place: Place
    sessions: list[Any] = field(default_factory=list)

    def add(self, session: Any) -> None:
        """Take what a worker wrote."""
        if session is not None:
            self.sessions.append(session)


class IcechunkPlace(Place):
    """A branch of an Icechunk repository: blocks appear in commits of many, or not at all.

    Two processes that write the same blocks are found out by Icechunk when they commit.
    """

    gains_by_consolidating = False

    def __init__(self, repository: Any, branch: str = "main") -> None:
        super().__init__(repository.readonly_session(branch).store)
        self._repository, self._branch = repository, branch

    def open(self, *, read_only: bool = False) -> zarr.Group | None:
        return open_group(self._repository.readonly_session(self._branch).store, None, mode="r")

    @contextmanager
    def claimed(self, what: Mapping[str, range]) -> Iterator[None]:
        yield

    @contextmanager
    def changing(self) -> Iterator[Place]:
        session = self._repository.writable_session(self._branch)
        yield Place(session.store)
        if session.has_uncommitted_changes:
            session.commit("metadata of the archive")

    def batches(self, blocks: Sequence[Item]) -> Iterator[Sequence[Item]]:
        for start in range(0, len(blocks), _BLOCKS_PER_COMMIT):
            yield blocks[start : start + _BLOCKS_PER_COMMIT]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        session = self._repository.writable_session(self._branch)
        transaction = Transaction(Place(session.fork().store))
        try:
            yield transaction
        finally:  # also what was done before Ctrl-C
            if transaction.sessions:
                session.merge(*transaction.sessions)
                session.commit(f"{len(transaction.sessions)} blocks")

    def __str__(self) -> str:
        return f"branch {self._branch} of an Icechunk repository"


def place_of(
    store: Any, storage_options: Mapping[str, Any] | None, *, only_read: bool = False
) -> Place:
    """The place that a user names.

    Raises
    ------
    ValueError
        If several processes cannot write to it, unless it is only to be read.
    """
    options = dict(storage_options) if storage_options else None
    if type(store).__module__.split(".")[0] == "icechunk":
        if not hasattr(store, "writable_session"):
            raise ValueError("give the icechunk.Repository; sessions are opened and committed here")
        return IcechunkPlace(store)
    in_memory = isinstance(store, MemoryStore | dict) or str(store).startswith("memory://")
    if in_memory and not only_read:
        raise ValueError(
            "a store in memory cannot be shared with workers; give a folder or a URL, or use "
            "ds.coinpp.to_zarr"
        )
    if is_zip(store) or str(store).endswith(".zip"):
        if only_read:
            store = store if isinstance(store, ZipStore) else ZipStore(store)
            if store.path.exists() and not zipfile.is_zipfile(store.path):
                raise ValueError(f"{store.path} is no zip file, or not all of one")
            return Place(store, options)
        raise ValueError("a zip file cannot be written in parts; zip a folder later")
    if not only_read:
        refuse_read_only(store)
    if isinstance(store, os.PathLike):
        store = os.fspath(store)
    if isinstance(store, str):
        # Zarr makes folders where it knows that they are folders.
        store = store.removeprefix("file://")
    return Place(store, options)
