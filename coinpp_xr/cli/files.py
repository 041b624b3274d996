"""``coinpp compress``, ``decompress`` and ``inspect``: images, volumes and sound in files.

The last two also take Zarr stores, which :mod:`coinpp_xr.cli.stores` knows about.
"""

from __future__ import annotations

import re
import time
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coinpp_xr.cli.sources import read_one_media
from coinpp_xr.cli.stores import decompress_store, inspect_store, is_store
from coinpp_xr.cli.text import print_columns, say, tell
from coinpp_xr.errors import UnsuitableBoundError
from coinpp_xr.text_tables import printable

if TYPE_CHECKING:
    from coinpp_xr.compressed_file import CompressedFile
    from coinpp_xr.data.media import Media

_MOST_SHOWN = 60
# Windows takes these for devices, whatever their suffix.
_DEVICES = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]", re.IGNORECASE)


def compress(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE",
            help="NIfTI (.nii, .nii.gz), WAV, FLAC, PNG, TIFF, JPEG or NumPy (.npy).",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o",
            metavar="OUT",
            help="The file to write, or a folder for it.  [default: FILE.coinpp beside each]",
            show_default=False,
        ),
    ] = None,
    target_psnr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            help="At least this PSNR, of the range that integer pixels and samples can have; of "
            "what the values span for volumes and floats.  [default: 40, for sound 60]",
        ),
    ] = None,
    target_rmse: Annotated[
        float | None,
        typer.Option(metavar="X", help="At most this RMSE, in the file's unit (after scl_slope)."),
    ] = None,
    target_bpp: Annotated[
        float | None,
        typer.Option(metavar="B", help="At most so many bits per pixel, voxel or sample."),
    ] = None,
    kbps: Annotated[
        float | None,
        typer.Option(metavar="K", help="At most so many kilobits per second of sound."),
    ] = None,
    max_error: Annotated[
        float | None,
        typer.Option(
            metavar="E",
            help="Largest error of any value, in the file's unit (after scl_slope); 0.5 is without "
            "loss for integers.",
        ),
    ] = None,
    max_error_relative: Annotated[
        float | None,
        typer.Option(metavar="E", help="The same as a fraction of each value, below 1."),
    ] = None,
    treat_as: Annotated[
        str | None,
        typer.Option(
            "--as", metavar="KIND",
            help="What an .npy file holds: image, volume or audio.  [default: by its axes]",
        ),
    ] = None,
    allow_coarse: Annotated[
        bool,
        typer.Option("--allow-coarse", help="Take an error as large as half of a file's own "
                     "spread."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
) -> None:  # fmt: skip
    """Compress images, volumes and sound.

    Each file becomes one compressed file. Fields on a grid go into a store instead, with
    coinpp archive.

    \b
    Examples:
      coinpp compress photo.png
      coinpp compress brain.nii.gz --max-error 2 -o brain.coinpp
      coinpp compress speech/*.flac --kbps 6 -o compressed/
    """
    from coinpp_xr.compressed_file import (
        DEFAULT_PSNR,
        SUFFIX,
        modality_of,
        refuse_coarse_bound,
    )
    from coinpp_xr.compressed_file import compress as compress_media
    from coinpp_xr.files import write_atomically

    given = {
        "target_psnr": target_psnr, "target_rmse": target_rmse, "target_bpp": target_bpp,
        "kbps": kbps, "max_error": max_error, "max_error_relative": max_error_relative,
    }  # fmt: skip
    rate = {name: value for name, value in given.items() if value is not None}
    if len(rate) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in rate)
        raise typer.BadParameter(f"give one rate, not {options}")
    targets = _targets(files, output, SUFFIX)
    for target in targets:
        _check_target(target, force)
    for source, target in zip(files, targets, strict=True):
        started = time.perf_counter()
        media = read_one_media(source)
        try:
            modality = modality_of(media, treat_as)
            used = rate or {"target_psnr": DEFAULT_PSNR[modality]}
            if not allow_coarse:
                refuse_coarse_bound(media, used)
            compressed = compress_media(media, Path(source).name, modality, used)
        except UnsuitableBoundError as error:
            raise ValueError(f"{source}: {error.on_command_line}") from error
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error
        data = compressed.pack()
        seconds = time.perf_counter() - started
        outcome = _outcome(media, modality, compressed, len(data))
        write_atomically(target, data)
        if media.kind == "array" and treat_as is None:
            tell(f"{source}: shape {media.values.shape} is taken for {modality}; --as says else")
        default = "" if rate else f"; --target-psnr {used['target_psnr']:g} by default"
        say(
            f"{source} ({Path(source).stat().st_size:,} bytes) -> {target} ({len(data):,} bytes): "
            f"{outcome}, {seconds:.1f} s{default}"
        )


def decompress(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.coinpp|STORE", help="A compressed file, or a Zarr store.",
            show_default=False,
        ),
    ],
    target_name: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="As --output.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="OUT",
            help="The file to write, in the format of its suffix, or a folder for it; .nc or .zarr "
            "for a store.  [default: the original name, beside FILE.coinpp]",
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Blocks of an archive may be missing; they are NaN.")
    ] = False,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not look at a store's checksums first.")
    ] = False,
) -> None:  # fmt: skip
    """Unpack a store or a compressed file.

    For readers without coinpp-xr: a store becomes NetCDF or plain Zarr, a file what it was.

    \b
    Examples:
      coinpp decompress out.zarr plain.nc
      coinpp decompress photo.png.coinpp
      coinpp decompress brain.coinpp -o brain.npy
    """
    from coinpp_xr.data.media import write_media

    if output is not None and target_name is not None:
        raise typer.BadParameter("give OUT or --output, not both")
    output = output or target_name
    if is_store(file):
        if output is None:
            raise typer.BadParameter("say where to: coinpp decompress STORE OUT.nc, or OUT.zarr")
        decompress_store(file, output, force, partial, check=not no_check)
        return
    compressed, _ = _open(file)
    if output is None or output.is_dir():
        target = (Path(file).parent if output is None else output) / _file_name(compressed)
    else:
        target = output
    _check_target(target, force)
    try:
        media = compressed.media()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    for note in write_media(media, target):
        tell(f"{target}: {note}")
    say(f"{file} -> {target} ({target.stat().st_size:,} bytes)")


