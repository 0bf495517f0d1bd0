"""Which kinds of files a picture may be, told before anything is drawn."""

from __future__ import annotations

import os
from pathlib import Path

from .errors import ArgumentError

KINDS = ("png", "svg", "pdf", "html")


def picture_kind(path: str | os.PathLike[str]) -> str:
    """Return which kind of picture the name of a file asks for.

    >>> picture_kind("out/plan.SVG")
    'svg'

    Raises:
        ArgumentError: None of ``KINDS``.
    """
    kind = Path(path).suffix.lower().removeprefix(".")
    if kind not in KINDS:
        raise ArgumentError(
            f"{os.fspath(path)}: the name of a picture ends in {', '.join('.' + each for each in KINDS[:-1])} or .{KINDS[-1]}. "
            "Rename it."
        )
    return kind
