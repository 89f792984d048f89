"""A real server on a free port of the loopback, for as long as a test needs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from enrichstatus.lookup.contract import PATH
from enrichstatus.server import Background
from tests.support.factory import NOW

__all__ = ["DOCUMENTED", "MOMENT", "NOBODY", "ONE", "PATH", "TOKENS", "TWO", "running", "write_tokens"]

#: The instant at which a server of the tests stands, its tokens, and the entity of the contract's own example.
MOMENT = datetime.fromisoformat(NOW)
ONE, TWO, NOBODY = "token-of-1", "token-of-2", "token-of-nobody"
TOKENS = {ONE: "org_1", TWO: "org_2", NOBODY: None}
DOCUMENTED = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"


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
