"""The dashboard as a person sees it, in a real browser: live in JupyterLab and in Voilà, and as it stays in what is saved.

The notebooks ask a simulated service over HTTP. Its clock is a file that the test writes: nothing ends before it says so.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from enrichstatus.frames import frames
from tests.support.browser import Lab, LabNotebook, Opened, Voila, empty_page, http
from tests.support.waiting import until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

#: Where screenshots are put, for a person to look at: none unless named.
SHOTS = os.environ.get("ENRICHSTATUS_SHOTS")

SETUP = """
import threading
from pathlib import Path
import pandas as pd, enrichstatus as es
from enrichstatus.server import Background
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.factory import uid

tasks = pd.DataFrame(
    [{{"entityId": uid(i), "name": f"Lead <b>{{i}}</b>", "field": field}} for i in range(50) for field in ("emails", "phones")]
)
clock = Path({clock!r})
simulated = create_simulated_app(SimulatedStore(tasks, seed=7, clock=lambda: float(clock.read_text())), {{"token": "org_simulated"}})
asked = []

async def app(scope, receive, send):
    if scope["type"] == "http":
        asked.append(scope["path"])
    await simulated(scope, receive, send)

service = Background(app)
client = es.EnrichmentClient(service.url, token="token", retries=0)
faults = simulated.state.faults
faults.kinds = ["500"]

def threads():
    return sum(thread.name == "enrichstatus-poll" for thread in threading.enumerate())
"""
SHOW = "dashboard = es.Dashboard(client, tasks, schedule=[0.2])\ndashboard"
#: How text stands out from what is behind it, for each that a selector finds, all at one moment; WCAG wants 4.5.
CONTRASTS = """selector => {
    const numbers = text => text.match(/[\\d.]+/g).map(Number);
    const shine = color => color.slice(0, 3).map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const mixed = (color, share, back) => back.map((v, i) => color[i] * share + v * (1 - share));
    const contrast = element => {
        const above = [];
        for (let one = element; one; one = one.parentElement) above.unshift(getComputedStyle(one));
        let back = [255, 255, 255], seen = 1;
        for (const style of above) {
            const color = numbers(style.backgroundColor);
            back = mixed(color, color[3] ?? 1, back);
            seen *= Number(style.opacity);
        }
        const text = numbers(above.at(-1).color);
        const [a, b] = [shine(mixed(text, (text[3] ?? 1) * seen, back)), shine(back)];
        return (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    };
    return [...document.querySelectorAll(selector)].filter(one => one.checkVisibility()).map(one => [one.textContent, contrast(one)]);
}"""
BAR = ".enrichstatus [role=progressbar]:visible"
STATUS = ".enrichstatus [role=status]:visible"
TROUBLE = ".enrichstatus .trouble:visible"


class Time:
    """The service's clock."""

    def __init__(self, folder: Path):
        self.path = folder / "clock"
        self.set(0)

    def set(self, seconds: float) -> None:
        new = self.path.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.path)  # whole, whenever it is read


@pytest.fixture
def time(tmp_path: Path) -> Time:
    return Time(tmp_path)


def setup(time: Time) -> str:
    return SETUP.format(clock=str(time.path))


def shot(opened: Opened, name: str) -> None:
    if SHOTS:
        opened.page.locator(".enrichstatus .side:visible").last.scroll_into_view_if_needed()
        opened.screenshot(Path(SHOTS) / f"{name}.png")


def ended(opened: Opened) -> int:
    """How many have ended, as the page says."""
    return int(opened.page.locator(BAR).get_attribute("aria-valuenow") or -1)


def grows(opened: Opened, above: int) -> int:
    """Wait until more have ended, as the page says, and nothing is newer: the service's clock stands still."""
    until(lambda: ended(opened) > above)
    return ended(opened)


def press(opened: Opened, button: str) -> None:
    opened.page.locator(f"button:text-is('{button}')").click()


def hold(notebook: LabNotebook, button: str) -> None:
    """Press a button slowly, while answers come that draw the buttons anew."""
    page, before = notebook.page, int(notebook.execute("len(asked)"))
    page.locator(f"button:text-is('{button}'):visible").hover()
    page.mouse.down()
    until(lambda: int(notebook.execute("len(asked)")) > before + 2)
    page.mouse.up()


