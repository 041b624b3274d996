"""One array of patches ↔ one payload: images, volumes, sound, in whatever shape.

The array is cut into bands of patches, each with a stream of its own: several are coded at a time,
and one can be decoded without the others. All share one step, which is the rate control.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil, floor, isfinite, log2, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import residual
from coinpp_xr.bitstream import (
    Kind,
    Payload,
    Tag,
    pack_fields,
    pack_lossless,
    unpack_mask,
    unpack_special_values,
)
from coinpp_xr.coordinates import Plane
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.patches import CHANNELS, MOST_CELLS, MOST_CHANNELS, Layout, Patching
from coinpp_xr.quantization import STEPS_PER_OCTAVE, exponent_of, step_of
from coinpp_xr.residual import Bound
from coinpp_xr.schemes import PlaneFields, Sequences, round_to

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# What a bit may cost in squared steps. From 0.1 to 0.16 photographs differ by less than 0.05 dB.
_PRICE = 0.13
# Cells of a band. What a band teaches the coder is lost for the next.
BAND_CELLS = 1 << 19
_ATTEMPTS = 8
# A rate within this share of the one asked for is close enough.
_CLOSE = 0.99
# The error grows with so many powers of the step, and the size falls, before it is known better.
_SLOPES = {"error": 1.4, "size": -1.1}
# Octaves that a guess may be off by.
_FARTHEST = 12.0
# Bands that a first guess at the step is made by.
_SAMPLED = 3
# RMSE of a base under a bound, as a share of the bound.
_BASE_RMSE = 0.6
# Numbers beyond this are near the end of single precision, and kept exactly.
_LARGEST = 1e30
# Steps that single precision can count with.
_MOST_EXPONENT = 110 * STEPS_PER_OCTAVE
_HEADER = struct.Struct("<BBHHHBIff")
# The matrix of channels has entries in 1/127.
_WHOLE = 127


@dataclass(frozen=True)
class PatchRate:
    """The one rate control. Errors are those of the whole chunk.

    Parameters
    ----------
    rmse : float, optional
        Not exceeded.
    bits : float, optional
        Per cell, all channels together; the smallest error within them.
    bound : Bound, optional
    """

    rmse: float | None = None
    bits: float | None = None
    bound: Bound | None = None


def encode_patches(
    values: npt.NDArray[Any],
    layout: Layout,
    patching: Patching,
    rate: PatchRate,
    *,
    band_cells: int = BAND_CELLS,
) -> bytes:
    """Compress an array.

    Parameters
    ----------
    values : array
        Any dtype and memory order. What is no real number is stored without loss: other types, and
        of floats NaN, ±Inf and, under a bound, -0.0.
    layout : Layout
    patching : Patching
    rate : PatchRate
    band_cells : int
        Of separately decodable parts, about.

    Raises
    ------
    ValueError
        If there are too few axes.
    """
    if values.dtype.hasobject:
        raise TypeError("cannot compress objects; convert to a plain dtype first")
    if values.ndim < layout.axes:
        raise ValueError(
            f"needs at least {layout.axes} axes ({layout.spatial} of space, channels: "
            f"{layout.channels}), got shape {values.shape}"
        )
    kind, itemsize = values.dtype.kind, values.dtype.itemsize
    real = kind in "iu" or (kind == "f" and itemsize <= 8)
    n_channels = 0 if values.size == 0 else layout.sizes(values.shape)[1]
    if not real or not 0 < n_channels <= MOST_CHANNELS:
        return pack_lossless(values)
    patching = patching.fitted(layout.sizes(values.shape)[2])
    with np.errstate(over="ignore", invalid="ignore"):
        subject = _Subject.of(
            values, layout, patching, band_cells, exact_zeros=rate.bound is not None
        )
        payload = None if subject is None else _encode(subject, rate)
    if payload is None:
        return pack_lossless(values)
    if 4 * len(payload) > values.nbytes:  # tiny arrays, noise at a high rate
        payload = min(payload, pack_lossless(values), key=len)
    return payload


def _encode(subject: _Subject, rate: PatchRate) -> bytes | None:
    if rate.bound is not None:
        bound, integers = rate.bound, subject.values.dtype.kind != "f"
        if integers and not bound.relative:
            # Whole numbers differ by whole numbers: the next half is as good, and safe to compare.
            bound = Bound(floor(bound.error) + 0.5)
        candidates = [_with_residual(subject, bound, None)]
        # Near whole numbers a base may be rounded to others on another machine.
        if not bound.relative and not (integers and bound.error < 4):
            base = _search(subject, "error", (_BASE_RMSE * bound.error) ** 2)
            if base is not None:
                candidates.append(_with_residual(subject, bound, base))
        payloads = [payload for payload in candidates if payload is not None]
        payload = min(payloads, key=len, default=None)
        return payload if payload is not None and subject.keeps(payload, bound) else None
    if rate.rmse is not None:
        found = _search(subject, "error", rate.rmse**2)
    else:
        assert rate.bits is not None
        cells = subject.items * prod(subject.space)
        found = _search(subject, "size", rate.bits * cells / 8)
    return None if found is None else subject.pack(found)


# ---- what is coded -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Header:
    """What a decoder needs to know besides shape and step.

    Parameters
    ----------
    layout : Layout
    patching : Patching
    band_cells : int
        Of separately decodable parts, about.
    lowest, highest : float
        Of the values, in single precision.
    offsets : float64 array, shape (channels,)
        What zero stands for.
    axes : int8 array, shape (channels, channels)
        Directions of decorrelated channels, times 127; a decoder makes them orthonormal.
    """

    layout: Layout
    patching: Patching
    band_cells: int
    lowest: float
    highest: float
    offsets: Float64
    axes: npt.NDArray[np.int8]

    @cached_property
    def mixing(self) -> Float64:
        """Channels → decorrelated channels, orthonormal."""
        return _orthonormal(self.axes / _WHOLE) if len(self.axes) > 1 else np.eye(1)

    def pack(self) -> bytes:
        number = self.layout.spatial | CHANNELS.index(self.layout.channels) << 4
        head = _HEADER.pack(
            number, self.patching.levels, *self.patching.size, 0, self.band_cells,
            self.lowest, self.highest,
        )  # fmt: skip
        axes = self.axes.tobytes() if len(self.axes) > 1 else b""
        return head + self.offsets.astype("<f8").tobytes() + axes

    @classmethod
    def unpack(cls, data: bytes, shape: tuple[int, ...]) -> Header:
        """Parse and check against the array's shape.

        Raises
        ------
        CorruptPayloadError
        """
        damaged = CorruptPayloadError("the patches' header is damaged")
        if len(data) < _HEADER.size:
            raise damaged
        number, levels, z, y, x, zero, band_cells, lowest, highest = _HEADER.unpack_from(data)
        spatial, channels = number & 15, number >> 4
        if not 1 <= spatial <= 3 or channels >= len(CHANNELS) or zero != 0 or band_cells == 0:
            raise damaged
        layout = Layout(spatial, CHANNELS[channels])
        size = (z, y, x)
        if len(shape) < layout.axes or 0 in shape or 0 in size or prod(size) > MOST_CELLS:
            raise damaged
        if max(size[: 3 - spatial], default=1) > 1 or not lowest <= highest:
            raise damaged
        patching = Patching.of(size)
        if levels > patching.levels or levels == 0:
            raise damaged
        n = layout.sizes(shape)[1]
        wanted = 8 * n + (n * n if n > 1 else 0)
        if n > MOST_CHANNELS or len(data) != _HEADER.size + wanted:
            raise damaged
        offsets = np.frombuffer(data, "<f8", n, _HEADER.size).astype(np.float64)
        if not (np.abs(offsets) < _LARGEST).all():
            raise damaged
        axes = np.full((1, 1), _WHOLE, np.int8)
        if n > 1:
            axes = np.frombuffer(data, np.int8, n * n, _HEADER.size + 8 * n).reshape(n, n)
        return cls(layout, Patching(size, levels), band_cells, lowest, highest, offsets, axes)

    def n_bands(self, items: int, space: tuple[int, int, int]) -> int:
        """How many bands there are, without making them."""
        axis, items_at_a_time, cells = self._extent(space)
        return -(-items // items_at_a_time) * -(-space[axis] // cells)

    def bands(self, items: int, space: tuple[int, int, int]) -> list[_Band]:
        """In the order of their streams."""
        axis, items_at_a_time, cells = self._extent(space)
        return [
            _Band(
                axis, first, min(first + items_at_a_time, items),
                start, min(start + cells, space[axis]),
            )
            for first in range(0, items, items_at_a_time)
            for start in range(0, space[axis], cells)
        ]  # fmt: skip

    def _extent(self, space: tuple[int, int, int]) -> tuple[int, int, int]:
        """Of a band: along which axis it is cut, how many items, how many cells of the axis."""
        axis = next((a for a, n in enumerate(self.patching.size) if n > 1), 2)
        padded = self.patching.padded(space)
        if prod(padded) <= self.band_cells:
            return axis, self.band_cells // prod(padded), space[axis]
        rows = self.band_cells * padded[axis] // prod(padded) // self.patching.size[axis]
        return axis, 1, self.patching.size[axis] * max(1, rows)

    def finished(self, coefficients: Float32, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Decoded channels, (channels, z, y, x), as the array had them; not rounded yet."""
        working: Any = np.float32 if dtype.itemsize <= 2 or dtype == np.float32 else np.float64
        values = coefficients.astype(working, copy=False)
        if len(self.offsets) > 1:
            values = np.tensordot(self.mixing.T.astype(working), values, axes=1)
        values += self.offsets.astype(working)[:, None, None, None]
        return np.clip(values, working(self.lowest), working(self.highest), out=values)


