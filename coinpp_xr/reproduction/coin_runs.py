"""COIN on the test items of a study: networks fitted item by item, kept in the bench's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from coinpp_xr import coin
from coinpp_xr.files import write_atomically
from coinpp_xr.reproduction.datasets import Material
from coinpp_xr.reproduction.measures import decibels
from coinpp_xr.reproduction.studies import material
from coinpp_xr.reproduction.training_runs import Bench

# The paper's for images of 32 × 32 pixels (appendix B.1), and smaller ones, whose rates small
# networks of COIN++ reach.
PAPER_WIDTHS = (12, 14, 16, 18, 20, 22)
QUICK_WIDTHS = (3, 4, 6, 8, 12, 16, 22)
# Items that are fitted: each takes seconds, or minutes with the paper's schedule.
_MOST_ITEMS = 32


@dataclass(frozen=True, eq=False)
class Fitted:
    """Networks of one width.

    Parameters
    ----------
    parameters : float32 array, shape (items, parameters)
    losses : float32 array, shape (recorded steps, items)
        Mean squared errors on the way.
    steps : int64 array, shape (recorded steps,)
    seconds : float
        Per item.
    """

    parameters: npt.NDArray[Any]
    losses: npt.NDArray[Any]
    steps: npt.NDArray[Any]
    seconds: float


@dataclass(frozen=True, eq=False)
class CoinRuns:
    """Fits of COIN for one study."""

    bench: Bench
    study: str

    @property
    def widths(self) -> Sequence[int]:
        return QUICK_WIDTHS if self.bench.quick else PAPER_WIDTHS

    @cached_property
    def material(self) -> Material:
        return material(self.study, self.bench.data, self.bench.quick)

    @cached_property
    def items(self) -> list[npt.NDArray[Any]]:
        """Those that are fitted: all, or some spread over them where there are many."""
        every = self.material.items
        chosen = np.linspace(0, len(every) - 1, min(len(every), _MOST_ITEMS)).round().astype(int)
        return [every[i] for i in chosen]

    def network(self, width: int) -> coin.CoinNetwork:
        return coin.CoinNetwork(self.material.points.shape[1], self.items[0].shape[-1], width)

    @property
    def schedule(self) -> coin.Schedule:
        """The paper's, or at quick sizes one that gets as far in two fifths of the steps."""
        return coin.DEFAULT if self.bench.quick else coin.PAPER

    def fitted(self, width: int, schedule: coin.Schedule | None = None) -> Fitted:
        """Fit all items, or take what an earlier run has left."""
        schedule = schedule or self.schedule
        items = np.stack([item.reshape(-1, item.shape[-1]) for item in self.items])
        digest = sha256(repr(schedule).encode() + items.tobytes()).hexdigest()[:12]
        path = self.bench.folder / f"coin-{self.study}-{width}-{digest}.npz"
        if not path.exists():
            self.bench.tell(f"COIN: {len(items)} items, width {width}, {schedule.steps} steps")
            _write(path, _fit(items, self.material.points, self.network(width), schedule))
        with np.load(path) as arrays:
            return Fitted(
                arrays["parameters"], arrays["losses"], arrays["steps"], float(arrays["seconds"])
            )

    def rate(self, width: int, bits: int = coin.HALF) -> float:
        """In the material's unit."""
        cells = self.items[0][..., 0].size
        return 8 * self.network(width).nbytes(bits) / cells

    def scores(self, width: int, bits: int | None) -> list[float]:
        """PSNR of every item; at 16 bits from payloads, at other numbers after quantization.

        None leaves the weights as they are.
        """
        network, points = self.network(width), self.material.points
        found = []
        for item, parameters in zip(self.items, self.fitted(width).parameters, strict=True):
            if bits == coin.HALF:
                values = coin.decode(coin.encode(parameters), network, points)
            else:
                weights = parameters if bits is None else coin.quantized(parameters, bits)
                values = network(weights, points)
            found.append(decibels(values.reshape(item.shape), item))
        return found


def _fit(
    items: npt.NDArray[Any],
    points: npt.NDArray[np.float32],
    network: coin.CoinNetwork,
    schedule: coin.Schedule,
) -> Fitted:
    wanted = set(np.unique(np.geomspace(1, schedule.steps, 60).round().astype(int)).tolist())
    steps: list[int] = []
    losses: list[npt.NDArray[Any]] = []

    def listen(step: int, found: npt.NDArray[Any]) -> None:
        if step in wanted:
            steps.append(step)
            losses.append(found)

    start = time.perf_counter()
    parameters = coin.fit(items, points, network, schedule, listener=listen)
    seconds = (time.perf_counter() - start) / len(items)
    return Fitted(parameters, np.array(losses), np.array(steps), seconds)


def _write(path: Any, fitted: Fitted) -> None:
    from io import BytesIO

    buffer = BytesIO()
    np.savez(
        buffer, parameters=fitted.parameters, losses=fitted.losses, steps=fitted.steps,
        seconds=fitted.seconds,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
