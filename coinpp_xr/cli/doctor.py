"""``coinpp doctor``: whether this installation works, and what to do where it does not."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr.cli.text import print_columns, say, tell
from coinpp_xr.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement

_AGAIN = "pip install --force-reinstall --no-deps coinpp-xr"
# Names under which stores ask for the codecs.
CODECS = {
    "numcodecs.codecs": ("coinpp", "coinpp-image", "coinpp-volume", "coinpp-audio"),
    "zarr.codecs": ("coinpp", "coinpp-array", "coinpp-image", "coinpp-volume", "coinpp-audio"),
}
EXTRAS = {
    "torch": "training, and computing on GPUs",
    "plot": "maps and curves",
    "archive": "dask's dashboard, S3 and Icechunk",
    "media": "images, scans and sound",
    "peers": "more codecs in coinpp compare",
    "recommend": "recommended bounds",
    "safeguards": "guarantees for derived quantities",
}
_BOUND = 0.5


@dataclass(frozen=True)
class Finding:
    """One line of what was found.

    Parameters
    ----------
    label, text : str
    problem : str
        What is wrong and what to do, in one line; empty where all is well.
    facts : dict
        The same for machines.
    """

    label: str
    text: str
    problem: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check this installation.

    Looks at versions, devices, the codecs that Zarr finds, caches, models and optional parts, and
    compresses a small field and reads it back. Takes seconds and no network; the first time some
    more, since code is compiled once. Send what it prints with every report of a problem.

    \b
    Examples:
      coinpp doctor
      coinpp doctor --json

    \b
    Exit codes:
      1    something needed does not work; a line on stderr says what to do
    """
    # What libraries print must not come between the lines of the JSON.
    with redirect_stdout(sys.stderr):
        found = {section: _look(section, check) for section, check in CHECKS.items()}
    problems = [line.problem for lines in found.values() for line in lines if line.problem]
    if as_json:
        sections = {
            section: {
                line.label: {"text": line.text, "sound": not line.problem, **line.facts}
                for line in lines
            }
            for section, lines in found.items()
        }
        say(json.dumps({"sound": not problems, "problems": problems, **sections}, indent=2))
    else:
        rows = []
        for section, lines in found.items():
            rows.append((section, ""))
            rows += [(f"  {line.label}", line.text) for line in lines]
        print_columns(rows)
    for problem in problems:
        tell(f"coinpp: {problem}")
    if problems:
        raise typer.Exit(1)
    if not as_json:
        say("everything that is needed works")


def _look(section: str, check: Callable[[], Iterator[Finding]]) -> list[Finding]:
    """What a check finds; where it fails, that too, beside what it had found until then."""
    found: list[Finding] = []
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        advice = "" if "install" in reason else f"; if it stays so: {_AGAIN}"
        found.append(Finding("failed", reason, f"{section}: {reason}{advice}"))
    return found


def _versions() -> Iterator[Finding]:
    where = Path(__file__).parents[1]
    yield Finding("coinpp-xr", f"{__version__}, {where}", facts={"version": __version__})
    version = platform.python_version()
    yield Finding("python", f"{version}, {platform.platform()}", facts={"version": version})
    for requirement in _requirements():
        name, installed = requirement.name, _installed(requirement)
        wanted = f"{name}{_extras(requirement)}{requirement.specifier}"
        problem = ""
        if installed is None:
            problem = f"{name} is missing: pip install '{wanted}'"
        elif not _fits(requirement, installed):
            problem = f"{name} is {installed}, which does not fit: pip install '{wanted}'"
        yield Finding(name, installed or "missing", problem, {"version": installed})


def _requirements(extra: str = "") -> list[Requirement]:
    """What the package says it needs, always or for an extra."""
    from packaging.requirements import Requirement

    every = [Requirement(line) for line in metadata.requires("coinpp-xr") or []]
    return [
        requirement
        for requirement in every
        if ("extra" in str(requirement.marker)) == bool(extra)
        and (requirement.marker is None or requirement.marker.evaluate({"extra": extra}))
    ]


