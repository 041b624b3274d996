"""Models for data in another unit than the one that they learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

from coinpp_xr.errors import shown
from coinpp_xr.model_schema import is_number
from coinpp_xr.models import Model


def parse_unit_map(value: Any) -> tuple[float, float]:
    """Scale and offset from the data's unit to a model's: its value = scale × value + offset.

    Raises
    ------
    ValueError
        If they are not two finite numbers, the first above zero.
    """
    numbers = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(numbers) != 2 or not all(map(is_number, numbers)) or numbers[0] <= 0:
        raise ValueError(
            "to_model_unit must be two numbers, scale (above 0) and offset, such as "
            f"(1, 273.15) for °C and a model in K; got {shown(value)}"
        )
    return float(numbers[0]), float(numbers[1])


# The same object every time, as long as the model lives: what is worked out for a model and a grid
# is kept by model.
_moved: WeakKeyDictionary[Model, dict[tuple[float, float], Model]] = WeakKeyDictionary()
_MOST_UNITS = 16
_lock = Lock()


def in_unit_of_data(model: Model, scale: float, offset: float) -> Model:
    """The model as one of the data's unit, with the fingerprint of the one that it was made from.

    Parameters
    ----------
    model : Model
    scale, offset : float
        The model's value = scale × the data's + offset.
    """
    with _lock:
        others = _moved.setdefault(model, {})
        if (scale, offset) not in others:
            if len(others) >= _MOST_UNITS:
                others.clear()
            others[scale, offset] = _in_unit(model, scale, offset)
        return others[scale, offset]


def _in_unit(model: Model, scale: float, offset: float) -> Model:
    moved = replace(
        model,
        offset=(model.offset - offset) / scale,
        scale=model.scale / scale,
        # Fields in fractions of the model's unit: of use where that is as large as the data's.
        reference=model.reference if scale == 1 else None,
        card={**model.card, "units": "in the data's unit"},
    )
    # What is stored names the model that readers can load.
    vars(moved)["fingerprint"] = model.fingerprint
    return moved
