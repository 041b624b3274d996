"""One array of patches ↔ one payload: images, volumes, sound, in whatever shape."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from math import ceil, floor, prod, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import patch_latents, residual
from coinpp_xr.bitstream import Kind, pack_fields, pack_lossless
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.fields import PlaneFields, are_few
from coinpp_xr.lattice import Bound, bound_for_rmse
from coinpp_xr.models import Model
from coinpp_xr.parallel import single_threaded_blas
from coinpp_xr.patch_header import LARGEST, Band
from coinpp_xr.patch_latents import patching_of
from coinpp_xr.patch_reading import Planes, decode_bands, mask_shape
from coinpp_xr.patch_subject import Coded, Subject
from coinpp_xr.patches import MOST_CHANNELS, Layout, Patching
from coinpp_xr.quantization import are_in_proportion, exponent_of
from coinpp_xr.recognition import MUCH_UNEXPLAINED
from coinpp_xr.stepping import search_step

# Cells of a band. What a band teaches the coder is lost for the next.
BAND_CELLS = 1 << 19
# Bands that a first guess at the step is made by.
_SAMPLED = 3
# Payloads of fewer bytes are tried without the model, too.
_SMALL = 1024
# Bits per cell that are too few to be worth it.
_FEW_BITS = 0.05
# RMSEs whose squares are numbers.
_SMALLEST = 1e-150
# Cells of a sample that tells whether rounded values may be shorter, and up to what share of the
# other way's bytes they may be: a longer one teaches the coder more.
_TRIED, _WORTH_TRYING = 1 << 12, 1.3
# RMSE of a base under a bound, as a share of the bound.
_BASE_RMSE = 0.6


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
        of floats NaN, ±Inf and, under a bound, -0.0. So are integers beyond ±2⁵³.
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
    items, n_channels, space = layout.sizes(values.shape)
    few = values.size > 0 and are_few(items, n_channels * prod(space))
    if not (real and few and n_channels <= MOST_CHANNELS):
        return pack_lossless(values)
    if rate.bits is not None:
        if model is None:
            raise ValueError("bits needs a model; without one give another rate control")
        patching = patching_of(model, layout.spatial)
    else:
        patching = patching.fitted(space)
    options = (values, layout, patching, band_cells)
    # Several BLAS threads would round differently from one.
    with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
        subject = Subject.of(*options, model, exact_zeros=rate.bound is not None)
        payload = None
        if subject is not None and rate.bits is not None and model is not None:
            payload = _encode_latents(subject, model, rate.bits, rate.normalisation)
        elif subject is not None:
            payload = _encode(subject, rate)
            small = payload is not None and len(payload) < _SMALL and rate.bpp is None
            if small and subject.model is not None:
                # There is little to be saved, and a model's fingerprint takes 8 bytes.
                without = Subject.of(*options, None, exact_zeros=rate.bound is not None)
                other = None if without is None else _encode(without, rate, rounded=False)
                payload = min((p for p in (payload, other) if p is not None), key=len)
    exact = pack_lossless(values)  # takes next to no time
    if payload is None or subject is None:
        return exact
    if rate.bpp is not None and 8 * len(exact) <= rate.bpp * subject.cells:
        return exact
    return min(payload, exact, key=len)


def _encode(subject: Subject, rate: PatchRate, *, rounded: bool = True) -> bytes | None:
    """The shortest payload that meets an error or a size, if any does.

    ``rounded`` False leaves out rounded values alone, which are the same with every model.
    """
    if rate.bound is not None:
        bound, integers = rate.bound, subject.values.dtype.kind != "f"
        if integers and not bound.relative:
            # Whole numbers differ by whole numbers: the next half is as good, and safe to compare.
            bound = Bound(floor(bound.error) + 0.5)
        candidates = [_with_residual(subject, bound, None)] if rounded else []
        # Without loss there is nothing that a base could leave out.
        if not bound.relative and not (integers and bound.error < 1):
            base = _search_rmse(subject, _BASE_RMSE * bound.error, deblocking=False)
            if base is not None:
                candidates.append(_with_residual(subject, bound, base))
        payloads = [payload for payload in candidates if payload is not None]
        payload = min(payloads, key=len, default=None)
        return payload if payload is not None and subject.keeps(payload, bound) else None
    if rate.rmse is not None:
        coded = _search_rmse(subject, rate.rmse)
        payload = None if coded is None else subject.pack(coded)
        shorter = _rounded(subject, rate.rmse, coded, payload) if rounded else None
        return shorter or payload
    assert rate.bpp is not None
    nothing = Coded(0, [b""] * len(subject.bands), np.zeros((2, 2)))
    # The length of the streams is itself a number of up to five bytes, here of one.
    allowed = rate.bpp * subject.cells / 8 - len(subject.pack(nothing)) - 4
    return subject.pack(_search(subject, "size", allowed) or subject.flat())


def _rounded(
    subject: Subject, rmse: float, coded: Coded | None, payload: bytes | None
) -> bytes | None:
    """Rounded values within an RMSE, coded one after the other, if they are shorter.

    Where rounding hides little, or values are few, neighbours predict them better than a transform
    compacts them.
    """
    n = subject.arranged.size
    few = payload is not None and 8 * len(payload) < _FEW_BITS * n
    if few or not _SMALLEST < rmse < LARGEST:
        return None
    if coded is not None and n > 2 * _TRIED:
        sample = subject.middle(_TRIED)
        same = sample.code(coded.exponent, sample.bands, measured=True, deblocked=coded.deblocked)
        whole = Planes(sample.arranged.shape)
        fields = _fields(sample, whole)
        bound = bound_for_rmse(fields, sqrt(same.error) or rmse, sample.mean_squared_error)
        tried = None if bound is None else residual.encode(fields, bound, whole.sequences)
        if tried is None or len(tried.section) > _WORTH_TRYING * same.size:
            return None
    everything = _fields(subject, Planes(subject.arranged.shape))
    bound = bound_for_rmse(everything, rmse, subject.mean_squared_error)
    if bound is None:
        return None
    rounded = _with_residual(subject, bound, None)
    if rounded is None or (payload is not None and len(payload) <= len(rounded)):
        return None
    return rounded if subject.meets(rounded, rmse) else None


def _encode_latents(
    subject: Subject, model: Model, bits: int, normalisation: tuple[float, float]
) -> bytes | None:
    """The paper's way; None where the model explains nothing, and latents are worth more."""
    shape = subject.arranged.shape
    n_latents = patch_latents.latent_count(shape, subject.header.patching, model)
    if not are_in_proportion(n_latents, subject.values.nbytes):
        return None
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


