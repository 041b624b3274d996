"""Files of models: where they are, how they are downloaded, and what is in them."""

from __future__ import annotations

import hashlib
import os
import threading
from importlib import resources
from math import prod
from pathlib import Path
from queue import Empty, Queue
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.exact import unpack_bytes
from coinpp_xr.model_schema import MOST_TEXT, check_arrays, check_definition, parse_json
from coinpp_xr.settings import config

# Of a file: all arrays that a model may have, its description, and some room.
MOST_FILE_BYTES = 20 << 20
_DTYPES = {
    "F32": "<f4", "F64": "<f8", "U32": "<u4", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1",
}  # fmt: skip
# Without an answer for so long, a server is given up at once.
_SILENT_SECONDS = 30.0
_PIECE = 1 << 16


class _GivenUpError(OSError):
    """A download takes too long, or is too large."""


def shipped_models() -> dict[str, Path]:
    """Files of the models that come with the package, by name."""
    return {path.stem: path for path in sorted(_shipped_folder().glob("*.safetensors"))}


def _shipped_folder() -> Path:
    package = Path(str(resources.files("coinpp_xr")))
    # In a checkout (editable install) the folder stands beside the package.
    inside, beside = package / "pretrained", package.parent / "pretrained"
    return inside if inside.is_dir() else beside


def cache_folder() -> Path:
    """Where downloaded and installed models are kept; COINPP_XR_CACHE overrides it."""
    if config.get("cache"):
        return Path(config.get("cache"))
    from platformdirs import user_cache_path

    return user_cache_path("coinpp_xr") / "models"


def models_at_hand() -> list[tuple[Path, str]]:
    """Files of models that need no download, each with ``shipped`` or ``cached``."""
    shipped = [(path, "shipped") for path in shipped_models().values()]
    return shipped + [(path, "cached") for path in sorted(cache_folder().glob("*.safetensors"))]


# ---- what is in them ----------------------------------------------------------------------------


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """The description and the arrays of a model file, their types and shapes checked.

    The index of the arrays is checked first: no more is read, and no more memory taken, than a
    consistent model of that size needs.

    Raises
    ------
    LookupError, TypeError, ValueError, SafetensorError
        If the file is damaged or not a model.
    """
    declared, text = _read_index(path)
    description = parse_json(text)
    check_definition(description)
    stored = dict(declared)
    if "tail.symbols" in declared:
        rows = declared["tail.steps"][1][0]
        declared["tail.symbols"] = "<i2", (rows, _functions(description))
    check_arrays(description, declared)
    with safe_open(path, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in stored}
    if "tail.symbols" in tensors:
        shape = declared["tail.symbols"][1]
        packed = tensors.pop("tail.symbols")
        symbols = unpack_bytes(packed.data, prod(shape), np.dtype(np.int16))
        tensors["tail.symbols"] = symbols.reshape(shape)
    return description, tensors


