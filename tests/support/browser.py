"""A real JupyterLab and a real Voilà, each in the machine's own Chromium, for as long as a test needs them.

``lab`` and ``voila`` are fixtures (``conftest`` registers them). Their servers start once a session, with configuration,
kernels and files in folders of their own; every notebook that is opened has a browser context of its own. Whatever
a page asks of another machine is refused, and noted in ``outside``.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest
import requests

if TYPE_CHECKING:
    from playwright.sync_api import Browser, LocatorAssertions, Page, Route

ROOT = Path(__file__).parents[2]
# Long, for a busy machine: every wait is for a condition, so that only a failure takes this long.
SECONDS = 60
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
OUTSIDE = re.compile(r"^(?:https?|wss?)://(?!(?:127\.0\.0\.1|localhost)[:/])")
# That the page says idle is not enough: it does before there is a kernel, and a command would then ask for one.
IDLE = """() => {
    const context = window.jupyterapp?.shell.currentWidget?.sessionContext;
    return context?.isReady && context.session?.kernel?.status === "idle" && !window.commandsRunning;
}"""

# Runs a module as ``python -m`` does, but Linux ends it when the tests are killed: pytest then gets no chance to.
LAUNCH = """
import ctypes, runpy, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""

# Open to whoever is on this machine, as a test's server may be; the server itself fetches no news and lists no extensions.
LAB_OPTIONS = [
    "--IdentityProvider.token=",
    "--ServerApp.disable_check_xsrf=True",
    "--allow-root",
    "--expose-app-in-browser",
    "--LabApp.extension_manager=readonly",
    "--LabApp.news_url=",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
]

Cells = Mapping[str, Any] | Sequence[str]


@dataclass
class Opened:
    """A page in Chromium, empty at first; closed by ``close``, by ``with``, or when the module's tests have run."""

    page: Page
    # addresses on other machines that the page asked for, all refused
    outside: list[str] = field(default_factory=list)
    # what the page wrote to the console as an error, and the exceptions that nothing caught
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what the page asks of other machines, noting it, and note its errors."""
        self.page.context.route(OUTSIDE, self._refuse)
        # a route sees no websocket: the browser refuses it, for it resolves no name
        self.page.on("websocket", lambda one: self.outside.append(one.url) if OUTSIDE.match(one.url) else None)
        self.page.on("console", lambda one: self.errors.append(one.text) if one.type == "error" else None)
        self.page.on("pageerror", lambda one: self.errors.append(str(one)))

    def _refuse(self, route: Route) -> None:
        self.outside.append(route.request.url)
        route.abort()

    def expect(self, selector: str) -> LocatorAssertions:
        """Playwright's assertions on what the selector finds; they wait until they hold."""
        from playwright.sync_api import expect

        return expect(self.page.locator(selector))

    def screenshot(self, path: Path | str) -> None:
        self.page.screenshot(path=path)

    def close(self) -> None:
        self.page.context.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass
