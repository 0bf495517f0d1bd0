"""Show samples: by key, by bucket and index, or all of one step of a run.

A step is that of a curriculum: give its schedule, batch size and seed, or the
state that a run saved as JSON (what loader.state_dict() returned), which knows
these and the changes made on the way. Looking a sample up by key reads the
names of all samples before it.

Examples:
  curriculum-sampler cat data/v1 easy:7
  curriculum-sampler cat data/v1 --key 000017 --output look/
  curriculum-sampler cat data/v1 easy:7 --member json
  curriculum-sampler cat data/v1 --step 120 --schedule curriculum.toml --batch-size 64 --seed 17
  curriculum-sampler cat s3://my-bucket/pictures/v1 --step 120 --state state.json --output look/
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import curriculum_sampler as cs

from ..errors import ArgumentError
from ..location_arguments import add_data, storage_options
from ..state import SavedState
from ..terminal import Answer, Terminal, readable_bytes

# Text of at most this length is shown, the rest is counted.
_MOST_SHOWN = 300


def add_arguments(parser: ArgumentParser) -> None:
    add_data(parser)
    parser.add_argument("places", nargs="*", metavar="BUCKET:INDEX", help="samples by place, such as easy:7")
    parser.add_argument(
        "--key", action="append", default=[], help="a sample by its key; may be given more than once"
    )
    parser.add_argument("--step", type=int, metavar="N", help="the global batch of this step")
    parser.add_argument("--schedule", metavar="FILE", help="the curriculum, .toml or .json")
    parser.add_argument("--batch-size", type=int, metavar="N", help="global batch size of the run")
    parser.add_argument("--seed", type=int, metavar="N", help="seed of the run")
    parser.add_argument("--state", metavar="FILE", help="a saved state (JSON), instead of these three")
    parser.add_argument("--member", metavar="EXT", help="write this member of one sample to standard output")
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="write every member as a file")


def run(arguments: Namespace, terminal: Terminal) -> Answer | None:
    manifest = cs.Manifest.load(arguments.data, split=arguments.split, **storage_options(arguments))
    draws = _draws(arguments, manifest)
    samples = cs.CurriculumDataset(manifest, decode=None, on_bad_sample="raise").__getitems__(draws)
    if arguments.member is not None:
        _write_out(samples, arguments.member)
        return None
    told = [_told(sample) for sample in samples]
    text = "\n".join(_text(one, terminal) for one in told)
    if arguments.output is not None:
        files = _extract(samples, arguments.output)
        text += f"\n{files} files written to {arguments.output}."
    return Answer({"samples": told}, text)


def _draws(arguments: Namespace, manifest: cs.Manifest) -> list[cs.Draw]:
    ways = [bool(arguments.places), bool(arguments.key), arguments.step is not None]
    if sum(ways) != 1:
        raise ArgumentError(
            "Say which samples: BUCKET:INDEX, --key KEY or --step N (one of these three). See 'cat --help'."
        )
    if arguments.step is not None:
        return list(_sampler(arguments, manifest).draws(arguments.step))
    if arguments.key:
        return [cs.find_sample(manifest, key) for key in arguments.key]
    return [_place(text) for text in arguments.places]


def _place(text: str) -> cs.Draw:
    bucket, _, index = text.rpartition(":")
    if not bucket or not index.isascii() or not index.isdecimal():
        raise ArgumentError(
            f"Got {text!r}, but a place is a bucket and a number, such as easy:7. Correct it."
        )
    return cs.Draw(bucket, int(index))


def _sampler(arguments: Namespace, manifest: cs.Manifest) -> cs.MixtureSampler:
    """Return the sampler of the run that is meant, with the run sizes that a ``CurriculumLoader`` takes."""
    if arguments.state is not None:
        return _resumed(arguments.state, manifest)
    if None in (arguments.schedule, arguments.batch_size, arguments.seed):
        raise ArgumentError(
            "--step needs --schedule, --batch-size and --seed, or --state FILE, which knows all three. Give them too."
        )
    plan = cs.StageSchedule.load(arguments.schedule).plan(
        manifest.bucket_sizes, arguments.batch_size, run_sizes=manifest.run_sizes()
    )
    return cs.MixtureSampler(plan, arguments.seed)


def _resumed(path: str, manifest: cs.Manifest) -> cs.MixtureSampler:
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArgumentError(f"{path} is not JSON ({error}). Save json.dumps(loader.state_dict()).") from error
    saved = SavedState.from_dict(told)
    saved.refuse_other_data(manifest.bucket_fingerprints)
    return cs.MixtureSampler(saved.plan, saved.seed)


def _told(sample: dict[str, Any]) -> dict[str, Any]:
    members = {name: content for name, content in sample.items() if not name.startswith("__")}
    return {
        "key": sample["__key__"],
        "bucket": sample["__bucket__"],
        "index": sample["__index__"],
        "members": {name: len(content) for name, content in members.items()},
        "texts": {name: shown for name, content in members.items() if (shown := _shown(name, content))},
    }


def _shown(name: str, content: bytes) -> str | None:
    """Return what a member of text says, shortened; None for anything else."""
    if name.rpartition(".")[2] not in ("json", "txt", "cls"):
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    if not all(char.isprintable() or char in "\n\t" for char in text):  # it could drive the terminal
        return None
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


def _text(told: dict[str, Any], terminal: Terminal) -> str:
    lines = [terminal.strong(f"{told['bucket']}:{told['index']}  {told['key']!r}")]
    for name, num_bytes in told["members"].items():
        shown = told["texts"].get(name)
        lines.append(f"  {name:12} {readable_bytes(num_bytes):>10}" + (f"  {shown}" if shown else ""))
    return "\n".join(lines)


def _write_out(samples: list[dict[str, Any]], member: str) -> None:
    if len(samples) != 1:
        raise ArgumentError(f"--member writes one sample, but {len(samples)} were asked for. Ask for one.")
    content = samples[0].get(member)
    if not isinstance(content, bytes):
        have = ", ".join(name for name in samples[0] if not name.startswith("__"))
        raise ArgumentError(f"Sample {samples[0]['__key__']!r} has no member {member!r}. It has: {have}.")
    sys.stdout.flush()
    sys.stdout.buffer.write(content)


def _extract(samples: list[dict[str, Any]], folder: Path) -> int:
    files = 0
    for sample in samples:
        # A key may hold folders, and a tar of unknown origin may name any path: only the last part is taken.
        stem = f"{sample['__bucket__']}-{sample['__index__']:06}-{sample['__key__'].rpartition('/')[2]}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in sample.items():
            if not name.startswith("__"):
                (folder / f"{stem}.{name.replace('/', '_')}").write_bytes(content)
                files += 1
    return files
