"""The run that ``streaming.py`` starts: which cases there are, each in a process of its own, and their report."""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from marked_page import replace_between_markers
from nginx import Server, serving
from streaming_cases import OVER_OBSTORE, READERS, measure
from streaming_data import BATCH, Data, data_set, warm
from streaming_peers import OURS, PEERS
from streaming_tables import as_markdown

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "streaming.py"
SECTIONS = ("local", "resume", "s3", "switch")
# Of the stage switch: requests that the loader makes at a time, and how much longer a step takes than its bytes on a
# wire that each of them has a part of.
READS_AT_A_TIME = 16
SLACK = 1.25
MEAN_SAMPLE_BYTES = 28 * 1024
WORKERS = 2
# A case that takes longer has failed; the slowest that works takes a minute or two.
CASE_SECONDS = 600

PREAD, READY, GET = (
    "ceiling: pread of each sample",
    "ceiling: ready bytes through DataLoader",
    "ceiling: boto3, a GET a shard",
)
IN_PROCESS, THREADS, PROCESSES, CACHE = OURS


def main(description: str) -> None:
    """Read the command line and run what it asks for."""
    # Being told to end must end the server and the case, too, as an interrupt does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    arguments = _arguments(description)
    data = data_set(arguments.data, small=arguments.small)
    if arguments.case:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        case = json.loads(arguments.case)
        found = (
            convert(case, data) if case["kind"] == "convert" else measure(case, data, Path(case["scratch"]))
        )
        Path(case["scratch"], "result.json").write_text(json.dumps(found))
        return
    data.make()
    load_before = os.getloadavg()
    report: dict[str, Any] = {
        "machine": machine(),
        "small": arguments.small,
        "repeats": arguments.repeat,
        "limit_rate": arguments.limit_rate,
    }
    run = Run(data, arguments)
    for section in arguments.only:
        report |= getattr(run, section)()
    report["machine"] |= {"load_before": load_before, "load_after": os.getloadavg()}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    tables = as_markdown(report)
    print(tables)
    if arguments.docs:
        replace_between_markers(arguments.docs, "streaming", tables)


def _arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder for the data, made at the first run (5 GB with peers' formats)",
    )
    parser.add_argument(
        "--only",
        type=_listed(SECTIONS),
        default=list(SECTIONS),
        help=f"parts to run, of {','.join(SECTIONS)}",
    )
    parser.add_argument(
        "--peers",
        type=_listed(_peer_words()),
        default=_peer_words(),
        help=f"peers to run, of {','.join(_peer_words())}; or none",
    )
    parser.add_argument("--repeat", type=int, help="processes to take medians over (3, or 1 with --small)")
    parser.add_argument(
        "--small",
        action="store_true",
        help="16 MB of data and one repeat, to see that it works; its times mean nothing",
    )
    parser.add_argument(
        "--json", type=Path, help="file to write; a whole run writes benchmarks/results/streaming.json"
    )
    parser.add_argument(
        "--docs", type=Path, help="page whose tables are to be replaced; a whole run takes docs/benchmarks.md"
    )
    parser.add_argument(
        "--limit-rate", type=int, default=4, help="MiB/s of each request to the throttled server (4)"
    )
    parser.add_argument("--case", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    is_whole = not arguments.small and arguments.only == list(SECTIONS) and arguments.peers == _peer_words()
    if is_whole:
        arguments.json = arguments.json or ROOT / "benchmarks" / "results" / "streaming.json"
        arguments.docs = arguments.docs or ROOT / "docs" / "benchmarks.md"
    arguments.repeat = arguments.repeat or (1 if arguments.small else 3)
    return arguments


def _peer_words() -> list[str]:
    """Return the packages that are compared with, whose names the rows begin with."""
    return [*dict.fromkeys(peer.packages[0] for peer in PEERS.values()), "obstore"]


def _listed(known: Any) -> Any:
    def words(text: str) -> list[str]:
        asked = [] if text == "none" else text.split(",")
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(known)}")
        return [word for word in known if word in asked]

    return words


