"""Makes xarray hand our codecs on to Zarr, with chunks that hold whole fields.

xarray refuses the key ``compressor`` since 2026.9 (its name is ``compressors`` now), and drops it
silently from a variable's own ``encoding``. Zarr knows nothing about globes: its automatic chunks
cut them, and a region of an opened store inherits codec and chunks of the whole. So the function
that turns a variable's encoding into Zarr's arguments is wrapped, for our codecs only.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import wraps
from math import prod
from numbers import Integral
from typing import Any

from coinpp_xr.errors import CompressionWarning

MOST_GLOBES = 256
# Encoding takes some thirty times the memory of a chunk, in every thread.
_MAX_CHUNK_BYTES = 2**26


def install() -> None:
    """Wrap ``xarray.backends.zarr.extract_zarr_variable_encoding`` once."""
    from xarray.backends import zarr as backend

    original = backend.extract_zarr_variable_encoding
    if hasattr(original, "_installed_by_coinpp_xr"):
        return

    @wraps(original)
    def extract(
        variable: Any, raise_on_invalid: bool = False, name: Any = None, **kwargs: Any
    ) -> Any:
        if (codec := find_codec(variable.encoding, wrapped=True)) is not None:
            variable = variable.copy(deep=False)
            # xarray fills in the encoding of a variable that the caller named explicitly.
            variable.encoding = prepare_encoding(
                variable, codec, name or "the variable", zarr_format=kwargs.get("zarr_format", 3)
            )
        return original(variable, raise_on_invalid, name, **kwargs)

    extract._installed_by_coinpp_xr = True  # type: ignore[attr-defined]
    backend.extract_zarr_variable_encoding = extract


def find_codec(encoding: dict[str, Any], *, wrapped: bool = False) -> Any:
    """Our codec in a variable's encoding, under whichever key, or None.

    Parameters
    ----------
    encoding : dict
    wrapped : bool
        Also look into others' codecs that hold one as their ``codec``, as those of
        numcodecs-safeguards and zarr-any-numcodecs do. What they store is no payload of ours.
    """
    for key in ("compressor", "compressors", "serializer"):
        value: Any = encoding.get(key)
        for codec in value if isinstance(value, list | tuple) else [value]:
            while wrapped and hasattr(codec, "codec"):
                codec = codec.codec
            if type(codec).__module__.startswith("coinpp_xr.codecs"):
                return codec
    return None


def prepare_encoding(
    variable: Any, codec: Any, name: str, *, zarr_format: int = 3
) -> dict[str, Any]:
    """The variable's encoding with our codec where Zarr looks for it and whole-globe chunks.

    Format 2 tells a codec nothing of the array that it reads: there its configuration says which
    chunks it may get.
    """
    encoding = dict(variable.encoding)
    compressor = encoding.pop("compressor", None)
    if compressor is not None and "compressors" not in encoding:
        encoding["compressors"] = [compressor]

    shape = variable.shape
    if encoding.get("chunks") in (None, (), [], "auto"):
        if variable.chunks:  # dask: keep its chunks; below it shows whether they hold whole globes
            encoding["chunks"] = tuple(sizes[0] for sizes in variable.chunks)
        else:
            encoding["chunks"] = whole_field_chunks(
                shape, variable.dtype.itemsize, time_axis=codec.time_axis or 0,
                cell_axes=codec.cell_axes_of(shape),
            )  # fmt: skip
    chunks = encoding["chunks"]
    if isinstance(chunks, Integral):  # Zarr means the same for every axis
        chunks = (int(chunks),) * len(shape)
    try:
        if len(chunks) != len(shape):
            raise ValueError(f"chunks {tuple(chunks)} for an array of {len(shape)} axes")
        codec._check_chunks(shape, tuple(chunks))
    except ValueError as error:
        raise ValueError(
            f"{name}: {error}. If the encoding was inherited from another store, write with "
            "ds.drop_encoding() and a codec made for this data"
        ) from error
    own = encoding.get("compressors")
    if isinstance(own, list | tuple) and len(own) == 1 and hasattr(own[0], "with_chunk"):
        chunk = tuple(chunks) if zarr_format == 2 else None
        encoding["compressors"] = [own[0].with_chunk(chunk, variable.dtype)]
    if encoding.get("filters"):
        raise ValueError(
            f"{name}: filters change the array before {codec.codec_id} sees it; remove them from "
            "its encoding"
        )
    if variable.dtype.kind in "iub" and not codec.rate.is_lossless:
        warnings.warn(
            f"{name} arrives as {variable.dtype} and is stored without loss; to compress it as "
            "floats, remove dtype, scale_factor and add_offset from its encoding",
            CompressionWarning,
            stacklevel=2,
        )
    return encoding


def whole_field_chunks(
    shape: Sequence[int],
    itemsize: int,
    *,
    time_axis: int = 0,
    most_fields: int = MOST_GLOBES,
    cell_axes: int = 2,
) -> tuple[int, ...]:
    """Chunks that never cut a field, of at most 64 MiB unless one field is larger.

    Members, levels and the like are sequences of their own, and an error target should hold for
    each of them: a chunk has one index of their axes. Only where there is a single time they are
    gathered, so that a chunk is more than one field.

    Parameters
    ----------
    shape : sequence of int
        Of an array.
    itemsize : int
        Bytes of a value.
    time_axis : int
        Which of the axes before the cells of a field is gathered.
    most_fields : int
        How many fields a chunk holds at most.
    cell_axes : int
        How many of the last axes hold the cells of a field.
    """
    if len(shape) < cell_axes:
        return tuple(shape)
    batch, cells = shape[: len(shape) - cell_axes], shape[len(shape) - cell_axes :]
    left = max(1, min(most_fields, _MAX_CHUNK_BYTES // max(1, prod(cells) * itemsize)))
    chunks = [1] * len(batch)
    axes = [time_axis] if time_axis < len(batch) and batch[time_axis] > 1 else range(len(batch))
    for axis in reversed(axes):
        chunks[axis] = max(1, min(batch[axis], left))
        left //= chunks[axis]
    return (*chunks, *(max(1, n) for n in cells))
