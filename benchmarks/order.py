"""How fast, small and exact is the order of draws? Ours beside its peers, side by side in one run.

    python benchmarks/order.py                      # everything: some ten minutes on two cores
    python benchmarks/order.py --quick --only ours  # seconds

Every case runs in processes of its own, so that imports, caches and memory do not mix; numbers are medians over
such processes. Time is CPU time (``time.process_time`` plus that of child processes), so that a busy machine
disturbs little. Memory is the rise of the peak resident set (Linux) from just after the imports.

A whole run writes ``benchmarks/results/order.json``; ``--docs docs/benchmarks.md`` puts the tables between that page's markers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from marked_page import replace_between_markers
from order_peers import BATCH, PEERS, Peer, first
from order_tables import as_markdown

ROOT = Path(__file__).resolve().parents[1]
SIZES = (10**6, 10**8, 10**12)
WEIGHTS = {
    "25/25/50": (25, 25, 50),
    "30/70": (30, 70),
    "0.137/0.863": (0.137, 0.863),
    "0.37/0.29/0.17/0.113/0.057": (0.37, 0.29, 0.17, 0.113, 0.057),
}
TIMED_WEIGHTS = "25/25/50"
_WARM_UPS = 5


def main() -> None:
    arguments = _arguments()
    if arguments.case:
        kind, name, size = arguments.case
        peer = PEERS[name]
        measure = measure_speed if kind == "speed" else measure_mixture
        print(json.dumps(measure(peer, int(size), arguments)))
        return
    names = [name for name in PEERS if not arguments.only or name in arguments.only]
    load_before = os.getloadavg()
    report: dict[str, Any] = {"machine": machine(), "quick": arguments.quick, "speed": {}, "mixture": {}}
    for name in names:
        for size in SIZES:
            runs = [_run_case("speed", name, size, arguments) for _ in range(arguments.repeats)]
            report["speed"].setdefault(name, {})[f"{size:.0e}"] = _medians(runs)
            print(f"{name}, buckets of {size:.0e}: {report['speed'][name][f'{size:.0e}']}", file=sys.stderr)
        report["mixture"][name] = _run_case("mixture", name, SIZES[0], arguments)
    report["machine"] |= {"load_before": load_before, "load_after": os.getloadavg()}
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    tables = as_markdown(report)
    print(tables)
    if arguments.docs:
        replace_between_markers(arguments.docs, "order", tables)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one repeat and tiny counts, to see that it works"
    )
    parser.add_argument("--only", action="append", choices=PEERS, help="a peer to run; may be repeated")
    parser.add_argument("--repeats", type=int, help="processes to take medians over (3, or 1 with --quick)")
    parser.add_argument("--seconds", type=float, help="least CPU time of a speed measurement (1, or 0.05)")
    parser.add_argument(
        "--json", type=Path, help="file to write; a whole run writes benchmarks/results/order.json"
    )
    parser.add_argument(
        "--docs", type=Path, help="a page whose tables are to be replaced: docs/benchmarks.md"
    )
    parser.add_argument("--case", nargs=3, metavar=("KIND", "PEER", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not (arguments.json or arguments.quick or arguments.only):
        arguments.json = ROOT / "benchmarks" / "results" / "order.json"
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (0.05 if arguments.quick else 1.0)
    return arguments


def _run_case(kind: str, name: str, size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one case in a fresh process, single-threaded libraries included."""
    command = [sys.executable, str(Path(__file__)), "--case", kind, name, str(size)]
    command += ["--seconds", str(arguments.seconds), *(["--quick"] if arguments.quick else [])]
    ran = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True
    )
    told: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return told


