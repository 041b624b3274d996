"""What a chunk is: which cells are missing, whether a model knows such data, how the grid lies.

Zarr tells a codec nothing but an array, so all of it is found in the values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coordinates import NO_GLOBE, IndexGrid, SphereGrid
from coinpp_xr.fields import extremes
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

# Above this share of unexplained variance the user should know; at all of it nothing is gained.
MUCH_UNEXPLAINED = 0.25

# Features of the training data lie in [0, 1]. Cells far outside are fill values or outliers and
# are kept exactly; if there are many, the data is not what the model was made for.
_PLAUSIBLE = (-1.0, 2.0)
_MOST = 0.9
# Another orientation must fit the mean field this much better before data is refused.
_CLEARLY_BETTER = 0.5
# Globes have at least as many columns as rows, and no more than so many times that.
_MOST_COLUMNS_PER_ROW = 4
# Fewer columns are no cells of fields that nobody said anything of.
_FEWEST_CELLS = 1 << 10
# Fewer cells cannot tell which axis is the latitude.
_CELLS_TO_TELL = 512
# An extreme value that many cells share, further from all others than half of what those span,
# is a fill value.
_FILL_CELLS = 8
_FILL_GAP = 0.5


def usable_cells(table: npt.NDArray[Any]) -> Bool:
    """Cells that may come back with an error: finite and no fill values, shape (globes, cells).

    A globe of one value is padding, which is kept as it is.
    """
    valid: Bool = np.isfinite(table)
    for globe, known in zip(table, valid, strict=True):
        if globe.size and bool((globe == globe[0]).all()):
            known[:] = False
    for lowest in (True, False):
        value = _fill_value(table, valid, lowest) if valid.any() else None
        if value is not None:
            valid &= table != value
    return np.asarray(valid)


def _fill_value(table: npt.NDArray[Any], valid: Bool, lowest: bool) -> Any:
    """The lowest or highest of the valid values, if it looks like a fill value (-99, say)."""
    value = table.dtype.type(extremes(table, valid)[0 if lowest else 1])
    filled = table == value
    if np.count_nonzero(filled) < _FILL_CELLS:
        return None
    others = valid & ~filled
    if np.count_nonzero(valid & filled) < _FILL_CELLS or not others.any():
        return None
    low, high = extremes(table, others)
    gap = low - float(value) if lowest else float(value) - high
    return value if gap > _FILL_GAP * (high - low) else None


def features_of(table: npt.NDArray[Any], usable: Bool, model: Model) -> tuple[Float32, Bool]:
    """Normalised values and which of the usable cells the model may know, (globes, cells)."""
    with np.errstate(invalid="ignore", over="ignore"):
        features = (table.astype(np.float64) - model.offset) / model.scale
        valid = usable & (features > _PLAUSIBLE[0]) & (features < _PLAUSIBLE[1])
    return np.where(valid, features, 0).astype(np.float32), valid


def is_plausible(usable: Bool, valid: Bool) -> bool:
    """Whether the model may know most of what the chunk holds."""
    return bool(valid.sum() >= _MOST * usable.sum())


@remembered(lambda grids, *_: sum(grid.nbytes for grid in grids))
def layouts_of(n_lat: int, n_lon: int) -> tuple[SphereGrid, ...]:
    return tuple(SphereGrid.usual_layouts(n_lat, n_lon))


def may_be_globe(n_lat: int, n_lon: int) -> bool:
    """Whether whole globes have such shapes; else rows may be times, and columns cells."""
    return n_lat > 1 and n_lat <= n_lon <= _MOST_COLUMNS_PER_ROW * n_lat


def may_be_cells(n_rows: int, n_columns: int) -> bool:
    """Whether rows of arrays of such shapes may be fields, and columns their cells."""
    return n_columns >= _FEWEST_CELLS and n_columns > _MOST_COLUMNS_PER_ROW * n_rows


def layout_of(n_lat: int, n_lon: int) -> tuple[int, SphereGrid]:
    """The layout of an array of which nothing is known but its shape, and the layout's number."""
    if may_be_globe(n_lat, n_lon):
        return 0, layouts_of(n_lat, n_lon)[0]
    return NO_GLOBE, IndexGrid.of((n_lat, n_lon))