def _search_rmse(subject: Subject, rmse: float, *, deblocking: bool = True) -> Coded | None:
    """The coarsest step within an RMSE."""
    # Nothing that is coded can be further off, and the square of more may not be finite.
    return _search(subject, "error", min(rmse, 2 * LARGEST) ** 2, deblocking=deblocking)


def _search(subject: Subject, what: str, limit: float, *, deblocking: bool = True) -> Coded | None:
    """The coarsest step whose error, or the finest whose size, is within a limit.

    ``deblocking`` False leaves the values as they are decoded.
    """
    if not limit > 0:
        return None
    bands = subject.bands
    sample = bands[:: ceil(len(bands) / _SAMPLED)]
    growing = what == "error"
    deblocked = None if deblocking and subject.can_deblock else False

    def trial(exponent: int, bands: list[Band]) -> Coded:
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
            # Some parts may be empty: what a step is to be compared with is where something is.
            spread = max(
                float(np.std(subject.arranged[where], dtype=np.float64))
                for band in bands
                for where in band.slices
            )
            start = exponent_of(max(spread, 1e-30))

        def approach(bands: list[Band], limit: float, start: int) -> Coded | None:
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


def _with_residual(subject: Subject, bound: Bound, base: Coded | None) -> bytes | None:
    """Within a bound, on top of a base or of nothing."""
    planes = Planes.of(subject.arranged.shape)
    fields = _fields(subject, planes)
    known = None
    if base is not None:
        known = decode_bands(
            subject.header, base.exponent, base.streams, subject.arranged.shape, fields.dtype,
            subject.model, base_of=planes,
        ).reshape(fields.values.shape)  # fmt: skip
    coded = residual.encode(fields, bound, planes.sequences, known, thorough=base is None)
    if coded is None:
        return None
    return subject.pack(base, coded.section, planes.arranged(coded.kept))


def _fields(subject: Subject, planes: Planes) -> PlaneFields:
    """As what follows plane after plane."""
    valid = subject.valid
    if valid is None:
        valid = np.ones(subject.arranged.shape, np.bool_)
    values = planes.table(subject.arranged.astype(np.float64), 0.0)
    present = planes.table(valid.reshape(subject.arranged.shape), False)
    return PlaneFields(values, present, subject.values.dtype, planes.plane)
