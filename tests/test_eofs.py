"""Localised EOFs: orthonormal, ordered, better than EOFs of few fields, refused where senseless."""

from __future__ import annotations

import numpy as np
import pytest

from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.eofs import (
    PLAIN,
    HarmonicBasis,
    Localisation,
    LocalisedEofs,
    choose_localisation,
    gaspari_cohn,
)
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
def eofs(basis: HarmonicBasis) -> LocalisedEofs:
    return LocalisedEofs(basis, basis.analyse(weather(60, 0)))


def rmse(modes: np.ndarray, coordinates: np.ndarray) -> float:
    """Of fields that are truncated to some modes."""
    rest = coordinates - coordinates @ modes @ modes.T
    return float(np.sqrt((rest**2).sum(1).mean()))


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


def test_plain_modes_are_the_eofs_of_the_grid(basis: HarmonicBasis, eofs: LocalisedEofs) -> None:
    fields = weather(60, 0).astype(np.float64)
    root = np.sqrt(GRID.area_weights)
    expected = np.linalg.svd(fields * root, full_matrices=False)[2][:4]

    modes = basis.synthesise(eofs.modes(PLAIN, 4).T)

    similarity = np.abs((modes * root) @ expected.T)
    np.testing.assert_allclose(similarity, np.eye(4), atol=1e-3)


@pytest.mark.parametrize("localisation", [PLAIN, Localisation(4, 0.7, 0.5), Localisation(0, 1.0)])
def test_modes_are_orthonormal_on_the_grid_and_ordered(
    basis: HarmonicBasis, eofs: LocalisedEofs, localisation: Localisation
) -> None:
    modes = eofs.modes(localisation, 30)

    on_grid = basis.synthesise(modes.T).astype(np.float64)
    gram = (on_grid * GRID.area_weights) @ on_grid.T
    np.testing.assert_allclose(gram, np.eye(30), atol=1e-4)
    variance = ((basis.analyse(weather(60, 0)) @ modes) ** 2).mean(0)
    assert (np.diff(variance) < 1e-6).all()


def test_tapering_at_any_distance_changes_nothing(eofs: LocalisedEofs) -> None:
    """It goes through a coarse grid and back."""
    modes = eofs.modes(Localisation(2, 1.0, 1e4), 6)

    similarity = np.abs(modes.T @ eofs.modes(PLAIN, 6))
    np.testing.assert_allclose(similarity, np.eye(6), atol=1e-2)


def test_localised_modes_hold_unseen_fields_better(
    basis: HarmonicBasis, eofs: LocalisedEofs
) -> None:
    unseen = basis.analyse(weather(200, 1))

    best, trials = choose_localisation(basis, basis.analyse(weather(60, 0)), 40)

    assert {best, PLAIN} <= {trial.localisation for trial in trials}
    assert rmse(eofs.modes(best, 40), unseen) < 0.9 * rmse(eofs.modes(PLAIN, 40), unseen)


def test_global_patterns_are_not_tapered_away(basis: HarmonicBasis) -> None:
    """Two modes of the whole globe, and no weather: what tapering makes of them is worse."""
    rng = np.random.default_rng(6)
    patterns = basis.analyse(np.stack([GRID.points[:, 2], GRID.points[:, 0]]))
    fields = rng.standard_normal((80, 2)) @ patterns + 1e-3 * rng.standard_normal((80, basis.size))

    best, _ = choose_localisation(basis, fields, 2)

    modes = LocalisedEofs(basis, fields).modes(best, 2)
    assert rmse(modes, fields) < 1.2 * rmse(LocalisedEofs(basis, fields).modes(PLAIN, 2), fields)


def test_the_error_of_a_trial_is_that_of_parts_that_were_left_out(basis: HarmonicBasis) -> None:
    fields = basis.analyse(weather(60, 0))
    _, trials = choose_localisation(basis, fields, 10, seconds=1e-9)

    squares = []
    for part in np.split(np.arange(60), 5):
        others = np.delete(fields, part, axis=0)
        modes = LocalisedEofs(basis, others - others.mean(0)).modes(trials[0].localisation, 10)
        squares.append(rmse(modes, fields[part] - others.mean(0)) ** 2)
    assert trials[0].rmse == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-4)
    assert trials[0].score == pytest.approx(trials[0].rmse)


def test_a_search_looks_at_as_many_scales_as_it_needs(basis: HarmonicBasis, monkeypatch) -> None:
    fields = basis.analyse(weather(60, 0))
    whole = choose_localisation(basis, fields, 8, seconds=1e-9)[1]
    monkeypatch.setattr("coinpp_xr.eofs._LEAST_SEARCH_DEGREE", 13)

    coarse = choose_localisation(basis, fields, 8, seconds=1e-9)[1]

    for one, other in zip(whole, coarse, strict=True):
        assert other.rmse == pytest.approx(one.rmse, rel=0.01)


def test_hundreds_of_modes_are_judged_by_their_first_ones_too(basis: HarmonicBasis) -> None:
    fields = basis.analyse(weather(200, 0))

    few, many = (
        choose_localisation(basis, fields, count, seconds=1e-9)[1][0] for count in (64, 100)
    )

    assert few.localisation == many.localisation
    assert many.rmse < many.score < few.rmse


def test_a_search_without_time_still_answers(basis: HarmonicBasis) -> None:
    _, trials = choose_localisation(basis, basis.analyse(weather(60, 0)), 10, seconds=1e-9)

    assert len(trials) == 2


@pytest.mark.parametrize("items", [1, 3, 4, 12])
def test_few_fields_can_have_more_modes_than_there_are_fields(
    basis: HarmonicBasis, items: int
) -> None:
    """Plain EOFs of twelve fields are eleven; what tapering adds is still orthonormal."""
    few, unseen = basis.analyse(weather(items, 3)), basis.analyse(weather(100, 4))
    best, trials = choose_localisation(basis, few, 64)
    assert PLAIN not in {best, *(trial.localisation for trial in trials)}

    modes = LocalisedEofs(basis, few).modes(best, 64)

    np.testing.assert_allclose(modes.T @ modes, np.eye(64), atol=1e-9)
    if items > 4:
        plain = LocalisedEofs(basis, few).modes(PLAIN, items - 1)
        assert rmse(modes, unseen) < rmse(plain, unseen)


def test_modes_keep_clear_of_what_is_described_already(basis: HarmonicBasis) -> None:
    fixed = np.random.default_rng(5).standard_normal((basis.size, 3))

    eofs = LocalisedEofs(basis, basis.analyse(weather(60, 0)), fixed)

    for localisation in (PLAIN, Localisation(4, 0.7, 0.5)):
        modes = eofs.modes(localisation, 10)
        assert np.abs(modes.T @ fixed).max() < 1e-9
        np.testing.assert_allclose(modes.T @ modes, np.eye(10), atol=1e-9)


def test_gaspari_cohn_is_a_correlation_with_compact_support() -> None:
    distance = np.array([0, 0.5, 1, 1.5, 2, 5])

    # The values of the paper's formula at these distances.
    expected = [1, 0.6848958, 0.2083333, 0.0164931, 0, 0]
    np.testing.assert_allclose(gaspari_cohn(distance), expected, atol=1e-5)
