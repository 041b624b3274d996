"""The outer loop: meta-learn a base network whose latents describe one item each.

Needs numpy, torch and safetensors only, so that it runs on a bare GPU machine.

Three objectives. ``paper`` is COIN++ as published: a few gradient steps from zero latents, Adam on
the base network through those steps with second-order gradients (eqs. 9, 10). ``matrix-step`` puts
one Gauss-Newton step in their place: its matrix is the same for the whole batch, so that exact
gradients through it cost little, and there is no inner learning rate. ``warm-start``
takes every training item's EOF scores as its latents, jitters them, and regresses the
base network on what the EOFs make of them: targets without noise, as many as one likes, also
where the archive has none. A last part of the steps (``warm_fraction``) may then learn from the
data itself while the latents follow. At a solved inner problem the outer gradient is the plain one
at fixed latents (envelope theorem): no second-order terms, and the gradient with respect to the
latents, which the same backward pass yields, moves them on by preconditioned steps.
"""

from __future__ import annotations

from coinpp_xr.training.checkpoints import log_path, read_checkpoint, siren_from_checkpoint
from coinpp_xr.training.configuration import PRESETS, TrainingConfig, paper
from coinpp_xr.training.data import TrainingData
from coinpp_xr.training.objectives import inner_loop, matrix_step
from coinpp_xr.training.outer_loop import Record, meta_learn

__all__ = [
    "PRESETS",
    "Record",
    "TrainingConfig",
    "TrainingData",
    "inner_loop",
    "log_path",
    "matrix_step",
    "meta_learn",
    "paper",
    "read_checkpoint",
    "siren_from_checkpoint",
]
