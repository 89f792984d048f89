"""The contract's endpoint (extra ``server``)."""

from enrichstatus.server.app import create_app
from enrichstatus.server.run import Background

__all__ = ["Background", "create_app"]
