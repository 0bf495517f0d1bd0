"""What a process and its workers cost: CPU seconds and memory, as Linux counts them."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """CPU time of this process and its threads, of its children that have ended, and of those that run."""
    times = os.times()
    ended = times.children_user + times.children_system
    return time.process_time() + ended + sum(_seconds_of(process) for process in descendants())


def descendants() -> Iterator[int]:
    """Yield the numbers of all processes below this one that still run."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and (fields := _stat(int(folder.name))):
            parents[int(folder.name)] = int(fields[1])
    for process in parents:
        above = parents[process]
        while above and above != os.getpid():
            above = parents.get(above, 0)
        if above:
            yield process


def private_bytes(process: int) -> int:
    """Memory that is this process's alone: what it adds to the one it was forked from."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def _seconds_of(process: int) -> float:
    # User and system time, its own and of its children that have ended.
    return sum(map(int, _stat(process)[11:15])) / _TICKS


def _stat(process: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` from the state on; none if the process has ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
