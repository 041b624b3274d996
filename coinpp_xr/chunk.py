"""One array chunk ↔ one payload: mask, normalise, fit, quantize, code, and the way back."""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import entropy
from coinpp_xr.bitstream import (
    EXPLICIT_COORDINATES,
    Kind,
    Payload,
    Tag,
    pack_bytes,
    pack_mask,
    pack_special_values,
    unpack_bytes,
    unpack_mask,
    unpack_special_values,
)
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import fit, predict
from coinpp_xr.errors import CompressionWarning, CorruptPayloadError
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.quantization import BITS
from coinpp_xr.settings import config

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

# Features of the training data lie in [0, 1]. Cells far outside are fill values or outliers and
# are kept exactly; if there are many, the data is not what the model was made for.
_PLAUSIBLE = (-1.0, 2.0)
_MOST = 0.9
# Above this share of unexplained variance the user should know; at all of it nothing is gained.
_MUCH_UNEXPLAINED = 0.25
# Another orientation must fit the mean field this much better before data is refused.
_CLEARLY_BETTER = 0.5
# Fewer cells cannot tell which axis is the latitude.
_CELLS_TO_TELL = 512
# An extreme value that many cells share, far from all others, is a fill value.
_FILL_CELLS = 8
_FILL_GAP = 0.1
# A grid is thinned for fitting until it has about this many points per latent: finer cells cost
# time and add nothing to a few latents.
_POINTS_PER_LATENT = 256
_FEWEST_POINTS = 8192


def encode_chunk(
    values: npt.NDArray[Any],
    model: Model,
    *,
    bits: int,
    grid: SphereGrid | None = None,
    effort: str = "default",
) -> bytes:
    """Compress one chunk.

    Parameters
    ----------
    values : array, shape (..., n_lat, n_lon)
        Any dtype and memory order. Whatever cannot be fitted (integers, constants, NaN only,
        empty, implausible for the model) is stored without loss.
    model : Model
    bits : int
        Bits per latent.
    grid : SphereGrid, optional
        Coordinates; without them the usual layout of a globe that fits best is chosen and noted.
    effort : str
        See :func:`coinpp_xr.devices.fit`.

    Returns
    -------
    bytes
        A payload for :func:`decode_chunk`.
    """
    if values.dtype.hasobject:
        raise TypeError("cannot compress objects; convert to float32 first (da.astype('float32'))")
    if values.dtype.kind != "f" or values.dtype.itemsize > 8:
        return _lossless(values)
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
    if values.size == 0:
        return _lossless(values)

    table = values.reshape(-1, prod(values.shape[-2:]))
    features, valid = _features(table, model)
    if _implausible(table, valid):
        swapped = table.view(table.dtype.newbyteorder("S"))
        if not _implausible(swapped, _features(swapped, model)[1]):
            raise ValueError(
                "the chunk's bytes look big-endian but are declared little-endian: in Zarr v3 put "
                "the codec directly after bytes(endian='little'), or use COINppArrayCodec"
            )
        _warn_lossless(values, model)
        return _lossless(values)
    if not valid.any():
        return _lossless(values)

    layout = EXPLICIT_COORDINATES
    if grid is None:
        layout, grid = _best_layout(features, valid, model, values.shape[-2:])
    else:
        _check_orientation(features, valid, model, grid)
    latents = _fit_latents(features, valid, model, grid, effort)
    quantizer = model.quantizer(bits)
    symbols = quantizer.quantize(latents)
    unexplained = _unexplained(features, valid, quantizer.dequantize(symbols), model, grid)
    if unexplained >= 1:
        _warn_lossless(values, model)
        return _lossless(values)
    if unexplained > _MUCH_UNEXPLAINED:
        warnings.warn(
            f"model {model.name!r} with {bits} bits explains only {1 - unexplained:.0%} of this "
            "data's variance; check grid, unit, axis order and chunks, or train a model on this "
            "data",
            CompressionWarning,
            stacklevel=3,
        )

    sections = {Tag.LATENTS: entropy.encode(symbols, model.histogram, bits)}
    if not valid.all():
        sections[Tag.MASK] = pack_mask(~valid)
        sections[Tag.SPECIAL_VALUES] = pack_special_values(table[~valid])
    payload = Payload(
        kind=Kind.LATENTS, shape=values.shape, dtype=values.dtype, sections=sections,
        fingerprint=model.fingerprint, layout=layout, coordinates_crc=_coordinates_crc(grid),
        bits=bits, fortran=_fortran(values),
    ).pack()  # fmt: skip
    if 4 * len(payload) > values.nbytes:  # tiny chunks, noise under many bits
        payload = min(payload, _lossless(values), key=len)
    return payload


