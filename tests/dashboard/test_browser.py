"""The harness of the tests that need a browser: JupyterLab and Voilà, as a person sees them."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.browser import ROOT, SECONDS, Lab, Opened, Voila, empty_page, http, require

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# A thread counts up to three once it may go; each click is counted on the button.
CELLS = [
    "import threading, ipywidgets, enrichstatus\n"
    "button, page, clicks = ipywidgets.Button(description='Press'), ipywidgets.HTML('at 0'), []\n"
    "go = threading.Event()\n"
    "def count():\n"
    "    go.wait()\n"
    "    for number in (1, 2, 3):\n"
    "        page.value = f'at {number}'\n"
    "def press(_):\n"
    "    clicks.append(1)\n"
    "    button.description = f'Pressed {len(clicks)}'\n"
    "button.on_click(press)\n"
    "thread = threading.Thread(target=count, name='counting', daemon=True)\n"
    "thread.start()",
    "ipywidgets.VBox([button, page])",
]


def test_lab_shows_what_a_thread_does_and_takes_a_click(lab: Lab, tmp_path: Path):
    """In JupyterLab a widget renders, follows a thread, and its click reaches the kernel, with no other machine asked."""
    with lab.open(CELLS) as notebook:
        notebook.run_all()
        notebook.expect(".widget-html-content").to_have_text("at 0")
        notebook.page.click("button.widget-button")
        notebook.expect("button.widget-button").to_have_text("Pressed 1")
        assert notebook.execute("go.set(); thread.join(); len(clicks), thread.is_alive()") == "(1, False)"
        notebook.expect(".widget-html-content").to_have_text("at 3")
        notebook.screenshot(tmp_path / "lab.png")
        assert (tmp_path / "lab.png").stat().st_size > 1000
        assert notebook.outside == []


def test_voila_shows_it_as_a_page(voila: Voila):
    """In Voilà the same notebook is a page without its code; all that it asks elsewhere is its style sheet of icons."""
    with voila([*CELLS, "go.set()"]) as page:
        page.expect(".widget-html-content").to_have_text("at 3")
        page.page.click("button.widget-button")
        page.expect("button.widget-button").to_have_text("Pressed 1")
        page.expect(".jp-InputArea").to_have_count(0)
        assert {urlsplit(url).hostname for url in page.outside} <= {"cdn.jsdelivr.net"}
        assert all(url.endswith(".css") for url in page.outside)


def test_lab_runs_one_cell_and_the_kernel_can_be_interrupted_and_restarted(lab: Lab):
    """A cell that does not end is interrupted; a restarted kernel knows nothing; an error in a cell or in it is reported."""
    with lab.open(["import time\nmark = 1\nprint('asleep')\ntime.sleep(600)", "mark"]) as notebook:
        notebook.run_cell(0, wait=False)
        notebook.expect(".jp-OutputArea-output").to_have_text("asleep")
        notebook.interrupt_kernel()
        notebook.wait_idle()
        assert notebook.cells()[0]["outputs"][1]["ename"] == "KeyboardInterrupt"
        assert notebook.execute("print('mark is'); mark") == "mark is\n1"
        notebook.restart_kernel()
        with pytest.raises(AssertionError, match="NameError"):
            notebook.execute("mark")
        with pytest.raises(AssertionError, match="NameError"):
            notebook.run_cell(1)


def test_what_a_page_asks_of_another_machine_is_refused_and_noted(chromium: Browser):
    """A request and a websocket to another machine fail, and are noted."""
    with ExitStack() as stack:
        opened = Opened(empty_page(chromium, stack))
        reached = "fetch('https://example.org/a', {mode: 'no-cors'}).then(() => true, () => false)"
        assert opened.page.evaluate(reached) is False
        reached = (
            "new Promise(done => { const one = new WebSocket('wss://192.0.2.1/b');"
            " one.onopen = () => done(true); one.onerror = () => done(false) })"
        )
        assert opened.page.evaluate(reached) is False
        assert opened.outside == ["https://example.org/a", "wss://192.0.2.1/b"]


def test_what_is_missing_skips_a_test_but_fails_it_in_ci(monkeypatch: pytest.MonkeyPatch):
    """Without Chromium or a package the test is skipped, which says what to install; where CI says so it fails."""
    monkeypatch.delenv("ENRICHSTATUS_CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r'nosuch: pip install -e "\.\[browser\]"'):
        require("nosuch")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="install"):
        require()
    monkeypatch.setenv("ENRICHSTATUS_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="install"):
        require()


@pytest.mark.machine("browser")
@pytest.mark.parametrize("killed", [False, True])
def test_a_server_ends_with_its_kernels_whatever_ends_the_tests(killed: bool, tmp_path: Path):
    """When the one who started a server is done with it, or is killed, then neither it nor a kernel of it is left."""
    require("jupyterlab")
    import psutil

    code = (
        "import sys; from pathlib import Path; from tests.support.browser import LAB_OPTIONS, serving\n"
        "with serving(Path(sys.argv[1]), 'jupyterlab', *LAB_OPTIONS) as url:\n"
        "    print(url, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        url = starter.stdout.readline().strip()
        http("POST", f"{url}/api/kernels")
        started = psutil.Process(starter.pid).children(recursive=True)
        assert len(started) >= 2, started  # the server, the kernel, and what the server asks the machine with
        if killed:
            starter.kill()
        else:
            starter.communicate(timeout=SECONDS)
    assert psutil.wait_procs(started, SECONDS if killed else 0)[1] == []
