"""Every code block of README and docs runs."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import warnings
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from coinpp_xr import config, eofs
from coinpp_xr.archiving import cluster
from coinpp_xr.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "pretrained/TRAINING.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
# What there is no time for here.
SHORTER = {
    "--max-minutes 30": "--max-minutes 0.05", "--latent-dim 256": "--latent-dim 4",
    "minutes=0.1": "minutes=0.03", "minutes=0.2": "minutes=0.03",
}  # fmt: skip


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Workers that are threads, and small tails: nothing waits for imports or large matrices."""
    monkeypatch.setattr(
        cluster, "LocalCluster", lambda **own: LocalCluster(**(own | {"processes": False}))
    )
    monkeypatch.setattr(eofs, "MOST_DEGREE", 12)


def blocks(page: Path, language: str) -> list[str]:
    found = [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]
    for long, short in SHORTER.items():
        found = [code.replace(long, short) for code in found]
    return found


def run_blocks(page: Path, folder: Path) -> dict[str, Any]:
    """Run a page's Python in a folder that has nothing but the examples; all that it defines."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    namespace: dict[str, Any] = {}
    with chdir(folder):
        for code in blocks(page, "python"):
            with warnings.catch_warnings():
                # Zarr says this of every store that xarray writes in format 3.
                warnings.filterwarnings("ignore", message="Consolidated metadata")
                exec(compile(code, page.name, "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_in_order(page, tmp_path) -> None:
    run_blocks(page, tmp_path)


def command_lines(page: Path) -> list[str]:
    lines = [line for code in blocks(page, "bash") for line in code.splitlines()]
    return [line.split(" #")[0].strip() for line in lines]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "bash")], ids=lambda p: p.name
)
def test_command_lines_run(page, tmp_path, monkeypatch, capfd) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for year in (2019, 2020):
        shutil.copy(ROOT / "examples/era5_t2m_46x90.nc", tmp_path / f"era5_{year}.nc")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COINPP_DATA", raising=False)
    for line in command_lines(page):
        program, *arguments = shlex.split(line.partition(" > ")[0]) or ["echo"]
        if program == "coinpp":
            with pytest.raises(SystemExit) as ended, config.set(cache=str(tmp_path / "models")):
                main(arguments)
            # The paper's data is not here; 2 would be a line that is wrong.
            expected = 1 if arguments[0] == "reproduce" else 0
            assert (ended.value.code or 0) == expected, f"{line}: {capfd.readouterr().err}"
        elif program == "make":
            subprocess.run(["make", "-n", *arguments], cwd=ROOT, check=True)
        else:
            assert program in {"pip", "mkdir", "echo"}


def test_figures_in_the_readme_come_from_the_result_files() -> None:
    subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], check=True)
