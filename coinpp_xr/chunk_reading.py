"""One payload → the array of its chunk."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import entropy, patterns, residual
from coinpp_xr.bitstream import EXPLICIT_COORDINATES, Kind, Payload, Tag
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coefficients import are_few_fronts
from coinpp_xr.coordinates import NO_GLOBE, IndexGrid, SphereGrid
from coinpp_xr.devices import predict_on_grid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import unpack_bytes
from coinpp_xr.field_reading import (
    decoded_whole,
    finish_of,
    is_of_numbers,
    items_of,
    level_axis_of,
    steps_of,
)
from coinpp_xr.fields import CELLS_AT_ONCE, Sequences, are_few, round_to
from coinpp_xr.float_digits import MantissaReader, Mantissas, are_few_mantissas
from coinpp_xr.kept_cells import fold_in, not_coded, put_kept
from coinpp_xr.models import Model
from coinpp_xr.patch_reading import checked_region, decode_patches
from coinpp_xr.quantization import BITS, are_in_proportion
from coinpp_xr.schemes import (
    MOST_ITEMS,
    GridSynthesis,
    LatentSynthesis,
    Synthesis,
    decode_values,
    mean_field,
)
from coinpp_xr.settings import config
from coinpp_xr.transform import is_transformable, is_transformable_in_time

Bool = npt.NDArray[np.bool_]
Floating = npt.NDArray[np.floating[Any]]

# Of bits of mantissas: each begins a byte in every field.
_MOST_PLANES = 64
# Of rows and columns together.
MOST_COORDINATES = 1 << 20


def decode_chunk(
    data: bytes,
    find_model: Callable[[str], Model],
    *,
    grid: SphereGrid | None = None,
    expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None,
    region: tuple[slice, ...] | None = None,
) -> npt.NDArray[Any]:
    """The array of a payload, with its original shape and dtype.

    Parameters
    ----------
    data : bytes
    find_model : callable
        Fingerprint → Model.
    grid : SphereGrid, optional
        The coordinates that the chunk was written with, if they were given then.
    expected : (shape, dtype), optional
        What the store says the chunk holds; anything else is refused before memory is taken.
    region : tuple of slice, optional
        The part that is wanted. Of patches, no more than their bands is decoded for it.

    Raises
    ------
    CorruptPayloadError, ModelNotFoundError
    ValueError
        If there is no such region.
    """
    payload = Payload.unpack(data)
    if region is not None:
        region = checked_region(region, payload.array_shape)
    with np.errstate(all="ignore"):  # numbers of damaged payloads may be anything
        return _decode(payload, find_model, grid, expected, region)


def _decode(
    payload: Payload,
    find_model: Callable[[str], Model],
    grid: SphereGrid | None,
    expected: tuple[tuple[int, ...], np.dtype[Any]] | None,
    region: tuple[slice, ...] | None,
) -> npt.NDArray[Any]:
    if expected is not None:
        check_expected(payload, *expected)
    elif payload.nbytes > config.get("max_decode_bytes"):
        raise CorruptPayloadError(
            f"payload claims {payload.nbytes:,} bytes, more than config max_decode_bytes "
            f"({config.get('max_decode_bytes'):,}); raise that setting if the data is yours"
        )
    if payload.kind == Kind.LOSSLESS:
        raw = unpack_bytes(payload.section(Tag.RAW), prod(payload.shape), payload.dtype)
        try:
            values = raw.reshape(payload.shape)
        except ValueError as error:
            raise CorruptPayloadError("payload claims an impossible shape") from error
    elif payload.kind.of_patches:
        values = decode_patches(payload, find_model, region)
    else:
        items = None
        if region is not None and payload.kind.has_streams:
            items = items_of(payload.shape[:-2], region)
        values = decode_fields(payload, find_model, grid, items)
        fold = fold_in(payload)
        values = values if fold is None else fold.unfold(values)
    if region is not None:
        values = values[region].copy()
    # asfortranarray would give a single value an axis.
    return np.asarray(values, order="F") if payload.fortran else values


def decode_fields(
    payload: Payload,
    find_model: Callable[[str], Model],
    grid: SphereGrid | None,
    wanted: set[int] | None = None,
) -> npt.NDArray[Any]:
    """The fields of a payload in rows and columns, before cells are unfolded.

    Raises
    ------
    CorruptPayloadError, ModelNotFoundError
    """
    if payload.kind.has_streams:
        known = known_of(payload, find_model, grid)
        return decoded_whole(payload, *known, wanted).reshape(payload.shape)
    if len(payload.shape) < 2 or 0 in payload.shape or not is_of_numbers(payload):
        raise CorruptPayloadError("payload's header contradicts itself")
    items, cells = prod(payload.shape[:-2]), prod(payload.shape[-2:])
    mask = not_coded(payload)
    decoded: Floating
    if payload.kind == Kind.PATTERNS:
        n_lat, n_lon = payload.shape[-2:]
        section = payload.section(Tag.LEVELS)
        decoded = patterns.decode(section, (items, n_lat, n_lon), payload.dtype)
        decoded = decoded.reshape(items, cells)
    elif payload.kind == Kind.RESIDUAL:
        decoded = _with_residual(payload, mask)
    elif payload.kind == Kind.DIGITS:
        decoded = _of_digits(payload, mask)
    else:
        grid = _grid_of(payload, grid)
        model = None
        if payload.kind.has_model:
            model = _model_of(payload, find_model)
            if not model.network.is_small_for(payload.shape, payload.nbytes):
                raise CorruptPayloadError("payload claims a grid too long for its model")
            latents = payload.kind in (Kind.LATENTS, Kind.LATENTS_IN_TIME)
            network = model.coded_network if payload.kind == Kind.LATENTS else model.network
            if latents and not are_in_proportion(items * network.latent_dim, payload.nbytes):
                raise CorruptPayloadError("payload claims more latents than its array is worth")
        if payload.kind == Kind.LATENTS:
            assert model is not None
            decoded = decode_latents(payload, model, grid, items)
        elif payload.kind == Kind.RESIDUAL_FROM_MODEL:
            decoded = _with_residual(payload, mask, model=model, grid=grid)
        else:
            synthesis = synthesis_of(payload, model, grid, mask)
            _, times, orders, waves = synthesis.shape
            if payload.along_time and not is_transformable_in_time(times, orders * waves):
                raise CorruptPayloadError("payload claims a sequence too long for its fields")
            if not are_few_fronts(synthesis.shape, payload.nbytes):
                raise CorruptPayloadError("payload claims sequences too long for its fields")
            stream = payload.section(Tag.COEFFICIENTS)
            decoded = decode_values(synthesis, stream, payload.exponent, payload.along_time)
            if Tag.RESIDUAL in payload.sections:
                decoded = _with_residual(payload, mask, decoded)
    values = round_to(decoded, payload.dtype)
    finish = finish_of(payload, items)
    if finish:
        values = values.copy() if not values.flags.writeable else values
        for item in range(items):
            finish.apply(values[item], item)
    put_kept(payload, mask, values)
    return values.reshape(payload.shape)


def known_of(
    payload: Payload, find_model: Callable[[str], Model], grid: SphereGrid | None
) -> tuple[Background | None, SphereGrid | None]:
    """What fields that are read one by one may refer to, and where they are, if that matters.

    Raises
    ------
    CorruptPayloadError, ModelNotFoundError
    """
    if not payload.kind.has_grid:
        return None, grid
    if len(payload.shape) < 2 or 0 in payload.shape:
        raise CorruptPayloadError("payload's header contradicts itself")
    if payload.kind == Kind.WAVELETS:
        return None, _grid_of(payload, grid)
    model, grid = _model_of(payload, find_model), _grid_of(payload, grid)
    if model.climatology is None:
        return None, grid
    return model.climatology.background(grid, model.offset, model.scale), grid


def _model_of(payload: Payload, find_model: Callable[[str], Model]) -> Model:
    model = find_model(payload.fingerprint)
    if model.domain != "sphere":
        raise CorruptPayloadError(f"payload holds globes, its model {model.name!r} is for patches")
    return model


def check_expected(payload: Payload, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse a payload that holds something else than the store says.

    Raises
    ------
    CorruptPayloadError
    """
    if payload.array_shape != shape or payload.dtype.newbyteorder("=") != dtype.newbyteorder("="):
        raise CorruptPayloadError(
            f"payload holds {payload.dtype} {payload.array_shape}, the store expects {dtype} "
            f"{shape}"
        )


