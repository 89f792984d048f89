"""What can become of a task: one label and one colour each, on every face."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.cli.summary import report, tally
from enrichstatus.dashboard import html as drawing
from enrichstatus.lookup.query import LOOKUP_SQL
from enrichstatus.outcomes import LABELS, OUTCOMES, outcome
from enrichstatus.polling.background import Watch
from tests.support.factory import NOW, ORG, record, task

mpl.use("Agg")
from matplotlib import pyplot
from matplotlib.colors import to_hex, to_rgb

PENDING: dict[str, Any] = {"status": "pending", "dataFound": None}
#: A record for each outcome that a record can have.
RECORDS = [
    record(0),
    record(1, dataFound=False),
    record(2, status="failed", dataFound=None),
    record(3, **PENDING),
    record(4, status="timeout", dataFound=None),
    record(5, status="cancelled", dataFound=None),
    record(6, **PENDING, createdAt="2026-11-16T08:59:00Z"),
]
TASKS = [*(task(n) for n in range(8)), {"entityId": "nobody", "field": "emails"}]


class Answers:
    """A service that answers as the store does, and to one task not at all."""

    def __init__(self, store: es.EnrichmentStore):
        self._store = store

    def lookup(self, tasks: Any, **options: Any) -> Any:
        return self._store.lookup(tasks, **options, now=NOW)


@pytest.fixture
def full(store: es.EnrichmentStore) -> es.EnrichmentStore:
    store.load(RECORDS)
    return store


def answered(store: es.EnrichmentStore) -> pd.DataFrame:
    """What a poll knows of the tasks: one has not been answered yet."""
    status = store.lookup([*TASKS[:8], task(8)], now=NOW)
    status.loc[8, "status"] = "unanswered"
    return status


@pytest.mark.parametrize(
    ("status", "found"),
    [
        (status, found)
        for status in ("pending", "finished", "timeout", "failed", "cancelled", "no record", None)
        for found in (True, False, None)
    ],
)
def test_the_outcome_is_what_the_query_says(store: es.EnrichmentStore, status: str | None, found: bool | None):
    """Of status and dataFound, whatever they are, the table says the same as `reason`; the two timeouts share their label."""
    if status is not None:
        store.load([record(0, status=status, dataFound=found)])
    answer = store.lookup([task(0)], columns=("status", "dataFound", "reason"), now=NOW).iloc[0]
    said = outcome(*(None if pd.isna(answer[name]) else answer[name] for name in ("status", "dataFound")))
    assert said.label == OUTCOMES[answer["reason"]].label


def test_the_query_has_the_words_of_the_table():
    """Each word that the query gives is an outcome, and those it cannot give are those of tasks without a record."""
    [rule] = re.findall(r"case\n(?:(?!case).)*?end as reason", LOOKUP_SQL, re.DOTALL)
    given = set(re.findall(r"(?:then|else) '(\w+)'", rule))
    assert given == set(OUTCOMES) - {"no_record", "invalid", "unanswered"}


def test_labels_and_colours_are_told_apart():
    """A label has one colour for a light page and one for a dark one; no two share it, and each is seen on its page."""
    for page, colours in (
        ("#FFFFFF", [one.light for one in LABELS.values()]),
        ("#111111", [one.dark for one in LABELS.values()]),
    ):
        assert len(set(colours)) == len(LABELS)
        for colour in colours:
            darker, lighter = sorted([luminance(colour), luminance(page)])
            assert (lighter + 0.05) / (darker + 0.05) > 1.6, colour
    for one in OUTCOMES.values():
        assert (one.light, one.dark) == (LABELS[one.label].light, LABELS[one.label].dark)


#: How the colours of a screen look without one kind of cone (Machado and others, 2009): red, green, blue.
BLIND = {
    "nobody": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


@pytest.mark.parametrize("kind", BLIND)
@pytest.mark.parametrize("side", ["light", "dark"])
def test_the_colour_blind_tell_outcomes_apart(kind: str, side: str):
    """Any two colours differ by 20 at the least (CIE 1976, where 2.3 is just seen), for every kind of colour vision."""
    places = []
    for one in LABELS.values():
        seen = np.clip(np.array(BLIND[kind]) @ linear(getattr(one, side)), 0, 1)
        x, y, z = np.cbrt(np.maximum(XYZ @ seen / XYZ.sum(axis=1), 0.008856))
        places.append([116 * y - 16, 500 * (x - y), 200 * (y - z)])
    apart = np.linalg.norm(np.array(places)[:, None] - np.array(places), axis=2)
    assert apart[~np.eye(len(places), dtype=bool)].min() > 20


def linear(colour: str) -> list[float]:
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]


def luminance(colour: str) -> float:
    return float(XYZ[1] @ linear(colour))


def test_the_dashboard_has_one_label_and_one_colour_an_outcome(full: es.EnrichmentStore):
    """In the bar, its legend, the table and the latest changes; a dark page has the dark ones."""
    watch = Watch(Answers(full), TASKS, errors="coerce", schedule=[0.01], missing_after="0.001s", deadline="0.5s")
    with pytest.raises(es.PollDeadline):
        watch.wait()
    html = drawing.frame(drawing.page(watch.progress))
    found = set(re.findall(r'class="es-([a-z-]+)" style="[^"]*background:(#\w{6})', html))
    assert found == {(label.replace(" ", "-"), LABELS[label].light) for label in set(LABELS) - {"unanswered"}}
    for label, one in LABELS.items():
        assert f"[data-jp-theme-light=false] .es-{label.replace(' ', '-')}," in html
        assert f"{{background:{one.dark}!important}}" in html


def test_what_nobody_answered_is_unanswered_on_the_dashboard():
    """While the service is down nothing is called pending: no record is known of any task."""

    class Down:
        def lookup(self, tasks: Any, **options: Any) -> Any:
            raise es.ServiceError("The service is down.", 503)

    watch = Watch(Down(), TASKS[:3], schedule=[0.01], deadline="0.1s")
    with pytest.raises(es.PollDeadline):
        watch.wait()
    bar = drawing.bar(watch.progress.update)
    assert re.findall(r'title="([^"]+)"', bar) == ["unanswered: 3"]
    assert LABELS["unanswered"].light in bar


@pytest.mark.parametrize("style", ["default", "dark_background"])
def test_the_pictures_have_one_label_and_one_colour_an_outcome(full: es.EnrichmentStore, style: str):
    """What became of the tasks, and what the credits bought, in the colours of a light figure and of a dark one."""
    with pyplot.style.context(style):
        status = es.coverage(answered(full)).plot(kind="status")
        bought = es.waste(full, now=NOW).plot()
    drawn = {bars.get_label(): to_hex(bars.patches[0].get_facecolor()) for bars in status.containers}
    side = "light" if style == "default" else "dark"
    assert drawn == {label: getattr(one, side).lower() for label, one in LABELS.items() if label != "bad row"}
    paid = {bars.get_label().partition(" (")[0]: to_hex(bars.patches[0].get_facecolor()) for bars in bought.containers}
    assert paid["with data"] == drawn["with data"]
    assert paid["pending"] == drawn["pending"]
    assert not set(paid.values()) & {colour for label, colour in drawn.items() if label not in paid}
    pyplot.close("all")


def test_a_share_with_data_is_of_the_ended_on_every_face(
    full: es.EnrichmentStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """One list has one share: in the report, its picture, the dashboard, the terminal and the page; each heading says of what."""
    status = answered(full)
    share = "20.0 %"  # one of five: with data, without, failed, two timeouts; a status that nobody knows is counted by itself
    covered = es.coverage(status)
    assert covered.frame["ended"].tolist() == [5]
    assert re.search(r"share of ended.*\n.* 20\.0 %", repr(covered))
    assert f"9; {share}" in [text.get_text() for text in covered.plot(kind="status").texts]
    pyplot.close("all")
    shown = report(tally(pa.Table.from_pandas(status)), status, added=["status", "dataFound"])
    assert all(label in shown for label in LABELS if label != "bad row")
    assert re.search(rf"with data, of ended *\n.* {share}", shown)
    watch = Watch(Answers(full), TASKS, errors="coerce", schedule=[0.01], missing_after="0.001s", deadline="0.5s")
    with pytest.raises(es.PollDeadline):
        watch.wait()
    table = drawing.table(watch.progress.update)
    assert "with data, of ended" in table
    assert f">{share}</td>" in table
    monkeypatch.chdir(tmp_path)
    pd.DataFrame(TASKS[:8]).to_csv("tasks.csv", index=False)
    pd.DataFrame(RECORDS).to_json("records.json", orient="records")
    code = main(["report", "tasks.csv", "--records", "records.json", "--org", ORG, "--now", NOW, "-o", "page.html"])
    assert (code, capsys.readouterr().err) == (0, "")
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<bdi>share of ended</bdi>" in page
    assert f">{share}</td>" in page


def test_a_gate_reads_the_table(full: es.EnrichmentStore):
    """What has ended and what has failed is what the table says: neither a task without a record, nor an unanswered one, has ended."""
    status = answered(full)
    with pytest.raises(es.RequirementError) as caught:
        es.require(status, ended=1, failed=0)
    ended = [one for one in OUTCOMES.values() if one.ended]  # an unknown status too
    assert caught.value.figures == {"tasks": 9, "ended": len(ended) / 9, "failed": 3 / 9}


def test_a_record_that_failed_has_failed_whatever_it_says_of_data():
    """A poll counts it as its reason does: not with data."""
    with es.EnrichmentStore(org_id=ORG) as full:
        full.load([record(0, status="failed"), record(1, status="timeout"), record(2), record(3, status="odd")])
        tasks = [task(n) for n in range(4)]
        [update] = es.poll(full, tasks)
        reasons = full.lookup(tasks, columns="reason", now=NOW)["reason"].tolist()
    assert update.counts.loc["emails", "with data"] == reasons.count("data") == 2
