"""Numbers by name, as written on a command line: ``easy=0.4,hard=0.6``."""

from __future__ import annotations

import math

from .errors import ArgumentError


def named_numbers(text: str) -> dict[str, float]:
    """Return name -> number, in the order written.

    >>> named_numbers("easy=0.4,hard=0.6")
    {'easy': 0.4, 'hard': 0.6}
    >>> named_numbers("easy=0.4,hard")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: Got 'hard' in 'easy=0.4,hard', but each part is NAME=NUMBER, ...
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.strip().partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or math.isnan(value):
            raise ArgumentError(
                f"Got {part!r} in {text!r}, but each part is NAME=NUMBER, such as easy=0.4,hard=0.6. Correct it."
            )
        if name in found:
            raise ArgumentError(f"{name!r} comes twice in {text!r}. Give it once.")
        found[name] = value
    return found
