"""Codecs for fields on the sphere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Never

import numpy as np
import numpy.typing as npt
from numcodecs.compat import ensure_bytes

from coinpp_xr.axes import MOST_DEGREES, axis_values, compact_axis
from coinpp_xr.bitstream import Kind, Payload
from coinpp_xr.cells.description import PLACED, GridDescription
from coinpp_xr.cells.weights import pack, unpack
from coinpp_xr.chunk_cells import encode_any, folded_places
from coinpp_xr.chunk_reading import decode_chunk, decode_latents
from coinpp_xr.codecs.base import (
    NO_MODEL,
    UNIVERSAL,
    WITHOUT_MODEL,
    ArrayCodec,
    NumcodecsCodec,
    Rate,
    parse_chunk,
    parse_error,
)
from coinpp_xr.codecs.named_model import NamesModel, check_named, chosen_model
from coinpp_xr.codecs.partial import PartialDecoding
from coinpp_xr.codecs.whole_fields import check_whole_fields
from coinpp_xr.compact import embedded_model, pack_text
from coinpp_xr.coordinates import IndexGrid, SphereGrid
from coinpp_xr.devices import EFFORTS
from coinpp_xr.errors import refuse_unknown, shown
from coinpp_xr.fields import round_to
from coinpp_xr.kept_cells import fold_in
from coinpp_xr.model_units import in_unit_of_data, parse_unit_map
from coinpp_xr.models import Model, load_model
from coinpp_xr.recognition import may_be_cells


class _SphereSettings(NamesModel):
    """The settings of a codec for globes.

    Parameters
    ----------
    model : str, path or Model
        Name of a shipped, cached or loaded model, the path of its file, or one of two names for
        coding without any, which ``bits`` cannot: "universal" leaves the network that comes with
        the package, which the coder asks under a bound (not at effort "fast", and at "default"
        not of single fields on large grids); "none" goes without that as well. A configuration
        keeps name and fingerprint, and never a path.
    bits : int, optional
        Bits per latent, 1 to 16: the paper's rate control. Nothing else is stored, so the error
        is whatever the model makes of the data.
    target_rmse : float, optional
        Area-weighted root mean square error of every chunk, in the data's unit, that is never
        exceeded: the smallest payload that meets it, with or without the model.
    max_error : float, optional
        No finite value comes back further away than this, in the data's unit. Whatever else a
        chunk holds (NaN, infinities, -0.0 with their bits) comes back as it was. 0: nothing is
        lost, of integers either.
    lossless : bool
        Another way to say ``max_error=0``.
    max_error_relative : float, optional
        The same as a fraction of each value, below 1; zeros stay zeros.
    max_mean_error : float, optional
        Beside a bound or target: how far the area-weighted mean of a globe may be off, in the
        data's unit. Default: a twentieth of the bound or target; of a relative bound, a twentieth
        of that fraction of the mean magnitude.
    keep : sequence of float, optional
        Values that come back exactly wherever they stand. Under a bound or target so do, anyway,
        values that many cells share, such as the zeros of precipitation, and all of a field with
        few distinct values, such as flags.
    valid_range : (float, float), optional
        Values beyond come back exactly, as fill values do, and no other comes back beyond.
    latitude, longitude : array_like, optional
        Coordinates in degrees; configurations describe them in few bytes. Without them a chunk is
        taken for a whole globe in the usual layout that fits it best (90 → −90 or −90 → 90,
        0 → 360 or −180 → 180, with or without poles and repeated meridian), which is noted in the
        payload; a chunk that no globe has the shape of (fewer columns than rows, or more than four
        times as many), for rows and columns, or rows of cells, that all count alike.
    grid : str or mapping, optional
        Of arrays that are not on latitudes and longitudes. "index": rows and columns of any grid,
        curvilinear, rotated or projected. "cells": one axis of cells, in an order of which
        nothing is known but what their number allows; "healpix" (nested order), "healpix-ring",
        "icon" (triangles) or ``{"rows": lengths}``, how many cells every parallel of a reduced
        grid has: cells that are near each other are coded so. Cells anywhere, in any order:
        ``{"latitude": degrees, "longitude": degrees}`` of all of them, at most 1,048,576; each is
        foretold by those around it. Configurations hold these, in two bytes or so for every cell.
        In two dimensions, of rows and columns, they are for ``bits``.
    weights : array_like, optional
        Of the cells of such a grid, in its shape and any unit, such as areas: what counts in an
        RMSE and in means. Rounded to half a per cent; configurations hold them. Default: all alike.
    time_axis : int
        Which of the axes before the cells of a field is time (0, the first). What follows in
        time is coded together; along the others, each index is a sequence of its own.
    to_model_unit : (float, float), optional
        Scale and offset that make the model's unit of the data's: (1, 273.15) for data in °C and a
        model in K. The accessor knows them from the ``units`` attribute.
    effort : {"default", "fast", "best", "paper"}
        How hard the encoder looks for the latents; decoding does not depend on it.
    embed_model : bool or str
        True: the model (at most 256 kB) travels in the codec's configuration, so that a store
        opens wherever the package is installed. Configurations hold the model itself, as text.
    fingerprint : str, optional
        Set by configurations; the one model that the data was written with.
    chunk : (shape, dtype), optional
        What every chunk is, and every payload must hold: anything else is refused before memory
        is taken for it. Writing through xarray sets it for Zarr format 2, which tells a codec
        nothing of the array; in a store of that format that was made by ``zarr.create_array`` the
        setting ``max_decode_bytes`` alone limits what payloads may claim.

    Raises
    ------
    ModelNotFoundError, ValueError
    """

    model: str
    _embeds = True

    def __init__(
        self,
        model: str | Path | Model = "t2m-46x90",
        *,
        bits: int | None = None,
        max_error: float | None = None,
        max_error_relative: float | None = None,
        lossless: bool = False,
        target_rmse: float | None = None,
        max_mean_error: float | None = None,
        keep: Sequence[float] | None = None,
        valid_range: Sequence[float] | None = None,
        latitude: npt.ArrayLike | None = None,
        longitude: npt.ArrayLike | None = None,
        grid: Any = None,
        weights: Any = None,
        time_axis: int = 0,
        to_model_unit: Sequence[float] | None = None,
        effort: str = "default",
        embed_model: bool | str = False,
        fingerprint: str | None = None,
        chunk: Sequence[Any] | None = None,
        **unknown: Never,
    ) -> None:
        refuse_unknown(unknown, type(self))
        if isinstance(time_axis, bool) or not isinstance(time_axis, int) or time_axis < 0:
            raise ValueError(
                f"time_axis must be 0 or a larger whole number, got {shown(time_axis)}"
            )
        if effort not in EFFORTS:
            raise ValueError(f"effort must be one of {', '.join(EFFORTS)}, got {shown(effort)}")
        if (latitude is None) != (longitude is None):
            raise ValueError("give latitude and longitude together, or neither")
        if lossless:
            if max_error is not None:
                raise ValueError("give one rate control, not lossless and max_error")
            max_error = 0.0
        self._rate = Rate.parse(
            bits=bits, max_error=max_error, max_error_relative=max_error_relative,
            target_rmse=target_rmse,
        )  # fmt: skip
        self.bits, self.target_rmse = self._rate.bits, self._rate.target_rmse
        bound = self._rate.bound
        self.max_error = bound.error if bound and not bound.relative else None
        self.max_error_relative = bound.error if bound and bound.relative else None
        self.max_mean_error = None
        if max_mean_error is not None:
            if self.bits is not None:
                raise ValueError("max_mean_error stands beside a bound or target, not beside bits")
            self.max_mean_error = parse_error("max_mean_error", max_mean_error)
        self.keep = _finite("keep", keep)
        if self.keep is not None and self.bits is not None:
            raise ValueError("keep stands beside a bound or target, not beside bits")
        self.valid_range = _finite("valid_range", valid_range)
        ends = self.valid_range
        if ends is not None and (len(ends) != 2 or not ends[0] <= ends[1]):
            raise ValueError(
                f"valid_range must be the lowest and the highest value, got {shown(ends)}"
            )
        self.embed_model: str | None = None
        self._described = None if grid is None else GridDescription.parse(grid)
        if self._described is not None and self.bits is not None:
            if not self._described.tells_places:
                raise ValueError(
                    "bits needs to know where cells are: latitude and longitude, HEALPix, or "
                    "grid={'latitude': ..., 'longitude': ...} of all cells; else give max_error "
                    "or target_rmse"
                )
        elif self._described is not None and not (isinstance(model, str) and model == NO_MODEL):
            if model != UNIVERSAL:
                chosen_model(model)  # says so if there is none
            model = UNIVERSAL  # what models know lies on latitudes and longitudes
        if isinstance(model, str) and model in WITHOUT_MODEL:
            if self.bits is not None:
                raise ValueError("bits needs a model; without one give max_error or target_rmse")
            if embed_model:
                raise ValueError("there is no model to embed")
            fingerprint = None
        elif fingerprint is None or isinstance(model, Model):
            if isinstance(embed_model, str):
                raise ValueError("a model embedded as text needs its name and fingerprint")
            # A typo in the name should show here, not in the middle of a write.
            found = chosen_model(model)
            model, fingerprint, self._is_own = found.name, found.fingerprint, True
            if embed_model:
                self.embed_model = pack_text(found)
        else:
            check_named({"model": model, "fingerprint": fingerprint})
            if isinstance(embed_model, str):
                embedded_model(embed_model, fingerprint)
                self.embed_model = embed_model
            elif embed_model:
                self.embed_model = pack_text(load_model(model, fingerprint))
        self.model = str(model)
        self.fingerprint = fingerprint
        self._grid = None
        self._compact: dict[str, Any] = {}
        self.latitude, self.longitude = None, None
        if latitude is not None and longitude is not None:
            self._grid = SphereGrid(axis_values(latitude), axis_values(longitude))
            if max(self._grid.shape) > MOST_DEGREES:
                raise ValueError(
                    f"latitude and longitude can have at most {MOST_DEGREES:,} values each, got "
                    f"{self._grid.shape[0]:,} and {self._grid.shape[1]:,}"
                )
            self.latitude = self._grid.latitude.tolist()
            self.longitude = self._grid.longitude.tolist()
            self._compact = {
                "latitude": compact_axis(self._grid.latitude),
                "longitude": compact_axis(self._grid.longitude),
            }
        self.grid = None if self._described is None else self._described.config
        self._cell_axes = 2 if self._described is None else self._described.axes
        self.weights = weights if weights is None or isinstance(weights, Mapping) else pack(weights)
        self._weights = None if self.weights is None else unpack(self.weights)
        if self._described is None and weights is not None:
            raise ValueError("weights stand beside grid; latitudes have weights of their own")
        if self._described is not None and self._grid is not None:
            raise ValueError("give grid, or latitude and longitude, not both")
        self.to_model_unit: list[float] | None = None
        if to_model_unit is not None:
            unit_map = parse_unit_map(to_model_unit)
            if self.model in WITHOUT_MODEL:
                raise ValueError("to_model_unit is of use with a model only; leave it out")
            self.to_model_unit = None if unit_map == (1, 0) else list(unit_map)
        self.effort = None if effort == "default" else effort
        self.time_axis = time_axis or None
        self.chunk = parse_chunk(chunk)

    def get_config(self) -> dict[str, Any]:
        """Plain JSON: arguments that are not at their default, coordinates in few bytes."""
        return super().get_config() | self._compact

    @property
    def rate(self) -> Rate:
        """The rate control."""
        return self._rate

    def _encode_array(self, values: npt.NDArray[Any]) -> bytes:
        before = values.ndim - self._cell_axes
        if before > 0 and (self.time_axis or 0) >= before:
            raise ValueError(
                f"time_axis={self.time_axis} is not one of the {before} axes before "
                f"{'the cells' if self._described else 'latitude and longitude'}"
            )
        model = None if self.fingerprint is None else self._load(self.fingerprint)
        return encode_any(
            values, model, self._grid, self._described, self._weights,
            bits=self.bits, target_rmse=self.target_rmse, bound=self._rate.bound,
            effort=self.effort or "default", time_axis=self.time_axis or 0,
            max_mean_error=self.max_mean_error, keep=self.keep or (),
            valid_range=(self.valid_range[0], self.valid_range[1]) if self.valid_range else None,
            network=self.model != NO_MODEL,
        )  # fmt: skip

    def _decode_payload(
        self, data: bytes, expected: tuple[tuple[int, ...], np.dtype[Any]] | None = None
    ) -> npt.NDArray[Any]:
        grid = self._grid
        if self._needs_places:
            grid = self._grid_in(Payload.unpack(data))
        return decode_chunk(data, self._load, grid=grid, expected=expected)

    @property
    def _needs_places(self) -> bool:
        """Whether a decoder must know where cells are."""
        described = self._described
        if described is None:
            return False
        return self.bits is not None or (described.name == PLACED and described.axes == 1)

    def _grid_in(self, payload: Payload) -> SphereGrid | None:
        """Where the cells of a payload are, as its decoder is to be told."""
        if self._described is None or not self._needs_places:
            return self._grid
        fold = fold_in(payload)
        places = self._described.places(prod(payload.array_shape[-self._described.axes :]))
        if places is None or len(payload.shape) < 2:
            return None
        if fold is not None:
            places = folded_places(fold, places, holes=self.bits is None)
        return IndexGrid.of((payload.shape[-2], payload.shape[-1]), places=places)

    def decode_at(
        self, data: Any, *, latitude: npt.ArrayLike, longitude: npt.ArrayLike
    ) -> npt.NDArray[Any]:
        """What latents stand for on other axes than those that were stored.

        Parameters
        ----------
        data : bytes-like
            A payload that was written with ``bits``.
        latitude, longitude : array_like, shapes (n_lat,) and (n_lon,)
            Degrees.

        Returns
        -------
        array, shape (..., n_lat, n_lon)
            In the data's type and unit.

        Raises
        ------
        CorruptPayloadError, ModelNotFoundError
        ValueError
            If the payload does not hold latents alone, or the axes are none.
        """
        payload = Payload.unpack(ensure_bytes(data))
        if payload.kind != Kind.LATENTS:
            raise ValueError(
                "only what bits wrote can be evaluated elsewhere, and this payload is of the kind "
                f"{payload.kind.name.lower().replace('_', ' ')}"
            )
        grid = SphereGrid(axis_values(latitude), axis_values(longitude))
        batch = payload.shape[:-2]
        model = self._load(payload.fingerprint)
        values = decode_latents(payload, model, grid, prod(batch))
        return round_to(values, payload.dtype).reshape(*batch, *grid.shape)

    def _load(self, fingerprint: str) -> Model:
        """A model, as one of the data's unit."""
        model = self.find_model(fingerprint)
        return in_unit_of_data(model, *self.to_model_unit) if self.to_model_unit else model

    def _check_chunks(self, shape: tuple[int, ...], chunk_shape: tuple[int, ...]) -> None:
        check_whole_fields(shape, chunk_shape, self.cell_axes_of(shape), self._grid)

    def cell_axes_of(self, shape: tuple[int, ...]) -> int:
        """How many of the last axes of an array hold the cells of a field."""
        unknown = self._described is None and self._grid is None and self.bits is None
        if unknown and len(shape) > 1 and may_be_cells(*shape[-2:]):
            return 1
        return self._cell_axes


