"""Loaders: from files and xarray objects to arrays ready for training and compression."""

from coinpp_xr.data.fields import (
    Fields,
    horizontal_axes,
    load_fields,
    to_training_data,
    why_no_grid,
)

__all__ = ["Fields", "horizontal_axes", "load_fields", "to_training_data", "why_no_grid"]
