"""How fast does a folder become shards? Ours beside webdataset's ShardWriter and litdata's optimize, in one run.

    python benchmarks/build.py --data /tmp/build                         # everything; see benchmarks/README.md
    python benchmarks/build.py --data /tmp/build --small --peers none    # seconds, to see that it works

The folder, made at the first run, holds pictures of 24 to 32 KiB of random bytes, each with a json that tells its
difficulty, and a table of the same difficulties. Every case runs in a process of its own, with the folder in the page
cache, and is timed from after the imports until the bytes are on the disk (``sync``). Numbers are medians. CPU time is
that of the process and those it starts; memory is the peak of the process plus that of its largest child.

A whole run writes ``benchmarks/results/build.json`` and puts the table between the markers of ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from machine import machine
from marked_page import replace_between_markers
from process_cost import cpu_seconds

ROOT = Path(__file__).resolve().parents[1]
SHARD_BYTES = 64 << 20
SHARES = {"easy": 0.4, "medium": 0.35, "hard": 0.25}


def make(folder: Path, count: int) -> None:
    """Make the folder, unless it is there."""
    if (folder / "whole").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    source = random.Random(17)
    with open(folder / "scores.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["key", "difficulty"])
        for number in range(count):
            key, difficulty = f"{number:06}", source.random()
            (folder / "files" / f"{key}.jpg").write_bytes(
                source.randbytes(source.randint(24 << 10, 32 << 10))
            )
            (folder / "files" / f"{key}.json").write_text(json.dumps({"difficulty": difficulty}))
            table.writerow([key, difficulty])
    (folder / "whole").touch()


def copy(data: Path, out: Path) -> int:
    """What the system calls alone cost: read every file, write as many bytes in as many files."""
    out.mkdir()
    names = sorted(os.listdir(data / "files"))
    piece, number = bytearray(), 0
    for place, name in enumerate(names, 1):
        piece += (data / "files" / name).read_bytes()
        if len(piece) >= SHARD_BYTES or place == len(names):
            (out / f"{number}").write_bytes(piece)
            piece, number = bytearray(), number + 1
    return len(names) // 2


def ours(score: str, processes: int) -> Callable[[Path, Path], int]:
    from curriculum_sampler import build_dataset

    def run(data: Path, out: Path) -> int:
        report = build_dataset(
            data / "files",
            out,
            score=score.format(data=data),
            shares=SHARES,
            max_shard_bytes=SHARD_BYTES,
            processes=processes,
            work_dir=out.parent / "work",
        )
        return sum(report.bucket_sizes["train"].values())

    return run


def _samples(data: Path, keys: list[str]) -> Iterator[dict[str, Any]]:
    for key in keys:
        stem = str(data / "files" / key)
        with open(f"{stem}.jpg", "rb") as picture, open(f"{stem}.json", "rb") as told:
            yield {"__key__": key, "jpg": picture.read(), "json": told.read()}


def _by_hand(data: Path) -> dict[str, list[str]]:
    """Cut and shuffle as one would by hand."""
    with open(data / "scores.csv", newline="") as file:
        scores = sorted((float(row["difficulty"]), row["key"]) for row in csv.DictReader(file))
    found, first, done = {}, 0, 0.0
    for bucket, share in SHARES.items():
        done += share
        stop = round(done * len(scores))
        keys = [key for _, key in scores[first:stop]]
        random.Random(17).shuffle(keys)
        found[bucket], first = keys, stop
    return found


def shard_writer() -> Callable[[Path, Path], int]:
    import webdataset

    def run(data: Path, out: Path) -> int:
        count = 0
        for bucket, keys in _by_hand(data).items():
            (out / bucket).mkdir(parents=True)
            pattern = str(out / bucket / f"{bucket}-%06d.tar")
            with webdataset.ShardWriter(pattern, maxcount=10**9, maxsize=SHARD_BYTES, verbose=0) as writer:
                for sample in _samples(data, keys):
                    writer.write(sample)
                    count += 1
        return count

    return run


def _litdata_sample(stem: str) -> dict[str, bytes]:
    with open(f"{stem}.jpg", "rb") as picture, open(f"{stem}.json", "rb") as told:
        return {"jpg": picture.read(), "json": told.read()}


def litdata(workers: int) -> Callable[[Path, Path], int]:
    from litdata import optimize

    def run(data: Path, out: Path) -> int:
        for bucket, keys in _by_hand(data).items():
            optimize(
                fn=_litdata_sample,
                inputs=[str(data / "files" / key) for key in keys],
                output_dir=str(out / bucket),
                num_workers=workers,
                chunk_bytes=SHARD_BYTES,
                start_method="spawn",
                verbose=False,
            )
        told = [json.loads((out / bucket / "index.json").read_text()) for bucket in SHARES]
        return sum(chunk["chunk_size"] for index in told for chunk in index["chunks"])

    return run


CASES: dict[str, tuple[str, Callable[[], Callable[[Path, Path], int]]]] = {
    "ceiling: files read, as many bytes written": ("", lambda: copy),
    "ours, cut by a table": ("ours", lambda: ours("{data}/scores.csv:difficulty", 1)),
    "ours, cut by a table, 2 processes": ("ours", lambda: ours("{data}/scores.csv:difficulty", 2)),
    "ours, cut by a field of the json": ("ours", lambda: ours("json:difficulty", 1)),
    "ours, cut by a field of the json, 2 processes": ("ours", lambda: ours("json:difficulty", 2)),
    "webdataset ShardWriter": ("webdataset", shard_writer),
    "litdata optimize (its format), 1 worker": ("litdata", lambda: litdata(1)),
    "litdata optimize (its format), 2 workers": ("litdata", lambda: litdata(2)),
}


def measure(name: str, data: Path, out: Path) -> dict[str, float]:
    """Run one case in this process."""
    run = CASES[name][1]()
    for file in (data / "files").iterdir():
        file.read_bytes()
    os.sync()
    begun, used = time.perf_counter(), cpu_seconds()
    samples = run(data, out)
    used = cpu_seconds() - used
    os.sync()
    seconds = time.perf_counter() - begun
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "cpu_seconds": used, "peak_mb": peak / 1e3, "samples": samples}


def measured(name: str, arguments: argparse.Namespace, num_bytes: int, count: int) -> dict[str, Any]:
    """Run a case several times, each in a process of its own, and return medians."""
    found = []
    for _ in range(arguments.repeat):
        with tempfile.TemporaryDirectory(dir=arguments.data, prefix="out-") as scratch:
            command = [sys.executable, __file__, "--data", str(arguments.data), "--case", name]
            command += ["--out", f"{scratch}/out", *(["--small"] if arguments.small else [])]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
            result = Path(scratch, "result.json")
            if ran.returncode or not result.exists():
                return {
                    "case": name,
                    "refusal": (ran.stderr.strip().splitlines() or ["it wrote nothing"])[-1],
                }
            found.append(json.loads(result.read_text()))
    middle = {what: median(one[what] for one in found) for what in found[0]}
    return {
        "case": name,
        "mb_per_second": num_bytes / middle["seconds"] / 1e6,
        "cpu_seconds_per_gb": middle["cpu_seconds"] / num_bytes * 1e9,
        "peak_mb": middle["peak_mb"],
        "whole": all(one["samples"] == count for one in found),
        "runs": found,
    }


def as_markdown(report: dict[str, Any]) -> str:
    machine, rows = report["machine"], report["rows"]
    lines = [
        f"{machine['cpu']}, {machine['cores']} cores (load average {machine['load_before'][0]:.1f} before, "
        f"{machine['load_after'][0]:.1f} after), Python {machine['python']}; "
        + ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
        + f". {report['samples']:,} samples, {report['num_bytes'] / 1e6:,.0f} MB, medians of {report['repeats']}.",
        "",
    ]
    if report["small"]:
        lines += ["**A small run, to see that it works: its times mean nothing.**", ""]
    lines += ["| | MB/s | CPU s/GB | peak MB | every sample |", "|---|---|---|---|---|"]
    for row in rows:
        if "refusal" in row:
            lines.append(f"| {row['case']} | n/a ({row['refusal'].replace('|', '/')[:160]}) | | | |")
            continue
        lines.append(
            f"| {row['case']} | {row['mb_per_second']:,.0f} | {row['cpu_seconds_per_gb']:.2f} | "
            f"{row['peak_mb']:,.0f} | {'yes' if row['whole'] else '**no**'} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder for the data (2 GB)")
    parser.add_argument("--peers", default="webdataset,litdata", help="webdataset,litdata, or none")
    parser.add_argument("--repeat", type=int, help="processes to take medians over (3, or 1 with --small)")
    parser.add_argument("--small", action="store_true", help="200 samples and one repeat; times mean nothing")
    parser.add_argument("--json", type=Path, help="file to write")
    parser.add_argument("--docs", type=Path, help="page whose table is to be replaced")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    count = 200 if arguments.small else 16_000
    data = arguments.data / ("small" if arguments.small else "full")
    if arguments.case:
        found = measure(arguments.case, data, arguments.out)
        (arguments.out.parent / "result.json").write_text(json.dumps(found))
        return
    make(data, count)
    if not arguments.small and arguments.peers == "webdataset,litdata":
        arguments.json = arguments.json or ROOT / "benchmarks" / "results" / "build.json"
        arguments.docs = arguments.docs or ROOT / "docs" / "benchmarks.md"
    arguments.repeat = arguments.repeat or (1 if arguments.small else 3)
    num_bytes = sum(file.stat().st_size for file in (data / "files").iterdir())
    before = os.getloadavg()
    peers = {"", "ours", *arguments.peers.split(",")}
    rows = [measured(name, arguments, num_bytes, count) for name, (peer, _) in CASES.items() if peer in peers]
    packages = ["curriculum-sampler", *(name for name in ("litdata", "webdataset") if name in peers)]
    report = {
        "machine": {
            **machine(),
            "load_before": before,
            "load_after": os.getloadavg(),
            "versions": {name: version(name) for name in packages},
        },
        "small": arguments.small,
        "repeats": arguments.repeat,
        "samples": count,
        "num_bytes": num_bytes,
        "rows": rows,
    }
    table = as_markdown(report)
    print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.docs:
        replace_between_markers(arguments.docs, "build", table)


if __name__ == "__main__":
    main()
