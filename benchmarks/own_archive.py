"""What a model of one's own archive saves: trained on half of the 1° snapshots, used on the rest.


Twelve snapshots of ERA5 from three and a half days: the first six train, the last six are coded.
Bytes are those of whole payloads; at 1,000 globes the model is counted once. Beside it the static
field that the paper would take: a SIREN of the sphere's coordinates, of as many bytes as the mean
field's own coding.

    COINPP_DATA=... python benchmarks/own_archive.py          # a quarter of an hour
    COINPP_DATA=... python benchmarks/own_archive.py t2m SIREN  # these anew
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from common import RESULTS, climate, load, open_variable, weighted_rmse, write_result

from coinpp_xr import COINppCodec, climatology_model, coin, load_model
from coinpp_xr.codecs.base import UNIVERSAL
from coinpp_xr.coding.pyramid import bounded
from coinpp_xr.coding.pyramid.experts import expert_for
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fields import Fields
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model

VARIABLES = ("t2m", "msl", "u10", "v10")
# Bounds, in parts of a variable's spread.
SHARES = (0.002, 0.01, 0.05)
TRAINED, GLOBES, MINUTES = 6, 1000, 1.0
# Of the SIREN.
OF_SIREN, DEPTH, SCHEDULE = ("t2m", "msl"), 3, coin.Schedule(1500, 1e-3)


def nbytes(codec: COINppCodec, fields: xr.DataArray) -> float:
    """Per globe, each a chunk; the bound is checked."""
    sizes = []
    for values in fields.values:
        payload = codec.encode(values)
        error = np.abs(codec.decode(payload).astype(np.float64) - values).max()
        assert codec.max_error is not None
        assert error <= codec.max_error
        sizes.append(len(payload))
    return float(np.mean(sizes))


def with_models(fields: xr.DataArray, share: float) -> tuple[dict[str, Any], Model | None]:
    """One variable at one bound."""
    bound = share * float(fields.std())
    model, tried = climatology_model(
        fields[:TRAINED], max_error=bound, globes=GLOBES, max_minutes=MINUTES,
        name=f"{fields.name}-own",
    )  # fmt: skip
    unseen = fields[TRAINED:]
    row: dict[str, Any] = {
        "variable": fields.name, "share": share, "bound": bound,
        "universal": nbytes(COINppCodec(UNIVERSAL, max_error=bound), unseen),
    }  # fmt: skip
    if model is not None and model.climatology is not None:
        row["own"] = nbytes(COINppCodec(model, max_error=bound), unseen)
        row["model"] = next(one.model_nbytes for one in tried if one.label == model.card["network"])
        alone = replace(model.climatology, network=())
        plain = load_model(replace(model, name="plain", climatology=alone))
        row["mean field alone"] = nbytes(COINppCodec(plain, max_error=bound), unseen)
        row["mean field's bytes"] = len(alone.packed)
    return row, model


def with_siren(fields: xr.DataArray, bound: float, model: Model) -> dict[str, Any]:
    """A SIREN of the mean field as the background, and the mean field's own coding."""
    assert model.climatology is not None
    grid = SphereGrid(fields.latitude.values, fields.longitude.values)
    # The last tenth of what is trained on, one field, is held out.
    mean = fields[: TRAINED - 1].values.mean(axis=0, dtype=np.float64)
    features = ((mean - model.offset) / model.scale).reshape(1, -1, 1)
    packed = len(model.climatology.packed)
    width = 8
    while coin.CoinNetwork(3, 1, width + 1, DEPTH).nbytes() <= packed:
        width += 1
    network = coin.CoinNetwork(3, 1, width, DEPTH)
    fitted = coin.fit(features, grid.points, network, SCHEDULE, weights=grid.area_weights)
    decoded = coin.decode(coin.encode(fitted[0]), network, grid.points)
    siren = model.offset + model.scale * decoded.reshape(mean.shape)
    found: dict[str, Any] = {"width": width, "depth": DEPTH, "steps": SCHEDULE.steps}
    own = model.offset + model.scale * model.climatology.features
    backgrounds = {"none": None, "mean field": own, "SIREN": siren.astype(np.float64)}
    for name, background in backgrounds.items():
        total = 0
        for values in fields[TRAINED:].values:
            chunk = Fields.of_sequence(values[None], grid)
            coded = bounded.encode(
                chunk, Bound(bound), chunk.sequences, "default",
                expert_for("default", large=False), background=background,
            )  # fmt: skip
            assert coded is not None
            total += len(coded)
        found[name] = {"nbytes per globe": total / (len(fields) - TRAINED)}
        if background is not None:
            rmse = weighted_rmse(background[None], mean[None], grid.area_weights)
            found[name]["RMSE"] = rmse
    found["mean field"]["nbytes"], found["SIREN"]["nbytes"] = packed, network.nbytes()
    return found


def main(parts: list[str]) -> None:
    rows, sirens = [], []
    for name in parts:
        if name == "SIREN":
            for variable in OF_SIREN:
                fields = open_variable(climate("era5_snapshots_1deg.nc"), variable)
                row, model = with_models(fields, SHARES[1])
                if model is not None:
                    sirens.append({"variable": variable, **with_siren(fields, row["bound"], model)})
                    print(sirens[-1], flush=True)
            continue
        fields = open_variable(climate("era5_snapshots_1deg.nc"), name)
        for share in SHARES:
            rows.append(with_models(fields, share)[0])
            print(rows[-1], flush=True)
    if (RESULTS / "own_archive.json").exists():
        known = load("own_archive")
        rows += [case for case in known["cases"] if case["variable"] not in parts]
        sirens = sirens or known["SIREN"]
    rows.sort(key=lambda case: VARIABLES.index(case["variable"]))
    result = {"trained on": TRAINED, "minutes": MINUTES, "globes": GLOBES}
    write_result("own_archive", {**result, "cases": rows, "SIREN": sirens})


if __name__ == "__main__":
    main(sys.argv[1:] or [*VARIABLES, "SIREN"])
