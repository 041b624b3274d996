"""One array chunk ↔ one payload: mask, recognise, fit, quantize, code, and the way back."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import entropy, patterns, residual
from coinpp_xr.bitstream import (
    EXPLICIT_COORDINATES,
    Kind,
    Payload,
    Tag,
    pack_fields,
    pack_lossless,
    unpack_bytes,
    unpack_mask,
    unpack_special_values,
)
from coinpp_xr.choice import Chunk, smallest_for_bound, smallest_for_rmse
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import fit, predict_on_grid
from coinpp_xr.errors import CompressionWarning, CorruptPayloadError
from coinpp_xr.models import Model
from coinpp_xr.network import BaseNetwork
from coinpp_xr.patch_reading import checked_region, decode_patches
from coinpp_xr.quantization import BITS
from coinpp_xr.recognition import (
    MUCH_UNEXPLAINED,
    best_layout,
    check_orientation,
    features_of,
    is_plausible,
    layouts_of,
    usable_cells,
)
from coinpp_xr.residual import Bound
from coinpp_xr.schemes import (
    MOST_ITEMS,
    Fields,
    GridSynthesis,
    LatentSynthesis,
    Sequences,
    Synthesis,
    decode_values,
    mean_field,
    round_to,
)
from coinpp_xr.settings import config
from coinpp_xr.transform import is_transformable, is_transformable_in_time

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating[Any]]

# Fewer cells do not tell in which byte order they are.
_CELLS_TO_TELL = 100
# A grid is thinned for fitting until it has about this many points per latent: finer cells cost
# time and add nothing to a few latents.
_POINTS_PER_LATENT = 256
_FEWEST_POINTS = 8192
_MOST_POINTS = 16384
# Of rows and columns together.
_MOST_COORDINATES = 1 << 20


def encode_chunk(
    values: npt.NDArray[Any],
    model: Model | None,
    *,
    bits: int | None = None,
    target_rmse: float | None = None,
    bound: Bound | None = None,
    grid: SphereGrid | None = None,
    effort: str = "default",
    time_axis: int = 0,
) -> bytes:
    """Compress one chunk.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
        Any dtype and memory order. Whatever cannot be coded with an error (integers, constants,
        NaN only, empty) is stored without loss; with ``bits`` also what is implausible for the
        model.
    model : Model or None
        None codes without a model, which ``bits`` cannot.
    bits : int, optional
        Bits per latent; nothing else is stored.
    target_rmse : float, optional
        Area-weighted root mean square error over all valid cells of the chunk, in the data's
        unit, that is never exceeded.
    bound : Bound, optional
        Pointwise error that is never exceeded. Give one of the three.
    grid : SphereGrid, optional
        Coordinates; without them the usual layout of a globe that fits best is chosen and noted.
    effort : str
        See :func:`coinpp_xr.devices.fit`.
    time_axis : int
        Which of the axes before latitude and longitude is time; the others are separate
        sequences.

    Returns
    -------
    bytes
        A payload for :func:`decode_chunk`.
    """
    # Whatever overflows or is no number on the way is looked at, not warned of.
    with np.errstate(over="ignore", invalid="ignore"):
        return _encode_chunk(values, model, bits, target_rmse, bound, grid, effort, time_axis)


def _encode_chunk(
    values: npt.NDArray[Any],
    model: Model | None,
    bits: int | None,
    target_rmse: float | None,
    bound: Bound | None,
    grid: SphereGrid | None,
    effort: str,
    time_axis: int,
) -> bytes:
    if values.dtype.hasobject:
        raise TypeError("cannot compress objects; convert to float32 first (da.astype('float32'))")
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        return pack_lossless(values)
    if values.ndim < 2:
        raise ValueError(
            f"needs at least two axes (..., latitude, longitude), got shape {values.shape}"
        )
    if grid is not None and values.shape[-2:] != grid.shape:
        raise ValueError(
            f"chunk of {values.shape[-2]} × {values.shape[-1]} cells does not match the codec's "
            f"grid of {grid.shape[0]} × {grid.shape[1]}; chunks must hold whole globes "
            "(chunk with lat=-1, lon=-1) and latitude/longitude must be the data's own"
        )
    if values.size == 0 or sum(values.shape[-2:]) > _MOST_COORDINATES:
        return pack_lossless(values)

    table = values.reshape(-1, prod(values.shape[-2:]))
    usable = usable_cells(table)
    if bound is not None:
        usable &= ~((table == 0) & np.signbit(table))  # -0.0 keeps its bits
    if not usable.any():
        return pack_lossless(values)
    if model is not None:
        features, valid = features_of(table, usable, model)
        if not is_plausible(usable, valid):
            _check_byte_order(table, model)
            if bits is not None:
                _warn_lossless(values, model)
                return pack_lossless(values)
            model = None  # a stranger to this data

    layout = EXPLICIT_COORDINATES
    if grid is not None:
        if model is not None:
            check_orientation(features, valid, model, grid)
    elif model is not None:
        layout, grid = best_layout(features, valid, model, values.shape[-2:])
    else:
        layout, grid = 0, layouts_of(*values.shape[-2:])[0]
    place = {"layout": layout, "coordinates_crc": _coordinates_crc(grid)}
    if bits is not None and model is not None:
        payload = _encode_latents(values, features, valid, model, bits, grid, effort, place)
    else:
        sequences = Sequences.of(values.shape[:-2], time_axis, np.asarray(usable.any(axis=1)))
        fields = Fields(
            np.where(usable, table, 0).astype(np.float64), usable, values.dtype, grid, sequences
        )
        latents = None
        if model is not None and model.latent_dim > 0:
            latents = _fit_latents(features, valid, model.network, grid, effort)
        place["time_axis"] = time_axis if values.ndim > 2 else 0
        chunk = Chunk(values, fields, model, latents, effort, place)
        if bound is not None:
            payload = smallest_for_bound(chunk, bound)
            if payload is not None and not _keeps(payload, chunk, bound):
                payload = None
        elif target_rmse is not None:
            payload = smallest_for_rmse(chunk, target_rmse)
        else:
            raise ValueError("give bits and a model, target_rmse, or a bound")
    if payload is None:
        return pack_lossless(values)
    if 4 * len(payload) > values.nbytes:  # tiny chunks, noise under many bits
        payload = min(payload, pack_lossless(values), key=len)
    return payload


def _keeps(payload: bytes, chunk: Chunk, bound: Bound) -> bool:
    """Whether what a decoder makes of a payload is within the bound, and else bit for bit."""
    models = {} if chunk.model is None else {chunk.model.fingerprint: chunk.model}
    decoded = decode_chunk(payload, models.__getitem__, grid=chunk.fields.grid)
    fields = chunk.fields
    table = np.ascontiguousarray(decoded).reshape(fields.values.shape)
    close = bound.holds(table.astype(np.float64), fields.values)
    same = np.ascontiguousarray(chunk.values).reshape(table.shape)[~fields.valid]
    kept = table[~fields.valid].tobytes() == same.tobytes()
    return kept and bool(close[fields.valid].all())


def _encode_latents(
    values: npt.NDArray[Any],
    features: Float32,
    valid: Bool,
    model: Model,
    bits: int,
    grid: SphereGrid,
    effort: str,
    place: dict[str, Any],
) -> bytes | None:
    """The paper's way: b bits per latent, and whatever error they make."""
    network = model.coded_network
    if network.latent_dim == 0:
        raise ValueError(f"model {model.name!r} was made without tables for bits; give target_rmse")
    inner = _inner_loop_of(model) if effort == "paper" else {}
    latents = _fit_latents(features, valid, network, grid, effort, **inner)
    quantizer = model.quantizer(bits)
    symbols = quantizer.quantize(latents)
    unexplained = _unexplained(features, valid, quantizer.dequantize(symbols), network, grid)
    if unexplained >= 1:
        _warn_lossless(values, model)
        return None
    if unexplained > MUCH_UNEXPLAINED:
        warnings.warn(
            f"model {model.name!r} with {bits} bits explains only {1 - unexplained:.0%} of this "
            "data's variance; check grid, unit, axis order and chunks, or train a model on this "
            "data",
            CompressionWarning,
            stacklevel=5,
        )
    stream = entropy.encode(symbols, model.histogram, bits)
    return pack_fields(
        values, valid, Kind.LATENTS, {Tag.LATENTS: stream},
        bits=bits, fingerprint=model.fingerprint, **place,
    )  # fmt: skip


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
        region = checked_region(region, payload.shape)
    if expected is not None:
        shape, dtype = expected
        if payload.shape != shape or payload.dtype.newbyteorder("=") != dtype.newbyteorder("="):
            raise CorruptPayloadError(
                f"payload holds {payload.dtype} {payload.shape}, the store expects {dtype} {shape}"
            )
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
        values = _decode_fields(payload, find_model, grid)
    if region is not None:
        values = values[region].copy()
    return np.asfortranarray(values) if payload.fortran else values


