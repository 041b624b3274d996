"""Ten thousand random arrays of every kind under random bounds: how many come back wrong.

python benchmarks/random_bounds.py [--cases 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("COINPP_XR_THREADS", "1")

import numpy as np
from common import write_result

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from bound_cases import Case


def check(case: Case) -> str:
    """What is wrong, if anything is."""
    try:
        return case.check()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("error")
    rng, start = np.random.default_rng(options.seed), time.perf_counter()
    cases = [Case.random(rng) for _ in range(options.cases)]
    wrong = [(case, what) for case in cases if (what := check(case))]
    for case, what in wrong[:20]:
        print(what, case)
    result = {
        "cases": len(cases),
        "wrong": len(wrong),
        "seconds": round(time.perf_counter() - start, 1),
        "seed": options.seed,
        **{name: dict(Counter(str(getattr(case, name)) for case in cases))
           for name in ("kind", "dtype", "gaps", "layout", "by", "effort", "model")},
    }  # fmt: skip
    write_result("random_bounds", result)
    if wrong:
        sys.exit(f"{len(wrong)} of {len(cases)} came back wrong")


if __name__ == "__main__":
    main()