@dataclass(frozen=True)
class _Band:
    """Items from ``first`` on, and of those the cells from ``start`` on along an axis."""

    axis: int
    first: int
    last: int
    start: int
    stop: int

    def touches(self, items: Bool, space: tuple[slice, ...]) -> bool:
        """Whether it holds any of some items, and of some cells."""
        cells = space[self.axis]
        inside = cells.start < self.stop and self.start < cells.stop
        return inside and bool(items[self.first : self.last].any())

    @property
    def slices(self) -> list[tuple[Any, ...]]:
        """Of an array (items, channels, z, y, x), item by item."""
        cut = [slice(None)] * 3
        cut[self.axis] = slice(self.start, self.stop)
        return [(item, slice(None), *cut) for item in range(self.first, self.last)]


@dataclass(frozen=True)
class _Coded:
    """All bands at one step, or some of them."""

    exponent: int
    streams: list[bytes]
    # Squared errors and numbers of cells, without and with what looks like padding.
    sums: npt.NDArray[np.float64]

    @property
    def error(self) -> float:
        """Mean squared; the larger one."""
        squared, counts = self.sums
        return float((squared / np.maximum(counts, 1)).max())

    @property
    def size(self) -> int:
        return sum(map(len, self.streams))


@dataclass(frozen=True, eq=False)
class _Subject:
    """An array to be coded.

    Parameters
    ----------
    values : array
        As given.
    arranged : array, shape (items, channels, z, y, x)
        With gaps filled.
    valid : bool array, same shape, or None
        What is not kept exactly; None for all.
    header : Header
    """

    values: npt.NDArray[Any]
    arranged: npt.NDArray[Any]
    valid: Bool | None
    header: Header

    @classmethod
    def of(
        cls,
        values: npt.NDArray[Any],
        layout: Layout,
        patching: Patching,
        band_cells: int,
        *,
        exact_zeros: bool,
    ) -> _Subject | None:
        """None where there is nothing to be coded but exactly."""
        valid = None
        if values.dtype.kind == "f":
            usable = np.isfinite(values) & (np.abs(values.astype(np.float64)) < _LARGEST)
            if exact_zeros:
                usable &= ~((values == 0) & np.signbit(values))
            if not usable.any():
                return None
            if not usable.all():
                values_filled = _filled(values, usable)
                valid = layout.arrange(usable)
                arranged = layout.arrange(values_filled)
        if valid is None:
            arranged = layout.arrange(values)
        n_channels = arranged.shape[1]
        offsets = np.array([arranged[:, c].mean(dtype=np.float64) for c in range(n_channels)])
        single = np.float32
        lowest = float(np.nextafter(single(arranged.min()), single(-np.inf)))
        highest = float(np.nextafter(single(arranged.max()), single(np.inf)))
        axes = _decorrelating(arranged)
        header = Header(layout, patching, band_cells, lowest, highest, offsets, axes)
        return cls(values, arranged, valid, header)

    @property
    def items(self) -> int:
        return len(self.arranged)

    @property
    def space(self) -> tuple[int, int, int]:
        z, y, x = self.arranged.shape[2:]
        return z, y, x

    @cached_property
    def bands(self) -> list[_Band]:
        return self.header.bands(self.items, self.space)

    def code(self, exponent: int, bands: list[_Band]) -> _Coded:
        """Some of the bands at a step.

        Raises
        ------
        OverflowError
            If the step is too small for the values.
        """

        def work(band: _Band) -> tuple[bytes, Float64]:
            with np.errstate(all="ignore"):  # of this thread
                return self._code_band(exponent, band)

        done = map_in_threads(work, bands)
        streams, sums = zip(*done, strict=True)
        return _Coded(exponent, list(streams), np.sum(sums, axis=0))

    def _code_band(self, exponent: int, band: _Band) -> tuple[bytes, Float64]:
        from coinpp_xr import bands  # compiles, or loads what was compiled

        header, step = self.header, step_of(exponent)
        walk = bands.encoder(header.patching)
        sums = np.zeros((2, 2))
        for where in band.slices:
            exact = self.arranged[where]
            decoded = header.finished(
                walk.encode(self._channels(exact), step, _PRICE)[_within(exact)], self.values.dtype
            )
            squared = (round_to(decoded, self.values.dtype).astype(np.float64) - exact) ** 2
            counted = np.ones(squared.shape) if self.valid is None else self.valid[where] * 1.0
            squared *= counted
            inner = self._inner(band, where[0])
            sums += [[squared[inner].sum(), squared.sum()], [counted[inner].sum(), counted.sum()]]
        return walk.finish(), sums

    @cached_property
    def _filled_up_to(self) -> tuple[int, ...]:
        """Of items, z, y and x: how many there are before what looks like padding.

        Zarr fills chunks at the edges of an array with one value. It costs next to nothing and
        must not make up for errors elsewhere.
        """
        corner, extents = self.arranged[-1, -1, -1, -1, -1], []
        for axis in (0, 2, 3, 4):
            n = self.arranged.shape[axis]
            while n > 1 and bool((self.arranged.take(n - 1, axis=axis) == corner).all()):
                n -= 1
            extents.append(n)
        return tuple(extents)

    def _inner(self, band: _Band, item: int) -> tuple[slice, ...]:
        """What is not padding, of the part of an item that is in a band."""
        items, *space = self._filled_up_to
        space[band.axis] = max(space[band.axis] - band.start, 0)
        return (slice(None), *(slice(n if item < items else 0) for n in space))

    def _channels(self, exact: npt.NDArray[Any]) -> Float32:
        """Decorrelated, and padded to whole patches by what is at the edge."""
        channels = exact.astype(np.float64)
        channels -= self.header.offsets[:, None, None, None]
        if len(channels) > 1:
            channels = np.tensordot(self.header.mixing, channels, axes=1)
        padded = self.header.patching.padded(channels.shape[1:])
        margins = [(0, whole - n) for whole, n in zip(padded, channels.shape[1:], strict=True)]
        return np.pad(channels.astype(np.float32), [(0, 0), *margins], mode="edge")

    def pack(
        self, coded: _Coded | None, on_top: bytes | None = None, kept: Bool | None = None
    ) -> bytes:
        """A payload: of coded bands, of a residual on top, or of that alone.

        ``kept`` are cells, shape of :attr:`arranged`, that must be stored exactly.
        """
        sections = {Tag.PATCHES: self.header.pack()}
        exponent = 0
        if coded is not None:
            exponent = coded.exponent
            sections[Tag.COEFFICIENTS] = _joined(coded.streams)
        if on_top is not None:
            sections[Tag.RESIDUAL] = on_top
        valid = np.ones(self.arranged.shape, np.bool_) if self.valid is None else self.valid
        if kept is not None:
            valid = valid & ~kept
        in_order = self.header.layout.restore(valid, self.values.shape)
        table = in_order.reshape(_table(self.values.shape))
        return pack_fields(self.values, table, Kind.PATCHES, sections, exponent=exponent)

    def keeps(self, payload: bytes, bound: Bound) -> bool:
        """Whether what a decoder makes of a payload is within the bound, and else bit for bit."""
        decoded = self.header.layout.arrange(decode_patches(Payload.unpack(payload)))
        given = self.header.layout.arrange(self.values)
        close = bound.holds(decoded.astype(np.float64), given.astype(np.float64))
        if self.valid is None:
            return bool(close.all())
        exact = decoded[~self.valid].tobytes() == given[~self.valid].tobytes()
        return exact and bool(close[self.valid].all())


