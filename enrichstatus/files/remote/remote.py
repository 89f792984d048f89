"""Files elsewhere: on S3, Google Cloud Storage, Azure, a web server, and wherever else fsspec reaches.

An address is shown without what follows its question mark, and without a password: both may be keys. What a library says of a failure
is shown without the values of ``storage_options=``.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import pandas as pd

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.files.text import first_line

#: What is handed to fsspec: keys, an endpoint, and so on.
Options: TypeAlias = Mapping[str, Any] | None

# of two letters at the least: one is a drive
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_COLLAPSED = re.compile(r"(s3|gs|gcs|az|abfss?|https?):/[^/]")
_WEB = ("http", "https")
_MAGIC = re.compile(r"[*?\[]")
#: What says which version of a file it is, where a store has it.
_VERSION = (
    *("ETag", "etag", "VersionId", "version_id", "generation", "md5Hash", "content_md5", "LastModified"),
    *("Last-Modified", "Content-MD5", "Digest", "last_modified", "mtime", "modified", "updated", "created"),
)
_REFUSED = (401, 403)
_STATUS = ("status", "status_code", "code")
_SECRET = re.compile("KEY|SECRET|TOKEN|PASSWORD|CREDENTIAL|CONNECTION|SAS", re.IGNORECASE)
#: Options that are no secrets.
_PLACES = ("endpoint_url", "endpoint", "region_name", "account_name", "project")
#: Files that are copied at once.
_AT_ONCE = 16


def is_remote(path: object) -> bool:
    """Whether a path is the address of something elsewhere, such as ``s3://bucket/file.csv``."""
    if isinstance(path, os.PathLike) and _COLLAPSED.match(text := os.fspath(path)):
        raise ValidationError(f"{text!r} has lost a slash in a Path; give an address as text.")
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def shown(address: str) -> str:
    """Give an address as it is shown: without what may be a key."""
    scheme, _, rest = address.partition("://")
    if scheme.lower() in _WEB:
        rest = re.split(r"[?#]", rest, maxsplit=1)[0]
    return f"{scheme}://{re.sub(r'^[^/@]*:[^/@]*@', '', rest)}"


def check_options(options: Options, *given: Any) -> None:
    """Refuse what is no mapping, and options where nothing that is given lies elsewhere."""
    if options is None:
        return
    if not (isinstance(options, Mapping) and all(isinstance(key, str) for key in options)):
        raise ValidationError(
            f"takes a dict of names and values, not {type(options).__name__}.", argument="storage_options"
        )
    if not any(is_remote(path) for one in given for path in (one if isinstance(one, (list, tuple)) else [one])):
        raise ValidationError(
            "says how files elsewhere are reached, e.g. on s3://; these are here.", argument="storage_options"
        )


@dataclass(frozen=True)
class Remote:
    """A file elsewhere, as it was when it was looked for: its name as it is shown, and what its file system calls it.

    A server may not say how long it is (None), nor which version of it that is (an empty text).
    """

    name: str
    path: str = field(repr=False)
    system: Any = field(repr=False)
    size: int | None
    version: str = field(repr=False)


def find(address: str, options: Options = None) -> list[Remote]:
    """Find the files that an address with or without a pattern names; there must be one, and none of them empty."""
    name = shown(address)
    scheme = name.partition("://")[0]
    with reaching(name, address, options):
        system, path = file_system(address, options)
        system.invalidate_cache()
        if scheme.lower() in _WEB:
            if "*" in path.partition("?")[0]:
                raise ValidationError(f"{name!r} is a pattern, and a web server does not list its files; name each.")
            infos = {path: system.info(path)}
        else:
            infos = _matching(system, path)
    if not infos:
        check_bucket(system, path, name)
        raise ValidationError(f"{name!r} matches no file.")
    found = []
    for place, info in sorted(infos.items()):
        own = name if len(infos) == 1 and not _MAGIC.search(name) else f"{scheme}://{place.lstrip('/')}"
        if info["type"] == "directory":
            with reaching(name, address, options):
                delta = system.isdir(f"{place.rstrip('/')}/_delta_log")
            if delta:
                raise ValidationError(
                    f"{own!r} is a Delta table; give deltalake.DeltaTable({own!r}, storage_options=…) in its place."
                )
            raise ValidationError(f"{own!r} is a folder; name its files, e.g. {own.rstrip('/') + '/*.parquet'!r}.")
        if info.get("size") == 0:
            raise ValidationError(f"{own!r} is empty (0 bytes).")
        version = [f"{key}={info[key]}" for key in _VERSION if info.get(key) is not None]
        version += [f"size={info.get('size')}"] if version else []
        found.append(Remote(own, place, system, info.get("size"), " ".join(version)))
    return found


