"""Which schedule a call trains: the whole curriculum, or its past plus the one stage that was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import curriculum_sampler as cs
from curriculum_sampler.plan import PlannedStage
from curriculum_sampler.state import SavedState


def schedule_of_run(
    declared: cs.StageSchedule,
    *,
    difficulty: str | None,
    total_steps: int | None,
    learning_rate: float | None,
    past: cs.Plan | None,
    steps_done: int,
    total_epochs: int | None = None,
) -> cs.StageSchedule | None:
    """Return the schedule to plan, or None where the stage asked for is finished already.

    Without ``difficulty`` it is the declared curriculum, all of it. With it, the stages begun so far keep their
    place and length, and the one named follows them up to ``total_steps`` of the whole run. A stage in progress
    that has another name ends where it stands: it converged early, and the user moves on.

    Args:
        declared: The curriculum file.
        difficulty: Name of a stage of it.
        total_steps: Cumulative end of the stage in steps; None takes the declared length from where it begins.
        learning_rate: The stage's rate; None takes the declared one.
        past: The plan that the checkpoint was made under.
        steps_done: Optimiser steps that the checkpoint has behind it.
        total_epochs: Cumulative end of the stage in epochs, instead of ``total_steps``.

    Raises:
        ArgumentError: An unknown stage; a rate without a stage; a stage that later ones have followed already.

    >>> declared = cs.StageSchedule([cs.Stage("easy", {"a": 1}, steps=10, lr=1e-5), cs.Stage("hard", {"b": 1}, steps=20)])
    >>> first = schedule_of_run(
    ...     declared, difficulty="easy", total_steps=10, learning_rate=None, past=None, steps_done=0)
    >>> [(stage.name, stage.steps) for stage in first.stages]
    [('easy', 10)]
    >>> second = schedule_of_run(
    ...     declared, difficulty="hard", total_steps=30, learning_rate=2e-6,
    ...     past=first.plan({"a": 9, "b": 9}, 3), steps_done=10)
    >>> [(stage.name, stage.steps, stage.lr) for stage in second.stages]
    [('easy', 10, 1e-05), ('hard', 20, 2e-06)]
    """
    if difficulty is None:
        if learning_rate is not None:
            raise cs.ArgumentError(
                f"--learning_rate {learning_rate} came without --difficulty, but rates belong to stages."
                " Name the stage, or set lr in the curriculum file."
            )
        return declared
    stage = _declared_stage(declared, difficulty)
    begun = [planned for planned in past.stages if planned.first_step < steps_done] if past else []
    names = [planned.stage.name for planned in begun]
    if total_steps is not None and total_steps <= steps_done:
        return None
    if total_epochs is not None and total_epochs <= _epochs_of(past, steps_done):
        return None
    if difficulty in names[:-1]:
        raise cs.ArgumentError(
            f"--difficulty {difficulty} --max_train_steps {total_steps}: the checkpoint is at step {steps_done},"
            f" already in stage {names[-1]!r}. Go on with that stage or a later one, or start a fresh --output_dir."
        )
    if begun and begun[-1].stage.name == difficulty:
        before, start = begun[:-1], begun[-1].first_step
    else:
        before, start = begun, steps_done
    told = stage.to_dict()
    if total_steps is not None:
        ramp = told.get("ramp")
        if ramp is not None and stage.unit != "steps":
            raise cs.ArgumentError(
                f"--max_train_steps {total_steps} sets stage {difficulty!r} in steps, but its ramp ({ramp}) is in"
                f" {stage.unit}. Give stage and ramp in steps in the curriculum file."
            )
        told.pop(stage.unit)
        told["steps"] = total_steps - start
    if total_epochs is not None:
        told.pop(stage.unit)
        told["epochs"] = total_epochs - sum(_whole_epochs(planned) for planned in before)
    if learning_rate is not None:
        told["lr"] = learning_rate
    if not before:
        told = {key: value for key, value in told.items() if key not in ("ramp", "ramp_lr")}
    kept = [_cut_at(planned, start) for planned in before]
    return cs.StageSchedule([*kept, cs.Stage.from_dict(told)], epoch_size=declared.epoch_size)


def plan_of_checkpoint(loader_state: Mapping[str, Any]) -> cs.Plan:
    """Return the plan that a loader's state was taken under, changes at run time included."""
    return SavedState.from_dict(loader_state).plan


def describe_plan(loader: cs.CurriculumLoader) -> str:
    """What ``--dry_run`` prints: the schedule, what it draws from which bucket, and the shapes of a batch it reads."""
    plan = loader.plan
    batch = next(iter(loader))
    shapes = {name: tuple(value.shape) for name, value in batch.items() if hasattr(value, "shape")}
    exposure = plan.exposure()
    return "\n".join(
        [
            repr(plan.schedule),
            f"steps {loader.step:,} to {plan.total_steps:,}, global batch {plan.batch_size}",
            repr(exposure),
            *(f"note: {warning}" for warning in exposure.warnings),
            f"first batch: {shapes}",
        ]
    )


def _epochs_of(past: cs.Plan | None, steps_done: int) -> float:
    """Epochs of the stages that are finished."""
    finished = [planned for planned in past.stages if planned.end_step <= steps_done] if past else []
    return sum(_whole_epochs(planned) for planned in finished)


def _whole_epochs(planned: PlannedStage) -> float:
    if planned.stage.epochs is None:
        raise cs.ArgumentError(
            f"--num_epochs counts epochs of the whole run, but stage {planned.stage.name!r} before it was trained for"
            f" {planned.stage.length} {planned.stage.unit}. Say --max_train_steps instead."
        )
    return planned.stage.epochs


def _declared_stage(declared: cs.StageSchedule, name: str) -> cs.Stage:
    for stage in declared.stages:
        if stage.name == name:
            return stage
    known = ", ".join(stage.name for stage in declared.stages)
    raise cs.ArgumentError(
        f"--difficulty {name} is no stage of this curriculum, which has: {known}."
        " Choose one of these, or add a [[stages]] table of that name to --curriculum_config."
    )


def _cut_at(planned: PlannedStage, end_step: int) -> cs.Stage:
    """The stage as it was, or cut short in steps where the next one begins before its end."""
    if end_step >= planned.end_step:
        return planned.stage
    told = planned.stage.to_dict()
    told.pop(planned.stage.unit)
    return cs.Stage.from_dict(told | {"steps": end_step - planned.first_step})
