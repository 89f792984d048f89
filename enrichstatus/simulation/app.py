"""A service that only pretends: its records start pending and end over time, and it has the faults of a bad day."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.contract import PATH
from enrichstatus.schema import listed
from enrichstatus.simulation.store import FAILS, NEVER, PROFILES, SIGMA, SimulatedStore

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["FAILS", "FAULTS", "NEVER", "PROFILES", "SIGMA", "Faults", "SimulatedStore", "create_simulated_app"]

FAULTS = ("429", "500", "slow", "cut")


def create_simulated_app(
    store: SimulatedStore,
    tokens: str | os.PathLike[str] | Mapping[str, str | None],
    *,
    fault_rate: float = 0.0,
    faults: Sequence[str] = FAULTS,
    seed: int = 0,
) -> Starlette:
    """Make the application of a simulated service: the contract's endpoint, and ``POST /api/v1/operations/enrichment/batch``.

    That one triggers a field of 1 to 100 persons, ``{"personIds": […], "field": "phones"}``, as `SimulatedStore.trigger` does. The
    faults are those of the query alone, and can be changed while it runs: ``app.state.faults.rate = 1.0`` is an outage (see `Faults`).

    Parameters
    ----------
    store : SimulatedStore
        Where tasks are looked up and triggered, on behalf of the organization of each request's token.
    tokens : path or mapping
        As for `enrichstatus.server.create_app`.
    fault_rate : float
        The share of queries that meet a fault, from 0 to 1.
    faults : sequence of str
        Which: some of ``429``, ``500``, ``slow`` and ``cut``.
    seed : int
        Another seed is another course of faults.

    Raises
    ------
    ValidationError
        The tokens file cannot be read, or the rate or a fault is none.
    ImportError
        The extra ``server`` is not installed.

    Examples
    --------
    >>> import requests
    >>> from enrichstatus.server import Background
    >>> from enrichstatus.simulation import SimulatedStore, create_simulated_app
    >>> app = create_simulated_app(SimulatedStore(seed=7, speed=20), {"simulated": "org_simulated"})
    >>> with Background(app) as service:
    ...     answer = requests.post(
    ...         service.url + "/api/v1/operations/enrichment/batch",
    ...         json={"personIds": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "field": "phones"},
    ...         headers={"Authorization": "Bearer simulated"},
    ...     )
    >>> [enrichment["status"] for enrichment in answer.json()]
    ['pending']
    """
    from starlette.middleware import Middleware

    from enrichstatus.server.app import application

    def trigger(org_id: str, body: Any) -> Awaitable[Any]:
        return asyncio.to_thread(store.trigger, body["personIds"], body["field"], org_id=org_id)

    def faulty(app: App) -> Faults:
        service.state.faults = Faults(app, rate=fault_rate, kinds=faults, seed=seed)
        return service.state.faults  # type: ignore[no-any-return]

    service = application(store, tokens, trigger=trigger)
    # innermost, so that the faults have a line in the log and an id as other answers do
    service.user_middleware.append(Middleware(faulty))
    # now, and not at the first request: what is wrong with the faults is said before the service runs
    service.middleware_stack = service.build_middleware_stack()
    return service


Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


class Faults:
    """An application that has bad moments: some requests of the contract, drawn by the seed, meet one of the faults.

    ``429`` and ``500`` answer so, the first with ``Retry-After: 1``; ``slow`` takes its time; ``cut`` breaks off in the answer's middle.
    It goes around an application, or into one as its innermost middleware, where the application's log sees the faults too.
    While it runs its ``rate``, ``kinds`` and ``pause`` can be set: ``faults.rate = 1.0`` is an outage, ``0.0`` the end of it.

    Raises
    ------
    ValidationError
        The rate is none, or a kind, at the start or where one is set.
    """

    def __init__(self, app: App, *, rate: float, kinds: Sequence[str] = FAULTS, seed: int = 0, pause: float = 3.0):
        self._app = app
        self.rate = rate
        self.kinds = kinds
        self.pause = pause
        self._random = random.Random(seed)

    @property
    def rate(self) -> float:
        """The share of requests that meet a fault, from 0 to 1."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValidationError(f"is from 0 to 1, not {rate!r}.", argument="fault_rate")
        self._rate = rate

    @property
    def kinds(self) -> Sequence[str]:
        """The faults there are: some of ``429``, ``500``, ``slow`` and ``cut``."""
        return self._kinds

    @kinds.setter
    def kinds(self, kinds: Sequence[str]) -> None:
        strange = [kind for kind in kinds if kind not in FAULTS]
        if strange or not kinds:
            found = listed(map(repr, strange)) if strange else "none at all"
            raise ValidationError(f"takes some of {listed(FAULTS)}, not {found}.", argument="faults")
        self._kinds = tuple(kinds)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, well or badly."""
        if scope["type"] != "http" or scope["path"] != PATH or self._random.random() >= self._rate:
            await self._app(scope, receive, send)
            return
        kind = self._random.choice(self._kinds)
        if kind in ("429", "500"):
            body = b'{"error": {"code": "%s", "message": "A simulated fault."}}' % (
                b"INTERNAL_ERROR" if kind == "500" else b"RATE_LIMITED"
            )
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            headers += [(b"retry-after", b"1")] if kind == "429" else []
            await send({"type": "http.response.start", "status": int(kind), "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        if kind == "slow":
            await asyncio.sleep(self.pause)
            await self._app(scope, receive, send)
            return

        async def half(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": message["body"][: len(message["body"]) // 2], "more_body": True}
            await send(message)

        await self._app(scope, receive, half)
