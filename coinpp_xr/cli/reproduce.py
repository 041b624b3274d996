"""``coinpp reproduce``: the figures and tables of the COIN++ paper."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coinpp_xr.cli.text import say, tell


def reproduce(
    item: Annotated[
        str,
        typer.Argument(
            metavar="ITEM",
            help="fig5-left, fig5-right, fig6, fig7a ... fig15, table1, or all.",
            show_default=False,
        ),
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The paper's data as it is distributed: a folder with cifar10, vimeo90k, kodak, "
            "fastmri, librispeech, era5_temp2m_16x_train, ...  [default: what COINPP_DATA holds]",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Small networks, minutes on two CPU cores per item.")
    ] = False,
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="For figures, numbers and networks."),
    ] = Path("reproduction"),
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="cpu, cuda, ...: where networks are trained.")
    ] = "cpu",
    processes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Networks trained at a time.  [default: one per core]"
        ),
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option(metavar="M", help="Stop training after this time; the next run goes on."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Redo items whose results are there; networks stay.")
    ] = False,
) -> None:
    """Redo figures and tables of the COIN++ paper.

    What is done is not done again: an interrupted run goes on where it was.

    \b
    Examples:
      coinpp reproduce fig8 --quick
      coinpp reproduce all --data coinpp-data --device cuda -o paper
    """
    from coinpp_xr.reproduction import ITEMS
    from coinpp_xr.reproduction import reproduce as reproduce_item

    start, failed = time.monotonic(), []
    for name in ITEMS if item == "all" else [item]:
        left = None if max_minutes is None else max_minutes - (time.monotonic() - start) / 60
        try:
            reproduce_item(
                name, output, data=data, quick=quick, device=device, processes=processes,
                again=again, max_minutes=left, tell=say,
            )  # fmt: skip
        except FileNotFoundError as error:  # other items may need other data
            if item != "all":
                raise
            tell(f"{name}: {error}")
            failed.append(name)
    if failed:
        raise FileNotFoundError(f"not done for want of data: {', '.join(failed)}")
