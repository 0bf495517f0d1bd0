"""A half-open range of draws under one quota: what a plan is a short table of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from .quota import Quota, depth_of


@dataclass(frozen=True)
class Segment:
    """Draws ``start <= n < stop``, dealt by one quota; ``stop`` decides no draw's bucket."""

    start: int
    stop: int
    shares: Mapping[str, Fraction]
    shares_before: Mapping[str, Fraction] | None
    ramp_steps: int
    step_draws: int
    shown: tuple[str, ...]
    """Buckets that a report names, those of weight 0 included."""

    @cached_property
    def quota(self) -> Quota:
        """How the segment's draws are shared."""
        if self.shares_before is None:
            return Quota.constant(self.shares)
        return Quota.ramp(self.shares_before, self.shares, self.ramp_steps, self.step_draws)

    def shares_at(self, draw: int) -> dict[str, Fraction]:
        """Return the exact target shares at a global draw."""
        if self.shares_before is None:
            return dict(self.shares)
        done = Fraction((draw - self.start) // self.step_draws, self.ramp_steps)
        names = self.shares_before.keys() | self.shares.keys()
        before, after = self.shares_before, self.shares
        return {
            name: before.get(name, Fraction(0))
            + (after.get(name, Fraction(0)) - before.get(name, Fraction(0))) * done
            for name in sorted(names)
        }

    @property
    def is_ramp(self) -> bool:
        """Whether the shares move from step to step."""
        return self.shares_before is not None

    def window_stride(self, window: int) -> int:
        """Return after how many draws the windows come round: a change may take effect at these edges."""
        return self.step_draws if self.is_ramp else window

    @property
    def names(self) -> tuple[str, ...]:
        """The buckets drawn from, in name order: those of the quota, which is not made for it."""
        return tuple(sorted({*self.shares, *(self.shares_before or ())}))

    @property
    def bound(self) -> int:
        """See ``Quota.bound``."""
        return depth_of(len(self.names))

    def raw_from(self, window: int) -> int:
        """Return the first draw of the last, partial window that a later end would fill; ``stop`` if there is none."""
        return self.stop if self.is_ramp else self.stop - (self.stop - self.start) % window

    def describe(self) -> dict[str, Any]:
        """Return what decides the segment's draws, as JSON types."""
        told: dict[str, Any] = {"start": self.start, "shares": _texts(self.shares)}
        if self.shares_before is not None:
            told |= {
                "from": _texts(self.shares_before),
                "ramp_steps": self.ramp_steps,
                "step_draws": self.step_draws,
            }
        return told


def _texts(shares: Mapping[str, Fraction]) -> dict[str, str]:
    return {name: str(share) for name, share in sorted(shares.items())}
