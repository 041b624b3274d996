"""Thin numcodecs and Zarr classes over :mod:`coinpp_xr.chunk`."""
