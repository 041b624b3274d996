"""What the fields of an archive share: their mean on their own grid, and how they differ from it.

The pyramid refers to it as if it were one of the fields: coasts, mountains and the mean state need
not be told chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.caching import remembered
from coinpp_xr.coding.pyramid.background import Background
from coinpp_xr.coding.pyramid.experts import ARRAYS, Expert
from coinpp_xr.coding.pyramid.single_field import pack_field, unpack_field
from coinpp_xr.coding.pyramid.stream import MOST_CELLS
from coinpp_xr.coordinates import SphereGrid

Float64 = npt.NDArray[np.float64]

_PREFIX = "climatology."


@dataclass(frozen=True, eq=False)
class Climatology:
    """The mean field of an archive, and a network that was trained on the fields around it.

    Parameters
    ----------
    packed : uint8 array, shape (bytes,)
        The mean of the features, as one field of a pyramid.
    latitude, longitude : float64 array
        Degrees.
    network : tuple of int arrays
        Weights and biases, see :class:`coinpp_xr.coding.pyramid.expert.Network`; empty for none.
    """

    packed: npt.NDArray[np.uint8]
    latitude: Float64
    longitude: Float64
    network: tuple[npt.NDArray[Any], ...] = ()

    @classmethod
    def of(cls, mean: Float64, grid: SphereGrid, error: float) -> Climatology:
        """Of a mean field, kept within an error.

        Parameters
        ----------
        mean : float64 array, shape (n_lat, n_lon)
            Of features; NaN where there are none.
        grid : SphereGrid
        error : float

        Raises
        ------
        ValueError
            If the field holds nothing, or has too many cells.
        """
        if not np.isfinite(mean).any() or mean.size > MOST_CELLS:
            raise ValueError(f"a mean field needs values in some of at most {MOST_CELLS:,} cells")
        packed = pack_field(mean, grid, error)
        missing = ~np.isfinite(mean)
        if missing.any():  # what the coder expects there costs next to nothing, and needs no mask
            packed = pack_field(unpack_field(packed, grid.shape, missing), grid, error)
        return cls(np.frombuffer(packed, np.uint8), grid.latitude, grid.longitude)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, npt.NDArray[Any]]) -> Climatology:
        """Of the arrays of a model file.

        Raises
        ------
        ValueError
            If its network is none.
        """
        packed, *degrees = (
            tensors[f"{_PREFIX}{part}"] for part in ("packed", "latitude", "longitude")
        )
        network = [tensors.get(f"{_PREFIX}{array}") for array in ARRAYS]
        found = cls(
            packed, degrees[0], degrees[1], tuple(array for array in network if array is not None)
        )
        _ = found.expert  # a damaged one should show now
        return found

    @property
    def tensors(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays of a model file, by name."""
        parts: list[npt.NDArray[Any]] = [self.packed, self.latitude, self.longitude, *self.network]
        names = ("packed", "latitude", "longitude", *ARRAYS)
        return {f"{_PREFIX}{name}": part for name, part in zip(names, parts, strict=False)}

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.latitude), len(self.longitude)

    @cached_property
    def expert(self) -> Expert | None:
        return Expert.for_references(self.network) if self.network else None

    @cached_property
    def features(self) -> Float64:
        """The mean field, shape (n_lat, n_lon); where there was none, what suits the rest.

        Raises
        ------
        CorruptPayloadError
        """
        return unpack_field(self.packed.tobytes(), self.shape)

    def background(self, grid: SphereGrid, offset: float, scale: float) -> Background | None:
        """What the pyramid refers to on a grid, in a unit; None where the grid is another.

        Parameters
        ----------
        grid : SphereGrid
        offset, scale : float
            Values are scale · features + offset.
        """
        return _background(self, grid, offset, scale)

    def on(self, grid: SphereGrid) -> Float64 | None:
        """Its features on a grid of the same points in another order; None for other grids."""
        places = grid.places_among(self.latitude, self.longitude)
        return None if places is None else self.features[places]


@remembered(lambda found, *_: 0 if found is None else found.field.nbytes)
def _background(
    climatology: Climatology, grid: SphereGrid, offset: float, scale: float
) -> Background | None:
    """The same for chunk after chunk."""
    features = climatology.on(grid)
    return None if features is None else Background(scale * features + offset, climatology.expert)
