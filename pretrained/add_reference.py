"""Puts real fields into a model file, for the coder of residuals to learn from before it starts.

The first six of the twelve ERA5 globes in examples/: the other six are for measuring what it is
worth. Run update_registry.py afterwards.

Example: python pretrained/add_reference.py
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import xarray as xr

from coinpp_xr.models import Model
from coinpp_xr.reference import FRACTION, Reference

FOLDER = Path(__file__).parent
EXAMPLE = FOLDER.parent / "examples" / "era5_t2m_46x90.nc"
GLOBES = 6
DESCRIPTION = (
    f"the first {GLOBES} of the 12 ERA5 globes in examples/era5_t2m_46x90.nc (2026-03-25T00 to "
    "2026-03-26T13 UTC; contains modified Copernicus Climate Change Service information), used "
    "under max_error"
)


def reference_of(fields: xr.DataArray, model: Model) -> Reference:
    """Fields (time, lat, lon) as whole numbers around the model's offset."""
    numbers = np.rint((fields.values.astype(np.float64) - model.offset) * FRACTION)
    latitude, longitude = (fields[name].values.astype(np.float64) for name in ("lat", "lon"))
    return Reference(numbers.astype(np.int16), latitude, longitude)


def main() -> None:
    path = FOLDER / "t2m-46x90.safetensors"
    model = Model.from_file(path)
    with xr.open_dataset(EXAMPLE) as ds:
        reference = reference_of(ds.t2m[:GLOBES], model)
    description = model.card["description"].replace(
        "it has never seen ERA5 or any other observed weather",
        "the network has never seen ERA5 or any other observed weather",
    )
    card = {**model.card, "description": description, "reference": DESCRIPTION}
    replace(model, reference=reference, card=card).save(path)


if __name__ == "__main__":
    main()
