"""A sample of a variable, and how far its values spread: all together, and on every level."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.coarseness import Spread
from coinpp_xr.labels import globe_label
from coinpp_xr.recognition import usable_cells
from coinpp_xr.selection import Layout
from coinpp_xr.step_search import find_steps
from coinpp_xr.units import unit_of

Values = npt.NDArray[Any]

# Steps along time that are looked at.
_STEPS = 4
# Cells of all globes together, more or less; and of one globe, at least and at most.
_MOST_CELLS, _FEWEST_OF_GLOBE, _MOST_OF_GLOBE = 1 << 23, 1 << 10, 1 << 16
# Bytes that are read at a time, where the data is neither in memory nor in dask arrays.
_AT_ONCE = 1 << 28
# Usual names of dimensions.
_PRESSURE = {"isobaricinhpa", "isobaricinpa", "plev", "pressure", "pressure_level"}
_VERTICAL = {
    "level", "lev", "levels", "hybrid", "height", "altitude", "depth", "isobaric", "model_level",
    "heightaboveground", "heightabovesea", "depthbelowland", "depthbelowlandlayer", "soil_level",
    "theta", "layer", "z",
}  # fmt: skip


@dataclass(frozen=True)
class Level:
    """One index along the dimensions other than time, latitude and longitude.

    Parameters
    ----------
    label : str
        ``level=850, member=3``; empty where there is no such dimension.
    spread : Spread or None
        None where no cell is valid.
    """

    label: str
    spread: Spread | None


@dataclass(frozen=True, eq=False)
class Sample:
    """Some values of a variable: whole globes, thinned, of at most four steps along time.

    The steps are the middles of equal parts of time; every index along other dimensions is there.
    Of a grid of more than 65,536 cells, or of fewer where there are hundreds of globes, every
    second, third, ... row and column is. NaN, ±Inf and fill values are left out. Of a dask array
    the chunks that hold these steps are computed.

    Parameters
    ----------
    array : DataArray
        The variable.
    values : array, shape (steps, levels, cells)
    dims : tuple
        The dimensions that levels go along.
    """

    array: xr.DataArray
    values: Values
    dims: tuple[Any, ...]

    @classmethod
    def of(cls, array: xr.DataArray) -> Sample:
        """Sample an array that :func:`coinpp_xr.selection.why_not` has nothing against."""
        layout = Layout.of(array)
        others = list(layout.batch)
        part = array.transpose(*layout.dims)
        # Of a single analysis the levels go for time, but each is a field of its own kind.
        if others and not is_vertical(array, others[layout.time_axis]):
            time = others.pop(layout.time_axis)
            length = array.sizes[time]
            count = min(_STEPS, length)
            steps = [(2 * i + 1) * length // (2 * count) for i in range(count)]
            part = part.isel({time: steps}).transpose(time, *others, *layout.cells.dims)
        else:
            part = part.expand_dims("step")
        shape = layout.cells.shape
        globes = part.size // int(np.prod(shape))
        most = max(_FEWEST_OF_GLOBE, min(_MOST_CELLS // globes, _MOST_OF_GLOBE))
        thinned = _thinned(shape, most)
        values = _read(part, thinned)
        levels = int(np.prod(values.shape[1 : -len(shape)]))
        cells = int(np.prod(values.shape[-len(shape) :]))
        return cls(array, values.reshape(len(values), levels, cells), (*others,))

    @cached_property
    def spread(self) -> Spread | None:
        """Of all values."""
        return Spread.of(np.concatenate([values for _, values in self._by_level()]))

    @cached_property
    def source_step(self) -> float | None:
        """The step that the first level was quantized with before, if it was."""
        steps = next((find_steps(values) for _, values in self._by_level() if values.size), None)
        return None if steps is None else steps.size

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """Of every level by itself."""
        dims = [dim for dim in self.dims if self.array.sizes[dim] > 1]
        return tuple(
            Level(globe_label(self.array, dims, index), Spread.of(values))
            for index, values in self._by_level()
        )

    def _by_level(self) -> list[tuple[int, Values]]:
        levels = (self.values[:, index] for index in range(self.values.shape[1]))
        with np.errstate(over="ignore", invalid="ignore"):
            return [(index, level[usable_cells(level)]) for index, level in enumerate(levels)]


def _thinned(shape: Sequence[int], most: int) -> tuple[Any, ...]:
    """Rows and columns of a field, or cells, so that at most about so many are left."""
    step = 1
    while int(np.prod([-(-length // step) for length in shape])) > most:
        # What would take thousands of steps one by one: cells in one axis.
        step += max(1, step // 64)
    return (..., *(slice(step // 2 % length, None, step) for length in shape))


def _read(part: xr.DataArray, thinned: tuple[Any, ...]) -> Values:
    """Without steps that cannot be read: who reads all of them has more to say of that."""
    variable = part.variable
    try:
        if variable.chunks is not None:
            return np.asarray(variable[thinned].to_numpy())
        return np.concatenate([_step(variable, n, thinned) for n in range(len(variable))])
    except Exception:
        read = [np.empty((0, *variable[:1][thinned].shape[1:]), variable.dtype)]
        for number in range(len(variable)):
            with suppress(Exception):
                read.append(_step(variable, number, thinned))
        return np.concatenate(read)


def _step(variable: xr.Variable, number: int, thinned: tuple[Any, ...]) -> Values:
    """One step: readers of files are slow in strides, so whole globes are read."""
    one = variable[number : number + 1]
    pieces = [one]
    if one.nbytes > _AT_ONCE and one.ndim > 3:
        pieces = [one[:, index : index + 1] for index in range(one.shape[1])]
    cells = [np.asarray(piece.to_numpy()[thinned]) for piece in pieces]
    return cells[0] if len(cells) == 1 else np.concatenate(cells, axis=1)


def is_vertical(array: xr.DataArray, name: Any) -> bool:
    """Whether a dimension or scalar coordinate counts levels: of pressure, height, depth, ..."""
    attrs = array[name].attrs if name in array.coords else {}
    return (
        str(name).lower() in _VERTICAL
        or attrs.get("axis") == "Z"
        or "positive" in attrs
        or is_pressure(array, name)
    )


def is_pressure(array: xr.DataArray, name: Any) -> bool:
    """Whether a dimension or scalar coordinate counts levels of pressure."""
    if name not in array.coords:
        return str(name).lower() in _PRESSURE
    attrs = array[name].attrs
    unit = unit_of(str(attrs.get("units", "")))
    if unit is not None:
        return unit[0] == unit_of("Pa")[0]  # type: ignore[index]
    return str(name).lower() in _PRESSURE or attrs.get("standard_name") == "air_pressure"
