"""The command line: what a user types, what comes back, and with which exit code."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors import safe_open

from coinpp_xr import COINppCodec, __version__, config, load_model, model_files, models
from coinpp_xr.cli import main
from coinpp_xr.compressed_file import compress
from coinpp_xr.curves import training_curve
from coinpp_xr.data.media import Media, read_media, write_media
from coinpp_xr.model_files import cache_folder, shipped_models
from coinpp_xr.models import Model

COMMANDS = (
    ["--help"],
    ["train", "--help"],
    *(["models", *command, "--help"] for command in ([], ["list"], ["show"], ["fetch"])),
    ["models", "install", "--help"],
    *([command, "--help"] for command in ("compress", "decompress", "inspect")),
)
TINY = ["--latent-dim", "2", "--width", "16", "--depth", "2"]


@dataclass
class Result:
    code: int
    out: str
    err: str


Coinpp = Callable[..., Result]


@pytest.fixture
def coinpp(capsys: pytest.CaptureFixture[str]) -> Coinpp:
    """Runs the command line in this process."""

    def run(*arguments: Any) -> Result:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Result(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """An empty working folder and an empty cache; nothing loaded yet."""
    monkeypatch.setattr(models, "_loaded", models.Loaded())
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with config.set(cache=str(tmp_path / "cache"), model_url=None):
        yield


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread() -> Iterator[None]:
    """Threads that wait for each other would make tiny networks slow on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def archive() -> Path:
    """Twenty globes of 6 × 8 cells in a NetCDF file."""
    latitude, longitude = np.linspace(75, -75, 6), np.arange(0, 360, 45.0)
    rng = np.random.default_rng(0)
    wave = np.sin(np.deg2rad(longitude) + rng.uniform(0, 6, (20, 1, 1)))
    values = 270 + 20 * np.cos(np.deg2rad(latitude))[:, None] + 5 * wave
    ds = xr.Dataset(
        {"t2m": (("time", "latitude", "longitude"), values.astype("f4"), {"units": "K"})},
        coords={"latitude": latitude, "longitude": longitude},
    )
    path = Path("archive.nc")
    ds.to_netcdf(path, engine="netcdf4")
    return path


def failure(result: Result) -> str:
    """The one line on stderr of a command that did not work."""
    assert result.code == 1
    assert result.out == ""
    assert result.err.startswith("coinpp: ")
    assert len(result.err.splitlines()) == 1
    return result.err


# ---- help and typing errors ---------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_help_has_an_example(coinpp: Coinpp, command: list[str]) -> None:
    result = coinpp(*command)

    assert result.code == 0
    assert "Example" in result.out
    assert f"coinpp {' '.join(command[:-1])}".strip() in result.out.split("Example")[1]


def test_help_documents_the_exit_codes(coinpp: Coinpp) -> None:
    lines = coinpp("--help").out.splitlines()

    codes = lines[lines.index("  Exit codes:") + 1 :][:5]
    assert [line.split()[0] for line in codes] == ["0", "1", "2", "3", "130"]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from coinpp_xr.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in ('torch', 'zarr', 'dask', 'rich', 'matplotlib') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert out.stdout.splitlines()[-1] == "[]"


def test_version(coinpp: Coinpp) -> None:
    assert coinpp("--version").out == f"coinpp-xr {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("trian", "train"),
        ("train x.nc -o m.safetensors --latent-dimm 3", "--latent-dim"),
        ("train x.nc", "--output"),
        ("train -o m.safetensors", "SRC"),
        ("train x.nc -o m.nc", ".safetensors"),
        ("train x.nc -o m.safetensors --steps 0", "1"),
        ("train x.nc -o m.safetensors --preset tiny", "--list-presets"),
        ("train x.nc -o m.safetensors --preset small-16 --latent-dim 8", "not both"),
        ("models show", "NAME_OR_PATH"),
        ("compress", "FILE"),
        ("compress x.png --max-error 1 --target-bpp 1", "not --target-bpp and --max-error"),
        ("compress x.png --max-error much", "--max-error"),
    ],
)
def test_a_wrong_command_line_exits_with_2(coinpp: Coinpp, arguments: str, hint: str) -> None:
    result = coinpp(*arguments.split())

    assert result.code == 2
    assert hint in result.err
    assert "Traceback" not in result.err


