"""The paper's claims, each judged by the results of this package.

A verdict follows from numbers by a rule that is written down here; where a claim is about several
kinds of data it must hold on all of them, or the verdict names those on which it does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from coinpp_xr.reproduction.datasets import PAPER_RANGE
from coinpp_xr.reproduction.parameterizations import OURS

Records = dict[str, dict[str, Any]]

HOLDS, DIFFERS, UNTESTED = "holds here", "differs here", "not tested here"
# Differences smaller than this many standard errors over seeds say nothing.
_SURE = 2.0


@dataclass(frozen=True)
class Verdict:
    """On one claim.

    Parameters
    ----------
    holds : str
        One of the three verdicts, or on which data it holds.
    seen : str
        The numbers.
    """

    holds: str
    seen: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, and what decides on it.

    Parameters
    ----------
    item : str
        Where its numbers come from.
    text : str
    published : str
        The paper's number.
    judge : callable
        Findings of the item → Verdict.
    """

    item: str
    text: str
    published: str
    judge: Callable[[dict[str, Any]], Verdict]

    def verdict(self, records: Records) -> Verdict:
        """By the results at hand."""
        if self.item not in records:
            return Verdict(UNTESTED, f"no result of {self.item}")
        return self.judge(records[self.item]["findings"])


def table(records: Records) -> str:
    """All claims as a table in Markdown."""
    rows = ["| the paper says | published | here | verdict |", "| --- | --- | --- | --- |"]
    for claim in CLAIMS:
        found = claim.verdict(records)
        rows.append(
            f"| {claim.text} ({claim.item}) | {claim.published} | {found.seen} | {found.holds} |"
        )
    return "\n".join(rows) + "\n"


def _all(verdicts: dict[str, bool | None], seen: Iterable[str]) -> Verdict:
    """Of verdicts by data or by codec; None is undecided."""
    words = "; ".join(seen)
    if all(verdicts.values()):
        return Verdict(HOLDS, words)
    kept = [name for name, holds in verdicts.items() if holds]
    unsure = [name for name, holds in verdicts.items() if holds is None]
    if not kept and not unsure:
        return Verdict(DIFFERS, words)
    parts = [f"holds on {', '.join(kept)}"] if kept else []
    parts += [f"undecided on {', '.join(unsure)}"] if unsure else []
    lost = [name for name, holds in verdicts.items() if holds is False]
    parts += [f"differs on {', '.join(lost)}"] if lost else []
    return Verdict("; ".join(parts), words)


Found = tuple[bool | None, str]


def _on_each(one: Callable[[dict[str, Any]], Found]) -> Callable[[dict[str, Any]], Verdict]:
    """A judge of results by data, from one that looks at the findings on a single kind."""

    def judge(findings: dict[str, Any]) -> Verdict:
        found = {study: one(numbers) for study, numbers in findings.items()}
        verdicts = {study: holds for study, (holds, _) in found.items()}
        return _all(verdicts, [f"{study}: {seen}" for study, (_, seen) in found.items()])

    return judge


# ---- figure 5 ------------------------------------------------------------------------------------


@_on_each
def _beats_others(ways: dict[str, Any]) -> Found:
    margins = {
        label: _margin(ways[OURS]["test_psnr"], way["test_psnr"])
        for label, way in ways.items()
        if label != OURS
    }
    seen = [f"{m:+.2f} ± {e:.2f} dB on {label}" for label, (m, e) in margins.items()]
    return _every(_sure(*pair) for pair in margins.values()), ", ".join(seen)


def _margin(ours: list[float], other: list[float]) -> tuple[float, float]:
    """Difference of means over seeds, and its standard error."""
    error = np.sqrt(np.var(ours, ddof=1) / len(ours) + np.var(other, ddof=1) / len(other))
    return float(np.mean(ours) - np.mean(other)), float(error)


def _sure(margin: float, error: float, least: float = 0.0) -> bool | None:
    """Whether a difference is above ``least``; None where seeds differ too much to say."""
    return None if abs(margin - least) < _SURE * error else margin > least


def _every(decided: Iterable[bool | None]) -> bool | None:
    """False if one is False, else None if one is undecided."""
    found = list(decided)
    if False in found:
        return False
    return None if None in found else True


