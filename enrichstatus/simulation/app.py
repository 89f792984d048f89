"""A service that only pretends: its records start pending and end over time, and it has the faults of a bad day."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.lookup.contract import BALANCE_PATH, LEDGER_PATH, PATH, TRIGGER_PATH
from enrichstatus.schema import listed, timestamps
from enrichstatus.simulation.store import FAILS, NEVER, PROFILES, SIGMA, SimulatedStore

if TYPE_CHECKING:
    from starlette.applications import Starlette

__all__ = ["FAILS", "FAULTS", "NEVER", "PROFILES", "SIGMA", "Faults", "SimulatedStore", "create_simulated_app"]

FAULTS = ("429", "500", "slow", "cut")
#: Faults of a trigger, which has charged by then: the answer is cut off, or is status 500.
LOSSES = ("lost", "500-after")


def create_simulated_app(
    store: SimulatedStore,
    tokens: str | os.PathLike[str] | Mapping[str, str | None],
    *,
    fault_rate: float = 0.0,
    faults: Sequence[str] = FAULTS,
    seed: int = 0,
) -> Starlette:
    """Make the application of a simulated service: the contract's endpoint, and ``POST /api/v1/operations/enrichment/batch``.

    That one triggers a field of 1 to 100 persons, ``{"personIds": […], "field": "phones"}``, as `SimulatedStore.trigger` does.
    ``GET /api/v1/operations/credits/balance`` gives the credits that are left, and ``GET /ledger`` all charges. The faults can be
    changed while it runs: ``app.state.faults.rate = 1.0`` is an outage (see `Faults`).

    Parameters
    ----------
    store : SimulatedStore
        Where tasks are looked up and triggered, on behalf of the organization of each request's token.
    tokens : path or mapping
        As for `enrichstatus.server.create_app`.
    fault_rate : float
        The share of requests that meet a fault, from 0 to 1.
    faults : sequence of str
        Which: some of ``429``, ``500``, ``slow`` and ``cut``, which queries meet, and of ``lost`` and ``500-after``, which triggers
        meet after they have charged. Unless given, the first four.
    seed : int
        Another seed is another course of faults.

    Raises
    ------
    ValidationError
        The tokens file cannot be read, or the rate or a fault is unusable.
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

    def balance(org_id: str) -> dict[str, Any]:
        return {"balance": int(store.balance(org_id=org_id)), "organizationId": org_id}

    def ledger(org_id: str) -> Any:
        charges = store.ledger(org_id=org_id)
        moments = timestamps(pa.chunked_array([pa.array(charges["createdAt"])]))
        return charges.assign(createdAt=moments.to_pandas()).to_dict("records")

    def faulty(app: App) -> Faults:
        service.state.faults = Faults(app, rate=fault_rate, kinds=faults, seed=seed)
        return service.state.faults  # type: ignore[no-any-return]

    service = application(store, tokens, trigger=trigger, shown={BALANCE_PATH: balance, LEDGER_PATH: ledger})
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
    ``lost`` and ``500-after`` are met by triggers alone, after they have charged: the first breaks off, the other answers 500.
    It goes around an application, or into one as its innermost middleware, where the application's log sees the faults too.
    While it runs its ``rate``, ``kinds`` and ``pause`` can be set: ``faults.rate = 1.0`` is an outage, ``0.0`` the end of it.

    Raises
    ------
    ValidationError
        The rate or a kind is unusable, at the start or when it is set.
    """

    def __init__(self, app: App, *, rate: float, kinds: Sequence[str] = FAULTS, seed: int = 0, pause: float = 3.0):
        self._app, self.rate, self.kinds, self.pause = app, rate, kinds, pause
        self._random = random.Random(seed)

    @property
    def rate(self) -> float:
        """The share of requests that meet a fault, from 0 to 1."""
        return self._rate

    @rate.setter
    def rate(self, rate: float) -> None:
        if not 0 <= rate <= 1:
            raise ValidationError(f"is from 0 to 1, not {quoted(rate)}.", argument="fault_rate")
        self._rate = rate

    @property
    def kinds(self) -> Sequence[str]:
        """The faults there are: some of `FAULTS` and `LOSSES`."""
        return self._kinds

    @kinds.setter
    def kinds(self, kinds: Sequence[str]) -> None:
        strange = [kind for kind in kinds if kind not in (*FAULTS, *LOSSES)]
        if strange or not kinds:
            found = listed(map(repr, strange)) if strange else "none at all"
            raise ValidationError(
                f"takes some of {listed((*FAULTS, *LOSSES), limit=9)}, not {found}.", argument="faults"
            )
        self._kinds = tuple(kinds)
        by_path = {PATH: FAULTS, TRIGGER_PATH: LOSSES}
        self._by_path = {path: [kind for kind in kinds if kind in met] for path, met in by_path.items()}

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve a request, well or badly."""
        kinds = self._by_path.get(scope["path"], []) if scope["type"] == "http" else []
        if not kinds or self._random.random() >= self._rate:
            await self._app(scope, receive, send)
            return
        kind = self._random.choice(kinds)
        if kind == "500-after":

            async def nowhere(message: Message) -> None:
                """The answer is made, and not sent."""

            await self._app(scope, receive, nowhere)
        if kind in ("429", "500", "500-after"):
            code = b"RATE_LIMITED" if kind == "429" else b"INTERNAL_ERROR"
            body = b'{"error": {"code": "%s", "message": "A simulated fault."}}' % code
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            headers += [(b"retry-after", b"1")] if kind == "429" else []
            await send({"type": "http.response.start", "status": int(kind[:3]), "headers": headers})
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
