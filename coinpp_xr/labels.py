"""What people read: units, places in an array, numbers in digits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from coinpp_xr.data.horizontal import Horizontal

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.models import Model

# Longer numbers are read by their power of ten.
_MOST_DIGITS = 1e9
_LONGEST_UNIT = 80


@dataclass(frozen=True)
class DisplayUnit:
    """The unit that people read: shown = value + offset; differences and errors are the same."""

    label: str
    offset: float = 0.0
    is_difference: bool = False


def display_unit(attrs: Mapping[Any, Any]) -> DisplayUnit:
    """°C for temperatures in K or °C, °F for those in °F, else the unit that the attributes name.

    A degree shown is a degree of the data: bounds are given and errors shown in the same size.

    Parameters
    ----------
    attrs : mapping
        Attributes of a variable. ``units`` is parsed; ``units_metadata`` (CF 1.11) or a standard
        name with ``anomaly`` marks a temperature difference, which has no zero to move.

    Returns
    -------
    DisplayUnit
        With an empty label where there are no units.
    """
    text = str(attrs.get("units", ""))
    celsius = temperature_scale(text)
    if celsius is None:
        return DisplayUnit(text)
    is_difference = attrs.get("units_metadata") == "temperature: difference" or "anomaly" in str(
        attrs.get("standard_name", "")
    )
    scale, offset = celsius
    if scale != 1:
        return DisplayUnit("°F", 0.0, is_difference)
    return DisplayUnit("°C", 0.0 if is_difference else offset, is_difference)


@cache
def temperature_scale(text: str) -> tuple[float, float] | None:
    """Scale and offset from a temperature unit to °C; None for any other unit."""
    # No name of these units holds a digit, and arithmetic in an attribute is not worth parsing.
    if not text or len(text) > _LONGEST_UNIT or any(c.isdigit() for c in text):
        return None
    from cf_xarray.units import units

    scales = {
        units.Unit("kelvin"): (1.0, -273.15),
        units.Unit("degree_Celsius"): (1.0, 0.0),
        units.Unit("degree_Fahrenheit"): (5 / 9, -160 / 9),
    }
    for spelling in (text, text.lower()):  # "Kelvin" and "Fahrenheit" are common in files
        try:
            unit = units.Unit(spelling)
        except Exception:  # pint's parser has errors of many kinds
            continue
        return scales.get(unit)
    return None


def unit_settings(model: Model | None, attrs: Mapping[Any, Any]) -> dict[str, Any]:
    """The codec's ``to_model_unit`` where model and variable are temperatures of other units.

    Parameters
    ----------
    model : Model or None
    attrs : mapping
        Attributes of the variable.

    Returns
    -------
    dict
        Empty where nothing is to be converted, or where one of the units is not known.
    """
    if model is None or display_unit(attrs).is_difference:
        return {}
    known, own = temperature_scale(model.units), temperature_scale(str(attrs.get("units", "")))
    if known is None or own is None or known == own:
        return {}
    return {"to_model_unit": (own[0] / known[0], (own[1] - known[1]) / known[0])}


def batch_dims(array: xr.DataArray) -> list[Any]:
    """The dimensions other than those of cells, in the array's order."""
    cells = Horizontal.of(array).dims
    return [dim for dim in array.dims if dim not in cells]


def globe_label(array: xr.DataArray, batch: list[Any], index: int) -> str:
    """``time=2026-03-25T07:00, member=3`` for a flat index along the batch dimensions."""
    if not batch:
        return ""
    positions = np.unravel_index(index, [array.sizes[dim] for dim in batch])
    pairs = zip(batch, positions, strict=True)
    return ", ".join(f"{dim}={_coordinate(array, dim, int(position))}" for dim, position in pairs)


def place_label(array: xr.DataArray, dims: Sequence[Any], where: Sequence[slice]) -> str:
    """``time=2026-03-25T07:00 … 2026-05-28T01:00, member=3`` for a part of an array."""
    parts = []
    for dim, part in zip(dims, where, strict=True):
        first, last, _ = part.indices(array.sizes[dim])
        ends = dict.fromkeys(str(_coordinate(array, dim, i)) for i in (first, last - 1))
        parts.append(f"{dim}={' … '.join(ends)}")
    return ", ".join(parts)


def _coordinate(array: xr.DataArray, dim: Any, position: int) -> Any:
    """The coordinate at a position, or the position where there is none."""
    if dim not in array.coords:
        return position
    value = array[dim].to_numpy()[position]
    return np.datetime_as_string(value, unit="m") if isinstance(value, np.datetime64) else value


def in_digits(value: float | None) -> str:
    """Three digits, never in powers of ten where that can be helped."""
    if value is None:
        return "–"
    text = f"{value:,.0f}" if 1000 <= abs(value) < _MOST_DIGITS else f"{value:.3g}"
    return text.replace("-", "−") if value < 0 else text.removeprefix("-")