@_on_each
def _shifts_suffice(ways: dict[str, Any]) -> Found:
    """Shifts and scales together are surely better by less than half a decibel."""
    margin, error = _margin(ways["scales and shifts"]["test_psnr"], ways[OURS]["test_psnr"])
    more = _sure(margin, error, least=0.5)
    return None if more is None else not more, f"both {margin:+.2f} ± {error:.2f} dB"


@_on_each
def _scales_are_worse(ways: dict[str, Any]) -> Found:
    margin, error = _margin(ways[OURS]["test_psnr"], ways["scales"]["test_psnr"])
    return _sure(margin, error), f"shifts {margin:+.2f} ± {error:.2f} dB"


# ---- figure 7 ------------------------------------------------------------------------------------


@_on_each
def _best_bits(found: dict[str, Any]) -> Found:
    """At most rates that curves have in common."""
    best = sorted(found["best_bits_at_equal_rate"].values())
    if not best:
        return None, "curves have no rate in common"
    enough = sum(bits in (5, 6) for bits in best) > len(best) / 2
    return enough, f"{' to '.join(map(str, sorted({best[0], best[-1]})))} bits"


@_on_each
def _less_than_coin(found: dict[str, Any]) -> Found:
    pairs = {
        bits: [float(np.mean(found[label][str(bits)])) for label in ("COIN++", "COIN")]
        for bits in (5, 6, 8)
    }
    words = ", ".join(f"{b} bits {o:.2f} and {t:.2f} dB" for b, (o, t) in pairs.items())
    return all(ours > theirs for ours, theirs in pairs.values()), f"COIN++ and COIN at {words}"


@_on_each
def _more_latents_lose_more(found: dict[str, Any]) -> Found:
    drops = {int(k): float(np.mean(by_bits["5"])) for k, by_bits in found.items()}
    words = ", ".join(f"{k} latents {drops[k]:.2f} dB" for k in sorted(drops))
    return all(drops[a] >= drops[b] for a, b in pairwise(sorted(drops))), f"at 5 bits {words}"


@_on_each
def _saved(found: dict[str, Any]) -> Found:
    shares = [100 * s for by_seed in found["share_saved_by_entropy_coding"].values()
              for s in by_seed]  # fmt: skip
    low, mean, high = min(shares), float(np.mean(shares)), max(shares)
    return 8 <= mean <= 15, f"{mean:.0f} % ({low:.0f} to {high:.0f})"


# ---- rates ---------------------------------------------------------------------------------------


def _at(curve: dict[str, Any], rate: float) -> float | None:
    """PSNR of a curve at a rate, None outside."""
    rates, scores = np.array(curve["rate"], float), np.array(curve["psnr"], float)
    if not len(rates) or not rates.min() <= rate <= rates.max():
        return None
    return float(np.interp(np.log(rate), np.log(rates), scores))


def _lead(ours: dict[str, Any], other: dict[str, Any]) -> list[float]:
    """PSNR of ours over another at our points that the other reaches, too."""
    pairs = [(y, _at(other, x)) for x, y in zip(ours["rate"], ours["psnr"], strict=True)]
    return [y - theirs for y, theirs in pairs if theirs is not None]


def _leads(
    ours: str, *, above: tuple[str, ...] = (), below: tuple[str, ...] = ()
) -> Callable[[dict[str, Any]], Verdict]:
    """Whether a curve lies above some others and below some."""

    def judge(findings: dict[str, Any]) -> Verdict:
        wanted = dict.fromkeys(above, 1) | dict.fromkeys(below, -1)
        found = {other: _side(findings, ours, other) for other in wanted}
        verdicts = {
            f"{'above' if wanted[other] > 0 else 'below'} {other}": (
                None if side is None else side == wanted[other]
            )
            for other, (side, _) in found.items()
        }
        words = [seen for _, seen in found.values()]
        if set(verdicts.values()) == {None}:
            return Verdict(UNTESTED, "; ".join(words))
        return _all(verdicts, words)

    return judge


def _side(findings: dict[str, Any], ours: str, other: str) -> tuple[int | None, str]:
    """1 where our curve lies above another, -1 below, 0 where they cross; None: undecided.

    Where two curves have no rate in common, fewer bits at a higher PSNR decide, if there are.
    """
    if other not in findings:
        return None, f"{other}: not measured"
    lead = _lead(findings[ours], findings[other]) or [
        -d for d in _lead(findings[other], findings[ours])
    ]
    if not lead:
        return _dominates(findings[ours], findings[other]), f"{other}: no rate in common"
    side = 1 if min(lead) > 0 else -1 if max(lead) < 0 else 0
    return side, f"{min(lead):+.1f} to {max(lead):+.1f} dB on {other}"


