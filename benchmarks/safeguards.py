"""What guarantees on derived quantities cost: bytes of data and correction, and of tighter bounds.

Writes ``results/safeguards.json``. The data is real: ERA5 snapshots at 1 degree, and a field of the
weather model GFS at 0.25 degrees, each as one chunk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr
from common import climate, data_file, open_variable, write_result
from numcodecs_safeguards import SafeguardedCodec

from coinpp_xr import COINppCodec

sys.path.append(str(Path(__file__).parent.parent / "tests"))

from safeguard_cases import bound, stencil

Values = npt.NDArray[np.floating[Any]]
FREEZING = float(np.float32(273.15))
# Tibetan Plateau: south, north, west, east.
BOX = (27, 40, 70, 105)


@dataclass
class Case:
    """A guarantee on one array, whose last two axes are latitude and longitude.

    Parameters
    ----------
    wanted : str
        In words.
    data : str
    values : array
    bound : float
        The bound of the data below the correction, which the corrected values keep, too.
    safeguards : list of dict
    fails : callable
        (original, decoded) → for which quantities the guarantee does not hold.
    tighter : float, optional
        The largest bound on all values from which the guarantee follows.
    time_axis : int
    constants : dict
        What safeguards refer to by name.
    """

    wanted: str
    data: str
    values: Values
    bound: float
    safeguards: list[dict[str, Any]]
    fails: Callable[[Values, Values], npt.NDArray[np.bool_]]
    tighter: float | None = None
    time_axis: int = 0
    constants: dict[str, Any] | None = None


def beyond(quantity: Callable[[Values], Values], error: float) -> Any:
    def fails(original: Values, decoded: Values) -> npt.NDArray[np.bool_]:
        a, b = (quantity(values.astype(np.float64)) for values in (original, decoded))
        return np.abs(a - b) > error

    return fails


def speed(wind: Values) -> Values:
    return np.sqrt(wind[0] * wind[0] + wind[1] * wind[1])


def eastward(values: Values) -> Values:
    return (np.roll(values, -1, -1) - np.roll(values, 1, -1)) / 2


def cases() -> list[Case]:
    with xr.open_dataset(climate("era5_snapshots_1deg.nc"), engine="netcdf4") as ds:
        era5 = ds.load()
    gfs = open_variable(data_file("native/gfs_t2m_0p25.nc")).astype(np.float32)
    t2m = era5.t2m.values
    snapshots, field = "ERA5, 12 × 181 × 360", "GFS, 721 × 1440"
    south, north, west, east = BOX
    lat, lon = gfs.latitude.values[:, None], gfs.longitude.values % 360
    inside = (south <= lat) & (lat <= north) & (west <= lon) & (lon <= east)
    allowed = np.where(inside, 0.05, 0.5)
    return [
        Case(
            "wind speed within 0.5 m/s", f"u10 and v10, {snapshots}",
            np.stack([era5.u10.values, era5.v10.values]), 0.5,
            [stencil("sqrt(X[0] * X[0] + X[1] * X[1])", 0, 0, "valid", 0.5)],
            beyond(speed, 0.5), tighter=0.5 / np.sqrt(2), time_axis=1,
        ),
        Case(
            "eastward gradient within 0.3 K per column", f"t2m, {snapshots}", t2m, 0.5,
            [stencil("(X[2] - X[0]) / 2", 2, 1, "wrap", 0.3)], beyond(eastward, 0.3), tighter=0.3,
        ),
        Case(
            "0.05 K on the Tibetan Plateau, 0.5 K elsewhere", f"t2m, {field}", gfs.values, 0.5,
            [{"kind": "select", "selector": "region", "safeguards": [bound(0.5), bound(0.05)]}],
            lambda a, b: np.abs(a.astype(np.float64) - b) > allowed, tighter=0.05,
            constants={"region": inside.astype(np.uint8)},
        ),
        Case(
            "the same cells freeze", f"t2m, {snapshots}", t2m, 0.5,
            [{"kind": "sign", "offset": FREEZING}],
            lambda a, b: np.sign(a - FREEZING) != np.sign(b - FREEZING),
        ),
        Case(
            "the same cells freeze", f"t2m, {field}", gfs.values, 0.5,
            [{"kind": "sign", "offset": FREEZING}],
            lambda a, b: np.sign(a - FREEZING) != np.sign(b - FREEZING),
        ),
        Case(
            "what rises in time rises, what falls falls", f"t2m, {snapshots}", t2m, 0.5,
            [stencil("sign(X[1] - X[0])", 0, 0, "valid", 0)],
            lambda a, b: np.sign(np.diff(a, axis=0)) != np.sign(np.diff(b, axis=0)),
        ),
        Case(
            "u10 and v10 keep their signs", f"u10 and v10, {snapshots}",
            np.stack([era5.u10.values, era5.v10.values]), 0.5, [{"kind": "sign"}],
            lambda a, b: np.sign(a) != np.sign(b), time_axis=1,
        ),
    ]  # fmt: skip


def measured(case: Case) -> dict[str, Any]:
    def ours(error: float) -> COINppCodec:
        return COINppCodec(max_error=error, time_axis=case.time_axis)

    def nbytes(codec: Any, keeps: float, *, guaranteed: bool) -> tuple[int, float]:
        """Bytes, and the share of quantities for which the guarantee does not hold."""
        payload = codec.encode(case.values)
        decoded = codec.decode(payload)
        failing = case.fails(case.values, decoded)
        assert np.abs(decoded.astype(np.float64) - case.values).max() <= keeps
        assert not (guaranteed and failing.any())
        return len(payload), float(failing.mean())

    def safeguarded(*, iterative: bool) -> int:
        codec = SafeguardedCodec(
            codec=ours(case.bound), safeguards=[*case.safeguards, bound(case.bound)],
            fixed_constants=case.constants or {}, compute={"unstable_iterative": iterative},
        )  # fmt: skip
        return nbytes(codec, case.bound, guaranteed=True)[0]

    plain, failing = nbytes(ours(case.bound), case.bound, guaranteed=False)
    row: dict[str, Any] = {
        "wanted": case.wanted,
        "data": case.data,
        "raw_bytes": case.values.nbytes,
        "max_error": case.bound,
        "bytes": plain,
        "share_failing": failing,
        "bytes_safeguarded": safeguarded(iterative=False),
        "bytes_safeguarded_iterative": safeguarded(iterative=True),
    }
    if case.tighter is not None:
        row["tighter"] = case.tighter
        row["bytes_tighter"] = nbytes(ours(case.tighter), case.tighter, guaranteed=True)[0]
    print(row, flush=True)
    return row


def main() -> None:
    write_result("safeguards", {"cases": [measured(case) for case in cases()]}, show=False)


if __name__ == "__main__":
    main()
