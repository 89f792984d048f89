"""The dashboard as it is drawn: as widgets, as HTML and as lines, of tasks that are few, many or strange."""

from __future__ import annotations

import base64
import gc
import re
import threading
from collections.abc import Callable
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from ipywidgets.widgets.widget import _instances

import enrichstatus as es
from enrichstatus.dashboard import html as drawing
from enrichstatus.dashboard import views
from enrichstatus.errors import PollInterrupted, ServiceError, UnauthorizedError, ValidationError
from enrichstatus.polling.background import Watch
from enrichstatus.presentation import share
from tests.support.boards import EVIL, Make, press, service, settled, text
from tests.support.cases import cases
from tests.support.factory import ORG, record, uid
from tests.support.polled import NEVER, Clock, Service, numbered, polled
from tests.support.waiting import threads, until


class Displayed:
    """What a notebook is given to display: the bundles of each display, and how often it was updated."""

    def __init__(self) -> None:
        self.shown: list[Handle | dict[str, Any]] = []

    def __call__(self, bundle: dict[str, Any], **options: Any) -> Handle | None:
        if options.get("display_id"):
            self.shown.append(Handle([bundle]))
            return self.shown[-1]
        self.shown.append(bundle)
        return None

    @property
    def handles(self) -> list[Handle]:
        return [one for one in self.shown if isinstance(one, Handle)]


class Handle:
    def __init__(self, bundles: list[dict[str, Any]]):
        self.bundles = bundles

    def update(self, bundle: dict[str, Any], *, raw: bool) -> None:
        assert raw
        self.bundles.append(bundle)


@pytest.fixture
def displayed(monkeypatch: pytest.MonkeyPatch) -> Displayed:
    displayed = Displayed()
    monkeypatch.setattr(views, "display", displayed)
    return displayed


# --- as lines -----------------------------------------------------------------------------------------------------------------


def test_outside_of_a_notebook_it_is_a_line_an_update(make: Make, capsys: pytest.CaptureFixture[str]):
    """To wait for it is all there is to do; each update is a line on stderr, and the result has the statuses."""
    down = ServiceError("It is down.", 503)
    dashboard = make(service({0: 0, 1: 0}, troubles=[down]), numbered(0, 1))
    frame = dashboard.wait()
    assert frame["status"].tolist() == ["finished", "finished"]
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("0 of 2 settled; 2 unanswered; 1 request; not answered: It is down.; polls again in")
    assert lines[1] == str(dashboard.update)
    assert repr(dashboard) == f"Dashboard(done: {dashboard.update})"


@pytest.mark.parametrize("shows", [True, False])
def test_lines_are_told_once_however_often_it_is_shown_or_waited_for(
    shows: bool, make: Make, capsys: pytest.CaptureFixture[str]
):
    """Shown first, waited for then, or waited for twice: a line an update."""
    dashboard = make(service({0: 0}), numbered(0), show="lines")
    if shows:
        dashboard._ipython_display_()
    dashboard.wait()
    dashboard.wait()
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_stop_ends_the_wait_and_a_start_goes_on(make: Make):
    """The buttons are methods too; a timeout gives what there is."""
    source = service({0: 0, 1: 5})
    dashboard = make(source, numbered(0, 1), schedule=[60])
    assert dashboard.phase == "ready"
    frame = dashboard.wait(0.3)
    assert set(frame["status"]) <= {"finished", "pending", "unanswered"}  # nobody may have answered yet
    until(lambda: dashboard.update.settled == 1)
    assert dashboard.frame["status"].tolist() == ["finished", "pending"]
    dashboard.stop()
    with pytest.raises(PollInterrupted, match="1 of 2"):
        dashboard.wait()
    dashboard.start()
    dashboard.pause()
    settled(dashboard, "paused")
    source.clock.seconds += 5
    dashboard.ask_now()
    assert dashboard.wait()["status"].tolist() == ["finished", "finished"]


# --- one poll for one question ------------------------------------------------------------------------------------------------


