"""The figures and tables of the COIN++ paper, redone: ``coinpp reproduce ITEM``.

Dupont, Loya, Alizadeh, Golinski, Teh, Doucet: COIN++: Neural Compression Across Modalities, TMLR
2022. Every item trains what it needs (kept and shared between items), writes its figure and its
numbers, and says how its data differs from the paper's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coinpp_xr.reproduction.results import Result
    from coinpp_xr.reproduction.training_runs import Bench


@dataclass(frozen=True)
class Item:
    """A figure or table of the paper.

    Parameters
    ----------
    title : str
    module, function : str
        Of this package: (bench) → Result.
    """

    title: str
    module: str
    function: str

    def run(self, bench: Bench) -> Result:
        """Do the experiment."""
        module = import_module(f"coinpp_xr.reproduction.{self.module}")
        experiment: Callable[[Bench], Result] = getattr(module, self.function)
        return experiment(bench)


ITEMS = {
    "fig5-left": Item(
        "Figure 5, left: other parameterizations, as many stored numbers",
        "parameterizations", "left",
    ),
    "fig5-right": Item("Figure 5, right: shifts, scales and both", "parameterizations", "right"),
    "fig6": Item("Figure 6: CIFAR-10, rate and PSNR", "rate_distortion", "images"),
    "fig7a": Item("Figure 7a: bits per latent", "quantization", "bit_widths"),
    "fig7b": Item("Figure 7b: COIN and COIN++ under quantization", "quantization", "against_coin"),
    "fig7c": Item("Figure 7c: quantization by number of latents", "quantization", "per_latents"),
    "fig7d": Item("Figure 7d: quantization and entropy coding", "quantization", "entropy_coding"),
    "table1": Item("Table 1: encoding and decoding time", "timing", "table"),
    "fig8": Item("Figure 8: ERA5, rate and PSNR", "rate_distortion", "globes"),
    "fig9": Item("Figure 9: Kodak, rate and PSNR", "rate_distortion", "photographs"),
    "fig10": Item("Figure 10: LibriSpeech, rate and PSNR", "rate_distortion", "speech"),
    "fig11": Item("Figure 11: FastMRI, rate and PSNR", "rate_distortion", "volumes"),
    "fig12": Item("Figure 12: meta-learning", "encoding", "meta_learning"),
    "fig13": Item("Figure 13: inner steps", "encoding", "inner_steps"),
    "fig14": Item("Figure 14: what quantization does to items", "quantization", "pictures"),
    "fig15": Item("Figure 15: PSNR during encoding", "encoding", "encoding_curves"),
}  # fmt: skip


def reproduce(
    item: str,
    output: str | Path = "reproduction",
    *,
    data: str | Path | None = None,
    quick: bool = False,
    device: str = "cpu",
    processes: int | None = None,
    again: bool = False,
    max_minutes: float | None = None,
    tell: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Redo one figure or table of the COIN++ paper.

    Parameters
    ----------
    item : str
        One of :data:`ITEMS`.
    output : path
        Folder for ``ITEM.json``, ``ITEM.png`` and trained networks (``networks/``), which items
        share and interrupted runs take up again.
    data : path, optional
        The paper's data in the form in which it is distributed: a folder with ``cifar10``,
        ``vimeo90k``, ``kodak``, ``fastmri``, ``librispeech`` and ``era5_temp2m_16x_train``, ...;
        those that the item needs. Default: smaller data of the same kinds in the folder that
        ``COINPP_DATA`` names.
    quick : bool
        Networks that train within a minute of a CPU core each, instead of the paper's.
    device : str
        A torch device for training.
    processes : int, optional
        Networks trained at a time. Default: one per core, at most 8; one on a GPU.
    again : bool
        Redo an item whose result is there already. Networks are kept.
    max_minutes : float, optional
        Stop training after this time.
    tell : callable
        Gets lines of progress.

    Returns
    -------
    dict
        What the JSON file holds.

    Raises
    ------
    ValueError
        If there is no such item.
    FileNotFoundError
        If data is missing.
    ImportError
        Without torch or matplotlib.
    RuntimeError
        If the time is over before the item is done; the next call goes on.
    """
    if item not in ITEMS:
        from difflib import get_close_matches

        near = [name for name in ITEMS if item and name.startswith(item)]
        near = near or get_close_matches(item, ITEMS, n=1) or ["all", *ITEMS]
        hint = f"take one of {', '.join(near)}"
        raise ValueError(f"no item {item!r}; {hint}")
    bench, results = _imported()
    folder = Path(output)
    path = folder / f"{item}.json"
    settings = {"quick": quick, "data_folder": None if data is None else str(data)}
    if not again and (known := _known(path)) and settings.items() <= known.items():
        tell(f"{item}: done already, {path}")
        return known
    from coinpp_xr.reproduction.figures import draw

    where = bench(
        folder / "networks", Path(data).absolute() if data is not None else None, quick, device,
        processes=_processes(processes, device),
        deadline=inf if max_minutes is None else time.time() + 60 * max_minutes, tell=tell,
    )  # fmt: skip
    start = time.perf_counter()
    result = ITEMS[item].run(where)
    seconds = time.perf_counter() - start
    record = result.record(item, ITEMS[item].title, seconds=seconds)
    record |= settings | {"device": where.device, "processes": where.processes}
    draw(path.with_suffix(".png"), record, result.pictures)
    results.write(path, record)
    for study, note in result.data.items():
        tell(f"{item}: data of {study}: {note}")
    tell(f"{item}: {path}, {path.with_suffix('.png')}")
    return record


def _known(path: Path) -> dict[str, Any] | None:
    """An earlier result, if it is there and whole."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) else None


def _imported() -> tuple[Any, Any]:
    try:
        from coinpp_xr.reproduction import figures, results, training_runs

        del figures
    except ModuleNotFoundError as error:
        raise ImportError(
            f"reproducing the paper needs {error.name}; install it with: "
            "pip install 'coinpp-xr[torch,plot,media,peers]'"
        ) from error
    return training_runs.Bench, results


def _processes(wanted: int | None, device: str) -> int:
    import os

    if wanted is not None:
        return max(1, wanted)
    return min(8, os.cpu_count() or 1) if device == "cpu" else 1
