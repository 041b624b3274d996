"""How much of what is new above and below is new on a level in between, found by the encoder.

Next to the ground levels hourly apart change together, far above they do not.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.schedule import STRENGTH_PARTS, schedule

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

# Fields of a level that are looked at, of each of the two sorts.
_LOOKED_AT = 6
# Of errors, squared and in steps, what differences of decoded fields and their neighbours hold.
_NOISE = 1.5 * 1.25 / 12
# Differences over so many cells; they show if their squares are more of those of a step.
_SPACINGS, _SHOWN = (1, 2, 4, 8, 16), 0.1
# Less is not worth referring to.
_LEAST = 2


def strengths_of(
    values: Float64,
    valid: Bool,
    order: npt.NDArray[np.integer],
    levels: int,
    distance: int,
    step: float,
) -> Int:
    """Of every level, by least squares, in parts of one.

    Parameters
    ----------
    values, valid : arrays, shape (items, n_lat, n_lon)
        In the unit of the lattice.
    order, levels, distance :
        See :func:`coinpp_xr.coding.pyramid.schedule.schedule`.
    step : float
        Of the lattice.

    Returns
    -------
    int64 array, shape (2, levels)
        Of fields that refer to none along time, and of the others.
    """
    present = np.asarray(valid.any(axis=(1, 2)))
    full = np.full((2, levels), STRENGTH_PARTS, np.int64)
    cells = values[0].size
    units = schedule(order, present, cells, distance, levels=levels, strengths=full)
    level_of = np.zeros(len(values), np.int64)
    for row, items in enumerate(order):
        level_of[items] = row % levels
    spacings = [h for h in _SPACINGS if max(values.shape[1:]) > 2 * h]
    # Products with what is new beside, its squares, squares of what is new, and how many.
    sums = np.zeros((len(spacings), 4, 2, levels))
    seen = np.zeros((2, levels), np.int64)
    # The finest in time come last, and are most.
    for unit in reversed([unit for unit in units if unit.refers_beside]):
        for item, others, beside in zip(unit.items, unit.references, unit.beside, strict=True):
            sort, level = int(bool(others)), level_of[item]
            if seen[sort, level] >= _LOOKED_AT:
                continue
            seen[sort, level] += 1
            # In steps: squares of the largest numbers are none.
            own = _news(values, (item, *others)) / step
            new = np.mean([_news(values, fields) / step for fields in beside], axis=0)
            needed = [item, *others, *(i for fields in beside for i in fields)]
            missing = ~valid[needed].all(axis=0)
            own[missing] = new[missing] = np.nan
            for k, spacing in enumerate(spacings):
                one, other = (_rough(field, spacing).ravel() for field in (own, new))
                if missing.any():
                    one, other = one[~np.isnan(one)], other[~np.isnan(one)]
                own_sums = one @ other, other @ other, one @ one, float(one.size)
                sums[k, :, sort, level] += np.array(own_sums)
    if not spacings:
        return full
    products, squares, own_squares, counts = np.moveaxis(sums, 1, 0)
    counts = np.maximum(counts, 1)
    # Where bits are spent: the finest differences that steps do not hide.
    shown = own_squares / counts > _SHOWN
    scale = np.where(shown.any(axis=0), shown.argmax(axis=0), len(spacings) - 1)[None]
    products, squares, counts = (
        np.take_along_axis(array, scale, 0)[0] for array in (products, squares, counts)
    )
    found = STRENGTH_PARTS * products / np.maximum(squares + _NOISE * counts, 1e-300)
    found = np.rint(np.clip(np.nan_to_num(found), 0, STRENGTH_PARTS))
    return np.where(found < _LEAST, 0, found).astype(np.int64)


def _news(values: Float64, fields: tuple[int, ...]) -> Float64:
    """What a field differs from the mean of others."""
    new: Float64 = values[fields[0]].astype(np.float64)
    if len(fields) > 1:
        new -= values[list(fields[1:])].mean(axis=0)
    return new


def _rough(field: Float64, spacing: int) -> Float64:
    """What cells differ from the mean of the four at a distance; in a line of the two."""
    if min(field.shape) <= 2 * spacing:
        line = field.ravel()
        around = (line[: -2 * spacing] + line[2 * spacing :]) / 2
        return np.asarray(line[spacing:-spacing] - around)
    h = spacing
    around = field[: -2 * h, h:-h] + field[2 * h :, h:-h]
    around = around + field[h:-h, : -2 * h] + field[h:-h, 2 * h :]
    return np.asarray(field[h:-h, h:-h] - around / 4)
