"""Chunks that hold whole fields."""

from __future__ import annotations

from coinpp_xr.coordinates import SphereGrid


def check_whole_fields(
    shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    axes: int = 2,
    grid: SphereGrid | None = None,
) -> None:
    """Refuse chunks that cut or pad fields.

    Parameters
    ----------
    shape, chunk_shape : tuple of int
    axes : int
        How many of the last axes hold the cells of a field.
    grid : SphereGrid, optional

    Raises
    ------
    ValueError
    """
    if len(shape) < axes:
        needs = "two axes (..., latitude, longitude)" if axes == 2 else "one axis of cells"
        raise ValueError(f"needs at least {needs}, got shape {shape}")
    own, given = shape[len(shape) - axes :], chunk_shape[len(shape) - axes :]
    if 0 not in own and given != own:
        cut, whole = (" × ".join(map(str, cells)) for cells in (given, own))
        raise ValueError(
            f"chunks of {cut} cells do not hold whole fields of {whole}; use "
            f"chunks={(*chunk_shape[: len(shape) - axes], *own)}"
        )
    if grid is not None and own != grid.shape:
        raise ValueError(
            f"the codec was made for a grid of {grid.shape[0]} × {grid.shape[1]}, the array has "
            f"{own[0]} × {own[1]}; make a codec with this array's latitude and longitude"
        )
