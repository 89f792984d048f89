"""The status of lead enrichment, for a whole list at once: in a notebook, in ETL, at the command line.

The names are imported when they are first used, so that the command line answers ``--help`` without pandas and DuckDB.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import Any

from enrichstatus.accessor.registration import register

#: Where each public name lives, as the stub beside this file says.
_HOMES = {
    alias.name: node.module
    for node in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(node, ast.ImportFrom) and node.module
    for alias in node.names
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value = version("enrichstatus")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


register()
