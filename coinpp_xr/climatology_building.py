"""A model of one's own archive at native resolution: what its fields share on their own grid.

Fields are read block by block, never all of them at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any, Never

import numpy as np
import numpy.typing as npt

from coinpp_xr.climatology import Climatology
from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.experts import Expert, expert_around_background, expert_for
from coinpp_xr.coding.pyramid.observing import observe
from coinpp_xr.compact import pack_model
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.fields import open_fields
from coinpp_xr.data.lazy import LazyFields, MeanField
from coinpp_xr.devices import compute_device
from coinpp_xr.errors import refuse_unknown, shown
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model, load_model, parse_name
from coinpp_xr.ways import LARGE_GLOBE

Float64 = npt.NDArray[np.float64]

# Of the time, what the mean may take; blocks are spread over the archive in any case.
_MEAN_TIME = 0.25
# Errors of the mean field, in terms of the bound.
_ERRORS = (8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625)
# Chunks that tell what a model is worth; fields that its network learns from, and chunks of them.
_JUDGED, _LEARNED_FROM, _FEWEST_LEARNED_FROM = 4, 24, 3
_MOST_OF_PASS, _MOST_OF_CHUNK = 15_000, 150_000
_LEARNING_RATE = 1e-3
# A network is not trained in less.
_LEAST_SECONDS = 1.0


@dataclass(frozen=True, eq=False)
class Tried:
    """What an archive takes in one way.

    Parameters
    ----------
    label : str
    model : Model or None
    model_nbytes : int
        In its compact form.
    nbytes_per_globe : float
        Of held-out fields.
    """

    label: str
    model: Model | None
    model_nbytes: int
    nbytes_per_globe: float

    @property
    def climatology(self) -> Climatology:
        """Of a model that has one."""
        assert self.model is not None
        assert self.model.climatology is not None
        return self.model.climatology

    def total(self, globes: int) -> float:
        """Bytes of an archive of so many globes, the model counted."""
        return self.model_nbytes + self.nbytes_per_globe * globes


def climatology_model(
    source: Any,
    *,
    max_error: float,
    variable: str | None = None,
    chunk_time: int = 1,
    effort: str = "default",
    max_minutes: float = 10.0,
    most_nbytes: float = inf,
    globes: int | None = None,
    name: str = "custom",
    checkpoint: str | Path | None = None,
    log: Callable[[str], None] | None = None,
    card: dict[str, Any] | None = None,
    **unknown: Never,
) -> tuple[Model | None, list[Tried]]:
    """A model of what an archive's fields share, for a bound, at any resolution.

    It holds the mean field on the archive's own grid, which the pyramid refers to as if it were one
    of the fields, and a network: the one that comes with the package, trained further on this
    archive. The mean is kept as exactly as pays for an archive of so many globes.

    Parameters
    ----------
    source : DataArray, Dataset or path
        Fields with latitude, longitude and one axis before them, read block by block; see
        :func:`coinpp_xr.data.load_fields`. The last tenth is held out.
    max_error : float
        What the archive will be written with, in the data's unit.
    variable : str, optional
        Which variable, where the source holds several.
    chunk_time : int
        Globes per chunk.
    effort : str
        What the archive will be written with; at ``"best"`` the network is a larger one.
    max_minutes : float
        Wall time for all of it; what the rest leaves is for the network.
    most_nbytes : float
        Larger models are left out.
    globes : int, optional
        How many globes the archive will have; default: those of the source.
    name : str
        Name of the model.
    checkpoint : path, optional
        Resumable state of the network, written every minute and on Ctrl-C, taken up if it exists.
    log : callable, optional
        Is told in a line what was found.
    card : dict, optional
        Entries for the model's card.

    Returns
    -------
    Model or None
        None where the archive is smallest without. Loaded in this process; keep it with
        ``model.save("mine.safetensors")``.
    list of Tried

    Raises
    ------
    ValueError
        If the source has another axis than time, or too few times.
    ImportError
        If torch is missing.
    """
    refuse_unknown(unknown, climatology_model)
    if find_spec("torch") is None:
        raise ImportError("training needs torch; install it with: pip install 'coinpp-xr[torch]'")
    started = time.monotonic()
    deadline = started + 60 * max_minutes
    parse_name(name)
    if not 0 < max_error < inf:
        raise ValueError(f"max_error must be a number above zero, got {shown(max_error)}")
    with open_fields(source, variable) as array:
        archive = _Archive(LazyFields.of(array), Bound(max_error), chunk_time, effort)
        mean = archive.fields.mean(started + _MEAN_TIME * 60 * max_minutes)
        about = {
            "variable": str(array.name or "field"),
            "units": str(array.attrs.get("units", "")),
            "grid": " x ".join(map(str, archive.grid.shape)),
            "max_error": max_error,
            "chunk_time": chunk_time,
            "effort": effort,
            "training_items": mean.fields,
            "validation_items": archive.fields.held_out,
            **(card or {}),
        }
        count = len(archive.fields) if globes is None else globes
        trials = _Trials(archive, mean, count, name, about, log)
        best = trials.of_mean_fields(most_nbytes, deadline)
        if best is not None and archive.expert.fingerprint:
            climatology, state = best.climatology, checkpoint and Path(checkpoint)
            field = trials.background(climatology)
            network = _trained_network(archive, mean, field, deadline, state or None)
            trials.attempt(f"{best.label}, and a network", climatology, network)
    affordable = [one for one in trials.tried if one.model_nbytes <= most_nbytes]
    smallest = min(affordable, key=lambda one: one.total(count))
    if smallest.model is None:
        return None, trials.tried
    smallest.model.card["candidates"] = {
        one.label: round(one.nbytes_per_globe) for one in trials.tried
    }
    smallest.model.card["training_seconds"] = round(time.monotonic() - started, 1)
    return load_model(smallest.model), trials.tried


@dataclass(frozen=True, eq=False)
class _Archive:
    """Fields, and how they will be written."""

    fields: LazyFields
    bound: Bound
    chunk_time: int
    effort: str

    @property
    def grid(self) -> SphereGrid:
        return self.fields.grid

    @property
    def is_large(self) -> bool:
        return self.grid.shape[0] * self.grid.shape[1] >= LARGE_GLOBE

    @property
    def expert(self) -> Expert:
        """What is asked of fields around the mean field, if anything."""
        single = self.chunk_time == 1
        return expert_around_background(self.effort, large=self.is_large, single=single)

    def held_out_chunks(self) -> Iterator[Float64]:
        return self.fields.spread_chunks(_JUDGED, self.chunk_time, held_out=True)

    def chunks_to_learn_from(self) -> Iterator[Float64]:
        most = max(_LEARNED_FROM // self.chunk_time, _FEWEST_LEARNED_FROM)
        return self.fields.spread_chunks(most, self.chunk_time, held_out=False)


class _Trials:
    """What was tried, on held-out chunks.

    Parameters
    ----------
    archive, mean :
        What for.
    globes : int
    name, about :
        Of the models.
    log : callable or None
    """

    def __init__(
        self,
        archive: _Archive,
        mean: MeanField,
        globes: int,
        name: str,
        about: dict[str, Any],
        log: Callable[[str], None] | None,
    ) -> None:
        self._archive, self._mean, self._globes = archive, mean, globes
        self._name, self._about, self._log = name, about, log
        self._chunks = [
            Fields.of_sequence(values, archive.grid) for values in archive.held_out_chunks()
        ]
        if not self._chunks:
            raise ValueError(
                "the last tenth of the times holds no finite values to judge models by"
            )
        without = self._nbytes(None, expert_for(archive.effort, large=archive.is_large))
        self.tried = [Tried("without a model", None, 0, without)]

    def of_mean_fields(self, most_nbytes: float, deadline: float) -> Tried | None:
        """The best of mean fields from coarse to fine; None where none is small enough."""
        best = None
        for times in _ERRORS:
            error = times * self._archive.bound.error
            climatology = Climatology.of(
                (self._mean.field - self._mean.low) / self._mean.range,
                self._archive.grid,
                error / self._mean.range,
            )
            found = self.attempt(f"mean field within {error:.4g}", climatology)
            if found.model_nbytes > most_nbytes:
                break
            if best is not None and found.total(self._globes) > best.total(self._globes):
                break
            best = found
            if time.monotonic() > deadline:
                break
        return best

    def attempt(self, label: str, climatology: Climatology, network: Sequence[Any] = ()) -> Tried:
        """What an archive takes with a climatology, and a network."""
        climatology = replace(climatology, network=tuple(network))
        model = Model.without_siren(
            self._name, self._mean.low, self._mean.range, {**self._about, "network": label},
            climatology=climatology,
        )  # fmt: skip
        expert = climatology.expert or self._archive.expert
        nbytes = self._nbytes(self.background(climatology), expert)
        found = Tried(label, model, len(pack_model(model)), nbytes)
        self.tried.append(found)
        if self._log is not None:
            self._log(
                f"{label}: {found.total(self._globes):,.0f} bytes, model {found.model_nbytes:,}"
            )
        return found

    def background(self, climatology: Climatology) -> Float64:
        """What the pyramid refers to."""
        return self._mean.range * climatology.features + self._mean.low

    def _nbytes(self, background: Float64 | None, expert: Expert | None) -> float:
        """Per field."""
        total = fields = 0
        for chunk in self._chunks:
            coded = bounded.encode(
                chunk, self._archive.bound, chunk.sequences, self._archive.effort, expert,
                background=background,
            )  # fmt: skip
            if coded is None:
                raise ValueError(f"the pyramid cannot keep {self._archive.bound} here")
            total, fields = total + len(coded), fields + len(chunk.values)
        return total / fields


def _trained_network(
    archive: _Archive,
    mean: MeanField,
    background: Float64,
    deadline: float,
    checkpoint: Path | None,
) -> list[npt.NDArray[Any]]:
    """The package's network, trained further on chunks of an archive."""
    from coinpp_xr.training.expert_training import ExpertTraining, Observed

    parts = []
    for values in archive.chunks_to_learn_from():
        # Not from the mean of what is to be predicted.
        others = mean.without(values)
        around = np.where(np.isfinite(others), others, background)
        fields = Fields.of_sequence(values, archive.grid)
        seen = observe(fields, archive.bound, _MOST_OF_PASS, around)
        parts.append(Observed.of(seen, _MOST_OF_CHUNK, referring=True))
        if len(parts) >= _FEWEST_LEARNED_FROM and time.monotonic() > deadline:
            break
    start = archive.expert.referring
    widths = len(start.first_bias), len(start.second_bias)
    training = ExpertTraining(widths, compute_device(), learning_rate=_LEARNING_RATE)
    training.start_from(start[: len(training.layers)])
    training.train(
        Observed.joined(parts), max(deadline - time.monotonic(), _LEAST_SECONDS), checkpoint
    )
    return training.arrays()
