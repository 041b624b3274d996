"""Where the points of a level, their neighbours and their places in reference fields are stored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coding.pyramid.levels import PAD, PASSES, Pass, Reach, padded_size
from coinpp_xr.coding.pyramid.prediction import Places
from coinpp_xr.coding.pyramid.references import stencil

Int = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class PassGeometry:
    """Of the points of one pass.

    Parameters
    ----------
    shape : (items, rows, columns)
    which : (row, column, spacing)
        Of the points in the grid.
    places : Places
        In the pool of the level.
    rows, columns : int64 arrays, shape (5, rows), (5, columns)
        In reference fields.
    diagonal : bool
        Whether the four nearest are those on diagonals.
    """

    shape: tuple[int, int, int]
    which: tuple[int, int, int]
    places: Places
    rows: Int
    columns: Int
    diagonal: bool


@dataclass(frozen=True, eq=False)
class Geometry:
    """Of the four phases of a level, one behind the other in a pool.

    Parameters
    ----------
    shapes : tuple of (items, rows, columns)
        The coarser grid, and the points of three passes.
    starts : tuple of int
        In the pool, padded; and its size.
    passes : tuple of PassGeometry
    """

    shapes: tuple[tuple[int, int, int], ...]
    starts: tuple[int, ...]
    passes: tuple[PassGeometry, ...]


@remembered(lambda found, *_: sum(8 * (p.rows.size + p.columns.size) + 4096 for p in found.passes))
def geometry(
    shape: tuple[int, int], level: int, n_items: int, reach: Reach, *, around: bool
) -> Geometry:
    """Of the level of a grid whose spacing is 2^level cells."""
    n_lat, n_lon = (-(-side // (1 << level)) for side in shape)
    shapes = tuple(
        (n_items, (n_lat + 1 - row) // 2, (n_lon + 1 - column) // 2)
        for row, column in ((0, 0), *((p.row, p.column) for p in PASSES))
    )
    starts = np.concatenate([[0], np.cumsum([padded_size(s) for s in shapes])])
    padded = np.array([(rows + 2 * PAD, columns + 2 * PAD) for _, rows, columns in shapes])

    def of_pass(number: int, which: Pass) -> PassGeometry:
        source, down, right = np.vstack(
            [which.neighbours[: reach.neighbours[number - 1]], [number, 0, 0]]
        ).T
        steps = padded[source, 1]
        offsets = starts[source] + (PAD + down) * steps + PAD + right
        row, column, spacing = which.row << level, which.column << level, 2 << level
        own, strides = shapes[number], padded[source, 0] * steps
        places = Places(offsets, steps, strides, reach.beside[number - 1], around)
        return PassGeometry(
            own, (row, column, spacing), places,
            stencil(own[1], row, spacing, shape[0], around=False),
            stencil(own[2], column, spacing, shape[1], around=around),
            which.diagonal,
        )  # fmt: skip

    passes = tuple(of_pass(number, which) for number, which in enumerate(PASSES, start=1))
    return Geometry(shapes, tuple(starts.tolist()), passes)
