"""Opens gridded data that a path names: NetCDF, GRIB, Zarr, or the paper's folders."""

from __future__ import annotations

import zipfile
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data.netcdf3 import check_whole
from coinpp_xr.data.sources import (
    DEFLATE_RATIO,
    check_claim,
    existing,
    is_zarr_folder,
    npy_array,
)

if TYPE_CHECKING:
    import xarray as xr

_GRIB_SUFFIXES = (".grib", ".grb", ".grib2", ".grb2")
# What real fields are compressed by is less.
_MOST_COMPRESSED = 100
_FIRST_BYTES = {b"CDF": "netcdf4", b"\x89HDF": "netcdf4", b"GRIB": "cfgrib", b"PK": "zarr"}


def locate(source: str | Path, split: str = "train") -> tuple[str | Path, str]:
    """The path to open, and the xarray engine (or npz) that opens it.

    Raises
    ------
    FileNotFoundError
    ValueError
        If nothing is known to open it.
    """
    if "://" in str(source):
        return str(source), "netcdf4" if str(source).endswith((".nc", ".nc4")) else "zarr"
    path = Path(source)
    split_folder = path.parent / f"{path.name}_{split}"
    if not path.exists() and split_folder.is_dir():
        path = split_folder
    existing(path)
    if path.is_dir():
        if any(path.glob("*.npz")):
            return path, "npz"
        if is_zarr_folder(path):
            return path, "zarr"
        raise ValueError(f"{path} holds neither a Zarr store nor *.npz files")
    if path.suffix == ".npz":
        return path, "npz"
    with path.open("rb") as file:
        start = file.read(4)
    for magic, engine in _FIRST_BYTES.items():
        if start.startswith(magic):
            return path, engine
    if path.suffix in _GRIB_SUFFIXES:  # messages may come after a bulletin header
        return path, "cfgrib"
    raise ValueError(f"{path} is not NetCDF, Zarr, GRIB or npz: it starts with {start!r}")


def open_lazily(path: str | Path, engine: str, *, decode_times: bool = False) -> list[xr.Dataset]:
    """Datasets that read their values when they are needed, and do not keep them.

    Parameters
    ----------
    path, engine
        From :func:`locate`.
    decode_times : bool
        Not every calendar can be decoded.

    Returns
    -------
    list of Dataset
        Several for a GRIB file whose variables do not lie on the same levels or grids.
    """
    import xarray as xr

    if isinstance(path, Path) and engine in ("netcdf4", "cfgrib"):
        _check_sizes(path, engine)
    how: dict[str, Any] = {"decode_times": decode_times, "cache": False}
    if engine == "npz":
        return [_open_npz(Path(path))]
    if engine == "cfgrib":
        from cfgrib import DatasetBuildError
        from cfgrib.xarray_store import open_variable_datasets

        # By default cfgrib skips what it cannot decode or combine, and leaves index files behind.
        strict = {"indexpath": "", "errors": "raise"}
        try:
            return [xr.open_dataset(path, engine=engine, backend_kwargs=strict, **how)]
        except DatasetBuildError:  # mixed levels or grids: one dataset for each
            return list(open_variable_datasets(str(path), strict, **how))
    if engine == "zarr" and isinstance(path, Path):
        from zarr.storage import LocalStore, ZipStore

        store = ZipStore(path, mode="r") if path.is_file() else LocalStore(path, read_only=True)
        return [xr.open_dataset(store, engine="zarr", consolidated=False, **how)]  # type: ignore[arg-type]
    return [xr.open_dataset(path, engine=engine, **how)]


def check_volume(nbytes: int, path: str | Path) -> None:
    """Refuse arrays that files of few bytes claim, before they are read.

    Fields are large, and chunks that nobody wrote take no bytes: what is beyond config
    ``max_decode_bytes`` has to be compressed less than hundredfold.

    Raises
    ------
    ValueError
    """
    place, held = Path(path), 0
    if "://" not in str(path):
        files = place.rglob("*") if place.is_dir() else [place]
        held = sum(file.stat().st_size for file in files if file.is_file())
    if nbytes > _MOST_COMPRESSED * held:
        check_claim(nbytes, 0, inf)


def _check_sizes(path: Path, engine: str) -> None:
    """What is read when a file is opened: coordinates, and points of a grid."""
    if engine == "cfgrib":
        _check_grib(path)
        return
    with path.open("rb") as file:
        is_classic = file.read(3) == b"CDF"
    if is_classic:
        check_whole(path)
    import netCDF4

    with netCDF4.Dataset(path) as dataset:
        sizes = [
            variable.size * np.dtype(variable.dtype).itemsize
            for name, variable in dataset.variables.items()
            if variable.dimensions == (name,) and isinstance(variable.dtype, np.dtype)
        ]
    check_volume(sum(map(int, sizes)), path)


def _check_grib(path: Path) -> None:
    """A message of a hundred bytes can claim billions of equal values."""
    import eccodes  # type: ignore[import-untyped]

    with path.open("rb") as file:
        while (message := eccodes.codes_grib_new_from_file(file, headers_only=True)) is not None:
            try:
                points = [
                    max(0, eccodes.codes_get_long(message, key))
                    for key in ("numberOfDataPoints", "Ni", "Nj", "numberOfValues")
                    if eccodes.codes_is_defined(message, key)
                    and not eccodes.codes_is_missing(message, key)
                ]
            finally:
                eccodes.codes_release(message)
            check_claim(8 * max(points, default=0), 0, inf)


def _member(parts: zipfile.ZipFile, name: str) -> npt.NDArray[Any]:
    """An array of an ``.npz`` file; no more is unpacked than its directory says."""
    info = parts.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed in a way that numpy does not use")
    check_claim(info.file_size, info.compress_size, DEFLATE_RATIO)
    return npy_array(parts.read(info))


def _open_npz(path: Path) -> xr.Dataset:
    import xarray as xr

    names = ("latitude", "longitude", "temperature")
    items = []
    for file in sorted(path.glob("*.npz")) if path.is_dir() else [path]:
        try:
            with zipfile.ZipFile(file) as parts:
                items.append([_member(parts, f"{name}.npy") for name in names])
        except Exception as error:
            raise ValueError(
                f"{file.name} does not hold the arrays {', '.join(names)}: {error}"
            ) from error
        if not all(map(np.array_equal, items[0][:2], items[-1][:2])):
            raise ValueError(f"{file.name} is on another grid than the files before it")
        check_volume(sum(part.nbytes for item in items for part in item), path)
    values = np.stack([item[2] for item in items]).astype(np.float32, copy=False)
    return xr.Dataset(
        {"temperature": (("item", "latitude", "longitude"), values, {"units": "K"})},
        coords={"latitude": items[0][0], "longitude": items[0][1]},
    )
