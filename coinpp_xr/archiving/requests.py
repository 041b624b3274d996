"""What a user asks for: arguments checked, source and place found, nothing written yet."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from coinpp_xr.archiving.manifest import is_archive, variables_of
from coinpp_xr.archiving.parts import Options
from coinpp_xr.archiving.places import Place, place_of
from coinpp_xr.archiving.sources import Source, open_source
from coinpp_xr.codecs.base import WITHOUT_MODEL
from coinpp_xr.data import with_areas
from coinpp_xr.models import Model, load_model
from coinpp_xr.planning import Settings, check_new
from coinpp_xr.rate_requests import controls, settle
from coinpp_xr.selection import choose_variables

Bound = float | str | Mapping[str, float | str] | None


@dataclass(frozen=True, eq=False)
class Wanted:
    """What was asked for, all arguments checked."""

    dataset: xr.Dataset
    chosen: list[Any]
    reasons: dict[Any, str]
    rates: dict[Any, dict[str, Any]]
    found: Model | None
    settings: Settings

    @classmethod
    def of(cls, source: Source, settings: Settings, there: Collection[str] = ()) -> Wanted:
        """Choose variables and check all arguments.

        Parameters
        ----------
        source : Source
            Bounds of new variables are held against a sample of it.
        settings : Settings
        there : collection of str
            Variables that the archive has already.

        Raises
        ------
        ValueError
        """
        dataset = with_areas(source.dataset)
        settled = settle(
            dataset, settings.variables, settings.rates, beside=settings.beside,
            allow_coarse=settings.allow_coarse, there=there, stacklevel=5,
        )  # fmt: skip
        chosen, reasons = settled.chosen, settled.reasons
        for name in chosen:
            check_new(dataset[name], {})
        if settings.variables is not None:
            asked = choose_variables(dataset, settings.variables, settings.rates)[0]
            dataset = dataset.drop_vars([name for name in reasons if name not in asked])
            reasons = {name: reason for name, reason in reasons.items() if name in asked}
        found = None if settings.model in WITHOUT_MODEL else load_model(settings.model)
        return cls(dataset, chosen, reasons, settled.rates, found, settings)

    def asked(self, name: Any, rate: Mapping[str, Any], options: Options) -> dict[str, Any]:
        """What must stay the same when the archive is gone on with; plain JSON."""
        shards = options.shards
        return {
            **rate,
            "model": self.found.name if self.found else str(self.settings.model),
            "fingerprint": self.found.fingerprint if self.found else None,
            "effort": self.settings.effort,
            "chunk_time": int(self.settings.chunk_time),
            "train_minutes": self.settings.train_minutes,
            "embed_model": self.settings.embed_model,
            "shards": dict(shards) if isinstance(shards, Mapping) else shards,
        }


def request(
    source: Any,
    store: Any,
    *,
    variables: str | Iterable[str] | None = None,
    bits: int | Mapping[str, int] | None = None,
    target_rmse: Bound = None,
    max_error: Bound = None,
    max_error_relative: Bound = None,
    lossless: bool = False,
    keep: Any = None,
    max_mean_error: Bound = None,
    model: str | Model = "t2m-46x90",
    train_minutes: float | None = None,
    embed_model: bool = False,
    chunk_time: int = 256,
    shards: int | Mapping[str, int] | None = None,
    effort: str = "default",
    allow_coarse: bool = False,
    zarr_format: int = 3,
    times: slice | None = None,
    verify: bool = True,
    resume: bool = True,
    check: bool = True,
    consolidated: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[Place, Source, Wanted, Options]:
    """Check the arguments of :func:`coinpp_xr.archive`, which explains them, and open the source.

    Raises
    ------
    FileNotFoundError, ValueError
    """
    names = variables
    if variables is not None:
        names = [variables] if isinstance(variables, str) else list(variables)
    settings = Settings(
        rates=controls(
            bits=bits, max_error=max_error, max_error_relative=max_error_relative,
            target_rmse=target_rmse, lossless=lossless,
        ),
        variables=names, model=model, train_minutes=train_minutes, embed_model=embed_model,
        chunk_time=chunk_time, effort=effort, allow_coarse=allow_coarse,
        beside={"keep": keep, "max_mean_error": max_mean_error},
    )  # fmt: skip
    options = Options(zarr_format, shards, times, verify, resume, consolidated, check)
    place = place_of(store, storage_options)
    opened = open_source(source, names, chunk_time)
    group = place.open(read_only=True) if resume else None
    there = variables_of(group) if group is not None and is_archive(group) else ()
    return place, opened, Wanted.of(opened, settings, there), options
