"""Models that others made: files, models in stores and servers of them are refused or harmless."""

from __future__ import annotations

import lzma
import socket
import socketserver
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from bound_cases import golden_model, golden_patch_model
from refusals import refusal

from coinpp_xr import (
    COINppArrayCodec,
    COINppCodec,
    CompressionWarning,
    ImagePatchCodec,
    ModelNotFoundError,
    config,
    load_model,
    model_files,
    models,
)
from coinpp_xr.codecs import named_model
from coinpp_xr.compact import pack_text, unpack_text
from coinpp_xr.model import Model
from coinpp_xr.model_files import fetch_model
from coinpp_xr.model_schema import check_network
from coinpp_xr.stores import codec_of

sys.path.append(str(Path(__file__).parent.parent / "fuzz"))

from models import (
    FILE,
    MOST_BYTES,
    PACKED,
    file_of,
    judge,
    mutate,
    packed_of,
    parts_of,
    with_index,
    with_index_text,
)

SHIPPED = "t2m-46x90"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a new process, with an empty cache and no address to download from."""
    monkeypatch.setattr(models, "_loaded", models.Loaded())
    monkeypatch.setattr(named_model, "_told", set())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with config.set(cache=str(tmp_path / "cache"), model_url=None):
        yield


# ---- what is no model ---------------------------------------------------------------------------

Parts = tuple[dict[str, Any], dict[str, Any]]


def globe(**definition: Any) -> Parts:
    """A model of globes with another definition; None stands for an entry that is missing."""
    before, tensors = parts_of(golden_model())
    changed = before | definition
    return {key: value for key, value in changed.items() if value is not None}, tensors


def patch(**definition: Any) -> Parts:
    before, tensors = parts_of(golden_patch_model())
    changed = before | definition
    return {key: value for key, value in changed.items() if value is not None}, tensors


def with_arrays(parts: Parts, **arrays: Any) -> Parts:
    """Other arrays; names have ``__`` for a dot, functions make a new array of the old one."""
    definition, tensors = parts
    for name, array in arrays.items():
        name = name.replace("__", ".")
        tensors[name] = array(tensors[name]) if callable(array) else array
        if tensors[name] is None:
            del tensors[name]
    return definition, tensors


def filled(value: float, at: int = 0) -> Callable[[np.ndarray], np.ndarray]:
    def fill(array: np.ndarray) -> np.ndarray:
        changed = array.copy()
        changed.reshape(-1)[at] = value
        return changed

    return fill


def bomb() -> np.ndarray:
    """A prior of half a kilobyte that holds megabytes."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
    packed = lzma.compress(bytes(4 << 20), format=lzma.FORMAT_RAW, filters=filters)
    return np.frombuffer(packed, np.uint8)


