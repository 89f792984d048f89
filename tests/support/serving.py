"""A real server on a free port of the loopback, for as long as a test needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enrichstatus.lookup.contract import PATH
from enrichstatus.server import Background

__all__ = ["PATH", "running", "write_tokens"]


@contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an ASGI app; gives its base URL."""
    with Background(app) as service:
        yield service.url


def write_tokens(path: Path, tokens: Mapping[str, str | None]) -> Path:
    """Write a tokens file that knows these tokens, each of an organization or (None) of none."""
    entries = [
        f'[[token]]\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n' + (f'org = "{org}"\n' if org else "")
        for token, org in tokens.items()
    ]
    path.write_text("\n".join(entries))
    return path
