"""One array of patches ↔ one payload: images, volumes, sound, in whatever shape.

The array is cut into bands of patches, each with a stream of its own: several are coded at a time,
and one can be decoded without the others. All share one step, which is the rate control.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil, floor, isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import patch_latents, residual
from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields, pack_lossless
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.patch_header import LARGEST, WHOLE, Band, Header, join
from coinpp_xr.patch_latents import patching_of
from coinpp_xr.patch_reading import (
    decode_bands,
    decode_patches,
    mask_shape,
    planes_of,
    prior_of,
    within,
)
from coinpp_xr.patches import MOST_CHANNELS, Layout, Patching
from coinpp_xr.priors import Prior
from coinpp_xr.quantization import exponent_of, step_of
from coinpp_xr.recognition import MUCH_UNEXPLAINED
from coinpp_xr.residual import Bound
from coinpp_xr.schemes import PlaneFields, round_to
from coinpp_xr.stepping import MOST_EXPONENT, search_step

if TYPE_CHECKING:
    from coinpp_xr.splitting import Analysis

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

# What a bit may cost in squared steps. From 0.1 to 0.16 photographs differ by less than 0.05 dB.
_PRICE = 0.13
# Cells of a band. What a band teaches the coder is lost for the next.
BAND_CELLS = 1 << 19
# Bands that a first guess at the step is made by.
_SAMPLED = 3
# RMSE of a base under a bound, as a share of the bound.
_BASE_RMSE = 0.6
# Bytes of transforms that are kept from one trial to the next.
_MOST_KEPT = 1 << 26
# Coefficients that a curve is made of.
_CURVE_CELLS = 1 << 15
# Steps that a prior learns each array at, and their range in standard deviations.
_LEARNED_STEPS, _LEARNED_RANGE = 3, (0.04, 1.5)


@dataclass(frozen=True)
class PatchRate:
    """The one rate control. Errors are those of the whole chunk.

    Parameters
    ----------
    rmse : float, optional
        Not exceeded.
    bpp : float, optional
        Bits per cell, all channels together; the smallest error within them.
    bound : Bound, optional
    bits : int, optional
        Per latent of the model, and whatever error that makes.
    normalisation : (offset, scale), optional
        Of the model's features, with ``bits``.
    """

    rmse: float | None = None
    bpp: float | None = None
    bound: Bound | None = None
    bits: int | None = None
    normalisation: tuple[float, float] = (0.0, 1.0)


def encode_patches(
    values: npt.NDArray[Any],
    layout: Layout,
    patching: Patching,
    rate: PatchRate,
    model: Model | None = None,
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
    model : Model, optional
        What the coder has learned from other data; ``bits`` needs one.
    band_cells : int
        Of separately decodable parts, about.

    Raises
    ------
    ValueError
        If there are too few axes, or the model does not fit.
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
    if rate.bits is not None:
        if model is None:
            raise ValueError("bits needs a model; without one give another rate control")
        patching = patching_of(model, layout.spatial)
    else:
        patching = patching.fitted(layout.sizes(values.shape)[2])
    with np.errstate(over="ignore", invalid="ignore"):
        subject = _Subject.of(
            values, layout, patching, band_cells, model, exact_zeros=rate.bound is not None
        )
        payload = None
        if subject is not None and rate.bits is not None and model is not None:
            payload = _encode_latents(subject, model, rate.bits, rate.normalisation)
        elif subject is not None:
            payload = _encode(subject, rate)
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
            base = _search(subject, "error", (_BASE_RMSE * bound.error) ** 2, deblocking=False)
            if base is not None:
                candidates.append(_with_residual(subject, bound, base))
        payloads = [payload for payload in candidates if payload is not None]
        payload = min(payloads, key=len, default=None)
        return payload if payload is not None and subject.keeps(payload, bound) else None
    if rate.rmse is not None:
        found = _search(subject, "error", rate.rmse**2)
    else:
        assert rate.bpp is not None
        cells = subject.items * prod(subject.space)
        nothing = _Coded(0, [b""] * len(subject.bands), np.zeros((2, 2)))
        allowed = rate.bpp * cells / 8 - len(subject.pack(nothing))
        found = _search(subject, "size", allowed) or subject.flat()
    return None if found is None else subject.pack(found)


def _encode_latents(
    subject: _Subject, model: Model, bits: int, normalisation: tuple[float, float]
) -> bytes | None:
    """The paper's way; None where the model explains nothing."""
    sections, unexplained = patch_latents.encode(
        subject.arranged, subject.valid, subject.header, model, bits, normalisation
    )
    if unexplained > MUCH_UNEXPLAINED:
        lost = unexplained >= 1
        warnings.warn(
            f"model {model.name!r} with {bits} bits explains only {max(1 - unexplained, 0):.0%} of "
            "this data's variance; "
            + ("it is stored without loss. " if lost else "")
            + "Check data_range and channels, or give another rate control",
            CompressionWarning,
            stacklevel=6,
        )
        if lost:
            return None
    valid, shape = subject.in_order(None), subject.values.shape
    return pack_fields(
        subject.values, valid.reshape(mask_shape(shape)), Kind.PATCH_LATENTS, sections,
        bits=bits, fingerprint=model.fingerprint,
    )  # fmt: skip


