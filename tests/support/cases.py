"""How many cases a test of many takes: some by default, all of them with ``pytest --all-cases``."""

from __future__ import annotations

_all = False


def take_all(every: bool) -> None:
    """Decide it once for the run, before the tests are collected."""
    global _all
    _all = every


def cases(some: int, of_all: int) -> int:
    """Choose between two numbers of cases; also for decorators, which a fixture comes too late for."""
    return of_all if _all else some
