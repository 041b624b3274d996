"""Localised EOFs: the modes of a linear tail, from an archive of fields on the sphere.

Fields become spherical harmonics coefficients first: a thousand numbers, however fine the grid.
EOFs of weather beyond the first few are local, but a sample of a few thousand fields also shows
correlations between far places that are chance. Tapering the covariance with distance (Gaspari and
Cohn 1999) leaves them out, and the modes then hold unseen fields better.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from math import inf, isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.harmonics import harmonics

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST_DEGREE = 42
# Harmonics that a grid hardly tells apart would be anything between its points: the smallest
# eigenvalue of their Gram matrix must reach this much of what it is on the whole sphere.
_DISTINCT = 0.1
# Low degrees on a grid that covers the globe are very nearly orthonormal.
_GLOBAL_DEGREE, _GLOBAL = 2, 0.8
_POINTS_PER_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class HarmonicBasis:
    """Spherical harmonics, made orthonormal in the area metric of a grid.

    Parameters
    ----------
    points : float32 array, shape (points, 3)
        Unit vectors of the grid.
    weights : float64 array, shape (points,)
        Area weights that sum to one.
    degree : int
    """

    points: Float32
    weights: Float64
    degree: int

    @classmethod
    def of(cls, points: Float32, weights: npt.NDArray[Any]) -> HarmonicBasis | None:
        """The largest basis that the grid resolves, at most of degree 42.

        None where the points do not cover the globe, or are no points of the sphere at all.
        """
        if points.shape[1] != 3 or not np.allclose((points**2).sum(1), 1, atol=1e-4):
            return None
        weights = np.asarray(weights, dtype=np.float64)
        weights = np.asarray(weights / weights.sum())
        most = cls(points, weights, min(MOST_DEGREE, isqrt(len(points)) - 1))
        for degree in range(most.degree, _GLOBAL_DEGREE - 1, -1):
            count = (degree + 1) ** 2
            if _smallest_eigenvalue(most.gram[:count, :count]) > _DISTINCT:
                covered = (_GLOBAL_DEGREE + 1) ** 2
                if _smallest_eigenvalue(most.gram[:covered, :covered]) < _GLOBAL:
                    return None
                return most if degree == most.degree else cls(points, weights, degree)
        return None

    @property
    def size(self) -> int:
        return (self.degree + 1) ** 2

    @cached_property
    def gram(self) -> Float64:
        """Inner products of the harmonics on the grid, shape (size, size)."""
        total = np.zeros((self.size, self.size))
        for rows, values in self._blocks():
            total += (values * self.weights[rows, None]).T @ values
        return total

    @cached_property
    def _root(self) -> Float64:
        return np.asarray(np.linalg.cholesky(self.gram))

    def _blocks(self) -> Iterator[tuple[slice, Float64]]:
        for start in range(0, len(self.points), _POINTS_PER_BLOCK):
            rows = slice(start, start + _POINTS_PER_BLOCK)
            yield rows, harmonics(self.points[rows], self.degree).astype(np.float64)

    def analyse(self, fields: Float32) -> Float64:
        """Coordinates of fields, shape (items, points), in the basis: shape (items, size)."""
        products = np.zeros((len(fields), self.size))
        for rows, values in self._blocks():
            weighted = (values * self.weights[rows, None]).astype(fields.dtype)
            products += fields[:, rows] @ weighted
        return np.asarray(np.linalg.solve(self._root, products.T).T)

    def synthesise(self, coordinates: Float64) -> Float32:
        """Fields of coordinates in the basis, shape (items, points)."""
        coefficients = self.to_harmonics(coordinates)
        fields = np.empty((len(coordinates), len(self.points)), np.float32)
        for rows, values in self._blocks():
            fields[:, rows] = coefficients @ values.T
        return fields

    def to_harmonics(self, coordinates: Float64) -> Float32:
        """Coefficients for plain harmonics, shape (items, size)."""
        return np.linalg.solve(self._root.T, coordinates.T).T.astype(np.float32)

    def on_points(self, points: Float32) -> Float64:
        """Values of the basis functions, shape (points, size)."""
        values = harmonics(points, self.degree).astype(np.float64)
        return np.asarray(np.linalg.solve(self._root, values.T).T)


@dataclass(frozen=True)
class Localisation:
    """How a covariance is tapered.

    Parameters
    ----------
    global_modes : int
        Leading EOFs that are kept as they are: the annual cycle, modes of the whole globe.
    share : float
        How much of the remaining covariance is tapered, 0 (plain EOFs) to 1.
    half_width : float
        Of the Gaspari-Cohn function, in radians; it vanishes at twice this distance.
    """

    global_modes: int = 0
    share: float = 0.0
    half_width: float = 0.9


PLAIN = Localisation()


class LocalisedEofs:
    """The modes of an archive.

    Parameters
    ----------
    basis : HarmonicBasis
    fields : float64 array, shape (items, size)
        Coordinates of fields, the mean subtracted.
    fixed : float64 array, shape (size, n), optional
        Directions that something else describes: the modes stay orthogonal to them.
    """

    def __init__(self, basis: HarmonicBasis, fields: Float64, fixed: Float64 | None = None) -> None:
        self.basis = basis
        self.fixed = np.zeros((basis.size, 0)) if fixed is None else np.linalg.qr(fixed)[0]
        self.covariance = _clear_of(fields.T @ fields / len(fields), self.fixed)
        self.rank = min(len(fields) - 1, basis.size - int(self.fixed.shape[1]))
        self._eofs = _leading(self.covariance, basis.size)
        self._tapered: tuple[tuple[int, float], Float64] | None = None

    def modes(self, localisation: Localisation, count: int) -> Float64:
        """Orthonormal modes as columns, shape (size, count), by falling variance.

        Parameters
        ----------
        localisation : Localisation
            With at most ``rank`` global modes.
        count : int
            At most ``rank`` for plain EOFs, else at most ``basis.size`` less the fixed directions.
        """
        if localisation.share == 0:
            return self._eofs[:, :count]
        kept = self._eofs[:, : localisation.global_modes]
        mixed = (1 - localisation.share) * _clear_of(self.covariance, kept)
        mixed += localisation.share * self._tapered_remainder(kept, localisation.half_width)
        # Tapering leaks into what is kept or fixed.
        mixed = _clear_of(mixed, np.concatenate([self.fixed, kept], axis=1))
        modes = np.concatenate([kept, _leading(mixed, count - kept.shape[1])], axis=1)
        variance = np.einsum("ik,ij,jk->k", modes, self.covariance, modes, optimize=True)
        return np.asarray(modes[:, np.argsort(-variance, kind="stable")])

    def _tapered_remainder(self, kept: Float64, half_width: float) -> Float64:
        key = kept.shape[1], half_width
        if self._tapered is None or self._tapered[0] != key:
            values, back, distances = _taper_grid(self.basis)
            remainder = _clear_of(self.covariance, kept).astype(np.float32)
            product = (values @ remainder @ values.T) * gaspari_cohn(distances / half_width)
            self._tapered = key, (back @ product @ back.T).astype(np.float64)
        return self._tapered[1]


@lru_cache(maxsize=2)
def _taper_grid(basis: HarmonicBasis) -> tuple[Float32, Float32, Float32]:
    """Basis on a grid where tapering takes place, the way back, and distances in radians.

    The grid is as coarse as the degree allows, because all pairs of points are looked at. In
    single precision: covariances are known far less well.
    """
    n_lat = basis.degree + 4
    latitude = 90 - (np.arange(n_lat) + 0.5) * 180 / n_lat
    grid = SphereGrid(latitude, np.arange(2 * n_lat) * 180 / n_lat)
    values = basis.on_points(grid.points)
    weighted = values * grid.area_weights[:, None]
    back = np.linalg.solve(weighted.T @ values, weighted.T)
    chord = np.clip(grid.points @ grid.points.T, -1, 1)
    return values.astype(np.float32), back.astype(np.float32), np.arccos(chord)


# ---- which localisation -------------------------------------------------------------------------

_FOLDS = 5
# A search looks at large scales only, as far as that many modes reach.
_LEAST_SEARCH_DEGREE, _HARMONICS_PER_MODE = 24, 4
# One change at a time from what is usually good, in this order, while there is time.
_USUAL = Localisation(4, 0.7, 0.9)
_CHANGES: tuple[tuple[str, tuple[float, ...]], ...] = (
    ("share", (0.5, 0.85)),
    ("half_width", (0.6, 1.3)),
    ("global_modes", (2, 3, 6, 8)),
    ("share", (0.6, 0.8, 0.9)),
)


@dataclass(frozen=True)
class Trial:
    """How a localisation did in cross-validation.

    Parameters
    ----------
    localisation : Localisation
    rmse : float
        With all modes, on fields that had no part in them, in their unit.
    score : float
        What the search makes small: the geometric mean of the RMSE with all modes and, where
        there are hundreds, with the first 64, 128, 256, ... too. Low rates use these alone.
    """

    localisation: Localisation
    rmse: float
    score: float


def choose_localisation(
    basis: HarmonicBasis, fields: Float64, count: int, seconds: float = inf
) -> tuple[Localisation, list[Trial]]:
    """The localisation whose modes hold unseen fields best, by cross-validation.

    One part of the archive after the other is left out: single held-out months prefer now this
    and now that, by more than the best choices differ.

    Parameters
    ----------
    basis : HarmonicBasis
    fields : float64 array, shape (items, size)
        Coordinates of fields in order of time.
    count : int
        How many modes are wanted.
    seconds : float
        Time for the search. One localisation, and plain EOFs where the fields are enough for as
        many, are always tried.

    Returns
    -------
    Localisation
    list of Trial
        All that was tried; nothing for fewer than four fields, or without time.
    """
    started = time.perf_counter()
    usual = replace(_USUAL, global_modes=min(_USUAL.global_modes, count // 2, len(fields) // 4))
    if len(fields) < 4 or seconds <= 0:
        return usual, []
    folds = _Folds(basis, fields, count)
    trials = [folds.trial(usual)]
    if count <= folds.rank:
        trials.append(folds.trial(PLAIN))
    for name, values in _CHANGES:
        base = min((t for t in trials if t.localisation != PLAIN), key=_score).localisation
        for value in values:
            change: dict[str, Any] = {name: value}
            candidate = replace(base, **change)
            new = candidate not in {trial.localisation for trial in trials}
            spent = time.perf_counter() - started
            in_time = spent * (1 + 1 / len(trials)) <= seconds
            if new and in_time and candidate.global_modes <= min(folds.rank, count):
                trials.append(folds.trial(candidate))
    return min(trials, key=_score).localisation, trials


class _Folds:
    """Modes from all fields but a part, and their error on that part, for each of several parts."""

    def __init__(self, basis: HarmonicBasis, fields: Float64, count: int) -> None:
        degree = max(_LEAST_SEARCH_DEGREE, isqrt(_HARMONICS_PER_MODE * count))
        # The first coordinates of a basis are those of the same basis of lower degree.
        smaller = HarmonicBasis(basis.points, basis.weights, min(basis.degree, degree))
        self.count = count
        self.parts = []
        for part in np.array_split(np.arange(len(fields)), min(_FOLDS, len(fields))):
            others = np.delete(fields, part, axis=0)
            mean = others.mean(0)
            left_out = fields[part] - mean
            eofs = LocalisedEofs(smaller, (others - mean)[:, : smaller.size])
            self.parts.append((eofs, left_out[:, : smaller.size], _energy(left_out)))
        self.rank = min(eofs.rank for eofs, _, _ in self.parts)

    def trial(self, localisation: Localisation) -> Trial:
        counts = [2**n for n in range(6, self.count.bit_length()) if 2**n < self.count]
        errors = []
        for eofs, left_out, energy in self.parts:
            modes = eofs.modes(localisation, self.count)
            held = np.cumsum(((left_out @ modes) ** 2).mean(0))
            errors.append(energy - held[np.array([*counts, self.count]) - 1])
        rmse = np.sqrt(np.maximum(np.mean(errors, axis=0), 1e-30))
        return Trial(localisation, float(rmse[-1]), float(np.exp(np.log(rmse).mean())))


def _score(trial: Trial) -> float:
    return trial.score


def _energy(coordinates: Float64) -> float:
    return float((coordinates**2).sum(1).mean())


def gaspari_cohn(distance: npt.NDArray[Any]) -> Float32:
    """A correlation function with compact support (Gaspari and Cohn 1999, eq. 4.10).

    Parameters
    ----------
    distance : array
        In half-widths, not negative: one at 0, zero from 2 on.
    """
    r = np.minimum(np.asarray(distance, np.float32), np.float32(2))
    near = 1 + r * r * (-5 / 3 + r * (5 / 8 + r * (1 / 2 - r / 4)))
    far = 4 + r * (-5 + r * (5 / 3 + r * (5 / 8 + r * (-1 / 2 + r / 12))))
    far -= (2 / 3) / np.maximum(r, 1)
    return np.where(r <= 1, near, np.maximum(far, 0)).astype(np.float32)


def leading_modes(covariance: Float64, fixed: Float64, count: int) -> Float64:
    """Plain EOFs of a covariance, orthogonal to fixed directions: columns, shape (size, count).

    Parameters
    ----------
    covariance : float64 array, shape (size, size)
    fixed : float64 array, shape (size, n)
        Directions as columns, of any length.
    count : int
    """
    return _leading(_clear_of(covariance, np.linalg.qr(fixed)[0]), count)


def _leading(symmetric: Float64, count: int) -> Float64:
    """Eigenvectors of the largest eigenvalues as columns; their signs are fixed."""
    vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)[1][:, ::-1][:, :count]
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])]))


def _clear_of(covariance: Float64, directions: Float64) -> Float64:
    """The covariance of what is left without some orthonormal directions (columns)."""
    half = covariance - directions @ (directions.T @ covariance)
    return np.asarray(half - (half @ directions) @ directions.T)


def _smallest_eigenvalue(gram: Float64) -> float:
    return float(np.linalg.eigvalsh(gram)[0])
