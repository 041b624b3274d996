"""The models of a process, and where those are found that are not there yet."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.model import Model, parse_fingerprint, parse_name
from coinpp_xr.model_files import (
    cache_folder,
    fetch_model,
    is_registered,
    registry,
    shipped_models,
)
from coinpp_xr.model_schema import check_model
from coinpp_xr.settings import config

__all__ = [
    "Model",
    "load_model",
    "parse_fingerprint",
    "parse_name",
    "register_embedded",
    "register_model",
]

# Arrays of models that can be found again, kept for the next chunk.
_KEPT_BYTES = 64 << 20


class Loaded:
    """The models of a process, by fingerprint.

    Attributes
    ----------
    own : dict of str to Model
        What came from the user as an object or as a file, and can be found nowhere else.
    names : dict of str to Model
        Those that the user has loaded, by name. What data brought along never answers to a name.
    others : OrderedDict of str to Model
        Embedded, shipped and cached ones; those used last, up to a number of bytes.
    files : dict of Path to tuple
        What shipped and cached files held, while they are as they were then.
    """

    def __init__(self) -> None:
        self.own: dict[str, Model] = {}
        self.names: dict[str, Model] = {}
        self.others: OrderedDict[str, Model] = OrderedDict()
        self.files: dict[Path, tuple[tuple[int, int], str]] = {}

    def find(self, fingerprint: str) -> Model | None:
        if fingerprint in self.others:
            self.others.move_to_end(fingerprint)
        return self.own.get(fingerprint) or self.others.get(fingerprint)

    def keep_for_now(self, model: Model) -> Model:
        """Keep a model that can be found again, and forget those that were not used for long."""
        self.others[model.fingerprint] = model
        self.others.move_to_end(model.fingerprint)
        total = sum(_array_bytes(other) for other in self.others.values())
        while total > _KEPT_BYTES and len(self.others) > 1:
            fingerprint, forgotten = self.others.popitem(last=False)
            total -= _array_bytes(forgotten)
            # An embedded one of the same content, without a card, must not pass for the file.
            self.files = {p: entry for p, entry in self.files.items() if entry[1] != fingerprint}
        return model


_loaded = Loaded()
_loading = threading.RLock()


def _new_lock() -> None:
    global _loading
    _loading = threading.RLock()


# A process forked while another thread looks for a model would wait for that thread for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def load_model(model: str | Path | Model, fingerprint: str | None = None) -> Model:
    """Find a model and keep it for this process.

    A file or a :class:`Model` answers to its name from now on. A name is looked up in this order:
    what was loaded like this, models shipped with the package, the user's cache, and a download
    from ``coinpp_xr.config`` ``model_url``. With a fingerprint only the model that has it is
    taken, whatever brought it into this process. Models that came embedded in data are found by
    their fingerprint alone.

    Parameters
    ----------
    model : str, path or Model
        A name such as ``t2m-46x90``, or the path of a model file.
    fingerprint : str, optional
        Accept this one only.

    Raises
    ------
    ModelNotFoundError
        With one line that says how to get the model.
    ValueError
        If a file is damaged or no model, or if a name is none.
    """
    with _loading:
        if not isinstance(model, Model | Path) and not str(model).endswith(".safetensors"):
            return _look_up(model, fingerprint)
        found = model if isinstance(model, Model) else Model.from_file(model)
        if fingerprint not in (None, found.fingerprint):
            raise _other_fingerprint(found, fingerprint)
        register_model(found)
        _loaded.names[found.name] = found
        return found


def register_model(model: Model) -> Model:
    """Keep a model for this process, by its fingerprint only.

    Raises
    ------
    ValueError
        If it is none that a file could hold.
    """
    with _loading:
        if _loaded.own.get(model.fingerprint) is not model:
            check_model(model.definition, model.tensors)
        # The same content may have come under another name, with another card.
        _loaded.own[model.fingerprint] = model
        return model


def register_embedded(
    fingerprint: str, unpack: Callable[[], Model], *, trusted: bool = False
) -> Model:
    """A model that came with data, by its fingerprint only; it may be forgotten again.

    Parameters
    ----------
    fingerprint : str
    unpack : callable
        Returns the model.
    trusted : bool
        It was unpacked before: if the model is here, it need not be again.

    Raises
    ------
    ValueError
        If what was unpacked has another fingerprint.
    """
    with _loading:
        known = _loaded.find(fingerprint)
        if trusted and known is not None:
            return known
        found = unpack()
        if found.fingerprint != fingerprint:
            raise ValueError(
                f"the embedded model has fingerprint {found.fingerprint}, but the data was "
                f"written with {fingerprint}: its metadata was changed or damaged"
            )
        return known or _loaded.keep_for_now(found)


def is_at_hand_elsewhere(model: Model) -> bool:
    """Whether another process finds a model by name and fingerprint: shipped, or in the cache."""
    with _loading:
        found = [_read(path, model.name) for path in _places(model.name)]
    return any(isinstance(m, Model) and m.fingerprint == model.fingerprint for m in found)


def _look_up(name: str, fingerprint: str | None) -> Model:
    """The model of a name, or the one with a fingerprint."""
    known = _loaded.find(fingerprint) if fingerprint else _loaded.names.get(name)
    if known is not None:
        return known
    parse_name(name)
    other, reason = None, ""
    for path in _places(name):
        found = _read(path, name)
        if isinstance(found, str):
            reason = found
        elif fingerprint not in (None, found.fingerprint):
            other = found
        elif fingerprint is None and path.parent == cache_folder() and not is_registered(path):
            reason = f"{path} is not the model of that name: its sha256 differs from the registry's"
        else:
            return found
    if config.get("model_url") and (f"{name}.safetensors" in registry() or not (other or reason)):
        found = _read(fetch_model(name), name)
        if isinstance(found, Model) and fingerprint in (None, found.fingerprint):
            return found
        other, reason = (other, found) if isinstance(found, str) else (found, reason)
    if reason:
        raise ModelNotFoundError(f"no model {name!r}: {reason}; delete the file or install another")
    if other is not None and fingerprint is not None:
        raise _other_fingerprint(other, fingerprint)
    known_names = ", ".join(sorted(shipped_models())) or "none"
    raise ModelNotFoundError(
        f"no model {name!r}: shipped are {known_names}; for your own, call "
        "coinpp_xr.load_model('file.safetensors') first or set COINPP_XR_MODEL_URL"
    )


def _places(name: str) -> list[Path]:
    """Files that may hold the model of a name, without a download."""
    paths = (shipped_models().get(name), cache_folder() / f"{name}.safetensors")
    return [path for path in paths if path is not None and path.is_file()]


def _read(path: Path, name: str) -> Model | str:
    """The model of a shipped or cached file, or why it is none."""
    status = path.stat()
    state = status.st_mtime_ns, status.st_size
    before, fingerprint = _loaded.files.get(path, (None, ""))
    if before == state and fingerprint in _loaded.others:
        return _loaded.others[fingerprint]
    try:
        model = Model.from_file(path)
    except ValueError as error:
        return str(error)
    if model.name != name:
        return f"{path} holds a model that is named {model.name!r}"
    _loaded.keep_for_now(model)
    _loaded.files[path] = state, model.fingerprint
    return model


def _other_fingerprint(found: Model, fingerprint: str) -> ModelNotFoundError:
    return ModelNotFoundError(
        f"model {found.name!r} is here with fingerprint {found.fingerprint}, but the data "
        f"was written with {fingerprint}; load that version with "
        "coinpp_xr.load_model('file.safetensors')"
    )


def _array_bytes(model: Model) -> int:
    return sum(tensor.nbytes for tensor in model.tensors.values())
