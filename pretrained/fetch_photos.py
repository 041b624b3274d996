"""Collect training photographs for the image model from Debian packages of wallpapers.

Only the weights are shipped, not the pictures, so this script is how to get the pictures again.
It asks apt for each package, unpacks it without installing, and keeps the files named below:
photographs picked by eye, no paintings, renderings or gradients, under licences that allow derived
works and commercial use. Each is shrunk by area averaging, by 1.5 or more and by 2 or more where
its longer side stays at 1280 or above, which averages the JPEG artefacts away and leaves the
statistics of a 768x512 photograph. The table of sources and licences goes to standard output and
to photos.tsv in the output folder; its "terms" column separates permissive licences (CC0, CC BY,
BSD, public domain) from copyleft (GPL, LGPL) and share-alike (CC BY-SA).
"""

import argparse
import fnmatch
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np

LONGEST = (1280, 1536)  # longer side of the output, between these where the source allows it
LEAST_FACTOR = 1.5
SMALLEST = 768  # a source whose longer side ends below this is skipped

# package: (folder, file names)
PHOTOS = {
    "budgie-core": ("usr/share/backgrounds/budgie", ["default.jpg"]),
    "enlightenment-data": (
        "usr/share/enlightenment/data/backgrounds",
        [
            "Bamboo.edj",
            "God-Rays.edj",
            "Green-Maple.edj",
            "Lichen-Branches.edj",
            "Mountain.edj",
            "Red-Maple.edj",
            "Sea-of-Lanterns.edj",
            "Snow-Trees.edj",
            "Spruce-Needles.edj",
            "Sunset-Clouds.edj",
            "White-Flower.edj",
            "Yellow-Flower.edj",
        ],
    ),
    "lomiri-wallpapers-16.04": (
        "usr/share/backgrounds",
        [
            "Bridge_by_Sander_Klootwijk.jpg",
            "Dragonfly_by_Bolly.jpg",
            "Picture_0B_by_freespace.jpg",
            "Picture_1A_by_freespace.jpg",
            "Wine_by_Jakkub_Mede.jpg",
            "aitzgorri_by_Aitzol_Berasategi.jpg",
            "free_by_Peter_Nerlich.jpg",
            "friends_by_Aitzol_Berasategi.jpg",
            "greentock_by_Peter_Nerlich.jpg",
            "life_by_Aitzol_Berasategi.jpg",
            "picosdeeuropa_by_Aitzol_Berasategi.jpg",
            "seeding_by_Clements_Engelhardt.jpg",
            "sunset_by_Aitzol_Berasategi.jpg",
        ],
    ),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds", ["Kleiber_by_Lukas_Baubkus.jpg"]),
    "lxqt-themes": (
        "usr/share/lxqt/wallpapers",
        [
            "Butterfly-Kenneth-Wimer.jpg",
            "Valendas.png",
            "after-the-rain.jpg",
            "appleflower.png",
            "beam.png",
            "butterfly.png",
            "drop.png",
            "flowers.png",
            "fog.jpg",
            "this-is-not-windows.jpg",
        ],
    ),
    "mate-backgrounds": (
        "usr/share/backgrounds/mate/nature",
        [
            "Aqua.jpg",
            "Blinds.jpg",
            "Dune.jpg",
            "FreshFlower.jpg",
            "Garden.jpg",
            "GreenMeadow.jpg",
            "LadyBird.jpg",
            "RainDrops.jpg",
            "Storm.jpg",
            "TwoWings.jpg",
            "Wood.jpg",
            "YellowFlower.jpg",
        ],
    ),
    "palapeli-data": (
        "usr/share/palapeli/collection",
        ["cincinnati-bridge.jpg", "citrus-fruits.jpg", "european-honey-bee.jpg"],
    ),
    "plasma-workspace-wallpapers": (
        "usr/share/wallpapers",
        [
            "BytheWater/contents/images/2560x1600.jpg",
            "ColdRipple/contents/images/2560x1600.jpg",
            "ColorfulCups/contents/images/2560x1600.jpg",
            "DarkestHour/contents/images/2560x1600.jpg",
            "EveningGlow/contents/images/2560x1600.jpg",
            "FallenLeaf/contents/images/2560x1600.jpg",
            "Grey/contents/images/2560x1600.jpg",
            "Kite/contents/images/2560x1600.jpg",
            "OneStandsOut/contents/images/2560x1600.jpg",
            "Path/contents/images/2560x1600.jpg",
            "summer_1am/contents/images/2560x1600.jpg",
        ],
    ),
    "sddm-theme-maldives": ("usr/share/sddm/themes/maldives", ["background.jpg"]),
}
COLUMNS = ("package", "version", "file", "width", "height", "factor", "terms", "licence", "author")


