"""HTML that notebooks show: one style for reports, results and models, and small pictures.

Everything that is given as text is escaped. Colours follow the page as those of xarray do, through
JupyterLab's and xarray's variables; nothing is fetched and nothing runs.
"""

from __future__ import annotations

import struct
import zlib
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape as _escape
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr.text_tables import printable

# Of a picture of a field: 30 kB at most, and as fine as a small picture can show.
_MOST_COLUMNS, _MOST_ROWS = 240, 180
# From blue through white to red (ColorBrewer's RdBu), and one that is not there.
_SHADES = 63
_MISSING = _SHADES
_ANCHORS = np.array([
    (5, 48, 97), (33, 102, 172), (67, 147, 195), (146, 197, 222), (209, 229, 240), (247, 247, 247),
    (253, 219, 199), (244, 165, 130), (214, 96, 77), (178, 24, 43), (103, 0, 31),
])  # fmt: skip

# xarray's own fallbacks are those of a light page, where it does not find a dark one.
_CSS = """
.coinpp-report {
  --coinpp-line: var(--jp-border-color2, var(--xr-border-color, rgba(128, 128, 128, 0.4)));
  color: var(--jp-content-font-color0, var(--xr-font-color0, inherit));
  line-height: 1.6; max-width: 100%; padding-bottom: 4px; }
.coinpp-report .coinpp-head { border-bottom: 1px solid var(--coinpp-line); padding: 6px 2px;
  margin-bottom: 6px; overflow-wrap: anywhere; }
.coinpp-report .coinpp-dim { opacity: 0.65; }
.coinpp-report .coinpp-head .coinpp-dim { margin-right: 10px; }
.coinpp-report .coinpp-numbers { display: flex; flex-wrap: wrap; gap: 4px 28px; margin: 4px 2px; }
.coinpp-report .coinpp-numbers div { min-width: 0; overflow-wrap: anywhere; }
.coinpp-report .coinpp-value { display: block; font-size: 150%; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.coinpp-report .coinpp-map { margin: 6px 2px; max-width: 300px; }
.coinpp-report .coinpp-map img { display: block; width: 100%; height: auto; margin: 0;
  border: 1px solid var(--coinpp-line); box-sizing: border-box; image-rendering: pixelated; }
.coinpp-report .coinpp-map figcaption { opacity: 0.65; font-size: 90%; line-height: 1.4; }
.coinpp-report .coinpp-wide { overflow-x: auto; max-width: 100%; }
.coinpp-report table { border-collapse: collapse; margin: 4px 0; border: none; font-size: 100%;
  font-variant-numeric: tabular-nums; color: inherit; background: transparent; }
.coinpp-report tr, .coinpp-report tbody tr:nth-child(odd), .coinpp-report tbody tr:hover {
  background: transparent; color: inherit; }
.coinpp-report th, .coinpp-report td { padding: 2px 10px 2px 2px; border: none; color: inherit;
  white-space: nowrap; max-width: none; vertical-align: top; }
.coinpp-report td.coinpp-prose { white-space: normal; min-width: 14em; text-align: left; }
.coinpp-report th { font-weight: normal; opacity: 0.65; }
.coinpp-report thead tr { border-bottom: 1px solid var(--coinpp-line); }
.coinpp-report .coinpp-right { text-align: right; }
.coinpp-report .coinpp-left { text-align: left; }
.coinpp-report ul { list-style: none; margin: 4px 0; padding-left: 2px; opacity: 0.75;
  overflow-wrap: anywhere; }
.coinpp-report summary { cursor: pointer; opacity: 0.75; padding: 2px; }
"""


def escape(text: str) -> str:
    """Text from anywhere as part of a page."""
    return _escape(printable(text, keep="\n"))


def block(*parts: str) -> str:
    """The outermost element of what a notebook shows, with the style sheet."""
    return f'<div class="coinpp-report"><style>{_CSS}</style>{"".join(parts)}</div>'


def head(kind: str, text: str) -> str:
    """The first line: what it is, and what there is to say in one line."""
    return (
        f'<div class="coinpp-head"><span class="coinpp-dim">{escape(kind)}</span>'
        f"{escape(text)}</div>"
    )


