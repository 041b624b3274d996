"""Loaders of fields: from files and xarray objects to fields on one grid, ready for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.horizontal import Horizontal, why_no_grid
from coinpp_xr.data.opening import check_volume, locate, open_lazily
from coinpp_xr.data.sources import errors_name

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.training import TrainingData


@dataclass(frozen=True, eq=False)
class Fields:
    """Fields of one variable on one grid.

    Parameters
    ----------
    values : array_like, shape (items, n_lat, n_lon)
        Kept as C-contiguous float32.
    grid : SphereGrid
        Latitude and longitude in the order of the file.
    name : str
        Of the variable.
    units : str
        Empty when unknown.

    Raises
    ------
    ValueError
        If the values do not lie on the grid or there is no item.
    """

    values: npt.NDArray[np.float32]
    grid: SphereGrid
    name: str
    units: str

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if values.ndim != 3 or values.shape[1:] != self.grid.shape or len(values) == 0:
            n_lat, n_lon = self.grid.shape
            raise ValueError(
                f"{self.name} must have shape (items, {n_lat}, {n_lon}) and hold at least one "
                f"item, got {values.shape}"
            )
        object.__setattr__(self, "values", values)

    def without_missing(self) -> Fields:
        """The items that hold neither NaN nor Inf.

        Raises
        ------
        ValueError
            If none is left.
        """
        complete = np.isfinite(self.values).all(axis=(1, 2))
        if not complete.any():
            raise ValueError(
                f"every item of {self.name} holds missing values; fill them first (ds.fillna)"
            )
        return replace(self, values=self.values[complete])


def load_fields(
    source: str | Path | xr.DataArray | xr.Dataset,
    variable: str | None = None,
    *,
    split: str = "train",
) -> Fields:
    """Read the fields of one variable.

    Parameters
    ----------
    source : path, DataArray or Dataset
        A path names a NetCDF, GRIB or npz file, a Zarr store (folder, zip file or URL), a folder
        of npz files, or the prefix ``ROOT`` of the folders ``ROOT_train``, ``ROOT_val`` and
        ``ROOT_test``. Each npz file holds ``latitude``, ``longitude`` and ``temperature`` (K) of
        one item; files are read in sorted order (COIN++, ERA5 data).
    variable : str, optional
        Which variable of a file or Dataset; needed only where several float variables have
        latitude and longitude.
    split : str
        Which folder a prefix stands for. Other sources are read whole.

    Returns
    -------
    Fields
        Axes before latitude and longitude (time, member, level, ...) are flattened in order.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, or holds no such variable on a regular latitude-longitude grid.
    """
    import xarray as xr

    if isinstance(source, xr.DataArray):
        return _fields(source)
    if isinstance(source, xr.Dataset):
        return _fields(_choose([source], variable))
    path, engine = locate(source, split)
    with errors_name(path), ExitStack() as files:
        array = _choose([files.enter_context(ds) for ds in open_lazily(path, engine)], variable)
        check_volume(array.nbytes, path)
        return _fields(array)


@contextmanager
def open_fields(
    source: str | Path | xr.DataArray | xr.Dataset, variable: str | None = None
) -> Iterator[xr.DataArray]:
    """One variable of a source of :func:`load_fields`, whose values are read when needed.

    Raises
    ------
    FileNotFoundError, ValueError
    """
    import xarray as xr

    if isinstance(source, xr.DataArray):
        yield source
    elif isinstance(source, xr.Dataset):
        yield _choose([source], variable)
    else:
        with ExitStack() as files:
            path, engine = locate(source)
            with errors_name(path):
                datasets = [files.enter_context(ds) for ds in open_lazily(path, engine)]
                array = _choose(datasets, variable)
            yield array


def to_training_data(
    train: Sequence[Fields],
    validation: Fields | None = None,
    *,
    validation_items: int | None = None,
    normalisation: tuple[float, float] | None = None,
) -> tuple[TrainingData, tuple[float, float]]:
    """Normalise fields, and set the last items aside for validation.

    Items with missing values are left out.

    Parameters
    ----------
    train : sequence of Fields
        All on one grid.
    validation : Fields, optional
        Without it, the last ``validation_items`` of ``train[0]`` are taken. That is a split by
        time where time is the first axis; neighbouring items are never shared out at random.
    validation_items : int, optional
        Default: a tenth of ``train[0]``, at least 1 and at most 720.
    normalisation : (offset, scale), optional
        In the unit of the data. Default: minimum and range of the training values.

    Returns
    -------
    TrainingData
        With features (values - offset) / scale.
    (offset, scale) : tuple of float

    Raises
    ------
    ValueError
        If grids differ, no complete item is left, or the arguments contradict each other.
    """
    from coinpp_xr.training import TrainingData

    if not train:
        raise ValueError("give at least one source of training fields")
    grid = train[0].grid
    for other in [*train[1:], *([validation] if validation else [])]:
        if not _same_grid(grid, other.grid):
            raise ValueError(
                f"the sources lie on different grids, {_outline(grid)} and "
                f"{_outline(other.grid)}; regrid one of them"
            )
    parts = [source.without_missing().values for source in train]
    if validation is None:
        count = validation_items
        if count is None:
            count = min(max(len(parts[0]) // 10, 1), 720)
        if not 1 <= count <= len(parts[0]):
            raise ValueError(
                f"validation_items must be within 1 .. {len(parts[0])}, the complete items of "
                f"the first source, got {count}"
            )
        parts[0], held_out = parts[0][:-count], parts[0][-count:]
    elif validation_items is None:
        held_out = validation.without_missing().values
    else:
        raise ValueError("give either validation or validation_items, not both")
    values = np.concatenate(parts)
    if len(values) == 0:
        raise ValueError("no item is left for training; give more items or validation fields")

    if normalisation is None:
        low, high = float(values.min()), float(values.max())
        normalisation = low, (high - low) or 1.0
    offset, scale = map(float, normalisation)
    if not scale > 0:
        raise ValueError(f"the scale of a normalisation must be above zero, got {scale}")
    data = TrainingData(
        points=grid.points,
        weights=grid.area_weights,
        train=((values - offset) / scale).reshape(len(values), -1, 1),
        validation=((held_out - offset) / scale).reshape(len(held_out), -1, 1),
        scale=scale,
    )
    return data, (offset, scale)


def _choose(datasets: Sequence[xr.Dataset], variable: str | None) -> xr.DataArray:
    arrays = [array for dataset in datasets for array in dataset.data_vars.values()]
    if variable is not None:
        found = [array for array in arrays if array.name == variable]
        if not found:
            raise ValueError(f"no variable {variable!r}; there are: {_names(arrays)}")
    else:
        floats = [array for array in arrays if array.dtype.kind == "f"]
        if not floats:
            raise ValueError(f"no float variable; there are: {_names(arrays) or 'none at all'}")
        # Where no variable will do, the largest one says why.
        found = [a for a in floats if not why_no_grid(a)] or [max(floats, key=lambda a: a.size)]
    if len({array.name for array in found}) > 1:
        raise ValueError(f"several variables: {_names(found)}; say which: variable='...'")
    if len(found) > 1:
        shapes = ", ".join(str(array.shape) for array in found)
        raise ValueError(
            f"{found[0].name} is stored several times, on different grids or levels (shapes "
            f"{shapes}); select one with xarray (filter_by_keys) and pass that dataset"
        )
    return found[0]


def _fields(array: xr.DataArray) -> Fields:
    name = str(array.name or "field")
    if array.dtype.kind != "f":
        raise ValueError(f"{name} holds {array.dtype}, not floats; convert it first (ds.astype)")
    cells = Horizontal.of(array)
    grid = SphereGrid(*regular_axes(array, cells))
    values = array.transpose(..., *cells.dims).to_numpy()
    units = str(array.attrs.get("units", ""))
    return Fields(values.reshape(-1, *grid.shape), grid, name, units)


def regular_axes(
    array: xr.DataArray, cells: Horizontal
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Latitude and longitude of fields that models can be trained on.

    Raises
    ------
    ValueError
        If they are not axes of their own.
    """
    if not cells.is_regular or cells.degrees is None:
        raise ValueError(
            f"{array.name or 'field'} lies on {', '.join(map(str, cells.dims))}: models train "
            "on axes of latitude and longitude; without one, max_error and target_rmse take any"
        )
    return cells.degrees


def _same_grid(one: SphereGrid, other: SphereGrid) -> bool:
    # Files that keep float32 coordinates agree with float64 ones to within this.
    return one.shape == other.shape and all(
        np.allclose(a, b, rtol=0, atol=1e-3)
        for a, b in ((one.latitude, other.latitude), (one.longitude, other.longitude))
    )


def _outline(grid: SphereGrid) -> str:
    lat, lon = grid.latitude, grid.longitude
    return f"{grid.shape} (from {lat[0]:g}N {lon[0]:g}E to {lat[-1]:g}N {lon[-1]:g}E)"


def _names(arrays: Sequence[xr.DataArray]) -> str:
    return ", ".join(sorted({str(array.name) for array in arrays}))
