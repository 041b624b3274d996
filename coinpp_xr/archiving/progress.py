"""How far an archive is, while it is written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from coinpp_xr.archiving.manifest import column
from coinpp_xr.archiving.work import Failure, Outcome
from coinpp_xr.progress import in_notebook
from coinpp_xr.text_tables import printable

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def beginning(show: bool | None) -> Iterator[Callable[[str], None]]:
    """What is done before the first block, in a terminal: gives what says it.

    Parameters
    ----------
    show : bool or None
        None: where there is a terminal to show it in.
    """
    if not (sys.stderr.isatty() if show is None else show) or in_notebook():
        yield lambda text: None
        return
    from rich.console import Console
    from rich.text import Text

    with Console(stderr=True).status("") as status:
        yield lambda text: status.update(Text(printable(text)))


class Progress:
    """A bar of blocks with MB/s, the ratio so far and the time that is left; dask's in notebooks.

    Parameters
    ----------
    show : bool or None
        None: where there is a terminal or a notebook to show it in.
    total : int
        Blocks.
    client : Client
    """

    def __init__(self, show: bool | None, total: int, client: Client) -> None:
        self._total, self._client = total, client
        self._bar: Any = None
        self._raw = self._compressed = 0
        self._in_notebook = in_notebook()
        if show is None:
            show = self._in_notebook or sys.stderr.isatty()
        self._show = show and total > 0

    @property
    def watch(self) -> Callable[[list[Any]], None] | None:
        """What shows dask's futures in a notebook, if that can be."""
        if not (self._show and self._in_notebook and find_spec("ipywidgets")):
            return None

        def display(futures: list[Any]) -> None:
            from distributed import progress
            from IPython.display import display

            display(progress(futures, notebook=True))  # type: ignore[no-untyped-call]

        return display

    def __enter__(self) -> Self:
        if not self._show:
            return self
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bar

        console = Console(stderr=not self._in_notebook)
        if link := getattr(self._client, "dashboard_link", None):
            console.print(f"dashboard: {link}", highlight=False)
        if self.watch is not None:
            return self
        self._bar = Bar(
            SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("blocks"),
            TextColumn("{task.fields[at]}"), TimeElapsedColumn(), TextColumn("left:"),
            TimeRemainingColumn(), console=console,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task("archive", total=self._total, at="")
        return self

    def step(self, result: Outcome | Failure) -> None:
        """A block is done, or has failed."""
        if self._bar is None:
            return
        if isinstance(result, Failure):
            self._bar.console.print(printable(f"failed: {result}"), markup=False, highlight=False)
        else:
            self._raw += result.raw_nbytes
            self._compressed += int(column(result.row, "nbytes"))
        elapsed = self._bar.tasks[self._task].elapsed or 1e-9
        at = f"{self._raw / elapsed / 1e6:.1f} MB/s"
        if self._compressed:
            at += f", {self._raw / self._compressed:.3g}× smaller"
        self._bar.update(self._task, advance=1, at=at)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
