"""Tables of images, volumes and sound, from the result files."""

from __future__ import annotations

from typing import Any

import numpy as np
from common import load, table

# Result files: the rates' name and unit, and the published codecs that stand beside.
MEDIA = {
    "images": ("bpp", "bits per pixel", ("COIN", "COIN++", "JPEG2000", "BPG")),
    "audio": ("kbps", "kilobits per second", ("COIN++", "MP3")),
    "volumes": ("bpp", "bits per voxel", ("COIN++", "JPEG2000", "BPG")),
}


def media_page() -> str:
    link = "[{0}.json](../benchmarks/results/{0}.json)"
    equal = (
        "Our bits as a multiple of a peer's at the PSNR that ours reaches at the rate (geometric "
        "mean; below 1 ours is smaller), and on how many items the peer has the higher PSNR:\n"
    )
    return "\n".join(
        [
            "# Images, volumes and sound: measured\n",
            "Measured by `benchmarks/images.py`, `audio.py`, `volumes.py` and "
            "`media_throughput.py`, written by `benchmarks/tables.py` and `media_plots.py`. Every "
            "payload of ours keeps to the rate, everything in it counted. Others stand at the best "
            "of the settings that the scripts name, interpolated between the two around the rate, "
            "boxes and containers not counted. *Published* points are the COIN++ paper's and of "
            "other data. A number in brackets says how many items a codec can make so small.\n",
            "## Where ours falls short\n",
            f"Images. {standing('images')}\n",
            f"Speech. {standing('audio')} This is PSNR: MP3 and Opus spend their bits on what is "
            "heard, which is not measured here, and may well sound better. Without loss "
            f"{without_loss()}.\n",
            f"Heads. {standing('volumes')}\n",
            "Speed. Ours is slower than most codecs in C, see the last table.\n",
            "## Images\n",
            "![Rate and PSNR of 16 Kodak images](images/kodak.png)\n",
            f"{load('images')['data']}, mean PSNR in dB ({link.format('images')}). Published "
            "points are means over all 24 images. JPEG XL does not aim at PSNR.\n",
            decibels("images"),
            equal,
            shares("images"),
            "Every image at 0.266 bits per pixel:\n",
            each_item("images", 0.266, "image"),
            "## Speech\n",
            "![Rate and PSNR of speech](images/speech.png)\n",
            f"{load('audio')['data']}, mean PSNR in dB ({link.format('audio')}). Published points "
            "are of test-clean. The output of MP3 and Opus went through the filter that brings it "
            "nearest to the original, which favours them.\n",
            decibels("audio"),
            equal,
            shares("audio"),
            "Without loss, in kilobits per second: "
            + ", ".join(f"{name} {rate:g}" for name, rate in load("audio")["lossless_kbps"].items())
            + ".\n",
            "## Heads\n",
            "![Rate and PSNR of MRI heads](images/heads.png)\n",
            f"{load('volumes')['data']}, mean PSNR in dB ({link.format('volumes')}). Published "
            "points are of FastMRI: other scans. HEVC film predicts slices "
            "from their neighbours, HEVC-intra does not.\n",
            decibels("volumes"),
            equal,
            shares("volumes"),
            "Every volume at 0.2 bits per voxel:\n",
            each_item("volumes", 0.2, "volume"),
            "## Speed\n",
            f"{load('media_throughput')['data']}, by the number of threads "
            f"({link.format('media_throughput')}). Some codecs use one thread in any case.\n",
            media_speed(),
        ]
    )


def media() -> str:
    """Images, speech and heads in brief."""
    kbps = load("audio")["lossless_kbps"]
    link = "[results](benchmarks/results/{}.json)"
    return (
        f"`ImagePatchCodec`, {load('images')['data']} in 8 bits, mean PSNR in dB at the COIN++ "
        "paper's bits per pixel; every codec as good as it gets within the rate. What the paper "
        "published is over all 24 images, interpolated between its points; its BPG is HEVC's "
        f"coding of still images ({link.format('images')}; all tables and plots are in "
        "[docs/media.md](docs/media.md)):\n\n"
        + decibels("images")
        + f"\n`AudioPatchCodec`, {load('audio')['data']}, mean PSNR in dB of (x + 1) / 2. Neither "
        "MP3 nor Opus aims at PSNR: what is heard is not measured here. The paper's points are "
        f"of test-clean ({link.format('audio')}). Without loss ours takes {kbps['coinpp-xr']:g} "
        f"kilobits per second, FLAC {kbps['FLAC']:g}:\n\n"
        + decibels("audio")
        + f"\n`VolumePatchCodec`, {load('volumes')['data']} as floats in [0, 1], mean PSNR in dB. "
        "The paper's points are of FastMRI "
        f"({link.format('volumes')}):\n\n"
        + decibels("volumes")
        + "\nSpeed with one and with two threads, beside OpenJPEG and libaom "
        f"({link.format('media_throughput')}):\n\n" + media_speed()
    )


