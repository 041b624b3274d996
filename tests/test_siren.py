"""The network and the paper's inner and outer loop, against a slow independent reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training import inner_loop

OMEGA0, WIDTH, DEPTH, LATENTS = 7.0, 5, 3, 4


def make_siren(dim_out: int = 2) -> ModulatedSiren:
    siren = ModulatedSiren.initialise(
        dim_in=3, dim_out=dim_out, width=WIDTH, depth=DEPTH, latent_dim=LATENTS, omega0=OMEGA0,
        shift_scale=0.3, rng=np.random.default_rng(0),
    )  # fmt: skip
    return siren.map(lambda p: torch.tensor(p, dtype=torch.float64, requires_grad=True))


def reference_network(siren: ModulatedSiren, x: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
    """COIN++, eq. 4, for one point x and one latent vector, written out."""
    beta = siren.shift_map.matmul(phi)
    h = x
    for layer in range(DEPTH):
        shift = beta[layer * WIDTH : (layer + 1) * WIDTH]
        h = torch.sin(OMEGA0 * (siren.weights[layer].matmul(h) + siren.biases[layer] + shift))
    return siren.weights[DEPTH].matmul(h) + siren.biases[DEPTH] + 0.5


def reference_loss(
    siren: ModulatedSiren,
    points: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor,
    phi: torch.Tensor,
) -> torch.Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for x, y, w in zip(points, target, weights, strict=True):
        total = total + w * ((reference_network(siren, x, phi) - y) ** 2).mean()
    return total


@pytest.fixture
def problem() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(1)
    points = torch.tensor(rng.uniform(-1, 1, (6, 3)))
    targets = torch.tensor(rng.uniform(0, 1, (3, 6, 2)))
    weights = torch.tensor(rng.uniform(0.5, 1.5, 6))
    return points, targets, weights / weights.sum()


def test_network_equals_the_equation_point_by_point(problem) -> None:
    points, _, _ = problem
    siren, latents = make_siren(), torch.randn(3, LATENTS, dtype=torch.float64)
    expected = [[reference_network(siren, x, phi) for x in points] for phi in latents]
    expected = torch.stack([torch.stack(row) for row in expected])
    torch.testing.assert_close(siren(points, latents), expected, rtol=0, atol=1e-12)


def test_inner_loop_equals_autograd_item_by_item(problem) -> None:
    points, targets, weights = problem
    siren = make_siren()
    got = inner_loop(siren, points, targets, weights=weights[None], steps=3, learning_rate=0.2)
    for item, target in enumerate(targets):
        phi = torch.zeros(LATENTS, dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            loss = reference_loss(siren, points, target, weights, phi)
            phi = phi - 0.2 * torch.autograd.grad(loss, phi, create_graph=True)[0]
        torch.testing.assert_close(got[item], phi, rtol=0, atol=1e-8)


def test_outer_gradient_is_the_exact_second_order_one(problem) -> None:
    points, targets, weights = problem
    siren = make_siren()
    latents = inner_loop(siren, points, targets, weights=weights[None], steps=3, learning_rate=0.2)
    error = (siren(points, latents) - targets).square().mean(-1)
    got = torch.autograd.grad((error * weights).sum(-1).mean(), siren.parameters)

    total = torch.zeros((), dtype=torch.float64)
    for target in targets:
        phi = torch.zeros(LATENTS, dtype=torch.float64, requires_grad=True)
        for _ in range(3):
            loss = reference_loss(siren, points, target, weights, phi)
            phi = phi - 0.2 * torch.autograd.grad(loss, phi, create_graph=True)[0]
        total = total + reference_loss(siren, points, target, weights, phi) / len(targets)
    expected = torch.autograd.grad(total, siren.parameters)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


def test_second_order_terms_matter_here(problem) -> None:
    """Otherwise the test above could not tell first from second order."""
    points, targets, weights = problem
    siren = make_siren()

    def outer_gradient(latents: torch.Tensor) -> torch.Tensor:
        error = (siren(points, latents) - targets).square().mean(-1)
        return torch.autograd.grad((error * weights).sum(-1).mean(), siren.weights[0])[0]

    latents = inner_loop(siren, points, targets, weights=weights[None], steps=3, learning_rate=0.2)
    assert (outer_gradient(latents) - outer_gradient(latents.detach())).abs().max() > 1e-4


def test_jacobian_equals_autograd(problem) -> None:
    points, _, _ = problem
    siren, latents = make_siren(), torch.randn(2, LATENTS, dtype=torch.float64)
    output, jacobian = siren.linearise(points, latents)
    for item in range(2):
        expected = torch.autograd.functional.jacobian(
            lambda phi: siren(points, phi[None])[0], latents[item]
        )
        torch.testing.assert_close(jacobian[item], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(output, siren(points, latents))


def test_numpy_and_torch_agree(problem) -> None:
    points, _, _ = problem
    siren = make_siren()
    latents = torch.randn(2, LATENTS, dtype=torch.float64)
    in_numpy = siren.map(lambda p: p.detach().numpy())
    got = in_numpy(points.numpy(), latents.numpy())
    np.testing.assert_allclose(got, siren(points, latents).detach().numpy(), atol=1e-12)


def test_coordinates_may_differ_between_items(problem) -> None:
    points, _, _ = problem
    siren, latents = make_siren(), torch.randn(2, LATENTS, dtype=torch.float64)
    both = siren(torch.stack([points, points.flip(0)]), latents)
    torch.testing.assert_close(both[1], siren(points, latents)[1].flip(0))
