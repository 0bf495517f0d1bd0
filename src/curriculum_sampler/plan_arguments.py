"""The arguments that say which schedule is meant and what it meets, the same for every command that plans."""

from __future__ import annotations

import functools
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import curriculum_sampler as cs

from .errors import ArgumentError
from .location_arguments import add_split, add_storage, storage_options
from .picture_kind import picture_kind


class Asked(NamedTuple):
    """What was asked about; ``plan`` is None without sizes, ``manifest`` without ``--data``."""

    name: str
    schedule: cs.StageSchedule
    plan: cs.Plan | None
    manifest: cs.Manifest | None

    @property
    def title(self) -> str:
        """The schedule's name, without its folder."""
        return Path(self.name).stem

    @property
    def declared(self) -> cs.Plan | cs.StageSchedule:
        """The plan, where there is one."""
        return self.schedule if self.plan is None else self.plan


def add_schedule(parser: ArgumentParser, *names: str) -> None:
    """Add one or more schedules."""
    presets = ", ".join(cs.StageSchedule.presets())
    for name in names or ("schedule",):
        parser.add_argument(name, metavar=name.upper(), help=f"a TOML or JSON file, or a preset: {presets}")


def add_sizes(parser: ArgumentParser) -> None:
    """Add what the schedule meets: data or sizes, and a batch size."""
    met = parser.add_argument_group("what the schedule meets")
    where = met.add_mutually_exclusive_group()
    where.add_argument("--data", metavar="URL", help="a data set: a folder or s3://bucket/prefix")
    where.add_argument("--sizes", metavar="A=N,B=N", help="instead: samples in every bucket")
    met.add_argument(
        "--batch-size", type=int, metavar="N", help="global batch: of all GPUs and accumulations"
    )
    add_split(parser)
    add_storage(parser)


def add_plot(parser: ArgumentParser) -> None:
    """Add ``--plot``."""
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw it: .png, .svg, .pdf, or a page in .html"
    )


def plotter(arguments: Namespace) -> Callable[..., None] | None:
    """Return what draws, or None; a picture that cannot be is refused before the work begins."""
    if arguments.plot is None:
        return None
    picture_kind(arguments.plot)
    return functools.partial(cs.plot_plan, path=arguments.plot)


def asked(arguments: Namespace, *, needs_sizes: bool = False) -> Asked:
    """Return what the arguments ask about one schedule; see ``asked_about``."""
    return asked_about(arguments, [arguments.schedule], needs_sizes=needs_sizes)[0]


def asked_about(arguments: Namespace, names: Sequence[str], *, needs_sizes: bool = False) -> list[Asked]:
    """Return what the arguments ask about schedules that meet the same data.

    Raises:
        ArgumentError: A schedule, sizes or a batch size that cannot be; or none, where they are needed.
    """
    schedules = [load_schedule(name) for name in names]
    drawn = sorted({bucket for schedule in schedules for bucket in schedule.buckets})
    example = ",".join(f"{bucket}=1000" for bucket in drawn)
    given = arguments.data is not None or arguments.sizes is not None
    if given != (arguments.batch_size is not None) or (needs_sizes and not given):
        raise ArgumentError(
            "Draws follow from the sizes of the buckets and the global batch together. "
            f"Give --sizes {example} (or --data URL) and --batch-size 64."
        )
    if not given:
        return [Asked(name, declared, None, None) for name, declared in zip(names, schedules, strict=True)]
    manifest = None
    if arguments.data is not None:
        manifest = cs.Manifest.load(arguments.data, split=arguments.split, **storage_options(arguments))
        # The runs that a loader of these data takes.
        sizes, runs = manifest.bucket_sizes, manifest.run_sizes()
    else:
        named = {bucket for schedule in schedules for stage in schedule.stages for bucket in stage.mixture}
        sizes, runs = _parsed(arguments.sizes, named, example), {}
    return [
        Asked(name, declared, declared.plan(sizes, arguments.batch_size, run_sizes=runs), manifest)
        for name, declared in zip(names, schedules, strict=True)
    ]


def load_schedule(name: str) -> cs.StageSchedule:
    """Return a schedule by the name of a file or preset."""
    try:
        return cs.StageSchedule.load(name)
    except FileNotFoundError:
        presets = ", ".join(cs.StageSchedule.presets())
        raise ArgumentError(
            f"{name}: there is no such file. Correct the name, or take a preset: {presets}."
        ) from None
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{name}: this is no text in UTF-8 ({error.reason}). Name a schedule's file."
        ) from None


def _parsed(text: str, named: Set[str], example: str) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, is_pair, number = part.strip().rpartition("=")
        if not is_pair or not name or not number.replace("_", "").isdecimal() or name in sizes:
            raise ArgumentError(
                f"--sizes: got {part!r}, but it is NAME=SAMPLES for every bucket, once, with commas between. "
                f"Write for example --sizes {example}."
            )
        sizes[name] = int(number)
    for name in sizes:
        if name not in named:
            raise ArgumentError(
                f"--sizes names bucket {name!r}, but the schedule has {', '.join(sorted(named))}. Correct the name."
            )
    return sizes
