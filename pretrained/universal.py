"""Makes the networks of the pyramid: ``coinpp_xr/coding/pyramid/universal.safetensors``.

Three steps, each resumable. ``observe`` codes the fields of ``$COINPP_DATA`` at several bounds and
writes down what a network would have been told (it needs the whole package); ``train`` trains one
(numpy and torch are enough, on any device); ``pack`` puts four of them into the file: for efforts
and for fields that refer to others, or to none.

Example:
    python pretrained/universal.py observe observed
    python pretrained/universal.py train observed made/small.alone.npz --kind alone --widths 32-24
    python pretrained/universal.py train observed made/small.referring.npz --kind referring \\
        --widths 48-32
    python pretrained/universal.py train observed made/large.alone.npz --kind alone --widths 96-64
    python pretrained/universal.py train observed made/large.referring.npz --kind referring \\
        --widths 128-96
    python pretrained/universal.py pack made
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent
FILE = FOLDER.parent / "coinpp_xr/coding/pyramid/universal.safetensors"
# Of a pass, and of a file, at most so many points.
MOST_OF_PASS, MOST_OF_FILE = 40_000, 40_000
ONE_DEGREE = "climate/era5_snapshots_1deg.nc"
# Parts of a field's spread that bounds are.
FINE, USUAL, COARSE = (
    (0.0005, 0.002, 0.008, 0.03, 0.1),
    (0.002, 0.008, 0.03, 0.1),
    (0.002, 0.01, 0.05),
)


def fields() -> Iterator[tuple[str, npt.NDArray[Any], tuple[float, ...]]]:
    """Name, array of shape (times, n_lat, n_lon) and bounds of everything that is learned from."""
    import xarray as xr

    from coinpp_xr.data.fields import open_fields

    if "COINPP_DATA" not in os.environ:
        sys.exit("set COINPP_DATA to the folder with the climate data")
    data = Path(os.environ["COINPP_DATA"])

    def read(file: str, variable: str) -> npt.NDArray[Any]:
        with xr.open_dataset(data / file) as dataset:
            values = dataset[variable].values
        return values.reshape(-1, *values.shape[-2:])

    for file, variables in {
        "era5_gust_0p25": ["i10fg"], "era5_msl_0p25": ["msl"], "gfs_t2m_0p25": ["t2m"],
        "gfs_t_pv_0p25": ["t_pv"], "aifs_t500_0p25": ["t500"], "aifs_wave_0p25": ["swh"],
        "ifs_gh_0p4": ["gh925", "gh700", "gh250"],
    }.items():  # fmt: skip
        for variable in variables:
            yield f"{variable}-{file}", read(f"native/{file}.nc", variable)[:1], FINE
    for variable in ("t2m", "u10", "v10", "msl"):
        for day in (1, 6, 10):
            yield f"{variable}-1deg-{day}", read(ONE_DEGREE, variable)[day : day + 1], USUAL
        yield f"{variable}-1deg-sequence", read(ONE_DEGREE, variable)[:8], COARSE
    for variable in ("skt", "stl1", "sp"):
        yield f"{variable}-1deg", read("native/era5_surface_1deg.nc", variable), COARSE
    for variable in ("t", "u"):
        levels = read(f"native/erainterim_37levels_{variable}.nc", variable)[:33]
        yield f"{variable}-erainterim", levels, COARSE
    for variable in ("u", "q"):
        hours = read(f"native/era5_hourly_levels_{variable}.nc", variable).reshape(24, 22, 41, 41)
        for level in (1, 5, 10, 15, 20):
            yield f"{variable}-hourly-{level}", hours[:, level], COARSE
    yield "sp-hourly", read("native/era5_hourly_surface.nc", "sp"), COARSE
    for variable, name in {
        "temperature": "t", "specific_humidity": "q", "u_component_of_wind": "u"
    }.items():  # fmt: skip
        levels = read("native/era5_tl31_levels.nc", variable).swapaxes(1, 2)
        yield f"{name}-tl31", levels, COARSE
    for variable in ("t", "u", "q"):
        with open_fields(data / "native/forecast_ml_137levels.grib", variable) as levels:
            yield f"{variable}-model-levels", levels.values, COARSE
    heights = [read("native/ifs_gh_0p4.nc", f"gh{level}")[0] for level in (925, 700, 300, 250, 200)]
    yield "gh-levels-0p4", np.stack(heights), COARSE
    yield "sst-ersst", read("native/ersst_monthly_2deg.nc", "sst")[:32], COARSE
    for start in (0, 3000):
        globes = read("climate/gcm_6hourly_46x90.nc", "t2m")[start : start + 64]
        yield f"gcm-{start}", globes, COARSE


def observe(folder: Path) -> None:
    """One file for every field and bound."""
    from coinpp_xr.coding.pyramid.observing import observe as observe_fields
    from coinpp_xr.fields import Fields
    from coinpp_xr.lattice import Bound
    from coinpp_xr.recognition import layouts_of

    folder.mkdir(parents=True, exist_ok=True)
    for name, values, shares in fields():
        coded = Fields.of_sequence(values, layouts_of(*values.shape[-2:])[0])
        spread = float(coded.values.std(where=coded.valid))
        for share in shares:
            path = folder / f"{name}@{share}.npz"
            if not path.exists():
                np.savez(path, **observe_fields(coded, Bound(share * spread), MOST_OF_PASS))
                print(path.name, flush=True)


def train(
    folder: Path, target: Path, kind: str, widths: str, minutes: float, without: str, device: str
) -> None:
    """One network; ``without`` leaves files out whose names contain one of some words."""
    from coinpp_xr.training.expert_training import ExpertTraining, Observed

    left_out = [word for word in without.split(",") if word]
    paths = [p for p in sorted(folder.glob("*.npz")) if not any(w in p.name for w in left_out)]
    width, other = map(int, widths.split("-"))
    data = Observed.load(paths, MOST_OF_FILE, referring=kind == "referring")
    training = ExpertTraining((width, other), device)
    training.train(data, 60 * minutes, target.with_suffix(".run"))
    about = {
        "widths": [width, other], "minutes": minutes, "steps": training.steps,
        "left out": left_out, "device": device, "points": len(data.offsets),
    }  # fmt: skip
    np.savez(target, *training.arrays(), about=json.dumps(about))


def pack(folder: Path, target: Path) -> None:
    """Four networks, such as ``small.alone.npz``, into one file: that of the package."""
    from safetensors.numpy import save_file

    from coinpp_xr.coding.pyramid.expert_units import N_VARYING, PAST, REFERENCES
    from coinpp_xr.coding.pyramid.experts import ARRAYS, KINDS, Expert

    tensors, about = {}, {}
    sizes = [size for size in ("small", "large") if (folder / f"{size}.alone.npz").exists()]
    for name in (f"{size}.{kind}" for size in sizes for kind in KINDS):
        with np.load(folder / f"{name}.npz") as file:
            about[name] = json.loads(str(file["about"]))
            for k, array in enumerate(ARRAYS):
                tensors[f"{name}.{array}"] = file[f"arr_{k}"]
        if name.endswith("alone"):  # of what is always zero there, it has learned nothing
            tensors[f"{name}.first"][:, PAST:N_VARYING] = 0
            tensors[f"{name}.first"][:, REFERENCES] = 0
    save_file(tensors, target, {"about": json.dumps(about)})
    for size in sizes:
        print(size, Expert.of(tensors, size).fingerprint.hex())
    print(f"{target.stat().st_size:,} bytes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("observe").add_argument("folder", type=Path)
    step = steps.add_parser("train")
    step.add_argument("folder", type=Path)
    step.add_argument("target", type=Path)
    step.add_argument("--kind", choices=("alone", "referring"), required=True)
    step.add_argument("--widths", default="32-32")
    step.add_argument("--minutes", type=float, default=10)
    step.add_argument("--without", default="")
    step.add_argument("--device", default="cpu")
    step = steps.add_parser("pack")
    step.add_argument("folder", type=Path)
    step.add_argument("--target", type=Path, default=FILE)
    arguments = vars(parser.parse_args())
    {"observe": observe, "train": train, "pack": pack}[arguments.pop("step")](**arguments)


if __name__ == "__main__":
    main()