def _dominates(ours: dict[str, Any], other: dict[str, Any]) -> int | None:
    """1 if one of our points has fewer bits and a higher PSNR than all others, -1 if the other way
    round.
    """
    for first, second, side in ((ours, other, 1), (other, ours, -1)):
        if any(x <= min(second["rate"]) and y >= max(second["psnr"])
               for x, y in zip(first["rate"], first["psnr"], strict=True)):  # fmt: skip
            return side
    return None


def _three_thousand(findings: dict[str, Any]) -> Verdict:
    """RMSE at a ratio of 3,000 to float32, of the paper's method; ours stands beside it."""
    seen, reached = [], {}
    for label in ("COIN++", "COIN++ by matrix steps (ours)"):
        score = _at(findings[label], 32 / 3000)
        if score is not None:
            reached[label] = PAPER_RANGE[1] * 10 ** (-score / 20)
            seen.append(f"{label}: {reached[label]:.2f} °C")
    if "COIN++" not in reached:
        return Verdict(UNTESTED, "; ".join([*seen, "COIN++ has no rate so low"]))
    return Verdict(HOLDS if reached["COIN++"] <= 0.55 else DIFFERS, "; ".join(seen))


# ---- time ----------------------------------------------------------------------------------------


def _faster_than_coin(findings: dict[str, Any]) -> Verdict:
    return _speeds(findings, ("COIN++, 10 steps", "COIN++, 3 steps"), least=100)


def _matrix_step(findings: dict[str, Any]) -> Verdict:
    labels = ("COIN++, one matrix step (ours)", "SIREN with a linear tail, one matrix step (ours)")
    return _speeds(findings, labels, least=3000)


def _speeds(findings: dict[str, Any], labels: tuple[str, ...], *, least: float) -> Verdict:
    """Against COIN with the paper's schedule; its fast one stands beside it."""
    verdicts = {
        label: None if against["coin"] is None else against["times_as_fast"] >= least
        for label in labels
        for against in [findings["against_coin"][label]]
    }
    return _all(verdicts, [_speed(label, findings) for label in labels])


def _speed(label: str, findings: dict[str, Any]) -> str:
    row, against = findings["rows"][label], findings["against_coin"][label]
    if against["coin"] is None:
        return f"{label}: {row['psnr']:.1f} dB, below every COIN"
    coin = findings["rows"][against["coin"]]
    return (
        f"{label}: {against['times_as_fast']:,.0f} × ({row['psnr']:.1f} dB at {row['rate']:.2f} "
        f"bits per pixel; {against['coin']}: {coin['psnr']:.1f} dB at {coin['rate']:.2f}), "
        f"{against['times_as_fast_as_its_fast_schedule']:,.0f} × its fast schedule"
    )


@_on_each
def _ten_steps(found: dict[str, Any]) -> Found:
    """Ten are no worse than three, and fifty change little."""
    first, then = _changes(found, "3 steps", "10 steps"), _changes(found, "10 steps", "50 steps")
    return min(first) >= -0.1 and max(map(abs, then)) <= 0.15, (
        f"3 to 10 steps {min(first):+.2f} to {max(first):+.2f} dB, "
        f"10 to 50 {min(then):+.2f} to {max(then):+.2f}"
    )


def _changes(found: dict[str, Any], before: str, after: str) -> list[float]:
    """Mean change of the PSNR for every number of latents."""
    return [float(np.mean(found[after][k]) - np.mean(found[before][k])) for k in found[before]]


@_on_each
def _fewer_steps(found: dict[str, Any]) -> Found:
    steps = found["coin_steps_to_reach_3_steps"]
    return None if steps is None else steps >= 300, (
        f"{found['coinpp_psnr_after_3_steps']:.1f} dB after 3 steps, COIN after "
        f"{steps or 'more than all its'} steps (COIN at its end "
        f"{found['coin_psnr_at_the_end']:.1f} dB)"
    )