# ---- train --------------------------------------------------------------------------------


def test_a_trained_model_can_be_used(coinpp: Coinpp, archive: Path) -> None:
    result = coinpp("train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20)

    assert result.code == 0, result.err
    assert "step 20 of 20" in result.err
    model = Model.from_file("mine.safetensors")
    assert (model.name, model.latent_dim, model.siren.width, model.units) == ("mine", 2, 16, "K")
    for part in (model.fingerprint, f"{model.network.parameter_count} parameters", "of the SIREN"):
        assert part in result.out
    assert 'COINppCodec(model="mine.safetensors", bits=8)' in result.out
    assert COINppCodec(model="mine.safetensors", bits=8).fingerprint == model.fingerprint


def test_the_summary_says_what_was_tried(coinpp: Coinpp, archive: Path) -> None:
    command = ["train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20]
    result = coinpp(*command)
    model = Model.from_file("mine.safetensors")

    tried = [line for line in result.out.splitlines() if line.startswith("tried")]
    assert len(tried) == len(model.card["candidates"]) >= 2
    assert "in a linear tail of degree 3" in result.out
    shown = json.loads(coinpp("models", "show", "mine.safetensors", "--json").out)
    assert (shown["latent_dim"], shown["tail_degree"]) == (2, 3)
    assert shown["parameters"] == model.network.parameter_count
    for label in model.card["candidates"]:
        assert label in coinpp("models", "show", "mine.safetensors").out


def test_the_tail_can_be_left_out(coinpp: Coinpp, archive: Path) -> None:
    result = coinpp("train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20, "--no-tail")

    assert "tail" not in result.out
    model = Model.from_file("mine.safetensors")
    assert model.tail is None
    shown = json.loads(coinpp("models", "show", "mine.safetensors", "--json").out)
    assert (shown["siren_latents"], shown["tail_degree"]) == (2, None)


def test_training_leaves_model_log_and_curve(coinpp: Coinpp, archive: Path) -> None:
    coinpp("train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20)

    files = {path.name for path in Path().iterdir()} - {archive.name}
    assert files == {"mine.safetensors", "mine.checkpoint.log.jsonl", "mine.curve.png"}
    assert Path("mine.curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_written_can_be_named(coinpp: Coinpp, archive: Path) -> None:
    coinpp(
        "train", archive, "-o", "new/mine.safetensors", *TINY, "--steps", 20, "--name", "t2m",
        "--checkpoint", "state.safetensors", "--curve", "plot.png", "--validation-items", 3,
        "--variable", "t2m", "--seed", 1, "--precision", "float32", "--device", "cpu",
    )  # fmt: skip

    model = Model.from_file("new/mine.safetensors")
    assert model.name == "t2m"
    assert model.card["validation_items"] == 3
    assert model.card["configuration"]["seed"] == 1
    assert model.card["data"] == "archive.nc"
    assert Path("state.safetensors").exists()
    assert Path("plot.png").exists()


def test_progress_is_a_bar_on_a_terminal(
    coinpp: Coinpp, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    result = coinpp("train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20)

    assert result.code == 0
    for part in ("step 20 of 20", "loss", "RMSE", " K,", "PSNR", "spikes 0", "left", "━"):
        assert part in result.err


def test_presets_can_be_listed(coinpp: Coinpp) -> None:
    out = coinpp("train", "--list-presets").out

    assert "small-16 " in out
    assert "paper-era5-16 " in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("absent.nc -o m.safetensors", "absent.nc"),
        ("archvie.nc -o m.safetensors", "did you mean archive.nc"),
        ("archive.nc -o m.safetensors --variable t3m", "t2m"),
        ("archive.nc -o m.safetensors --device cuda:9", "cuda:9"),
        ("archive.nc -o m.safetensors --precision float8", "float32"),
        ("archive.nc -o m.safetensors --validation-items 99", "validation_items"),
        ("archive.nc -o archive.nc/m.safetensors", "archive.nc"),
        ("archive.nc -o m.safetensors --name a/b", "one word"),
    ],
)
def test_what_cannot_be_trained_is_told_in_one_line(
    coinpp: Coinpp, archive: Path, arguments: str, hint: str
) -> None:
    result = coinpp("train", *arguments.split(), *TINY, "--steps", "20")

    *_, result.err = result.err.splitlines()  # what was read may have been told before
    assert hint in failure(result)
    assert not Path("m.safetensors").exists()


def test_without_torch_one_line_says_how_to_get_it(
    coinpp: Coinpp, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)

    assert "coinpp-xr[torch]" in failure(coinpp("train", archive, "-o", "m.safetensors"))


def test_training_that_ran_out_of_time_can_be_resumed(coinpp: Coinpp, archive: Path) -> None:
    command = ["train", archive, "-o", "mine.safetensors", *TINY, "--steps", 10**6]
    cut = coinpp(*command, "--max-minutes", 0.001)
    before = _steps_done("mine.checkpoint.safetensors")

    resumed = coinpp(*command, "--max-minutes", 0.001, "--resume")

    assert cut.code == resumed.code == 0
    assert "--resume" in cut.err
    assert Path("mine.safetensors").exists()
    assert _steps_done("mine.checkpoint.safetensors") > before > 0


def test_a_checkpoint_is_never_overwritten_unasked(coinpp: Coinpp, archive: Path) -> None:
    limits = ["--steps", 10**6, "--max-minutes", 0.001]
    command = ["train", archive, "-o", "mine.safetensors", *TINY, *limits]
    coinpp(*command)
    before = Path("mine.checkpoint.safetensors").read_bytes()

    assert "--resume" in failure(coinpp(*command))
    assert Path("mine.checkpoint.safetensors").read_bytes() == before


def test_resume_without_a_checkpoint_starts_anew(coinpp: Coinpp, archive: Path) -> None:
    command = ["train", archive, "-o", "mine.safetensors", *TINY, "--steps", 20]
    result = coinpp(*command, "--resume")

    assert result.code == 0
    assert "from the beginning" in result.err


def test_ctrl_c_keeps_the_checkpoint(coinpp: Coinpp, archive: Path) -> None:
    command = ["train", str(archive), "-o", "mine.safetensors", *TINY, "--steps", "15000"]
    checkpoint, log = Path("mine.checkpoint.safetensors"), Path("mine.checkpoint.log.jsonl")
    with subprocess.Popen(
        [sys.executable, "-m", "coinpp_xr.cli", *command],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        while process.poll() is None and not checkpoint.exists():
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        errors = process.communicate()[1].splitlines()

    assert process.returncode == 130, errors
    assert errors[-1].startswith("coinpp: ")
    assert str(checkpoint) in errors[-1]
    assert "--resume" in errors[-1]
    assert not Path("mine.safetensors").exists()
    assert json.loads(log.read_text().splitlines()[-1])["event"] == "interrupted"
    before = _steps_done(checkpoint)
    assert coinpp(*command, "--max-minutes", 0.001, "--resume").code == 0
    assert _steps_done(checkpoint) > before


def _steps_done(checkpoint: str | Path) -> int:
    with safe_open(checkpoint, framework="numpy") as file:
        return json.loads(file.metadata()["progress"])["step"]


def test_the_curve_marks_spikes_and_counts_repeated_steps_once(tmp_path: Path) -> None:
    def validation(step: int, loss: float) -> dict[str, Any]:
        figures = {"loss": loss, "validation_rmse": 100 * loss, "seconds": step / 10}
        return {"event": "validation", "step": step, **figures}

    records = [
        validation(100, 0.4), {"event": "spike", "step": 150, "loss": 9.0}, validation(200, 0.3),
        {"event": "rollback", "step": 200}, validation(300, 9.9), validation(300, 0.2),
    ]  # fmt: skip
    log = tmp_path / "run.log.jsonl"
    log.write_text("\n".join(map(json.dumps, records)) + '\n{"event": "valid')

    left, right = training_curve(log, "K").axes

    loss, spike = left.lines
    assert loss.get_xdata().tolist() == [10.0, 20.0, 30.0]
    assert loss.get_ydata().tolist() == [0.4, 0.3, 0.2]
    assert spike.get_xdata() == [15.0, 15.0]
    assert right.lines[0].get_ydata().tolist() == pytest.approx([40.0, 30.0, 20.0])
    assert "K" in right.get_ylabel()


# ---- compress, decompress, inspect --------------------------------------------------------


@pytest.fixture
def picture() -> Path:
    """A small colour image in a PNG file."""
    rows, columns, colours = np.indices((40, 60, 3))
    values = 128 + 90 * np.sin(rows / 9 + colours) * np.cos(columns / 7)
    write_media(Media("image", np.rint(values).astype("u1")), "picture.png")
    return Path("picture.png")


def test_a_picture_comes_back_within_the_bound(coinpp: Coinpp, picture: Path) -> None:
    there = coinpp("compress", picture, "--max-error", 3)
    back = coinpp("decompress", "picture.png.coinpp", "-o", "back.png")

    assert (there.code, there.err, back.code, back.err) == (0, "", 0, "")
    size = Path("picture.png.coinpp").stat().st_size
    assert f"{size:,} bytes" in there.out
    for part in (f"{7200 / size:.4g} times smaller", "bpp", "PSNR", "max error 3,", " s"):
        assert part in there.out
    error = read_media("back.png").values.astype(int) - read_media(picture).values
    assert np.abs(error).max() == 3


def test_the_default_rate_is_said(coinpp: Coinpp, picture: Path) -> None:
    assert coinpp("compress", picture).out.endswith("; --target-psnr 40 by default\n")


def test_sound_is_told_in_kbps(coinpp: Coinpp) -> None:
    samples = (9000 * np.sin(np.arange(8000) / 20) ** 3).astype("i2")
    write_media(Media("audio", samples, {"sample_rate": 8000}), "tone.wav")

    out = coinpp("compress", "tone.wav", "--kbps", 2).out

    told = float(out.split(" kbps")[0].split()[-1])
    assert told == pytest.approx(8 * Path("tone.wav.coinpp").stat().st_size / 1000, rel=1e-3)
    assert told <= 2


def test_the_error_told_is_in_the_unit_of_the_file(coinpp: Coinpp) -> None:
    values = (1000 * np.sin(np.indices((12, 12, 12)).sum(0) / 9)).astype("i2")
    write_media(Media("volume", values), "scan.nii")
    data = bytearray(Path("scan.nii").read_bytes())
    data[112:116] = np.float32(0.25).tobytes()  # scl_slope
    Path("scan.nii").write_bytes(data)

    out = coinpp("compress", "scan.nii", "--max-error", 5).out

    assert float(out.split("max error ")[1].split(",")[0]) == 5
    assert "bits per voxel" in out


def test_several_files_go_into_a_folder(coinpp: Coinpp, picture: Path) -> None:
    shutil.copy(picture, "other.png")
    Path("small").mkdir()

    result = coinpp("compress", picture, "other.png", "-o", "small")

    assert len(result.out.splitlines()) == 2
    assert {path.name for path in Path("small").iterdir()} == {
        "picture.png.coinpp", "other.png.coinpp",
    }  # fmt: skip


def test_an_array_is_guessed_and_can_be_told(coinpp: Coinpp) -> None:
    np.save("cube.npy", np.sin(np.indices((9, 20, 20)).sum(0) / 5))

    guessed = coinpp("compress", "cube.npy")
    told = coinpp("compress", "cube.npy", "--as", "image", "--force")

    assert "taken for volume" in guessed.err
    assert "bits per voxel" in guessed.out
    assert told.err == ""
    assert "bpp" in told.out


def test_a_file_is_written_in_another_format(coinpp: Coinpp, picture: Path) -> None:
    coinpp("compress", picture, "--max-error", 0.5)

    for name in ("picture.tif", "picture.npy"):
        assert coinpp("decompress", "picture.png.coinpp", "-o", name).code == 0
        assert (read_media(name).values == read_media(picture).values).all()


def test_the_original_name_is_used_beside_the_file(coinpp: Coinpp, picture: Path) -> None:
    Path("there").mkdir()
    coinpp("compress", picture, "-o", "there/p.coinpp")

    assert coinpp("decompress", "there/p.coinpp").code == 0
    assert Path("there/picture.png").exists()


def test_a_jpeg_comes_back_as_png(coinpp: Coinpp) -> None:
    imagecodecs = pytest.importorskip("imagecodecs")
    Path("photo.jpg").write_bytes(imagecodecs.jpeg_encode(np.full((16, 16, 3), 90, "u1")))
    coinpp("compress", "photo.jpg")

    result = coinpp("decompress", "photo.jpg.coinpp")

    assert "PNG" in result.err
    assert read_media("photo.png").values.shape == (16, 16, 3)


def test_what_was_left_out_is_told(coinpp: Coinpp, picture: Path) -> None:
    data = picture.read_bytes()
    text = b"tEXtTitle\0Waves"
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    picture.write_bytes(data[:33] + chunk + data[33:])
    coinpp("compress", picture)

    result = coinpp("decompress", "picture.png.coinpp", "-o", "back.png")

    assert result.err == "back.png: text left out\n"


def test_inspect_shows_what_is_inside(coinpp: Coinpp, picture: Path) -> None:
    coinpp("compress", picture, "--max-error", 3)

    out = coinpp("inspect", "picture.png.coinpp").out

    size = Path("picture.png.coinpp").stat().st_size
    for part in ("picture.png", "uint8, 40 x 60 x 3", "max_error=3.0", f"{size:,}: ", "PNG"):
        assert part in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("compress absent.png", "absent.png"),
        ("compress pictrue.png", "did you mean picture.png"),
        ("compress .", "folder"),
        ("compress archive.nc", "ds.coinpp.to_zarr"),
        ("compress store.zarr", "ds.coinpp.to_zarr"),
        ("compress done.coinpp", "already"),
        ("compress notes.txt", "it starts with"),
        ("compress empty.png", "empty"),
        ("compress picture.png -o done.coinpp", "--force"),
        ("compress picture.png -o out.zip", ".coinpp"),
        ("compress picture.png -o none/out.coinpp", "no such folder: none"),
        ("compress picture.png -o notes.txt/out.coinpp", "notes.txt"),
        ("compress picture.png picture.png -o none", "need a folder"),
        ("compress picture.png picture.png -o store.zarr", "same name"),
        ("compress picture.png --target-psnr -3", "target_psnr"),
        ("compress picture.png --max-error-relative 2", "below 1"),
        ("compress picture.png --kbps 3", "kbps"),
        ("compress picture.png --as audio", "image"),
        ("compress picture.png --as film", "'film'"),
        ("decompress absent.coinpp", "absent.coinpp"),
        ("decompress doen.coinpp", "did you mean done.coinpp"),
        ("decompress .", "Is a directory"),
        ("decompress picture.png", "not a .coinpp file"),
        ("decompress done.coinpp", "picture.png exists"),
        ("decompress done.coinpp -o notes.txt", "notes.txt exists"),
        ("decompress done.coinpp -o out.txt", "unknown suffix"),
        ("decompress done.coinpp -o out.jpg", "JPEG"),
        ("decompress done.coinpp -o out.wav", "WAV"),
        ("decompress done.coinpp -o none/out.png", "no such folder: none"),
        ("decompress short.coinpp -o out.png", "short.coinpp"),
        ("decompress flipped.coinpp -o out.png", "checksum"),
        ("inspect flipped.coinpp", "checksum"),
    ],
)
def test_what_cannot_be_done_with_a_file_is_told_in_one_line(
    coinpp: Coinpp, archive: Path, picture: Path, arguments: str, hint: str
) -> None:
    coinpp("compress", picture, "-o", "done.coinpp")
    data = Path("done.coinpp").read_bytes()
    Path("short.coinpp").write_bytes(data[:-9])
    Path("flipped.coinpp").write_bytes(data[:30] + bytes([data[30] ^ 8]) + data[31:])
    Path("notes.txt").write_text("nothing")
    Path("empty.png").touch()
    Path("store.zarr").mkdir()
    Path("store.zarr/zarr.json").write_text("{}")
    before = set(Path().rglob("*"))

    assert hint in failure(coinpp(*arguments.split()))
    assert set(Path().rglob("*")) == before
    assert Path("done.coinpp").read_bytes() == data


@pytest.mark.parametrize(
    "command", ["compress picture.png --force", "decompress done.coinpp -o p.npy"]
)
def test_a_full_disk_leaves_everything_as_it_was(
    coinpp: Coinpp, picture: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    coinpp("compress", picture)
    coinpp("compress", picture, "-o", "done.coinpp")
    before = {path.name: path.read_bytes() for path in Path().iterdir()}

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    assert "No space left" in failure(coinpp(*command.split()))
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize("name", ["../evil.png", "/tmp/evil.png", "..", "", "a\x1b[31m.png"])
def test_a_file_never_chooses_a_name_elsewhere(coinpp: Coinpp, picture: Path, name: str) -> None:
    made = compress(read_media(picture), name, "image", {"max_error": 3})
    Path("p.coinpp").write_bytes(made.pack())

    assert "-o" in failure(coinpp("decompress", "p.coinpp"))
    assert coinpp("decompress", "p.coinpp", "-o", "fine.png").code == 0


# ---- models -------------------------------------------------------------------------------


@pytest.fixture
def mine(tiny_model: Model) -> Path:
    """A model file, named mine."""
    return replace(tiny_model, name="mine").save("mine.safetensors")


def test_list_shows_shipped_cached_and_registered_models(
    coinpp: Coinpp, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coinpp("models", "install", mine)
    monkeypatch.setattr(model_files, "registry", lambda: {"far.safetensors": "0" * 64})

    header, *lines = coinpp("models", "list").out.splitlines()

    assert header.split() == ["NAME", "LATENTS", "PARAMETERS", "BYTES", "UNITS", "WHERE"]
    rows = {line.split()[0]: line.split()[1:] for line in lines}
    shipped = next(iter(shipped_models()))
    assert rows[shipped][-1] == "shipped"
    size = f"{mine.stat().st_size:,}"
    model = Model.from_file(mine)
    assert rows["mine"] == ["3", str(model.siren.parameter_count), size, "K", "cached"]
    assert rows["far"][-4:] == ["coinpp", "models", "fetch", "far"]


def test_list_survives_a_damaged_file(coinpp: Coinpp) -> None:
    cache_folder().mkdir()
    (cache_folder() / "broken.safetensors").write_bytes(b"nothing")

    result = coinpp("models", "list")

    assert result.code == 0
    assert "damaged" in result.out


def test_show_prints_the_card(coinpp: Coinpp, mine: Path) -> None:
    lines = [line.split(maxsplit=1) for line in coinpp("models", "show", mine).out.splitlines()]

    assert ["name", "mine"] in lines
    assert ["fingerprint", Model.from_file(mine).fingerprint] in lines
    assert ["units", "K"] in lines


def test_show_knows_shipped_models_by_name(coinpp: Coinpp) -> None:
    name = next(iter(shipped_models()))

    assert load_model(name).fingerprint in coinpp("models", "show", name).out


def test_show_prints_json(coinpp: Coinpp, mine: Path) -> None:
    shown = json.loads(coinpp("models", "show", mine, "--json").out)

    assert (shown["name"], shown["latent_dim"], shown["card"]) == ("mine", 3, {"units": "K"})


def test_show_prints_no_control_characters(coinpp: Coinpp, tiny_model: Model) -> None:
    path = replace(tiny_model, card={"data": "a\x1b[31m\r\nb"}).save("m.safetensors")

    assert r"a\x1b[31m\r\nb" in coinpp("models", "show", path).out


@pytest.mark.parametrize("command", ["show", "fetch"])
def test_an_unknown_name_is_one_line(coinpp: Coinpp, command: str) -> None:
    assert "'none'" in failure(coinpp("models", command, "none"))


def test_a_file_that_is_no_model_is_one_line(coinpp: Coinpp, archive: Path) -> None:
    for command in ("show", "install"):
        assert "archive.nc" in failure(coinpp("models", command, archive))


def test_fetch_puts_a_model_into_the_cache(
    coinpp: Coinpp, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = mine.read_bytes()
    monkeypatch.setattr(
        model_files, "registry", lambda: {mine.name: hashlib.sha256(content).hexdigest()}
    )
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    class OneFile(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), OneFile) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with config.set(model_url=f"http://127.0.0.1:{server.server_port}"):
            result = coinpp("models", "fetch", "mine")
        thread.join()

    assert result.code == 0, result.err
    assert Path(result.out.strip()).read_bytes() == content
    assert coinpp("models", "show", "mine").code == 0


def test_fetch_needs_an_address(coinpp: Coinpp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "registry", lambda: {"far.safetensors": "0" * 64})

    assert "COINPP_XR_MODEL_URL" in failure(coinpp("models", "fetch", "far"))


def test_fetch_leaves_shipped_models_where_they_are(coinpp: Coinpp) -> None:
    name = next(iter(shipped_models()))

    result = coinpp("models", "fetch", name)

    assert result.code == 0
    assert not cache_folder().exists()


def test_an_installed_model_is_found_by_its_name(coinpp: Coinpp, mine: Path) -> None:
    renamed = mine.rename("copy.safetensors")

    result = coinpp("models", "install", renamed)

    assert result.code == 0
    assert load_model("mine").fingerprint == Model.from_file(renamed).fingerprint


def test_installing_twice_is_fine(coinpp: Coinpp, mine: Path) -> None:
    coinpp("models", "install", mine)

    assert coinpp("models", "install", mine).code == 0


def test_install_replaces_another_model_only_when_forced(
    coinpp: Coinpp, mine: Path, tiny_model: Model
) -> None:
    other = replace(tiny_model, name="mine", offset=1.0).save("other.safetensors")
    coinpp("models", "install", mine)

    assert "--force" in failure(coinpp("models", "install", other))
    assert load_model("mine").offset == tiny_model.offset

    assert coinpp("models", "install", other, "--force").code == 0
    assert load_model("mine").offset == 1.0


def test_install_refuses_the_name_of_a_shipped_model(coinpp: Coinpp, tiny_model: Model) -> None:
    name = next(iter(shipped_models()))
    path = replace(tiny_model, name=name).save("mine.safetensors")

    assert "--force" in failure(coinpp("models", "install", path))

    assert coinpp("models", "install", path, "--force").code == 0
    assert load_model(name, tiny_model.fingerprint).offset == tiny_model.offset


def test_installing_a_missing_file_is_one_line(coinpp: Coinpp) -> None:
    assert "absent.safetensors" in failure(coinpp("models", "install", "absent.safetensors"))
