"""From a number of a dashboard to its rows: what is chosen, as a frame, as a page of a table and as a file."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.dashboard import html as drawing
from enrichstatus.dashboard import live
from enrichstatus.dashboard.selection import PAGE, Choice
from enrichstatus.errors import ValidationError
from enrichstatus.frames import frames
from enrichstatus.polling import background as watching
from tests.support.boards import EVIL, Make, press, service, settled, text
from tests.support.factory import uid
from tests.support.polled import NEVER, Clock, Service, numbered
from tests.support.waiting import best, until


class Telling(Service):
    """One that says of what failed what the matter was."""

    def answer(self, tasks: pd.DataFrame, now: float, columns: Sequence[str] | None = None) -> pd.DataFrame:
        answer = super().answer(tasks, now)
        return answer.assign(error=np.where(answer["status"] == "failed", f"{EVIL} no credits", None))


@pytest.fixture
def board(make: Make) -> es.Dashboard:
    """Six leads, e-mails and phones: two failed, of one nothing is known yet, one row is bad."""
    keys = [(n, field) for n in range(6) for field in ("emails", "phones")]
    ends: dict[Any, float] = dict.fromkeys(keys, 0.0) | {(5, "phones"): NEVER}
    source = Telling(Clock(), ends, status={(1, "emails"): "failed", (2, "phones"): "failed"})
    tasks = numbered(*keys).assign(name=[f"Lead {n} <b>" for n, _ in keys], size=[n if n else None for n, _ in keys])
    tasks.loc[len(tasks)] = ["no uuid", "emails", "=1+1", 7]
    tasks.index = pd.Index(range(100, 113), name="row")
    board = make(source, tasks, schedule=[1000], errors="coerce", title="Q4 <list>", costs={"emails": 1, "phones": 10})
    board.start()
    until(lambda: board.phase == "waiting" and board.update.requests)
    return board


def test_a_number_leads_to_its_rows(board: es.Dashboard):
    """Each outcome, each cell of the table and all of them: as many rows as the number says, with the service's word on them."""
    view = board.widget
    assert view.rows == view.tools == ""
    assert board.selection.index.tolist() == list(range(100, 113))
    buttons = re.findall(
        r'<button class="cell" data-do="select"(.*?) aria-pressed="false"[^>]*>(.*?)</button>', view.main
    )
    assert len(buttons) > 10
    for named, inner in buttons:
        wanted = dict(re.findall(r'data-(\w+)="([^"]*)"', named))
        number = int(text(inner).split()[-1])
        press(view, "select", **wanted)
        assert len(board.selection) == number, wanted
        assert f"{number} row" in text(view.rows)
        assert view.main.count('aria-pressed="true"') in (1, 2)  # the legend and the row of all are the same rows
        press(view, "select", **wanted)  # once more hides them
        assert (view.rows, board.chosen) == ("", None)
    board.select("failed")
    failed = board.selection
    assert failed.index.tolist() == [102, 105]
    assert failed["error"].tolist() == [f"{EVIL} no credits"] * 2
    assert failed.drop(columns="error").equals(board.frame.loc[[102, 105]])
    assert EVIL not in view.rows
    assert "<b>" not in re.sub(r'<div class="title"><b>failed</b>', "", view.rows)
    assert "no credits" in text(view.rows)
    assert board.frame.columns.tolist() == ["entityId", "field", "name", "size", "status", "dataFound"]
    board.select("bad row")
    assert board.selection["name"].tolist() == ["=1+1"]
    board.select("failed", field="phones", search="LEAD 2")
    assert board.selection.index.tolist() == [105]
    board.select(search="no credits")
    assert board.selection.index.tolist() == [102, 105]
    for wrong in ({"outcome": "fail"}, {"field": "faxes"}, {"search": 5}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            board.select(**wrong)  # type: ignore[arg-type]
    assert board.selection.index.tolist() == [102, 105]


def test_rows_are_sorted_by_any_column_and_what_has_none_comes_last(board: es.Dashboard):
    """Up, then down; by the caller's columns, by what became of the rows, and by the error."""
    view = board.widget
    press(view, "select")
    heads = [name.strip() for name in re.findall(r"<bdi>([^<]*)</bdi>[^<]*</button></th>", view.rows)]
    assert heads == ["name", "size", "entityId", "field", "outcome", "error"]
    for column, name in enumerate(heads[:4]):
        press(view, "sort", column=str(column))
        assert 'aria-sort="ascending"' in view.rows
        up = board.selection[name].tolist()
        press(view, "sort", column=str(column))
        assert 'aria-sort="descending"' in view.rows
        down = board.selection[name].tolist()
        known = [value for value in up if not pd.isna(value)]
        assert known == sorted(known)
        assert [value for value in down if not pd.isna(value)] == known[::-1]
        assert up[len(known) :] == [] or (pd.isna(up[-1]) and pd.isna(down[-1]))
    press(view, "sort", column="5")
    assert board.selection["status"].tolist()[:2] == ["failed"] * 2
    press(view, "sort", column="99")  # of a page that has changed meanwhile
    assert len(board.selection) == 13
    for odd in ({"do": "sort", "column": "x"}, {"do": "page"}, {"do": "select", "label": 5}, {"do": "rm"}, {}):
        press(view, odd.pop("do", ""), **odd)  # type: ignore[arg-type]
    assert len(board.selection) == 13


def test_an_id_is_shown_once_and_a_name_as_it_is_written(make: Make):
    """Tasks that were made of leads have it twice. What joins an emoji's parts, or Persian letters, stays; what a text obeys does not."""
    leads = pd.DataFrame({"lead_id": [uid(0), uid(1)], "name": ["👩\u200d💻 Ada", "دل\u200cپذیر\u202e"]})
    board = make(service({0: 0, 1: 0}), es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails"]))
    board.wait()
    view = board.widget
    press(view, "select")
    heads = re.findall(r"<bdi>([^<]*)</bdi>[^<]*</button></th>", view.rows)
    assert heads == ["lead_id", "name", "field", "outcome"]
    assert "<bdi>👩\u200d💻 Ada</bdi>" in view.rows
    assert "<bdi>دل\u200cپذیر</bdi>" in view.rows


def test_what_is_chosen_follows_the_poll(make: Make):
    """A selection while the poll goes on is that of the last update, and a page that is no longer there is the last one."""
    source = Service(Clock(), {n: 0 if n < 5 else 5 for n in range(60)})
    board = make(source, numbered(*range(60)), schedule=[5])
    view = board.widget
    board.start()
    board.select("pending")
    until(lambda: "55 rows" in text(view.rows))
    press(view, "page", page="2")
    assert f"{2 * PAGE + 1}–55 of 55" in text(view.rows)
    source.clock.seconds += 5
    board.ask_now()
    settled(board, "done")
    assert "0 rows" in text(view.rows)
    assert len(board.selection) == 0
    assert board.selection.columns.tolist() == ["entityId", "field", "status", "dataFound", "error"]


@pytest.mark.parametrize("kind", [pl.from_pandas, pa.Table.from_pandas, lambda tasks: tasks.to_dict("records")])
def test_a_selection_is_of_the_callers_kind(kind: Any, make: Make):
    """Whatever kind the tasks are of, the selection is of it."""
    tasks = kind(numbered(0, 1))
    board = make(service({0: 0, 1: NEVER}), tasks, schedule=[1000])
    board.start()
    until(lambda: board.update.settled)
    board.select("pending")
    assert isinstance(board.selection, pd.DataFrame if isinstance(tasks, list) else type(tasks))
    assert len(board.selection) == 1


def test_a_page_that_has_just_loaded_is_sent_what_is_so(board: es.Dashboard, monkeypatch: pytest.MonkeyPatch):
    """What changed while it was loading was sent to nobody."""
    view, sent = board.widget, []
    monkeypatch.setattr(view, "send_state", lambda: sent.append(view.head))
    view._hear(view, {"do": "show"}, [])
    assert sent == [view.head] != [""]


def downloaded(
    board: es.Dashboard, view: Any, ending: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], bytes]:
    """Take a file as a page does: piece by piece."""
    pieces: list[tuple[dict[str, Any], bytes]] = []
    monkeypatch.setattr(view, "send", lambda content, buffers=(): pieces.append((content, b"".join(buffers))))
    monkeypatch.setattr(live, "_PIECE", 100)
    view._hear(view, {"do": "file", "ending": ending, "id": "7"}, [])
    assert pieces.pop(0)[0] == {"id": "7"}  # at once, so that the page says what it waits for
    while len(pieces) < pieces[0][0]["of"]:
        view._hear(view, {"do": "piece", "of": "7", "at": len(pieces), "id": "7"}, [])
    assert view._files == {}
    view._hear(view, {"do": "piece", "of": "7", "at": 0, "id": "7"}, [])  # which is gone
    assert len(pieces) > 1
    return pieces[0][0], gzip.decompress(b"".join(piece for _, piece in pieces))


def test_a_download_is_the_selection(board: es.Dashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """As CSV and as a workbook, named by the title and what is chosen; a text that Excel would run is text."""
    view = board.widget
    board.select(field="emails")
    content, data = downloaded(board, view, ".csv", monkeypatch)
    assert content["file"] == "Q4-list-emails.csv"
    table = pd.read_csv(io.BytesIO(data), encoding="utf-8-sig")
    assert table["entityId"].tolist() == board.selection["entityId"].tolist()
    assert table["error"].dropna().tolist() == [f"{EVIL} no credits"]
    board.select("bad row")
    _, data = downloaded(board, view, ".csv", monkeypatch)
    assert b"'=1+1" in data
    board.select("failed")
    content, data = downloaded(board, view, ".xlsx", monkeypatch)
    assert (content["file"], data[:2]) == ("Q4-list-failed.xlsx", b"PK")
    book = tmp_path / content["file"]
    book.write_bytes(data)
    rows = frames.read(book).arrow(["entityId", "error"]).to_pandas()
    assert rows["entityId"].tolist() == board.selection["entityId"].tolist()
    assert rows["error"].tolist() == [f"{EVIL} no credits"] * 2
    view._hear(view, {"do": "file", "ending": ".exe", "id": "7"}, [])
    assert view._files == {}


def test_two_downloads_at_once_are_two_files(board: es.Dashboard, monkeypatch: pytest.MonkeyPatch):
    """Their pieces may be requested in turn; what cannot be written is an answer in words, and whatever is over is not kept."""
    view = board.widget
    files: dict[str, bytes] = {"1": b"", "2": b""}

    def receive(content: dict[str, Any], buffers: Any = ()) -> None:
        files[content["id"]] += b"".join(buffers)

    monkeypatch.setattr(view, "send", receive)
    monkeypatch.setattr(live, "_PIECE", 100)
    for name, ending in (("1", ".csv"), ("2", ".xlsx")):
        press(view, "file", id=name, ending=ending)
    for at in range(1, 100):
        for name in files:
            press(view, "piece", of=name, id=name, at=at)
    assert gzip.decompress(files["1"]) == board.file(".csv")
    assert gzip.decompress(files["2"]).startswith(b"PK")
    assert view._files == {}

    said: list[Any] = []
    monkeypatch.setattr(view, "send", lambda content, buffers=(): said.append(content))
    monkeypatch.setattr(board, "file", lambda ending: (_ for _ in ()).throw(OSError("No space left on device")))
    press(view, "file", ending=".csv")
    assert said == [{"id": "1"}, {"id": "1", "failed": "There is no file: No space left on device"}]


def test_each_view_shows_what_is_searched_for(board: es.Dashboard):
    """Also one that is opened later, or after the page was loaded again: the rows are those of the text in its box."""
    view = board.widget
    press(view, "select", label="failed")
    press(view, "search", text="lead 1")
    assert view.search == board.widget.search == "lead 1"
    press(view, "select", label="failed")
    assert view.search == ""


def test_costs_are_summed_by_outcome_and_count_a_task_once(board: es.Dashboard, make: Make):
    """What has a record costs its field's price; a task in two rows was bought once."""
    spent = board.credits(board.update)
    assert spent is not None
    assert sum(spent.values()) == 6 * 1 + 6 * 10
    assert spent["failed"] == 11
    assert spent["pending"] == 10
    row = re.search(r'<th scope="row"[^>]*><bdi>credits</bdi></th>(.*?)</tr>', board.widget.main)
    assert row is not None
    assert text(row[1]).split()[0] == "66"
    twice = pd.concat([numbered(0), numbered(0), numbered(9)])
    again = make(service({0: 0}), twice, costs={"emails": 3}, schedule=[1000])
    again.start()
    until(lambda: again.update.settled)
    assert sum((again.credits(again.update) or {}).values()) == 3
    assert make(service({0: 0}), numbered(0)).credits(again.update) is None
    with pytest.raises(ValidationError, match="faxes"):
        es.Dashboard(service({0: 0}), numbered(0), costs={"faxes": 1})
    with pytest.raises(ValidationError, match="title"):
        es.Dashboard(service({0: 0}), numbered(0), title=5)  # type: ignore[arg-type]


def test_columns_are_those_of_a_lookup(make: Make):
    """`columns` says what the frame has, in a poll as in a lookup; what changes by itself while it polls is refused."""
    source = Telling(Clock(), {0: 0, 1: 0, 2: NEVER}, status={1: "failed"})
    tasks = numbered(0, 1, 2, 3)
    frame = next(iter(es.poll(source, tasks, columns=("status", "error", "createdAt"), clock=source.clock))).frame
    assert frame.columns.tolist() == ["entityId", "field", "status", "error", "createdAt"]
    assert frame["error"].notna().tolist() == [False, True, False, False]
    assert str(frame["createdAt"].dtype) == "datetime64[us, UTC]"
    whole = next(iter(es.poll(source, tasks, columns="all", prefix="their_", clock=source.clock))).frame
    assert {"their_id", "their_error", "their_orgId"} < set(whole.columns)
    with pytest.raises(ValidationError, match="columns"):
        es.poll(source, tasks, columns=("status", "age"))
    board = make(source, tasks, columns=("status", "updatedAt"), schedule=[1000])
    board.start()
    until(lambda: board.update.requests)
    board.select()
    assert board.frame.columns.tolist() == ["entityId", "field", "status", "updatedAt"]
    assert "updatedAt" in text(board.widget.rows)


def test_reasons_are_those_of_a_lookup_and_of_the_poll():
    """The column `reason` says of each row what a lookup says, and of what only a poll knows: unanswered, and its own timeouts."""
    with es.EnrichmentStore(org_id="org_1") as store:
        old = "2020-01-01T00:00:00Z"
        base = {"entityType": "person", "field": "emails", "orgId": "org_1", "createdAt": old}
        store.load(
            [
                base | {"entityId": uid(0), "status": "finished", "dataFound": True},
                base | {"entityId": uid(1), "status": "failed", "error": "no"},
                base | {"entityId": uid(2), "status": "pending"},
            ]
        )
        tasks = pd.concat([numbered(0, 1, 2, 3), pd.DataFrame({"entityId": ["bad"], "field": ["emails"]})])
        looked_up = store.lookup(tasks, columns=("reason", "error"), errors="coerce")
        clock = Clock()
        *_, last = es.poll(store, tasks, columns=("reason", "error"), errors="coerce", clock=clock, sleep=clock.sleep)
        assert last.frame.equals(looked_up)
        assert looked_up["reason"].tolist() == ["data", "failed", "timed_out_here", "no_record", "invalid"]


def test_while_a_cell_waits_it_says_that_the_buttons_are_not_heard(make: Make, monkeypatch: pytest.MonkeyPatch):
    """From the moment that `wait` begins until it ends."""
    monkeypatch.setattr("enrichstatus.dashboard.dashboard.in_notebook", lambda: True)
    board = make(service({0: NEVER}), numbered(0), schedule=[1000])
    view = board.widget
    heads: list[str] = []
    view.observe(lambda change: heads.append(text(change["new"])), "head")
    assert board.wait(0.2)["status"].item() in ("pending", "unanswered")
    assert "the buttons are heard when it has ended" in heads[0]
    assert "the buttons are heard when it has ended" not in heads[-1]


def test_a_front_end_without_widgets_shows_it_as_it_is(make: Make):
    """`_repr_html_` starts it, and gives the same words each time it is shown, with the time and without buttons."""
    source = service({0: 0, 1: 5})
    board = make(source, numbered(0, 1), title="Leads", schedule=[1000])
    assert "<button" not in board._repr_html_()
    until(lambda: board.update.settled == 1 and board.phase == "waiting")
    said = text(board._repr_html_())
    assert said.startswith("Leads Polling 50 % · 1 of 2 settled")
    assert re.search(r"as of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", said)
    source.clock.seconds += 5
    board.ask_now()
    settled(board, "done")
    assert text(board._repr_html_()).startswith("Leads Done: all are settled")


def test_a_hundred_thousand_rows_are_drawn_and_filtered_in_a_moment(make: Make):
    """Drawn, filtered, searched, sorted and turned over: each in less than 200 ms, and sent in less than 50 kB."""
    count = 100_000
    tasks = pd.DataFrame({"entityId": [uid(n) for n in range(count)], "field": np.resize(["emails", "phones"], count)})
    for name in ("name", "company", "city", "notes"):
        tasks[name] = [f"{name} {n % 9973} of a lead" for n in range(count)]
    board = make(Service.of(Clock(), tasks, np.resize([0.0, 0.0, 900.0, 5.0, 9.0], count)), tasks, schedule=[10000])
    board.start()
    until(lambda: board.update.settled)
    view = board.widget
    progress = board._watch.progress
    progress.points = [(seconds, seconds * 100) for seconds in range(watching._POINTS)]
    took, most = {}, 0
    for live_ in (True, False):
        html = ""

        def whole(live_: bool = live_) -> None:
            nonlocal html
            html = drawing.frame(drawing.body(progress, live=live_))

        took[f"whole, live {live_}"] = best(whole)
        assert len(html) < 25_000
    board.select()  # reads the texts
    board.choose(Choice(search="x"))
    for what, chosen in {
        "filter": Choice("with data"),
        "cell": Choice("pending", "phones"),
        "search": Choice("pending", search="company 77 of"),
        "search of all": Choice(search="8 of a lead"),
        "page": Choice("pending", page=300),
        "by outcome": Choice(sort=6),
    }.items():
        took[what] = best(lambda chosen=chosen: (board.choose(Choice()), board.choose(chosen)))
        most = max(most, len(view.main) + len(view.rows) + len(view.head))
    assert max(took.values()) < 0.2, took
    assert most < 50_000