def _decode_fields(
    payload: Payload, find_model: Callable[[str], Model], grid: SphereGrid | None
) -> npt.NDArray[Any]:
    if len(payload.shape) < 2 or 0 in payload.shape or payload.dtype.kind != "f":
        raise CorruptPayloadError("payload's header contradicts itself")
    items, cells = prod(payload.shape[:-2]), prod(payload.shape[-2:])
    mask = None
    if Tag.MASK in payload.sections:
        mask = unpack_mask(payload.section(Tag.MASK), items, cells)
    decoded: Floating
    if payload.kind == Kind.PATTERNS:
        n_lat, n_lon = payload.shape[-2:]
        decoded = patterns.decode(payload.section(Tag.LEVELS), (items, n_lat, n_lon))
        decoded = decoded.reshape(items, cells)
    elif payload.kind == Kind.RESIDUAL:
        decoded = _with_residual(payload, mask)
    else:
        grid = _grid_of(payload, grid)
        model = find_model(payload.fingerprint) if payload.kind.has_model else None
        if model is not None and 4 * items * model.latent_dim > config.get("max_decode_bytes"):
            raise CorruptPayloadError(
                "payload claims more globes than config max_decode_bytes allows"
            )
        if payload.kind == Kind.LATENTS:
            assert model is not None
            decoded = _decode_latents(payload, model, grid, items)
        elif payload.kind == Kind.RESIDUAL_FROM_MODEL:
            decoded = _with_residual(payload, mask, model=model, grid=grid)
        else:
            synthesis = synthesis_of(payload, model, grid, mask)
            _, times, orders, waves = synthesis.shape
            if payload.along_time and not is_transformable_in_time(times, orders * waves):
                raise CorruptPayloadError("payload claims a sequence too long for its fields")
            stream = payload.section(Tag.COEFFICIENTS)
            decoded = decode_values(synthesis, stream, payload.exponent, payload.along_time)
            if Tag.RESIDUAL in payload.sections:
                decoded = _with_residual(payload, mask, decoded)
    values = round_to(decoded, payload.dtype)
    if mask is not None:
        special = payload.section(Tag.SPECIAL_VALUES)
        values[mask] = unpack_special_values(special, int(mask.sum()), payload.dtype)
    return values.reshape(payload.shape)


