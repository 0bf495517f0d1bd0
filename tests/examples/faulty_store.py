"""Stands in for ``examples/demo/store.py``: the same server, behind a proxy that damages answers by a seed.

``python faulty_store.py SEED COUNTS --endpoint_file FILE [--owner PID]``; what happened is written to COUNTS at the end.
"""

from __future__ import annotations

import json
import runpy
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.fault_mix import FaultMix
from tests.s3_server import fault_proxy

STORE = Path(__file__).parents[2] / "examples" / "demo" / "store.py"
# Faults that cost no timeout: the runs that read through here should not take much longer.
SHARES = {"status": 0.05, "hangup": 0.03, "reset": 0.04, "cut": 0.04, "flip": 0.03}


def serve_behind_proxy(seed: int, counts: Path, arguments: list[str]) -> None:
    """Run the store with its endpoint in another file, and tell of the proxy instead."""
    place = arguments.index("--endpoint_file") + 1
    told = Path(arguments[place])
    hidden = told.with_suffix(".behind")
    hidden.unlink(missing_ok=True)
    ended = threading.Event()

    def proxy() -> None:
        while not hidden.exists():
            time.sleep(0.05)
        with fault_proxy(hidden.read_text().strip()) as running:
            running.decide = FaultMix(seed, SHARES)
            told.write_text(f"{running.url}\n")
            ended.wait()
            counts.write_text(json.dumps(running.met))

    thread = threading.Thread(target=proxy)
    thread.start()
    sys.argv = [str(STORE), *arguments[:place], str(hidden), *arguments[place + 1 :]]
    try:
        runpy.run_path(str(STORE), run_name="__main__")
    finally:
        ended.set()
        thread.join()


if __name__ == "__main__":
    serve_behind_proxy(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
