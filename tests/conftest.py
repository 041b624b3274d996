"""Data and models that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

# Tiny arrays: one thread each is fastest, above all on a busy machine. Tests of what several
# threads do set their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")
# Tests that decode a payload twice mean it.
os.environ.setdefault("COINPP_XR_DECODED_CACHE_BYTES", "0")

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings

import coinpp_xr
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.models import Model
from coinpp_xr.siren import ModulatedSiren

EXAMPLES = Path(__file__).parent.parent / "examples"

# The same examples every time; --hypothesis-profile=random looks further.
settings.register_profile("same", derandomize=True)
settings.register_profile("random", derandomize=False)
settings.load_profile("same")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with larger real data; tests that need it skip without it."""
    if "COINPP_DATA" not in os.environ:
        pytest.skip("needs the data folder named by COINPP_DATA")
    return Path(os.environ["COINPP_DATA"])


@pytest.fixture(scope="session")
def era5() -> xr.Dataset:
    """Twelve real ERA5 globes of 2 m temperature, 46 × 90, in memory."""
    with xr.open_dataset(EXAMPLES / "era5_t2m_46x90.nc", engine="netcdf4") as ds:
        return ds.load()


@pytest.fixture(scope="session")
def tiny_model() -> Model:
    """An untrained network with three latents, for what does not depend on scores."""
    rng = np.random.default_rng(7)
    siren = ModulatedSiren.initialise(
        dim_in=3, dim_out=1, width=16, depth=2, latent_dim=3, omega0=10.0, shift_scale=0.01, rng=rng
    )
    mean, std = np.zeros(3), np.ones(3)
    histogram = fit_histogram(rng.standard_normal((500, 3)), mean, std)
    model = Model("tiny", siren, "sphere", 200.0, 100.0, mean, std, histogram, {"units": "K"})
    return coinpp_xr.load_model(model)


@pytest.fixture
def tiny_globes(tiny_model: Model) -> np.ndarray:
    """Five globes of 10 × 20 that the tiny model can represent, float32, plus a little noise."""
    grid = next(SphereGrid.usual_layouts(10, 20))
    rng = np.random.default_rng(3)
    latents = rng.standard_normal((5, 3)).astype(np.float32)
    features = tiny_model.siren(grid.points, latents)[..., 0].reshape(5, 10, 20)
    noise = 0.001 * rng.standard_normal(features.shape)
    return (200 + 100 * (features + noise)).astype(np.float32)
