"""Real servers on the loopback: moto as the S3 store, and a proxy before it that damages answers."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class Fault:
    """What happens to one answer.

    ``kind`` is "status", "reset" (connection reset after ``after`` bytes of the body), "cut" (closed
    as if it were the end), "stall" (silence), "drip" (a byte every 5 ms), "flip" (a wrong byte), "whole" (the range is ignored) or
    "before" (``action`` is run first, then the request is served as usual).
    """

    kind: str
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    action: Callable[[], Any] | None = None


class FaultProxy(ThreadingHTTPServer):
    """Forwards to a store; each GET of an object meets the next fault in ``faults``, if any is left."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.faults: deque[Fault] = deque()
        self.ranges: list[str] = []
        self.connections = 0
        self.payers: list[str] = []
        self.never = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def get_request(self) -> tuple[socket.socket, Any]:
        self.connections += 1
        return super().get_request()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultProxy

    def do_GET(self) -> None:
        is_object = self.command == "GET" and "list-type" not in self.path
        if is_object:
            self.server.ranges.append(self.headers.get("Range", ""))
            self.server.payers.append(self.headers.get("x-amz-request-payer", ""))
        fault = self.server.faults.popleft() if is_object and self.server.faults else Fault("none")
        if fault.action is not None:
            fault.action()
        if fault.kind == "status":
            body = f"<Error><Code>{fault.code}</Code><Message>m</Message></Error>".encode()
            self._send(fault.status, [("Content-Length", str(len(body)))], body)
            return
        if fault.kind == "whole":
            del self.headers["Range"]
        status, headers, body = self._forward()
        if fault.kind == "flip" and status < 300:
            body = body[: fault.after] + bytes([body[fault.after] ^ 1]) + body[fault.after + 1 :]
        if fault.kind not in ("reset", "cut", "stall", "drip") or status >= 300:
            self._send(status, headers, body)
            return
        self._send(status, headers, body[: fault.after])
        self.close_connection = True
        if fault.kind == "stall":
            self.connection.recv(1)  # returns when the client gives up
        if fault.kind == "drip":
            for byte in body[fault.after :]:
                self.wfile.write(bytes([byte]))
                self.server.never.wait(0.005)
        if fault.kind == "reset":
            # Zero linger makes close() send RST instead of FIN.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _forward(self) -> tuple[int, list[tuple[str, str]], bytes]:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(self.server.target)
        try:
            connection.request(self.command, self.path, sent, dict(self.headers))
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() != "connection"]
            return answer.status, headers, answer.read()
        finally:
            connection.close()

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


@contextmanager
def moto_server() -> Iterator[str]:
    """Run an S3 store and give its endpoint."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def fault_proxy(target: str) -> Iterator[FaultProxy]:
    """Run a proxy before an endpoint."""
    proxy = FaultProxy(target)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()
        thread.join()


class _WebHandler(BaseHTTPRequestHandler):
    """Answers everything alike, as a web server or a proxy's front page does."""

    protocol_version = "HTTP/1.1"
    server: WebServer

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests += 1
        self.send_response_only(self.server.status)
        for name, value in {"Content-Length": str(len(self.server.body)), **self.server.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(self.server.body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *args: Any) -> None:
        """Quiet."""


class WebServer(ThreadingHTTPServer):
    """An ordinary web server: one status, the same headers and body for every request."""

    daemon_threads = True

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _WebHandler)
        self.status, self.headers, self.body = status, headers, body
        self.requests = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def web_server(
    status: int, headers: Mapping[str, str] = MappingProxyType({}), body: bytes = b""
) -> Iterator[WebServer]:
    """Run a server that is none of S3."""
    server = WebServer(status, headers, body)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