class LabNotebook(Opened):
    """A notebook that is open in JupyterLab; what is done to it is done by Lab's own commands."""

    url: str = ""
    name: str = ""

    def run_all(self, *, wait: bool = True) -> None:
        """Run all cells; with ``wait``, until they have run, and every error in them fails the test."""
        self._run("notebook:run-all-cells", wait)

    def run_cell(self, index: int, *, wait: bool = True) -> None:
        """Run one cell, as ``run_all`` runs all."""
        self.page.evaluate("index => { jupyterapp.shell.currentWidget.content.activeCellIndex = index }", index)
        self._run("notebook:run-cell", wait)

    def cells(self) -> list[dict[str, Any]]:
        """The cells with their outputs as they are in the page now, not as they were saved."""
        cells: list[dict[str, Any]] = self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.model.sharedModel.toJSON().cells"
        )
        return cells

    def wait_idle(self) -> None:
        """Wait until every command given here has come to its end, and the kernel does nothing."""
        self.page.wait_for_function(IDLE)

    def interrupt_kernel(self) -> None:
        """Interrupt what the kernel does; whether it then stops is for ``wait_idle`` to say."""
        self._command("notebook:interrupt-kernel")

    def restart_kernel(self) -> None:
        """Restart the kernel as a person does, who is asked whether they mean it."""
        self._command("notebook:restart-kernel")
        self.page.click(".jp-Dialog .jp-mod-accept")
        self.wait_idle()

    def execute(self, code: str) -> str:
        """Run code in the notebook's kernel, past the page; gives what it printed and then its value's ``repr``.

        The kernel runs it after the cells that run or wait. An exception in it is an ``AssertionError`` here.
        """
        import websocket

        header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": uuid.uuid4().hex}
        header |= {"username": "test", "date": "2000-01-01T00:00:00Z", "version": "5.3"}
        content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
        request = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
        address = f"ws{self.url.removeprefix('http')}/api/kernels/{self._session()['kernel']['id']}/channels"
        deadline, text = time.monotonic() + SECONDS, ""
        channel = websocket.create_connection(address, timeout=SECONDS, http_no_proxy=["127.0.0.1"])
        try:
            channel.send(json.dumps(request))
            while True:
                assert time.monotonic() < deadline, f"the kernel took more than {SECONDS} s over {code!r}"
                message = json.loads(channel.recv())
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue  # of the page, or of a thread
                match message["msg_type"], message["content"]:
                    case "stream", {"text": printed}:
                        text += printed
                    case "execute_result", {"data": data}:
                        text += data["text/plain"]
                    case "error", {"traceback": traceback}:
                        raise AssertionError("\n".join(traceback))
                    case "status", {"execution_state": "idle"}:
                        return text
        finally:
            channel.close()

    def close(self) -> None:
        """Close the page and end its kernel."""
        if session := self._session():
            http("DELETE", f"{self.url}/api/sessions/{session['id']}")
        super().close()

    def _session(self) -> dict[str, Any]:
        """The server's session of this notebook, empty after ``close``."""
        return next((one for one in http("GET", f"{self.url}/api/sessions").json() if one["path"] == self.name), {})

    def _run(self, command: str, wait: bool) -> None:
        self._command(command)
        if wait:
            self.wait_idle()
            outputs = [output for cell in self.cells() for output in cell.get("outputs", ())]
            failed = ["\n".join(output["traceback"]) for output in outputs if output["output_type"] == "error"]
            assert not failed, "\n\n".join(failed)

    def _command(self, name: str) -> None:
        """Begin a command of Lab. Not awaited here, where nothing would time it out: ``wait_idle`` does."""
        self.page.evaluate(
            """name => {
                window.commandsRunning = (window.commandsRunning ?? 0) + 1;
                jupyterapp.commands.execute(name).catch(console.error).finally(() => { window.commandsRunning -= 1 });
            }""",
            name,
        )


@dataclass
class VoilaPage(Opened):
    """A notebook as a page of Voilà."""

    url: str = ""

    def close(self) -> None:
        """Close the page and end its kernel, as Voilà itself means to do when a page is left (see ``voila_server``)."""
        if not self.page.is_closed():
            config = json.loads(self.page.locator("#jupyter-config-data").text_content() or "")
            http("POST", f"{self.url}/voila/api/shutdown/{config['kernelId']}")
        super().close()


@dataclass
class Lab:
    """A JupyterLab server at ``url``, whose files are in ``folder``."""

    url: str
    folder: Path
    browser: Browser
    stack: ExitStack
    names: Iterator[str]

    def open(self, notebook: Cells, name: str | None = None) -> LabNotebook:
        """Open a notebook (as a ``dict``, or the code of each of its cells); its kernel is ready, and nothing has run."""
        name = _write(notebook, self.folder, name or next(self.names))
        opened = LabNotebook(empty_page(self.browser, self.stack), url=self.url, name=name)
        self.stack.callback(opened.close)
        opened.page.goto(f"{self.url}/lab/tree/{name}?reset")
        opened.wait_idle()
        return opened


@dataclass
class Voila:
    """A Voilà server at ``url`` over the notebooks in ``folder``; call it to open one."""

    url: str
    folder: Path
    browser: Browser
    stack: ExitStack
    names: Iterator[str]

    def __call__(self, notebook: Cells, name: str | None = None) -> Opened:
        """Open a notebook as a page; all its cells have run, and its widgets are on it."""
        name = _write(notebook, self.folder, name or next(self.names))
        opened = VoilaPage(empty_page(self.browser, self.stack), url=self.url)
        self.stack.callback(opened.close)
        opened.page.goto(f"{self.url}/voila/render/{name}")
        opened.page.wait_for_selector("#rendered_cells", state="visible")
        return opened


# Of a module, not of the session: until it is stopped, playwright's event loop counts as running in this thread,
# where asyncio.run would refuse to work for another module's test. A start takes about a second.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """The machine's Chromium, which reaches no machine but this one."""
    require()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=SECONDS * 1000)
    alone = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost", "--no-proxy-server"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=_chromium(),
            chromium_sandbox=os.geteuid() != 0,  # as root it has none
            args=alone,
            timeout=SECONDS * 1000,
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A JupyterLab server that sends no request to the network, and its folder."""
    require("jupyterlab", "websocket")
    base = tmp_path_factory.mktemp("lab")
    with serving(base, "jupyterlab", *LAB_OPTIONS) as url:
        yield url, base / "files"


@pytest.fixture(scope="session")
def voila_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Voilà server, and its folder."""
    require("voila")
    base = tmp_path_factory.mktemp("voila")
    options = ["--VoilaConfiguration.show_tracebacks=True", str(base / "files")]
    # Voilà 0.5.13 answers 403 to its own page when that is left and wants its kernel ended: the page has no XSRF cookie
    options += ["--Voila.tornado_settings=disable_check_xsrf=True"]
    with serving(base, "voila", *options) as url:
        yield url, base / "files"