# Of both forms.
CONTENTS: dict[str, Callable[[], Parts]] = {
    "depth of a billion": lambda: globe(depth=10**9),
    "depth beyond floats": lambda: globe(depth=10**400),
    "depth that is text": lambda: globe(depth="2"),
    "no depth": lambda: globe(depth=None),
    "no layers": lambda: globe(depth=0),
    "another format": lambda: globe(format="coinpp-xr model 99"),
    "another domain": lambda: globe(domain="box"),
    "scale of zero": lambda: globe(scale=0.0),
    "scale of NaN": lambda: globe(scale=float("nan")),
    "scale that is subnormal": lambda: globe(scale=5e-324),
    "offset beyond floats": lambda: globe(offset=-(10**400)),
    "offset that is true": lambda: globe(offset=True),
    "endless frequency": lambda: globe(omega0=1e300),
    "a name that is a path": lambda: globe(name="../../.profile"),
    "a name with control characters": lambda: globe(name="x\x1b[2J"),
    "a NaN among weights": lambda: with_arrays(globe(), weight__1=filled(np.nan)),
    "an infinite weight": lambda: with_arrays(globe(), bias__0=filled(np.inf, -1)),
    "weights that overflow": lambda: with_arrays(globe(), weight__0=filled(1e38)),
    "latents without spread": lambda: with_arrays(globe(), latent_std=filled(0.0)),
    "a NaN among means": lambda: with_arrays(globe(), latent_mean=filled(np.nan)),
    "a NaN among steps": lambda: with_arrays(globe(), tail__steps=filled(np.nan)),
    "layers that do not fit": lambda: with_arrays(globe(), weight__1=lambda w: w[:, 1:]),
    "a bias too long": lambda: with_arrays(globe(), bias__0=lambda b: np.repeat(b, 2)),
    "weights of no axes": lambda: with_arrays(globe(), weight__0=np.array(1.0, np.float32)),
    "weights of double precision": lambda: with_arrays(globe(), weight__0=lambda w: w.astype("f8")),
    "whole numbers for weights": lambda: with_arrays(globe(), weight__0=lambda w: w.astype("i2")),
    "too wide": lambda: with_arrays(
        globe(depth=1), weight__0=np.zeros((4096, 3), "f4"), bias__0=np.zeros(4096, "f4"),
        weight__1=np.zeros((1, 4096), "f4"), bias__1=np.zeros(1, "f4"),
        weight__2=lambda _: None, bias__2=lambda _: None, shift_map=np.zeros((4096, 2), "f4"),
    ),
    "no biases": lambda: with_arrays(globe(), bias__0=lambda _: None),
    "an array of no model": lambda: with_arrays(globe(), surprise=np.zeros(3, "f4")),
    "more coded latents than latents": lambda: with_arrays(
        globe(), latent_mean=np.zeros(99), latent_std=np.ones(99),
        histogram=np.ones((99, 512), "u4"),
    ),
    "a histogram of other cells": lambda: with_arrays(globe(), histogram=lambda h: h[:, :100]),
    "a spectrum of other latents": lambda: with_arrays(globe(), spectrum=lambda s: s[:, 1:]),
    "a tail between two degrees": lambda: with_arrays(
        globe(), tail__symbols=lambda s: np.ascontiguousarray(s[:, 1:])
    ),
    "a tail without steps": lambda: with_arrays(globe(), tail__steps=lambda _: None),
    "a reference of one time": lambda: with_arrays(globe(), reference__numbers=lambda n: n[:1]),
    "a reference of another grid": lambda: with_arrays(
        globe(), reference__latitude=lambda x: x[1:]
    ),
    "a globe in a box": lambda: globe(box=[[4, 4], -1.0, 1.0]),
    "patches without a box": lambda: patch(box=None),
    "a box of too many cells": lambda: patch(box=[[2**31, 2**31], -1.0, 1.0]),
    "a box without extent": lambda: patch(box=[patch()[0]["box"][0], 1.0, 1.0]),
    "a box of more axes": lambda: patch(box=[[*patch()[0]["box"][0], 1], -1.0, 1.0]),
    "no prior": lambda: with_arrays(patch(), prior=np.zeros(9, np.uint8)),
    "a prior that is a bomb": lambda: with_arrays(patch(), prior=bomb()),
    "layers against blocking that do not follow": lambda: with_arrays(
        patch(), deblocking__kernel__0=lambda k: k[1:], deblocking__bias__0=lambda b: b[1:]
    ),
    "kernels of even extent": lambda: with_arrays(
        patch(), deblocking__kernel__0=lambda k: k[..., :2]
    ),
}  # fmt: skip


def entry(name: str, **changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda index: index[name].update(changes)


FILES: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "an index of exabytes": lambda: (2**62).to_bytes(8, "little") + bytes(100),
    "an index of brackets": lambda: with_index_text(plain(), b"[" * 100_000),
    "an index of objects": lambda: with_index_text(plain(), b'{"a":' * 20_000),
    "an index too long": lambda: with_index_text(plain(), b" " * 2**20),
    "no description": lambda: with_index(plain(), lambda index: index.pop("__metadata__")),
    "a description of brackets": lambda: with_index(
        plain(), lambda index: index["__metadata__"].update(coinpp_xr="[" * 100_000)
    ),
    "an array of exabytes": lambda: with_index(plain(), entry("weight.0", shape=[2**30, 2**30])),
    "an array below nothing": lambda: with_index(plain(), entry("weight.0", shape=[-1, -24])),
    "an array elsewhere": lambda: with_index(
        plain(), entry("weight.0", data_offsets=[2**40, 2**40 + 96])
    ),
    "an array of an unknown type": lambda: with_index(plain(), entry("weight.0", dtype="F8_E4M3")),
    "a tail of 122 GiB": lambda: file_of(*globe(), functions=2**34),
    "a tail longer than it is": lambda: file_of(*globe(), functions=4),
    "another fingerprint": lambda: file_of(*globe(), fingerprint="0" * 16),
    "a card that is a list": lambda: file_of(*globe(card=[])),
    "a unit with control characters": lambda: file_of(*globe(card={"units": "\x1b[2J"})),
    "a deep card": lambda: file_of(*globe(card={"a": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]})),
}


