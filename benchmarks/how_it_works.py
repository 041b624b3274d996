"""The figures of docs/how-it-works.md.

    COINPP_DATA=... python benchmarks/how_it_works.py       # trains a small SIREN for two minutes

Real ERA5 is from the last six globes of examples/era5_t2m_46x90.nc: the shipped model's reference
holds the first six.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
import xarray as xr

matplotlib.use("agg")

from common import RESULTS, open_variable, weighted_rmse
from matplotlib import pyplot as plt
from matplotlib.patches import FancyBboxPatch

from coinpp_xr import COINppCodec, load_model
from coinpp_xr.bits_map import plot_bits
from coinpp_xr.coding.pyramid.expert_units import ACTIVATION, LARGEST_ACTIVATION, WEIGHT
from coinpp_xr.coding.pyramid.experts import shipped
from coinpp_xr.coding.pyramid.levels import PASSES
from coinpp_xr.coding.pyramid.observing import observe
from coinpp_xr.coordinates import SphereGrid, area_weights
from coinpp_xr.fields import Fields
from coinpp_xr.fitting import Origin, gauss_newton
from coinpp_xr.lattice import Bound
from coinpp_xr.maps import draw_map
from coinpp_xr.reproduction.datasets import PAPER_RANGE
from coinpp_xr.reproduction.studies import STUDIES, material
from coinpp_xr.reproduction.training_runs import Bench, Task

ROOT = RESULTS.parent.parent
IMAGES = ROOT / "docs" / "images" / "how"
CELSIUS = 273.15
BOUND = 0.5
# Colour-blind safe (Wong 2011).
BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"


def globe_map(axis: Any, grid: SphereGrid, values: Any, title: str, **colours: Any) -> None:
    draw_map(axis, grid.longitude, grid.latitude, values, **colours)
    axis.set(xlabel="", xticks=[], yticks=[])
    axis.set_title(title, fontsize=9)


def save(figure: Any, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    figure.savefig(IMAGES / f"{name}.png", dpi=120, bbox_inches="tight")
    plt.close(figure)


# ---- the way of the data -------------------------------------------------------------------------


def way() -> None:
    """Boxes from a chunk to a payload; every control takes the part of its colour."""
    figure, axis = plt.subplots(figsize=(5, 5.2))
    axis.set(xlim=(0, 60), ylim=(0, 62))
    axis.axis("off")

    def box(x: float, y: float, text: str, colour: str = "black") -> None:
        axis.add_patch(
            FancyBboxPatch((x, y), 16, 8, boxstyle="round,pad=0.4", fc="white", ec=colour, lw=1.6)
        )
        axis.text(x + 8, y + 4, text, ha="center", va="center", fontsize=8, color=colour)

    def arrow(start: tuple[float, float], end: tuple[float, float], colour: str = "black") -> None:
        axis.annotate(
            "", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4}
        )

    box(22, 53, "chunk of globes")
    box(22, 40, "set aside NaN,\n±Inf, fill values")
    arrow((30, 52.4), (30, 48.8))
    rows = (
        (1, "bits", BLUE, "fit latents of\nthe network", "quantize\nto b bits"),
        (22, "target_rmse", GREEN, "transform in\ntime and space", "quantize with\nlargest step"),
        (43, "max_error", RED, "round to lattice,\npredict cells", "code by mixed\npredictions"),
    )
    for x, control, colour, first, second in rows:
        box(x, 24, first, colour)
        box(x, 12, second, colour)
        arrow((30, 39.4), (x + 8, 32.8), colour)
        arrow((x + 8, 23.4), (x + 8, 20.8), colour)
        arrow((x + 8, 11.4), (30, 8.8), colour)
        axis.text(x + 9.2, 22.1, control, va="center", color=colour, family="monospace", fontsize=7)
    arrow((17.6, 28), (21.4, 28), GREEN)
    arrow((38.6, 28), (42.4, 28), RED)
    box(22, 0.5, "decode, check,\npack with CRC")
    save(figure, "way")


# ---- a SIREN and its latents ---------------------------------------------------------------------


def siren() -> None:
    """A SIREN meta-learned on simulated weather: mean state, and one latent at a time."""
    study = STUDIES["weather"]
    config = study.config(8, quick=True, **study.matrix_changes(quick=True))
    network = Bench(ROOT / "out" / "how", None, True).networks([Task("weather", config)])[0]
    data = material("weather", None, True)
    points, weights = data.points, np.full((1, len(data.points)), 1 / len(data.points), np.float32)
    train = data.training.train
    learned = gauss_newton(
        network, points, train[::20], weights=weights, chord_steps=3, own_steps=0
    )
    mean = learned.mean(0)
    # Principal axes, each as long as the standard deviation along it.
    _, sizes, axes_of = np.linalg.svd(learned - mean, full_matrices=False)
    step = axes_of * (sizes / np.sqrt(len(learned)))[:, None]
    shape, (low, scale) = data.patch, PAPER_RANGE
    grid = SphereGrid(np.linspace(90, -90, shape[0]), np.arange(shape[1]) * 360 / shape[1])

    def field(latents: Any) -> Any:
        values = network(points, latents[None].astype(np.float32))[0, :, 0]
        return values.reshape(shape) * scale + low

    figure, axes = plt.subplots(3, 2, figsize=(5.6, 4.9))
    globe_map(axes[0, 0], grid, field(mean) - CELSIUS, "mean latents", vmin=-45, vmax=35)
    for axis, number in zip(axes.flat[1:], (0, 1, 2, 4, 7), strict=True):
        change = field(mean + step[number]) - field(mean)
        most = float(np.quantile(np.abs(change), 0.99))
        title = f"direction {number + 1}: ±{most:.1f} K"
        globe_map(axis, grid, change, title, cmap="RdBu_r", vmin=-most, vmax=most)
    figure.tight_layout()
    save(figure, "siren")


def latents() -> None:
    """The shipped model on a globe of ERA5: more and more latents."""
    model = load_model("t2m-46x90")
    array = open_variable(ROOT / "examples" / "era5_t2m_46x90.nc")[-1]
    grid = SphereGrid(array["lat"].values, array["lon"].values)
    weights = area_weights(grid.latitude, len(grid.longitude))
    original = array.values.astype(np.float64)
    features = ((original.reshape(1, -1, 1) - model.offset) / model.scale).astype(np.float32)
    figure, axes = plt.subplots(4, 2, figsize=(5.6, 6.4))
    globe_map(axes[0, 0], grid, original - CELSIUS, "ERA5", vmin=-45, vmax=35)
    axes[0, 1].axis("off")
    for row, count in enumerate((16, 128, 800), 1):
        network = model.network.truncated(count)
        weight = weights.reshape(1, -1).astype(np.float32)
        origin = Origin.of(network, grid.points, weight)
        found = (features - origin.output).reshape(1, -1) @ origin.step.T
        values = network(grid.points, found)[0, :, 0].reshape(original.shape)
        values = values * model.scale + model.offset
        rmse = weighted_rmse(values[None], original[None], weights)
        globe_map(axes[row, 0], grid, values - CELSIUS, f"{count} latents", vmin=-45, vmax=35)
        globe_map(
            axes[row, 1], grid, values - original, f"error, RMSE {rmse:.1f} K",
            cmap="RdBu_r", vmin=-10, vmax=10,
        )  # fmt: skip
    figure.tight_layout()
    save(figure, "latents")


# ---- a bound -------------------------------------------------------------------------------------


def bound() -> None:
    """One circle of latitude under a bound, and its errors under both controls."""
    array = open_variable(ROOT / "examples" / "era5_t2m_46x90.nc")[6:]
    values, latitude = array.values.astype(np.float64), array["lat"].values
    bounded = COINppCodec("t2m-46x90", max_error=BOUND)
    aimed = COINppCodec("t2m-46x90", target_rmse=BOUND)
    decoded = {codec: codec.decode(codec.encode(array.values)) for codec in (bounded, aimed)}
    row = int(np.abs(latitude - 46).argmin())
    figure, (left, right) = plt.subplots(2, 1, figsize=(5.6, 5.6))
    circle = values[0, row] - CELSIUS
    longitude = array["lon"].values
    left.fill_between(longitude, circle - BOUND, circle + BOUND, color=GREY, alpha=0.5, lw=0)
    for codec, colour, label in ((bounded, RED, f"max_error={BOUND}"),
                                 (aimed, GREEN, f"target_rmse={BOUND}")):  # fmt: skip
        left.plot(longitude, decoded[codec][0, row] - CELSIUS, ".-", ms=3, lw=0.8, color=colour,
                  label=label)  # fmt: skip
        error = (decoded[codec] - values).ravel()
        right.hist(error, np.linspace(-2.5, 2.5, 101), histtype="step", color=colour, label=label)
    left.set(xlabel="longitude, °E", ylabel=f"°C at {latitude[row]:g} °N", xlim=(60, 160))
    inside = circle[(longitude >= 60) & (longitude <= 160)]
    low, high = inside.min(), inside.max()
    left.set_ylim(low - 2, high + 2)
    right.set(xlabel="error, K", ylabel="cells")
    left.legend(fontsize=8)
    figure.tight_layout()
    save(figure, "bound")


# ---- the pyramid ---------------------------------------------------------------------------------

# Parities of the sources of neighbours: the coarser grid, and the points of earlier passes.
PARITIES = ((0, 0), (1, 1), (0, 1))


def surroundings() -> None:
    """What is decoded around a point of each pass, and where in fields that are referred to."""
    figure, axes = plt.subplots(1, 4, figsize=(9.4, 2.7))
    names = ("centres", "midpoints along rows", "midpoints along columns")
    for axis, name, which in zip(axes, names, PASSES, strict=False):
        found = []
        for source, down, right in which.neighbours:
            row, column = PARITIES[source]
            found.append((2 * down + row - which.row, 2 * right + column - which.column))
        rows, columns = np.array(found).T
        groups = ((slice(4), BLUE, "nearest"), (slice(4, None), GREY, "further"))
        for part, colour, label in groups:
            axis.scatter(columns[part], -rows[part], 40, colour, label=label)
        axis.set_title(name, fontsize=9)
    here = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])
    axes[3].scatter(*here.T, 40, GREEN)
    axes[3].set_title("a field referred to", fontsize=9)
    for axis in axes:
        axis.scatter([0], [0], 90, RED, marker="x")
        axis.set(xlim=(-4, 4), ylim=(-4, 4), xticks=range(-3, 4), yticks=range(-3, 4))
        axis.set(xticklabels=[], yticklabels=[], aspect="equal")
        axis.grid(lw=0.4)
    figure.tight_layout()
    save(figure, "surroundings")


def opinion() -> None:
    """How far off values are from where the network expects them, by how far it thinks they are."""
    with xr.open_dataset(ROOT / "examples" / "gfs_t2m_0p25_asia.nc") as dataset:
        array = dataset["t2m"].load()
    grid = SphereGrid(array.latitude.values, array.longitude.values)
    fields = Fields.of_sequence(array.values[None], grid)
    seen = observe(fields, Bound(0.25), 100_000)
    network = shipped()["small"].alone
    layers = ((network.first, network.first_bias), (network.second, network.second_bias))
    x = seen["inputs"].astype(np.float64)
    for weights, bias in layers:
        x = x @ weights.T + bias
        x = np.clip(np.where(x < 0, x / 8, x) / WEIGHT, -LARGEST_ACTIVATION, LARGEST_ACTIVATION)
    centre, scale = (x @ network.last.T + network.last_bias).T / (WEIGHT * ACTIVATION)
    size = seen["sizes"] / 64
    off = np.abs(seen["offsets"] / 64 - size * centre)
    scale = size * 2.0**scale / 2
    least_squares = np.abs(seen["offsets"] / 64)
    figure, axis = plt.subplots(figsize=(4.6, 3.6))
    for expected, errors, colour, label in (
        (size / 2, least_squares, GREY, "half the expected size"), (scale, off, BLUE, "the network")
    ):  # fmt: skip
        edges = np.quantile(expected, np.linspace(0.02, 0.98, 13))
        parts = [(expected >= a) & (expected < b) for a, b in pairwise(edges)]
        middle = [np.median(expected[part]) for part in parts]
        axis.loglog(
            middle, [errors[p].mean() for p in parts], "o-", color=colour, label=label, ms=4
        )
    line = np.array([0.02, 5.0])
    axis.loglog(line, 2 * np.log(2) * line, ":", color="black", lw=1, label="as a logistic's")
    axis.set(xlabel="scale that was expected, steps", ylabel="mean error, steps")
    axis.legend(fontsize=8)
    figure.tight_layout()
    save(figure, "opinion")


def bits() -> None:
    """Where the bits of a bound go."""
    with xr.open_dataset(ROOT / "examples" / "gfs_t2m_0p25_asia.nc") as dataset:
        figure = plot_bits(dataset["t2m"].load(), Bound(0.25))
    figure.set_size_inches(6.4, 3.6)
    save(figure, "bits")


def main() -> None:
    bits()
    opinion()
    surroundings()
    way()
    bound()
    latents()
    siren()


if __name__ == "__main__":
    main()
