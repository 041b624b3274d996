"""Codecs on the same chunk as a table: text, HTML, JSON, a plot and maps."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr import notebook_html
from coinpp_xr.files import write_atomically
from coinpp_xr.maps import headless_figure
from coinpp_xr.peers import Goal
from coinpp_xr.plots import plot_errors
from coinpp_xr.text_tables import Column, plain_text, text_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console, ConsoleOptions, RenderableType

OWN = "COIN++"
# Characters in a line above a plot.
_TITLE_WIDTH = 90


@dataclass(frozen=True)
class Row:
    """One codec on the chunk.

    Parameters
    ----------
    codec, setting : str
    nbytes : int or None
        None where it has no result; ``note`` says why.
    ratio : float or None
        Plain float32 bytes per compressed byte.
    bits_per_value : float or None
    max_error, rmse, bias : float or None
        Measured after decoding, in the table's unit; RMSE and bias area-weighted.
    encode_mb_per_s, decode_mb_per_s : float or None
        Megabytes of float32 values a second, at this setting.
    note : str
    """

    codec: str
    setting: str = ""
    nbytes: int | None = None
    ratio: float | None = None
    bits_per_value: float | None = None
    max_error: float | None = None
    rmse: float | None = None
    bias: float | None = None
    encode_mb_per_s: float | None = None
    decode_mb_per_s: float | None = None
    note: str = ""


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Codecs on one chunk, the smallest first.

    Parameters
    ----------
    name : str
        Of the variable.
    shape : tuple of int
    goal : Goal
        In the variable's own unit.
    unit : str
        Of all errors in the rows.
    rows : tuple of Row
        Sorted by size; those without a result last.
    curves : dict
        Codec → (error, bits per value) at several goals; empty unless asked for.
    own_unit : str
        Of the goal.
    seen : int
        How many of the globes the model has as reference.
    original : DataArray
        The chunk.
    decoded : dict
        Codec → what it gives back, shape (globes, n_lat, n_lon), in the variable's own unit.
    sample_of : tuple of int
        Shape of the array that the chunk is a part of; empty where it is the whole array.
    """

    name: str
    shape: tuple[int, ...]
    goal: Goal
    unit: str
    rows: tuple[Row, ...]
    curves: dict[str, list[tuple[float, float]]]
    own_unit: str = ""
    seen: int = 0
    original: xr.DataArray | None = field(default=None, repr=False)
    decoded: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    sample_of: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        what = "every error at most" if self.goal.max_error is not None else "RMSE at most"
        size = " × ".join(map(str, self.shape))
        if self.sample_of:
            size += f" (a sample of {' × '.join(map(str, self.sample_of))})"
        title = f"{self.name}, {size}: {what} {self.goal.size:g} {self.own_unit}".rstrip()
        if self.seen:
            title += f" ({self.seen} of the globes are in the model's reference: not a fair test)"
        return title

    def __getitem__(self, codec: str) -> Row:
        for row in self.rows:
            if row.codec == codec:
                return row
        raise KeyError(codec)

    @property
    def best_peer(self) -> Row | None:
        """The smallest of the other codecs."""
        others = (r for r in self.rows if not r.codec.startswith(OWN) and r.nbytes is not None)
        return next(others, None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        # Arrays are for maps.
        plain = asdict(replace(self, original=None, decoded={}))
        return {name: v for name, v in plain.items() if name not in ("original", "decoded")}

    def save(self, path: str | Path) -> Path:
        """Write the table as ``.json`` or ``.html``, or the plot as ``.png``.

        Raises
        ------
        ValueError
            For other endings.
        """
        target = Path(path)
        if target.suffix == ".json":
            content = (json.dumps(self.to_dict(), indent=1) + "\n").encode()
        elif target.suffix == ".html":
            content = self.html().encode()
        elif target.suffix == ".png":
            content = _png(self.plot())
        else:
            raise ValueError(f"{target.name}: give a name that ends in .json, .html or .png")
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, content)
        return target

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        yield Padding(Text(self.title), (0, 0, 1, 1), expand=False)
        heads, cells = self._headings(), list(self._cells())
        names = Column("codec", [row[0] for row in cells], "left", least=12)
        if measured := [row for row in cells if row[2] != "–"]:
            shown = [Column("codec", [row[0] for row in measured], "left", least=12)]
            for number, head in enumerate(heads[2:], 2):
                shown.append(Column(head, [row[number] for row in measured]))
            yield from text_tables(shown, options.max_width)
        settings = Column("setting", [row[1] for row in cells], "left", least=16)
        yield from text_tables([names, settings], options.max_width)

    def __str__(self) -> str:
        return plain_text(self) + "\n"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sides = ["left", "left", *["right"] * (len(self._headings()) - 2)]
        heads = list(zip(self._headings(), sides, strict=True))
        return notebook_html.block(
            notebook_html.head("Comparison", self.title), notebook_html.table(heads, self._cells())
        )

    def html(self) -> str:
        """A page with the table and the plot, complete in itself."""
        image = base64.b64encode(_png(self.plot())).decode()
        title = notebook_html.escape(self.title)
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<style>{_CSS}</style><body>{self._repr_html_()}"
            f'<img alt="sizes and speeds or errors" src="data:image/png;base64,{image}">'
            "</body></html>\n"
        )

    def plot(self) -> Figure:
        """Bytes and encode speed of every codec; with curves, bits per value against the error."""
        return self._plot_curves() if self.curves else self._plot_bars()

    def _plot_bars(self) -> Figure:
        measured = [row for row in reversed(self.rows) if row.nbytes is not None]
        figure = headless_figure((8, 1.6 + 0.32 * len(measured)))
        sizes = figure.subplots()
        positions = np.arange(len(measured))
        colours = ["tab:blue" if row.codec.startswith(OWN) else "0.7" for row in measured]
        bars = sizes.barh(positions, [(row.nbytes or 0) / 1000 for row in measured], color=colours)
        sizes.bar_label(bars, [f"{row.nbytes:,}" for row in measured], padding=2, fontsize="small")
        sizes.margins(x=0.15)
        sizes.set_yticks(positions, [row.codec for row in measured])
        sizes.set_xlabel("compressed size (kB, bars)")
        speeds = sizes.twiny()
        if measured:
            speeds.set_xscale("log")
            megabytes = [row.encode_mb_per_s or np.nan for row in measured]
            speeds.plot(megabytes, positions, "D", color="tab:orange")
        speeds.set_xlabel("encode speed (MB of float32 a second, points)")
        figure.suptitle(fill(self.title, _TITLE_WIDTH), fontsize="medium")
        return figure

    def _plot_curves(self) -> Figure:
        bounded = self.goal.max_error is not None
        figure = headless_figure((8, 5))
        axes = figure.subplots()
        for codec, points in self.curves.items():
            error, bits = np.array(sorted(points)).T
            axes.plot(error, bits, marker="o", label=codec, lw=2.5 if codec == OWN else 1.2)
        for row in self.rows:
            if row.nbytes is None or row.codec in self.curves:
                continue
            error = row.max_error if bounded else row.rmse
            if error and row.bits_per_value:
                axes.plot(error, row.bits_per_value, "x", label=row.codec)
        axes.set_xscale("log")
        axes.set_yscale("log")
        kind = "largest error" if bounded else "RMSE"
        axes.set_xlabel(f"{kind} {self.unit}".rstrip())
        axes.set_ylabel("bits per value")
        axes.set_title(fill(self.title, _TITLE_WIDTH), fontsize="medium")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small", ncols=2)
        return figure

    def maps(self, codecs: Sequence[str] | None = None, *, item: int = 0) -> Figure:
        """Errors of several codecs on one globe, in the same colours.

        Parameters
        ----------
        codecs : sequence of str, optional
            Default: this package and the two smallest others.
        item : int
            Which globe of the chunk.
        """
        if codecs is None:
            others = [name for name in self.decoded if not name.startswith(OWN)]
            codecs = [OWN, *others[:2]]
        assert self.original is not None
        return plot_errors(self.original, {c: self.decoded[c] for c in codecs}, item=item)

    def _headings(self) -> list[str]:
        unit = f" {self.unit}" if self.unit else ""
        return [
            "codec", "setting", "bytes", "ratio", f"largest{unit}", "RMSE", "bias", "enc MB/s",
            "dec MB/s",
        ]  # fmt: skip

    def _cells(self) -> Iterable[list[str]]:
        for row in self.rows:
            if row.nbytes is None:
                yield [row.codec, row.note, *["–"] * 7]
                continue
            numbers = (
                row.ratio, row.max_error, row.rmse, row.bias,
                row.encode_mb_per_s, row.decode_mb_per_s,
            )  # fmt: skip
            yield [
                row.codec, row.setting, f"{row.nbytes:,}",
                *("–" if number is None else _three_digits(number) for number in numbers),
            ]  # fmt: skip


def _three_digits(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:.0f}"
    return f"{number:.3g}" if abs(number) >= 0.01 else f"{number:.4f}"


_CSS = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid #ddd; }
img { max-width: 100%; }
"""


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
