"""The inner loop: latents for given data while the base network stays fixed.

Two ways to fit. The paper's takes a few gradient steps from zero latents. Gauss-Newton solves the
least-squares problem: all data on one grid start at the same zero latents, so the first Jacobian
is shared and the first step is one matrix product per batch; further steps reuse that Jacobian
and its first derivatives (chord) or take each item's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coinpp_xr.network import BaseNetwork
from coinpp_xr.siren import Array, ModulatedSiren, concatenate

Network = BaseNetwork | ModulatedSiren

# A Jacobian damped by this fraction of its mean diagonal stays solvable for one valid cell.
_DAMPING = 1e-6
# Of the fields' change, for derivatives of the Jacobian by differences.
_DIFFERENCE = 0.02
# The SIREN's latents whose curvature is worth its memory, which grows with their square.
_MOST_CURVED = 32
# Second derivatives are for the leading ones, which vary most in standard form.
_MOST_CURVED_TWICE = 4
# Items with masks of their own get normal matrices of their own up to this many latents.
_MOST_OWN_MATRICES = 128
_FILLING_STEPS = 24


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
    output, modulation_cotangents = siren.pullback(coordinates, latents)
    slope = 2.0 * weights[..., None] * (output - targets) / siren.dim_out
    gradient = siren.latent_cotangents(modulation_cotangents(slope).sum(-2), latents)
    return latents - learning_rate * gradient


@dataclass(frozen=True, eq=False)
class Origin:
    """What all items on one grid share, because all start at zero latents.

    Parameters
    ----------
    output : array, shape (1, points, dim_out)
    jacobian : array, shape (1, points, dim_out, latent_dim)
    step : array, shape (latent_dim, points * dim_out)
        (JᵀWJ + λI)⁻¹ JᵀW: turns residuals into the least-squares change of the latents.
    curvature : array, shape (points * dim_out, (own + leading) * own), optional
        How the Jacobian's first ``own`` columns, the SIREN's, change with each of as many latents,
        and with the squares of the leading ones. Chord steps with the Jacobian at zero alone
        would end where that is orthogonal to the residual: the error is not smallest there.
    inverse : array, shape (latent_dim, own), optional
        Columns of (JᵀWJ + λI)⁻¹.
    """

    output: Array
    jacobian: Array
    step: Array
    curvature: Array | None = None
    inverse: Array | None = None

    @classmethod
    def of(
        cls, network: Network, coordinates: Array, weights: Array, *, curved: bool = False
    ) -> Origin:
        """For weights of shape (1, points), which all items share.

        ``curved`` adds the curvature of networks that are not linear.
        """
        output, jacobian = network.linearise(coordinates, network.zeros(1))
        rows = jacobian.reshape(-1, jacobian.shape[-1])
        weighted = rows * (weights[:, :, None] + output * 0).reshape(-1, 1)
        matrix = weighted.T @ rows
        step = _solve_damped(matrix[None], weighted).T
        own = _siren_latents(network)
        if not curved or not 0 < own <= _MOST_CURVED:
            return cls(output, jacobian, step)
        first, second = [], []
        for i in range(own):
            latents = network.zeros(1)
            size = _DIFFERENCE / float(matrix[i, i] + 1e-30) ** 0.5
            latents[0, i] = size
            after, before = (
                network.linearise(coordinates, z)[1].reshape(rows.shape)[:, :own]
                for z in (latents, -latents)
            )
            first.append((after - before) / (2 * size))
            if i < _MOST_CURVED_TWICE:
                second.append((after + before - 2 * rows[:, :own]) / (2 * size**2))
        unit = matrix * 0
        unit.reshape(-1)[:: len(unit) + 1] = 1
        inverse = _solve_damped(matrix[None], unit)[:, :own]
        return cls(output, jacobian, step, concatenate(first + second), inverse)

    def map(self, function: Callable[[Array], Array]) -> Origin:
        """The same with every array replaced by ``function(array)``."""
        optional = (None if a is None else function(a) for a in (self.curvature, self.inverse))
        return Origin(
            function(self.output), function(self.jacobian), function(self.step), *optional
        )

    def turned(self, weighted: Array, latents: Array) -> Array:
        """What JᵀWr of the SIREN's latents changes by, from zero latents to these: (batch, own)."""
        assert self.curvature is not None
        assert self.inverse is not None
        own = self.inverse.shape[1]
        products = weighted.reshape(len(weighted), -1) @ self.curvature
        powers = concatenate([latents[:, :own], latents[:, : min(own, _MOST_CURVED_TWICE)] ** 2])
        return (products.reshape(-1, powers.shape[1], own) * powers[:, :, None]).sum(1)


