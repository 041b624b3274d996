"""CIFAR-10's pickled batches, read without running anything that a pickle may ask for."""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.data.sources import read_whole

_SIDE, _CHANNELS = 32, 3


def read_batch(path: Path) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Read ``data_batch_1`` .. ``data_batch_5`` or ``test_batch``.

    Parameters
    ----------
    path : Path

    Returns
    -------
    images : uint8 array, shape (items, 32, 32, 3)
    names : list of str
        The file names in the batch, or numbers.

    Raises
    ------
    ValueError
        If the file holds anything else, or asks for anything but arrays and plain containers.
    pickle.UnpicklingError, EOFError
        If it is damaged.
    """
    pickled = read_whole(path)
    _check_pickle(pickled)
    batch = _Unpickler(io.BytesIO(pickled), encoding="bytes").load()
    if not isinstance(batch, dict):
        raise ValueError("is no CIFAR-10 batch: it holds no dictionary")
    # Keys are bytes in the files of CIFAR's authors and text in those of Python 3.
    entries = {key.decode() if isinstance(key, bytes) else key: batch[key] for key in batch}
    stored = entries.get("data")
    if not isinstance(stored, _PickledArray):
        raise ValueError("is no CIFAR-10 batch: it holds no array named data")
    rows = stored.to_uint8()
    if rows.ndim != 2 or rows.shape[1] != _CHANNELS * _SIDE**2 or len(rows) == 0:
        raise ValueError(f"is no CIFAR-10 batch: data has shape {rows.shape}, not (images, 3072)")
    names = entries.get("filenames")
    if not isinstance(names, list) or len(names) != len(rows):
        names = list(range(len(rows)))
    return (
        rows.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1),
        [name.decode() if isinstance(name, bytes) else str(name) for name in names],
    )


def _check_pickle(pickled: bytes) -> None:
    """Refuse what would take memory or time without end before any of it is run."""
    repeats = 0
    for steps, (step, value, at) in enumerate(pickletools.genops(pickled), 1):
        if step.name not in _STEPS or steps > _MOST_STEPS:
            raise ValueError(f"is no CIFAR-10 batch: its pickle has {step.name} at byte {at}")
        # An unpickler makes room for as many remembered objects as the largest number says.
        if step.name.endswith("PUT") and int(value or 0) > steps:
            raise ValueError("is no CIFAR-10 batch: its pickle counts what is not there")
        # Tuples of the same tuples again and again take forever to compare.
        repeats += "GET" in step.name or "TUPLE" in step.name
        if repeats > _MOST_REPEATS:
            raise ValueError("is no CIFAR-10 batch: its pickle repeats itself")


class _PickledArray:
    """Stands for a numpy array: keeps what the pickle says of it, so that it can be checked."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def to_uint8(self) -> npt.NDArray[np.uint8]:
        try:
            _, shape, dtype, fortran, content = self.state
            if dtype.name not in ("u1", b"u1"):
                raise ValueError(f"data holds {dtype.name!r}, not uint8")
            values = np.frombuffer(content, np.uint8)
            return values.reshape(shape, order="F" if fortran else "C")
        except (TypeError, AttributeError) as error:
            raise ValueError("the array named data is damaged") from error


class _PickledType:
    """Stands for a numpy dtype."""

    def __init__(self, name: Any = None, *_: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """What follows the name (byte order, fields) says nothing about single bytes."""


def _reconstruct(*_: Any) -> _PickledArray:
    return _PickledArray()


def _encode(text: str, encoding: str | bytes) -> bytes:
    if encoding not in ("latin1", b"latin1"):
        raise ValueError(f"asks for the encoding {encoding!r}; CIFAR-10's batches do not")
    return text.encode("latin1")


# Nothing of numpy itself: its own ways to rebuild arrays trust what the pickle says.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _PickledArray,
    ("numpy", "dtype"): _PickledType,
    ("_codecs", "encode"): _encode,
}


# What pickles of such batches are made of.
_STEPS = frozenset(
    """
    PROTO FRAME STOP MARK MEMOIZE PUT BINPUT LONG_BINPUT GET BINGET LONG_BINGET NONE NEWTRUE
    NEWFALSE BININT BININT1 BININT2 LONG1 STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE
    SHORT_BINUNICODE BINBYTES SHORT_BINBYTES EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1
    TUPLE2 TUPLE3 APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL REDUCE BUILD
    """.split()  # noqa: SIM905
)
_MOST_STEPS, _MOST_REPEATS = 1 << 18, 48


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ValueError(f"asks for {module}.{name}, which CIFAR-10's batches do not: not read")
        return _ALLOWED[module, name]
