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
from functools import cached_property
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
# Distances between all pairs of points are needed; denser grids are replaced by a coarser one.
_MOST_TAPER_POINTS = 4200


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
    half_width: float = 0.6


PLAIN = Localisation()
# Tried in this order while there is time: one change at a time from what is usually good.
_USUAL = Localisation(8, 0.7, 0.9)
_GLOBAL_MODES = (4, 8, 16, 32)
_HALF_WIDTHS = (0.6, 0.9, 1.3)
_SHARES = (0.5, 0.7, 0.85)


@dataclass(frozen=True, eq=False)
class Trial:
    """A localisation with its modes, and the RMSE on held-out fields.

    Parameters
    ----------
    modes : float64 array, shape (size, count)
        Orthonormal columns in the coordinates of a :class:`HarmonicBasis`, by falling variance.
    rmse : float
        In the unit of the fields.
    score : float
        What the search makes small: the geometric mean of the RMSE with all modes and, where
        there are hundreds, with the first 64, 128, 256, ... too. Low rates use these alone.
    """

    localisation: Localisation
    modes: Float64
    rmse: float
    score: float


class EofSearch:
    """Finds the localisation whose modes hold held-out fields best.

    Parameters
    ----------
    basis : HarmonicBasis
    train, validation : float64 array, shape (items, size)
        Coordinates of fields, the mean state subtracted.
    fixed : float64 array, shape (size, n), optional
        Directions that something else describes: the modes stay orthogonal to them.
    lost : float
        Mean square of the held-out fields that the basis cannot hold.
    """

    def __init__(
        self,
        basis: HarmonicBasis,
        train: Float64,
        validation: Float64,
        *,
        fixed: Float64 | None = None,
        lost: float = 0.0,
    ) -> None:
        self.basis, self.lost = basis, lost
        self.fixed = np.zeros((basis.size, 0)) if fixed is None else np.linalg.qr(fixed)[0]
        self.validation = _without(validation, self.fixed)
        covariance = train.T @ train / len(train)
        self.covariance = _without(_without(covariance, self.fixed).T, self.fixed)
        self.rank = int(min(len(train) - 1, basis.size - self.fixed.shape[1]))
        self._eofs = _leading(self.covariance, basis.size)
        self._tapered: dict[tuple[int, float], Float64] = {}

    def best(self, count: int, seconds: float = inf) -> tuple[Trial, list[Trial]]:
        """Search within a time; one localisation and, where there are enough, plain EOFs are
        always tried.

        Parameters
        ----------
        count : int
            At most ``basis.size`` less the fixed directions.
        seconds : float

        Returns
        -------
        Trial
            The one with the best score on held-out fields.
        list of Trial
            All that were tried.
        """
        started = time.perf_counter()
        usual = replace(_USUAL, global_modes=min(_USUAL.global_modes, self.rank // 2, count // 2))
        trials = [self.trial(usual, count)]
        if count <= self.rank:
            trials.append(self.trial(PLAIN, count))
        for field, values in (
            ("half_width", _HALF_WIDTHS),
            ("share", _SHARES),
            ("global_modes", _GLOBAL_MODES),
        ):
            base = min(
                (trial for trial in trials if trial.localisation != PLAIN), key=_score
            ).localisation
            for value in values:
                tried = {trial.localisation for trial in trials}
                change: dict[str, Any] = {field: value}
                candidate = replace(base, **change)
                last = (time.perf_counter() - started) / len(trials)
                in_time = time.perf_counter() - started + last <= seconds
                possible = candidate.global_modes <= min(self.rank, count)
                if in_time and possible and candidate not in tried:
                    trials.append(self.trial(candidate, count))
        return min(trials, key=_score), trials

    def trial(self, localisation: Localisation, count: int) -> Trial:
        """The modes of one localisation and their error."""
        modes = self.modes(localisation, count)
        held = np.cumsum(((self.validation @ modes) ** 2).mean(0))
        counts = [*(2**n for n in range(6, count.bit_length()) if 2**n < count), count]
        energy = (self.validation**2).sum(1).mean() - held[np.array(counts) - 1]
        rmse = np.sqrt(np.maximum(energy, 0) + self.lost)
        score = np.exp(np.log(np.maximum(rmse, 1e-30)).mean())
        return Trial(localisation, modes, float(rmse[-1]), float(score))

    def modes(self, localisation: Localisation, count: int) -> Float64:
        """Orthonormal modes, shape (size, count), by falling variance of the training fields."""
        if localisation.share == 0:
            return self._eofs[:, :count]
        kept = self._eofs[:, : localisation.global_modes]
        mixed = (1 - localisation.share) * self._remainder(kept)
        mixed += localisation.share * self._tapered_remainder(kept, localisation.half_width)
        # Tapering leaks into what is kept or fixed.
        taken = np.concatenate([self.fixed, kept], axis=1)
        mixed = _without(_without(mixed, taken).T, taken)
        modes = np.concatenate([kept, _leading(mixed, count - kept.shape[1])], axis=1)
        variance = np.einsum("ik,ij,jk->k", modes, self.covariance, modes, optimize=True)
        return np.asarray(modes[:, np.argsort(-variance, kind="stable")])

    def _remainder(self, kept: Float64) -> Float64:
        return _without(_without(self.covariance, kept).T, kept)

    def _tapered_remainder(self, kept: Float64, half_width: float) -> Float64:
        key = kept.shape[1], half_width
        if key not in self._tapered:
            values, back, distances = self._taper_grid
            remainder = self._remainder(kept).astype(np.float32)
            product = (values @ remainder @ values.T) * gaspari_cohn(distances / half_width)
            self._tapered[key] = (back @ product @ back.T).astype(np.float64)
        return self._tapered[key]

    @cached_property
    def _taper_grid(self) -> tuple[Float32, Float32, Float32]:
        """Basis on the points where tapering takes place, the way back, and distances in radians.

        In single precision: covariances are known far less well.
        """
        points, weights = self.basis.points, self.basis.weights
        if len(points) > _MOST_TAPER_POINTS:
            grid = next(SphereGrid.usual_layouts(46, 90))
            points, weights = grid.points, grid.area_weights
        values = self.basis.on_points(points)
        weighted = values * weights[:, None]
        back = np.linalg.solve(weighted.T @ values, weighted.T)
        chord = np.clip(points @ points.T, -1, 1)
        return values.astype(np.float32), back.astype(np.float32), np.arccos(chord)


def _score(trial: Trial) -> float:
    return trial.score


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


def _leading(symmetric: Float64, count: int) -> Float64:
    """Eigenvectors of the largest eigenvalues as columns; their signs are fixed."""
    vectors = np.linalg.eigh((symmetric + symmetric.T) / 2)[1][:, ::-1][:, :count]
    largest = np.abs(vectors).argmax(axis=0)
    return np.asarray(vectors * np.sign(vectors[largest, np.arange(vectors.shape[1])]))


def _without(rows: Float64, directions: Float64) -> Float64:
    """Rows without their parts along orthonormal directions (columns)."""
    return np.asarray(rows - (rows @ directions) @ directions.T)


def _smallest_eigenvalue(gram: Float64) -> float:
    return float(np.linalg.eigvalsh(gram)[0])
