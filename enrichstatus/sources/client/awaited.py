"""The client of the remote service for asyncio: the same transport, in threads that live while a call is under way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import Columns, Errors, How, Instant
from enrichstatus.lookup.calls.awaiting import in_thread
from enrichstatus.sources.client.client import EnrichmentClient
from enrichstatus.sources.client.config import Bearer


class AsyncEnrichmentClient:
    """The remote enrichment service for asyncio: `EnrichmentClient` with calls that are awaited, and the same answers, bounds and errors.

    A call that is under way has a thread, at most 32 of an event loop at once; the loop itself never waits. A call that is cancelled
    (``task.cancel()``, ``asyncio.timeout``) is cut off: when its `asyncio.CancelledError` is raised, neither a request nor a thread of it
    is left, and the error has ``.result`` and ``.failed`` as `LookupInterrupted` has them, unless it still waited for its thread.

    Parameters
    ----------
    base_url, token, and all others
        As for `EnrichmentClient`.

    Attributes
    ----------
    blocking : EnrichmentClient
        The client whose calls are awaited. Use it for what is not awaited: `enrichstatus.plan`, `enrichstatus.Dashboard`, ``trigger``.

    Raises
    ------
    ValidationError, UnauthorizedError
        As for `EnrichmentClient`.

    Examples
    --------
    >>> import asyncio
    >>> import enrichstatus as es
    >>> async def look_up(tasks):
    ...     async with es.AsyncEnrichmentClient("https://api.example.com", token="secret") as client:
    ...         return await client.lookup(tasks)
    >>> asyncio.run(look_up([])).columns.tolist()
    ['entityId', 'entityType', 'field', 'status', 'dataFound']
    """

    def __init__(self, base_url: str | None = None, *, token: str | None = None, **options: Any):
        bearer = Bearer(token)
        del token  # as in EnrichmentClient: nothing that shows the variables of a failed call can show it
        self.blocking = EnrichmentClient(base_url, token=bearer, **options)

    @property
    def base_url(self) -> str:
        """Where the service is."""
        return self.blocking.base_url

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that the service knows."""
        return self.blocking.fields

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it counts as ``timeout``."""
        return self.blocking.max_processing_time

    def service_time(self) -> float | None:
        """Give the seconds since 1970 by the service's clock; None until an answer had a ``Date``."""
        return self.blocking.service_time()

    async def lookup(
        self,
        tasks: Kind | ListOrPath,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
    ) -> Kind:
        """Give back any number of tasks, with the columns of the answer added, as `EnrichmentClient.lookup` does."""
        look_up = partial(self.blocking.lookup, tasks, columns=columns, how=how, errors=errors, now=now, prefix=prefix)
        return await in_thread(look_up)

    async def query(self, body: Any) -> list[dict[str, Any]]:
        """Send one request of the contract, as `EnrichmentClient.query` does, and give the service's answer."""
        return await in_thread(partial(self.blocking.query, body))

    async def balance(self) -> float:
        """Give the credits that the organization of the token has left, as `EnrichmentClient.balance` does."""
        return await in_thread(self.blocking.balance)

    async def aclose(self) -> None:
        """Close the connections that are kept for the next call; calls that are under way still end."""
        self.blocking.close()

    async def __aenter__(self) -> AsyncEnrichmentClient:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"Async{self.blocking!r}" if "blocking" in vars(self) else "AsyncEnrichmentClient(not made)"

    def __reduce__(self) -> tuple[Callable[[], AsyncEnrichmentClient], tuple[()]]:
        return partial(AsyncEnrichmentClient, **self.blocking._arguments), ()  # with the token of the environment there
