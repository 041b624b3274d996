"""The pyramid's arithmetic on any device of torch's: the same whole numbers as the compiled loops.

All that lies between target and bits: predictions of whole passes, steps, fields. Bits stay with
the processor, and so do points that are predicted from those just before them in their own pass:
this is for what ``effort="fast"`` writes. The codec itself does without: bits and fitting take most
of its time, and would have to wait for the device after every pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from coinpp_xr.coding.pyramid.coders import PassParameters
from coinpp_xr.coding.pyramid.geometry import PassGeometry, geometry
from coinpp_xr.coding.pyramid.levels import PAD, PASSES, Pass, level_count, reach_of
from coinpp_xr.coding.pyramid.limits import LARGEST, UNIT, WHOLE
from coinpp_xr.coding.pyramid.parameters import Key
from coinpp_xr.coding.pyramid.prediction import WEIGHT_BITS
from coinpp_xr.coding.pyramid.walk import Walk

Steps = dict[Key, Tensor]
StepsOf = Callable[[Key, PassGeometry, Tensor], Tensor]


class TensorWalk:
    """Through the levels of fields that belong together.

    Parameters
    ----------
    walk : Walk
        That of an encoder or decoder.
    parameters : dict
        (level, pass) → parameters.
    references : list of int tensors, shape (items, n_lat, n_lon)
        Fields that all refer to, each for all items: none, one or two; on the device.

    Raises
    ------
    ValueError
        If points are to be predicted from their own pass.
    """

    def __init__(
        self, walk: Walk, parameters: Mapping[Key, PassParameters], references: list[Tensor]
    ) -> None:
        self._reach = reach_of(walk.quick)
        if any(self._reach.beside):
            raise ValueError("points that depend on those before them want effort='fast'")
        self._shape, self._around = walk.shape, walk.around
        self._parameters, self._references = parameters, references
        self._limits = walk.limits

    def steps(self, target: Tensor, anchors: Tensor, valid: Tensor | None = None) -> Steps:
        """What an encoder adds to predictions.

        Parameters
        ----------
        target : float64 tensor, shape (items, n_lat, n_lon)
            In 1/64 of a step.
        anchors : int tensor, shape (items, rows, columns)
            Decoded values of the coarsest grid.
        valid : bool tensor, shape (items, n_lat, n_lon), optional
            Where not, nothing is added.

        Returns
        -------
        dict
            (level, pass) → int64 tensor, shape (items, rows, columns).
        """
        steps: Steps = {}

        def find(key: Key, where: PassGeometry, predicted: Tensor) -> Tensor:
            row, column, spacing = where.which
            wanted = target[:, row::spacing, column::spacing]
            own = torch.round((wanted - predicted) * (1 / UNIT)).to(torch.int64)
            if self._limits.free > 0:
                off = wanted - self._rebuilt(predicted, own)
                own = own + (off > UNIT // 2).to(own.dtype) - (off < -UNIT // 2).to(own.dtype)
            if valid is not None:
                own = own * valid[:, row::spacing, column::spacing]
            steps[key] = own
            return own

        self._go(anchors, find, valid)
        return steps

    def fields(self, steps: Steps, anchors: Tensor, valid: Tensor | None = None) -> Tensor:
        """What a decoder makes of :meth:`steps`: int64, shape (items, n_lat, n_lon)."""
        return self._go(anchors, lambda key, where, predicted: steps[key], valid)

    def _go(self, anchors: Tensor, steps_of: StepsOf, valid: Tensor | None) -> Tensor:
        done = anchors.to(torch.int64)
        for level in range(level_count(self._shape) - 1, -1, -1):
            of_level = geometry(self._shape, level, len(done), self._reach, around=self._around)
            phases = [self._padded(done)]
            finer = done.new_empty((len(done), *(-(-side // (1 << level)) for side in self._shape)))
            finer[:, ::2, ::2] = done
            for number, (which, where) in enumerate(zip(PASSES, of_level.passes, strict=True)):
                items, rows, columns = where.shape
                if 0 in where.shape:
                    phases.append(done.new_zeros((items, rows + 2 * PAD, columns + 2 * PAD)))
                    continue
                key = (level, number)
                predicted = self._predict(phases, which, where, key, valid)
                values = self._rebuilt(predicted, steps_of(key, where, predicted))
                finer[:, which.row :: 2, which.column :: 2] = values
                phases.append(self._padded(values))
            done = finer
        return done

    def _padded(self, phase: Tensor) -> Tensor:
        """With what surrounds it, as :func:`coinpp_xr.coding.pyramid.levels.pad` fills it."""
        rows, columns = (torch.arange(-PAD, size + PAD) for size in phase.shape[1:])
        n_rows, n_columns = phase.shape[1:]
        columns = columns % n_columns if self._around else columns.clamp(0, n_columns - 1)
        rows = rows.clamp(0, n_rows - 1)
        return phase[:, rows.to(phase.device)][:, :, columns.to(phase.device)]

    def _predict(
        self,
        phases: list[Tensor],
        which: Pass,
        where: PassGeometry,
        key: Key,
        valid: Tensor | None,
    ) -> Tensor:
        _, rows, columns = where.shape
        neighbours = []
        for source, down, right in which.neighbours[: self._reach.neighbours[key[1]]].tolist():
            top, left = PAD + down, PAD + right
            neighbours.append(phases[source][:, top : top + rows, left : left + columns])
        base = (neighbours[0] + neighbours[1] + neighbours[2] + neighbours[3] + 2) >> 2
        weights = torch.from_numpy(self._parameters[key].weights).to(base.device, torch.int64)
        bands = torch.arange(rows, device=base.device) * len(weights) // rows
        total = torch.full_like(base, 1 << (WEIGHT_BITS - 1))
        features = [each - base for each in neighbours]
        for field in self._references:
            features += self._features(field, where)
        for k, feature in enumerate(features):
            total += weights[bands, k][:, None] * feature
        value = base + (total >> WEIGHT_BITS)
        if valid is not None and self._references:
            row, column, spacing = where.which
            value = torch.where(valid[:, row::spacing, column::spacing], value, base)
        limits = self._limits
        value = value.clamp(limits.low, limits.high)
        if limits.free == 0:
            return value
        near = LARGEST if limits.free == WHOLE else limits.free * UNIT - UNIT // 2
        rounded = (value + UNIT // 2) & -UNIT
        there = (value.abs() <= near) | ((value - limits.second).abs() <= near)
        return torch.where(there, rounded, value)

    def _rebuilt(self, predicted: Tensor, steps: Tensor) -> Tensor:
        """As :func:`coinpp_xr.coding.pyramid.prediction.rebuilt`."""
        limits, value = self._limits, predicted + UNIT * steps
        if limits.free > 0:
            value = torch.where(steps >= limits.free, value & -UNIT, value)
            value = torch.where(steps <= -limits.free, (value + UNIT - 1) & -UNIT, value)
        return value.clamp(limits.low, limits.high)

    @staticmethod
    def _features(field: Tensor, where: PassGeometry) -> list[Tensor]:
        """As in :func:`coinpp_xr.coding.pyramid.references.features_at`."""
        rows, columns = (
            torch.from_numpy(at).to(field.device) for at in (where.rows, where.columns)
        )

        def at(row: int, column: int) -> Tensor:
            return field[:, rows[row]][:, :, columns[column]].to(torch.int64)

        if where.diagonal:
            nearest = [at(3, 3), at(3, 4), at(4, 3), at(4, 4)]
        else:
            nearest = [at(3, 0), at(4, 0), at(0, 3), at(0, 4)]
        base = (nearest[0] + nearest[1] + nearest[2] + nearest[3] + 2) >> 2
        return [at(*k) - base for k in ((0, 0), (1, 0), (2, 0), (0, 1), (0, 2))]
