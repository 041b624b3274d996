"""Values that many cells of a chunk share, and that come back exactly.

Zeros of precipitation, the ends of a fraction, saturated sensors: whoever counts dry days or ice
edges counts cells that hold exactly such a value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.exact import pack_mask
from coinpp_xr.lattice import Bound, steps_between

Bool = npt.NDArray[np.bool_]
Floating = npt.NDArray[np.floating[Any]]

# Cells that are looked at, more or less.
_SAMPLED = 1 << 16
# A value is shared by at least so many cells, by this share of all, and by so many times as many
# as its neighbours among the values: packed data holds every value many times.
_FEWEST, _LEAST_SHARE, _STANDS_OUT = 8, 1e-3, 4
# So many of them at most.
_MOST = 8
# So few values are categories if each stands for so many cells; but not if they are steps of
# packed numbers, unless those are very few.
_FEW_VALUES, _CELLS_PER_VALUE, _VERY_FEW = 256, 16, 16
# A mask pays if steps to and from its cells would take so many times its bytes.
_WORTH_A_MASK = 1.5
# Both ways are tried for so many cells.
_WORTH_TRYING = 1 << 18
# A second value on the lattice must not make its step smaller than this share.
_LEAST_STEP = 0.8


@dataclass(frozen=True)
class Exactly:
    """How shared values are kept: two at most on the lattice of a bound, others in a mask."""

    on_lattice: tuple[float, ...] = ()
    masked: tuple[float, ...] = ()


def shared_values(values: Floating, usable: Bool) -> list[float]:
    """Values that many usable cells share, those of most cells first.

    Parameters
    ----------
    values : float array, shape (items, n_lat, n_lon)
    usable : bool array of that shape

    Returns
    -------
    list of float
        At most eight.
    """
    # All meridians have one value at a pole.
    inner = slice(1, -1) if values.shape[1] > 4 else slice(None)
    values, usable = values[:, inner], usable[:, inner]
    some, total = _sample(values, usable), np.count_nonzero(usable)
    if len(some) < _FEWEST:
        return []
    distinct, counts = np.unique(some, return_counts=True)
    beside = np.zeros(len(counts), counts.dtype)
    beside[1:] = counts[:-1]
    beside[:-1] = np.maximum(beside[:-1], counts[1:])
    share = len(some) / total
    # A sample may see somewhat fewer than there are.
    least = 0.7 * share * max(_FEWEST, _LEAST_SHARE * total)
    found = np.flatnonzero((counts >= max(least, 3)) & (counts >= _STANDS_OUT * beside))
    found = found[np.argsort(-counts[found], kind="stable")]
    return [float(distinct[k]) for k in found[:_MOST]]


def are_categories(values: Floating, usable: Bool) -> bool:
    """Whether there are few values, each of many cells: flags, masks, types.

    Parameters
    ----------
    values : float array, shape (items, cells)
    usable : bool array of that shape

    Returns
    -------
    bool
        True for at most 256 values, and at least 16 cells for each; but not for more than 16
        that are evenly spaced and no whole numbers: those are packed.
    """
    most = min(_FEW_VALUES, np.count_nonzero(usable) / _CELLS_PER_VALUE)
    found = np.unique(_sample(values, usable))
    if len(found) > most:
        return False
    for item, counted in zip(values, usable, strict=True):
        found = np.union1d(found, item[counted])
        if len(found) > most:
            return False
    if len(found) <= _VERY_FEW or bool((found == np.rint(found)).all()):
        return True
    gaps = np.diff(found.astype(np.float64))
    steps = gaps / gaps.min()
    return not bool((np.abs(steps - np.rint(steps)) < 0.05).all())


def _sample(values: Floating, usable: Bool) -> Floating:
    """Usable values, all or some thousands of them from everywhere."""
    # Odd, or it would pick the same meridians again and again.
    step = max(1, values.size // _SAMPLED) | 1
    some: Floating = values.reshape(-1)[::step][usable.reshape(-1)[::step]]
    return some if len(some) >= _SAMPLED // 4 or step == 1 else values[usable]


def ways_to_keep(
    shared: list[float], values: Floating, usable: Bool, bound: Bound, effort: str
) -> list[Exactly]:
    """How shared values may be kept under a bound; one way, or several of which one is shorter.

    On the lattice, they cost little where the field runs smoothly into them. Where it jumps, a
    mask that says which cells they are is shorter than the steps there and back.

    Parameters
    ----------
    values : float array, shape (items, n_lat, n_lon)
    usable : bool array of that shape
    """
    if not shared:
        return [Exactly()]
    everything = Exactly(masked=tuple(shared))
    if bound.relative:
        return [everything]
    masked = [v for v in shared if _benefit(v, values, usable, bound) > _WORTH_A_MASK]
    smooth = [v for v in shared if v not in masked]
    if not smooth:
        return [everything]
    first, others = smooth[0], smooth[1:]
    second = next((v for v in others if _fits(v - first, bound)), first)
    on_lattice = (first,) if second == first else (first, second)
    ways = [Exactly(on_lattice, tuple(v for v in shared if v not in on_lattice))]
    if effort != "fast" and values.size <= _WORTH_TRYING:
        ways.append(everything)
        if second != first:
            ways.append(Exactly((first,), tuple(v for v in shared if v != first)))
    return ways


def _fits(distance: float, bound: Bound) -> bool:
    """Whether a second value may be so far from the first on a lattice."""
    step = 2 * bound.error
    return abs(distance) >= _LEAST_STEP * step * steps_between(abs(distance), step)


def _benefit(value: float, values: Floating, usable: Bool, bound: Bound) -> float:
    """About how many times the bytes of a mask its edges would take otherwise."""
    there = (values == value) & usable
    bits = 0.0
    for axis in (1, 2):
        one, other = (
            tuple(part if k == axis else slice(None) for k in range(3))
            for part in (slice(None, -1), slice(1, None))
        )
        edge = (there[one] != there[other]) & usable[one] & usable[other]
        jumps = np.abs(values[one][edge].astype(np.float64) - values[other][edge])
        bits += float(np.log2(1 + jumps / (2 * bound.error)).sum())
    if bits == 0:
        return 0.0
    return bits / (8 * len(pack_mask(there.reshape(len(there), -1), there.shape[2])))
