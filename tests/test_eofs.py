"""Localised EOFs: orthonormal, ordered, better than EOFs of few fields, refused where senseless."""

from __future__ import annotations

import numpy as np
import pytest

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.eofs import PLAIN, EofSearch, HarmonicBasis, Localisation, gaspari_cohn
from coinpp_xr.harmonics import harmonics

GRID = next(SphereGrid.usual_layouts(24, 48))


def weather(items: int, seed: int) -> np.ndarray:
    """Fields that are correlated over some twenty degrees only, shape (items, points)."""
    rng = np.random.default_rng(seed)
    degree = np.sqrt(np.arange(13**2)).astype(int)
    amplitudes = rng.standard_normal((items, len(degree))) / (1 + (degree / 6) ** 2)
    return (amplitudes @ harmonics(GRID.points, 12).T).astype(np.float32)


@pytest.fixture(scope="module")
def basis() -> HarmonicBasis:
    basis = HarmonicBasis.of(GRID.points, GRID.area_weights)
    assert basis is not None
    return basis


@pytest.fixture(scope="module")
def search(basis: HarmonicBasis) -> EofSearch:
    return EofSearch(basis, basis.analyse(weather(60, 0)), basis.analyse(weather(200, 1)))


def test_fields_come_back_from_the_basis(basis: HarmonicBasis) -> None:
    fields = weather(5, 2)

    coordinates = basis.analyse(fields)

    back = basis.to_harmonics(coordinates) @ harmonics(GRID.points, basis.degree).T
    np.testing.assert_allclose(back, fields, atol=1e-3)
    np.testing.assert_allclose(basis.synthesise(coordinates), back, atol=1e-4)
    np.testing.assert_allclose(
        (coordinates**2).sum(1), fields.astype(np.float64) ** 2 @ GRID.area_weights, rtol=1e-5
    )


def test_many_points_are_analysed_in_blocks(basis: HarmonicBasis, monkeypatch) -> None:
    fields = weather(5, 2)
    whole = basis.analyse(fields)
    monkeypatch.setattr("coinpp_xr.eofs._POINTS_PER_BLOCK", 100)

    again = HarmonicBasis(basis.points, basis.weights, basis.degree)

    np.testing.assert_allclose(again.gram, basis.gram, atol=1e-12)
    np.testing.assert_allclose(again.analyse(fields), whole, atol=1e-5)
    np.testing.assert_allclose(again.synthesise(whole), fields, atol=1e-3)


@pytest.mark.parametrize(
    ("grid", "degree"),
    [
        (next(SphereGrid.usual_layouts(46, 90)), 42),
        (next(SphereGrid.usual_layouts(12, 24)), 9),
        (SphereGrid(np.linspace(75, -75, 6), np.arange(0, 360, 45.0)), 3),
        # As many meridians as the orders 0 to 7 need.
        (SphereGrid(np.linspace(88, -88, 45), np.arange(0, 360, 24.0)), 7),
    ],
)
def test_the_degree_is_what_the_grid_resolves(grid: SphereGrid, degree: int) -> None:
    basis = HarmonicBasis.of(grid.points, grid.area_weights)
    assert basis is not None
    assert basis.degree == degree


@pytest.mark.parametrize(
    "grid",
    [
        SphereGrid(np.linspace(70, 30, 20), np.arange(0, 60, 3.0)),
        SphereGrid(np.linspace(60, -60, 30), np.arange(0, 360, 6.0)),
        SphereGrid(np.linspace(90, -90, 46), np.arange(0, 270, 4.0)),
        SphereGrid(np.linspace(90, 0, 23), np.arange(0, 360, 4.0)),
    ],
)
def test_a_region_has_no_basis(grid: SphereGrid) -> None:
    assert HarmonicBasis.of(grid.points, grid.area_weights) is None


def test_points_off_the_sphere_have_no_basis() -> None:
    assert HarmonicBasis.of(2 * GRID.points, GRID.area_weights) is None
    assert HarmonicBasis.of(GRID.points[:, :2], GRID.area_weights) is None


def test_plain_modes_are_the_eofs_of_the_grid(basis: HarmonicBasis, search: EofSearch) -> None:
    fields = weather(60, 0).astype(np.float64)
    root = np.sqrt(GRID.area_weights)
    expected = np.linalg.svd(fields * root, full_matrices=False)[2][:4]

    modes = basis.to_harmonics(search.modes(PLAIN, 4).T) @ harmonics(GRID.points, basis.degree).T

    similarity = np.abs((modes * root) @ expected.T)
    np.testing.assert_allclose(similarity, np.eye(4), atol=1e-3)