def numbers(pairs: Iterable[tuple[str, str]]) -> str:
    """A few numbers in large type, each above what it is: ``("0.31 °C", "RMSE")``."""
    shown = "".join(
        f'<div><span class="coinpp-value">{escape(value)}</span>'
        f'<span class="coinpp-dim">{escape(label)}</span></div>'
        for value, label in pairs
    )
    return f'<div class="coinpp-numbers">{shown}</div>'


def table(heads: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """A table that scrolls where the page is too narrow for it.

    Parameters
    ----------
    heads : sequence of (str, str)
        Title of every column, and ``left``, ``right`` or ``prose`` (left, in several lines).
    rows : iterable of sequence of str
    """
    titles = "".join(f'<th class="coinpp-{side}">{escape(title)}</th>' for title, side in heads)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="coinpp-{side}">{escape(cell)}</td>'
            for (_, side), cell in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    top = f"<thead><tr>{titles}</tr></thead>" if any(title for title, _ in heads) else ""
    return f'<div class="coinpp-wide"><table>{top}<tbody>{body}</tbody></table></div>'


def items(lines: Iterable[str]) -> str:
    """Short notes, one to a line."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def details(summary: str, inner: str, *, is_open: bool = False) -> str:
    """HTML that unfolds."""
    start = "<details open>" if is_open else "<details>"
    return f"{start}<summary>{escape(summary)}</summary>{inner}</details>"


def picture(data: bytes, caption: str) -> str:
    """A PNG inside the page, with its description."""
    encoded = b64encode(data).decode()
    return (
        f'<figure class="coinpp-map"><img alt="{escape(caption)}" '
        f'src="data:image/png;base64,{encoded}"><figcaption>{escape(caption)}</figcaption></figure>'
    )


def field_png(
    values: npt.NDArray[np.floating], latitude: npt.NDArray[Any], longitude: npt.NDArray[Any]
) -> bytes:
    """A small map of differences: north up, west to the left, white where they are zero.

    Parameters
    ----------
    values : float array, shape (n_lat, n_lon)
        NaN is transparent. The strongest colours are those of the largest absolute value.
    latitude, longitude : array
        Degrees, strictly monotonic.

    Returns
    -------
    bytes
        A PNG of at most 45 kB.
    """
    north, south = float(latitude.max()), float(latitude.min())
    west, east = float(longitude.min()), float(longitude.max())
    shape = _picture_shape(north - south, east - west)
    rows = _nearest(latitude, np.linspace(north, south, shape[0]))
    columns = _nearest(longitude, np.linspace(west, east, shape[1]))
    shown = np.asarray(values, np.float64)[rows[:, None], columns]
    valid = np.isfinite(shown)
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0)) or 1.0
    middle = _SHADES // 2
    shades = np.where(valid, np.rint(middle + middle * np.where(valid, shown, 0) / largest), 0)
    return _indexed_png(np.where(valid, shades, _MISSING).astype(np.uint8))


def _picture_shape(height: float, width: float) -> tuple[int, int]:
    """Rows and columns that keep the proportions of degrees, within reason."""
    ratio = min(max(height / width if width else 1.0, 0.1), 3.0)
    columns = min(_MOST_COLUMNS, int(_MOST_ROWS / ratio))
    return max(1, round(columns * ratio)), columns


def _nearest(known: npt.NDArray[Any], wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    apart = np.abs(np.asarray(known, np.float64)[None] - wanted[:, None])
    return np.asarray(apart.argmin(axis=1))


def _indexed_png(shades: npt.NDArray[np.uint8]) -> bytes:
    """Shades as a PNG with a palette (PNG specification, third edition, section 11)."""
    places = np.linspace(0, len(_ANCHORS) - 1, _SHADES)
    colours = [np.interp(places, np.arange(len(_ANCHORS)), channel) for channel in _ANCHORS.T]
    palette = np.append(np.stack(colours, -1), [[128, 128, 128]], axis=0).round().astype(np.uint8)
    height, width = shades.shape
    lines = np.pad(shades, ((0, 0), (1, 0)))  # every line begins with its filter, none
    return b"\x89PNG\r\n\x1a\n" + b"".join([
        _png_part(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
        _png_part(b"PLTE", palette.tobytes()),
        _png_part(b"tRNS", b"\xff" * _SHADES + b"\x00"),
        _png_part(b"IDAT", zlib.compress(lines.tobytes(), 9)),
        _png_part(b"IEND", b""),
    ])  # fmt: skip


def _png_part(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
