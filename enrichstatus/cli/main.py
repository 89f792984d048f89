"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from enrichstatus.cli import load, lookup, plan, poll, report, serve
from enrichstatus.cli.options import refuse_empty, spelling
from enrichstatus.errors import (
    ChargeWarning,
    EnrichStatusError,
    EntityWarning,
    OrganizationWarning,
    PollDeadline,
    RequirementError,
    StatusWarning,
    ValidationError,
)

if TYPE_CHECKING:
    from enrichstatus.errors import Value

_FAILED = 1
_BAD_INPUT = 2
_DEADLINE = 3
_REQUIREMENT = 4
_INTERRUPTED = 130
_TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; an error is one line on stderr.

    Exit code 0, 2 for bad input, 3 where a poll's deadline came, 4 where a list does not
    reach what is required, 5 where a bill and the records differ, 130 after Ctrl-C, 143 after SIGTERM, 1 for what failed otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # where the terminal cannot show a letter of a name or a bar
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        refuse_empty(options)
        with warnings.catch_warnings():
            for kind in (ChargeWarning, EntityWarning, OrganizationWarning, StatusWarning):
                warnings.simplefilter("always", kind)
            warnings.showwarning = _warn
            code: int | None = options.run(options, _say)
        sys.stdout.flush()
    except ValidationError as error:
        return _complain(_spelled(error, spelling(options)), _BAD_INPUT)
    except PollDeadline as error:
        return _complain(error, _DEADLINE)
    except RequirementError as error:
        return _complain(error, _REQUIREMENT)
    except (EnrichStatusError, OSError, MemoryError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            # the reader has closed the pipe: at exit Python must not complain of what is left to write
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _FAILED
        return _complain(error, _FAILED)
    except KeyboardInterrupt as error:
        code = _TERMINATED if isinstance(error, poll.Terminated) else _INTERRUPTED
        return _complain(str(error) or "interrupted; nothing was written", code)
    return code or 0


def parser() -> argparse.ArgumentParser:
    """Make the parser; what it gives has the command as ``run``, and the command's options."""
    whole = argparse.ArgumentParser(
        prog="enrichstatus",
        description="The status of lead enrichment, for a whole list at once.",
        epilog="Exit codes: 0 done; 1 failed; 2 bad input; 3 the deadline of poll came while tasks were pending; "
        "4 a list does not reach what lookup requires of it; 5 reconcile found a difference; 130 Ctrl-C; 143 stopped by SIGTERM.",
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
    """Print a warning in one line."""
    print(f"enrichstatus: {message}", file=sys.stderr)


def _spelled(error: ValidationError, options: Mapping[str, str]) -> str:
    """Give the message with Python's arguments as the command's options; what is not an option of it is left out."""
    if error.instead is not None:
        name, value, _ = error.instead
        # a lookup's --columns are others than those that load renames
        if name not in options or (isinstance(value, Mapping) and options[name] != "--column"):
            error.instead = None

    def spell(name: str, value: Value | None) -> str:
        option = _ENVIRONMENT.get(name) or options.get(name, name)
        if isinstance(value, Mapping):
            value = ",".join(f"{theirs}={ours}" for theirs, ours in value.items())
        return f"{option} {value}" if isinstance(value, str) else option

    text = error.spelled(spell)
    return text if error.problems is None else text.replace(" more in .problems\n", " more\n")


#: Arguments that are not options but variables of the environment.
_ENVIRONMENT = {"token": "ENRICHSTATUS_TOKEN"}


def _complain(error: object, code: int) -> int:
    """Print an error in one line, without characters that control a terminal."""
    text = str(error).replace(":\n  ", ": ").replace("\n  ", "; ").replace("\n", ". ")
    text = "".join(sign if sign.isprintable() else "�" for sign in text)
    print(f"enrichstatus: {text}", file=sys.stderr)
    return code
