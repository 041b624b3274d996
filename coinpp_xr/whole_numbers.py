"""Whole numbers of fields, to be coded digit by digit: of what was quantized, or on a lattice."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import floor, inf
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.fields import PlaneFields, Sequences
from coinpp_xr.lattice import Bound, Lattice, lattice_of
from coinpp_xr.source_steps import MOST, Steps
from coinpp_xr.step_search import find_steps, rough_step

Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

# Samples are one row in sixteen or eight, in strips, or one time in eight; less is learned from
# them than from all. Chunks of fewer cells are not sampled.
_OF_LARGE, _OF_SMALL, _LARGE, _FEW_CELLS = 16, 8, 1 << 19, 1 << 16
_LEARNED, _STRIPS, _FEWEST_ROWS, _FEWEST_TIMES = 0.91, 6, 6, 3
# Where many are copies, the number of the cell west is so many times as frequent as those next to
# it.
_COPIES = 2
# Differences of so many bits are mostly noise.
_NOISY = 5.0
# To tell that, every so many-th row of large fields is enough.
_MOST_GAP, _GLANCE = 4, 1 << 18
# A bound of more steps of the source gains next to nothing by those; lattices of them must be so
# much wider than others, and hold so many of the values.
_MOST_STEPS, _WORTH_IT, _MOST_ON_SOURCE = 8, 1.02, 0.999


@dataclass(frozen=True, eq=False)
class WholeNumbers:
    """Whole numbers of fields, and which of them count: shape (items, cells)."""

    numbers: Int
    coded: Bool
    shape: tuple[int, int]
    sequences: Sequences
    around: bool

    def digits(self) -> bytes:
        """The section that holds them digit by digit."""
        from coinpp_xr.coding import digits  # compiles, or loads what was compiled

        def field_of(item: int) -> tuple[Int, Bool]:
            return self.numbers[item].reshape(self.shape), self.coded[item].reshape(self.shape)

        order = self.sequences.order
        return digits.encode(
            order, field_of, self.shape, ends_of(self.numbers, self.coded), around=self.around,
            copying=self.have_copies,
        )  # fmt: skip

    @cached_property
    def have_copies(self) -> bool:
        """Whether many cells hold the number of the one west of them, where that is not flat.

        Where numbers change smoothly, those next to it are as frequent.
        """
        numbers = self.numbers.reshape(-1, *self.shape)
        coded = self.coded.reshape(numbers.shape)
        every = max(1, min(_MOST_GAP, numbers.size // _GLANCE))
        rows = slice(1, None, every), slice(0, -1, every)
        here, west, north = (
            numbers[:, rows[0], 1:], numbers[:, rows[0], :-1], numbers[:, rows[1], 1:]
        )  # fmt: skip
        all_coded = coded[:, rows[0], 1:] & coded[:, rows[0], :-1] & coded[:, rows[1], 1:]
        away = np.abs(here - west)[all_coded & (west != north)]
        return bool((away == 0).sum() > _COPIES * (away == 1).sum())

    @property
    def are_few(self) -> bool:
        """Too few to take a part of."""
        return self.coded.size < _FEW_CELLS

    @property
    def are_rough(self) -> bool:
        """Whether digits may be worth a try: copies, much noise, or a small chunk."""
        if self.are_few or self.have_copies:
            return True
        return self._roughness > _NOISY * int(self.coded.sum())

    def seem_smaller(self, size: float, *, sampled: bool = True) -> bool:
        """Whether digits are worth a try against so many bytes: by a part of the fields.

        True where there is too little to take a part of, or if nothing is to be ``sampled``.
        """
        sample = self._sample() if sampled else None
        if sample is None:
            return True
        some = sample._roughness
        if some == 0:
            return False
        # Less is learned from a part than from all.
        return _LEARNED * len(sample.digits()) * self._roughness / some < size

    @cached_property
    def _roughness(self) -> float:
        """How large differences between cells and those west of them are: about the bits of all."""
        shape = (-1, *self.shape)
        numbers, coded = (each.reshape(shape) for each in (self.numbers, self.coded))
        order = self.sequences.order.reshape(-1)
        some = slice(None) if len(order) == len(numbers) else order
        away = np.abs(np.diff(numbers[some].astype(np.float32), axis=2))
        both = coded[some, :, 1:] & coded[some, :, :-1]
        return float(np.log2(1 + away).sum(where=both, dtype=np.float64))

    def _sample(self) -> WholeNumbers | None:
        """Some rows of large fields, some times of long sequences, None of what is short."""
        if self.are_few:
            return None
        n_lat, n_lon = self.shape
        share = _OF_LARGE if self.coded.size >= _LARGE else _OF_SMALL
        strips = min(n_lat // share // _FEWEST_ROWS, _STRIPS)
        if strips:
            rows = n_lat // share // strips
            # Each in the middle of its share: poles are smoother than what lies between.
            starts = (2 * np.arange(strips) + 1) * n_lat // (2 * strips) - rows // 2
            chosen = (starts[:, None] + np.arange(rows)).reshape(-1)

            def cut(table: Any) -> Any:
                taken = table.reshape(-1, n_lat, n_lon)[:, chosen]
                return np.ascontiguousarray(taken.reshape(len(table), -1))

            numbers, coded, shape = cut(self.numbers), cut(self.coded), (len(chosen), n_lon)
            return WholeNumbers(numbers, coded, shape, self.sequences, self.around)
        times = self.sequences.order.shape[1] // _OF_SMALL
        if times >= _FEWEST_TIMES:
            return replace(self, sequences=Sequences(self.sequences.order[:, :times]))
        return None


def ends_of(numbers: Int, coded: Bool) -> tuple[int, int]:
    """The lowest and the highest number."""
    counted = numbers[coded]
    return (int(counted.min()), int(counted.max())) if counted.size else (0, 0)


def on_lattice(
    fields: PlaneFields, bound: Bound, sequences: Sequences, *, wider_only: bool = False
) -> tuple[WholeNumbers, Steps] | None:
    """Fields as steps of the coarsest lattice for a bound; None where there is none.

    Values that rounding takes beyond the bound do not count. With ``wider_only`` also None where
    no steps of the source are wider.
    """
    lattice = lattice_of(bound, fields, fields.values).through(fields.exact)
    if bound.relative or not 0 < lattice.step < inf:
        return None
    source = _lattice_of_source(fields, bound, lattice.step)
    if source is None and wider_only:
        return None
    if source is not None:
        found = _numbered(fields, bound, sequences, source)
        if found[0].coded.sum() >= _MOST_ON_SOURCE * fields.valid.sum():
            return found
    return _numbered(fields, bound, sequences, lattice)


def _lattice_of_source(fields: PlaneFields, bound: Bound, step: float) -> Lattice | None:
    """Every third, fifth, ... of the steps that values were quantized with before.

    What lies on those steps is rounded to them by no more than one, two, ... steps, and they are
    further apart than twice that. None where they are no wider than a step that will do.
    """
    if bound.relative or bound.is_exact or len(fields.exact) > 1 or not fields.present.any():
        return None
    item = int(np.argmax(fields.present))
    dtype = fields.dtype.newbyteorder("=")
    values = fields.values[item][fields.valid[item]].astype(dtype)
    about = rough_step(values)
    if about is None or bound.error > _MOST_STEPS * about:
        return None
    steps = find_steps(values)
    if steps is None or steps.ratio != 1:
        return None
    # What the type rounds away must stay within the bound, too.
    within = bound.error - 2 * float(np.spacing(np.abs(values).max()))
    wider = (2 * max(floor(within / steps.size), 0) + 1) * steps.size
    if wider < _WORTH_IT * step:
        return None
    nearest = float(steps.values(np.zeros(1, np.int64), dtype)[0])
    return Lattice(wider, fields.exact[0] if fields.exact else nearest)


def _numbered(
    fields: PlaneFields, bound: Bound, sequences: Sequences, lattice: Lattice
) -> tuple[WholeNumbers, Steps]:
    wanted = lattice.integers(fields.values)
    coded = fields.valid & (np.abs(wanted) <= MOST)
    numbers = np.where(coded, wanted, 0).astype(np.int64)
    steps = Steps(lattice.step, lattice.origin)
    decoded = steps.values(numbers, fields.dtype).astype(np.float64)
    coded &= bound.holds(decoded, fields.values)
    around = fields.grid.goes_around
    return WholeNumbers(numbers, coded, fields.grid.shape, sequences, around), steps
