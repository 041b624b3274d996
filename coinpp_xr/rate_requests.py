"""From what a user asks for to one rate control per variable, held against the data first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from numbers import Real
from typing import Any

import xarray as xr

from coinpp_xr.coarseness import Spread, how_much
from coinpp_xr.errors import CompressionWarning, UnsuitableBoundError
from coinpp_xr.recommendation_table import RecommendationTable
from coinpp_xr.recommended import INSTALL, NotInstalledError, recommend
from coinpp_xr.selection import check_rates, choose_variables, rates_of
from coinpp_xr.spread import Level, Sample
from coinpp_xr.units import are_alike

# Instead of a number: what compression-recommendations says.
RECOMMENDED = "recommended"
# What goes beside a rate control.
BESIDE = ("keep", "max_mean_error")
# Controls in the unit of a variable.
IN_UNITS = ("max_error", "target_rmse")
_BOUNDS = (*IN_UNITS, "max_error_relative")
# Variables that one line can name.
_FEW = 8


@dataclass(frozen=True, eq=False)
class Settled:
    """What is to be compressed, and how.

    Parameters
    ----------
    chosen : list
        Variables.
    reasons : dict
        Why each of the others is not.
    rates : dict
        By chosen variable the rate control and what goes beside it, as arguments of the codec;
        empty for one that is only gone on with, with what it was begun with.
    """

    chosen: list[Any]
    reasons: dict[Any, str]
    rates: dict[Any, dict[str, Any]]


def settle(
    dataset: xr.Dataset,
    variables: str | Iterable[Any] | None,
    rates: Mapping[str, Any],
    *,
    beside: Mapping[str, Any],
    allow_coarse: bool,
    there: Collection[str] = (),
    check: Callable[[Any], None] | None = None,
    stacklevel: int = 4,
) -> Settled:
    """Choose variables, find the rate of each, and refuse what would lose some of them.

    Parameters
    ----------
    dataset : Dataset
    variables : str or iterable, optional
        Those asked for; default: all that can be compressed.
    rates : mapping
        From the name of a control to its value for all variables, or to a mapping by variable.
        ``max_error`` may be "recommended"; so it is where no control has a value.
    beside : mapping
        The same for what goes beside a rate control, such as ``keep``.
    allow_coarse : bool
        Whether bounds may be as large as the data's own spread, or meant for several units.
    there : collection of str
        Variables that are only gone on with: their rates were looked at when they were begun.
    check : callable, optional
        Called with the name of every new variable before any value is read.
    stacklevel : int
        From here to the line that a warning is to point at.

    Raises
    ------
    ValueError
        If a variable does not exist or cannot be compressed, or none can; or if nothing is
        recommended for one.
    UnsuitableBoundError
        If one bound or target is meant for several units, or if one reaches half of the standard
        deviation of a variable on some level; see :class:`coinpp_xr.spread.Sample` for what is
        looked at.

    Warns
    -----
    CompressionWarning
        If no control is given.
    """
    if not isinstance(allow_coarse, bool):
        raise ValueError(f"allow_coarse must be True or False, got {allow_coarse!r}")
    beside = {name: value for name, value in beside.items() if value is not None}
    check_rates({**rates, **beside}, dataset)
    chosen, reasons = choose_variables(dataset, variables, rates)
    if any(isinstance(rate, Mapping) for rate in rates.values()):
        chosen = _with_a_rate(chosen, reasons, rates, asked=variables is not None)
    _refuse_strangers(beside, chosen, reasons)
    own = {name: rates_of(rates, name) for name in chosen}
    new = [name for name in chosen if str(name) not in there]
    for name in new:
        if len(own[name]) > 1:
            raise ValueError(f"give one rate control, not {' and '.join(own[name])}")
        if check is not None:
            check(name)
    samples = _Samples(dataset)
    is_default = all(rate is None for rate in rates.values())
    wanted = [name for name in new if is_default or own[name].get("max_error") == RECOMMENDED]
    table = _recommended(dataset, wanted, samples, is_default)
    for name in wanted:
        found = table[str(name)]
        own[name] = {} if found.control is None else {found.control: found.value}
        if found.keep:
            own[name]["keep"] = list(found.keep)
        if found.lossless:
            reasons[name] = "recommended to be without loss: written without loss"
    if is_default and wanted:
        warnings.warn(_said(table), CompressionWarning, stacklevel=stacklevel)
    for name in chosen:
        if str(name) in there and own[name].get("max_error") == RECOMMENDED:
            own[name] = {}  # whatever it was begun with
        if own[name]:
            own[name] |= {k: _listed(k, v) for k, v in rates_of(beside, name).items()}
    if not allow_coarse:
        _Check({name: own[name] for name in new}, rates, set(wanted), samples).refuse()
    chosen = [name for name in chosen if name not in reasons]
    return Settled(chosen, reasons, {name: own[name] for name in chosen})


def controls(
    *, bits: Any, max_error: Any, max_error_relative: Any, target_rmse: Any, lossless: bool
) -> dict[str, Any]:
    """Rate controls by name, as callers gave them; what is lossless has a bound of 0.

    Raises
    ------
    ValueError
    """
    found = {
        "bits": bits, "max_error": max_error, "max_error_relative": max_error_relative,
        "target_rmse": target_rmse,
    }  # fmt: skip
    if not isinstance(lossless, bool):
        raise ValueError(f"lossless must be True or False, got {lossless!r}")
    if lossless:
        if also := [name for name, value in found.items() if value is not None]:
            raise ValueError(f"give one rate control, not lossless and {' and '.join(also)}")
        found["max_error"] = 0.0
    return found


def _recommended(
    dataset: xr.Dataset, names: Sequence[Any], samples: _Samples, is_default: bool
) -> RecommendationTable:
    """What is recommended for every one of these variables.

    Raises
    ------
    ValueError
        If nothing is for one of them.
    """
    if not names:
        return RecommendationTable(())
    listed = ", ".join(map(str, names[:_FEW])) + ", …" * (len(names) > _FEW)
    try:
        table = recommend(dataset, names, samples)
    except NotInstalledError as error:
        alone = None if len(names) == 1 else dict.fromkeys(names[:_FEW])
        said = f"{'no bound is given' if is_default else 'nothing can be recommended'} for {listed}"
        also = f"in the variable's unit, or for recommended bounds {INSTALL}"
        more = len(names) > _FEW
        raise UnsuitableBoundError(
            f"{said}: write {_written('max_error', alone, more)} {also}",
            f"{said}: write {_option('max_error', alone, more)} {also}",
        ) from error
    unknown = [one for one in table if not one.is_known]
    if unknown:
        said = ", ".join(f"{one.name} ({one.remarks})" for one in unknown[:_FEW])
        said += f" and {len(unknown) - _FEW} more" if len(unknown) > _FEW else ""
        meant: Any = {one.name: None for one in unknown[:_FEW]}
        meant |= (
            {one.name: RECOMMENDED for one in table if one.is_known} if len(table) <= 12 else {}
        )
        alone = None if len(table) == 1 else meant
        more = len(table) > len(meant)
        raise UnsuitableBoundError(
            f"nothing is recommended for {said}; write {_written('max_error', alone, more)}",
            f"nothing is recommended for {said}; write {_option('max_error', alone, more)}",
        )
    return table


def _said(table: RecommendationTable) -> str:
    """One line on what is taken where no control is given."""
    taken = [
        f"{one.name} without loss" if one.lossless else f"{one.name} {one.control}={one.value:g}"
        for one in list(table)[:_FEW]
    ]
    more = [f"and {len(table) - _FEW} more"] if len(table) > _FEW else []
    return (
        f"no rate control given: what is recommended is taken: {', '.join([*taken, *more])}; give "
        "max_error or target_rmse in the variable's unit for other bounds, or "
        "max_error='recommended'"
    )


def _listed(name: str, value: Any) -> Any:
    """Values to keep as a list, which is JSON."""
    if name != "keep" or isinstance(value, list):
        return value
    return [value] if isinstance(value, Real) else list(value)


def _refuse_strangers(
    controls: Mapping[str, Any], chosen: Sequence[Any], reasons: Mapping[Any, str]
) -> None:
    """Refuse mappings that name what is not compressed."""
    for rate in controls.values():
        for name in rate if isinstance(rate, Mapping) else ():
            if name not in chosen:
                raise ValueError(f"cannot compress {name!r}: {reasons[name]}")


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
    _refuse_strangers(rates, named, reasons)
    return named


class _Samples:
    """Samples of variables, each taken once."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset
        self._taken: dict[Any, Sample] = {}

    def __call__(self, name: Any) -> Sample:
        if name not in self._taken:
            self._taken[name] = Sample.of(self._dataset[name])
        return self._taken[name]

    def unit_of(self, name: Any) -> str:
        return str(self._dataset[name].attrs.get("units", ""))


