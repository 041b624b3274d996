"""Fields and latents ↔ coefficients that are nearly independent of each other.

Along time: an orthonormal cosine transform, and what size to expect of a latent at each temporal
frequency. Over the sphere: an orthonormal transform for any latitude-longitude grid that needs no
training: spherical harmonics, made orthonormal on the grid.

All of it has the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.elementary import cosine, sine
from coinpp_xr.harmonics import legendre
from coinpp_xr.parallel import map_compiled, map_in_threads
from coinpp_xr.products import Operand, left, right, right_in_place, same_product

Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# ---- along time ---------------------------------------------------------------------------------


@remembered()
def cosine_transform(length: int) -> Float64:
    """The orthonormal DCT-II as a matrix, shape (frequencies, times)."""
    matrix = _cosines(length)
    matrix.flags.writeable = False
    return matrix


def _cosines(length: int) -> Float64:
    matrix, time = np.empty((length, length)), np.arange(length)
    # Some rows at a time: sines have many parts.
    for start in range(0, length, _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        frequency = np.arange(length)[rows, None]
        matrix[rows] = cosine(np.pi * ((2 * time + 1) * frequency % (4 * length)) / (2 * length))
    matrix *= np.sqrt(2 / length)
    matrix[0] /= np.sqrt(2)
    return matrix


@remembered()
def cosines_from_right(length: int, *, single: bool) -> Operand:
    """The same for products of rows of frequencies with it, which are rows of times."""
    matrix = _cosines(length)
    if single:
        for row in matrix:
            row[:] = row.astype(np.float32)
    return right_in_place(matrix, single=single)


def transform_in_time(sequences: Floating, *, inverse: bool = False) -> Floating:
    """The transform of sequences, shape (sequences, times, …), along their second axis."""
    matrix = cosine_transform(sequences.shape[1]).astype(sequences.dtype)
    operand = left(matrix.T if inverse else matrix)
    del matrix
    flat = sequences.reshape(*sequences.shape[:2], -1)
    product = np.empty(flat.shape, flat.dtype)
    _in_blocks(
        lambda some: np.copyto(product[..., some], same_product(operand, flat[..., some])),
        flat.shape[2], flat.shape[0] * flat.shape[1],
    )  # fmt: skip
    return product.reshape(sequences.shape)


def _in_blocks(function: Callable[[slice], None], count: int, size: int) -> None:
    """For some of so many columns or rows of a size at a time, in as many threads as there are.

    Operands of products take several times the memory of what they are made of.
    """
    at_once = max(1, _AT_A_TIME // max(size, 1))
    starts = range(0, count, at_once)
    map_in_threads(lambda start: function(slice(start, start + at_once)), starts)


# Of a matrix of cosines, while it is made.
_ROWS_AT_A_TIME = 64
# Temporal frequencies are sorted into half octaves of 1 / 512 of a cycle in two steps.
_FREQUENCIES = 512
_BANDS = 20
# Sizes are stored in quarter octaves.
SIZES_PER_OCTAVE = 4


def frequency_bands(length: int) -> npt.NDArray[np.intp]:
    """Band of every coefficient of a cosine transform of this length; in integers.

    Band 0 is kept for globes that stand alone (length 1).
    """
    if length == 1:
        return np.zeros(1, np.intp)
    position = np.arange(length) * _FREQUENCIES // length
    position[0] = _FREQUENCIES // (3 * length)  # the mean: as slow as a third of the first wave
    # floor(2 log₂(1 + position)), exactly.
    bands = [((1 + int(x)) ** 2).bit_length() - 1 for x in position]
    return np.minimum(1 + np.array(bands, np.intp), _BANDS - 1)


def fit_spectrum(sequences: Sequence[npt.ArrayLike], window: int = 256) -> npt.NDArray[np.int8]:
    """Size to expect of every latent in every band of temporal frequency.

    Parameters
    ----------
    sequences : sequence of arrays, shape (times, latent_dim)
        Latents of training fields that follow each other in time.
    window : int
        Longest piece to transform.

    Returns
    -------
    int8 array, shape (bands, latent_dim)
        Root mean square of the coefficients, 4 log₂, rounded.
    """
    latents = [np.asarray(sequence, np.float64) for sequence in sequences]
    latent_dim = latents[0].shape[1]
    power, count = np.zeros((_BANDS, latent_dim)), np.zeros(_BANDS)
    for sequence in latents:
        for length in {min(window, len(sequence)), min(12, len(sequence)), 1}:
            bands = frequency_bands(length)
            for start in range(0, len(sequence) - length + 1, max(1, length // 2)):
                piece = cosine_transform(length) @ sequence[start : start + length]
                # A long window knows most about slow changes; short ones fill what it lacks.
                np.add.at(power, bands, length * piece**2)
                np.add.at(count, bands, length)
    known = np.flatnonzero(count)
    nearest = known[np.abs(np.arange(_BANDS)[:, None] - known).argmin(axis=1)]
    mean = power[nearest] / count[nearest, None]
    floor = 1e-12 * max(float(mean.max()), 1e-300)
    sizes = np.rint(SIZES_PER_OCTAVE / 2 * np.log2(mean + floor))
    table: npt.NDArray[np.int8] = np.clip(sizes, -128, 127).astype(np.int8)
    return table


# ---- over the sphere ----------------------------------------------------------------------------

# Towards the poles cells get smaller and weigh less, but never less than this: the error bound of
# a whole field should not hide large errors in its first row.
_LEAST_WEIGHT = 0.05
# Making functions orthonormal takes the cube of the number of rows for each wavenumber, and keeping
# them the square.
_MOST_ROWS = 256
_MOST_ENTRIES, _MOST_COLUMNS_PER_ROW = 12_000_000, 16
# Bytes that matrices take for each of their entries; and how many they may take beside those of
# the fields, and at most of sequences.
_ACROSS, _UPWARDS, _TIMES, _LITTLE = 16, 28, 2, 3 << 24
_MOST_SQUARES, _VALUES_PER_SQUARE = 1 << 20, 4
# Values that one thread transforms at a time.
_AT_A_TIME = 1 << 18


@dataclass(frozen=True, eq=False)
class SphereTransform:
    """Orthonormal transform of fields on a latitude-longitude grid.

    The sum of squares of the coefficients is the area-weighted mean square of the field (with
    weights of at least 5 % of the largest). On global grids: Fourier waves along longitude and,
    for every wavenumber, Legendre functions along latitude, made orthonormal by rising degree. On
    regional or very fine grids: cosines along both.
    """

    latitude: Float64
    longitude: Float64

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    @property
    def nbytes(self) -> int:
        """Of the matrices, once they are needed."""
        n_lat, n_lon = self.shape
        matrices = n_lon // 2 + 1 if self._has_own_orders else 1
        return 32 * n_lon**2 + 8 * matrices * n_lat**2

    def forward(self, fields: Floating) -> Floating:
        """Coefficients, shape (…, orders, waves), of fields of shape (…, n_lat, n_lon)."""
        rows, across = fields.reshape(-1, self.shape[1]), self._from_longitude
        weights, waves = (
            np.tile(self._row_weights, len(rows) // self.shape[0])[:, None],
            rows.copy(),
        )

        def fill(some: slice) -> None:
            weighted = (rows[some] * weights[some]).astype(rows.dtype)
            waves[some] = same_product(weighted, across)

        _in_blocks(fill, len(rows), rows.shape[1])
        return self._over_latitudes(waves.reshape(fields.shape))

    def inverse(self, coefficients: Floating) -> Floating:
        """Fields of :meth:`forward`'s coefficients, or of those of the lowest orders and waves."""
        columns = self._over_latitudes(coefficients, inverse=True)
        rows = columns.reshape(-1, columns.shape[-1])
        weights = np.tile(self._row_weights, len(rows) // self.shape[0])[:, None]
        across = self._across.leading(columns.shape[-1])
        fields = np.empty((len(rows), self.shape[1]), rows.dtype)

        def fill(some: slice) -> None:
            fields[some] = same_product(rows[some], across) / weights[some]

        _in_blocks(fill, len(rows), self.shape[1])
        return fields.reshape(*coefficients.shape[:-2], *self.shape)

    def _over_latitudes(self, columns: Floating, *, inverse: bool = False) -> Floating:
        """Multiply what belongs to each wave, the last axis, by its matrix, or all by one."""
        matrices, dtype = self._along_latitude, columns.dtype
        orders, waves = columns.shape[-2:]
        shape = *columns.shape[:-2], self.shape[0], waves
        if matrices.ndim == 2:
            operand = left((matrices[:orders].T if inverse else matrices).astype(dtype))
            flat = columns.reshape(-1, orders, waves)
            found = np.empty((len(flat), *shape[-2:]), dtype)
            for field, result in zip(flat, found, strict=True):

                def multiply(some: slice, field: Any = field, result: Any = result) -> None:
                    result[:, some] = same_product(operand, field[:, some])

                _in_blocks(multiply, waves, self.shape[0])
            return found.reshape(shape)
        by_wave = np.moveaxis(columns, -1, 0)
        product = np.empty((waves, *shape[:-1]), dtype)

        def fill(number: int) -> None:
            # Cosine and sine of a wavenumber share its matrix.
            some = slice(max(2 * number - 1, 0), 2 * number + 1)
            matrix = matrices[number, :orders].astype(dtype)
            product[some] = same_product(by_wave[some], matrix if inverse else matrix.T)

        map_in_threads(fill, range(min(len(matrices), waves // 2 + 1)))
        return np.ascontiguousarray(np.moveaxis(product, 0, -1))

    @cached_property
    def _row_weights(self) -> Float64:
        height = cosine(np.deg2rad(self.latitude))
        weights = np.maximum(height, _LEAST_WEIGHT * max(float(height.max()), 1e-9))
        # One after the other: sum() has an order of its own.
        root: Float64 = np.sqrt(weights / (weights.cumsum()[-1] * len(self.longitude)))
        return root

    @cached_property
    def _periodic(self) -> bool:
        n = len(self.longitude)
        return n > 1 and bool(np.allclose(np.abs(np.diff(self.longitude)), 360 / n, rtol=1e-3))

    @property
    def _has_own_orders(self) -> bool:
        """Whether every wavenumber has a matrix of its own along latitude."""
        n_lat, n_lon = self.shape
        flat = n_lon > _MOST_COLUMNS_PER_ROW * n_lat  # no globe
        small = n_lat <= _MOST_ROWS and n_lat**2 * n_lon <= _MOST_ENTRIES
        return self._periodic and small and not flat

    @cached_property
    def _across(self) -> Operand:
        """Cosines or waves along longitude, as an operand."""
        return right_in_place(self._make_along_longitude(), single=False)

    @cached_property
    def _from_longitude(self) -> Operand:
        return right(self._make_along_longitude().T)

    def _make_along_longitude(self) -> Float64:
        n = len(self.longitude)
        if not self._periodic:
            return _cosines(n)
        cell = np.arange(n)
        rows = np.empty((n, n))
        rows[0] = np.sqrt(1 / n)
        for wavenumber in range(1, (n + 1) // 2):
            phase = 2 * np.pi * (wavenumber * cell % n) / n
            rows[2 * wavenumber - 1] = np.sqrt(2 / n) * cosine(phase)
            rows[2 * wavenumber] = np.sqrt(2 / n) * sine(phase)
        if n % 2 == 0:
            rows[-1] = np.where(cell % 2, -1.0, 1.0) / np.sqrt(n)
        return rows

    @cached_property
    def _along_latitude(self) -> Float64:
        """An orthonormal matrix (orders, rows): one for each wavenumber, (wavenumbers, orders,
        rows), or one for all."""
        n_lat, n_lon = self.shape
        if not self._has_own_orders:
            return cosine_transform(n_lat)
        from coinpp_xr.orthonormal import orthonormal  # compiles, or loads what was compiled

        most = n_lon // 2
        bases = np.empty((most + 1, n_lat, n_lat))
        by_order = legendre(sine(np.deg2rad(self.latitude)), n_lat + most, n_lat)
        for m, functions in enumerate(islice(by_order, most + 1)):
            np.multiply(functions, self._row_weights, out=bases[m])

        def straighten(m: int) -> None:
            bases[m] = orthonormal(bases[m])

        map_compiled(straighten, range(most + 1))
        return bases


@remembered(lambda found, *_: found.nbytes)
def _sphere_transform(latitude: bytes, longitude: bytes) -> SphereTransform:
    return SphereTransform(np.frombuffer(latitude), np.frombuffer(longitude))


def is_transformable(shape: tuple[int, int], nbytes: int) -> bool:
    """Whether the matrices for a grid are in proportion to fields on it, of so many bytes."""
    n_lat, n_lon = shape
    return _ACROSS * n_lon**2 + _UPWARDS * n_lat**2 <= _TIMES * nbytes + _LITTLE


def is_transformable_in_time(times: int, values: int) -> bool:
    """Whether the matrix for so many times is in proportion to values at each of them."""
    return times**2 <= max(_MOST_SQUARES, times * values // _VALUES_PER_SQUARE)


def sphere_transform(grid: SphereGrid) -> SphereTransform:
    """The transform of a grid; the same object for chunk after chunk."""
    return _sphere_transform(grid.latitude.tobytes(), grid.longitude.tobytes())
