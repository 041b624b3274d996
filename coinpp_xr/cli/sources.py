"""Opens the files that a command line names."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import xarray as xr

    from coinpp_xr.data.media import Media

_FIELDS = (b"CDF", b"\x89HDF", b"GRIB")


def read_fields(source: str, variable: str | None) -> xr.DataArray:
    """Fields of a NetCDF, GRIB or Zarr file, or of the paper's data."""
    import xarray as xr

    from coinpp_xr.data import load_fields

    fields = load_fields(source, variable)
    return xr.DataArray(
        fields.values,
        dims=("item", "latitude", "longitude"),
        coords={"latitude": fields.grid.latitude, "longitude": fields.grid.longitude},
        name=fields.name,
        attrs={"units": fields.units},
    )


def read_one_media(source: str) -> Media:
    """An image, a volume, sound or an array; what else a user may try is told what to do."""
    from coinpp_xr.compressed_file import MAGIC
    from coinpp_xr.data.media import read_media
    from coinpp_xr.data.sources import existing, is_zarr_folder

    path = existing(source)
    if path.is_dir():
        gridded, start = is_zarr_folder(path), b""
    else:
        with path.open("rb") as file:
            start = file.read(4)
        gridded = start.startswith(_FIELDS) or ".zarr" in path.suffixes
    if gridded:
        raise ValueError(
            f"{path} holds fields on a grid: write them with ds.coinpp.to_zarr(...) in Python, or "
            "see coinpp compare"
        )
    if start == MAGIC:
        raise ValueError(f"{path} is compressed already")
    return read_media(path)
