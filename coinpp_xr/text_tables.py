"""Tables for terminals and files: numbers stay whole, whatever the width; names and units fold.

Names and texts come from files that strangers wrote: none of their control characters is shown.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

# Columns of text that terminals and pagers have without being asked.
WIDTH = 80
# Behind a space, underscore or slash; behind a hyphen or dot only between letters, since others
# are in numbers and exponents.
_SEPARATORS = re.compile(r"(?<=[\s_/])|(?<=[^\W\d][-.])(?=[^\W\d])")
_NUMBER = re.compile(r"[±−+-]?\d")
# What moves a terminal's cursor, hides text or changes its direction, and what cannot be encoded.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u115f\u1160\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def printable(text: str, keep: str = "") -> str:
    """A text without control characters: each is spelled out, as in ``\\x1b``.

    Parameters
    ----------
    text : str
        From anywhere.
    keep : str
        Control characters that stay, such as the ends of lines in a text of our own.
    """

    def spelled(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in keep else ascii(character)[1:-1]

    return _UNPRINTABLE.sub(spelled, text)


class Printable:
    """What rich shows of a thing, without control characters that came with its texts.

    Parameters
    ----------
    shown : object
        Anything that rich can show. Plain strings in it may hold rich's own markup: texts from
        files belong into :class:`rich.text.Text`.
    """

    def __init__(self, shown: Any) -> None:
        self.shown = shown

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        from rich.protocol import is_renderable
        from rich.segment import Segment

        shown = self.shown if is_renderable(self.shown) else str(self.shown)
        for text, style, control in console.render(shown, options):
            yield Segment(text if control else printable(text, keep="\n"), style, control)


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    title : str
        Folded at spaces.
    cells : sequence of str
    side : {"left", "right"}
    least : int, optional
        Characters to which cells may be folded where the table is too wide; None keeps them whole.
    """

    title: str
    cells: Sequence[str]
    side: str = "right"
    least: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", printable(self.title))
        object.__setattr__(self, "cells", tuple(map(printable, self.cells)))

    @property
    def width(self) -> int:
        """Characters that nothing needs to be folded for but the title."""
        return max(map(len, (*self.title.split(), *self.cells)), default=0)

    @property
    def narrowest(self) -> int:
        """Characters to which it may be folded: words to some, numbers never."""
        if self.least is None:
            return self.width
        pieces = (piece.rstrip() for cell in self.cells for piece in _SEPARATORS.split(cell))
        numbers = (len(piece) for piece in pieces if _NUMBER.match(piece))
        return max([self.least, *map(len, self.title.split()), *numbers])


def text_tables(columns: Sequence[Column], width: int = WIDTH) -> Iterator[RenderableType]:
    """Tables for rich that are no wider than they may be.

    What does not fit side by side becomes several tables, each with the first column.

    Parameters
    ----------
    columns : sequence of Column
    width : int
        Characters in a line.
    """
    natural = [column.width for column in columns]
    # One column at the left and two between columns; one between them where it is narrow.
    gap = 2 if 1 + sum(natural) + 2 * (len(columns) - 1) <= width else 1
    widths = _widths(columns, width - 1 - gap * (len(columns) - 1))
    if widths is None and len(columns) > 2:
        first, *others = columns
        middle = (len(others) + 1) // 2
        yield from text_tables([first, *others[:middle]], width)
        yield from text_tables([first, *others[middle:]], width)
        return
    yield _table(columns, widths or natural, gap)


def _widths(columns: Sequence[Column], width: int) -> list[int] | None:
    """Characters of every column, of so many in all; None where numbers would have to be cut."""
    widths = [column.width for column in columns]
    for _ in range(sum(widths) - width):
        can_give = [
            number for number, column in enumerate(columns) if widths[number] > column.narrowest
        ]
        if not can_give:
            return None
        widths[max(can_give, key=lambda number: widths[number])] -= 1
    return widths


def _table(columns: Sequence[Column], widths: Sequence[int], gap: int) -> RenderableType:
    from rich import box
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    # The box has a column between columns itself.
    table = Table(
        box=box.SIMPLE_HEAD, padding=(0, gap - 1, 0, 0), pad_edge=False, show_edge=False
    )  # fmt: skip
    for column, width in zip(columns, widths, strict=True):
        title = "\n".join(column.title.split())
        justify: Any = column.side
        table.add_column(Text(title), justify=justify, no_wrap=True, min_width=width)
    for row in zip(*(column.cells for column in columns), strict=True):
        folded = (fold(cell, width) for cell, width in zip(row, widths, strict=True))
        table.add_row(*(Text("\n".join(lines)) for lines in folded))
    return Padding(table, (0, 0, 1, 1), expand=False)


def fold(text: str, width: int) -> list[str]:
    """Lines of a text, folded behind separators; longer pieces lose their middle to an ellipsis."""
    lines = [""]
    for piece in _SEPARATORS.split(text):
        if len(lines[-1]) + len(piece.rstrip()) <= width:
            lines[-1] += piece
        else:
            lines.append(piece)
    return [_shortened(line.rstrip(), width) for line in lines if line.strip()] or [""]


def _shortened(text: str, width: int) -> str:
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def plain_text(shown: Any, width: int = WIDTH) -> str:
    """What rich shows of a thing, as text without colours, whatever it would be shown in."""
    from rich.console import Console

    # Told not to, rich neither looks for a notebook to write into nor adds colours.
    console = Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
    )
    with console.capture() as capture:
        console.print(Printable(shown))
    return "\n".join(map(str.rstrip, capture.get().splitlines())).strip("\n")
