"""Spark's sessions and frames as they are met: whether they can be used, and what is said where they cannot."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeGuard

from enrichstatus.errors import StoreError, ValidationError
from enrichstatus.sources.spark.records import BAD_RECORD

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def check_session(spark: SparkSession, frame: DataFrame, what: str) -> None:
    """Refuse a DataFrame of another session, in which the others cannot be found."""
    theirs, ours = frame.sparkSession, spark
    if theirs is not ours and getattr(theirs, "_jsparkSession", theirs) != getattr(ours, "_jsparkSession", ours):
        raise ValidationError(f"The {what} are of another Spark session than the store; make both with the same one.")


@contextmanager
def running(spark: SparkSession) -> Iterator[None]:
    """Say in our own terms what Spark cannot do."""
    from pyspark.errors import PySparkException

    if _stopped(spark):  # much would go on working, up to the first job
        raise StoreError(_STOPPED)
    try:
        yield
    except (PySparkException, _py4j_error(), OSError) as error:
        if _stopped(spark):
            raise StoreError(_STOPPED) from error
        if bad := re.search(rf"{BAD_RECORD}.*?(?= SQLSTATE|\n|\Z)", str(error)):
            raise ValidationError(bad[0]) from error
        raise StoreError(f"Spark failed: {str(error).strip().partition(chr(10))[0]}") from error


_STOPPED = "The Spark session was stopped; make a new one, read the records with it, and make the store again."


def is_spark(data: object) -> TypeGuard[DataFrame]:
    """Recognize a Spark DataFrame, of Connect too, without importing pyspark."""
    return any(f"{kind.__module__}.{kind.__name__}" in _DATAFRAMES for kind in type(data).__mro__)


_DATAFRAMES = {"pyspark.sql.dataframe.DataFrame", "pyspark.sql.connect.dataframe.DataFrame"}


def numbered(frame: DataFrame) -> tuple[DataFrame, dict[str, str]]:
    """Number a frame's columns, since their names may be alike, or hold dots; gives the number of each name."""
    numbers = [f"given{place}" for place in range(len(frame.columns))]
    return frame.toDF(*numbers), dict(zip(frame.columns, numbers, strict=True))


def estimated_bytes(frame: DataFrame) -> float:
    """Say how large Spark takes a frame for, without reading it; infinite where that is not known, as through Spark Connect."""
    if not hasattr(frame, "_jdf"):
        return math.inf
    return float(frame._jdf.queryExecution().optimizedPlan().stats().sizeInBytes())


def _stopped(spark: SparkSession) -> bool:
    if hasattr(spark, "is_stopped"):  # that of Connect
        return bool(spark.is_stopped)
    context = spark.sparkContext._jsc  # None once it was stopped from Python
    try:
        return context is None or bool(context.sc().isStopped())
    except (_py4j_error(), OSError):  # the process of the driver is gone
        return True


def _py4j_error() -> type[Exception]:
    try:
        from py4j.protocol import Py4JError
    except ImportError:  # a client of Connect needs no bridge to Java
        return OSError
    error: type[Exception] = Py4JError
    return error
