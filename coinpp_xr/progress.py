"""A bar for work that takes longer than a moment, in terminals and in notebooks."""

from __future__ import annotations

import sys
from time import monotonic
from types import TracebackType
from typing import Any, Self

# Of work that is over sooner nobody asks how far it is.
_PATIENCE = 1.5


class Progress:
    """Shows nothing before a second and a half, and never where nobody looks.

    Parameters
    ----------
    text : str
        What is being done.
    total : int
        Steps.
    patience : float, optional
        Seconds before anything is shown; default: a second and a half.
    """

    def __init__(self, text: str, total: int, patience: float | None = None) -> None:
        self._text, self._total = text, total
        self._patience = _PATIENCE if patience is None else patience
        self._done = 0
        self._begun = monotonic()
        self._in_notebook = in_notebook()
        self._show = somebody_looks()
        self._bar: Any = None

    def __enter__(self) -> Self:
        return self

    def step(self, count: int) -> None:
        """So many steps are done."""
        self._done += count
        if not self._show:
            return
        if self._bar is None:
            if monotonic() - self._begun < self._patience or self._done >= self._total:
                return
            self._bar = self._notebook_bar() if self._in_notebook else self._terminal_bar()
        if self._in_notebook:
            self._bar.progress = self._done
        else:
            self._bar.update(self._bar.task_ids[0], completed=self._done)

    def describe(self, text: str) -> None:
        """Say what is being done from now on."""
        self._text = text
        self.step(0)
        if self._bar is not None and not self._in_notebook:
            self._bar.update(self._bar.task_ids[0], description=text)

    def _terminal_bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        bar = Bar(
            TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(),
            TimeRemainingColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        bar.add_task(self._text, total=self._total)
        bar.start()
        return bar

    def _notebook_bar(self) -> Any:
        # Rich's own needs ipywidgets, which a notebook may lack; this one needs IPython alone.
        from IPython.display import ProgressBar

        bar = ProgressBar(self._total)  # type: ignore[no-untyped-call]
        bar.display()  # type: ignore[no-untyped-call]
        return bar

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None and not self._in_notebook:
            self._bar.stop()


def somebody_looks() -> bool:
    """Whether what is written to the standard error is read while it is written."""
    return in_notebook() or (sys.stderr is not None and sys.stderr.isatty())


def announce(line: str) -> None:
    """Tell what is about to come, where somebody looks."""
    if somebody_looks():
        print(line, file=sys.stderr, flush=True)


def in_words(seconds: float) -> str:
    """``40 seconds``, ``12 minutes``, ``3 hours``: what is only known roughly."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * length:
            return f"{round(seconds / length)} {unit}"
    return f"{max(1, round(seconds))} second{'s' if round(seconds) > 1 else ''}"


def in_notebook() -> bool:
    """Whether a kernel of Jupyter's runs this process."""
    shell = sys.modules.get("IPython")
    found = shell.get_ipython() if shell is not None else None
    return found is not None and hasattr(found, "kernel")
