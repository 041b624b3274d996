"""Other codecs and this one, on the same chunk at the same error."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from coinpp_xr import cli, comparison, peers, progress
from coinpp_xr.peers import Chunk, Goal, NotInstalledError

pytest.importorskip("imagecodecs")
pytest.importorskip("pcodec")
LATITUDE = np.linspace(80, -80, 17)
FAST = [name for name in peers.PEERS if name not in ("EBCC", "AVIF", "HEVC-intra")]


def fields(n: int = 4) -> np.ndarray:
    rng = np.random.default_rng(1)
    walk = rng.standard_normal((n, 17, 30)).cumsum(0).cumsum(1).cumsum(2)
    return (280 + walk).astype(np.float32)


def array(values: np.ndarray) -> xr.DataArray:
    coords = {"lat": LATITUDE, "lon": np.arange(values.shape[2]) * 12.0}
    return xr.DataArray(
        values, dims=("time", "lat", "lon"), coords=coords, name="t", attrs={"units": "K"}
    )


@pytest.mark.parametrize("name", list(peers.PEERS))
@pytest.mark.parametrize("goal", [Goal(max_error=0.3), Goal(target_rmse=0.3)])
def test_peers_keep_the_goal_or_say_why_not(name, goal) -> None:
    chunk = Chunk.of(fields(2), LATITUDE)
    try:
        found = peers.smallest(name, chunk, goal)
    except NotInstalledError as error:
        pytest.skip(f"{name}: {error}")
    if found is None:
        assert name == "EBCC"  # refuses fields of less than 32 cells a side
        return
    result, decoded = found
    assert (result.max_error if goal.max_error else result.rmse) <= 0.3
    assert chunk.errors(decoded)["max_error"] == result.max_error
    assert 0 < result.nbytes < chunk.values.nbytes


def test_a_single_globe_and_missing_cells() -> None:
    values = fields(1)
    values[:, 3:6, 4:9] = np.nan
    table = comparison.compare(array(values), max_error=0.3, names=["sz3", "sperr", "zfp", "blosc"])
    assert all(row.max_error <= 0.3 for row in table.rows)
    assert {row.codec for row in table.rows} >= {"COIN++", "COIN++ fast", "SZ3", "SPERR"}


@pytest.mark.parametrize("dtype", [">f4", "f8", "f2"])
def test_other_types(dtype) -> None:
    values = (fields(2) - 280).astype(dtype)
    table = comparison.compare(array(values), max_error=0.5, names=["sz3", "pcodec"])
    assert all(row.max_error <= 0.5 for row in table.rows)


def test_fields_without_structure_do_not_break_peers() -> None:
    for values in (np.full((2, 17, 30), 7.0), np.where(fields(2) > 280, 1e30, 0.0)):
        table = comparison.compare(array(values), max_error=0.1, names=FAST)
        assert len(table.rows) == len(FAST) + 2
        assert all(row.nbytes or row.note for row in table.rows)


def test_rows_are_sorted_and_the_best_peer_is_known(era5) -> None:
    table = era5.isel(time=slice(6, 12)).coinpp.compare(max_error=0.5, peers=["SZ3", "zfp"])
    sizes = [row.nbytes for row in table.rows]
    assert sizes == sorted(sizes)
    assert table.rows[0].codec == "COIN++"
    assert table.best_peer.codec == "SZ3"
    assert table.seen == 0
    assert "°C" in str(table)
    assert table.maps(item=5)._repr_png_()[:4] == b"\x89PNG"
    assert table.plot()._repr_png_()[:4] == b"\x89PNG"
    assert repr(table) == str(table)
    with_seen = era5.t2m.isel(time=slice(4, 8)).coinpp.compare(target_rmse=1, peers=[])
    assert with_seen.seen == 2
    assert "2 of the globes are in the model's reference" in " ".join(str(with_seen).split())


def test_what_is_not_installed_or_fails_is_a_row(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "pcodec", None)

    def breaks(search: object) -> None:
        raise OSError("no such device")

    monkeypatch.setitem(peers.PEERS, "ZFP", breaks)
    table = comparison.compare(array(fields(2)), max_error=0.3, names=["PCodec", "ZFP", "SZ3"])
    assert table["PCodec"].note == "not installed: pip install pcodec"
    assert table["ZFP"].note == "failed: no such device"
    assert table.rows[-1].nbytes is None
    assert "not installed" in str(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give max_error or target_rmse"),
        ({"max_error": 1, "target_rmse": 1}, "give max_error or target_rmse"),
        ({"max_error": 1, "names": ["sz4"]}, "no codec 'sz4' to compare with; there are: SZ3"),
    ],
)
def test_bad_arguments(arguments, message) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        comparison.compare(array(fields(1)), **arguments)


@pytest.mark.parametrize("curves", [False, True])
def test_the_command_writes_table_page_and_plot(tmp_path, capsys, curves) -> None:
    source = tmp_path / "fields.nc"
    array(fields(3)).to_dataset().to_netcdf(source)
    names = [tmp_path / f"out{end}" for end in (".json", ".html", ".png")]
    options = [option for name in names for option in ("--save", str(name))]
    options += ["--curves"] if curves else []
    with pytest.raises(SystemExit) as done:
        cli.main(["compare", str(source), "--max-error", "0.5", "--peers", "sz3,pcodec", *options])
    assert not done.value.code
    assert "SZ3" in capsys.readouterr().out
    table = json.loads(names[0].read_text())
    assert table["goal"] == {"max_error": 0.5, "target_rmse": None}
    assert {row["codec"] for row in table["rows"]} >= {"COIN++", "SZ3", "PCodec"}
    assert set(table["curves"]) == ({"COIN++", "SZ3", "PCodec"} if curves else set())
    page = names[1].read_text()
    assert "<script" not in page
    assert "data:image/png;base64" in page
    assert names[2].read_bytes()[:4] == b"\x89PNG"


def test_the_table_fits_into_80_columns_and_cuts_no_number() -> None:
    table = comparison.compare(array(fields(2)), max_error=0.3, names=["sz3", "bitround+zstd"])
    assert max(map(len, str(table).splitlines())) <= 80
    words = set(str(table).split())
    for row in table.rows:
        assert f"{row.nbytes:,}" in words
    assert "BitRound" in words


# ---- samples, time and Ctrl-C -------------------------------------------------------------------


def large() -> xr.DataArray:
    """Six globes of 17 × 30 as if that were many."""
    return array(fields(6))


@pytest.fixture
def few_values(monkeypatch) -> None:
    monkeypatch.setattr(comparison, "_SAMPLE_VALUES", 2 * 17 * 30)
    monkeypatch.setattr(comparison, "_FEWEST_GLOBES", 2)


def test_of_a_large_field_a_sample_is_compared(few_values) -> None:
    table = comparison.compare(large(), max_error=0.3, names=["sz3"])
    assert table.shape == (2, 17, 30)
    assert table.sample_of == (6, 17, 30)
    assert "2 × 17 × 30 (a sample of 6 × 17 × 30)" in " ".join(str(table).split())
    assert table.to_dict()["sample_of"] == (6, 17, 30)
    assert table.maps(["SZ3"])._repr_png_()[:4] == b"\x89PNG"
    whole = comparison.compare(large(), max_error=0.3, names=["sz3"], whole=True)
    assert (whole.shape, whole.sample_of) == ((6, 17, 30), ())
    assert "sample" not in str(whole)


def test_of_large_globes_the_middle_is_taken(few_values, monkeypatch) -> None:
    monkeypatch.setattr(comparison, "_SAMPLE_VALUES", 2 * 8 * 15)
    table = comparison.compare(large(), max_error=0.3, names=["sz3"])
    assert table.shape == (2, 8, 14)
    expected = large().isel(time=slice(2), lat=slice(4, 12), lon=slice(8, 22))
    np.testing.assert_array_equal(table.original, expected)


def test_the_first_globes_are_a_sample_of_more() -> None:
    table = comparison.compare(large(), max_error=0.3, names=[], chunk=3)
    assert (table.shape, table.sample_of) == ((3, 17, 30), (6, 17, 30))


def stop(search: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("curves", [False, True])
def test_what_was_done_before_ctrl_c_is_kept(monkeypatch, curves) -> None:
    monkeypatch.setitem(peers.PEERS, "ZFP", stop)
    names = ["SZ3", "ZFP", "PCodec"]
    table = comparison.compare(array(fields(2)), max_error=0.3, names=names, curves=curves)
    assert table["SZ3"].nbytes > 0
    assert table["COIN++ fast"].nbytes > 0
    assert [table[name].note for name in ("ZFP", "PCodec")] == ["interrupted"] * 2
    assert "interrupted" in str(table)
    assert set(table.curves) == ({"COIN++", "SZ3"} if curves else set())
    table.plot()._repr_png_()


def test_a_table_of_nothing_but_interruptions(monkeypatch) -> None:
    monkeypatch.setattr(comparison, "_own", stop)
    monkeypatch.setattr(comparison, "partial", lambda call, *_: lambda: call(None))
    table = comparison.compare(array(fields(2)), max_error=0.3, names=["SZ3"])
    assert {row.note for row in table.rows} == {"interrupted"}
    assert "interrupted" in str(table)
    assert table.plot()._repr_png_()[:4] == b"\x89PNG"


def test_the_command_ends_with_130_after_ctrl_c(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setitem(peers.PEERS, "ZFP", stop)
    array(fields(2)).to_dataset().to_netcdf(tmp_path / "fields.nc")
    with pytest.raises(SystemExit) as done:
        cli.main(
            ["compare", str(tmp_path / "fields.nc"), "--max-error", "0.5", "--peers", "sz3,zfp"]
        )
    assert done.value.code == 130
    assert "SZ3" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_how_long_and_which(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    comparison.compare(array(fields(2)), max_error=0.3, names=["SZ3", "PCodec"])
    said = terminal.getvalue()
    assert said.startswith("comparing 4 codecs takes about 1 second; Ctrl-C keeps what is done")
    assert "PCodec" in said


def test_where_nobody_looks_nothing_is_told(capsys) -> None:
    comparison.compare(array(fields(2)), max_error=0.3, names=["SZ3"])
    assert capsys.readouterr() == ("", "")


def test_every_peer_has_a_time() -> None:
    assert set(peers.SECONDS) == {*peers.PEERS, *peers.SLOW_PEERS}


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "1 second"), (40.2, "40 seconds"), (150, "2 minutes"), (5500, "2 hours")],
)
def test_times_in_words(seconds, words) -> None:
    assert progress.in_words(seconds) == words


def test_the_picture_of_one_goal_has_a_bar_and_a_point_for_every_codec() -> None:
    table = comparison.compare(array(fields(2)), max_error=0.3, names=["SZ3", "PCodec"])
    sizes, speeds = table.plot().axes
    assert [bar.get_width() for bar in sizes.patches] == [r.nbytes / 1000 for r in table.rows][::-1]
    (points,) = speeds.lines
    assert points.get_xdata().tolist() == [r.encode_mb_per_s for r in table.rows][::-1]
    assert max(map(len, sizes.figure.get_suptitle().splitlines())) <= 90
    names = [label.get_text() for label in sizes.get_yticklabels()]
    assert names == [row.codec for row in table.rows][::-1]


def test_another_ending_is_refused_before_the_work() -> None:
    with pytest.raises(SystemExit):
        cli.main(["compare", "none.nc", "--max-error", "1", "--save", "out.txt"])


def test_the_package_does_not_load_peers() -> None:
    script = "import sys, coinpp_xr; print({'imagecodecs', 'pcodec', 'numba'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
