"""Entries of the package compression-recommendations as rate controls of this one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from math import inf
from typing import Any

import xarray as xr

from coinpp_xr.coarseness import Spread
from coinpp_xr.ecmwf_units import ecmwf_unit
from coinpp_xr.recommendation_table import RecommendationTable, VariableRecommendation
from coinpp_xr.selection import Layout
from coinpp_xr.spread import Sample, is_pressure, is_vertical
from coinpp_xr.units import conversion, unit_of

_PACKAGE = "compression-recommendations"
INSTALL = f"pip install {_PACKAGE}"
_NAMES = ("grib-short-name", "cf-short-name", "cf-standard-name")
# The kinds of level that GRIB files of ECMWF tell, besides those that count as the surface.
_OTHER_LEVELS = ("hybrid", "theta", "potentialVorticity", "isobaricLayer", "isobaricInPaLayer")


class NotInstalledError(ValueError):
    """The package that knows what is recommended is not installed."""


def recommend(
    dataset: xr.Dataset,
    names: Iterable[Any],
    sample_of: Callable[[Any], Sample] | None = None,
) -> RecommendationTable:
    """See :meth:`coinpp_xr.accessor.DatasetAccessor.recommend`.

    Parameters
    ----------
    dataset : Dataset
    names : iterable
        Variables that can be compressed.
    sample_of : callable, optional
        From a variable's name to a sample of it.

    Raises
    ------
    NotInstalledError
        If ``compression-recommendations`` is not installed.
    """
    entries()
    samples = sample_of or (lambda name: Sample.of(dataset[name]))

    def spread_of(name: Any) -> Spread | None:
        return samples(name).spread

    return RecommendationTable(
        tuple(
            _beside_steps(
                _for_variable(dataset[name], partial(spread_of, name)), partial(samples, name)
            )
            for name in names
        ),
        version=version(_PACKAGE),
    )


@dataclass(frozen=True)
class Entry:
    """One recommendation.

    Parameters
    ----------
    matches : callable
        Whether it is meant for ``markers``, such as ``{"grib-short-name": "2t"}``.
    names : tuple of dict
        Which names of one quantity belong together, by the kind of the name.
    requirements : list of dict
        Plain JSON; all of them must be met.
    """

    matches: Callable[..., bool]
    names: tuple[dict[str, str], ...]
    requirements: list[Any]


@cache
def entries() -> tuple[Entry, ...]:
    """All recommendations; reading them takes some seconds, once.

    Raises
    ------
    NotInstalledError
    """
    try:
        from compression_recommendations import Recommendations
    except ImportError as error:
        raise NotInstalledError(
            f"what is recommended tells the package {_PACKAGE} ({INSTALL}); or give max_error in "
            "the variable's unit"
        ) from error
    found = []
    for one in Recommendations.provide.recommendations:
        config = one.get_config()
        names = tuple(group for top in config["filters"] for group in _names_in(top))
        found.append(Entry(one.matches, names, list(config["requirements"])))
    return tuple(found)


def _names_in(config: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The names that stand beside each other in a filter."""
    parts = config.get("filters", ())
    group = {part["kind"]: str(part["value"]) for part in parts if part["kind"] in _NAMES}
    if group:
        yield group
    for part in parts:
        yield from _names_in(part)


def _beside_steps(
    one: VariableRecommendation, sample: Callable[[], Sample]
) -> VariableRecommendation:
    """With a remark, where values were quantized to steps wider than twice a bound."""
    if one.control != "max_error" or one.value is None:
        return one
    step = sample().source_step
    if step is None or step <= 2 * one.value:
        return one
    said = f"finer than the source's steps of {step:.3g}: exact"
    return replace(one, remarks="; ".join(filter(None, [one.remarks, said])))


