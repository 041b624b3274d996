"""Coefficients ↔ bits: exact for any symbols, deterministic, close to ideal, safe with damage."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr import coefficients
from coinpp_xr.coefficients import LARGEST, PRIOR_CLASSES
from coinpp_xr.errors import CorruptPayloadError
from coinpp_xr.mixing import COUNT, ONE, Mixer, squash_table, stretch_table


def laplace(shape: tuple[int, ...], scale: np.ndarray | float, seed: int = 0) -> np.ndarray:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, shape)).astype(np.int32)


@given(
    shape=st.tuples(*[st.integers(1, 7)] * 4),
    octaves=st.integers(-3, 27),
    seed=st.integers(0, 1000),
    with_prior=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_any_symbols_come_back(shape, octaves, seed, with_prior) -> None:
    symbols = np.clip(laplace(shape, 2.0**octaves, seed), -LARGEST + 1, LARGEST - 1)
    prior = None
    if with_prior:
        rng = np.random.default_rng(seed)
        prior = rng.integers(0, PRIOR_CLASSES, (shape[1], shape[3]))
    stream = coefficients.encode(symbols, prior)
    assert (coefficients.decode(stream, shape, prior) == symbols).all()


def test_nothing_but_zeros_takes_no_more_than_a_word() -> None:
    assert len(coefficients.encode(np.zeros((1, 256, 46, 90), np.int32))) <= 4


def test_the_largest_symbols_come_back() -> None:
    symbols = np.array([LARGEST - 1, 1 - LARGEST, 0, 1], np.int32).reshape(1, 1, 1, 4)
    stream = coefficients.encode(symbols)
    assert (coefficients.decode(stream, symbols.shape) == symbols).all()


def test_learned_sizes_are_nearly_as_good_as_known_ones() -> None:
    """Laplace symbols whose size falls with the order, against their ideal code length."""
    scale = 40.0 * 0.85 ** np.arange(46)[:, None] * np.ones(90)
    symbols = laplace((1, 40, 46, 90), scale)
    edge = np.exp(-0.5 / scale)
    p = np.where(
        symbols == 0, 1 - edge, 0.5 * edge * (1 - np.exp(-1 / scale)) *
        np.exp(-(np.maximum(np.abs(symbols), 1) - 1) / scale),
    )  # fmt: skip
    ideal = -np.log2(p).sum()
    assert 8 * len(coefficients.encode(symbols)) < 1.03 * ideal


def test_expected_sizes_help_where_there_is_little_to_learn_from() -> None:
    octaves = np.linspace(3, -8, 200)
    symbols = laplace((1, 12, 1, 200), 2.0**octaves)
    prior = np.broadcast_to(np.rint(4 * octaves + PRIOR_CLASSES // 2).astype(int), (12, 200))
    with_prior = len(coefficients.encode(symbols, np.clip(prior, 0, PRIOR_CLASSES - 1)))
    assert with_prior < len(coefficients.encode(symbols))


@pytest.mark.parametrize("seed", range(40))
def test_damaged_streams_end_in_an_error_or_in_symbols_of_the_right_shape(seed) -> None:
    """The container's checksum catches damage; a forged stream must not hang or crash."""
    rng = np.random.default_rng(seed)
    symbols = laplace((1, 6, 8, 10), 3.0)
    stream = bytearray(coefficients.encode(symbols))
    if seed % 2:
        stream[rng.integers(len(stream))] ^= 1 << int(rng.integers(8))
    else:
        stream = stream[: rng.integers(len(stream))]
    try:
        decoded = coefficients.decode(bytes(stream), symbols.shape)
    except CorruptPayloadError:
        return
    assert decoded.shape == symbols.shape


def test_more_than_the_shape_holds_is_refused() -> None:
    stream = coefficients.encode(laplace((1, 6, 8, 10), 3.0)) + b"\x12\x34\x56\x78" * 50
    with pytest.raises(CorruptPayloadError):
        coefficients.decode(stream, (1, 6, 8, 10))


# ---- the mixing of predictions ------------------------------------------------------------------


def test_no_exponential_function_can_change_a_table() -> None:
    """Entries are rounded far from ties, so one unit in the last place is harmless."""
    logits = np.arange(-2839, 2840) / 256
    exact = ONE / (1 + np.exp(-logits))
    inside = (exact > 1) & (exact < ONE - 1)
    assert np.abs(exact[inside] % 1 - 0.5).min() > 1e-4
    table = squash_table()
    assert (np.diff(table) >= 0).all()
    assert table[0] == 1
    assert table[-1] == ONE - 1
    assert (np.abs(table[stretch_table()[table] + 2839] - table) == 0).all()


def test_a_mixer_learns_which_of_its_tables_knows() -> None:
    rng = np.random.default_rng(0)
    mixer = Mixer([np.full((4, 2), COUNT)] * 2)
    cost = 0.0
    for batch in range(60):
        telling, noise = rng.integers(0, 4, 500), rng.integers(0, 4, 500)
        yes = rng.random(500) < np.array([0.02, 0.2, 0.7, 0.99])[telling]
        p = mixer.predict([telling, noise]) / ONE
        if batch >= 40:
            cost -= np.log2(np.where(yes, p, 1 - p)).mean() / 20
        mixer.learn(yes)
    ideal = np.mean([-p * np.log2(p) - (1 - p) * np.log2(1 - p) for p in (0.02, 0.2, 0.7, 0.99)])
    assert cost < ideal + 0.02
