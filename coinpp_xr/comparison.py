"""What this package and other codecs make of the same chunk."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr import peers
from coinpp_xr.coarseness import checked_before
from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.comparison_table import OWN, Comparison, Row
from coinpp_xr.labels import display_unit
from coinpp_xr.models import Model, load_model
from coinpp_xr.peers import Chunk, Goal, NotInstalledError
from coinpp_xr.reference import FRACTION
from coinpp_xr.selection import Layout

# What a rate-distortion plot shows beside this package, at these multiples of the goal.
PLOTTED = ("SZ3", "SPERR", "ZFP", "JPEG 2000", "PCodec")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_MOST_GLOBES = 64


_Outcome = tuple[Row, npt.NDArray[Any] | None]


def compare(
    array: xr.DataArray,
    *,
    max_error: float | None = None,
    target_rmse: float | None = None,
    names: Sequence[str] | None = None,
    model: str | Model = "t2m-46x90",
    chunk: int = _MOST_GLOBES,
    curves: bool = False,
) -> Comparison:
    """Compare on the first globes of an array.

    Parameters
    ----------
    array : DataArray
        With latitude and longitude.
    max_error, target_rmse : float
        One of the two, in the array's unit.
    names : sequence of str, optional
        Of ``coinpp_xr.peers.PEERS``, by default all, or of ``SLOW_PEERS``, which take minutes.
    model : str or Model
        For this package.
    chunk : int
        How many globes, at most.
    curves : bool
        Look at several goals, for the plot.

    Raises
    ------
    ValueError
        For unknown peers, or where not one of the two goals is given.
    """
    if (max_error is None) == (target_rmse is None):
        raise ValueError("give max_error or target_rmse, one of the two")
    known = {name.lower(): name for name in (*peers.PEERS, *peers.SLOW_PEERS)}
    wanted = list(peers.PEERS) if names is None else [_known(name, known) for name in names]
    layout = Layout.of(array)
    ordered = array.transpose(*layout.dims)
    time_dim = layout.dims[layout.time_axis] if ordered.ndim > 2 else None
    others = {dim: 0 for dim in layout.dims[:-2] if dim != time_dim}
    ordered = ordered.isel(others)
    if time_dim is not None:
        ordered = ordered.isel({time_dim: slice(0, chunk)})
    values = np.asarray(ordered.to_numpy())
    data = Chunk.of(values, layout.latitude, layout.longitude)
    goal = Goal(max_error, target_rmse)
    unit = display_unit(array.attrs)
    place = {"latitude": layout.latitude, "longitude": layout.longitude}

    def rows_of(goal: Goal, names: Iterable[str], efforts: Sequence[str]) -> list[_Outcome]:
        own = [_own(values, data, goal, model, effort, place) for effort in efforts]
        return [*own, *(_peer(name, data, goal) for name in names)]

    efforts = ("default", "fast") if max_error is not None else ("default",)
    outcomes = rows_of(goal, wanted, efforts)
    outcomes.sort(key=lambda outcome: (outcome[0].nbytes is None, outcome[0].nbytes or 0))
    points: dict[str, list[tuple[float, float]]] = {}
    if curves:
        plotted = [name for name in PLOTTED if name in wanted]
        for factor in FACTORS:
            scaled = Goal(*(g and factor * g for g in (max_error, target_rmse)))
            for row, _ in rows_of(scaled, plotted, ("default",)):
                error = row.max_error if max_error is not None else row.rmse
                if error and row.bits_per_value:
                    point = (unit.scale * error, row.bits_per_value)
                    points.setdefault(row.codec, []).append(point)
    return Comparison(
        str(array.name or "field"), values.shape, goal, unit.label,
        tuple(_in_unit(row, unit.scale) for row, _ in outcomes), points,
        str(array.attrs.get("units", "")), _seen(data.values, model), ordered,
        {row.codec: decoded for row, decoded in outcomes if decoded is not None},
    )  # fmt: skip


def _seen(values: npt.NDArray[Any], model: str | Model) -> int:
    """How many of these globes are among those that the model learned from."""
    found = None if model == NO_MODEL else load_model(model)
    if found is None or found.reference is None:
        return 0
    known = found.offset + found.reference.numbers / FRACTION
    if known.shape[1:] != values.shape[1:]:
        return 0
    near = (np.abs(known - globe).max(axis=(1, 2)) <= 1 / FRACTION for globe in values)
    return sum(bool(same.any()) for same in near)


def _known(name: str, known: dict[str, str]) -> str:
    simple = {key.replace(" ", "").replace("-", ""): value for key, value in known.items()}
    found = simple.get(name.lower().replace(" ", "").replace("-", ""))
    if found is None:
        there = ", ".join(known.values())
        raise ValueError(f"no codec {name!r} to compare with; there are: {there}")
    return found


def _own(
    values: npt.NDArray[Any],
    chunk: Chunk,
    goal: Goal,
    model: str | Model,
    effort: str,
    place: dict[str, Any],
) -> _Outcome:
    controls = {name: value for name, value in asdict(goal).items() if value is not None}
    name = OWN if effort == "default" else f"{OWN} {effort}"
    codec = COINppCodec(model, effort=effort, **controls, **place)
    # What was compiled is loaded, and what the model knows of the grid is worked out, only once.
    # _decode_payload decodes again what codec.decode would find among the chunks decoded lately.
    with checked_before():  # the table shows the errors
        codec._decode_payload(codec.encode(values))
        start = time.perf_counter()
        payload = codec.encode(values)
    middle = time.perf_counter()
    decoded = codec._decode_payload(payload).reshape(chunk.values.shape)
    end = time.perf_counter()
    setting = "no model" if model == NO_MODEL else codec.model
    result = peers.Result(
        name, setting, len(payload), **chunk.errors(decoded),
        encode_seconds=middle - start, decode_seconds=end - middle,
    )  # fmt: skip
    return _row(result, chunk), decoded


def _peer(name: str, chunk: Chunk, goal: Goal) -> _Outcome:
    try:
        found = peers.smallest(name, chunk, goal)
    except NotInstalledError as error:
        return Row(name, note=f"not installed: {error}"), None
    except Exception as error:  # whatever a foreign library does, the table must appear
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        return Row(name, note=f"failed: {reason}"), None
    if found is None:
        return Row(name, note="no setting meets it"), None
    result, decoded = found
    return _row(result, chunk), decoded


def _row(result: peers.Result, chunk: Chunk) -> Row:
    plain = 4 * chunk.values.size
    return Row(
        result.peer, result.setting, result.nbytes, plain / result.nbytes,
        8 * result.nbytes / chunk.values.size, result.max_error, result.rmse, result.bias,
        plain / max(result.encode_seconds, 1e-9) / 1e6,
        plain / max(result.decode_seconds, 1e-9) / 1e6,
    )  # fmt: skip


def _in_unit(row: Row, scale: float) -> Row:
    if row.nbytes is None or scale == 1:
        return row
    errors = {n: scale * getattr(row, n) for n in ("max_error", "rmse", "bias")}
    return replace(row, **errors)
