"""The endpoint of the wire contract, over a store: an ASGI application (extra ``server``)."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypeAlias

from enrichstatus.errors import EnrichStatusError, ServiceError, UnauthorizedError, ValidationError
from enrichstatus.lookup.contract import PATH, TRIGGER_PATH
from enrichstatus.server.tokens import digests, organization, read_tokens
from enrichstatus.sources.store.database.open_files import identity
from enrichstatus.sources.store.store import EnrichmentStore

try:
    import msgspec
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import Response
    from starlette.routing import Route
    from starlette.types import ASGIApp, Message, Receive, Scope, Send
except ImportError as error:
    raise ImportError('The endpoint needs the extra "server": pip install "enrichstatus[server]"') from error

from enrichstatus.server import openapi

TokensFile: TypeAlias = str | os.PathLike[str]
Tokens: TypeAlias = TokensFile | Mapping[str, str | None]
Clock: TypeAlias = Callable[[], datetime]
#: Gives what an organization and the body of its request are answered with; bytes are ready JSON.
Answerer: TypeAlias = Callable[[str, Any], Awaitable[Any]]
NOTHING: Mapping[str, Any] = {}

_LOG = logging.getLogger("enrichstatus.server")

#: A body that is longer is refused: 200 tasks need some 25 kB.
MOST_BYTES = 1 << 20
_TOO_LONG = f"The body is longer than {MOST_BYTES:,} bytes."
#: Seconds that a body may take to arrive.
SLOWEST_BODY = 30.0
#: Seconds between looks at whether the store's file or the tokens were replaced.
WATCH = 0.5
#: Seconds until a file that was refused is tried again unchanged.
SECOND_LOOK = 60.0


def create_app(store: EnrichmentStore, tokens: Tokens, *, clock: Clock | None = None) -> Starlette:
    """Make the application that serves the contract's endpoint over a store.

    Besides the endpoint itself it has ``GET /openapi.json`` and ``GET /healthz``. When another file takes the place of the store's
    (``os.replace``), or the tokens file changes, it goes on with the new one. Each request is a line of JSON on the logger
    ``enrichstatus.server``.

    Parameters
    ----------
    store : EnrichmentStore
        Where tasks are looked up, on behalf of the organization of each request's token. It is not closed at the end.
    tokens : path or mapping
        The TOML file of token digests and their organizations, as ``enrichstatus token new`` writes it; or tokens and their
        organizations (``{"token": "org_1"}``), for a test or a notebook.
    clock : callable, optional
        Gives the instant at which the timeout rule is evaluated; the real clock's unless given.

    Raises
    ------
    ValidationError
        The tokens file cannot be read.
    ImportError
        The extra ``server`` is not installed.
    """
    return application(store, tokens, clock)


def application(
    store: EnrichmentStore,
    tokens: Tokens,
    clock: Clock | None = None,
    trigger: Answerer | None = None,
    shown: Mapping[str, Callable[[str], Any]] = NOTHING,
) -> Starlette:
    """Make the application; that of a simulated service, and no other, has something to `trigger`, and pages `shown` to organizations."""
    endpoint = _Endpoint(store, tokens, clock, trigger)
    triggered = [Route(TRIGGER_PATH, endpoint.trigger, methods=["POST"])] if trigger else []
    triggered += [Route(path, endpoint.showing(give)) for path, give in shown.items()]
    app = Starlette(
        routes=[
            Route(PATH, endpoint.query, methods=["POST"]),
            Route("/openapi.json", endpoint.openapi),
            Route("/healthz", endpoint.health),
            *triggered,
        ],
        middleware=[Middleware(_Logged)],
        exception_handlers={EnrichStatusError: _refused, HTTPException: _no_route},
        lifespan=endpoint.lifespan,
    )
    app.router.redirect_slashes = False  # another path is not found, and no token goes on a detour
    return app


class _Endpoint:
    def __init__(self, store: EnrichmentStore, tokens: Tokens, clock: Clock | None, trigger: Answerer | None) -> None:
        self._store, self._clock, self._trigger = store, clock, trigger
        self._tokens_file = None if isinstance(tokens, Mapping) else tokens
        self._tokens_seen = self._tokens_read = identity(self._tokens_file)
        self._tokens = digests(tokens) if isinstance(tokens, Mapping) else read_tokens(tokens)
        self._types = openapi.types(store.fields)
        self._document = msgspec.json.encode(openapi.document(self._types, triggers=trigger is not None))

    async def query(self, request: Request) -> Response:
        return await self._with_body(request, None, "tasks", self._query)

    async def trigger(self, request: Request) -> Response:
        assert self._trigger
        return await self._with_body(request, self._types.trigger, "personIds", self._trigger)

    def showing(self, give: Callable[[str], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def show(request: Request) -> Response:
            return _json(await asyncio.to_thread(give, self._organization(request)))

        return show

    def _organization(self, request: Request) -> str:
        org_id = organization(self._tokens, request.headers.get("authorization"))
        request.scope["enrichstatus"]["org"] = org_id
        if org_id is None or not org_id.strip():
            raise ValidationError("Organization ID is missing")
        return org_id

    async def _with_body(self, request: Request, kind: Any, member: str, answer: Answerer) -> Response:
        """Answer with what `answer` gives a body of this type, or checks itself; of its member the log has the length."""
        note = request.scope["enrichstatus"]
        org_id = self._organization(request)
        try:
            # read first and then checked: of members that come twice the last counts, and what is ignored is JSON too
            body = msgspec.json.decode(await _body(request))
            if kind is not None:
                msgspec.convert(body, kind)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            if isinstance(error, EnrichStatusError):
                raise
            what = "breaks the contract" if isinstance(error, msgspec.ValidationError) else "is not JSON"
            raise ValidationError(f"The body {what}: {error}. GET /openapi.json describes it.") from None
        members = body.get(member) if isinstance(body, dict) else None
        note["tasks"] = len(members) if isinstance(members, list) else None
        return _json(await answer(org_id, body))

    async def openapi(self, request: Request) -> Response:
        return Response(self._document, media_type="application/json")

    async def health(self, request: Request) -> Response:
        """Answer well only if the store does: a lookup that finds nothing."""
        task = {"entityId": str(uuid.UUID(int=0)), "field": self._store.fields[0]}
        try:
            await self._query("healthz", {"tasks": [task]})
        except EnrichStatusError:
            return _error(503, "UNAVAILABLE", "The store cannot be read.")
        return _json({"status": "ok"})

    async def _query(self, org_id: str, body: Any) -> Any:
        now = self._clock() if self._clock else None
        if (ready := self._store.query_at_once(body, org_id=org_id, now=now)) is not None:
            return ready
        return await asyncio.to_thread(self._store.query, body, org_id=org_id, now=now)

    @asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        watch = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch

    async def _watch(self) -> None:
        """Load a store's file, or tokens, that were replaced; what cannot be used is logged once, and the old stays in use."""
        logged = ""
        refused: tuple[int, ...] = ()
        again = 0.0
        while True:
            await asyncio.sleep(WATCH)
            try:
                self._take_up_tokens()
                stamp = identity(self._store.path)
                # reading a large file only to refuse it is work: the same one is tried again only after a while
                if self._store.replaced() and (stamp != refused or time.monotonic() > again):
                    refused, again = stamp, time.monotonic() + SECOND_LOOK
                    await asyncio.to_thread(self._store.refresh)
                    refused = ()
                    _LOG.info(_line(event="reloaded", store=self._store.path))
                if stamp != refused:
                    logged = ""
            except Exception as error:
                if logged != str(error):
                    logged = str(error)
                    _LOG.error(_line(event="not reloaded", error=logged))

    def _take_up_tokens(self) -> None:
        if self._tokens_file is None:
            return
        stamp = identity(self._tokens_file)
        # as it was at the last look too: it is not being written just now
        if stamp not in (self._tokens_read, ()) and stamp == self._tokens_seen:
            self._tokens_read = stamp  # also where it cannot be: that is logged once
            self._tokens = read_tokens(self._tokens_file)
            _LOG.info(_line(event="reloaded", tokens=os.fspath(self._tokens_file)))
        self._tokens_seen = stamp