def quiet(notebook: LabNotebook) -> int:
    """Wait until there is nobody left who could send a request; gives how often the service gets a request."""
    until(lambda: notebook.execute("threads()") == "0")
    return int(notebook.execute("len(asked)"))


def test_in_lab_it_shows_pauses_bears_an_outage_and_stays_readable(
    lab: Lab, chromium: Browser, time: Time, tmp_path: Path
):
    """A poll from its start to its end as a person follows it; then the notebook as it was saved, without a kernel, and as HTML."""
    with lab.open([setup(time), SHOW]) as notebook:
        page = notebook.page
        notebook.run_all()
        notebook.expect(STATUS).to_have_text("Polling")
        notebook.expect(BAR).to_have_attribute("aria-valuemax", "100")
        assert ended(notebook) == 0
        time.set(15)
        first = grows(notebook, 0)
        time.set(30)
        second = grows(notebook, first)
        assert page.locator(".enrichstatus b:has-text('Lead')").count() == 0  # names are text
        readable(notebook)
        shot(notebook, "light")

        pause_by_keyboard(notebook)
        notebook.expect(STATUS).to_have_text("Paused")
        asked = quiet(notebook)
        time.set(45)
        page.wait_for_timeout(600)  # three asks, were it not paused
        assert int(notebook.execute("len(asked)")) == asked
        shown = ended(notebook)
        press(notebook, "Poll now")
        third = grows(notebook, shown)
        notebook.expect(STATUS).to_have_text("Paused")
        assert quiet(notebook) == asked + 1
        assert first < second <= shown < third

        notebook.execute("faults.rate = 1.0")
        press(notebook, "Start")
        notebook.expect(TROUBLE).to_contain_text("A simulated fault")
        notebook.expect(TROUBLE).to_contain_text("The poll goes on by itself")
        assert ended(notebook) == third
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        notebook.expect("body[data-jp-theme-light=false]").to_have_count(1)
        readable(notebook)
        shot(notebook, "outage-dark")
        notebook.execute("faults.rate = 0.0")
        press(notebook, "Poll now")
        notebook.expect(TROUBLE).to_have_count(0)
        time.set(60)
        grows(notebook, third)
        readable(notebook)
        shot(notebook, "dark")

        time.set(2000)
        notebook.expect(STATUS).to_have_text("Done: all are settled")
        readable(notebook)
        agrees(notebook)
        assert quiet(notebook) > asked
        notebook.expect("button:text-is('Pause'):visible, button:text-is('Start'):visible").to_have_count(0)
        shot(notebook, "done-dark")
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")
        notebook.expect("body[data-jp-theme-light=true]").to_have_count(1)
        shot(notebook, "done")
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        assert notebook.outside == []

        http("DELETE", f"{notebook.url}/api/sessions/{notebook._session()['id']}")
        page.reload()
        notebook.wait_idle()
        page.wait_for_selector("text=Error displaying widget", state="attached")
        notebook.expect(STATUS).to_have_text("Done: all are settled")
        remains(notebook)
        shot(notebook, "reopened")
        html = exported(lab.folder / notebook.name, tmp_path)
        saved = json.loads((lab.folder / notebook.name).read_text())
    saved["metadata"]["from"] = "elsewhere"  # no longer what was signed: it is not trusted, and its style is dropped
    with lab.open(saved) as notebook:
        notebook.expect("text=Done: all are settled").to_be_visible()
        notebook.expect("text=47 with data, 48 no data, 2 failed, 3 timeout").to_be_visible()
        notebook.expect("td:text-is('50'):visible").to_have_count(2)
        intact(notebook)
        shot(notebook, "untrusted")

    with ExitStack() as stack:
        opened = Opened(empty_page(chromium, stack))
        opened.page.goto(html.as_uri())
        opened.expect(STATUS).to_have_text("Done: all are settled")
        remains(opened)
        readable(opened)
        shot(opened, "exported")


def pause_by_keyboard(notebook: LabNotebook) -> None:
    """Go by Tab alone to the button, and press it by Enter."""
    page = notebook.page
    page.evaluate("jupyterapp.shell.currentWidget.content.activeCellIndex = 1")
    page.evaluate("jupyterapp.commands.execute('notebook:enter-command-mode')")
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement?.textContent") == "Pause":
            break
    page.keyboard.press("Enter")


