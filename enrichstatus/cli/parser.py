"""The parser: argparse, with the nearest name where one is wrong, examples, and the options that every command has."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from enrichstatus.cli.output import Output, put
from enrichstatus.errors import suggested

#: Options that others have for a token.
_SECRET = re.compile(
    r"--?((auth|api|access|bearer)[-_]?)?(token|key|bearer|secret|password|auth|authorization)", re.IGNORECASE
)


class UsageError(SystemExit):
    """The arguments cannot be parsed: exit code 2."""

    def __init__(self, parser: argparse.ArgumentParser, text: str):
        super().__init__(2)
        self.parser, self.text = parser, text


class Parser(argparse.ArgumentParser):
    """A parser that names the nearest option or choice where one is wrong."""

    def __init__(self, **settings: Any):
        super().__init__(**{"formatter_class": _Help} | settings)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse an unknown option before anything that is missing, as it may have been meant to be that."""
        if not any(action.nargs == argparse.PARSER for action in self._actions):
            given = [text.partition("=")[0] for text in args[: args.index("--") if "--" in args else None]]
            for text in given:
                self._refuse_secret(text)
                if text.startswith("--") and not any(option.startswith(text) for option in self._option_string_actions):
                    self.error(f"unrecognized argument: {text}.{suggested(text, self._option_string_actions)}")
        elif args:
            self._refuse_secret(args[0])
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuse what is left over; a second list is mostly of a pattern that the shell has spelled out."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            command = getattr(options, "declared", self)
            lists = [action.metavar for action in command._actions if action.metavar in ("TASKS", "BILL")]
            hint = ""
            if lists:
                hint = f' One list is taken ({lists[0]}): put a pattern in quotes, "part*.csv", and its files are read as one.'
            command.error(f"unrecognized argument{'s' if len(rest) > 1 else ''}: {' '.join(rest)}.{hint}")
        return options

    def _refuse_secret(self, text: str) -> None:
        """Refuse an option that would take a token, before anything else is said of it: the next word may be one."""
        name = text.partition("=")[0]
        if _SECRET.fullmatch(name) and not any(option.startswith(name) for option in self._option_string_actions):
            self.error(
                f"unrecognized argument: {name}. No option takes a token: it is read from ENRICHSTATUS_TOKEN in the environment, "
                "where others do not see it."
            )

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments, below the usage."""
        self.print_usage(sys.stderr)
        put(f"{self.prog}: error: {message}", sys.stderr)
        raise UsageError(self, message)

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            put(message.removesuffix("\n"), file or sys.stderr)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            error.message += f".{suggested(value, action.choices or ())}"
            raise


class _Help(argparse.HelpFormatter):
    """Help in which lines that are indented stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = text.splitlines()
        return "\n".join(
            line if line.startswith("  ") else super(_Help, self)._fill_text(line, width, indent) for line in lines
        )


def add_command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace, Output], int | None],
    *,
    examples: Mapping[str, str],
    **texts: Any,
) -> Any:
    """Declare a command that `run` runs. An option's ``dest`` is the name of the Python argument that it becomes.

    What `run` returns is the exit code; None is 0. `examples` are command lines by what they are for.
    """
    shown = "\n".join(f"  # {what}\n  {line}" for what, line in examples.items())
    texts["epilog"] = "\n \n".join(filter(None, [texts.get("epilog"), f"examples:\n{shown}"]))
    command = commands.add_parser(name, **{"description": texts["help"][0].upper() + texts["help"][1:] + "."} | texts)
    command.set_defaults(run=run, declared=command)
    said = command.add_argument_group("what is said")
    said.add_argument(
        "--json",
        action="store_true",
        help="print one object for a program, and nothing else on stdout; its shares are those of all tasks that have ended, "
        "and of the ended ones that have data",
    )
    said.add_argument("--quiet", action="store_true", help="say nothing but errors")
    said.add_argument(
        "--color",
        choices=["auto", "always", "never"],
        default="auto",
        help="colour (default: at a terminal, unless NO_COLOR is set)",
    )
    return command
