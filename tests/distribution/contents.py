"""Check what wheel and sdist hold, and that a wheel made from the sdist holds the same.

python tests/distribution/contents.py dist
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = "coinpp_xr"


def kept(*patterns: str) -> set[str]:
    """Files that git does not ignore, by path from the root."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    # What was removed and not yet committed is not there to be packed.
    return {name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).exists()}


def files_of_wheel(path: Path) -> dict[str, int]:
    """CRC-32 of every file in a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return {entry.filename: entry.CRC for entry in wheel.infolist() if not entry.is_dir()}


def files_of_sdist(path: Path) -> set[str]:
    """Paths of all files in an sdist, without the folder that holds them."""
    with tarfile.open(path) as sdist:
        return {entry.name.partition("/")[2] for entry in sdist if entry.isfile()}


def wheel_of_sdist(path: Path, folder: Path) -> Path:
    """Unpack an sdist and build its wheel."""
    with tarfile.open(path) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = folder.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel"],
        cwd=source, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True,
    )  # fmt: skip
    return one(source / "dist", "*.whl")


def one(folder: Path, pattern: str) -> Path:
    found = list(folder.glob(pattern))
    if len(found) != 1:
        raise SystemExit(f"{folder} holds {len(found)} files {pattern}, not one")
    return found[0]


def complain(what: str, names: set[str]) -> None:
    if names:
        raise SystemExit(f"{what}: {', '.join(sorted(names))}")


def main(folder: Path) -> None:
    wheel = files_of_wheel(one(folder, "*.whl"))
    sdist = files_of_sdist(one(folder, "*.tar.gz"))

    sources = kept(PACKAGE)
    models = kept("pretrained")
    needed = {f"{PACKAGE}/py.typed", f"{PACKAGE}/reproduction/published/rd_points.csv"}
    complain("git does not keep", needed - sources)
    if not any(name.endswith(".safetensors") for name in models):
        raise SystemExit("there is no model in pretrained/")
    complain("not in the wheel", (sources | {f"{PACKAGE}/{name}" for name in models}) - set(wheel))
    complain("not in the sdist", (sources | models | kept("tests", "examples")) - sdist)
    complain("in the sdist, and ignored by git", sdist - kept() - {"PKG-INFO"})

    with tempfile.TemporaryDirectory() as temporary:
        again = files_of_wheel(wheel_of_sdist(one(folder, "*.tar.gz"), Path(temporary)))
    differing = {name for name in wheel.keys() | again.keys() if wheel.get(name) != again.get(name)}
    complain("not the same in the wheel made from the sdist", differing)
    print(f"wheel of {len(wheel)} files and sdist of {len(sdist)}: complete, and the same package")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
