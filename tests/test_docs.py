"""Every code block of README and docs runs; the modules' arrows point one way."""

from __future__ import annotations

import ast
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


CORE = {
    "bands", "binary", "bitstream", "blocks", "candidates", "causal", "choice", "coefficients",
    "compact", "compiled", "coordinates", "cosines", "deblocking", "devices", "entropy", "eofs",
    "errors", "files", "fitting", "harmonics", "latent_maps", "mixing", "models", "network",
    "notebook_html", "parallel", "patch_candidates", "patch_chunk", "patch_header", "patch_latents",
    "patch_learning",
    "patch_reading", "patch_subject", "patches", "patterns", "priors", "quantization",
    "recognition", "reference", "residual", "schemes", "settings", "siren", "splitting",
    "stepping", "training", "transform",
}  # fmt: skip
FRONT_ENDS = {
    "accessor", "archiving", "catalogue", "cli", "codecs", "comparison", "compressed_file",
    "curves", "metrics", "model_choice", "peers", "planning", "plots", "progress", "report",
    "reproduction", "roundtrip", "selection", "stores", "verification", "writing",
    "xarray_encoding",
}  # fmt: skip


def imports(module: Path) -> set[str]:
    """Our own modules that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("coinpp_xr"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_never_imports_a_front_end(name) -> None:
    assert not imports(ROOT / f"coinpp_xr/{name}.py") & (FRONT_ENDS | {"chunk", "building", "data"})


@pytest.mark.parametrize("name", sorted(FRONT_ENDS - {"archiving", "cli", "curves"}))
def test_only_the_command_line_knows_archives(name) -> None:
    path = ROOT / f"coinpp_xr/{name}"
    for module in path.glob("*.py") if path.is_dir() else [path.with_suffix(".py")]:
        assert "archiving" not in imports(module)


@pytest.mark.parametrize("name", ["latent_maps", "coordinates", "errors", "files"])
def test_the_ground_floor_imports_nothing_of_ours(name) -> None:
    assert not imports(ROOT / f"coinpp_xr/{name}.py")


def test_the_network_stands_on_its_latent_map_alone() -> None:
    assert imports(ROOT / "coinpp_xr/siren.py") == {"latent_maps"}


@pytest.mark.parametrize("name", ["training", "fitting"])
def test_training_stands_on_the_ground_floor(name) -> None:
    allowed = {
        "cosines", "fitting", "network", "harmonics", "siren", "latent_maps", "coordinates",
        "errors", "files",
    }  # fmt: skip
    assert imports(ROOT / f"coinpp_xr/{name}.py") <= allowed


def test_every_module_stands_in_the_picture() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    names = {p.stem for p in (ROOT / "coinpp_xr").glob("*.py")} - {"__init__"}
    assert not {name for name in names if f"`{name}`" not in text and f"{name}:" not in text} - {
        "settings", "errors", "files",
    }  # fmt: skip
