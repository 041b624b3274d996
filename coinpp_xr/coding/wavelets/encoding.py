"""Fields in steps → bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from coinpp_xr.coding.pyramid.coders import Coder
from coinpp_xr.coding.pyramid.grades import graded_least_squares
from coinpp_xr.coding.pyramid.schedule import Unit
from coinpp_xr.coding.wavelets import rounding, stream
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.field_coding import Numbers, Surroundings, as_one_band, code_band
from coinpp_xr.coding.wavelets.numbers import COEFFICIENT_BITS, N_FEATURES
from coinpp_xr.coding.wavelets.parameters import USUAL_GRADED, Told
from coinpp_xr.coding.wavelets.rounding import Steps
from coinpp_xr.coding.wavelets.subbands import KINDS
from coinpp_xr.parallel import map_compiled

# An array and those that it refers to.
Member = tuple[int, tuple[int, ...]]

# Numbers of an array that are not zero, from which on each band of rows is coded by itself.
_WORTH_A_BAND = 30_000
# Numbers of a subband that are looked at to find what magnitudes depend on.
_LOOKED_AT = 10_000
# A subband tells what features count if it has so many numbers that are not zero.
_WORTH_TELLING, _RIDGE = 300, 1e-4


@dataclass(frozen=True, eq=False)
class Coded:
    """Head and streams of :mod:`coinpp_xr.coding.wavelets.stream`."""

    head: bytes
    streams: bytes

    def __len__(self) -> int:
        return len(self.head) + len(self.streams)


@dataclass(eq=False)
class Rounded:
    """All arrays in some steps.

    Parameters
    ----------
    steps : Steps
    numbers : dict
        Of every array, by band of rows and subband.
    weights : dict
        Of references, by kind of units and subband.
    rmse : float
        Of the fields that they make.
    """

    steps: Steps
    numbers: dict[int, list[Numbers]]
    weights: dict[int, list[npt.NDArray[np.int64]]]
    rmse: float


def encode(arrays: Arrays, rounded: Rounded, quick: int) -> Coded:
    """The streams of all units, and their head.

    Parameters
    ----------
    quick : int
        Classes of expected size for which one context decides what is zero.
    """
    units, subbands, numbers = arrays.plan.units, arrays.subbands, rounded.numbers
    bands = len(next(iter(numbers.values())))
    some = sum(np.count_nonzero(a) for own in numbers.values() for b in own for a in b)
    if some < _WORTH_A_BAND * len(numbers):  # each band has to learn by itself
        numbers, bands = {k: as_one_band(own) for k, own in numbers.items()}, 1
    coders: dict[int, list[Coder]] = {}
    told: list[list[Told]] = []
    for kind, group in groupby(range(len(units)), lambda number: units[number].kind):
        same_kind = list(group)
        members = members_of(units[number] for number in same_kind)
        own = _told(arrays, members, numbers, rounded.weights[kind])
        told.append(own)

        def code(number: int, own: list[Told] = own) -> None:
            unit = units[number]
            parents = [None] * bands if unit.parent is None else coders[unit.parent]
            coders[number] = [Coder.encoder(parent) for parent in parents]

            def code_rows(band: int) -> None:
                for item, references in zip(unit.items, unit.references, strict=True):
                    before = [numbers[reference][band] for reference in references]
                    code_band(
                        coders[number][band], own, subbands, before, numbers[item][band],
                        quick, decoding=False,
                    )  # fmt: skip

            map_compiled(code_rows, range(bands))

        map_compiled(code, same_kind)
    streams = [[c.finish() for c in coders[number]] for number in range(len(units))]
    head = arrays.plan, arrays.transform, arrays.origin, rounded.steps, told, quick
    return Coded(*stream.pack(*head, streams))


def _told(
    arrays: Arrays,
    members: list[Member],
    numbers: dict[int, list[Numbers]],
    weights: list[npt.NDArray[np.int64]],
) -> list[Told]:
    """What magnitudes of every subband are expected from, where that is worth telling."""
    usual = dict.fromkeys(range(KINDS), USUAL_GRADED)
    told, x = [], np.zeros(N_FEATURES)
    for k, subband in enumerate(arrays.subbands):
        sums = np.zeros((N_FEATURES + 1, N_FEATURES))
        some, size = 0, len(members) * subband.shape[0] * subband.shape[1]
        every = max(1, size // _LOOKED_AT)
        for item, references in members:
            for band, own in enumerate(numbers[item]):
                some += int(np.count_nonzero(own[k]))
                before = [numbers[reference][band] for reference in references]
                around = Surroundings.of(k, arrays.subbands, own, before)
                rounding.add_sums(own[k], *around, every, x, sums)
        if some >= _WORTH_TELLING:
            usual[subband.kind] = graded_least_squares(
                sums[:N_FEATURES], sums[N_FEATURES], COEFFICIENT_BITS, _RIDGE
            )
        told.append(Told(usual[subband.kind], weights[k]))
    return told


def members_of(units: Iterable[Unit]) -> list[Member]:
    return [member for u in units for member in zip(u.items, u.references, strict=True)]
