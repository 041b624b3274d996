"""The committed results of ``coinpp reproduce all --quick``: run it, copy figures and numbers.

    COINPP_DATA=... python benchmarks/reproduction.py [FOLDER]

FOLDER (out/reproduction) keeps networks and what is done: an interrupted run goes on there.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from common import RESULTS

from coinpp_xr.reproduction import ITEMS, reproduce

IMAGES = RESULTS.parent.parent / "docs" / "images" / "reproduction"


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "out/reproduction")
    for name in ITEMS:
        reproduce(name, folder, quick=True)
    for target, suffix in ((RESULTS / "reproduction", "json"), (IMAGES, "png")):
        target.mkdir(parents=True, exist_ok=True)
        for name in ITEMS:
            shutil.copy(folder / f"{name}.{suffix}", target)


if __name__ == "__main__":
    main()
