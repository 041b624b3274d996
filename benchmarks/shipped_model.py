"""The shipped model's rate and error: on its own kind of data and on ERA5, which it has not seen.

COINPP_DATA=... python benchmarks/shipped_model.py
"""

from __future__ import annotations

import xarray as xr
from common import climate, open_variable, write_result

import coinpp_xr


def rows(da: xr.DataArray, all_bits: tuple[int, ...]) -> list[dict[str, float]]:
    table = []
    for bits in all_bits:
        (row,) = da.to_dataset(name="t2m").coinpp.compress(bits=bits).report.variables
        table.append({"bits": bits, **row.to_dict()})
    return table


def main() -> None:
    sources = {
        "simulated months after the training data (720 globes, 46 x 90)": open_variable(
            climate("gcm_6hourly_test_46x90.nc")
        ),
        "real ERA5, never seen (12 globes, 46 x 90)": open_variable(climate("era5_t2m_46x90.nc")),
        "real ERA5, never seen (12 globes, 181 x 360)": open_variable(
            climate("era5_snapshots_1deg.nc")
        ),
    }
    result = {name: rows(da, (3, 4, 5, 6, 8, 12, 16)) for name, da in sources.items()}
    model = coinpp_xr.load_model("t2m-46x90")
    write_result(
        "shipped_model",
        {"model": model.name, "model_bytes": model.nbytes, "latents": model.latent_dim, **result},
    )


if __name__ == "__main__":
    main()