async def _body(request: Request) -> bytes:
    """Read a body that is not too long and does not take too long."""
    length = request.headers.get("content-length", "0")
    if length.isdecimal() and int(length) > MOST_BYTES:
        raise ValidationError(_TOO_LONG)
    parts, size = [], 0
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for part in request.stream():
                size += len(part)
                if size > MOST_BYTES:
                    raise ValidationError(_TOO_LONG)
                parts.append(part)
    except TimeoutError:
        raise HTTPException(408, headers={"Connection": "close"}) from None
    return b"".join(parts)


async def _refused(request: Request, error: Exception) -> Response:
    """Answer an error of ours with the contract's status, code and message; of one inside, only its id is shown."""
    if isinstance(error, (ValidationError, UnauthorizedError)):
        challenge = {"WWW-Authenticate": "Bearer"} if isinstance(error, UnauthorizedError) else None
        # the caller has no exception to look into, and knows what was sent
        text = str(error).replace(" in .problems", "")
        return _error(error.http_status, error.code, text if len(text) <= 1000 else text[:1000] + " …", challenge)
    if isinstance(error, ServiceError) and error.http_status == 402:  # of a simulated service
        return _error(402, "INSUFFICIENT_CREDITS", str(error))
    raise error


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    said = {
        404: ("NOT_FOUND", f"There is nothing at this path; the endpoint is POST {PATH}"),
        405: ("METHOD_NOT_ALLOWED", "This path does not take this method."),
        408: ("REQUEST_TIMEOUT", f"The body took longer than {SLOWEST_BODY:.0f} s."),
    }
    status = error.status_code
    return _error(status, *said.get(status, ("VALIDATION_ERROR", error.detail)), error.headers)


class _Logged:
    """Gives each request an id, a line in the log, and, where it failed inside, the contract's 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = secrets.token_hex(8)
        note: dict[str, Any] = {"org": None, "tasks": None}
        scope["enrichstatus"] = note
        status = 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except ClientDisconnect:
            status = 499  # as proxies log it: nobody is there to be answered
        except Exception as error:
            _LOG.error(_line(event="failed", request=request_id, error=repr(error)), exc_info=error)
            if status == 0:
                text = f"The query failed. Quote the request id {request_id} to whoever runs this service."
                await _error(500, "INTERNAL_ERROR", text)(scope, receive, sent)
        finally:
            if _LOG.isEnabledFor(logging.INFO):
                spent = round((time.perf_counter() - start) * 1e3, 1)
                what = {"request": request_id, "method": scope["method"], "path": scope["path"]}
                _LOG.info(_line(**what, status=status, ms=spent, **note))


def _line(**members: Any) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return msgspec.json.encode({"time": now, **members}).decode()


def _json(content: Any) -> Response:
    """Answer with JSON; bytes are that already."""
    ready = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return Response(ready, media_type="application/json")


def _error(status: int, code: str, message: str, headers: Any = None) -> Response:
    body = msgspec.json.encode({"error": {"code": code, "message": message}})
    return Response(body, status, headers=headers, media_type="application/json")
