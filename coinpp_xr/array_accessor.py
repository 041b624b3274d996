"""``da.coinpp``: the methods of ``ds.coinpp`` for one array."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any, Never

import xarray as xr

from coinpp_xr.errors import refuse_unknown

if TYPE_CHECKING:
    from coinpp_xr.catalogue import ModelList
    from coinpp_xr.comparison_table import Comparison
    from coinpp_xr.compression_result import CompressionResult
    from coinpp_xr.models import Model
    from coinpp_xr.recommendation_table import RecommendationTable
    from coinpp_xr.report import Report

Bits = int | Mapping[str, int] | None
Bound = float | str | Mapping[str, float | str] | None
Keep = float | Sequence[float] | Mapping[str, float | Sequence[float]] | None


def refuse_for_zarr(arguments: Collection[str], method: Callable[..., Any]) -> None:
    others = signature(xr.Dataset.to_zarr).parameters
    refuse_unknown(arguments, method, others, "xarray's to_zarr")


class DataArrayAccessor:
    """COIN++ compression of a DataArray, as ``da.coinpp``."""

    def __init__(self, array: xr.DataArray) -> None:
        self._array = array

    def compress(
        self,
        bits: Bits = None,
        *,
        model: str | Model = "t2m-46x90",
        effort: str = "default",
        max_error: Bound = None,
        max_error_relative: Bound = None,
        target_rmse: Bound = None,
        lossless: bool = False,
        keep: Keep = None,
        max_mean_error: Bound = None,
        allow_coarse: bool = False,
        **unknown: Never,
    ) -> CompressionResult:
        """Compress in memory and decompress again; see ``ds.coinpp.compress``."""
        from coinpp_xr.rate_requests import controls
        from coinpp_xr.roundtrip import compress

        refuse_unknown(unknown, self.compress)
        dataset = self._dataset()
        (name,) = dataset
        result = compress(
            dataset,
            variables=[name],
            rates=controls(
                bits=bits,
                max_error=max_error,
                max_error_relative=max_error_relative,
                target_rmse=target_rmse,
                lossless=lossless,
            ),
            beside={"keep": keep, "max_mean_error": max_mean_error},
            model=model,
            effort=effort,
            allow_coarse=allow_coarse,
        )
        result.dataarray = result.dataset[name].rename(self._array.name)
        return result

    def to_zarr(
        self,
        store: Any,
        *,
        bits: Bits = None,
        target_rmse: Bound = None,
        max_error: Bound = None,
        max_error_relative: Bound = None,
        lossless: bool = False,
        keep: Keep = None,
        max_mean_error: Bound = None,
        model: str | Model = "t2m-46x90",
        train_minutes: float | None = None,
        embed_model: bool = False,
        chunk_time: int = 256,
        effort: str = "default",
        allow_coarse: bool = False,
        zarr_format: int | None = None,
        **to_zarr_arguments: Any,
    ) -> Report:
        """Write a compressed Zarr store; see ``ds.coinpp.to_zarr``.

        An array without a name is written as ``field``.
        """
        from coinpp_xr.planning import Settings
        from coinpp_xr.rate_requests import controls
        from coinpp_xr.writing import write

        dataset = self._dataset()
        refuse_for_zarr(to_zarr_arguments, self.to_zarr)
        settings = Settings(
            rates=controls(
                bits=bits,
                max_error=max_error,
                max_error_relative=max_error_relative,
                target_rmse=target_rmse,
                lossless=lossless,
            ),
            beside={"keep": keep, "max_mean_error": max_mean_error},
            variables=list(dataset),
            model=model,
            train_minutes=train_minutes,
            embed_model=embed_model,
            chunk_time=chunk_time,
            effort=effort,
            allow_coarse=allow_coarse,
        )
        return write(dataset, store, settings, {"zarr_format": zarr_format, **to_zarr_arguments})

    def compare(
        self,
        *,
        max_error: float | None = None,
        target_rmse: float | None = None,
        peers: Sequence[str] | None = None,
        model: str | Model = "t2m-46x90",
        chunk: int = 64,
        curves: bool = False,
        whole: bool = False,
        **unknown: Never,
    ) -> Comparison:
        """What other codecs make of the same globes; see ``ds.coinpp.compare``."""
        from coinpp_xr.comparison import compare

        refuse_unknown(unknown, self.compare)
        return compare(
            self._array, max_error=max_error, target_rmse=target_rmse, names=peers, model=model,
            chunk=chunk, curves=curves, whole=whole,
        )  # fmt: skip

    def models(self) -> ModelList:
        """The shipped and cached models, and which fit; see ``ds.coinpp.models``."""
        from coinpp_xr.catalogue import models_for
        from coinpp_xr.selection import choose_variables

        dataset = self._dataset()
        chosen, _ = choose_variables(dataset, list(dataset))
        return models_for(dataset[chosen[0]])

    def recommend(self) -> RecommendationTable:
        """What is recommended for the array; see ``ds.coinpp.recommend``."""
        from coinpp_xr.recommended import recommend
        from coinpp_xr.selection import choose_variables

        dataset = self._dataset()
        chosen, _ = choose_variables(dataset, list(dataset))
        return recommend(dataset, chosen)

    def _dataset(self) -> xr.Dataset:
        name = "field" if self._array.name is None else self._array.name
        if name in self._array.coords:
            raise ValueError(f"cannot compress the coordinate {name!r}")
        return self._array.to_dataset(name=name)