def test_a_cell_that_is_run_again_replaces_its_dashboard(make: Make, displayed: Displayed):
    """Of the same source and tasks, in whatever order, the last one polls: one thread, and the earlier live views are closed."""
    source = service({0: NEVER, 1: NEVER})
    one, two = (make(source, numbered(*keys), show="widgets") for keys in ((0, 1), (1, 0)))
    other = make(source, numbered(0), show="lines")
    other.start()
    for each in (one, two):
        each._ipython_display_()
    until(lambda: one.phase == "stopped")
    until(lambda: len(threads()) == 2)
    assert es.dashboards() == [other, two]
    assert text(displayed.handles[0].bundles[-1]["text/html"]).startswith(
        "Replaced by a newer dashboard of these tasks"
    )
    live = displayed.shown[0]
    assert isinstance(live, dict)
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"] not in _instances
    with pytest.raises(PollInterrupted, match="was replaced by a newer one of the same tasks"):
        one.wait()
    one.start()
    until(lambda: es.dashboards() == [other, one])
    assert es.stop_all() == 2
    until(lambda: not threads())
    assert (es.dashboards(), es.stop_all()) == ([], 0)
    assert [each.phase for each in (one, two, other)] == ["stopped"] * 3


def test_one_that_somebody_waits_for_is_not_replaced(make: Make):
    """In threads two may wait for the same tasks: both are answered, by one's requests."""
    source = service({0: 5})
    one, two = (make(source, numbered(0), schedule=[0.05], show="lines") for _ in range(2))
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(one.wait()))
    thread.start()
    until(lambda: one._watch._waiting)
    two.start()
    until(lambda: two.update.requests + one.update.requests)
    source.clock.seconds += 5
    assert two.wait().equals(one.wait())
    thread.join()
    assert found[0]["status"].tolist() == ["finished"]


def test_one_that_was_waited_for_is_replaced_when_the_wait_is_over(make: Make):
    """A wait that gives up leaves its dashboard to the newer one; what was told to stop is listed no longer."""
    source = service({0: NEVER})
    one, two = (make(source, numbered(0), schedule=[0.05], show="lines") for _ in range(2))
    thread = threading.Thread(target=lambda: one._watch.wait(0.5))
    thread.start()
    until(lambda: one._watch._waiting)
    two.start()
    assert one.phase != "stopped"
    thread.join()
    assert es.dashboards() == [two]
    until(lambda: one.phase == "stopped")
    assert es.stop_all() == 1
    assert es.dashboards() == []


def test_a_thousand_made_and_dropped_leave_nothing(displayed: Displayed):
    """However many are made, started or shown in place of each other: no thread, no widget and no memory stays."""
    source, tasks = service({0: NEVER}), numbered(0)
    kept, before = len(_instances), len(alive())
    for count in range(cases(24, 1000)):
        dashboard = es.Dashboard(source, tasks, schedule=[1000], show="widgets")
        if count % 4 == 0:
            dashboard._ipython_display_()
            until(lambda board=dashboard: board.phase == "waiting")
    dashboard.stop()
    assert es.stop_all() <= 1
    until(lambda: not threads())
    displayed.shown.clear()
    del dashboard
    assert len(alive()) - before <= 1
    assert len(_instances) - kept <= 2  # of the one that was shown last


def alive() -> list[es.Dashboard]:
    gc.collect()
    return [one for one in gc.get_objects() if isinstance(one, es.Dashboard)]


# --- as HTML ------------------------------------------------------------------------------------------------------------------


def test_without_widgets_one_display_is_updated(make: Make, displayed: Displayed):
    """It is started where it is shown, and what it shows is one display, updated until the end."""
    source = service({0: 0, 1: 5})
    dashboard = make(source, numbered(0, 1), show="html")
    dashboard._ipython_display_()
    until(lambda: dashboard.update.settled == 1)
    source.clock.seconds += 5
    dashboard.wait()
    settled(dashboard, "done")
    [handle] = displayed.handles
    assert len(displayed.shown) == 1
    assert "Ready" in text(handle.bundles[0]["text/html"])
    last = handle.bundles[-1]
    assert last["text/plain"] == str(dashboard.update)
    assert text(last["text/html"]).startswith("Done: all are settled")
    assert 'aria-valuenow="2"' in last["text/html"]


