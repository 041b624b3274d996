"""COIN: its networks, its fit, its bytes, and the peer that it is."""

from __future__ import annotations

import numpy as np
import pytest

from coinpp_xr import cli, coin, comparison, comparison_table, peers
from coinpp_xr.coin import CoinNetwork, Schedule
from coinpp_xr.coordinates import BoxGrid
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.peers import Chunk, Goal, coin_fields

NETWORK = CoinNetwork(2, 3, 12)
POINTS = BoxGrid((8, 8)).points
QUICK = Schedule(40, 1e-3)
LATITUDE = np.linspace(80, -80, 9)


def pictures(items: int = 3) -> np.ndarray:
    x, y = POINTS.T[:, :, None]
    phases = np.random.default_rng(1).uniform(0, 6, (items, 1, 3))
    return (0.5 + 0.3 * np.sin(2 * x + phases) * np.cos(y - phases)).astype(np.float32)


def drawn(network: CoinNetwork = NETWORK, seed: int = 0) -> np.ndarray:
    return network.initialise(np.random.default_rng(seed))


# ---- networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("width", "bits_per_pixel"),
    [(12, 3.609), (14, 4.641), (16, 5.797), (18, 7.078), (20, 8.484), (22, 10.016)],
)
def test_networks_of_the_paper_take_its_rates(width: int, bits_per_pixel: float) -> None:
    network = CoinNetwork(2, 3, width)
    payload = coin.encode(drawn(network))
    assert 8 * len(payload) / 32**2 == pytest.approx(bits_per_pixel, abs=5e-4)


def test_the_output_is_linear_around_one_half() -> None:
    weights, bias = drawn()[: 12 * 3].reshape(12, 3)[:, :2], drawn()[: 12 * 3].reshape(12, 3)[:, 2]
    second, last = drawn()[36 : 36 + 156].reshape(12, 13), drawn()[-39:].reshape(3, 13)
    hidden = np.sin(30 * (POINTS @ weights.T + bias))
    hidden = np.sin(30 * (hidden @ second[:, :12].T + second[:, 12]))
    expected = hidden @ last[:, :12].T + last[:, 12] + 0.5
    np.testing.assert_allclose(NETWORK(drawn(), POINTS), expected, atol=2e-5)


def test_a_network_has_at_least_one_unit_in_every_layer() -> None:
    with pytest.raises(ValueError, match="at least one unit"):
        CoinNetwork(2, 3, 0)


# ---- fits --------------------------------------------------------------------------------------


def by_autograd(features: np.ndarray, schedule: Schedule, weights: np.ndarray) -> np.ndarray:
    """Parameters after all steps, in double precision."""
    torch = pytest.importorskip("torch")
    matrices = [
        torch.tensor(matrix, dtype=torch.float64, requires_grad=True)
        for matrix in NETWORK.layers(drawn(seed=[0, 0]))
    ]
    points, wanted = torch.tensor(POINTS, dtype=torch.float64), torch.tensor(features)
    shares = torch.tensor(weights / weights.sum())
    optimiser = torch.optim.Adam(matrices, lr=schedule.learning_rate)
    for _ in range(schedule.steps):
        hidden = points
        for matrix in matrices[:-1]:
            hidden = torch.sin(30 * (hidden @ matrix[:, :-1].T + matrix[:, -1]))
        output = hidden @ matrices[-1][:, :-1].T + matrices[-1][:, -1] + 0.5
        loss = (shares * ((output - wanted) ** 2).mean(1)).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return np.concatenate([matrix.detach().numpy().ravel() for matrix in matrices])


def test_steps_are_those_of_adam_on_the_weighted_squared_error() -> None:
    features, schedule = pictures(2), Schedule(15, 1e-3)
    weights = np.linspace(0.2, 1, len(POINTS))
    losses: list[np.ndarray] = []
    found = coin.fit(
        features, POINTS, NETWORK, schedule, weights=weights,
        listener=lambda step, loss: losses.append(loss),
    )  # fmt: skip
    assert losses[-1][0] == min(loss[0] for loss in losses)
    np.testing.assert_allclose(found[0], by_autograd(features[0], schedule, weights), atol=2e-5)


def test_the_best_parameters_on_the_way_are_kept() -> None:
    least = np.full(3, np.inf)

    def listener(step: int, losses: np.ndarray) -> None:
        np.minimum(least, losses, out=least)

    # Steps this large jump about.
    found = coin.fit(pictures(), POINTS, NETWORK, Schedule(60, 0.1), listener=listener)
    errors = [
        np.mean((NETWORK(p, POINTS) - x) ** 2) for p, x in zip(found, pictures(), strict=True)
    ]
    np.testing.assert_allclose(errors, least, rtol=1e-4)