def check_bucket(system: Any, path: str, name: str, doing: str = "read") -> None:
    """Refuse a bucket that is missing, where nothing was found in it."""
    bucket = path.strip("/").partition("/")[0]
    with reaching(f"{name.partition('://')[0]}://{bucket}", doing=doing):
        system.info(bucket)


def _matching(system: Any, path: str) -> dict[str, dict[str, Any]]:
    """List what a path or a pattern names; in one request for a thousand files, however many folders they lie in."""
    from fsspec.utils import glob_translate

    magic = _MAGIC.search(path)
    if magic is None:
        return {path: system.info(path)}
    folder, _, pattern = path.rpartition("/")
    if _MAGIC.search(folder) or "**" in pattern:
        everything = system.find(path[: magic.start()].rpartition("/")[0], detail=True)
        fits = re.compile(glob_translate(path))
        infos = {name: info for name, info in everything.items() if fits.match(name)}
    else:
        infos = {name: info for name, info in system.glob(path, detail=True).items() if info["type"] != "directory"}
    if not infos:  # a name that looks like a pattern
        with suppress(FileNotFoundError):
            return {path: system.info(path)}
    # as of patterns here: a name that begins with a dot is hidden
    return {name: info for name, info in infos.items() if not name.rpartition("/")[2].startswith(".")}


def lacking(name: str, more: str = "") -> ValidationError:
    """Say what to install for something elsewhere."""
    return ValidationError(
        f'{name!r} lies elsewhere, which needs the extra "remote": pip install "enrichstatus[remote]"{more}.'
    )


def file_system(address: str, options: Options = None) -> tuple[Any, str]:
    """Give the file system of fsspec that an address belongs to, and what it is called there."""
    name = shown(address)
    try:
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address, **(options or {}))
    except ImportError as error:
        more = "" if "fsspec" in str(error) else f" ({_scrubbed(first_line(error), address, options)})"
        raise lacking(name, more) from None
    except ValueError as error:
        raise ValidationError(
            f"{name!r} cannot be reached: {_scrubbed(first_line(error), address, options)}. Addresses that are known begin with "
            "s3://, gs://, az://, https:// and others of fsspec."
        ) from None
    return system, path


@contextmanager
def reaching(name: str, address: str = "", options: Options = None, *, doing: str = "read") -> Iterator[None]:
    """Say what is wrong with something elsewhere in words of ours, without the error of a library, which may hold a key."""
    try:
        yield
    except EnrichStatusError:
        raise
    except Exception as error:
        raise _said(name, error, _scrubbed(first_line(error), address, options), doing) from None


def _said(name: str, error: Exception, reason: str, doing: str) -> EnrichStatusError:
    # fsspec says of any answer of a web server that there is no file, and keeps the answer as the cause
    status = next((one for one in (getattr(error.__cause__ or error, at, None) for at in _STATUS) if one), None)
    refused = isinstance(error, PermissionError) or status in _REFUSED
    if (isinstance(error, FileNotFoundError) and not refused) or status == 404:
        kind = "file" if "/" in name.partition("://")[2] and "bucket" not in reason.lower() else "bucket"
        return ValidationError(
            f"{name!r} cannot be {doing}: there is no such {kind}, or none any more. Check the address."
        )
    if isinstance(error, FileExistsError) or "pre-condition" in reason:
        return ValidationError(f"{name!r} is there already; name another place, or pass overwrite=True to replace it.")
    if refused or "credential" in f"{type(error).__name__} {reason}".lower():
        return ValidationError(
            f"{name!r} cannot be {doing}: access was refused ({reason or type(error).__name__}). Credentials come from the environment, or "
            "from storage_options= of load, scan and lookup_to; anywhere else give a frame, e.g. pandas.read_csv(…, storage_options=…)."
        )
    if isinstance(error, TypeError):
        return ValidationError(f"are not those of {name!r}: {reason}.", argument="storage_options")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return EnrichStatusError(
            f"{name!r} cannot be {doing}: the temporary folder {tempfile.gettempdir()!r} is full. Give it another place (TMPDIR)."
        )
    return EnrichStatusError(
        f"{name!r} cannot be {doing}: {type(error).__name__}: {reason or 'no reason given'}. Try again."
    )