def plain() -> bytes:
    return file_of(*globe())


TEXTS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "a size beyond its end": lambda: packed_of(*globe(), size=2**31),
    "a head of brackets": lambda: packed_of(*globe(), text=b"[" * 100_000),
    "no head": lambda: packed_of(*globe(), text=bytes(4 << 20)),
    "arrays of V0": lambda: packed_of(*globe(), declared={"weight.0": ["V0", 8, 3]}),
    "arrays of objects": lambda: packed_of(*globe(), declared={"weight.0": ["O", 8, 3]}),
    "an array of exabytes": lambda: packed_of(
        *globe(), declared={"weight.0": ["<f4", 2**31, 2**31]}
    ),
    "an array of no shape": lambda: packed_of(*globe(), declared={"weight.0": 3}),
    "an array of 6 GiB": lambda: packed_of(*globe(), declared={"shift_map": ["<f4", 16, 10**8]}),
    "a tail of 1 GiB": lambda: packed_of(*globe(), tail=[16384, 16384]),
    "a tail of one axis": lambda: packed_of(*globe(), tail=[3]),
    "a tail of 17 bits": lambda: packed_of(
        *with_arrays(globe(), tail__symbols=lambda s: s.astype(np.int32) + 2**16)
    ),
    "fewer bytes than declared": lambda: packed_of(*globe(), planes=lambda p: p[:-1]),
    "zeros behind": lambda: packed_of(*globe(), planes=lambda p: p + bytes(4 << 20)),
    "a unit with control characters": lambda: packed_of(*globe(units="\x1b[2J")),
    "no unit": lambda: packed_of(*globe(units=None)),
}


@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_model_is_refused_at_once() -> None:
    """In one line, within 64 MB and two seconds: judge() measures it."""
    data = {f"file: {name}": FILE + make() for name, make in FILES.items()}
    data |= {f"file: {name}": FILE + file_of(*make()) for name, make in CONTENTS.items()}
    data |= {f"packed: {name}": PACKED + make() for name, make in TEXTS.items()}
    data |= {f"packed: {name}": PACKED + packed_of(*make()) for name, make in CONTENTS.items()}
    assert len(data) > 100

    outcomes = {name: outcome(content) for name, content in data.items()}

    assert {name: found for name, found in outcomes.items() if found != "refused"} == {}


def outcome(content: bytes) -> str:
    try:
        return judge(content)
    except AssertionError as error:
        return str(error)


def test_the_same_parts_unchanged_are_models() -> None:
    for parts in (globe(), patch()):
        assert judge(FILE + file_of(*parts)) == judge(PACKED + packed_of(*parts)) == "model"


def test_a_few_hostile_models_find_nothing() -> None:
    rng = np.random.default_rng(5)
    outcomes = {outcome(mutate(rng)) for _ in range(60)}
    assert outcomes <= {"refused", "model"}


def test_a_file_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # takes no space
    assert "at most" in refusal(lambda: load_model(path))


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ((4096, 4, 16), "width"),
        ((64, 99, 16), "depth"),
        ((64, 4, 9999), "latents"),
        ((1024, 9, 16), "bytes"),
    ],
)
def test_a_network_that_is_too_large_is_not_trained(sizes: tuple[int, ...], named: str) -> None:
    assert named in refusal(lambda: check_network(*sizes))


def test_a_text_too_long_is_not_decoded() -> None:
    text = "0" * 50_000_000
    tracemalloc.start()
    assert "characters" in refusal(lambda: unpack_text(text))
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()


def test_a_model_that_no_file_could_hold_is_not_loaded() -> None:
    """What has diverged in training should not be found out by the readers of a store."""
    model = golden_model()
    broken = replace(model, latent_mean=np.full_like(model.latent_mean, np.nan))
    assert "finite" in refusal(lambda: load_model(broken))


# ---- what a store brings along ------------------------------------------------------------------


@pytest.fixture
def shadow() -> Model:
    """A model that has the name of a shipped one."""
    return replace(golden_model(), name=SHIPPED)


