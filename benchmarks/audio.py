"""Speech at the COIN++ paper's rates: this package beside MP3, Opus and FLAC.

    COINPP_DATA=... python benchmarks/audio.py [--ours-only]

The first three seconds at 16 kHz, as in the paper, of the data folder's test clips that are so
long; no speaker of theirs was heard before. MP3 (LAME at its quality setting 9, which
is the nearest in PSNR, with its own or the widest band) and Opus
(for music, with frames of 20 and of 60 ms, with and without a narrower band, and with low delay)
through ffmpeg at many bit rates, at every rate whichever is better: packets without a container,
and of those no more than the share of three seconds. Their output is brought as near to the
original as a filter of 33 taps brings it, fitted to each clip and not charged. PSNR of (x + 1) / 2
as in the paper, averaged over clips: ours at the payload that keeps to the rate, that of others
interpolated between the two settings around it. Neither MP3 nor Opus aims at PSNR but at what is
heard. FLAC's rate is that without loss, and so is ours beside it. The paper's points, which stand
beside, are of other clips (LibriSpeech test-clean).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
from media import OURS, Coder, Points, folder, measure, points

from coinpp_xr import AudioPatchCodec
from coinpp_xr.reproduction.ffmpeg import ffmpeg_audio

# In kilobits per second; the first three are the paper's.
RATES = (5.631, 13.807, 27.482, 64.0)
SECONDS, HERTZ = 3, 16000


def peers(samples: np.ndarray) -> dict[str, list[Points]]:
    def mp3(**options: str) -> Coder:
        return lambda kilobits: ffmpeg_audio(
            samples, HERTZ, "libmp3lame", "mp3", int(1000 * kilobits), **options
        )

    def opus(**options: str) -> Coder:
        return lambda kilobits: ffmpeg_audio(
            samples, HERTZ, "libopus", "libopus", int(1000 * kilobits),
            vbr="on", compression_level="10", **options,
        )  # fmt: skip

    def each(coders: Sequence[Coder], kilobits: Sequence[float]) -> list[Points]:
        return [points(samples, coder, kilobits) for coder in coders]

    kilobits = (3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 44, 60, 80, 100)
    music = {"application": "audio"}
    return {
        "MP3": each(
            [mp3(compression_level="9"), mp3(compression_level="9", cutoff="8000")],
            (8, 16, 24, 32, 40, 48, 56, 64, 80, 96),
        ),
        "Opus": [
            *each([opus(**music), opus(**music, frame_duration="60")], kilobits),
            *each([opus(**music, frame_duration="60", cutoff="4000")], kilobits[:10]),
            *each([opus(application="lowdelay")], kilobits[8:]),
        ],
    }


def ours(samples: np.ndarray, kilobits: float) -> tuple[int, np.ndarray]:
    codec = AudioPatchCodec(target_bpp=1000 * kilobits / HERTZ)
    payload = codec.encode(samples)
    return len(payload), codec.decode(payload)


def without_loss(clips: dict[str, np.ndarray]) -> dict[str, float]:
    """Mean rates in kilobits per second."""
    codec = AudioPatchCodec(max_error=0.5)
    sizes: dict[str, list[int]] = {OURS: [], "FLAC": []}
    for samples in clips.values():
        whole = np.rint(samples * 32768).astype(np.int16)
        payload = codec.encode(whole)
        assert np.array_equal(codec.decode(payload), whole)
        buffer = io.BytesIO()
        soundfile.write(buffer, whole, HERTZ, "PCM_16", format="FLAC", compression_level=1.0)
        sizes[OURS].append(len(payload))
        sizes["FLAC"].append(len(buffer.getvalue()))
    return {
        name: round(float(np.mean(found)) * 8 / SECONDS / 1000, 2) for name, found in sizes.items()
    }


def main() -> None:
    clips: dict[str, np.ndarray] = {}
    for file in sorted((folder("audio") / "test").rglob("*.flac")):
        samples, rate = soundfile.read(file, dtype="float32")
        if rate == HERTZ and len(samples) >= SECONDS * HERTZ:
            clips[file.stem] = samples[: SECONDS * HERTZ]

    def lossless(kept: dict[str, Any]) -> dict[str, Any]:
        return {"lossless_kbps": without_loss(clips)}

    measure(
        "audio", f"{len(clips)} clips of LibriSpeech test-other, {SECONDS} s each", clips, RATES,
        ours, peers, paper="librispeech", peak=2.0, unit=HERTZ / 1000, rate_name="kbps",
        more=lossless,
    )  # fmt: skip


if __name__ == "__main__":
    main()