def _scrubbed(text: str, address: str, options: Options) -> str:
    """Take out what may be a key: values of the options and of the environment, and what follows a question mark."""
    ours = (value for name, value in os.environ.items() if _SECRET.search(name))
    secrets = {*_values(options), *ours, address.partition("?")[2]}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) > 2:
            text = text.replace(secret, "…")
    return re.sub(r"\?\S+|(?<=//)[^/@\s]*:[^/@\s]*(?=@)", "…", text)


def _values(options: Any, name: str = "") -> Iterator[str]:
    """Give the texts among options, also those within others, but for what says where something is."""
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield from _values(value, key)
    elif isinstance(options, str) and name not in _PLACES:
        # a connection string holds its key among others
        yield from (options, *(part.partition("=")[2] for part in options.split(";")))


class Near:
    """Paths for reading: files elsewhere have become copies, and all others are as they were given."""

    def __init__(self, paths: Any):
        #: what can be read
        self.paths = paths
        #: what the copies are called
        self.names: dict[str, str] = {}
        #: what has been copied, as its file system calls it
        self.seen: set[str] = set()

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Let an error name the files, and not their copies."""
        try:
            yield
        except EnrichStatusError as error:
            text = str(error.args[0])
            for copy, name in self.names.items():
                text = text.replace(copy, name)
            error.args = (text, *error.args[1:])
            if isinstance(error, ValidationError) and error.problems is not None:
                error.problems = self.named(error.problems)
            raise

    def named(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Give rows that say their ``file`` the names of the files."""
        return rows.assign(file=rows["file"].replace(self.names)) if self.names and "file" in rows else rows


@contextmanager
def at_hand(given: Any, options: Options = None) -> Iterator[Near]:
    """Copy files elsewhere into the temporary folder, each whole, until the end; what else is given stays as it is.

    An error meanwhile names the files, and not their copies.
    """
    paths: Sequence[Any] = given if isinstance(given, (list, tuple)) else [given]
    # of a list of records the first one says that it is no list of paths
    if not (paths and isinstance(paths[0], (str, os.PathLike)) and any(map(is_remote, paths))):
        yield Near(given)
        return
    folder = tempfile.mkdtemp(prefix="enrichstatus-")
    near = Near([])
    try:
        for path in paths:
            near.paths += _fetched(path, options, folder, near) if is_remote(path) else [path]
        with near.naming():
            yield near
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _fetched(address: str, options: Options, folder: str, near: Near) -> list[str]:
    """Copy what an address names, several files at once, below folders that say as much of the records as theirs do."""
    copies: dict[str, Remote] = {}
    for file in find(address, options):
        if file.path in near.seen:  # named by two patterns, and still one file
            continue
        near.seen.add(file.path)
        *above, last = file.name.split("/")
        place = Path(folder, str(len(near.names)), *(part for part in above if "=" in part))
        place.mkdir(parents=True)
        copies[str(place / last)] = file
        near.names[str(place / last)] = file.name

    def fetch(copy: str) -> None:
        file = copies[copy]
        with reaching(file.name, address, options):
            file.system.get_file(file.path, copy)
        arrived = os.path.getsize(copy)
        if file.size is not None and arrived < file.size:
            raise EnrichStatusError(
                f"{file.name!r} cannot be read: {arrived:,} of its {file.size:,} bytes arrived. It was cut off, or replaced meanwhile. "
                "Try again."
            )

    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        list(pool.map(fetch, copies))
    finally:
        pool.shutdown(cancel_futures=True)
    return list(copies)


@contextmanager
def sending(address: str, options: Options = None, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a name in the temporary folder for a file to be made, which is then sent to an address; what raises meanwhile sends nothing."""
    name = shown(address)
    folder = tempfile.mkdtemp(prefix="enrichstatus-")
    near = Near([])
    copy = Path(folder, name.rstrip("/").rpartition("/")[2])
    near.names[str(copy)] = name
    try:
        with near.naming():
            yield copy
        with reaching(name, address, options, doing="written"):
            system, path = file_system(address, options)
            system.put_file(str(copy), path, mode="overwrite" if overwrite else "create")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def refuse_web(address: str) -> None:
    """Refuse to write to a web server."""
    if address.partition("://")[0].lower() in _WEB:
        raise ValidationError(
            f"{shown(address)!r} cannot be written: a web server takes no files; name a place on s3://, gs:// or az://."
        )