def download(package, folder):
    """Fetch and unpack one package; return its version and the folder with its files."""
    # the temporary folder is closed to the user that apt would switch to when run by root
    fetch_deb = ["apt-get", "-o", "APT::Sandbox::User=root", "download", package]
    subprocess.run(fetch_deb, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (archive,) = folder.glob("*.deb")
    root = folder / "root"
    subprocess.run(["dpkg-deb", "-x", archive, root], check=True)
    field = ["dpkg-deb", "-f", archive, "Version"]
    version = subprocess.run(field, check=True, capture_output=True, text=True).stdout.strip()
    archive.unlink()
    return version, root


def copyright_of(text, name):
    """Author and licence of a file from a machine-readable debian/copyright.

    Paths there are those of the source, so the file is found by its name; without an entry of its
    own it falls under "Files: *".
    """
    found = {}
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ \t]*(.*(?:\n[ \t].*)*)", paragraph, re.M))
        for pattern in fields.get("Files", "").split():
            own = fnmatch.fnmatchcase(name, pattern.rsplit("/", 1)[-1])
            if pattern == "*" or (own and pattern.rsplit("/", 1)[-1].strip("*")):
                found[pattern != "*"] = fields
    fields = found.get(True) or found[False]
    holders = [
        re.sub(r"\s*<[^>]*>´?", "", line).strip() for line in fields["Copyright"].split("\n")
    ]
    author = "; ".join(holders) if True in found else f"{holders[0]} and others"
    return author, fields["License"].split("\n")[0].strip()


def credit(root, package, path):
    """Author and licence of a picture: debian/copyright, and what lies beside the picture."""
    text = (root / "usr/share/doc" / package / "copyright").read_text(encoding="utf-8")
    author, licence = copyright_of(text, path.name)
    if package == "plasma-workspace-wallpapers":
        plugin = json.loads((path.parents[2] / "metadata.json").read_bytes())["KPlugin"]
        author = ", ".join(person["Name"] for person in plugin["Authors"])
        licence += f" (its metadata: {plugin['License']})"
    elif package == "palapeli-data":
        puzzle = path.with_suffix(".desktop").read_text(encoding="utf-8")
        author, licence = (
            re.search(rf"^X-KDE-PluginInfo-{key}=(.*)$", puzzle, re.M)[1]
            for key in ("Author", "License")
        )
    return author, licence


def terms_of(licence):
    """Group a licence; refuse the ones that weights should not be trained under."""
    if re.search(r"\b(NC|ND)\b", licence):
        raise ValueError(f"licence {licence} forbids derived works or commercial use")
    for pattern, terms in (
        (r"CC-BY-SA", "share-alike"),
        (r"GPL", "copyleft"),
        (r"CC-BY|CC0|BSD|Public Domain", "permissive"),
    ):
        if re.search(pattern, licence):
            return terms
    raise ValueError(f"unknown licence {licence}")


