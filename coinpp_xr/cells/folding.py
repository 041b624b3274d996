"""Folds: which row and column of a raster each cell of one dimension goes to.

What lies next to each other on the sphere should do so in the raster; a cell that goes astray costs
bytes and no accuracy. Places of the raster without a cell are holes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.byte_reading import ByteReader, varint
from coinpp_xr.caching import remembered
from coinpp_xr.cells import healpix, rows, triangles
from coinpp_xr.errors import CorruptPayloadError

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

# Columns of cells of which nothing but their order is known.
_MOST_COLUMNS = 1 << 18
MOST_CELLS = 1 << 28


class FoldKind(IntEnum):
    """How cells are ordered."""

    ORDER = 0  # somehow: one after the other in rows
    HEALPIX_NESTED = 1
    HEALPIX_RING = 2
    TRIANGLES = 3
    ROWS = 4
    SQUARE = 5  # somehow: in as many rows as columns, of which models ask for few


@dataclass(frozen=True, eq=False)
class Fold:
    """A way to lay cells out in rows and columns.

    Parameters
    ----------
    kind : FoldKind
    cells : int
    shape : (rows, columns)
        Of the raster.
    places : int64 array, shape (cells,)
        Where each cell goes, counted along rows.
    parameters : bytes
        What the kind needs beside the number of cells.
    """

    kind: FoldKind
    cells: int
    shape: tuple[int, int]
    places: Int
    parameters: bytes = b""

    @cached_property
    def holes(self) -> Bool | None:
        """Places without a cell, shape (rows * columns,); None if there is none."""
        size = self.shape[0] * self.shape[1]
        if size == self.cells:
            return None
        holes = np.ones(size, np.bool_)
        holes[self.places] = False
        return holes

    def fold(self, values: npt.NDArray[Any], filler: float | None = None) -> npt.NDArray[Any]:
        """Values (…, cells) as a raster (…, rows, columns); holes hold a filler or the first."""
        batch = values.shape[:-1]
        size = self.shape[0] * self.shape[1]
        raster = np.empty((*batch, size), values.dtype)
        if self.holes is not None:
            raster[...] = values[..., :1] if filler is None else filler
        raster[..., self.places] = values
        return raster.reshape(*batch, *self.shape)

    def unfold(self, raster: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Values (…, cells) of a raster (…, rows, columns)."""
        flat = raster.reshape(*raster.shape[:-2], -1)
        return np.ascontiguousarray(flat[..., self.places])

    def pack(self) -> bytes:
        """What :func:`fold_of` makes the same fold of."""
        return bytes([self.kind]) + varint(self.cells) + self.parameters


@remembered(lambda found, *_: found.places.nbytes + found.shape[0] * found.shape[1])
def fold_of(section: bytes) -> Fold:
    """The fold that a payload's section describes.

    Raises
    ------
    CorruptPayloadError
    """
    reader = ByteReader(section)
    try:
        kind, cells = FoldKind(reader.byte()), reader.varint()
    except ValueError as error:
        raise CorruptPayloadError("payload claims an unknown order of cells") from error
    parameters = section[reader.position :]
    if not 1 <= cells <= MOST_CELLS:
        raise CorruptPayloadError(f"payload claims {cells} cells")
    fold = _fold(kind, cells, parameters)
    if fold is None:
        raise CorruptPayloadError(f"payload claims an order that {cells:,} cells cannot have")
    return fold


def _fold(kind: FoldKind, cells: int, parameters: bytes = b"") -> Fold | None:
    """A fold of a kind, None where so many cells cannot have it."""
    if kind == FoldKind.ROWS:
        return _of_rows(cells, parameters)
    if parameters:
        return None
    if kind == FoldKind.ORDER:
        count = -(-cells // _MOST_COLUMNS)
        return Fold(kind, cells, (count, -(-cells // count)), np.arange(cells))
    if kind == FoldKind.SQUARE:
        columns = isqrt(cells - 1) + 1
        return Fold(kind, cells, (-(-cells // columns), columns), np.arange(cells))
    if kind == FoldKind.TRIANGLES:
        halvings = triangles.halvings_of(cells)
        return None if halvings is None else Fold(kind, cells, *triangles.places(cells, halvings))
    nside = healpix.nside_of(cells)
    if nside is None or (kind == FoldKind.HEALPIX_NESTED and nside & (nside - 1)):
        return None
    pixels = (healpix.nested if kind == FoldKind.HEALPIX_NESTED else healpix.ring)(nside)
    return Fold(kind, cells, *healpix.places(pixels, nside))


def _of_rows(cells: int, parameters: bytes) -> Fold | None:
    reader = ByteReader(parameters)
    sectors, count = reader.byte(), reader.varint()
    if not 1 <= count <= rows.MOST_ROWS or not 1 <= sectors <= max(rows.SECTORS):
        return None
    lengths = rows.unpack(parameters[reader.position :], count)
    # Rows far longer than most would leave little but holes.
    if int(lengths.sum()) != cells or count * int(lengths.max()) > 8 * cells:
        return None
    return Fold(FoldKind.ROWS, cells, *rows.places(lengths, sectors), parameters)


def folds_of_rows(lengths: Int) -> Iterator[Fold]:
    """The folds of rows, none where their lengths are out of proportion."""
    for sectors in rows.SECTORS:
        parameters = bytes([sectors]) + varint(len(lengths)) + rows.pack(lengths)
        fold = _of_rows(int(lengths.sum()), parameters)
        if fold is not None:
            yield fold


def folds_of(cells: int, kind: FoldKind | None = None) -> list[Fold]:
    """Folds that so many cells may have: of one kind, or of all that their number allows.

    The order as it is comes first.
    """
    if kind is not None:
        fold = _fold(kind, cells)
        return [] if fold is None else [fold]
    kinds = (FoldKind.ORDER, FoldKind.HEALPIX_NESTED, FoldKind.HEALPIX_RING, FoldKind.TRIANGLES)
    found = [fold for kind in kinds if (fold := _fold(kind, cells)) is not None]
    lengths = rows.octahedral(cells)
    return found if lengths is None else [*found, *folds_of_rows(lengths)]
