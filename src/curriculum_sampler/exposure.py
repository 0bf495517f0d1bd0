"""How often each bucket is seen: the rows of ``plan.exposure()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, overload

MANY_PASSES = 4  # Repeating text data is about as good as fresh data up to here (Muennighoff et al. 2023).


class Exposure(NamedTuple):
    """What one stage draws from one bucket; ``passes`` is draws over bucket size.

    >>> Exposure("hard", "hard", draws=900, passes=4.5).warning
    "'hard' is repeated 4.5 times in stage 'hard'"
    >>> Exposure("hard", "hard", draws=800, passes=4.0).warning is None
    True
    """

    stage: str
    bucket: str
    draws: int
    passes: float

    @property
    def warning(self) -> str | None:
        """A sentence when the bucket is repeated more than 4 times in the stage, else None."""
        if self.passes <= MANY_PASSES:
            return None
        return f"{self.bucket!r} is repeated {self.passes:,.1f} times in stage {self.stage!r}"


class ExposureTable(Sequence[Exposure]):
    """The rows of ``plan.exposure()``, stage by stage; a stage's rows by bucket are ``table[stage][bucket]``.

    Printed, it is a table. A stage that is not there is a ``KeyError``.

    >>> table = ExposureTable([Exposure("easy", "easy", draws=80, passes=5.0)])
    >>> table[0] == table["easy"]["easy"], len(table), table.warnings
    (True, 1, ["'easy' is repeated 5.0 times in stage 'easy'"])
    >>> print(table)
    stage        bucket                draws       passes
    easy         easy                     80          5.0
    """

    def __init__(self, rows: Sequence[Exposure]) -> None:
        self._rows = tuple(rows)

    @property
    def warnings(self) -> list[str]:
        """The rows' warnings, as data: nothing is printed."""
        return [row.warning for row in self._rows if row.warning]

    @overload
    def __getitem__(self, key: int) -> Exposure: ...
    @overload
    def __getitem__(self, key: slice) -> tuple[Exposure, ...]: ...
    @overload
    def __getitem__(self, key: str) -> dict[str, Exposure]: ...
    def __getitem__(self, key: int | slice | str) -> Exposure | tuple[Exposure, ...] | dict[str, Exposure]:
        if not isinstance(key, str):
            return self._rows[key]
        found = {row.bucket: row for row in self._rows if row.stage == key}
        if not found:
            raise KeyError(key)
        return found

    def __len__(self) -> int:
        return len(self._rows)

    def __repr__(self) -> str:
        lines = [f"{'stage':<12} {'bucket':<12} {'draws':>14} {'passes':>12}"]
        lines += [f"{r.stage:<12} {r.bucket:<12} {r.draws:>14,} {r.passes:>12,.1f}" for r in self._rows]
        return "\n".join(lines)
