"""The plan's learning rate as a torch scheduler: a function of the step, and so right after any resume."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from .checks import whole
from .errors import ArgumentError, StateMismatchError
from .extras import missing
from .plan import Plan

try:
    from torch import Tensor
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler
except ImportError as error:
    raise missing("torch", "torch") from error


class _HasPlan(Protocol):
    @property
    def plan(self) -> Plan: ...


class CurriculumLR(LRScheduler):
    """Gives an optimiser the learning rate that the plan has at each global step.

    Call ``step`` after each update, as with any scheduler of torch: the update of global step ``s`` then has
    ``plan.at(s).lr``, ramps included, and a boundary step that of the stage which begins there. After the last update
    the last rate stays. The rate is set again as an update begins, so that a change at run time
    (``loader.advance``) and a checkpoint loaded in any order take effect on the very next one.

    The first parameter group has the plan's rate. Every other group keeps the ratio to the first that it had when it was
    given to the optimiser: groups made with 1e-3 and 1e-4 are trained at the plan's rate and a tenth of it.

    Args:
        optimizer: The optimiser whose groups are set.
        plan: A plan, or what has one and may change it: a loader, a sampler, ``mix_streams``.
        last_epoch: Updates done, less one, as torch has it; -1 begins. Prefer ``load_state_dict``.

    Raises:
        ArgumentError: A stage without ``lr``; or a first group at rate 0 beside others that are not.

    >>> import torch
    >>> from curriculum_sampler import Stage, StageSchedule
    >>> schedule = StageSchedule([Stage("easy", {"a": 1}, steps=2, lr=0.1), Stage("hard", {"a": 1}, steps=1, lr=0.01)])
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> scheduler = CurriculumLR(optimizer, schedule.plan({"a": 9}, batch_size=3))
    >>> for step in range(3):
    ...     optimizer.step()
    ...     print(step, scheduler.get_last_lr())
    ...     scheduler.step()
    0 [0.1]
    1 [0.1]
    2 [0.01]
    """

    def __init__(self, optimizer: Optimizer, plan: Plan | _HasPlan, last_epoch: int = -1) -> None:
        self._source = plan
        if not isinstance(getattr(plan, "plan", plan), Plan):
            raise ArgumentError(
                f"plan: got {plan!r}, but the rates come from a plan, or from a loader or sampler that has one. "
                "Pass schedule.plan(...) or the loader."
            )
        # Accelerate's wrapper has no hooks; it calls those of the optimiser in it.
        inner = getattr(optimizer, "optimizer", optimizer)
        optimizer = inner if isinstance(inner, Optimizer) else optimizer
        super().__init__(optimizer, last_epoch)
        me = weakref.ref(self)

        def set_rates(*_: Any) -> None:
            scheduler = me()
            if scheduler is not None:
                scheduler._set_rates()

        optimizer.register_step_pre_hook(set_rates)

    @property
    def plan(self) -> Plan:
        """The plan in force, changes at run time included."""
        found = getattr(self._source, "plan", self._source)
        assert isinstance(found, Plan)
        return found

    def get_lr(self) -> list[float | Tensor]:
        """Return each group's rate at global step ``last_epoch``, without setting it."""
        plan = self.plan
        bare = [planned.stage.name for planned in plan.stages if planned.stage.lr is None]
        if bare:
            raise ArgumentError(
                f"Stage {bare[0]!r} has no lr, so its learning rate is unknown. Give every stage an lr, or use another "
                "scheduler."
            )
        rate = plan.at(min(self.last_epoch, plan.total_steps - 1)).lr
        assert rate is not None
        first = float(self.base_lrs[0])
        if first == 0 and any(float(base) for base in self.base_lrs):
            raise ArgumentError(
                "The first parameter group was made with lr=0, so no other can be in proportion to it. Give it a rate above 0."
            )
        # Not rate / first * base: the plan's rate is meant to the last bit.
        return [rate if float(base) == first else rate * (float(base) / first) for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """Return the updates done: the plan is the checkpoint's own matter, base rates are the optimiser's."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue at the step of ``state_dict``, and set its rate.

        Raises:
            StateMismatchError: Not a state of this scheduler.
        """
        if not isinstance(state_dict, Mapping) or "last_epoch" not in state_dict:
            raise StateMismatchError(
                f"Not a state of CurriculumLR: {state_dict!r}. Pass what state_dict() returned."
            )
        self.last_epoch = whole("last_epoch", state_dict["last_epoch"], least=0)
        self._step_count = state_dict.get("_step_count", self.last_epoch + 1)
        self._set_rates()

    def _set_rates(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = [
            group["lr"].clone() if isinstance(group["lr"], Tensor) else group["lr"]
            for group in self.optimizer.param_groups
        ]
