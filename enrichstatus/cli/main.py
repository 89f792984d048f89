"""The command line: ``enrichstatus load``, ``lookup``, ``plan``, ``report``, ``poll``, ``serve`` and ``token``."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from enrichstatus.cli import lookup as cli_lookup
from enrichstatus.cli import plan as cli_lists
from enrichstatus.cli import poll as cli_poll
from enrichstatus.cli import serve as cli_serve
from enrichstatus.cli.arguments import parser
from enrichstatus.cli.options import (
    opened,
    pair,
    refuse_empty,
    store_file,
)
from enrichstatus.errors import (
    EnrichStatusError,
    PollDeadline,
    RequirementError,
    ValidationError,
)

_BAD_INPUT = 2
_FAILED = 1
_DEADLINE = 3
_REQUIREMENT = 4
_INTERRUPTED = 130
_TERMINATED = 143

#: What Python calls otherwise than the command line, beyond the arguments that are options under their own names.
_WORDS = {
    "There is no base_url=": "There is no --url",
    "base_url=": "--url",
    "allow_http=True": "--allow-http",
    "the token goes in token=": "the token goes in ENRICHSTATUS_TOKEN of the environment",
    "token= is text": "ENRICHSTATUS_TOKEN is text",
    "a line end from a file, perhaps: token.strip() takes it off": "a line end from a file, perhaps: take it off",
    "becomes tasks with tasks_from_leads(leads, entity_id=…, fields=[…])": "takes --entity-id COLUMN",
    "but into= is the store of": "but --org says",
    "open it with org_id=": "pass --org ",
    "have everybody open it with read_only=True": "have everybody only read it",
    ", timedelta(minutes=5) or seconds": "",
    "columns= renames": "--column renames",
    "costs= of ": "--costs of ",
    "name it in costs=": "name it in --costs",
    "costs= has": "--costs has",
    ", and retry= leaves": ", and --retry leaves",
    "org_id=": "--org",
    "The rate of faults is": "--fault-rate is",
    "Faults are some": "--faults takes some",
    " in .problems\n": ". ",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what goes wrong is told in one line on stderr.

    Exit code 0, 2 for bad input, 3 where a poll's deadline came, 4 where a list does not
    reach what is required, 130 after Ctrl-C, 143 after SIGTERM, 1 for what failed otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name, or our bars, that the terminal has no letters for
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        refuse_empty(options)
        match options.command:
            case "load":
                _load(options)
            case "lookup":
                _lookup(options)
            case "plan":
                cli_lists.plan(options, _say)
            case "report":
                cli_lists.report(options, _say)
            case "poll":
                cli_poll.poll(options, _say)
            case "serve":
                cli_serve.serve(options, _say)
            case _:
                cli_serve.token(options, _say)
        sys.stdout.flush()
    except ValidationError as error:
        return _complain(error, _BAD_INPUT)
    except PollDeadline as error:
        return _complain(error, _DEADLINE)
    except RequirementError as error:
        return _complain(error, _REQUIREMENT)
    except (EnrichStatusError, OSError, MemoryError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            # the reader of a pipe has seen enough; what is left must not be complained of at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _FAILED
        return _complain(error, _FAILED)
    except KeyboardInterrupt as error:
        code = _TERMINATED if isinstance(error, cli_poll.Terminated) else _INTERRUPTED
        return _complain(str(error) or "interrupted; nothing was written", code)
    return 0


def _lookup(options: argparse.Namespace) -> None:
    with cli_poll.terminable() as terminated:
        try:
            cli_lookup.lookup(options, _say)
        except KeyboardInterrupt as interrupt:
            raise (cli_poll.Terminated(*interrupt.args) if terminated else interrupt) from None


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(error: object, code: int) -> int:
    """Say what is wrong in one line, with Python's arguments in the words of the command line."""
    text = str(error)
    for python, ours in _WORDS.items():
        text = text.replace(python, ours)
    text = text.replace(":\n  row", ": row").replace("\n  ", "; ").replace("\n", ". ")
    text = re.sub(r'\b(\w+)="(\w+)"', lambda found: f"--{found[1].replace('_', '-')} {found[2]}", text)
    text = re.sub(r"\b(\w+)=(?=\s)", lambda found: f"--{found[1].replace('_', '-')}", text)
    if text == "Organization ID is missing":
        text += ": say whose records to look in with --org"
    print(f"enrichstatus: {text}", file=sys.stderr)
    return code


def _load(options: argparse.Namespace) -> None:
    import pyarrow as pa

    from enrichstatus.files import read as files
    from enrichstatus.files import write as writing

    columns = dict(pair(text, "--column") for text in options.column)
    if options.rejects:
        writing.writable(options.rejects)
    if options.rejects and options.errors != "reject":
        raise ValidationError("--rejects goes with --errors reject.")
    given = files.expand(options.records)  # before a store is made for nothing
    if options.rejects and any(os.path.realpath(options.rejects) == os.path.realpath(path) for path in given):
        raise ValidationError("--rejects names a file of the records, which it would replace.")
    with opened(store_file(options.store)) as store:
        report = store.load(options.records, org_id=options.org, errors=options.errors, columns=columns)
    print(report)
    if options.rejects:
        writing.write(pa.Table.from_pandas(report.rejects, preserve_index=False), options.rejects)
        print(f"what is wrong with them: {options.rejects}")
