"""An S3 on this machine: moto behind a door at which requests are noted and can go wrong."""

from __future__ import annotations

import gzip
import importlib.util
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any, NamedTuple

from tests.support.browser import missing

#: The credentials; whatever reaches a message of these is a leak.
KEY, SECRET = "AKIAENRICHSTATUS", "do-not-tell-anyone"


class Request(NamedTuple):
    """What was requested, in S3's words."""

    method: str
    path: str
    query: str
    range: str | None


#: What becomes of a request instead of its answer: a status, or a share of its body; None for the answer.
Fault = Callable[[Request], int | float | None]


class Lake:
    """A server of S3, with the bucket ``lake``."""

    def __init__(self, url: str):
        self.url = url
        self.requests: list[Request] = []
        self.fault: Fault = lambda request: None
        self.options = {"key": KEY, "secret": SECRET, "endpoint_url": url}

    @cached_property
    def files(self) -> Any:
        """Its files, by another way than ours."""
        import boto3

        return boto3.client(
            "s3", endpoint_url=self.url, aws_access_key_id=KEY, aws_secret_access_key=SECRET, region_name="us-east-1"
        )

    def put(self, name: str, data: bytes, *, compressed: bool = False) -> None:
        self.files.put_object(Bucket="lake", Key=name, Body=gzip.compress(data) if compressed else data)

    def empty(self) -> None:
        for name in self.names():
            self.files.delete_object(Bucket="lake", Key=name)

    def names(self, prefix: str = "") -> list[str]:
        return [one["Key"] for one in self.files.list_objects_v2(Bucket="lake", Prefix=prefix).get("Contents", ())]

    def body(self, name: str) -> bytes:
        data: bytes = self.files.get_object(Bucket="lake", Key=name)["Body"].read()
        return data


def require(*modules: str) -> None:
    """Skip the test where a package is missing, saying how to install it; in CI it fails."""
    for module in modules:
        if importlib.util.find_spec(module) is None:
            missing(f'needs {module}: pip install -e ".[lakes]"')


@contextmanager
def running() -> Iterator[Lake]:
    """Run one on a free port."""
    require("s3fs", "moto", "flask_cors")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        def log(self, *args: Any) -> None:
            """Say nothing."""

    backend = DomainDispatcherApplication(create_backend_app)
    lake: Lake

    def door(environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = Request(
            environ["REQUEST_METHOD"], environ["PATH_INFO"], environ.get("QUERY_STRING", ""), environ.get("HTTP_RANGE")
        )
        lake.requests.append(request)
        fault = lake.fault(request)
        if isinstance(fault, int):
            code = {403: "AccessDenied", 404: "NoSuchKey"}.get(fault, "InternalError")
            start(f"{fault} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>{code} of {KEY}</Message></Error>".encode()]
        body = b"".join(backend(environ, start))
        return [body if fault is None else body[: int(len(body) * fault)]]

    server = make_server("127.0.0.1", 0, door, threaded=True, request_handler=Quiet)
    lake = Lake(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        lake.files.create_bucket(Bucket="lake")
        yield lake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