def measure_speed(peer_type: type[Peer], size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure start-up, memory, resume and speed of one peer at one bucket size, in this order."""
    peer = peer_type(size, WEIGHTS[TIMED_WEIGHTS])
    found: dict[str, Any] = {
        "order": peer.order,
        "versions": {name: metadata.version(name) for name in peer.packages},
    }
    if (refusal := peer.refusal()) is not None:
        return found | {"refusal": refusal}
    rss = reset_peak_rss()
    found["start_ms"], batches = _milliseconds(peer.batches)
    first(batches, 200)
    found["memory_mb"] = (peak_rss() - rss) / 1e6
    if peer.largest_resume is not None and not (arguments.quick and peer.plans_ahead):
        draw = peer.largest_resume // BATCH * BATCH
        state = peer.saved(draw)
        found |= {"resume_draw": draw, "state_bytes": len(json.dumps(state, default=repr))}
        found["resume_ms"], batches = _milliseconds(lambda: peer.resumed(state))
        if peer.resume_is_checked:
            found["resume_is_exact"] = continues(peer, 0, 400) and continues(peer, draw, 100)
        if not peer.plans_ahead:
            again = [_milliseconds(lambda: peer.resumed(state))[0] for _ in range(_WARM_UPS)]
            found["resume_again_ms"] = median(again)
    if not peer.plans_ahead:
        found["start_again_ms"] = median(_milliseconds(peer.batches)[0] for _ in range(_WARM_UPS))
    found["draws_per_second"] = draws_per_second(peer, arguments)
    return found


def _milliseconds(make: Any) -> tuple[float, Any]:
    """Return the CPU milliseconds until the first batch is there, and what yields the others."""
    started = cpu_seconds()
    batches = make()
    next(batches)
    return 1000 * (cpu_seconds() - started), batches


def draws_per_second(peer: Peer, arguments: argparse.Namespace) -> float:
    """Iterate for the time asked, and at least one bucket's or epoch's plan where there is one; building it counts."""
    least = peer.size if peer.plans_ahead and not arguments.quick else BATCH
    started, num_draws, elapsed = cpu_seconds(), 0, 0.0
    batches = peer.batches()
    while elapsed < arguments.seconds or num_draws < least:
        for _ in range(50):
            next(batches)
        num_draws += 50 * BATCH
        elapsed = cpu_seconds() - started
    return num_draws / elapsed


def continues(peer: Peer, draw: int, num_batches: int) -> bool:
    """Say whether a run saved ``num_batches`` after ``draw`` goes on as the uninterrupted one does."""
    running = peer.batches() if draw == 0 else peer.resumed(peer.saved(draw))
    first(running, num_batches)
    expected = first(running, 3)
    resumed = first(peer.resumed(peer.saved(draw + num_batches * BATCH)), 3)
    return [list(map(tuple_of, batch)) for batch in expected] == [
        list(map(tuple_of, batch)) for batch in resumed
    ]


def tuple_of(draw: Any) -> Any:
    """Return a draw as plain Python values, whatever the peer yields."""
    return tuple(draw) if isinstance(draw, tuple) else int(draw)


def measure_mixture(peer_type: type[Peer], size: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure how far counts stray from their target, in draws, over a million draws, for each set of weights."""
    return {
        label: worst_deviations(peer_type(size, weights), 100 if arguments.quick else 3900)
        for label, weights in WEIGHTS.items()
    }


def worst_deviations(peer: Peer, num_batches: int) -> dict[str, float]:
    """Return the worst ``|count - target|`` of any bucket in a batch, in any 256 draws in a row, and in a prefix.

    Prefixes end at a batch's end. The target is the exact share of the weights as they were given.
    """
    import numpy as np

    ids = np.concatenate([np.asarray(batch) for batch in first(peer.labelled(), num_batches)])
    ids = ids[: len(ids) // BATCH * BATCH]
    worst = {"batch": 0.0, "any_256": 0.0, "prefix": 0.0}
    for bucket, weight in enumerate(peer.weights):
        share = weight / sum(peer.weights)
        gone = np.concatenate([[0], np.cumsum(ids == bucket)])
        ends = gone[::BATCH]
        for what, counts, target in (
            ("batch", np.diff(ends), share * BATCH),
            ("any_256", gone[BATCH:] - gone[:-BATCH], share * BATCH),
            ("prefix", ends, share * BATCH * np.arange(len(ends))),
        ):
            worst[what] = max(worst[what], float(np.abs(counts - target).max()))
    return worst


def cpu_seconds() -> float:
    """CPU time of this process, its threads, and its children that have ended."""
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def reset_peak_rss() -> int:
    """Forget the peak of the resident set and return its present size in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_rss() -> int:
    """Return the largest resident set, in bytes, since it was last forgotten."""
    return _status("VmHWM")


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}. Run this on Linux.")


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every measured number; what is not a measurement is equal in all runs."""
    joined = dict(runs[0])
    for key, value in runs[0].items():
        if isinstance(value, float):
            joined[key] = median(run[key] for run in runs)
        elif isinstance(value, bool):
            joined[key] = all(run[key] for run in runs)
    return joined


if __name__ == "__main__":
    main()
