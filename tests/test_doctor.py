"""``coinpp doctor``: what it finds, and what it advises where something is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coinpp_xr import __version__, config, devices, model_files
from coinpp_xr.cli import doctor, main

PYPROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
Doctor = Callable[..., tuple[int, str, list[str]]]


@pytest.fixture
def examine(capsys: pytest.CaptureFixture[str]) -> Doctor:
    """Exit code, output and lines on stderr."""

    def run(*options: str) -> tuple[int, str, list[str]]:
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *options])
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err.splitlines()

    return run


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path) -> Iterator[None]:
    with config.set(cache=str(tmp_path / "cache"), model_url=None):
        yield


def only(monkeypatch: pytest.MonkeyPatch, *sections: str) -> None:
    """The others are not what a test is about, and take time."""
    monkeypatch.setattr(doctor, "CHECKS", {name: doctor.CHECKS[name] for name in sections})


def test_a_sound_installation(examine, tmp_path) -> None:
    code, out, err = examine()
    assert (code, err) == (0, [])
    assert out.splitlines()[-1] == "everything that is needed works"
    assert __version__ in out
    for word in (*doctor.CHECKS, "numpy", "zarr", "CUDA", "coinpp-array", "t2m-46x90"):
        assert word in out
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_json(examine) -> None:
    code, out, err = examine("--json")
    found = json.loads(out)
    assert (code, err) == (0, [])
    assert found["sound"]
    assert found["problems"] == []
    assert found["versions"]["coinpp-xr"]["version"] == __version__
    assert found["round trip"]["max_error=0.5"]["max_error"] <= 0.5
    assert all(line["sound"] for name in doctor.CHECKS for line in found[name].values())


def test_names_are_those_of_the_project() -> None:
    points = PYPROJECT["entry-points"]
    assert {group: tuple(points[group]) for group in doctor.CODECS} == doctor.CODECS
    assert set(PYPROJECT["optional-dependencies"]) - {"docs", "dev", "all"} == set(doctor.EXTRAS)


def test_nothing_heavy_is_imported_for_help() -> None:
    code = (
        "import sys; from coinpp_xr.cli import main\n"
        "try: main(['doctor', '--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'zarr', 'dask', 'numba') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.splitlines()[-1] == "[]"


def without(monkeypatch: pytest.MonkeyPatch, package: str, version: str | None = None) -> None:
    """As if a package were missing, or another version were installed."""
    real = metadata.version

    def fake(name: str) -> str:
        if name != package:
            return real(name)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", fake)


def test_a_missing_extra_is_no_failure(examine, monkeypatch) -> None:
    only(monkeypatch, "versions", "extras")
    without(monkeypatch, "nibabel")
    code, out, err = examine()
    assert (code, err) == (0, [])
    (line,) = (line for line in out.splitlines() if "nibabel" in line)
    assert "missing nibabel" in line
    assert "pip install 'coinpp-xr[media]'" in line


@pytest.mark.parametrize(("version", "word"), [(None, "missing"), ("3.0.0", "3.0.0")])
def test_what_is_needed_must_be_there_and_fit(examine, monkeypatch, version, word) -> None:
    only(monkeypatch, "versions")
    without(monkeypatch, "zarr", version)
    code, _, err = examine()
    assert code == 1
    (problem,) = err
    assert problem.startswith("coinpp: zarr is ")
    assert word in problem
    assert "pip install 'zarr>=3.1.2'" in problem


def test_a_broken_cache_folder(examine, monkeypatch, tmp_path) -> None:
    only(monkeypatch, "caches", "models")
    (tmp_path / "file").touch()
    with config.set(cache=str(tmp_path / "file/cache")):
        code, out, err = examine()
    assert code == 1
    (problem,) = err
    assert "COINPP_XR_CACHE" in problem
    assert "not writable" in out
    assert "machine code" in out


def keep_machine_code(monkeypatch, folder: str | None) -> None:
    """As numba does where it cannot write to the folder that it was told."""
    from coinpp_xr import binary

    function = SimpleNamespace(stats=SimpleNamespace(cache_path=folder))
    monkeypatch.setattr(binary, "code", function)


def test_nowhere_to_keep_machine_code(examine, monkeypatch) -> None:
    only(monkeypatch, "caches")
    keep_machine_code(monkeypatch, None)
    code, _, err = examine()
    assert code == 1
    assert "XDG_CACHE_HOME" in err[0]


def test_machine_code_that_is_kept_where_upgrades_do_not_renew_it(examine, monkeypatch) -> None:
    only(monkeypatch, "caches")
    keep_machine_code(monkeypatch, "site-packages/coinpp_xr/__pycache__")
    code, out, err = examine()
    assert code == 1
    assert "site-packages/coinpp_xr/__pycache__, not where it belongs" in " ".join(out.split())
    assert "out of date after an upgrade" in err[0]


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with one model whose bytes are not what the registry says."""
    path = tmp_path / "package/tiny.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"damaged")
    monkeypatch.setattr(model_files, "shipped_models", lambda: {"tiny": path})
    monkeypatch.setattr(model_files, "registry", lambda: {path.name: "0" * 64})
    return path


