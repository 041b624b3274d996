"""A base network as decoders evaluate it: the same bits on every machine and device.

Networks compute in whatever way is fastest while they learn and are fitted. Here their matrix
products are exact sums of rounded operands (:mod:`coinpp_xr.products`) and their sines are
:mod:`coinpp_xr.elementary`'s; all else is in double precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.compiled import compiled
from coinpp_xr.elementary import HALF_TURNS, PI, SINE, sine
from coinpp_xr.network import LinearTail
from coinpp_xr.products import BITS, Operand, exact_sums, right, same_product
from coinpp_xr.siren import ModulatedSiren

Array = Any  # numpy.ndarray or torch.Tensor
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# What a layer hands on is whole numbers of 1 / _WHOLE, exact operands of the next product.
_WHOLE = 1 << BITS


class Evaluation:
    """A SIREN with numpy parameters, ready to be evaluated.

    Parameters
    ----------
    siren : ModulatedSiren
        With shifts that are linear in the latents, as models have them.
    device : str
        Of torch's; numpy's arithmetic for ``cpu``.
    """

    def __init__(self, siren: ModulatedSiren, device: str = "cpu") -> None:
        self._siren, self._device = siren, device
        omega = np.float32(siren.omega0)
        first, *hidden = [right((omega * weight).T) for weight in siren.weights[:-1]]
        self._first: Operand = first
        self._later = [
            (self._put(weight.high), self._put(weight.unit[0] / _WHOLE))
            for weight in (*hidden, right(siren.weights[-1].T))
        ]
        self._biases = [bias.astype(np.float64) for bias in siren.biases]

    @property
    def nbytes(self) -> int:
        """Of the weights."""
        return sum(16 * int(weight.size) for weight in self._siren.weights)

    def __call__(self, points: Float32, latents: Float32) -> Float32:
        """The output, shape (batch, points, dim_out)."""
        siren = self._siren
        shifts = same_product(latents, siren.shift_map.T)
        shifts = shifts.reshape(len(latents), siren.depth, siren.width)
        # Of the first layer all but the shifts is the same for all items.
        numbers = self._put(np.ascontiguousarray(same_product(points, self._first)))[None]
        unit = self._put(np.ones(siren.width))
        for layer in range(siren.depth):
            offset = self._put(siren.omega0 * (self._biases[layer] + shifts[:, layer]))
            hidden = _whole_sines(numbers, unit, offset)
            weight, unit = self._later[layer]
            numbers = exact_sums(hidden, weight)
        found = numbers * unit + self._put(self._biases[-1] + 0.5)
        found = found if isinstance(found, np.ndarray) else found.cpu().numpy()
        return np.asarray(found, np.float32)

    def _put(self, array: Float64) -> Array:
        if self._device == "cpu":
            return array
        import torch

        return torch.as_tensor(array).to(self._device)


def _whole_sines(numbers: Array, unit: Array, offset: Array) -> Array:
    """sin(number · unit + offset), rounded to whole numbers of 1 / _WHOLE.

    Parameters
    ----------
    numbers : float64 array, shape (batch or 1, points, width)
    unit : float64 array, shape (width,)
    offset : float64 array, shape (batch, width)
    """
    if not isinstance(numbers, np.ndarray):
        return (sine(numbers * unit + offset[:, None]) * _WHOLE).round()
    found = np.empty((len(offset), *numbers.shape[1:]))
    _fill_whole_sines(numbers, unit, offset, found)
    return found


@compiled
def _fill_whole_sines(numbers: Float64, unit: Float64, offset: Float64, found: Float64) -> None:
    """In one go what :func:`coinpp_xr.elementary.sine` does step by step."""
    shared = len(numbers) == 1
    for item in range(len(found)):
        given = numbers[0 if shared else item]
        shift = offset[item]
        for point in range(found.shape[1]):
            row, result = given[point], found[item, point]
            for i in range(len(row)):
                angle = row[i] * unit[i] + shift[i]
                turns = np.rint(angle * HALF_TURNS)
                rest = angle - turns * PI[0]
                rest = rest - turns * PI[1]
                rest = rest - turns * PI[2]
                rest = min(max(rest, -2.0), 2.0)
                x = rest * rest
                series = SINE[9] * x + SINE[8]
                series = series * x + SINE[7]
                series = series * x + SINE[6]
                series = series * x + SINE[5]
                series = series * x + SINE[4]
                series = series * x + SINE[3]
                series = series * x + SINE[2]
                series = series * x + SINE[1]
                series = series * x + SINE[0]
                odd = abs(turns - 2.0 * np.rint(turns * 0.5))
                result[i] = np.rint((1.0 - 2.0 * odd) * (rest * series) * _WHOLE)


def tail_in_box(tail: LinearTail, points: Float32, latents: Float32) -> Float64:
    """Output of a tail of cosines, shape (batch, points, channels), in double precision."""
    mean, modes = tail.linearise(points)
    rows = modes.reshape(mean.shape[1] * mean.shape[2], tail.latent_dim)
    found = same_product(latents, rows.T).reshape(-1, *mean.shape[1:])
    return np.asarray(found + mean)