def _read_index(path: Path) -> tuple[dict[str, tuple[str, tuple[int, ...]]], str]:
    """Type and shape of every array of a safetensors file, and the text that we have put there."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MOST_FILE_BYTES:
            raise ValueError(f"it has {size:,} bytes, at most {MOST_FILE_BYTES:,} are read")
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(MOST_TEXT, size - 8):
            raise ValueError("the index of its arrays has no sensible length")
        index = parse_json(file.read(length))
    metadata = index.pop("__metadata__", {})
    declared = {}
    for name, entry in index.items():
        dtype, shape = _DTYPES.get(str(entry["dtype"])), entry["shape"]
        start, end = entry["data_offsets"]
        if dtype is None or not all(type(n) is int and 0 <= n < 1 << 32 for n in shape):
            raise ValueError(f"it declares an array {name[:40]!r} of a type that no model has")
        if end - start != prod(shape) * np.dtype(dtype).itemsize or end > size - 8 - length:
            raise ValueError(f"its array {name[:40]!r} is not as long as it is declared")
        declared[name] = dtype, tuple(shape)
    text = metadata["coinpp_xr"]
    if not isinstance(text, str):
        raise ValueError("its description is no text")
    return declared, text


def _functions(description: dict[str, Any]) -> int:
    """Functions of a linear tail; of spherical harmonics, files used to give the degree."""
    found = description.get("tail_functions")
    if found is None:
        degree = description.get("tail_degree", 0)
        found = (degree + 1) ** 2 if type(degree) is int and 0 <= degree < 1 << 16 else 0
    if type(found) is not int or found < 1:
        raise ValueError("its tail does not say how many functions it has")
    return found


# ---- downloads ----------------------------------------------------------------------------------


def registry() -> dict[str, str]:
    """Known model files and their sha256, as listed in ``pretrained/registry.txt``."""
    path = _shipped_folder() / "registry.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = (line.split() for line in lines if line.strip() and not line.startswith("#"))
    return dict(entries)


def is_registered(path: Path) -> bool:
    """Whether a file is what the registry lists under its name; True where it lists none."""
    expected = registry().get(path.name)
    return expected is None or hashlib.sha256(path.read_bytes()).hexdigest() == expected


def fetch_model(name: str) -> Path:
    """Download a model that is listed in the registry into the user's cache, hash-checked.

    What is there already with the right hash is kept, anything else of that name replaced.
    ``coinpp_xr.config`` ``download_seconds`` limits the time in all.

    Raises
    ------
    ModelNotFoundError
        If the name is unknown, no URL is configured, the server does not answer or takes too
        long, or what it sends is too large or has another hash.
    """
    import pooch

    file_name = f"{name}.safetensors"
    known = registry()
    if file_name not in known:
        names = ", ".join(sorted(Path(f).stem for f in known)) or "none"
        raise ModelNotFoundError(f"no model {name!r} to download; the registry lists: {names}")
    base = config.get("model_url")
    if not base:
        raise ModelNotFoundError(
            f"no address to download {name!r} from: set COINPP_XR_MODEL_URL to a folder URL"
        )
    url = urljoin(str(base).rstrip("/") + "/", file_name)
    quiet = pooch.get_logger()
    level = quiet.level
    quiet.setLevel("ERROR")
    try:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        path = pooch.retrieve(
            url, known_hash=f"sha256:{known[file_name]}", fname=file_name, path=folder,
            downloader=_download,
        )  # fmt: skip
    except OSError as error:  # all of requests' errors; some of them are ValueErrors, too
        reason = str(error) if isinstance(error, _GivenUpError) else type(error).__name__
        raise ModelNotFoundError(
            f"could not download model {name!r} from {url}: {reason}; check the "
            f"network and COINPP_XR_MODEL_URL, or put {file_name} into {folder}"
        ) from error
    except ValueError as error:  # pooch deletes what has the wrong hash
        raise ModelNotFoundError(
            f"what {url} sent is not model {name!r}: its sha256 differs from the registry's; "
            "check COINPP_XR_MODEL_URL or update coinpp-xr"
        ) from error
    finally:
        quiet.setLevel(level)
    return Path(path)


def _download(url: str, output_file: Any, _: Any) -> None:
    """Write what a server sends to a file: pooch's downloader, with limits on time and size.

    Timeouts of sockets start anew with every byte. So a thread reads, and this one stops waiting
    when the time is over.
    """
    seconds = float(config.get("download_seconds"))
    pieces: Queue[bytes | Exception | None] = Queue(maxsize=16)
    given_up = threading.Event()
    deadline, nbytes = monotonic() + seconds, 0
    threading.Thread(
        target=_receive, args=(url, seconds, pieces, given_up), daemon=True, name="download"
    ).start()
    try:
        with Path(output_file).open("wb") as file:
            while (piece := pieces.get(timeout=max(0.0, deadline - monotonic()))) is not None:
                if isinstance(piece, Exception):
                    raise piece
                nbytes += len(piece)
                if nbytes > MOST_FILE_BYTES:
                    raise _GivenUpError(f"it sends more than {MOST_FILE_BYTES:,} bytes")
                file.write(piece)
    except Empty:
        raise _GivenUpError(f"it is not complete after {seconds:g} seconds") from None
    finally:
        given_up.set()


def _receive(
    url: str, seconds: float, pieces: Queue[bytes | Exception | None], given_up: threading.Event
) -> None:
    """Put what a server sends into a queue, piece by piece, at last None or the error."""
    import requests
    from urllib3.exceptions import HTTPError

    try:
        timeout = min(_SILENT_SECONDS, seconds)
        with requests.get(url, stream=True, timeout=timeout) as response:
            response.raise_for_status()
            # Some versions of urllib3 can only wait for the whole piece.
            read = getattr(response.raw, "read1", response.raw.read)
            while not given_up.is_set() and (piece := read(_PIECE)):
                pieces.put(piece, timeout=timeout)
        end: Exception | None = None
    except HTTPError as error:  # below requests, whose errors are OSErrors
        end = ConnectionError(str(error))
    except Exception as error:
        end = error if isinstance(error, OSError) else ConnectionError(str(error))
    if not given_up.is_set():
        pieces.put(end, timeout=seconds)
