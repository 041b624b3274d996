"""One array chunk → one payload: mask, recognise, fit, quantize, code."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
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
    pack_fields,
    pack_lossless,
)
from coinpp_xr.cells.folding import Fold
from coinpp_xr.chunk_fields import Task, coded_cells, decoded_fields, with_finish
from coinpp_xr.chunk_reading import MOST_COORDINATES, coordinates_crc
from coinpp_xr.coarseness import warn_if_coarse
from coinpp_xr.coordinates import NO_GLOBE, IndexGrid, SphereGrid
from coinpp_xr.devices import fit, predict_on_grid
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.exact import pack_bytes
from coinpp_xr.guarantees import Given, Goal
from coinpp_xr.lattice import Bound
from coinpp_xr.lossless import has_wider_steps, without_loss
from coinpp_xr.models import Model
from coinpp_xr.network import BaseNetwork
from coinpp_xr.parallel import single_threaded_blas
from coinpp_xr.quantization import are_in_proportion
from coinpp_xr.recognition import (
    MUCH_UNEXPLAINED,
    best_layout,
    check_orientation,
    features_of,
    is_plausible,
    layout_of,
    may_be_globe,
    usable_cells,
)
from coinpp_xr.shared_values import are_categories
from coinpp_xr.ways import LARGE_GLOBE

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

# Fewer cells do not tell in which byte order they are.
_CELLS_TO_TELL = 100
# A grid is thinned for fitting until it has about this many points per latent: finer cells cost
# time and add nothing to a few latents.
_POINTS_PER_LATENT = 256
_FEWEST_POINTS = 8192
_MOST_POINTS = 16384

# Chunks of more bytes are compressed without loss only if every 32nd row says that this may be
# shorter.
_LARGE, _SAMPLED_ROWS, _WORTH_TRYING = 1 << 20, 32, 1.5


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
    max_mean_error: float | None = None,
    keep: Sequence[float] = (),
    valid_range: tuple[float, float] | None = None,
    network: bool = True,
    fold: Fold | None = None,
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
    max_mean_error : float, optional
        Of the area-weighted mean of every field, beside a bound or target; else a twentieth of it.
    keep : sequence of float
        Values that come back exactly, beside those that many cells share.
    valid_range : (float, float), optional
        Values beyond come back exactly, others never leave it.
    network : bool
        Whether the pyramid may ask the network that comes with the package.
    fold : Fold, optional
        By which cells were laid out in rows and columns; its holes are no values.

    Returns
    -------
    bytes
        A payload for :func:`coinpp_xr.chunk_reading.decode_chunk`.
    """
    # Whatever overflows or is no number on the way is looked at, not warned of. Several BLAS
    # threads would round differently from one.
    with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
        goal = Goal(bound, target_rmse, max_mean_error)
        exact = tuple(keep), valid_range
        place: dict[str, Any] = {"time_axis": time_axis if values.ndim > 2 else 0, "fold": fold}
        return _encode_chunk(values, model, bits, goal, exact, grid, effort, place, network)


