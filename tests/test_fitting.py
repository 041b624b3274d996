"""Fitting latents: least squares, masks, batches, devices, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import threadpoolctl

import coinpp_xr
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import EFFORTS, compute_device, fit, predict
from coinpp_xr.fitting import Origin, gauss_newton
from coinpp_xr.models import Model
from coinpp_xr.parallel import map_compiled, map_in_threads

GRID = next(SphereGrid.usual_layouts(10, 20))


@pytest.fixture
def fields(tiny_model: Model) -> tuple[np.ndarray, np.ndarray]:
    """True latents and the fields that they make."""
    latents = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    return latents, tiny_model.siren(GRID.points, latents)


def test_best_effort_finds_the_latents_that_made_the_field(tiny_model, fields) -> None:
    latents, targets = fields
    found = fit(tiny_model.siren, GRID.points, targets, GRID.area_weights, effort="best")
    np.testing.assert_allclose(found, latents, atol=1e-3)


@pytest.mark.parametrize("effort", EFFORTS)
def test_every_effort_improves_on_zero_latents(tiny_model, fields, effort) -> None:
    _, targets = fields
    found = fit(
        tiny_model.siren, GRID.points, targets, GRID.area_weights, effort=effort, learning_rate=0.1
    )
    start = tiny_model.siren(GRID.points, np.zeros((1, 3), np.float32))
    before = ((start - targets) ** 2).mean()
    assert ((predict(tiny_model.siren, GRID.points, found) - targets) ** 2).mean() < before


def test_masked_cells_have_no_influence(tiny_model, fields) -> None:
    latents, targets = fields
    spoilt, weights = targets.copy(), np.tile(GRID.area_weights, (6, 1))
    for item in range(6):
        spoilt[item, item * 10 : item * 10 + 30] = 7.0
        weights[item, item * 10 : item * 10 + 30] = 0
    found = fit(tiny_model.siren, GRID.points, spoilt, weights, effort="best")
    np.testing.assert_allclose(found, latents, atol=2e-3)


def test_one_step_on_a_linear_problem_is_weighted_least_squares(tiny_model) -> None:
    """With the Jacobian at zero as the truth, the matrix step must solve the normal equations."""
    zero = np.zeros((1, 3), np.float32)
    output, jacobian = tiny_model.siren.linearise(GRID.points, zero)
    rng = np.random.default_rng(4)
    targets = output + 1e-4 * rng.standard_normal((4, 200, 1)).astype(np.float32)
    weights = rng.uniform(0.1, 1, (1, 200)).astype(np.float32)
    found = gauss_newton(
        tiny_model.siren, GRID.points, targets, weights=weights, chord_steps=1, own_steps=0
    )
    root = np.sqrt(weights[0].astype(np.float64))
    expected = np.linalg.lstsq(
        jacobian[0, :, 0] * root[:, None], ((targets - output)[..., 0] * root).T, rcond=None
    )[0].T
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-6)


def test_one_valid_cell_is_enough(tiny_model, fields) -> None:
    _, targets = fields
    weights = np.zeros((6, 200))
    weights[:, 57] = 1
    found = fit(tiny_model.siren, GRID.points, targets, weights)
    got = predict(tiny_model.siren, GRID.points, found)
    np.testing.assert_allclose(got[:, 57], targets[:, 57], atol=1e-2)


def test_no_globes_give_no_latents(tiny_model) -> None:
    empty = np.zeros((0, 200, 1), np.float32)
    assert fit(tiny_model.siren, GRID.points, empty, GRID.area_weights).shape == (0, 3)


def test_batch_size_hardly_matters(tiny_model, fields) -> None:
    _, targets = fields
    together = fit(tiny_model.siren, GRID.points, targets, GRID.area_weights)
    one_by_one = [
        fit(tiny_model.siren, GRID.points, t[None], GRID.area_weights)[0] for t in targets
    ]
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)


def test_large_grids_are_predicted_in_blocks(tiny_model) -> None:
    grid = next(SphereGrid.usual_layouts(91, 180))
    latents = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    got = predict(tiny_model.siren, grid.points, latents)
    np.testing.assert_allclose(got, tiny_model.siren(grid.points, latents), atol=1e-5)


def test_unknown_effort_is_refused(tiny_model, fields) -> None:
    with pytest.raises(ValueError, match="effort must be one of"):
        fit(tiny_model.siren, GRID.points, fields[1], GRID.area_weights, effort="hard")


def test_callers_in_many_threads_leave_blas_as_it_was(tiny_model, fields) -> None:
    def blas_threads() -> list[int]:
        info = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in info if pool["user_api"] == "blas"]

    before = blas_threads()
    with ThreadPoolExecutor(8) as callers:
        list(
            callers.map(
                lambda _: fit(tiny_model.siren, GRID.points, fields[1], GRID.area_weights),
                range(32),
            )
        )
    assert blas_threads() == before


@pytest.mark.parametrize("in_threads", [map_in_threads, map_compiled])
def test_nested_use_of_the_pool_does_not_deadlock(in_threads) -> None:
    inner = [1, 2, 3]
    got = in_threads(lambda n: sum(in_threads(lambda m: m * n, inner)), list(range(20)))
    assert got == [6 * n for n in range(20)]


def test_what_is_raised_in_any_thread_arrives() -> None:
    def work(number: int) -> int:
        if number == 7:
            raise ValueError("seven")
        return number

    with coinpp_xr.config.set(threads=3):
        for _ in range(20):
            with pytest.raises(ValueError, match="seven"):
                map_compiled(work, range(9))
        assert map_compiled(work, range(7)) == list(range(7))


def test_asking_for_a_gpu_that_is_not_there_says_so() -> None:
    if compute_device() != "cpu":
        pytest.skip("this machine has a GPU")
    with (
        coinpp_xr.config.set(device="cuda:1"),
        pytest.raises(RuntimeError, match="torch sees no GPU"),
    ):
        compute_device()


@pytest.mark.gpu
def test_gpu_and_cpu_agree(tiny_model, fields) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    latents, targets = fields
    with coinpp_xr.config.set(device="cuda"):
        on_gpu = fit(tiny_model.siren, GRID.points, targets, GRID.area_weights, effort="best")
        output = predict(tiny_model.siren, GRID.points, latents)
    np.testing.assert_allclose(on_gpu, latents, atol=2e-3)
    np.testing.assert_allclose(output, targets, atol=1e-4)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("masked", [False, True])
def test_torch_path_equals_numpy_path(tiny_model, fields, monkeypatch, effort, masked) -> None:
    """The code that serves GPUs, on torch's CPU device."""
    pytest.importorskip("torch")
    latents, targets = fields
    weights = np.tile(GRID.area_weights, (6, 1)) if masked else GRID.area_weights
    if masked:
        weights[2, :50] = 0
    options = {"effort": effort, "learning_rate": 0.1}
    expected = fit(tiny_model.siren, GRID.points, targets, weights, **options)
    monkeypatch.setattr("coinpp_xr.devices.compute_device", lambda: "cpu:0")
    got = fit(tiny_model.siren, GRID.points, targets, weights, **options)
    np.testing.assert_allclose(got, expected, atol=2e-3)
    np.testing.assert_allclose(predict(tiny_model.siren, GRID.points, latents), targets, atol=1e-5)


