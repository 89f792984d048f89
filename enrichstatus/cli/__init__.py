"""The command line."""

from enrichstatus.cli.main import main

__all__ = ["main"]
