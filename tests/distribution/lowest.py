"""Print, as constraints for pip, the lowest version of everything that pyproject.toml names.

    python tests/distribution/lowest.py plot archive media > build/lowest.txt

The arguments are the extras whose requirements are wanted besides those of the package itself.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def lowest(extras: list[str]) -> dict[str, Version]:
    """The highest of the lower bounds of each requirement."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    versions: dict[str, Version] = {}
    for requirement in map(Requirement, lines):
        bounds = [Version(s.version) for s in requirement.specifier if s.operator == ">="]
        if not bounds:
            raise SystemExit(f"pyproject.toml gives no lower bound: {requirement}")
        name = requirement.name
        versions[name] = max([*bounds, versions[name]] if name in versions else bounds)
    return versions


if __name__ == "__main__":
    for name, version in sorted(lowest(sys.argv[1:]).items()):
        print(f"{name}=={version}")
