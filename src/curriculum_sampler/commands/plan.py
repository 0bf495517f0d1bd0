"""Show what a schedule will do, before it costs anything.

Stages with their steps and learning rates, how often each bucket is passed
over, what is to be read, and which share of the learning-rate mass (the sum of
learning rate x mixture) each bucket sees; and what to mind, in plain words.
Without sizes and a batch size, in the schedule's own units.

Examples:
  curriculum-sampler plan curriculum.toml --data s3://my-bucket/pictures/v1 --batch-size 64
  curriculum-sampler plan curriculum.toml --sizes easy=5000,hard=3000 --batch-size 64 --plot plan.html
  curriculum-sampler plan curriculum.toml --data data/v1 --batch-size 256 --nodes 4 --seconds-per-step 0.8
  curriculum-sampler plan curriculum.toml --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from typing import Any

import curriculum_sampler as cs

from ..checks import finite
from ..errors import ArgumentError
from ..outlook import Outlook, outlook_of_plan, outlook_of_schedule
from ..outlook_text import exposure_table, outlook_notes, stage_table
from ..plan_arguments import Asked, add_plot, add_schedule, add_sizes, asked, plotter
from ..terminal import Answer, Terminal, counted
from ..timeline_chart import timeline_chart

_MOST_WARNINGS = 12


def add_arguments(parser: ArgumentParser) -> None:
    add_schedule(parser)
    add_sizes(parser)
    parser.add_argument("--nodes", type=int, metavar="N", help="machines that fetch the data")
    parser.add_argument(
        "--seconds-per-step", type=float, metavar="S", help="of one optimiser step, as measured"
    )
    add_plot(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    plot = plotter(arguments)
    meant = asked(arguments)
    outlook = _outlook(meant, arguments)
    parts = [terminal.strong(_heading(meant))]
    if outlook.timeline is not None:
        parts.append(timeline_chart(outlook.timeline, in_colour=terminal.has_colours))
    parts += [stage_table(outlook), exposure_table(outlook)]
    parts.append("\n".join(outlook_notes(outlook)))
    parts.append("\n".join(_warnings(outlook, terminal)))
    told: dict[str, Any] = {
        "schedule": meant.schedule.to_dict(),
        "plan": _told(meant.plan),
        **outlook.to_dict(),
    }
    if plot is not None:
        notes = [stage_table(outlook), exposure_table(outlook), *outlook_notes(outlook), *outlook.warnings]
        plot(meant.declared, title=meant.title, notes="\n\n".join(notes))
        told["plot"] = str(arguments.plot)
        parts.append(f"Picture: {arguments.plot}")
    return Answer(told, "\n\n".join(part for part in parts if part))


def _outlook(meant: Asked, arguments: Namespace) -> Outlook:
    seconds = None if arguments.seconds_per_step is None else finite(arguments.seconds_per_step)
    if arguments.seconds_per_step is not None and (seconds or 0) <= 0:
        raise ArgumentError(
            f"--seconds-per-step: got {arguments.seconds_per_step}, but it is above 0. Correct it."
        )
    if arguments.nodes is not None and arguments.nodes < 1:
        raise ArgumentError(f"--nodes: got {arguments.nodes}, but it is 1 or more. Correct it.")
    if meant.plan is not None:
        return outlook_of_plan(
            meant.plan, manifest=meant.manifest, nodes=arguments.nodes or 1, seconds_per_step=seconds
        )
    if arguments.nodes is not None or seconds is not None:
        raise ArgumentError(
            "--nodes and --seconds-per-step need steps. Give --sizes or --data, and --batch-size."
        )
    return outlook_of_schedule(meant.schedule)


def _warnings(outlook: Outlook, terminal: Terminal) -> Iterator[str]:
    for warning in outlook.warnings[:_MOST_WARNINGS]:
        yield f"{terminal.bad('warning:')} {warning}"
    if len(outlook.warnings) > _MOST_WARNINGS:
        yield f"and {len(outlook.warnings) - _MOST_WARNINGS} more warnings; --json has all"


def _heading(meant: Asked) -> str:
    stages = counted(len(meant.schedule.stages), "stage")
    if meant.plan is None:
        return f"{meant.title}: {stages}"
    plan = meant.plan
    samples = sum(plan.bucket_sizes.values())
    return (
        f"{meant.title}: {stages}, {counted(plan.total_steps, 'step')} of {plan.batch_size:,}, "
        f"{counted(samples, 'sample')}"
    )


def _told(plan: cs.Plan | None) -> dict[str, Any] | None:
    if plan is None:
        return None
    return {
        "fingerprint": plan.fingerprint,
        "batch_size": plan.batch_size,
        "total_steps": plan.total_steps,
        "total_draws": plan.total_draws,
        "boundaries": list(plan.boundaries),
        "bucket_sizes": plan.bucket_sizes,
        "run_sizes": plan.run_sizes,
        "bound": plan.bound,
    }
