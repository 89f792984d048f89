"""A file or a folder that appears whole or not at all, and why it could not be written."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.text import first_line


@contextmanager
def replacing(target: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a name beside the target for a file or a folder to be made, which becomes the target as a whole or not at all."""
    # of its own, whoever else writes the same target
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with refused(target):
            yield part
            _put(part, target, overwrite=overwrite)
    finally:
        with suppress(OSError):  # where nothing can be written there is nothing to remove
            _remove(part)


@contextmanager
def refused(target: PathLike) -> Iterator[None]:
    """Say of a file that it cannot be written, and why."""
    try:
        yield
    except OSError as error:
        text = f"{str(target)!r} cannot be written: {error.strerror or str(error).strip('.')}."
        if error.errno in _FULL:
            raise EnrichStatusError(f"{text} Nothing is left of it; make room, or name another place.") from error
        raise ValidationError(text) from error
    except (pa.ArrowException, UnicodeError) as error:
        raise not_written(target, error) from error


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _put(part: Path, target: Path, *, overwrite: bool) -> None:
    """Let what was made take its name."""
    if part.is_dir() and target.is_dir() and overwrite:
        old = part.with_suffix(".old")  # a folder takes the place of an empty one only
        target.replace(old)
        try:
            part.replace(target)
        except OSError:
            old.replace(target)
            raise
        _remove(old)
    elif part.is_dir() or overwrite:
        part.replace(target)
    else:
        try:
            os.link(part, target)  # unlike a new name it does not replace what somebody else has put there meanwhile
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            part.replace(target)


def _remove(part: Path) -> None:
    """Remove what was begun: a file, or a folder of files."""
    if part.is_dir():
        for file in part.iterdir():
            file.unlink()
        part.rmdir()
    part.unlink(missing_ok=True)


def not_written(path: PathLike, error: Exception) -> ValidationError:
    """Say that a format cannot hold what was given."""
    return ValidationError(
        f"{str(path)!r} cannot be written: {first_line(error)}. Leave such a column out, or name another format."
    )
