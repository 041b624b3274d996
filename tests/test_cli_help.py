"""What ``coinpp`` says about itself: help, examples, exit codes, completion."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import typer

import coinpp_xr.archiving
from coinpp_xr import model_files
from coinpp_xr.cli import app, main

ROOT = typer.main.get_command(app)
PAGE = Path(__file__).parent.parent / "docs/command-line.md"
# Where a shell takes over from the command's own arguments.
SHELL_SIGNS = {">", "|", ";", "&&"}


def walk(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that name it, groups too."""
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from walk(child, (*path, name))


COMMANDS = dict(walk(ROOT))
of_every_command = pytest.mark.parametrize("path", COMMANDS, ids=lambda path: " ".join(path))


def help_of(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    assert run(*path, "--help") == 0
    return capsys.readouterr().out


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


EXAMPLES = sorted(
    {
        line
        for command in COMMANDS.values()
        for line in re.findall(r"^ +(coinpp .+)$", command.help or "", re.MULTILINE)
    }
)


# ---- help -----------------------------------------------------------------------------------


@of_every_command
def test_every_help_has_an_example(path, capsys) -> None:
    section = re.split(r"Examples?:", help_of(path, capsys))[1]
    assert " ".join(("coinpp", *path)) in section


@of_every_command
def test_help_fits_a_terminal(path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert [line for line in help_of(path, capsys).splitlines() if len(line) > 80] == []


@of_every_command
def test_every_argument_and_option_is_explained(path) -> None:
    unexplained = [p.name for p in COMMANDS[path].params if not getattr(p, "help", None)]
    assert unexplained == []


@of_every_command
def test_summaries_are_whole_lines(path) -> None:
    """Lists of commands and hints of shells cut what is longer."""
    if path:  # coinpp itself stands in no list
        assert not COMMANDS[path].get_short_help_str().endswith("...")


@pytest.mark.parametrize("example", EXAMPLES)
def test_examples_can_be_parsed(example) -> None:
    words = shlex.split(example)[1:]
    end = next((i for i, word in enumerate(words) if word in SHELL_SIGNS), len(words))
    words, command = words[:end], ROOT
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert command is not ROOT
    command.make_context("coinpp", words).close()


def test_a_renamed_option_would_be_found() -> None:
    with pytest.raises(Exception, match="--no-such"):
        COMMANDS["compare",].make_context("coinpp", ["era5.nc", "--no-such", "1"])


def test_the_page_tells_of_every_command() -> None:
    text = PAGE.read_text()
    missing = [path for path in COMMANDS if " ".join(("coinpp", *path)) not in text]
    assert missing == []


# ---- exit codes -----------------------------------------------------------------------------


def test_exit_codes_of_the_page_are_those_of_the_help(capsys) -> None:
    section = help_of((), capsys).split("Exit codes:")[1].split("Options:")[0]
    codes = re.findall(r"^ +(\d+) ", section, re.MULTILINE)
    assert codes == re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)


def test_0_done() -> None:
    assert run("models", "list") == 0


def test_1_did_not_work(capsys) -> None:
    assert run("models", "show", "nothing") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("words", [("archive", "a.nc"), ("completion", "tcsh"), ("doctor", "-x")])
def test_2_wrong_command_line(words) -> None:
    assert run(*words) == 2


def test_3_blocks_are_missing(monkeypatch, capsys) -> None:
    outcome = SimpleNamespace(failures=["t2m time=0:4"])
    monkeypatch.setattr(coinpp_xr.archiving, "archive", lambda *_, **__: outcome)
    assert run("archive", "a.nc", "a.zarr", "--max-error", "1") == 3
    assert "1 blocks failed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ((coinpp_xr.archiving, "archive"), ("archive", "a.nc", "a.zarr", "--max-error", "1")),
        ((coinpp_xr.archiving, "verify"), ("verify", "a.zarr")),
        ((model_files, "models_at_hand"), ("models", "list")),
    ],
)
def test_130_stopped(place, words, monkeypatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(*place, stop)
    assert run(*words) == 130


# ---- completion -----------------------------------------------------------------------------


@pytest.fixture
def coinpp_on_path(tmp_path, monkeypatch) -> None:
    """A ``coinpp`` as shells call it, of this checkout."""
    script = tmp_path / "bin/coinpp"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m coinpp_xr.cli "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}{os.pathsep}{os.environ['PATH']}")


def completions(line: str) -> set[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    code = (
        'source <(coinpp completion bash); COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        '_coinpp_completion coinpp; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(
        ["bash", "-c", code, "bash", *words], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return set(done.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("coinpp comp", {"compare", "compress", "completion"}),
        ("coinpp compa", {"compare"}),
        ("coinpp models s", {"show"}),
        (
            "coinpp archive a.nc out.zarr --max",
            {"--max-error", "--max-error-relative", "--max-mean-error"},
        ),
        ("coinpp train --list-presets --pre", {"--preset", "--precision"}),
        ("coinpp completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_bash_completes(coinpp_on_path, line, offered) -> None:
    assert completions(line) == offered


@pytest.mark.parametrize(
    ("shell", "sign"),
    [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "complete --command")],
)
def test_scripts_are_printed_and_nothing_is_changed(
    shell, sign, capsys, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run("completion", shell) == 0
    assert capsys.readouterr().out.startswith((sign, "_coinpp_completion"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_answered(shell, monkeypatch, capsys) -> None:
    monkeypatch.setenv("_COINPP_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "coinpp comp")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    assert run() == 0
    answer = capsys.readouterr().out
    assert "compare" in answer
    assert "archive" not in answer
