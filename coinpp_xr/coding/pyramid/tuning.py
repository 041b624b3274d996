"""What an encoder tells of a pass, found by a sample of its points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import decisions, prediction
from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.error_sizes import Sizes
from coinpp_xr.coding.pyramid.fitting import Told, Weights, usual_weights
from coinpp_xr.coding.pyramid.points import Points
from coinpp_xr.coding.pyramid.prediction import neighbour_count
from coinpp_xr.coding.pyramid.sampling import Sample
from coinpp_xr.coding.pyramid.schedule import UNIT_CELLS

Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

# Of every pass, points that parameters are fitted to: one of so many, but not fewer or more; not
# as few where many fields share them.
_SAMPLED, _FEWEST, _FEWEST_OF_MANY, _MOST = 8, 8_000, 16_000, 24_000
# So many times as many where nothing is mixed, and where everything is.
_QUICKLY, _THOROUGHLY = 0.35, 16
# Where nothing is mixed, passes of fewer points that are a small part of all do with what is usual,
# and those of more with the sizes of errors of a coarser level.
_WORTH_FITTING, _WORTH_SIZING = 8_000, 1 << 16
# Elsewhere these are.
_WORTH_TELLING = 150
# How often weights are fitted, each time with the errors that the last ones leave, at best.
_ROUNDS = 2
# Parts of a sample, at least: for two threads.
_PARTS = 2


def tune(
    points: Points,
    n_bands: int,
    quick: int,
    previous: PassParameters | None,
    coarser: PassParameters | None,
) -> tuple[PassParameters, Int32 | None]:
    """Parameters for the points of a pass; and their steps, if these are known then.

    Parameters
    ----------
    points : Points
        With a target.
    n_bands : int
        Bands of rows that are coded by themselves.
    quick : int
        Classes of expected size that are coded by one context.
    previous : PassParameters or None
        Of fields that refer to as many others.
    coarser : PassParameters or None
        Of the same pass of the level before.
    """
    alike = previous or coarser
    usual = usual_weights(
        neighbour_count(points.places), points.references.number, points.places.beside, alike
    )
    sizes = prediction.USUAL_COEFFICIENTS if alike is None else alike.coefficients
    quickly, known = not decisions.mixes(quick), points.known
    assert known.target is not None
    cells = min(known.target.size, max(UNIT_CELLS, known.target[0].size))
    fewest = min(_WORTH_FITTING, cells // 16) if quickly else _WORTH_TELLING
    if points.size * known.copies < fewest:
        return PassParameters(usual[None], False, sizes), None
    thoroughly = quick == 0
    times = _QUICKLY if quickly else _THOROUGHLY if thoroughly else 1
    alone = known.copies * points.shape[0] == 1
    most = times * np.clip(points.size // _SAMPLED, _FEWEST if alone else _FEWEST_OF_MANY, _MOST)
    tuner = _Tuner(points, n_bands, usual, coarser, max(1, int(points.size / most)))
    tuner.fit(_ROUNDS if thoroughly else 0, sizes)
    if quickly and coarser is not None and points.size > _WORTH_SIZING:
        return tuner.parameters(coarser.coefficients), None
    tuner.quantise()
    if points.places.beside:
        tuner.look_beside()
    return tuner.parameters(tuner.sizes_of_errors(sizes)), tuner.numbers


class _Tuner:
    """Fits weights to a sample of one point of ``every``, in parts for threads."""

    def __init__(
        self,
        points: Points,
        n_bands: int,
        usual: Int32,
        coarser: PassParameters | None,
        every: int,
    ) -> None:
        self._points, self._every, self._usual = points, every, usual
        self._bands = points.bands(n_bands)
        self._parts = points.bands(max(n_bands, _PARTS))
        self._samples: list[Sample] = [None] * len(self._parts)  # type: ignore[list-item]
        self._fitting = Weights(len(self._parts), usual, points.shape[1])
        self._told: Told | None = None
        # What errors are expected to be: as by these weights, and so large.
        self._weights, self._sizes = usual[None], prediction.USUAL_COEFFICIENTS
        if coarser is not None:
            self._weights, self._sizes = coarser.weights, coarser.coefficients
        self.numbers = points.zeros()

    def parameters(self, sizes: Int64) -> PassParameters:
        shift = 0 if self._told is None else self._told.shift
        return PassParameters(self._weights, self._told is not None, sizes, shift)

    def fit(self, rounds: int, sizes: Int64) -> None:
        """Weights by what is around points; ``rounds`` by what errors the last ones leave."""
        if rounds == 0:
            self._solve(self._gather, self._add)
            return
        self._points.map(self._gather, len(self._parts))
        for _ in range(rounds):
            self._sizes = self.sizes_of_errors(sizes)
            self._solve(self._add)

    def quantise(self) -> None:
        def quantise(number: int) -> None:
            self._points.quantise(self._weights, self.numbers, self._bands[number])

        self._points.map(quantise, len(self._bands))

    def look_beside(self) -> None:
        """Weights also for points beside, which were decoded by the weights of before."""
        before, cost = (self._told, self._weights), self._cost()
        self._solve(self._look_beside, self._add)
        self.quantise()
        if self._cost() > cost:  # where fields are mostly flat, errors would be carried along
            self._told, self._weights = before
            self.quantise()

    def sizes_of_errors(self, expected: Int64) -> Int64:
        sizes = Sizes(len(self._parts))

        def add(number: int) -> None:
            sample, top = self._samples[number], self._top_of(number)
            sizes.add(number, sample, self._weights, self.numbers, top)

        self._points.map(add, len(self._parts))
        return sizes.coefficients(expected, sum(len(s.target) for s in self._samples))

    def _solve(self, *steps: Callable[[int], None]) -> None:
        """Fit, once these are done for every part."""

        def prepare(number: int) -> None:
            for step in steps:
                step(number)

        def estimate(number: int) -> None:
            self._fitting.estimate(number, self._samples[number])

        self._points.map(prepare, len(self._parts))
        self._fitting.solve()
        self._points.map(estimate, len(self._parts))
        self._told = self._fitting.best(self._points.known.copies * self._every)
        self._weights = self._usual[None] if self._told is None else self._told.weights

    def _gather(self, number: int) -> None:
        points = self._points
        self._samples[number] = Sample.of(
            points.pool, points.places, points.references, points.known.target,
            points.known.valid, points.which, points.shape, self._every, *self._parts[number],
        )  # fmt: skip

    def _add(self, number: int) -> None:
        self._fitting.add(number, self._samples[number], self._weights, self._sizes)

    def _look_beside(self, number: int) -> None:
        points = self._points
        self._samples[number].look_beside(points.pool, points.places, self._top_of(number))

    def _top_of(self, number: int) -> int:
        """The row of a part's band that has none above it."""
        return next(first for first, last in self._bands if self._parts[number][0] < max(last, 1))

    def _cost(self) -> float:
        return sum(prediction.cost(self.numbers, *band) for band in self._bands)
