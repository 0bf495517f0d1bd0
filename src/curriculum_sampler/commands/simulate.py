"""Draw a schedule with the real sampler, and show what it held beside the plan.

Windows of steps are counted: the share of each bucket, and how many draws it
was off at most. Then how many different samples were seen. Where a plan has
more than --most-draws draws, the first steps of every window are looked at.

Examples:
  curriculum-sampler simulate curriculum.toml --sizes easy=5000,hard=3000 --batch-size 64
  curriculum-sampler simulate curriculum.toml --data data/v1 --batch-size 64 --window-steps 500
  curriculum-sampler simulate curriculum.toml --data data/v1 --batch-size 64 --plot drawn.png --json
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence

import curriculum_sampler as cs

from ..plan_arguments import add_plot, add_schedule, add_sizes, asked, plotter
from ..readable import readable_share
from ..simulation import MOST_DRAWS
from ..stage_labels import shortened
from ..terminal import Answer, Terminal, counted, table

_WIDTH = 80
_LONGEST_NAME = 16


def add_arguments(parser: ArgumentParser) -> None:
    add_schedule(parser)
    add_sizes(parser)
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampler (default: 0)")
    parser.add_argument(
        "--window-steps",
        type=int,
        metavar="N",
        help="steps to count together (default: about a sixteenth of all)",
    )
    parser.add_argument(
        "--most-draws", type=int, default=MOST_DRAWS, metavar="N", help="to look at (default: %(default)s)"
    )
    add_plot(parser)


def run(arguments: Namespace, terminal: Terminal) -> Answer:
    plot = plotter(arguments)
    meant = asked(arguments, needs_sizes=True)
    assert meant.plan is not None
    found = cs.simulate(
        meant.plan, arguments.seed, window_steps=arguments.window_steps, most_draws=arguments.most_draws
    )
    plan, drawn = found.plan, sum(found.draws.values())
    heading = f"{meant.title}, seed {found.seed}: {counted(plan.total_steps, 'step')} of {plan.batch_size:,}"
    parts = [terminal.strong(heading), _windows(found), _buckets(found)]
    if not found.is_whole:
        parts.append(
            f"Looked at {drawn:,} of {plan.total_draws:,} draws: the first steps of every window. "
            f"All of them: --most-draws {plan.total_draws}."
        )
    verdict = _verdict(found)
    parts.append(terminal.good(verdict) if found.keeps_its_promise else terminal.bad(verdict))
    told = {
        "schedule": meant.schedule.to_dict(),
        "fingerprint": plan.fingerprint,
        "seed": found.seed,
        "whole": found.is_whole,
        "draws": found.draws,
        "distinct": found.distinct,
        "largest_in_window": found.largest,
        "largest_in_batch": found.largest_in_batch,
        "bound": plan.bound,
        "kept": found.keeps_its_promise,
        "windows": [
            {"stage": plan.at(int(window.start)).stage, **window._asdict(), "deviations": off}
            for window, off in zip(found.windows, found.deviations, strict=True)
        ],
    }
    if plot is not None:
        notes = "\n\n".join([_windows(found), _buckets(found), verdict])
        plot(plan, simulation=found, title=meant.title, notes=notes)
        told["plot"] = str(arguments.plot)
        parts.append(f"Picture: {arguments.plot}")
    return Answer(told, "\n\n".join(parts), 0 if found.keeps_its_promise else 1)


def _windows(found: cs.Simulation) -> str:
    """A line for each window: what was drawn of each bucket, where there is room for it."""
    names = list(found.draws)
    head = ["steps", "stage", *(shortened(name, _LONGEST_NAME) for name in names), "off by"]
    rows: list[Sequence[str]] = [head]
    for window, off in zip(found.windows, found.deviations, strict=True):
        shares = (
            f"{window.counts[name] / window.total:.2%}" if window.counts.get(name) else "-" for name in names
        )
        stage = shortened(found.plan.at(int(window.start)).stage, _LONGEST_NAME)
        furthest = max(map(abs, off.values()))
        rows.append([f"{window.start:,} to {window.end:,}", stage, *shares, f"{furthest:.2f} draws"])
    told = table(rows, numbers=range(2, len(head)))
    if max(map(len, told.splitlines())) > _WIDTH:
        told = table([[*row[:2], row[-1]] for row in rows], numbers=[2])
    return told


def _buckets(found: cs.Simulation) -> str:
    rows: list[Sequence[str]] = [("bucket", "samples", "draws", "passes", "different samples seen")]
    for name, draws in found.draws.items():
        size = found.plan.bucket_sizes[name]
        seen = "not counted"
        if found.distinct is not None:
            seen = f"{found.distinct[name]:,} ({readable_share(found.distinct[name] / size)})"
        rows.append((shortened(name, _LONGEST_NAME), f"{size:,}", f"{draws:,}", f"{draws / size:,.1f}", seen))
    return table(rows, numbers=range(1, 5))


def _verdict(found: cs.Simulation) -> str:
    in_batch = ""
    if found.largest_in_batch is not None:
        in_batch = f", {found.largest_in_batch:.2f} in a single batch"
    promised = f"less than {found.plan.bound}" if found.plan.bound else "none"
    kept = "Kept" if found.keeps_its_promise else "NOT kept: please report this"
    return (
        f"Off the plan by at most {found.largest:.2f} draws in a window{in_batch}.\n"
        f"Promised: {promised}. {kept}."
    )
