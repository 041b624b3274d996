"""Makes ``phantom.nii.gz``: a synthetic head of nested ellipsoids, with texture and a little noise.

Usage: python examples/make_phantom.py [FILE.nii.gz]
"""

import sys
from pathlib import Path

import numpy as np

from coinpp_xr.data.media import Media, write_media

SHAPE, VOXEL_MM = (32, 40, 32), 4.0
# Radii along x, y and z as shares of the volume, and what each ellipsoid adds: scalp, skull, brain.
ELLIPSOIDS = (((0.46, 0.47, 0.46), 420), ((0.42, 0.43, 0.42), -300), ((0.38, 0.39, 0.38), 480))


def main(path: Path) -> None:
    rng = np.random.default_rng(0)
    place = np.stack(np.meshgrid(*(np.linspace(-0.5, 0.5, n) for n in SHAPE), indexing="ij"), -1)
    values = np.zeros(SHAPE)
    for radii, step in ELLIPSOIDS:
        distance = np.linalg.norm(place / radii, axis=-1)
        values += step / (1 + np.exp((distance - 1) * 40))
    folds = np.sin(place @ (19, 31, 23)) * np.cos(place @ (29, -17, 13))
    values += (values > 500) * (90 * folds + rng.normal(scale=4, size=SHAPE))
    affine = np.diag([VOXEL_MM] * 3 + [1.0])
    affine[:3, 3] = [-VOXEL_MM * (n - 1) / 2 for n in SHAPE]
    write_media(Media("volume", np.rint(values).astype("i2"), {"affine": affine.tolist()}), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("phantom.nii.gz"))
