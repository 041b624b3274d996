"""What compression did to a dataset: the table of all variables, as text and as HTML."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.labels import in_digits
from coinpp_xr.notebook_html import block, items, table
from coinpp_xr.text_tables import Column, plain_text, text_tables
from coinpp_xr.variable_report import COMPRESSED, VariableReport, per_byte

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

# Of the spread: what is beyond changes the field visibly.
_MUCH = 0.1


@dataclass(frozen=True, repr=False)
class Report:
    """What compression did to every variable of a dataset.

    Indexed by variable name. Prints as a table, shows as HTML in notebooks.

    Parameters
    ----------
    variables : tuple of VariableReport
        In the order of the dataset.
    metadata_nbytes : int or None
        Of the store's metadata, without the models in it; None where there is no store.
    other_nbytes : int or None
        What coordinates and the variables that were left alone take in the store.
    part : str
        Of which part of the data the errors are; empty for all of it. Bytes, ratios and chunks
        are always those of the whole.
    """

    variables: tuple[VariableReport, ...]
    metadata_nbytes: int | None = None
    other_nbytes: int | None = None
    part: str = ""

    def __getitem__(self, name: str) -> VariableReport:
        for variable in self.variables:
            if variable.name == name:
                return variable
        names = ", ".join(variable.name for variable in self.variables)
        raise KeyError(f"no variable {name!r} in this report; there are: {names}")

    def __iter__(self) -> Iterator[VariableReport]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    @property
    def encoded(self) -> tuple[VariableReport, ...]:
        """The variables that went through the codec, with or without loss."""
        return tuple(v for v in self.variables if v.nbytes is not None)

    @property
    def nbytes(self) -> int:
        """Compressed bytes of all encoded variables, without the model."""
        return sum(v.nbytes or 0 for v in self.encoded)

    @property
    def model(self) -> str:
        """Names of the models that decoding needs; ``none`` if it needs none."""
        return ", ".join(dict.fromkeys(model.model for model in self._models)) or NO_MODEL

    @property
    def model_nbytes(self) -> int:
        """What they take: each file counted once, and each copy in the store's metadata."""
        return sum(model.model_nbytes for model in self._models)

    @property
    def _models(self) -> list[VariableReport]:
        """One variable for every model that takes room of its own."""
        models: dict[Any, VariableReport] = {}
        for v in self.encoded:
            if v.model != NO_MODEL:
                models.setdefault(v.name if v.model_embedded else (v.model, v.model_nbytes), v)
        return list(models.values())

    @property
    def raw_nbytes_float32(self) -> int:
        """Size of the encoded variables as plain float32."""
        return sum(v.raw_nbytes_float32 for v in self.encoded)

    @property
    def ratio(self) -> float | None:
        """Plain float32 bytes per compressed byte, over all encoded variables."""
        return per_byte(self.raw_nbytes_float32, self.nbytes)

    @property
    def ratio_with_model(self) -> float | None:
        """As ``ratio``, with all models added to the compressed bytes."""
        return per_byte(self.raw_nbytes_float32, self.nbytes + self.model_nbytes)

    @property
    def source_nbytes(self) -> int | None:
        """What the encoded variables take where they were read from; None if unknown."""
        sizes = [v.source_nbytes for v in self.encoded]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None

    @property
    def ratio_to_source(self) -> float | None:
        """Bytes of the values where they were read from, per compressed byte."""
        return None if self.source_nbytes is None else per_byte(self.source_nbytes, self.nbytes)

    @property
    def headline(self) -> str:
        """All encoded variables in one line."""
        without = f"{self.nbytes:,} bytes, {times_smaller(self.ratio)} smaller than float32"
        if self.source_nbytes not in (None, self.raw_nbytes_float32):
            without += f", {times_smaller(self.ratio_to_source)} than the source"
        if not self.model_nbytes:
            return f"{without} (no model needed)"
        return (
            f"{without}; with the model {self.nbytes + self.model_nbytes:,} bytes, "
            f"{times_smaller(self.ratio_with_model)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: nested dictionaries of numbers, strings and None."""
        return {
            **({"part": self.part} if self.part else {}),
            "model": self.model,
            "model_nbytes": self.model_nbytes,
            "nbytes": self.nbytes,
            "metadata_nbytes": self.metadata_nbytes,
            "other_nbytes": self.other_nbytes,
            "raw_nbytes_float32": self.raw_nbytes_float32,
            "ratio": self.ratio,
            "ratio_with_model": self.ratio_with_model,
            "source_nbytes": self.source_nbytes,
            "ratio_to_source": self.ratio_to_source,
            "variables": {v.name: v.to_dict() for v in self.variables},
        }

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        from rich.padding import Padding
        from rich.text import Text

        for columns in self._tables():
            shown = [
                Column(c.title, list(map(c.cell, self.encoded)), c.side, c.least) for c in columns
            ]
            yield from text_tables(shown, options.max_width)
        for note in self._notes():
            yield Padding(Text(note), (0, 0, 0, 1), expand=False)

    def __str__(self) -> str:
        return plain_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return block(self.table_html())

    def table_html(self) -> str:
        """Tables and notes without the style sheet, to be part of something larger."""
        parts = []
        for columns in self._tables():
            rows = [[column.cell(variable) for column in columns] for variable in self.encoded]
            parts.append(table([(column.title, column.side) for column in columns], rows))
        return "".join(parts) + items(self._notes())

    def _tables(self) -> list[list[_Column]]:
        """Sizes, then errors; only columns that say anything."""
        if not self.encoded:
            return []
        shown = {
            "asked": any(v.asked for v in self.encoded),
            "asked of spread": any(v.asked_of_spread is not None for v in self.encoded),
            "ratio to source": not all(v.is_source_float32 for v in self.encoded),
            "ratio with model": self.model_nbytes > 0,
            "unit": any(v.unit for v in self.encoded),
        }
        return [[c for c in table if shown.get(c.title, True)] for table in (_SIZES, _ERRORS)]

    def _notes(self) -> list[str]:
        """What does not fit into the tables, one line each, for all variables together."""
        notes, encoded = [], self.encoded
        if self.part:
            notes.append(f"errors of a part ({self.part}); bytes, ratios and chunks of the whole")
        if any(is_much(s) for v in encoded for s in (v.asked_of_spread, v.rmse_of_spread)):
            of = "of the level (or the like) with the smallest one"
            of = of if any(v.least_spread != v.spread for v in encoded) else "weighted by area"
            notes.append(
                f"!: more than a tenth of the spread, the original's standard deviation ({of})"
            )
        others = (v for v in self.variables if v.outcome != COMPRESSED)
        notes += by_text((v.name, v.outcome) for v in others)
        notes += _in_one_line(
            "missing cells, which came back as they were",
            (f"{v.name} {v.missing_cells:,}" for v in encoded if v.missing_cells),
        )
        notes += by_text(
            (v.name, f"RMSE and bias weighted by {v.weighting}") for v in encoded if v.weighting
        )
        steps = ((v, f"{in_digits(v.source_step)} {v.unit}") for v in encoded if v.source_step)
        notes += by_text((v.name, f"exact (the source's step is {s.strip()})") for v, s in steps)
        notes += by_text((v.name, _chunks(v.schemes)) for v in encoded if v.schemes)
        # A bound holds for every value, wherever it is.
        notes += _in_one_line(
            "RMSE of the worst chunk",
            (
                f"{v.name} {in_digits(v.worst_chunk_rmse)}{v.unit and ' '}{v.unit} "
                f"({v.worst_chunk_label})"
                for v in encoded
                if v.bound is None and v.worst_chunk_rmse and sum(v.schemes.values()) > 1
            ),
        )
        places: dict[str, list[str]] = {}
        for v in encoded:
            if v.n_globes > 1 and v.worst_globe_rmse:
                places.setdefault(v.worst_globe_label, []).append(v.name)
        notes += _in_one_line(
            "worst globe", (f"{', '.join(names)} ({place})" for place, names in places.items())
        )
        notes += by_text((v.name, v.model_choice) for v in encoded if v.model_choice)
        if len(encoded) > 1:
            notes.append(f"together {self.headline}")
        elif encoded:
            notes.append(self.headline)
        notes += [
            f"model {v.model}: {v.model_nbytes:,} bytes "
            + (f"in the metadata of {v.name}" if v.model_embedded else "in its file")
            for v in self._models
        ]
        if self.metadata_nbytes is not None:
            notes.append(
                f"beside them in the store: metadata {self.metadata_nbytes:,} bytes, coordinates "
                f"and other variables {self.other_nbytes or 0:,} bytes"
            )
        timed = [v for v in encoded if v.encode_seconds is not None]
        if timed:
            times = (
                f"{verb} in {sum(getattr(v, name) or 0 for v in timed):.2g} s"
                for verb, name in (("encoded", "encode_seconds"), ("decoded", "decode_seconds"))
            )
            notes.append(", ".join(times))
        return notes


def by_text(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """``t, u: 3 chunks (pyramid)``: names that have the same text in one line."""
    names: dict[str, list[str]] = {}
    for name, text in pairs:
        names.setdefault(text, []).append(name)
    return [f"{', '.join(same)}: {text}" for text, same in names.items()]


def _in_one_line(what: str, parts: Iterable[str]) -> list[str]:
    """``worst globe: t (time=3); u (time=4)``; nothing without parts."""
    listed = "; ".join(parts)
    return [f"{what}: {listed}"] if listed else []


def _chunks(schemes: dict[str, int]) -> str:
    """``5 chunks (4 latents in time, 1 grid)``."""
    count = sum(schemes.values())
    listed = ", ".join(f"{n} {way}" if len(schemes) > 1 else way for way, n in schemes.items())
    return f"{count:,} chunk{'s' if count > 1 else ''} ({listed})"


def times_smaller(ratio: float | None) -> str:
    return "–" if ratio is None else f"{in_digits(ratio)}×"


def share_of_spread(part: float | None) -> str:
    """``3.1 %``, and ``32 % !`` where that is much."""
    if part is None:
        return "–"
    percent = 100 * part
    text = f"{percent:,.0f}" if percent >= 100 else f"{percent:.2g}"
    shown = "< 0.01 %" if 0 < percent < 0.01 else f"{text} %"
    return f"{shown} !" if is_much(part) else shown


def is_much(part: float | None) -> bool:
    return part is not None and part > _MUCH


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[VariableReport], str]
    side: str = "right"
    least: int | None = None


# Characters that names and units may be folded to.
_LEAST = 10
_SIZES = (
    _Column("variable", lambda v: v.name, "left", least=_LEAST),
    _Column("asked", lambda v: v.asked or "–", "right", least=_LEAST),
    _Column("asked of spread", lambda v: share_of_spread(v.asked_of_spread)),
    _Column("bytes", lambda v: f"{v.nbytes:,}"),
    _Column("bpp", lambda v: in_digits(v.bits_per_point)),
    _Column("ratio to float32", lambda v: times_smaller(v.ratio)),
    _Column("ratio to source", lambda v: times_smaller(v.ratio_to_source)),
    _Column("ratio with model", lambda v: times_smaller(v.ratio_with_model)),
)
_ERRORS = (
    _Column("variable", lambda v: v.name, "left", least=_LEAST),
    _Column("RMSE", lambda v: in_digits(v.rmse)),
    _Column("RMSE of spread", lambda v: share_of_spread(v.rmse_of_spread)),
    _Column("max error", lambda v: in_digits(v.max_error)),
    _Column("bias", lambda v: in_digits(v.bias)),
    _Column("worst globe", lambda v: in_digits(v.worst_globe_rmse)),
    _Column("plain RMSE", lambda v: in_digits(v.rmse_plain)),
    _Column("unit", lambda v: v.unit, "left", least=_LEAST),
)
