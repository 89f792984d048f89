"""Whether an old workbook (.xls) can be read: a corrupt one can make the library ask for memory without end, which ends the process.

Such an end cannot be caught. Therefore another process reads the workbook first, with a limit on its memory.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress

BOUNDLESS = "it is corrupt, and what it says of its own size is beyond all memory"
#: Bytes that the trial may take: some ten times those of the largest sheet that there can be.
_MOST = 1 << 32
#: Seconds for the trial: the largest sheet takes some ten.
_SECONDS = 300
_BEGUN = b"begun"
_PANIC = 3
_TRIAL = f"""
import os, sys
most, path, *sys.path[:] = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (int(most), int(most)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
except (ImportError, ValueError, OSError):
    pass
import python_calamine
os.write(1, {_BEGUN!r})
try:
    # by its content, whatever its ending
    with open(path, "rb") as file, python_calamine.load_workbook(file) as book:
        for name in book.sheet_names:
            for row in book.get_sheet_by_name(name).iter_rows():
                pass
except BaseException as error:  # all but a panic, which writes to stderr, is said of the caller's own attempt
    os._exit({_PANIC} if type(error).__name__ == "PanicException" else 0)
os._exit(0)
"""


def fault_of(path: str) -> str | None:
    """Say why a workbook is not to be read, if it is not; where no other process can be had, it is taken for readable."""
    if not sys.executable or getattr(sys, "frozen", False):  # a program of its own, which is no Python to run
        return None
    with suppress(OSError):
        try:
            # without site, for speed: it gets our places for modules
            trial = subprocess.run(
                [sys.executable, "-S", "-E", "-c", _TRIAL, str(_MOST), path, *sys.path],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                timeout=_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return BOUNDLESS
        if trial.returncode != 0 and _BEGUN in trial.stdout:
            return "it is corrupt" if trial.returncode == _PANIC else BOUNDLESS
    return None
