"""Loaders: from files and xarray objects to arrays ready for training and compression."""

from coinpp_xr.data.fields import Fields, load_fields, to_training_data
from coinpp_xr.data.horizontal import Horizontal, with_areas, without_areas
from coinpp_xr.data.items import DATA_TYPES, Items, load_items, split_by_source
from coinpp_xr.data.media import Media, guess_kind, read_media, write_media

__all__ = [
    "DATA_TYPES",
    "Fields",
    "Horizontal",
    "Items",
    "Media",
    "guess_kind",
    "load_fields",
    "load_items",
    "read_media",
    "split_by_source",
    "to_training_data",
    "with_areas",
    "without_areas",
    "write_media",
]
