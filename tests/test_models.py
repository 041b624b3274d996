"""Model files: what is saved comes back, damage is noticed, and where models are looked up."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from coinpp_xr import ModelNotFoundError, config, load_model, model_files, model_schema, models
from coinpp_xr.model_files import fetch_model, registry, shipped_models
from coinpp_xr.models import Model


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing loaded yet, an empty cache, no address to download from."""
    monkeypatch.setattr(models, "_loaded", models.Loaded())
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with config.set(cache=str(tmp_path / "cache"), model_url=None):
        yield


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in place of the one that holds the package's models."""
    folder = tmp_path / "package"
    folder.mkdir()
    monkeypatch.setattr(model_files, "_shipped_folder", lambda: folder)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Path]:
    """A folder that an HTTP server on this machine offers; the package is told its address."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None: ...

    folder = tmp_path / "server"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        with config.set(model_url=f"http://127.0.0.1:{http.server_port}"):
            yield folder
        http.shutdown()
        thread.join()


@pytest.fixture
def variant(tiny_model: Model) -> Callable[[float], Model]:
    """Models of one name that differ in their offset, and so in their fingerprint."""

    def make(offset: float) -> Model:
        return replace(tiny_model, name="tiny", offset=offset, card={"units": "K"})

    return make


def refusal(call: Callable[[], object], kind: type[Exception]) -> str:
    """The message of the error, which must be one line."""
    with pytest.raises(kind) as caught:
        call()
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def cached(name: str) -> Path:
    return model_files.cache_folder() / f"{name}.safetensors"


def register(package: Path, name: str, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    (package / "registry.txt").write_text(f"# a comment\n\n{name}.safetensors {digest}\n")


# ---- files --------------------------------------------------------------------------------


def test_a_saved_model_comes_back_whole(tiny_model: Model, tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "new folder" / "tiny.safetensors")

    read = Model.from_file(path)

    assert read.name == tiny_model.name
    assert read.domain == tiny_model.domain
    assert (read.offset, read.scale) == (tiny_model.offset, tiny_model.scale)
    assert read.siren.omega0 == tiny_model.siren.omega0
    assert read.card == tiny_model.card
    arrays = (
        (a, b)
        for x, y in ((read, tiny_model), (read.siren, tiny_model.siren))
        for a, b in zip(_arrays(x), _arrays(y), strict=True)
    )
    assert all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in arrays)


def _arrays(of: Any) -> list[np.ndarray]:
    if isinstance(of, Model):
        return [of.latent_mean, of.latent_std, of.histogram]
    return list(of.parameters)


def test_saving_again_gives_the_same_bytes(tiny_model: Model, tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "tiny.safetensors")

    for _ in range(8):
        assert Model.from_file(path).to_bytes() == path.read_bytes()


def test_the_fingerprint_survives_a_round_trip(tiny_model: Model, tmp_path: Path) -> None:
    path = tiny_model.save(tmp_path / "tiny.safetensors")

    assert Model.from_file(path).fingerprint == tiny_model.fingerprint


@pytest.mark.parametrize("change", [{"card": {"units": "degC"}}, {"name": "other"}])
def test_name_and_card_do_not_change_the_fingerprint(tiny_model: Model, change: Any) -> None:
    assert replace(tiny_model, **change).fingerprint == tiny_model.fingerprint


@pytest.mark.parametrize(
    "change", [{"offset": 1.0}, {"scale": 2.0}, {"domain": "box"}, {"latent_std": np.full(3, 2.0)}]
)
def test_what_decoding_depends_on_changes_the_fingerprint(tiny_model: Model, change: Any) -> None:
    assert replace(tiny_model, **change).fingerprint != tiny_model.fingerprint


def test_a_model_without_a_card_can_be_saved(tiny_model: Model, tmp_path: Path) -> None:
    path = replace(tiny_model, card={}).save(tmp_path / "bare.safetensors")

    assert Model.from_file(path).card == {}


def test_nbytes_is_the_size_of_the_file(tiny_model: Model, tmp_path: Path) -> None:
    assert tiny_model.save(tmp_path / "m.safetensors").stat().st_size == tiny_model.nbytes


@pytest.mark.parametrize(
    "name",
    [
        "",
        "two words",
        "a/b",
        "a\\b",
        "a\nb",
        "a\x1bb",
        "mine.safetensors",
        None,
        3,
        "..",
        "ä",
        "a" * 65,
    ],
)
def test_a_name_is_one_word_that_can_be_a_file_name(tiny_model: Model, name: Any) -> None:
    assert "one word" in refusal(lambda: replace(tiny_model, name=name), ValueError)


def test_a_full_disk_leaves_the_old_file(
    tiny_model: Model, variant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny_model.save(tmp_path / "tiny.safetensors")

    def no_space(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("coinpp_xr.files.os.fsync", no_space)
    message = refusal(lambda: variant(1.0).save(path), OSError)

    assert "No space left" in message
    assert str(path) in message
    assert Model.from_file(path).fingerprint == tiny_model.fingerprint
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_no_file(
    tiny_model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coinpp_xr.files.os.fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny_model.save(tmp_path / "tiny.safetensors")

    assert list(tmp_path.iterdir()) == []


# ---- files that are not what they should be -----------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 7, 8, 100, -1])
def test_a_truncated_file_is_refused(tiny_model: Model, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(tiny_model.to_bytes()[:length])

    assert str(path) in refusal(lambda: Model.from_file(path), ValueError)


def test_no_flipped_bit_goes_unnoticed(tiny_model: Model, tmp_path: Path) -> None:
    """The card, which decoding does not depend on, is the exception."""
    content = tiny_model.to_bytes()
    header_length = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "damaged.safetensors"
    rng = np.random.default_rng(0)
    for position in rng.integers(header_length, len(content), 40):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        assert "fingerprint" in refusal(lambda: Model.from_file(path), ValueError)


def test_a_damaged_header_never_raises_anything_else(tiny_model: Model, tmp_path: Path) -> None:
    content = tiny_model.to_bytes()
    header_length = 8 + int.from_bytes(content[:8], "little")
    path = tmp_path / "damaged.safetensors"
    rng = np.random.default_rng(0)
    for position in rng.integers(0, header_length, 200):
        damaged = bytearray(content)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with suppress(ValueError):
            # Where it is not refused, the flip has hit the card, the name or white space.
            assert Model.from_file(path).fingerprint == tiny_model.fingerprint


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign.safetensors"
    path.write_bytes(content)

    assert "not a coinpp-xr model" in refusal(lambda: Model.from_file(path), ValueError)


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"coinpp_xr": "{}"},
        {"coinpp_xr": "[]", "card": "{}"},
        {"coinpp_xr": "not JSON", "card": "{}"},
        {"coinpp_xr": json.dumps({"format": "coinpp-xr model 99", "depth": 2}), "card": "{}"},
        {"coinpp_xr": json.dumps({"format": model_schema.FORMAT, "depth": 10**9}), "card": "{}"},
        {"coinpp_xr": json.dumps({"format": model_schema.FORMAT, "depth": "2"}), "card": "{}"},
    ],
)
def test_other_safetensors_files_are_refused(tmp_path: Path, metadata: Any) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight.0": np.zeros((2, 2), np.float32)}, path, metadata)

    assert "not a coinpp-xr model" in refusal(lambda: Model.from_file(path), ValueError)


class _Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return Path.touch, (self.trace,)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = tmp_path / "trap.safetensors"
    path.write_bytes(pickle.dumps(_Trap(trace)))

    refusal(lambda: load_model(path), ValueError)

    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap works


def test_a_missing_file_is_a_missing_model(tmp_path: Path) -> None:
    path = tmp_path / "none.safetensors"

    assert str(path) in refusal(lambda: load_model(path), ModelNotFoundError)


# ---- where models are looked up -----------------------------------------------------------


def test_an_unknown_name_lists_what_there_is(package: Path, variant: Any) -> None:
    variant(1.0).save(package / "alpha.safetensors")
    variant(2.0).save(package / "beta.safetensors")

    assert "alpha, beta" in refusal(lambda: load_model("gamma"), ModelNotFoundError)


def test_a_loaded_model_is_found_by_name_and_by_fingerprint(variant: Any) -> None:
    model = load_model(variant(1.0))

    assert load_model("tiny") is model
    assert load_model("any name", model.fingerprint) is model


def test_the_last_loaded_of_one_name_is_taken(package: Path, variant: Any) -> None:
    first, last = load_model(variant(1.0)), load_model(variant(2.0))

    assert load_model("tiny") is last
    assert load_model("tiny", first.fingerprint) is first


def test_the_same_content_under_another_name_keeps_that_name(variant: Any) -> None:
    load_model(variant(1.0))

    assert load_model(replace(variant(1.0), name="other")).name == "other"


def test_shipped_models_come_before_cached_ones(package: Path, variant: Any) -> None:
    variant(1.0).save(package / "tiny.safetensors")
    variant(2.0).save(cached("tiny"))

    assert load_model("tiny").offset == 1.0


def test_a_cached_model_that_is_not_the_registered_one_is_passed_over(
    package: Path, server: Path, variant: Any
) -> None:
    variant(2.0).save(cached("tiny"))
    variant(3.0).save(server / "tiny.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    # Data that was written with it finds it.
    assert load_model("tiny", variant(2.0).fingerprint).offset == 2.0
    with config.set(model_url=None):
        assert "sha256" in refusal(lambda: load_model("tiny"), ModelNotFoundError)
    assert load_model("tiny").offset == 3.0
    assert cached("tiny").read_bytes() == variant(3.0).to_bytes()


def test_cached_models_come_before_downloads(package: Path, server: Path, variant: Any) -> None:
    variant(3.0).save(cached("tiny"))
    register(package, "tiny", variant(3.0).to_bytes())

    assert load_model("tiny").offset == 3.0


@pytest.mark.parametrize("content", [b"", b"not a model"])
def test_a_broken_file_in_the_cache_is_fetched_again(
    package: Path, server: Path, variant: Any, content: bytes
) -> None:
    cached("tiny").parent.mkdir()
    cached("tiny").write_bytes(content)
    variant(3.0).save(server / "tiny.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    with config.set(model_url=None):
        message = refusal(lambda: load_model("tiny"), ModelNotFoundError)
        assert str(cached("tiny")) in message
        assert "delete" in message
    assert load_model("tiny").offset == 3.0


def test_a_cached_file_is_the_model_that_it_is_named_after(package: Path, variant: Any) -> None:
    replace(variant(1.0), name="other").save(cached("tiny"))

    assert "named 'other'" in refusal(lambda: load_model("tiny"), ModelNotFoundError)


def test_what_is_nowhere_else_is_downloaded(package: Path, server: Path, variant: Any) -> None:
    variant(3.0).save(server / "tiny.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    assert load_model("tiny").offset == 3.0


def test_the_cache_is_asked_when_the_shipped_one_has_another_fingerprint(
    package: Path, variant: Any
) -> None:
    variant(1.0).save(package / "tiny.safetensors")
    variant(2.0).save(cached("tiny"))

    assert load_model("tiny", variant(2.0).fingerprint).offset == 2.0


def test_another_fingerprint_is_refused(package: Path, variant: Any) -> None:
    path = variant(1.0).save(package / "tiny.safetensors")

    for model in ("tiny", path):
        message = refusal(partial(load_model, model, "0" * 16), ModelNotFoundError)
        assert variant(1.0).fingerprint in message
        assert "0" * 16 in message


# ---- downloads ----------------------------------------------------------------------------


def test_a_download_stays_in_the_cache(package: Path, server: Path, variant: Any) -> None:
    variant(3.0).save(server / "tiny.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    assert fetch_model("tiny") == cached("tiny")
    assert cached("tiny").read_bytes() == variant(3.0).to_bytes()


def test_a_cached_file_with_the_right_hash_is_not_downloaded_again(
    package: Path, server: Path, variant: Any
) -> None:
    variant(3.0).save(cached("tiny"))
    register(package, "tiny", variant(3.0).to_bytes())

    assert fetch_model("tiny") == cached("tiny")


def test_a_wrong_hash_is_refused_and_not_kept(package: Path, server: Path, variant: Any) -> None:
    variant(4.0).save(server / "tiny.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    assert "sha256" in refusal(lambda: fetch_model("tiny"), ModelNotFoundError)
    assert list(model_files.cache_folder().iterdir()) == []


def test_a_file_that_the_server_lacks(package: Path, server: Path, variant: Any) -> None:
    register(package, "tiny", variant(3.0).to_bytes())

    assert "could not download" in refusal(lambda: fetch_model("tiny"), ModelNotFoundError)
    assert list(model_files.cache_folder().iterdir()) == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "no address"])
def test_a_server_that_does_not_answer(package: Path, variant: Any, url: str) -> None:
    register(package, "tiny", variant(3.0).to_bytes())

    with config.set(model_url=url):
        message = refusal(lambda: fetch_model("tiny"), ModelNotFoundError)

    assert "could not download" in message
    assert "COINPP_XR_MODEL_URL" in message


def test_without_an_address_nothing_is_downloaded(package: Path, variant: Any) -> None:
    register(package, "tiny", variant(3.0).to_bytes())

    assert "COINPP_XR_MODEL_URL" in refusal(lambda: fetch_model("tiny"), ModelNotFoundError)


def test_only_what_the_registry_lists_is_downloaded(
    package: Path, server: Path, variant: Any
) -> None:
    variant(3.0).save(server / "other.safetensors")
    register(package, "tiny", variant(3.0).to_bytes())

    for call in (fetch_model, load_model):
        message = refusal(partial(call, "other"), ModelNotFoundError)
        assert "the registry lists: tiny" in message


# ---- the models that come with the package ------------------------------------------------


def test_the_package_ships_models() -> None:
    assert shipped_models()


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_can_be_loaded_by_its_name(name: str) -> None:
    assert load_model(name).name == name


@pytest.mark.parametrize("name", shipped_models())
def test_a_shipped_model_is_in_the_registry(name: str) -> None:
    """After adding or replacing a model, run ``python pretrained/update_registry.py``."""
    content = shipped_models()[name].read_bytes()

    assert registry()[f"{name}.safetensors"] == hashlib.sha256(content).hexdigest()