def by_codec(result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Rows in the order of the rates."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        found.setdefault(row["codec"], []).append(row)
    return found


def decibels(name: str) -> str:
    """Mean PSNR of every codec and of what the paper published."""
    result = load(name)
    rate_name, unit, published = MEDIA[name]
    rates, items = result[rate_name], len(result["ours"])
    lines = []
    for codec, rows in by_codec(result).items():
        # A mean over the easy items says nothing.
        cells = [
            f"{row['psnr_db']:.2f}" if row["items"] == items else
            f"({row['items']} only)" if row["items"] else "–"
            for row in rows
        ]  # fmt: skip
        lines.append([codec, *cells])
    for codec in published:
        x, y = zip(*result["published_by_the_paper"][codec], strict=True)
        lines.append(
            [
                f"{codec}, published",
                *(
                    f"{np.interp(rate, x, y):.1f}" if 0.98 * x[0] <= rate <= 1.01 * x[-1] else "–"
                    for rate in rates
                ),
            ]
        )
    return table([unit, *(f"{rate:g}" for rate in rates)], lines)


def shares(name: str) -> str:
    """How many bits ours takes of those that a peer takes for the same PSNR, and who wins where."""
    result = load(name)
    rate_name, unit, _ = MEDIA[name]
    items = len(result["ours"])
    lines = []
    for codec, rows in list(by_codec(result).items())[1:]:
        share = [
            f"{row['our_share_of_its_bits']:.2f} ×" if row["shares"] == items else "–"
            for row in rows
        ]
        wins = [
            f"{row['better_than_ours_on']} of {row['items']}" if row["items"] else "–"
            for row in rows
        ]
        lines.append([codec, *share, *wins])
    rates = [f"{rate:g}" for rate in result[rate_name]]
    return table([unit, *rates, *(f"better at {rate}" for rate in rates)], lines)


def standing(name: str) -> str:
    """In words, who is ahead of us and who is not."""
    result = load(name)
    items = len(result["ours"])
    codecs = by_codec(result)
    own = next(iter(codecs.values()))
    ahead, behind, between = [], [], []
    for codec, rows in list(codecs.items())[1:]:
        known = [
            (ours["psnr_db"] - row["psnr_db"], row)
            for ours, row in zip(own, rows, strict=True)
            if row["items"] == items
        ]
        if not known:
            continue
        margins = [margin for margin, _ in known]
        low, high = sorted((abs(min(margins)), abs(max(margins))))
        span = f"{high:.1f}" if round(low, 1) == round(high, 1) else f"{low:.1f} to {high:.1f}"
        text = f"{codec} by {span} dB"
        if min(margins) > 0:
            behind.append(text)
        elif max(margins) < 0:
            bits = [r["our_share_of_its_bits"] for _, r in known if r["shares"] == items]
            more = f", and we take {min(bits):.2f} to {max(bits):.2f} × its bits" if bits else ""
            ahead.append(text + more)
        else:
            rates = [f"{r[MEDIA[name][0]]:g}" for margin, r in known if margin < 0]
            between.append(f"{codec} at {', '.join(rates)} {MEDIA[name][1]}")
    sentences = []
    if ahead:
        sentences.append(f"Better than ours at every rate: {'; '.join(ahead)}.")
    if between:
        sentences.append(f"Better than ours at some rates: {'; '.join(between)}.")
    if behind:
        sentences.append(
            "Ours is better, at every rate that they reach on every item, than "
            f"{'; '.join(behind)}."
        )
    return " ".join(sentences)


def each_item(name: str, rate: float, label: str) -> str:
    """PSNR of every item at one rate."""
    result = load(name)
    number = result[MEDIA[name][0]].index(rate)
    lines = []
    for item, curves in result["peers"]["curves"].items():
        scores = [at_rate(curve, rate) for curve in curves.values()]
        own = f"{result['ours'][item][number]:.2f}"
        lines.append([item, own, *("–" if s is None else f"{s:.2f}" for s in scores)])
    return table([label, *by_codec(result)], lines)


def at_rate(curve: list[list[float]], rate: float) -> float | None:
    if not curve or not curve[0][0] <= rate <= curve[-1][0]:
        return None
    x, y = np.array(curve).T
    return float(np.interp(np.log(rate), np.log(x), y))


def media_speed() -> str:
    result = load("media_throughput")
    threads = list(result["by_threads"])
    names = {
        "images": ("images, megapixels per second", "{way}_megapixels_per_s"),
        "speech": ("speech, times real time", "{way}_times_real_time"),
        "volume of 256^3": ("256³ voxels, seconds", "{way}_s"),
    }
    lines = []
    for key, (label, field) in names.items():
        for setting in result["by_threads"][threads[0]][key]:
            cells = [
                f"{result['by_threads'][n][key][setting][field.format(way=way)]:.3g}"
                for way in ("encode", "decode")
                for n in threads
            ]
            lines.append([f"{label}: {setting}", *cells])
    header = [f"{way}, {n} thread{'s' * (n != '1')}" for way in ("encode", "decode")
              for n in threads]  # fmt: skip
    return table(["", *header], lines)


def without_loss() -> str:
    """In words, this package's rate beside FLAC's."""
    rates = load("audio")["lossless_kbps"]
    ratio = rates["coinpp-xr"] / rates["FLAC"]
    return f"ours takes {ratio:.2f} × the bits of FLAC"