@pytest.fixture
def globes() -> xr.Dataset:
    rng = np.random.default_rng(0)
    values = 250 + rng.standard_normal((4, 10, 20)).cumsum(0).cumsum(1).cumsum(2)
    coords = {"lat": np.linspace(90, -90, 10), "lon": np.arange(20) * 18.0}
    return xr.Dataset({"t": (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})}, coords)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_store_never_changes_what_is_written_next(
    shadow: Model, globes: xr.Dataset, tmp_path: Path, zarr_format: int
) -> None:
    kind = COINppCodec if zarr_format == 2 else COINppArrayCodec
    own = kind(shadow, target_rmse=0.5, embed_model=True)
    key = "compressor" if zarr_format == 2 else "serializer"
    stranger = tmp_path / "stranger.zarr"
    form = {"zarr_format": zarr_format, "consolidated": False}
    globes.to_zarr(stranger, encoding={"t": {key: own}}, **form)
    models._loaded = models.Loaded()  # as in another process

    opened = xr.open_zarr(stranger, consolidated=False).load()
    assert float(abs(opened.t - globes.t).max()) < 5
    expected = Model.from_file(model_files.shipped_models()[SHIPPED]).fingerprint
    assert COINppCodec(target_rmse=0.5).fingerprint == expected
    assert COINppCodec(SHIPPED, target_rmse=0.5).fingerprint == expected
    assert load_model(SHIPPED).fingerprint == expected != own.fingerprint
    # The store is read as before, by the same name.
    again = codec_of(zarr.open_group(stranger, mode="r")["t"])
    assert again.own_model().fingerprint == own.fingerprint
    assert load_model(SHIPPED, own.fingerprint).fingerprint == own.fingerprint
    # Written on with what was opened, the model goes along.
    opened.to_zarr(tmp_path / "copy.zarr", **form)
    assert codec_of(zarr.open_group(tmp_path / "copy.zarr", mode="r")["t"]) == again


def test_models_of_stores_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_KEPT_BYTES", 3 * sum(
        tensor.nbytes for tensor in golden_model().tensors.values()
    ))  # fmt: skip
    configurations = []
    for offset in range(8):
        model = replace(golden_model(), name="other", offset=float(offset))
        configurations.append(COINppCodec(model, target_rmse=1, embed_model=True).get_config())
    models._loaded = models.Loaded()

    codecs = [COINppCodec.from_config(configuration) for configuration in configurations]

    assert len(models._loaded.others) <= 3
    assert [codec.own_model().offset for codec in codecs] == list(range(8))


