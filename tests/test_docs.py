"""Every code block of README and docs runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "pretrained/TRAINING.md"]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text()) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_python_blocks_run_in_order(page, tmp_path, monkeypatch) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code in blocks(page, "python"):
        with warnings.catch_warnings():
            # Zarr says this of every store that xarray writes in format 3.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            exec(compile(code, page.name, "exec"), namespace)


def test_command_lines_run(tmp_path) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    commands = [
        line.split("#")[0].strip()
        for code in blocks(ROOT / "README.md", "bash")
        for line in code.splitlines()
    ]
    for command in commands:
        if command.startswith("coinpp"):
            script = [sys.executable, "-c", "from coinpp_xr.cli import main; main()"]
            subprocess.run([*script, *command.split()[1:]], cwd=tmp_path, check=True)
        elif command.startswith("make"):
            subprocess.run(["make", "-n", *command.split()[1:]], cwd=ROOT, check=True)
        else:
            assert command.startswith("pip install")


def test_figures_in_the_readme_come_from_the_result_files() -> None:
    subprocess.run([sys.executable, ROOT / "benchmarks/tables.py", "--check"], check=True)