def _with_residual(
    payload: Payload,
    mask: Bool | None,
    base: Floating | None = None,
    model: Model | None = None,
    grid: SphereGrid | None = None,
) -> Floating:
    n_lat, n_lon = payload.shape[-2:]
    section, sequences = payload.section(Tag.RESIDUAL), _sequences_of(payload)
    return residual.decode(
        section, mask, (n_lat, n_lon), sequences, payload.dtype, base, model, grid
    )


def _of_digits(payload: Payload, mask: Bool | None) -> npt.NDArray[Any]:
    """Values of whole numbers, shape (items, cells); anything where masked."""
    from coinpp_xr.coding import digits  # compiles, or loads what was compiled

    sequences, (n_lat, n_lon) = _sequences_of(payload), payload.shape[-2:]
    items, cells = sequences.order.size, n_lat * n_lon
    steps, everywhere = steps_of(payload, items), np.ones((n_lat, n_lon), np.bool_)
    mantissas = None
    if Tag.MANTISSAS in payload.sections:
        most = payload.nbytes + items * _MOST_PLANES
        if not are_few_mantissas(cells, payload.nbytes):
            raise CorruptPayloadError("payload's header contradicts itself")
        told = Mantissas.unpack(payload.section(Tag.MANTISSAS), most)
        mantissas = MantissaReader(told, payload.dtype)
    whole = payload.dtype.kind == "f" if mantissas else steps is not None
    if not whole or (mantissas and steps) or not digits.suits((n_lat, n_lon)):
        raise CorruptPayloadError("payload's header contradicts itself")

    def valid_of(item: int) -> Bool:
        return everywhere if mask is None else ~mask[item].reshape(n_lat, n_lon)

    coded = items * cells - (0 if mask is None else int(mask.sum()))
    values = np.empty((items, cells), payload.dtype)
    for item, numbers in digits.decode(
        payload.section(Tag.DIGITS), sequences.order, valid_of, (n_lat, n_lon), coded
    ):
        own = numbers.reshape(-1)
        if mantissas is not None:
            values[item] = mantissas.values(own.astype(np.int64), valid_of(item).reshape(-1))
        elif steps is not None:
            for start in range(0, cells, CELLS_AT_ONCE):
                part = slice(start, start + CELLS_AT_ONCE)
                some = own[part].astype(np.int64)
                values[item, part] = steps.of(item).values(some, payload.dtype)
    if mantissas is not None:
        mantissas.check_end()
    return values