def _extras(requirement: Requirement) -> str:
    return f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""


def _installed(requirement: Requirement) -> str | None:
    try:
        return metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return None


def _fits(requirement: Requirement, installed: str) -> bool:
    # Vendors ship builds of torch that call themselves pre-releases.
    return bool(requirement.specifier.contains(installed, prereleases=True))


def _devices() -> Iterator[Finding]:
    from coinpp_xr.devices import compute_device
    from coinpp_xr.parallel import thread_count
    from coinpp_xr.settings import config

    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    threads = thread_count()
    yield Finding(
        "CPU", f"{usable} of {cores} cores usable, {threads} threads for numeric work",
        facts={"cores": cores, "usable": usable, "threads": threads},
    )  # fmt: skip
    names: list[str] = []
    if find_spec("torch") is None:
        text = "not looked for: torch is missing"
    else:
        with config.set(device="auto"):
            seen = compute_device() != "cpu"  # imports torch only where there is a driver
        if seen:
            import torch

            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        text = ", ".join(names) or "none"
    yield Finding("CUDA", text, facts={"devices": names})
    try:
        used, problem = compute_device(), ""
    except RuntimeError as error:
        used, problem = str(config.get("device")), f"{error} (COINPP_XR_DEVICE)"
    yield Finding("computes on", used, problem, {"device": used})


def _codecs() -> Iterator[Finding]:
    for group, names in CODECS.items():
        ours = {
            point.name: point
            for point in metadata.entry_points(group=group)
            if point.value.startswith("coinpp_xr.")
        }
        faults = [_fault(ours.get(name), name) for name in names]
        wrong = "; ".join(fault for fault in faults if fault)
        yield Finding(
            group,
            wrong or ", ".join(names),
            f"{group}: {wrong}; {_AGAIN}" if wrong else "",
            {"found": sorted(ours)},
        )


def _fault(point: metadata.EntryPoint | None, name: str) -> str:
    if point is None:
        return f"{name} is not found"
    try:
        codec = point.load()
    except Exception as error:
        return f"{name} does not load ({type(error).__name__}: {' '.join(str(error).split())})"
    return "" if getattr(codec, "codec_id", None) == name else f"{name} is another codec"


def _caches() -> Iterator[Finding]:
    from coinpp_xr.model_files import cache_folder

    yield _cache("models", cache_folder(), "set COINPP_XR_CACHE to a folder that can be written")
    from coinpp_xr import binary
    from coinpp_xr.compiled import machine_code_folder

    # Where numba really keeps it: it looks for another place if it cannot write to ours.
    function: Any = binary.code
    advice = "without it every process compiles again: set XDG_CACHE_HOME to a folder of yours"
    if not hasattr(function, "stats"):
        problem = "numba compiles nothing, which is very slow: unset NUMBA_DISABLE_JIT"
        yield Finding("machine code", "not compiled", problem, {"folder": None, "writable": False})
    elif function.stats.cache_path is None:
        problem = f"cache of machine code: nowhere to write; {advice}"
        yield Finding("machine code", "not kept", problem, {"folder": None, "writable": False})
    elif not (folder := Path(function.stats.cache_path)).is_relative_to(machine_code_folder()):
        problem = (
            f"cache of machine code: {machine_code_folder()} cannot be written; what is kept in "
            f"{folder} may be out of date after an upgrade: set XDG_CACHE_HOME to a folder of yours"
        )
        facts = {"folder": str(folder), "writable": not _refusal(folder.absolute())}
        yield Finding("machine code", f"{folder}, not where it belongs", problem, facts)
    else:
        yield _cache("machine code", folder, advice)


def _cache(label: str, folder: Path, advice: str) -> Finding:
    refusal = _refusal(folder.absolute())
    facts = {"folder": str(folder), "writable": not refusal}
    if refusal:
        problem = f"cache of {label}: {folder} cannot be written ({refusal}); {advice}"
        return Finding(label, f"{folder}, not writable: {refusal}", problem, facts)
    return Finding(label, f"{folder}, writable", facts=facts)