class Run:
    """The cases of each part, and what they found: rows of the report's tables."""

    def __init__(self, data: Data, arguments: argparse.Namespace) -> None:
        self._data, self._arguments = data, arguments
        self._peers = [name for name, peer in PEERS.items() if peer.packages[0] in arguments.peers]
        self._converted: dict[str, str | None] = {}

    def local(self) -> dict[str, Any]:
        """One pass over a folder, in the process itself and through workers."""
        in_process = [(name, 0) for name in (PREAD, IN_PROCESS, *self._peers)]
        workers = [(name, WORKERS) for name in (READY, THREADS, PROCESSES, *self._peers)]
        return {
            "local": [self._passed(*row, None) for row in in_process],
            "workers": [self._passed(*row, None) for row in workers],
        }

    def s3(self) -> dict[str, Any]:
        """One pass from a server."""
        rows = [(GET, 0), (IN_PROCESS, 0), (THREADS, WORKERS), (PROCESSES, WORKERS), (CACHE, WORKERS)]
        if "obstore" in self._arguments.peers:
            rows.append((OVER_OBSTORE, 0))
        rows += [(name, workers) for name in self._peers for workers in (0, WORKERS)]
        with serving(self._data.root) as server:
            return {"s3": [self._passed(*row, server) for row in rows]}

    def resume(self) -> dict[str, Any]:
        """From a saved state to the first sample; ours also in larger manifests."""
        ours = [(IN_PROCESS, 0), (THREADS, WORKERS), (PROCESSES, WORKERS)]
        rows = [self._row("start", name, workers) for name, workers in ((PREAD, 0), (READY, WORKERS))]
        rows += [
            self._resumed(*row) for row in [*ours, *((name, n) for name in self._peers for n in (0, WORKERS))]
        ]
        sizes = (10**4, 10**5) if self._arguments.small else (10**5, 10**7, 10**9)
        large = [
            self._row("resume_large", name, workers, num_samples=size)
            for name, workers in ours
            for size in sizes
        ]
        return {"resume": rows, "resume_large": large}

    def switch(self) -> dict[str, Any]:
        """The wait of each step around a stage switch, from a server that holds every request back."""
        steps = 25 if self._arguments.small else 600
        wire = READS_AT_A_TIME * self._arguments.limit_rate * 2**20
        step_seconds = SLACK * BATCH * MEAN_SAMPLE_BYTES / wire
        with serving(self._data.root, limit_rate=f"{self._arguments.limit_rate}m") as server:
            rows = [
                self._row(
                    "switch", name, workers, endpoint=server.url, steps=steps, step_seconds=step_seconds
                )
                for name, workers in ((IN_PROCESS, 0), (THREADS, WORKERS), (PROCESSES, WORKERS))
            ]
        return {"switch": rows}

    def _passed(self, name: str, workers: int, server: Server | None) -> dict[str, Any]:
        endpoint = None if server is None else server.url
        row = self._row("pass", name, workers, server=server, endpoint=endpoint)
        if not READERS[name].is_ceiling and "refusal" not in row:
            row["content"] = self._case("content", name, workers, endpoint=endpoint)
        return row

    def _resumed(self, name: str, workers: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            file = str(Path(folder, "state"))
            saved = self._case("save", name, workers, file=file)
            if "refusal" in saved:
                return {"reader": name, "workers": workers} | saved
            return self._row("resume", name, workers, file=file) | saved

    def _row(
        self, kind: str, name: str, workers: int, server: Server | None = None, **further: Any
    ) -> dict[str, Any]:
        """Run a case as often as asked, and return the medians, or why there are none."""
        runs = []
        for _ in range(self._arguments.repeat):
            mark = 0 if server is None else server.mark()
            found = self._case(kind, name, workers, **further)
            if "refusal" in found:
                break
            if server is not None:
                requests, fetched = server.sent_since(mark)
                found |= {"requests": requests, "fetched_per_byte": fetched / found["bytes"]}
            runs.append(found)
        row = {"reader": name, "workers": workers} | (found if "refusal" in found else _medians(runs))
        print(f"{kind}: {_short(row)}", file=sys.stderr)
        return row

    def _case(
        self, kind: str, name: str, workers: int, endpoint: str | None = None, **further: Any
    ) -> dict[str, Any]:
        if name not in self._converted:
            told = self._process({"kind": "convert", "reader": name})
            self._converted[name] = told.get("refusal")
            if "folder" in told:
                warm(Path(told["folder"]))
        refusal = self._converted[name]
        if refusal is not None:
            return {"refusal": refusal}
        return self._process(
            {"kind": kind, "reader": name, "workers": workers, "endpoint": endpoint, **further}
        )

    def _process(self, case: dict[str, Any]) -> dict[str, Any]:
        """Run a case in a process; one that dies or does not end is a result, too."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
            case |= {"scratch": scratch, "started": time.monotonic()}
            command = [sys.executable, str(SCRIPT), "--data", str(self._arguments.data)]
            command += [*(["--small"] if self._arguments.small else []), "--case", json.dumps(case)]
            error_log = Path(scratch, "errors.txt")
            with error_log.open("w") as errors:
                process = subprocess.Popen(
                    command, stdout=errors, stderr=errors, env=_environment(), start_new_session=True
                )
                try:
                    process.wait(CASE_SECONDS)
                except subprocess.TimeoutExpired:
                    return {"refusal": f"no end within {CASE_SECONDS} s"}
                finally:
                    _end(process)
            result = Path(scratch, "result.json")
            if result.exists():
                found: dict[str, Any] = json.loads(result.read_text())
                return found
            lines = error_log.read_text(errors="replace").strip().splitlines()
            return {"refusal": f"ended with {process.returncode}: {lines[-1] if lines else 'no message'}"}


def convert(case: dict[str, Any], data: Data) -> dict[str, Any]:
    """Make a reader's own format, in a process of its own since it loads the reader's library."""
    try:
        return {"folder": str(READERS[case["reader"]].convert(data))}
    except Exception as error:
        return {"refusal": f"{type(error).__name__}: {' '.join(str(error).split())}"}


def _environment() -> dict[str, str]:
    # Clients would send requests to the loopback through a proxy, and take a user's profile into account.
    left_out = (
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "aws_profile",
        "aws_endpoint_url",
        "aws_endpoint_url_s3",
    )
    kept = {name: value for name, value in os.environ.items() if name.lower() not in left_out}
    return kept | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a case with all its workers: those of a case that failed may wait for ever."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every measured number; what is not a measurement is taken from the first run."""
    joined = dict(runs[0])
    for key, value in runs[0].items():
        if isinstance(value, bool):
            joined[key] = all(run[key] for run in runs)
        elif isinstance(value, int | float):
            joined[key] = median(run[key] for run in runs)
    return joined


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in ("waits_ms", "versions", "order")}
