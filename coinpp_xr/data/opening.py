"""Opens gridded data that a path names: NetCDF, GRIB, Zarr, or the paper's folders."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coinpp_xr.data.netcdf3 import check_whole
from coinpp_xr.data.sources import existing, is_zarr_folder

if TYPE_CHECKING:
    import xarray as xr

_GRIB_SUFFIXES = (".grib", ".grb", ".grib2", ".grb2")
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
    if isinstance(path, Path) and engine == "netcdf4":
        with path.open("rb") as file:
            is_classic = file.read(3) == b"CDF"
        if is_classic:
            check_whole(path)
    return [xr.open_dataset(path, engine=engine, **how)]


def _open_npz(path: Path) -> xr.Dataset:
    import xarray as xr

    names = ("latitude", "longitude", "temperature")
    items = []
    for file in sorted(path.glob("*.npz")) if path.is_dir() else [path]:
        try:
            with np.load(file, allow_pickle=False) as arrays:
                items.append([arrays[name] for name in names])
        except Exception as error:
            raise ValueError(
                f"{file.name} does not hold the arrays {', '.join(names)}: {error}"
            ) from error
        if not all(map(np.array_equal, items[0][:2], items[-1][:2])):
            raise ValueError(f"{file.name} is on another grid than the files before it")
    values = np.stack([item[2] for item in items]).astype(np.float32, copy=False)
    return xr.Dataset(
        {"temperature": (("item", "latitude", "longitude"), values, {"units": "K"})},
        coords={"latitude": items[0][0], "longitude": items[0][1]},
    )
