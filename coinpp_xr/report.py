"""What compression did to a dataset: the table of all variables, as text and as HTML."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from coinpp_xr.codecs.base import NO_MODEL
from coinpp_xr.labels import in_digits
from coinpp_xr.notebook_html import block, items, table
from coinpp_xr.variable_report import COMPRESSED, VariableReport, per_byte

if TYPE_CHECKING:
    from rich.console import Group

_TEXT_WIDTH = 100


def plain_text(shown: Any) -> str:
    """What rich shows of a thing, as text without colours, whatever it would be shown in."""
    from rich.console import Console

    # Told not to, rich neither looks for a notebook to write into nor adds colours.
    console = Console(
        file=io.StringIO(),
        width=_TEXT_WIDTH,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
    )
    with console.capture() as capture:
        console.print(shown)
    return "\n".join(map(str.rstrip, capture.get().splitlines())).strip("\n")


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
    def headline(self) -> str:
        """All encoded variables in one line."""
        without = f"{self.nbytes:,} bytes, {times_smaller(self.ratio)} smaller than float32"
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
            "variables": {v.name: v.to_dict() for v in self.variables},
        }

    def __rich__(self) -> Group:
        from rich import box
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        columns = self._columns()
        for column in columns:
            table.add_column(
                column.title.replace(" ", "\n"), justify=column.justify, overflow="fold"
            )
        for variable in self.encoded:
            table.add_row(*(Text(column.cell(variable)) for column in columns))
        notes = [Padding(Text(note), (0, 0, 0, 1)) for note in self._notes()]
        return Group(*([table] if self.encoded else []), *notes)

    def __str__(self) -> str:
        return plain_text(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return block(self.table_html())

    def table_html(self) -> str:
        """Table and notes without the style sheet, to be part of something larger."""
        columns = self._columns()
        rows = [[column.cell(variable) for column in columns] for variable in self.encoded]
        heads = [(column.title, column.justify) for column in columns]
        return (table(heads, rows) if rows else "") + items(self._notes())

    def _columns(self) -> list[_Column]:
        """Those that say anything: not every rate control is a target."""
        has_target = any(v.asked for v in self.encoded)
        return [c for c in _COLUMNS if has_target or c.title != "asked"]

    def _notes(self) -> list[str]:
        """What does not fit into the table, one line each."""
        notes = []
        if self.part:
            notes.append(f"errors of a part ({self.part}); bytes, ratios and chunks of the whole")
        notes += [
            f"{variable.name}: {variable.outcome}"
            for variable in self.variables
            if variable.outcome != COMPRESSED
        ]
        notes += [
            f"{v.name}: {v.missing_cells:,} missing cells came back as they were"
            for v in self.encoded
            if v.missing_cells
        ]
        notes += [_chunks_note(v) for v in self.encoded if v.schemes]
        notes += [
            f"{v.name}: worst of {v.n_globes:,} globes is {v.worst_globe_label}"
            for v in self.encoded
            if v.n_globes > 1 and v.worst_globe_rmse
        ]
        notes += [f"{v.name}: {v.model_choice}" for v in self.encoded if v.model_choice]
        if len(self.encoded) > 1:
            notes.append(f"together {self.headline}")
        elif self.encoded:
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
        timed = [v for v in self.encoded if v.encode_seconds is not None]
        if timed:
            times = (
                f"{verb} in {sum(getattr(v, name) or 0 for v in timed):.2g} s"
                for verb, name in (("encoded", "encode_seconds"), ("decoded", "decode_seconds"))
            )
            notes.append(", ".join(times))
        return notes


def _chunks_note(variable: VariableReport) -> str:
    """``t: 3 chunks (2 latents in time, 1 grid), the worst has RMSE 0.499 K (time=0 … 255)``."""
    count = sum(variable.schemes.values())
    listed = ", ".join(
        f"{n} {scheme}" if len(variable.schemes) > 1 else scheme
        for scheme, n in variable.schemes.items()
    )
    note = f"{variable.name}: {count:,} chunk{'s' if count > 1 else ''} ({listed})"
    if count == 1 or not variable.worst_chunk_rmse:
        return note
    rmse = f"{in_digits(variable.worst_chunk_rmse)} {variable.unit}".rstrip()
    return f"{note}, the worst has RMSE {rmse} ({variable.worst_chunk_label})"


@dataclass(frozen=True)
class _Column:
    title: str
    cell: Callable[[VariableReport], str]
    justify: Any = "right"


def times_smaller(ratio: float | None) -> str:
    return "–" if ratio is None else f"{in_digits(ratio)}×"


_COLUMNS = (
    _Column("variable", lambda v: v.name, "left"),
    _Column("bytes", lambda v: f"{v.nbytes:,}"),
    _Column("ratio", lambda v: times_smaller(v.ratio)),
    _Column("with model", lambda v: times_smaller(v.ratio_with_model)),
    _Column("bpp", lambda v: in_digits(v.bits_per_point)),
    _Column("asked", lambda v: v.asked or "–"),
    _Column("RMSE", lambda v: in_digits(v.rmse)),
    _Column("plain RMSE", lambda v: in_digits(v.rmse_plain)),
    _Column("max error", lambda v: in_digits(v.max_error)),
    _Column("bias", lambda v: in_digits(v.bias)),
    _Column("worst globe", lambda v: in_digits(v.worst_globe_rmse)),
    _Column("unit", lambda v: v.unit, "left"),
)
