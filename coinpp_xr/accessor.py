"""``ds.coinpp`` and ``da.coinpp``: compression and its report, straight from xarray objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Never

import xarray as xr

from coinpp_xr.array_accessor import Bits, Bound, DataArrayAccessor, Keep, refuse_for_zarr
from coinpp_xr.errors import CorruptPayloadError, refuse_unknown

if TYPE_CHECKING:
    from coinpp_xr.archiving import Verification
    from coinpp_xr.catalogue import ModelList
    from coinpp_xr.comparison_table import Comparison
    from coinpp_xr.compression_result import CompressionResult
    from coinpp_xr.models import Model
    from coinpp_xr.recommendation_table import RecommendationTable
    from coinpp_xr.report import Report


def register() -> None:
    """Make ``coinpp`` an attribute of every Dataset and DataArray; once is enough."""
    if not hasattr(xr.Dataset, "coinpp"):
        xr.register_dataset_accessor("coinpp")(DatasetAccessor)  # type: ignore[no-untyped-call]
        xr.register_dataarray_accessor("coinpp")(DataArrayAccessor)  # type: ignore[no-untyped-call]


class DatasetAccessor:
    """COIN++ compression of the variables of a Dataset, as ``ds.coinpp``."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def compress(
        self,
        bits: Bits = None,
        *,
        model: str | Model = "t2m-46x90",
        effort: str = "default",
        variables: str | Iterable[str] | None = None,
        max_error: Bound = None,
        max_error_relative: Bound = None,
        target_rmse: Bound = None,
        lossless: bool = False,
        keep: Keep = None,
        max_mean_error: Bound = None,
        allow_coarse: bool = False,
        **unknown: Never,
    ) -> CompressionResult:
        """Compress in memory and decompress again, to see size and error.

        The codec gets the data's own latitude and longitude. Each chunk of at most 256 globes
        becomes one payload. Data in dask arrays is read chunk by chunk, and the reconstruction is
        a dask array that decodes the payloads when it is computed.

        Parameters
        ----------
        bits : int or mapping, optional
            Bits per latent, 1 to 16. Like the other rate controls for all variables, or
            ``{"t2m": 8}`` by name; of the controls a variable takes one.
        model : str or Model
            A model, or "universal" or "none": coding without any, which ``bits`` cannot; "none"
            goes without the coder's own network, too.
        effort : {"default", "fast", "best", "paper"}
            How hard the encoder looks for the latents.
        variables : str or iterable of str, optional
            Default: every float variable with latitude and longitude. Others are left alone,
            and the report says why.
        max_error : float, mapping or "recommended", optional
            No value comes back further away than this, in the unit of the variable; 0: nothing is
            lost. "recommended", also in a mapping, takes what :meth:`recommend` says. So does a
            call without any rate control.
        max_error_relative : float or mapping, optional
            The same as a fraction of each value (0.01 is 1 %); zeros stay zeros.
        target_rmse : float or mapping, optional
            Area-weighted RMSE of every chunk, in the unit of the variable, which is never
            exceeded.
        lossless : bool
            Every bit comes back, as with ``max_error=0``.
        keep : float, sequence or mapping, optional
            Values that come back exactly, beside a bound or target.
        max_mean_error : float or mapping, optional
            No globe's area-weighted mean comes back further away than this, beside a bound or
            target.
        allow_coarse : bool
            Take a bound that reaches half of a variable's standard deviation on some level, a
            target that reaches three tenths, or one number for several units, which is refused
            otherwise. Looked at are four steps spread over time, all levels, and every n-th row
            and column of large grids, without missing cells.

        Returns
        -------
        CompressionResult
            Reconstruction and report; ``.plot()`` draws both, ``.sel(...)`` is the same for a
            part. Where this takes more than a moment a bar shows in terminals and notebooks.

        Raises
        ------
        ValueError
            If a variable does not exist or cannot be compressed, or if none can, or if a bound
            or target would leave little of one.
        TypeError
            If there is no such argument; the message names the one that was meant.
        ModelNotFoundError

        Warns
        -----
        CompressionWarning
            If under ``bits`` the codec stores a variable without loss because the model was not
            made for it, or if no rate control is given; it says what is taken.
        """
        from coinpp_xr.rate_requests import controls
        from coinpp_xr.roundtrip import compress

        refuse_unknown(unknown, self.compress)
        return compress(
            self._dataset,
            variables=variables,
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
        variables: str | Iterable[str] | None = None,
        model: str | Model = "t2m-46x90",
        train_minutes: float | None = None,
        embed_model: bool = False,
        chunk_time: int = 256,
        effort: str = "default",
        allow_coarse: bool = False,
        zarr_format: int | None = None,
        **to_zarr_arguments: Any,
    ) -> Report:
        """Write a compressed Zarr store, read it back, and report sizes and errors.

        Every float variable with latitude and longitude goes through the codec, in chunks of
        whole globes; everything else is written as xarray would. ``xr.open_zarr(store)`` reads it
        wherever the package is installed. The errors in the report are those of what is really in
        the store; data in dask arrays is therefore computed twice, to write it and to compare.

        Latitude and longitude become the last two dimensions of what is compressed; xarray goes
        by names, and ``transpose`` puts them back. Values keep their dtype: packing that was read
        from a file (``scale_factor``, integer ``dtype``, ``_FillValue``) is not applied again.

        Parameters
        ----------
        store : str, path or Zarr store
            A new store in a local folder appears when it is complete and verified; on any error
            nothing is left, and with ``mode="w"`` the old store stays as it was. So does a zip
            file (a path that ends with ``.zip``, or a ``zarr.storage.ZipStore``, which is
            read-only afterwards), to which nothing can be added later.
        bits, target_rmse, max_error, max_error_relative, lossless, keep, max_mean_error
            As for :meth:`compress`. With mappings, a variable that none of them names is
            written without loss.
        variables : str or iterable of str, optional
            Default: every float variable with latitude and longitude.
        model : str or Model
            A model, or "universal" or "none": coding without any, which ``bits`` cannot; "none"
            goes without the coder's own network, too.
        train_minutes : float, optional
            Train a model on each variable for so long, and use it where it pays: where under
            a target or bound a sample of the chunks and the model take less than without it. A
            model that is not embedded is kept in the user's cache of models; the report names it.
        embed_model : bool
            The models (at most 256 kB each) travel in the store's metadata. Under a target or
            bound those that do not pay there are left out. In Zarr format 3
            ``consolidated`` is then False unless given: consolidated metadata would hold every
            model a second time.
        chunk_time : int
            How many globes a chunk holds at most along time (a dimension of that name, or with
            dates, or else the first); fewer where a chunk would exceed 64 MiB. Along other
            dimensions a chunk has one index, or all where there is a single time. Dask arrays
            are rechunked accordingly.
        effort : {"default", "fast", "best", "paper"}
        allow_coarse : bool
            As for :meth:`compress`.
        zarr_format : {2, 3}, optional
        **to_zarr_arguments
            For :meth:`xarray.Dataset.to_zarr`: ``mode``, ``group``, ``append_dim``, ``region``,
            ``encoding`` (of a compressed variable: ``chunks`` only), ... What would decode and
            encode earlier data again (appending or writing into partly filled chunks) is
            refused. Appended data takes the rate and the model that the store was written with;
            with ``region``, coordinates without its dimensions are not written again.

        Returns
        -------
        Report
            On what was written by this call.

        Raises
        ------
        ValueError
            If an argument makes no sense, a variable does not exist or cannot be compressed, or
            a bound or target would leave little of one.
        TypeError
            If there is no such argument; the message names the one that was meant.
        FileExistsError
            If the store exists; give ``mode="w"`` to replace it.
        ModelNotFoundError
        RuntimeError
            If what was read back is not within the target or bound.
        """
        from coinpp_xr.planning import Settings
        from coinpp_xr.rate_requests import controls
        from coinpp_xr.writing import write

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
            variables=variables,
            model=model,
            train_minutes=train_minutes,
            embed_model=embed_model,
            chunk_time=chunk_time,
            effort=effort,
            allow_coarse=allow_coarse,
        )
        return write(
            self._dataset, store, settings, {"zarr_format": zarr_format, **to_zarr_arguments}
        )

    def verify(
        self, store: Any, *, group: str | None = None, storage_options: Any = None
    ) -> Verification:
        """Hold a store against this dataset and against itself.

        Everything that is compressed in the store is read and decoded. Its checksums must be
        right, every chunk must lie where it was written, none may be missing, and no value may be
        further from this dataset's than was promised. ``xr.open_zarr`` sees none of that but
        checksums. Opened from the store itself, the dataset shows all but the last.

        Parameters
        ----------
        store : str, path, Zarr store or icechunk.Repository
            Written by :meth:`to_zarr`, :func:`coinpp_xr.archive` or :meth:`xarray.Dataset.to_zarr`;
            the latter's chunks do not say where they belong.
        group : str, optional
            Of the store.
        storage_options : dict, optional
            For fsspec.

        Returns
        -------
        Verification
            What was looked at.

        Raises
        ------
        FileNotFoundError, ValueError
            If there is no such store, nothing compressed in it, or nothing that this dataset has.
        CorruptPayloadError
            If anything is damaged, lost, exchanged, or not what this dataset holds; the message
            tells the first of it.
        """
        from coinpp_xr.archiving import verify

        found = verify(store, self._dataset, group=group, storage_options=storage_options)
        if not found.is_sound:
            raise CorruptPayloadError(found.complaint)
        return found

    def compare(
        self,
        *,
        max_error: float | None = None,
        target_rmse: float | None = None,
        variable: str | None = None,
        peers: Sequence[str] | None = None,
        model: str | Model = "t2m-46x90",
        chunk: int = 64,
        curves: bool = False,
        whole: bool = False,
        **unknown: Never,
    ) -> Comparison:
        """What other codecs make of the same globes at the same error, in one table.

        Parameters
        ----------
        max_error, target_rmse : float
            One of the two, in the variable's unit.
        variable : str, optional
            Default: the first that can be compressed.
        peers : sequence of str, optional
            Codecs to compare with; default: all that are known but COIN, which takes minutes.
        model : str or Model
        chunk : int
            How many globes, at most: the first ones along time.
        curves : bool
            Look at several errors around the one that is given, for ``.plot()``.
        whole : bool
            Take all of these globes; default: a sample of large fields.

        Returns
        -------
        Comparison
            A table; ``.save("name.json")``, ``.html`` or ``.png`` write it.

        Raises
        ------
        ValueError
        """
        from coinpp_xr.comparison import compare
        from coinpp_xr.data import with_areas
        from coinpp_xr.selection import choose_variables

        refuse_unknown(unknown, self.compare)
        chosen, _ = choose_variables(self._dataset, variable)
        return compare(
            with_areas(self._dataset)[chosen[0]], max_error=max_error, target_rmse=target_rmse,
            names=peers, model=model, chunk=chunk, curves=curves, whole=whole,
        )  # fmt: skip

    def models(self, variable: str | None = None) -> ModelList:
        """The shipped and cached models, best first, and which of them fit a variable.

        Each model is judged by what it says of itself (globes or patches, units, standard name)
        and by what the codec makes of two globes with ``bits=8``, which are read for that; of a
        grid finer than about two degrees, by a part of its rows and columns.

        Parameters
        ----------
        variable : str, optional
            Default: the first that can be compressed.

        Returns
        -------
        ModelList
            A table, with a reason where a model does not fit; iterate or index it by name.

        Raises
        ------
        ValueError
            If the variable does not exist or cannot be compressed, or if none can.

        Examples
        --------
        >>> best = ds.coinpp.models()[0]  # doctest: +SKIP
        >>> ds.coinpp.compress(bits=8, model=best.name)  # doctest: +SKIP
        """
        from coinpp_xr.catalogue import models_for
        from coinpp_xr.selection import choose_variables

        chosen, _ = choose_variables(self._dataset, variable)
        return models_for(self._dataset[chosen[0]])

    def recommend(self, variables: str | Iterable[str] | None = None) -> RecommendationTable:
        """Bounds that the community recommends, for every variable that can be compressed.

        They are those of the package ``compression-recommendations``, by GRIB short name, CF short
        name or standard name, where the variable's unit converts to that of ECMWF's parameter. A
        mean absolute error becomes a ``target_rmse`` of the same size; ranges and mean magnitudes
        are those of a sample of the data (four steps over time, all levels).

        Parameters
        ----------
        variables : str or iterable of str, optional
            Default: every float variable with latitude and longitude.

        Returns
        -------
        RecommendationTable
            Per variable bound, kind, source and share of the standard deviation; iterate or index
            it by name. ``ds.coinpp.compress(max_error="recommended")`` takes what it says.

        Raises
        ------
        ValueError
            If a variable does not exist or cannot be compressed, if none can, or if
            ``compression-recommendations`` is not installed.
        """
        from coinpp_xr.recommended import recommend
        from coinpp_xr.selection import choose_variables

        chosen, _ = choose_variables(self._dataset, variables)
        return recommend(self._dataset, chosen)
