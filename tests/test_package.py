"""The package as a whole: what it exports, what it loads, what its documents say."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import rlcompleter
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.simulation import SimulatedStore
from tests.support.cases import cases
from tests.support.factory import task

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_those_of_the_stub():
    """Type checkers, ``dir`` and ``import *`` see the same names, each imported on first use from where it lives; and the version."""
    assert set(dir(es)) == {*es.__all__, "__version__"}
    assert es.__all__ == sorted(es.__all__)
    for name in es.__all__:
        assert getattr(es, name).__name__ == name
        assert getattr(es, name).__module__ == es._HOMES[name]
    assert es.__version__ == importlib.metadata.version("enrichstatus")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        es.nothing  # noqa: B018


def test_tab_completion_shows_the_public_names_alone():
    """At ``es.`` a notebook and Python's own prompt offer what is public, and no module that happens to be loaded."""
    completer = rlcompleter.Completer({"es": es})
    offered = [word.removeprefix("es.").rstrip("()") for word in completer.attr_matches("es.")]
    assert sorted(offered) == es.__all__
    from IPython.core.completer import IPCompleter, provisionalcompleter

    with provisionalcompleter():
        offered = [found.text for found in IPCompleter(namespace={"es": es}).completions("es.", 3)]
    assert sorted(word.removeprefix(".") for word in offered) == es.__all__


def test_importing_loads_nothing_optional():
    """All public names, imported in a fresh process, load no widgets, server, cluster, plots, transpiler, other frames or HTTP."""
    loaded = _loaded("from enrichstatus import *")
    assert {"duckdb", "pandas"} <= loaded
    optional = {"ipywidgets", "IPython", "starlette", "pyspark", "matplotlib", "polars", "requests", "sqlglot"}
    assert not loaded & optional


def test_importing_the_package_alone_is_quick():
    """``import enrichstatus`` waits for nothing that is large; a name is imported when it is first used."""
    assert not _loaded("import enrichstatus") & {"pandas", "pyarrow", "duckdb", "numpy"}


def _loaded(code: str) -> set[str]:
    """Run code in a fresh process; gives the packages that it has loaded."""
    code = f"import sys\n{code}\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split())


@pytest.mark.parametrize(
    "imports",
    [
        "import pandas, enrichstatus",
        "import enrichstatus, importlib.util; importlib.util.find_spec('pandas'); import pandas",
        "import enrichstatus; from pandas.core import frame; import pandas",
        "import enrichstatus, pandas",
        "import enrichstatus; enrichstatus.EnrichmentStore; import pandas",
        "import enrichstatus, importlib, pandas; importlib.reload(enrichstatus)",
    ][: cases(3, 6)],
)
def test_the_accessor_is_there_whichever_is_imported_first(imports: str):
    """``leads.enrichment`` works at once, whether pandas is imported before or after, and leaves no hook behind."""
    checked = "pandas.DataFrame().enrichment.plan.__name__, pandas.DataFrame.enrichment.__doc__"
    hooks = "[type(finder) for finder in sys.meta_path if type(finder).__module__.startswith('enrichstatus')]"
    code = f"import sys\n{imports}\nprint({hooks}, {checked})"
    ran = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert ran.stdout.startswith("[] plan The enrichment of a lead list"), ran.stderr


def test_every_public_object_says_what_it_is(tmp_path: Path):
    """In a terminal nothing shows as an address in memory: a store, a report, a plan and the accessor say what they hold."""
    leads = pd.read_csv(ROOT / "data" / "leads.csv")
    records = ROOT / "data" / "enrichments.json"
    with es.EnrichmentStore(org_id="org_acme") as store, SimulatedStore([task()]) as service:
        tasks = es.tasks_from_leads(leads[:20], entity_id="lead_id", fields="emails")
        status = store.lookup(tasks)
        loaded = store.load([records, ROOT / "data" / "bad_records.json"], errors="reject")
        written = store.lookup_to(
            ROOT / "data" / "leads.csv", tmp_path / "o.csv", entity_id="lead_id", fields=["emails"]
        )
        *_, update = es.poll(store, tasks, schedule=[0.01], missing_after="0.01s")
        shown = {
            "EnrichmentStore(':memory:', org_id='org_acme')\n3,832 records of org_acme\n": store,
            "SimulatedStore(':memory:', org_id='org_simulated')\n": service,
            "LoadReport(5,173 read: 5,162 inserted, 0 updated, 6 unchanged, 5 rejected; .rejects says why)": loaded,
            "LookupReport(2,000 tasks read, 2,000 rows written to ": written,
            "Update(20 of 20 settled": update,
            "Plan of 20 tasks: ": es.plan(store, tasks),
            "No task has ended; 20 without a record left out": es.coverage(status),
            "Enrichment of 2,000 leads: .status(), .plan() and .coverage() take a source": leads.enrichment,
            "EnrichmentClient('https://api.example.com'": es.EnrichmentClient("https://api.example.com", token="x"),
            "Dashboard(ready: 0 of 20 settled": es.Dashboard(store, tasks),
            "Backoff(1, 2, 60, jitter=0.1)": es.Backoff(),
            "Adaptive(650, maximum=60, jitter=0.1)": es.Adaptive(),
            "Ask(after=3": es.Ask(3),
        }  # fmt: skip
        for text, what in shown.items():
            assert repr(what).startswith(text)