def _sequences_of(payload: Payload) -> Sequences:
    """Of all fields, which follow each other."""
    batch, items = payload.shape[:-2], prod(payload.shape[:-2])
    few = are_few(items, prod(payload.shape[-2:]))
    if payload.time_axis >= max(len(batch), 1) or items > residual.MOST_ITEMS or not few:
        raise CorruptPayloadError("payload's header contradicts itself")
    level_axis = level_axis_of(payload)
    return Sequences.of(batch, payload.time_axis, np.ones(items, np.bool_), level_axis)


def _grid_of(payload: Payload, given: SphereGrid | None) -> SphereGrid:
    if payload.layout != EXPLICIT_COORDINATES:
        n_lat, n_lon = payload.shape[-2:]
        if n_lat + n_lon > MOST_COORDINATES:
            raise CorruptPayloadError(f"payload claims a grid of {n_lat} × {n_lon} cells")
        if payload.layout == NO_GLOBE:
            return IndexGrid.of((n_lat, n_lon))
        layouts = SphereGrid.usual_layouts(n_lat, n_lon)
        layout = next(islice(layouts, payload.layout, None), None)
        if layout is None:
            raise CorruptPayloadError(f"payload claims an unknown grid layout {payload.layout}")
        return layout
    if given is None or coordinates_crc(given) != payload.coordinates_crc:
        raise CorruptPayloadError(
            "payload was written with other coordinates than the codec's; "
            "give the codec the latitude and longitude that it was written with"
        )
    if given.shape != payload.shape[-2:]:
        raise CorruptPayloadError("payload's shape does not match the codec's grid")
    return given


def decode_latents(payload: Payload, model: Model, grid: SphereGrid, items: int) -> Floating:
    """What latents stand for in the cells of any grid, shape (items, cells).

    Raises
    ------
    CorruptPayloadError
    """
    if payload.bits not in BITS:
        raise CorruptPayloadError("payload's header contradicts itself")
    symbols = entropy.decode(payload.section(Tag.LATENTS), items, model.histogram, payload.bits)
    latents = model.quantizer(payload.bits).dequantize(symbols)
    features = predict_on_grid(model.coded_network, grid, latents)
    # Half precision is for storing, not for arithmetic: 300 K has steps of 0.25 K there.
    working: Any = np.float64 if payload.dtype.itemsize == 8 else np.float32
    values: Floating = features.astype(working, copy=False)
    values *= working(model.scale)
    values += working(model.offset)
    return values


def synthesis_of(
    payload: Payload, model: Model | None, grid: SphereGrid, mask: Bool | None
) -> Synthesis:
    """How the coefficients in a payload become fields."""
    batch, items = payload.shape[:-2], prod(payload.shape[:-2])
    payload.section(Tag.COEFFICIENTS)
    if payload.kind != Kind.LATENTS_IN_TIME and not is_transformable(grid.shape, payload.nbytes):
        raise CorruptPayloadError("payload claims a grid that no transform was made for")
    if payload.time_axis >= max(len(batch), 1) or items > MOST_ITEMS:
        raise CorruptPayloadError("payload's header contradicts itself")
    present: Bool = np.ones(items, np.bool_)
    if mask is not None:
        present = ~np.asarray(mask.all(axis=1))
    if not present.any():
        raise CorruptPayloadError("payload's coefficients are of fields that are all missing")
    sequences = Sequences.of(batch, payload.time_axis, present)
    if payload.kind == Kind.LATENTS_IN_TIME:
        assert model is not None
        return LatentSynthesis(model, grid, sequences, items)
    if model is not None:
        return GridSynthesis(mean_field(model, grid), grid, sequences, items)
    section = payload.section(Tag.MEANS)
    means = np.frombuffer(section[: len(section) // 4 * 4], "<f4")
    if len(section) % 4 or len(means) != len(sequences.order) or not np.isfinite(means).all():
        raise CorruptPayloadError("payload's mean values are damaged")
    return GridSynthesis(means.astype(np.float64)[:, None], grid, sequences, items)


def coordinates_crc(grid: SphereGrid) -> int:
    """What a payload notes of coordinates that it does not hold."""
    if isinstance(grid, IndexGrid) and grid.places is not None:
        return zlib.crc32(grid.places.tobytes())
    return zlib.crc32(grid.latitude.tobytes() + grid.longitude.tobytes())