def _finite(name: str, values: Any) -> list[float] | None:
    """Numbers for a configuration; None for none."""
    if values is None:
        return None
    try:
        if isinstance(values, str):
            raise TypeError("text is no list of numbers")
        numbers = [float(value) for value in np.atleast_1d(values)]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name} must be numbers, got {shown(values)}") from None
    if not np.isfinite(numbers).all():
        raise ValueError(
            f"{name} must be finite numbers, got {shown(values)}; NaN and infinities "
            "come back as they are anyway"
        )
    return numbers or None


class COINppCodec(_SphereSettings, NumcodecsCodec):
    __doc__ = f"""COIN++ for global fields: a numcodecs codec, and a Zarr v2 and v3 compressor.

    The last two axes of a chunk are latitude and longitude of whole globes; everything before
    them is a batch. Each globe becomes a few latents of a shared network, quantized and entropy
    coded; NaN, ±Inf and fill values come back bit for bit.

    {(_SphereSettings.__doc__ or "").split("globes.", 1)[1].strip()}

    Examples
    --------
    >>> codec = COINppCodec(model="t2m-46x90", bits=8)  # doctest: +SKIP
    >>> ds.to_zarr("out.zarr", encoding={{"t2m": {{"compressor": codec}}}})  # doctest: +SKIP
    """

    codec_id = "coinpp"


class COINppArrayCodec(_SphereSettings, PartialDecoding, ArrayCodec):
    """:class:`COINppCodec` as a serializer of Zarr v3: it sees the array, not its bytes.

    A selection of a chunk reads and decodes the fields that it needs, if the chunk was written
    under a bound.
    """

    codec_id = "coinpp-array"
