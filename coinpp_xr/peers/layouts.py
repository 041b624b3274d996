"""A chunk of globes cut and turned into the arrays that a peer gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Order = tuple[int, int, int]

ALL_ORDERS: list[Order] = [(a, b, c) for a, b, c in permutations(range(3))]
_AXES = ("time", "lat", "lon")


@dataclass(frozen=True, eq=False)
class Layout:
    """A chunk cut and turned into the arrays that a peer gets."""

    name: str
    arrays: list[Float32]
    restore: Callable[[list[npt.NDArray[Any]]], npt.NDArray[Any]]


def layouts(chunk: Float32, orders: Sequence[Order], *, tables: bool = False) -> Iterator[Layout]:
    """The whole chunk with its axes in ``orders``, if it has more than one globe; globe by globe.

    ``tables`` adds (time, cell) and (cell, time) as two-dimensional arrays.
    """
    # SPERR aborts the process on a 3-D array with a single layer.
    for order in orders if min(chunk.shape) > 1 else []:
        axes = "×".join(_AXES[axis] for axis in order)
        yield Layout(
            "3D" if order == (0, 1, 2) else f"3D {axes}",
            [np.ascontiguousarray(chunk.transpose(order))],
            partial(_turn_back, order),
        )
    yield Layout("2D", [np.ascontiguousarray(globe) for globe in chunk], np.stack)
    if tables and len(chunk) > 1:
        table = np.ascontiguousarray(chunk.reshape(len(chunk), -1))
        yield Layout("2D time×cell", [table], lambda arrays: arrays[0].reshape(chunk.shape))
        yield Layout(
            "2D cell×time",
            [np.ascontiguousarray(table.T)],
            lambda arrays: arrays[0].T.reshape(chunk.shape),
        )


def _turn_back(order: Order, arrays: list[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    return arrays[0].transpose(np.argsort(order))


def pictures(chunk: Float32) -> Iterator[Layout]:
    """All globes in one picture, side by side and stacked: headers are paid for once."""
    count, n_lat, n_lon = chunk.shape
    if count == 1:
        return
    row = chunk.transpose(1, 0, 2).reshape(n_lat, -1)
    yield Layout(
        "2D side by side",
        [np.ascontiguousarray(row)],
        lambda arrays: arrays[0].reshape(n_lat, count, n_lon).transpose(1, 0, 2),
    )
    column = np.ascontiguousarray(chunk.reshape(-1, n_lon))
    yield Layout("2D stacked", [column], lambda arrays: arrays[0].reshape(chunk.shape))