def _search(subject: _Subject, what: str, limit: float) -> _Coded | None:
    """The coarsest step whose error, or the finest whose size, is within a limit."""
    if not limit > 0:
        return None
    bands = subject.bands
    sample = bands[:: ceil(len(bands) / _SAMPLED)]
    share = len(sample) / len(bands) if what == "size" else 1.0
    # Rounding to a step alone makes an error of a third of it; noise below it adds to that.
    start = exponent_of(2.5 * limit**0.5)
    if what == "size":
        spread = float(np.std(subject.arranged[sample[0].slices[0]].astype(np.float64)))
        start = exponent_of(max(spread, 1e-30))
    try:
        if len(sample) < len(bands):
            guess = _approach(lambda e: subject.code(e, sample), what, share * limit, start)
            start = start if guess is None else guess.exponent
        return _approach(lambda e: subject.code(e, bands), what, limit, start)
    except OverflowError:
        return None


def _approach(code: Callable[[int], _Coded], what: str, limit: float, start: int) -> _Coded | None:
    """By the secant, in logarithms."""
    growing = what == "error"
    slope, exponent, best = _SLOPES[what], start, None
    inside: int | None = None  # the closest known to be within the limit
    outside: int | None = None
    points: dict[int, float] = {}
    for _ in range(_ATTEMPTS):
        exponent = min(max(exponent, -_MOST_EXPONENT), _MOST_EXPONENT)
        coded = code(exponent)
        value = float(getattr(coded, what))
        within = value <= limit
        points[exponent] = log2(max(value, 1e-300))
        if within and (best is None or (exponent > best.exponent) == growing):
            best = coded
        if within:
            inside = exponent
        else:
            outside = exponent
        if within and value >= _CLOSE * limit:
            break
        if inside is not None and outside is not None and abs(inside - outside) <= 1:
            break
        if within and value == 0 and growing and coded.size <= 64 * len(coded.streams):
            break  # nothing but a constant
        if len(points) > 1:
            (a, fa), (b, fb) = sorted(points.items(), key=lambda p: abs(p[1] - log2(limit)))[:2]
            measured = STEPS_PER_OCTAVE * (fa - fb) / (a - b)
            # Wild guesses at a plateau take too many steps.
            slope = float(np.sign(slope)) * min(max(abs(measured), 0.3), 4.0)
        # A little inside of the limit, so that it is met.
        wanted = log2(limit) + 0.5 * log2(_CLOSE) - points[exponent]
        move = min(max(wanted / slope, -_FARTHEST), _FARTHEST) * STEPS_PER_OCTAVE
        following = exponent + (floor(move) if growing else ceil(move))
        if inside is not None and outside is not None:
            low, high = sorted((inside, outside))
            if not low < following < high:
                following = (low + high) // 2
        if following in points:
            break
        exponent = following
    return best