def inspect(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE.coinpp|STORE", help="A compressed file, or a Zarr store.",
            show_default=False,
        ),
    ],
    chunk: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="One chunk of a store, such as t2m/0/0/0."),
    ] = None,
    no_check: Annotated[
        bool, typer.Option("--no-check", help="Do not look at a store's checksums.")
    ] = False,
) -> None:  # fmt: skip
    """Show what a store or compressed file holds.

    \b
    Examples:
      coinpp inspect out.zarr
      coinpp inspect out.zarr --chunk t2m/0/0/0
      coinpp inspect photo.png.coinpp
    """
    if is_store(file):
        inspect_store(file, chunk, check=not no_check)
        return
    if chunk is not None:
        raise typer.BadParameter("only stores have chunks")
    compressed, size = _open(file)
    try:
        payload = compressed.parsed()
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    shape = payload.shape
    if compressed.kind == "volume" and len(shape) == 4:
        shape = (*shape[1:], shape[0])
    sections = [f"{len(data):,} {tag.name.lower()}" for tag, data in payload.sections.items()]
    rest = size - sum(map(len, payload.sections.values()))
    print_columns(
        [
            ("original", compressed.name),
            ("kind", compressed.kind),
            ("values", f"{payload.dtype}, {' x '.join(map(str, shape))}"),
            ("codec", ", ".join(f"{key}={value}" for key, value in compressed.codec.items())),
            ("bytes", f"{size:,}: {', '.join([*sections, f'{rest:,} everything else'])}"),
            *((f"  {name}", _shortened(value)) for name, value in compressed.metadata.items()),
        ]
    )


def _targets(files: list[str], output: Path | None, suffix: str) -> list[Path]:
    """Where each file goes."""
    beside = [Path(f"{file}{suffix}") for file in files]
    if output is None:
        return beside
    if len(files) == 1 and not output.is_dir():
        if output.suffix != suffix:
            raise ValueError(f"{output}: a compressed file ends with {suffix}")
        return [output]
    if not output.is_dir():
        raise NotADirectoryError(f"several files need a folder, which {output} is not")
    inside = [output / path.name for path in beside]
    if len(set(inside)) < len(inside):
        raise ValueError(f"two of the files would have the same name in {output}")
    return inside


def _check_target(target: Path, force: bool) -> None:
    """Before any work that would be in vain."""
    if target.is_dir():
        raise IsADirectoryError(f"{target} is a folder")
    if (target.exists() or target.is_symlink()) and not force:
        raise FileExistsError(f"{target} exists; add --force to replace it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such folder: {target.parent}; make it first")


def _open(file: str) -> tuple[CompressedFile, int]:
    """With the size of the file."""
    from coinpp_xr.compressed_file import CompressedFile
    from coinpp_xr.data.sources import existing, read_whole

    path = existing(file)
    try:
        data = read_whole(path)
        return CompressedFile.unpack(data), len(data)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _file_name(compressed: CompressedFile) -> str:
    """The original name, of which nothing is known but that somebody wrote it."""
    name = compressed.name
    plain = PureWindowsPath(name)  # no folder or drive, wherever it came from
    if (
        plain.name != name
        or name in ("", "..")
        or printable(name) != name
        or any(character in name for character in '<>:"|?*')
        or name.endswith((".", " "))
        or _DEVICES.fullmatch(plain.name.partition(".")[0].rstrip(" "))
    ):
        raise ValueError(f"the original name {name!a} cannot be used here; say -o")
    if compressed.metadata.get("format") == "JPEG":
        tell(f"{name}: JPEG would change the pixels; a PNG is written")
        return f"{Path(name).stem}.png"
    return name


def _outcome(media: Media, modality: str, compressed: CompressedFile, size: int) -> str:
    """What it costs, and what was lost."""
    import numpy as np

    from coinpp_xr.compressed_file import cells_of, peak_of, unit_of

    values, decoded = media.values, compressed.media().values
    parts = [f"{values.nbytes / size:.4g} times smaller than its values"]
    if values.size:
        bits = 8 * size / cells_of(values.shape, compressed.codec)
        if "sample_rate" in media.metadata:
            parts.append(f"{bits * media.metadata['sample_rate'] / 1000:.4g} kbps")
        else:
            cell = {"image": "bpp", "volume": "bits per voxel", "audio": "bits per sample"}
            parts.append(f"{bits:.4g} {cell[modality]}")
    if decoded.tobytes() == values.tobytes():
        return ", ".join([*parts, "without loss"])
    finite = np.isfinite(values)
    error = decoded[finite].astype(np.float64) - values[finite].astype(np.float64)
    if not error.any():
        return ", ".join([*parts, "without loss but for the sign of zeros"])
    psnr = 20 * np.log10(peak_of(media, modality) / np.sqrt(np.mean(error**2)))
    largest = unit_of(media) * np.abs(error).max()
    return ", ".join([*parts, f"PSNR {psnr:.2f} dB", f"max error {largest:.4g}"])


def _shortened(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ... ({len(text):,})"
