"""What a user asks for: arguments checked, source and place found, nothing written yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from coinpp_xr.archiving.beginning import Options, Wanted
from coinpp_xr.archiving.places import Place, place_of
from coinpp_xr.archiving.sources import Source, open_source
from coinpp_xr.models import Model
from coinpp_xr.planning import Settings

Bound = float | Mapping[str, float] | None


def request(
    source: Any,
    store: Any,
    *,
    variables: str | Iterable[str] | None = None,
    bits: int | Mapping[str, int] | None = None,
    target_rmse: Bound = None,
    max_error: Bound = None,
    max_error_relative: Bound = None,
    model: str | Model = "t2m-46x90",
    train_minutes: float | None = None,
    embed_model: bool = False,
    chunk_time: int = 256,
    shards: int | Mapping[str, int] | None = None,
    effort: str = "default",
    zarr_format: int = 3,
    times: slice | None = None,
    verify: bool = True,
    resume: bool = True,
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
        rates={
            "bits": bits, "max_error": max_error, "max_error_relative": max_error_relative,
            "target_rmse": target_rmse,
        },
        variables=names, model=model, train_minutes=train_minutes, embed_model=embed_model,
        chunk_time=chunk_time, effort=effort,
    )  # fmt: skip
    options = Options(zarr_format, shards, times, verify, resume, consolidated)
    place = place_of(store, storage_options)
    opened = open_source(source, names, chunk_time)
    return place, opened, Wanted.of(opened, settings), options
