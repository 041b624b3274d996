"""Makes ``coinpp_xr/coastline.npy`` out of Natural Earth's countries at 1:110 million.

The countries are in the public domain (naturalearthdata.com); ``naturalearth_lowres.shp`` stands in
the wheel of pyogrio, under ``pyogrio/tests/fixtures/naturalearth_lowres``. Coast is every side of a
country that no other country has, the edge of the world apart.

Usage: python examples/make_coastline.py naturalearth_lowres.shp
"""

import struct
import sys
from collections import defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "coinpp_xr/coastline.npy"
DEGREE = 100  # stored are hundredths of a degree, some 1 km
# No longitude: what stands between two lines.
GAP = (32767, 32767)

Point = tuple[int, int]


def rings(shapefile: bytes) -> list[list[Point]]:
    """The outlines of all polygons."""
    found, position = [], 100  # after the file's header
    while position < len(shapefile):
        record = position + 8
        position = record + 2 * struct.unpack_from(">i", shapefile, position + 4)[0]
        n_rings, n_points = struct.unpack_from("<2i", shapefile, record + 36)
        starts = np.frombuffer(shapefile, "<i4", n_rings, record + 44)
        points = np.frombuffer(shapefile, "<f8", 2 * n_points, record + 44 + 4 * n_rings)
        rounded = np.rint(DEGREE * points.reshape(-1, 2)).astype(int)
        found += [[(x, y) for x, y in part.tolist()] for part in np.split(rounded, starts[1:])]
    return found


def is_edge_of_the_world(a: Point, b: Point) -> bool:
    return a[1] == b[1] == -90 * DEGREE or abs(a[0]) == abs(b[0]) == 180 * DEGREE


def joined(sides: set[frozenset[Point]]) -> list[list[Point]]:
    """Lines of which every side is a part, ends before circles."""
    neighbours = defaultdict(set)
    for a, b in sides:
        neighbours[a].add(b)
        neighbours[b].add(a)
    lines = []
    for start in sorted(neighbours, key=lambda point: (len(neighbours[point]) != 1, point)):
        while neighbours[start]:
            line = [start]
            while neighbours[line[-1]]:
                end = min(neighbours[line[-1]])
                neighbours[line[-1]].remove(end)
                neighbours[end].remove(line[-1])
                line.append(end)
            lines.append(line)
    return lines


def main(path: Path) -> None:
    times_used = defaultdict(int)
    for ring in rings(path.read_bytes()):
        for a, b in pairwise(ring):
            if a != b and not is_edge_of_the_world(a, b):
                times_used[frozenset((a, b))] += 1
    lines = joined({side for side, times in times_used.items() if times == 1})
    np.save(TARGET, np.array([p for line in lines for p in (*line, GAP)][:-1], "<i2"))
    print(f"{len(lines)} lines, {sum(map(len, lines)):,} points, {TARGET.stat().st_size:,} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
