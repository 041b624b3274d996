"""Write the golden payloads of the current bitstream format.

    python tests/golden/make.py

Only what is not there yet: payloads of released versions never change.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from coinpp_xr import (
    AudioPatchCodec,
    COINppCodec,
    ImagePatchCodec,
    VolumePatchCodec,
    load_model,
)
from coinpp_xr.bitstream import VERSION, Payload
from coinpp_xr.chunk import encode_chunk
from coinpp_xr.chunk_reading import decode_chunk
from coinpp_xr.climatology import Climatology
from coinpp_xr.coding.pyramid.expert_units import N_INPUTS
from coinpp_xr.coordinates import BoxGrid, SphereGrid
from coinpp_xr.deblocking import Deblocking
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.lattice import Bound
from coinpp_xr.models import Model
from coinpp_xr.network import LinearTail, QuantizedTail
from coinpp_xr.patch_learning import learn_prior
from coinpp_xr.patches import Layout, Patching
from coinpp_xr.reference import Reference
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.transform import fit_spectrum, sphere_transform

HERE = Path(__file__).parent
LATITUDE, LONGITUDE = [60.0, 20.0, -10.0, -50.0], [0.0, 50.0, 100.0, 200.0, 300.0]


def golden_model() -> Model:
    rng = np.random.default_rng(7)
    siren = ModulatedSiren.initialise(
        dim_in=3, dim_out=1, width=8, depth=2, latent_dim=2, omega0=10.0, shift_scale=0.02, rng=rng
    )
    mean, std = np.zeros(2), np.ones(2)
    histogram = fit_histogram(rng.standard_normal((500, 2)), mean, std)
    modes = rng.standard_normal((3, 16)) * np.array([[0.05], [0.03], [0.02]])
    tail = LinearTail(0.01 * rng.standard_normal(16), modes)
    walks = np.cumsum(0.3 * rng.standard_normal((300, 5)), axis=0)
    grid = next(SphereGrid.usual_layouts(10, 20))
    numbers = rng.standard_normal((3, 10, 20)).cumsum(1).cumsum(2)
    reference = Reference((1000 * numbers).astype(np.int16), grid.latitude, grid.longitude)
    return Model(
        "golden", siren, "sphere", 200.0, 100.0, mean, std, histogram, {},
        QuantizedTail.of(tail, np.ones(3), 1e-3), fit_spectrum([walks]), reference,
    )  # fmt: skip


def golden_climatology_model() -> Model:
    """What fields of one grid share, and a network of the pyramid."""
    rng = np.random.default_rng(9)
    grid = next(SphereGrid.usual_layouts(20, 36))
    network = []
    for outputs, inputs in ((4, N_INPUTS), (4, 4), (2, 4)):
        network.append(rng.integers(-90, 90, (outputs, inputs)).astype(np.int16))
        network.append(rng.integers(-9000, 9000, outputs).astype(np.int32))
    mean = 0.1 * rng.standard_normal((20, 36))  # what neighbours do not tell
    mean[5:8, 9:20] = np.nan
    climatology = replace(Climatology.of(mean, grid, 1e-3), network=tuple(network))
    return Model.without_siren("golden-climatology", 200.0, 100.0, {}, climatology=climatology)


def golden_patch_model() -> Model:
    """For patches of images with three channels."""
    rng = np.random.default_rng(8)
    siren = ModulatedSiren.initialise(
        dim_in=2, dim_out=3, width=8, depth=2, latent_dim=2, omega0=10.0, shift_scale=0.02, rng=rng
    )
    mean, std = np.zeros(5), np.array([1.0, 1.0, 3.0, 2.0, 1.0])
    histogram = fit_histogram(std * rng.standard_normal((500, 5)), mean, std)
    box = BoxGrid((12, 8))
    modes = np.zeros((3, 3, *box.shape))
    modes[0, :, 0, 0], modes[1, :, 0, 1], modes[2, :, 1, 0] = 0.1, 0.05, 0.05
    tail = LinearTail(0.01 * rng.standard_normal(288), modes.reshape(3, -1), box)
    shades = rng.standard_normal((3, 64, 64, 3)).cumsum(1).cumsum(2).astype(np.float32)
    prior = learn_prior(list(shades), Layout(2, "last"), Patching.of((32, 32)))
    # Some of what neighbours differ by on average, where that is not much.
    smoothing = np.full((3, 3), 1 / 9, np.float32)
    smoothing[1, 1] -= 1
    first = np.zeros((2, 4, 1, 3, 3), np.float32)
    first[0, 0, 0], first[1, 0, 0] = 0.3 * smoothing, -0.3 * smoothing
    last = np.zeros((1, 2, 1, 3, 3), np.float32)
    last[0, :, 0, 1, 1] = 1, -1
    deblocking = Deblocking((first, last), (np.zeros(2, np.float32), np.zeros(1, np.float32)))
    return Model(
        "golden-patch", siren, "patch", 0.0, 1.0, mean, std, histogram, {},
        QuantizedTail.of(tail, np.ones(3), 1e-3), box=box, prior=prior,
        deblocking=deblocking,
    )  # fmt: skip


def chunks(model: Model) -> dict[str, tuple[np.ndarray, SphereGrid | None, dict[str, Any]]]:
    """Name → values, coordinates, rate control and other options."""
    rng = np.random.default_rng(5)
    own = SphereGrid(np.array(LATITUDE), np.array(LONGITUDE))
    usual = next(SphereGrid.usual_layouts(10, 20))

    def fields(grid: SphereGrid, n: int) -> np.ndarray:
        latents = rng.standard_normal((n, 2)).astype(np.float32)
        return 200 + 100 * model.coded_network(grid.points, latents)[..., 0].reshape(n, *grid.shape)

    plain = fields(usual, 12).astype("<f4")
    masked = fields(usual, 12)
    masked[:, 2:5, 3:7] = np.nan
    masked[0, 0, 0], masked[11] = -np.inf, 0.0
    outlying = fields(usual, 40)
    extreme = model.coded_network(usual.points, np.array([[9.0, -9.0]], np.float32))
    outlying[7] = 200 + 100 * extreme.reshape(usual.shape)
    wave = np.sin(np.arange(30)[:, None] / 9 + np.arange(5)).astype(np.float32)
    slow = 200 + 100 * model.network(usual.points, wave)[..., 0].reshape(30, *usual.shape)
    rough = 50 * rng.standard_normal((4, 10, 20))
    tiles = np.kron(np.random.default_rng(2).standard_normal((3, 5, 5)), np.ones((1, 2, 4)))
    with_gaps = rng.standard_normal((2, 9, 10, 20)).cumsum(1).cumsum(2).cumsum(3)
    with_gaps[:, :, :3, 4:9], with_gaps[0, 3], with_gaps[:, 5] = np.nan, np.inf, np.nan
    swell = np.sin(np.arange(60)[:, None, None] / 25 + usual.points @ np.array([3.0, 5, 1]))
    smooth = 20 * swell.reshape(60, 10, 20)
    y, x = np.mgrid[:128, :136]
    larger = np.stack([20 * np.sin(y / 21) * np.cos(x * np.pi / 68 + t / 3) for t in range(2)])
    larger += 0.2 * np.random.default_rng(13).standard_normal(larger.shape)
    # Zero over half of them, and a few values that are set aside.
    rain = np.maximum(with_gaps[0, :, 5:, 9:] / 9, 0)[[0, 1, 2, 4, 6]]
    rain[0, 0, :3] = np.nan
    showers = np.maximum(np.sin(x[:30, :44] / 5) * np.cos(y[:30, :44] / 4) - 0.2, 0)
    showers = 30 * showers**2 * np.random.default_rng(14).lognormal(0, 1, (2, 30, 44))
    showers[0, 3:5, 4:9] = np.nan
    fraction = np.clip(larger / 30 + 0.5, 0, 1)
    ridges = np.random.default_rng(16).standard_normal((2, 128, 136)).cumsum(1).cumsum(2).cumsum(0)
    holed = ridges[:, ::-1].copy()
    holed[:, 20:60, 30:70] = np.nan
    globe = sphere_transform(next(SphereGrid.usual_layouts(40, 80)))
    turning = np.random.default_rng(17).standard_normal((2, 12, 30, 60)).cumsum(axis=1)
    swells = globe.inverse(turning)
    months = np.cos(2 * np.pi * np.arange(24) / 12)[:, None, None]
    seasons = globe.inverse(months * turning[0, 0] + turning[1, 1] + 0.1 * turning[1].repeat(2, 0))
    rows_of_cells = np.random.default_rng(18).standard_normal((12, 200)).cumsum(0).cumsum(1)
    # Steps of their own, a gap, and a value beside them.
    steps = [np.rint(9 * smooth[t]) * step + 250 for t, step in enumerate((0.1, 0.25, 0.1))]
    steps[1][2:4, 3:9], steps[2][5, 5] = np.nan, 251.23456
    assert model.reference is not None
    alike = model.offset + model.reference.numbers / 128 + rng.standard_normal((3, 10, 20))
    return {
        "usual-f4": (plain, None, {"bits": 8}),
        "masked-f8-big-endian": (masked.astype(">f8"), None, {"bits": 5}),
        "own-coordinates-f2": (fields(own, 60).astype("<f2"), own, {"bits": 3}),
        "escapes-f4": (outlying.astype("<f4"), None, {"bits": 12}),
        "lossless-i2": (np.arange(24, dtype="<i2").reshape(2, 3, 4), None, {"bits": 8}),
        "lossless-nan": (np.full((2, 10, 20), np.nan, "<f4"), None, {"bits": 8}),
        "latents-in-time-f4": (slow.astype("<f4"), None, {"target_rmse": 0.05}),
        "latents-unordered-f4": (plain[::5], None, {"target_rmse": 0.5}),
        "grid-f8": (rough, None, {"target_rmse": 1.0}),
        "grid-from-model-f4": (
            (slow + 3 * rng.standard_normal(slow.shape)).astype("<f4"), None, {"target_rmse": 1.0}
        ),
        "grid-gaps-second-axis-f4": (
            with_gaps.astype("<f4"), None, {"target_rmse": 2.0, "time_axis": 1}
        ),
        "grid-own-coordinates-f4": (
            rng.standard_normal((5, 4, 5)).cumsum(0).astype("<f4"), own, {"target_rmse": 0.1}
        ),
        "patterns-f4": (tiles.astype("<f4"), None, {"target_rmse": 0.05}),
        "bound-gaps-second-axis-f4": (
            with_gaps.astype("<f4"), None, {"bound": Bound(0.3), "time_axis": 1}
        ),
        "bound-relative-f8-big-endian": (
            rough.astype(">f8"), None, {"bound": Bound(0.01, relative=True), "effort": "fast"}
        ),
        "bound-own-coordinates-f2": (fields(own, 30).astype("<f2"), own, {"bound": Bound(1.0)}),
        "bound-on-grid-f4": (smooth.astype("<f4"), None, {"bound": Bound(0.2)}),
        "bound-on-latents-f4": (slow.astype("<f4"), None, {"bound": Bound(0.5)}),
        "bound-from-reference-f4": (alike.astype("<f4"), None, {"bound": Bound(0.5)}),
        "finish-rain-f4": (rain.astype("<f4"), None, {"target_rmse": 0.3}),
        "finish-rain-f8": (rain, None, {"bound": Bound(0.4)}),
        "digits-finish-f4": (
            showers.astype("<f4"), None, {"bound": Bound(0.05), "effort": "best"}
        ),
        "pyramid-exact-f4": (fraction.astype("<f4"), None, {"bound": Bound(0.02)}),
        "pyramid-f4": (smooth[:20].astype("<f4"), None, {"bound": Bound(0.2), "effort": "fast"}),
        "pyramid-mixed-f4": (larger.astype("<f4"), None, {"bound": Bound(0.2)}),
        "pyramid-gaps-second-axis-f8": (
            with_gaps, None, {"bound": Bound(0.3), "time_axis": 1, "effort": "fast"}
        ),
        "pyramid-relative-f4": (
            -np.exp(rough[:3] / 50).astype("<f4"), None,
            {"bound": Bound(0.01, relative=True), "effort": "fast"},
        ),
        "wavelets-f4": (ridges.astype("<f4"), None, {"target_rmse": 1.0}),
        "wavelets-gaps-f4": (holed.astype(">f4"), None, {"target_rmse": 3.0, "effort": "best"}),
        "waves-f8": (swells[:, :4], None, {"target_rmse": 1.5, "time_axis": 1}),
        "waves-in-time-f4": (seasons.astype("<f4"), None, {"target_rmse": 1.0}),
        "no-globe-f4": (rows_of_cells.astype("<f4"), None, {"target_rmse": 3.0}),
        "exact-steps-f4": (np.stack(steps).astype("<f4"), None, {"bound": Bound(0.0)}),
        "exact-pyramid-f8": (
            np.rint(300 * larger.repeat(2, axis=1)) * 0.02 + 250, None,
            {"bound": Bound(0.0), "effort": "fast"},
        ),
        "exact-floats-f4": (
            (smooth[:8].reshape(2, 4, 10, 20) + rough[None] / 9).astype("<f4"), None,
            {"bound": Bound(0.0)},
        ),
        "exact-copies-f4": (
            np.where(with_gaps[0, :3] > 9, np.nan, np.rint(5 * with_gaps[0, :3]) / 4)
            .repeat(2, axis=-1).repeat(2, axis=-2).astype("<f4"), None, {"bound": Bound(0.0)},
        ),
        "exact-integers-i2": (
            np.rint(30 * with_gaps[0, 1:3, 3:, :]).astype(">i2"), None, {"bound": Bound(0.0)}
        ),
    }  # fmt: skip


def around_a_mean(
    model: Model,
) -> dict[str, tuple[np.ndarray, SphereGrid | None, dict[str, Any]]]:
    """Name → values, coordinates, rate control and other options."""
    assert model.climatology is not None
    rng = np.random.default_rng(15)
    grid = SphereGrid(model.climatology.latitude, model.climatology.longitude)
    mean = model.offset + model.scale * model.climatology.features
    anomalies = rng.standard_normal((6, *grid.shape)).cumsum(0).cumsum(1)
    gaps = (mean + anomalies)[:, ::-1]
    gaps[:, :3, 5:9], gaps[4] = np.nan, np.nan
    return {
        "pyramid-from-model-f4": (
            (mean + anomalies[0]).astype("<f4"), None, {"bound": Bound(0.5)}
        ),
        "pyramid-from-model-gaps-f8": (
            gaps[:, None], None, {"bound": Bound(0.2), "effort": "best", "time_axis": 1}
        ),
    }  # fmt: skip


def on_any_grid() -> dict[str, tuple[np.ndarray, COINppCodec]]:
    """Name → values and the codec of their grid."""
    rng = np.random.default_rng(27)
    lengths = 20 + 4 * np.minimum(np.arange(28), np.arange(28)[::-1])
    rows = np.sin(np.arange(lengths.sum()) / 9) * 5 + rng.standard_normal(lengths.sum()) / 5
    triangles = (rng.standard_normal((3, 20 * 16)).cumsum(axis=1) / 3).astype("<f4")
    triangles[:, 40:60], triangles[1, 5] = np.nan, np.inf
    pixels = np.cos(np.arange(12 * 64) / 40)[None] + np.arange(3)[:, None] / 9
    hours = np.sin(np.indices((6, 9, 12, 14)).sum(axis=0) / 7)
    hours += rng.standard_normal((6, 1, 12, 14))

    k = rng.permutation(700)
    where = {
        "latitude": np.rad2deg(np.arcsin(1 - (2 * k + 1) / 700)), "longitude": k * 137.508 % 360
    }  # fmt: skip
    anywhere = np.stack([np.sin(k / 99 + hour / 3) * 4 for hour in range(3)]).astype("<f4")
    anywhere[1, 40:90] = np.nan

    def codec(**settings: Any) -> COINppCodec:
        return COINppCodec("universal", **settings)

    return {
        "cells-triangles-f4": (triangles, codec(grid="icon", max_error=0.2, effort="fast")),
        "cells-rows-f8": (
            rows, codec(grid={"rows": lengths}, weights=1 + rows**2, target_rmse=0.2)
        ),
        "cells-ring-f4": (
            pixels.astype(">f4"), codec(grid="healpix-ring", max_error=0.05)
        ),
        "cells-placed-f4": (anywhere, codec(grid=where, max_error=0.05)),
        "levels-rows-f4": (
            hours[:3, :4, :8, :9].astype("<f4") + np.arange(4, dtype="<f4")[:, None, None] / 9,
            codec(grid="index", max_error=0.5),
        ),
        "levels-f4": (
            (hours + rng.standard_normal((6, 9, 12, 14)) / 50).astype("<f4"),
            codec(grid="index", max_error=0.02),
        ),
    }  # fmt: skip


def patches(model: Model) -> dict[str, tuple[np.ndarray, Any]]:
    """Name → values and the codec of their modality."""
    rng = np.random.default_rng(11)
    rows, columns = np.mgrid[:70, :50]
    image = np.sin(rows / 9) + np.cos(columns / 7 + rows / 20) + (columns > 30)
    colours = image[..., None] + 0.05 * rng.standard_normal((70, 50, 3)).cumsum(axis=0)
    gaps = colours.astype("<f4")
    gaps[10:20, 5:9], gaps[0, 0, 0] = np.nan, np.inf
    volume = np.sin(np.indices((20, 18, 17)).sum(axis=0) / 5)
    sound = 0.3 * np.sin(np.arange(5000) ** 1.3 / 50) * np.sin(np.arange(5000) / 700)
    whole = np.clip(60 * colours + 90, 0, 255).astype("|u1")
    return {
        "patches-image-gaps-f4": (gaps, ImagePatchCodec(target_rmse=0.05, model="none")),
        "patches-image-lossless-u1": (
            whole, ImagePatchCodec(max_error=0.5, model="none")
        ),
        "patches-volumes-f2": (
            np.stack([volume, 1 - volume]).astype("<f2"),
            VolumePatchCodec(target_psnr=30, model="none"),
        ),
        "patches-sound-bands-f4": (
            sound.astype("<f4"),
            AudioPatchCodec(target_rmse=0.01, band_cells=2000, model="none"),
        ),
        "patches-sound-bound-f8": (
            sound.astype(">f8"), AudioPatchCodec(max_error=0.01, model="none")
        ),
        "patches-from-model-gaps-f4": (gaps, ImagePatchCodec(target_rmse=0.05, model=model)),
        "patches-from-model-deblocked-u1": (whole, ImagePatchCodec(target_psnr=24, model=model)),
        "patches-from-model-bound-f4": (
            (20 * image * np.cos(columns / 2.5) + rng.standard_normal((70, 50))).astype("<f4"),
            ImagePatchCodec(max_error=3.0, model=model),
        ),
        "patch-latents-u1": (whole, ImagePatchCodec(bits=6, model=model)),
        "patch-latents-grey-gaps-f4": (
            gaps[..., 1], ImagePatchCodec(bits=9, model=model, data_range=4.0)
        ),
    }  # fmt: skip


def write(folder: Path, name: str, payload: bytes, decoded: np.ndarray) -> None:
    """Unless it is there already."""
    path = folder / f"{name}.cnpp"
    if path.exists():
        return
    print(name, Payload.unpack(payload).kind.name, len(payload))
    path.write_bytes(payload)
    np.save(path.with_suffix(".npy"), decoded)


def main() -> None:
    folder = HERE / f"format-{VERSION}"
    folder.mkdir(exist_ok=True)
    models = []
    for made in (golden_model, golden_patch_model, golden_climatology_model):
        path = folder / f"{made.__name__.removesuffix('_model').replace('_', '-')}.safetensors"
        if not path.exists():
            made().save(path)
        models.append(load_model(path))
    model, patch_model, climatology_model = models
    made_of = {model: chunks(model), climatology_model: around_a_mean(climatology_model)}
    for known, cases in made_of.items():
        for name, (values, grid, options) in cases.items():
            payload = encode_chunk(values, known, grid=grid, **options)
            decoded = decode_chunk(payload, {known.fingerprint: known}.__getitem__, grid=grid)
            write(folder, name, payload, decoded)
    for name, (values, codec) in (patches(patch_model) | on_any_grid()).items():
        payload = codec.encode(values)
        write(folder, name, payload, codec.decode(payload))
        config = folder / f"{name}.json"
        if "placed" in name and not config.exists():
            config.write_text(json.dumps(codec.get_config()))


if __name__ == "__main__":
    main()
