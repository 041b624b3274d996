"""What notebooks show: well-formed, escaped, complete in itself, readable in any theme."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import zlib
from base64 import b64decode
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import xarray as xr

import coinpp_xr
from coinpp_xr import progress
from coinpp_xr.coordinates import SphereGrid
from coinpp_xr.notebook_html import block, field_png, table

VOID = {"img", "br", "input", "hr", "meta", "use", "path"}
EVIL = "<script>alert(1)</script>\"'&"


class Elements(HTMLParser):
    """Tags, attributes and text, if every tag is closed where it should be."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.fixture
def ds(tiny_globes) -> xr.Dataset:
    grid = next(SphereGrid.usual_layouts(10, 20))
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), tiny_globes, {"units": "K"})},
        coords={"time": np.arange(5), "lat": grid.latitude, "lon": grid.longitude},
    )


@pytest.fixture
def result(ds, tiny_model) -> Any:
    return ds.coinpp.compress(8, model=tiny_model)


@pytest.fixture(params=["result", "part", "report", "model", "shipped", "models"])
def html(request, result, ds, tiny_model) -> str:
    """Of everything that notebooks show."""
    shown = {
        "result": lambda: result,
        "part": lambda: result.isel(time=0),
        "report": lambda: result.report,
        "model": lambda: tiny_model,
        "shipped": lambda: coinpp_xr.load_model("t2m-46x90"),
        "models": lambda: ds.coinpp.models(),
    }
    return str(shown[request.param]()._repr_html_())


# ---- for all of it ------------------------------------------------------------------------------


def test_every_element_is_closed_and_none_runs(html) -> None:
    elements = Elements(html)
    tags = {tag for tag, _ in elements.found}
    assert not tags & {"script", "iframe", "link", "object", "embed"}
    assert not any(name.startswith("on") for _, attrs in elements.found for name in attrs)


def test_nothing_is_fetched(html) -> None:
    addresses = [
        address or ""
        for _, attrs in Elements(html).found
        for name, address in attrs.items()
        if name in {"src", "href", "xlink:href", "srcset", "data", "action"}
    ]
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in addresses)
    assert not re.search(r"https?:", html.replace("http://www.w3.org/", ""))
    assert "@import" not in html
    assert "url(" not in html


def ours(html: str) -> str:
    return re.search(r"<style>(\n\.coinpp-report.*?)</style>", html, re.DOTALL).group(1)


def test_colours_follow_the_page_in_light_and_dark_themes(html) -> None:
    style = ours(html)
    colours = set(re.findall(r"(?<![-\w])(?:color|background): ([^;]+);", style))
    text = "var(--jp-content-font-color0, var(--xr-font-color0, inherit))"
    assert colours == {text, "inherit", "transparent"}
    # Lines are of a grey that shows on any ground where the page has no colour for them.
    fixed = style.replace("rgba(128, 128, 128, 0.4)", "")
    assert not re.search(r"#[0-9a-f]{3}|rgb|hsl|: *(white|black)", fixed)


def test_nothing_is_wider_than_a_narrow_page(html) -> None:
    style = ours(html)
    assert not re.search(r"(?<!max-)(?<!min-)width: \d+px", style)
    assert all(int(n) <= 360 for n in re.findall(r"max-width: (\d+)px", style))
    assert re.search(r"\.coinpp-wide {[^}]*overflow-x: auto", style)
    own = html.split("xr-wrap")[0]
    assert own.count("<table>") == own.count('<div class="coinpp-wide"><table>')


# ---- results ------------------------------------------------------------------------------------


def test_a_result_begins_with_its_three_numbers(result) -> None:
    values = re.findall(r'coinpp-value">([^<]*)</span><span[^>]*>([^<]*)<', result._repr_html_())
    report = result.report["t"]
    assert values == [
        (f"{result.ratio:.3g}×", "smaller than float32"),
        (f"{report.rmse:.3g} °C", "RMSE"),
        (f"{report.max_error:.3g} °C", "largest error"),
    ]


def test_a_result_shows_size_table_and_reconstruction(result) -> None:
    text = Elements(result._repr_html_()).text
    assert f"{result.nbytes:,} bytes" in text
    assert "plain RMSE" in text
    assert "xarray.Dataset" in text


