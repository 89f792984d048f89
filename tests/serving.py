"""A real server on a free port of the loopback, for as long as a test needs it."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn

from enrichstatus.wire import PATH

__all__ = ["PATH", "running", "write_tokens"]


@contextmanager
def running(app: Any, **settings: Any) -> Iterator[str]:
    """Serve an ASGI app with uvicorn in a thread; gives its base URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, **settings))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.005)
    assert server.started, "the server did not start"
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def write_tokens(path: Path, tokens: Mapping[str, str | None]) -> Path:
    """Write a tokens file that knows these tokens, each of an organization or (None) of none."""
    entries = [
        f'[[token]]\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n' + (f'org = "{org}"\n' if org else "")
        for token, org in tokens.items()
    ]
    path.write_text("\n".join(entries))
    return path
