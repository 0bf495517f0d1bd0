"""A static file server on the loopback: each folder below its root is an S3 bucket that anyone may read.

It answers GET and HEAD with ranges, ETags and If-Match, cannot list, and checks no signature. What it sent is counted
from its own log, so that no client has to be believed.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CONFIGURATION = """
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 512; }}
http {{
    log_format counted '$request_method $status $body_bytes_sent';
    access_log {folder}/access.log counted;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    server {{
        listen 127.0.0.1:{port};
        root {root};
        {limit}
    }}
}}
"""
_START_SECONDS = 10
_LOG_SECONDS = 0.2


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    log: Path

    def mark(self) -> int:
        """Return where the log ends now, for ``sent_since``."""
        return self.log.stat().st_size

    def sent_since(self, mark: int) -> tuple[int, int]:
        """Return how many requests ended since, and how many bytes of bodies went out, cut ones included."""
        time.sleep(_LOG_SECONDS)  # a client that has just gone is noticed and logged a little later
        with self.log.open() as log:
            log.seek(mark)
            sent = [int(line.split()[2]) for line in log]
        return len(sent), sum(sent)


@contextmanager
def serving(root: Path, *, limit_rate: str | None = None) -> Iterator[Server]:
    """Serve a folder until the block ends; ``limit_rate`` (such as ``"4m"``) holds for each request's body.

    Raises:
        OSError: nginx is not installed, or did not start.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise OSError("nginx is not installed. On Debian or Ubuntu: apt-get install nginx-light.")
    with tempfile.TemporaryDirectory(prefix="nginx-") as name:
        folder, port = Path(name), _free_port()
        (folder / "access.log").touch()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                folder=folder,
                port=port,
                root=root.resolve(),
                # As root it would drop to a user who may not look into the data folder.
                user="user root;" if os.geteuid() == 0 else "",
                limit="" if limit_rate is None else f"limit_rate {limit_rate};",
            )
        )
        command = [program, "-p", str(folder), "-c", str(configuration), "-e", str(folder / "error.log")]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            _wait_until_open(process, port, folder / "error.log")
            yield Server(f"http://127.0.0.1:{port}", folder / "access.log")
        finally:
            process.terminate()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_open(process: subprocess.Popen[bytes], port: int, error_log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    told = error_log.read_text() if error_log.exists() else "it wrote no log"
    raise OSError(f"nginx did not listen on port {port} within {_START_SECONDS} s: {told}")
