"""Other codecs on a chunk of globes, each at its best setting for a given error.

Every peer gets the chunk in the layouts that suit it (whole, with its axes in several orders, globe
by globe, and all globes in one picture), and its settings are searched: the smallest stream counts
whose decoded values, measured, keep the goal. Counted are the peer's own streams, nothing for
shapes, scales or for separating the globes, and no mask: missing cells are filled with the mean
before.

Codecs that know nothing of bounds (image codecs, EOFs) get a residual on a lattice on top, packed
by PCodec; the share of both is searched, too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.peers.bounded import ebcc, newest_sz3, sperr, sz3, zfp
from coinpp_xr.peers.fitted import coin_networks, eof_truncation
from coinpp_xr.peers.images import avif, hevc, jpeg, jpeg2000, jpeg_xl
from coinpp_xr.peers.rounding import bitround, blosc, pcodec
from coinpp_xr.peers.search import Chunk, Goal, NotInstalledError, Result, Search

__all__ = [
    "PEERS",
    "SECONDS",
    "SLOW_PEERS",
    "WITHOUT_BOUND",
    "Chunk",
    "Goal",
    "NotInstalledError",
    "Result",
    "smallest",
]

# Name → search; those with a residual under a bound say so.
PEERS: dict[str, Callable[[Search], None]] = {
    "SZ3": sz3,
    "SZ3 3.4": newest_sz3,
    "SPERR": sperr,
    "ZFP": zfp,
    "EBCC": ebcc,
    "JPEG 2000": jpeg2000,
    "JPEG XL": jpeg_xl,
    "JPEG": jpeg,
    "AVIF": avif,
    "HEVC-intra": hevc,
    "EOF truncation": eof_truncation,
    "BitRound + Zstd": bitround,
    "PCodec": pcodec,
    "Blosc": blosc,
}
# These take minutes: only when they are named.
SLOW_PEERS: dict[str, Callable[[Search], None]] = {"COIN": coin_networks}
# Of a search, per million values, on two cores: roughly, to say how long a comparison will take.
SECONDS: dict[str, float] = {
    "SZ3": 12,
    "SZ3 3.4": 50,
    "SPERR": 15,
    "ZFP": 5,
    "EBCC": 250,
    "JPEG 2000": 10,
    "JPEG XL": 25,
    "JPEG": 3,
    "AVIF": 400,
    "HEVC-intra": 400,
    "EOF truncation": 10,
    "BitRound + Zstd": 10,
    "PCodec": 5,
    "Blosc": 20,
    "COIN": 2000,
}
WITHOUT_BOUND = frozenset(
    {"JPEG 2000", "JPEG XL", "JPEG", "AVIF", "HEVC-intra", "EOF truncation", "COIN"}
)


def smallest(
    name: str, chunk: Chunk, goal: Goal
) -> tuple[Result, npt.NDArray[np.floating[Any]]] | None:
    """The smallest stream of a peer (of both lists) that meets the goal, and what it decodes to.

    None where no setting meets it.

    Raises
    ------
    NotInstalledError
    """
    title = name
    if goal.max_error is not None and name in WITHOUT_BOUND:
        title = f"{name} + residual"
    search = Search(title, chunk, goal)
    {**PEERS, **SLOW_PEERS}[name](search)
    if search.best is None or search.decoded is None:
        return None
    return search.best, search.decoded
