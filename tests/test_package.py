"""The package as a whole: what it exports, what it loads, what its documents say."""

from __future__ import annotations

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import enrichstatus as es

ROOT = Path(__file__).parents[1]


def test_the_public_names_are_the_imported_ones():
    """``__init__`` is imports and ``__all__``, and the two agree."""
    tree = ast.parse((ROOT / "enrichstatus" / "__init__.py").read_text())
    imported = [alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted(imported) == es.__all__
    assert all(isinstance(node, (ast.ImportFrom, ast.Assign, ast.Expr)) for node in tree.body)


def test_importing_loads_nothing_optional():
    """``import enrichstatus`` in a fresh process loads no widgets, server, cluster, plots, transpiler or other frames, nor HTTP."""
    code = "import sys, enrichstatus; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = set(
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    )
    assert "duckdb" in loaded
    optional = {"ipywidgets", "IPython", "starlette", "pyspark", "matplotlib", "polars", "requests", "sqlglot"}
    assert not loaded & optional


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


def test_the_version_is_in_the_changelog():
    """The version that is installed has its entry."""
    assert f"## {importlib.metadata.version('enrichstatus')}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_sample_data_are_what_their_script_makes(tmp_path: Path):
    """Run again, the seeded script writes the same bytes."""
    (tmp_path / "make_sample.py").write_text(
        (ROOT / "data" / "make_sample.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    subprocess.run([sys.executable, str(tmp_path / "make_sample.py")], check=True, capture_output=True)
    for name in ("leads.csv", "enrichments.json", "bad_leads.csv", "bad_records.json"):
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
    nbclient.NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
