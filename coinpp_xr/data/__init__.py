"""Loaders: from files and xarray objects to arrays ready for training and compression."""

from coinpp_xr.data.fields import (
    Fields,
    horizontal_axes,
    load_fields,
    to_training_data,
    why_no_grid,
)
from coinpp_xr.data.items import DATA_TYPES, Items, load_items, split_by_source
from coinpp_xr.data.media import Media, guess_kind, read_media, write_media

__all__ = [
    "DATA_TYPES",
    "Fields",
    "Items",
    "Media",
    "guess_kind",
    "horizontal_axes",
    "load_fields",
    "load_items",
    "read_media",
    "split_by_source",
    "to_training_data",
    "why_no_grid",
    "write_media",
]