def read_rgb(path):
    """Decode a picture to 8-bit RGB; of an Edje file take the largest JPEG stored in it."""
    data = path.read_bytes()
    if path.suffix == ".edj":
        image = max(embedded_jpegs(data), key=lambda image: image.size)
    elif data[:4] == b"\x89PNG":
        image = imagecodecs.png_decode(data)
    elif data[:4] == b"RIFF":
        image = imagecodecs.webp_decode(data)
    else:
        image = imagecodecs.jpeg8_decode(data)
    if image.dtype == np.uint16:
        image = (image // 257).astype(np.uint8)
    if image.ndim == 2:
        image = image[..., None]
    if image.shape[2] in (2, 4):
        if image[..., -1].min() < 255:
            raise ValueError(f"{path.name} is not opaque")
        image = image[..., :-1]
    return np.broadcast_to(image, (*image.shape[:2], 3))


def embedded_jpegs(data):
    """Every colour JPEG stored uncompressed inside a container."""
    for start in re.finditer(rb"\xff\xd8\xff[\xdb\xe0\xe1]", data):
        try:
            image = imagecodecs.jpeg8_decode(data[start.start() :])
        except imagecodecs.Jpeg8Error:  # the three bytes were there by chance
            continue
        if image.ndim == 3:
            yield image


def shrink_factor(longer):
    """How far to shrink a picture with this longer side, or None when it is too small."""
    factor = max(longer / np.clip(longer / 2, *LONGEST), LEAST_FACTOR)
    return factor if longer / factor >= SMALLEST else None


def average(plane, size, axis):
    """Resample one axis to ``size`` samples, each the mean over its exact extent."""
    plane = np.moveaxis(plane, axis, 0)
    total = np.concatenate([np.zeros_like(plane[:1]), plane]).cumsum(axis=0)
    edges = np.linspace(0, len(plane), size + 1)
    below = np.minimum(edges.astype(int), len(plane) - 1)
    at_edges = total[below] + (edges - below)[:, None] * plane[below]
    return np.moveaxis(np.diff(at_edges, axis=0) * (size / len(plane)), 0, axis)


def shrink(image, factor):
    """Area average of an RGB image, 8 bits in and out."""
    height, width = (round(side / factor) for side in image.shape[:2])
    planes = [
        average(average(image[..., channel].astype(np.float64), height, 0), width, 1)
        for channel in range(3)
    ]
    return np.rint(np.stack(planes, axis=-1)).clip(0, 255).astype(np.uint8, order="C")


def fetch(package, output):
    """Write the photographs of one package; yield a row of the table for each."""
    folder, names = PHOTOS[package]
    with tempfile.TemporaryDirectory() as temporary:
        version, root = download(package, Path(temporary))
        for name in names:
            path = root / folder / name
            if not path.is_file():
                print(f"{package} {version} has no {name}", file=sys.stderr)
                continue
            author, licence = credit(root, package, path)
            terms = terms_of(licence)
            image = read_rgb(path)
            factor = shrink_factor(max(image.shape[:2]))
            if factor is None:
                print(f"{package} {name} is too small: {image.shape[:2]}", file=sys.stderr)
                continue
            image = shrink(image, factor)
            title = Path(name.split("/")[0]).stem
            (output / f"{package}-{title}.png").write_bytes(imagecodecs.png_encode(image, level=6))
            height, width = image.shape[:2]
            yield package, version, name, width, height, f"{factor:.2f}", terms, licence, author


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output", type=Path, help="folder for the PNG files and photos.tsv")
    parser.add_argument("--package", action="append", choices=PHOTOS, help="only this package")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = []
    with (arguments.output / "photos.tsv").open("w", encoding="utf-8") as table:
        for stream in (table, sys.stdout):
            print(*COLUMNS, sep="\t", file=stream)
        for package in arguments.package or PHOTOS:
            for row in fetch(package, arguments.output):
                for stream in (table, sys.stdout):
                    print(*row, sep="\t", file=stream, flush=True)
                rows.append(row)
    pixels = sum(row[3] * row[4] for row in rows)
    print(f"{len(rows)} photographs, {pixels / 1e6:.1f} megapixels", file=sys.stderr)


if __name__ == "__main__":
    main()
