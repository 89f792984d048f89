"""A real Spark cluster: two executors in processes of their own, started once a session, where a test first needs it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import missing

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Everything on this machine alone, and what takes time where data are small left out.
OPTIONS = {
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "FATAL",
    "spark.driver.memory": "1g",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # a frame that cannot go by Arrow shall say so: by the other way a null becomes the text 'nan'
    "spark.sql.execution.arrow.pyspark.fallback.enabled": "false",
}

#: A JVM that lives for a minute does not earn back what its second compiler costs.
SHORT_LIVED = {
    "spark.driver.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.executor.defaultJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """A session on a cluster of two executors, which leaves nothing behind but in its own folder."""
    require()
    with started(tmp_path_factory.mktemp("spark"), "local-cluster[2,1,1024]", SHORT_LIVED) as session:
        yield session


@contextmanager
def started(folder: Path, master: str, options: Mapping[str, str] | None = None) -> Iterator[SparkSession]:
    """Start a cluster whose files are all in a folder; it is stopped, and its processes ended, in the end."""
    from pyspark import SparkContext
    from pyspark.sql import SparkSession

    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(folder).items():
            patch.setenv(name, value)
        builder = SparkSession.builder.master(master)
        for name, value in (OPTIONS | folders(folder) | dict(options or {})).items():
            builder = builder.config(name, value)
        session = builder.getOrCreate()
        try:
            yield session
        finally:
            gateway = session.sparkContext._gateway
            session.stop()
            # the JVM would outlive the tests until Python ends
            gateway.shutdown()
            gateway.proc.stdin.close()
            gateway.proc.wait(60)
            SparkContext._gateway = SparkContext._jvm = None  # or a session after this one would talk to it


def require() -> None:
    """Skip the test where a part is missing, saying how to install it."""
    if importlib.util.find_spec("pyspark") is None:
        missing('needs pyspark: pip install -e ".[spark]"')
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    said = subprocess.run([java, "-version"], capture_output=True, text=True).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < 17:
        missing("needs Java 17 or newer: apt-get install openjdk-17-jre-headless")


def environment(folder: Path) -> dict[str, str]:
    """Say to Spark's processes which Python they are of, and where to write: its workers do into the folder that Spark is in."""
    import pyspark

    home = folder / "home"
    home.mkdir(parents=True)
    for part in ("bin", "jars"):
        (home / part).symlink_to(Path(pyspark.__file__).parent / part)
    return {
        "SPARK_HOME": str(home),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_DIRS": str(folder),
    }


def folders(folder: Path) -> dict[str, Any]:
    """Say to Spark where to write."""
    return {
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.driver.extraJavaOptions": f"-Dderby.system.home={folder}",
    }
