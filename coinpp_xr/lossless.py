"""Fields without loss: as the whole numbers that they were made of, coded like any others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind, Tag, pack_fields
from coinpp_xr.cells.folding import Fold
from coinpp_xr.coding.digits import suits
from coinpp_xr.coding.pyramid import stream
from coinpp_xr.coding.pyramid.bounded import QUICK
from coinpp_xr.coding.pyramid.limits import UNIT, WHOLE, Limits
from coinpp_xr.coding.scattered.surroundings import surroundings_on
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fields import Sequences, are_few
from coinpp_xr.float_digits import (
    are_few_mantissas,
    exponent_for,
    mantissas_of,
    numbers_of,
)
from coinpp_xr.lattice import Lattice
from coinpp_xr.source_steps import SourceSteps, Steps
from coinpp_xr.step_search import find_steps, rough_step
from coinpp_xr.whole_numbers import WholeNumbers, ends_of

Array = npt.NDArray[Any]
Bool = npt.NDArray[np.bool_]
Int = npt.NDArray[np.int64]

# A value that so many cells of a chunk share is told by a mask, if that takes fewer bytes.
_COMMON = 0.15
_MOST_COMMON, _GLANCE = 3, 1 << 13
# Of all values, those that must be on steps; not counted are fields of few values beside them, such
# as zeros.
_MOST_ON_STEPS, _FEW = 0.8, 16
# So many kinds of steps are tried on the next field.
_KNOWN = 4
# Fields of fewer cells are small.
_SMALL = 4096
# Of the bytes of a quick pyramid, what digits may take.
_WORTH = 0.93
# Whole numbers, one apart.
_WHOLE = Lattice(1.0, 0.0)


@dataclass(frozen=True, eq=False)
class _Numbers:
    """Fields as whole numbers.

    Parameters
    ----------
    steps : SourceSteps
    numbers : int64 array, shape (items, cells)
        Zeros where not on the steps.
    coded : bool array, shape (items, cells)
        Which are.
    """

    steps: SourceSteps
    numbers: Int
    coded: Bool

    @classmethod
    def of(cls, table: Array, usable: Bool) -> _Numbers | None:
        """None where values are on no steps that could be found."""
        kinds: dict[Steps, int] = {}
        # Of small fields, all together tell more than each alone.
        together = find_steps(table[usable]) if len(table) > 1 and table.shape[1] < _SMALL else None
        guesses = [] if together is None else [together]
        which, lost = np.zeros(len(table), np.intp), 0
        numbers, coded = np.zeros(table.shape, np.int64), np.zeros(table.shape, np.bool_)
        for item, (values, valid) in enumerate(zip(table, usable, strict=True)):
            some = slice(None) if valid.all() else valid  # far quicker
            own = values[some]
            if len(own) == 0:
                continue
            # The last ones first: fields that follow each other are mostly alike.
            steps = find_steps(own, [*islice(reversed(kinds), _KNOWN), *guesses])
            if steps is None:  # kept as it is, but most fields must have steps
                lost += len(own)
                if lost > (1 - _MOST_ON_STEPS) * usable.sum():
                    return None
                continue
            which[item] = kinds.setdefault(steps, len(kinds))
            numbers[item, some], exact = steps.exactly(own)
            coded[item, some] = exact
            beside = own[~exact]
            if len(np.unique(beside)) > _FEW:
                lost += len(beside)
        if not kinds or lost > (1 - _MOST_ON_STEPS) * usable.sum():
            return None
        return cls(SourceSteps(list(kinds), which), numbers, coded)

    def ways(self) -> Iterator[Bool]:
        """Which cells to code as numbers: all, or all but those that share a few values."""
        yield self.coded
        numbers = self.numbers[self.coded]
        # What so many share shows in a part of them.
        found, counts = np.unique(numbers[:: max(1, len(numbers) // _GLANCE)], return_counts=True)
        likely = found[np.argsort(-counts)[:_MOST_COMMON]]
        common = [each for each in likely if (numbers == each).sum() > _COMMON * len(numbers)]
        if common and (rest := self.coded & ~np.isin(self.numbers, common)).any():
            yield rest


def without_loss(
    values: Array,
    usable: Bool,
    *,
    grid: SphereGrid,
    effort: str,
    time_axis: int,
    fold: Fold | None = None,
) -> bytes | None:
    """A payload that gives every value back bit for bit.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
        Floats or integers.
    usable : bool array, shape (items, cells)
        Finite values that are not -0.0; all others are kept as they are.
    grid : SphereGrid
    effort : str
    time_axis : int
    fold : Fold, optional
        By which cells were laid out; its holes are not usable.

    Returns
    -------
    bytes or None
        None for shapes that nothing is made for, and with the effort "fast" for what was never
        quantized.
    """
    items, cells = usable.shape
    if items > stream.MOST_ITEMS or cells > stream.MOST_CELLS or not are_few(items, cells):
        return None
    shape = (values.shape[-2], values.shape[-1])
    sequences = Sequences.of(values.shape[:-2], time_axis, np.ones(items, np.bool_))
    found = _Numbers.of(values.reshape(usable.shape), usable)
    if found is None:
        few = are_few_mantissas(cells, values.nbytes) and suits(shape)
        if effort == "fast" or values.dtype.kind != "f" or not few:
            return None
        sections, coded = _of_floats(values.reshape(usable.shape), usable, grid, sequences)
        return pack_fields(values, coded, Kind.DIGITS, sections, fold, time_axis=time_axis)
    numbers = WholeNumbers(found.numbers, found.coded, shape, sequences, grid.goes_around)
    return _Attempts(values, found, numbers, grid, time_axis, fold).smallest(effort)


@dataclass(frozen=True, eq=False)
class _Attempts:
    """A chunk of whole numbers, to be coded in one way or another."""

    values: Array
    found: _Numbers
    numbers: WholeNumbers
    grid: SphereGrid
    time_axis: int
    fold: Fold | None

    def smallest(self, effort: str) -> bytes:
        """The smallest payload of those that the effort allows.

        Digit by digit takes twice the time of the pyramid, and is read as a whole: what is smooth
        is hardly shorter then, and not worth a sample.
        """
        ways, suited = list(self.found.ways()), suits(self.numbers.shape)
        if effort == "best":
            payloads = [self._by_pyramid(each, effort) for each in ways]
            return min([*payloads, self._by_digits()] if suited else payloads, key=len)
        if effort == "fast":
            rough = self.numbers.have_copies
        elif len(ways) > 1 or self.numbers.are_rough:
            rough = True
        else:
            return self._by_pyramid(ways[0], effort)
        quick = [self._by_pyramid(each, "fast") for each in ways]
        shortest = min(range(len(ways)), key=lambda k: len(quick[k]))
        worth = _WORTH * len(quick[shortest])
        if rough and suited and self.numbers.seem_smaller(worth):
            digits = self._by_digits()
            if len(digits) < worth:
                return digits
        return quick[shortest] if effort == "fast" else self._by_pyramid(ways[shortest], effort)

    def _by_pyramid(self, coded: Bool, effort: str) -> bytes:
        numbers, shape = self.found.numbers, self.numbers.shape
        low, high = ends_of(numbers, coded)
        result = stream.encode(
            numbers.reshape(-1, *shape), coded.reshape(-1, *shape), self.numbers.sequences.order,
            _WHOLE, around=self.numbers.around, quick=QUICK[effort],
            limits=Limits(low * UNIT, high * UNIT, WHOLE, 0),
            surroundings=surroundings_on(self.grid),
        )  # fmt: skip
        sections = {Tag.PYRAMID: result.head, Tag.STREAMS: result.streams}
        return self._payload(Kind.PYRAMID, coded, sections)

    def _by_digits(self) -> bytes:
        return self._payload(Kind.DIGITS, self.found.coded, {Tag.DIGITS: self.numbers.digits()})

    def _payload(self, kind: Kind, coded: Bool, sections: dict[Tag, bytes]) -> bytes:
        steps = {Tag.STEPS: self.found.steps.pack()}
        return pack_fields(
            self.values, coded, kind, steps | sections, self.fold, time_axis=self.time_axis
        )


def _of_floats(
    table: Array, usable: Bool, grid: SphereGrid, sequences: Sequences
) -> tuple[dict[Tag, bytes], Bool]:
    """What was never quantized: as numbers of a power of two, and what is left of mantissas."""
    exponent = exponent_for(table, usable)
    numbers, coded = numbers_of(table, usable, exponent)
    digits = WholeNumbers(numbers, coded, grid.shape, sequences, grid.goes_around).digits()
    rest = mantissas_of(table, numbers, coded, exponent, sequences.order)
    return {Tag.MANTISSAS: rest.pack(), Tag.DIGITS: digits}, coded


def has_wider_steps(table: Array, usable: Bool, error: float) -> bool:
    """Whether values seem to lie on steps of more than twice an error: by the first field."""
    for values, valid in zip(table, usable, strict=True):
        if valid.any():
            step = rough_step(values[valid])
            return step is not None and 2 * error < step
    return False
