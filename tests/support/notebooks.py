"""The code of the notebooks, for tests that run a part of one."""

from __future__ import annotations

import json
import re
from pathlib import Path

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def cell(name: str, id_: str) -> str:
    """Give the source of a cell of a notebook, by its id."""
    [found] = [one for one in _cells(name) if one["id"] == id_]
    return "".join(found["source"])


def shown(name: str) -> list[str]:
    """Give the blocks of Python that a notebook shows and does not run."""
    texts = ["".join(one["source"]) for one in _cells(name) if one["cell_type"] == "markdown"]
    return [code for text in texts for code in re.findall(r"^```python\n(.+?)^```", text, re.DOTALL | re.MULTILINE)]


def _cells(name: str) -> list[dict[str, str]]:
    cells: list[dict[str, str]] = json.loads((NOTEBOOKS / name).read_text(encoding="utf-8"))["cells"]
    return cells