def test_what_is_shown_again_is_another_view_of_the_same(make: Make, displayed: Displayed):
    """Paused, it stays paused where it is shown again; each view follows."""
    source = service({0: 0, 1: 5})
    dashboard = make(source, numbered(0, 1), show="html")
    dashboard._ipython_display_()
    until(lambda: dashboard.update.settled == 1)
    dashboard.pause()
    settled(dashboard, "paused")
    dashboard._ipython_display_()
    assert dashboard.phase == "paused"
    source.clock.seconds += 5
    dashboard.start()
    settled(dashboard, "done")
    assert [text(handle.bundles[-1]["text/html"])[:4] for handle in displayed.handles] == ["Done", "Done"]


def test_told_not_to_start_it_waits_for_the_start(make: Make, displayed: Displayed):
    source = service({0: 0})
    dashboard = make(source, numbered(0), show="html", start=False)
    dashboard._ipython_display_()
    assert (dashboard.phase, threads(), source.asks) == ("ready", [], [])
    assert "Start begins" not in displayed.handles[0].bundles[0]["text/html"]  # there is no button to press


def test_a_view_that_fails_does_not_end_the_poll(
    make: Make, displayed: Displayed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """A page that is gone is no reason to ask no more: the view is given up, and that is logged."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("the page is gone")

    dashboard = make(service({0: 0}), numbered(0), show="html", start=False)
    dashboard._ipython_display_()
    dashboard._ipython_display_()
    monkeypatch.setattr(displayed.handles[0], "update", fail)
    assert dashboard.wait()["status"].tolist() == ["finished"]
    settled(dashboard, "done")
    [told] = caplog.records
    assert "cannot be drawn" in told.message
    assert text(displayed.handles[1].bundles[-1]["text/html"]).startswith("Done")


# --- as widgets ---------------------------------------------------------------------------------------------------------------


def said(view: Any) -> str:
    """Give what a live view says."""
    return text(view.head + view.main + view.rows)


def buttons(view: Any) -> list[tuple[str, bool]]:
    """Give the texts of a live view's buttons, and whether each can be pressed."""
    return [(word, not off) for off, word in re.findall(r"<button[^>]*?( disabled)?>([^<]+)</button>", view.buttons)]


def test_the_buttons_do_what_they_say(make: Make):
    """By phase: what each is called, and whether it can be pressed; and each does that."""
    source = service({0: 0, 1: 5})
    dashboard = make(source, numbered(0, 1), schedule=[60])
    view = dashboard.widget
    assert buttons(view) == [("Start", True), ("Poll now", True), ("Stop", True)]
    assert said(view).startswith("Ready 0 % · 0 of 2 settled · Start begins")
    press(view, "start")
    until(lambda: dashboard.phase == "waiting" and "50 %" in said(view))
    until(lambda: buttons(view) == [("Pause", True), ("Poll now", True), ("Stop", True)])
    assert said(view).startswith("Polling 50 % · 1 of 2 settled")
    assert re.search(r"next request in (60|5\d) s", said(view))
    assert re.search(r"since it began · last answer at \d\d:\d\d:\d\d · goes on when this output is closed", said(view))
    press(view, "pause")
    settled(dashboard, "paused")
    assert buttons(view) == [("Start", True), ("Poll now", True), ("Stop", True)]
    assert said(view).startswith("Paused 50 % · 1 of 2 settled · Start goes on")
    press(view, "ask_now")
    settled(dashboard, "paused")
    assert len(source.asks) == 2
    press(view, "stop")
    settled(dashboard, "stopped")
    assert buttons(view) == [("Start", True), ("Poll now", True), ("Stop", False)]
    assert said(view).startswith("Stopped 50 %")
    press(view, "start")
    until(lambda: dashboard.phase == "waiting")
    source.clock.seconds += 5
    press(view, "ask_now")
    settled(dashboard, "done")
    assert buttons(view) == []
    assert said(view).startswith("Done: all are settled")


def test_each_state_has_a_headline_and_says_what_happens_next(make: Make):
    """An outage, a quota, a refused token, a refusal, a deadline and nothing to do: each is told, with what becomes of it."""
    down = ServiceError(f"Its name is {EVIL}.", 503)
    board = make(service({0: NEVER}, troubles=[down, ServiceError("Too many.", 429)]), numbered(0), schedule=[60])
    view = board.widget
    board.start()
    until(lambda: "Not answered: Its name is" in view.main)
    until(lambda: said(view).startswith("The service does not answer; the poll goes on"))
    assert "The poll goes on by itself; Poll now does so at once." in view.main
    assert EVIL not in view.main
    board.pause()
    until(lambda: "Start polls again." in view.main)
    board.start()
    board.ask_now()
    until(lambda: said(view).startswith("Waiting: the service wants no requests for now"))
    board.ask_now()
    until(lambda: "Not answered" not in view.main and said(view).startswith("Polling"))
    board.stop()

    for error, headline in (
        (ValidationError("It is refused."), "The request was refused"),
        (UnauthorizedError("No."), "The token was refused"),
        (ZeroDivisionError("What?"), "Given up"),
    ):
        refusing = make(Refusing({0: 0}, error), numbered(0))
        view = refusing.widget
        refusing.start()
        until(lambda view=view: "Ended: " in view.main)
        assert said(view).startswith(headline)
        assert "Start tries once more" in view.main
        refusing.start()
        settled(refusing, "done")
        assert "Ended" not in view.main

    late = make(service({0: NEVER}), numbered(0), deadline=0.001)
    view = late.widget
    late.start()
    settled(late, "deadline")
    assert said(view).startswith("The deadline came: 1 have not ended")
    assert 'role="alert"' not in view.main
    with es.EnrichmentStore(org_id=ORG) as memory:
        memory.load([record(0)])
        board = make(service({0: 0}), numbered(0), into=memory)
        view = board.widget
        board.start()
        settled(board, "done")
        assert said(view).startswith("Nothing to do: all had been settled before")
        board = make(service({1: 0}), numbered(1), into=memory)
        view = board.widget
    board.start()
    settled(board, "failed")
    assert said(view).startswith("The store cannot be used")


class Refusing(Service):
    """One whose first request ends in an error of any kind."""

    def __init__(self, ends: Any, error: Exception):
        super().__init__(Clock(), ends)
        self.error: Exception | None = error

    def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
        error, self.error = self.error, None
        if error:
            raise error
        return super().lookup(tasks, **options)


def test_a_page_is_given_the_widgets_and_html_that_stays(make: Make, displayed: Displayed):
    """A live view first, and beside it HTML that is out of sight while the live one is on the page."""
    dashboard = make(service({0: 0}), numbered(0), show="widgets")
    dashboard._ipython_display_()
    settled(dashboard, "done")
    live, still = displayed.shown
    assert isinstance(live, dict)
    assert isinstance(still, Handle)
    assert live["application/vnd.jupyter.widget-view+json"]["model_id"]
    last = still.bundles[-1]["text/html"]
    [name] = re.findall(r'class="enrichstatus (es-\w+)-still"', last)
    assert f"body:has(.{name}) .{name}-still{{display:none}}" in last
    assert "<svg" not in last  # which a notebook that is not trusted would drop
    assert len(re.findall(r'<img alt="1 of 1 were settled[^"]*" src="data:image/svg', last)) == 1


# --- what is drawn ------------------------------------------------------------------------------------------------------------


def drawn(source: Any, tasks: Any, **options: Any) -> tuple[Watch, str]:
    """Ask once, and draw that live and still."""
    watch = Watch(source, tasks, schedule=[1000], **options)
    watch.start()
    until(lambda: watch.progress.update.requests and watch.progress.phase in ("waiting", "done", "failed"))
    watch.pause()
    until(lambda: not threads())
    progress = watch.progress
    live = drawing.phase(progress) + drawing.line(progress, live=True) + drawing.body(progress, live=True)
    return watch, drawing.frame(live) + drawing.page(progress)


def test_text_of_others_is_never_html():
    """Names, statuses, fields and errors may be HTML: what is shown is their text."""
    tasks = pd.DataFrame(
        {
            "entityId": [uid(0), uid(1)],
            "field": ["emails", EVIL],
            "name": [EVIL, "<b>bold</b>"],
            "<i>": ["<script>", "x"],
        }
    )
    watch, html = drawn(Anyone(EVIL), tasks)
    assert watch.progress.update.counts.index.tolist() == sorted(["emails", EVIL])
    assert EVIL not in html
    for sign in ("<img src=x", "<b>bold", "<script", "<i>"):
        assert sign not in html, sign
    assert "&lt;img src=x" in html
    for image in re.findall(r"base64,([^\"]*)", html):
        assert b"onerror" not in base64.b64decode(image)


class Anyone:
    """A source in which every task has the same status."""

    fields = ("emails", EVIL)

    def __init__(self, status: str | None):
        self.status = status

    def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
        return tasks.assign(status=self.status, dataFound=pd.array([None] * len(tasks), dtype="boolean"))


def test_what_has_no_record_yet_is_told_from_what_is_pending():
    """A task that was never bought counts as pending until missing_after; it is said how many these are. At the end none is pending."""
    clock = Clock()
    updates = polled(
        Service(clock, {1: 0.0, 2: 30.0, 3: 50.0}), pd.concat([numbered(1, 2, 3, 4, 5), numbered(5)]), clock
    )
    said = [text(drawing.absent(update)) for update in updates]
    assert (
        said[0] == "3 of the pending have no record yet: bought just now, or never. The poll waits 60 s for a record."
    )
    assert said[-1] == ""
    assert [
        ["pending" in drawing.bar(update), "pending" in drawing.table(update)] for update in (updates[0], updates[-1])
    ] == [
        [True, True],
        [False, False],
    ]


def test_the_bar_and_the_table_say_what_the_counts_say():
    """What is drawn adds up to the counts of the update, in the bar, its legend and the table."""
    ends = {(n, field): (0.0 if n % 3 else NEVER) for n in range(40) for field in ("emails", "phones")}
    status = {(n, "emails"): "failed" for n in range(1, 40, 5)} | {(n, "phones"): "timeout" for n in range(1, 40, 9)}
    watch, html = drawn(service(ends, status=status), numbered(*ends))
    update = watch.progress.update
    counts = update.counts.sum()
    bar = drawing.bar(update)
    titles = {name: int(count) for name, count in re.findall(r'title="([^":]+): ([\d,]+)"', bar)}
    data, finished = int(counts["with data"]), int(counts["finished"])
    told = {"with data": data, "no data": finished - data} | {
        name: int(counts[name]) for name in ("failed", "timeout", "no record", "pending") if counts[name]
    }
    assert titles == told
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", bar)]
    assert sum(widths) == pytest.approx(100, abs=0.01)
    assert widths == pytest.approx([100 * count / 80 for count in told.values()], abs=0.001)
    assert f'aria-valuenow="{update.settled}"' in bar
    legend = {name.strip(): int(count) for name, count in re.findall(r"</i>([^<]+) <b>([\d,]+)</b>", bar)}
    assert legend == told
    table = re.sub("</?bdi>", "", drawing.table(update))
    rows = re.findall(r'<tr><th scope="row"[^>]*>(\w+)</th>(.*?)</tr>', table)
    heads = re.findall(r'<th scope="col"[^>]*>([^<]+)</th>', table)
    cells = {field: dict(zip(heads, re.findall(r"<td[^>]*>([^<]+)", row), strict=True)) for field, row in rows}
    ended = {field: int(update.counts.loc[field, "ended"]) for field in ("emails", "phones")} | {"all": update.settled}
    for field, of in ended.items():
        assert cells[field].pop("with data, of ended") == share(int(cells[field]["with data"]) / of)
    cells = {field: {name: int(cell) for name, cell in row.items()} for field, row in cells.items()}
    assert cells["all"] == {"tasks": 80, **told}
    for field in ("emails", "phones"):
        own = update.counts.loc[field]
        assert cells[field]["tasks"] == own["tasks"] == sum(cells[field].values()) - cells[field]["tasks"]
        assert cells[field]["pending"] == own["pending"]
        assert cells[field]["with data"] + cells[field]["no data"] == own["finished"]
    assert f"{update.settled} of 80 were settled" in html


def test_no_tasks_are_done_at_once(make: Make):
    """Of nothing there is nothing to ask."""
    tasks = numbered(0).iloc[:0]
    source = service({0: 0})
    dashboard = make(source, tasks, show="lines")
    assert dashboard.wait().columns.tolist() == ["entityId", "field", "status", "dataFound"]
    assert source.asks == []
    html = drawing.page(dashboard._watch.progress)
    assert text(html).startswith("Nothing to do: there are no tasks")
    assert "<table" not in html


def test_of_one_field_there_is_no_row_of_all():
    """With one field the sums would say the same again."""
    watch, _ = drawn(service({0: 0, 1: NEVER}), numbered(0, 1))
    said = text(drawing.table(watch.progress.update))
    assert said.startswith("tasks by field, and what became of them tasks with data")
    assert " emails 2 " in said
    assert ">all<" not in drawing.table(watch.progress.update)


def test_a_status_that_nobody_knows_has_a_part_of_its_own():
    """A word of a later version of the service has ended, and is no failure."""
    watch, html = drawn(Anyone("verified"), numbered(0, 1, (2, "emails")))
    assert watch.progress.update.settled == 3
    assert 'title="unknown status: 3"' in html
    assert "><bdi>unknown status</bdi></th>" in html
    assert "3 with an unknown status: &#x27;verified&#x27; (3). statuses= (--statuses) says what a word means" in html


def test_bad_rows_are_told_apart(make: Make):
    """With errors="coerce" they have neither field nor status; the bar has a part for them, and counts all rows."""
    tasks = pd.DataFrame(
        {"entityId": [uid(0), "no uuid", uid(1), None], "field": ["emails", "emails", "emails", "phones"]}
    )
    watch, html = drawn(service({0: 0, 1: NEVER}), tasks, errors="coerce")
    update = watch.progress.update
    assert (update.total, update.settled) == (4, 3)
    assert 'title="bad row: 2"' in html
    assert 'aria-valuenow="3"' in html
    dashboard = make(service({0: 0, 1: 0}), tasks, errors="coerce", show="lines")
    assert dashboard.wait()["status"].isna().tolist() == [False, True, False, True]
    with pytest.raises(ValidationError, match="2 bad tasks"):
        es.Dashboard(service({0: 0}), tasks)


@pytest.mark.parametrize(
    "kind",
    [
        pl.from_pandas,
        lambda tasks: pl.from_pandas(tasks).lazy(),
        pa.Table.from_pandas,
        lambda tasks: tasks.to_dict("records"),
    ],
)
def test_tasks_of_any_kind_come_back_as_that_kind(kind: Callable[[pd.DataFrame], Any], make: Make):
    """The frame is of the caller's kind; the latest to end are listed with the caller's own columns."""
    tasks = kind(numbered(0, 1).assign(name=["Ada", "Grace"]))
    dashboard = make(service({0: 0, 1: 0}), tasks, show="lines")
    frame = dashboard.wait()
    expected = pd.DataFrame if isinstance(tasks, list) else type(tasks)
    assert isinstance(frame, expected)
    rows = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    assert list(rows["status"].to_pylist() if isinstance(rows, pa.Table) else rows["status"]) == ["finished"] * 2
    latest = text(drawing.changes(dashboard._watch.progress))
    assert "Ada" in latest
    assert "Grace" in latest


def test_among_the_latest_a_long_name_is_cut_and_an_id_stands_for_none():
    """The list stays narrow; whom nobody named is known by the id."""
    watch, _ = drawn(service({0: 0}), numbered(0).assign(name="x" * 500))
    assert re.search(r" x{35}… emails (with|no) data", text(drawing.changes(watch.progress)))
    watch, _ = drawn(service({0: 0}), numbered(0))
    assert f" {uid(0)} emails" in text(drawing.changes(watch.progress))
