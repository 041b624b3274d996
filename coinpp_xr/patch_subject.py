"""An array of patches as its encoder sees it: coded at any step, measured, and packed.

The array is cut into bands of patches, each with a stream of its own: several are coded at a time,
and one can be decoded without the others. All share one step, which is the rate control.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import ceil, isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields
from coinpp_xr.fields import round_to
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.patch_header import LARGEST, WHOLE, Band, Header, join
from coinpp_xr.patch_reading import decode_patches, mask_shape, prior_of, within
from coinpp_xr.patches import Layout, Patching
from coinpp_xr.quantization import exponent_of, step_of
from coinpp_xr.stepping import MOST_EXPONENT

if TYPE_CHECKING:
    from coinpp_xr.splitting import Analysis

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# What a bit may cost in squared steps. From 0.09 to 0.13 photographs differ by less than 0.05 dB.
PRICE = 0.09
# Bytes of transforms that are kept from one trial to the next.
_MOST_KEPT = 1 << 26
# Up to here double precision has every integer.
_LARGEST_INTEGER = 1 << 53
# Coefficients that a curve is made of.
_CURVE_CELLS = 1 << 15


@dataclass(frozen=True)
class Coded:
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
class Subject:
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
    ) -> Subject | None:
        """None where there is nothing to be coded but exactly."""
        usable = _usable(values, exact_zeros)
        if usable is None:
            valid, arranged = None, layout.arrange(values)
        elif usable.any():
            valid, arranged = layout.arrange(usable), layout.arrange(_filled(values, usable))
        else:
            return None
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
    def cells(self) -> int:
        """Places in space, whatever their channels."""
        return self.items * prod(self.space)

    @property
    def can_deblock(self) -> bool:
        deblocking = self.model.deblocking if self.model else None
        return deblocking is not None and deblocking.fits(self.header.patching)

    @cached_property
    def bands(self) -> list[Band]:
        return self.header.bands(self.items, self.space)

    def flat(self) -> Coded:
        """Hardly anything but the means: what takes the fewest bytes."""
        reach = (self.header.highest - self.header.lowest) * prod(self.header.patching.size)
        step = min(max(exponent_of(4 * reach), -MOST_EXPONENT), MOST_EXPONENT)
        return self.code(step, self.bands, measured=False, deblocked=False)

    def code(
        self, exponent: int, bands: list[Band], *, measured: bool, deblocked: bool | None
    ) -> Coded:
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
        return Coded(exponent, list(streams), found[best], ways[best])

    def _code_band(self, exponent: int, band: Band, measured: list[bool]) -> tuple[bytes, Float64]:
        """Its stream and, for every way to be measured, :meth:`_sums`."""
        from coinpp_xr import bands  # compiles, or loads what was compiled

        patching, step = self.header.patching, step_of(exponent)
        walk = bands.encoder(patching, prior_of(self.model))
        sums = np.zeros((len(measured), 2, 2))
        for where, analysis in zip(band.slices, self.analyses(band), strict=True):
            coefficients, levels = analysis.split(step, PRICE)
            symbols = walk.encode(coefficients, levels, PRICE)
            if not measured:
                continue
            channels = patching.values(symbols, levels, step)
            for i, deblocked in enumerate(measured):
                if deblocked and self.model is not None and self.model.deblocking is not None:
                    channels[0] = self.model.deblocking(channels[0], levels, patching, step)
                decoded = self.header.finished(
                    channels[within(self.arranged[where])], self.values.dtype
                )
                sums[i] += self._sums(decoded, where, self._inner(band, where[0]))
        return walk.finish(), sums

    def _sums(
        self, decoded: npt.NDArray[Any], where: tuple[Any, ...], inner: tuple[slice, ...]
    ) -> Float64:
        """Squared errors of what was decoded and numbers of cells: within, and with padding."""
        rounded = round_to(decoded, self.values.dtype).astype(np.float64)
        squared = (rounded - self.arranged[where]) ** 2
        counted = np.ones(squared.shape, np.bool_) if self.valid is None else self.valid[where]
        squared[~counted] = 0
        return np.array(
            [[squared[inner].sum(), squared.sum()], [counted[inner].sum(), counted.sum()]]
        )

    def mean_squared_error(self, decoded: npt.NDArray[Any]) -> float:
        """Of all cells, and without what looks like padding: the larger one."""
        items, *space = self._filled_up_to
        inner = (slice(items), slice(None), *map(slice, space))
        return _error(self._sums(decoded.reshape(self.arranged.shape), (), inner))

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
        unlike, extents = self.arranged != self.arranged[-1, -1, -1, -1, -1], []
        for axis in (0, 2, 3, 4):
            others = tuple(other for other in range(5) if other != axis)
            found = np.flatnonzero(unlike.any(axis=others))
            extents.append(int(found[-1]) + 1 if found.size else 1)
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
        self, coded: Coded | None, on_top: bytes | None = None, kept: Bool | None = None
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
        decoded, given = self._decoded(payload), self.header.layout.arrange(self.values)
        close = bound.holds(decoded.astype(np.float64), given.astype(np.float64))
        if self.valid is None:
            return bool(close.all())
        exact = decoded[~self.valid].tobytes() == given[~self.valid].tobytes()
        return exact and bool(close[self.valid].all())

    def meets(self, payload: bytes, rmse: float) -> bool:
        """Whether what a decoder makes of a payload has no larger error."""
        return self.mean_squared_error(self._decoded(payload)) <= rmse**2

    def _decoded(self, payload: bytes) -> npt.NDArray[Any]:
        """In the order of :attr:`arranged`."""
        models = {} if self.model is None else {self.model.fingerprint: self.model}
        decoded = decode_patches(Payload.unpack(payload), models.__getitem__)
        return self.header.layout.arrange(decoded)

    def middle(self, cells: int) -> Subject:
        """What is in the middle, to try things on: about so many cells, which cannot be packed."""
        n_channels, axes = self.arranged.shape[1], sum(n > 1 for n in self.space)
        side = max(1, ceil((cells / n_channels) ** (1 / max(axes, 1))))
        starts = [max(0, (n - side) // 2) for n in (self.items, *self.space)]
        item, *inner = (slice(start, start + side) for start in starts)
        where = (slice(item.start, item.start + 1), slice(None), *inner)
        valid = None if self.valid is None else self.valid[where]
        return replace(self, arranged=self.arranged[where], valid=valid)


def _with_prior(model: Model | None, layout: Layout) -> Model | None:
    """The model if the coder can learn from it; patches of other axes are another matter."""
    if model is None or model.prior is None or model.box is None:
        return None
    return model if len(model.box.shape) == layout.spatial else None


def _usable(values: npt.NDArray[Any], exact_zeros: bool) -> Bool | None:
    """Which values can be coded; None for all."""
    if values.dtype.kind == "f":
        usable = np.isfinite(values) & (np.abs(values.astype(np.float64)) < LARGEST)
        if exact_zeros:
            usable &= ~((values == 0) & np.signbit(values))
    elif values.dtype.itemsize == 8:
        # Errors are computed in double precision, which tells no larger integers apart.
        usable = values <= _LARGEST_INTEGER
        if values.dtype.kind == "i":
            usable &= values >= -_LARGEST_INTEGER
    else:
        return None
    return None if usable.all() else usable


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