def test_the_table_is_folded_unless_it_tells_of_other_variables(result, ds, tiny_model) -> None:
    assert "<details><summary>Table" in result._repr_html_()
    two = ds.assign(u=ds.t).coinpp.compress(8, model=tiny_model)._repr_html_()
    assert "<details open><summary>Table" in two
    assert "RMSE of t" in two


def test_names_units_and_attributes_are_escaped(ds, tiny_model) -> None:
    evil = ds.rename(t=EVIL, time=f"time{EVIL}")
    evil[EVIL].attrs.update(units=EVIL, long_name=EVIL)
    evil = evil.assign_attrs(title=EVIL)
    result = evil.coinpp.compress(8, model=tiny_model)
    elements = Elements(result._repr_html_())
    assert "script" not in {tag for tag, _ in elements.found}
    assert EVIL in elements.text
    assert f"time{EVIL}=" in next(attrs["alt"] for tag, attrs in elements.found if tag == "img")
    assert "script" not in {tag for tag, _ in Elements(result.report._repr_html_()).found}
    listed = Elements(evil[EVIL].coinpp.models()._repr_html_())
    assert "script" not in {tag for tag, _ in listed.found}
    assert EVIL in listed.text


def picture(html: str) -> np.ndarray:
    """The map as RGBA."""
    from PIL import Image

    encoded = re.search(r'src="data:image/png;base64,([^"]+)"', html).group(1)
    assert len(encoded) < 60_000
    return np.asarray(Image.open(io.BytesIO(b64decode(encoded))).convert("RGBA")).astype(int)


def test_the_map_shows_the_residual_of_the_worst_globe_north_up(ds, tiny_model) -> None:
    ds.t[3, :2] += 20  # more than three latents can follow
    result = ds.sortby("lat").coinpp.compress(8, model=tiny_model)
    html = result._repr_html_()
    assert "the worst of 5 globes (time=3)" in html
    shades = picture(html)
    blueness = shades[..., 2] - shades[..., 0]
    assert blueness[:10].mean() > 90
    assert abs(blueness[90:]).mean() < abs(blueness[:10]).mean() / 2


def test_a_result_of_dask_data_or_of_a_closed_file_has_its_map_without_reading_again(
    ds, tiny_model, tmp_path
) -> None:
    ds.to_netcdf(tmp_path / "t.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "t.nc", engine="netcdf4", chunks={"time": 2}) as opened:
        result = opened.coinpp.compress(8, model=tiny_model)
    picture(result._repr_html_())


def test_without_a_valid_cell_there_is_no_map_but_dashes(ds, tiny_model) -> None:
    html = (ds * np.nan).coinpp.compress(8, model=tiny_model)._repr_html_()
    assert "<img" not in html
    assert '<span class="coinpp-value">–' in html


def test_the_html_needs_no_matplotlib() -> None:
    script = (
        "import sys, numpy as np, xarray as xr, coinpp_xr\n"
        "sys.modules['matplotlib'] = None\n"
        "lat, lon = np.linspace(80, -80, 9), np.arange(0, 360, 40.)\n"
        "a = np.random.default_rng(1).normal(size=(2, 9, 9)).astype('f4')\n"
        "a = xr.DataArray(a, {'lat': lat, 'lon': lon}, ('time', 'lat', 'lon'), 'a')\n"
        "html = a.coinpp.compress(model='none', target_rmse=.2)._repr_html_()\n"
        "assert '<img' in html\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


# ---- pictures -----------------------------------------------------------------------------------


def test_a_picture_of_noise_on_a_fine_grid_is_small() -> None:
    noise = np.random.default_rng(2).standard_cauchy((721, 1440))
    data = field_png(noise, np.linspace(90, -90, 721), np.arange(1440) / 4)
    assert len(data) < 45_000


@pytest.mark.parametrize("flip", [slice(None), slice(None, None, -1)], ids=["as is", "flipped"])
def test_pictures_do_not_depend_on_the_order_of_coordinates(flip) -> None:
    lat, lon = np.linspace(80, -80, 9), np.arange(0, 360, 40.0)
    values = np.arange(81.0).reshape(9, 9) - 40
    straight = field_png(values, lat, lon)
    assert field_png(values[flip, flip], lat[flip], lon[flip]) == straight


def test_missing_cells_are_transparent_and_zero_is_white() -> None:
    from PIL import Image

    values = np.array([[np.nan, 0.0], [-1.0, 1.0]])
    data = field_png(values, np.array([10.0, 0.0]), np.array([0.0, 10.0]))
    shades = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA")).astype(int)
    corners = shades[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners[0, 3] == 0
    assert corners[1].tolist() == [247, 247, 247, 255]
    assert corners[2, 2] > corners[2, 0]
    assert corners[3, 0] > corners[3, 2]


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1)])
def test_a_line_of_cells_makes_a_picture(shape) -> None:
    data = field_png(np.ones(shape), np.arange(shape[0]) * 1.0, np.arange(shape[1]) * 1.0)
    length = int.from_bytes(data[33:37])
    assert data[37:41] == b"PLTE"
    assert zlib.crc32(data[37 : 41 + length]) == int.from_bytes(data[41 + length : 45 + length])