def test_points_without_weight_do_not_count() -> None:
    weights = (np.arange(len(POINTS)) < 40).astype(float)
    other = pictures()
    other[:, 40:] = 7
    one, two = (coin.fit(x, POINTS, NETWORK, QUICK, weights=weights) for x in (pictures(), other))
    np.testing.assert_array_equal(one, two)


def test_fits_depend_on_the_seed_and_not_on_neighbours() -> None:
    alone = coin.fit(pictures()[:1], POINTS, NETWORK, QUICK, seed=3)
    together = coin.fit(pictures(), POINTS, NETWORK, QUICK, seed=3)
    np.testing.assert_array_equal(together, coin.fit(pictures(), POINTS, NETWORK, QUICK, seed=3))
    np.testing.assert_allclose(alone[0], together[0], atol=1e-6)
    assert np.abs(together - coin.fit(pictures(), POINTS, NETWORK, QUICK, seed=4)).max() > 0.01


def test_listeners_hear_of_every_step() -> None:
    heard: list[tuple[int, tuple[int, ...]]] = []
    coin.fit(
        pictures(), POINTS, NETWORK, Schedule(2, 1e-3),
        listener=lambda step, losses: heard.append((step, losses.shape)),
    )  # fmt: skip
    assert heard == [(0, (3,)), (1, (3,)), (2, (3,))]


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        (np.full((1, 64, 3), np.nan), {}, "COIN needs finite values"),
        (np.zeros((1, 64, 2)), {}, r"features must be \('items', 64, 3\), got \(1, 64, 2\)"),
        (np.zeros((1, 64, 3)), {"weights": np.zeros(64)}, "not all zero"),
    ],
)
def test_what_cannot_be_fitted_is_refused(features, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        coin.fit(features, POINTS, NETWORK, QUICK, **options)


@pytest.mark.data
def test_a_photograph_is_learned(data_folder) -> None:
    codecs = pytest.importorskip("imagecodecs")
    photo = codecs.imread(str(data_folder / "images" / "kodak" / "kodim15.png")) / 255
    small = photo[: 4 * 32, : 4 * 32].reshape(32, 4, 32, 4, 3).mean((1, 3))
    features = small.reshape(1, -1, 3)
    points = BoxGrid((32, 32)).points
    found = coin.fit(features, points, NETWORK, Schedule(1500, coin.DEFAULT.learning_rate))
    back = coin.decode(coin.encode(found[0]), NETWORK, points)
    gain = np.var(features - features.mean((0, 1))) / np.mean((back - features[0]) ** 2)
    assert 10 * np.log10(gain) > 5


# ---- bytes -------------------------------------------------------------------------------------


def test_half_floats_are_stored_as_they_are() -> None:
    payload = coin.encode(drawn())
    assert payload == drawn().astype("<f2").tobytes()
    rounded = drawn().astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(coin.decode(payload, NETWORK, POINTS), NETWORK(rounded, POINTS))


@pytest.mark.parametrize("bits", range(1, 16))
def test_payloads_hold_quantized_weights_and_their_range(bits: int) -> None:
    payload = coin.encode(drawn(), bits)
    assert len(payload) == NETWORK.nbytes(bits) == 8 + -(-231 * bits // 8)
    np.testing.assert_array_equal(
        coin.decode_parameters(payload, NETWORK, bits), coin.quantized(drawn(), bits)
    )


@pytest.mark.parametrize("bits", [1, 5, 8, 16])
def test_the_quantizer_is_half_a_step_off_within_its_range(bits: int) -> None:
    weights = drawn()
    reach = (3 + 3 * (bits - 1) / 15) * weights.std(dtype=np.float64)
    step = 2 * reach / (2**bits - 1)
    inside = np.abs(weights - weights.mean(dtype=np.float64)) <= reach
    error = np.abs(coin.quantized(weights, bits) - weights)
    assert error[inside].max() <= step / 2 * (1 + 1e-3) + 1e-7


def test_weights_out_of_the_range_are_clipped() -> None:
    weights = drawn()
    weights[5] = 100
    assert coin.quantized(weights, 8)[5] < 100
    np.testing.assert_allclose(coin.quantized(weights, 8)[5], coin.quantized(weights, 8).max())


def test_equal_weights_survive() -> None:
    np.testing.assert_allclose(coin.quantized(np.full(9, 0.5), 4), 0.5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [(np.array([np.nan]), "finite weights"), (np.array([1e5]), "too large for a half float")],
)
def test_what_cannot_be_coded_is_refused(weights, message) -> None:
    with pytest.raises(ValueError, match=message):
        coin.encode(weights)


@pytest.mark.parametrize("bits", [7, 16])
@pytest.mark.parametrize("damage", [lambda p: p[:-1], lambda p: p + b"\0", lambda p: b""])
def test_payloads_of_another_length_are_corrupt(bits: int, damage) -> None:
    with pytest.raises(CorruptPayloadError, match="this network takes"):
        coin.decode(damage(coin.encode(drawn(), bits)), NETWORK, POINTS, bits)


@pytest.mark.parametrize(
    ("payload", "bits", "message"),
    [
        (b"\xff" * 462, 16, "not finite"),
        (b"\xff" * 211, 7, "no valid range"),
        (np.array([0, 1], "<f4").tobytes() + b"\xff" * 203, 7, "bits set after"),
        (np.array([3e38, 3e38], "<f4").tobytes() + b"\xff" * 202 + b"\x80", 7, "not finite"),
    ],
)
def test_damage_that_shows_is_reported(payload: bytes, bits: int, message: str) -> None:
    with pytest.raises(CorruptPayloadError, match=message):
        coin.decode(payload, NETWORK, POINTS, bits)


# ---- the peer ----------------------------------------------------------------------------------


def globes() -> np.ndarray:
    east = np.deg2rad(np.arange(0, 360, 20))
    south = np.deg2rad(LATITUDE)[:, None]
    waves = [np.cos(south) * np.cos(east + shift) for shift in (0, 1)]
    return (280 + 10 * np.sin(south) + 5 * np.stack(waves)).astype(np.float32)


@pytest.mark.parametrize("goal", [Goal(target_rmse=2.0), Goal(max_error=1.0)])
def test_the_peer_measures_what_it_gives_back(goal: Goal, monkeypatch) -> None:
    pytest.importorskip("pcodec")
    monkeypatch.setattr(coin_fields, "_MOST_STEPS", 300)
    chunk = Chunk.of(globes(), LATITUDE)
    found = peers.smallest("COIN", chunk, goal)
    assert found is not None
    result, decoded = found
    assert chunk.errors(decoded)["rmse"] == result.rmse
    assert (result.max_error if goal.max_error else result.rmse) <= goal.size
    assert 0 < result.nbytes < globes().nbytes
    assert result.encode_seconds > 0.01


def test_the_peer_says_that_no_network_meets_a_goal(monkeypatch) -> None:
    monkeypatch.setattr(coin_fields, "_MOST_STEPS", 3)
    monkeypatch.setattr(coin_fields, "_LEAST_STEPS", 1)
    assert peers.smallest("COIN", Chunk.of(globes(), LATITUDE), Goal(target_rmse=1e-3)) is None


def test_the_peer_refuses_what_would_take_hours(monkeypatch) -> None:
    monkeypatch.setattr(coin_fields, "_MOST_WORK", 1e3)
    with pytest.raises(ValueError, match="give it fewer fields"):
        peers.smallest("COIN", Chunk.of(globes(), LATITUDE), Goal(target_rmse=1))


def test_the_peer_runs_only_when_it_is_named(capsys, monkeypatch) -> None:
    xr = pytest.importorskip("xarray")
    own = comparison_table.Row(comparison_table.OWN, nbytes=1)
    monkeypatch.setattr(comparison, "_own", lambda *arguments: (own, None))
    monkeypatch.setattr(peers, "PEERS", {})
    monkeypatch.setattr(coin_fields, "_MOST_STEPS", 300)
    array = xr.DataArray(
        globes(), {"lat": LATITUDE, "lon": np.arange(0, 360, 20)}, ("time", "lat", "lon")
    )
    both = {"target_rmse": 3.0, "model": "none"}
    assert [row.codec for row in comparison.compare(array, **both).rows] == ["COIN++"]
    named = comparison.compare(array, **both, names=["coin"])
    assert {row.codec for row in named.rows} == {"COIN", "COIN++"}
    with pytest.raises(SystemExit):
        cli.main(["compare", "--help"])
    assert "all but coin" in " ".join(capsys.readouterr().out.split())
