"""The words that a service has for a status: which are known, which are mapped, and what becomes of the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from tests.support.factory import NOW, ORG, record, task
from tests.support.sources import MakeSource

STATUSES = {"in_progress": "pending", " COMPLETED": "finished", "Überfällig": "timeout"}
SPELLED = {
    "In_Progress\t": "timeout",  # pending for longer than it may be
    "completed": "finished",
    "\u3000Completed ": "finished",
    "überfällig": "timeout",
    " FAILED": "failed",
    "parked": "parked",
}


def of_words(*words: str) -> list[dict[str, Any]]:
    return [record(n, status=word, dataFound=None) for n, word in enumerate(words)]


def test_the_words_of_a_service_mean_what_they_are_mapped_to(make_source: MakeSource):
    """In any case and with outer white space, in every source; a word that is not mapped is kept, and its outcome is unknown."""
    source = make_source(of_words(*SPELLED), statuses=STATUSES)
    found = source.lookup(pd.DataFrame([task(n) for n in range(len(SPELLED))]), columns=["status", "reason"], now=NOW)
    assert found["status"].tolist() == list(SPELLED.values())
    reasons = ["timed_out_here", "no_data", "no_data", "timed_out_there", "failed", "unknown"]
    assert found["reason"].tolist() == reasons


@pytest.mark.parametrize(
    ("statuses", "message"),
    [
        ({"done": "COMPLETE"}, "'done' to 'COMPLETE', but the contract's words are pending, finished, timeout, failed"),
        ({"Finished": "failed"}, "'Finished' to 'failed', but it is the contract's own word"),
        ({"done": "finished", "DONE ": "failed"}, "'DONE ' to 'failed', but it is mapped to 'finished', too"),
        ({" ": "failed"}, "words of a service, not ' '"),
        ({1: "failed"}, "words of a service, not 1"),
        (["done"], "a mapping"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(statuses: Any, message: str):
    """A store, a load, a scan and a client say what they were given, and what they take."""
    store = es.EnrichmentStore(org_id=ORG)
    for refused in (
        lambda: es.EnrichmentStore(statuses=statuses),
        lambda: store.load([record(0)], statuses=statuses),
        lambda: es.EnrichmentStore.scan("nothing.parquet", statuses=statuses),
        lambda: es.EnrichmentClient("https://api.example.com", token="t", statuses=statuses),
    ):
        with pytest.raises(es.ValidationError, match=r"statuses= (maps|takes)") as caught:
            refused()
        assert message in str(caught.value)


def test_what_stays_unknown_is_counted_with_its_words_and_what_helps():
    """By load, plan, wait and require; it is neither bought nor a failure, however old it is."""
    store = es.EnrichmentStore(org_id=ORG)
    tasks = [task(n) for n in range(4)]
    said = "3 with an unknown status: 'parked' (2), 'on hold' (1). statuses= (--statuses) says what a word means"
    report = store.load(of_words("parked", "parked", "on hold", "finished"))
    assert report.unknown == {"parked": 2, "on hold": 1}
    assert said in str(report)
    plan = es.plan(store, tasks, costs={"emails": 5}, stale_after="1s", now=NOW)
    assert plan.frame["action"].tolist() == ["unknown"] * 3 + ["trigger"]
    assert plan.frame["cost"].tolist() == [0, 0, 0, 5]
    assert said in repr(plan)
    assert plan.summary().loc["unknown", "total"] == 3
    status = store.lookup(tasks, now=NOW)
    with pytest.warns(es.StatusWarning, match="3 with an unknown status") as caught:
        assert es.require(status, ended=1, failed=0) is status
    assert said in str(caught[0].message)
    with pytest.raises(es.RequirementError, match="3 with an unknown status"):
        es.require(status, tasks=5)
    with pytest.warns(es.StatusWarning, match=r"2 with an unknown status: 'parked' \(2\)"):
        assert len(es.wait(store, tasks[:2], progress=False)) == 2
    [last] = es.poll(store, tasks[:2])
    assert last.unknown == {"parked": 2}
    assert "2 with an unknown status: 'parked' (2)" in str(last)


def test_data_with_an_unknown_word_is_data():
    """What it says of the data is passed on: it is had, and nobody is warned."""
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(0, status="verified")])
    assert es.plan(store, [task(0)], now=NOW).frame["action"].tolist() == ["have"]
    es.require(store.lookup([task(0)], now=NOW), ended=1, failed=0)


@pytest.mark.parametrize("word", ["in_progress", "zzz", "aaa"])
def test_a_record_that_is_loaded_again_with_its_meaning_has_it(word: str):
    """Whichever was loaded first, of one version that whose status is known stays."""
    known, unknown = es.EnrichmentStore(org_id=ORG), es.EnrichmentStore(org_id=ORG)
    for store, meanings in ((unknown, (None, {word: "pending"})), (known, ({word: "pending"}, None))):
        for statuses in meanings:
            store.load(of_words(word), statuses=statuses)
        assert store.lookup([task(0)], now="2026-11-16T08:01:00Z")["status"].tolist() == ["pending"]


def test_the_command_line_maps_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """--statuses of load and of record files does what statuses= does; of a store, whose records are read already, it is refused."""
    monkeypatch.chdir(tmp_path)
    Path("records.json").write_text(json.dumps(of_words("In_Progress", "parked")))
    pd.DataFrame([task(0), task(1)]).to_csv("tasks.csv", index=False)
    mapped = ("--statuses", "in_progress=pending,COMPLETED=finished")
    assert main(["load", "records.json", "--store", "s.duckdb", *mapped]) == 0
    assert "1 with an unknown status: 'parked' (1)" in capsys.readouterr().out
    plan = ("plan", "tasks.csv", "--org", ORG, "--now", "2026-11-16T08:01:00Z")
    for source in (("--store", "s.duckdb"), ("--records", "records.json", *mapped)):
        assert main([*plan, *source]) == 0
        said = capsys.readouterr().out
        assert "0 to trigger; 1 with an unknown status: 'parked' (1)" in said
        assert "still pending" in said
    assert main([*plan, "--store", "s.duckdb", *mapped]) == 2
    assert "--statuses goes with --url or --records" in capsys.readouterr().err
    assert main([*plan, "--records", "records.json", "--statuses", "parked=done"]) == 2
    assert "--statuses maps 'parked' to 'done'" in capsys.readouterr().err