def gauss_newton(
    network: Network,
    coordinates: Array,
    targets: Array,
    *,
    weights: Array,
    chord_steps: int,
    own_steps: int,
    origin: Origin | None = None,
) -> Array:
    """Weighted least-squares latents by Gauss-Newton steps from zero.

    Parameters
    ----------
    coordinates : array, shape (points, dim_in)
    targets : array, shape (batch, points, dim_out)
    weights : array, shape (1 or batch, points)
        Non-negative, zero where a point is masked.
    chord_steps : int
        Steps with the Jacobian at zero latents, corrected for its first derivatives where
        ``origin`` has them; the first is a plain matrix product.
    own_steps : int
        Further steps with each item's own Jacobian.
    origin : Origin, optional
        Of this network, these coordinates and these weights (or, where every item has its own,
        of their mean), if it is known already.

    Returns
    -------
    array, shape (batch, latent_dim)
        The latents with the smallest error seen on the way.
    """
    origin = origin or Origin.of(network, coordinates, weights.mean(0)[None])
    if len(weights) == 1 and chord_steps == 1 and own_steps == 0:
        return (targets - origin.output).reshape(len(targets), -1) @ origin.step.T
    filling = len(weights) > 1 and network.latent_dim > _MOST_OWN_MATRICES
    if filling:
        # A matrix per item would cost too much. The shared one, applied to residuals that are
        # zero where a point is masked, fills the gaps with what the others say, step by step.
        chord_steps, own_steps = _FILLING_STEPS, 0
        gaps = weights[:, :, None] > 0
    latents = moved = network.zeros(len(targets))
    best, best_loss = latents, None
    output, jacobian = origin.output, origin.jacobian
    matrix = None
    for step in range(chord_steps + own_steps + 1):
        own = step >= max(chord_steps, 1)
        if own and step < chord_steps + own_steps:
            output, jacobian = network.linearise(coordinates, latents)
            matrix = None
        elif step > 0:
            output = network(coordinates, latents)
        residual = targets - output
        weighted = weights[:, :, None] * residual
        loss = (weighted * residual).sum((-1, -2))
        best_loss = loss if best_loss is None else best_loss
        better = loss <= best_loss
        best = _where(better[:, None], latents, best)
        best_loss = _where(better, loss, best_loss)
        if step == chord_steps + own_steps:
            break
        if filling:
            change = (gaps * residual).reshape(len(targets), -1) @ origin.step.T
        elif not own and len(weights) == 1:
            change = residual.reshape(len(targets), -1) @ origin.step.T
            if step > 0 and origin.inverse is not None:
                change = change + origin.turned(weighted, latents) @ origin.inverse.T
        else:
            if matrix is None:
                matrix = _normal_matrix(jacobian, weights)
            slope = _slope(jacobian, weighted)
            if not own and step > 0 and origin.curvature is not None:
                turned = origin.turned(weighted, latents)
                slope[:, : turned.shape[1]] += turned
            change = _solve_damped(matrix, slope)
        if own_steps == 0 and step == chord_steps - 1:
            # Chord steps shrink as they go; to look at the last one would cost as much as to make
            # it. One that does not runs away: then, and where the error grew before, the best
            # latents stay.
            if step > 0:
                better = better & ((change**2).sum(-1) <= (moved**2).sum(-1))
            return _where(better[:, None], latents + change, best)
        # A step from where the error grew would run away: look half as far from the best instead.
        further = _where(better[:, None], latents + change, (best + latents) / 2)
        latents, moved = further, further - latents
    return best


def _siren_latents(network: Network) -> int:
    siren = network if isinstance(network, ModulatedSiren) else network.siren
    return siren.latent_dim


def _normal_matrix(jacobian: Array, weights: Array) -> Array:
    """JᵀWJ of every item, shape (1 or batch, k, k); all channels of a point weigh the same."""
    rows = jacobian.reshape(len(jacobian), -1, jacobian.shape[-1])
    per_row = (weights[:, :, None] + jacobian[:1, :, :, 0] * 0).reshape(len(weights), -1, 1)
    return _transpose(rows * per_row) @ rows


def _slope(jacobian: Array, weighted: Array) -> Array:
    """JᵀWr of every item, shape (batch, k)."""
    batch, k = len(weighted), jacobian.shape[-1]
    rows = weighted.reshape(batch, -1)
    if len(jacobian) == 1:
        return rows @ jacobian.reshape(-1, k)
    return (rows[:, None, :] @ jacobian.reshape(batch, -1, k))[:, 0]


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
