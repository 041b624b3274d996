"""The ways in which the fields of a chunk become bits at a given error.

The encoder tries those that suit the data and keeps the smallest result; the payload says which.

- *latents*: the model's latents, transformed along time. For what the model was made for.
- *grid*: what the fields differ from a mean, transformed over the sphere and along time. Needs no
  training, for any field on a latitude-longitude grid.

Fields that are made of patterns go another way: :mod:`coinpp_xr.patterns`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log2, sqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from coinpp_xr import coefficients as coding
from coinpp_xr.caching import nbytes_of, remembered
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import predict_on_grid
from coinpp_xr.fields import ROUNDING, Fields, Sequences
from coinpp_xr.models import Model
from coinpp_xr.quantization import (
    STEPS_PER_OCTAVE,
    estimated_bits,
    exponent_of,
    precision_of,
    quantize_for_rate,
    step_of,
    surrounding_sizes,
)
from coinpp_xr.transform import (
    SIZES_PER_OCTAVE,
    frequency_bands,
    is_transformable_in_time,
    sphere_transform,
    transform_in_time,
)

# The transform along time is one matrix: its memory grows with the square of a chunk's length.
MOST_ITEMS = 1 << 13
# How often a target is approached, and how closely.
_ATTEMPTS = 12
_CLOSE = 0.99
_FILLING_STEPS = 12
# Of fields that are transformed together.
_VALUES_AT_ONCE = 1 << 20
# Single precision will do for errors of this share of the largest value.
_SINGLE = 1e-3

Bool = npt.NDArray[np.bool_]
Floating = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Quantized:
    """Symbols of a transform, and the two numbers that turn them into coefficients."""

    symbols: npt.NDArray[np.int32]
    exponent: int
    along_time: bool

    @property
    def step(self) -> float:
        return step_of(self.exponent)

    @property
    def scaled(self) -> Floating:
        """Symbols times the step, in single precision where it is far finer than the step."""
        scaled = self.symbols.astype(precision_of(self.symbols))
        scaled *= scaled.dtype.type(self.step)
        return scaled

    @property
    def coefficients(self) -> Floating:
        """Coefficients with the transform along time undone, (sequences, times, orders, waves)."""
        return transform_in_time(self.scaled, inverse=True) if self.along_time else self.scaled


class Search:
    """The largest step that keeps the squared error of coefficients below a limit.

    Parameters
    ----------
    coefficients : array, shape (sequences, times, orders, waves)
        Orthonormal: their squared error, summed and divided by the number of fields, is the mean
        squared error of the fields.
    along_time : bool
        Whether to transform them along time first.
    """

    def __init__(self, coefficients: Floating, along_time: bool) -> None:
        self._along_time = along_time
        self._coefficients = transform_in_time(coefficients) if along_time else coefficients
        self._sizes = surrounding_sizes(self._coefficients)
        self._fields = coefficients.shape[0] * coefficients.shape[1]
        self._errors: dict[int, float] = {}

    def at(self, mean_squared_error: float) -> Quantized | None:
        """The coarsest quantization within the limit; None if there is none that fits int32."""
        n = self._coefficients[0, 0].size
        noise = max(mean_squared_error, 1e-300) * 12 / n
        largest = float(np.abs(self._coefficients).max(initial=0))
        if largest == 0:
            return self.quantized(0)
        # Beyond the upper end nothing but zeros is left, below the lower end errors are smaller.
        high = exponent_of(largest) + 2 * STEPS_PER_OCTAVE
        low = min(exponent_of(sqrt(noise)) - STEPS_PER_OCTAVE, high - 1)
        if low < -(2**15) or high >= 2**15 or largest > step_of(low) * coding.LARGEST / 8:
            return None
        if self._error(high) <= mean_squared_error:
            return self.quantized(high)
        if self._error(low) > mean_squared_error:
            return None
        while high - low > 1:
            # The error grows like a power of the step: interpolate, but always make progress.
            ends = [log2(max(self._error(e), 1e-300)) for e in (low, high)]
            share = (log2(mean_squared_error) - ends[0]) / max(ends[1] - ends[0], 1e-9)
            margin = (high - low) // 8
            middle = round(low + share * (high - low))
            middle = min(max(middle, low + 1 + margin), high - 1 - margin)
            if self._error(middle) <= mean_squared_error:
                low = middle
            else:
                high = middle
        return self.quantized(low)

    def quantized(self, exponent: int) -> Quantized:
        symbols = quantize_for_rate(self._coefficients, step_of(exponent), self._sizes)
        return Quantized(symbols, exponent, self._along_time)

    def estimated_bits(self, exponent: int) -> float:
        """A quick guess at the coded size at a step."""
        return estimated_bits(self.quantized(exponent).symbols, step_of(exponent), self._sizes)

    def _error(self, exponent: int) -> float:
        if exponent not in self._errors:
            symbols = self.quantized(exponent).symbols
            difference = symbols * self._coefficients.dtype.type(step_of(exponent))
            difference -= self._coefficients
            squared = float(np.vdot(difference, difference))
            self._errors[exponent] = squared / self._fields
        return self._errors[exponent]


# ---- from coefficients to fields ----------------------------------------------------------------


class Synthesis(Protocol):
    """What a decoder knows about a chunk: how coefficients become fields."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the coefficients: sequences, times, orders, waves."""
        ...

    def values(self, coefficients: Floating) -> Floating:
        """Fields, shape (items, cells), in the data's unit."""
        ...

    def expected(self, exponent: int, along_time: bool) -> npt.NDArray[np.intp] | None:
        """Classes of the coefficients' expected sizes; see :mod:`coinpp_xr.coefficients`."""
        ...


