"""A chunk that is to be coded, and the schemes that may code it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import residual
from coinpp_xr.bitstream import Kind, Tag, pack_fields
from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coding.pyramid.experts import Expert, expert_around_background, expert_for
from coinpp_xr.coefficients import are_few_fronts
from coinpp_xr.fields import Fields, Sequences, extremes
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model
from coinpp_xr.quantization import are_in_proportion
from coinpp_xr.schemes import Quantized, Trial, encode_symbols, mean_field
from coinpp_xr.transform import is_transformable

Float32 = npt.NDArray[np.float32]
Floating = npt.NDArray[np.floating[Any]]

# Values whose sums fit single precision.
_LARGEST = 1e34
# Of their variance, what a climatology must explain for fields to refer to it.
_ALIKE = 0.02
# So few bytes are soon coded once more.
_HARDLY_ANYTHING = 1 << 12
# A globe of so many cells is not coded in all ways that there are.
LARGE_GLOBE = 1 << 17


@dataclass(frozen=True, eq=False)
class Chunk:
    """What is to be coded.

    Parameters
    ----------
    values : array
        As given, in any layout.
    fields : Fields
        The same, ready to be coded.
    model : Model or None
    latents : float32 array, shape (items, latent_dim), or None
        Of the model, fitted.
    effort, network :
        How hard to try, and whether the pyramid may ask its network.
    place : dict
        Entries of the payload's header: layout, coordinates, time axis; and the fold, if any.
    mean_error : float or None
        How far means of fields may be off, where that is the same for all.
    """

    values: npt.NDArray[Any]
    fields: Fields
    model: Model | None
    latents: Float32 | None
    effort: str
    place: dict[str, Any]
    network: bool
    mean_error: float | None = None

    def pyramid(
        self, bound: Bound, sequences: Sequences, effort: str, slack: int = 0
    ) -> bounded.Bounded | None:
        """The smallest pyramid, of the networks that may be asked; None where it is not made for
        that."""
        known = None if bound.relative else self.background
        field = None if known is None else known.field
        single = sequences.order.shape[1] == 1 and sequences.levels == 1

        def encode(expert: Expert | None) -> bounded.Bounded | None:
            return bounded.encode(
                self.fields, bound, sequences, effort, expert, background=field, slack=slack,
                mean_error=self.mean_error,
            )  # fmt: skip

        experts = self._experts(known, effort, single=single)
        found = [encode(expert) for expert in experts]
        best = min((one for one in found if one), key=len, default=None)
        if best is not None and best.asks_network and len(best) < _HARDLY_ANYTHING:
            # Where hardly anything happens, mixing in one more opinion costs more than it saves.
            best = min((one for one in (best, encode(None)) if one), key=len)
        return best

    def _experts(
        self, known: Background | None, effort: str, *, single: bool
    ) -> list[Expert | None]:
        large = self.fields.values.shape[1] >= LARGE_GLOBE
        if not self.network:
            return [None]
        if known is None:
            return [expert_for(effort, large=large)]
        general = expert_around_background(effort, large=large, single=single)
        if known.expert is None or not general.fingerprint:
            return [general]
        # The archive's own is better than a general one, if that is not much larger.
        return [known.expert, general] if effort == "best" else [known.expert]

    @cached_property
    def background(self) -> Background | None:
        """The model's climatology, where fields have anything in common with it."""
        model, grid = self.model, self.fields.grid
        if model is None or model.climatology is None:
            return None
        found = model.climatology.background(grid, model.offset, model.scale)
        if found is None or self.fields.likeness(found.field.ravel()) < _ALIKE:
            return None
        return found

    @property
    def known(self) -> dict[str, Any]:
        """Header of kinds that need the model."""
        return {"fingerprint": self.model.fingerprint} if self.model else {}

    def of_latents(self) -> Way | None:
        """The model's latents, if there are any."""
        if self.model is None or self.latents is None:
            return None
        in_proportion = are_in_proportion(self.latents.size, self.values.nbytes)
        if not (in_proportion and self._are_few_fronts(1, self.model.latent_dim)):
            return None
        trial = Trial.of_latents(self.fields, self.model, self.latents)
        return Way(self, trial, Kind.LATENTS_IN_TIME, {}, self.known)

    def of_grid(self, precision: float) -> Way:
        """What the fields differ from the model's mean field, or from a mean value."""
        means = self.fields.sequence_means().astype(np.float32)
        base: Floating = means.astype(np.float64)[:, None]
        if self.model is not None:
            expected = mean_field(self.model, self.fields.grid)
            if self.fields.energy(expected) < self.fields.energy(base):
                trial = Trial.of_grid(self.fields, expected, precision)
                return Way(self, trial, Kind.GRID_FROM_MODEL, {}, self.known)
        trial = Trial.of_grid(self.fields, base, precision)
        return Way(self, trial, Kind.GRID, {Tag.MEANS: means.tobytes()}, {})

    def _are_few_fronts(self, orders: int, waves: int) -> bool:
        shape = (*self.fields.sequences.order.shape, orders, waves)
        return are_few_fronts(shape, self.values.nbytes)

    @cached_property
    def suits_transforms(self) -> bool:
        """Not so for sequences out of proportion either."""
        return self._are_few_fronts(*self.fields.grid.shape) and self.bears_waves

    @property
    def bears_waves(self) -> bool:
        """Not so for grids out of proportion, and values near the end of all numbers."""
        fields = self.fields
        low, high = extremes(fields.values, fields.valid)
        ordinary = max(high, -low) < _LARGEST
        return ordinary and is_transformable(fields.grid.shape, self.values.nbytes)

    @cached_property
    def all_items(self) -> Sequences:
        """Which item follows which, those that hold nothing among them."""
        return self.items_along(None)

    def items_along(self, level_axis: int | None) -> Sequences:
        """The same, where fields refer to each other along a second axis, too."""
        present = np.ones(len(self.fields.values), np.bool_)
        time_axis = self.place["time_axis"]
        return Sequences.of(self.values.shape[:-2], time_axis, present, level_axis)


@dataclass(frozen=True, eq=False)
class Way:
    """One scheme on a chunk, and what a payload says about it."""

    chunk: Chunk
    trial: Trial
    kind: Kind
    sections: dict[Tag, bytes]
    header: dict[str, Any]

    def payload(self, quantized: Quantized, residual_: residual.Residual | None = None) -> bytes:
        sections = {
            **self.sections, Tag.COEFFICIENTS: encode_symbols(self.trial.synthesis, quantized)
        }  # fmt: skip
        valid = self.chunk.fields.valid
        if residual_ is not None:
            sections[Tag.RESIDUAL] = residual_.section
            valid = valid & ~residual_.kept
        return pack_fields(
            self.chunk.values, valid, self.kind, sections,
            exponent=quantized.exponent, along_time=quantized.along_time,
            **self.header, **self.chunk.place,
        )  # fmt: skip
