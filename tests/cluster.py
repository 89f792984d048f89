"""A real Spark cluster of two executors, for all tests of a process; where there is no Java or no pyspark, its tests skip."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

#: What Spark 4 runs on.
JAVA = 17

SETTINGS = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    # what a test asks is small
    "spark.sql.shuffle.partitions": "2",
    "spark.default.parallelism": "2",
    "spark.sql.adaptive.enabled": "true",
    "spark.sql.codegen.wholeStage": "false",
    # a fallback from Arrow turns nulls into words
    "spark.sql.execution.arrow.pyspark.enabled": "true",
    "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",
    # not the zone in which a time without one is to be read
    "spark.sql.session.timeZone": "America/New_York",
}


def require() -> None:
    """Skip the test where a part is missing, saying how to install it; in CI it fails, since there it has to run."""
    missing: Callable[[str], NoReturn] = pytest.fail if os.environ.get("ENRICHSTATUS_CI") == "1" else pytest.skip
    if importlib.util.find_spec("pyspark") is None:
        missing('needs pyspark: pip install -e ".[spark]"')
    java = _java()
    if java is None or java < JAVA:
        missing(
            f"needs Java {JAVA} or newer, {'found none' if java is None else f'found {java}'}: apt-get install openjdk-17-jre-headless"
        )


def _java() -> int | None:
    home = os.environ.get("JAVA_HOME")
    command = shutil.which("java", path=f"{home}/bin" if home else None)
    if command is None:
        return None
    told = subprocess.run([command, "-version"], capture_output=True, text=True, check=False).stderr
    found = re.search(r'version "(\d+)', told)
    return int(found[1]) if found else None


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start a cluster of two executors, which ends with the tests; a session of it."""
    require()
    os.environ["PYSPARK_PYTHON"] = sys.executable
    import pyspark
    from pyspark.sql import SparkSession

    folder = tmp_path_factory.mktemp("spark")
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("tests of enrichstatus")
    for name, value in {**SETTINGS, "spark.sql.warehouse.dir": str(folder), "spark.local.dir": str(folder)}.items():
        builder = builder.config(name, value)
    work = (
        Path(pyspark.__file__).parent / "work"
    )  # where the workers of such a cluster keep their logs, whatever one says
    before = work.exists()
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    try:
        yield session
    finally:
        session.stop()
        if not before:
            shutil.rmtree(work, ignore_errors=True)
