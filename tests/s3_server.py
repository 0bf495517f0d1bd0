"""Real servers on the loopback: moto as the S3 store, and a proxy before it that damages answers."""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from moto.server import ThreadedMotoServer


@dataclass(frozen=True)
class Fault:
    """What happens to one answer.

    ``kind`` is

    - "status": an error with ``status`` and ``code`` instead of the answer;
    - "hangup", "silent": the connection is reset, or nothing comes, before the first byte;
    - "reset", "cut", "stall", "drip": after ``after`` bytes of the body (from its end if negative) the
      connection is reset, is closed as if that were all, says no more, or gives a byte every 5 ms;
    - "flip": byte ``after`` of the body is wrong (beyond its end: counted round);
    - "whole": the range is ignored;
    - "omit": the key that ends with ``omits`` is left out of a list;
    - "before": ``action`` is run first, then the request is served as usual.

    It waits in the proxy's queue for a request of its ``method`` ("LIST" for lists) and ``key``, a pattern
    over the path below the S3 bucket.
    """

    kind: str
    after: int = 0
    status: int = 503
    code: str = "SlowDown"
    action: Callable[[], Any] | None = None
    method: str = "GET"
    key: str = "*"
    omits: str = ""


# Number of the request (from 0, over all connections), method, key, Range header ("" if none).
Decide = Callable[[int, str, str, str], Fault | None]

_NONE = Fault("none")
_IN_THE_BODY = ("reset", "cut", "stall", "drip")
_PIECE_BYTES = 16 << 10