def _for_variable(
    array: xr.DataArray, spread_of: Callable[[], Spread | None]
) -> VariableRecommendation:
    name, unit = str(array.name), str(array.attrs.get("units", "")).strip()
    unknown = VariableRecommendation(name, unit)
    level = _level_kind(array)
    if level is None:
        return replace(unknown, remarks="neither at the surface nor on levels of pressure")
    misfits = []
    for kind, value in _names_of(array):
        found = [e for e in entries() if e.matches(markers={kind: value, "level-kind": level})]
        if not found:
            continue
        short = next(
            (group["grib-short-name"] for entry in found for group in entry.names
             if group.get(kind) == value and "grib-short-name" in group), "",
        )  # fmt: skip
        theirs = ecmwf_unit(short)
        if theirs is None and array.attrs.get("GRIB_shortName") == short:
            theirs = array.attrs.get("GRIB_units")
        factor = None if theirs is None else conversion(theirs, unit)
        if factor is None:
            misfits.append(f"{short or value} is in {theirs or 'an unknown unit'} there")
            continue
        source = f"{kind} {value}, {level}"
        own_zero = unit_of(unit) == ("kelvin", 1.0) and unit not in ("K", "kelvin")
        needs = _all_of([r for e in found for r in e.requirements], factor, spread_of, own_zero)
        if needs is None:
            return replace(unknown, source=source, remarks="cannot be put as a bound or target")
        return _as_control(replace(unknown, source=source), needs, spread_of())
    if misfits:
        said = f"in {unit}" if unit else "without a unit"
        return replace(unknown, remarks=f"{said}, and {misfits[0]}")
    return replace(unknown, remarks="not known")


def _names_of(array: xr.DataArray) -> Iterator[tuple[str, str]]:
    """What a variable is called, the surest names first."""
    attrs = array.attrs
    if attrs.get("GRIB_shortName", "unknown") != "unknown":
        yield "grib-short-name", str(attrs["GRIB_shortName"])
        if attrs.get("GRIB_cfVarName", "unknown") != "unknown":
            yield "cf-short-name", str(attrs["GRIB_cfVarName"])
        return
    yield "cf-short-name", str(array.name)
    yield "grib-short-name", str(array.name)
    if attrs.get("standard_name", "unknown") != "unknown":
        yield "cf-standard-name", str(attrs["standard_name"])


def _level_kind(array: xr.DataArray) -> str | None:
    """``pressure`` or ``single``; None for levels of another kind."""
    grib = array.attrs.get("GRIB_typeOfLevel")
    if grib in ("isobaricInhPa", "isobaricInPa"):
        return "pressure"
    if grib is not None:
        return None if grib.startswith(_OTHER_LEVELS) else "single"
    scalars = [name for name, coordinate in array.coords.items() if coordinate.ndim == 0]
    batch = Layout.of(array).batch
    if any(is_pressure(array, name) for name in (*batch, *scalars)):
        return "pressure"
    levels = [dim for dim in batch if is_vertical(array, dim) and array.sizes[dim] > 1]
    return None if levels else "single"


# ---- from requirements to a rate control --------------------------------------------------------


@dataclass(frozen=True)
class _Needs:
    """What must hold, all together; infinite where nothing is asked for.

    Parameters
    ----------
    absolute, relative : float
        Of every error, in the variable's unit and as a fraction of the value.
    mean : float
        Of the mean of absolute errors, in the variable's unit.
    lossless : bool
    exact_zeros : bool
    remarks : tuple of str
    """

    absolute: float = inf
    relative: float = inf
    mean: float = inf
    lossless: bool = False
    exact_zeros: bool = False
    remarks: tuple[str, ...] = ()

    def and_(self, other: _Needs) -> _Needs:
        return _Needs(
            min(self.absolute, other.absolute), min(self.relative, other.relative),
            min(self.mean, other.mean), self.lossless or other.lossless,
            self.exact_zeros or other.exact_zeros, (*self.remarks, *other.remarks),
        )  # fmt: skip


def _all_of(
    requirements: Iterable[Mapping[str, Any]],
    factor: float,
    spread_of: Callable[[], Spread | None],
    own_zero: bool,
) -> _Needs | None:
    needs = _Needs()
    for requirement in requirements:
        one = _needs(requirement, factor, spread_of, own_zero)
        if one is None:
            return None
        needs = needs.and_(one)
    return needs