def _with_residual(subject: _Subject, bound: Bound, base: _Coded | None) -> bytes | None:
    """Within a bound, on top of a base or of nothing."""
    dtype, shape = subject.values.dtype, subject.arranged.shape
    plane, sequences = _planes(shape)
    table = (-1, prod(plane.shape))
    known = None
    if base is not None:
        known = _decoded(subject.header, base.exponent, base.streams, shape, dtype, np.float64)
        known = known.reshape(table)
    valid = np.ones(shape, np.bool_) if subject.valid is None else subject.valid
    fields = PlaneFields(
        subject.arranged.astype(np.float64).reshape(table), valid.reshape(table), dtype, plane
    )
    coded = residual.encode(fields, bound, sequences, known, thorough=base is None)
    if coded is None:
        return None
    return subject.pack(base, coded.section, coded.kept.reshape(shape))


def _planes(shape: tuple[int, ...]) -> tuple[Plane, Sequences]:
    """What is coded one after the other: slices of a volume, else channels."""
    items, channels, z, y, x = shape
    n = items * channels * z
    order = np.arange(n).reshape((items * channels, z) if z > 1 else (items, channels))
    return Plane((y, x)), Sequences(order)


# ---- reading -------------------------------------------------------------------------------------


def decode_patches(payload: Payload, region: tuple[slice, ...] | None = None) -> npt.NDArray[Any]:
    """The array of a payload of kind PATCHES.

    Parameters
    ----------
    payload : Payload
    region : tuple of slice, optional
        One along each of the array's axes; see :func:`checked_region`. What is outside may hold
        anything.

    Raises
    ------
    CorruptPayloadError
    """
    header = Header.unpack(payload.section(Tag.PATCHES), payload.shape)
    items, channels, space = header.layout.sizes(payload.shape)
    if payload.dtype.kind not in "iuf":
        raise CorruptPayloadError("payload's header contradicts itself")
    shape = (items, channels, *space)
    mask = None
    if Tag.MASK in payload.sections:
        mask = unpack_mask(payload.section(Tag.MASK), *_table(payload.shape))
        mask = np.asarray(mask).reshape(payload.shape)
    if Tag.RESIDUAL in payload.sections:
        base = None
        plane, sequences = _planes(shape)
        table = (sequences.order.size, prod(plane.shape))
        if Tag.COEFFICIENTS in payload.sections:
            base = _decoded(
                header, payload.exponent, _parted(payload, header), shape, payload.dtype, np.float64
            ).reshape(table)
        gaps = None if mask is None else header.layout.arrange(mask).reshape(table)
        found = residual.decode(payload.section(Tag.RESIDUAL), gaps, plane.shape, sequences, base)
        arranged = round_to(found, payload.dtype).reshape(shape)
    else:
        arranged = _decoded(
            header, payload.exponent, _parted(payload, header), shape, payload.dtype,
            payload.dtype, None if region is None else header.layout.parts(region, payload.shape),
        )  # fmt: skip
    values = header.layout.restore(arranged, payload.shape)
    if mask is not None:
        values = np.ascontiguousarray(values)
        special = payload.section(Tag.SPECIAL_VALUES)
        values[mask] = unpack_special_values(special, int(mask.sum()), payload.dtype)
    return values