def _with_residual(
    payload: Payload,
    mask: Bool | None,
    base: Floating | None = None,
    model: Model | None = None,
    grid: SphereGrid | None = None,
) -> Floating:
    batch, items = payload.shape[:-2], prod(payload.shape[:-2])
    if payload.time_axis >= max(len(batch), 1) or items > residual.MOST_ITEMS:
        raise CorruptPayloadError("payload's header contradicts itself")
    n_lat, n_lon = payload.shape[-2:]
    sequences = Sequences.of(batch, payload.time_axis, np.ones(items, np.bool_))
    section = payload.section(Tag.RESIDUAL)
    return residual.decode(section, mask, (n_lat, n_lon), sequences, base, model, grid)


def _grid_of(payload: Payload, given: SphereGrid | None) -> SphereGrid:
    if payload.layout != EXPLICIT_COORDINATES:
        n_lat, n_lon = payload.shape[-2:]
        if n_lat + n_lon > _MOST_COORDINATES:
            raise CorruptPayloadError(f"payload claims a grid of {n_lat} × {n_lon} cells")
        layouts = SphereGrid.usual_layouts(n_lat, n_lon)
        layout = next(islice(layouts, payload.layout, None), None)
        if layout is None:
            raise CorruptPayloadError(f"payload claims an unknown grid layout {payload.layout}")
        return layout
    if given is None or _coordinates_crc(given) != payload.coordinates_crc:
        raise CorruptPayloadError(
            "payload was written with other coordinates than the codec's; "
            "give the codec the latitude and longitude that it was written with"
        )
    if given.shape != payload.shape[-2:]:
        raise CorruptPayloadError("payload's shape does not match the codec's grid")
    return given


