"""Serve S3 on a free local port until told to stop. Objects live in memory only.

    python store.py --endpoint_file endpoint.txt [--owner PID]

The endpoint's URL is written into the file once the server answers. The server ends on SIGTERM, and when the process
``--owner`` is gone, so that a shell that was killed leaves nothing behind.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
from pathlib import Path

from moto.server import ThreadedMotoServer


def main() -> None:
    """Start the server, say where, wait."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--endpoint_file", type=Path, required=True, help="where to write the server's URL")
    parser.add_argument("--owner", type=int, help="end when this process is gone")
    args = parser.parse_args()

    # Ctrl-C reaches the whole foreground group; the trainer still reads from here while it saves.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    unfinished = args.endpoint_file.with_suffix(".part")
    unfinished.write_text(f"http://{host}:{port}\n")
    os.replace(unfinished, args.endpoint_file)
    while not stopped.wait(1.0) and (args.owner is None or _is_alive(args.owner)):
        pass
    server.stop()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main()
