"""How many cases a test of many takes: some by default, all of them with ``pytest --all-cases``."""

from __future__ import annotations

from collections.abc import Collection
from itertools import cycle, islice, product
from typing import Any

_all = False


def take_all(every: bool) -> None:
    """Decide it once for the run, before the tests are collected."""
    global _all
    _all = every


def cases(some: int, of_all: int) -> int:
    """Choose between two numbers of cases; also for decorators, which a fixture comes too late for."""
    return of_all if _all else some


def crossed(*values: Collection[Any]) -> list[tuple[Any, ...]]:
    """Combine the values of several parameters: each value occurs by default, each combination with all cases."""
    if _all:
        return list(product(*values))
    return list(islice(zip(*map(cycle, values), strict=True), max(map(len, values))))
