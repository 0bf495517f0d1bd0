"""What a command says, and how it is shown: as text for a person, or as JSON for a program."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TextIO


class Progress(Protocol):
    """Told now and then how far something long is; ``part`` names what is being done, where there are several parts."""

    def __call__(self, done: int, total: int, part: str = "", /) -> None: ...


class Answer(NamedTuple):
    """What a command found or did.

    Attributes:
        told: The same as ``text``, complete, as JSON types.
        text: For a person.
        exit_code: 0 good, 1 faults were found.
    """

    told: Mapping[str, Any]
    text: str
    exit_code: int = 0


class Terminal:
    """The two streams of a command. Results go to ``out``; bars and errors to ``err``.

    Colours and bars are for people: they are off where the stream is no terminal, and colours where ``NO_COLOR`` is set.

    >>> Terminal(out=sys.stdout).show(Answer({"samples": 3}, "3 samples"))
    3 samples
    >>> Terminal(is_json=True, out=sys.stdout).show(Answer({"samples": 3}, "3 samples"))
    {
     "samples": 3
    }
    """

    def __init__(
        self,
        *,
        is_json: bool = False,
        is_quiet: bool = False,
        out: TextIO | None = None,
        err: TextIO | None = None,
    ) -> None:
        self._is_json = is_json
        self._is_quiet = is_quiet
        self._out = sys.stdout if out is None else out
        self._err = sys.stderr if err is None else err

    def show(self, answer: Answer) -> None:
        """Print an answer."""
        told = json.dumps(answer.told, indent=1, ensure_ascii=False) if self._is_json else answer.text
        encoding = self._out.encoding or "utf-8"
        print(told.encode(encoding, "replace").decode(encoding), file=self._out)

    def complain(self, text: str) -> None:
        """Say why there is no result."""
        mark = _painted("31", "error:") if _has_colours(self._err) else "error:"
        print(f"{mark} {text}", file=self._err)

    @property
    def has_colours(self) -> bool:
        """Whether what is printed may hold colours."""
        return not self._is_json and _has_colours(self._out)

    def strong(self, text: str) -> str:
        """Return text as a heading."""
        return self._paint("1", text)

    def good(self, text: str) -> str:
        """Return text in the colour of what is well."""
        return self._paint("32", text)

    def bad(self, text: str) -> str:
        """Return text in the colour of what is not."""
        return self._paint("31", text)

    def _paint(self, code: str, text: str) -> str:
        return _painted(code, text) if self.has_colours else text

    @contextlib.contextmanager
    def progress(self, what: str, unit: str = "B") -> Iterator[Progress]:
        """Give a function that shows how far something is, with rate and time left."""
        if self._is_quiet or not self._err.isatty():
            yield _say_nothing
            return
        try:
            # Loaded only where somebody looks at a bar; without it there is none.
            tqdm = importlib.import_module("tqdm").tqdm
        except ImportError:
            yield _say_nothing
            return
        scale = {"unit_scale": True, "unit_divisor": 1024} if unit == "B" else {}
        with tqdm(desc=what, unit=unit, file=self._err, total=0, leave=False, **scale) as bar:
            shown = ""

            def show(done: int, total: int, part: str = "", /) -> None:
                nonlocal shown
                if part != shown:
                    shown = part
                    bar.reset()
                    bar.set_description(part)
                bar.total = total
                bar.update(done - bar.n)

            yield show


def table(rows: Sequence[Sequence[object]], numbers: Sequence[int] = ()) -> str:
    """Return rows as lines of aligned columns; those in ``numbers`` are set to the right.

    >>> print(table([("bucket", "samples"), ("easy", 1200), ("hard", 9)], numbers=[1]))
    bucket  samples
    easy       1200
    hard          9
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(width) if place in numbers else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def readable_bytes(num_bytes: float) -> str:
    """Return a number of bytes in a unit that suits it.

    >>> readable_bytes(700), readable_bytes(3 << 20), readable_bytes(1.5 * (1 << 30))
    ('700 B', '3.0 MiB', '1.5 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while num_bytes >= 1024 and len(units) > 1:
        num_bytes /= 1024
        units.pop(0)
    return f"{num_bytes:.0f} B" if units[0] == "B" else f"{num_bytes:.1f} {units[0]}"


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun.

    >>> counted(1, "sample"), counted(12345, "sample")
    ('1 sample', '12,345 samples')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _say_nothing(done: int, total: int, part: str = "", /) -> None:
    pass


def _has_colours(stream: TextIO) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _painted(code: str, text: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"
