"""All of a store read, checked and decoded, and compared with what it was made from."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from coinpp_xr.archiving.checking import WHOLE, look_through, on_workers
from coinpp_xr.archiving.cluster import a_client, check_workers
from coinpp_xr.archiving.manifest import entry, variables_of
from coinpp_xr.archiving.places import place_of
from coinpp_xr.archiving.sources import open_source
from coinpp_xr.archiving.work import Failure
from coinpp_xr.data import with_areas
from coinpp_xr.stores import compressed_in, open_group

if TYPE_CHECKING:
    from distributed import Client


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
    unplaced : dict
        Chunks by variable that do not say where they belong: this package's writers say it, others
        do not, and of their stores nobody can tell whether chunks were exchanged or lost.
    """

    store: str
    n_blocks: int
    n_compared: int
    problems: tuple[Failure, ...]
    missing: dict[str, int]
    seconds: float
    has_source: bool = False
    unplaced: dict[str, int] = field(default_factory=dict)

    @property
    def is_sound(self) -> bool:
        """Whether everything is there and as it should be; with a source, compared with it."""
        compared = self.n_compared > 0 or not self.has_source
        return not self.problems and not self.missing and compared

    @property
    def complaint(self) -> str:
        """The first thing that is not as it should be, in one line; empty if all is."""
        listed = [str(problem) for problem in self.problems]
        listed += [f"{name}: {count:,} blocks are missing" for name, count in self.missing.items()]
        if not listed and not self.is_sound:
            listed = ["no block could be held against the source, which holds none whole"]
        more = f" (and {len(listed) - 1:,} more problems)" * (len(listed) > 1)
        return f"{self.store}: {listed[0]}{more}" if listed else ""

    def __str__(self) -> str:
        compared = f", {self.n_compared:,} of them held against the source" * self.has_source
        lines = [
            f"{self.store}: {self.n_blocks:,} blocks read and decoded{compared}, "
            f"{len(self.problems)} problems ({self.seconds:.1f} s)"
        ]
        lines += [f"{name}: {count:,} blocks are missing" for name, count in self.missing.items()]
        lines += [
            f"{name}: {count:,} chunks do not say where they belong (ds.coinpp.to_zarr and coinpp "
            "archive write that): none may have been exchanged or lost, nobody can tell"
            for name, count in self.unplaced.items()
        ]
        return "\n".join([*lines, *map(str, self.problems)])

    __repr__ = __str__


def verify(
    store: Any,
    source: Any = None,
    *,
    group: str | None = None,
    client: Client | None = None,
    workers: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    forget: bool = False,
) -> Verification:
    """Read everything that is compressed in a store, and hold it against what it should be.

    Every payload is read, its checksum checked, and decoded. It must be the one that was written
    under its key, if it says where it belongs, and no other may be missing. Of an archive, size
    and checksum must be those of the manifest. With the source, every promise on errors is checked
    again. What is not compressed must be readable.

    Parameters
    ----------
    store : str, path, Zarr store or icechunk.Repository
        An archive, or a store written by ``ds.coinpp.to_zarr`` or ``ds.to_zarr``.
    source : path, URL, pattern, list of these, Dataset or DataArray, optional
        What it was made from, or a part of that along time.
    group : str, optional
        Of the store.
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
    place = place_of(store, storage_options, only_read=not forget)
    root = place.root(read_only=True)
    if group:
        found_group = open_group(root.store, group)
        if found_group is None:
            raise FileNotFoundError(f"no group {group!r} in {place}")
        root = found_group
    names = compressed_in(root)
    if not names:
        raise ValueError(f"{place}: no variable is compressed by coinpp-xr")
    opened = None if source is None else with_areas(open_source(source, names, 1).dataset)
    if opened is not None and (unknown := [n for n in names if n not in opened]) == names:
        raise ValueError(f"the source has none of {', '.join(unknown)}")
    started = time.perf_counter()
    with a_client(client, workers) as connected:
        threads = check_workers(connected, gpu=False)
        run = partial(on_workers, connected, threads)
        found = look_through(place, root, run, source=opened)
    seconds = time.perf_counter() - started
    if forget and found.problems:
        known = variables_of(root)
        with place.changing() as current:
            writable = current.root()
            for problem in found.problems:
                if problem.variable in known and problem.index != WHOLE:
                    entry(writable, problem.variable)[1].forget([problem.index])
    return Verification(
        str(place), found.n_blocks, found.n_compared, tuple(found.problems), found.missing,
        seconds, opened is not None, found.unplaced,
    )  # fmt: skip
