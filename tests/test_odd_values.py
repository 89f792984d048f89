"""Odd values are bad values: of every public call and every argument, an error of ours, or a TypeError; nothing else comes through."""

from __future__ import annotations

import datetime as dt
import decimal
import fractions
import inspect
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import EnrichStatusError
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task, uid

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

VALUES: dict[str, Any] = {
    "bytes": b"x", "decimal": decimal.Decimal("1.5"), "decimal NaN": decimal.Decimal("sNaN"), "complex": 1j, "set": {"emails"},
    "fraction": fractions.Fraction(1, 3), "nan": math.nan, "inf": math.inf, "-inf": -math.inf, "nested": [["emails"]],
    "deep": {"a": {"b": [None]}}, "beyond 64 bits": 2**70, "huge": 10**5000, "-huge": -(10**5000), "surrogate": "\ud800",
    "surrogates": ["\udfff"], "mapped surrogate": {"\ud800": "\ud800"}, "mapped huge": {"emails": 10**5000}, "NUL": "a\0b",
    "numpy int": np.int64(3), "numpy NaN": np.float32("nan"), "numpy text": np.str_("emails"), "numpy time": np.datetime64("NaT"),
    "array": np.array([1, 2]), "empty array": np.array([]), "series": pd.Series(["emails", "x"]), "NA": pd.NA, "NaT": pd.NaT,
    "object": object(), "true": True, "zero": 0, "below zero": -1, "empty": "", "space": " ", "tuple": (), "mapping": {},
    "function": len, "type": str, "range": range(3), "last instant": dt.datetime.max, "first instant": dt.datetime.min, "date": dt.date(2026, 1, 1),
    "time": dt.time(1, 2), "longest": dt.timedelta.max, "long": "x" * 5000, "list of numbers": [1, 2.5, None], "none": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Callable[..., Any], dict[str, Any]]]]:
    """Every public call, with arguments that work; in a folder of its own, where a name may be a file's."""
    folder = tmp_path_factory.mktemp("odd")
    leads = pd.DataFrame({"lead_id": [uid(0), uid(1)], "n": [1, 2]})
    tasks = [task(0), task(1)]
    pd.DataFrame([record(0)]).to_parquet(folder / "r.parquet")
    pd.DataFrame(tasks).to_csv(folder / "t.csv", index=False)
    with es.EnrichmentStore(org_id=ORG) as store, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        store.load([record(0, status="finished"), record(1, status="failed", dataFound=None)])
        status = store.lookup(tasks, now=NOW)
        waiting = {"sleep": lambda seconds: None, "deadline": 1}
        where = {"entity_id": "lead_id", "fields": "emails"}
        accessor = leads.enrichment
        client = es.EnrichmentClient("http://127.0.0.1:9", token="t", retries=0)

        def all_of(poll: Callable[..., Any]) -> Callable[..., Any]:
            poll_all = lambda *given, **options: list(poll(*given, **options))  # noqa: E731
            poll_all.__signature__ = inspect.signature(poll)  # type: ignore[attr-defined]
            return poll_all

        yield {
            "EnrichmentStore": (es.EnrichmentStore, {}),
            "load": (store.load, {"records": [record(2)]}),
            "load a file": (store.load, {"records": "t.csv", "errors": "reject"}),
            "scan": (es.EnrichmentStore.scan, {"records": "r.parquet"}),
            "lookup": (store.lookup, {"tasks": tasks}),
            "lookup_to": (store.lookup_to, {"tasks": "t.csv", "output": "o.csv", "overwrite": True}),
            "records": (store.records, {}),
            "query": (store.query, {"body": {"tasks": tasks}}),
            "leases": (store.leases, {}),
            "tasks_from_leads": (es.tasks_from_leads, {"leads": leads, **where}),
            "plan": (es.plan, {"source": store, "tasks": tasks}),
            "spread": (es.spread, {"status": status}),
            "coverage": (es.coverage, {"status": status}),
            "diff": (es.diff, {"a": status, "b": status}),
            "timing": (es.timing, {"store": store}),
            "waste": (es.waste, {"store": store}),
            "require": (es.require, {"status": status, "ended": 0.1}),
            "lookup_sql": (es.lookup_sql, {}),
            "Backoff": (es.Backoff, {}),
            "Adaptive": (es.Adaptive, {}),
            "poll": (all_of(es.poll), {"source": store, "tasks": tasks, **waiting}),
            "as_completed": (all_of(es.as_completed), {"source": store, "tasks": tasks, **waiting}),
            "resume": (es.resume, {"token": next(es.poll(store, tasks, **waiting)).token, "source": store}),
            "wait": (es.wait, {"source": store, "tasks": tasks, **waiting}),
            "EnrichmentClient": (es.EnrichmentClient, {"base_url": "https://api.example.com", "token": "t"}),
            "client.lookup": (client.lookup, {"tasks": tasks}),
            "client.query": (client.query, {"body": {"tasks": tasks}}),
            "client.trigger": (client.trigger, {"plan": es.plan(store, tasks, costs={"emails": 1}), "into": store, "max_credits": 1}),
            "enrichment.status": (accessor.status, {"source": store, **where}),
            "enrichment.plan": (accessor.plan, {"source": store, **where}),
            "enrichment.coverage": (accessor.coverage, {"source": store, **where}),
        }  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_an_odd_argument_is_an_error_of_ours(
    name: str, calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]]
) -> None:
    """Whatever is given for an argument of a public call, what is raised is ours or, for a mistake in a program, a TypeError."""
    dice, value = random.Random(name), VALUES[name]
    wrong = []
    pairs = [
        (call, argument)
        for call, (function, _) in calls.items()
        for argument, parameter in inspect.signature(function).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and argument not in ("sleep", "clock", "random")  # a program's own functions
    ]

    for call, argument in dice.sample(pairs, min(cases(12, 10_000), len(pairs))):
        function, given = calls[call]
        try:
            function(**given | {argument: value})
        except (EnrichStatusError, TypeError) as error:
            str(error).encode("utf-8", "backslashreplace")
        except Exception as error:
            wrong.append(f"{call}({argument}={name}): {type(error).__name__}: {str(error)[:100]}")
    assert not wrong, "\n".join(wrong)