def readable(opened: Opened) -> None:
    """Whatever is written stands out from what is behind it."""
    texts = ("[role=status]", ".soft", ".title", "caption", "th", "td", ".trouble")

    def found() -> list[tuple[str, float]]:
        answer: list[tuple[str, float]] = opened.page.evaluate(
            CONTRASTS, ", ".join(f".enrichstatus {text}" for text in texts)
        )
        return answer

    until(lambda: len(found()) > 20)  # a change of the theme hides all for a moment
    assert [(text, contrast) for text, contrast in found() if not contrast >= 4.5] == []


def agrees(notebook: LabNotebook) -> None:
    """What the page says is what the frame says."""
    code = (
        "frame = dashboard.frame; data = frame['status'].eq('finished') & frame['dataFound'].eq(True).fillna(False).astype(bool)\n"
        "words = frame['status'].where(frame['status'] != 'finished', data.map({True: 'with data', False: 'no data'}))\n"
        "words.value_counts().to_dict()"
    )
    counts: dict[str, int] = eval(notebook.execute(code))
    said = notebook.page.locator(BAR).get_attribute("aria-valuetext") or ""
    told = {name: int(count) for count, name in re.findall(r"(\d+) ([a-z ]+)", said)}
    assert told == counts
    assert set(told) >= {"with data", "no data", "failed", "timeout"}
    assert sum(told.values()) == 100 == ended(notebook)


def remains(opened: Opened) -> None:
    """The last state is there once, with its picture, and no error is in its place."""
    opened.expect(BAR).to_have_count(1)
    assert ended(opened) == 100
    intact(opened)


def intact(opened: Opened) -> None:
    """The picture is there, and nothing says that there should be something else."""
    picture = opened.page.locator(".enrichstatus img:visible")
    assert picture.evaluate("image => image.complete && image.naturalWidth") == 360
    assert opened.page.locator("text=/Error displaying widget|Loading widget/ >> visible=true").count() == 0


