"""Write tables of README.md and pages of docs from the result files, or check them.

python benchmarks/tables.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path

from archive_tables import archive_scale
from common import load
from globe_tables import (
    coding_stages,
    fitting,
    model_size,
    shipped_model,
    target_rmse,
    throughput,
    train_your_own,
)
from grid_tables import chunks_table, grids_table
from lossless_tables import lossless_table
from media_tables import media, media_page
from native_tables import efforts, native_summary, rmse_table, transform_coders
from network_tables import latents_table, network_table
from own_archive_tables import own_archive
from peer_tables import comparison_page, summary
from reading_tables import chunk_lengths, native_archive
from reproduction_tables import reproduction
from safeguards_tables import safeguards_table
from science_tables import science_tables
from water_tables import water_section

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"
README = HERE.parent / "README.md"
PRETRAINED = HERE.parent / "pretrained"
UNIVERSAL = PRETRAINED / "universal.md"


def models_page(card: str) -> str:
    """The cards of the shipped models on one page, and one more."""
    cards = [
        (PRETRAINED / f"{line.split()[0].removesuffix('.safetensors')}.md").read_text()
        for line in (PRETRAINED / "registry.txt").read_text().splitlines()
    ]
    cards.append(card)
    intro = (
        "# Models\n\nThese travel with the package. `coinpp models list` shows what else is at "
        "hand, `coinpp models show NAME` a card. How they were trained: "
        "[pretrained/TRAINING.md](../pretrained/TRAINING.md).\n"
    )
    return "\n".join([intro, *(card.replace("# ", "## ", 1).rstrip() + "\n" for card in cards)])


def with_results(page: Path, results: str, **others: str) -> str:
    """A page's text with new tables between its marks; others are of other names."""
    text = page.read_text()
    for name, tables in {"results": results, **others}.items():
        start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, rest = text.split(start)
        _, after = rest.split(end)
        text = f"{before}{start}\n{tables}\n{end}{after}"
    return text


def from_docs(text: str) -> str:
    """Links as a page in docs has them."""
    return text.replace("](benchmarks/", "](../benchmarks/").replace("](docs/", "](")


def main() -> None:
    rest = [
        target_rmse(), model_size(), coding_stages(), train_your_own(), fitting(), shipped_model(),
        throughput(),
    ]  # fmt: skip
    # Its card is a part of the page of models.
    card = with_results(
        UNIVERSAL, network_table(load("network")), latents=latents_table(load("network_latents"))
    )
    pages = {
        UNIVERSAL: card,
        README: with_results(
            README,
            "\n".join(
                [native_summary(load("native")), summary(goals=(0.5, 50.0)), throughput(short=True)]
            ),
        ),
        DOCS / "measurements.md": with_results(
            DOCS / "measurements.md", from_docs("\n".join([*rest, media()]))
        ),
        DOCS / "comparison.md": comparison_page(),
        DOCS / "media.md": media_page(),
        DOCS / "archives.md": with_results(
            DOCS / "archives.md", native_archive(load("archive_native")) + "\n" + archive_scale()
        ),
        DOCS / "choose.md": with_results(
            DOCS / "choose.md",
            chunk_lengths(load("reading")) + "\n" + efforts(load("native")),
            lossless=lossless_table(load("lossless")),
            rmse=rmse_table(load("native_rmse")),
            coders=transform_coders(load("transform_coders")),
        ),
        DOCS / "grids.md": with_results(
            DOCS / "grids.md", grids_table(load("grids")), chunks=chunks_table(load("level_chunks"))
        ),
        DOCS / "models.md": models_page(card),
        DOCS / "reproduce.md": with_results(DOCS / "reproduce.md", reproduction()),
        DOCS / "safeguards.md": with_results(
            DOCS / "safeguards.md", safeguards_table(load("safeguards"))
        ),
        DOCS / "training.md": with_results(DOCS / "training.md", own_archive(load("own_archive"))),
        DOCS / "science.md": with_results(
            DOCS / "science.md",
            science_tables(load("science")),
            water=water_section(load("water")),
        ),
    }
    if "--check" in sys.argv:
        old = [page.name for page, content in pages.items() if page.read_text() != content]
        sys.exit(f"{', '.join(old)}: run python benchmarks/tables.py" if old else None)
    for page, content in pages.items():
        page.write_text(content)


if __name__ == "__main__":
    main()
