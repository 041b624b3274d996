"""Transforms are orthonormal, know the grid's weights, and compact smooth fields."""

from __future__ import annotations

import numpy as np
import pytest

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.orthonormal import orthonormal
from coinpp_xr.transform import (
    SIZES_PER_OCTAVE,
    cosine_transform,
    fit_spectrum,
    frequency_bands,
    sphere_transform,
)

USUAL = next(SphereGrid.usual_layouts(46, 90))
GRIDS = {
    "usual": USUAL,
    "odd number of columns": next(SphereGrid.usual_layouts(10, 21)),
    "ascending cell centres": list(SphereGrid.usual_layouts(12, 24))[-1],
    "regional": SphereGrid(np.linspace(30, 60, 8), np.linspace(-10, 40, 13)),
    "irregular": SphereGrid(np.array([60.0, 20, -10, -50]), np.array([0.0, 50, 100, 200, 300])),
    "one cell": SphereGrid(np.array([90.0]), np.array([0.0])),
    "one row": SphereGrid(np.array([0.0]), np.arange(0, 360, 10.0)),
    "one column": SphereGrid(np.linspace(90, -90, 19), np.array([0.0])),
    "very fine": SphereGrid(np.linspace(90, -90, 301), np.arange(0, 360, 60.0)),
}


@pytest.mark.parametrize("length", [1, 2, 7, 256])
def test_cosine_transform_is_orthonormal(length) -> None:
    matrix = cosine_transform(length)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(length), atol=1e-12)
    assert np.allclose(matrix[1:].sum(axis=1), 0, atol=1e-12)  # all but the first have no mean


@pytest.mark.parametrize("name", GRIDS)
def test_fields_come_back(name) -> None:
    grid = GRIDS[name]
    fields = np.random.default_rng(0).standard_normal((2, 3, *grid.shape))
    transform = sphere_transform(grid)
    coefficients = transform.forward(fields)
    assert coefficients.shape == fields.shape
    np.testing.assert_allclose(transform.inverse(coefficients), fields, atol=1e-9)


@pytest.mark.parametrize("name", GRIDS)
def test_squares_sum_to_the_weighted_mean_square(name) -> None:
    grid = GRIDS[name]
    fields = np.random.default_rng(1).standard_normal((4, *grid.shape))
    cosine = np.cos(np.deg2rad(grid.latitude))
    rows = np.maximum(cosine, 0.05 * cosine.max())
    weights = np.repeat(rows[:, None], grid.shape[1], axis=1) / (rows.sum() * grid.shape[1])
    expected = (weights * fields**2).sum((-1, -2))
    got = (sphere_transform(grid).forward(fields) ** 2).sum((-1, -2))
    np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_smooth_fields_need_few_coefficients() -> None:
    """A field that is smooth on the sphere, also across the poles and the date line."""
    x, y, z = USUAL.points.astype(np.float64).T
    field = (np.exp(x + 0.5 * y) * np.cos(2 * z) + x * y * z).reshape(USUAL.shape)
    squares = np.sort((sphere_transform(USUAL).forward(field) ** 2).ravel())[::-1]
    assert squares[60:].sum() < 1e-6 * squares.sum()


def test_vectors_become_orthonormal_in_their_order_and_are_completed() -> None:
    given = np.random.default_rng(5).standard_normal((9, 9))
    given[4], given[6] = 2 * given[1] - given[3], 0  # depend on others
    found = orthonormal(given)
    np.testing.assert_allclose(found @ found.T, np.eye(9), atol=1e-14)
    inside = given @ found.T
    for k in range(9):
        np.testing.assert_allclose(inside[k, k + 1 :], 0, atol=1e-13)


@pytest.mark.parametrize("length", [2, 3, 12, 256, 5000])
def test_bands_rise_with_frequency_and_mean_the_same_for_every_length(length) -> None:
    bands = frequency_bands(length)
    assert (np.diff(bands) >= 0).all()
    assert bands[0] >= 1
    # Half a cycle in two steps, whatever the length of the chunk.
    assert bands[length // 2] == frequency_bands(4 * length)[4 * (length // 2)]
    assert frequency_bands(1)[0] == 0


def test_spectrum_knows_the_size_of_coefficients() -> None:
    rng = np.random.default_rng(2)
    slow = np.cumsum(rng.standard_normal((2000, 1)), axis=0) * 0.1
    latents = np.concatenate([8 * rng.standard_normal((2000, 1)), slow], axis=1)
    table = fit_spectrum([latents])
    size = 2.0 ** (table / SIZES_PER_OCTAVE)
    np.testing.assert_allclose(size[5:, 0], 8, rtol=0.4)
    assert size[1, 1] > 4 * size[-1, 1]
    np.testing.assert_allclose(size[0], np.sqrt((latents**2).mean(0)), rtol=0.1)


def test_spectrum_of_a_single_field() -> None:
    assert fit_spectrum([np.ones((1, 3))]).shape == (20, 3)