@_on_each
def _learns_on(curves: dict[str, Any]) -> Found:
    """In the last third, too."""
    gains = [
        c["psnr"][-1] - c["psnr"][-1 - len(c["psnr"]) // 3]
        for label, c in curves.items()
        if "matrix" not in label
    ]
    return min(gains) > 0, f"{min(gains):+.1f} to {max(gains):+.1f} dB"


_BPG = "HEVC-intra (for BPG)"
CLAIMS = (
    Claim(
        "fig5-left", "Shifts by a linear map beat the modulations of Chan et al. and Mehta et al. "
        "at as many stored numbers", "by more than 3 dB", _beats_others,
    ),
    Claim("fig5-right", "Shifts suffice: scales beside them add little", "curves close together",
          _shifts_suffice),
    Claim("fig5-right", "Scales alone are worse than shifts", "worse", _scales_are_worse),
    Claim("fig6", "COIN++ beats COIN on small images at all rates", "e.g. 28.9 dB at 1.65 bits "
          "per pixel, COIN 25.8 at 3.6", _leads("COIN++", above=("COIN",))),
    Claim("fig6", "COIN++ is above JPEG and JPEG2000, below BPG, on small images",
          "so at all rates", _leads("COIN++", above=("JPEG", "JPEG2000"), below=(_BPG,))),
    Claim("fig7a", "5 to 6 bits a latent are enough", "5 or 6 bits lie highest", _best_bits),
    Claim("fig7b", "COIN++ loses less than COIN by quantization", "at 5 bits 0.8 dB",
          _less_than_coin),
    Claim("fig7c", "More latents lose more by quantization", "at 5 bits 0.4 to 3.5 dB",
          _more_latents_lose_more),
    Claim("fig7d", "Entropy coding saves 8 to 15 %", "8 to 15 %", _saved),
    Claim("table1", "COIN++ (here meta-learned through matrix steps) encodes two orders of "
          "magnitude faster than COIN, at no lower PSNR",
          "313 × (10 steps), 911 × (3 steps)", _faster_than_coin),
    Claim("table1", "(ours) one matrix step in place of the inner loop: at least 3,000 ×", "–",
          _matrix_step),
    Claim("fig8", "A ratio of 3,000 at 0.5 °C on ERA5", "0.54 °C (46.7 dB) at 2,600 ×",
          _three_thousand),
    Claim("fig8", "COIN++ beats JPEG2000 on ERA5 by far", "no rate in common: 40 dB at 1/100 of "
          "its rate", lambda f: _at_a_fraction(f, "COIN++", "JPEG2000")),
    Claim("fig9", "COIN++ is below JPEG2000 and BPG on Kodak", "by 2 to 5 dB",
          _leads("COIN++", below=("JPEG2000", _BPG))),
    Claim("fig10", "COIN++ is below MP3 on LibriSpeech", "by 5 dB and more",
          _leads("COIN++", below=("MP3",))),
    Claim("fig11", "COIN++ is below JPEG2000 and BPG on FastMRI", "by 1 to 3 dB",
          _leads("COIN++", below=("JPEG2000", _BPG))),
    Claim("fig12", "Meta-learning goes on to improve", "all curves rise", _learns_on),
    Claim("fig13", "10 inner steps are enough", "50 steps add at most 0.15 dB", _ten_steps),
    Claim("fig15", "COIN++ takes a few steps for what COIN takes hundreds to "
          "thousands for", "3 to 10 against thousands", _fewer_steps),
)  # fmt: skip


def _at_a_fraction(findings: dict[str, Any], ours: str, other: str) -> Verdict:
    """How many times fewer bits ours takes for what the other has at its lowest rate."""
    curve = findings[other]
    lowest = int(np.argmin(curve["rate"]))
    score, rate = curve["psnr"][lowest], curve["rate"][lowest]
    reached = [x for x, y in zip(findings[ours]["rate"], findings[ours]["psnr"], strict=True)
               if y >= score]  # fmt: skip
    if not reached:
        return Verdict(DIFFERS, f"{other}: {score:.1f} dB at {rate:.2g}, which {ours} is below")
    return Verdict(
        HOLDS if rate / min(reached) >= 10 else DIFFERS,
        f"{other}: {score:.1f} dB at {rate:.2g}, {ours} with {rate / min(reached):.0f} times fewer "
        "bits",
    )
