"""The encoder's choice under a bound: of all ways that suit, what takes the fewest bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sized
from itertools import pairwise
from math import erf, inf, log2, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import residual
from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields
from coinpp_xr.coding.digits import suits
from coinpp_xr.fields import Sequences, are_few
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model
from coinpp_xr.reference import FRACTION
from coinpp_xr.schemes import MOST_ITEMS
from coinpp_xr.source_steps import SourceSteps
from coinpp_xr.ways import LARGE_GLOBE, Chunk, Way
from coinpp_xr.whole_numbers import on_lattice

Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating[Any]]

# A base under a bound is tried where a quick guess says that it takes at most so many times the
# bytes of those without a base.
_WORTH_A_BASE = 1.1
# Globes that tell what a residual alone takes; it is not tried against what takes clearly less.
_SAMPLED, _CLEARLY_LESS = 4, 0.7
_FEWEST_SAMPLED = 1 << 13
# Fields that differ from a reference's mean by less than this share of their variance are alike.
_ALIKE = 0.3
# Errors whose squares can be told.
LEAST_ERROR, LARGEST_ERROR = 1e-150, 1e150
# More bits per value than these are spent on noise, which no base foresees.
_NOISY = 2.5
# Of the bytes of other ways, what digits may take.
_WORTH_OF_DIGITS = 0.93
# One of so many is coded row by row, a value in microseconds, if that saves more than a tenth.
MEDIUM_GLOBE, _MUCH_SHORTER = 1 << 14, 0.9
# So many values take many seconds row by row, on small grids too: a part tells whether to.
_MANY_VALUES, _TELLING_VALUES = 1 << 19, 1 << 16
# Of a block that tells whether levels should refer to each other: fields along an axis, and
# values; and what they must save.
_MOST_SAMPLED, _TOLD_BY_PYRAMID, _TOLD_BY_ROWS, _WORTH_LEVELS = 32, 1 << 20, 1 << 18, 0.99
# RMSE of a base, in terms of the bound that a residual has to keep.
BASE_RMSE = (0.3, 0.4, 0.55)


def smallest_for_bound(chunk: Chunk, bound: Bound) -> bytes | None:
    """The smallest payload that keeps a pointwise bound, of the ways that effort and grid allow.

    Rain, cloud and the like run into values that many cells share, and are no smooth fields: they
    are shorter digit by digit. Others are not, unless steps of the source are wider.
    """
    if chunk.effort == "fast":
        return _smallest_of_smooth(chunk, bound)
    rough = bool(chunk.fields.exact)
    large = chunk.latents is None and chunk.fields.values.shape[1] >= MEDIUM_GLOBE
    if chunk.effort != "best" and rough and large:
        # A quick pyramid is enough to tell; where digits are shorter, nothing else is tried.
        pyramid = pyramid_payload(chunk, bound, "fast")
        worth = inf if pyramid is None else _WORTH_OF_DIGITS * len(pyramid)
        digits = _digits(chunk, bound, worth)
        return _smallest_of_smooth(chunk, bound) if digits is None else digits
    smallest = _smallest_of_smooth(chunk, bound)
    share = 1.0 if chunk.effort == "best" else _WORTH_OF_DIGITS
    worth = inf if smallest is None else share * len(smallest)
    every = rough or chunk.effort == "best"
    digits = _digits(chunk, bound, worth, wider_only=not every)
    return smallest if digits is None else digits


def once_more(chunk: Chunk, bound: Bound, before: bytes) -> bytes | None:
    """For a bound that is little narrower: in the way that was the shortest one before."""
    payload = Payload.unpack(before)
    axis = payload.sections.get(Tag.LEVEL_AXIS, (None,))[0]
    if payload.kind in (Kind.PYRAMID, Kind.PYRAMID_FROM_MODEL):
        return _pyramid_along(chunk, bound, axis, chunk.effort)
    if payload.kind in (Kind.RESIDUAL, Kind.RESIDUAL_FROM_MODEL):
        model = chunk.model if payload.kind.has_model else None
        return _alone_along(chunk, bound, model, axis)
    return smallest_for_bound(chunk, bound)


def _digits(chunk: Chunk, bound: Bound, worth: float, *, wider_only: bool = False) -> bytes | None:
    """Steps of a lattice digit by digit; None where they take more than so many bytes.

    They are slower and read as a whole, and must save something. With ``wider_only`` steps must be
    those of the source, and wider than the bound asks for.
    """
    items, cells = chunk.fields.values.shape
    few = items <= residual.MOST_ITEMS and are_few(items, cells)
    if not few or not suits(chunk.fields.grid.shape):
        return None
    found = on_lattice(chunk.fields, bound, chunk.all_items, wider_only=wider_only)
    if found is None:
        return None
    numbers, steps = found
    if not numbers.seem_smaller(worth, sampled=chunk.effort != "best"):
        return None
    source = SourceSteps([steps], np.zeros(items, np.intp))
    sections = {Tag.STEPS: source.pack(), Tag.DIGITS: numbers.digits()}
    payload = pack_fields(chunk.values, numbers.coded, Kind.DIGITS, sections, **chunk.place)
    return payload if len(payload) < worth else None


def _smallest_of_smooth(chunk: Chunk, bound: Bound) -> bytes | None:
    """Through the pyramid, row by row, or on a base.

    On large grids the pyramid is within some per cent wherever it is not ahead, and far faster.
    """
    pyramid = pyramid_payload(chunk, bound, chunk.effort)
    if pyramid is not None and chunk.latents is None and chunk.effort != "best":
        cells = chunk.fields.values.shape[1]
        if chunk.effort == "fast" or cells >= LARGE_GLOBE:
            return pyramid
        many = chunk.values.size >= _MANY_VALUES
        if (many or cells >= MEDIUM_GLOBE) and not _rows_are_shorter(chunk, bound):
            return pyramid
    other = _smallest_around_residuals(chunk, bound)
    return min((p for p in (pyramid, other) if p is not None), key=len, default=None)


def _rows_are_shorter(chunk: Chunk, bound: Bound) -> bool:
    """Whether some fields that follow each other are much shorter coded row by row: two, or of
    small grids more; or a block of levels and times."""
    cells = chunk.fields.values.shape[1]
    blocks = list(_blocks(chunk, _TOLD_BY_ROWS))
    if blocks:
        pairs = [
            (chunk.pyramid(bound, some, chunk.effort), _by_rows(chunk, bound, some))
            for _, apart, together in blocks[:1]
            for some in (apart, together)
        ]
        sizes = [[inf if one is None else len(one) for one in pair] for pair in pairs]
        pyramid, rows = (min(some) for some in zip(*sizes, strict=True))
    else:
        order = chunk.all_items.order
        count = min(max(2, _TELLING_VALUES // cells), order.shape[1])
        start = max(order.shape[1] // 2 - count // 2, 0)
        some = Sequences(order[None, len(order) // 2, start : start + count])
        coded, by_rows = chunk.pyramid(bound, some, chunk.effort), _by_rows(chunk, bound, some)
        pyramid = inf if coded is None else len(coded)
        rows = inf if by_rows is None else len(by_rows)
    share = _MUCH_SHORTER if cells >= MEDIUM_GLOBE else 1.0
    return bool(rows < inf and rows < share * pyramid)


def _by_rows(chunk: Chunk, bound: Bound, some: Sequences) -> bytes | None:
    """Some fields coded row by row, quickly."""
    found = residual.encode(chunk.fields, bound, some, thorough=False)
    return None if found is None else found.section


def pyramid_payload(chunk: Chunk, bound: Bound, effort: str, slack: int = 0) -> bytes | None:
    """In a pyramid, along the second axis that seems to save most, if any does."""

    def quickly(some: Sequences) -> Sized | None:
        return chunk.pyramid(bound, some, "fast")

    axis = _level_axis(chunk, quickly, _TOLD_BY_PYRAMID)
    return _pyramid_along(chunk, bound, axis, effort, slack)


def _pyramid_along(
    chunk: Chunk, bound: Bound, axis: int | None, effort: str, slack: int = 0
) -> bytes | None:
    coded = chunk.pyramid(bound, chunk.items_along(axis), effort, slack)
    if coded is None:
        return None
    sections = {Tag.PYRAMID: coded.head, Tag.STREAMS: coded.streams}
    valid = chunk.fields.valid & ~coded.kept
    if coded.refers_to_background:
        kind = Kind.PYRAMID_FROM_MODEL
        header = chunk.known | chunk.place
        return pack_fields(chunk.values, valid, kind, sections, level_axis=axis, **header)
    return pack_fields(chunk.values, valid, Kind.PYRAMID, sections, level_axis=axis, **chunk.place)


def _level_axis(chunk: Chunk, code: Callable[[Sequences], Sized | None], values: int) -> int | None:
    """A second axis along which fields should refer to each other: levels, members, ...

    A block of fields in the middle tells, coded with and without it.
    """
    best, least = None, _WORTH_LEVELS
    for axis, *ways in _blocks(chunk, values):
        apart, together = (inf if (c := code(some)) is None else len(c) for some in ways)
        if apart < inf and together < least * apart:
            best, least = axis, together / apart
    return best


def _blocks(chunk: Chunk, values: int) -> Iterator[tuple[int, Sequences, Sequences]]:
    """Every second axis, and a block of fields in the middle: each level by itself, and all.

    About so many ``values``, if there are as many.
    """
    time, batch = chunk.place["time_axis"], chunk.values.shape[:-2]
    cells = chunk.fields.values.shape[1]
    most = int(np.clip(sqrt(values / cells), 2, _MOST_SAMPLED))
    for axis, length in enumerate(batch):
        if axis == time or length == 1:
            continue
        every = chunk.items_along(axis)
        block = every.order.reshape(-1, every.levels, every.order.shape[1])
        block = block[len(block) // 2]
        for along in (0, 1):
            first = max(0, (block.shape[along] - most) // 2)
            block = np.take(block, range(first, min(first + most, block.shape[along])), along)
        yield axis, Sequences(block), Sequences(block, len(block))


def _smallest_around_residuals(chunk: Chunk, bound: Bound) -> bytes | None:
    """The smallest payload that holds a residual: on some base, or on none."""
    payloads: list[bytes] = []
    sampled = _sampled_bits(chunk, bound)
    if sampled is None:
        payload = alone(chunk, bound)
        payloads += [] if payload is None else [payload]
    expected = sampled or 8.0 * min(map(len, payloads), default=chunk.values.nbytes)
    bases = list(_bases(chunk, bound, _WORTH_A_BASE * expected))
    # Of two bases that promise about the same, the larger one is not worth the time.
    least = min((guess for _, _, guess in bases), default=inf)
    most = least if chunk.effort == "fast" else _WORTH_A_BASE * least
    while bases:  # let go one by one: each holds as much as the chunk, several times
        way, rmse, guess = bases.pop(0)
        payload = _with_base(chunk, bound, way, rmse) if guess <= most else None
        payloads += [] if payload is None else [payload]
    smallest = 8 * min(map(len, payloads), default=chunk.values.nbytes)
    if sampled is not None and smallest > _CLEARLY_LESS * sampled:
        payload = alone(chunk, bound)
        payloads += [] if payload is None else [payload]
    return min(payloads, key=len, default=None)


def _with_base(chunk: Chunk, bound: Bound, way: Way, rmse: float) -> bytes | None:
    """A base of some error, and what it leaves."""
    quantized = way.trial.meet(rmse)
    if quantized is None:
        return None
    base = way.trial.synthesis.values(quantized.coefficients).astype(np.float64)
    # What a base leaves is noise: there is nothing to look around for.
    on_top = residual.encode(chunk.fields, bound, chunk.all_items, base, thorough=False)
    return None if on_top is None else way.payload(quantized, on_top)


def _sampled_bits(chunk: Chunk, bound: Bound) -> float | None:
    """What a residual alone takes, by a few globes of the first sequence.

    None where they are too small or too large a part of the chunk to tell.
    """
    order = chunk.all_items.order[:1, :_SAMPLED]
    values, coded = (int(chunk.fields.valid[w].sum()) for w in (order[0], slice(None)))
    if values < _FEWEST_SAMPLED or 2 * values > coded:
        return None
    sample = residual.encode(chunk.fields, bound, Sequences(order), thorough=False)
    return None if sample is None else 8 * len(sample.section) / values * coded


def _teachers(chunk: Chunk) -> Iterator[Model | None]:
    """Whose reference to start from: the model's, where the fields look like it; or none."""
    model = chunk.model
    if model is not None and model.reference is not None:
        reference = model.reference.on(chunk.fields.grid)
        if reference is not None:
            expected = (model.offset + reference.mean(axis=0) / FRACTION).reshape(1, -1)
            means = chunk.fields.sequence_means()[:, None]
            if chunk.fields.energy(expected) < _ALIKE * chunk.fields.energy(means):
                yield model
    yield None


