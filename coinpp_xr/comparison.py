"""What this package and other codecs make of the same chunk, in one table."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from coinpp_xr import peers
from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.codecs.sphere import COINppCodec
from coinpp_xr.files import write_atomically
from coinpp_xr.labels import display_unit
from coinpp_xr.models import Model, load_model
from coinpp_xr.peers import Chunk, Goal, NotInstalledError
from coinpp_xr.plots import plot_errors
from coinpp_xr.reference import FRACTION
from coinpp_xr.selection import Layout

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.table import Table

OWN = "COIN++"
# What a rate-distortion plot shows beside this package, at these multiples of the goal.
PLOTTED = ("SZ3", "SPERR", "ZFP", "JPEG 2000", "PCodec")
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
_MOST_GLOBES = 64
# Columns of text that a table needs.
WIDTH = 132


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


@dataclass(frozen=True, eq=False)
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

    @property
    def title(self) -> str:
        what = "every error at most" if self.goal.max_error is not None else "RMSE at most"
        size = " × ".join(map(str, self.shape))
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

    def __rich__(self) -> Table:
        from rich import box
        from rich.table import Table

        table = Table(
            box=box.SIMPLE_HEAD, title=self.title, title_justify="left", padding=(0, 1, 0, 0)
        )
        for number, heading in enumerate(self._headings()):
            if number < 2:
                table.add_column(heading, justify="left", max_width=(27, 28)[number], no_wrap=True)
            else:
                table.add_column(heading, justify="right", min_width=len(heading), no_wrap=True)
        for cells in self._cells():
            table.add_row(*cells)
        return table

    def __str__(self) -> str:
        from rich.console import Console

        text = io.StringIO()
        Console(file=text, width=WIDTH, force_jupyter=False, no_color=True).print(self)
        return text.getvalue().rstrip() + "\n"

    def _repr_html_(self) -> str:
        heads = "".join(f"<th>{escape(heading)}</th>" for heading in self._headings())
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
            for cells in self._cells()
        )
        return (
            f"<p>{escape(self.title)}</p>"
            f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        )

    def html(self) -> str:
        """A page with the table and the plot, complete in itself."""
        image = base64.b64encode(_png(self.plot())).decode()
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(self.title)}'
            f"</title><style>{_CSS}</style><body>{self._repr_html_()}"
            f'<img alt="bits per value against error" src="data:image/png;base64,{image}">'
            "</body></html>\n"
        )

    def plot(self) -> Figure:
        """Bits per value against the measured error of every codec, and their curves."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        bounded = self.goal.max_error is not None
        figure = Figure(figsize=(8, 5), layout="constrained")
        FigureCanvasAgg(figure)
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
        axes.set_title(self.title)
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
td, th { padding: 2px 10px; text-align: right; border-bottom: 1px solid #ddd; }
td:first-child, td:nth-child(2), th:first-child, th:nth-child(2) { text-align: left; }
img { max-width: 100%; }
"""


_Outcome = tuple[Row, npt.NDArray[Any] | None]


def compare(
    array: xr.DataArray,
    *,
    max_error: float | None = None,
    target_rmse: float | None = None,
    names: Sequence[str] | None = None,
    model: str | Model = "t2m-46x90",
    chunk: int = _MOST_GLOBES,
    curves: bool = False,
) -> Comparison:
    """Compare on the first globes of an array.

    Parameters
    ----------
    array : DataArray
        With latitude and longitude.
    max_error, target_rmse : float
        One of the two, in the array's unit.
    names : sequence of str, optional
        Of ``coinpp_xr.peers.PEERS``, by default all, or of ``SLOW_PEERS``, which take minutes.
    model : str or Model
        For this package.
    chunk : int
        How many globes, at most.
    curves : bool
        Look at several goals, for the plot.

    Raises
    ------
    ValueError
        For unknown peers, or where not one of the two goals is given.
    """
    if (max_error is None) == (target_rmse is None):
        raise ValueError("give max_error or target_rmse, one of the two")
    known = {name.lower(): name for name in (*peers.PEERS, *peers.SLOW_PEERS)}
    wanted = list(peers.PEERS) if names is None else [_known(name, known) for name in names]
    layout = Layout.of(array)
    ordered = array.transpose(*layout.dims)
    time_dim = layout.dims[layout.time_axis] if ordered.ndim > 2 else None
    others = {dim: 0 for dim in layout.dims[:-2] if dim != time_dim}
    ordered = ordered.isel(others)
    if time_dim is not None:
        ordered = ordered.isel({time_dim: slice(0, chunk)})
    values = np.asarray(ordered.to_numpy())
    data = Chunk.of(values, layout.latitude, layout.longitude)
    goal = Goal(max_error, target_rmse)
    unit = display_unit(array.attrs)
    place = {"latitude": layout.latitude, "longitude": layout.longitude}

    def rows_of(goal: Goal, names: Iterable[str], efforts: Sequence[str]) -> list[_Outcome]:
        own = [_own(values, data, goal, model, effort, place) for effort in efforts]
        return [*own, *(_peer(name, data, goal) for name in names)]

    efforts = ("default", "fast") if max_error is not None else ("default",)
    outcomes = rows_of(goal, wanted, efforts)
    outcomes.sort(key=lambda outcome: (outcome[0].nbytes is None, outcome[0].nbytes or 0))
    points: dict[str, list[tuple[float, float]]] = {}
    if curves:
        plotted = [name for name in PLOTTED if name in wanted]
        for factor in FACTORS:
            scaled = Goal(*(g and factor * g for g in (max_error, target_rmse)))
            for row, _ in rows_of(scaled, plotted, ("default",)):
                error = row.max_error if max_error is not None else row.rmse
                if error and row.bits_per_value:
                    point = (unit.scale * error, row.bits_per_value)
                    points.setdefault(row.codec, []).append(point)
    return Comparison(
        str(array.name or "field"), values.shape, goal, unit.label,
        tuple(_in_unit(row, unit.scale) for row, _ in outcomes), points,
        str(array.attrs.get("units", "")), _seen(data.values, model), ordered,
        {row.codec: decoded for row, decoded in outcomes if decoded is not None},
    )  # fmt: skip


def _seen(values: npt.NDArray[Any], model: str | Model) -> int:
    """How many of these globes are among those that the model learned from."""
    found = None if model == NO_MODEL else load_model(model)
    if found is None or found.reference is None:
        return 0
    known = found.offset + found.reference.numbers / FRACTION
    if known.shape[1:] != values.shape[1:]:
        return 0
    near = (np.abs(known - globe).max(axis=(1, 2)) <= 1 / FRACTION for globe in values)
    return sum(bool(same.any()) for same in near)


def _known(name: str, known: dict[str, str]) -> str:
    simple = {key.replace(" ", "").replace("-", ""): value for key, value in known.items()}
    found = simple.get(name.lower().replace(" ", "").replace("-", ""))
    if found is None:
        there = ", ".join(known.values())
        raise ValueError(f"no codec {name!r} to compare with; there are: {there}")
    return found


def _own(
    values: npt.NDArray[Any],
    chunk: Chunk,
    goal: Goal,
    model: str | Model,
    effort: str,
    place: dict[str, Any],
) -> _Outcome:
    controls = {name: value for name, value in asdict(goal).items() if value is not None}
    name = OWN if effort == "default" else f"{OWN} {effort}"
    codec = COINppCodec(model, effort=effort, **controls, **place)
    # What was compiled is loaded, and what the model knows of the grid is worked out, only once.
    codec.decode(codec.encode(values))
    start = time.perf_counter()
    payload = codec.encode(values)
    middle = time.perf_counter()
    decoded = np.asarray(codec.decode(payload)).reshape(chunk.values.shape)
    end = time.perf_counter()
    setting = "no model" if model == NO_MODEL else codec.model
    result = peers.Result(
        name, setting, len(payload), **chunk.errors(decoded),
        encode_seconds=middle - start, decode_seconds=end - middle,
    )  # fmt: skip
    return _row(result, chunk), decoded


def _peer(name: str, chunk: Chunk, goal: Goal) -> _Outcome:
    try:
        found = peers.smallest(name, chunk, goal)
    except NotInstalledError as error:
        return Row(name, note=f"not installed: {error}"), None
    except Exception as error:  # whatever a foreign library does, the table must appear
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        return Row(name, note=f"failed: {reason}"), None
    if found is None:
        return Row(name, note="no setting meets it"), None
    result, decoded = found
    return _row(result, chunk), decoded


def _row(result: peers.Result, chunk: Chunk) -> Row:
    plain = 4 * chunk.values.size
    return Row(
        result.peer, result.setting, result.nbytes, plain / result.nbytes,
        8 * result.nbytes / chunk.values.size, result.max_error, result.rmse, result.bias,
        plain / max(result.encode_seconds, 1e-9) / 1e6,
        plain / max(result.decode_seconds, 1e-9) / 1e6,
    )  # fmt: skip


def _in_unit(row: Row, scale: float) -> Row:
    if row.nbytes is None or scale == 1:
        return row
    errors = {n: scale * getattr(row, n) for n in ("max_error", "rmse", "bias")}
    return replace(row, **errors)


def _png(figure: Figure) -> bytes:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    return data.getvalue()