def test_running_out_of_gpu_memory_means_smaller_batches(tiny_model, fields, monkeypatch) -> None:
    """The slicing is the same on any torch device; memory runs out for more than two items."""
    torch = pytest.importorskip("torch")
    from coinpp_xr import devices

    sizes = []

    def block(net, xyz, latents):
        sizes.append(len(latents))
        if len(latents) > 2:
            raise torch.cuda.OutOfMemoryError("no memory")
        return net(xyz, latents)

    latents, targets = fields
    got = devices._on_gpu(block, tiny_model.siren, "cpu", GRID.points, (latents,), len(latents))
    np.testing.assert_allclose(got, targets, atol=1e-5)
    assert sizes == [6, 3, 2, 2, 2]


def test_the_change_of_the_jacobian_brings_chord_steps_close_to_the_smallest_error(
    tiny_model, fields
) -> None:
    """Chord steps end where Jᵀr = 0 with the Jacobian at zero; a large residual shows it."""
    rng = np.random.default_rng(2)
    targets = tiny_model.siren(GRID.points, 0.4 * fields[0])
    targets += 0.2 * rng.standard_normal(targets.shape).astype(np.float32)
    weights = np.full((1, 200), 1 / 200, np.float32)

    def loss(curved: bool, chord_steps: int, own_steps: int) -> float:
        origin = Origin.of(tiny_model.siren, GRID.points, weights, curved=curved)
        found = gauss_newton(
            tiny_model.siren, GRID.points, targets, weights=weights,
            chord_steps=chord_steps, own_steps=own_steps, origin=origin,
        )  # fmt: skip
        return float(((tiny_model.siren(GRID.points, found) - targets) ** 2).mean())

    smallest = loss(False, 1, 10)
    assert loss(True, 10, 0) - smallest < 0.5 * (loss(False, 10, 0) - smallest)