def exported(notebook: Path, folder: Path) -> Path:
    """Give a notebook as nbconvert writes it."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nbconvert import HTMLExporter

        text, _ = HTMLExporter().from_filename(str(notebook))
    path = folder / "notebook.html"
    path.write_text(text, encoding="utf-8")
    return path


def test_in_voila_the_same_cells_are_a_page_that_lives(voila: Voila, time: Time):
    """Its bar moves, its buttons are heard, and what is for the saved notebook is out of sight."""
    with voila([setup(time), SHOW]) as page:
        page.expect(STATUS).to_have_text("Polling")
        page.expect(BAR).to_have_count(1)
        time.set(20)
        first = grows(page, 0)
        time.set(40)
        grows(page, first)
        readable(page)
        shot(page, "voila")
        press(page, "Pause")
        page.expect(STATUS).to_have_text("Paused")
        press(page, "Start")
        time.set(2000)
        page.expect(STATUS).to_have_text("Done: all are settled")
        page.page.locator("button.cell:has-text('failed')").first.click()
        page.expect(".enrichstatus .wide tbody tr").to_have_count(2)
        page.page.set_viewport_size({"width": 500, "height": 900})
        assert page.page.evaluate("document.documentElement.scrollWidth") <= 500
        shot(page, "voila-done")


def test_two_in_one_kernel_an_interrupt_and_a_closed_page_leave_no_thread(lab: Lab, time: Time):
    """One is stopped and the other goes on; whatever ends a poll, its thread is gone when there is nothing to wait for."""
    one = "memory = es.EnrichmentStore(org_id='org_simulated')\none = es.Dashboard(client, tasks[:50], into=memory, schedule=[0.2])\none"
    two = "two = es.Dashboard(client, tasks[50:], into=memory, schedule=[0.2])\ntwo"
    with lab.open([setup(time), one, two, "print('waiting')\ntwo.wait()"]) as notebook:
        page = notebook.page
        for cell in (0, 1, 2):
            notebook.run_cell(cell)
        notebook.expect(BAR).to_have_count(2)
        bars = page.locator(BAR)
        time.set(20)

        def value(place: int) -> int:
            return int(bars.nth(place).get_attribute("aria-valuenow") or -1)

        until(lambda: value(0) > 0 and value(1) > 0)
        page.locator("button:text-is('Stop')").first.click()
        notebook.expect(STATUS).to_have_text(["Stopped", "Polling"])
        before = (value(0), value(1))
        time.set(60)
        until(lambda: value(1) > before[1])
        assert value(0) == before[0]
        assert notebook.execute("threads(), one.phase") == "(1, 'stopped')"
        middle = value(1)
        shot(notebook, "two")

        notebook.run_cell(3, wait=False)
        notebook.expect(".jp-OutputArea-output:has-text('waiting')").to_have_count(1)
        time.set(80)
        until(lambda: value(1) > middle)  # it lives while the kernel is busy
        notebook.interrupt_kernel()
        notebook.wait_idle()
        error = output(notebook, 3, "error")
        assert error["ename"] == "PollInterrupted"
        assert "of 50 tasks were settled" in error["evalue"]
        notebook.expect(STATUS).to_have_text(["Stopped", "Stopped"])
        quiet(notebook)

        notebook.execute("one.start(); two.start()")
        notebook.expect(STATUS).to_have_text(["Polling", "Polling"])
        page.close()
        assert notebook.execute("threads()") == "2"
        time.set(2000)
        until(lambda: notebook.execute("one.phase, two.phase") == "('done', 'done')")
        quiet(notebook)
        counts = eval(notebook.execute("memory.lookup(tasks)['status'].value_counts().to_dict()"))
        assert sum(counts.values()) == 100
        assert "pending" not in counts


def test_a_restart_leaves_no_thread_and_the_cells_run_again(lab: Lab, time: Time):
    """A kernel that is restarted in the middle knows nothing; run again it shows a new one, once."""
    with lab.open([setup(time), SHOW]) as notebook:
        notebook.run_all()
        time.set(20)
        grows(notebook, 0)
        notebook.restart_kernel()
        notebook.expect(STATUS).to_have_text(
            "The kernel of this view has ended, and its poll with it: run the cell again."
        )
        assert (
            notebook.execute("import threading; [t.name for t in threading.enumerate() if 'enrich' in t.name]") == "[]"
        )
        notebook.run_all()
        time.set(2000)
        notebook.expect(STATUS).to_have_text("Done: all are settled")
        notebook.expect(BAR).to_have_count(1)


#: A list of which every fifth lead fails, and a list that is long.
LISTS = """
failing = pd.DataFrame([{"entityId": uid(i), "field": "emails", "name": f"=Lead <b>{i}</b>"} for i in range(60)])
class Source:
    fields = ("emails", "phones", "summary")
    def lookup(self, tasks, columns=(), **options):
        odd = tasks["entityId"].isin(failing["entityId"][::5])
        answer = {name: None for name in columns} | {
            "status": odd.map({True: "failed", False: "finished"}), "dataFound": odd.map({True: None, False: True}).astype("boolean"),
            "error": odd.map({True: "<b>no credits</b>", False: None})}
        return tasks.assign(**answer)
