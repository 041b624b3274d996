"""Payloads of patches → arrays, or the parts of them that are asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import patch_latents, residual
from coinpp_xr.bitstream import Kind, Payload, Tag
from coinpp_xr.coordinates import Plane
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.exact import unpack_mask, unpack_special_values
from coinpp_xr.fields import Sequences, are_few, round_to
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_in_threads
from coinpp_xr.patch_header import Band, Header, part
from coinpp_xr.quantization import step_of
from coinpp_xr.stepping import MOST_EXPONENT

if TYPE_CHECKING:
    from coinpp_xr.blocks import State

Bool = npt.NDArray[np.bool_]
Wanted = tuple[Bool, tuple[slice, ...]]

# Of a plane that a residual codes as a whole.
_STRIP_CELLS = 1 << 18


def decode_patches(
    payload: Payload,
    find_model: Callable[[str], Model],
    region: tuple[slice, ...] | None = None,
) -> npt.NDArray[Any]:
    """The array of a payload of patches.

    Parameters
    ----------
    payload : Payload
    find_model : callable
        Fingerprint → Model.
    region : tuple of slice, optional
        One along each of the array's axes; see :func:`checked_region`. What is outside may hold
        anything.

    Raises
    ------
    CorruptPayloadError
    """
    header = Header.unpack(payload.section(Tag.PATCHES), payload.shape)
    items, channels, space = header.layout.sizes(payload.shape)
    if payload.dtype.kind not in "iuf" or not are_few(items, channels * prod(space)):
        raise CorruptPayloadError("payload's header contradicts itself")
    too_large = header.patching.fitted(space).size != header.patching.size
    if too_large and payload.kind != Kind.PATCH_LATENTS:
        raise CorruptPayloadError("payload's patches are larger than its array")
    shape = (items, channels, *space)
    mask = None
    if Tag.MASK in payload.sections:
        mask = unpack_mask(payload.section(Tag.MASK), *mask_shape(payload.shape))
        mask = np.asarray(mask).reshape(payload.shape)
    wanted = None
    if region is not None and Tag.RESIDUAL not in payload.sections:
        wanted = header.layout.parts(region, payload.shape)
    model = find_model(payload.fingerprint) if payload.kind.has_model else None
    coded: npt.NDArray[Any] | None = None
    planes = Planes.of(shape)
    if payload.kind == Kind.PATCH_LATENTS:
        assert model is not None
        coded = patch_latents.decode(payload, header, model, shape, wanted)
    elif Tag.COEFFICIENTS in payload.sections or Tag.RESIDUAL not in payload.sections:
        whole = Tag.RESIDUAL not in payload.sections
        streams = part(payload.section(Tag.COEFFICIENTS), header.n_bands(items, space))
        coded = decode_bands(
            header,
            payload.exponent,
            streams,
            shape,
            payload.dtype,
            model,
            wanted,
            base_of=None if whole else planes,
        )
    if Tag.RESIDUAL in payload.sections:
        gaps = None
        if mask is not None or planes.padded != shape:
            missing = np.zeros(shape, np.bool_) if mask is None else header.layout.arrange(mask)
            gaps = planes.table(missing, True)
        base = None if coded is None else planes.table(coded, 0.0)
        section = payload.section(Tag.RESIDUAL)
        coded = planes.arranged(
            residual.decode(
                section, gaps, planes.plane.shape, planes.sequences, payload.dtype, base
            )
        )
    assert coded is not None
    if coded.dtype != payload.dtype:
        coded = round_to(coded, payload.dtype)
    arranged = coded.reshape(shape)
    values = header.layout.restore(arranged, payload.shape)
    if mask is not None:
        values = np.ascontiguousarray(values)
        special = payload.section(Tag.SPECIAL_VALUES)
        values[mask] = unpack_special_values(special, mask, payload.dtype)
    return values


def decode_bands(
    header: Header,
    exponent: int,
    streams: list[bytes],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    model: Model | None,
    wanted: Wanted | None = None,
    base_of: Planes | None = None,
) -> npt.NDArray[Any]:
    """All bands, shape (items, channels, z, y, x), or those that hold some items and cells.

    Rounded to the data's type, but for the base of a residual: that is in double precision, and has
    all rows of its strips.
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled

    items, channels, *space = shape
    if abs(exponent) > MOST_EXPONENT:
        raise CorruptPayloadError("payload's step is damaged")
    step, prior = step_of(exponent), prior_of(model)
    deblocking = None
    if header.deblocked:
        deblocking = None if model is None else model.deblocking
        if deblocking is None or not deblocking.fits(header.patching):
            raise CorruptPayloadError("payload needs layers against blocking, its model has none")
    # Memory that is never written to is never taken.
    room = np.zeros(shape, dtype) if base_of is None else np.zeros(base_of.padded)
    values = room[:, :, :, : shape[3]]

    def fill(job: tuple[Band, bytes]) -> None:
        band, stream = job
        walk = bands.decoder(stream, header.patching, prior)
        with np.errstate(all="ignore"):  # damaged symbols may be anything
            for where in band.slices:
                part = values[where]
                padded = header.patching.padded(part.shape[1:])
                for place, found in walk.decode(channels, padded, step, deblocking):
                    own = part[place]
                    decoded = header.finished(found[within(own)], dtype)
                    own[...] = decoded if base_of else round_to(decoded, dtype)
        walk.check_end()

    plan = header.bands(items, (space[0], space[1], space[2]))
    jobs = list(zip(plan, streams, strict=True))
    if wanted is not None:
        jobs = [job for job in jobs if job[0].touches(*wanted)]
    map_in_threads(fill, jobs)
    return room


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