@dataclass(frozen=True, eq=False)
class LatentSynthesis:
    """The model's latents."""

    model: Model
    grid: SphereGrid
    sequences: Sequences
    n_items: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return (*self.sequences.order.shape, 1, self.model.latent_dim)

    def values(self, coefficients: Floating) -> Floating:
        latents = self.sequences.put(coefficients[:, :, 0], self.n_items)
        return latent_values(latents, self.model, self.grid)

    def expected(self, exponent: int, along_time: bool) -> npt.NDArray[np.intp] | None:
        if self.model.spectrum is None:
            return None
        times = self.sequences.order.shape[1]
        bands = frequency_bands(times) if along_time else np.zeros(times, np.intp)
        # In integers: quarter octaves of expected size over step.
        step = -(-exponent * SIZES_PER_OCTAVE // STEPS_PER_OCTAVE)
        classes = self.model.spectrum[bands].astype(np.intp) - step + coding.PRIOR_CLASSES // 2
        return np.clip(classes, 0, coding.PRIOR_CLASSES - 1)


def latent_values(latents: Floating, model: Model, grid: SphereGrid) -> Floating:
    """Fields, shape (items, cells), in the data's unit, of latents, shape (items, latent_dim)."""
    features = predict_on_grid(model.network, grid, latents.astype(np.float32))
    values = features.astype(np.float64)
    values *= model.scale
    values += model.offset
    return values


@remembered(lambda found, model, grid: nbytes_of(found) + grid.nbytes)
def mean_field(model: Model, grid: SphereGrid) -> Floating:
    """What the model expects of every field, shape (1, cells), in the data's unit."""
    features = predict_on_grid(model.network.truncated(0), grid, np.zeros((1, 0), np.float32))
    return features.astype(np.float64) * model.scale + model.offset


@dataclass(frozen=True, eq=False)
class GridSynthesis:
    """What the fields differ from a base, transformed over the sphere.

    Parameters
    ----------
    base : array, shape (sequences or 1, cells or 1)
        A mean per sequence, or one mean field for all.
    """

    base: Floating
    grid: SphereGrid
    sequences: Sequences
    n_items: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        n_lat, n_lon = self.grid.shape
        return (*self.sequences.order.shape, n_lat, n_lon)

    def values(self, coefficients: Floating) -> Floating:
        transform, order = sphere_transform(self.grid), self.sequences.order
        fields = np.zeros((self.n_items, coefficients[0, 0].size))
        # Some at a time: in double precision, all of them would be many times the data.
        at_once = max(1, _VALUES_AT_ONCE // coefficients[0, 0].size)
        for row, base, own in zip(
            order, np.broadcast_to(self.base, (len(order), *self.base.shape[1:])), coefficients,
            strict=True,
        ):  # fmt: skip
            for start in range(0, len(row), at_once):
                some = slice(start, start + at_once)
                found = transform.inverse(own[some])
                fields[row[some]] = found.reshape(len(found), -1) + base
        return fields

    def coefficients(self, fields: Fields, precision: float) -> Floating:
        """Of fields whose gaps are filled with what their surroundings suggest.

        In single precision where the errors of that are far smaller than ``precision``.
        """
        transform = sphere_transform(self.grid)
        rest = fields.sequences.take(fields.values, fields.present) - self.base[:, None]
        ordinary = 1e-9 < precision < 1e9  # far from the limits of its exponents
        if ordinary and precision > _SINGLE * float(np.abs(rest).max(initial=0)):
            rest = rest.astype(np.float32)
        rest = rest.reshape(self.shape)
        if fields.valid[fields.present].all():
            return transform.forward(rest)
        gaps: Bool = ~fields.sequences.take(fields.valid, fields.present).reshape(self.shape)
        rest[gaps] = 0
        coefficients = transform.forward(rest)
        largest = float(np.abs(coefficients).max(initial=0))
        for octave in range(_FILLING_STEPS):
            # What stands out above a falling threshold continues into the gaps.
            kept = np.where(np.abs(coefficients) > largest / 2 ** (octave + 1), coefficients, 0)
            rest[gaps] = transform.inverse(kept)[gaps]
            coefficients = transform.forward(rest)
        return coefficients

    def expected(self, exponent: int, along_time: bool) -> None:
        return None


def encode_symbols(synthesis: Synthesis, quantized: Quantized) -> bytes:
    expected = synthesis.expected(quantized.exponent, quantized.along_time)
    return coding.encode(quantized.symbols, expected)


def decode_values(synthesis: Synthesis, stream: bytes, exponent: int, along_time: bool) -> Floating:
    """Fields of :func:`encode_symbols`, shape (items, cells)."""
    expected = synthesis.expected(exponent, along_time)
    symbols = coding.decode(stream, synthesis.shape, expected)
    scaled = Quantized(symbols, exponent, along_time).scaled
    del symbols
    if along_time:
        scaled = transform_in_time(scaled, inverse=True)
    return synthesis.values(scaled)


# ---- the encoder's choice -----------------------------------------------------------------------


class Trial:
    """A scheme on the fields of a chunk.

    Parameters
    ----------
    synthesis : Synthesis
    fields : Fields
    coefficients : array
        Of the fields, before the transform along time.
    unit : float
        Of the coefficients, in the data's unit.
    misfit : float
        Mean squared error that no precision of the coefficients can mend.
    """

    def __init__(
        self,
        synthesis: Synthesis,
        fields: Fields,
        coefficients: Floating,
        unit: float = 1.0,
        misfit: float = 0.0,
    ) -> None:
        self.synthesis, self.unit, self.misfit = synthesis, unit, misfit
        self._fields, self._coefficients = fields, coefficients
        self._searches: dict[bool, Search] = {}

    @classmethod
    def of_latents(cls, fields: Fields, model: Model, latents: Floating) -> Trial:
        synthesis = LatentSynthesis(model, fields.grid, fields.sequences, len(fields.values))
        coefficients = fields.sequences.take(latents, fields.present)[:, :, None, :]
        misfit = fields.mean_squared_error(latent_values(latents, model, fields.grid))
        return cls(synthesis, fields, coefficients, model.scale, misfit)

    @classmethod
    def of_grid(cls, fields: Fields, base: Floating, precision: float) -> Trial:
        synthesis = GridSynthesis(base, fields.grid, fields.sequences, len(fields.values))
        return cls(synthesis, fields, synthesis.coefficients(fields, precision))

    def estimated_bits(self, step: float, along_time: bool) -> float:
        """A quick guess at the coded size at a step in the data's unit."""
        return self._search(along_time).estimated_bits(exponent_of(step / self.unit))

    def estimated_bits_at(self, rmse: float) -> float:
        """A quick guess at the coded size at an error; infinite where it is out of reach."""
        along_time = self._has_time
        found = self._at(rmse**2, along_time)
        return inf if found is None else self._search(along_time).estimated_bits(found.exponent)

    def meet(self, target_rmse: float) -> Quantized | None:
        """The coarsest quantization whose decoded fields meet the target, if there is any."""
        along_time = self._has_time
        first = self._at(target_rmse**2, along_time)
        if first is None:
            return None
        if along_time:
            # Fields in no order have nothing in common with their neighbours in time.
            bits = self._search(True).estimated_bits(first.exponent)
            along_time = bits <= self._search(False).estimated_bits(first.exponent)
            del self._searches[not along_time]  # as large as the fields
        return self._approach((1 - ROUNDING) * target_rmse**2, along_time)

    @property
    def _has_time(self) -> bool:
        _, times, orders, waves = self.synthesis.shape
        return times > 1 and is_transformable_in_time(times, orders * waves)

    def _approach(self, target: float, along_time: bool) -> Quantized | None:
        allowed, best = target, None
        for attempt in range(_ATTEMPTS):
            quantized = self._at(allowed, along_time)
            if quantized is None:
                break
            error = self._fields.mean_squared_error(self.synthesis.values(quantized.coefficients))
            if error > target and best is not None:
                break
            if error <= target:
                if best is not None and quantized.exponent <= best.exponent:
                    break
                best = quantized
                coarsest = not quantized.symbols.any()
                if coarsest or error > _CLOSE * target or attempt >= _ATTEMPTS // 2:
                    break
            # Coefficients are not quite orthonormal on every grid, or with gaps: correct for it.
            allowed *= target / max(error, 1e-300) * (1 if error <= target else _CLOSE)
        return best

    def _at(self, mean_squared_error: float, along_time: bool) -> Quantized | None:
        limit = (mean_squared_error - self.misfit) / self.unit**2
        return self._search(along_time).at(limit) if limit > 0 else None

    def _search(self, along_time: bool) -> Search:
        if along_time not in self._searches:
            self._searches[along_time] = Search(self._coefficients, along_time)
        return self._searches[along_time]
