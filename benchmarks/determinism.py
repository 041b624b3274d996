"""Do golden payloads decode to the same bits whatever processor, library and number of threads?

python benchmarks/determinism.py [--python OTHER_PYTHON ...]

Each setting is a process of its own. Other interpreters need this package's dependencies. The first
time that numba compiles for another processor takes minutes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from common import write_result

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from determinism_cases import expected, result, start

CPU_FEATURES = "AVX2 FMA3 X86_V3 AVX512F AVX512_SKX X86_V4"
LIBM = "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable"
SETTINGS: dict[str, dict[str, str]] = {
    "as it comes": {},
    **{f"OpenBLAS for {name}": {"OPENBLAS_CORETYPE": name} for name in
       ("Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX")},
    **{f"{n} threads": {"OMP_NUM_THREADS": str(n)} for n in (1, 2, 7)},
    "numpy without AVX2": {"NPY_DISABLE_CPU_FEATURES": CPU_FEATURES},
    "libm without FMA": {"GLIBC_TUNABLES": LIBM},
    "numba for any x86-64": {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""},
    "numba for Haswell": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma"},
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", nargs="*", default=[], help="other interpreters")
    wanted, differing, not_run = expected(), {}, []
    settings = [(name, setting, sys.executable) for name, setting in SETTINGS.items()]
    settings += [(python, {}, python) for python in parser.parse_args().python]
    for name, setting, python in settings:
        found = result(start("decoded", setting, python))
        if not found:  # a processor that lacks what the kernel needs
            not_run.append(name)
            continue
        differing[name] = [key for key, value in wanted.items() if found[key] != value]
    threads = [result(start("encoded", {"OMP_NUM_THREADS": n})) for n in "124"]
    encoding = [key for key in threads[0] if len({found[key] for found in threads}) > 1]
    write_result(
        "determinism",
        {
            "payloads": len(wanted), "decode_differently": differing, "cannot_run_here": not_run,
            "rate_controls": len(threads[0]), "encode_differently_with_1_2_4_threads": encoding,
        },
    )  # fmt: skip


if __name__ == "__main__":
    main()
