"""The pyramid's network: whole numbers that are the same everywhere, and what they are worth."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import COINppCodec, ModelNotFoundError
from coinpp_xr.bitstream import Kind, Payload, Tag, pack_fields
from coinpp_xr.coding.pyramid import expert, experts, opinions, stream
from coinpp_xr.coding.pyramid.expert_units import (
    ACTIVATION,
    EXACT,
    HIGHEST_SCALE,
    LARGEST_ACTIVATION,
    LOWEST_SCALE,
    N_INPUTS,
    PAST,
    SCALE_PARTS,
    WEIGHT,
)
from coinpp_xr.coding.pyramid.observing import Observations
from coinpp_xr.lattice import Lattice
from coinpp_xr.training.expert_training import ExpertTraining, Observed

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def globe() -> np.ndarray:
    """Temperature over Asia."""
    with xr.open_dataset(ROOT / "examples/gfs_t2m_0p25_asia.nc") as dataset:
        values = next(iter(dataset.data_vars.values())).values
    return values.reshape(1, *values.shape[-2:])


def by_hand(network: expert.Network, inputs: np.ndarray) -> np.ndarray:
    """Both outputs for inputs of shape (inputs, points), in integers of 64 bits."""
    x = inputs.astype(np.int64)
    layers = [
        (network.first, network.first_bias), (network.second, network.second_bias),
        (network.last, network.last_bias),
    ]  # fmt: skip
    for number, (weights, bias) in enumerate(layers):
        x = weights.astype(np.int64) @ x + bias.astype(np.int64)[:, None]
        assert np.abs(x).max() < EXACT
        if number < 2:
            # max(x, x / 8) in whole numbers of 1/256, rounded down.
            x = np.clip(np.where(x < 0, x // (8 * WEIGHT), x // WEIGHT), -1023, 1023)
    return x


NETWORKS = [(name, references) for name in ("small", "large") for references in (0, 1)]


@pytest.mark.parametrize(("name", "references"), NETWORKS)
def test_no_sum_of_a_shipped_network_can_be_rounded(name, references) -> None:
    network = experts.shipped()[name].network(references)
    for weights, bias in [
        (network.first, network.first_bias), (network.second, network.second_bias),
        (network.last, network.last_bias),
    ]:  # fmt: skip
        assert (np.rint(weights) == weights).all()
        assert (np.rint(bias) == bias).all()
        largest = np.abs(weights).sum(axis=1) * LARGEST_ACTIVATION + np.abs(bias)
        assert largest.max() < EXACT


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(NETWORKS), st.booleans())
def test_numpy_torch_and_whole_numbers_agree(seed, which, extreme) -> None:
    network = experts.shipped()[which[0]].network(which[1])
    rng = np.random.default_rng(seed)
    inputs = rng.integers(-LARGEST_ACTIVATION, LARGEST_ACTIVATION + 1, (N_INPUTS, 33))
    if extreme:
        inputs = LARGEST_ACTIVATION * np.sign(inputs)
    wanted = by_hand(network, inputs)

    hidden = network.first @ inputs.astype(np.float32)
    expert.activate(hidden, network.first_bias)
    second = network.second @ hidden
    expert.activate(second, network.second_bias)
    assert (network.last @ second + network.last_bias[:, None] == wanted).all()

    training = ExpertTraining((len(network.first), len(network.second)))
    units = (WEIGHT, WEIGHT * ACTIVATION)
    with torch.no_grad():
        arrays = list(network[:6])
        for k, (layer, array) in enumerate(zip(training.layers, arrays, strict=True)):
            layer.copy_(torch.from_numpy(array / units[k % 2]))
        found = training.outputs(torch.from_numpy(inputs.T.copy()).float())
    assert (found.numpy().T * units[1] == wanted).all()
    for array, exported in zip(arrays, training.arrays(), strict=True):
        assert (array == exported).all()


def test_tables_do_not_depend_on_how_a_machine_rounds() -> None:
    exact = 2.0 ** (27 - np.arange(LOWEST_SCALE, HIGHEST_SCALE + 1) / SCALE_PARTS)
    whole = np.arange(LOWEST_SCALE, HIGHEST_SCALE + 1) % SCALE_PARTS == 0
    assert (np.abs(exact - np.floor(exact) - 0.5)[~whole] > 1e-5).all()


def test_networks_that_would_not_be_exact_are_refused() -> None:
    arrays = [np.asarray(a, np.int32) for a in experts.shipped()["small"].alone[:6]]
    too_large = [arrays[0].copy(), *arrays[1:]]
    too_large[0][0] = 1000
    with pytest.raises(ValueError, match="would not be exact"):
        expert.network_of(too_large)
    with pytest.raises(ValueError, match="not the arrays of a network"):
        expert.network_of([arrays[0][:, 1:], *arrays[1:]])


SCRIPT = """\
import hashlib, sys
import numpy as np
from coinpp_xr import COINppCodec, config
config.set({"threads": int(sys.argv[2])})
globe = np.load(sys.argv[1])
payload = COINppCodec("universal", max_error=0.1).encode(globe)
decoded = COINppCodec("universal", max_error=0.1).decode(payload)
for data in (payload, np.asarray(decoded).tobytes()):
    print(hashlib.sha256(data).hexdigest())
