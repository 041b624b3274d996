"""The encoder's choice under an RMSE: of all ways that suit, the one that takes the fewest bytes.

On grids of some size coefficients of a transform come first: of wavelets or of waves, from fields
before and after or along time, whichever a quick guess says. The pyramid is shorter where errors
are fine and fields full of fronts or gaps.
"""

from __future__ import annotations

from math import log, log2, sqrt
from typing import TYPE_CHECKING

import numpy as np

from coinpp_xr import patterns
from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields
from coinpp_xr.choice import LARGEST_ERROR, LEAST_ERROR, MEDIUM_GLOBE, alone, pyramid_payload
from coinpp_xr.coding.scattered.surroundings import surroundings_on
from coinpp_xr.coding.wavelets.plan import bears_frequencies
from coinpp_xr.coding.wavelets.stream import MOST_CELLS, SHORTEST_SIDE
from coinpp_xr.field_reading import decoded_whole
from coinpp_xr.fields import ROUNDING, extremes
from coinpp_xr.lattice import Bound, bound_for_rmse
from coinpp_xr.schemes import MOST_ITEMS
from coinpp_xr.ways import LARGE_GLOBE, Chunk

if TYPE_CHECKING:
    from coinpp_xr.coding.wavelets.arrays import Arrays

# Coding without the model is tried where a quick guess says that it takes at most so many times
# the bytes that the model's latents take.
_WORTH_TRYING = 1.3
# Bits per value below which waves are looked at on large grids, too.
_HARDLY_ANYTHING = {"default": 0.008, "paper": 0.008, "best": 0.03}
# Transforms are tried that a guess says take no more than so many times the shortest. Guesses are
# surer where there is something to count: bits.
_NEAR, _SURE = {"default": 1.0, "paper": 1.0, "best": 1.1}, 16_000
# Waves and transforms along time hold several times the memory of all fields, so that these have
# no more values.
_MOST_TRANSFORMED = 1 << 22
# What transforms along time must save.
_WORTH_ALL = 1.03
# Bits per value above which rounding to steps is tried, and on grids of some size the pyramid.
_FINE, _VERY_FINE = 0.5, 0.8
# At bounds around so many times the RMSE.
_BOUND_OF_RMSE = 1.8
# How much further than half a step a value may be then without one, in 1/64 of a step.
_SLACK = 8
# How often, how near is near enough, and what it aims at.
_TRIES, _NEAR_ENOUGH, _AIMED = 5, 0.985, 0.994
# Values that can be transformed, and of how many RMSEs.
_LARGEST, _MOST_STEPS = 1e34, 1e8


def smallest_for_rmse(chunk: Chunk, target_rmse: float) -> bytes | None:
    """The smallest payload that meets an area-weighted RMSE, if any does."""
    fields = chunk.fields
    if len(fields.values) > MOST_ITEMS or not LEAST_ERROR < target_rmse < LARGEST_ERROR:
        return None
    medium = fields.values.shape[1] >= MEDIUM_GLOBE
    payload = None
    if surroundings_on(fields.grid) is not None:  # transforms see rows and columns that are none
        payload = _pyramid(chunk, target_rmse, chunk.values.nbytes)
        if payload is not None and (medium or fields.exact):
            return payload
    payloads = [one for one in (payload, _in_subbands(chunk, target_rmse)) if one is not None]
    if not fields.exact:  # else nothing has these values but a mask, or a lattice through them
        payloads += _transformed(chunk, target_rmse, grid=not medium)
    worthwhile = min(map(len, payloads), default=chunk.values.nbytes)
    # Where rounding hides little, neighbours predict values better than a transform compacts them.
    bits = 8 * worthwhile / int(fields.valid.sum())
    if medium and (fields.exact or (bits > _VERY_FINE and _pyramid_may_suit(chunk))):
        pyramid = _pyramid(chunk, target_rmse, worthwhile)
        payloads += [] if pyramid is None else [pyramid]
    if not payloads or (not medium and (fields.exact or bits > _FINE)):
        rounded = _rounded(chunk, target_rmse)
        payloads += [] if rounded is None else [rounded]
    if not fields.exact and (not medium or chunk.effort == "best"):
        worthwhile = min(map(len, payloads), default=worthwhile)
        levels = _of_patterns(chunk, target_rmse, worthwhile)
        payloads += [] if levels is None else [levels]
    return min(payloads, key=len, default=None)


def _transformed(chunk: Chunk, target_rmse: float, *, grid: bool) -> list[bytes]:
    """Of the model's latents, and of harmonics of the grid."""
    payloads: list[bytes] = []
    step, along_time, most_bits = 0.0, True, 0.0
    way = chunk.of_latents()
    quantized = way.trial.meet(target_rmse) if way else None
    if way is not None and quantized is not None:
        payloads.append(way.payload(quantized))
        # Equal errors take about equal steps, so a guess at one step tells which way is shorter;
        # but where the latents hardly reach the target, their step says nothing about others.
        if way.trial.misfit < target_rmse**2 / 2:
            step, along_time = quantized.step * way.trial.unit, quantized.along_time
            most_bits = _WORTH_TRYING * way.trial.estimated_bits(step, along_time)
    suits = grid and chunk.suits_transforms and (not payloads or chunk.effort != "fast")
    if not suits:
        return payloads
    way = chunk.of_grid(target_rmse)
    promising = step == 0 or way.trial.estimated_bits(step, along_time) < most_bits
    quantized = way.trial.meet(target_rmse) if promising else None
    return payloads if quantized is None else [*payloads, way.payload(quantized)]