@pytest.fixture(scope="module")
def lab(lab_server: tuple[str, Path], chromium: Browser) -> Iterator[Lab]:
    """JupyterLab, to open notebooks in."""
    with ExitStack() as stack:
        yield Lab(*lab_server, chromium, stack, _names())


@pytest.fixture(scope="module")
def voila(voila_server: tuple[str, Path], chromium: Browser) -> Iterator[Voila]:
    """Voilà, to open notebooks as pages."""
    with ExitStack() as stack:
        yield Voila(*voila_server, chromium, stack, _names())


def require(*modules: str) -> None:
    """Skip the test where a part is missing, saying how to install it."""
    for module in (*modules, "playwright"):
        if importlib.util.find_spec(module) is None:
            missing(f'needs {module}: pip install -e ".[browser]"')
    if _chromium() is None:
        missing(f"needs one of {', '.join(CHROMIUMS)} on the PATH: apt-get install chromium")


def missing(what: str) -> NoReturn:
    """Skip the test for want of something; in CI it fails, since there it has to run."""
    (pytest.fail if os.environ.get("ENRICHSTATUS_CI") == "1" else pytest.skip)(what)
    raise AssertionError


def _chromium() -> str | None:
    return next(filter(None, map(shutil.which, CHROMIUMS)), None)


def _names() -> Iterator[str]:
    """Names that no other notebook of the session has."""
    return (f"{uuid.uuid4().hex[:8]}-{count}.ipynb" for count in itertools.count(1))


def _write(notebook: Cells, folder: Path, name: str) -> str:
    if not isinstance(notebook, Mapping):
        kind = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
        cells = [{**kind, "id": f"cell-{index}", "source": source} for index, source in enumerate(notebook)]
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        notebook = {"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(notebook), encoding="utf-8")
    return name


def empty_page(browser: Browser, stack: ExitStack) -> Page:
    """A page in a context of its own, closed with the stack."""
    # a service worker's requests would pass the route
    context = browser.new_context(service_workers="block", viewport={"width": 1400, "height": 1000})
    stack.callback(context.close)
    context.set_default_timeout(SECONDS * 1000)
    return context.new_page()


def http(method: str, url: str) -> requests.Response:
    """Ask a server of this machine, whatever proxy the environment names."""
    with requests.Session() as session:
        session.trust_env = False
        response = session.request(method, url, timeout=SECONDS)
        response.raise_for_status()
        return response


@contextmanager
def serving(base: Path, module: str, *options: str) -> Iterator[str]:
    """Run a Jupyter server over ``base/files``; gives its URL once it answers, and ends it with its kernels."""
    files = base / "files"
    files.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]  # were it taken by then, the server would try others: its log tells
    log = base / "log.txt"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", LAUNCH, module, "--no-browser", f"--port={port}", *options],
            cwd=files,
            env=os.environ | _environment(base),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield _address(process, log)
        finally:
            _end(process)


def _environment(base: Path) -> dict[str, str]:
    """Where Jupyter and IPython look and write, in a folder of its own: nothing of the person's is read or changed."""
    names = ["JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"]
    names += ["JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR", "JUPYTER_PATH"]
    folders = {name: base / name.lower() for name in names}
    for folder in folders.values():
        folder.mkdir()
    # the kernel is run by the interpreter that runs the tests: JUPYTER_PATH is looked at first
    kernel = folders["JUPYTER_PATH"] / "kernels" / "python3" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    # the news that Lab offers to fetch is a dialog in the way
    page_config = folders["JUPYTER_CONFIG_DIR"] / "labconfig" / "page_config.json"
    page_config.parent.mkdir()
    page_config.write_text('{"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": true}}')
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {name: str(folder) for name, folder in folders.items()} | {"PYTHONPATH": path}


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """The server's URL, once it has said so and answers."""
    deadline = time.monotonic() + SECONDS
    while True:
        said = log.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r"running at:\n.*?http://[^/\s]+:(\d+)", said):
            url = f"http://127.0.0.1:{found[1]}"
            with suppress(requests.ConnectionError):  # it says so a moment before it listens
                http("GET", url)
                return url
        assert process.poll() is None, said
        assert time.monotonic() < deadline, said
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a server and its kernels (each is in a process group of its own): asked first, then killed."""
    import psutil

    processes = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(SECONDS / 4)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for one in processes:
        try:
            one.kill()  # not another process that has got its number since: psutil looks
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(processes, SECONDS / 4)