"""


def test_every_blas_kernel_gives_the_same_bytes(globe, tmp_path) -> None:
    path = tmp_path / "globe.npy"
    some = globe[:, 60:180, 100:300]
    np.save(path, np.repeat(some, 2, axis=0) + np.arange(2, dtype=np.float32)[:, None, None])
    runs = []
    for kernel, threads in [("Prescott", "1"), ("Haswell", "2"), ("SkylakeX", "1"), ("", "3")]:
        environment = os.environ | ({"OPENBLAS_CORETYPE": kernel} if kernel else {})
        run = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(path), threads],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        if not runs:
            run.wait()  # the others find what it has compiled
        runs.append((kernel, run))
    said = set()
    for kernel, run in runs:
        output, error = run.communicate()
        if kernel and run.returncode < 0:  # a kernel that this processor does not have
            continue
        assert run.returncode == 0, error
        said.add(output)
    assert len(said) == 1, said


def test_the_network_saves_bytes_within_the_bound(globe) -> None:
    sizes = {}
    for model in ("none", "universal"):
        for effort in ("fast", "default", "best"):
            codec = COINppCodec(model, max_error=0.1, effort=effort)
            payload = codec.encode(globe)
            assert np.abs(np.asarray(codec.decode(payload)) - globe).max() <= 0.1
            sizes[model, effort] = len(payload)
    assert sizes["universal", "fast"] == sizes["none", "fast"]
    assert sizes["universal", "default"] < 0.996 * sizes["none", "default"]
    # Row by row may be shorter than any pyramid.
    assert sizes["universal", "best"] <= sizes["none", "best"]


def test_single_fields_on_large_grids_are_asked_about_at_best_only(globe) -> None:
    """Fields that refer to others are asked about anyway."""
    large = np.repeat(np.repeat(globe, 2, axis=1), 2, axis=2)[:, :362, :724].astype(np.float32)
    single, two = large, np.concatenate([large, large[..., ::-1] + 1])

    def nbytes(values: np.ndarray, model: str) -> int:
        codec = COINppCodec(model, max_error=0.5)
        payload = codec.encode(values)
        assert np.abs(np.asarray(codec.decode(payload)) - values).max() <= 0.5
        return len(payload)

    assert nbytes(single, "universal") == nbytes(single, "none")
    assert nbytes(two, "universal") < nbytes(two, "none")


def test_a_name_of_no_model_is_said_as_one() -> None:
    codec = COINppCodec("universal", max_error=0.1)
    assert COINppCodec.from_config(codec.get_config()) == codec
    assert codec.get_config()["model"] == "universal"
    assert codec.own_model() is None
    with pytest.raises(ValueError, match="bits needs a model"):
        COINppCodec("universal", bits=8)


def test_data_of_another_network_is_not_decoded_with_this_one(globe) -> None:
    payload = Payload.unpack(COINppCodec("universal", max_error=0.1).encode(globe))
    own = experts.shipped()["small"].fingerprint
    head = payload.section(Tag.PYRAMID)
    assert head.count(own) == 1
    sections = {**payload.sections, Tag.PYRAMID: head.replace(own, bytes(8))}
    valid = np.ones((1, globe[0].size), bool)
    other = pack_fields(globe, valid, Kind.PYRAMID, sections)
    with pytest.raises(ModelNotFoundError, match="network 0000000000000000 that this version"):
        COINppCodec("universal", max_error=0.1).decode(other)


def observed(values: np.ndarray) -> list[Observations]:
    seen: list[Observations] = []

    def look(points, parameters, bands) -> None:
        if points.size >= 100:
            seen.append(Observations.of(points, parameters, bands, 2000))

    stream.encode(
        values.astype(np.float64), np.ones(values.shape, bool), np.arange(len(values))[None],
        Lattice(0.2, 280.0), around=True, quick=8, observe=look,
    )  # fmt: skip
    return seen


def test_what_is_observed_is_what_the_coder_asks_about(globe, monkeypatch) -> None:
    """Inputs of all blocks of the last pass, as an encoder with a network works them out."""
    asked: list[np.ndarray] = []
    look = opinions.Asked.look

    def spying(self, block) -> None:
        look(self, block)
        asked.append(self.inputs.copy())

    seen = observed(globe)[-1]
    monkeypatch.setattr(opinions.Asked, "look", spying)
    stream.encode(
        globe.astype(np.float64), np.ones(globe.shape, bool), np.arange(1)[None],
        Lattice(0.2, 280.0), around=True, quick=8, expert=experts.shipped()["small"],
    )  # fmt: skip
    points = {tuple(column) for column in np.concatenate(asked, axis=1).T.astype(int)}
    assert all(tuple(row) in points for row in seen.inputs[:, :PAST].astype(int))


def test_training_saves_bits_and_goes_on_from_a_checkpoint(globe, tmp_path) -> None:
    seen = observed(globe)
    for number, each in enumerate(seen):
        counts = np.ones(len(each.offsets))
        np.savez(tmp_path / f"{number}.npz", **each._asdict(), counts=counts)
    data = Observed.load(sorted(tmp_path.glob("*.npz")), 1000, referring=False)
    tensors = [torch.from_numpy(array) for array in (data.inputs, data.offsets, data.sizes)]
    training = ExpertTraining((8, 8), seed=1)

    def bits_of(trained: ExpertTraining) -> float:
        with torch.no_grad():
            return float(trained.bits(*tensors).mean())

    before = bits_of(training)
    checkpoint = tmp_path / "network.run"
    training.train(data, 1.5, checkpoint)
    again = ExpertTraining((8, 8), seed=2)
    again.train(data, 1.0, checkpoint)  # that time is over
    assert again.steps == training.steps > 0
    for layer, other in zip(training.arrays(), again.arrays(), strict=True):
        assert (layer == other).all()
    again.train(data, 2.5, checkpoint)
    assert again.steps > training.steps
    assert bits_of(again) < before - 0.01
    trained = expert.network_of(again.arrays())
    ours = experts.Expert(trained, trained, bytes(experts.FINGERPRINT_BYTES))
    sizes = [
        len(
            stream.encode(
                globe.astype(np.float64), np.ones(globe.shape, bool), np.arange(1)[None],
                Lattice(0.2, 280.0), around=True, quick=8, expert=which,
            ).streams
        )
        for which in (ours, None)
    ]  # fmt: skip
    assert sizes[0] < sizes[1]
