"""Which models there are, and which of them fit a variable."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr.bitstream import Payload
from coinpp_xr.cells.weights import CellWeights
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.codecs.base import DEFAULT_BITS
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.data.horizontal import Horizontal
from coinpp_xr.errors import CompressionWarning
from coinpp_xr.labels import display_unit, in_digits, temperature_scale, unit_settings
from coinpp_xr.metrics import chunk_rmse, field_errors
from coinpp_xr.model_files import models_at_hand
from coinpp_xr.model_units import in_unit_of_data
from coinpp_xr.models import Model
from coinpp_xr.notebook_html import block, head, table
from coinpp_xr.selection import Layout
from coinpp_xr.text_tables import Column, plain_text, printable, text_tables

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

# So many globes, on a grid no finer than this, tell whether a model knows such data.
_SAMPLE_GLOBES = 2
_MOST_ROWS, _MOST_COLUMNS = 96, 192
# Characters that columns may be folded to.
_LEAST = {"model": 12, "units": 8, "remarks": 16}


@dataclass(frozen=True)
class ModelFit:
    """A model, and whether it was made for such data.

    Parameters
    ----------
    name : str
        For ``model=`` of the methods that compress.
    where : {"shipped", "cached"}
    model : Model or None
        None where its file is damaged.
    fits : bool
    reason : str
        Why it does not fit, or what is to be known of it if it does.
    rmse : float or None
        Area-weighted, of a few globes with ``bits=8``, in the unit that reports use.
    """

    name: str
    where: str
    model: Model | None
    fits: bool
    reason: str
    rmse: float | None = None


@dataclass(frozen=True, repr=False)
class ModelList:
    """Models at hand and how they fit one variable, best first.

    Iterated, it gives a :class:`ModelFit` for each; indexed, by position or by name. Prints as a
    table, shows as HTML in notebooks.

    Parameters
    ----------
    variable : str
    unit : str
        Of the errors.
    models : tuple of ModelFit
    """

    variable: str
    unit: str
    models: tuple[ModelFit, ...]

    def __iter__(self) -> Iterator[ModelFit]:
        return iter(self.models)

    def __len__(self) -> int:
        return len(self.models)

    def __getitem__(self, key: int | str) -> ModelFit:
        if isinstance(key, int):
            return self.models[key]
        for fit in self.models:
            if fit.name == key:
                return fit
        names = ", ".join(fit.name for fit in self.models) or "none"
        raise KeyError(f"no model {key!r} in this list; there are: {names}")

    @property
    def headline(self) -> str:
        """How many fit, in one line."""
        fitting = sum(fit.fits for fit in self.models)
        return f"{fitting} of {len(self.models)} models fit {self.variable}"

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        columns = zip(*self._rows(), strict=True) if self.models else ((),) * len(self._heads())
        shown = [
            Column(title, cells, "right" if side == "right" else "left", _LEAST.get(title))
            for (title, side), cells in zip(self._heads(), columns, strict=True)
        ]
        yield from text_tables(shown, options.max_width)

    def __repr__(self) -> str:
        return f"<coinpp_xr models: {printable(self.headline)}>\n{plain_text(self)}"

    def _repr_html_(self) -> str:
        return block(head("coinpp_xr models", self.headline), table(self._heads(), self._rows()))

    def _heads(self) -> list[tuple[str, str]]:
        unit = f" ({self.unit})" if self.unit else ""
        return [
            ("model", "left"), ("fits", "left"), (f"RMSE, {DEFAULT_BITS} bits{unit}", "right"),
            ("latents", "right"), ("units", "left"), ("bytes", "right"), ("where", "left"),
            ("remarks", "prose"),
        ]  # fmt: skip

    def _rows(self) -> Iterator[list[str]]:
        for fit in self.models:
            about = ["–"] * 3
            if fit.model is not None:
                model = fit.model
                about = [f"{model.latent_dim:,}", model.units or "–", f"{model.nbytes:,}"]
            fits = "yes" if fit.fits else "no"
            yield [fit.name, fits, in_digits(fit.rmse), *about, fit.where, fit.reason]


def models_for(array: xr.DataArray) -> ModelList:
    """See :meth:`coinpp_xr.accessor.DatasetAccessor.models`.

    Parameters
    ----------
    array : DataArray
        That can be compressed. Two of its globes are read.
    """
    cells = Horizontal.of(array)
    if not cells.is_regular:
        return ModelList(str(array.name), display_unit(array.attrs).label, ())
    values, grid = _sample(array)
    fits = [_judge(path, where, array, values, grid) for path, where in models_at_hand()]
    fits.sort(key=lambda fit: (not fit.fits, inf if fit.rmse is None else fit.rmse, fit.name))
    return ModelList(str(array.name), display_unit(array.attrs).label, tuple(fits))


def _sample(array: xr.DataArray) -> tuple[npt.NDArray[Any], SphereGrid]:
    """First and last globe along time, with a part of the rows and columns of a fine grid."""
    layout = Layout.of(array)
    *batch, rows, columns = layout.dims
    where: dict[Any, Any] = {dim: [0] for dim in batch}
    if batch:
        time = batch[layout.time_axis]
        ends = np.linspace(0, array.sizes[time] - 1, min(_SAMPLE_GLOBES, array.sizes[time]))
        where[time] = ends.astype(int)
    for dim, most in ((rows, _MOST_ROWS), (columns, _MOST_COLUMNS)):
        where[dim] = slice(None, None, -(-array.sizes[dim] // most))
    part = array.isel(where).transpose(*layout.dims)
    thin = Layout.of(part)
    shape = (-1, *part.shape[-2:])
    return part.to_numpy().reshape(shape), SphereGrid(thin.latitude, thin.longitude)


def _judge(
    path: Path, where: str, array: xr.DataArray, values: npt.NDArray[Any], grid: SphereGrid
) -> ModelFit:
    try:
        model = Model.from_file(path)
    except ValueError as error:
        return ModelFit(path.stem, where, None, fits=False, reason=str(error))
    if reason := _made_for_other(model, array):
        return ModelFit(path.stem, where, model, fits=False, reason=reason)
    unit = unit_settings(model, array.attrs).get("to_model_unit")
    tried = in_unit_of_data(model, *unit) if unit else model
    reason, rmse = _try(tried, values, grid)
    remarks = reason or "; ".join(_remarks(model, array))
    return ModelFit(path.stem, where, model, fits=not reason, reason=remarks, rmse=rmse)


def _made_for_other(model: Model, array: xr.DataArray) -> str:
    """Why a model is of no use, by what model and variable say of themselves; empty if nothing."""
    if model.domain != "sphere":
        return "made for patches of images, volumes or sound, not for globes"
    known, name = model.card.get("standard_name"), array.attrs.get("standard_name")
    if known and name and known != name:
        return f"made for {known}, and the variable is {name}"
    units = str(array.attrs.get("units", ""))
    if model.units and units and units != model.units:
        # Temperatures are converted; other units have many spellings, and the values tell then.
        theirs, ours = temperature_scale(model.units), temperature_scale(units)
        if theirs != ours and (theirs is None or ours is None):
            return f"made for values in {model.units}, and the variable is in {units}"
    return ""


def _try(model: Model, values: npt.NDArray[Any], grid: SphereGrid) -> tuple[str, float | None]:
    """What the codec says of the model on a few globes (empty if nothing), and the RMSE."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CompressionWarning)
        try:
            payload = encode_chunk(values, model, bits=DEFAULT_BITS, grid=grid)
        except ValueError as error:
            return str(error), None
    said = [str(w.message) for w in caught if issubclass(w.category, CompressionWarning)]
    reason = said[0].split(";")[0] if said else ""
    if not Payload.unpack(payload).kind.has_model:
        return reason or "too little in two globes to tell", None
    decoded = decode_chunk(payload, lambda fingerprint: model, grid=grid)
    return reason, chunk_rmse(
        field_errors(values, decoded, CellWeights.of_latitudes(grid.latitude, grid.shape[1]))
    )


def _remarks(model: Model, array: xr.DataArray) -> Iterator[str]:
    """What a user should know of a model that fits."""
    variable = model.card.get("variable")
    if variable and variable != array.name:
        yield f"trained on {variable}"
    layout = Layout.of(array)
    own = f"{len(layout.latitude)} x {len(layout.longitude)}"
    if (grid := model.card.get("grid")) and grid != own:
        yield f"trained on a grid of {grid}"
