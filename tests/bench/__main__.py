"""The benchmarks: ``python -m tests.bench <name>``.

Each is a module of its own, with ``add_arguments`` and ``run``.
"""

from __future__ import annotations

import argparse

from tests.bench import awaited, endpoint, lists, lookup, poll, scale, spark

_BENCHMARKS = {
    "awaited": awaited,
    "endpoint": endpoint,
    "lists": lists,
    "lookup": lookup,
    "poll": poll,
    "scale": scale,
    "spark": spark,
}


def main() -> None:
    """Run the benchmark that the command line names.

    Whether its goals are met is for the reader to see: the exit code does not tell.
    """
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Benchmarks of enrichstatus.")
    commands = parser.add_subparsers(dest="benchmark", required=True)
    for name, module in _BENCHMARKS.items():
        about = (module.__doc__ or "").partition("\n")[0]
        command = commands.add_parser(
            name, help=about, description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        module.add_arguments(command)
    arguments = parser.parse_args()
    _BENCHMARKS[arguments.benchmark].run(arguments)


# the benchmarks start subprocesses, which import this module again
if __name__ == "__main__":
    main()