def best_layout(
    features: Float32, valid: Bool, model: Model, shape: tuple[int, int]
) -> tuple[int, SphereGrid]:
    """The usual layout whose mean field looks most like the data."""
    layouts = layouts_of(*shape)
    sample = _sample(features, valid)
    errors = _mean_field_errors(sample, model, layouts)
    if features.shape[1] >= _CELLS_TO_TELL and may_be_globe(*shape[::-1]):
        order = np.arange(features.shape[1]).reshape(shape).T.ravel()
        swapped = sample[0][:, order], sample[1][:, order]
        as_swapped = _mean_field_errors(swapped, model, layouts_of(shape[1], shape[0]))
        if min(as_swapped) < _CLEARLY_BETTER * min(errors):
            raise ValueError(
                f"the last two axes of {shape[0]} × {shape[1]} look like (longitude, latitude); "
                "the codec needs (..., latitude, longitude): da.transpose(..., 'lat', 'lon'), and "
                "no transposing filter before it"
            )
    # The layouts of cell centres and of poles are close: take another than the paper's only
    # when it is clearly better.
    best = int(np.argmin(errors))
    best = best if errors[best] < 0.98 * errors[0] else 0
    return best, layouts[best]


def check_orientation(features: Float32, valid: Bool, model: Model, grid: SphereGrid) -> None:
    """Notice data that was flipped or rolled after the codec got its coordinates.

    Only of whole globes: weather can turn the differences within a region round.
    """
    if not grid.goes_around:
        return
    sample = _sample(features, valid)
    own, *others = _mean_field_errors(sample, model, (grid, *_turned(grid)))
    if min(others) < _CLEARLY_BETTER * own:
        how = "upside down" if others[0] < others[1] else "turned by half the globe"
        raise ValueError(
            f"the data looks {how} on the codec's latitude and longitude; make a codec with this "
            "data's own coordinates (after sortby or roll, write with ds.drop_encoding())"
        )


@remembered(lambda grids, grid: 3 * grid.nbytes)
def _turned(grid: SphereGrid) -> tuple[SphereGrid, SphereGrid]:
    half_turn = np.roll(grid.longitude, len(grid.longitude) // 2)
    return (
        SphereGrid(grid.latitude[::-1], grid.longitude),
        SphereGrid(grid.latitude, np.unwrap(half_turn, period=360)),
    )


def _sample(features: Float32, valid: Bool) -> tuple[Float32, Bool]:
    """A few globes that hold something."""
    items = np.flatnonzero(valid.any(axis=1))
    items = items[np.linspace(0, len(items) - 1, min(4, len(items))).astype(int)]
    return features[items], valid[items]


def _mean_field_errors(
    sample: tuple[Float32, Bool], model: Model, grids: Sequence[SphereGrid]
) -> list[float]:
    """How far a sample of the data is from the model's mean field on each grid."""
    features, valid = sample
    cells = _few_cells(features.shape[1])
    y, seen = features[:, cells], valid[:, cells]

    def error(grid: SphereGrid) -> float:
        weights = np.cos(np.deg2rad(grid.latitude[cells // grid.shape[1]])) * seen
        squared = (y - _expected(model, grid)) ** 2
        return float((weights * squared).sum() / max(weights.sum(), 1e-30))

    return map_in_threads(error, grids)


def _few_cells(n_cells: int) -> npt.NDArray[np.intp]:
    # Evenly over the flattened globe, never in step with its rows.
    return np.linspace(0, n_cells - 1, min(1024, n_cells)).astype(np.intp)


@remembered()
def _expected(model: Model, grid: SphereGrid) -> Float32:
    """The model's mean field in a few cells: the same for chunk after chunk."""
    cells = _few_cells(grid.shape[0] * grid.shape[1])
    if model.climatology is not None and (features := model.climatology.on(grid)) is not None:
        return features.ravel()[cells].astype(np.float32)
    points = grid.points_at(cells)
    field: Float32 = model.network.truncated(0)(points, np.zeros((1, 0), np.float32))[..., 0]
    return field