@pytest.mark.parametrize("kind", [COINppCodec, COINppArrayCodec, ImagePatchCodec])
@pytest.mark.parametrize(
    "change",
    [
        {"model": "{file}"},
        {"model": "{file}", "fingerprint": None},
        {"model": "file://{file}"},
        {"model": "https://example.org/x.safetensors"},
        {"model": "../x"},
        {"model": "x.safetensors", "fingerprint": None},
        {"model": ["{file}"]},
        {"model": 3},
        {"fingerprint": "{file}"},
        {"fingerprint": "0" * 15},
        {"fingerprint": "ABCDEF0123456789"},
        {"fingerprint": 16},
    ],
)
def test_a_configuration_names_a_model_and_touches_no_file(
    kind: Any, change: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = golden_model() if kind is not ImagePatchCodec else golden_patch_model()
    file = model.save(tmp_path / "file.safetensors")
    configuration = kind(model=file, target_rmse=1.0).get_config()
    for name, value in change.items():
        text = value.format(file=file) if isinstance(value, str) else value
        configuration[name] = [str(file)] if isinstance(value, list) else text
    configuration = {name: value for name, value in configuration.items() if value is not None}
    monkeypatch.setattr(Model, "from_file", lambda path: pytest.fail(f"opens {path}"))

    assert "a model's" in refusal(lambda: kind.from_config(configuration))
    named = {"name": kind.codec_id, "configuration": configuration}
    assert "a model's" in refusal(lambda: kind.from_dict(named))
    assert "a model's" in refusal(lambda: kind.__new__(kind).__setstate__(configuration))


def test_what_is_embedded_must_have_its_fingerprint() -> None:
    configuration = COINppCodec(golden_model(), target_rmse=1, embed_model=True).get_config()
    other = pack_text(replace(golden_model(), offset=1.0))

    refusal(lambda: COINppCodec.from_config(configuration | {"embed_model": other}))
    without = {name: value for name, value in configuration.items() if name != "fingerprint"}
    assert "needs its name" in refusal(lambda: COINppCodec.from_config(without))
    assert "needs its name" in refusal(lambda: COINppCodec(embed_model=other, target_rmse=1))


# ---- what readers find --------------------------------------------------------------------------


def written(globes: xr.Dataset, path: Path, codec: Any) -> list[str]:
    """Warnings of the package that writing raises."""
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        globes.to_zarr(path, encoding={"t": {"compressor": codec}}, mode="w")
    return [str(w.message) for w in found if w.category is CompressionWarning]


def test_readers_are_thought_of_once(globes: xr.Dataset, tmp_path: Path) -> None:
    model = replace(golden_model(), name="mine")
    path = tmp_path / "a.zarr"

    assert written(globes, path, COINppCodec("none", target_rmse=1)) == []
    assert written(globes, path, COINppCodec(target_rmse=1)) == []
    assert written(globes, path, COINppCodec(model, target_rmse=1, embed_model=True)) == []
    (warning,) = written(globes, path, COINppCodec(model, target_rmse=1))
    assert "embed_model=True" in warning
    assert written(globes, path, COINppCodec(model, target_rmse=1)) == []
    named_model._told.clear()
    model.save(model_files.cache_folder() / "mine.safetensors")
    assert written(globes, path, COINppCodec(model, target_rmse=1)) == []


def test_the_name_of_a_shipped_model_is_taken(
    shadow: Model, globes: xr.Dataset, tmp_path: Path
) -> None:
    codec = COINppCodec(shadow, target_rmse=1)
    message = refusal(lambda: written(globes, tmp_path / "a.zarr", codec))
    assert "another name" in message
    assert "embed_model=True" in message
    # Loaded on purpose, it answers to the name, but what is written must be found.
    load_model(shadow)
    assert COINppCodec(target_rmse=1).fingerprint == shadow.fingerprint
    refusal(lambda: written(globes, tmp_path / "a.zarr", COINppCodec(target_rmse=1)))


# ---- servers ------------------------------------------------------------------------------------

Server = Callable[[socket.socket, threading.Event], None]
_OK = b"HTTP/1.1 200 OK\r\n"


def says(answer: bytes) -> Server:
    return lambda connection, _: connection.sendall(answer)


def endless(start: bytes, piece: bytes, pause: float = 0.0) -> Server:
    def serve(connection: socket.socket, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(pause):
            connection.sendall(piece)

    return serve


SERVERS: dict[str, tuple[Server, str]] = {
    "an endless body": (endless(_OK + b"\r\n", bytes(1 << 20)), "sends more"),
    "an endless body in chunks": (
        endless(
            _OK + b"Transfer-Encoding: chunked\r\n\r\n", b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        ),
        "sends more",
    ),
    "a byte now and then": (endless(_OK + b"\r\n", b"x", 0.05), "not complete after"),
    "a header now and then": (endless(_OK, b"x", 0.05), "not complete after"),
    "silence": (endless(b"", b"", 0.05), "could not download"),
    "silence after the headers": (endless(_OK + b"\r\n", b"", 0.05), "could not download"),
    "less than promised": (says(_OK + b"Content-Length: 1000\r\n\r\nshort"), "not download"),
    "another file": (says(_OK + b"Content-Length: 5\r\n\r\nhello"), "sha256"),
    "nothing": (says(b""), "could not download"),
    "no HTTP": (says(b"\x00\xff" * 100 + b"\r\n\r\n"), "could not download"),
    "a line without end": (says(_OK + b"X: " + b"x" * (1 << 18)), "could not download"),
    "an error": (says(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"), "could not download"),
    "a circle": (says(b"HTTP/1.1 302 Go\r\nLocation: /a.safetensors\r\nContent-Length: 0\r\n\r\n"),
                 "could not download"),
    "another protocol": (
        says(b"HTTP/1.1 302 Go\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n"),
        "could not download",
    ),
    "a bomb": (
        says(_OK + b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"), "sha256"
    ),
}  # fmt: skip


@contextmanager
def serving(serve: Server) -> Iterator[str]:
    over = threading.Event()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(1 << 16)
                serve(self.request, over)

    class Threads(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False

    with Threads(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        over.set()
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", SERVERS)
def test_a_hostile_server_is_left_in_time(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "registry.txt").write_text(f"a.safetensors {'0' * 64}\n")
    monkeypatch.setattr(model_files, "_shipped_folder", lambda: package)
    serve, expected = SERVERS[name]
    # An endless body should show by its size on the slowest machine, and all else soon.
    seconds = 30.0 if expected == "sends more" else 0.5

    started = time.monotonic()
    with serving(serve) as url, config.set(model_url=url, download_seconds=seconds):
        message = refusal(lambda: fetch_model("a"), ModelNotFoundError)
        refusal(lambda: load_model("a"), ModelNotFoundError) if seconds < 1 else None

    assert expected in message
    assert time.monotonic() - started < 25
    assert list(model_files.cache_folder().iterdir()) == []
