"""Brace patterns in places, as WebDataset users write them: ``s3://bucket/part-{000..012}``."""

from __future__ import annotations

import re

from curriculum_sampler.errors import ArgumentError

_INNERMOST = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def expand_braces(pattern: str) -> list[str]:
    """Return every place that a pattern names, in order.

    ``{a,b}`` is a choice, ``{08..11}`` a range that keeps its leading zeros; several multiply, and they may nest.

    >>> expand_braces("s3://shop/{tops,dresses}/v{8..10}")[:4]
    ['s3://shop/tops/v8', 's3://shop/tops/v9', 's3://shop/tops/v10', 's3://shop/dresses/v8']
    >>> expand_braces("plain"), expand_braces("p-{09..10}")
    (['plain'], ['p-09', 'p-10'])

    Raises:
        ArgumentError: If a brace is not closed, or a range runs backwards.
    """
    found = _INNERMOST.search(pattern)
    if found is None:
        if "{" in pattern or "}" in pattern:
            raise ArgumentError(f"Brace pattern {pattern!r}: a brace stands alone. Close it, or take it out.")
        return [pattern]
    head, inside, tail = pattern[: found.start()], found.group(1), pattern[found.end() :]
    expanded = (expand_braces(head + choice + tail) for choice in _choices(inside, pattern))
    return list(dict.fromkeys(place for places in expanded for place in places))


def _choices(inside: str, pattern: str) -> list[str]:
    limits = _RANGE.fullmatch(inside)
    if limits is None:
        return inside.split(",")
    first, last = limits.groups()
    if int(first) > int(last):
        raise ArgumentError(
            f"Brace pattern {pattern!r}: range {first}..{last} runs backwards. Write the lower end first."
        )
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
