"""The command ``enrichstatus completion``: what a shell needs to complete commands and options."""

from __future__ import annotations

import argparse
from typing import Any

from enrichstatus.cli.output import Output
from enrichstatus.cli.parser import add_command


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "completion",
        completion,
        help="print what bash, zsh or fish needs to complete commands and options",
        examples={
            "for this shell": 'eval "$(enrichstatus completion bash)"',
            "for every shell": "enrichstatus completion fish > ~/.config/fish/completions/enrichstatus.fish",
        },
    )
    command.add_argument("shell", choices=["bash", "zsh", "fish"])


def completion(options: argparse.Namespace, say: Output) -> None:
    """Print the script, which asks the parser itself what can follow."""
    from argcomplete.shell_integration import shellcode

    script = shellcode(["enrichstatus"], shell=options.shell)
    say.tell(shell=options.shell, script=script)
    say.print_plainly(script)
