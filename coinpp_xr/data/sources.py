"""What all loaders share: files that must exist, optional packages, errors in one line."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ZARR_ROOTS = ("zarr.json", ".zgroup", ".zmetadata")


def existing(source: str | Path) -> Path:
    """The path of a file or folder that exists and, if a file, is not empty.

    Raises
    ------
    FileNotFoundError
        With the nearest name in the same folder.
    ValueError
        If the file is empty.
    """
    path = Path(source)
    if not path.exists():
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, siblings, n=1)
        hint = f"; did you mean {path.parent / near[0]}?" if near else ""
        raise FileNotFoundError(f"no such file or folder: {path}{hint}")
    if path.is_file() and path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes)")
    return path


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
def errors_name(path: Path, act: str = "read") -> Iterator[None]:
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