def _decoded(
    header: Header,
    exponent: int,
    streams: list[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    result: npt.DTypeLike,
    wanted: tuple[Bool, tuple[slice, ...]] | None = None,
) -> npt.NDArray[Any]:
    """All bands, shape (items, channels, z, y, x), or those that hold some items and cells.

    Rounded where the result is of the data's type.
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled

    items, channels, *space = shape
    if abs(exponent) > _MOST_EXPONENT:
        raise CorruptPayloadError("payload's step is damaged")
    step = step_of(exponent)
    # Memory that is never written to is never taken.
    values = np.zeros(shape, result)

    def fill(job: tuple[_Band, bytes]) -> None:
        band, stream = job
        walk = bands.decoder(stream, header.patching)
        with np.errstate(all="ignore"):  # damaged symbols may be anything
            for where in band.slices:
                part = values[where]
                padded = header.patching.padded(part.shape[1:])
                decoded = header.finished(walk.decode(channels, padded, step)[_within(part)], dtype)
                part[...] = round_to(decoded, dtype) if values.dtype == dtype else decoded
        walk.check_end()

    plan = header.bands(items, (space[0], space[1], space[2]))
    jobs = list(zip(plan, streams, strict=True))
    if wanted is not None:
        jobs = [job for job in jobs if job[0].touches(*wanted)]
    map_in_threads(fill, jobs)
    return values


def checked_region(region: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """One slice for each axis, from start to stop.

    Raises
    ------
    ValueError
    """
    if len(region) > len(shape) or not all(
        isinstance(part, slice) and part.step in (None, 1) for part in region
    ):
        raise ValueError(
            f"a region is at most {len(shape)} slices without steps for shape {shape}, "
            f"got {region!r}"
        )
    region = region + (slice(None),) * (len(shape) - len(region))
    return tuple(slice(*part.indices(n)) for part, n in zip(region, shape, strict=True))


def _joined(streams: list[bytes]) -> bytes:
    """Lengths of all but the last, and the streams."""
    lengths = np.array([len(stream) for stream in streams[:-1]], "<u4")
    return lengths.tobytes() + b"".join(streams)


def _parted(payload: Payload, header: Header) -> list[bytes]:
    items, _, space = header.layout.sizes(payload.shape)
    data, n = payload.section(Tag.COEFFICIENTS), header.n_bands(items, space)
    if 4 * (n - 1) > len(data):
        raise CorruptPayloadError("payload has not as many streams as its shape needs")
    lengths = np.frombuffer(data, "<u4", n - 1).astype(np.int64)
    ends = 4 * (n - 1) + np.cumsum(lengths)
    if n > 1 and int(ends[-1]) > len(data):
        raise CorruptPayloadError("payload's streams are cut short")
    edges = [4 * (n - 1), *ends.tolist(), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


# ---- small things --------------------------------------------------------------------------------


def _table(shape: tuple[int, ...]) -> tuple[int, int]:
    """Masks are kept by rows that are often the same: one for each but the last two axes."""
    return prod(shape[:-2]), prod(shape[-2:])


def _within(part: npt.NDArray[Any]) -> tuple[slice, ...]:
    """Of whole patches, what the array has."""
    return (slice(None), *(slice(n) for n in part.shape[1:]))


def _filled(values: npt.NDArray[Any], usable: Bool) -> npt.NDArray[Any]:
    """What is not usable takes the value of the last one that is, in memory order."""
    flat = usable.reshape(-1)
    index = np.where(flat, np.arange(flat.size), -1)
    np.maximum.accumulate(index, out=index)
    index[index < 0] = int(np.argmax(flat))
    return values.reshape(-1)[index].reshape(values.shape)


def _decorrelating(arranged: npt.NDArray[Any]) -> npt.NDArray[np.int8]:
    """Principal axes, times 127, of what neighbours differ by in each channel."""
    n = arranged.shape[1]
    covariance = np.zeros((n, n))
    if n > 1:
        for item in arranged[:: ceil(len(arranged) / 64)]:
            for axis in (1, 2, 3):
                steps = np.diff(item.astype(np.float64), axis=axis).reshape(n, -1)
                covariance += steps @ steps.T
    scale = float(np.trace(covariance))
    if not (isfinite(scale) and scale > 0):
        return np.diag(np.full(n, _WHOLE, np.int8))
    _, vectors = np.linalg.eigh(covariance / scale)
    axes = vectors[:, ::-1].T
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    whole: npt.NDArray[np.int8] = np.rint(axes * _WHOLE).astype(np.int8)
    return whole


def _orthonormal(rows: Float64) -> Float64:
    """Gram and Schmidt's, in plain arithmetic that is the same everywhere.

    Raises
    ------
    CorruptPayloadError
        If the rows do not span the space.
    """
    result = np.zeros_like(rows)
    for i, row in enumerate(rows):
        rest = row.copy()
        for known in result[:i]:
            rest -= known * float((known * row).sum())
        norm = float(np.sqrt((rest * rest).sum()))
        if norm < 1e-3:
            raise CorruptPayloadError("the patches' matrix of channels is damaged")
        result[i] = rest / norm
    return result
