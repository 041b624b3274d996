"""The inner loop: latents for given data while the base network stays fixed.

Two ways to fit. The paper's takes a few gradient steps from zero latents. Gauss-Newton solves the
least-squares problem: all data on one grid start at the same zero latents, so the first Jacobian
is shared and the first step is one matrix product per batch; further steps reuse that Jacobian
(chord) or take each item's own.
"""

from __future__ import annotations

import numpy as np

from coinpp_xr.siren import Array, ModulatedSiren

# A Jacobian damped by this fraction of its mean diagonal stays solvable for one valid cell.
_DAMPING = 1e-6


def sgd_step(
    siren: ModulatedSiren,
    coordinates: Array,
    targets: Array,
    latents: Array,
    *,
    weights: Array,
    learning_rate: float,
) -> Array:
    """One inner step φ ← φ − α ∇L of the paper (eq. 9), L the weighted mean squared error.

    Written without autograd, from the per-point derivatives; in torch it stays differentiable,
    so the outer loop gets exact second-order gradients through it.
    """
    output, shift_cotangents = siren.pullback(coordinates, latents)
    slope = 2.0 * weights[..., None] * (output - targets) / siren.dim_out
    gradient = shift_cotangents(slope).sum(-2) @ siren.shift_map
    return latents - learning_rate * gradient


def gauss_newton(
    siren: ModulatedSiren,
    coordinates: Array,
    targets: Array,
    *,
    weights: Array,
    chord_steps: int,
    own_steps: int,
    origin: tuple[Array, Array] | None = None,
) -> Array:
    """Weighted least-squares latents by Gauss-Newton steps from zero.

    Parameters
    ----------
    coordinates : array, shape (points, dim_in)
    targets : array, shape (batch, points, dim_out)
    weights : array, shape (1 or batch, points)
        Non-negative, zero where a point is masked.
    chord_steps : int
        Steps with the Jacobian at zero latents; the first is a plain matrix product.
    own_steps : int
        Further steps with each item's own Jacobian.
    origin : pair of arrays, optional
        Output and Jacobian at zero latents, if they are known already.

    Returns
    -------
    array, shape (batch, latent_dim)
        The latents with the smallest error seen on the way.
    """
    batch = len(targets)
    k = siren.latent_dim
    output, jacobian = origin or siren.linearise(coordinates, siren.shift_map[:1] * 0)
    latents = targets[:, 0, :1] * 0 + siren.shift_map[:1] * 0
    best, best_loss = latents, None
    # Weights belong to points; every channel of a point gets the same.
    per_row = weights[:, :, None] + output[:1] * 0

    def normal_matrix(jac: Array) -> Array:
        rows = jac.reshape(len(jac), -1, k)
        return _transpose(rows * per_row.reshape(len(per_row), -1, 1)) @ rows

    matrix = normal_matrix(jacobian)
    for step in range(chord_steps + own_steps + 1):
        if step >= max(chord_steps, 1):
            output, jacobian = siren.linearise(coordinates, latents)
            matrix = normal_matrix(jacobian)
        elif step > 0:
            output = siren(coordinates, latents)
        residual = targets - output
        weighted = (per_row * residual).reshape(batch, -1)
        loss = (weighted * residual.reshape(batch, -1)).sum(-1)
        if best_loss is None:
            best_loss = loss
        better = loss <= best_loss
        best = _where(better[:, None], latents, best)
        best_loss = _where(better, loss, best_loss)
        if step == chord_steps + own_steps:
            break
        if len(jacobian) == 1:
            slope = weighted @ jacobian.reshape(-1, k)
        else:
            slope = (weighted[:, None, :] @ jacobian.reshape(batch, -1, k))[:, 0]
        # A step from where the error grew would run away: continue from the best latents only.
        latents = _where(better[:, None], latents, best) + _solve_damped(matrix, slope)
    return best


def _transpose(array: Array) -> Array:
    return array.swapaxes(-1, -2)


def _where(condition: Array, a: Array, b: Array) -> Array:
    if isinstance(a, np.ndarray):
        return np.where(condition, a, b)
    import torch

    return torch.where(condition, a, b)


def _solve_damped(matrix: Array, slope: Array) -> Array:
    """(A + λI)⁻¹ b for every item; A has shape (1 or batch, k, k), b (batch, k)."""
    k = matrix.shape[-1]
    if isinstance(matrix, np.ndarray):
        damping = _DAMPING * np.trace(matrix, axis1=-2, axis2=-1)[:, None, None] / k + 1e-30
        damped = (matrix + damping * np.eye(k)).astype(np.float64)
        if len(damped) == 1:
            return np.linalg.solve(damped[0], slope.T.astype(np.float64)).T.astype(slope.dtype)
        return np.linalg.solve(damped, slope[..., None].astype(np.float64))[..., 0].astype(
            slope.dtype
        )
    import torch

    trace = matrix.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    damped = matrix + (_DAMPING * trace / k + 1e-30) * torch.eye(k, device=matrix.device)
    if len(damped) == 1:
        return torch.linalg.solve(damped[0].double(), slope.T.double()).T.to(slope.dtype)
    return torch.linalg.solve(damped.double(), slope[..., None].double())[..., 0].to(slope.dtype)
