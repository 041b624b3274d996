"""What is recommended for the variables of a dataset, as a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from coinpp_xr.labels import in_digits
from coinpp_xr.notebook_html import block, head, table
from coinpp_xr.text_tables import Column, plain_text, text_tables

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

_KINDS = {
    "max_error": "largest error",
    "max_error_relative": "largest relative error",
    "target_rmse": "RMSE",
}
_HEADS = [
    ("variable", "left"), ("bound", "right"), ("of its spread", "right"), ("kind", "left"),
    ("source", "left"), ("remarks", "prose"),
]  # fmt: skip
# Characters that columns may be folded to.
_LEAST = {"variable": 10, "bound": 10, "kind": 8, "source": 12, "remarks": 16}


@dataclass(frozen=True)
class VariableRecommendation:
    """What is recommended for one variable.

    Parameters
    ----------
    name : str
    unit : str
        The variable's own, which ``value`` is in.
    control : str or None
        The rate control; None where nothing is known, or where nothing may be lost.
    value : float or None
    lossless : bool
        Whether nothing may be lost.
    keep : tuple of float
        Values that must come back exactly.
    share : float or None
        The bound as a share of the standard deviation of a sample of the data; for a relative
        bound, that of a value of the root-mean-square magnitude.
    source : str
        By which name, and on which kind of level, ``compression-recommendations`` knows it.
    remarks : str
        What else is asked for; or why nothing is known.
    """

    name: str
    unit: str = ""
    control: str | None = None
    value: float | None = None
    lossless: bool = False
    keep: tuple[float, ...] = ()
    share: float | None = None
    source: str = ""
    remarks: str = ""

    @property
    def is_known(self) -> bool:
        """Whether anything is recommended."""
        return self.lossless or self.control is not None

    @property
    def bound(self) -> str:
        """For people."""
        if self.lossless:
            return "without loss"
        if self.value is None:
            return "–"
        if self.control == "max_error_relative":
            return f"±{100 * self.value:g} %"
        sign = "±" if self.control == "max_error" else ""
        unit = "" if self.unit in ("1", "~") else self.unit
        return f"{sign}{in_digits(self.value)} {unit}".strip()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: numbers, strings, lists and None."""
        return asdict(self) | {"keep": list(self.keep)}


@dataclass(frozen=True, repr=False)
class RecommendationTable:
    """What is recommended for every variable that can be compressed.

    Iterated, it gives a :class:`VariableRecommendation` for each; indexed, by position or by
    name. Prints as a table, shows as HTML in notebooks. ``ds.coinpp.compress(**table.rates)``
    takes what it says.

    Parameters
    ----------
    variables : tuple of VariableRecommendation
    version : str
        Of ``compression-recommendations``.
    """

    variables: tuple[VariableRecommendation, ...]
    version: str = ""

    def __iter__(self) -> Iterator[VariableRecommendation]:
        return iter(self.variables)

    def __len__(self) -> int:
        return len(self.variables)

    def __getitem__(self, key: int | str) -> VariableRecommendation:
        if isinstance(key, int):
            return self.variables[key]
        for variable in self.variables:
            if variable.name == key:
                return variable
        names = ", ".join(variable.name for variable in self.variables) or "none"
        raise KeyError(f"no variable {key!r} in this table; there are: {names}")

    @property
    def rates(self) -> dict[str, dict[str, float]]:
        """Arguments of the methods that compress: for each control a mapping by variable.

        Variables of which nothing may be lost, or is known, are in none.
        """
        found: dict[str, dict[str, float]] = {}
        for variable in self.variables:
            if variable.control is not None and variable.value is not None:
                found.setdefault(variable.control, {})[variable.name] = variable.value
        return found

    @property
    def headline(self) -> str:
        """For how many something is known, in one line."""
        known = sum(variable.is_known for variable in self.variables)
        return (
            f"known for {known} of {len(self.variables)} variables, by compression-recommendations "
            f"{self.version}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, by the variables' names."""
        return {variable.name: variable.to_dict() for variable in self.variables}

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        columns = zip(*self._rows(), strict=True) if self.variables else ((),) * len(_HEADS)
        shown = [
            Column(title, cells, "right" if side == "right" else "left", _LEAST.get(title))
            for (title, side), cells in zip(_HEADS, columns, strict=True)
        ]
        yield from text_tables(shown, options.max_width)

    def __repr__(self) -> str:
        return f"<coinpp_xr recommendations: {self.headline}>\n{plain_text(self)}"

    def _repr_html_(self) -> str:
        return block(head("coinpp_xr recommendations", self.headline), table(_HEADS, self._rows()))

    def _rows(self) -> Iterator[list[str]]:
        for variable in self.variables:
            share = "–" if variable.share is None else f"{100 * variable.share:.2g} %"
            kind = _KINDS.get(variable.control or "", "–")
            row = [variable.name, variable.bound, share, kind, variable.source, variable.remarks]
            yield row
