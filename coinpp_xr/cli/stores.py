"""What ``coinpp inspect`` and ``coinpp decompress`` do with Zarr stores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coinpp_xr.cli.text import print_columns, print_report, say

if TYPE_CHECKING:
    import zarr


def is_store(source: str) -> bool:
    """Whether a name is that of a Zarr store: a folder with its metadata, a zip file, or a URL."""
    from coinpp_xr.data.sources import is_zarr_folder

    path = Path(source)
    return "://" in source or is_zarr_folder(path) or (path.suffix == ".zip" and path.is_file())


_PLACE = {
    True: "where it belongs",
    False: "NOT where it belongs: this is another chunk",
    None: "does not say where it belongs",
}


def inspect_store(source: str, chunk: str | None, *, check: bool = True) -> None:
    """Print what a store holds, or what one of its chunks is.

    Raises
    ------
    CorruptPayloadError
        In the end, if payloads are checked and one of them is not as it was written.
    """
    from coinpp_xr.archiving.checking import refuse_unsound
    from coinpp_xr.archiving.outcome import report_on
    from coinpp_xr.archiving.places import place_of
    from coinpp_xr.archiving.reading import look_at_chunk
    from coinpp_xr.stores import compressed_in

    place = place_of(source, None, only_read=True)
    group = place.root(read_only=True)
    if chunk is not None:
        view = look_at_chunk(group, chunk)
        sections = ", ".join(f"{size:,} {name}" for name, size in view.sections.items())
        print_columns(
            [
                ("variable", view.name),
                ("where", ", ".join(f"{w.start}:{w.stop}" for w in view.where)),
                ("values", f"{view.dtype}, {' x '.join(map(str, view.shape))}"),
                ("bytes", f"{view.nbytes:,}: {sections}"),
                ("stored as", view.kind),
                ("model", view.fingerprint or "none"),
                ("place", _PLACE[view.in_place]),
            ]
        )
        return
    names = compressed_in(group)
    if not names:
        raise ValueError(f"{source}: no variable is compressed by coinpp-xr")
    for name in names:
        print_columns(_about(group, name))
    try:
        report = report_on(group)
    except RuntimeError:  # of Zarr, which does not say where
        refuse_unsound(place, group)
        raise
    if report:
        print_report(report)
    if check:
        found = refuse_unsound(place, group)
        unplaced = sum(found.unplaced.values())
        said = f"{found.n_placed:,} chunks are where they belong"
        say(said + f", {unplaced:,} do not say where that is" * (unplaced > 0))


def _about(group: zarr.Group, name: str) -> list[tuple[str, str]]:
    import zarr

    from coinpp_xr.archiving.manifest import entry, variables_of
    from coinpp_xr.stores import codec_of, dims_of

    array = group[name]
    assert isinstance(array, zarr.Array)
    codec = codec_of(array)
    settings = {k: v for k, v in codec.get_config().items() if isinstance(v, str | int | float)}
    settings.pop("embed_model", None)
    shape = ", ".join(f"{dim}: {n}" for dim, n in zip(dims_of(array), array.shape, strict=True))
    rows = [
        (name, f"{array.dtype}, {shape}"),
        ("  codec", ", ".join(f"{key}={value}" for key, value in settings.items())),
        ("  chunks", " x ".join(map(str, array.chunks))),
    ]
    if array.shards is not None:
        rows.append(("  shards", " x ".join(map(str, array.shards))))
    if name in variables_of(group):
        _, manifest = entry(group, name)
        done = manifest.done()
        rows.append(("  blocks", f"{int(done.sum()):,} of {len(done):,} done"))
        rows.append(("  written by", str(manifest.attributes["implementation"])))
        rows.append(("  source", f"{len(manifest.attributes['source_files']):,} files"))
    return rows


def decompress_store(
    source: str, target: Path, force: bool, partial: bool, *, check: bool = True
) -> None:
    """Write a store as plain data."""
    from coinpp_xr.archiving import decompress

    if target.is_dir() and not is_store(str(target)):
        target = target / f"{Path(source).stem}.nc"
    decompress(source, target, overwrite=force, partial=partial, check=check)
    files = [p for p in target.rglob("*") if p.is_file()] if target.is_dir() else [target]
    say(f"{source} -> {target} ({sum(p.stat().st_size for p in files):,} bytes)")
