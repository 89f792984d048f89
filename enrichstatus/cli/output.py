"""Where the words and the data of a command go: words to a person, one object or one table to a program."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enrichstatus.errors import EnrichStatusError, ValidationError

#: Bad rows that the object for a program names; how many there are it says, too.
_MOST = 100
#: The name of stdout as an output, and how an output that goes there is called in words.
STDOUT, _CALLED = "-", "stdout"
#: Formats of a table for a program; those that are not text are not for a terminal.
FORMATS = ("csv", "tsv", "ndjson", "json", "parquet", "xlsx")
_BINARY = ("parquet", "xlsx")


class Output:
    """What a command says to a person and tells a program.

    Called with text it says it: on stdout, or on stderr where stdout is for data; with --quiet nowhere. A reader that closes the pipe
    ends neither the command nor its exit code.
    """

    def __init__(self, options: argparse.Namespace):
        self._options = options
        self._facts: dict[str, Any] = {}
        self._begun = time.monotonic()
        self._hidden = ""
        self._unsaid: list[str] | None = None
        #: The rows of the tasks that are bad and were not refused.
        self.bad: Sequence[int] = ()
        self.data = bool(options.json or getattr(options, "output", None) == STDOUT)

    def __call__(self, text: str) -> None:
        """Say it to a person."""
        if self._unsaid is not None:
            self._unsaid.append(text)  # that rows are written is true when they have gone to stdout
        elif not self._options.quiet:
            from enrichstatus.cli.colour import coloured

            stream = sys.stderr if self.data else sys.stdout
            put(coloured(self.shown(text), stream, self._options.color), stream)

    def warn(self, text: str) -> None:
        """Warn a person, and a program, with --quiet the latter alone; once of each thing."""
        told = self._facts.setdefault("warnings", [])
        if text not in told:
            told.append(text)
            if not self._options.quiet:
                put(f"enrichstatus: {text}", sys.stderr)

    def print_plainly(self, text: str) -> None:
        """Print what the command is for, with --quiet too; a program is told it instead."""
        if not self._options.json:
            put(text, sys.stdout)

    def tell(self, **facts: Any) -> None:
        """Note what a program is told; later facts replace earlier ones, and None is no fact."""
        self._facts |= {name: fact for name, fact in facts.items() if fact is not None}

    def wrote(self, *paths: str | None) -> None:
        """Note files that were written."""
        self._facts["files"] = [*self._facts.get("files", ()), *(self.shown(path) for path in paths if path)]

    def shown(self, text: str) -> str:
        """Call stdout by its name, whatever the file is that goes there."""
        return text.replace(self._hidden, _CALLED) if self._hidden else text

    def finish(self, code: int, error: BaseException | None = None, text: str | None = None) -> None:
        """Print what a program is told, where it is to be told; once."""
        if not self._options.json:
            return
        problems = getattr(error, "problems", None)
        rows = self._facts.pop("problems", None) if problems is None else problems
        told = {
            "command": self._options.declared.prog.partition(" ")[2],
            "exitCode": code,
            **({"files": [], "requests": 0, "warnings": []} | self._facts),
            "elapsed": round(time.monotonic() - self._begun, 3),
            "problems": [] if rows is None else json.loads(rows.head(_MOST).to_json(orient="records")),
        }
        if rows is not None and len(rows) > _MOST:
            told.setdefault("problemCount", len(rows))
        if text is not None:
            told["error"] = {"code": getattr(error, "code", type(error).__name__), "message": text}
        from enrichstatus.files.results import jsonable

        self._options.json = False
        put(json.dumps(jsonable(told), ensure_ascii=False, allow_nan=False), sys.stdout)

    @contextmanager
    def piped(self) -> Iterator[None]:
        """Let a command that writes to ``-o -`` write a file of its own, which goes to stdout when it is whole."""
        given = getattr(self._options, "format", None)
        if getattr(self._options, "output", None) != STDOUT:
            if given is not None:
                raise ValidationError("--format goes with -o -; a file's ending says its format.")
            yield
            return
        from tempfile import TemporaryDirectory

        kind = given or ("csv" if "format" in self._options else "html")
        if self._options.json:
            raise ValidationError("--json and -o - both write to stdout; name a file with -o.")
        if kind in _BINARY and sys.stdout.isatty():
            raise ValidationError(f"--format {kind} is not for a terminal; send it to a file or a pipe.")
        with TemporaryDirectory() as folder:
            path = Path(folder) / f"{_CALLED}.{kind}"
            self._hidden = self._options.output = str(path)
            unsaid = self._unsaid = list[str]()
            try:
                yield
            finally:
                if path.exists():
                    self._copy(path)
                self._unsaid = None
                for text in unsaid:
                    self(text)

    def _copy(self, path: Path) -> None:
        import shutil

        with _obeying(sys.stdout):
            sys.stdout.flush()
            with path.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()


def put(text: str, stream: Any) -> None:
    """Print a text; where the reader has closed the pipe, nothing, then and from then on."""
    with _obeying(stream):
        print(text, file=stream, flush=True)


@contextmanager
def _obeying(stream: Any) -> Iterator[None]:
    """Where a stream takes nothing, write nowhere from now on, or Python would complain at exit; only of stdout it is said."""
    try:
        yield
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if stream is sys.stdout and not isinstance(error, BrokenPipeError):
            raise EnrichStatusError(f"stdout cannot be written: {error.strerror or error}.") from error