@pytest.mark.parametrize("localisation", [PLAIN, Localisation(4, 0.7, 0.5), Localisation(0, 1.0)])
def test_modes_are_orthonormal_on_the_grid_and_ordered(
    basis: HarmonicBasis, search: EofSearch, localisation: Localisation
) -> None:
    modes = search.modes(localisation, 30)

    on_grid = basis.to_harmonics(modes.T) @ harmonics(GRID.points, basis.degree).T
    gram = (on_grid * GRID.area_weights) @ on_grid.T
    np.testing.assert_allclose(gram, np.eye(30), atol=1e-4)
    variance = (basis.analyse(weather(60, 0)) @ modes).var(0)
    assert (np.diff(variance) < 0.1 * variance[0]).all()


def test_localised_modes_hold_unseen_fields_better(search: EofSearch) -> None:
    best, trials = search.best(40)

    plain = next(trial for trial in trials if trial.localisation == PLAIN)
    assert best.rmse < 0.9 * plain.rmse
    assert best.score == min(trial.score for trial in trials)
    assert best.score == pytest.approx(best.rmse)


def test_hundreds_of_modes_are_judged_by_their_first_ones_too(search: EofSearch) -> None:
    few, many = (search.trial(Localisation(4, 0.7, 0.5), count) for count in (64, 100))

    np.testing.assert_array_equal(few.modes, search.trial(few.localisation, 64).modes)
    assert many.rmse < many.score < few.rmse * 1.1


def test_the_error_of_a_trial_is_that_of_its_modes(basis: HarmonicBasis, search: EofSearch) -> None:
    trial = search.trial(Localisation(4, 0.7, 0.5), 20)

    fields = weather(200, 1)
    coordinates = basis.analyse(fields) @ trial.modes
    back = basis.to_harmonics(coordinates @ trial.modes.T) @ harmonics(GRID.points, basis.degree).T
    assert trial.rmse == pytest.approx(
        np.sqrt(((back - fields) ** 2 @ GRID.area_weights).mean()), rel=1e-3
    )


def test_a_search_without_time_still_finds_modes(search: EofSearch) -> None:
    best, trials = search.best(10, seconds=0)

    assert best.modes.shape == (search.basis.size, 10)
    assert len(trials) == 2


def test_the_search_is_deterministic(basis: HarmonicBasis) -> None:
    data = basis.analyse(weather(60, 0)), basis.analyse(weather(200, 1))

    first, second = (EofSearch(basis, *data).best(10)[0] for _ in range(2))

    np.testing.assert_array_equal(first.modes, second.modes)


def test_few_fields_can_have_more_modes_than_there_are_fields(basis: HarmonicBasis) -> None:
    """Plain EOFs of twelve fields are eleven; what tapering adds is still orthonormal."""
    few = basis.analyse(weather(12, 3))
    search = EofSearch(basis, few - few.mean(0), basis.analyse(weather(100, 4)))

    best, trials = search.best(64)

    assert best.localisation != PLAIN
    assert all(trial.localisation != PLAIN for trial in trials)
    np.testing.assert_allclose(best.modes.T @ best.modes, np.eye(64), atol=1e-9)
    plain = search.trial(PLAIN, 11)
    assert best.rmse < plain.rmse


def test_modes_keep_clear_of_what_is_described_already(basis: HarmonicBasis) -> None:
    data = basis.analyse(weather(60, 0)), basis.analyse(weather(200, 1))
    fixed = np.random.default_rng(5).standard_normal((basis.size, 3))

    search = EofSearch(basis, *data, fixed=fixed)

    for localisation in (PLAIN, Localisation(4, 0.7, 0.5)):
        modes = search.modes(localisation, 10)
        assert np.abs(modes.T @ fixed).max() < 1e-9


def test_gaspari_cohn_is_a_correlation_with_compact_support() -> None:
    distance = np.array([0, 0.5, 1, 1.5, 2, 5])

    # The values of the paper's formula at these distances.
    expected = [1, 0.6848958, 0.2083333, 0.0164931, 0, 0]
    np.testing.assert_allclose(gaspari_cohn(distance), expected, atol=1e-5)
