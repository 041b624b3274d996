"""Where files of models are: shipped with the package, in the user's cache, or to download."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from urllib.parse import urljoin

from coinpp_xr.errors import ModelNotFoundError
from coinpp_xr.settings import config


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


def registry() -> dict[str, str]:
    """Known model files and their sha256, as listed in ``pretrained/registry.txt``."""
    path = _shipped_folder() / "registry.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    entries = (line.split() for line in lines if line.strip() and not line.startswith("#"))
    return dict(entries)


def fetch_model(name: str) -> Path:
    """Download a model that is listed in the registry into the user's cache, hash-checked.

    Raises
    ------
    ModelNotFoundError
        If the name is unknown, no URL is configured, the server does not answer, or what it
        sends has another hash.
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
            downloader=pooch.HTTPDownloader(timeout=30, stream=False),
        )  # fmt: skip
    except OSError as error:  # all of requests' errors; some of them are ValueErrors, too
        raise ModelNotFoundError(
            f"could not download model {name!r} from {url}: {type(error).__name__}; check the "
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
