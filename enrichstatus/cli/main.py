"""The command line: which commands there are, and what becomes of their errors."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.commands import changes, completion, load, lookup, plan, poll, report, serve, status
from enrichstatus.cli.options import refuse_empty, spelling
from enrichstatus.cli.output import Output, put
from enrichstatus.cli.parser import Parser, UsageError
from enrichstatus.errors import (
    ChargeWarning,
    EnrichStatusError,
    EntityWarning,
    HeaderWarning,
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
    """Run the command; an error is one line on stderr, and with --json also part of the object on stdout.

    Exit code 0, 2 for bad input, 3 where a poll's deadline came, 4 where a list does not
    reach what is required, 5 where a bill and the records differ, 130 after Ctrl-C, 143 after SIGTERM, 1 for what failed otherwise.
    """
    # one that is closed is taken for a pipe whose reader is gone
    nowhere = partial(open, os.devnull, "w", encoding="utf-8")
    sys.stdout, sys.stderr = (stream or nowhere() for stream in (sys.stdout, sys.stderr))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # where the terminal cannot show a letter of a name or a bar
            stream.reconfigure(errors="replace")
    try:
        return _main(sys.argv[1:] if arguments is None else list(arguments))
    except EnrichStatusError as error:  # of stdout, which took nothing
        put(f"enrichstatus: {error}", sys.stderr)
        return _FAILED


def _main(given: list[str]) -> int:
    """Parse the arguments, run the command, and say what went wrong."""
    whole = parser()
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete

        argcomplete.autocomplete(whole)  # ends the process
    if not given:
        put(_OVERVIEW, sys.stdout)
        return 0
    try:
        options = whole.parse_args(given)
    except UsageError as usage:
        if "--json" in given:
            asked = argparse.Namespace(json=True, quiet=True, declared=usage.parser)
            Output(asked).finish(_BAD_INPUT, ValidationError(usage.text), usage.text)
        raise
    say = Output(options)
    code, error = _run(options, say)
    text = None if error is None else say.shown(_message(error, options))
    if text is not None:
        put(f"enrichstatus: {text}", sys.stderr)
    say.finish(code, error, text)
    return code


def _run(options: argparse.Namespace, say: Output) -> tuple[int, BaseException | None]:
    """Run the command; gives its exit code, and what went wrong."""
    try:
        refuse_empty(options)
        with warnings.catch_warnings(), say.piped():
            for kind in (ChargeWarning, EntityWarning, HeaderWarning, OrganizationWarning, StatusWarning):
                warnings.simplefilter("always", kind)
            warnings.showwarning = lambda message, *_, **__: say.warn(str(message))
            if options.quiet:
                from enrichstatus.progress import progress_is_shown

                progress_is_shown.set(True)
            code: int | None = options.run(options, say)
        return code or 0, None
    except ValidationError as error:
        return _BAD_INPUT, error
    except PollDeadline as error:
        return _DEADLINE, error
    except RequirementError as error:
        return _REQUIREMENT, error
    except (EnrichStatusError, OSError, MemoryError, UnicodeError) as error:
        return _FAILED, error
    except KeyboardInterrupt as error:
        return _TERMINATED if isinstance(error, poll.Terminated) else _INTERRUPTED, error


def _message(error: BaseException, options: argparse.Namespace) -> str:
    """Give an error in one line, without characters that control a terminal."""
    text = _spelled(error, spelling(options)) if isinstance(error, ValidationError) else str(error)
    if isinstance(error, KeyboardInterrupt):
        text = text or "interrupted; nothing was written"
    text = text.replace(":\n  ", ": ").replace("\n  ", "; ").replace("\n", ". ")
    return "".join(sign if sign.isprintable() else "�" for sign in text)


_OVERVIEW = """\
The status of lead enrichment, for a whole list at once.

  enrichstatus lookup   the status of a list: what has data, what is pending, what is not there
  enrichstatus plan     what to buy of a list, why, and at what cost
  enrichstatus trigger  buys what a plan says, within a limit
  enrichstatus poll     polls a service until all have ended
  enrichstatus load     records from files into a store

Also: report, reconcile, status, changes, serve, token, completion. Try:

  enrichstatus lookup leads.csv --records records.json --org ORG
  enrichstatus lookup --help"""


def parser() -> argparse.ArgumentParser:
    """Make the parser; what it gives has the command as ``run``, and the command's options."""
    whole = Parser(
        prog="enrichstatus",
        description="The status of lead enrichment, for a whole list at once.",
        epilog="Exit codes: 0 done; 1 failed; 2 bad input; 3 the deadline of poll came while tasks were pending; "
        "4 a list does not reach what lookup requires of it; 5 reconcile found a difference; 130 Ctrl-C; 143 stopped by SIGTERM.",
    )
    whole.add_argument(
        "--version", action=_Version, nargs=0, default=argparse.SUPPRESS, help="show the version and exit"
    )
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for module in (load, lookup, plan, report, poll, serve, status, changes, completion):
        module.add(commands)
    return whole


class _Version(argparse.Action):
    """Print the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib.metadata import version

        put(f"enrichstatus {version('enrichstatus')}", sys.stdout)
        parser.exit()


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
