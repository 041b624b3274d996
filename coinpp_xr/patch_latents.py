"""Patches ↔ b-bit latents of a model's network: the paper's way, for images, volumes and sound."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from math import isfinite, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import entropy
from coinpp_xr.bitstream import Payload, Tag
from coinpp_xr.devices import fit, predict
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.models import Model
from coinpp_xr.patch_header import Band, Header
from coinpp_xr.patches import Patching
from coinpp_xr.quantization import BITS, are_in_proportion

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]

_NORMALISATION = struct.Struct("<dd")


def patching_of(model: Model, spatial: int) -> Patching:
    """The model's patches.

    Raises
    ------
    ValueError
        If it was not made for patches with so many axes.
    """
    if model.box is None or len(model.box.shape) != spatial:
        made_for = "globes" if model.box is None else f"patches of {len(model.box.shape)} axes"
        raise ValueError(
            f"model {model.name!r} was made for {made_for}, this codec cuts {spatial}: choose "
            "another one, see coinpp models list"
        )
    return Patching.of(model.box.shape)


def latent_count(shape: tuple[int, ...], patching: Patching, model: Model) -> int:
    """Latents of an array (items, channels, z, y, x)."""
    network = model.coded_network
    patches = prod(-(-n // size) for n, size in zip(shape[2:], patching.size, strict=True))
    return shape[0] * patches * -(-shape[1] // network.dim_out) * network.latent_dim


def encode(
    arranged: npt.NDArray[Any],
    valid: Bool | None,
    header: Header,
    model: Model,
    bits: int,
    normalisation: tuple[float, float],
) -> tuple[dict[Tag, bytes], float]:
    """Sections of a payload, and the share of the variance that is not explained.

    Parameters
    ----------
    arranged : array, shape (items, channels, z, y, x)
        With gaps filled.
    valid : bool array, same shape, or None
        What counts; None for all.
    header : Header
        Of the model's patches.
    model : Model
    bits : int
        Per latent.
    normalisation : (offset, scale)
        Features are (value − offset) / scale.
    """
    assert model.box is not None
    offset, scale = normalisation
    network, quantizer = model.coded_network, model.quantizer(bits)
    groups = _groups(arranged.shape[1], network.dim_out)
    missed = np.zeros(3)  # squares of what is missed, and of all, about the mean; the mean itself
    n_valid, total = 0, 0.0
    symbols = []
    for _, where in _parts(header, arranged.shape):
        features = ((arranged[where].astype(np.float64) - offset) / scale).astype(np.float32)
        counted = np.ones(features.shape, np.bool_) if valid is None else valid[where]
        targets = _cut(_padded(features, header, None)[groups], header, network.dim_out)
        # Channels of a cell are fitted together: one that is missing in one counts in none.
        present = _cut(_padded(counted, header, False)[groups], header, network.dim_out)
        weights: Float32 = np.asarray(present.all(axis=2), np.float32)
        latents = np.zeros((len(targets), network.latent_dim), np.float32)
        whole = weights.all(axis=1)
        if whole.any():
            equal = model.box.area_weights
            latents[whole] = fit(network, model.box.points, targets[whole], equal)
        some = ~whole & weights.any(axis=1)
        if some.any():
            latents[some] = fit(network, model.box.points, targets[some], weights[some])
        found = quantizer.quantize(latents)
        symbols.append(found)
        decoded = predict(network, model.box.points, quantizer.dequantize(found))
        counts = np.broadcast_to(weights[..., None], targets.shape)
        missed[0] += float((counts * (decoded - targets).astype(np.float64) ** 2).sum())
        missed[1] += float((counts * targets.astype(np.float64) ** 2).sum())
        total += float((counts * targets).sum(dtype=np.float64))
        n_valid += int(counts.sum())
    variance = missed[1] - total**2 / max(n_valid, 1)
    stream = entropy.encode(np.concatenate(symbols), model.histogram, bits)
    sections = {
        Tag.PATCHES: header.pack(),
        Tag.MEANS: _NORMALISATION.pack(offset, scale),
        Tag.LATENTS: stream,
    }
    return sections, missed[0] / max(variance, 1e-30)


def decode(
    payload: Payload,
    header: Header,
    model: Model,
    shape: tuple[int, ...],
    wanted: tuple[Bool, tuple[slice, ...]] | None = None,
) -> npt.NDArray[Any]:
    """The array, (items, channels, z, y, x), or those parts that hold some items and cells.

    In double precision where the data is, else in single; not rounded yet.

    Raises
    ------
    CorruptPayloadError
    """
    damaged = CorruptPayloadError("payload's header contradicts itself")
    normalisation = payload.section(Tag.MEANS)
    if payload.bits not in BITS or len(normalisation) != _NORMALISATION.size:
        raise damaged
    offset, scale = _NORMALISATION.unpack(normalisation)
    if not (isfinite(offset) and isfinite(scale) and scale > 0):
        raise damaged
    if model.box is None or header.patching != Patching.of(model.box.shape):
        raise CorruptPayloadError("payload's patches are not those of its model")
    network, quantizer = model.coded_network, model.quantizer(payload.bits)
    groups = _groups(shape[1], network.dim_out)
    n_latents = latent_count(shape, header.patching, model)
    if not are_in_proportion(n_latents, payload.nbytes):
        raise CorruptPayloadError("payload claims more latents than its array is worth")
    n_patches = n_latents // network.latent_dim
    symbols = entropy.decode(payload.section(Tag.LATENTS), n_patches, model.histogram, payload.bits)
    values = np.zeros(shape, np.float64 if payload.dtype.itemsize > 4 else np.float32)
    start = 0
    for band, where in _parts(header, shape):
        part = values[where]
        padded = header.patching.padded(part.shape[1:])
        count = (
            prod(n // size for n, size in zip(padded, header.patching.size, strict=True))
            * len(groups) // network.dim_out
        )  # fmt: skip
        own = symbols[start : start + count]
        start += count
        if wanted is not None and not band.touches(*wanted):
            continue
        features = predict(network, model.box.points, quantizer.dequantize(own))
        joined = _join(features, header, padded)
        for channel in range(len(part)):
            copies = joined[groups == channel][:, : part.shape[1], : part.shape[2], : part.shape[3]]
            part[channel] = copies.mean(axis=0) * values.dtype.type(scale)
        part += values.dtype.type(offset)
        np.clip(part, header.lowest, header.highest, out=part)
    return values


def _parts(header: Header, shape: tuple[int, ...]) -> Iterator[tuple[Band, tuple[Any, ...]]]:
    for band in header.bands(shape[0], (shape[2], shape[3], shape[4])):
        for where in band.slices:
            yield band, where


def _groups(channels: int, together: int) -> npt.NDArray[np.int64]:
    """Which channel each output of the network stands for; the last one may stand for several."""
    return np.minimum(np.arange(-(-channels // together) * together), channels - 1)


def _padded(part: npt.NDArray[Any], header: Header, constant: bool | None) -> npt.NDArray[Any]:
    """Whole patches, filled up by a constant or by what is at the edge."""
    whole = header.patching.padded(part.shape[1:])
    margins = [(0, 0), *((0, n - m) for n, m in zip(whole, part.shape[1:], strict=True))]
    if constant is None:
        return np.pad(part, margins, mode="edge")
    return np.pad(part, margins, constant_values=constant)


def _cut(values: npt.NDArray[Any], header: Header, together: int) -> npt.NDArray[Any]:
    """Channels (channels, z, y, x) → patches (patches · groups, cells, channels of a group)."""
    size = header.patching.size
    z, y, x = (n // m for n, m in zip(values.shape[1:], size, strict=True))
    blocks = values.reshape(-1, together, z, size[0], y, size[1], x, size[2])
    return blocks.transpose(2, 4, 6, 0, 3, 5, 7, 1).reshape(-1, prod(size), together)


def _join(patches: Float32, header: Header, padded: tuple[int, ...]) -> Float32:
    """The opposite of :func:`_cut`."""
    size, together = header.patching.size, patches.shape[2]
    z, y, x = (n // m for n, m in zip(padded, size, strict=True))
    blocks = patches.reshape(z, y, x, -1, *size, together)
    return blocks.transpose(3, 7, 0, 4, 1, 5, 2, 6).reshape(-1, *padded)
