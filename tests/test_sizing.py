"""The size of a model follows from what an archive can pay for."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from coinpp_xr import COINppCodec
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.harmonics import harmonics
from coinpp_xr.sizing import smallest_model

GRID = next(SphereGrid.usual_layouts(16, 32))


@pytest.fixture(scope="module")
def archive() -> xr.DataArray:
    """120 fields made of 20 rough patterns that follow no isotropic rule."""
    rng = np.random.default_rng(0)
    patterns = rng.standard_normal((20, 81)) @ harmonics(GRID.points, 8).T
    scores = rng.standard_normal((120, 20)) * np.linspace(3, 1, 20)
    values = 280 + scores @ patterns + 5 * harmonics(GRID.points, 3)[:, 7]
    return xr.DataArray(
        values.reshape(120, *GRID.shape).astype("f4"),
        dims=("time", "lat", "lon"),
        coords={"lat": GRID.latitude, "lon": GRID.longitude},
        name="t2m",
        attrs={"units": "K"},
    )


def test_large_archives_pay_for_larger_models(archive) -> None:
    how = {"target_rmse": 3.0, "chunk_time": 32}
    few, _ = smallest_model(archive, globes=10, **how)
    model, sizes = smallest_model(archive, globes=10**6, **how)
    assert model is not None
    assert model.latent_dim >= 16
    assert few is None or few.latent_dim < model.latent_dim

    chosen = next(sized for sized in sizes if sized.model is model)
    assert chosen.total(10**6) == min(sized.total(10**6) for sized in sizes)
    codec = COINppCodec(
        model, target_rmse=3.0, latitude=GRID.latitude, longitude=GRID.longitude, embed_model=True
    )
    again = COINppCodec.from_config(codec.get_config())
    values = archive.to_numpy()[:32]
    payload = codec.encode(values)
    decoded = again.decode(payload)
    assert np.sqrt((((decoded - values) ** 2).sum((1, 2)) @ np.ones(32)) / values.size) < 4
    assert abs(8 * len(payload) / 32 - chosen.bits_per_globe) < 0.3 * chosen.bits_per_globe


@pytest.mark.parametrize(
    "change",
    [
        lambda da: da[:1],
        lambda da: da[:, 4:9, 3:12],
        lambda da: da.where(da > 1e9),
        lambda da: 0 * da[:20] + 1,
    ],
    ids=["one field", "a region", "nothing but NaN", "constant"],
)
def test_where_nothing_can_be_learned_there_is_no_model(archive, change) -> None:
    model, sizes = smallest_model(change(archive), target_rmse=1.0)
    assert model is None
    assert len(sizes) == 1
