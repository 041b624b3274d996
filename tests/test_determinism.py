"""Decoding gives the same bits everywhere; encoding the same bytes however many threads there are.

That this very process decodes golden payloads bit for bit is tested in test_golden; benchmarks/
determinism.py has more settings.
"""

from __future__ import annotations

from math import exp, inf

import numpy as np
import pytest
from determinism_cases import expected, result, start
from hypothesis import given, settings
from hypothesis import strategies as st

from coinpp_xr.elementary import cosine, exponential, power_of_two, sine
from coinpp_xr.evaluation import Evaluation
from coinpp_xr.products import MOST_TERMS, left, same_product
from coinpp_xr.siren import ModulatedSiren

# Kernels of OpenBLAS that any processor can run, with all that numpy and libm choose by processor
# switched off.
OTHERS = (
    {
        "OPENBLAS_CORETYPE": "Nehalem",
        "OMP_NUM_THREADS": "1",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 X86_V3 AVX512F AVX512_SKX X86_V4",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable",
    },
    {"OPENBLAS_CORETYPE": "Sandybridge", "OMP_NUM_THREADS": "3"},
)


def test_decoding_is_the_same_on_every_processor_and_encoding_with_any_number_of_threads() -> None:
    decoding = [start("decoded", setting) for setting in OTHERS]
    encoding = [start("encoded", {"OMP_NUM_THREADS": n}) for n in "12"]
    found = [result(process) for process in decoding + encoding]
    assert found[0] == expected()
    assert found[1] == expected()
    assert found[2] == found[3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 7, 5), (1, 1, 1), (4, MOST_TERMS + 3, 2), (2, 0, 3)])
def test_products_do_not_depend_on_the_order_of_their_terms(dtype, shape) -> None:
    rng = np.random.default_rng(3)
    m, k, n = shape
    a = (rng.standard_normal((m, k)) * 10.0 ** rng.integers(-9, 9, (m, 1))).astype(dtype)
    b = rng.standard_normal((k, n)).astype(dtype)
    found, exact = same_product(a, b), a.astype(np.float64) @ b.astype(np.float64)
    size = np.abs(a).max(axis=1, initial=0)[:, None] * np.abs(b).max(axis=0, initial=0)
    relative = 2.0**-20 if dtype == np.float32 else 2.0**-40
    assert (np.abs(found - exact) <= relative * np.sqrt(max(k, 1)) * 4 * size).all()
    if k <= MOST_TERMS:
        order = rng.permutation(k)
        assert same_product(a[:, order], b[order]).tobytes() == found.tobytes()
    alone = np.concatenate([same_product(row[None], b) for row in a])
    assert alone.tobytes() == found.tobytes()


def test_operands_are_whole_numbers() -> None:
    values = np.array([[1.0, -0.3, 0.0], [1e-300, 0, 0], [0, 0, 0], [-3e38, 1, 2]])
    for dtype in (np.float32, np.float64):
        operand = left(values.astype(dtype))
        assert (np.rint(operand.high) == operand.high).all()
        assert np.abs(operand.high).max() <= 2**21
        assert (np.frexp(operand.unit)[0] == 0.5).all()
    # Multiples of 2⁻²¹ within ±1 are not rounded at all.
    assert (left(values[:1].astype(np.float32)).high[0, 0]) == 2**21


def test_what_is_not_finite_ends_in_no_error() -> None:
    with np.errstate(all="ignore"):
        found = same_product(np.array([[inf, 1.0]]), np.ones((2, 2)))
    assert not np.isfinite(found).any()


@settings(max_examples=300, deadline=None)
@given(st.floats(-3000, 3000))
def test_elementary_functions(x) -> None:
    angle = np.array([x])
    assert abs(sine(angle) - np.sin(angle)) < 1e-15 + 1e-16 * abs(x) / 100
    assert abs(cosine(angle) - np.cos(angle)) < 1e-15 + 1e-16 * abs(x) / 100
    assert exponential(angle / 5) == pytest.approx(exp(x / 5), rel=1e-15)


def test_elementary_functions_far_out() -> None:
    far = np.array([1e9, -1e300, 0.0])
    assert np.abs(sine(far)).max() <= 2
    assert np.abs(cosine(far)).max() <= 2
    with np.errstate(over="ignore"):
        assert exponential(np.array([-1e9, 0.0, 1e9])).tolist() == [0.0, 1.0, inf]
    assert power_of_two(-128, 64) == 0.25
    assert power_of_two(32, 64) == np.sqrt(2)
    assert cosine(np.zeros(1)) == 1
    assert sine(np.zeros(1)) == 0


def test_networks_are_the_same_in_torch_and_item_by_item() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(4)
    siren = ModulatedSiren.initialise(
        dim_in=3, dim_out=2, width=24, depth=3, latent_dim=5, omega0=30, shift_scale=0.1, rng=rng
    )
    points = rng.standard_normal((50, 3)).astype(np.float32)
    latents = rng.standard_normal((4, 5)).astype(np.float32)
    found = Evaluation(siren)(points, latents)
    np.testing.assert_allclose(found, siren(points, latents), atol=1e-5)
    alone = np.concatenate([Evaluation(siren)(points, z[None]) for z in latents])
    assert alone.tobytes() == found.tobytes()

    class InTorch(Evaluation):
        def _put(self, array):
            return torch.as_tensor(array)

    assert InTorch(siren)(points, latents).tobytes() == found.tobytes()
