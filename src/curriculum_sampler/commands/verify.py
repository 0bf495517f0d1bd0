"""Check every byte of a data set against its indexes and digests.

Every fault is listed, and the exit code is 1 if there is one. Nothing is
changed. A verification that is interrupted goes on where it was when the same
command is run again; it remembers how each shard was found, with its ETag, in a
local file. With --fast only sizes are compared, and ETags with those of the
last whole verification, whose faults are told again.

Examples:
  curriculum-sampler verify data/v1
  curriculum-sampler verify s3://my-bucket/pictures/v1 --split train
  curriculum-sampler verify s3://my-bucket/pictures/v1 --fast --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import curriculum_sampler as cs

from ..location_arguments import add_data, storage_options
from ..state_folder import state_file
from ..terminal import Answer, Terminal, counted, readable_bytes

ON_INTERRUPT = "Interrupted. Run the same command again, and it goes on with the shards that are left."


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser, split=None)
    parser.add_argument("--fast", action="store_true", help="compare sizes and ETags only")
    parser.add_argument(
        "--restart", action="store_true", help="forget what an interrupted verification found"
    )
    parser.add_argument(
        "--record",
        metavar="FILE",
        type=Path,
        help="where shards are remembered (default: a file in XDG_STATE_HOME or ~/.local/state)",
    )


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    options = storage_options(arguments)
    url = cs.open_storage(arguments.data, **options).url
    record = arguments.record or state_file("verify", url)
    with terminal.progress("verify") as progress:
        found = cs.verify_dataset(
            arguments.data,
            split=arguments.split,
            fast=arguments.fast,
            record=record,
            restart=arguments.restart,
            progress=progress,
            **options,
        )
    how = "sizes and ETags compared" if found.is_fast else "every byte compared"
    size = f"{counted(found.shards, 'shard')}, {counted(found.samples, 'sample')}, {readable_bytes(found.num_bytes)}"
    lines = [f"{fault.split}/{fault.bucket}: {fault.message}" for fault in found.faults]
    if found.continued:
        lines.append(f"Continued: {counted(found.continued, 'shard')} had been verified before.")
    lines.append(
        terminal.bad(f"{counted(len(found.faults), 'fault')} in {found.url}: {size}, {how}.")
        if found.faults
        else terminal.good(f"{found.url} {'lacks nothing' if found.is_fast else 'is whole'}: {size}, {how}.")
    )
    told = {
        "url": found.url,
        "shards": found.shards,
        "samples": found.samples,
        "bytes": found.num_bytes,
        "continued": found.continued,
        "fast": found.is_fast,
        "faults": [fault._asdict() for fault in found.faults],
    }
    return Answer(told, "\n".join(lines), exit_code=1 if found.faults else 0)
