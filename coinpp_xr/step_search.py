"""The search for the steps that values were quantized to before they came here.

Two questions, each answered from a sample and checked on all values: about how large are the steps
(differences of values are multiples of them), and which arithmetic gives the very same bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import log2
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.inner_steps import TENS, packed_twice
from coinpp_xr.source_steps import MOST, Arithmetic, Steps
from coinpp_xr.step_room import room, roomiest, roundest

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]

# Values that are looked at, of a field.
_SAMPLE = 8192
# Of the values of a sample, those that may lie beside all steps.
_FEW = 0.03
# Steps are larger than so many of the last places of the largest value.
_LEAST_PLACES = 4
# Values so small beside the largest one tell nothing of the steps: their last places are finer than
# double precision is where they were made.
_SMALL = 2.0**-18
# Of what is so near to zero or infinity powers overflow.
_LEAST = 1e-200
# Whole numbers of int16 and uint16, which tell on which one the arithmetic began.
_SIXTEEN_BITS = 1 << 16
_FEW_VALUES, _SOME_VALUES, _MOST_TRIED, _AT_ONCE = 24, 600, 100, 1 << 20


def find_steps(values: Array, known: Iterable[Steps] = ()) -> Steps | None:
    """The steps of the values of a field.

    Parameters
    ----------
    values : array, shape (values,)
        Finite floats, or integers.
    known : iterable of Steps
        Of other fields: if all values are on them, no others are looked for.

    Returns
    -------
    Steps or None
        Some values may not be on them. None where most are not.
    """
    sample = _sample(values)
    for steps in known:
        numbers, exact = steps.exactly(sample)
        # All on every other step are on coarser ones.
        finest = np.gcd.reduce(np.diff(numbers)) < 2
        if finest and exact.all() and steps.exactly(values)[1].all():
            return steps
    for outer in {replace(steps, ratio=1.0, phase=0.0) for steps in known if steps.ratio != 1}:
        if outer.exactly(sample)[1].all() and outer.exactly(values)[1].all():
            return packed_twice(outer, sample)
    if values.dtype.kind != "f":
        return _of_integers(values)
    if len(sample) < 2:
        return Steps(1.0, float(sample[0])) if len(sample) else None
    double = sample.astype(np.float64)
    rounded = values.dtype.itemsize == 8 and bool(
        (sample.astype(np.float32) == sample).all() and (values.astype(np.float32) == values).all()
    )
    single = rounded or values.dtype.itemsize == 4
    place = _place(double, single=single)
    found = None if place is None else _rough_step(double, place)
    if place is None or found is None:
        return None
    best, missed = None, _FEW
    for steps in _arithmetics(double, *found, place, single=single):
        if rounded and steps.arithmetic == Arithmetic.DOUBLE:
            steps = replace(steps, arithmetic=Arithmetic.ROUNDED)
        share = 1 - float(steps.exactly(sample)[1].mean())
        if share <= missed:
            best, missed = steps, share
        if share == 0:
            break
    return None if best is None else packed_twice(best, sample)


def rough_step(values: Array) -> float | None:
    """About how far apart the steps of a field are; None where there seem to be none.

    Quick: it is not known yet whether any arithmetic gives these values.

    Parameters
    ----------
    values : float array, shape (values,)
        Finite.
    """
    sample = _sample(values).astype(np.float64)
    place = _place(sample, single=values.dtype.itemsize == 4)
    found = None if place is None or len(sample) < 2 else _rough_step(sample, place)
    return None if found is None else found[0]


def _place(sample: Float64, *, single: bool) -> float | None:
    """The last place of the largest value, of those in order; None where powers overflow."""
    largest = max(abs(sample[0]), abs(sample[-1])) if len(sample) else 0.0
    if not _LEAST < largest < 1 / _LEAST:
        return None
    # In double precision products and offsets may have been far larger than what they add up to.
    return float(np.spacing(np.float32(largest)) if single else 64 * np.spacing(largest))


def _sample(values: Array) -> Array:
    """Distinct values in order, among them the lowest and the highest."""
    if len(values) == 0:
        return values
    some = values[:: max(1, len(values) // _SAMPLE)]
    return np.unique(np.concatenate([some, values.min(keepdims=True), values.max(keepdims=True)]))


def _of_integers(values: Array) -> Steps | None:
    if len(values) == 0:
        return None
    low, high = int(values.min()), int(values.max())
    return Steps(1.0, first=(low + high) // 2) if high - low < MOST else None


# ---- about how large -----------------------------------------------------------------------------


def _rough_step(values: Float64, place: float) -> tuple[float, float, float] | None:
    """The step, a value on it, and how far off the step may be; of distinct values in order."""
    differences = np.diff(values)
    starts = [differences.min(), *np.quantile(differences, [0.02, 0.1, 0.3])]
    # Of what was packed twice, 109 and 110 steps may be the smallest that there are.
    further = np.diff(np.sort(differences))
    further = further[further >= _LEAST_PLACES * place]
    starts += list(np.quantile(further, [0, 0.02, 0.1])) if len(further) else []
    for start in starts:
        if start < _LEAST_PLACES * place:
            continue
        # The smallest difference may be several steps.
        for parts in range(1, 6):
            step = float(start) / parts
            if (values[-1] - values[0]) / step > MOST or step < _LEAST_PLACES * place / 2:
                break
            found = _refined(values, step, 2 * place / parts, place)
            if found is not None:
                return found
    return None


def _refined(
    values: Float64, step: float, error: float, place: float
) -> tuple[float, float, float] | None:
    """A step, more and more exactly: from differences of few steps to those of many."""
    for anchor in (len(values) // 2, len(values) // 3, 2 * len(values) // 3):
        distances = values - values[anchor]
        own, off = step, error
        for _ in range(40):
            # So far numbers can be told.
            some = np.abs(distances) <= 0.2 * own * own / off
            counted = np.rint(distances[some] / own)
            rest = np.abs(distances[some] - counted * own)
            good = rest <= 2 * place + np.abs(counted) * off
            if good.mean() < 1 - _FEW:
                break
            numbers, lengths = counted[good], distances[some][good]
            longest = float(np.abs(numbers).max())
            if longest < 1:
                break
            own = float((numbers * lengths).sum() / (numbers * numbers).sum())
            if some.all():
                return own, float(values[anchor]), min(off, 2 * place / longest)
            if 2 * place / longest >= off:
                break
            off = 2 * place / longest
    return None


# ---- which arithmetic ----------------------------------------------------------------------------


def _arithmetics(
    values: Float64, step: float, origin: float, off: float, place: float, *, single: bool
) -> Iterator[Steps]:
    """Arithmetic that might give these values, the likeliest first."""
    numbers = np.rint((values - origin) / step)
    telling = np.abs(values) >= _SMALL * max(abs(values[0]), abs(values[-1]))
    near = np.abs(values - origin - numbers * step) <= 2 * place + np.abs(numbers) * off
    if (near & telling).sum() < 2:
        return
    values, numbers = values[near & telling], numbers[near & telling]
    likely = list(_round_numbers(step, 2 * off))
    if single:
        yield from _rounded_once(values, numbers, likely, step, off)
        yield from _beside(values, numbers, np.float32(step), np.float32)
        return
    wide, half = values.astype(np.longdouble), np.spacing(np.abs(values)) / 2
    # Where products are small beside the origin, all is as if rounded once.
    middle, _, _ = roomiest(wide - half, wide + half, numbers, step, off)
    for each in dict.fromkeys([*likely, middle, step]):
        yield from _in_double(values, numbers, each)
    for ten in TENS:
        binary = 2.0 ** round(log2(step * 10.0**ten))
        if ten and abs(binary / 10.0**ten - step) <= 2 * off:
            yield from _in_grib(values, numbers, binary, ten)
    for shift in (1, -1, 2, -2, 3, -3):
        yield from _in_double(values, numbers, _shifted(step, shift, np.float64))


def _round_numbers(step: float, off: float) -> Iterator[float]:
    """What somebody may have written: few digits, or a power of two over one of ten."""
    told = set()
    for digits in range(1, 9):
        told.add(float(f"{step:.{digits}g}"))
    for ten in TENS:
        told.add(2.0 ** round(log2(step * 10.0**ten)) / 10.0**ten)
    yield from sorted(
        (each for each in told if abs(each - step) <= off), key=lambda x: len(repr(x))
    )


def _rounded_once(
    values: Float64, numbers: Float64, likely: list[float], step: float, off: float
) -> Iterator[Steps]:
    """Double precision, rounded to single: every value tells an interval of what it was before."""
    below, above = (
        (values + np.nextafter(values.astype(np.float32), np.float32(end)).astype(np.float64)) / 2
        for end in (-np.inf, np.inf)
    )

    for each in likely:
        low, high = room(below, above, numbers, each)
        if low < high:
            yield Steps(each, roundest(float(low), float(high)))
    middle, low, high = roomiest(below, above, numbers, step, off)
    yield Steps(middle, roundest(low, high) if low < high else (low + high) / 2)


def _beside(values: Float64, numbers: Float64, step: Any, number: Any) -> Iterator[Steps]:
    """Single precision all the way: steps and origins that are next to these."""
    whole = numbers.astype(np.int64)
    best, fewest = None, len(values) + 1
    for shift in range(-4, 5):
        own = _shifted(float(step), shift, number)
        origin = float(number(np.median(values - own * numbers)))
        for other in range(-4, 5):
            steps = Steps(own, _shifted(origin, other, number), arithmetic=Arithmetic.SINGLE)
            missed = int((steps.values(whole, np.dtype(np.float32)) != values).sum())
            if missed < fewest:
                best, fewest = steps, missed
    if best is not None:
        yield best


def _in_double(values: Float64, numbers: Float64, step: float) -> Iterator[Steps]:
    """Double precision all the way: what product and sum are rounded to tells the first number."""
    whole = numbers.astype(np.int64)
    low, high = int(whole.min()), int(whole.max())
    origin = float(np.median(values - step * numbers))
    starts = [-low, round(origin / step)] if abs(origin) < 2.0**52 * step else [-low]
    if high - low < _SIXTEEN_BITS:
        starts += range(-_SIXTEEN_BITS // 2 - low, _SIXTEEN_BITS - high)
    firsts = np.array(starts, np.int64)
    best: tuple[float, Steps | None] = (1 - _FEW, None)
    for count in (_FEW_VALUES, _SOME_VALUES):
        some = slice(None, None, max(1, len(values) // count))
        firsts, origins = _possible_origins(values[some], whole[some], firsts, step)
    for first, each in zip(firsts[:_MOST_TRIED], origins, strict=False):
        steps = Steps(step, float(each), first=int(first))
        share = float((steps.values(whole, np.dtype(np.float64)) == values).mean())
        if share > best[0]:
            best = share, steps
        if share == 1:
            break
    if best[1] is not None:
        yield best[1]


def _possible_origins(
    values: Float64, whole: npt.NDArray[np.int64], firsts: npt.NDArray[np.int64], step: float
) -> tuple[npt.NDArray[np.int64], Float64]:
    """First numbers with which some origin gives these values, and those origins."""
    half = np.spacing(np.abs(values)).astype(np.longdouble) / 2
    possible = np.zeros(len(firsts), np.bool_)
    origins = np.zeros(len(firsts))
    at_once = max(1, _AT_ONCE // max(len(values), 1))
    for at in range(0, len(firsts), at_once):
        some = slice(at, at + at_once)
        products = (whole + firsts[some, None]) * step
        rest = values - products.astype(np.longdouble)
        low, high = (rest - half).max(axis=1), (rest + half).min(axis=1)
        # Few of these intervals hold a double at all; halves may be rounded to the other side.
        middle = ((low + high) / 2).astype(np.float64)
        same = (products + middle[:, None] == values).mean(axis=1) > 1 - _FEW
        origins[some], possible[some] = middle, (low <= middle) & (middle <= high) & same
    return firsts[possible], origins[possible]


def _in_grib(values: Float64, numbers: Float64, binary: float, ten: int) -> Iterator[Steps]:
    """(R + n · 2^E) / 10^D, as divisions or products, with R in single precision where n = 0."""
    power = 1.0
    for _ in range(abs(ten)):
        power = power * 10 if ten > 0 else power / 10
    inverse = 1.0
    for _ in range(abs(ten)):
        inverse = inverse / 10 if ten > 0 else inverse * 10
    whole = numbers.astype(np.int64)
    first = -int(whole.min())
    reference = float(np.median(values * power - binary * (whole + first)))
    for start, origin in ((first, float(np.float32(reference))), (first, reference)):
        for arithmetic, factor in (
            (Arithmetic.MULTIPLIED, inverse),
            (Arithmetic.MULTIPLIED, 10.0**-ten),
            (Arithmetic.DIVIDED, 10.0**ten),
        ):
            yield Steps(binary, origin, factor, arithmetic, start)
    # Decimals: whole numbers over a power of ten.
    start = round(float(np.median(values * power / binary - whole)))
    yield Steps(binary, 0.0, 10.0**ten, Arithmetic.DIVIDED, start)


def _shifted(value: float, places: int, number: Any) -> float:
    found = number(value)
    for _ in range(abs(places)):
        found = np.nextafter(found, number(np.inf if places > 0 else -np.inf))
    return float(found)
