"""What all tests share: the fixtures of `tests.support`, and how many cases a test of many takes."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest

import enrichstatus as es
from tests.support.browser import chromium, lab, lab_server, voila, voila_server
from tests.support.cases import cases, take_all
from tests.support.cluster import spark
from tests.support.factory import ORG
from tests.support.sources import make_source

__all__ = ["chromium", "lab", "lab_server", "make_source", "spark", "voila", "voila_server"]

# a benchmark is run, not tested
collect_ignore = ["bench", "typing/kinds.py"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-cases", action="store_true", help="try every case, where a test tries some of many by default"
    )
    parser.addoption(
        "--one-case",
        action="store_true",
        help="try the first case of each test and kind: to other versions of libraries the others would say the same",
    )


def pytest_configure(config: pytest.Config) -> None:
    take_all(config.getoption("--all-cases"))
    # a shell starts its background jobs with SIGINT ignored, and every process that a test starts would inherit that
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


#: What a test needs of the machine, by its fixtures; one worker has the cluster and one the browser, however many there are.
MACHINE = {
    "spark": "spark",
    "chromium": "browser",
    "lab_server": "browser",
    "voila_server": "browser",
    "psql": "postgresql",
}


#: The parameters by which other libraries are met: each of their values is tried with ``--one-case``, too.
KINDS = ("kind", "make_source", "ending")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Say of each test what it needs; what is slow comes first, so that no worker is left alone with it in the end."""
    if config.getoption("--one-case"):
        kept = {_case(item): item for item in reversed(items)}
        config.hook.pytest_deselected(items=[item for item in items if kept[_case(item)] is not item])
        items[:] = [item for item in items if kept[_case(item)] is item]
    for item in items:
        names = list(getattr(item, "fixturenames", ()))
        if hasattr(item, "callspec"):
            names.append(item.callspec.params.get("make_source"))
        marked = item.get_closest_marker("machine")
        for group in [*(marked.args if marked else ()), *(MACHINE[name] for name in MACHINE if name in names)][:1]:
            item.add_marker(pytest.mark.machine)
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fail where pytest-xdist does not read the groups, as 3.8 does not with pytest 9.2.0: each worker would start a cluster."""
    for item in session.items if hasattr(session.config, "workerinput") else []:
        group = item.get_closest_marker("xdist_group")
        if group and not item.nodeid.endswith(f"@{group.args[0]}"):
            raise pytest.UsageError(f"pytest-xdist does not keep {item.nodeid} on the worker of {group.args[0]!r}.")


def _case(item: pytest.Item) -> tuple[str, ...]:
    """Name a test and what of another library it meets."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    return item.nodeid.partition("[")[0], *(str(parameters.get(name)) for name in KINDS)


@pytest.fixture(name="cases", scope="session")
def _cases() -> Callable[[int, int], int]:
    """Choose between two numbers of cases: ``cases(some, of_all)`` is the second with ``--all-cases``."""
    return cases


@pytest.fixture
def store() -> es.EnrichmentStore:
    return es.EnrichmentStore(org_id=ORG)