def _pyramid_may_suit(chunk: Chunk) -> bool:
    """Where errors are fine: wavelets reach across the edges of what is missing."""
    if chunk.effort == "fast":
        return False
    return chunk.effort == "best" or not bool(chunk.fields.valid.all())


def _in_subbands(chunk: Chunk, target_rmse: float) -> bytes | None:
    """Coefficients of a transform that meet an RMSE; values that must come back are kept by a
    mask."""
    from coinpp_xr.coding.wavelets.arrays import Arrays  # compiles, or loads what was compiled
    from coinpp_xr.coding.wavelets.meeting import Meeting

    fields, cells, coded = chunk.fields, chunk.fields.values.shape[1], chunk.fields.valid
    if fields.exact:
        coded = coded & ~np.isin(fields.values, fields.exact)
    if not coded.any() or cells > MOST_CELLS or min(fields.grid.shape) < SHORTEST_SIDE:
        return None
    low, high = extremes(fields.values, coded)
    spread = max(high, -low)
    if not spread < _LARGEST or spread > _MOST_STEPS * target_rmse:
        return None
    arrays = Arrays(fields, chunk.all_items, coded, target_rmse)
    ways = [arrays] if chunk.effort == "fast" else _promising(chunk, arrays, target_rmse)
    found = [Meeting(way, target_rmse, chunk.effort).smallest() for way in ways]
    best = min((one for one in found if one), key=len, default=None)
    if best is None:
        return None
    sections = {Tag.WAVELETS: best.head}
    if best.streams:
        sections[Tag.STREAMS] = best.streams
    return pack_fields(chunk.values, coded, Kind.WAVELETS, sections, **chunk.place)


def _promising(chunk: Chunk, arrays: Arrays, target_rmse: float) -> list[Arrays]:
    """Of wavelets and waves, from other fields and along time, what seems shortest."""
    from coinpp_xr.coding.wavelets.estimating import estimated_bits

    fields, order = chunk.fields, chunk.all_items.order
    first = estimated_bits(arrays, target_rmse)
    guesses = [(first, arrays)]

    def add(worth: float = 1.0, **how: bool) -> None:
        """A guess, after which those are forgotten that are far from it."""
        other = arrays.transformed(target_rmse, **how)
        guesses.append((worth * estimated_bits(other, target_rmse), other))
        least = min(bits for bits, _ in guesses)
        near = _NEAR[chunk.effort] if least > _SURE else _NEAR["best"]
        guesses[:] = [(bits, one) for bits, one in guesses if bits <= near * least]

    few = first < _HARDLY_ANYTHING[chunk.effort] * int(fields.valid.sum())
    small = fields.values.size <= _MOST_TRANSFORMED
    if (few or arrays.cells < LARGE_GLOBE) and small and chunk.bears_waves:
        add(waves=True)
    if order.shape[1] > 1 and small and bears_frequencies(order, arrays.cells):
        waves = min(guesses, key=lambda one: one[0])[1].are_waves
        # Who wants one field of them has to decode them all.
        add(_WORTH_ALL, waves=waves, along_time=True)
    return [one for _, one in guesses]


def _pyramid(chunk: Chunk, target_rmse: float, worth: int) -> bytes | None:
    """The smallest pyramid that meets an RMSE, for grids of some size.

    Its errors are no larger than where it adds no step, so that a bound leaves less than rounding
    to a lattice would: the bound is searched, and every try decoded. The first is a quick one, and
    the last, if it does not promise fewer bytes than are ``worth`` it.
    """
    fields, cells = chunk.fields, int(chunk.fields.valid.sum())
    tried: list[tuple[float, float]] = []
    error, best = _BOUND_OF_RMSE * target_rmse, None
    for effort in ("fast", *[chunk.effort] * _TRIES):
        payload = pyramid_payload(chunk, Bound(error), effort, _SLACK)
        if payload is None:
            break
        decoded = decoded_whole(Payload.unpack(payload), chunk.background, chunk.fields.grid)
        rmse = sqrt(fields.mean_squared_error(decoded.reshape(fields.values.shape)))
        if rmse <= target_rmse * (1 - ROUNDING):
            best = min((p for p in (payload, best) if p), key=len)
            if rmse > _NEAR_ENOUGH * target_rmse and effort == chunk.effort:
                break
        if not tried:
            # Half of the error takes a bit more of every value, or less where most are not told.
            rate = min(1.0, 8 * len(payload) / cells)
            more = rate * cells / 8 * log2(max(rmse, 1e-300) / target_rmse)
            if len(payload) + more > worth:
                break
        tried.append((log(error), log(max(rmse, 1e-300))))
        slope = 1.0
        if len(tried) > 1 and tried[-1][0] != tried[-2][0]:
            slope = (tried[-1][1] - tried[-2][1]) / (tried[-1][0] - tried[-2][0])
        error *= (_AIMED * target_rmse / rmse) ** (1 / min(max(slope, 0.4), 1.2))
    return best


def _rounded(chunk: Chunk, target_rmse: float) -> bytes | None:
    bound = bound_for_rmse(chunk.fields, target_rmse, chunk.fields.mean_squared_error)
    return None if bound is None else alone(chunk, bound)


def _of_patterns(chunk: Chunk, target_rmse: float, worthwhile: int) -> bytes | None:
    fields = chunk.fields
    shape = (len(fields.values), *fields.grid.shape)
    levels = patterns.meet(fields, shape, target_rmse, worthwhile)
    if levels is None:
        return None
    sections = {Tag.LEVELS: levels}
    return pack_fields(chunk.values, fields.valid, Kind.PATTERNS, sections, **chunk.place)