@dataclass(frozen=True)
class Planes:
    """What a residual codes one after the other: slices of a volume, else channels.

    Large ones are cut into strips of rows, since all that is remembered of a plane takes a hundred
    bytes a cell. The last strip has rows that are not the array's.

    Parameters
    ----------
    shape : tuple of int
        Of an array (items, channels, z, y, x).
    strips : int
        Of a plane.
    """

    shape: tuple[int, ...]
    strips: int = 1

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> Planes:
        """As payloads have them."""
        y, x = shape[3:]
        rows = -(-y // min(y, -(-y * x // _STRIP_CELLS)))
        return cls(shape, -(-y // rows))

    @property
    def plane(self) -> Plane:
        return Plane((-(-self.shape[3] // self.strips), self.shape[4]))

    @property
    def padded(self) -> tuple[int, ...]:
        """The shape of an array that has all rows of all strips."""
        return (*self.shape[:3], self.strips * self.plane.shape[0], self.shape[4])

    @property
    def sequences(self) -> Sequences:
        """Which strip follows which."""
        items, channels, z, _, _ = self.shape
        rows = (items * channels, z) if z > 1 else (items, channels)
        numbers = np.arange(rows[0] * rows[1] * self.strips).reshape(*rows, self.strips)
        return Sequences(numbers.swapaxes(1, 2).reshape(-1, rows[1]))

    def table(self, values: npt.NDArray[Any], fill: Any) -> npt.NDArray[Any]:
        """An array as (strips, cells)."""
        if values.shape != self.padded:
            more = self.padded[3] - values.shape[3]
            margins = [(0, 0)] * 3 + [(0, more), (0, 0)]
            values = np.pad(values, margins, constant_values=fill)
        return values.reshape(-1, prod(self.plane.shape))

    def arranged(self, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The opposite of :meth:`table`."""
        return table.reshape(self.padded)[:, :, :, : self.shape[3]]


def mask_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Masks are kept by rows that are often the same: one for each but the last two axes."""
    return prod(shape[:-2]), prod(shape[-2:])


def within(part: npt.NDArray[Any]) -> tuple[slice, ...]:
    """Of whole patches, what the array has."""
    return (slice(None), *(slice(n) for n in part.shape[1:]))


def prior_of(model: Model | None) -> State | None:
    """What the coder starts from."""
    return None if model is None or model.prior is None else model.prior.state
