"""Fields of archives that are too large to be read at once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.fields import regular_axes
from coinpp_xr.data.horizontal import Horizontal

if TYPE_CHECKING:
    import xarray as xr

Float64 = npt.NDArray[np.float64]

# The last of so many times are held out, at most so many.
_HELD_OUT, _MOST_HELD_OUT = 10, 720
_BLOCK_BYTES = 1 << 25


@dataclass(frozen=True, eq=False)
class MeanField:
    """The mean of some fields.

    Parameters
    ----------
    total : float64 array, shape (n_lat, n_lon)
        The sum of what is finite.
    count : int array of the same shape
        Of how many fields.
    fields : int
        How many there were.
    low, high : float
        The range of their values.
    """

    total: Float64
    count: npt.NDArray[np.int64]
    fields: int
    low: float
    high: float

    @property
    def field(self) -> Float64:
        with np.errstate(invalid="ignore"):
            return self.total / self.count

    @property
    def range(self) -> float:
        return (self.high - self.low) or 1.0

    def without(self, values: Float64) -> Float64:
        """The mean of all others, NaN where there are none."""
        valid = np.isfinite(values)
        total = self.total - np.where(valid, values, 0).sum(axis=0)
        with np.errstate(invalid="ignore"):
            return np.asarray(total / (self.count - valid.sum(axis=0)))


@dataclass(frozen=True, eq=False)
class LazyFields:
    """Fields that follow each other, read when they are needed; the last ones are held out.

    Parameters
    ----------
    array : DataArray, shape (times, n_lat, n_lon)
    grid : SphereGrid
    held_out : int
    """

    array: xr.DataArray
    grid: SphereGrid
    held_out: int

    @classmethod
    def of(cls, array: xr.DataArray) -> LazyFields:
        """The fields of an array, and the last tenth held out.

        Raises
        ------
        ValueError
            If it has another axis than time, or fewer than three times.
        """
        cells = Horizontal.of(array)
        grid = SphereGrid(*regular_axes(array, cells))
        array = array.transpose(..., *cells.dims)
        array = array.squeeze([d for d in array.dims[:-2] if array.sizes[d] == 1])
        name = array.name or "field"
        if array.ndim != 3:
            raise ValueError(
                f"{name} with dimensions ({', '.join(map(str, array.dims))}) needs one axis before "
                "latitude and longitude; select a level or member: da.isel(level=0)"
            )
        if len(array) < 3:
            raise ValueError(f"{name} has {len(array)} times; its mean field needs three or more")
        return cls(array, grid, min(max(len(array) // _HELD_OUT, 1), _MOST_HELD_OUT))

    def __len__(self) -> int:
        return len(self.array)

    def read(self, start: int, stop: int) -> Float64:
        return self.array[start:stop].to_numpy().astype(np.float64)

    def mean(self, until: float) -> MeanField:
        """Of what is not held out, or of blocks spread over it that are read until then.

        Parameters
        ----------
        until : float
            Of ``time.monotonic``.

        Raises
        ------
        ValueError
            If nothing is finite.
        """
        size = max(1, _BLOCK_BYTES // (8 * self.array[0].size))
        end = len(self) - self.held_out
        starts = np.arange(0, end, size)
        total, count = np.zeros(self.grid.shape), np.zeros(self.grid.shape, np.int64)
        fields, low, high = 0, inf, -inf
        # Next to each other in this order are blocks far from each other.
        for start in starts[np.argsort((0.618 * np.arange(len(starts))) % 1)]:
            values = self.read(int(start), int(min(start + size, end)))
            valid = np.isfinite(values)
            if valid.any():
                total += np.where(valid, values, 0).sum(axis=0)
                count += valid.sum(axis=0)
                low = min(low, float(values.min(where=valid, initial=inf)))
                high = max(high, float(values.max(where=valid, initial=-inf)))
            fields += len(values)
            if fields > 1 and time.monotonic() > until:
                break
        if not count.any():
            raise ValueError(f"{self.array.name or 'field'} holds no finite values")
        return MeanField(total, count, fields, low, high)

    def spread_chunks(self, most: int, depth: int, *, held_out: bool) -> Iterator[Float64]:
        """At most so many chunks of ``depth`` fields, spread evenly over a part; none is empty."""
        first, last = len(self) - self.held_out, len(self)
        if not held_out:
            first, last = 0, first
        depth = min(depth, last - first)
        number = min(most, (last - first) // depth)
        for k in range(number):
            start = first + round((last - first - depth) * (k + 0.5) / number)
            values = self.read(start, start + depth)
            if np.isfinite(values).any():
                yield values
