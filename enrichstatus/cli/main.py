"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Any

from enrichstatus.cli import load, lookup, plan, poll, report, serve
from enrichstatus.cli.options import refuse_empty
from enrichstatus.errors import EnrichStatusError, OrganizationWarning, PollDeadline, RequirementError, ValidationError

_FAILED = 1
_BAD_INPUT = 2
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
    """Run the command; an error is one line on stderr.

    Exit code 0, 2 for bad input, 3 where a poll's deadline came, 4 where a list does not
    reach what is required, 130 after Ctrl-C, 143 after SIGTERM, 1 for what failed otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name, or our bars, that the terminal has no letters for
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        refuse_empty(options)
        with warnings.catch_warnings():
            warnings.simplefilter("always", OrganizationWarning)
            warnings.showwarning = _warn
            options.run(options, _say)
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
        code = _TERMINATED if isinstance(error, poll.Terminated) else _INTERRUPTED
        return _complain(str(error) or "interrupted; nothing was written", code)
    return 0


def parser() -> argparse.ArgumentParser:
    """Make the parser; what it gives has the command as ``run``, and the command's options."""
    whole = argparse.ArgumentParser(
        prog="enrichstatus",
        description="The status of lead enrichment, for a whole list at once.",
        epilog="Exit codes: 0 done; 1 failed; 2 bad input; 3 the deadline of poll came while tasks were pending; "
        "4 a list does not reach what lookup requires of it; 130 Ctrl-C; 143 stopped by SIGTERM.",
    )
    whole.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit"
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for module in (load, lookup, plan, report, poll, serve):
        module.add(commands)
    return whole


class _Version(argparse.Action):
    """Print the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        print(f"enrichstatus {version('enrichstatus')}")
        parser.exit()


def _say(text: str) -> None:
    print(text, flush=True)


def _warn(message: Warning | str, *_: Any, **__: Any) -> None:
    """Say what Python would warn of in one line."""
    print(f"enrichstatus: {message}", file=sys.stderr)


def _complain(error: object, code: int) -> int:
    """Say what is wrong in one line, with Python's arguments in the words of the command line."""
    text = str(error)
    for python, ours in _WORDS.items():
        text = text.replace(python, ours)
    text = text.replace(":\n  row", ": row").replace("\n  ", "; ").replace("\n", ". ")
    text = re.sub(r'\b(\w+)="(\w+)"', lambda found: f"--{found[1].replace('_', '-')} {found[2]}", text)
    text = re.sub(r"\b(\w+)=(?=\s)", lambda found: f"--{found[1].replace('_', '-')}", text)
    print(f"enrichstatus: {text}", file=sys.stderr)
    return code
