"""How far the values of a field spread, and whether a bound leaves anything of them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from coinpp_xr.errors import CompressionWarning
from coinpp_xr.lattice import Bound
from coinpp_xr.shared_values import are_categories

# Of the standard deviation, what a bound may not reach, and what a root mean square error may
# not: with either, nine tenths of the variance come back. Errors are about 0.6 of a bound.
_COARSE_BOUND, _COARSE_RMSE = 0.5, 0.3
# Of the values of a sample, those that categories may hold once.
_FEW_ALONE = 0.25
# Cells of a chunk that are looked at, more or less.
_SAMPLED = 1 << 16

_lock = threading.Lock()
_checked_before = 0


@dataclass(frozen=True)
class Spread:
    """What tells how much an error is to some values, in their unit.

    Parameters
    ----------
    std : float
        Standard deviation; every cell counts the same.
    mean_magnitude, rms_magnitude, largest : float
        Of the absolute values.
    low, high : float
    is_exact : bool
        Whether these are few distinct values, which no bound changes.
    """

    std: float
    mean_magnitude: float
    rms_magnitude: float
    largest: float
    low: float
    high: float
    is_exact: bool

    @classmethod
    def of(cls, values: npt.NDArray[np.floating]) -> Spread | None:
        """The spread of finite values of any shape; None of no values."""
        if values.size == 0:
            return None
        wide = values.astype(np.float64)
        largest = float(np.abs(wide).max())
        # Sums and squares of values near the end of all numbers overflow.
        scale = largest or 1.0
        wide /= scale
        std, mean_magnitude = scale * float(wide.std()), scale * float(np.abs(wide).mean())
        rms_magnitude = scale * float(np.sqrt((wide**2).mean()))
        return cls(
            std, mean_magnitude, rms_magnitude, largest, float(values.min()), float(values.max()),
            _are_few(values),
        )  # fmt: skip

    def is_reached(self, control: str, value: float) -> bool:
        """Whether a bound reaches half of the standard deviation, or a target three tenths of it.

        Parameters
        ----------
        control : {"max_error", "max_error_relative", "target_rmse"}
            A relative bound is taken of the root mean square of the values.
        value : float
        """
        return not self.is_exact and self.would_be_reached(control, value)

    def would_be_reached(self, control: str, value: float) -> bool:
        """The same where few distinct values are worth no more than others."""
        if control == "max_error_relative" and value >= 1:
            return False  # no bound at all, which the codec refuses
        coarse = _COARSE_RMSE if control == "target_rmse" else _COARSE_BOUND
        return 0 < coarse * self.std <= value * self._unit_of(control)

    def share(self, control: str, value: float) -> float | None:
        """What a bound or target allows, as a share of the standard deviation."""
        return value * self._unit_of(control) / self.std if self.std > 0 else None

    def tenth(self, control: str) -> float:
        """What allows errors of a tenth of the standard deviation, in one digit."""
        return float(f"{self.std / 10 / self._unit_of(control):.0e}")

    def _unit_of(self, control: str) -> float:
        return self.rms_magnitude if control == "max_error_relative" else 1.0


def _are_few(values: npt.NDArray[np.floating]) -> bool:
    counts = np.unique(values, return_counts=True)[1]
    # Dry cells and a little rain have few values in a sample, and many elsewhere.
    few_alone = np.count_nonzero(counts == 1) <= _FEW_ALONE * len(counts)
    return bool(few_alone) and are_categories(values[None], np.ones((1, values.size), np.bool_))


def how_much(control: str) -> str:
    """What a control may not reach of a standard deviation, in words."""
    return "three tenths" if control == "target_rmse" else "half"


@contextmanager
def checked_before() -> Iterator[None]:
    """Within the block :func:`warn_if_coarse` is silent: whole variables were looked at before.

    In all threads of the process, since Zarr and dask encode in threads of their own.
    """
    global _checked_before
    with _lock:
        _checked_before += 1
    try:
        yield
    finally:
        with _lock:
            _checked_before -= 1


def warn_if_coarse(
    values: npt.NDArray[np.floating],
    usable: npt.NDArray[np.bool_],
    bound: Bound | None,
    target_rmse: float | None,
) -> None:
    """Warn of a bound or target that is coarse for a chunk, see :meth:`Spread.is_reached`.

    Chunks of a constant or of few distinct values are passed over.

    Parameters
    ----------
    values : float array, shape (items, cells)
    usable : bool array of that shape
        Cells that may come back with an error.
    bound : Bound or None
    target_rmse : float or None
        Without either nothing is promised, and there is nothing to warn of.
    """
    if _checked_before or (bound is None and target_rmse is None):
        return
    # No multiple of rows or columns, which would pick the same meridians again and again.
    step = max(1, values.size // _SAMPLED) | 1
    some = values.reshape(-1)[::step][usable.reshape(-1)[::step]]
    spread = Spread.of(some)
    control, value = "target_rmse", target_rmse
    if bound is not None:
        control, value = "max_error", bound.error
        if bound.relative:
            control = "max_error_relative"
    if spread is not None and value is not None and spread.is_reached(control, value):
        warnings.warn(
            f"{control}={value:g} reaches {how_much(control)} of this chunk's standard deviation "
            f"({spread.std:.2g}): little may be left of it; {control}={spread.tenth(control):g} "
            "is a tenth of that",
            CompressionWarning,
            stacklevel=6,
        )