class FaultProxy(ThreadingHTTPServer):
    """Forwards to a store, and damages answers.

    A request meets what ``decide`` says or, if that is not set or says None, the first fault in ``faults``
    that waits for its like, and uses that up.

    Attributes:
        faults: What the next requests will meet.
        decide: Asked for every request, one at a time.
        latency_seconds: How long each answer is held back.
        bytes_per_second: Most bytes of bodies on one connection; None sets no limit.
        valid_key_id: When set, requests signed with another key are answered ``400 ExpiredToken``.
        requests: How often each (method, key) was asked for.
        met: How often each kind of fault happened.
        ranges, payers: Header of each GET of an object, in order.
        connections: Connections made so far.
    """

    daemon_threads = False  # joined by server_close

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.faults: deque[Fault] = deque()
        self.decide: Decide | None = None
        self.latency_seconds = 0.0
        self.bytes_per_second: float | None = None
        self.valid_key_id: str | None = None
        self.requests: Counter[tuple[str, str]] = Counter()
        self.met: Counter[str] = Counter()
        self.ranges: list[str] = []
        self.payers: list[str] = []
        self.connections = 0
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        _RUNNING.add(self)

    def fault_for(self, method: str, key: str, headers: Mapping[str, str]) -> Fault:
        """Count a request and say what it meets."""
        wanted = headers.get("Range", "")
        with self._lock:
            number = self.requests.total()
            self.requests[method, key] += 1
            if method == "GET":
                self.ranges.append(wanted)
                self.payers.append(headers.get("x-amz-request-payer", ""))
            fault = self._chosen(number, method, key, wanted, headers.get("Authorization", ""))
            if fault is not _NONE:
                self.met[fault.kind] += 1
        return fault

    def _chosen(self, number: int, method: str, key: str, wanted: str, authorization: str) -> Fault:
        if self.valid_key_id is not None and f"Credential={self.valid_key_id}/" not in authorization:
            return Fault("status", status=400, code="ExpiredToken")
        decided = None if self.decide is None else self.decide(number, method, key, wanted)
        if decided is not None:
            return decided
        for place, fault in enumerate(self.faults):
            if fault.method == method and fnmatch(key, fault.key):
                del self.faults[place]
                return fault
        return _NONE

    def get_request(self) -> tuple[socket.socket, Any]:
        accepted, address = super().get_request()
        self.connections += 1
        self._open.add(accepted)
        return accepted, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """End: hang up on every client, and wait for the threads."""
        self.closing.set()
        for connection in list(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        super().server_close()

    def forget(self) -> None:
        """In a forked child: let go of the sockets, which would stay open for as long as the child lives."""
        for connection in (*self._open, self.socket):
            # Not close(): files on the socket would keep it open.
            os.close(connection.detach())

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""


_RUNNING: weakref.WeakSet[FaultProxy] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: [proxy.forget() for proxy in _RUNNING])


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultProxy

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection(self.server.target)

    def finish(self) -> None:
        self.upstream.close()
        super().finish()

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        method, key = _asked(self.command, self.path)
        fault = self.server.fault_for(method, key, self.headers)
        if self.server.latency_seconds:
            self.server.closing.wait(self.server.latency_seconds)
        if fault.action is not None:
            fault.action()
        if fault.kind == "status":
            body = f"<Error><Code>{fault.code}</Code><Message>m</Message></Error>".encode()
            self._send(fault.status, [("Content-Length", str(len(body)))], body)
            return
        if fault.kind == "whole":
            del self.headers["Range"]
        if fault.kind == "hangup":
            self._reset()
        elif fault.kind == "silent":
            self._wait_for_the_client()
        else:
            self._answer(fault, *self._forwarded(sent))

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def _answer(self, fault: Fault, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        if fault.kind == "omit":
            headers, body = _without(fault.omits, headers, body)
        if fault.kind == "flip" and status < 300 and body:
            at = fault.after % len(body)
            body = body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
        if fault.kind not in _IN_THE_BODY or status >= 300:
            self._send(status, headers, body)
            return
        self._send(status, headers, body[: fault.after])
        self.close_connection = True
        if fault.kind == "stall":
            self._wait_for_the_client()
        if fault.kind == "drip":
            for byte in body[fault.after :]:
                self.wfile.write(bytes([byte]))
                self.server.closing.wait(0.005)
        if fault.kind == "reset":
            self._reset()

    def _wait_for_the_client(self) -> None:
        self.close_connection = True
        self.connection.recv(1)  # returns when the client gives up, or the proxy ends

    def _reset(self) -> None:
        self.close_connection = True
        # Zero linger makes close() send RST instead of FIN; the files on the socket would keep it open.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _forwarded(self, sent: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Ask the store, over a connection that stays open as long as the client's."""
        for is_last in (False, True):
            try:
                self.upstream.request(self.command, self.path, sent, dict(self.headers))
                answer = self.upstream.getresponse()
                headers = [both for both in answer.getheaders() if both[0].lower() != "connection"]
                return answer.status, headers, answer.read()
            except (http.client.HTTPException, OSError):
                self.upstream.close()
                if is_last:
                    raise
        raise AssertionError("The last attempt returns or raises.")

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        rate, began = self.server.bytes_per_second, time.monotonic()
        if rate is None:
            self.wfile.write(body)
            return
        for start in range(0, len(body), _PIECE_BYTES):
            piece = body[start : start + _PIECE_BYTES]
            self.server.closing.wait(max(0.0, began + (start + len(piece)) / rate - time.monotonic()))
            self.wfile.write(piece)

    def log_message(self, *args: Any) -> None:
        """Quiet."""


def _asked(command: str, path: str) -> tuple[str, str]:
    """Return the method ("LIST" for a list) and the key: the path below the S3 bucket, or a list's prefix."""
    place = urlsplit(path)
    query = parse_qs(place.query)
    if "list-type" in query:
        return "LIST", query.get("prefix", [""])[0]
    return command, unquote(place.path).lstrip("/").partition("/")[2]


def _without(ending: str, headers: list[tuple[str, str]], body: bytes) -> tuple[list[tuple[str, str]], bytes]:
    """Take the entry whose key ends like this out of a list."""
    entries = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
    for entry in entries:
        if ending.encode() + b"</Key>" in entry:
            body = body.replace(entry, b"").replace(
                b"<KeyCount>%d<" % len(entries), b"<KeyCount>%d<" % (len(entries) - 1)
            )
    sized = [(name, value) for name, value in headers if name.lower() != "content-length"]
    return [*sized, ("Content-Length", str(len(body)))], body


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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hung up is part of the game."""


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