def alone(chunk: Chunk, bound: Bound) -> bytes | None:
    """A payload of nothing but a residual, from the model's reference or from nothing."""
    payloads = (_alone_from(chunk, bound, model) for model in _teachers(chunk))
    return next((payload for payload in payloads if payload is not None), None)


def _alone_from(chunk: Chunk, bound: Bound, model: Model | None) -> bytes | None:
    axis = _level_axis(chunk, lambda some: _by_rows(chunk, bound, some), _TOLD_BY_ROWS)
    return _alone_along(chunk, bound, model, axis)


def _alone_along(chunk: Chunk, bound: Bound, model: Model | None, axis: int | None) -> bytes | None:
    fields, place = chunk.fields, chunk.place
    # Levels tell what surroundings would, in a third of the time.
    quickly = axis is not None and chunk.effort != "best" and chunk.values.size >= _MANY_VALUES
    coded = residual.encode(
        fields, bound, chunk.items_along(axis), model=model, mean_error=chunk.mean_error,
        thorough=chunk.effort != "fast" and not quickly,
    )  # fmt: skip
    if coded is None:
        return None
    valid, sections = fields.valid & ~coded.kept, {Tag.RESIDUAL: coded.section}
    if model is not None:
        kind = Kind.RESIDUAL_FROM_MODEL
        header = chunk.known | place
        return pack_fields(chunk.values, valid, kind, sections, level_axis=axis, **header)
    return pack_fields(chunk.values, valid, Kind.RESIDUAL, sections, level_axis=axis, **place)