def test_tests_share_what_is_in_support_and_nothing_else():
    """No test imports another test or a conftest, and no helper imports a test: what two need stands in ``tests/support/``."""
    wrong = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path.is_relative_to(ROOT / "tests" / "bench"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [alias.name for alias in node.names] if isinstance(node, (ast.Import, ast.ImportFrom)) else []
            names = [f"{module}.{name}" for name in names] if module else names
            relative = isinstance(node, ast.ImportFrom) and node.level > 0
            wrong += [
                f"{path.relative_to(ROOT)}:{node.lineno} imports {name}"
                for name in names
                if relative or (name.split(".")[0] == "tests" and name.split(".")[1:2] != ["support"])
            ]
    assert wrong == []


IMPORT_ALL = """
import pathlib, pkgutil, sys
real = pathlib.Path.read_text
def read_text(self, encoding=None, errors=None):  # what Python does there
    return real(self, encoding or "ascii", errors)
pathlib.Path.read_text = read_text
import enrichstatus as es
for module in pkgutil.walk_packages(es.__path__, "enrichstatus."):
    if module.name != "enrichstatus.__main__":
        __import__(module.name)
store = es.EnrichmentStore(org_id="org_acme")
store.load("data/enrichments.json")
tasks = es.tasks_from_leads("data/leads.csv", entity_id="lead_id", fields="emails")
assert store.lookup(tasks)["status"].count() == 1732, store.lookup(tasks)["status"].count()
"""


def test_it_is_imported_and_looks_up_whatever_the_locale():
    """Every module reads its own files, and a lookup the sample's, as UTF-8 where the locale knows ASCII alone."""
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=ROOT, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode("utf-8", "replace")
    assert b"Warning" not in done.stderr


def test_the_version_is_in_the_changelog():
    """The version that is installed has its entry, with a date, below what is unreleased."""
    version = re.escape(importlib.metadata.version("enrichstatus"))
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[Unreleased\]$.*^## \[{version}\] - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE | re.DOTALL)


DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "tests/bench/README.md")),
    *sorted((ROOT / "notebooks").glob("*.ipynb")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_document_links_to_is_there(path: Path):
    """Each link of the documents to a file of this repository finds it."""
    text = path.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)\)", text) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_readme_shows_what_its_first_command_prints():
    """What the README shows below its first command is how the command's output begins, letter by letter."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command, shown = re.findall(r"```sh\n(.+?)\n```\nIts output begins:\n```text\n(.+?)\n```", text, re.DOTALL)[0]
    arguments = shlex.split(command.rpartition("bin/enrichstatus ")[2])
    printed = subprocess.run(
        [sys.executable, "-m", "enrichstatus", *arguments],
        check=True,
        capture_output=True,
        encoding="utf-8",
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},  # the table goes on below where a terminal is narrow
    ).stdout
    assert printed.startswith(shown + "\n\n")


def test_the_readme_is_short():
    """The README can be read in five minutes: it has 150 lines at most, and none that nobody can take in."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 140 and not line.startswith(("python3 -m venv", "|", "!["))] == []


def test_a_folder_has_few_modules_and_a_module_few_lines():
    """The tree is the architecture, as long as a newcomer can take in a folder at a glance, and read a module at one sitting."""
    modules = [path for path in (ROOT / "enrichstatus").rglob("*.py") if not path.name.startswith("__")]
    of_folder = pd.Series([str(path.parent.relative_to(ROOT)) for path in modules]).value_counts()
    assert of_folder[of_folder > 9].empty, of_folder[of_folder > 9]
    lines = pd.Series({str(path.relative_to(ROOT)): len(path.read_bytes().splitlines()) for path in modules})
    assert lines[lines > 400].empty, lines[lines > 400]


def test_the_sample_data_are_what_their_script_makes(tmp_path: Path):
    """Run again, the seeded script writes the same bytes."""
    (tmp_path / "make_sample.py").write_text(
        (ROOT / "data" / "make_sample.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    subprocess.run([sys.executable, str(tmp_path / "make_sample.py")], check=True, capture_output=True)
    names = [path.name for path in (ROOT / "data").iterdir() if path.suffix in (".csv", ".json")]
    assert len(names) == 8
    for name in names:
        assert (tmp_path / name).read_bytes() == (ROOT / "data" / name).read_bytes(), name
    assert sum(path.stat().st_size for path in (ROOT / "data").iterdir()) < 3_000_000


NOTEBOOKS = [
    pytest.param(path, id=path.name, marks=pytest.mark.slow if path.name[:2] in ("02", "03") else ())
    for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
]


@pytest.mark.parametrize("path", NOTEBOOKS)
def test_a_notebook_runs_and_its_outputs_are_kept(path: Path):
    """Every notebook runs from top to bottom, and is kept with its outputs, free of errors."""
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    kept = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert any(kept)
    assert not any(output.output_type == "error" for outputs in kept for output in outputs)
    text = path.read_text(encoding="utf-8")
    assert len(text) < 300_000
    assert not re.search(r"/(tmp|home|root|Users)/", text), "an output shows where the notebook was run"
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
