"""``coinpp completion``: what lets a shell complete commands and options.

typer's own ``--install-completion`` edits ~/.bashrc and the like unasked, which is not for
machines where many share one set of settings; the script is printed instead.
"""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import (  # type: ignore[attr-defined]
    completion_init,
    get_completion_script,
)

# How the scripts ask for completions; typer makes the name from that of the program.
_VARIABLE = "_COINPP_COMPLETE"


class Shell(StrEnum):
    """Shells whose scripts are known to work."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def answer_shells() -> None:
    """Let typer answer where one of the scripts calls."""
    if _VARIABLE in os.environ:
        completion_init()


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="Which.", show_default=False)],
) -> None:
    """Print a script for completion on Tab.

    Nothing is changed: write the script to a file, and source that in the shell's settings, such
    as ~/.bashrc. In ~/.zshrc it belongs below compinit; fish finds it by itself.

    \b
    Examples:
      coinpp completion bash > ~/.coinpp-completion.bash
      coinpp completion zsh > ~/.coinpp-completion.zsh
      coinpp completion fish > ~/.config/fish/completions/coinpp.fish
    """
    typer.echo(get_completion_script(prog_name="coinpp", complete_var=_VARIABLE, shell=shell.value))
