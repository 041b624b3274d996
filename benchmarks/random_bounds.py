"""Ten thousand random arrays of every kind: how many come back wrong.

python benchmarks/random_bounds.py [--of globes|patches|exact] [--cases 10000] [--workers 2]

Globes under bounds; patches of images, volumes and sound under every rate control; fields with
exact values, limits and masks, whose ranges, shared values and means must be kept.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np
from common import write_result

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from bound_cases import Case
from exact_cases import ExactCase
from patch_cases import PatchCase

# Of what, what tells the cases apart, and the result file.
KINDS = {
    "globes": (Case, ("kind", "dtype", "gaps", "layout", "by", "effort", "model"), "random_bounds"),
    "exact": (
        ExactCase, ("kind", "dtype", "gaps", "control", "effort", "beside"), "random_exact",
    ),
    "patches": (
        PatchCase, ("codec", "kind", "dtype", "gaps", "layout", "control"), "random_patches",
    ),
}  # fmt: skip


def check(case: Case | ExactCase | PatchCase) -> str:
    """What is wrong, if anything is."""
    warnings.simplefilter("error")
    try:
        return case.check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--of", choices=KINDS, default="globes")
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    options = parser.parse_args()
    rng, start = np.random.default_rng(options.seed), time.perf_counter()
    kind, names, result_file = KINDS[options.of]
    cases = [kind.random(rng) for _ in range(options.cases)]
    with ProcessPoolExecutor(options.workers) as pool:
        found = pool.map(check, cases, chunksize=20)
        wrong = [(case, what) for case, what in zip(cases, found, strict=True) if what]
    for case, what in wrong[:20]:
        print(what, case)
    result = {
        "cases": len(cases),
        "wrong": len(wrong),
        "seconds": round(time.perf_counter() - start, 1),
        "seed": options.seed,
        **{name: dict(Counter(str(getattr(case, name)) for case in cases))
           for name in names},
    }  # fmt: skip
    write_result(result_file, result)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(cases)} came back wrong")


if __name__ == "__main__":
    main()
