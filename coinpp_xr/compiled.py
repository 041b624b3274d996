"""Functions compiled by numba, and where the machine code is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.core.options import DefaultOptions
from platformdirs import user_cache_path

Function = TypeVar("Function", bound=Callable[..., Any])

# Compiled functions of one file contain those of the other.
_SOURCES = (
    "binary.py", "blocks.py", "causal.py", "deblocking.py", "elementary.py", "evaluation.py",
    "orthonormal.py", "patches.py", "sigmoid.py", "splitting.py",
    "coding/digit_decisions.py", "coding/digit_predictions.py", "coding/digit_rows.py",
    "coding/masks.py", "coding/pyramid/contexts.py", "coding/pyramid/decisions.py",
    "coding/pyramid/error_sizes.py", "coding/pyramid/expert.py", "coding/pyramid/fitting.py",
    "coding/pyramid/levels.py", "coding/pyramid/limits.py",
    "coding/pyramid/prediction.py", "coding/pyramid/range_coder.py", "coding/pyramid/references.py",
    "coding/pyramid/sampling.py", "coding/scattered/kriging.py", "coding/scattered/nearest.py",
    "coding/scattered/passes.py",
    "coding/wavelets/lifting.py", "coding/wavelets/numbers.py",
    "coding/wavelets/rounding.py", "coding/wavelets/subbands.py",
)  # fmt: skip


# Compiled functions allocate nothing, so nothing has to be counted: numba would count every use of
# an array, in calls that cost more than half of the time of loops that code bits.
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
if hasattr(DefaultOptions, "_nrt"):  # no promise of numba's: without it loops are slower
    _OPTIONS["_nrt"] = False


def compiled(function: Function) -> Function:
    """Compile on first use; the machine code is kept for other processes.

    The function gets all arrays that it needs: it cannot make any.

    numba by itself keeps it beside the source, and looks at that one file to tell whether it is
    still good: an upgrade that changes another file would go on with the old code.
    """
    previous = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(machine_code_folder())
    try:
        result: Function = numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # nowhere to write
        result = numba.njit(**_OPTIONS)(function)
    finally:
        numba.config.CACHE_DIR = previous
    return result


def inlined(function: Function) -> Function:
    """Compile a small function into each that calls it: calls cost more than what it does.

    The compiler does that, with what it has made of the function once. Inlined before that, every
    copy is looked at again, and compiling takes twice the time.
    """
    result: Function = numba.njit(forceinline=True, **_OPTIONS)(function)
    return result


@cache
def machine_code_folder() -> Path:
    """Where machine code belongs; numba falls back to the package's own folders without a word."""
    digest = hashlib.sha256(numba.__version__.encode())
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    return user_cache_path("coinpp_xr") / "compiled" / digest.hexdigest()[:16]