def test_an_argument_that_takes_names_says_so(
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]], tmp_path: Path
) -> None:
    """Whatever is not a name or several, of every argument that takes such, is an error that names the argument."""
    leads = pd.DataFrame({"id": [uid(0)]})
    leads.to_csv(tmp_path / "l.csv", index=False)
    with es.EnrichmentStore(org_id=ORG) as store:
        files = {"tasks": tmp_path / "l.csv", "output": tmp_path / "o.csv", "entity_id": "id"}
        taking: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
            (*calls["plan"], "retry"),
            (store.lookup_to, files, "fields"),
            (es.tasks_from_leads, {"leads": leads, "entity_id": "id"}, "fields"),
            (store.holds, {}, "fields"),
            (store.holds, {}, "entity_type"),
            (*calls["lookup"], "columns"),
            (*calls["coverage"], "by"),
        ]
        strange = [
            5,
            decimal.Decimal("1.5"),
            pd.NA,
            np.array(1),
            np.array([1, 2]),
            pd.Series([1.5]),
            [["emails"]],
            object(),
        ]
        for function, given, argument in taking:
            for value in strange:
                with pytest.raises(es.ValidationError) as raised:
                    function(**given | {argument: value})
                assert raised.value.argument == argument, (argument, value)
        store.load([record(0)])
        assert store.holds(np.array(["emails"]))
        assert not store.holds("phones")


CELLS = {name: value for name, value in VALUES.items() if name not in ("function", "type", "object")}


@pytest.mark.parametrize("errors", ["raise", "coerce"])
def test_an_odd_cell_of_a_task_is_a_bad_value(errors: Any) -> None:
    """In a list of dicts and in a frame, in every column of a key and of one's own."""
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])
        for name in random.Random(errors).sample(sorted(CELLS), cases(3, len(CELLS))):
            for column in ("entityId", "entityType", "field", "mine"):
                rows = [task(0), task(1) | {column: CELLS[name]}]
                for given in (
                    rows,
                    pd.DataFrame({key: pd.Series([row.get(key) for row in rows], dtype=object) for key in rows[1]}),
                ):
                    try:
                        answer = store.lookup(given, errors=errors)
                    except es.ValidationError:
                        assert errors == "raise" or "surrogate" in name, (name, column)
                    else:
                        assert len(answer) == 2, (name, column)
                        assert answer["status"][0] == "finished" or column == "entityType", (name, column)


@pytest.mark.parametrize("errors", ["raise", "reject"])
def test_an_odd_cell_of_a_record_is_a_bad_value(errors: Any) -> None:
    """Of every column; with ``errors="reject"`` the good record is loaded."""
    for name in random.Random(errors).sample(sorted(CELLS), cases(2, len(CELLS))):
        with es.EnrichmentStore(org_id=ORG) as store:
            for number, column in enumerate(record()):
                good, bad = record(2 * number), record(2 * number + 1) | {column: CELLS[name]}
                try:
                    report = store.load([good, bad], errors=errors)
                except es.ValidationError:
                    assert errors == "raise" or "surrogate" in name, (name, column)
                else:
                    assert report.read == 2, (name, column)
                    assert errors == "raise" or report.inserted >= 1, (name, column)