class _Check:
    """Bounds and targets, held against a sample of each variable.

    Parameters
    ----------
    own : dict
        The rate of every variable.
    rates : mapping
        As they were asked for.
    recommended : set
        Variables whose rate is a recommended one.
    samples : _Samples
    """

    def __init__(
        self,
        own: Mapping[Any, Mapping[str, Any]],
        rates: Mapping[str, Any],
        recommended: set[Any],
        samples: _Samples,
    ) -> None:
        self._own, self._rates, self._samples = own, rates, samples
        self._recommended = recommended

    def refuse(self) -> None:
        """Refuse the first control that does not suit the data."""
        for control in _BOUNDS:
            given = {name: rate.get(control) for name, rate in self._own.items()}
            # What is no rate at all the codec refuses, with better words.
            own: dict[Any, Any] = {name: value for name, value in given.items() if _is_rate(value)}
            if control in IN_UNITS and _is_rate(self._rates.get(control)):
                self._refuse_units(control, own)
            self._refuse_coarse(control, own)

    def _refuse_units(self, control: str, own: Mapping[Any, float]) -> None:
        """Refuse one number for variables of several units."""
        units = {name: self._samples.unit_of(name) for name in own}
        first = next(iter(units.values()), "")
        if all(are_alike(first, other) for other in units.values()):
            return
        value = next(iter(own.values()))
        shown: list[str] = []
        meant: dict[Any, float | None] = {}
        for name in list(own)[:_FEW]:
            spread = self._samples(name).spread
            shown.append(f"{name} {_amount(spread, units[name])}")
            # The bound may be meant for the first variable that it suits, and others like it.
            kept = next((units[n] for n in meant if meant[n] == value), units[name])
            suits = spread is None or not spread.is_reached(control, value)
            like = suits and are_alike(units[name], kept)
            # For the others a tenth of their spread is a beginning.
            meant[name] = value if like else spread.tenth(control) if spread else None
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
        """Refuse errors that are a large part of what values differ by."""
        found: dict[Any, tuple[Level, int]] = {}
        for name, value in own.items():
            reached = {
                level: level.spread.tenth(control)
                for level in self._samples(name).levels
                if level.spread is not None and level.spread.is_reached(control, value)
            }
            if reached:
                found[name] = min(reached, key=lambda level: reached[level]), len(reached)
        if not found:
            return
        texts = []
        for name, (level, count) in list(found.items())[:_FEW]:
            unit = self._samples.unit_of(name)
            where = f" at {level.label}" if level.label else ""
            others = f" and {count - 1} more" if count > 1 else ""
            texts.append(f"{name}{where}{others} ({_amount(level.spread, unit)})")
        if len(found) > _FEW:
            texts.append(f"and {len(found) - _FEW} more")
        # Instead of what is recommended a bound, and for the others what they had.
        instead = control if self._recommended.isdisjoint(found) else "max_error"
        meant: dict[Any, Any] = dict(own)
        if instead != control or not self._recommended.isdisjoint(own):
            meant = {name: RECOMMENDED if name in self._recommended else own.get(name)
                     for name in self._own}  # fmt: skip
        for name, (level, _) in found.items():
            meant[name] = level.spread.tenth(instead)  # type: ignore[union-attr]
        # Those that are refused come first; the others keep what they have.
        order = [*found, *(name for name in meant if name not in found and meant[name])]
        shown = {name: meant[name] for name in order[:_FEW]}
        alone = next(iter(shown.values())) if len(self._own) == 1 else shown
        given = {name: own[name] for name in list(found)[:_FEW]}
        refused: Any = given if len({*given.values()}) > 1 else next(iter(given.values()))
        said = (
            f"reaches {how_much(control)} of the standard deviation of {', '.join(texts)}: little "
            "would be left"
        )
        more = len(order) > len(shown)
        raise UnsuitableBoundError(
            f"{_written(control, refused)} {said}; write {_written(instead, alone, more)}, or "
            "allow_coarse=True",
            f"{_option(control, refused)} {said}; write {_option(instead, alone, more)}, or "
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
        return f"{control}={_number(value)}"
    pairs = [f"{str(name)!r}: {_number(own, quote=True)}" for name, own in value.items()]
    return f"{control}={{{', '.join([*pairs, *['…'] * more])}}}"


def _option(control: str, value: Any, more: bool = False) -> str:
    """The same as an option of the command line."""
    option = f"--{control.replace('_', '-')}"
    if not isinstance(value, Mapping):
        return f"{option} {_number(value)}"
    pairs = [f"{name}={_number(own)}" for name, own in value.items()]
    return f"{option} {','.join([*pairs, *['…'] * more])}"


def _number(value: Any, *, quote: bool = False) -> str:
    if isinstance(value, str):
        return repr(value) if quote else value
    return "…" if value is None else f"{value:g}"
