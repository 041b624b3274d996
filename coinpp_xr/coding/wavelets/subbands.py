"""Which subbands a field has, in the order of coding, and what an error in them does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.wavelets.lifting import (
    AVERAGE_NORMS,
    DETAIL_NORMS,
    Details,
    analyse,
    level_count,
    shapes_of,
    synthesise,
)
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.parallel import map_compiled

Float64 = npt.NDArray[np.float64]

AVERAGES, ALONG_ROWS, ALONG_COLUMNS, ACROSS, WAVES = range(5)
KINDS = 5
# Zeros around numbers: what contexts look at is always there.
PAD = 2
# Cells near the poles count as if they had at least this share of the mean area: errors there are
# not to be seen from afar.
_LEAST_AREA = 0.1


@dataclass(frozen=True)
class Subband:
    """Coefficients of a level that are alike.

    Parameters
    ----------
    shape : (rows, columns)
    level : int
        0 is the finest.
    kind : int
        Averages, or details along rows, along columns or across; or waves, of no wavelet.
    parent : int or None
        Number of the subband of this kind on the next coarser level.
    """

    shape: tuple[int, int]
    level: int
    kind: int
    parent: int | None

    def scale(self, areas: Float64) -> Float64:
        """By what coefficients are multiplied so that errors count alike, shape (rows, 1).

        ``areas`` are relative to the mean, of all rows of a field.
        """
        high = self.kind in (ALONG_COLUMNS, ACROSS)
        level = min(self.level, len(AVERAGE_NORMS) - 1)
        rows = (DETAIL_NORMS if high else AVERAGE_NORMS)[level]
        columns = (DETAIL_NORMS if self.kind in (ALONG_ROWS, ACROSS) else AVERAGE_NORMS)[level]
        step = 2 << self.level
        where = np.arange(self.shape[0]) * step + high * step // 2
        own = np.sqrt(areas[np.minimum(where, len(areas) - 1)])
        return np.asarray(rows * columns * own[:, None])


@lru_cache(8)
def subbands_of(shape: tuple[int, int]) -> tuple[Subband, ...]:
    """Averages, and details from coarse to fine."""
    shapes, levels = shapes_of(shape), level_count(shape)
    found = [Subband(shapes[-1], max(levels - 1, 0), AVERAGES, None)]
    for level in range(levels - 1, -1, -1):
        rows, columns = shapes[level]
        for kind, own in (
            (ALONG_ROWS, ((rows + 1) // 2, columns // 2)),
            (ALONG_COLUMNS, (rows // 2, (columns + 1) // 2)),
            (ACROSS, (rows // 2, columns // 2)),
        ):
            parent = len(found) - 3 if level < levels - 1 else None
            found.append(Subband(own, level, kind, parent))
    return tuple(found)


def wavelets_on(grid: SphereGrid) -> Wavelets:
    return Wavelets(grid.shape, grid.row_areas, around=grid.goes_around)


class Wavelets:
    """Fields ↔ coefficients whose errors count alike.

    Parameters
    ----------
    shape : (n_lat, n_lon)
    around : bool
        Whether the first column follows the last.
    areas : float array, shape (n_lat,)
        Of the cells of every row.
    """

    def __init__(self, shape: tuple[int, int], areas: Float64, *, around: bool) -> None:
        self.subbands, self._shape, self._around = subbands_of(shape), shape, around
        relative = np.maximum(areas / max(float(areas.mean()), 1e-300), _LEAST_AREA)
        self._scales = [subband.scale(relative) for subband in self.subbands]

    def forward(self, fields: list[Float64]) -> list[list[Float64]]:
        return map_compiled(self._forward, fields)

    def inverse(self, coefficients: Sequence[list[Float64]]) -> list[Float64]:
        return map_compiled(self._inverse, coefficients)

    def _forward(self, field: Float64) -> list[Float64]:
        averages, details = analyse(field, around=self._around)
        arrays = [averages, *(array for one in reversed(details) for array in one)]
        for array, scale in zip(arrays, self._scales, strict=True):
            array *= scale
        return arrays

    def _inverse(self, coefficients: list[Float64]) -> Float64:
        arrays = [a / scale for a, scale in zip(coefficients, self._scales, strict=True)]
        details = [Details(*arrays[k : k + 3]) for k in range(1, len(arrays), 3)]
        return synthesise(arrays[0], details[::-1], self._shape, around=self._around)
