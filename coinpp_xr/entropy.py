"""Symbols ↔ bits: range coding with integer tables from the model file.

Every number that drives the decoder is an integer: tables are cut from integer histograms by
integer arithmetic, and become floats only as exact values that the range coder rounds the same
way everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import constriction
import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.errors import CorruptPayloadError

Histogram = npt.NDArray[np.uint32]
Symbols = npt.NDArray[np.int32]

# A histogram covers ±6σ: twice the range of the quantizer, which is what its two outermost
# levels reach at one bit.
CELLS = 512
_RANGE_IN_STD = 6.0
_TOTAL = 1 << 22
# A zigzagged int32 has 0 to 32 bits.
_LENGTHS = 33
# Share of a heavy-tailed distribution in every table: no field is trusted to look like training.
_BROAD_SHARE = 0.02


def fit_histogram(
    latents: npt.ArrayLike, mean: npt.NDArray[np.float64], std: npt.NDArray[np.float64]
) -> Histogram:
    """Smoothed frequencies of training latents as integers.

    Parameters
    ----------
    latents : array_like, shape (items, latent_dim)
    mean, std : float64 array, shape (latent_dim,)

    Returns
    -------
    uint32 array, shape (latent_dim, 512)
        Counts over mean − 6σ .. mean + 6σ, every row with the same sum.
    """
    normalised = (np.asarray(latents, dtype=np.float64) - mean) / std
    edges = np.linspace(-_RANGE_IN_STD, _RANGE_IN_STD, CELLS + 1)
    centres = (edges[1:] + edges[:-1]) / 2
    # Half of Silverman's bandwidth: the tables follow the shape without following the sample.
    bandwidth = 0.53 * max(len(normalised), 1) ** -0.2
    kernel = np.exp(-0.5 * ((centres[:, None] - centres[None]) / bandwidth) ** 2)
    kernel /= kernel.sum(0)
    broad = (1 + centres**2 / 3) ** -2.0
    rows = []
    for column in normalised.T:
        counts = np.histogram(column.clip(edges[0], edges[-1]), edges)[0]
        density = kernel @ counts / max(counts.sum(), 1)
        density = (1 - _BROAD_SHARE) * density + _BROAD_SHARE * broad / broad.sum()
        rows.append(np.rint(density / density.sum() * _TOTAL))
    return np.array(rows, dtype=np.uint32)


def frequencies(histogram: Histogram, bits: int) -> npt.NDArray[np.int64]:
    """Integer frequencies of the symbols 0 .. 2^b − 1 and of the escape, all positive.

    Parameters
    ----------
    histogram : uint32 array, shape (latent_dim, 512)
    bits : int

    Returns
    -------
    int64 array, shape (latent_dim, 2^bits + 1)
    """
    levels = 1 << bits
    counts = np.pad(histogram.astype(np.int64), ((0, 0), (0, 1)))
    cumulative = np.cumsum(counts, axis=1) - counts
    # Level i covers (i ± ½) / (levels − 1) of the quantizer's range, which is the middle half
    # of the histogram. Edges fall inside cells; the cell is split in proportion, in integers.
    position = 128 * (2 * np.arange(levels + 1) + levels - 2)
    cell, rest = np.divmod(position, levels - 1)
    below = cumulative[:, cell] + counts[:, cell] * rest // (levels - 1)
    inside = np.diff(below, axis=1) + 1
    total = counts.sum(axis=1, keepdims=True)
    escape = total - (below[:, -1:] - below[:, :1]) + 1
    return np.concatenate([inside, escape], axis=1)


def encode(symbols: Symbols, histogram: Histogram, bits: int) -> bytes:
    """Range-code symbols, shape (items, latent_dim); what the tables lack is escaped."""
    levels = 1 << bits
    coder = constriction.stream.queue.RangeEncoder()
    coded = np.where((symbols >= 0) & (symbols < levels), symbols, levels).astype(np.int32)
    for column, table in zip(coded.T, _tables(histogram, bits), strict=True):
        coder.encode(np.ascontiguousarray(column), table)
    escaped = _zigzag(symbols.T[levels == coded.T])
    lengths = _bit_lengths(escaped)
    coder.encode(lengths, _uniform(_LENGTHS))
    # A value is sent in two halves: the coder's models hold at most 24 bits.
    for high_part, width in ((True, lengths - 16), (False, np.minimum(lengths, 16))):
        for value, n in zip(escaped, width, strict=True):
            if n > 0:
                part = value >> 16 if high_part else value & 0xFFFF
                coder.encode(int(part), _uniform(1 << int(n)))
    return bytes(coder.get_compressed().astype("<u4").tobytes())


def decode(stream: bytes, items: int, histogram: Histogram, bits: int) -> Symbols:
    """The symbols that :func:`encode` was given, shape (items, latent_dim)."""
    if len(stream) % 4:
        raise CorruptPayloadError("the latents' stream does not end on a whole word")
    levels = 1 << bits
    try:
        coder = constriction.stream.queue.RangeDecoder(
            np.frombuffer(stream, dtype="<u4").astype(np.uint32)
        )
        symbols = np.empty((len(histogram), items), np.int32)
        for column, table in zip(symbols, _tables(histogram, bits), strict=True):
            column[:] = coder.decode(table, items)
        outside = symbols == levels
        lengths = coder.decode(_uniform(_LENGTHS), int(outside.sum())).astype(np.int32)
        values = np.zeros(len(lengths), dtype=np.int64)
        for high_part, width in ((True, lengths - 16), (False, np.minimum(lengths, 16))):
            for index, n in enumerate(width):
                if n > 0:
                    part = int(coder.decode(_uniform(1 << int(n))))
                    values[index] |= part << 16 if high_part else part
        exhausted = coder.maybe_exhausted()
    except (AssertionError, ValueError, OverflowError) as error:
        raise CorruptPayloadError("the latents' stream does not fit its tables") from error
    if not exhausted:
        raise CorruptPayloadError("the latents' stream holds more than its header says")
    symbols[outside] = _unzigzag(values)
    return np.ascontiguousarray(symbols.T)


def _tables(histogram: Histogram, bits: int) -> Iterator[Any]:
    """One table for every latent, one by one: of 16 bits, they are half a megabyte each."""
    for row in histogram:
        yield _table(row.tobytes(), bits)


@remembered(lambda _, row, bits: 16 << bits)
def _table(row: bytes, bits: int) -> Any:
    (table,) = frequencies(np.frombuffer(row, np.uint32)[None], bits)
    return constriction.stream.model.Categorical(table.astype(np.float64), perfect=False)


@lru_cache(maxsize=32)
def _uniform(size: int) -> Any:
    # The coder needs at least two symbols; the second of a one-symbol alphabet is never sent.
    return constriction.stream.model.Uniform(max(size, 2))


def _zigzag(values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    wide = values.astype(np.int64)
    return np.where(wide >= 0, 2 * wide, -2 * wide - 1)


def _unzigzag(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return np.where(values % 2 == 0, values // 2, -(values + 1) // 2).astype(np.int32)


def _bit_lengths(values: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    return np.array([int(value).bit_length() for value in values], dtype=np.int32)
