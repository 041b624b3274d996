"""Which variables of a dataset the codec takes, how they lie in it, and at what rate."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.horizontal import Horizontal, why_no_grid
from coinpp_xr.xarray_encoding import MOST_GLOBES, whole_field_chunks

_KINDS = {
    "i": "integers",
    "u": "integers",
    "b": "booleans",
    "c": "complex numbers",
    "M": "dates",
    "m": "time spans",
}


@dataclass(frozen=True, eq=False)
class Layout:
    """How a variable lies in the codec: the cells of a field last, and which axis is time.

    Parameters
    ----------
    dims : tuple
        The variable's dimensions with those of cells last, the others as they were.
    time_axis : int
        Position in ``dims`` of the dimension along which fields follow each other.
    cells : Horizontal
        How the cells of a field lie: along latitude and longitude, rows and columns, or one axis.
    valid_range : tuple of float, or None
        From the attributes ``valid_range``, ``valid_min`` and ``valid_max``, in the unit of the
        values.
    """

    dims: tuple[Any, ...]
    time_axis: int
    cells: Horizontal
    valid_range: tuple[float, float] | None = None

    @classmethod
    def of(cls, array: xr.DataArray) -> Self:
        """The layout of an array that :func:`why_not` has nothing against."""
        cells = Horizontal.of(array)
        batch = tuple(dim for dim in array.dims if dim not in cells.dims)
        time_axis = batch.index(_time_dim(array, batch)) if batch else 0
        return cls((*batch, *cells.dims), time_axis, cells, _valid_range(array))

    @property
    def batch(self) -> tuple[Any, ...]:
        """The dimensions before those of cells."""
        return self.dims[: -self.cell_axes]

    @property
    def cell_axes(self) -> int:
        """How many of the last dimensions hold the cells of a field."""
        return len(self.cells.dims)

    @property
    def latitude(self) -> npt.NDArray[Any]:
        """Degrees, of rows of a regular grid, or of every cell."""
        return self._degrees[0]

    @property
    def longitude(self) -> npt.NDArray[Any]:
        """Degrees, of columns of a regular grid, or of every cell."""
        return self._degrees[1]

    @property
    def _degrees(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if self.cells.degrees is None:
            raise ValueError("there is no latitude and longitude")
        return self.cells.degrees

    def chunks(
        self, sizes: Mapping[Any, int], itemsize: int, most_globes: int = MOST_GLOBES
    ) -> tuple[int, ...]:
        """Chunks of whole fields, in the order of ``dims``."""
        shape = [sizes[dim] for dim in self.dims]
        return whole_field_chunks(
            shape, itemsize, time_axis=self.time_axis, most_fields=most_globes,
            cell_axes=self.cell_axes,
        )  # fmt: skip

    def codec_settings(self, rate: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments of a codec that follow from the layout, where it gets this rate control."""
        cells, grid = self.cells, self.cells.grid
        if grid is None:
            where: dict[str, Any] = {"latitude": self.latitude, "longitude": self.longitude}
        else:
            if "bits" in rate and not grid.tells_places:  # models are evaluated where cells are
                grid = cells.placed_grid or grid
            where = {"grid": grid.config, "weights": cells.packed_weights}
        return {
            **where,
            "time_axis": self.time_axis,
            **({} if self.valid_range is None else {"valid_range": self.valid_range}),
        }


def _time_dim(array: xr.DataArray, batch: tuple[Any, ...]) -> Any:
    """The dimension along which neighbours are most alike: time, or else the first.

    A single analysis time with many forecast steps is a sequence of steps.
    """
    longer = [dim for dim in batch if array.sizes[dim] > 1] or list(batch)

    def likeness(dim: Any) -> int:
        if str(dim).lower() == "time":
            return 3
        if dim not in array.coords:
            return 0
        coordinate = array[dim]
        is_date = coordinate.dtype.kind == "M" or hasattr(coordinate.to_numpy()[0], "calendar")
        return 2 if is_date else int(coordinate.dtype.kind == "m")

    return max(longer, key=likeness)


