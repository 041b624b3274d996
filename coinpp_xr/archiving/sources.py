"""What is to be archived: files of any form as one dataset that reads its values when needed."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from coinpp_xr.data.opening import locate, open_lazily
from coinpp_xr.data.sources import one_line
from coinpp_xr.selection import Layout, why_not

_WILDCARDS = "*?["
_ZARR_DOCUMENTS = ("zarr.json", ".zmetadata", ".zattrs", ".zgroup")


@dataclass(frozen=True, eq=False)
class Source:
    """A dataset, and what tells whether the files behind it are still the same.

    Parameters
    ----------
    dataset : Dataset
        In dask arrays only where several files are combined, or where the caller gave it so.
    files : dict
        From the name of a file to its size and time of change; empty for objects in memory.
    """

    dataset: xr.Dataset
    files: dict[str, str]


def open_source(source: Any, variables: Iterable[str] | None, depth: int) -> Source:
    """Open what is to be archived.

    Parameters
    ----------
    source : path, URL, pattern, Dataset, DataArray, or a sequence of paths, URLs and patterns
        NetCDF, GRIB, Zarr or the paper's ``.npz`` folders; several are combined by coordinates.
    variables : iterable of str, optional
        Others need not fit together.
    depth : int
        Steps along time that are read together.

    Raises
    ------
    FileNotFoundError, ValueError
        In one line that names the file.
    """
    if isinstance(source, xr.DataArray):
        name = "field" if source.name is None else source.name
        return Source(source.to_dataset(name=name), {})
    if isinstance(source, xr.Dataset):
        return Source(source, {})
    given = [source] if isinstance(source, str | os.PathLike) else list(source)
    if not all(isinstance(item, str | os.PathLike) for item in given):
        raise ValueError("a source is a Dataset, a DataArray, or paths of files")
    paths = [path for item in given for path in _expanded(os.fspath(item))]
    if not paths:
        raise ValueError("no source was given")
    wanted = None if variables is None else set(variables)
    opened = [_open(path, wanted) for path in paths]
    dataset = opened[0] if len(opened) == 1 else _combined(opened, depth)
    return Source(dataset, {_name(path): _fingerprint(path) for path in paths})


def _expanded(item: str) -> list[str]:
    if not any(character in item for character in _WILDCARDS) or Path(item).exists():
        return [item]
    if "://" in item:
        import fsspec

        system, pattern = fsspec.core.url_to_fs(item)
        found = [system.unstrip_protocol(path) for path in system.glob(pattern)]
    else:
        found = glob.glob(item, recursive=True)  # noqa: PTH207 (Path.glob wants a folder first)
    if not found:
        raise FileNotFoundError(f"no file matches {item}")
    return sorted(found)


def _open(path: str, wanted: set[str] | None) -> xr.Dataset:
    where, engine = locate(path)
    try:
        try:
            parts = open_lazily(where, engine, decode_times=True)
        except ValueError as error:
            if "decode time" not in str(error):
                raise
            parts = open_lazily(where, engine)
        if wanted is not None:
            parts = [part for part in parts if wanted & set(map(str, part.data_vars))] or parts
        return _without_clock(parts[0] if len(parts) == 1 else _merged(parts))
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    except Exception as error:  # every reader has errors of its own
        raise ValueError(
            f"{path} cannot be read (damaged or incomplete?): {one_line(error)}"
        ) from error


def _without_clock(dataset: xr.Dataset) -> xr.Dataset:
    """Without the line that cfgrib adds when a file is opened: the same data twice is the same."""
    if "cfgrib" in str(dataset.attrs.get("history", "")):
        dataset = dataset.copy(deep=False)
        del dataset.attrs["history"]
    return dataset


def _merged(parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """One dataset of the variables of a GRIB file, each of which has its own levels."""
    counts = Counter(name for part in parts for name in part.data_vars)
    scalars: dict[Any, set[Any]] = {}
    for part in parts:
        for name, coordinate in part.coords.items():
            if coordinate.ndim == 0:
                scalars.setdefault(name, set()).add(coordinate.item())
    renamed: list[xr.Dataset] = []
    for part in parts:
        # 2 m for one variable and 10 m for another: no coordinate of the whole.
        for name in [n for n in part.coords if len(scalars.get(n, ())) > 1 and not part[n].ndim]:
            for array in part.data_vars.values():
                array.attrs[str(name)] = part[name].item()
            part = part.drop_vars([name])
        kinds = {n: part[n].attrs.get("GRIB_typeOfLevel", "") for n in part.data_vars}
        renamed.append(
            part.rename({n: f"{n}_{kind}" for n, kind in kinds.items() if counts[n] > 1 and kind})
        )
    counts = Counter(name for part in renamed for name in part.data_vars)
    if repeated := [str(name) for name, count in counts.items() if count > 1]:
        shapes = [str(part[repeated[0]].shape) for part in renamed if repeated[0] in part]
        raise ValueError(
            f"{', '.join(repeated)}: there several times, on different grids or levels (shapes "
            f"{', '.join(shapes)}); split the file by such a key first, for example with grib_copy"
        )
    try:
        return xr.merge(renamed, join="exact", compat="override", combine_attrs="override")
    except ValueError as error:
        raise ValueError(
            f"its variables do not lie on the same coordinates ({one_line(error)}); name those "
            "that do in variables, and archive the others apart"
        ) from error


def _combined(datasets: Sequence[xr.Dataset], depth: int) -> xr.Dataset:
    """Files of other times, levels, members or variables as one dataset."""
    lazy = []
    units: dict[Any, str] = {}
    for dataset in datasets:
        for name, array in dataset.data_vars.items():
            unit = str(array.attrs.get("units", ""))
            if units.setdefault(name, unit) != unit:
                raise ValueError(
                    f"the files do not fit together: {name} is in {units[name]!r} and in {unit!r}"
                )
    for dataset in datasets:
        if "time" in dataset.coords and dataset["time"].ndim == 0:
            dataset = dataset.expand_dims("time")
        chunks: dict[Any, int] = {}
        for array in dataset.data_vars.values():
            if not why_not(array, exact=True):
                layout = Layout.of(array)
                own = layout.chunks(array.sizes, array.dtype.itemsize, depth)
                chunks |= dict(zip(layout.dims, own, strict=True))
        # The object that reads goes into every task: it is small, and the scheduler need not know.
        lazy.append(dataset.chunk(chunks, inline_array=True))
    try:
        return xr.combine_by_coords(
            lazy, data_vars="minimal", coords="minimal", compat="override", join="exact",
            combine_attrs="override",
        )  # type: ignore[return-value]  # fmt: skip
    except ValueError as error:
        raise ValueError(f"the files do not fit together: {one_line(error)}") from error


def _name(path: str) -> str:
    return path.rstrip("/").rsplit("/", 1)[-1]


def _fingerprint(path: str) -> str:
    """Size and time of change; of a Zarr store its metadata; empty where nothing is known."""
    if "://" in path:
        import fsspec

        system, inside = fsspec.core.url_to_fs(path)
        try:
            known = system.info(inside)
        except (OSError, NotImplementedError):
            return ""
        tag = known.get("ETag") or known.get("mtime") or known.get("LastModified") or ""
        return f"{known.get('size')} {tag}" if known.get("type") == "file" else ""
    if Path(path).is_dir():
        documents = (Path(path) / name for name in _ZARR_DOCUMENTS)
        digest = hashlib.sha256()
        for document in documents:
            digest.update(document.read_bytes() if document.exists() else b"")
        return digest.hexdigest()[:16]
    status = Path(path).stat() if Path(path).exists() else None
    return f"{status.st_size} {status.st_mtime_ns}" if status else ""


def coordinates_differ(stored: xr.DataArray, own: xr.DataArray) -> bool:
    """Whether two coordinates hold other values, whatever their types."""
    one, other = stored.to_numpy(), own.to_numpy()
    if one.shape != other.shape:
        return True
    if one.dtype.kind in "fiu" and other.dtype.kind in "fiu":
        return not np.allclose(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)
    return not np.array_equal(one, other)
