"""Write the golden payloads of the current bitstream format.

    python tests/golden/make.py

Run it only when a new format version is released: payloads of released versions never change.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coinpp_xr.bitstream import VERSION
from coinpp_xr.chunk import decode_chunk, encode_chunk
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.models import Model
from coinpp_xr.siren import ModulatedSiren

HERE = Path(__file__).parent
LATITUDE, LONGITUDE = [60.0, 20.0, -10.0, -50.0], [0.0, 50.0, 100.0, 200.0, 300.0]


def golden_model() -> Model:
    rng = np.random.default_rng(7)
    siren = ModulatedSiren.initialise(
        dim_in=3, dim_out=1, width=8, depth=2, latent_dim=2, omega0=10.0, shift_scale=0.02, rng=rng
    )
    mean, std = np.zeros(2), np.ones(2)
    histogram = fit_histogram(rng.standard_normal((500, 2)), mean, std)
    return Model("golden", siren, "sphere", 200.0, 100.0, mean, std, histogram, {})


def chunks(model: Model) -> dict[str, tuple[np.ndarray, SphereGrid | None, int]]:
    """Name → values, coordinates, bits."""
    rng = np.random.default_rng(5)
    own = SphereGrid(np.array(LATITUDE), np.array(LONGITUDE))
    usual = next(SphereGrid.usual_layouts(10, 20))

    def fields(grid: SphereGrid, n: int) -> np.ndarray:
        latents = rng.standard_normal((n, 2)).astype(np.float32)
        return 200 + 100 * model.siren(grid.points, latents)[..., 0].reshape(n, *grid.shape)

    plain = fields(usual, 12).astype("<f4")
    masked = fields(usual, 12)
    masked[:, 2:5, 3:7] = np.nan
    masked[0, 0, 0], masked[11] = -np.inf, 0.0
    outlying = fields(usual, 40)
    outlying[7] = 200 + 100 * model.siren(usual.points, np.array([[9.0, -9.0]], np.float32))[
        0, :, 0
    ].reshape(usual.shape)
    return {
        "usual-f4": (plain, None, 8),
        "masked-f8-big-endian": (masked.astype(">f8"), None, 5),
        "own-coordinates-f2": (fields(own, 60).astype("<f2"), own, 3),
        "escapes-f4": (outlying.astype("<f4"), None, 12),
        "lossless-i2": (np.arange(24, dtype="<i2").reshape(2, 3, 4), None, 8),
        "lossless-nan": (np.full((2, 10, 20), np.nan, "<f4"), None, 8),
    }


def main() -> None:
    model = golden_model()
    folder = HERE / f"format-{VERSION}"
    folder.mkdir(exist_ok=True)
    model.save(folder / "golden.safetensors")
    for name, (values, grid, bits) in chunks(model).items():
        payload = encode_chunk(values, model, bits=bits, grid=grid)
        (folder / f"{name}.cnpp").write_bytes(payload)
        np.save(folder / f"{name}.npy", decode_chunk(payload, lambda _: model, grid=grid))


if __name__ == "__main__":
    main()
