"""Run a recipe of notebook 04 as its orchestrator would, in a process of its own: ``python -m tests.support.orchestrators NAME RECIPE``.

The recipe reads the file ``tasks.csv`` and writes ``status.parquet``, both in the working directory; each round is a line on stdout.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any


def airflow(recipe: ModuleType) -> None:
    """Do what a worker and the triggerer do with a task that defers; what they keep is JSON."""
    from airflow.sdk.exceptions import TaskDeferred

    task = recipe.dag.get_task("wait")
    task.tasks, task.target = "tasks.csv", "status.parquet"
    method, given = "execute", {}
    while True:
        try:
            given.pop("context", None)
            task.execute({}) if method == "execute" else task.resume_execution(method, given, {})
            return
        except TaskDeferred as deferred:
            print("deferred", flush=True)
            event = asyncio.run(_first(deferred.trigger))
            method, given = deferred.method_name, json.loads(json.dumps(deferred.kwargs)) | {"event": event.payload}


async def _first(trigger: Any) -> Any:
    path, options = trigger.serialize()
    module, _, name = path.rpartition(".")
    return await anext(getattr(importlib.import_module(module), name)(**options).run())


def prefect(recipe: ModuleType) -> None:
    """Run each run that is scheduled, when it is due, as a worker would."""
    from prefect.client.orchestration import get_client
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness():
        recipe.enrichment.to_deployment("enrichment").apply()
        parameters: dict[str, Any] | None = {"tasks": "tasks.csv", "target": "status.parquet"}
        known: set[Any] = set()
        while parameters:
            recipe.enrichment(**parameters)
            with get_client(sync_client=True) as client:
                runs = [run for run in client.read_flow_runs() if run.deployment_id and run.id not in known]
            parameters = None
            for run in runs:  # one at the most
                print("scheduled", flush=True)
                known.add(run.id)
                time.sleep(max((run.expected_start_time - datetime.now(UTC)).total_seconds(), 0))
                parameters = run.parameters


def dagster(recipe: ModuleType) -> None:
    """Evaluate the sensor with the cursor that it had set, as the daemon would, but more often; run the job that it asks for."""
    import dagster as dg

    recipe.TASKS, recipe.TARGET = "tasks.csv", "status.parquet"
    cursor = None
    with dg.DagsterInstance.ephemeral() as instance:
        while True:
            context = dg.build_sensor_context(instance=instance, cursor=cursor)
            found = recipe.enrichment(context)
            cursor = context.cursor
            if isinstance(found, dg.RunRequest):
                assert recipe.after_enrichment.execute_in_process(instance=instance).success
                return
            print("skipped", flush=True)
            time.sleep(0.5)


if __name__ == "__main__":
    spec = importlib.util.spec_from_file_location("recipe", Path(sys.argv[2]))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["recipe"] = module
    spec.loader.exec_module(module)
    {"airflow": airflow, "prefect": prefect, "dagster": dagster}[sys.argv[1]](module)
