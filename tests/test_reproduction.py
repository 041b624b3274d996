"""The paper's figures and tables: every item runs, on networks that hardly learn anything."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from media_files import write_brain, write_cifar, write_image, write_sound, write_triplets

from coinpp_xr import coin, reproduction
from coinpp_xr.coordinates import BoxGrid, SphereGrid
from coinpp_xr.reproduction import (
    ITEMS,
    claims,
    coin_runs,
    parameterizations,
    published,
    quantization,
    studies,
    timing,
    training_runs,
)
from coinpp_xr.reproduction.datasets import Material
from coinpp_xr.training import TrainingConfig, TrainingData

TINY = TrainingConfig(
    latent_dim=4, width=8, depth=2, objective="paper", steps=2, batch_size=2, points_per_item=16,
    outer_lr=1e-4, inner_lr=1.0, shift_scale=0.02, weighting="equal",
)  # fmt: skip


def made_up(shape: tuple[int, ...], channels: int, unit: str, scale: float = 0.0) -> Material:
    """Smooth items, one patch each."""
    rng = np.random.default_rng(len(shape))
    if unit == "bits per cell":
        latitude, longitude = np.linspace(90, -90, shape[0]), np.arange(shape[1]) * 360 / shape[1]
        points = SphereGrid(latitude, longitude).points
    else:
        points = BoxGrid(shape, -1.0, 1.0).points
    waves = rng.normal(size=(12, points.shape[1], channels))
    values = 0.5 + 0.3 * np.sin(points @ waves).astype(np.float32)
    weights = np.full(len(points), 1 / len(points))
    data = TrainingData(points, weights, values[:6], values[6:9], scale)
    items = [v.reshape(*shape, channels) for v in values[9:]]
    box = None if unit == "bits per cell" else BoxGrid(shape, -1.0, 1.0)
    return Material(data, items, shape, "waves", "made up", unit, scale, box)


@pytest.fixture
def tiny(monkeypatch) -> None:
    """All studies on made-up data of few points, all networks of few units."""

    def study(name, shape, channels, unit, scale=0.0):
        old = studies.STUDIES[name]
        return replace(
            old, load=lambda folder, quick: made_up(shape, channels, unit, scale), quick=TINY,
            latents=(2, 3), bits=(5,),
        )  # fmt: skip

    speech = {
        f"librispeech-{n}": study(f"librispeech-{n}", (n,), 1, "kilobits per second")
        for n in studies.SPEECH_SAMPLES
    }
    monkeypatch.setattr(
        studies, "STUDIES",
        {
            "cifar10": study("cifar10", (32, 32), 3, "bits per pixel"),
            "kodak": study("kodak", (32, 32), 3, "bits per pixel"),
            "fastmri": study("fastmri", (16, 16, 16), 1, "bits per voxel"),
            "era5": study("era5", (10, 20), 1, "bits per cell", 118.27),
            "weather": study("weather", (10, 20), 1, "bits per cell", 118.27),
            **speech,
        },
    )  # fmt: skip
    for name in ("parameterizations", "rate_distortion", "quantization", "encoding", "timing",
                 "training_runs"):  # fmt: skip
        module = __import__(f"coinpp_xr.reproduction.{name}", fromlist=["STUDIES"])
        monkeypatch.setattr(module, "STUDIES", studies.STUDIES)
    monkeypatch.setattr(parameterizations, "_LATENTS", {"cifar10": (3, 3), "weather": (3, 3)})
    monkeypatch.setattr(quantization, "_LATENTS", {"cifar10": (2, 3), "weather": (2, 3)})
    monkeypatch.setattr(timing, "_LATENTS", {True: 4, False: 4})
    monkeypatch.setattr(timing, "_TAIL_LATENTS", 6)
    monkeypatch.setattr(timing, "_PAPER_LATENTS", {True: 3, False: 3})
    monkeypatch.setattr(parameterizations, "_GRID", (3.0, 10.0))
    monkeypatch.setattr(timing, "_OWN_LATENTS", 4)
    monkeypatch.setattr(timing, "_WIDE", {"width": 8, "depth": 2, "steps": 2})
    monkeypatch.setattr(coin_runs, "QUICK_WIDTHS", (4, 6))
    monkeypatch.setattr(timing, "_COIN_WIDTHS", (3, 4))
    monkeypatch.setattr(quantization, "_COIN_WIDTH", 4)
    monkeypatch.setattr(coin, "DEFAULT", coin.Schedule(20, 1e-2))
    monkeypatch.setattr(coin, "PAPER", coin.Schedule(30, 2e-4))
    _forget_data()
    yield
    _forget_data()


def _forget_data() -> None:
    studies.material.cache_clear()
    studies.fingerprint.cache_clear()


def test_every_item_writes_its_figure_and_its_numbers_and_is_not_done_twice(tiny, tmp_path) -> None:
    told: list[str] = []
    for name in ITEMS:
        record = reproduction.reproduce(name, tmp_path, quick=True, processes=1, tell=told.append)
        assert json.loads((tmp_path / f"{name}.json").read_text()) == record
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
        assert set(record["data"].values()) == {"made up"}
        assert record["findings"]
        assert record["seeds"]
        assert record["versions"]["torch"]
    told.clear()
    before = (tmp_path / "fig7a.json").read_bytes()
    again = reproduction.reproduce("fig7a", tmp_path, quick=True, processes=1, tell=told.append)
    assert len(told) == 1
    assert "done already" in told[0]
    redone = reproduction.reproduce(
        "fig7a", tmp_path, quick=True, processes=1, again=True, tell=told.append
    )
    assert again["findings"] == redone["findings"]  # networks are kept: the same numbers
    assert json.loads(before)["findings"] == redone["findings"]
    records = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in ITEMS}
    table = claims.table(records)
    assert len(table.splitlines()) == 2 + len(claims.CLAIMS)
    assert "no result of" not in table


def paper_data(folder: Path) -> None:
    """All data sets of the paper in their own forms, a few small items each."""
    for number in range(1, 6):
        write_cifar(folder / f"cifar10/data_batch_{number}", 60)
    write_cifar(folder / "cifar10/test_batch", 40)
    for split, sequences in (("train", ["00001/0001", "00001/0002"]), ("test", ["00002/0001"])):
        write_triplets(folder / "vimeo90k", split, sequences)
    pixels = np.random.default_rng(0).integers(0, 256, (70, 40, 3), dtype=np.uint8)
    write_image(folder / "kodak/kodim01.png", pixels)
    for name, count in (("multicoil_train", 2), ("multicoil_val", 6)):
        for number in range(count):
            write_brain(folder / f"fastmri/{name}/file_brain_AXT2_{number}.h5")
    noise = np.random.default_rng(1).integers(-9000, 9000, 5000).astype(np.int16)
    for part, count in (("train-clean-100", 3), ("dev-clean", 2), ("test-clean", 24)):
        for speaker in range(count):
            write_sound(folder / f"librispeech/{part}/{speaker}/{speaker}-1-0000.flac", noise)
    globes = np.random.default_rng(2).uniform(220, 300, (3, 4, 8)).astype(np.float32)
    latitude, longitude = np.linspace(90, -90, 4), np.arange(8) * 45.0
    for split in ("train", "val", "test"):
        part = folder / f"era5_temp2m_16x_{split}"
        part.mkdir(parents=True)
        for number, globe in enumerate(globes):
            np.savez(
                part / f"{number}.npz", latitude=latitude, longitude=longitude, temperature=globe
            )


@pytest.mark.parametrize("name", [n for n in studies.STUDIES if n != "weather"])
@pytest.mark.parametrize("quick", [True, False])
def test_the_papers_data_is_read_in_its_own_form(tmp_path, name, quick) -> None:
    paper_data(tmp_path)
    study = studies.STUDIES[name]
    data = study.load(tmp_path, quick)
    assert "no " not in data.note
    patches = data.patches()
    assert all(p.shape[1:] == (len(data.points), patches[0].shape[2]) for p in patches)
    assert all(0 <= p.min() <= p.max() <= 1 for p in patches if name != "era5")
    assert data.training.train.shape[1:] == patches[0].shape[1:]
    for item, cut in zip(data.items, patches, strict=True):
        assert len(cut) * len(data.points) == item[..., 0].size
        assert cut.sum(dtype=float) == pytest.approx(item.sum(dtype=float), rel=1e-9)
    latents = (study.latents if quick else study.preset_latents)[0]
    assert study.config(latents, quick=quick).latent_dim == latents


def test_every_network_of_the_paper_has_its_preset() -> None:
    for study in studies.STUDIES.values():
        for latents in study.preset_latents:
            config = study.config(latents, quick=False)
            assert (config.depth, config.omega0, config.inner_lr) == (9, 50.0, 1e-2)
            assert config.objective == "paper"


def test_time_that_is_over_leaves_what_was_trained_to_the_next_run(tiny, tmp_path) -> None:
    with pytest.raises(RuntimeError, match="run the same command again to go on"):
        reproduction.reproduce("fig8", tmp_path, quick=True, processes=1, max_minutes=0)
    assert not (tmp_path / "fig8.json").exists()
    reproduction.reproduce("fig8", tmp_path, quick=True, processes=1, max_minutes=5)
    assert (tmp_path / "fig8.json").exists()


def test_networks_are_trained_in_processes_side_by_side(tmp_path, monkeypatch) -> None:
    """Real workers, on the shipped example in the paper's form of ERA5."""
    folder = tmp_path / "data"
    paper_data(folder)
    told: list[str] = []
    bench = training_runs.Bench(tmp_path / "networks", folder, True, processes=2, tell=told.append)
    tasks = [training_runs.Task("era5", replace(TINY, seed=seed)) for seed in (0, 1)]
    networks = bench.networks(tasks)
    assert [n.latent_dim for n in networks] == [4, 4]
    assert len(told) == 3  # how many there are, and a line for each
    assert bench.networks(tasks)[0].parameter_count == networks[0].parameter_count
    assert len(told) == 3


