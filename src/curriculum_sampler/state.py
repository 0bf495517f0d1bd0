"""What a saved state binds: read one, and refuse it where continuing would change the order of samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import StateMismatchError
from .keys import digest
from .plan import ORDER_VERSION, Change, Plan
from .schedule import StageSchedule

FORMAT = 1
_KEYS = {"format", "order_version", "seed", "draws", "log", "plan", "data", "fingerprint"}


@dataclass(frozen=True)
class SavedState:
    """The content of a state, checked to be whole and unaltered."""

    seed: int
    draws: int
    plan: Plan
    """The plan of the saved run, its log included."""
    data: Mapping[str, str]
    """Digest of the content of each bucket, where the saved run knew one."""

    def to_dict(self) -> dict[str, Any]:
        """Return the state as JSON types, a fresh object each time."""
        told = {
            "format": FORMAT,
            "order_version": ORDER_VERSION,
            "seed": self.seed,
            "draws": self.draws,
            "log": [[change.draw, dict(change.what), change.reason] for change in self.plan.changes],
            "plan": self.plan.to_dict(),
            "data": dict(self.data),
        }
        return told | {"fingerprint": digest(told)}

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> SavedState:
        """Read what ``to_dict`` wrote.

        Raises:
            StateMismatchError: Not a state, of another format or order version, incomplete or altered.
        """
        if not isinstance(told, Mapping) or "format" not in told:
            raise StateMismatchError(f"Not a sampler state: {_brief(told)}. Pass what state_dict() returned.")
        if told["format"] != FORMAT:
            raise StateMismatchError(
                f"The state has format {told['format']!r}, this version reads format {FORMAT}. "
                "Install the version that wrote it, or a newer one."
            )
        missing = _KEYS - told.keys()
        if missing:
            raise StateMismatchError(
                f"The state lacks {', '.join(sorted(missing))}. Pass what state_dict() returned, whole."
            )
        if told["order_version"] != ORDER_VERSION:
            raise mismatch(
                f"the state was made under order version {told['order_version']}, this version has {ORDER_VERSION}",
                "Install the version that wrote it, or start a fresh run.",
            )
        try:
            agrees = (
                digest({key: value for key, value in told.items() if key != "fingerprint"})
                == told["fingerprint"]
            )
        except TypeError as error:
            raise StateMismatchError(
                f"The state is not plain JSON types: {error}. Pass it as it was saved."
            ) from error
        if not agrees:
            raise StateMismatchError(
                "The state was altered after it was made: its fingerprint does not match. Load an unaltered checkpoint."
            )
        arguments = dict(told["plan"])
        schedule = StageSchedule.from_dict(arguments.pop("schedule"))
        changes = [Change(draw, dict(what), reason) for draw, what, reason in told["log"]]
        return cls(told["seed"], told["draws"], Plan(schedule, **arguments, changes=changes), told["data"])

    def continued_by(self, given: Plan, *, adopt_run_sizes: bool = False) -> Plan:
        """Return ``given`` with the saved log: the plan to continue with.

        The draws up to the position must be the same under both plans. Buckets that grew in the saved run begin at the
        size they had; ``adopt_run_sizes`` takes the saved run sizes and ``block_runs`` over those given.

        Raises:
            StateMismatchError: The position is beyond the plan, or the past differs; the message says in what.
        """
        sizes = given.bucket_sizes | {
            name: self.plan.bucket_sizes[name]
            for name, size in self.grown.items()
            if given.bucket_sizes.get(name) == size
        }
        runs = given.run_sizes
        if adopt_run_sizes:
            runs = runs | {name: size for name, size in self.plan.run_sizes.items() if name in runs}
        block_runs = self.plan.block_runs if adopt_run_sizes else given.block_runs
        plan = given.replace(
            bucket_sizes=sizes, run_sizes=runs, block_runs=block_runs, changes=self.plan.changes
        )
        if self.draws > plan.total_draws:
            raise mismatch(
                f"the state is at step {self.draws // plan.batch_size}, beyond this plan's end at {plan.total_steps}",
                "Lengthen the last stage or append one.",
            )
        _refuse_other_batch_size(self.plan, plan)
        _refuse_other_past(self.plan.describe(self.draws), plan.describe(self.draws))
        if self.draws % plan.batch_size:
            raise mismatch(
                f"the state is at draw {self.draws}, which is no multiple of batch_size={plan.batch_size}",
                f"Use a batch size that divides {self.draws}, for example {self.plan.batch_size}.",
            )
        return plan

    @property
    def grown(self) -> dict[str, int]:
        """Buckets that grew in the saved run, with their last size."""
        return {
            name: size for change in self.plan.changes for name, size in change.what.get("sizes", {}).items()
        }

    @property
    def entered(self) -> list[str]:
        """Buckets of every stage entered."""
        return list(self.plan.describe(self.draws)["sizes"])

    def refuse_other_data(self, data: Mapping[str, str]) -> None:
        """Compare the content of the buckets entered, where both runs know it; a bucket that grew is the caller's to check."""
        for name in self.entered:
            if (
                name in self.data
                and name in data
                and self.data[name] != data[name]
                and name not in self.grown
            ):
                raise mismatch(
                    f"bucket {name!r} holds other samples: its content was {self.data[name]} and is {data[name]} here",
                    "Load the data of the saved run, or start a fresh run.",
                )


