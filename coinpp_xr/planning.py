"""How variables are to lie in a store, decided before it is written: chunks, codecs, models."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, prod
from typing import Any

import numpy as np
import xarray as xr

from coinpp_xr.coarseness import checked_before
from coinpp_xr.codecs.base import without_model
from coinpp_xr.codecs.sphere import COINppArrayCodec, COINppCodec
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.labels import unit_settings
from coinpp_xr.model_choice import Choice, choose_model
from coinpp_xr.models import Model
from coinpp_xr.schemes import MOST_ITEMS
from coinpp_xr.selection import Layout

# Attributes by which readers change values.
_PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset")


@dataclass(frozen=True)
class Settings:
    """What was asked for: :meth:`coinpp_xr.accessor.DatasetAccessor.to_zarr` explains it."""

    rates: Mapping[str, Any]
    variables: str | Iterable[Any] | None
    model: str | Model
    train_minutes: float | None
    embed_model: bool
    chunk_time: int
    effort: str
    beside: Mapping[str, Any]
    allow_coarse: bool

    def __post_init__(self) -> None:
        depth, minutes = self.chunk_time, self.train_minutes
        if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
            raise ValueError(f"chunk_time must be a whole number of at least 1, got {depth!r}")
        is_number = isinstance(minutes, int | float) and not isinstance(minutes, bool)
        if minutes is not None and not (is_number and isfinite(minutes) and minutes > 0):
            raise ValueError(f"train_minutes must be a number above 0, got {minutes!r}")
        if not isinstance(self.embed_model, bool):
            raise ValueError(f"embed_model must be True or False, got {self.embed_model!r}")


@dataclass(frozen=True, eq=False)
class Design:
    """How a new variable lies in its store.

    Parameters
    ----------
    layout : Layout
    codec : COINppCodec or COINppArrayCodec
    chunks : tuple of int
        In the order of the layout.
    choice : Choice
        Of the model.
    """

    layout: Layout
    codec: COINppCodec | COINppArrayCodec
    chunks: tuple[int, ...]
    choice: Choice

    @property
    def encoding(self) -> dict[str, Any]:
        """For :meth:`xarray.Dataset.to_zarr`."""
        if isinstance(self.codec, COINppArrayCodec):
            places: dict[str, Any] = {"serializer": self.codec, "compressors": None}
        else:
            places = {"compressors": [self.codec]}
        return {"chunks": self.chunks, "filters": None, **places}


def check_new(array: xr.DataArray, encoding: Mapping[str, Any]) -> None:
    """Refuse what would change a variable's values on their way to the codec.

    Parameters
    ----------
    array : DataArray
    encoding : mapping
        That the caller gives for it.

    Raises
    ------
    ValueError
    """
    packing = [name for name in _PACKING if isfinite(array.attrs.get(name, np.nan))]
    if packing and array.dtype.kind == "f":  # packed integers stay what they are
        raise ValueError(
            f"attributes {', '.join(packing)} of {array.name!r} say that its values are packed: "
            "apply xr.decode_cf(ds) first, or remove them"
        )
    if other := [key for key in encoding if key != "chunks"]:
        raise ValueError(
            f"encoding of {array.name!r}: {', '.join(other)} cannot be given, only chunks; the "
            "values are written by the codec in their own dtype"
        )


def _codec_settings(
    array: xr.DataArray, rate: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    return {**Layout.of(array).codec_settings(rate), **rate, "effort": settings.effort}


def _codec(
    zarr_format: int,
    choice: Choice,
    codec_settings: Mapping[str, Any],
    array: xr.DataArray,
    settings: Settings,
) -> COINppCodec | COINppArrayCodec:
    kind = COINppArrayCodec if zarr_format == 3 else COINppCodec
    codec: COINppCodec | COINppArrayCodec = kind(
        choice.model or without_model(settings.model), embed_model=choice.embed, **codec_settings,
        **unit_settings(choice.model, array.attrs),
    )  # fmt: skip
    return codec


def check_codec(
    array: xr.DataArray, rate: Mapping[str, Any], found: Model | None, settings: Settings
) -> None:
    """Refuse wrong arguments now: those for the last variable should not wait for the first one."""
    _codec(3, Choice(found), _codec_settings(array, rate, settings), array, settings)


def design(
    array: xr.DataArray,
    rate: Mapping[str, Any],
    found: Model | None,
    settings: Settings,
    zarr_format: int,
    own_chunks: Sequence[int] | None = None,
) -> Design:
    """Decide how a new variable is to be written; a few chunks of it are read for that.

    Parameters
    ----------
    array : DataArray
    rate : mapping
        Its rate control.
    found : Model or None
        The model that was asked for.
    settings : Settings
    zarr_format : {2, 3}
    own_chunks : sequence of int, optional
        Instead of those of the settings, in the order of the array's dimensions.

    Raises
    ------
    ValueError
    """
    layout = Layout.of(array)
    chunks = layout.chunks(array.sizes, array.dtype.itemsize, settings.chunk_time)
    if own_chunks:
        if len(own_chunks) != array.ndim:
            raise ValueError(f"encoding of {array.name!r}: chunks need {array.ndim} numbers")
        chunks = tuple(own_chunks[array.dims.index(dim)] for dim in layout.dims)
    before = len(layout.batch)
    if prod(chunks[:before]) > MOST_ITEMS:
        raise ValueError(
            f"a chunk of {array.name!r} would hold {prod(chunks[:before]):,} fields, at most "
            f"{MOST_ITEMS:,} can be; give a smaller chunk_time"
        )
    if not layout.cells.is_regular and "bits" not in rate:
        found = None  # neighbours tell more than latents there
    codec_settings = _codec_settings(array, rate, settings)
    in_order = array.transpose(*layout.dims)
    with checked_before():
        choice = choose_model(
            in_order, chunks, codec_settings, given=found, train_minutes=settings.train_minutes,
            embed=settings.embed_model,
        )  # fmt: skip
    codec = _codec(zarr_format, choice, codec_settings, array, settings)
    codec._check_chunks(in_order.shape, chunks)
    if reason := "; ".join(filter(None, (_region(layout), choice.reason))):
        choice = replace(choice, reason=reason)
    return Design(layout, codec, chunks, choice)


def _region(layout: Layout) -> str:
    """What models of whole globes cannot be expected to know; empty for a globe."""
    if not layout.cells.is_regular:
        return ""
    grid = SphereGrid(layout.latitude, layout.longitude)
    if grid.goes_around:
        return ""
    south, north = sorted((grid.latitude[0], grid.latitude[-1]))
    west, east = sorted((grid.longitude[0], grid.longitude[-1]))
    return f"a region, no globe: {south:g} to {north:g}° north, {west:g} to {east:g}° east"
