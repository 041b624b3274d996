"""From what a user asks for to one rate control per variable, held against the data first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from math import inf
from numbers import Real
from typing import Any

import xarray as xr

from coinpp_xr.coarseness import Spread
from coinpp_xr.errors import UnsuitableBoundError
from coinpp_xr.selection import check_rates, choose_variables, rates_of
from coinpp_xr.spread import Level, Sample
from coinpp_xr.units import are_alike

# Controls in the unit of a variable.
IN_UNITS = ("max_error", "target_rmse")
_BOUNDS = (*IN_UNITS, "max_error_relative")
# Variables that one line can name.
_FEW = 6


def settle(
    dataset: xr.Dataset,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any],
    *,
    allow_coarse: bool,
    there: Collection[str] = (),
) -> tuple[list[Any], dict[Any, str]]:
    """Choose variables, and refuse what would lose some of them.

    Parameters
    ----------
    dataset : Dataset
    variables : str or iterable, optional
        Those asked for; default: all that can be compressed.
    rates : mapping
        From the name of a control to its value for all variables, or to a mapping by variable.
    allow_coarse : bool
        Whether bounds may be as large as the data's own spread, or meant for several units.
    there : collection of str
        Variables that are only gone on with: their rates were looked at when they were begun.

    Returns
    -------
    chosen : list
    reasons : dict
        Why each of the others is not.

    Raises
    ------
    ValueError
        If a variable does not exist or cannot be compressed, or none can.
    UnsuitableBoundError
        If one bound or target is meant for several units, or if one reaches half of the standard
        deviation of a variable on some level; see :class:`coinpp_xr.spread.Sample` for what is
        looked at.
    """
    check_rates(rates, dataset)
    chosen, reasons = choose_variables(dataset, variables)
    if any(isinstance(rate, Mapping) for rate in rates.values()):
        chosen = _with_a_rate(chosen, reasons, rates, asked=variables is not None)
    if not isinstance(allow_coarse, bool):
        raise ValueError(f"allow_coarse must be True or False, got {allow_coarse!r}")
    new = {name: dataset[name] for name in chosen if str(name) not in there}
    if not allow_coarse:
        _Check(new, rates).refuse()
    return chosen, reasons


def _with_a_rate(
    chosen: list[Any], reasons: dict[Any, str], rates: Mapping[str, Any], *, asked: bool
) -> list[Any]:
    """Of the chosen variables those that a rate control names; the rest gets its reason."""
    named = [name for name in chosen if rates_of(rates, name)]
    for name in chosen:
        if name not in named:
            if asked:
                raise ValueError(f"give a rate control for {name!r}, too")
            reasons[name] = "no rate control given for it: written without loss"
    for rate in rates.values():
        for name in rate if isinstance(rate, Mapping) else ():
            if name not in named:
                raise ValueError(f"cannot compress {name!r}: {reasons[name]}")
    return named


class _Check:
    """Bounds and targets, held against a sample of each variable.

    Parameters
    ----------
    arrays : dict
        Variables by name.
    rates : mapping
        As for :func:`settle`.
    """

    def __init__(self, arrays: Mapping[Any, xr.DataArray], rates: Mapping[str, Any]) -> None:
        self._arrays = arrays
        self._rates = {control: rates.get(control) for control in _BOUNDS}
        self._samples: dict[Any, Sample] = {}

    def refuse(self) -> None:
        """Refuse the first control that does not suit the data."""
        for control, rate in self._rates.items():
            given = {n: rate.get(n) if isinstance(rate, Mapping) else rate for n in self._arrays}
            # What is no rate at all the codec refuses, with better words.
            own: dict[Any, Any] = {name: value for name, value in given.items() if _is_rate(value)}
            if control in IN_UNITS and not isinstance(rate, Mapping):
                self._refuse_units(control, own)
            self._refuse_coarse(control, own)

    def _sample(self, name: Any) -> Sample:
        if name not in self._samples:
            self._samples[name] = Sample.of(self._arrays[name])
        return self._samples[name]

    def _refuse_units(self, control: str, own: Mapping[Any, float]) -> None:
        """Refuse one number for variables of several units."""
        units = {name: str(self._arrays[name].attrs.get("units", "")) for name in own}
        first = next(iter(units.values()), "")
        if all(are_alike(first, other) for other in units.values()):
            return
        value = next(iter(own.values()))
        shown: list[str] = []
        meant: dict[Any, float | None] = {}
        for name in list(own)[:_FEW]:
            spread = self._sample(name).spread
            shown.append(f"{name} {_amount(spread, units[name])}")
            # The bound may be meant for the first variable that it suits, and others like it.
            kept = next((units[n] for n in meant if meant[n] is not None), units[name])
            suits = spread is None or not spread.is_reached(control, value)
            meant[name] = value if suits and are_alike(units[name], kept) else None
        more = len(own) - len(shown)
        if more > 0:
            shown.append(f"and {more} more")
        raise UnsuitableBoundError(
            f"{_written(control, value)} is meant for several units: {', '.join(shown)}; write "
            f"{_written(control, meant, more > 0)}",
            f"{_option(control, value)} is meant for several units: {', '.join(shown)}; write "
            f"{_option(control, meant, more > 0)}",
        )

    def _refuse_coarse(self, control: str, own: Mapping[Any, float]) -> None:
        """Refuse an error of half of what values differ by."""
        found: dict[Any, tuple[Level, int]] = {}
        for name, value in own.items():
            reached = {
                level: level.spread.tenth(control)
                for level in self._sample(name).levels
                if level.spread is not None and level.spread.is_reached(control, value)
            }
            if reached:
                found[name] = min(reached, key=lambda level: reached[level]), len(reached)
        if not found:
            return
        texts = []
        for name, (level, count) in list(found.items())[:_FEW]:
            unit = str(self._arrays[name].attrs.get("units", ""))
            where = f" at {level.label}" if level.label else ""
            others = f" and {count - 1} more" if count > 1 else ""
            texts.append(f"{name}{where}{others} ({_amount(level.spread, unit)})")
        if len(found) > _FEW:
            texts.append(f"and {len(found) - _FEW} more")
        meant: dict[Any, float | None] = dict(own)
        for name, (level, _) in found.items():
            meant[name] = level.spread.tenth(control)  # type: ignore[union-attr]
        # Those that are refused come first; the others keep what they have.
        order = [*found, *(name for name in own if name not in found)]
        shown = {name: meant[name] for name in order[:_FEW]}
        alone = next(iter(shown.values())) if len(self._arrays) == 1 else shown
        given = {name: own[name] for name in list(found)[:_FEW]}
        refused: Any = given if len({*given.values()}) > 1 else next(iter(given.values()))
        said = f"reaches half of the standard deviation of {', '.join(texts)}: little would be left"
        more = len(own) > len(shown)
        raise UnsuitableBoundError(
            f"{_written(control, refused)} {said}; write {_written(control, alone, more)}, or "
            "allow_coarse=True",
            f"{_option(control, refused)} {said}; write {_option(control, alone, more)}, or "
            "--allow-coarse",
        )


def _is_rate(value: Any) -> bool:
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and 0 < float(value) < inf


def _amount(spread: Spread | None, unit: str) -> str:
    if spread is None:
        return "without a valid value"
    if spread.is_exact or spread.std == 0:
        return "of few distinct values"
    return f"{spread.std:.3g} {unit}" if unit.strip() else f"{spread.std:.3g} without a unit"


def _written(control: str, value: Any, more: bool = False) -> str:
    """As an argument in Python; a number that only its owner knows is ``…``."""
    if not isinstance(value, Mapping):
        return f"{control}={value:g}"
    pairs = [f"{str(n)!r}: {'…' if v is None else format(v, 'g')}" for n, v in value.items()]
    return f"{control}={{{', '.join([*pairs, *['…'] * more])}}}"


def _option(control: str, value: Any, more: bool = False) -> str:
    """The same as an option of the command line."""
    option = f"--{control.replace('_', '-')}"
    if not isinstance(value, Mapping):
        return f"{option} {value:g}"
    pairs = [f"{n}={'…' if v is None else format(v, 'g')}" for n, v in value.items()]
    return f"{option} {','.join([*pairs, *['…'] * more])}"