def _refusal(folder: Path) -> str:
    """Why nothing can be written there, or into the folder in which it would be made.

    Tried, not asked: permissions say nothing about quotas and read-only disks.
    """
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__


def _models() -> Iterator[Finding]:
    from coinpp_xr.model_files import cache_folder, registry, shipped_models

    known, shipped = registry(), shipped_models()
    if not shipped:
        yield Finding("shipped", "none", f"no models came with the package: {_AGAIN}")
    for name, path in shipped.items():
        yield _shipped_model(name, path, known.get(path.name))
    for path in sorted(cache_folder().glob("*.safetensors")):
        yield _cached_model(path, known.get(path.name))


def _shipped_model(name: str, path: Path, expected: str | None) -> Finding:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    facts = {"path": str(path), "sha256": digest, "where": "shipped"}
    if expected is None:
        return Finding(
            name, "shipped, but not in the registry",
            f"model {name} is not in {path.with_name('registry.txt')}: {_AGAIN}", facts,
        )  # fmt: skip
    if digest != expected:
        problem = f"model {name} is damaged, its sha256 is not the registry's: {_AGAIN}"
        return Finding(name, f"shipped, damaged: {path}", problem, facts)
    return Finding(name, "shipped, sha256 as in the registry", facts=facts)


def _cached_model(path: Path, expected: str | None) -> Finding:
    from coinpp_xr.models import Model

    label = f"{path.stem} (cached)"
    facts: dict[str, Any] = {"path": str(path), "where": "cached"}
    try:
        facts["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        if facts["sha256"] == expected:
            return Finding(label, "sha256 as in the registry", facts=facts)
        model = Model.from_file(path)
    except (ValueError, OSError) as error:
        problem = f"{' '.join(str(error).split())}; remove it, then fetch or install it again"
        return Finding(label, f"damaged: {path}", problem, facts)
    return Finding(label, f"your own, fingerprint {model.fingerprint}", facts=facts)


def _extra_parts() -> Iterator[Finding]:
    for extra, purpose in EXTRAS.items():
        versions, missing = {}, []
        for requirement in _requirements(extra):
            installed = _installed(requirement)
            if installed is None or not _fits(requirement, installed):
                missing.append(f"{requirement.name}{requirement.specifier}")
            else:
                versions[requirement.name] = installed
        command = f"pip install 'coinpp-xr[{extra}]'"
        text = f"{purpose}: " + ", ".join(f"{name} {number}" for name, number in versions.items())
        if missing:
            text = f"{purpose}: missing {', '.join(missing)}; {command}"
        facts = {"versions": versions, "missing": missing, "command": command}
        yield Finding(extra, text, facts=facts)


def _round_trip() -> Iterator[Finding]:
    import numpy as np

    from coinpp_xr import COINppCodec

    start = time.perf_counter()
    latitude = np.deg2rad(np.linspace(84, -84, 8))[:, None]
    longitude = np.deg2rad(np.arange(16) * 22.5)
    shift = np.arange(2)[:, None, None]
    values = (250 + 40 * np.cos(latitude) + 3 * np.sin(longitude + shift)).astype(np.float32)
    codec = COINppCodec(max_error=_BOUND)
    payload = bytes(codec.encode(values))
    decoded = np.asarray(codec.decode(payload), np.float32).reshape(values.shape)
    error = float(np.abs(decoded - values).max())
    seconds = time.perf_counter() - start
    problem = ""
    if not error <= _BOUND:
        problem = f"round trip: an error of {error:g} where {_BOUND:g} was allowed: {_AGAIN}"
    yield Finding(
        "max_error=0.5",
        f"{values.nbytes:,} bytes -> {len(payload):,} bytes, error {error:.3g}, {seconds:.1f} s",
        problem,
        {"nbytes": len(payload), "max_error": error, "seconds": seconds},
    )


CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "versions": _versions,
    "devices": _devices,
    "codecs": _codecs,
    "caches": _caches,
    "models": _models,
    "extras": _extra_parts,
    "round trip": _round_trip,
}