def _needs(
    requirement: Mapping[str, Any],
    factor: float,
    spread_of: Callable[[], Spread | None],
    own_zero: bool,
) -> _Needs | None:
    """What a requirement asks for; None if that cannot be put as a rate control.

    Parameters
    ----------
    requirement : mapping
        Its configuration.
    factor : float
        One of its unit in the variable's.
    spread_of : callable
        The spread of a sample of the variable.
    own_zero : bool
        Whether the variable's unit has another zero, so that fractions of values mean another
        thing.
    """
    kind = requirement["kind"]
    if kind == "all":
        return _all_of(requirement["requirements"], factor, spread_of, own_zero)
    if kind == "any":
        # One that is met is enough: one on every value rather than on a mean, and no loss last.
        ways = [_needs(r, factor, spread_of, own_zero) for r in requirement["requirements"]]
        return min(
            (way for way in ways if way is not None),
            key=lambda way: (way.lossless, way.absolute == inf, way.relative == inf), default=None,
        )  # fmt: skip
    if kind == "lossless":
        return _Needs(lossless=True)
    if kind == "data-limits":
        # What is decoded never leaves the range of what was encoded.
        low, high = (requirement.get(end) for end in ("minimum", "maximum"))
        ends = ["" if end is None else f"{factor * float(end):g}" for end in (low, high)]
        return _Needs(remarks=(f"limits {' … '.join(ends)}".strip(),))
    if kind in ("isovalue", "missing-value"):
        return _Needs(remarks=(f"{kind.replace('-', ' ')} {float(requirement['value']):g}",))
    value = float(requirement.get("value", -1))
    if value == 0:
        return _Needs(lossless=True)
    if kind == "max-pointwise-absolute-error-bound":
        return _Needs(absolute=factor * value)
    if kind == "mean-absolute-error-bound":
        return _Needs(mean=factor * value)
    if kind == "max-pointwise-relative-error-bound":
        return None if own_zero else _Needs(relative=value)
    spread = spread_of()
    if spread is None:
        return None
    if kind == "max-pointwise-range-relative-error-bound":
        return _Needs(absolute=value * (spread.high - spread.low))
    if kind == "mean-range-relative-error-bound":
        return _Needs(mean=value * (spread.high - spread.low))
    if kind == "mean-relative-error-bound" and not own_zero:
        return _Needs(mean=value * spread.mean_magnitude, exact_zeros=True)
    return None


def _as_control(
    known: VariableRecommendation, needs: _Needs, spread: Spread | None
) -> VariableRecommendation:
    """The one rate control that meets all needs."""
    remarks = list(needs.remarks)
    control, value = "target_rmse", needs.mean
    if needs.relative < inf:
        # A fraction of each value is below an absolute bound if that of the largest value is.
        control, value = "max_error_relative", needs.relative
        if spread is not None and spread.largest > 0:
            value = min(value, needs.absolute / spread.largest, needs.mean / spread.mean_magnitude)
        elif min(needs.absolute, needs.mean) < inf:
            return replace(known, remarks="no valid value in a sample")
    elif needs.absolute < inf:
        control, value = "max_error", min(needs.absolute, needs.mean)
    if needs.lossless or value <= 0:
        return replace(known, lossless=True, remarks="; ".join(remarks))
    if value == inf:
        return replace(known, remarks="; ".join([*remarks, "no bound is recommended"]))
    keep: tuple[float, ...] = ()
    if needs.exact_zeros and control != "max_error_relative":
        keep = (0.0,)
        remarks.append("zeros stay zeros")
    share = None if spread is None else spread.share(control, value)
    rounded = float(f"{value:.6g}")
    if rounded > value * (1 + 1e-12):  # never up, but for what floats make of 0.01
        rounded = float(f"{value * (1 - 1e-6):.6g}")
    value = rounded
    return replace(
        known, control=control, value=value, keep=keep, share=share, remarks="; ".join(remarks)
    )
