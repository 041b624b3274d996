"""Spherical harmonics: right against textbook formulas, orthonormal, and defined at the poles."""

from __future__ import annotations

from math import factorial, sqrt

import numpy as np
import pytest

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.harmonics import harmonics, synthesise

DEGREE = 12


def by_derivatives(points: np.ndarray, degree: int, order: int) -> np.ndarray:
    """From the derivatives of the Legendre polynomial, in double precision."""
    x, y, z = points.astype(np.float64).T
    m = abs(order)
    polynomial = np.polynomial.legendre.Legendre.basis(degree).deriv(m)
    size = (2 * degree + 1) * (2 if m else 1) * factorial(degree - m) / factorial(degree + m)
    # (cos λ)^m cos mφ and (cos λ)^m sin mφ are the parts of (x + iy)^m: no angle is needed.
    horizontal = (x + 1j * y) ** m
    part = horizontal.imag if order < 0 else horizontal.real
    return sqrt(size) * polynomial(z) * part


@pytest.fixture(scope="module")
def scattered() -> np.ndarray:
    points = np.random.default_rng(0).standard_normal((200, 3))
    return (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)


def test_every_harmonic_is_that_of_the_textbook(scattered: np.ndarray) -> None:
    values = harmonics(scattered, DEGREE)

    for degree in range(DEGREE + 1):
        for order in range(-degree, degree + 1):
            np.testing.assert_allclose(
                values[:, degree * degree + degree + order],
                by_derivatives(scattered, degree, order),
                atol=2e-5,
                err_msg=f"degree {degree}, order {order}",
            )


@pytest.mark.parametrize("degree", [0, 1, 20, 42])
def test_harmonics_are_orthonormal_over_the_sphere(degree: int) -> None:
    """By Gauss-Legendre quadrature, which is exact for their products."""
    sine, weights = np.polynomial.legendre.leggauss(degree + 1)
    grid = SphereGrid(
        np.rad2deg(np.arcsin(sine)), np.arange(2 * degree + 1) * 360 / (2 * degree + 1)
    )
    values = harmonics(grid.points, degree).astype(np.float64)
    per_point = np.repeat(weights, 2 * degree + 1)

    gram = (values * (per_point / per_point.sum())[:, None]).T @ values

    np.testing.assert_allclose(gram, np.eye((degree + 1) ** 2), atol=5e-5)


def test_a_pole_is_one_point_whatever_its_longitude() -> None:
    grid = SphereGrid(np.array([90.0, 0.0, -90.0]), np.arange(0, 360, 30.0))

    values = harmonics(grid.points, DEGREE).reshape(3, 12, -1)

    assert np.isfinite(values).all()
    for pole in (values[0], values[2]):
        np.testing.assert_allclose(pole, np.broadcast_to(pole[0], pole.shape), atol=1e-4)


def test_a_lower_degree_keeps_the_first_columns(scattered: np.ndarray) -> None:
    np.testing.assert_array_equal(harmonics(scattered, 5), harmonics(scattered, DEGREE)[:, :36])


def test_many_points_are_evaluated_as_few_are(scattered: np.ndarray, monkeypatch) -> None:
    few = harmonics(scattered, 5)
    monkeypatch.setattr("coinpp_xr.harmonics._CACHED_VALUES", 10)

    np.testing.assert_array_equal(harmonics(scattered, 5), few)


def test_sums_on_a_grid_are_those_at_its_points() -> None:
    grid = SphereGrid(np.linspace(90, -90, 9), np.arange(-30, 330, 24.0))
    coefficients = np.random.default_rng(1).standard_normal((3, 169)).astype(np.float32)

    fields = synthesise(coefficients, grid.latitude, grid.longitude)

    expected = coefficients @ harmonics(grid.points, DEGREE).T
    np.testing.assert_allclose(fields.reshape(3, -1), expected, atol=1e-3)
