"""What came of a run, for programs: values as JSON has them, and the file ``run_results.json``.

`wait`, `await_completed`, `plan` and `lookup_to` leave the file where ``results=`` names it, whether the run succeeded or not.
It is one object:

==============  =====================================================================================================
``schema``      ``"enrichstatus/run-results/1"``; a change that a reader would notice has another number
``command``     ``wait``, ``await_completed``, ``plan`` or ``lookup_to``
``status``      ``done``, ``deadline`` (the time was up), ``unmet`` (what was required is not reached), ``interrupted`` or ``failed``
``startedAt``   ISO 8601, UTC, like every instant in it
``finishedAt``
``elapsed``     seconds
``result``      the ``.to_dict()`` of what the call gives, or of the last `Update`; null where nothing was known yet
``error``       null, or an object of ``type`` (the name of the exception) and ``message``
==============  =====================================================================================================
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa

from enrichstatus.errors import EnrichStatusError, PollDeadline, RequirementError, ValidationError
from enrichstatus.files.reading.read import PathLike, expand, is_path
from enrichstatus.files.remote.remote import is_remote
from enrichstatus.files.writing.write import replaced, writable, write_text

SCHEMA = "enrichstatus/run-results/1"
_STATUS = ((PollDeadline, "deadline"), (RequirementError, "unmet"))


class Told(Protocol):
    """What a program can be told."""

    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


class Record:
    """The record of a run under way; `result` is what it gives, once there is something."""

    result: Told | None = None


def jsonable(value: Any) -> Any:
    """Make JSON's own values: of a frame a list of objects, of an instant ISO 8601 in UTC, of a duration seconds, null of no number."""
    if isinstance(value, Mapping):
        return {str(name): jsonable(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(one) for one in value]
    if isinstance(value, pa.Table):
        value = value.to_pandas()
    if isinstance(value, pd.DataFrame):
        return json.loads(value.to_json(orient="records", date_format="iso", double_precision=15))
    if isinstance(value, timedelta):
        return value.total_seconds()
    if value is pd.NaT or value is pd.NA:
        return None
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float) and not (value == value and abs(value) != float("inf")):
        return None
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def _named(paths: Any) -> list[PathLike]:
    """Give paths as they are, and the files that a pattern among them names."""
    names: list[PathLike] = [paths] if isinstance(paths, (str, os.PathLike)) else list(paths)
    local = [name for name in names if not is_remote(name)]
    with suppress(EnrichStatusError):  # an output may not be there yet
        return [*names, *expand(local)]
    return names


@contextmanager
def recorded(
    path: PathLike | None, command: str, *files: object, interrupt: type[BaseException] = KeyboardInterrupt
) -> Iterator[Record]:
    """Leave the record of a run in a file, whatever comes of it; nothing where no file is named.

    Where `files`, what the run reads and writes, are paths, the record may not replace them. `interrupt` is what interrupts the run.
    """
    run = Record()
    if path is None:
        yield run
        return
    if not isinstance(path, (str, os.PathLike)):
        raise ValidationError(f"takes the path of a file (.json), not {type(path).__name__}.", argument="results")
    target = writable(path, [".json"])
    if other := replaced(target, [name for given in files if is_path(given) for name in _named(given)]):
        raise ValidationError(
            f"would replace {other!r}, which is read or written here: name another file.", argument="results"
        )
    started, clock = datetime.now(UTC), time.monotonic()

    def leave(status: str, result: Told | None, error: BaseException | None) -> None:
        told = {
            "schema": SCHEMA,
            "command": command,
            "status": status,
            "startedAt": started,
            "finishedAt": datetime.now(UTC),
            "elapsed": round(time.monotonic() - clock, 3),
            "result": None if result is None else result.to_dict(),
            "error": None if error is None else {"type": type(error).__name__, "message": str(error)},
        }
        write_text(json.dumps(jsonable(told), ensure_ascii=False, indent=2, allow_nan=False) + "\n", target)

    try:
        yield run
    except BaseException as error:
        known = (*_STATUS, (KeyboardInterrupt, "interrupted"), (interrupt, "interrupted"))
        status = next((word for kind, word in known if isinstance(error, kind)), "failed")
        with suppress(EnrichStatusError):  # that the record cannot be written does not hide why the run failed
            leave(status, getattr(error, "update", None) or run.result, error)
        raise
    leave("done", run.result, None)
