"""Latents of a batch: by the inner loop, by one Gauss-Newton step, or as scores of EOFs."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint as recompute_in_backward

from coinpp_xr.fitting import sgd_step
from coinpp_xr.siren import ModulatedSiren

# Of the mean diagonal. More than an encoder needs: directions that the network hardly has yet
# would otherwise be filled with very large latents.
_MATRIX_DAMPING = 1e-3


def inner_loop(
    siren: ModulatedSiren,
    points: torch.Tensor,
    targets: torch.Tensor,
    *,
    weights: torch.Tensor,
    steps: int,
    learning_rate: float,
) -> torch.Tensor:
    """Latents after N gradient steps from zero (COIN++, eq. 9), differentiable in the network.

    Every step is recomputed in the backward pass, so that memory does not grow with their number.

    Parameters
    ----------
    points : tensor, shape (points, dim_in) or (batch, points, dim_in)
    targets : tensor, shape (batch, points, dim_out)
    weights : tensor, shape (1 or batch, points)
        Error weights that sum to one.

    Returns
    -------
    tensor, shape (batch, latent_dim)
    """

    def step(latents: torch.Tensor) -> torch.Tensor:
        return sgd_step(
            siren, points, targets, latents, weights=weights, learning_rate=learning_rate
        )

    latents = targets.new_zeros(len(targets), siren.latent_dim)
    for _ in range(steps):
        if torch.is_grad_enabled():
            latents = recompute_in_backward(step, latents, use_reentrant=False)
        else:
            latents = step(latents)
    return latents


def matrix_step(
    siren: ModulatedSiren, points: torch.Tensor, targets: torch.Tensor, *, weights: torch.Tensor
) -> torch.Tensor:
    """Latents after one Gauss-Newton step from zero, differentiable in the network.

    Parameters
    ----------
    points : tensor, shape (points, dim_in)
    targets : tensor, shape (batch, points, dim_out)
    weights : tensor, shape (1, points)
        Error weights that sum to one.

    Returns
    -------
    tensor, shape (batch, latent_dim)
    """
    output, jacobian = siren.linearise(points, targets.new_zeros(1, siren.latent_dim))
    # In single precision the solution needs numbers of ordinary size, whatever the map's are.
    rows = (jacobian[0] * weights[0, :, None, None].sqrt()).flatten(0, 1).float()
    residuals = ((targets - output) * weights[:, :, None].sqrt()).flatten(1).float()
    size = rows.square().sum(0).mean().detach().sqrt().clamp_min(1e-20)
    rows = rows / size
    matrix = rows.T @ rows + _MATRIX_DAMPING * torch.eye(rows.shape[1]).to(rows)
    return torch.linalg.solve(matrix, rows.T @ residuals.T).T / size


def eof_scores(
    fields: torch.Tensor, weights: torch.Tensor, count: int, rng: np.random.Generator
) -> torch.Tensor:
    """Scores of the leading EOFs, shape (items, count).

    They are half whitened: the first has unit variance, the others the square root of their share
    of it. Fully whitened, the many weak EOFs would drive the network far into its nonlinear range.

    Subspace iteration: a few products with the data matrix instead of a full decomposition.
    """
    n = len(fields)
    data = (fields * weights[:, None].sqrt()).reshape(n, -1)
    data = data - data.mean(0)
    kept = min(count, n - 1, data.shape[1])
    start = rng.standard_normal((data.shape[1], min(kept + 10, n, data.shape[1])))
    basis = torch.as_tensor(start, dtype=torch.float32).to(data.device)
    for _ in range(8):
        basis = torch.linalg.qr(data.T @ (data @ basis))[0]
    left, spread, _ = torch.linalg.svd(data @ basis, full_matrices=False)
    left = left[:, :kept] * math.sqrt(n) * (spread[:kept] / spread[0]).sqrt()
    # More latents than EOFs (few items): the rest starts at zero and finds its own use.
    return torch.nn.functional.pad(left, (0, count - kept))


def regress(fields: torch.Tensor, latents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean field and the patterns that best map uncorrelated latents to fields.

    Returns
    -------
    mean : tensor, shape (points, channels)
    patterns : tensor, shape (latent_dim, points, channels)
    """
    mean = fields.mean(0)
    # The scores have zero mean and no correlation; unused ones are zero.
    variance = latents.square().mean(0).clamp_min(1e-12)
    patterns = (latents / variance).T @ fields.reshape(len(fields), -1) / len(fields)
    return mean, patterns.reshape(-1, *mean.shape)


def reconstructed(
    latents: torch.Tensor,
    eofs: tuple[torch.Tensor, torch.Tensor],
    cells: torch.Tensor | None,
) -> torch.Tensor:
    """What the EOFs of :func:`regress` make of latents, shape (batch, points, channels).

    Parameters
    ----------
    latents : tensor, shape (batch, latent_dim)
    eofs : tuple of tensor
        Mean and patterns.
    cells : tensor or None
        Which points; None for all.
    """
    mean, patterns = eofs
    if cells is not None:
        mean, patterns = mean[cells], patterns[:, cells]
    return mean + torch.einsum("bk,kpc->bpc", latents, patterns)
