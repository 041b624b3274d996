"""Fields and latents ↔ coefficients that are nearly independent of each other.

Along time: an orthonormal cosine transform, and what size to expect of a latent at each temporal
frequency. Over the sphere: an orthonormal transform for any latitude-longitude grid that needs no
training. Its basis are the principal components of a random field that looks alike in all
directions everywhere (Obukhov 1947), for which they are known from the grid alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.harmonics import legendre

Float64 = npt.NDArray[np.float64]
Floating = npt.NDArray[np.floating[Any]]

# ---- along time ---------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def cosine_transform(length: int) -> Float64:
    """The orthonormal DCT-II as a matrix, shape (frequencies, times)."""
    frequency, time = np.arange(length)[:, None], np.arange(length)
    matrix = np.cos(np.pi * (time + 0.5) * frequency / length) * np.sqrt(2 / length)
    matrix[0] /= np.sqrt(2)
    matrix.flags.writeable = False
    transform: Float64 = matrix
    return transform


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
# Variance per harmonic of the isotropic field falls as (degree + 1)^-3; between 2 and 4 this
# hardly matters, the basis depends on it weakly.
_SLOPE = 3.0
# A trace of noise, different from row to row, keeps the principal components apart from each
# other where the field has no power at all (high wavenumbers at the poles).
_NOISE = 1e-7
# Finding the components takes the cube of the number of rows for each wavenumber, and keeping them
# the square.
_MOST_ROWS = 256
_MOST_ENTRIES, _MOST_COLUMNS_PER_ROW = 1 << 24, 16
# Of the two matrices of cosines or waves: real grids need 2.5 times their cells.
_MOST_SQUARES, _SQUARES_PER_CELL = 1 << 22, 4


@dataclass(frozen=True, eq=False)
class SphereTransform:
    """Orthonormal transform of fields on a latitude-longitude grid.

    The sum of squares of the coefficients is the area-weighted mean square of the field (with
    weights of at least 5 % of the largest). On global grids: Fourier waves along longitude and,
    for every wavenumber, principal components of an isotropic random field along latitude. On
    regional or very fine grids: cosines along both.
    """

    latitude: Float64
    longitude: Float64

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    def forward(self, fields: Floating) -> Floating:
        """Coefficients, shape (…, orders, waves), of fields of shape (…, n_lat, n_lon)."""
        rows = self._row_weights.astype(fields.dtype)[:, None]
        waves = (fields * rows) @ self._along_longitude.T.astype(fields.dtype)
        return self._over_latitudes(waves)

    def inverse(self, coefficients: Floating) -> Floating:
        """Fields of :meth:`forward`'s coefficients."""
        dtype = coefficients.dtype
        waves = self._over_latitudes(coefficients, inverse=True)
        fields: Floating = waves @ self._along_longitude.astype(dtype)
        fields /= self._row_weights.astype(dtype)[:, None]
        return fields

    def _over_latitudes(self, columns: Floating, *, inverse: bool = False) -> Floating:
        """Multiply what belongs to each wave, the last axis, by its matrix, or all by one."""
        if self._along_latitude.ndim == 2:
            matrix = self._along_latitude.astype(columns.dtype)
            return np.asarray((matrix.T if inverse else matrix) @ columns)
        product = np.empty_like(columns)
        # One by one: at 1 degree, all of them in another precision are more than the fields.
        for wave in range(columns.shape[-1]):
            matrix = self._along_latitude[(wave + 1) // 2].astype(columns.dtype)
            product[..., wave] = columns[..., wave] @ (matrix if inverse else matrix.T)
        return product

    @cached_property
    def _row_weights(self) -> Float64:
        cosine = np.cos(np.deg2rad(self.latitude))
        weights = np.maximum(cosine, _LEAST_WEIGHT * max(float(cosine.max()), 1e-9))
        root: Float64 = np.sqrt(weights / (weights.sum() * len(self.longitude)))
        return root

    @cached_property
    def _periodic(self) -> bool:
        n = len(self.longitude)
        return n > 1 and bool(np.allclose(np.abs(np.diff(self.longitude)), 360 / n, rtol=1e-3))

    @cached_property
    def _along_longitude(self) -> Float64:
        n = len(self.longitude)
        if not self._periodic:
            return cosine_transform(n)
        cell = np.arange(n)
        rows = [np.full(n, np.sqrt(1 / n))]
        for wavenumber in range(1, (n + 1) // 2):
            phase = 2 * np.pi * (wavenumber * cell % n) / n
            rows += [np.sqrt(2 / n) * np.cos(phase), np.sqrt(2 / n) * np.sin(phase)]
        if n % 2 == 0:
            rows.append(np.where(cell % 2, -1.0, 1.0) / np.sqrt(n))
        return np.array(rows)

    @cached_property
    def _along_latitude(self) -> Float64:
        """An orthonormal matrix (orders, rows): one for each wavenumber, (wavenumbers, orders,
        rows), or one for all."""
        n_lat, n_lon = self.shape
        flat = n_lon > _MOST_COLUMNS_PER_ROW * n_lat  # no globe
        if not self._periodic or flat or n_lat > _MOST_ROWS or n_lat**2 * n_lon > _MOST_ENTRIES:
            return cosine_transform(n_lat)
        degree = n_lat + n_lon // 2
        power = (np.arange(degree + 1) + 1.0) ** -_SLOPE
        noise = np.diag(_NOISE * (1 + 0.5 * np.arange(n_lat) / n_lat))
        bases = np.zeros((n_lon // 2 + 1, n_lat, n_lat))
        for m, orders in enumerate(legendre(np.sin(np.deg2rad(self.latitude)), degree)):
            if m >= n_lon:
                break
            functions = np.stack(orders, axis=1) * self._row_weights[:, None]
            # What the grid cannot tell from a wavenumber belongs to it, too.
            bases[min(m, n_lon - m)] += (functions * power[m:]) @ functions.T
        for basis in bases:
            # Where all rows are poles, no wave has any power.
            covariance = basis / (float(np.trace(basis)) or 1.0) + noise
            _, vectors = np.linalg.eigh(covariance)
            vectors = vectors[:, ::-1].T
            # The sign of an eigenvector is the library's whim: fix it by an uneven yardstick.
            yardstick = np.cos(1.0 + 0.7 * np.arange(n_lat) ** 1.3)
            basis[:] = vectors * np.where(vectors @ yardstick < 0, -1.0, 1.0)[:, None]
        return bases


@lru_cache(maxsize=4)
def _sphere_transform(latitude: bytes, longitude: bytes) -> SphereTransform:
    return SphereTransform(np.frombuffer(latitude), np.frombuffer(longitude))


def is_transformable(shape: tuple[int, int]) -> bool:
    """Whether the matrices for a grid are in proportion to its fields."""
    n_lat, n_lon = shape
    return n_lat**2 + n_lon**2 <= max(_MOST_SQUARES, _SQUARES_PER_CELL * n_lat * n_lon)


def is_transformable_in_time(times: int, values: int) -> bool:
    """The same for a sequence of so many times, each of so many values."""
    return times**2 <= max(_MOST_SQUARES, _SQUARES_PER_CELL * times * values)


def sphere_transform(grid: SphereGrid) -> SphereTransform:
    """The transform of a grid; the same object for chunk after chunk."""
    return _sphere_transform(grid.latitude.tobytes(), grid.longitude.tobytes())
