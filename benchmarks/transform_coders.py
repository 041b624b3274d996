"""Which transform coder for which data, at equal RMSE; and what a filter after it would add.

The coder of patches and that of subbands, each on the other's data as well: why there are two. And
a filter behind the subbands: weights of twelve neighbours in eight classes of activity, fitted to
each field without counting what it takes to tell them.

    COINPP_DATA=... python benchmarks/transform_coders.py    # some ten minutes
"""

from __future__ import annotations

from math import exp, log, sqrt
from typing import Any

import imagecodecs
import nibabel
import numpy as np
from common import data_file, open_variable, write_result
from media import folder
from native_rmse import FIELDS

from coinpp_xr import COINppCodec, ImagePatchCodec, VolumePatchCodec
from coinpp_xr.coding.wavelets.arrays import Arrays
from coinpp_xr.coding.wavelets.meeting import Meeting
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.fields import Fields
from coinpp_xr.peers import Chunk, Goal, smallest

# Of a field's or volume's spread.
SHARES = (0.006, 0.02, 0.1)
RMSES = (2.0, 5.0, 10.0)  # of 255
VOLUMES = ("cit168_t1w_brain", "colin27_ch2_brain")
# The middle of a head.
MIDDLE = np.s_[40:120, 40:160, 40:140]
IMAGES = 8
CLASSES = 8


def in_subbands(values: np.ndarray, target: float) -> int:
    """Bytes of the shorter one of references and a transform along the first axis."""
    # A small patch at the equator, where all cells have one area.
    sides = (np.linspace(-0.1, 0.1, size) for size in values.shape[1:])
    fields = Fields.of_sequence(values, SphereGrid(*sides))
    sizes = []
    for along_time in (False, True)[: min(len(values), 2)]:
        arrays = Arrays(fields, fields.sequences, fields.valid, target, along_time=along_time)
        found = Meeting(arrays, target, "default").smallest()
        assert found is not None
        sizes.append(len(found))
    return min(sizes)


def plain_rmse(one: np.ndarray, other: np.ndarray) -> float:
    return sqrt(float(((one.astype(np.float64) - other) ** 2).mean()))


def media() -> list[dict[str, Any]]:
    """Images and volumes by patches, and in subbands at the RMSE that those reach."""
    cases = []
    for file in sorted((folder("images") / "kodak").iterdir())[:IMAGES]:
        green = imagecodecs.imread(str(file)).astype(np.float32)[..., 1]
        cases += [(file.stem, green, ImagePatchCodec(target_rmse=rmse)) for rmse in RMSES]
    for name in VOLUMES:
        read = nibabel.load(folder("mri") / "heads" / f"{name}.nii.gz")
        values = np.ascontiguousarray(read.get_fdata(dtype=np.float32)[MIDDLE])
        for share in SHARES:
            codec = VolumePatchCodec(target_rmse=share * float(values.std()))
            cases.append((name, values, codec))
    found = []
    for name, values, codec in cases:
        payload = codec.encode(values)
        rmse = plain_rmse(codec.decode(payload), values)
        stack = values if values.ndim == 3 else values[None]
        found.append(
            {
                "data": name, "rmse": rmse, "patches": len(payload),
                "subbands": in_subbands(stack, rmse),
            }
        )  # fmt: skip
        print(found[-1], flush=True)
    return found


def shifted(field: np.ndarray, i: int, j: int) -> np.ndarray:
    padded = np.pad(field, ((2, 2), (0, 0)), mode="edge")
    return np.roll(padded, (-i, -j), (0, 1))[2:-2]


def filtered(decoded: np.ndarray, original: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """What the best weights of neighbours make of a field, by how much it varies there."""
    four = (
        ((1, 0), (-1, 0), (0, 1), (0, -1)), ((1, 1), (-1, 1), (1, -1), (-1, -1)),
        ((2, 0), (-2, 0), (0, 2), (0, -2)), ((1, 0), (-1, 0)),
    )  # fmt: skip
    features = [np.mean([shifted(decoded, *at) for at in some], axis=0) - decoded for some in four]
    activity = sum(np.abs(feature) for feature in features[:3])
    edges = np.quantile(activity, np.linspace(0, 1, CLASSES + 1)[1:-1])
    found, which = decoded.copy(), np.digitize(activity, edges)
    for k in range(CLASSES):
        own = which == k
        x, weights = np.stack([feature[own] for feature in features], axis=1), areas[own]
        products = (x * weights[:, None]).T @ x
        sides = (x * weights[:, None]).T @ (original - decoded)[own]
        found[own] += x @ np.linalg.solve(products + 1e-12 * np.trace(products) * np.eye(4), sides)
    return found


def globes() -> list[dict[str, Any]]:
    """Fields of 0.25° in subbands, by patches and by JPEG XL; and what a filter would save."""
    found = []
    for file, variable, _ in FIELDS:
        array = open_variable(data_file(f"native/{file}.nc"), variable).squeeze()
        values, latitude = array.to_numpy().astype(np.float32), array[array.dims[-2]].to_numpy()
        chunk = Chunk.of(values, latitude)
        if not np.isfinite(values).all():
            continue  # patches set these aside otherwise
        areas = np.broadcast_to(chunk.weights, values.shape)

        def rmse_of(decoded: np.ndarray, values: Any = values, areas: Any = areas) -> float:
            return sqrt(float((areas * (decoded - values.astype(np.float64)) ** 2).sum()))

        areas = areas / areas.sum()
        for share in SHARES:
            target = share * float(values.std())
            codec = COINppCodec("universal", target_rmse=target)
            payload = codec.encode(values)
            decoded = codec.decode(payload).astype(np.float64)
            before, after = rmse_of(decoded), rmse_of(filtered(decoded, values, areas))
            # By how much a little more error makes payloads smaller.
            wider = COINppCodec("universal", target_rmse=1.05 * target).encode(values)
            slope = log(len(payload) / len(wider)) / log(1.05)
            case = {
                "data": variable, "rmse": before, "subbands": len(payload),
                "filter saves": round(1 - exp(slope * log(after / before)), 4),
            }  # fmt: skip
            # Patches know no areas: another target leaves this error as areas weigh it.
            own = target
            for _ in range(2):
                patches = ImagePatchCodec(target_rmse=own)
                by_patches = patches.encode(values)
                own *= target / rmse_of(patches.decode(by_patches))
            case["patches"] = len(by_patches)
            other = smallest("JPEG XL", chunk, Goal(target_rmse=target))
            case["JPEG XL"] = None if other is None else other[0].nbytes
            found.append(case)
            print(case, flush=True)
    return found


def times(cases: list[dict[str, Any]], other: str) -> float:
    """Geometric mean of how many times smaller subbands are."""
    ratios = [log(case[other] / case["subbands"]) for case in cases if case.get(other)]
    return round(exp(float(np.mean(ratios))), 3)


def main() -> None:
    on_globes, on_media = globes(), media()
    summary = {
        "globes, patches": times(on_globes, "patches"),
        "globes, JPEG XL": times(on_globes, "JPEG XL"),
        "images, patches": times([c for c in on_media if c["data"].startswith("kodim")], "patches"),
        "volumes, patches": times([c for c in on_media if c["data"] in VOLUMES], "patches"),
        "filter saves, mean": round(float(np.mean([c["filter saves"] for c in on_globes])), 4),
    }
    write_result(
        "transform_coders",
        {"subbands, times smaller than": summary, "globes": on_globes, "images, volumes": on_media},
        show=False,
    )
    print(summary)


if __name__ == "__main__":
    main()
