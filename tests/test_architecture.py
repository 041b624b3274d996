"""Modules stand in layers, imports point down, and ``docs/architecture.md`` draws the same."""

from __future__ import annotations

import ast
import re
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "coinpp_xr"

# From the ground up. A package stands for all modules in it, "coinpp_xr" for its public names.
LAYERS = {
    "ground": "errors files settings version caching compiled parallel progress notebook_html "
    "text_tables elementary products",
    "points": "axes coordinates harmonics cosines",
    "network": "latent_maps siren network evaluation fitting devices",
    "bits": "cells kept_cells byte_reading quantization mixing orthonormal binary entropy "
    "coefficients exact "
    "bitstream transform reference causal stepping patches patch_header splitting blocks bands "
    "priors deblocking fields lattice coding finishing shared_values source_steps step_room "
    "step_search inner_steps sigmoid whole_numbers float_digits",
    "models": "climatology model_schema model_files model models model_units compact",
    "schemes": "coarseness recognition schemes patterns residual ways choice rmse_choice lossless "
    "patch_latents patch_reading patch_subject field_reading",
    "one chunk": "chunk_cells chunk chunk_fields chunk_reading guarantees patch_chunk",
    "training": "training eofs candidates patch_candidates data building sizing "
    "climatology_building patch_learning deblocking_training patch_building",
    "codecs": "codecs xarray_encoding",
    "reports": "labels units ecmwf_units spread metrics "
    "variable_report selection maps bits_map plots report coin peers",
    "datasets": "rate_requests recommended recommendation_table "
    "roundtrip compression_result blockwise "
    "catalogue comparison comparison_table model_choice planning verification provenance stores "
    "chunk_places computing writing compressed_file file_header",
    "archives": "archiving",
    "accessors": "accessor array_accessor",
    "public names": "coinpp_xr",
    "the paper": "reproduction",
    "command line": "cli curves",
}
HEIGHT = {name: height for height, layer in enumerate(LAYERS.values()) for name in layer.split()}
# torch comes with a GPU machine; what else training on one needs has to be brought there.
BARE_MACHINE = {"numpy", "torch", "safetensors"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def place(module: str) -> str:
    """The name that stands in a layer: ``data`` for ``coinpp_xr.data.fields``."""
    return (module.split(".") * 2)[1]


def imported(module: str) -> set[str]:
    """What a module imports anywhere, also inside functions, by full names."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{source}.{alias.name}" for alias in node.names}
    return names


def our_own(name: str) -> str | None:
    """The module that an imported name is, or is in."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name or None


IMPORTS = {
    module: {own for name in imported(module) if (own := our_own(name)) not in (None, module)}
    for module in FILES
}


def test_every_module_stands_in_one_layer() -> None:
    listed = [name for layer in LAYERS.values() for name in layer.split()]
    assert sorted(listed) == sorted({place(module) for module in FILES})


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_point_down(module) -> None:
    assert not {name for name in IMPORTS[module] if HEIGHT[place(name)] > HEIGHT[place(module)]}


def test_no_module_imports_itself_through_others() -> None:
    try:
        TopologicalSorter(IMPORTS).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


def test_training_needs_no_more_than_a_bare_machine_has() -> None:
    needed: set[str] = set()
    waiting = ["coinpp_xr.training"]
    while waiting:
        module = waiting.pop()
        if module not in needed:
            needed.add(module)
            waiting += IMPORTS[module]
    foreign = {name.split(".")[0] for module in needed for name in imported(module)}
    assert foreign - {"coinpp_xr"} - set(sys.stdlib_module_names) <= BARE_MACHINE


def test_the_picture_shows_the_layers() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    picture = re.search(r"^```text\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    drawn: dict[str, set[str]] = {}
    for line in picture[1].splitlines():
        label, names = line[:14].strip(), line[14:].split()
        drawn.setdefault(label or list(drawn)[-1], set()).update(names)
    assert [*drawn.items()] == [(k, set(v.split())) for k, v in reversed(LAYERS.items())]


def test_every_module_is_described() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = "\n".join(line for line in text.splitlines() if line.startswith("| `"))
    assert not {name for name in HEIGHT if f"`{name}`" not in table and f"`{name}/`" not in table}


def test_few_modules_are_long() -> None:
    lengths = {name: len(path.read_text().splitlines()) for name, path in FILES.items()}
    long = {name.removeprefix("coinpp_xr.") for name, n in lengths.items() if n > 410}
    assert long == {"causal", "blocks", "cli.train"}
