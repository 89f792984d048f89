"""``leads.enrichment`` is there as soon as pandas is, in whichever order the two are imported."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.accessor.accessor import Enrichment


def register() -> None:
    """Register the accessor now, or when pandas is imported: ``import enrichstatus`` alone does not wait for pandas."""
    if "pandas" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _WhenPandasIsImported())


def _register() -> None:
    import pandas as pd

    accessor: Any = _enrichment  # a function will do where pandas wants a class
    if getattr(pd.DataFrame, "enrichment", None) is not accessor:
        pd.api.extensions.register_dataframe_accessor("enrichment")(accessor)


def _enrichment(leads: pd.DataFrame) -> Enrichment:
    """The enrichment of a lead list: ``status``, ``plan`` and ``coverage``; see `enrichstatus.Enrichment`."""
    from enrichstatus.accessor.accessor import Enrichment

    return Enrichment(leads)


class _WhenPandasIsImported:
    """Finds pandas where the other finders do, and registers the accessor once it has been imported."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "pandas":
            return None
        others = [finder.find_spec for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for find in others if (spec := find(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                    _register()

            loader: Any = spec.loader
            loader.exec_module = execute_and_register
        return spec
