"""What latents modulate and how, against the equations written out point by point."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from refusals import refusal
from torch.autograd import grad

from coinpp_xr.building import build_model
from coinpp_xr.fitting import Origin, gauss_newton, sgd_step
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training import (
    TrainingConfig,
    TrainingData,
    inner_loop,
    meta_learn,
    siren_from_checkpoint,
)
from coinpp_xr.training.outer_loop import _Training

OMEGA0, WIDTH, DEPTH, LATENTS = 7.0, 5, 3, 4
MAPS, KINDS = ("linear", "relu", "siren"), ("shifts", "scales", "both", "amplitudes")
COMBINATIONS = [*product(KINDS, MAPS), ("amplitudes", "network")]
every_combination = pytest.mark.parametrize(("modulation", "latent_map"), COMBINATIONS)
SMALL = TrainingConfig(
    latent_dim=2, width=8, depth=2, omega0=10.0, objective="paper", steps=3, batch_size=4,
    points_per_item=None, inner_lr=1.0, shift_scale=0.1, map_width=6,
)  # fmt: skip


def fresh(modulation: str, latent_map: str, **settings) -> ModulatedSiren:
    return ModulatedSiren.initialise(
        dim_in=3, dim_out=2, width=WIDTH, depth=DEPTH, latent_dim=LATENTS, omega0=OMEGA0,
        shift_scale=0.2, rng=np.random.default_rng(0), modulation=modulation,
        latent_map=latent_map, map_width=6, **settings,
    )  # fmt: skip


def in_torch(siren: ModulatedSiren) -> ModulatedSiren:
    """In double precision, and no longer the one of zero modulations at zero latents."""
    rng = np.random.default_rng(1)
    return siren.map(
        lambda p: torch.tensor(p + 0.05 * rng.standard_normal(p.shape), requires_grad=True)
    )


def make_data() -> TrainingData:
    rng = np.random.default_rng(2)
    points = rng.uniform(-1, 1, (30, 2)).astype(np.float32)
    amplitudes = rng.standard_normal((24, 2))
    fields = (0.5 + 0.1 * amplitudes @ points.T)[..., None].astype(np.float32)
    return TrainingData(points, np.full(30, 1 / 30), fields[:16], fields[16:])


def reference_modulations(siren: ModulatedSiren, phi: torch.Tensor) -> torch.Tensor:
    """What the latent map yields for one latent vector, as the papers write it."""
    parameters = siren.parameters[2 * DEPTH + 2 :]
    if siren.latent_map.kind == "linear":
        (matrix,) = parameters
        return matrix.mv(phi)
    if siren.latent_map.kind == "network":
        g = torch.relu(parameters[0].mv(phi) + parameters[DEPTH])
        amplitudes = [g]
        for v, c in zip(parameters[1:DEPTH], parameters[DEPTH + 1 :], strict=True):
            g = torch.relu(v.mv(torch.cat([g, phi])) + c)
            amplitudes.append(g)
        return torch.cat(amplitudes)
    first, last, bias, last_bias = parameters
    z = first.mv(phi) + bias
    hidden = torch.relu(z) if siren.latent_map.kind == "relu" else torch.sin(OMEGA0 * z)
    return last.mv(hidden) + last_bias


def reference(siren: ModulatedSiren, x: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """The network for one point and one latent vector."""
    modulations = reference_modulations(siren, phi).reshape(-1, DEPTH, WIDTH)
    h = x
    for layer in range(DEPTH):
        wh_b = siren.weights[layer].mv(h) + siren.biases[layer]
        own = modulations[:, layer]
        if siren.modulation == "shifts":
            h = torch.sin(OMEGA0 * (wh_b + own[0]))
        elif siren.modulation == "scales":
            h = torch.sin(OMEGA0 * (1 + own[0]) * wh_b)
        elif siren.modulation == "both":
            h = torch.sin(OMEGA0 * ((1 + own[0]) * wh_b + own[1]))
        else:  # the modulation network yields amplitudes, other maps what they differ from one
            alpha = own[0] if siren.latent_map.kind == "network" else 1 + own[0]
            h = alpha * torch.sin(OMEGA0 * wh_b)
    return siren.weights[DEPTH].mv(h) + siren.biases[DEPTH] + 0.5


def reference_loss(siren, points, target, weights, phi) -> torch.Tensor:
    error = torch.stack([reference(siren, x, phi) for x in points]) - target
    return (weights * error.square().mean(-1)).sum()


@pytest.fixture
def problem() -> tuple[torch.Tensor, ...]:
    rng = np.random.default_rng(3)
    weights = rng.uniform(0.5, 1.5, 4)
    parts = rng.uniform(-1, 1, (4, 3)), rng.uniform(0, 1, (2, 4, 2)), weights / weights.sum()
    return tuple(map(torch.tensor, (*parts, 0.5 * rng.standard_normal((2, LATENTS)))))


@every_combination
def test_network_equals_the_equations(problem, modulation, latent_map) -> None:
    points, _, _, latents = problem
    siren = in_torch(fresh(modulation, latent_map))
    expected = torch.stack(
        [torch.stack([reference(siren, x, phi) for x in points]) for phi in latents]
    )
    torch.testing.assert_close(siren(points, latents), expected, rtol=0, atol=1e-12)
    own_points = siren(torch.stack([points, points.flip(0)]), latents)
    torch.testing.assert_close(own_points[1], expected[1].flip(0), rtol=0, atol=1e-12)


@every_combination
def test_inner_step_follows_the_gradient(problem, modulation, latent_map) -> None:
    points, targets, weights, latents = problem
    siren = in_torch(fresh(modulation, latent_map))
    got = sgd_step(siren, points, targets, latents, weights=weights[None], learning_rate=0.3)
    for item, target in enumerate(targets):
        phi = latents[item].clone().requires_grad_()
        slope = grad(reference_loss(siren, points, target, weights, phi), phi)[0]
        assert slope.abs().max() > 1e-3
        torch.testing.assert_close(got[item], phi - 0.3 * slope, rtol=0, atol=1e-12)


@every_combination
def test_jacobian_in_numpy_equals_autograd(problem, modulation, latent_map) -> None:
    points, _, _, latents = problem
    siren = in_torch(fresh(modulation, latent_map))
    in_numpy = siren.map(lambda p: p.detach().numpy())
    output, jacobian = in_numpy.linearise(points.numpy(), latents.numpy())
    np.testing.assert_allclose(output, siren(points, latents).detach().numpy(), atol=1e-12)
    for item, phi in enumerate(latents):
        for point, x in enumerate(points):
            expected = torch.autograd.functional.jacobian(
                lambda z, x=x: reference(siren, x, z), phi
            )
            np.testing.assert_allclose(jacobian[item, point], expected.numpy(), atol=1e-11)


@every_combination
def test_outer_gradient_is_the_exact_second_order_one(problem, modulation, latent_map) -> None:
    points, targets, weights, _ = problem
    siren = in_torch(fresh(modulation, latent_map))

    def outer_gradient(latents: torch.Tensor) -> tuple[torch.Tensor, ...]:
        error = (siren(points, latents) - targets).square().mean(-1)
        loss = (error * weights).sum(-1).mean()
        return grad(loss, siren.parameters, retain_graph=True, materialize_grads=True)

    latents = inner_loop(siren, points, targets, weights=weights[None], steps=2, learning_rate=0.3)
    total = torch.zeros((), dtype=torch.float64)
    for target in targets:
        phi = torch.zeros(LATENTS, dtype=torch.float64, requires_grad=True)
        for _ in range(2):
            loss = reference_loss(siren, points, target, weights, phi)
            phi = phi - 0.3 * grad(loss, phi, create_graph=True)[0]
        total = total + reference_loss(siren, points, target, weights, phi) / len(targets)
    expected = grad(total, siren.parameters, materialize_grads=True)
    for a, b in zip(outer_gradient(latents), expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    # Where first order is another gradient, it could not have passed.
    first_order = outer_gradient(latents.detach())
    assert max((a - b).abs().max() for a, b in zip(first_order, expected, strict=True)) > 1e-4


@every_combination
def test_zero_latents_start_as_the_network_without_modulations(
    problem, modulation, latent_map
) -> None:
    points = problem[0].numpy().astype(np.float32)
    siren = fresh(modulation, latent_map)
    h = points
    for weight, bias in zip(siren.weights[:-1], siren.biases, strict=False):
        h = np.sin(OMEGA0 * (h @ weight.T + bias))
    expected = h @ siren.weights[-1].T + siren.biases[-1] + 0.5
    np.testing.assert_allclose(siren(points, siren.zeros(1))[0], expected, atol=1e-5)
    assert np.abs(siren.linearise(points, siren.zeros(1))[1]).max() > 1e-3  # not stuck there


@every_combination
def test_the_parameterization_leaves_the_first_random_numbers(modulation, latent_map) -> None:
    plain, other = fresh("shifts", "linear"), fresh(modulation, latent_map)
    layers = 2 * (DEPTH + 1)
    for a, b in zip(plain.parameters[:layers], other.parameters[:layers], strict=True):
        np.testing.assert_array_equal(a, b)
    assert {p.dtype for p in other.parameters} == {np.dtype(np.float32)}


@every_combination
def test_gauss_newton_lowers_the_error(problem, modulation, latent_map) -> None:
    points, _, weights, latents = (part.numpy() for part in problem)
    siren = in_torch(fresh(modulation, latent_map)).map(lambda p: p.detach().numpy())
    targets = siren(points, 0.1 * latents)
    origin = Origin.of(siren, points, weights[None], curved=True)
    fitted = gauss_newton(
        siren, points, targets, weights=weights[None], chord_steps=2, own_steps=3, origin=origin
    )

    def error(z) -> float:
        return float(((siren(points, z) - targets) ** 2).mean())

    assert error(fitted) < 0.1 * error(np.zeros_like(latents))


@every_combination
@pytest.mark.parametrize("objective", ["paper", "warm-start"])
def test_training_ends_in_a_checkpoint_of_all_parameters(
    tmp_path, modulation, latent_map, objective
) -> None:
    path, data = tmp_path / "run.safetensors", make_data()
    config = replace(
        SMALL, modulation=modulation, latent_map=latent_map, objective=objective,
        warm_fraction=0.4,
    )  # fmt: skip
    trained = meta_learn(data, config, checkpoint=path)
    kept = siren_from_checkpoint(path)
    assert (kept.modulation, kept.latent_map.kind) == (modulation, latent_map)
    for a, b in zip(kept.parameters, trained.parameters, strict=True):
        np.testing.assert_array_equal(a, b)
    latents = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(kept(data.points, latents), trained(data.points, latents))
    untrained = meta_learn(data, replace(config, steps=0))
    for a, b in zip(untrained.parameters, trained.parameters, strict=True):
        assert (a != b).any()


@pytest.mark.parametrize("latent_map", ["relu", "siren", "network"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, latent_map) -> None:
    config = replace(SMALL, modulation="amplitudes", latent_map=latent_map)
    path, data = tmp_path / "run.safetensors", make_data()
    whole = meta_learn(data, config)
    stopped = _Training(data, config, path, "cpu", None)
    state = stopped._fresh()
    stopped._outer_step(state)
    stopped._save(state)
    resumed = meta_learn(data, config, checkpoint=path, resume=True)
    for a, b in zip(whole.parameters, resumed.parameters, strict=True):
        np.testing.assert_array_equal(a, b)


def test_configurations_from_before_are_shifts_by_a_linear_map() -> None:
    written = json.loads(json.dumps(asdict(TrainingConfig(latent_dim=2))))
    for name in ("modulation", "latent_map", "map_width"):
        del written[name]
    assert TrainingConfig(**written) == TrainingConfig(latent_dim=2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"modulation": "phases"}, "modulation must be one of shifts, scales, both, amplitudes, "),
        ({"latent_map": "tanh"}, "latent_map must be one of linear, relu, siren, network, got "),
        ({"map_width": 0}, "map_width must be at least 1, got 0"),
        ({"latent_map": "network"}, "latent_map 'network' needs modulation 'amplitudes', got "),
    ],
)
def test_nonsense_is_refused(settings, message) -> None:
    assert refusal(lambda: TrainingConfig(latent_dim=2, **settings)).startswith(message)


@pytest.mark.parametrize(("modulation", "latent_map"), COMBINATIONS[1:])
def test_no_model_is_built_from_other_networks(modulation, latent_map) -> None:
    data = make_data()
    for objective in ("paper", "warm-start"):
        config = replace(
            SMALL, modulation=modulation, latent_map=latent_map, objective=objective, steps=1
        )
        siren = meta_learn(data, config)
        message = refusal(partial(build_model, "other", siren, data, config, (0.0, 1.0), {}))
        assert message.startswith("models need a network with modulation 'shifts'")
