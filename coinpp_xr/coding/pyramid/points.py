"""The points of one pass of a level: quantised, and coded in bands of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid import contexts, decisions, prediction, range_coder
from coinpp_xr.coding.pyramid.coders import Coder, Decoded, PassParameters
from coinpp_xr.coding.pyramid.experts import Expert
from coinpp_xr.coding.pyramid.limits import Limits
from coinpp_xr.coding.pyramid.prediction import BEFORE, BEHIND, Places, Pool, Rows
from coinpp_xr.coding.pyramid.references import References
from coinpp_xr.parallel import map_compiled

Int = npt.NDArray[np.int64]
Int32 = npt.NDArray[np.int32]
Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

_NO_TARGET = np.empty((0, 0, 0))
# Passes of fewer points are not worth a second thread.
_WORTH_A_THREAD = 12_000


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of the fields of a unit before they are coded.

    Parameters
    ----------
    fields : list of Decoded
        Those that all of them refer to, each for all items: none to three.
    valid : bool array, shape (items, n_lat, n_lon)
        Of no items, where all cells count.
    target : float64 array, shape (items, n_lat, n_lon), or None
        For an encoder, in 1/64 of a step.
    copies : float
        How many times as many fields will use parameters that are fitted here.
    usual : dict
        (level, pass) → parameters of fields that refer to as many others, to begin with.
    """

    fields: list[Decoded]
    valid: Bool
    target: Float64 | None = None
    copies: float = 1.0
    usual: dict[tuple[int, int], PassParameters] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Points:
    """The points of one pass.

    Parameters
    ----------
    pool : Pool
    places : Places
    references : References
    limits : Limits
    which : (row, column, spacing)
        Of the points in the whole grid.
    shape : (items, rows, columns)
    known : Known
    expert : Expert
    """

    pool: Pool
    places: Places
    references: References
    limits: Limits
    which: tuple[int, int, int]
    shape: tuple[int, int, int]
    known: Known
    expert: Expert

    @property
    def size(self) -> int:
        return self.shape[0] * self.shape[1] * self.shape[2]

    def bands(self, count: int) -> list[tuple[int, int]]:
        """First and last rows of as many bands."""
        rows = self.shape[1]
        return [(rows * k // count, rows * (k + 1) // count) for k in range(count)]

    def zeros(self) -> Int32:
        """Room for the steps of all points, between zeros."""
        items, rows, columns = self.shape
        return np.zeros((items, rows, BEFORE + columns + BEHIND), np.int32)

    def map(self, function: Callable[[int], None], count: int) -> None:
        """Call a function with all numbers below, in threads if there is enough to do."""
        if self.size < _WORTH_A_THREAD:
            for number in range(count):
                function(number)
        else:
            map_compiled(function, range(count))

    def quantise(
        self, weights: Int32, numbers: Int32, band: tuple[int, int], *, putting: bool = False
    ) -> None:
        """Fill in the steps of a band of rows; perhaps put what they lead to into the pool."""
        prediction.quantise_rows(
            self.pool, self.places, weights, self.references, self.limits, self.known.target,
            self.known.valid, self.which, self._rows(), numbers, *band, putting,
        )  # fmt: skip

    def put(self, parameters: PassParameters, n_bands: int) -> None:
        """Fill the pass's phase of the pool as coding it would."""
        numbers, bands = self.zeros(), self.bands(n_bands)

        def put(number: int) -> None:
            self.quantise(parameters.weights, numbers, bands[number], putting=True)

        self.map(put, n_bands)

    def _rows(self) -> Rows:
        return Rows.of(self.shape[2], self.references.number)

    def code(
        self,
        coders: list[Coder],
        parameters: PassParameters,
        quick: int,
        numbers: Int32 | None,
        opinions: tuple[Int, Int],
    ) -> None:
        """Encode or decode; fills the pass's phase of the pool.

        ``opinions`` are centres and scales of :func:`coinpp_xr.coding.pyramid.opinions.opinions`.
        """
        items, _, columns = self.shape
        tables, weights, bands = decisions.tables(), parameters.weights, self.bands(len(coders))
        known, target = numbers, self.known.target
        numbers = self.zeros() if known is None else known
        if target is None or known is not None:
            target = _NO_TARGET

        def code_band(number: int) -> None:
            coder, (first, last) = coders[number], bands[number]
            at, end = 0, items * (last - first)
            rows = self._rows()
            while at < end:
                at = contexts.code_rows(
                    *coder.coder, coder.state, tables, quick, first, at, last,
                    self.pool, self.places, weights, self.references, self.limits, self.which,
                    target, self.known.valid, numbers, parameters.coefficients, rows,
                    self.expert.network(self.references.number), *opinions,
                )  # fmt: skip
                coder.check()
                if at < end:
                    coder.grow(2 * range_coder.BYTES_PER_VALUE * columns)

        self.map(code_band, len(coders))


# Is shown the points of a pass, their parameters, and in how many bands of rows they are coded.
Observer = Callable[[Points, PassParameters, int], None]