def _encode_chunk(
    values: npt.NDArray[Any],
    model: Model | None,
    bits: int | None,
    goal: Goal,
    exact: tuple[tuple[float, ...], tuple[float, float] | None],
    grid: SphereGrid | None,
    effort: str,
    place: dict[str, Any],
    network: bool,
) -> bytes:
    if values.dtype.hasobject:
        raise TypeError("cannot compress objects; convert to float32 first (da.astype('float32'))")
    # Whole numbers, packed ones among them, are kept whatever was asked for.
    exactly = values.dtype.kind in "iu" or (goal.bound is not None and goal.bound.is_exact)
    if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
        return pack_lossless(values)
    fits = values.ndim >= 2 and (grid is None or values.shape[-2:] == grid.shape)
    if values.dtype.kind in "iu" and not fits:
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
    if values.size == 0 or sum(values.shape[-2:]) > MOST_COORDINATES:
        return pack_lossless(values)

    table = values.reshape(-1, prod(values.shape[-2:]))
    keep, valid_range = exact
    usable = usable_cells(table)
    fold: Fold | None = place["fold"]
    if fold is not None and fold.holes is not None:
        usable &= ~fold.holes
    if exactly:
        return _without_loss(values, usable, grid, effort, place)
    if goal.bound is not None and (zero := table == 0).any():
        usable &= ~(zero & np.signbit(table))  # -0.0 keeps its bits
    if valid_range is not None:
        inside = (table >= valid_range[0]) & (table <= valid_range[1])
        if 2 * np.count_nonzero(usable & inside) > np.count_nonzero(usable):
            usable &= inside  # else they are meant for packed numbers
    if not usable.any() or are_categories(table, usable):
        return pack_lossless(values)
    warn_if_coarse(table, usable, goal.bound, goal.target_rmse)
    fine = goal.bound is not None and table.shape[1] >= LARGE_GLOBE and effort != "best"
    if fine and model is not None and model.climatology is None:
        model = None  # on fine grids neighbours tell more than any latents
    if bits is None and grid is None and not may_be_globe(*values.shape[-2:]):
        model = None  # knows nothing of cells in any other order
    if model is not None:
        features, valid = features_of(table, usable, model)
        small = model.network.is_small_for(values.shape, values.nbytes)
        if not (small and is_plausible(usable, valid)):
            _check_byte_order(table, model)
            if bits is not None:
                _warn_lossless(values, model)
                return pack_lossless(values)
            model = None  # a stranger to this data

    layout = EXPLICIT_COORDINATES
    if isinstance(grid, IndexGrid) and grid.places is None:
        layout = NO_GLOBE
    if grid is not None:
        if model is not None:
            check_orientation(features, valid, model, grid)
    elif model is not None:
        layout, grid = best_layout(features, valid, model, values.shape[-2:])
    else:
        layout, grid = layout_of(*values.shape[-2:])
    place |= {"layout": layout, "coordinates_crc": coordinates_crc(grid)}
    if bits is not None and model is not None:
        payload = _encode_latents(values, features, valid, model, bits, grid, effort, place)
        if payload is not None:
            holes = None if fold is None else fold.holes
            given = Given(table, usable, grid.area_weights, holes)
            payload = _in_range(payload, given, model, grid)
    elif goal.bound is not None or goal.target_rmse is not None:

        def latents_of(coded: Bool) -> Float32 | None:
            if model is None or model.latent_dim == 0 or fine:
                return None
            return _fit_latents(features, valid & coded, model.network, grid, effort)

        payload, bound = None, goal.bound
        if bound and not bound.relative and has_wider_steps(table, usable, bound.error):
            payload = without_loss(
                values, usable, grid=grid, effort=effort,
                time_axis=place["time_axis"], fold=fold,
            )  # fmt: skip
        on_steps = payload is not None and bool(coded_cells(Payload.unpack(payload))[usable].all())
        # Nothing that a bound allows helps where the source's steps are wider, but a model might.
        if not on_steps or model is not None or effort == "best":
            task = Task(values, usable, grid, model, latents_of, effort, goal, keep, place, network)
            payload = min((p for p in (payload, task.smallest()) if p), key=len, default=None)
    else:
        raise ValueError("give bits and a model, target_rmse, or a bound")
    plain = _exact(values, None if payload is None else len(payload))
    return min((p for p in (payload, plain) if p is not None), key=len)


def _in_range(payload: bytes, given: Given, model: Model, grid: SphereGrid) -> bytes:
    """A payload whose values do not leave the range of those that it was made from."""
    decoded, coded = decoded_fields(payload, {model.fingerprint: model}.__getitem__, grid)
    found = given.finish(decoded, coded, (), Goal())
    return payload if found is None else with_finish(payload, found[0])


def _without_loss(
    values: npt.NDArray[Any],
    usable: Bool,
    grid: SphereGrid | None,
    effort: str,
    place: dict[str, Any],
) -> bytes:
    table = values.reshape(usable.shape)
    usable = usable & ~((table == 0) & np.signbit(table.astype(np.float64)))
    if not usable.any() or (values.dtype.kind != "f" and values.dtype.itemsize == 8):
        return pack_lossless(values)
    grid = layout_of(*values.shape[-2:])[1] if grid is None else grid
    payload = without_loss(values, usable, grid=grid, effort=effort, **place)
    plain = _exact(values, None if payload is None else len(payload))
    return min((p for p in (payload, plain) if p is not None), key=len)


def _exact(values: npt.NDArray[Any], most: int | None) -> bytes | None:
    """A payload without loss; None where a sample says that it takes more bytes than that."""
    if most is not None and values.nbytes > _LARGE:
        some = values.reshape(-1, values.shape[-1])[::_SAMPLED_ROWS]
        if len(pack_bytes(some, level=1)) * _SAMPLED_ROWS > _WORTH_TRYING * most:
            return None
    return pack_lossless(values)


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
    if not are_in_proportion(len(features) * network.latent_dim, values.nbytes):
        return None
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
