"""What the encoder of patches leaves for models to learn from: states, and what decoding makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.models import Model
from coinpp_xr.patch_reading import prior_of
from coinpp_xr.patch_subject import PRICE, Subject
from coinpp_xr.patches import Layout, Patching
from coinpp_xr.priors import Prior

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]

# Steps that a prior learns each array at, and their range in standard deviations.
_LEARNED_STEPS, _LEARNED_RANGE = 3, (0.04, 1.5)
# Cells of the parts that are coded one by one.
_PART_CELLS = 1 << 19


def coded_at(
    values: npt.NDArray[Any], layout: Layout, patching: Patching, model: Model | None, step: float
) -> Iterator[tuple[Float32, Float32, Int32]]:
    """What layers against blocking learn from: an array coded at a step, part by part.

    Yields
    ------
    decoded, exact : float32 array, shape (z, y, x)
        The first of the decorrelated channels, of whole patches.
    levels : int32 array, shape (least blocks along z, y, x)
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled
    from coinpp_xr.splitting import Analysis

    subject = Subject.of(values, layout, patching, _PART_CELLS, model, exact_zeros=False)
    if subject is None:
        return
    for band in subject.bands:
        walk = bands.encoder(patching, prior_of(subject.model))
        for where in band.slices:
            exact = subject.channels(subject.arranged[where])
            coefficients, levels = Analysis.of(patching, exact).split(step, PRICE)
            symbols = walk.encode(coefficients, levels, PRICE)
            yield patching.values(symbols, levels, step)[0], exact[0], levels


def learn_prior(
    arrays: Sequence[npt.NDArray[Any]], layout: Layout, patching: Patching, seed: int = 0
) -> Prior:
    """What the coder knows once it has coded some arrays, each at several steps.

    Parameters
    ----------
    arrays : sequence of array
        As of :func:`encode_patches`; those without any variation are left out.
    layout : Layout
    patching : Patching
    seed : int
        Of the order and of the steps.
    """
    from coinpp_xr import bands  # compiles, or loads what was compiled

    rng, state = np.random.default_rng(seed), None
    for index in rng.permutation(len(arrays)):
        values = arrays[index]
        subject = Subject.of(values, layout, patching, 1 << 32, None, exact_zeros=False)
        spread = float(np.std(values, dtype=np.float64))
        if subject is None or not spread > 0:
            continue
        # From coarse to fine as often as the other way round.
        for part in rng.permutation(_LEARNED_STEPS):
            low, high = np.log(_LEARNED_RANGE)
            step = spread * float(
                np.exp(low + (high - low) * (part + rng.random()) / _LEARNED_STEPS)
            )
            for band in subject.bands:
                walk = bands.encoder(patching, state)
                for analysis in subject.analyses(band):
                    walk.encode(*analysis.split(step, PRICE), PRICE)
                state = walk.state
    if state is None:
        raise ValueError("there is nothing to learn from: all values are the same")
    return Prior.of(state)