def _valid_range(array: xr.DataArray) -> tuple[float, float] | None:
    if array.dtype.kind != "f":
        return None
    attrs, packing = array.attrs, array.encoding
    given = attrs.get("valid_range", (attrs.get("valid_min"), attrs.get("valid_max")))
    largest = float(np.finfo(array.dtype).max)
    try:
        low, high = (end if end is None else np.asarray(end).item() for end in given)
        ends = [-largest if low is None else float(low), largest if high is None else float(high)]
    except (TypeError, ValueError):
        return None  # not what CF says it is
    packed = all(isinstance(end, int) for end in (low, high) if end is not None)
    if packed and ("scale_factor" in packing or "add_offset" in packing):
        # CF gives them in packed numbers then, and xarray leaves them so.
        scale, offset = packing.get("scale_factor", 1.0), packing.get("add_offset", 0.0)
        ends = sorted(end if abs(end) == largest else float(end * scale + offset) for end in ends)
    known = (low, high) != (None, None) and np.isfinite(ends).all() and ends[0] <= ends[1]
    return (ends[0], ends[1]) if known else None


def choose_variables(
    dataset: xr.Dataset,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any] | None = None,
) -> tuple[list[Any], dict[Any, str]]:
    """The variables to compress, and why each of the others is not.

    Parameters
    ----------
    dataset : Dataset
    variables : str or iterable, optional
        Those asked for; default: all that can be compressed.
    rates : mapping, optional
        What they are to be compressed with: integers are without loss.

    Raises
    ------
    ValueError
        If one that was asked for does not exist or cannot be compressed, or if none can.
    """
    asked = None
    if variables is not None:
        asked = [variables] if isinstance(variables, str) else list(variables)
        check_names(asked, dataset)
    chosen, reasons = [], {}
    for name, array in dataset.data_vars.items():
        exact = rates_of(rates or {}, name).get("max_error") == 0
        reason = why_not(array, exact=exact)
        if reason and asked is not None and name in asked:
            raise ValueError(f"cannot compress {name!r}: {reason}")
        if not reason and asked is not None and name not in asked:
            reason = "left alone: not asked for"
        if reason:
            reasons[name] = reason
        else:
            chosen.append(name)
    if not chosen:
        listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise ValueError(f"no variable can be compressed ({listed or 'there is none'})")
    return chosen, reasons


def check_names(names: Iterable[Any], dataset: xr.Dataset) -> None:
    """Refuse names that are no variables, with those that are near."""
    known = list(map(str, dataset.data_vars))
    for name in names:
        if name not in dataset.data_vars:
            near = difflib.get_close_matches(str(name), known, n=3)
            there = f"there are: {', '.join(known) or 'none'}"
            hint = f"did you mean {' or '.join(near)}?" if near else there
            raise ValueError(f"no variable {name!r}; {hint}")


def why_not(array: xr.DataArray, *, exact: bool = False) -> str:
    """Why a variable cannot be compressed, in plain words; empty if it can.

    Integers can where nothing is to be lost.
    """
    if array.dtype.kind != "f" and not (exact and array.dtype.kind in "iu"):
        return f"{_KINDS.get(array.dtype.kind, 'text or objects')}: kept as they are"
    if reason := why_no_grid(array):
        is_series = array.ndim < 2 and "GRIB_gridType" not in array.attrs
        return "no latitude/longitude" if is_series else f"no latitude/longitude: {reason}"
    if array.size == 0:
        return "no values"
    cells = Horizontal.of(array)
    if cells.is_regular and cells.degrees is not None:
        try:
            SphereGrid(*cells.degrees)
        except ValueError as error:
            return str(error)
    return ""


def check_rates(rates: Mapping[str, Any], dataset: xr.Dataset) -> None:
    """Refuse controls for variables that there are not."""
    for value in rates.values():
        if isinstance(value, Mapping):
            check_names(value, dataset)


def rates_of(rates: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """The rate controls that hold for one variable.

    Parameters
    ----------
    rates : mapping
        From the name of a control to its value for all variables, or to a mapping by variable.
    name : hashable
        Of the variable.
    """
    own = {
        control: value.get(name) if isinstance(value, Mapping) else value
        for control, value in rates.items()
    }
    return {control: value for control, value in own.items() if value is not None}