def mismatch(difference: str, next_move: str) -> StateMismatchError:
    """Make the error that every refusal raises."""
    return StateMismatchError(f"Sample order would differ: {difference}. {next_move}")


def _refuse_other_batch_size(saved: Plan, here: Plan) -> None:
    """Where windows differ since batch sizes do, name the cause: the window may never have been given."""
    if saved.window == saved.batch_size != here.batch_size == here.window:
        raise mismatch(
            f"the state was made with batch_size {saved.batch_size}, this plan has {here.batch_size}, and the window is the "
            "batch size unless window= is given",
            f"Use batch_size={saved.batch_size}, or start a fresh run. With an explicit window and stages in samples the"
            " batch size may change.",
        )


def _refuse_other_past(saved: dict[str, Any], here: dict[str, Any]) -> None:
    """Say what differs between two descriptions of the draws already handed out, if anything does."""
    if saved == here:
        return
    for key, what, advice in (
        (
            "window",
            "window",
            " The window is the batch size unless window= is given.",
        ),
        ("block_runs", "block_runs", ""),
        (
            "sizes",
            "bucket sizes",
            " For data that grows, call grow() in the running job, before it loads the larger data.",
        ),
        (
            "run_sizes",
            "run sizes",
            " A CurriculumLoader has those of its data: plan with run_sizes=manifest.run_sizes(), or take the saved ones by"
            " load_state_dict(state, adopt_run_sizes=True).",
        ),
    ):
        same_buckets = not isinstance(saved[key], dict) or saved[key].keys() == here[key].keys()
        if saved[key] != here[key] and same_buckets:
            raise mismatch(
                f"the state was made with {what} {saved[key]!r}, this plan has {here[key]!r}",
                f"Use the saved value, or start a fresh run.{advice}",
            )
    old, new = ([_in_words(segment) for segment in told["segments"]] for told in (saved, here))
    raise mismatch(
        f"so far the curriculum was {'; '.join(old)}, and here it is {'; '.join(new)}",
        "What was drawn is fixed and only what follows may be edited: restore it, or start a fresh run.",
    )


def _in_words(segment: Mapping[str, Any]) -> str:
    def mixture(shares: Mapping[str, str]) -> str:
        return "(" + ", ".join(f"{name} {share}" for name, share in shares.items()) + ")"

    ramp = (
        f"a ramp of {segment['ramp_steps']} steps from {mixture(segment['from'])} to "
        if "from" in segment
        else ""
    )
    end = f" to draw {segment['stop']}" if "stop" in segment else ""
    return f"{ramp}{mixture(segment['shares'])} from draw {segment['start']}{end}"


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 100 else text[:97] + "..."
