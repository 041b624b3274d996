"""From images, volumes and sound to a model: cosines, patches, candidates, presets, ``coinpp``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refusal

import coinpp_xr
from coinpp_xr import config, models
from coinpp_xr.building import standard_form
from coinpp_xr.cli import main
from coinpp_xr.compact import pack_text, unpack_text
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.cosines import analyse, synthesise
from coinpp_xr.data import Items, Media, split_by_source, write_media
from coinpp_xr.devices import fit, predict
from coinpp_xr.entropy import fit_histogram
from coinpp_xr.models import Model
from coinpp_xr.network import LinearTail, QuantizedTail
from coinpp_xr.patch_building import patch_presets, to_patches, train_patches
from coinpp_xr.patch_candidates import check_latent_dim, choose_patch_network
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training import PRESETS, TrainingConfig, TrainingData, read_checkpoint
from coinpp_xr.training.outer_loop import _Training

QUICK = {"width": 16, "depth": 2, "steps": 20, "batch_size": 8}
BOXES = [BoxGrid((9,), -5.0, 5.0), BoxGrid((4, 6)), BoxGrid((3, 2, 5), 0.0, 1.0)]


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other would make tiny networks slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def few_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coinpp_xr.patch_building._MOST_PATCHES", 1000)


def items_of(spatial: int, sizes: list[tuple[int, ...]], channels: int = 1, seed: int = 0) -> Items:
    """Waves of a few directions, features in [0, 1]."""
    rng, values = np.random.default_rng(seed), []
    for size in sizes:
        grid = np.indices(size).reshape(spatial, -1)
        waves = np.zeros((prod(size), channels))
        for _ in range(4):
            frequency = rng.uniform(-0.5, 0.5, spatial)
            phase = rng.uniform(0, 6, channels)
            waves += np.sin((frequency @ grid)[:, None] + phase)
        waves += 0.05 * rng.standard_normal(waves.shape)
        values.append((0.5 + waves / 10).reshape(*size, channels).astype(np.float32))
    names = [f"item-{i}" for i in range(len(values))]
    return Items(values, spatial, 0.0, 1.0, names, names, "")


# ---- cosines in a box ----------------------------------------------------------------------------


def slow_sum(coefficients: np.ndarray, points: np.ndarray, box: BoxGrid) -> np.ndarray:
    """One point and one frequency after the other."""
    found = np.zeros(len(points))
    for index, frequencies in enumerate(product(*map(range, box.shape))):
        for point, place in enumerate(points):
            value = coefficients[index]
            for n, k, x in zip(box.shape, frequencies, place, strict=True):
                cell = (float(x) - box.low) / (box.high - box.low) * (n - 1)
                value *= (2**0.5 if k else 1.0) * np.cos(np.pi * k * (cell + 0.5) / n)
            found[point] += value
    return found


@pytest.mark.parametrize("box", BOXES, ids=lambda box: str(box.shape))
@pytest.mark.parametrize("places", ["grid", "part of it", "anywhere", "one point"])
def test_cosines_are_what_they_are_said_to_be(box: BoxGrid, places: str) -> None:
    rng = np.random.default_rng(0)
    anywhere = rng.uniform(box.low, box.high, (40, len(box.shape))).astype(np.float32)
    points = {
        "grid": box.points, "part of it": box.points[3:9], "anywhere": anywhere,
        "one point": anywhere[:1],
    }[places]  # fmt: skip
    coefficients = rng.standard_normal((3, prod(box.shape))).astype(np.float32)
    expected = [slow_sum(row, points, box) for row in coefficients]
    np.testing.assert_allclose(synthesise(coefficients, points, box), expected, atol=2e-5)


@pytest.mark.parametrize(
    "box", [*BOXES, BoxGrid((1,)), BoxGrid((1, 7))], ids=lambda b: str(b.shape)
)
def test_cosines_are_orthonormal_in_the_mean(box: BoxGrid) -> None:
    cells = prod(box.shape)
    functions = synthesise(np.eye(cells, dtype=np.float32), box.points, box)
    np.testing.assert_allclose(functions @ functions.T / cells, np.eye(cells), atol=1e-5)
    values = np.random.default_rng(1).standard_normal((4, cells)).astype(np.float32)
    again = synthesise(analyse(values, box), box.points, box)
    np.testing.assert_allclose(again, values, atol=1e-5)


def test_many_points_without_a_grid_take_little_memory() -> None:
    """All combinations of their places would be 10^9."""
    box = BoxGrid((4, 4, 4))
    points = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    coefficients = np.random.default_rng(1).standard_normal((2, 64)).astype(np.float32)
    found = synthesise(coefficients, points, box)
    np.testing.assert_allclose(found[1, :3], slow_sum(coefficients[1], points[:3], box), atol=1e-5)


# ---- tails in a box ------------------------------------------------------------------------------


def small_tail(box: BoxGrid, channels: int, latent_dim: int) -> LinearTail:
    rng = np.random.default_rng(2)
    size = channels * prod(box.shape)
    modes = rng.standard_normal((latent_dim, size)).astype(np.float32)
    return LinearTail(rng.standard_normal(size).astype(np.float32), modes, box)


@pytest.mark.parametrize("box", BOXES, ids=lambda box: str(box.shape))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_tail_is_the_same_function_everywhere(box: BoxGrid, channels: int) -> None:
    rng = np.random.default_rng(0)
    tail = small_tail(box, channels, 4)
    points = rng.uniform(box.low, box.high, (17, len(box.shape))).astype(np.float32)
    latents = rng.standard_normal((5, 4)).astype(np.float32)
    fields = tail(points, latents)
    assert fields.shape == (5, 17, channels)
    coefficients = (tail.mean + latents @ tail.modes).reshape(5, channels, -1)
    for channel in range(channels):
        expected = [slow_sum(row, points, box) for row in coefficients[:, channel]]
        np.testing.assert_allclose(fields[..., channel], expected, atol=1e-3, rtol=1e-4)
    mean, modes = tail.linearise(points)
    np.testing.assert_allclose(
        mean[0] + np.einsum("pck,bk->bpc", modes[0], latents), fields, atol=1e-3
    )
    fewer = tail.truncated(2)
    np.testing.assert_allclose(
        fewer(points, latents[:, :2]), tail(points, latents * [1, 1, 0, 0]), atol=1e-4
    )
    on_torch = LinearTail(torch.from_numpy(tail.mean), torch.from_numpy(tail.modes), box)
    np.testing.assert_allclose(
        on_torch(torch.from_numpy(points), torch.from_numpy(latents)).numpy(), fields, atol=1e-3
    )


def patch_model(box: BoxGrid, channels: int) -> Model:
    rng = np.random.default_rng(3)
    siren = ModulatedSiren.initialise(
        dim_in=len(box.shape), dim_out=channels, width=8, depth=2, latent_dim=2, omega0=10.0,
        shift_scale=0.02, rng=rng,
    )  # fmt: skip
    tail = QuantizedTail.of(small_tail(box, channels, 4), np.ones(4), 1e-3)
    mean, std = np.zeros(6), np.ones(6)
    histogram = fit_histogram(rng.standard_normal((300, 6)), mean, std)
    return Model("boxed", siren, "patch", 0.0, 1.0, mean, std, histogram, {}, tail, box=box)


@pytest.mark.parametrize("box", BOXES, ids=lambda box: str(box.shape))
@pytest.mark.parametrize("channels", [1, 3])
def test_a_model_of_patches_travels(box: BoxGrid, channels: int, tmp_path: Path) -> None:
    model = patch_model(box, channels)
    model.save(tmp_path / "boxed.safetensors")
    latents = np.random.default_rng(0).standard_normal((3, 6)).astype(np.float32)
    expected = predict(model.network, box.points, latents)
    for again in (Model.from_file(tmp_path / "boxed.safetensors"), unpack_text(pack_text(model))):
        assert again.fingerprint == model.fingerprint
        assert again.box is not None
        assert (again.box.shape, again.box.low, again.box.high) == (box.shape, box.low, box.high)
        np.testing.assert_array_equal(predict(again.network, box.points, latents), expected)


# ---- patches -------------------------------------------------------------------------------------


def test_patches_are_parts_of_their_items() -> None:
    train, held_out = items_of(2, [(20, 30), (9, 11)], 3), items_of(2, [(17, 26)], 3, seed=1)
    data = to_patches(train, held_out, BoxGrid((8, 8)), seed=4)
    assert data.points.shape == (64, 2)
    assert data.train.shape[1:] == data.validation.shape[1:] == (64, 3)
    assert len(data.validation) == 2 * 3
    np.testing.assert_array_equal(
        data.validation[4].reshape(8, 8, 3), held_out.values[0][8:16, 8:16]
    )
    rows = {tuple(row) for values in train.values for row in values.reshape(-1, 3)}
    assert all(tuple(row) in rows for row in data.train[:50].reshape(-1, 3))
    again = to_patches(train, held_out, BoxGrid((8, 8)), seed=4)
    np.testing.assert_array_equal(again.train, data.train)
    assert not np.array_equal(
        to_patches(train, held_out, BoxGrid((8, 8)), seed=5).train, data.train
    )
    assert data.random_patches is not None
    assert data.random_patches(np.random.default_rng(0), 7).shape == (7, 64, 3)


def test_places_are_equally_likely() -> None:
    train = items_of(1, [(3000,), (1000,)])
    train.values[0][...], train.values[1][...] = 0.0, 1.0
    data = to_patches(train, train, BoxGrid((10,)))
    assert abs(data.train.mean() - 0.25) < 0.05


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_items_smaller_than_a_patch_are_continued(spatial: int) -> None:
    items = items_of(spatial, [(5,) * spatial, (1,) * spatial])
    data = to_patches(items, items, BoxGrid((8,) * spatial))
    last = data.validation[0].reshape((8,) * spatial)[(-1,) * spatial]
    assert last == items.values[0].reshape(-1)[-1]
    assert (data.validation[1] == items.values[1].reshape(-1)[0]).all()


@pytest.mark.parametrize(
    ("held_out", "box", "message"),
    [
        (items_of(2, [(20, 20)], 3), BoxGrid((8, 8)), "items have [1, 3] channels"),
        (items_of(1, [(20,)]), BoxGrid((8, 8)), "cannot be cut into patches of (8, 8)"),
        (items_of(2, [(20, 20)]), BoxGrid((8,)), "cannot be cut into patches of (8,)"),
    ],
    ids=["colours", "held out", "patches"],
)
def test_items_that_do_not_fit(held_out: Items, box: BoxGrid, message: str) -> None:
    assert message in refusal(lambda: to_patches(items_of(2, [(20, 20)]), held_out, box))


# ---- candidates ----------------------------------------------------------------------------------


def data_of(items: Items, box: BoxGrid) -> TrainingData:
    train, held_out = split_by_source(items, 1)
    data = to_patches(train, held_out, box)
    return replace(data, train=data.train[:600])


def rough_siren(data: TrainingData, latent_dim: int, scale: float) -> ModulatedSiren:
    """In standard form, but of an untrained network."""
    siren = ModulatedSiren.initialise(
        dim_in=data.points.shape[1], dim_out=data.train.shape[2], width=16, depth=2,
        latent_dim=latent_dim, omega0=30.0, shift_scale=scale, rng=np.random.default_rng(0),
    )  # fmt: skip
    weights = np.ones(len(data.points))
    latents = fit(siren, data.points, data.train, weights)
    return standard_form(siren, data.points, weights, latents)


def test_the_best_on_held_out_patches_is_chosen() -> None:
    box = BoxGrid((8, 8))
    data = data_of(items_of(2, [(40, 50)] * 4, 3), box)
    siren = rough_siren(data, 6, 0.004)
    best, tried = choose_patch_network(siren, data, 20, box)
    assert [c.network.siren.latent_dim for c in tried] == [0, 4, 6]
    assert {c.network.latent_dim for c in tried} == {20}
    assert best.rmse == min(c.rmse for c in tried)
    assert tried[0].label == "20 EOFs"
    for candidate in tried:
        network = candidate.network
        jacobian = network.linearise(data.points, network.zeros(1))[1]
        rows = jacobian.reshape(-1, 20).astype(np.float64)
        np.testing.assert_allclose(
            (rows.T @ rows / len(data.points) / 3)[-14:, -14:] * 3, np.eye(14), atol=1e-3
        )


def test_components_are_those_of_the_patches() -> None:
    box = BoxGrid((8,))
    data = data_of(items_of(1, [(400,)] * 3), box)
    _, tried = choose_patch_network(rough_siren(data, 2, 0.004), data, 3, box)
    deviations = data.validation[..., 0] - data.train[..., 0].mean(0)
    axes = np.linalg.svd(data.train[..., 0] - data.train[..., 0].mean(0))[2][:3]
    left = deviations - deviations @ axes.T @ axes
    assert tried[0].rmse == pytest.approx(float(np.sqrt((left**2).mean())), rel=1e-3)


@pytest.mark.parametrize("scale", [0.004, 0.1, 1.0])
def test_an_untrained_siren_does_not_run_away(scale: float) -> None:
    """Its latents hardly describe the patches, which are far from zero latents."""
    box = BoxGrid((6, 6, 6))
    items = items_of(3, [(20, 20, 20)] * 3)
    for values in items.values:
        values[:9] = 0  # background
        values[9:] = np.round(values[9:])  # a mask
    data = data_of(items, box)
    spread = float(data.validation.std())
    _, tried = choose_patch_network(rough_siren(data, 8, scale), data, 12, box)
    assert all(candidate.rmse < 3 * spread for candidate in tried)
    assert tried[0].rmse < spread


@pytest.mark.parametrize("latent_dim", [1, 2, 5, 16])
def test_flat_and_few_patches_make_candidates(latent_dim: int) -> None:
    """Fewer directions than latents."""
    box, rng = BoxGrid((4, 4)), np.random.default_rng(0)
    flat = np.repeat(rng.random((3, 1, 1), np.float32), 16, axis=1)
    data = TrainingData(box.points, box.area_weights, flat, flat)
    best, tried = choose_patch_network(rough_siren(data, 2, 0.004), data, latent_dim, box)
    assert {c.network.latent_dim for c in tried} == {latent_dim}
    assert best.rmse < 1e-3


def test_more_latents_than_components_are_refused() -> None:
    data = data_of(items_of(2, [(20, 20)] * 3), BoxGrid((4, 4)))
    assert "the 16 values of a patch" in refusal(lambda: check_latent_dim(17, data))
    many = np.zeros((2, 2048, 1), np.float32)
    large = TrainingData(np.zeros((2048, 1), np.float32), np.ones(2048), many, many)
    assert "the 1,024 cosines" in refusal(lambda: check_latent_dim(1025, large))


# ---- presets -------------------------------------------------------------------------------------


PAPER = {
    # COIN++, appendices B.1, B.2, B.3 and B.5: patch, width, learning rate, batch, latents.
    "cifar10": ((32, 32), 512, 3e-6, 64, (128, 256, 384, 512, 768, 1024)),
    "kodak": ((32, 32), 512, 1e-6, 64, (16, 32, 64, 96, 128, 256)),
    "fastmri": ((16, 16, 16), 512, 3e-6, 16, (16, 32, 64, 128, 256)),
    "librispeech-200": ((200,), 256, 1e-6, 64, (128, 256)),
    "librispeech-400": ((400,), 256, 1e-6, 64, (128,)),
    "librispeech-800": ((800,), 256, 1e-6, 64, (128,)),
    "librispeech-1600": ((1600,), 256, 1e-6, 64, (128,)),
}


def test_the_papers_networks_are_presets() -> None:
    presets = patch_presets()
    expected = {f"paper-{data}-{k}" for data, (*_, latents) in PAPER.items() for k in latents}
    assert {name for name in presets if name.startswith("paper-")} == expected
    for data, (size, width, rate, batch, latents) in PAPER.items():
        for k in latents:
            preset = presets[f"paper-{data}-{k}"]
            config = preset.config
            assert preset.patch_size == size
            assert preset.box == ((-5.0, 5.0) if len(size) == 1 else (0.0, 1.0))
            # Ten layers, of which the last is linear.
            assert (config.latent_dim, config.width, config.depth) == (k, width, 9)
            assert (config.outer_lr, config.batch_size) == (rate, batch)
            assert (config.inner_lr, config.inner_steps, config.omega0) == (1e-2, 3, 50.0)
            assert (config.objective, config.schedule) == ("paper", "constant")


def test_small_presets_exist_and_names_are_unique() -> None:
    presets = patch_presets()
    small = {name: p.patch_size for name, p in presets.items() if name.startswith("small-")}
    assert small == {
        "small-image": (32, 32), "small-volume": (16, 16, 16), "small-audio": (400,)
    }  # fmt: skip
    assert not set(presets) & set(PRESETS)


# ---- training ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recordings() -> Items:
    return items_of(1, [(900,)] * 6)


def test_a_trained_model_has_all_that_coding_needs(recordings: Items) -> None:
    model = train_patches(
        recordings,
        latent_dim=20,
        patch_size=40,
        max_minutes=None,
        deblocking_minutes=0.0,
        settings=QUICK,
        name="waves",
    )
    assert (model.name, model.domain, model.latent_dim) == ("waves", "patch", 20)
    assert model.box is not None
    assert (model.box.shape, model.box.low, model.box.high) == ((40,), -5.0, 5.0)
    assert model.prior is not None
    assert (model.offset, model.scale) == (0.0, 1.0)
    assert model.card["sources"] == 5
    assert model.card["patch"] == "40"
    scores = model.card["validation_rmse"]
    assert scores["unquantized"] <= 1.001 * scores["8 bits"] <= 1.01 * scores["4 bits"]
    values = 2 * recordings.values[0][:, 0] - 1
    for rate in ({"bits": 8}, {"target_rmse": 0.05}):
        codec = coinpp_xr.AudioPatchCodec(model=model, **rate)
        payload = codec.encode(values)
        assert np.sqrt(np.mean((codec.decode(payload) - values) ** 2)) < 0.1


@pytest.mark.parametrize("objective", ["warm-start", "paper"])
def test_a_resumed_run_makes_the_same_model(
    recordings: Items, tmp_path: Path, objective: str
) -> None:
    path = tmp_path / "run.safetensors"
    settings = {**QUICK, "objective": objective}
    options: dict[str, Any] = {
        "latent_dim": 8, "patch_size": 40, "max_minutes": None,
        "deblocking_minutes": 0.0, "settings": settings,
    }  # fmt: skip
    whole = train_patches(recordings, **options)
    train, held_out = split_by_source(recordings, 1)
    data = to_patches(train, held_out, BoxGrid((40,), -5.0, 5.0))
    config = TrainingConfig(latent_dim=8, weighting="equal", **settings)
    partial = _Training(data, config, path, "cpu", None)
    state = partial._fresh()
    for _ in range(9):
        partial._outer_step(state)
    partial._save(state)
    resumed = train_patches(recordings, checkpoint=path, resume=True, **options)
    assert resumed.fingerprint == whole.fingerprint
    assert (whole.tail is None) == (objective == "paper")


def test_a_network_of_the_paper_is_the_siren_alone(recordings: Items) -> None:
    small = {"width": 8, "depth": 2, "steps": 2, "batch_size": 2, "latent_dim": 6}
    model = train_patches(
        recordings,
        preset="paper-librispeech-200-128",
        max_minutes=None,
        deblocking_minutes=0.0,
        settings=small,
    )
    assert model.tail is None
    assert model.siren.latent_dim == model.latent_dim == 6
    assert model.box is not None
    assert model.box.shape == (200,)
    assert model.card["configuration"]["objective"] == "paper"


def test_all_latents_can_be_the_sirens(recordings: Items) -> None:
    model = train_patches(
        recordings,
        latent_dim=3,
        patch_size=40,
        tail=False,
        max_minutes=None,
        deblocking_minutes=0.0,
        settings=QUICK,
    )
    assert model.tail is None
    assert model.siren.latent_dim == 3


@pytest.mark.parametrize(
    ("items", "options", "message"),
    [
        (items_of(1, [(900,)]), {}, "cannot be held out"),
        (items_of(1, [(900,)] * 2), {"preset": "tiny"}, "no preset 'tiny' for patches"),
        (items_of(1, [(900,)] * 2), {"preset": "small-16"}, "no preset 'small-16' for patches"),
        (items_of(1, [(900,)] * 2), {"preset": "small-image"}, "patches of 2 axes"),
        (items_of(1, [(900,)] * 2), {"patch_size": (3, 3)}, "patch_size must be"),
        (items_of(1, [(900,)] * 2), {"patch_size": 10, "latent_dim": 11}, "the 10 values"),
        (items_of(1, [(900,)] * 2), {"name": "a b"}, "one word"),
        (items_of(1, [(900,)] * 2), {"max_minutes": None}, "never ends"),
        (
            Items([np.zeros((90, 1), np.float32)] * 2, 1, 0, 1, ["a", "b"], ["a", "b"], ""),
            {}, "nothing to learn",
        ),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_trained(items: Items, options: dict[str, Any], message: str) -> None:
    options = {"max_minutes": 0.001, **options}
    assert message in refusal(lambda: train_patches(items, **options))


# ---- coinpp train --------------------------------------------------------------------------------


@dataclass
class Result:
    code: int
    out: str
    err: str


Coinpp = Callable[..., Result]
TINY = ["--width", "16", "--depth", "2", "--steps", "10", "--seed", "1"]


@pytest.fixture
def coinpp(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Coinpp]:
    """Runs the command line in this process, in an empty folder."""

    def run(*arguments: Any) -> Result:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    monkeypatch.setattr(models, "_loaded", models.Loaded())
    monkeypatch.chdir(tmp_path)
    with config.set(cache=str(tmp_path / "cache"), model_url=None):
        yield run


def write_files(data_type: str, folder: Path, count: int = 3, channels: int = 3) -> None:
    """Small ones of the data type, named 0, 1, ..."""
    folder.mkdir()
    if data_type == "image":
        for i, image in enumerate(items_of(2, [(40, 44)] * count, channels).values):
            pixels = np.rint(255 * image.clip(0, 1)).astype(np.uint8)
            write_media(Media("image", pixels), folder / f"{i}.png")
    elif data_type == "nifti":
        for i, volume in enumerate(items_of(3, [(18, 17, 20)] * count).values):
            voxels = np.rint(1000 * volume[..., 0]).astype(np.int16)
            write_media(Media("array", voxels), folder / f"{i}.nii.gz")
    else:
        for i, sound in enumerate(items_of(1, [(3000,)] * count).values):
            samples = np.rint(20000 * (2 * sound[:, 0] - 1)).astype(np.int16)
            write_media(Media("audio", samples, {"sample_rate": 16000}), folder / f"{i}-1-0.flac")


@pytest.mark.parametrize(
    ("data_type", "patch", "shape", "codec"),
    [
        ("image", "8", (8, 8), "ImagePatchCodec"),
        ("image", "4,8", (4, 8), "ImagePatchCodec"),
        ("nifti", "6,6,6", (6, 6, 6), "VolumePatchCodec"),
        ("audio", "80", (80,), "AudioPatchCodec"),
        ("librispeech", "80", (80,), "AudioPatchCodec"),
    ],
)
def test_files_of_every_kind_make_a_model(
    coinpp: Coinpp, data_type: str, patch: str, shape: tuple[int, ...], codec: str
) -> None:
    pytest.importorskip({"image": "imagecodecs", "nifti": "nibabel"}.get(data_type, "soundfile"))
    write_files(data_type, Path("files"))
    result = coinpp(
        "train", "files", "--data-type", data_type, "--patch-size", patch, *TINY,
        "--latent-dim", 20, "-o", "mine.safetensors",
    )  # fmt: skip
    assert result.code == 0, result.err
    model = Model.from_file("mine.safetensors")
    assert model.box is not None
    assert (model.box.shape, model.latent_dim, model.name) == (shape, 20, "mine")
    assert model.card["data"] == "files"
    assert model.card["configuration"]["seed"] == 1
    assert f'{codec}(model="mine.safetensors", bits=8)' in result.out
    assert "step 10 of 10" in result.err
    lines = dict(line.split("  ", 1) for line in result.out.splitlines() if "  " in line)
    rmse = model.card["validation_rmse"]["8 bits"]
    assert f"{-20 * np.log10(rmse):.2f} (8 bits)" in lines["held-out PSNR"]
    assert f"{rmse:g} (8 bits)" in lines["held-out RMSE"]
    written = {path.name for path in Path().iterdir()} - {"files"}
    assert written == {"mine.safetensors", "mine.checkpoint.log.jsonl", "mine.curve.png"}
    made = getattr(coinpp_xr, codec)(model="mine.safetensors", bits=8)
    assert made.fingerprint == model.fingerprint


def test_sources_are_joined_and_another_one_is_held_out(coinpp: Coinpp) -> None:
    pytest.importorskip("imagecodecs")
    for name, count in (("a", 2), ("b", 1), ("c", 2)):
        write_files("image", Path(name), count)
    command = ["train", "a", "b/0.png", "--data-type", "image", "--patch-size", 8, *TINY]
    result = coinpp(*command, "--validation", "c", "-o", "mine.safetensors")
    assert "image: 3 items, 2 held out" in result.err
    card = Model.from_file("mine.safetensors").card
    assert (card["data"], card["validation_data"], card["sources"]) == ("a, 0.png", "c", 3)
    assert card["validation_items"] == 2 * 5 * 5

    result = coinpp(*command, "--validation-items", 2, "-o", "other.safetensors")
    assert Model.from_file("other.safetensors").card["sources"] < 3


def test_a_data_set_with_parts_is_read_part_by_part(coinpp: Coinpp) -> None:
    pytest.importorskip("imagecodecs")
    Path("set").mkdir()
    write_files("image", Path("set/train"), 2)
    write_files("image", Path("set/val"), 1)
    result = coinpp(
        "train", "set", "--validation", "set", "--data-type", "image", "--patch-size", 8, *TINY,
        "-o", "mine.safetensors",
    )  # fmt: skip
    assert "image: 2 items, 1 held out" in result.err


def test_a_limit_takes_the_first_items(coinpp: Coinpp) -> None:
    pytest.importorskip("imagecodecs")
    write_files("image", Path("files"), 4)
    result = coinpp(
        "train", "files", "--data-type", "image", "--limit", 3, "--patch-size", 8, *TINY,
        "--no-tail", "--latent-dim", 4, "-o", "mine.safetensors",
    )  # fmt: skip
    assert "image: 3 items" in result.err
    assert Model.from_file("mine.safetensors").tail is None


def test_training_of_patches_can_be_resumed(coinpp: Coinpp) -> None:
    pytest.importorskip("soundfile")
    write_files("audio", Path("files"))
    command = [
        "train", "files", "--data-type", "audio", "--patch-size", 80, "--width", 16, "--depth", 2,
        "--steps", 10**6, "--max-minutes", 0.001, "-o", "mine.safetensors",
    ]  # fmt: skip

    def steps_done() -> int:
        return int(
            json.loads(read_checkpoint("mine.checkpoint.safetensors")[1]["progress"])["step"]
        )

    cut = coinpp(*command)
    before = steps_done()
    assert "--resume" in cut.err
    assert "--resume" in coinpp(*command).err.splitlines()[-1]  # not overwritten
    resumed = coinpp(*command, "--resume")
    assert (cut.code, resumed.code) == (0, 0)
    assert steps_done() > before > 0


def test_presets_of_both_kinds_are_listed(coinpp: Coinpp) -> None:
    rows = [line.split("  ") for line in coinpp("train", "--list-presets").out.splitlines()]
    cells = {row[0]: [cell.strip() for cell in row if cell.strip()] for row in rows}
    assert cells["NAME"][:3] == ["NAME", "PATCH", "LATENTS"]
    assert cells["small-16"][1:3] == ["-", "16"]
    assert cells["paper-kodak-64"][1:4] == ["32 x 32", "64", "512"]
    assert set(cells) == {"NAME", *PRESETS, *patch_presets()}


def test_a_preset_of_patches_trains(coinpp: Coinpp) -> None:
    pytest.importorskip("soundfile")
    write_files("audio", Path("files"))
    result = coinpp(
        "train", "files", "--data-type", "audio", "--preset", "small-audio", *TINY,
        "-o", "mine.safetensors",
    )  # fmt: skip
    assert result.code == 0, result.err
    model = Model.from_file("mine.safetensors")
    assert model.box is not None
    assert (model.box.shape, model.latent_dim) == ((400,), 64)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("x --data-type photo", "image, cifar10"),
        ("x --patch-size 8", "--patch-size is not for fields"),
        ("x --validation y", "--validation-items"),
        ("x --limit 3", "--limit is not for fields"),
        ("x --data-type image --variable t", "--variable is not for image"),
        ("x --data-type image --patch-size 8x8", "32 or 16,16"),
        ("x --data-type image --patch-size 8 --preset small-image", "not both"),
        ("x --data-type image --preset small-image --latent-dim 3", "not both"),
        ("x --data-type image --validation y --validation-items 3", "not both"),
        ("x --data-type image --preset small-16", "'small-16' is for fields"),
        ("x --preset small-image", "'small-image' is for patches"),
        ("x --data-type image --preset tiny", "--list-presets"),
        ("x --data-type vimeo90k", "--limit 10000"),
    ],
)
def test_a_wrong_command_line_exits_with_2(coinpp: Coinpp, arguments: str, hint: str) -> None:
    result = coinpp("train", *arguments.split(), "-o", "m.safetensors")
    assert result.code == 2
    assert hint in " ".join(result.err.split())
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("absent --data-type image", "no such file"),
        ("fields --data-type image", "did you mean files"),
        ("files/0.png", "add --data-type image"),
        ("files --data-type nifti", "holds no .nii"),
        ("files/0.png --data-type audio", "is no audio file: it holds PNG"),
        ("files/0.png --data-type nifti", "is no volume file: it holds PNG"),
        ("files --data-type cifar10", "cifar-10-python.tar.gz"),
        ("files grey --data-type image", "load unlike items apart"),
        ("files --validation grey --data-type image", "[1, 3] channels"),
        ("files/0.png --data-type image", "cannot be held out"),
        ("files --data-type image --preset small-audio", "patches of 1 axes"),
        ("files --data-type image --patch-size 8,8,8", "patch_size must be 2"),
        ("files --data-type image --patch-size 2", "64 latents are more than the 12 values"),
        ("files --data-type image --device cuda:9", "cuda:9"),
        ("files --data-type image --validation-items 99", "cannot be held out"),
        ("flat --data-type image", "nothing to learn"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    coinpp: Coinpp, arguments: str, hint: str
) -> None:
    pytest.importorskip("imagecodecs")
    write_files("image", Path("files"))
    write_files("image", Path("grey"), channels=1)
    Path("flat").mkdir()
    for name in ("flat/0.png", "flat/1.png"):
        write_media(Media("image", np.full((40, 40), 7, np.uint8)), name)
    result = coinpp("train", *arguments.split(), *TINY, "-o", "m.safetensors")
    assert (result.code, result.out) == (1, "")
    *before, line = result.err.splitlines()
    assert line.startswith("coinpp: ")
    assert hint in line
    assert len(before) <= 1  # what was read
    assert not Path("m.safetensors").exists()


@pytest.mark.parametrize(
    ("data_type", "package"),
    [("image", "imagecodecs"), ("nifti", "nibabel"), ("audio", "soundfile")],
)
def test_without_the_extra_one_line_says_how_to_get_it(
    coinpp: Coinpp, data_type: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(package)
    write_files(data_type, Path("files"))
    monkeypatch.setitem(sys.modules, package, None)
    result = coinpp("train", "files", "--data-type", data_type, *TINY, "-o", "m.safetensors")
    assert result.code == 1
    assert "coinpp-xr[media]" in result.err
    assert len(result.err.splitlines()) == 1
