"""The recipes of notebook 04 for Airflow, Prefect and Dagster, run against a simulated service where their packages are installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pandas as pd
import pytest

from enrichstatus.server import create_app
from enrichstatus.simulation import SimulatedStore
from tests.support.factory import task
from tests.support.notebooks import shown
from tests.support.serving import running

HERE = Path(__file__).parents[2]
#: How the first line of a recipe tells whose it is, and what it prints each time that it leaves off.
ORCHESTRATORS = {"airflow": "deferred", "prefect": "scheduled", "dagster": "skipped"}


def _recipe(name: str) -> str:
    [found] = [code for code in shown("04-etl.ipynb") if f"from {name}" in code or f"import {name}" in code]
    return found


@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_a_recipe_is_python_that_goes_on_from_a_token(name: str):
    """Also where the package is not installed: it compiles, and goes on with the tasks given again."""
    recipe = _recipe(name)
    compile(recipe, name, "exec")
    assert "es.resume(token, client, tasks=" in recipe
    assert "update.token_without_tasks" in recipe
    assert max(map(len, recipe.splitlines())) <= 120


@pytest.mark.slow
@pytest.mark.parametrize("name", ORCHESTRATORS)
def test_a_recipe_waits_without_a_worker_and_ships_what_a_lookup_finds(name: str, tmp_path: Path):
    """From run to run it goes on from the token, occupies nothing in between, and writes what all tasks have come to."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"needs {name}: pip install -e '.[test,orchestrators]', in an environment of its own")
    tasks = pd.DataFrame([task(n) for n in range(100)])
    minutes = count(0, 5)  # each time that somebody looks at the clock five have passed, however slow this machine is
    tasks.to_csv(tmp_path / "tasks.csv", index=False)
    (tmp_path / "recipe.py").write_text(_recipe(name))
    with (
        SimulatedStore(tasks, seed=3, clock=lambda: 60.0 * next(minutes)) as service,
        running(create_app(service, {"s3cret": service.org_id})) as url,
    ):
        ran = subprocess.run(
            [sys.executable, "-m", "tests.support.orchestrators", name, "recipe.py"],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(HERE), "ENRICHSTATUS_BASE_URL": url, "ENRICHSTATUS_TOKEN": "s3cret"}
            | {"HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path), "DAGSTER_HOME": str(tmp_path)}
            | {"PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert ran.returncode == 0, ran.stderr[-2000:]
        assert ran.stdout.count(ORCHESTRATORS[name] + "\n") >= 1
        assert "s3cret" not in ran.stdout + ran.stderr
        found = pd.read_parquet(tmp_path / "status.parquet")
        assert found["status"].tolist() == service.lookup(tasks)["status"].tolist()