# ---- what is coded -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Coded:
    """All bands at one step, or some of them."""

    exponent: int
    streams: list[bytes]
    # Squared errors and numbers of cells, without and with what looks like padding.
    sums: npt.NDArray[np.float64]
    # Whether the model's layers against blocking are used.
    deblocked: bool = False

    @property
    def error(self) -> float:
        return _error(self.sums)

    @property
    def size(self) -> int:
        return sum(map(len, self.streams))


def _error(sums: Float64) -> float:
    """Mean squared; the larger one."""
    squared, counts = sums
    return float((squared / np.maximum(counts, 1)).max())


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
    model : Model or None
        Whose prior the coder starts from.
    """

    values: npt.NDArray[Any]
    arranged: npt.NDArray[Any]
    valid: Bool | None
    header: Header
    model: Model | None

    @classmethod
    def of(
        cls,
        values: npt.NDArray[Any],
        layout: Layout,
        patching: Patching,
        band_cells: int,
        model: Model | None,
        *,
        exact_zeros: bool,
    ) -> _Subject | None:
        """None where there is nothing to be coded but exactly."""
        valid = None
        if values.dtype.kind == "f":
            usable = np.isfinite(values) & (np.abs(values.astype(np.float64)) < LARGEST)
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
        return cls(values, arranged, valid, header, _with_prior(model, layout))

    @property
    def items(self) -> int:
        return len(self.arranged)

    @property
    def space(self) -> tuple[int, int, int]:
        z, y, x = self.arranged.shape[2:]
        return z, y, x

    @property
    def can_deblock(self) -> bool:
        deblocking = self.model.deblocking if self.model else None
        return deblocking is not None and deblocking.fits(self.header.patching)

    @cached_property
    def bands(self) -> list[Band]:
        return self.header.bands(self.items, self.space)

    def flat(self) -> _Coded:
        """Hardly anything but the means: what takes the fewest bytes."""
        reach = (self.header.highest - self.header.lowest) * prod(self.header.patching.size)
        step = min(max(exponent_of(4 * reach), -MOST_EXPONENT), MOST_EXPONENT)
        return self.code(step, self.bands, measured=False, deblocked=False)

    def code(
        self, exponent: int, bands: list[Band], *, measured: bool, deblocked: bool | None
    ) -> _Coded:
        """Some of the bands at a step, with errors if they are to be measured.

        ``deblocked`` None looks at both ways, which must be measured.

        Raises
        ------
        OverflowError
            If the step is too small for the values.
        """
        ways = [False, True] if deblocked is None else [deblocked]

        def work(band: Band) -> tuple[bytes, Float64]:
            with np.errstate(all="ignore"):  # of this thread
                return self._code_band(exponent, band, ways if measured else [])

        done = map_in_threads(work, bands)
        streams, sums = zip(*done, strict=True)
        found = list(np.sum(sums, axis=0)) if measured else [np.zeros((2, 2))]
        best = min(range(len(found)), key=lambda i: _error(found[i]))
        return _Coded(exponent, list(streams), found[best], ways[best])

    def _code_band(self, exponent: int, band: Band, measured: list[bool]) -> tuple[bytes, Float64]:
        """Its stream and, for every way to be measured, :meth:`_sums`."""
        from coinpp_xr import bands  # compiles, or loads what was compiled

        patching, step = self.header.patching, step_of(exponent)
        walk = bands.encoder(patching, prior_of(self.model))
        sums = np.zeros((len(measured), 2, 2))
        for where, analysis in zip(band.slices, self.analyses(band), strict=True):
            coefficients, levels = analysis.split(step, _PRICE)
            symbols = walk.encode(coefficients, levels, _PRICE)
            if not measured:
                continue
            channels = patching.values(symbols, levels, step)
            for i, deblocked in enumerate(measured):
                if deblocked and self.model is not None and self.model.deblocking is not None:
                    channels[0] = self.model.deblocking(channels[0], levels, patching, step)
                sums[i] += self._sums(band, where, channels)
        return walk.finish(), sums

    def _sums(self, band: Band, where: tuple[Any, ...], channels: Float32) -> Float64:
        """Squared errors of what was decoded and numbers of cells: within, and with padding."""
        exact, dtype = self.arranged[where], self.values.dtype
        decoded = self.header.finished(channels[within(exact)], dtype)
        squared = (round_to(decoded, dtype).astype(np.float64) - exact) ** 2
        counted = np.ones(squared.shape) if self.valid is None else self.valid[where] * 1.0
        squared *= counted
        inner = self._inner(band, where[0])
        return np.array(
            [[squared[inner].sum(), squared.sum()], [counted[inner].sum(), counted.sum()]]
        )

    def analyses(self, band: Band) -> list[Analysis]:
        """Of the items of a band; kept for the next trial while there is room."""
        from coinpp_xr.splitting import Analysis  # compiles, or loads what was compiled

        known = self._kept.get(band)
        if known is not None:
            return known
        found = [
            Analysis.of(self.header.patching, self.channels(self.arranged[where]))
            for where in band.slices
        ]
        kept = sum(a.transforms.nbytes for known in self._kept.values() for a in known)
        if kept + sum(a.transforms.nbytes for a in found) <= _MOST_KEPT:
            self._kept[band] = found
        return found

    @cached_property
    def _kept(self) -> dict[Band, list[Analysis]]:
        return {}

    def curves(self, bands: list[Band]) -> tuple[Callable[[int], float], Callable[[int], float]]:
        """Mean squared error and bytes of all bands by the exponent of the step, roughly."""
        from coinpp_xr.splitting import guess

        sampled = map_in_threads(self.analyses, bands)
        analyses = [a for found in sampled for a in found[:: ceil(len(found) / 8)]]
        magnitudes = np.concatenate([a.sample(_CURVE_CELLS // len(analyses)) for a in analyses])
        known = cache(lambda exponent: guess(magnitudes, step_of(exponent)))
        n = self.arranged.size
        return lambda e: known(e)[0], lambda e: known(e)[1] * n / 8

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

    def _inner(self, band: Band, item: int) -> tuple[slice, ...]:
        """What is not padding, of the part of an item that is in a band."""
        items, *space = self._filled_up_to
        space[band.axis] = max(space[band.axis] - band.start, 0)
        return (slice(None), *(slice(n if item < items else 0) for n in space))

    def channels(self, exact: npt.NDArray[Any]) -> Float32:
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
        header, exponent = self.header, 0
        if coded is not None:
            header, exponent = replace(header, deblocked=coded.deblocked), coded.exponent
        sections = {Tag.PATCHES: header.pack()}
        if coded is not None:
            sections[Tag.COEFFICIENTS] = join(coded.streams)
        if on_top is not None:
            sections[Tag.RESIDUAL] = on_top
        valid = self.in_order(kept).reshape(mask_shape(self.values.shape))
        if self.model is None or coded is None:
            return pack_fields(self.values, valid, Kind.PATCHES, sections, exponent=exponent)
        return pack_fields(
            self.values, valid, Kind.PATCHES_FROM_MODEL, sections,
            exponent=exponent, fingerprint=self.model.fingerprint,
        )  # fmt: skip

    def in_order(self, kept: Bool | None) -> Bool:
        """What is coded with an error, in the order of the values."""
        valid = np.ones(self.arranged.shape, np.bool_) if self.valid is None else self.valid
        if kept is not None:
            valid = valid & ~kept
        return self.header.layout.restore(valid, self.values.shape)

    def keeps(self, payload: bytes, bound: Bound) -> bool:
        """Whether what a decoder makes of a payload is within the bound, and else bit for bit."""
        models = {} if self.model is None else {self.model.fingerprint: self.model}
        decoded = decode_patches(Payload.unpack(payload), models.__getitem__)
        decoded = self.header.layout.arrange(decoded)
        given = self.header.layout.arrange(self.values)
        close = bound.holds(decoded.astype(np.float64), given.astype(np.float64))
        if self.valid is None:
            return bool(close.all())
        exact = decoded[~self.valid].tobytes() == given[~self.valid].tobytes()
        return exact and bool(close[self.valid].all())


def _search(
    subject: _Subject, what: str, limit: float, *, deblocking: bool = True
) -> _Coded | None:
    """The coarsest step whose error, or the finest whose size, is within a limit.

    ``deblocking`` False leaves the values as they are decoded.
    """
    if not limit > 0:
        return None
    bands = subject.bands
    sample = bands[:: ceil(len(bands) / _SAMPLED)]
    growing = what == "error"
    deblocked = None if deblocking and subject.can_deblock else False

    def trial(exponent: int, bands: list[Band]) -> _Coded:
        nonlocal deblocked
        # The first trial decides whether it helps.
        undecided = deblocked is None
        coded = subject.code(exponent, bands, measured=growing or undecided, deblocked=deblocked)
        deblocked = coded.deblocked
        return coded

    try:
        error, size = subject.curves(sample)
        # Rounding to a step alone makes an error of a third of it; noise below it adds to that.
        start = exponent_of(2.5 * limit**0.5)
        if not growing:
            spread = float(np.std(subject.arranged[sample[0].slices[0]].astype(np.float64)))
            start = exponent_of(max(spread, 1e-30))

        def approach(bands: list[Band], limit: float, start: int) -> _Coded | None:
            share = len(bands) / len(subject.bands)
            return search_step(
                lambda e: trial(e, bands),
                (lambda coded: coded.error) if growing else (lambda coded: float(coded.size)),
                error if growing else (lambda e: share * size(e)),
                limit, growing=growing, start=start,
            )  # fmt: skip

        if len(sample) < len(bands):
            guess = approach(sample, limit if growing else limit * len(sample) / len(bands), start)
            start = start if guess is None else guess.exponent
        return approach(bands, limit, start)
    except OverflowError:
        return None


def _with_residual(subject: _Subject, bound: Bound, base: _Coded | None) -> bytes | None:
    """Within a bound, on top of a base or of nothing."""
    dtype, shape = subject.values.dtype, subject.arranged.shape
    plane, sequences = planes_of(shape)
    table = (-1, prod(plane.shape))
    known = None
    if base is not None:
        known = decode_bands(
            subject.header, base.exponent, base.streams, shape, dtype, np.float64, subject.model
        )
        known = known.reshape(table)
    valid = np.ones(shape, np.bool_) if subject.valid is None else subject.valid
    fields = PlaneFields(
        subject.arranged.astype(np.float64).reshape(table), valid.reshape(table), dtype, plane
    )
    coded = residual.encode(fields, bound, sequences, known, thorough=base is None)
    if coded is None:
        return None
    return subject.pack(base, coded.section, coded.kept.reshape(shape))


# ---- learning ------------------------------------------------------------------------------------


def coded_at(
    values: npt.NDArray[Any], layout: Layout, patching: Patching, model: Model | None, step: float
) -> Iterator[tuple[Float32, Float32, Int32]]:
    """What layers against blocking learn from: an array coded at a step, part by part.

    Yields
    ------
    decoded, exact : float32 array, shape (z, y, x)
        The first of the decorrelated channels, of whole patches.
    levels : int32 array, shape (least blocks along z, y, x)
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled
    from coinpp_xr.splitting import Analysis

    subject = _Subject.of(values, layout, patching, BAND_CELLS, model, exact_zeros=False)
    if subject is None:
        return
    for band in subject.bands:
        walk = bands.encoder(patching, prior_of(subject.model))
        for where in band.slices:
            exact = subject.channels(subject.arranged[where])
            coefficients, levels = Analysis.of(patching, exact).split(step, _PRICE)
            symbols = walk.encode(coefficients, levels, _PRICE)
            yield patching.values(symbols, levels, step)[0], exact[0], levels


