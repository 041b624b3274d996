"""What all loaders share: files that must exist, optional packages, errors in one line."""

from __future__ import annotations

import difflib
import importlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.settings import config

# Smaller arrays are made without asking how a file of few bytes can hold them.
_SMALL = 1 << 16
# Bytes that one byte of deflate can stand for: its longest match is 258 bytes in two bits.
DEFLATE_RATIO = 1032.0
_ZARR_ROOTS = ("zarr.json", ".zgroup", ".zmetadata")


def existing(source: str | Path) -> Path:
    """The path of a file or folder that exists and, if a file, is not empty.

    Raises
    ------
    FileNotFoundError
        With the nearest name in the same folder.
    ValueError
        If the file is empty, or a device or pipe.
    """
    path = Path(source)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise FileNotFoundError(f"no such file or folder: {path}{hint}")
    if not path.is_file() and not path.is_dir():
        raise ValueError(f"{path} is neither a file nor a folder")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    return path


def read_whole(path: Path) -> bytes:
    """The bytes of a file that is no larger than an array may be.

    Raises
    ------
    ValueError
        If it is larger than config ``max_decode_bytes``.
    """
    size = path.stat().st_size
    _check_limit(size, "has")
    with path.open("rb") as file:
        return file.read(size)


def check_claim(claimed: int, held: int, ratio: float) -> None:
    """Refuse an array that a file claims to hold, before memory is taken for it.

    Parameters
    ----------
    claimed : int
        Bytes of the array.
    held : int
        Bytes of the file that it would be in.
    ratio : float
        Bytes of an array that one byte of the file can stand for, at most.

    Raises
    ------
    ValueError
        If it is larger than config ``max_decode_bytes``, or than what the file can hold.
    """
    _check_limit(claimed, "claims an array of")
    if claimed > _SMALL + ratio * held:
        raise ValueError(
            f"claims an array of {claimed:,} bytes, more than its {held:,} bytes can hold: damaged"
        )


def npy_array(data: bytes) -> npt.NDArray[Any]:
    """The array of an ``.npy`` file, C-contiguous; its bytes must be there before memory is taken.

    Raises
    ------
    ValueError
        If it is damaged, or holds objects or records.
    """
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"is .npy of version {version}, which has records")
    header = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header[version[0] - 1](file)
    start = file.tell()
    if dtype.hasobject:
        raise ValueError("holds objects, which only unpickling would make; they are not read")
    if min(shape, default=0) < 0 or start + prod(shape) * max(1, dtype.itemsize) > len(data):
        raise ValueError(f"is cut short or damaged: {len(data)} bytes for an array of {shape}")
    values: npt.NDArray[Any] = np.ndarray(shape, dtype, data, start, order="F" if fortran else "C")
    return np.array(values, order="C")


def _check_limit(nbytes: int, verb: str) -> None:
    limit = config.get("max_decode_bytes")
    if nbytes > limit:
        raise ValueError(
            f"{verb} {nbytes:,} bytes, more than config max_decode_bytes ({limit:,}); set "
            "COINPP_XR_MAX_DECODE_BYTES to more if the file is yours"
        )


def is_zarr_folder(path: Path) -> bool:
    """Whether a folder is a Zarr store, by the metadata of its root."""
    return any((path / name).exists() for name in _ZARR_ROOTS)


def optional(module: str, what: str) -> Any:
    """A module of the extra ``media``, imported when it is needed.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a shared library that it needs
        raise ImportError(
            f"{what} needs {module}; install it with: pip install 'coinpp-xr[media]'"
        ) from error


@contextmanager
def errors_name(path: str | Path, act: str = "read") -> Iterator[None]:
    """Whatever a reader or writer raises becomes one line that names the file."""
    try:
        yield
    except ImportError:
        raise
    except ValueError as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    except Exception as error:  # every library has errors of its own
        why = "damaged or incomplete?" if act == "read" else "does the format hold this array?"
        raise ValueError(f"{path} cannot be {act} ({why}): {one_line(error)}") from error


def one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
