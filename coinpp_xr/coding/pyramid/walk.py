"""The walk through the levels of one unit of fields, the same for encoder and decoder."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.anchors import KnownAnchors, code_anchors
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters, band_count
from coinpp_xr.coding.pyramid.experts import Expert, no_expert
from coinpp_xr.coding.pyramid.geometry import geometry
from coinpp_xr.coding.pyramid.levels import (
    PAD,
    PassOfWalk,
    coarser_than,
    interleave,
    level_count,
    pad,
    passes_of_raster,
    reach_of,
)
from coinpp_xr.coding.pyramid.limits import Limits
from coinpp_xr.coding.pyramid.opinions import opinions
from coinpp_xr.coding.pyramid.points import Known, Observer, Points
from coinpp_xr.coding.pyramid.prediction import Pool
from coinpp_xr.coding.pyramid.references import References
from coinpp_xr.coding.pyramid.schedule import MOST_REFERENCES
from coinpp_xr.coding.pyramid.tuning import tune

Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

NO_LIMITS = Limits()
NO_FIELDS = Decoded(np.empty((0, 0, 0), np.int32), np.empty((0, 0, 0), np.int8))


class Level:
    """The grid of one spacing, as four phases: the coarser grid, and the points of three passes."""

    def __init__(self, walk: Walk, level: int, n_items: int) -> None:
        self._level, self._walk = level, walk
        reach = reach_of(walk.quick)
        self._geometry = geometry(walk.shape, level, n_items, reach, around=walk.around)
        size = self._geometry.starts[-1]
        self._pool = Pool(np.empty(size, np.int32), np.empty(size, np.int8))

    def phase(self, number: int) -> tuple[Int32, Int8]:
        """Values and marks of a phase, as views: 0 is the coarser grid, 1 to 3 are the passes."""
        values, marks = (self._padded(array, number) for array in self._pool)
        inside = slice(PAD, -PAD)
        return values[:, inside, inside], marks[:, inside, inside]

    def _padded(self, array: npt.NDArray[Any], number: int) -> npt.NDArray[Any]:
        items, rows, columns = self._geometry.shapes[number]
        start, end = self._geometry.starts[number : number + 2]
        return array[start:end].reshape(items, rows + 2 * PAD, columns + 2 * PAD)

    def pad(self, number: int) -> None:
        """What surrounds a phase, once that is filled."""
        for array in self._pool:
            pad(self._padded(array, number), around=self._walk.around)

    def code(
        self,
        number: int,
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        known: Known,
    ) -> None:
        """Encode or decode the pass of a phase. An encoder adds parameters that are missing.

        Without coders, for parameters alone, nothing is written.
        """
        where = self._geometry.passes[number - 1]
        if 0 in where.shape:
            return
        fields = known.fields
        one, two, three = (*fields, *[NO_FIELDS] * MOST_REFERENCES)[:MOST_REFERENCES]
        references = References(
            len(fields), (one.values, two.values, three.values),
            (one.marks, two.marks, three.marks), where.rows, where.columns, where.diagonal,
        )  # fmt: skip
        points = Points(
            self._pool, where.places, references, self._walk.limits, where.which, where.shape,
            known, self._walk.expert,
        )  # fmt: skip
        key = self._level, number - 1
        bands = band_count(self._walk.shape[0] * self._walk.shape[1])
        self._walk.code(points, key, coarser_than(key), coders, parameters, bands)


@dataclass(frozen=True, eq=False)
class Walk:
    """How the fields of a chunk are gone through.

    Parameters
    ----------
    shape : (n_lat, n_lon)
    around : bool
        Whether the first column follows the last.
    quick : int
        Classes of expected size that are coded by one context.
    limits : Limits
    expert : Expert
        A network that has an opinion of decisions; none if it has no fingerprint.
    observe : callable, optional
        Is shown every pass, once it is coded.
    """

    shape: tuple[int, int]
    around: bool
    quick: int
    limits: Limits = NO_LIMITS
    expert: Expert = dataclasses.field(default_factory=no_expert)
    observe: Observer | None = None

    @property
    def passes(self) -> list[PassOfWalk]:
        """All that have points, from coarse to fine."""
        return passes_of_raster(self.shape, self.quick)

    def code(
        self,
        points: Points,
        key: tuple[int, int],
        coarser: tuple[int, int],
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        bands: int,
    ) -> None:
        """Encode or decode the points of a pass, or put them into their pool without coders.

        ``key`` and ``coarser`` say where its parameters are, and those of what is like it; an
        encoder adds them if they are missing.
        """
        numbers = None
        if key not in parameters:
            usual = points.known.usual.get(key)
            parameters[key], numbers = tune(
                points, bands, self.quick, usual, parameters.get(coarser)
            )
        told = parameters[key]
        if not coders:
            points.put(told, bands)
            return
        expected = opinions(points, told, bands, self.quick)
        points.code(coders, told, self.quick, numbers, expected)
        if self.observe is not None:
            self.observe(points, told, bands)

    def unit(
        self,
        coders: list[Coder],
        parameters: dict[tuple[int, int], PassParameters],
        known: Known,
        n_items: int,
        *,
        values: bool,
        marks: bool,
        shifts: Int64 | None = None,
    ) -> Decoded:
        """Encode or decode fields that belong together.

        Parameters
        ----------
        coders : list of Coder
            One per band of rows; or none, where only parameters are wanted.
        parameters : dict
            (level, pass) → parameters. An encoder adds what is missing.
        known : Known
        n_items : int
        values, marks : bool
            Whether the fields, and their steps, are wanted; else they are empty.
        shifts : int64 array, shape (items,), optional
            Of anchors, in 1/64 of a step; what a decoder is given is written over.
        """
        levels = level_count(self.shape)
        step = 1 << levels
        some = KnownAnchors.of(known, lambda fields: fields[:, ::step, ::step])
        rows, columns = (-(-side // step) for side in self.shape)
        anchors = code_anchors(coders, some, (n_items, rows * columns), self.limits, shifts)
        done = anchors.reshape(n_items, rows, columns)
        done_marks = np.zeros(done.shape, np.int8)
        for number in range(levels - 1, -1, -1):
            level = Level(self, number, n_items)
            coarse, coarse_marks = level.phase(0)
            coarse[:], coarse_marks[:] = done, done_marks
            level.pad(0)
            for one in (1, 2, 3):
                level.code(one, coders, parameters, known)
                if one < 3:
                    level.pad(one)
            phases = [level.phase(one) for one in range(4)]
            shape = (n_items, *(-(-side // (1 << number)) for side in self.shape))
            nothing = (n_items, 0, 0)
            done = np.empty(shape if number > 0 or values else nothing, np.int32)
            done_marks = np.empty(shape if number > 0 or marks else nothing, np.int8)
            if done.size:
                interleave(done, [phase for phase, _ in phases])
            if done_marks.size:
                interleave(done_marks, [phase for _, phase in phases])
        for coder in coders:
            coder.check()
        return Decoded(done, done_marks)
