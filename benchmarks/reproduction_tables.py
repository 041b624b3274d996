"""Tables of docs/reproduce.md, from the result files."""

from __future__ import annotations

import json
from typing import Any

from common import RESULTS, table


def reproduction() -> str:
    """The paper's claims, its table, and its figures."""
    from coinpp_xr.reproduction import ITEMS
    from coinpp_xr.reproduction.claims import table as claims

    records = {
        name: json.loads(path.read_text())
        for name in ITEMS
        if (path := RESULTS / "reproduction" / f"{name}.json").exists()
    }
    if not records:
        return ""
    machine = next(iter(records.values()))["machine"]
    hours = sum(record["seconds"] for record in records.values()) / 3600
    parts = [
        "## The paper's claims\n\nBy results of `coinpp reproduce all --quick` "
        f"({machine['processor']}, {machine['cores']} cores, {hours:.1f} hours in one unattended "
        "run beside other work, Table 1 once more with nothing beside it; "
        "[results](../benchmarks/results/reproduction)). Where there are several seeds, "
        "differences are of means with their standard errors; less than two of them is "
        "*undecided*. The rules behind the verdicts are in `coinpp_xr/reproduction/claims.py`. "
        "Learned image codecs (BMS, MBT, CST) and VTM were not run here, and no PSNR of the paper "
        "can be checked on other data.\n",
        claims(records),
        "## Data\n",
        data_of(records),
        "## Table 1\n",
        encoding_times(records["table1"]["findings"]) if "table1" in records else "",
        "## Figures\n",
        *(
            f"**{record['title']}** ({record['seconds'] / 60:.0f} min)\n\n"
            f"![{record['title']}](images/reproduction/{name}.png)\n"
            for name, record in records.items()
        ),
    ]
    return "\n".join(parts)


def data_of(records: dict[str, Any]) -> str:
    notes = {study: note for record in records.values() for study, note in record["data"].items()}
    return table(["for", "quick runs take"], [[study, note] for study, note in notes.items()])


def encoding_times(findings: dict[str, Any]) -> str:
    """Table 1."""
    rows = [
        [
            label,
            f"{1e3 * row['encode']:,.3g}",
            "–" if row["decode"] is None else f"{1e3 * row['decode']:,.3g}",
            f"{row['rate']:.2f}",
            f"{row['psnr']:.1f}",
        ]
        for label, row in findings["rows"].items()
    ]
    header = ["32 × 32 images, one thread", "encoding, ms", "decoding, ms", "bits per pixel", "dB"]
    return (
        f"COIN++ with {findings['latents']} latents, the SIREN with a linear tail with "
        f"{findings['latents_with_tail']}, all of {findings['bits']} bits, entropy coded; "
        "times per image, all measured in one run. *As in the paper* is meta-learned through its "
        "inner loop, at quick sizes; the other COIN++ is one network, meta-learned through matrix "
        "steps, "
        "which its inner loop or one matrix product encodes. Making that matrix takes "
        f"{1e3 * findings['seconds_to_make_the_matrix']:.0f} ms, once for all images:\n\n"
        + table(header, rows)
    )
