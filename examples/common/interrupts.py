"""Ctrl-C and SIGTERM ask a training loop to stop at its next step; a second Ctrl-C stops it at once.

A second SIGTERM changes nothing: a scheduler that signals every process of a job, and a script that passes on what it
gets, make two of one.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType


class StopRequest:
    """While entered, remembers the first SIGINT or SIGTERM instead of dying of it.

    Attributes:
        signal: The signal received, or None.

    >>> with StopRequest() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     (stop.signal.name, stop.exit_code)
    ('SIGTERM', 143)
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, object] = {}

    @property
    def name(self) -> str:
        """Name of the signal; of SIGTERM where only another rank received one."""
        return (self.signal or signal.SIGTERM).name

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGTERM)

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.signal(number, self._remember) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        signal.signal(signal.SIGINT, self._before[signal.SIGINT])  # type: ignore[arg-type]

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
