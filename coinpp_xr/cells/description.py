"""What a codec knows of a grid that is not one of latitudes and longitudes, as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.axes import axis_values, compact_axis
from coinpp_xr.cells import healpix, places, rows
from coinpp_xr.cells.folding import Fold, FoldKind, folds_of, folds_of_rows
from coinpp_xr.coordinates import parse_degrees
from coinpp_xr.errors import shown

Int = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

# Two axes of rows and columns; and one axis of cells, in some order or in one of a known kind, or
# at places of their own.
INDEX, CELLS, PLACED = "index", "cells", "placed"
_KINDS = {
    "healpix": FoldKind.HEALPIX_NESTED,
    "healpix-ring": FoldKind.HEALPIX_RING,
    "icon": FoldKind.TRIANGLES,
}
NAMES = (INDEX, CELLS, *_KINDS)


@dataclass(frozen=True, eq=False)
class GridDescription:
    """How the cells of a field lie in an array.

    Parameters
    ----------
    name : str
        One of ``NAMES``, or "rows", or "placed".
    lengths : int array, shape (rows,), optional
        How many cells every row has.
    latitude : float64 array, shape (rows,), optional
        Degrees, of rows whose cells begin at the meridian and are evenly spaced.
    told_places : dict, optional
        Where cells are, see :mod:`coinpp_xr.cells.places`.
    """

    name: str
    lengths: Int | None = None
    latitude: Float64 | None = None
    told_places: dict[str, Any] | None = None

    @classmethod
    def at(cls, latitude: npt.ArrayLike, longitude: npt.ArrayLike) -> GridDescription:
        """Of cells anywhere, by their latitudes and longitudes, degrees, in their shape.

        Raises
        ------
        ValueError
        """
        return cls(PLACED, told_places=places.pack(latitude, longitude))

    @classmethod
    def parse(cls, given: Any) -> GridDescription:
        """From a name; ``{"rows": lengths}``, perhaps with ``"latitude"``, degrees of rows; or
        ``{"latitude": degrees, "longitude": degrees}`` of all cells.

        Raises
        ------
        ValueError
        """
        if isinstance(given, str) and given in NAMES:
            return cls(given)
        if isinstance(given, Mapping) and set(given) == {"latitude", "longitude"}:
            return cls.at(given["latitude"], given["longitude"])
        if isinstance(given, Mapping) and set(given) == {"places"}:
            places.unpack(given["places"])
            return cls(PLACED, told_places=dict(given["places"]))
        if isinstance(given, Mapping) and {"rows"} <= set(given) <= {"rows", "latitude"}:
            lengths = np.asarray(axis_values(given["rows"]), np.float64)
            whole = lengths.ndim == 1 and 1 <= len(lengths) <= rows.MOST_ROWS
            if whole and (lengths == np.rint(lengths)).all() and lengths.min() >= 1:
                latitude = given.get("latitude")
                if latitude is not None:
                    latitude = parse_degrees("latitude", axis_values(latitude))
                    if latitude.shape != lengths.shape or np.abs(latitude).max() > 90:
                        raise ValueError("grid: rows need a latitude each, within -90 .. 90")
                return cls("rows", lengths.astype(np.int64), latitude)
            raise ValueError(f"grid: rows must be how many cells each has, got {shown(given)}")
        raise ValueError(
            f"grid must be one of {', '.join(map(repr, NAMES))}, {{'rows': lengths}} or "
            f"{{'latitude': degrees, 'longitude': degrees}} of all cells, got {shown(given)}"
        )

    @property
    def config(self) -> Any:
        """Plain JSON of which :meth:`parse` makes the same."""
        if self.told_places is not None:
            return {"places": self.told_places}
        if self.lengths is None:
            return self.name
        told = {"rows": compact_axis(self.lengths.astype(np.float64))}
        if self.latitude is None:
            return told
        return {**told, "latitude": compact_axis(self.latitude)}

    def places(self, cells: int) -> Float64 | None:
        """Latitude and longitude of so many cells, shape (2, cells), where the grid tells them."""
        if self.told_places is not None:
            return places.unpack(self.told_places)
        if self.lengths is not None and self.latitude is not None:
            longitude = rows.numbers(self.lengths) * 360 / np.repeat(self.lengths, self.lengths)
            return np.stack([np.repeat(self.latitude, self.lengths), longitude])
        nside = healpix.nside_of(cells) if self.name.startswith("healpix") else None
        if nside is None:
            return None
        pixels = (healpix.nested if self.name == "healpix" else healpix.ring)(nside)
        # So that the last bit of an arc sine, which not all machines agree on, does not count.
        return np.asarray(np.round(np.stack(healpix.centres(pixels, nside)), 9), np.float64)

    @property
    def tells_places(self) -> bool:
        """Whether it says of every cell where it is."""
        placed = self.told_places is not None or self.latitude is not None
        return placed or self.name.startswith("healpix")

    @property
    def axes(self) -> int:
        """How many of the last axes of an array hold the cells of a field."""
        has_columns = self.told_places is not None and "columns" in self.told_places
        return 2 if self.name == INDEX or has_columns else 1

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse cells in another shape than those whose places are known.

        Raises
        ------
        ValueError
        """
        told = self.told_places
        if told is None:
            return
        cells, columns = told["cells"], told.get("columns")
        own = (cells,) if columns is None else (cells // columns, columns)
        if own != shape:
            raise ValueError(f"the codec's grid has {own} cells, the array {shape}")

    def folds(self, cells: int) -> list[Fold]:
        """The folds that cells may be coded in, one or several.

        Raises
        ------
        ValueError
            If so many cells are none of such a grid.
        """
        if self.lengths is not None:
            total = int(self.lengths.sum())
            if total != cells:
                raise ValueError(
                    f"the rows of the codec's grid have {total:,} cells together, the array has "
                    f"{cells:,} along its last axis"
                )
            return [*folds_of(cells, FoldKind.ORDER), *folds_of_rows(self.lengths)]
        if self.told_places is not None:
            self.check((cells,))
            return [*folds_of(cells, FoldKind.ORDER), *folds_of(cells, FoldKind.SQUARE)]
        if self.name == CELLS:
            return folds_of(cells)
        found = folds_of(cells, _KINDS[self.name])
        if not found:
            raise ValueError(
                f"the array's last axis has {cells:,} cells, and no {self.name} grid has so many; "
                "give grid='cells' for cells in any order"
            )
        return found