many = pd.DataFrame({"entityId": [uid(i) for i in range(100_000)], "field": "emails"})
many["name"] = "Lead " + many.index.astype(str)
"""


def test_from_a_number_to_its_rows_and_to_a_file(lab: Lab, time: Time, tmp_path: Path):
    """Press "failed", see the rows, search, sort, download: the file is the selection. Of 100,000 tasks too, in a moment."""
    cells = [
        setup(time) + LISTS,
        "failed = es.Dashboard(Source(), failing, title='Q4 list', costs={'emails': 2})\nfailed",
        "long = es.Dashboard(Source(), many, show='widgets')\nlong.start()\nlong",
    ]
    with lab.open(cells) as notebook:
        page = notebook.page
        for cell in (0, 1):
            notebook.run_cell(cell)
        notebook.expect(STATUS).to_have_text("Done: all are settled")
        page.locator("button.cell:has-text('failed'):visible").first.click()
        rows = page.locator(".enrichstatus .wide tbody tr")
        notebook.expect(".enrichstatus .wide tbody tr").to_have_count(12)
        notebook.expect(".enrichstatus .wide:has-text('<b>no credits</b>')").to_have_count(1)
        assert page.evaluate("document.querySelectorAll('.enrichstatus .wide td b').length") == 0
        shot(notebook, "rows")
        page.locator("button.cell:has-text('name')").click()
        notebook.expect("th[aria-sort=ascending]").to_have_count(1)
        page.locator(".enrichstatus input[type=search]").fill("lead <b>1")
        notebook.expect(".enrichstatus .wide tbody tr").to_have_count(2)  # 10 and 15
        notebook.expect(".enrichstatus input[type=search]").to_be_focused()
        assert rows.first.inner_text().startswith("=Lead <b>10</b>")
        page.locator(".enrichstatus input[type=search]").fill("")
        notebook.expect(".enrichstatus .wide tbody tr").to_have_count(12)
        chosen = eval(notebook.execute("failed.selection['entityId'].tolist()"))
        for kind, ending in (("CSV", ".csv"), ("Excel", ".xlsx")):
            with page.expect_download() as download:
                press(notebook, f"Download {kind}")
            assert download.value.suggested_filename == f"Q4-list-failed{ending}"
            path = tmp_path / f"file{ending}"
            download.value.save_as(path)
            found = frames.read(path).arrow(["entityId", "name", "error"]).to_pydict()
            assert found["entityId"] == chosen
            assert set(found["error"]) == {"<b>no credits</b>"}
            assert {name.removeprefix("'")[:5] for name in found["name"]} == {"=Lead"}
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})")
        notebook.expect("body[data-jp-theme-light=false]").to_have_count(1)
        readable(notebook)
        shot(notebook, "rows-dark")
        page.evaluate("jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Light'})")

        notebook.run_cell(2)
        until(lambda: notebook.execute("long.phase") == "'done'")
        last = page.locator(".enrichstatus:visible").last
        last.locator("button.cell:has-text('with data')").first.click()
        last.locator("text=1–20 of 99,988").wait_for()
        took = page.evaluate(PAINTED, "failed")
        assert took < 1000, took  # a fifth of that on a machine that does nothing else
        with page.expect_download() as download:
            last.locator("button:text-is('Download CSV')").click()
        path = tmp_path / "long.csv"
        download.value.save_as(path)
        assert len(path.read_text(encoding="utf-8-sig").splitlines()) == 13


#: Milliseconds from the press of a number to the paint of its rows, of the last dashboard on the page.
PAINTED = """async word => {
    const board = [...document.querySelectorAll(".enrichstatus")].filter(one => one.querySelector("button.cell")).at(-1);
    const rows = () => board.querySelector(".wide tbody").innerText;
    const before = rows(), begun = performance.now();
    [...board.querySelectorAll("button.cell")].find(one => one.innerText.includes(word)).click();
    while (rows() === before) await new Promise(requestAnimationFrame);
    return performance.now() - begun;
}"""


def test_a_cell_that_is_run_again_polls_once_and_a_dead_service_is_told(lab: Lab, time: Time):
    """Three runs of a cell are one poll and one live view; and where the service is gone, or refuses the token, it says so."""
    with lab.open([setup(time), SHOW, "wait = dashboard.wait()"]) as notebook:
        for cell in (0, 1, 1, 1):
            notebook.run_cell(cell)
        notebook.expect(BAR).to_have_count(1)
        notebook.expect(STATUS).to_have_text("Polling")
        until(lambda: notebook.execute("threads(), len(es.dashboards())") == "(1, 1)")
        hold(notebook, "Pause")
        notebook.expect(STATUS).to_have_text("Paused")
        press(notebook, "Start")
        notebook.run_cell(2, wait=False)
        notebook.expect("text=a cell waits for this").to_be_visible()
        shot(notebook, "waiting")
        notebook.interrupt_kernel()
        notebook.wait_idle()
        notebook.expect(STATUS).to_have_text("Stopped")
        notebook.execute("dashboard.start(); service.stop()")
        notebook.expect(STATUS).to_have_text("The service does not answer; the poll goes on")
        readable(notebook)
        shot(notebook, "down")
        assert notebook.execute("es.stop_all()") == "1"
        notebook.expect(STATUS).to_have_text("Stopped")
        quiet(notebook)
        code = "again = Background(simulated)\nother = es.EnrichmentClient(again.url, token='wrong-token', retries=0)\n"
        notebook.execute(code + "refused = es.Dashboard(other, tasks)\nrefused.start()")
        until(lambda: notebook.execute("refused.phase") == "'failed'")


def output(notebook: LabNotebook, cell: int, kind: str) -> dict[str, Any]:
    """Give a cell's one output of a kind."""
    [found] = [one for one in notebook.cells()[cell]["outputs"] if one["output_type"] == kind]
    return dict(found)