def test_a_damaged_shipped_model(examine, monkeypatch, shipped) -> None:
    only(monkeypatch, "models")
    code, out, err = examine("--json")
    assert code == 1
    (problem,) = err
    assert "model tiny is damaged" in problem
    assert "pip install" in problem
    found = json.loads(out)
    assert not found["sound"]
    assert not found["models"]["tiny"]["sound"]
    assert [f"coinpp: {problem}" for problem in found["problems"]] == err


def test_cached_models(examine, monkeypatch, tmp_path, tiny_model) -> None:
    only(monkeypatch, "models")
    tiny_model.save(tmp_path / "cache/mine.safetensors")
    assert examine()[0] == 0
    (tmp_path / "cache/other.safetensors").write_bytes(b"no model")
    code, out, err = examine()
    assert code == 1
    (problem,) = err
    assert "other.safetensors" in problem
    assert "remove it" in problem
    assert f"fingerprint {tiny_model.fingerprint}" in out


def test_codecs_that_are_not_found_or_do_not_load(examine, monkeypatch) -> None:
    only(monkeypatch, "codecs")
    points = [
        metadata.EntryPoint("coinpp", "coinpp_xr.codecs.sphere:COINppCodec", "zarr.codecs"),
        metadata.EntryPoint("coinpp-image", "coinpp_xr.codecs.nowhere:Codec", "zarr.codecs"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    code, _, err = examine()
    assert code == 1
    assert len(err) == 2  # one for each group
    for problem in err:
        assert "coinpp-volume is not found" in problem
        assert "coinpp-image does not load (ModuleNotFoundError" in problem
        assert "pip install" in problem


def test_graphics_cards_are_named(examine, monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    only(monkeypatch, "devices")
    monkeypatch.setattr(devices, "_cuda_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"Card {i}")
    found = json.loads(examine("--json")[1])
    assert found["devices"]["CUDA"]["devices"] == ["Card 0", "Card 1"]
    assert found["devices"]["computes on"]["device"] == "cuda"


def test_a_device_that_is_not_there(examine, monkeypatch) -> None:
    only(monkeypatch, "devices")
    monkeypatch.setattr(devices, "_cuda_available", lambda: False)
    with config.set(device="cuda"):
        code, _, err = examine()
    assert code == 1
    assert "COINPP_XR_DEVICE" in err[0]


@pytest.mark.parametrize("section", list(doctor.CHECKS))
def test_a_check_that_fails_is_reported_and_the_others_go_on(examine, monkeypatch, section) -> None:
    def one(_: Any = None) -> Iterator[doctor.Finding]:
        yield doctor.Finding("before", "was found")

    def broken() -> Iterator[doctor.Finding]:
        yield from one()
        raise RuntimeError("of two\nlines")

    checks = {name: broken if name == section else one for name in doctor.CHECKS}
    monkeypatch.setattr(doctor, "CHECKS", checks)
    code, out, err = examine()
    assert code == 1
    assert out.count("was found") == len(checks)
    (problem,) = err
    assert problem.startswith(f"coinpp: {section}: RuntimeError: of two lines; ")
