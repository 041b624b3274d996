"""A small network that takes the artefacts of blocks away, after decoding; parameters of a model.

Patches and their blocks do not overlap, and what rounding leaves out shows at their edges and as
ripples within. A few convolutions see the decoded values in units of the step, the sizes of the
blocks and where their edges are, and estimate what is missing. The numbers they work on are decoded
already: nothing here decides how bits are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.patches import LEVELS, Patching, spread_out

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# Taps along the last axis are taken in threes.
TAPS = 3


@dataclass(frozen=True, eq=False)
class Deblocking:
    """Convolutions with rectified outputs, but for the last.

    Parameters
    ----------
    kernels : tuple of float32 arrays, each of shape (out, in, z, y, x)
        Of odd extents, along x multiples of three. The first has the inputs of :func:`inputs`, the
        last one output: what to add, in steps.
    biases : tuple of float32 arrays, each of shape (out,)
    """

    kernels: tuple[Float32, ...]
    biases: tuple[Float32, ...]

    @property
    def tensors(self) -> dict[str, Float32]:
        """By the names that model files use."""
        named = {f"deblocking.kernel.{i}": kernel for i, kernel in enumerate(self.kernels)}
        return named | {f"deblocking.bias.{i}": bias for i, bias in enumerate(self.biases)}

    @classmethod
    def from_tensors(cls, tensors: dict[str, npt.NDArray[Any]]) -> Deblocking | None:
        """The opposite; None where there are none.

        Raises
        ------
        ValueError
            If they do not fit each other.
        """
        layers = sum(name.startswith("deblocking.kernel.") for name in tensors)
        if layers == 0:
            return None
        kernels = tuple(tensors[f"deblocking.kernel.{i}"] for i in range(layers))
        biases = tuple(tensors[f"deblocking.bias.{i}"] for i in range(layers))
        widths = [k.shape[0] if k.ndim == 5 else 0 for k in kernels]
        fits = all(
            kernel.ndim == 5
            and bias.shape == kernel.shape[:1]
            and kernel.dtype == bias.dtype == np.float32
            and all(n % 2 == 1 for n in kernel.shape[2:])
            and kernel.shape[4] % TAPS == 0
            for kernel, bias in zip(kernels, biases, strict=True)
        )
        follow = [k.shape[1] for k in kernels[1:]] == widths[:-1] and widths[-1] == 1
        if not (fits and follow):
            raise ValueError("its layers against blocking do not fit each other")
        return cls(kernels, biases)

    def fits(self, patching: Patching) -> bool:
        """Whether it was made for patches of as many axes."""
        return int(self.kernels[0].shape[1]) == 2 + patching.axes

    def __call__(self, values: Float32, levels: Int32, patching: Patching, step: float) -> Float32:
        """Improved values of one channel.

        Parameters
        ----------
        values : float32 array, shape (z, y, x)
            Of whole patches.
        levels : int32 array, shape (least blocks along z, y, x)
        patching : Patching
            With as many axes as the network was made for.
        step : float
        """
        improved = np.empty_like(values)
        for slab in patching.slabs(values.shape, 1):
            around, own = self._around(slab, values.shape, patching)
            found = self._improved(values[around], levels[patching.least(around)], patching, step)
            improved[slab] = found[own]
        return improved

    def _around(
        self, slab: tuple[slice, ...], shape: tuple[int, ...], patching: Patching
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The patches that what comes of a slab depends on, and where the slab is among them."""
        around, own = [], []
        for axis, (part, n) in enumerate(zip(slab, shape, strict=True)):
            reach = 1 + sum(kernel.shape[2 + axis] // 2 for kernel in self.kernels)
            margin = -(-reach // patching.size[axis]) * patching.size[axis]
            start, stop, _ = part.indices(n)
            first = max(start - margin, 0)
            around.append(slice(first, min(stop + margin, n)))
            own.append(slice(start - first, stop - first))
        return tuple(around), tuple(own)

    def _improved(self, values: Float32, levels: Int32, patching: Patching, step: float) -> Float32:
        found = inputs(values, levels, patching, step)
        for i, (kernel, bias) in enumerate(zip(self.kernels, self.biases, strict=True)):
            margins = [(n // 2, n // 2) for n in kernel.shape[2:]]
            padded = np.pad(found, [(0, 0), *margins], mode="edge")
            found = np.empty((len(kernel), *values.shape), np.float32)
            _convolve(padded, kernel, bias, i + 1 < len(self.kernels), found)
        improved: Float32 = values + np.float32(step) * found[0]
        return improved


def inputs(values: Float32, levels: Int32, patching: Patching, step: float) -> Float32:
    """What the network sees, shape (features, z, y, x).

    Values in steps, the level of the block, and for every axis along which patches extend whether
    the edge to another block is next.
    """
    least, size = patching.block_sizes[-1], patching.size
    wide = spread_out(levels, least)
    features = [
        values * np.float32(1 / step),
        wide * np.float32(1 / (LEVELS - 1)) - np.float32(0.5),
    ]
    for axis in range(3):
        if size[axis] == 1:
            continue
        n = values.shape[axis]
        along = np.arange(n).reshape([n if a == axis else 1 for a in range(3)])
        extent = np.maximum(size[axis] >> wide, 1)
        within = along % extent
        edge = ((within == 0) & (along > 0)) | ((within == extent - 1) & (along < n - 1))
        features.append(edge.astype(np.float32))
    return np.stack(features).astype(np.float32, copy=False)


@compiled
def _convolve(
    padded: Float32, kernel: Float32, bias: Float32, rectified: bool, result: Float32
) -> None:
    outputs, depth, height, width = result.shape
    for z in range(depth):
        for y in range(height):
            for o in range(outputs):
                row = result[o, z, y]
                for x in range(width):
                    row[x] = bias[o]
                for c in range(kernel.shape[1]):
                    for i in range(kernel.shape[2]):
                        for j in range(kernel.shape[3]):
                            for k in range(0, kernel.shape[4], TAPS):
                                # Views that start at their first tap: indices that are sums would
                                # be checked for being negative, one by one.
                                first = padded[c, z + i, y + j, k:]
                                second, third = first[1:], first[2:]
                                one = kernel[o, c, i, j, k]
                                two = kernel[o, c, i, j, k + 1]
                                three = kernel[o, c, i, j, k + 2]
                                for x in range(width):
                                    row[x] += one * first[x] + two * second[x] + three * third[x]
                if rectified:
                    for x in range(width):
                        row[x] = max(row[x], np.float32(0))
