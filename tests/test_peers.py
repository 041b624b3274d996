"""Every peer on its own: what it keeps, how it is cut, and what it says when it cannot."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest

from coinpp_xr import peers
from coinpp_xr.coordinates import area_weights
from coinpp_xr.peers import Chunk, Goal, NotInstalledError
from coinpp_xr.peers.layouts import ALL_ORDERS, Layout, layouts, pictures
from coinpp_xr.peers.search import Method, Search

pytest.importorskip("imagecodecs")
pytest.importorskip("pcodec")
LATITUDE = np.linspace(80, -80, 17)
# The others take a second or so for each search.
FAST = [name for name in peers.PEERS if name not in ("EBCC", "AVIF", "HEVC-intra")]
GOALS = [Goal(max_error=0.3), Goal(target_rmse=0.3)]


def fields(n: int = 3) -> np.ndarray:
    rng = np.random.default_rng(1)
    walk = rng.standard_normal((n, 17, 30)).cumsum(0).cumsum(1).cumsum(2)
    return (280 + walk).astype(np.float32)


def smallest(name: str, chunk: Chunk, goal: Goal) -> tuple[peers.Result, np.ndarray] | None:
    """What the search finds; the test is skipped where the peer is not installed."""
    try:
        return peers.smallest(name, chunk, goal)
    except NotInstalledError as error:
        pytest.skip(f"{name}: {error}")


def achieved(result: peers.Result, goal: Goal) -> float:
    return result.max_error if goal.max_error is not None else result.rmse


# ---- chunks ------------------------------------------------------------------------------------


def test_missing_cells_are_filled_with_the_mean_and_not_measured() -> None:
    values = fields(1)
    values[:, :, :10] = np.nan
    values[0, 0, 11] = np.inf
    chunk = Chunk.of(values, LATITUDE)
    decoded = chunk.values.copy()
    decoded[~chunk.valid] = 1e9
    assert chunk.values[0, 0, 0] == np.float32(values[np.isfinite(values)].mean(dtype=np.float64))
    assert chunk.errors(decoded) == {"max_error": 0, "rmse": 0, "bias": 0}


def test_rmse_and_bias_are_weighted_by_area() -> None:
    chunk = Chunk.of(fields(2), LATITUDE)
    decoded = chunk.values.copy()
    decoded[:, 8] += 1
    weights = area_weights(LATITUDE, 30)
    errors = chunk.errors(decoded)
    assert errors["bias"] == pytest.approx(weights[8].sum(), rel=1e-4)
    assert errors["rmse"] == pytest.approx(np.sqrt(weights[8].sum()), rel=1e-4)


def test_errors_count_from_the_values_that_were_given() -> None:
    values = fields(1).astype(np.float64) + 1e-6
    chunk = Chunk.of(values, LATITUDE)
    assert 0 < chunk.errors(chunk.values)["max_error"] == np.abs(chunk.values - values).max()


def test_values_beyond_single_precision_count_as_missing() -> None:
    values = fields(1).astype(np.float64)
    values[0, 0, 0] = 1e300
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chunk = Chunk.of(values, LATITUDE)
    assert not chunk.valid[0, 0, 0]
    assert chunk.valid.sum() == values.size - 1


def test_nothing_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="no finite value"):
        Chunk.of(np.full((1, 17, 30), np.nan), LATITUDE)


# ---- layouts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3])
def test_every_layout_leads_back(count) -> None:
    values = fields(count)
    cuts = [*layouts(values, ALL_ORDERS, tables=True), *pictures(values)]
    assert len({layout.name for layout in cuts}) == len(cuts) == (1 if count == 1 else 11)
    for layout in cuts:
        assert sum(array.size for array in layout.arrays) == values.size
        np.testing.assert_array_equal(layout.restore(list(layout.arrays)), values)


def test_no_layers_for_a_single_globe() -> None:
    assert [layout.name for layout in layouts(fields(1), ALL_ORDERS)] == ["2D"]


# ---- goals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("goal", GOALS)
@pytest.mark.parametrize(
    "values",
    [
        fields(1),
        fields(3).astype(">f4"),
        fields(2).astype(np.float64),
        np.where(fields(2) > 285, np.nan, fields(2)),
        np.full((2, 17, 30), 7.0),
        np.rint(np.random.default_rng(2).standard_normal((2, 17, 30))),
    ],
    ids=["one globe", "big-endian", "float64", "missing cells", "constant", "few values"],
)
def test_what_is_accepted_keeps_the_goal(name, goal, values) -> None:
    chunk = Chunk.of(values, LATITUDE)
    found = smallest(name, chunk, goal)
    assert found is not None
    result, decoded = found
    assert achieved(result, goal) <= 0.3
    valid = np.isfinite(values)
    own = np.abs(decoded.astype(np.float64) - values.astype(np.float64))[valid].max()
    assert own == result.max_error
    assert result.nbytes > 0


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize("scale", [1e-12, 1e12, 1e25])
@pytest.mark.parametrize("share", [1e-9, 1e-3, 10])
def test_extreme_values_and_goals_end_in_a_result_or_in_none(name, scale, share) -> None:
    values = (fields(2) * scale / 280).astype(np.float32)
    goal = Goal(max_error=scale * share)
    try:
        found = smallest(name, Chunk.of(values, LATITUDE), goal)
    except ValueError:  # more steps than fit, for one
        return
    assert found is None or achieved(found[0], goal) <= goal.size


@pytest.mark.parametrize("name", ["EBCC", "AVIF", "HEVC-intra"])
@pytest.mark.parametrize("goal", GOALS)
def test_slow_peers_keep_the_goal(name, goal, monkeypatch) -> None:
    values = np.tile(fields(1), (1, 2, 2))[:, :32, :40]
    monkeypatch.setattr(peers.search, "_CLOSE", 0.1)
    found = smallest(name, Chunk.of(values, np.linspace(80, -80, 32)), goal)
    assert found is not None
    assert achieved(found[0], goal) <= 0.3


def test_a_bound_of_a_codec_without_bounds_is_kept_by_a_residual() -> None:
    chunk = Chunk.of(fields(2), LATITUDE)
    bounded, _ = peers.smallest("JPEG 2000", chunk, Goal(max_error=0.1))
    free, _ = peers.smallest("JPEG 2000", chunk, Goal(target_rmse=0.1))
    assert bounded.peer == "JPEG 2000 + residual"
    assert free.peer == "JPEG 2000"
    assert free.max_error > 0.1


def test_the_newest_sz3_is_no_larger_where_its_own_choice_is_poor() -> None:
    """It never chooses to predict nothing, which is best for showers among zeros."""
    rng = np.random.default_rng(3)
    showers = np.where(rng.random((2, 17, 30)) < 0.1, rng.random((2, 17, 30)), 0)
    found = smallest("SZ3 3.4", Chunk.of(showers, LATITUDE), Goal(max_error=0.01))
    assert found is not None
    assert "no predictor" in found[0].setting


# ---- searches ----------------------------------------------------------------------------------


def rounding(whole: bool = False) -> Method:
    """A codec whose error is half the setting and whose streams are longer for finer ones."""

    def encode(array: np.ndarray, setting: float) -> bytes:
        return bytes([0]) * int(1e4 / setting) + np.float64(setting).tobytes()

    def decode(stream: bytes, like: np.ndarray) -> np.ndarray:
        return like + np.frombuffer(stream[-8:])[0] / 2

    return Method("rounding", encode, decode, whole)


def searching(goal: Goal) -> tuple[Search, Layout]:
    search = Search("any", Chunk.of(np.zeros((1, 17, 30)), LATITUDE), goal)
    return search, next(layouts(search.chunk.values, []))


def test_bisection_ends_just_below_the_goal() -> None:
    search, layout = searching(Goal(max_error=0.3))
    search.bisect(layout, rounding(), 0.01, 10.0)
    assert 0.2995 < search.best.max_error <= 0.3


def test_bisection_of_whole_numbers_finds_the_last_that_will_do() -> None:
    search, layout = searching(Goal(max_error=20.2))
    search.bisect(layout, rounding(whole=True), 1, 100)
    assert search.best.setting == "2D rounding 40"


def test_a_codec_that_breaks_its_bound_is_tightened_until_it_keeps_it() -> None:
    loose = rounding()
    broken = Method("", loose.encode, lambda stream, like: loose.decode(stream, like) * 2.15)
    search, layout = searching(Goal(max_error=0.3))
    search.at_the_bound(layout, broken)
    assert search.best.setting == "2D 0.27"
    assert search.best.max_error <= 0.3


def test_what_never_keeps_the_goal_is_not_accepted() -> None:
    search, layout = searching(Goal(max_error=0.3))
    ignorant = Method("", lambda array, setting: b"", lambda stream, like: like + 1)
    search.at_the_bound(layout, ignorant)
    search.scan(layout, ignorant, [1.0, 0.1])
    assert search.best is None


@pytest.mark.parametrize("returned", [np.full((17, 30), np.nan), np.zeros(3)])
def test_nonsense_is_not_accepted(returned) -> None:
    search, layout = searching(Goal(max_error=0.3))
    search.attempt(layout, Method("", lambda array, s: b"", lambda stream, like: returned), 1.0)
    assert search.best is None


def test_all_globes_in_one_picture_save_headers() -> None:
    found, _ = peers.smallest("JPEG", Chunk.of(fields(3), LATITUDE), Goal(target_rmse=1.0))
    assert found.setting.startswith(("2D side by side", "2D stacked"))


# ---- what is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("SZ3", "imagecodecs", "pip install imagecodecs"),
        ("SZ3 3.4", "pysz", "pip install pysz"),
        ("PCodec", "pcodec", "pip install pcodec"),
        ("EBCC", "numcodecs_wasm_ebcc", "pip install numcodecs-wasm-ebcc"),
    ],
)
def test_missing_libraries_are_named(name, module, message, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotInstalledError, match=message):
        peers.smallest(name, Chunk.of(fields(1), LATITUDE), GOALS[0])


def test_hevc_needs_ffmpeg(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalledError, match="ffmpeg with libx265"):
        peers.smallest("HEVC-intra", Chunk.of(fields(1), LATITUDE), GOALS[0])


def test_hevc_needs_x265_in_ffmpeg(monkeypatch, tmp_path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(NotInstalledError, match="ffmpeg with libx265"):
        peers.smallest("HEVC-intra", Chunk.of(fields(1), LATITUDE), GOALS[0])
