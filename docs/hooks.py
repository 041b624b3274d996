"""Links of pages to files of the repository: on the site they become the file's name alone."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)\s#]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``[text](../path)`` → ``text (`path`)``: the site does not hold what lies beside docs/."""
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)
