"""The outer loop: it learns, resumes bit for bit, survives spikes and Ctrl-C."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from coinpp_xr.building import build_model, standard_form, train
from coinpp_xr.candidates import choose_network
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.devices import fit, predict
from coinpp_xr.harmonics import harmonics
from coinpp_xr.training import (
    PRESETS,
    TrainingConfig,
    TrainingData,
    log_path,
    meta_learn,
    read_checkpoint,
    siren_from_checkpoint,
)
from coinpp_xr.training.checkpoints import State
from coinpp_xr.training.objectives import eof_scores
from coinpp_xr.training.outer_loop import _Training

GRID = next(SphereGrid.usual_layouts(12, 24))
SMALL = TrainingConfig(
    latent_dim=2, width=16, depth=2, omega0=10.0, steps=30, batch_size=8, points_per_item=100
)
PAPER = replace(
    SMALL, objective="paper", inner_lr=1.0, shift_scale=0.1, points_per_item=None, steps=12
)


def make_data(n: int = 60) -> TrainingData:
    """Two smooth patterns on the sphere with random amplitudes."""
    rng = np.random.default_rng(0)
    x, y, z = GRID.points.T
    patterns = np.stack([x * z, y + 0.5 * z])
    fields = 0.5 + 0.1 * rng.standard_normal((n, 2)) @ patterns + 0.2 * z
    fields = fields[..., None].astype(np.float32)
    return TrainingData(GRID.points, GRID.area_weights, fields[:-10], fields[-10:], scale=100.0)


def parameters(siren) -> bytes:
    return b"".join(np.asarray(p).tobytes() for p in siren.parameters)


@pytest.mark.parametrize(
    "config", [replace(SMALL, steps=200), replace(PAPER, steps=200, outer_lr=3e-3)]
)
def test_training_lowers_the_held_out_error(config) -> None:
    records = []
    meta_learn(make_data(), config, log=records.append)
    scores = [r["validation_rmse"] for r in records if r["event"] == "validation"]
    records.clear()
    untrained = meta_learn(make_data(), replace(config, steps=1), log=records.append)
    assert untrained is not None
    assert scores[-1] < 0.5 * next(r["validation_rmse"] for r in records if "validation_rmse" in r)


@pytest.mark.parametrize("config", [SMALL, PAPER, replace(SMALL, warm_fraction=0.5)])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, config) -> None:
    """Stopped in the middle by a lower number of steps... and by time, then resumed."""
    data, path = make_data(), tmp_path / "run.safetensors"
    whole = meta_learn(data, config)
    partial = _Training(data, config, path, "cpu", None)
    state = partial._fresh()
    for _ in range(7):
        partial._outer_step(state)
    partial._save(state)
    resumed = meta_learn(data, config, checkpoint=path, resume=True)
    assert parameters(resumed) == parameters(whole)


def test_random_patches_replace_the_fixed_ones_in_the_papers_outer_loop() -> None:
    asked = []

    def patches(rng: np.random.Generator, count: int) -> np.ndarray:
        asked.append(count)
        return make_data().train[rng.integers(0, 50, count)]

    meta_learn(replace(make_data(), random_patches=patches), replace(PAPER, steps=3))
    assert asked == [PAPER.batch_size] * 3


def test_a_piece_of_time_stops_early_and_keeps_a_checkpoint(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    config = replace(SMALL, steps=10**7)
    meta_learn(make_data(), config, checkpoint=path, max_minutes=0.02)
    progress = json.loads(read_checkpoint(path)[1]["progress"])
    assert 0 < progress["step"] < 10**7


def test_time_alone_sets_the_length_of_the_schedule(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    meta_learn(make_data(), replace(SMALL, steps=None), checkpoint=path, max_minutes=0.05)
    progress = json.loads(read_checkpoint(path)[1]["progress"])
    assert progress["step"] <= progress["steps"]
    assert progress["steps"] > 40


def test_without_steps_or_time_it_refuses() -> None:
    with pytest.raises(ValueError, match="never ends"):
        meta_learn(make_data(), replace(SMALL, steps=None))


def test_resuming_with_other_settings_is_refused(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    meta_learn(make_data(), SMALL, checkpoint=path)
    with pytest.raises(ValueError, match="another configuration"):
        meta_learn(make_data(), replace(SMALL, omega0=11.0), checkpoint=path, resume=True)
    with pytest.raises(ValueError, match="other training data"):
        meta_learn(make_data(70), SMALL, checkpoint=path, resume=True)


def test_resuming_from_a_file_that_is_no_checkpoint_is_refused(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="not a training checkpoint"):
        meta_learn(make_data(), SMALL, checkpoint=path, resume=True)


def test_the_log_has_one_json_record_per_line(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    meta_learn(make_data(), replace(SMALL, steps=100), checkpoint=path)
    records = [json.loads(line) for line in log_path(path).read_text().splitlines()]
    assert records[-1]["event"] == "validation"
    assert {"step", "loss", "validation_rmse", "validation_psnr", "seconds"} <= set(records[-1])


def test_a_checkpoint_holds_the_network(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    siren = meta_learn(make_data(), SMALL, checkpoint=path)
    assert parameters(siren_from_checkpoint(path)) == parameters(siren)


def test_spikes_are_skipped_logged_and_rolled_back() -> None:
    records = []
    training = _Training(make_data(), replace(SMALL, steps=None), None, "cpu", records.append)
    state = training._fresh()
    for _ in range(60):
        training._outer_step(state)
    good = state.snapshot()
    with torch.no_grad():
        state.siren.weights[-1].mul_(100)  # the network goes astray
    for _ in range(5):
        training._outer_step(state)
    assert [r["event"] for r in records] == ["spike"] * 5
    training._roll_back(state, good)
    assert state.lr_factor == 0.5
    assert all(torch.equal(t, good[name]) for name, t in state.snapshot().items())


def test_ctrl_c_keeps_a_checkpoint(tmp_path) -> None:
    path = tmp_path / "run.safetensors"
    script = f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from dataclasses import replace
        from test_training import SMALL, make_data, meta_learn
        print("ready", flush=True)
        meta_learn(make_data(), replace(SMALL, steps=10**8), checkpoint={str(path)!r},
                   log=lambda r: print(r["event"], flush=True))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    # The first seconds go into setting up; interrupt when steps are being made.
    assert process.stdout.readline() == "progress\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert "interrupted" in out
    assert "KeyboardInterrupt" in err
    assert json.loads(read_checkpoint(path)[1]["progress"])["step"] > 0


@pytest.mark.parametrize("k", [4, 8, 12, 16])
def test_the_papers_era5_models_are_presets(k) -> None:
    """COIN++, appendix B.4."""
    preset = PRESETS[f"paper-era5-{k}"]
    assert (preset.latent_dim, preset.depth, preset.width, preset.omega0) == (k, 9, 384, 50.0)
    assert (preset.inner_lr, preset.outer_lr, preset.inner_steps) == (1e-2, 3e-6, 3)
    assert (preset.batch_size, preset.objective) == (32, "paper")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be at least 1"),
        ({"objective": "magic"}, "objective must be one of"),
        ({"precision": "fp8"}, "precision must be one of"),
    ],
)
def test_bad_settings_are_named(change, message) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **change)


def test_training_needs_numpy_torch_and_safetensors_only(tmp_path) -> None:
    """As on a bare GPU machine, where the package's other requirements are absent."""
    make_data().save(tmp_path / "data.npz")
    script = f"""
        import sys

        for name in ("xarray", "zarr", "numcodecs", "constriction", "donfig", "pooch", "dask",
                     "cf_xarray", "threadpoolctl"):
            sys.modules[name] = None  # as if it were not installed

        import coinpp_xr.training as t
        config = t.TrainingConfig(latent_dim=2, width=16, depth=2, steps=2, batch_size=4)
        t.meta_learn(t.TrainingData.load({str(tmp_path / "data.npz")!r}), config)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_eof_scores_are_uncorrelated_and_span_the_leading_subspace() -> None:
    fields = torch.from_numpy(make_data().train)
    weights = torch.from_numpy(GRID.area_weights).float()
    scores = eof_scores(fields, weights, 2, np.random.default_rng(0)).numpy()
    spread = scores.T @ scores / len(scores)
    np.testing.assert_allclose(spread, np.diag([1, spread[1, 1]]), atol=1e-4)
    assert 0 < spread[1, 1] < 1
    anomalies = (fields[..., 0] - fields[..., 0].mean(0)).numpy()
    rest = anomalies - scores @ np.linalg.lstsq(scores, anomalies, rcond=None)[0]
    assert np.abs(rest).max() < 1e-4


def test_standard_form_is_the_same_network_in_the_axes_of_the_error() -> None:
    data = make_data()
    siren = meta_learn(data, replace(SMALL, steps=100))
    latents = fit(siren, data.points, data.train, data.weights, effort="best")
    standard = standard_form(siren, data.points, data.weights, latents)
    back = np.linalg.lstsq(siren.shift_map, standard.shift_map, rcond=None)[0]
    rotated = np.linalg.solve(back, (latents - latents.mean(0)).T).T
    np.testing.assert_allclose(
        predict(standard, data.points, rotated.astype(np.float32)),
        predict(siren, data.points, latents),
        atol=1e-4,
    )
    covariance = np.cov(rotated.T)
    assert covariance[0, 0] > covariance[1, 1]
    assert abs(covariance[0, 1]) < 1e-4 * covariance[1, 1]
    # An error of any latent is the same error of the field.
    jacobian = standard.linearise(data.points, standard.zeros(1))[1][0, :, 0].astype(np.float64)
    np.testing.assert_allclose(
        jacobian.T @ (jacobian * GRID.area_weights[:, None]), np.eye(2), atol=1e-3
    )


def test_a_built_model_carries_its_held_out_scores() -> None:
    data = make_data()
    siren = meta_learn(data, replace(SMALL, steps=100))
    model = build_model("small", siren, data, SMALL, (0.0, 100.0), {"units": "K"})
    scores = model.card["validation_rmse"]
    assert scores["unquantized"] <= scores["8 bits"] * 1.001 <= scores["4 bits"] * 1.01
    assert model.card["parameters"] == siren.parameter_count


def globes(data: TrainingData) -> xr.DataArray:
    """All fields of training data, in kelvins."""
    fields = 250 + data.scale * np.concatenate([data.train, data.validation])
    return xr.DataArray(
        fields.reshape(-1, *GRID.shape), dims=("time", "latitude", "longitude"),
        coords={"latitude": GRID.latitude, "longitude": GRID.longitude}, name="t2m",
        attrs={"units": "K"},
    )  # fmt: skip


def noisy_data(items: int) -> TrainingData:
    """Fields with local structure, which no few latents hold."""
    rng = np.random.default_rng(1)
    degree = np.sqrt(np.arange(64)).astype(int)
    amplitudes = rng.standard_normal((items, 64)) / (1 + degree) ** 1.5
    fields = (0.5 + 0.05 * amplitudes @ harmonics(GRID.points, 7).T)[..., None].astype(np.float32)
    return TrainingData(GRID.points, GRID.area_weights, fields[:-10], fields[-10:], scale=100.0)


QUICK = {"width": 16, "depth": 2, "omega0": 10.0, "steps": 30, "points_per_item": 100}


def test_a_trained_model_has_the_latents_asked_for() -> None:
    model = train(globes(noisy_data(100)), latent_dim=20, max_minutes=None, settings=QUICK)
    assert model.latent_dim == 20
    assert model.tail is not None
    labels = model.card["candidates"]
    assert set(labels) >= {model.card["network"].split(":")[0]}
    assert min(labels.values()) == labels[model.card["network"].split(":")[0]]
    by_latents = model.card["validation_rmse_by_latents"]
    assert by_latents["20"] < by_latents["16"]
    assert by_latents["20"] == model.card["validation_rmse"]["unquantized"]
    assert model.spectrum is not None
    assert model.spectrum.shape[1] == 20


def test_training_is_deterministic() -> None:
    first, second = (
        train(globes(noisy_data(60)), latent_dim=12, max_minutes=None, settings=QUICK)
        for _ in range(2)
    )
    assert first.fingerprint == second.fingerprint


def test_all_latents_can_be_the_sirens() -> None:
    model = train(globes(noisy_data(60)), latent_dim=4, tail=False, settings=QUICK)
    assert model.tail is None
    assert model.siren.latent_dim == model.latent_dim == 4
    assert "candidates" not in model.card


def test_the_papers_recipe_has_no_tail() -> None:
    settings = {**QUICK, "objective": "paper"}
    model = train(globes(noisy_data(60)), latent_dim=4, settings=settings)
    assert model.tail is None


def test_a_region_gets_a_siren_and_the_card_says_why() -> None:
    region = globes(noisy_data(60)).isel(latitude=slice(0, 6))
    model = train(region, latent_dim=4, settings=QUICK)
    assert model.tail is None
    assert "whole sphere" in model.card["network"]


@pytest.mark.parametrize("items", [12, 30])
def test_few_globes_make_a_model(items: int) -> None:
    data = noisy_data(100)
    few = globes(data).isel(time=slice(0, items))
    model = train(few, latent_dim=32, max_minutes=None, settings=QUICK)
    assert model.latent_dim == 32
    unseen = (globes(data).values[items:].reshape(-1, len(GRID.points), 1) - model.offset) / (
        model.scale
    )
    latents = fit(model.network, GRID.points, unseen, GRID.area_weights)
    error = predict(model.network, GRID.points, latents) - unseen
    anomaly = unseen - unseen.mean(0)
    assert (error**2).mean() < 0.5 * (anomaly**2).mean()


def test_more_latents_than_the_grid_resolves_are_refused() -> None:
    with pytest.raises(ValueError, match="300 latents are more than the 100 spherical harmonics"):
        train(globes(noisy_data(30)), latent_dim=300, settings=QUICK)


@pytest.mark.parametrize("own", [0, 4])
def test_tail_latents_stand_in_the_axes_of_the_error(own: int) -> None:
    """Whatever part the SIREN has: an error in any latent is the same error of the field."""
    data = noisy_data(100)
    siren = meta_learn(data, replace(SMALL, latent_dim=4, steps=60))
    latents = fit(siren, data.points, data.train, data.weights)
    siren = standard_form(siren, data.points, data.weights, latents)
    _, tried = choose_network(siren, data, 12)
    network = next(c.network for c in tried if c.network.siren.latent_dim == own)
    jacobian = network.linearise(data.points, network.zeros(1))[1][0, :, 0].astype(np.float64)
    gram = jacobian.T @ (jacobian * GRID.area_weights[:, None])
    np.testing.assert_allclose(gram, np.eye(12), atol=1e-3)


def test_a_network_without_siren_latents_holds_the_mean_field() -> None:
    data = noisy_data(100)
    siren = meta_learn(data, replace(SMALL, latent_dim=4, steps=60))
    linear = choose_network(siren, data, 12)[1][0].network
    assert linear.linear
    mean = linear(data.points, linear.zeros(1))[0]
    # The few points around the poles share values that no smooth function has.
    error = (mean - data.train.mean(0))[..., 0] ** 2 @ GRID.area_weights
    assert np.sqrt(error) < 1e-4


@pytest.mark.parametrize("minutes", [0.05, 0.1])
def test_training_ends_in_its_time(minutes: float) -> None:
    """Everything together, on a machine that may be busy with other tests."""
    train(globes(noisy_data(30)), settings={"width": 8, "depth": 2}, max_minutes=0.02)  # warm up
    started = time.perf_counter()
    model = train(globes(noisy_data(2000)), latent_dim=16, max_minutes=minutes)
    took = time.perf_counter() - started
    assert took < 60 * 1.2 * minutes + 6
    assert model.latent_dim == 16


def test_what_is_left_of_the_time_decides_how_much_is_tried() -> None:
    data = noisy_data(400)
    siren = meta_learn(data, replace(SMALL, latent_dim=4, steps=20))
    assert len(choose_network(siren, data, 12, 0.0)[1]) == 1
    assert len(choose_network(siren, data, 12)[1]) == 2


def test_the_schedule_gets_shorter_where_steps_get_slower(monkeypatch) -> None:
    """It ends with a small learning rate, in its time."""
    original, records = _Training._outer_step, []

    def slower(self: _Training, state: State) -> float:
        time.sleep(0.001 if state.step < 60 else 0.02)
        return original(self, state)

    monkeypatch.setattr(_Training, "_outer_step", slower)
    started = time.perf_counter()
    meta_learn(noisy_data(100), replace(SMALL, steps=None), max_minutes=0.08, log=records.append)
    assert time.perf_counter() - started < 60 * 0.08 * 1.2 + 2
    validations = [record for record in records if record["event"] == "validation"]
    assert validations[-1]["steps"] < validations[0]["steps"]
    assert validations[-1]["step"] > 0.7 * validations[-1]["steps"]