def test_a_table_without_titles_has_no_head() -> None:
    assert "<thead>" not in table([("", "left")], [["a"]])
    assert "<thead>" in table([("b", "left")], [["a"]])
    assert Elements(block(table([("", "left")], [["<"]]))).text == "<"


# ---- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["t2m-46x90", "Near-surface air temperature", "46 x 90", "800", "1,540,948", "0.1364 K",
     "1.0931 K (8 bits)", "Apache-2.0", "28df250741ea4e87"],
)  # fmt: skip
def test_a_model_shows(text) -> None:
    assert text in Elements(coinpp_xr.load_model("t2m-46x90")._repr_html_()).text


@pytest.mark.parametrize(
    "card",
    [{}, {"description": EVIL, "units": EVIL, "licence": EVIL, "grid": [EVIL]},
     {"validation_rmse": EVIL}, {"validation_rmse": {EVIL: EVIL}}],
    ids=["empty", "texts", "scores are text", "scores"],
)  # fmt: skip
def test_a_card_may_hold_anything(tiny_model, card) -> None:
    elements = Elements(replace(tiny_model, card=card)._repr_html_())
    assert "script" not in {tag for tag, _ in elements.found}


def test_a_licence_that_is_not_known_is_not_made_up(tiny_model) -> None:
    for model in (tiny_model, replace(tiny_model, name="t2m-46x90")):
        assert "licencenot stated in its card" in Elements(model._repr_html_()).text


# ---- progress -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def patience(monkeypatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.0)


def compress(ds: xr.Dataset, model: Any) -> None:
    ds.chunk(time=1).coinpp.compress(8, model=model)


def test_a_terminal_shows_how_far_it_is(ds, tiny_model, monkeypatch, patience) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    compress(ds, tiny_model)
    assert "compressing" in terminal.getvalue()


def test_what_is_done_in_a_moment_shows_no_bar(ds, tiny_model, monkeypatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    compress(ds, tiny_model)
    assert terminal.getvalue() == ""


def test_where_nobody_looks_nothing_is_shown(ds, tiny_model, capsys, patience) -> None:
    compress(ds, tiny_model)
    assert capsys.readouterr() == ("", "")


def test_a_notebook_shows_how_far_it_is(ds, tiny_model, monkeypatch, patience) -> None:
    display = pytest.importorskip("IPython.display")
    seen = []
    monkeypatch.setattr(progress, "in_notebook", lambda: True)
    monkeypatch.setattr(display.ProgressBar, "display", lambda bar: seen.append(bar.total))
    monkeypatch.setattr(display.ProgressBar, "update", lambda bar: seen.append(bar.progress))
    compress(ds, tiny_model)
    assert seen == [1000, 200, 400, 600, 800, 1000]


def test_a_bar_goes_when_the_work_fails(monkeypatch, patience) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = progress.Progress("compressing", 3)

    def fail() -> None:
        with shown:
            shown.step(1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not shown._bar.live.is_started
