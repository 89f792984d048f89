"""Processes that a test starts and kills: they begin with what takes long to import."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

#: One server forks the processes of all tests of a worker, and what it has imported is decided when it starts.
_IMPORTED = [
    *("pandas", "polars", "pyarrow.parquet", "pytest", "enrichstatus.polling.completed", "enrichstatus.server"),
    *("enrichstatus.simulation", "enrichstatus.sources.client.transport.transport", "enrichstatus.sources.store.store"),
]


def processes() -> ForkServerContext:
    """Give what starts them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    return context
