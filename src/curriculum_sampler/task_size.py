"""How many samples a task of scoring takes: about a second's worth, so that little is lost with a killed process."""

from __future__ import annotations

# A task is lost whole; one that is much shorter costs more to send than to do.
_SECONDS = 1.0
_MOST = 64


class TaskSize:
    """Few samples at first, twice as many while they are quick, and fewer again when they turn out slow.

    Args:
        unit: Samples that must stay together; tasks are of whole ones.

    Attributes:
        samples: Samples in the next task.

    >>> size = TaskSize(1)
    >>> for samples, seconds in [(1, 0.2), (2, 0.4), (1, 0.2), (4, 0.8), (5, 5.0)]:
    ...     size.learn(samples, seconds)
    ...     print(size.samples)
    2
    4
    4
    5
    1
    """

    def __init__(self, unit: int) -> None:
        self._unit = self.samples = unit

    def learn(self, samples: int, seconds: float) -> None:
        """Take note of how long a task took."""
        if 2 * seconds <= _SECONDS:
            # Those that were sent before the size grew come back late.
            fitting = max(self.samples, min(2 * samples, _MOST + self._unit - 1))
        else:
            fitting = int(samples * _SECONDS / seconds)
        self.samples = max(1, fitting // self._unit) * self._unit