def _decode_latents(payload: Payload, model: Model, grid: SphereGrid, items: int) -> Floating:
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
    if payload.kind != Kind.LATENTS_IN_TIME and not is_transformable(grid.shape):
        raise CorruptPayloadError("payload claims a grid that no transform was made for")
    if payload.time_axis >= max(len(batch), 1) or items > MOST_ITEMS:
        raise CorruptPayloadError("payload's header contradicts itself")
    present: Bool = np.ones(items, np.bool_)
    if mask is not None:
        present = ~np.asarray(mask.all(axis=1))
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


def _warn_lossless(values: npt.NDArray[Any], model: Model) -> None:
    finite = values[np.isfinite(values)]
    warnings.warn(
        f"values {finite.min():.6g} … {finite.max():.6g} do not look like globes that model "
        f"{model.name!r} was made for ({model.offset:.6g} … {model.offset + model.scale:.6g} "
        f"{model.units}); they are stored without loss. Check unit, grid and chunks, or train a "
        "model on this data",
        CompressionWarning,
        stacklevel=5,
    )


def _check_byte_order(table: npt.NDArray[Any], model: Model) -> None:
    if table.size < _CELLS_TO_TELL:  # chance could make them look like anything
        return
    swapped = table.view(table.dtype.newbyteorder("S"))
    with np.errstate(all="ignore"):
        usable = usable_cells(swapped)
        _, valid = features_of(swapped, usable, model)
    if 2 * usable.sum() > table.size and is_plausible(usable, valid):
        raise ValueError(
            "the chunk's bytes look big-endian but are declared little-endian: in Zarr v3 put "
            "the codec directly after bytes(endian='little'), or use COINppArrayCodec"
        )


def _fit_latents(
    features: Float32,
    valid: Bool,
    network: BaseNetwork,
    grid: SphereGrid,
    effort: str,
    **inner: Any,
) -> Float32:
    rows, columns = (np.arange(n) for n in grid.shape)
    enough = min(max(_FEWEST_POINTS, _POINTS_PER_LATENT * network.latent_dim), _MOST_POINTS)
    while len(rows) * len(columns) > 2 * enough and min(len(rows), len(columns)) > 32:
        rows, columns = rows[::2], columns[::2]
    cells = (rows[:, None] * grid.shape[1] + columns).ravel()
    thinned = valid[:, cells]
    if not (thinned.any(axis=1) == valid.any(axis=1)).all():
        cells, thinned = np.arange(features.shape[1]), valid  # few valid cells: miss none
    weights = grid.area_weights[cells] * (
        thinned[:1] if (thinned == thinned[:1]).all() else thinned
    )
    latents = fit(
        network, grid.points_at(cells), features[:, cells, None], weights, effort=effort, **inner
    )
    latents[~valid.any(axis=1)] = 0
    return latents


def _inner_loop_of(model: Model) -> dict[str, Any]:
    """The inner loop that a model of the paper's kind was trained with."""
    configuration = model.card.get("configuration", {})
    if configuration.get("objective") != "paper":
        raise ValueError(
            f"effort='paper' needs a model trained by the paper's recipe, {model.name!r} is not; "
            "use effort='default'"
        )
    return {
        "inner_steps": configuration["inner_steps"],
        "learning_rate": configuration["inner_lr"],
    }


def _unexplained(
    features: Float32, valid: Bool, latents: Float32, network: BaseNetwork, grid: SphereGrid
) -> float:
    """Share of the variance of a few globes that the decoded latents do not explain."""
    candidates = np.flatnonzero(valid.sum(axis=1) > network.latent_dim)
    if len(candidates) == 0:
        return 0.0
    sample = candidates[np.linspace(0, len(candidates) - 1, min(4, len(candidates))).astype(int)]
    weights = grid.area_weights * valid[sample]
    weights /= weights.sum(axis=1, keepdims=True)
    y = features[sample].astype(np.float64)
    fitted = predict_on_grid(network, grid, latents[sample])
    mean = (weights * y).sum(axis=1, keepdims=True)
    variance = float((weights * (y - mean) ** 2).sum())
    return float((weights * (y - fitted) ** 2).sum()) / max(variance, 1e-30)


def _coordinates_crc(grid: SphereGrid) -> int:
    return zlib.crc32(grid.latitude.tobytes() + grid.longitude.tobytes())
