"""A small S3 server in this process that does as a test says, and remembers what it was asked."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Request:
    """What a client asked for."""

    method: str
    path: str
    headers: dict[str, str]

    @property
    def access_key(self) -> str:
        match = re.search(r"Credential=([^/]+)/", self.headers.get("authorization", ""))
        return match[1] if match else ""


@dataclass
class Answer:
    """What the server sends.

    With ``stops_after`` the connection is closed after so much of the body; an answer that ``drips``
    comes a byte every 5 ms, its headers first, and never ends.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stops_after: int | None = None
    drips: bool = False

    @classmethod
    def error(cls, status: int, code: str) -> Answer:
        body = f"<Error><Code>{code}</Code><Message>m</Message></Error>".encode()
        return cls(status, {"Content-Type": "application/xml"}, body)


# Makes another answer of the right one, before it goes out.
Rule = Callable[[Request, Answer], Answer]


def honest(request: Request, answer: Answer) -> Answer:
    return answer


class ObjectServer(ThreadingHTTPServer):
    """Objects under paths such as ``/bucket/key``; ranges as S3 does them, but If-Match is ignored."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.rule: Rule = honest
        self.ended = threading.Event()
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def asked(self, method: str) -> list[Request]:
        return [request for request in self.requests if request.method == method]

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""

    def serve(self, request: Request, sent: bytes) -> Answer:
        if request.method == "PUT":
            self.objects[request.path] = sent
        data = self.objects.get(request.path)
        if data is None:
            return Answer.error(404, "NoSuchKey")
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        if request.method == "PUT":
            return Answer(200, headers)
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("range", ""))
        if span is None:
            return Answer(200, headers, data)
        first, last = int(span[1]), min(int(span[2]), len(data) - 1)
        if first > last:
            return Answer.error(416, "InvalidRange")
        return Answer(
            206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1]
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ObjectServer

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        sent = self.rfile.read(int(headers.get("content-length", 0)))
        request = Request(self.command, urlsplit(self.path).path, headers)
        self.server.requests.append(request)
        answer = self.server.rule(request, self.server.serve(request, sent))
        if answer.drips:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
            while not self.server.ended.wait(0.005):
                self.wfile.write(b"x")
            self.close_connection = True
            return
        self.send_response_only(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.stops_after])
        self.close_connection = self.close_connection or answer.stops_after is not None

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """Run a server without faults yet."""
    server = ObjectServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
