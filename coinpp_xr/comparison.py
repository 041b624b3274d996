"""What this package and other codecs make of the same chunk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import inf, prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr import peers
from coinpp_xr.coarseness import checked_before
from coinpp_xr.codecs.base import NO_MODEL, WITHOUT_MODEL
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.comparison_table import OWN, Comparison, Row
from coinpp_xr.data.sources import check_claim
from coinpp_xr.labels import display_unit, unit_settings
from coinpp_xr.models import Model, load_model
from coinpp_xr.peers import Goal, NotInstalledError
from coinpp_xr.peers.views import View, views_of
from coinpp_xr.progress import Progress, announce, in_words
from coinpp_xr.reference import FRACTION
from coinpp_xr.selection import Layout

# What a rate-distortion plot shows beside this package, at these multiples of the goal.
PLOTTED = ("SZ3", "SPERR", "ZFP", "JPEG 2000", "PCodec")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_MOST_GLOBES = 64
# Values that are enough to see who is ahead; all of a large field would take hours. Two parts of
# large globes still go the way that this package has for those.
_SAMPLE_VALUES = 270_000
# Codecs also use what is alike from one field to the next.
_FEWEST_GLOBES = 2
INTERRUPTED = "interrupted"
# Of this package, per million values: measured on two cores, encoded twice and decoded twice.
_OWN_SECONDS = 30.0

_Outcome = tuple[Row, npt.NDArray[Any] | None]


@dataclass(frozen=True)
class _Run:
    """One codec at one goal, and about how many seconds that takes."""

    codec: str
    goal: Goal
    call: Callable[[], _Outcome]
    seconds: float


def compare(
    array: xr.DataArray,
    *,
    max_error: float | None = None,
    target_rmse: float | None = None,
    names: Sequence[str] | None = None,
    model: str | Model = "t2m-46x90",
    chunk: int = _MOST_GLOBES,
    curves: bool = False,
    whole: bool = False,
) -> Comparison:
    """Compare on the first globes of an array, or on a sample of them where they are large.

    Terminals and notebooks are told how long it will take and how far it is. Ctrl-C ends it with
    what is done by then; the other codecs' rows say that they were interrupted.

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
    whole : bool
        Take all of these globes. Default: of more than 270,000 values, the first globes and, where
        two of them are still more, the rows and columns in their middle.

    Raises
    ------
    ValueError
        For unknown peers, where not one of the two goals is given, where no value is finite,
        or where the globes to take are more than config ``max_decode_bytes``.
    """
    if (max_error is None) == (target_rmse is None):
        raise ValueError("give max_error or target_rmse, one of the two")
    known = {name.lower(): name for name in (*peers.PEERS, *peers.SLOW_PEERS)}
    wanted = list(peers.PEERS) if names is None else [_known(name, known) for name in names]
    layout = Layout.of(array)
    everything = ordered = array.transpose(*layout.dims)
    time_dim = layout.batch[layout.time_axis] if layout.batch else None
    others = {dim: 0 for dim in layout.batch if dim != time_dim}
    ordered = ordered.isel(others)
    if time_dim is not None:
        ordered = ordered.isel({time_dim: slice(0, chunk)})
    ordered = ordered if whole else _sample(ordered, layout.cells.dims)
    layout = Layout.of(ordered)
    check_claim(ordered.nbytes, 0, inf)
    values = np.asarray(ordered.to_numpy())
    if not np.isfinite(values).any():
        raise ValueError(
            f"{array.name or 'the array'} has no finite value in the {values.size:,} that would be "
            "compared"
        )
    views = views_of(values, layout.cells)
    data = views[0].chunk
    goal = Goal(max_error, target_rmse)
    found = None if model in WITHOUT_MODEL else load_model(model)
    unit = unit_settings(found, array.attrs)
    place = layout.codec_settings({}) | unit
    for name in ("time_axis", "valid_range"):
        place.pop(name, None)

    def runs_at(goal: Goal, names: Iterable[str], efforts: Sequence[str]) -> list[_Run]:
        own = (
            _Run(
                _own_name(effort), goal,
                partial(_own, values, views[0], goal, model, effort, place),
                _OWN_SECONDS * values.size / 1e6,
            )
            for effort in efforts
        )  # fmt: skip
        others = (
            _Run(
                name, goal, partial(_peer, name, views, goal),
                peers.SECONDS.get(name, 0.0) * values.size / 1e6,
            )
            for name in names
        )  # fmt: skip
        return [*own, *others]

    efforts = ("default", "fast") if max_error is not None else ("default",)
    runs = runs_at(goal, wanted, efforts)
    if curves:
        plotted = [name for name in PLOTTED if name in wanted]
        for factor in (f for f in FACTORS if f != 1):
            scaled = Goal(*(g and factor * g for g in (max_error, target_rmse)))
            runs += runs_at(scaled, plotted, ("default",))
    done = _carry_out(runs)
    outcomes = [
        done.get((run.codec, goal), (Row(run.codec, note=INTERRUPTED), None))
        for run in runs
        if run.goal is goal
    ]
    outcomes.sort(key=lambda outcome: (outcome[0].nbytes is None, outcome[0].nbytes or 0))
    points: dict[str, list[tuple[float, float]]] = {}
    for (codec, _), (row, _) in done.items() if curves else ():
        error = row.max_error if max_error is not None else row.rmse
        if codec in (OWN, *PLOTTED) and error and row.bits_per_value:
            points.setdefault(row.codec, []).append((error, row.bits_per_value))
    return Comparison(
        str(array.name or "field"), values.shape, goal, display_unit(array.attrs).label,
        tuple(row for row, _ in outcomes), points,
        str(array.attrs.get("units", "")), _seen(data.values, found, **unit), ordered,
        {row.codec: decoded for row, decoded in outcomes if decoded is not None},
        everything.shape if ordered.size < everything.size else (),
    )  # fmt: skip


def _sample(ordered: xr.DataArray, dims: tuple[Any, ...]) -> xr.DataArray:
    """A part that codecs can be tried on in minutes; lists of cells stay whole."""
    batch, shape = ordered.shape[: -len(dims)], ordered.shape[-len(dims) :]
    globes, cells = prod(batch), prod(shape)
    if globes * cells <= _SAMPLE_VALUES:
        return ordered
    count = max(min(globes, _FEWEST_GLOBES), _SAMPLE_VALUES // cells)
    share = min(1.0, sqrt(_SAMPLE_VALUES / (count * cells)))
    where = {dim: slice(0, count) for dim in ordered.dims if dim not in dims}
    for dim, n in zip(dims, shape, strict=True) if len(dims) == 2 else ():
        part = max(1, int(share * n))
        where[dim] = slice((n - part) // 2, (n - part) // 2 + part)
    return ordered.isel(where)


def _carry_out(runs: Sequence[_Run]) -> dict[tuple[str, Goal], _Outcome]:
    """Outcomes by codec and goal; those before Ctrl-C if there is one."""
    seconds = sum(run.seconds for run in runs)
    codecs = len({run.codec for run in runs})
    announce(
        f"comparing {codecs} codecs takes about {in_words(seconds)}; Ctrl-C keeps what is done"
    )
    done: dict[tuple[str, Goal], _Outcome] = {}
    # In tenths of a second, each run at least one.
    steps = [1 + round(10 * run.seconds) for run in runs]
    with Progress("comparing", sum(steps), patience=0) as progress:
        try:
            for run, count in zip(runs, steps, strict=True):
                progress.describe(run.codec)
                done[run.codec, run.goal] = run.call()
                progress.step(count)
        except KeyboardInterrupt:
            announce(f"stopped with {len(done)} of {len(runs)} results")
    return done


def _seen(
    values: npt.NDArray[Any], found: Model | None, to_model_unit: tuple[float, float] = (1, 0)
) -> int:
    """How many of these globes are among those that the model learned from."""
    if found is None or found.reference is None:
        return 0
    known = found.offset + found.reference.numbers / FRACTION
    if known.shape[1:] != values.shape[1:]:
        return 0
    scale, offset = to_model_unit
    globes = scale * values.astype(np.float64) + offset
    near = (np.abs(known - globe).max(axis=(1, 2)) <= 1 / FRACTION for globe in globes)
    return sum(bool(same.any()) for same in near)


def _known(name: str, known: dict[str, str]) -> str:
    simple = {key.replace(" ", "").replace("-", ""): value for key, value in known.items()}
    found = simple.get(name.lower().replace(" ", "").replace("-", ""))
    if found is None:
        there = ", ".join(known.values())
        raise ValueError(f"no codec {name!r} to compare with; there are: {there}")
    return found


def _own_name(effort: str) -> str:
    return OWN if effort == "default" else f"{OWN} {effort}"


def _own(
    values: npt.NDArray[Any],
    view: View,
    goal: Goal,
    model: str | Model,
    effort: str,
    place: dict[str, Any],
) -> _Outcome:
    controls = {name: value for name, value in asdict(goal).items() if value is not None}
    codec = COINppCodec(model, effort=effort, **controls, **place)
    # What was compiled is loaded, and what the model knows of the grid is worked out, only once.
    # _decode_payload decodes again what codec.decode would find among the chunks decoded lately.
    with checked_before():  # the table shows the errors
        codec._decode_payload(codec.encode(values))
        start = time.perf_counter()
        payload = codec.encode(values)
    middle = time.perf_counter()
    decoded = codec._decode_payload(payload).reshape(view.chunk.values.shape)
    end = time.perf_counter()
    setting = "no model" if model == NO_MODEL else codec.model
    result = peers.Result(
        _own_name(effort), setting, len(payload), **view.chunk.errors(decoded),
        encode_seconds=middle - start, decode_seconds=end - middle,
    )  # fmt: skip
    return _row(result, values.size), decoded


def _peer(name: str, views: Sequence[View], goal: Goal) -> _Outcome:
    """The smallest of what a codec makes of all orders of the cells."""
    try:
        every = [(peers.smallest(name, view.chunk, goal), view) for view in views]
        found = min(
            ((*one, view) for one, view in every if one is not None),
            key=lambda one: one[0].nbytes, default=None,
        )  # fmt: skip
    except NotInstalledError as error:
        return Row(name, note=f"not installed: {error}"), None
    except Exception as error:  # whatever a foreign library does, the table must appear
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        return Row(name, note=f"failed: {reason}"), None
    if found is None:
        return Row(name, note="no setting meets it"), None
    result, decoded, view = found
    setting = f"{view.name} {result.setting}".lstrip()
    size = int(views[0].chunk.values.size)
    return _row(replace(result, setting=setting), size), view.in_order(decoded)


def _row(result: peers.Result, size: int) -> Row:
    plain = 4 * size
    return Row(
        result.peer, result.setting, result.nbytes, plain / result.nbytes,
        8 * result.nbytes / size, result.max_error, result.rmse, result.bias,
        plain / max(result.encode_seconds, 1e-9) / 1e6,
        plain / max(result.decode_seconds, 1e-9) / 1e6,
    )  # fmt: skip