def test_a_claim_without_its_result_is_not_tested() -> None:
    verdicts = {claim.verdict({}).holds for claim in claims.CLAIMS}
    assert verdicts == {claims.UNTESTED}


@pytest.mark.parametrize(
    ("ours", "other", "verdict"),
    [
        ([30.0, 30.1, 29.9], [27.0, 27.1, 26.9], "holds here"),
        ([27.0, 27.1, 26.9], [30.0, 30.1, 29.9], "differs here"),
        ([28.0, 30.0, 26.0], [27.9, 29.9, 25.9], "undecided on images"),
    ],
)
def test_seeds_decide_whether_a_difference_counts(ours, other, verdict) -> None:
    ways = {parameterizations.OURS: {"test_psnr": ours}, "another": {"test_psnr": other}}
    claim = claims.CLAIMS[0]
    assert claim.item == "fig5-left"
    records = {"fig5-left": {"findings": {"images": ways}}}
    assert claim.verdict(records).holds == verdict


def test_curves_are_compared_at_rates_they_have_in_common() -> None:
    low = {"rate": [0.1, 1.0], "psnr": [20.0, 30.0]}
    high = {"rate": [0.2, 2.0], "psnr": [25.0, 35.0]}
    judge = claims._leads("low", below=("high",))
    assert judge({"low": low, "high": high}).holds == claims.HOLDS
    far = {"rate": [5.0, 6.0], "psnr": [25.0, 35.0]}
    assert judge({"low": low, "high": far}).holds == claims.UNTESTED
    assert judge({"low": low}).holds == claims.UNTESTED  # a codec that is not installed
    small = {"rate": [0.01, 0.02], "psnr": [31.0, 36.0]}
    assert judge({"low": low, "high": small}).holds == claims.HOLDS


def test_unknown_items_and_missing_data_are_said_in_one_line(tmp_path, monkeypatch) -> None:
    with pytest.raises(ValueError, match=r"take one of fig7a, fig7b, fig7c, fig7d$"):
        reproduction.reproduce("fig7", tmp_path)
    monkeypatch.delenv("COINPP_DATA", raising=False)
    _forget_data()
    with pytest.raises(FileNotFoundError, match=r"set COINPP_DATA .* or give .* --data"):
        reproduction.reproduce("table1", tmp_path, quick=True, processes=1)
    assert not list(tmp_path.glob("*.json"))


def test_published_points_are_those_of_the_paper() -> None:
    curves = {s.label: s for s in published.rate_distortion("era5")}
    ours = curves["COIN++ (published)"]
    assert (round(ours.x[0], 4), round(ours.y[0], 2)) == (0.0041, 38.66)
    assert all(series.published for series in curves.values())
    assert published.encoding_times()["COIN"] == 29.7647