def decode_chunk(
    data: bytes,
    find_model: Callable[[str], Model],
    *,
    grid: SphereGrid | None = None,
    expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None,
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

    Raises
    ------
    CorruptPayloadError, ModelNotFoundError
    """
    payload = Payload.unpack(data)
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
    else:
        values = _decode_latents(payload, find_model(payload.fingerprint), grid)
    return np.asfortranarray(values) if payload.fortran else values


def _decode_latents(payload: Payload, model: Model, grid: SphereGrid | None) -> npt.NDArray[Any]:
    if (
        len(payload.shape) < 2
        or 0 in payload.shape
        or payload.bits not in BITS
        or payload.dtype.kind != "f"
    ):
        raise CorruptPayloadError("payload's header contradicts itself")
    if 4 * prod(payload.shape[:-2]) * model.latent_dim > config.get("max_decode_bytes"):
        raise CorruptPayloadError("payload claims more globes than config max_decode_bytes allows")
    if payload.layout != EXPLICIT_COORDINATES:
        layouts = _layouts(*payload.shape[-2:])
        if payload.layout >= len(layouts):
            raise CorruptPayloadError(f"payload claims an unknown grid layout {payload.layout}")
        grid = layouts[payload.layout]
    elif grid is None or _coordinates_crc(grid) != payload.coordinates_crc:
        raise CorruptPayloadError(
            "payload was written with other coordinates than the codec's; "
            "give the codec the latitude and longitude that it was written with"
        )
    items, cells = prod(payload.shape[:-2]), prod(payload.shape[-2:])
    if grid.shape != payload.shape[-2:]:
        raise CorruptPayloadError("payload's shape does not match the codec's grid")
    symbols = entropy.decode(payload.section(Tag.LATENTS), items, model.histogram, payload.bits)
    latents = model.quantizer(payload.bits).dequantize(symbols)
    features = predict(model.siren, grid.points, latents)[..., 0]
    # Half precision is for storing, not for arithmetic: 300 K has steps of 0.25 K there.
    working: Any = np.float64 if payload.dtype.itemsize == 8 else np.float32
    values: npt.NDArray[Any] = features.astype(working, copy=False)
    values *= working(model.scale)
    values += working(model.offset)
    if payload.dtype.itemsize == 2:  # what was finite must not become infinite
        largest = working(np.finfo(np.float16).max)
        np.clip(values, -largest, largest, out=values)
    values = values.astype(payload.dtype, copy=False)
    if Tag.MASK in payload.sections:
        mask = unpack_mask(payload.section(Tag.MASK), items, cells)
        special = payload.section(Tag.SPECIAL_VALUES)
        values[mask] = unpack_special_values(special, int(mask.sum()), payload.dtype)
    return values.reshape(payload.shape)


def _lossless(values: npt.NDArray[Any]) -> bytes:
    sections = {Tag.RAW: pack_bytes(values)}
    return Payload(
        Kind.LOSSLESS, values.shape, values.dtype, sections, fortran=_fortran(values)
    ).pack()


def _fortran(values: npt.NDArray[Any]) -> bool:
    return bool(values.flags.f_contiguous and not values.flags.c_contiguous)


def _warn_lossless(values: npt.NDArray[Any], model: Model) -> None:
    finite = values[np.isfinite(values)]
    warnings.warn(
        f"values {finite.min():.6g} … {finite.max():.6g} do not look like globes that model "
        f"{model.name!r} was made for ({model.offset:.6g} … {model.offset + model.scale:.6g} "
        f"{model.units}); they are stored without loss. Check unit, grid and chunks, or train a "
        "model on this data",
        CompressionWarning,
        stacklevel=4,
    )


def _features(table: npt.NDArray[Any], model: Model) -> tuple[Float32, Bool]:
    """Normalised values and which cells can be fitted, both of shape (globes, cells)."""
    with np.errstate(invalid="ignore", over="ignore"):
        features = (table.astype(np.float64) - model.offset) / model.scale
        valid = (features > _PLAUSIBLE[0]) & (features < _PLAUSIBLE[1])
    # A globe of one value is padding: it is kept as it is and never fitted.
    first = table[:, :1]
    valid &= ~(table == first).all(axis=1, keepdims=True)
    for extreme in (np.min, np.max):
        valid &= ~_fill_cells(features, valid, extreme)
    return np.where(valid, features, 0).astype(np.float32), valid


def _fill_cells(
    features: npt.NDArray[np.float64], valid: Bool, extreme: Callable[..., Any]
) -> Bool | np.bool_:
    """Cells at the lowest or highest value, if it looks like a fill value (-99, say)."""
    known = features[valid]
    if known.size == 0:
        return np.False_
    value = extreme(known)
    others = known[known != value]
    if others.size == 0 or known.size - others.size < _FILL_CELLS:
        return np.False_
    gap = abs(float(value - extreme(others)))
    return features == value if gap > _FILL_GAP * max(1.0, float(np.ptp(others))) else np.False_


def _implausible(table: npt.NDArray[Any], valid: Bool) -> bool:
    globes = valid.any(axis=1) | ~(table == table[:, :1]).all(axis=1)
    finite = np.isfinite(table[globes])
    return bool(valid[globes].sum() < _MOST * finite.sum())


@lru_cache(maxsize=16)
def _layouts(n_lat: int, n_lon: int) -> tuple[SphereGrid, ...]:
    return tuple(SphereGrid.usual_layouts(n_lat, n_lon))


def _best_layout(
    features: Float32, valid: Bool, model: Model, shape: tuple[int, int]
) -> tuple[int, SphereGrid]:
    """The usual layout whose mean field looks most like the data."""
    layouts = _layouts(*shape)
    errors = _mean_field_errors(features, valid, model, layouts)
    if features.shape[1] >= _CELLS_TO_TELL:
        swapped = features.reshape(-1, *shape).swapaxes(1, 2).reshape(features.shape)
        seen = valid.reshape(-1, *shape).swapaxes(1, 2).reshape(valid.shape)
        as_swapped = _mean_field_errors(swapped, seen, model, _layouts(shape[1], shape[0]))
        if min(as_swapped) < _CLEARLY_BETTER * min(errors):
            raise ValueError(
                f"the last two axes of {shape[0]} × {shape[1]} look like (longitude, latitude); "
                "the codec needs (..., latitude, longitude): da.transpose(..., 'lat', 'lon'), and "
                "no transposing filter before it"
            )
    # The layouts of cell centres and of poles are close: take another than the paper's only
    # when it is clearly better.
    best = int(np.argmin(errors))
    best = best if errors[best] < 0.98 * errors[0] else 0
    return best, layouts[best]


def _check_orientation(features: Float32, valid: Bool, model: Model, grid: SphereGrid) -> None:
    """Notice data that was flipped or rolled after the codec got its coordinates."""
    half_turn = np.roll(grid.longitude, len(grid.longitude) // 2)
    turned = SphereGrid(grid.latitude, np.unwrap(half_turn, period=360))
    flipped = SphereGrid(grid.latitude[::-1], grid.longitude)
    own, *others = _mean_field_errors(features, valid, model, (grid, flipped, turned))
    if min(others) < _CLEARLY_BETTER * own:
        how = "upside down" if others[0] < others[1] else "turned by half the globe"
        raise ValueError(
            f"the data looks {how} on the codec's latitude and longitude; make a codec with this "
            "data's own coordinates (after sortby or roll, write with ds.drop_encoding())"
        )


def _mean_field_errors(
    features: Float32, valid: Bool, model: Model, grids: Sequence[SphereGrid]
) -> list[float]:
    """How far a sample of the data is from the model's mean field on each grid."""
    items = np.flatnonzero(valid.any(axis=1))
    items = items[np.linspace(0, len(items) - 1, min(4, len(items))).astype(int)]
    # Evenly over the flattened globe, never in step with its rows.
    cells = np.linspace(0, features.shape[1] - 1, min(1024, features.shape[1])).astype(int)
    y, seen = features[np.ix_(items, cells)], valid[np.ix_(items, cells)]
    zero = np.zeros((1, model.latent_dim), np.float32)

    def error(grid: SphereGrid) -> float:
        expected = model.siren(grid.points_at(cells), zero)[..., 0]
        weights = np.cos(np.deg2rad(grid.latitude[cells // grid.shape[1]])) * seen
        return float((weights * (y - expected) ** 2).sum() / max(weights.sum(), 1e-30))

    return map_in_threads(error, grids)


def _fit_latents(
    features: Float32, valid: Bool, model: Model, grid: SphereGrid, effort: str
) -> Float32:
    rows, columns = (np.arange(n) for n in grid.shape)
    enough = max(_FEWEST_POINTS, _POINTS_PER_LATENT * model.latent_dim)
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
        model.siren, grid.points_at(cells), features[:, cells, None], weights, effort=effort,
        **_inner_loop_of(model) if effort == "paper" else {},
    )  # fmt: skip
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
    features: Float32, valid: Bool, latents: Float32, model: Model, grid: SphereGrid
) -> float:
    """Share of the variance of a few globes that the decoded latents do not explain."""
    candidates = np.flatnonzero(valid.sum(axis=1) > model.latent_dim)
    if len(candidates) == 0:
        return 0.0
    sample = candidates[np.linspace(0, len(candidates) - 1, min(4, len(candidates))).astype(int)]
    weights = grid.area_weights * valid[sample]
    weights /= weights.sum(axis=1, keepdims=True)
    y = features[sample].astype(np.float64)
    fitted = predict(model.siren, grid.points, latents[sample])[..., 0]
    mean = (weights * y).sum(axis=1, keepdims=True)
    variance = float((weights * (y - mean) ** 2).sum())
    return float((weights * (y - fitted) ** 2).sum()) / max(variance, 1e-30)


def _coordinates_crc(grid: SphereGrid) -> int:
    return zlib.crc32(grid.latitude.tobytes() + grid.longitude.tobytes())
