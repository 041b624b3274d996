"""Units as files write them: whether two are the same, and how errors convert between them."""

from __future__ import annotations

import re
from functools import cache
from math import inf

from coinpp_xr.labels import temperature_scale

# What ECMWF writes for pure numbers, and for depths of water.
_PURE_NUMBERS = {"(0 - 1)", "0 - 1", "(0-1)", "0-1", "~", "fraction", "dimensionless", "numeric"}
_WATER = re.compile(r"\bof\s+(water\s+equivalent|water)\b|\bwater equivalent\b|\bw\.?e\.?$", re.I)
_DIRECTIONS = {"degree true", "degrees true", "degree_true"}
# Arithmetic that would take long: brackets, powers of powers, large exponents.
_NO_UNIT = re.compile(r"[()]|(\*\*|\^)\s*-?\s*\d*\s*(\*\*|\^)|(\*\*|\^)\s*-?\s*\d{3}")
_LONGEST = 80

# A kind of quantity, and what a difference of one in the unit is in the kind's own.
Unit = tuple[str, float]


@cache
def unit_of(text: str) -> Unit | None:
    """The kind of quantity and the size of a unit, as far as differences are concerned.

    Parameters
    ----------
    text : str
        The attribute ``units``.

    Returns
    -------
    tuple of str and float, or None
        K and °C are the same. None where there is no unit. What cannot be read is a kind of its
        own, of size 1.
    """
    plain = " ".join(text.split())
    if not plain:
        return None
    celsius = temperature_scale(plain)
    if celsius is not None:
        return "kelvin", celsius[0]
    if plain.lower() in _PURE_NUMBERS:
        return "dimensionless", 1.0
    if plain.lower() in _DIRECTIONS:
        plain = "degree"
    plain = _WATER.sub("", plain).strip()
    if len(plain) > _LONGEST or _NO_UNIT.search(plain):
        return plain, 1.0
    from cf_xarray.units import units

    try:
        # "1e-3 kg kg-1" is a unit with a factor, which only quantities can have.
        quantity = units.Quantity(plain)
        base = quantity.to_base_units() if isinstance(quantity, units.Quantity) else None
    except Exception:  # pint's parser has errors of many kinds
        base = None
    if base is None or not 0 < float(base.magnitude) < inf:
        return plain, 1.0
    return str(base.units), float(base.magnitude)


def are_alike(one: str, other: str) -> bool:
    """Whether the same bound means the same in two units; not where one of them is unknown."""
    known = unit_of(one), unit_of(other)
    if None in known:
        return known == (None, None)
    return conversion(one, other) == 1.0


def conversion(source: str, target: str) -> float | None:
    """How many of the target's unit one of the source's is, for differences.

    None where that is not known.
    """
    one, other = unit_of(source), unit_of(target)
    if one is None or other is None or one[0] != other[0]:
        return None
    return float(f"{one[1] / other[1]:.12g}")
