"""Coefficients → whole numbers that are worth their bits, and what they stand for.

A number is the one of the nearest two, and zero, by which squared error and bits, weighed against
each other, are least; what a number takes is told by how often it occurred where as much was
expected. Nothing here is part of the format but :class:`Steps`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.decisions import CLASSES, LARGEST_SIZE
from coinpp_xr.coding.wavelets.numbers import COEFFICIENT_BITS, N_FEATURES, SIZE_SHIFT, features
from coinpp_xr.coding.wavelets.subbands import PAD
from coinpp_xr.compiled import compiled
from coinpp_xr.errors import CorruptPayloadError

Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]

# Magnitudes that are told apart: 0, 1, 2 and more.
KINDS = 4
# Squares of steps that a bit is worth; and what is rounded up before anything is counted.
_WORTH_OF_BIT, UP_FROM = 0.085, 0.6
SHIFT_PARTS = 256
_STEPS = struct.Struct("<fBBB")


@dataclass(frozen=True)
class Steps:
    """What numbers stand for.

    Parameters
    ----------
    step : float
        Of single precision.
    towards_zero : (float, float, float)
        By which part of a step values of 1, of 2 and of more are nearer to zero.
    """

    step: float
    towards_zero: tuple[float, float, float]

    def pack(self) -> bytes:
        parts = [min(max(round(SHIFT_PARTS * s), 0), 255) for s in self.towards_zero]
        return _STEPS.pack(self.step, *parts)

    @classmethod
    def unpack(cls, data: bytes) -> Steps:
        """The reverse of :meth:`pack`.

        Raises
        ------
        CorruptPayloadError
        """
        if len(data) < _STEPS.size:
            raise CorruptPayloadError("the head of the wavelets is cut short")
        step, one, two, more = _STEPS.unpack_from(data)
        if not 0 < step < np.inf:
            raise CorruptPayloadError("the head of the wavelets is damaged")
        return cls(step, (one / SHIFT_PARTS, two / SHIFT_PARTS, more / SHIFT_PARTS))

    @staticmethod
    def size() -> int:
        return _STEPS.size

    def values(self, numbers: Int32) -> Float64:
        """Coefficients of numbers that nothing surrounds."""
        values = np.empty(numbers.shape)
        one, two, more = self.towards_zero
        _rebuild(numbers, self.step, np.array([0.0, one, two, more]), values)
        return values


@compiled
def _rebuild(numbers: Any, step: Any, shifts: Any, values: Any) -> None:
    for i in range(len(numbers)):
        row, own = numbers[i], values[i]
        for j in range(len(row)):
            n = row[j]
            if n == 0:
                own[j] = 0
            else:
                size = step * (abs(n) - shifts[min(abs(n), KINDS - 1)])
                own[j] = size if n > 0 else -size


@compiled
def round_plainly(values: Any, step: Any, numbers: Any) -> None:
    """Into the middle of padded numbers."""
    up = 1 - UP_FROM
    for i in range(len(values)):
        row, own = values[i], numbers[i + PAD]
        for j in range(len(row)):
            size = np.int64(abs(row[j]) / step + up)
            own[j + PAD] = size if row[j] > 0 else -size


@compiled
def count(
    coefficients: Any,
    own: Any,
    parent: Any,
    one: Any,
    other: Any,
    first: Any,
    second: Any,
    size_class: Any,
    every: Any,
    counts: Any,
) -> None:
    """How often which magnitude occurs where as much is expected.

    Parameters
    ----------
    every : int
        One of so many rows is looked at.
    counts : float64 array, shape (classes, kinds + 1)
        Last, the sum of what is beyond the largest of these magnitudes.
    """
    for i in range(PAD, own.shape[0] - PAD, every):
        for j in range(PAD, own.shape[1] - PAD):
            c = _class_at(coefficients, own, parent, one, other, first, second, i, j, size_class)
            n = abs(own[i, j])
            counts[c, min(n, KINDS - 1)] += 1
            counts[c, KINDS] += max(n - KINDS + 1, 0)


@compiled
def _class_at(
    k: Any, own: Any, parent: Any, one: Any, other: Any, first: Any, second: Any, i: Any, j: Any,
    size_class: Any,
) -> Any:  # fmt: skip
    f = features(own, parent, one, other, first, second, i, j)
    size = (
        k[0] + k[1] * f[0] + k[2] * f[1] + k[3] * f[2] + k[4] * f[3] + k[5] * f[4] + k[6] * f[5]
        + k[7] * f[6] + k[8] * f[7]
    ) >> SIZE_SHIFT  # fmt: skip
    return size_class[min(max(size, 0), LARGEST_SIZE - 1)]


@compiled
def round_well(
    values: Any,
    step: Any,
    coefficients: Any,
    own: Any,
    parent: Any,
    one: Any,
    other: Any,
    first: Any,
    second: Any,
    size_class: Any,
    bits: Any,
    shifts: Any,
) -> None:
    """Numbers of a subband, place by place.

    Parameters
    ----------
    values : float64 array, shape (rows, columns)
    bits : float64 array, shape (classes, kinds + 1)
        What magnitudes take; last, each step beyond.
    shifts : float64 array, shape (kinds,)
        By which part of a step values are nearer to zero.
    """
    for i in range(len(values)):
        row, target = values[i], own[i + PAD]
        for j in range(len(row)):
            size = abs(row[j]) / step
            nearest = np.int64(size + 0.5)
            if nearest == 0:
                target[j + PAD] = 0
                continue
            c = _class_at(
                coefficients, own, parent, one, other, first, second, i + PAD, j + PAD, size_class
            )
            best, least = nearest, 1e300
            for n in range(nearest - 1, nearest + 1):
                kind = min(n, KINDS - 1)
                off = size - n + shifts[kind]
                told = bits[c, kind] + (n - kind) * bits[c, KINDS]
                cost = off * off + _WORTH_OF_BIT * told
                if cost < least:
                    best, least = np.int64(n), cost
            if nearest == 2 and size * size + _WORTH_OF_BIT * bits[c, 0] < least:
                best = np.int64(0)
            target[j + PAD] = best if row[j] > 0 else -best


def bits_of(counts: Float64) -> Float64:
    """What magnitudes take, signs included, shape (classes, kinds + 1)."""
    seen = counts[:, :KINDS] + np.array([8.0, 1.0, 0.3, 0.1])
    bits = np.empty((CLASSES, KINDS + 1))
    bits[:, :KINDS] = -np.log2(seen / seen.sum(axis=1, keepdims=True))
    bits[:, 1:KINDS] += 1
    bits[:, KINDS - 1] += 1
    bits[:, KINDS] = np.clip(bits[:, KINDS - 1] - bits[:, KINDS - 2] - 1, 0.05, 2)
    return bits


def bits_in(counts: Float64) -> float:
    """What magnitudes that were counted take: those beyond the last by a geometric distribution."""
    bits, more = bits_of(counts), counts[:, KINDS - 1]
    mean = counts[:, KINDS] / np.maximum(more, 1e-9)
    further = (mean + 1) * np.log2(mean + 1) - mean * np.log2(np.maximum(mean, 1e-9))
    bits[:, KINDS - 1] -= 1  # is part of what follows
    return float((counts[:, :KINDS] * bits[:, :KINDS]).sum() + (more * further).sum())


@compiled
def add_sums(
    own: Any,
    parent: Any,
    one: Any,
    other: Any,
    first: Any,
    second: Any,
    every: Any,
    x: Any,
    sums: Any,
) -> None:
    """Weighted sums of products of features, and of features with magnitudes, shape (10, 9)."""
    for i in range(PAD, own.shape[0] - PAD, every):
        for j in range(PAD, own.shape[1] - PAD):
            f = features(own, parent, one, other, first, second, i, j)
            magnitude = abs(own[i, j])
            if f[0] + f[1] + f[2] + f[3] + f[4] + f[5] + f[6] + f[7] == 0:
                share = 1 / (0.05 * np.sqrt(0.05))
                sums[0, 0] += share
                sums[N_FEATURES, 0] += share * magnitude
                continue
            x[0], x[1], x[2], x[3], x[4] = 1, f[0], f[1], f[2], f[3]
            x[5], x[6], x[7], x[8] = f[4], f[5], f[6], f[7]
            usual = 0.05
            for k in range(1, N_FEATURES):
                usual += 0.05 * x[k]
            usual += 0.2 * x[1] + 0.1 * x[2]
            share = 1 / (usual * np.sqrt(usual))
            for k in range(N_FEATURES):
                factor, row = share * x[k], sums[k]
                for m in range(N_FEATURES):
                    row[m] += factor * x[m]
                sums[N_FEATURES, k] += factor * magnitude


@compiled
def add_shifts(values: Any, step: Any, numbers: Any, sums: Any) -> None:
    """How many magnitudes are 0, 1, 2 and more, and how far they are beyond what they round."""
    for i in range(len(values)):
        row, own = values[i], numbers[i]
        for j in range(len(row)):
            n = abs(own[j])
            kind = min(n, KINDS - 1)
            sums[0, kind] += 1
            sums[1, kind] += n - abs(row[j]) / step


USUAL = np.rint(
    np.array([0.02, 0.2, 0.1, 0.08, 0.1, 0.02, 0.03, 0.03, 0.02]) * (1 << COEFFICIENT_BITS)
).astype(np.int64)
