"""The encoder's choice under an RMSE: of all ways that suit, the one that takes the fewest bytes.

On grids of some size subbands of a wavelet come first. Spherical harmonics, along time as well, are
shorter where next to nothing is to be told and where fields were made of them; the pyramid where
errors are fine and fields full of fronts or gaps.
"""

from __future__ import annotations

from math import inf, log, log2, sqrt

import numpy as np

from coinpp_xr import patterns
from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields
from coinpp_xr.choice import LARGEST_ERROR, LEAST_ERROR, MEDIUM_GLOBE, alone, pyramid_payload
from coinpp_xr.coding.wavelets.stream import MOST_CELLS, SHORTEST_SIDE
from coinpp_xr.field_reading import decoded_whole
from coinpp_xr.fields import ROUNDING
from coinpp_xr.lattice import Bound, bound_for_rmse
from coinpp_xr.schemes import MOST_ITEMS
from coinpp_xr.ways import LARGE_GLOBE, Chunk

# Coding without the model is tried where a quick guess says that it takes at most so many times
# the bytes that the model's latents take; harmonics, of those of wavelets.
_WORTH_TRYING, _WORTH_HARMONICS = 1.3, 1.1
# Bits per value below which harmonics are tried on large grids, too: they take seconds.
_HARDLY_ANYTHING = {"default": 0.008, "paper": 0.008, "best": 0.03}
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
    wavelets = _wavelets(chunk, target_rmse) if medium else None
    payloads = [] if wavelets is None else [wavelets]
    if not fields.exact:  # else nothing has these values but a mask, or a lattice through them
        payloads += _transformed(chunk, target_rmse, wavelets)
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


def _transformed(chunk: Chunk, target_rmse: float, wavelets: bytes | None) -> list[bytes]:
    """Of the model's latents, and of spherical harmonics."""
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
    if not chunk.suits_transforms or not _harmonics_may_suit(chunk, wavelets, payloads):
        return payloads
    way = chunk.of_grid(target_rmse)
    if step > 0:
        promising = way.trial.estimated_bits(step, along_time) < most_bits
    else:
        most = inf if wavelets is None else 8 * _WORTH_HARMONICS * len(wavelets)
        promising = most == inf or way.trial.estimated_bits_at(target_rmse) < most
    quantized = way.trial.meet(target_rmse) if promising else None
    return payloads if quantized is None else [*payloads, way.payload(quantized)]


def _harmonics_may_suit(chunk: Chunk, wavelets: bytes | None, payloads: list[bytes]) -> bool:
    """Where they are not much slower than all else, or hardly anything is to be told."""
    if wavelets is None:
        return not payloads or chunk.effort != "fast"
    if chunk.effort == "fast":
        return False
    few = 8 * len(wavelets) < _HARDLY_ANYTHING[chunk.effort] * int(chunk.fields.valid.sum())
    return few or chunk.fields.values.shape[1] < LARGE_GLOBE


def _pyramid_may_suit(chunk: Chunk) -> bool:
    """Where errors are fine: wavelets reach across the edges of what is missing."""
    return chunk.effort == "best" or not bool(chunk.fields.valid.all())


def _wavelets(chunk: Chunk, target_rmse: float) -> bytes | None:
    """Subbands of a wavelet that meet an RMSE; values that must come back are kept by a mask."""
    from coinpp_xr.coding.wavelets.meeting import Meeting  # compiles, or loads what was compiled

    fields, sequences = chunk.fields, chunk.all_items
    cells, coded = fields.values.shape[1], fields.valid
    if fields.exact:
        coded = coded & ~np.isin(fields.values, fields.exact)
    if not coded.any() or cells > MOST_CELLS or min(fields.grid.shape) < SHORTEST_SIDE:
        return None
    spread = float(np.abs(fields.values).max(where=coded, initial=0))
    if not spread < _LARGEST or spread > _MOST_STEPS * target_rmse:
        return None
    found = Meeting(fields, sequences, coded, chunk.effort).smallest(target_rmse)
    if found is None:
        return None
    sections = {Tag.WAVELETS: found.head, Tag.STREAMS: found.streams}
    return pack_fields(chunk.values, coded, Kind.WAVELETS, sections, **chunk.place)


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
        decoded = decoded_whole(Payload.unpack(payload), chunk.background)
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
    return pack_fields(chunk.values, fields.valid, Kind.PATTERNS, {Tag.LEVELS: levels})