def learn_prior(
    arrays: Sequence[npt.NDArray[Any]], layout: Layout, patching: Patching, seed: int = 0
) -> Prior:
    """What the coder knows once it has coded some arrays, each at several steps.

    Parameters
    ----------
    arrays : sequence of array
        As of :func:`encode_patches`; those without any variation are left out.
    layout : Layout
    patching : Patching
    seed : int
        Of the order and of the steps.
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled

    rng, state = np.random.default_rng(seed), None
    for index in rng.permutation(len(arrays)):
        values = arrays[index]
        subject = _Subject.of(values, layout, patching, 1 << 32, None, exact_zeros=False)
        spread = float(np.std(values, dtype=np.float64))
        if subject is None or not spread > 0:
            continue
        # From coarse to fine as often as the other way round.
        for part in rng.permutation(_LEARNED_STEPS):
            low, high = np.log(_LEARNED_RANGE)
            step = spread * float(
                np.exp(low + (high - low) * (part + rng.random()) / _LEARNED_STEPS)
            )
            for band in subject.bands:
                walk = bands.encoder(patching, state)
                for analysis in subject.analyses(band):
                    walk.encode(*analysis.split(step, _PRICE), _PRICE)
                state = walk.state
    if state is None:
        raise ValueError("there is nothing to learn from: all values are the same")
    return Prior.of(state)


# ---- small things --------------------------------------------------------------------------------


def _with_prior(model: Model | None, layout: Layout) -> Model | None:
    """The model if the coder can learn from it; patches of other axes are another matter."""
    if model is None or model.prior is None or model.box is None:
        return None
    return model if len(model.box.shape) == layout.spatial else None


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
        return np.diag(np.full(n, WHOLE, np.int8))
    _, vectors = np.linalg.eigh(covariance / scale)
    axes = vectors[:, ::-1].T
    axes = axes * np.where(axes.sum(axis=1, keepdims=True) < 0, -1.0, 1.0)
    whole: npt.NDArray[np.int8] = np.rint(axes * WHOLE).astype(np.int8)
    return whole