def _bases(chunk: Chunk, bound: Bound, most_bits: float) -> Iterator[tuple[Way, float, float]]:
    """Bases that seem worth a try, with the RMSE that seems best for them and a guess at bits."""
    coded = int(chunk.fields.valid.sum())
    noisy = most_bits > _NOISY * coded and coded > _FEWEST_SAMPLED
    ordinary = LEAST_ERROR < bound.error < LARGEST_ERROR and len(chunk.fields.values) <= MOST_ITEMS
    if bound.relative or noisy or not ordinary or chunk.fields.exact:
        return  # steps on top of a base do not meet values that must come back exactly
    ways = [chunk.of_latents()]
    if chunk.suits_transforms:
        ways.append(chunk.of_grid(BASE_RMSE[0] * bound.error))
    for way in ways:
        if way is None:
            continue
        guesses = {
            share: way.trial.estimated_bits_at(share * bound.error)
            + _rounded_entropy(share) * coded
            for share in BASE_RMSE
        }
        share = min(guesses, key=lambda s: guesses[s])
        if guesses[share] < most_bits:
            yield way, share * bound.error, guesses[share]


def _rounded_entropy(share: float) -> float:
    """Bits per value of normal noise, rounded to steps of twice the bound; noise / bound given."""
    edges = [(2 * k + 1) / (share * sqrt(2)) for k in range(20)]
    tails = [1 - erf(edge) for edge in edges]  # both signs
    chances = [1 - tails[0]]
    for near, far in pairwise(tails):
        chances += [(near - far) / 2] * 2
    return -sum(p * log2(p) for p in chances if p > 0)
