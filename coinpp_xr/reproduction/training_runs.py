"""Trained networks, kept in a folder: an experiment asks for them, and what is there is not redone.

Networks are trained side by side, one thread each. A run that was stopped goes on from its last
checkpoint.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from math import inf
from pathlib import Path
from typing import Any

import torch

from coinpp_xr.parallel import keep_freed_memory
from coinpp_xr.reproduction.studies import STUDIES, fingerprint, material
from coinpp_xr.siren import ModulatedSiren
from coinpp_xr.training import (
    TrainingConfig,
    log_path,
    meta_learn,
    read_checkpoint,
    siren_from_checkpoint,
)

Record = dict[str, Any]


@dataclass(frozen=True)
class Task:
    """One network to train.

    Parameters
    ----------
    study : str
        Of :data:`coinpp_xr.reproduction.studies.STUDIES`.
    config : TrainingConfig
    """

    study: str
    config: TrainingConfig


@dataclass(frozen=True)
class Bench:
    """Where networks are kept, and how they are trained.

    Parameters
    ----------
    folder : Path
        For checkpoints and logs.
    data : Path or None
        The paper's data; None for what is at hand.
    quick : bool
    device : str
    processes : int
        Networks trained at a time.
    deadline : float
        Seconds since 1970 after which training stops.
    tell : callable
        Gets a line of progress now and then.
    """

    folder: Path
    data: Path | None
    quick: bool
    device: str = "cpu"
    processes: int = 2
    deadline: float = inf
    tell: Callable[[str], None] = print

    def path(self, task: Task) -> Path:
        """Of the checkpoint: another configuration or other data is another file."""
        data = fingerprint(task.study, self.data, self.quick)
        words = json.dumps([asdict(task.config), data], sort_keys=True)
        digest = sha256(words.encode()).hexdigest()[:12]
        return self.folder / f"{task.study}-{task.config.latent_dim}-{digest}.safetensors"

    def networks(self, tasks: Sequence[Task]) -> list[ModulatedSiren]:
        """The trained networks of all tasks, in their order."""
        missing = [task for task in dict.fromkeys(tasks) if not self._done(task).exists()]
        if missing:
            self.tell(
                f"{len(missing)} of {len(tasks)} networks to train; logs: {self.folder}/*.jsonl"
            )
            self._train(missing)
        return [siren_from_checkpoint(self.path(task)) for task in tasks]

    def curve(self, task: Task) -> list[Record]:
        """Validation records of a trained network."""
        log = log_path(self.path(task))
        lines = log.read_text().splitlines() if log.exists() else []
        by_step = {r["step"]: r for r in map(json.loads, lines) if r["event"] == "validation"}
        return [by_step[step] for step in sorted(by_step)]

    def _done(self, task: Task) -> Path:
        return self.path(task).with_suffix(".done")

    def _train(self, tasks: Sequence[Task]) -> None:
        processes = max(1, min(self.processes, len(tasks)))
        if processes == 1 or multiprocessing.current_process().daemon:
            with _one_thread():
                for task in tasks:
                    self._finish(self._run(task))
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context, initializer=_prepare) as pool:
            jobs = [pool.submit(replace(self, tell=_silent)._run, task) for task in tasks]
            try:
                for job in as_completed(jobs):
                    self._finish(job.result())
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _run(self, task: Task) -> Record:
        """Train one network in this process, or as much of it as there is time for."""
        path = self.path(task)
        minutes = (self.deadline - time.time()) / 60
        if minutes > 0:
            training = material(task.study, self.data, self.quick).training
            meta_learn(
                training, task.config, checkpoint=path, resume=True, device=self.device,
                max_minutes=minutes if minutes < inf else None,
            )  # fmt: skip
        records = self.curve(task)
        last: Record = records[-1] if records else {}
        progress = json.loads(read_checkpoint(path)[1]["progress"]) if path.exists() else {}
        config = task.config
        parts = [task.study, str(config.latent_dim), config.modulation, config.latent_map]
        return {
            "path": str(path),
            "name": f"{' '.join(parts)}, inner rate {config.inner_lr:g}, seed {config.seed}",
            "psnr": last.get("validation_psnr", float("nan")),
            "finished": progress.get("step") == config.steps,
            "steps": progress.get("step", 0),
            "seconds": last.get("seconds", 0.0),
        }

    def _finish(self, record: Record) -> None:
        if not record["finished"]:
            raise RuntimeError(
                "the time is over; what is trained is kept: run the same command again to go on"
            )
        Path(record["path"]).with_suffix(".done").touch()
        self.tell(
            f"{record['name']}: {record['psnr']:.1f} dB on validation data after "
            f"{record['steps']} steps, {record['seconds']:.0f} s"
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """As in workers: sums split among threads round differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _prepare() -> None:
    """A process that trains."""
    torch.set_num_threads(1)
    keep_freed_memory()


def _silent(_line: str) -> None:
    """In workers: the parent tells."""


def tasks_of(study: str, latents: Sequence[int], seeds: Sequence[int], *, quick: bool,
             **changes: Any) -> list[Task]:  # fmt: skip
    """All combinations of latents and seeds, latents first."""
    return [
        Task(study, STUDIES[study].config(k, quick=quick, seed=seed, **changes))
        for k in latents
        for seed in seeds
    ]
