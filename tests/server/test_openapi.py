"""The endpoint's OpenAPI document: what it says, and that the server does what it says (Schemathesis)."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import requests

import enrichstatus as es
from enrichstatus.lookup.contract import BALANCE_PATH, LEDGER_PATH, TRIGGER_PATH
from enrichstatus.schema import COLUMNS, ENTITY_TYPES, FIELDS
from enrichstatus.server import create_app, openapi
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.cases import cases
from tests.support.factory import NOW, record
from tests.support.serving import DOCUMENTED, MOMENT, ONE, PATH, TOKENS, running, write_tokens


class Watched:
    """An ASGI app around the server that counts its answers: by method, path and status, and whether they hold a record."""

    def __init__(self, app: Any):
        self.app, self.answers = app, Counter[tuple[str, str, int]]()
        self.records = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def watched(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.answers[scope["method"], scope["path"], message["status"]] += 1
            self.records += message.get("body", b"").startswith(b'[{"id":')
            await send(message)

        await self.app(scope, receive, watched if scope["type"] == "http" else send)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokens = write_tokens(tmp_path_factory.mktemp("document") / "tokens.toml", TOKENS)
    with es.EnrichmentStore() as store, running(create_app(store, tokens)) as base, requests.Session() as session:
        session.trust_env = False
        answer = session.get(base + "/openapi.json", timeout=20)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "application/json")
    return answer.json()


def resolved(document: Any, node: Any) -> Any:
    """Put what references stand for in their place."""
    if isinstance(node, list):
        return [resolved(document, one) for one in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        place = document
        for name in node["$ref"].removeprefix("#/").split("/"):
            place = place[name]
        return resolved(document, place)
    return {name: resolved(document, one) for name, one in node.items()}


def schema_of(part: Any) -> Any:
    return part["content"]["application/json"]["schema"]


def test_the_document_tells_the_contract(document: Any):
    """The document is OpenAPI 3.1 and has the request's limits and vocabularies, the record's members, and the errors."""
    assert document["openapi"].startswith("3.1.")
    post = resolved(document, document["paths"][PATH]["post"])
    assert set(post["responses"]) == {"200", "400", "401", "500"}
    assert post["requestBody"]["required"] is True
    body = schema_of(post["requestBody"])
    assert (body["type"], body["required"]) == ("object", ["tasks"])
    tasks = body["properties"]["tasks"]
    assert (tasks["type"], tasks["minItems"], tasks["maxItems"]) == ("array", 1, 200)
    task = tasks["items"]
    assert (sorted(task["required"]), task["properties"]["entityId"]["type"]) == (["entityId", "field"], "string")
    assert sorted(task["properties"]["field"]["enum"]) == sorted(FIELDS)
    assert sorted(task["properties"]["entityType"]["enum"]) == sorted(ENTITY_TYPES)
    assert task["properties"]["entityType"]["default"] == "person"
    answer = schema_of(post["responses"]["200"])
    assert (answer["type"], set(answer["items"]["properties"])) == ("array", set(COLUMNS))
    for status in ("400", "401", "500"):
        error = schema_of(post["responses"][status])["properties"]["error"]
        assert sorted(error["required"]) == ["code", "message"]


def test_the_document_asks_for_a_token_where_one_is_needed(document: Any):
    """The endpoint needs a bearer token; health does not, and may be 503."""
    (name,) = (name for one in document["paths"][PATH]["post"]["security"] for name in one)
    scheme = document["components"]["securitySchemes"][name]
    assert (scheme["type"], scheme["scheme"].lower()) == ("http", "bearer")
    health = document["paths"]["/healthz"]["get"]
    assert {"200", "503"} <= set(health["responses"])
    assert not health.get("security", document.get("security"))


def test_the_documents_fields_are_the_stores(tmp_path: Path):
    """A store that was made with other fields is served with those, in the document too."""
    tokens = write_tokens(tmp_path / "tokens.toml", TOKENS)
    asked = {"entityId": DOCUMENTED, "field": "linkedin"}
    with es.EnrichmentStore(fields=["emails", "linkedin"]) as store, requests.Session() as session:
        session.trust_env = False
        store.load([record(0, **asked)])
        with running(create_app(store, tokens, clock=lambda: MOMENT)) as base:
            document = session.get(base + "/openapi.json", timeout=20).json()
            body = schema_of(resolved(document, document["paths"][PATH]["post"])["requestBody"])
            assert sorted(body["properties"]["tasks"]["items"]["properties"]["field"]["enum"]) == ["emails", "linkedin"]
            session.headers["Authorization"] = f"Bearer {ONE}"
            answer = session.post(base + PATH, json={"tasks": [asked]}, timeout=20)
            assert answer.json() == store.query({"tasks": [asked]}, org_id="org_1", now=NOW)
            assert (
                session.post(base + PATH, json={"tasks": [asked | {"field": "phones"}]}, timeout=20).status_code == 400
            )


@pytest.mark.slow
def test_the_server_does_what_the_document_says(tmp_path: Path):
    """Schemathesis, with all its checks and phases, finds nothing; and it met records, refusals, and wrong methods."""
    tokens = write_tokens(tmp_path / "tokens.toml", TOKENS)
    with es.EnrichmentStore() as store:
        store.load(
            [
                record(0, entityId=DOCUMENTED, field=field) | {"id": DOCUMENTED[:-1] + end}
                for field, end in zip(FIELDS, "123", strict=True)
            ]
        )
        app = Watched(create_app(store, tokens, clock=lambda: MOMENT))
        with running(app) as base:
            done = subprocess.run(
                [
                    *(sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"),
                    *("run", base + "/openapi.json", "--header", f"Authorization: Bearer {ONE}"),
                    # stateful: the document has no links, so that phase finds nothing to do until it does
                    *("--checks", "all", "--phases", "examples,coverage,fuzzing,stateful"),
                    *("--max-examples", str(cases(30, 150)), "--generation-deterministic"),
                    *("--continue-on-failure", "--no-color"),
                ],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=120,
            )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout
    met = {(method, status): n for (method, path, status), n in app.answers.items() if path == PATH}
    assert min(met.get(("POST", status), 0) for status in (200, 400, 401)) >= 1, met
    assert met["POST", 200] + met["POST", 400] > cases(50, 100)
    assert any(status == 405 for _, status in met)
    assert app.records > 0
    assert not any(status >= 500 for _, _, status in app.answers)


def test_a_simulated_service_documents_what_it_shows():
    """Its trigger, balance and ledger stand in its document, with 402 and the token, and what it answers is what stands there; a real one has none."""
    headers = {"Authorization": "Bearer a-token"}
    with SimulatedStore(org_id="org_1", balance=11) as service, requests.Session() as session:
        session.trust_env = False
        with running(create_simulated_app(service, {"a-token": "org_1"})) as base:
            document = session.get(base + "/openapi.json", timeout=20).json()
            assert "402" in document["paths"][TRIGGER_PATH]["post"]["responses"]
            service.trigger([DOCUMENTED], "phones")
            for path, kind in ((BALANCE_PATH, openapi.Balance), (LEDGER_PATH, list[openapi.Charge])):
                shown = document["paths"][path]["get"]
                assert shown["security"]
                assert session.get(base + path, timeout=20).status_code == 401
                answer = session.get(base + path, headers=headers, timeout=20).content
                read = msgspec.json.decode(answer, type=kind)
                assert msgspec.json.decode(msgspec.json.encode(read)) == msgspec.json.decode(answer)
    plain = openapi.document(openapi.types())
    assert plain["paths"].keys() == {PATH, "/healthz", "/openapi.json"}
    assert not {"Balance", "Charge", "Trigger"} & plain["components"]["schemas"].keys()
