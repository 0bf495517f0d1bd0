"""What ``doctor`` looks at, one file a part: what is installed, S3, the cache, a data set.

Each part returns a ``Finding`` and raises nothing; what is wrong is a sentence in ``faults``, with the next move.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CurriculumError


@dataclass(frozen=True)
class Finding:
    """One part of what was looked at.

    Attributes:
        title: A word or two.
        rows: Name and what was found, for a person.
        told: The same as JSON types.
        faults: What is broken, each in a sentence that ends with the next move.
    """

    title: str
    rows: Sequence[tuple[str, str]]
    told: Mapping[str, Any]
    faults: Sequence[str] = ()


def sentence(error: Exception) -> str:
    """Return what went wrong, for a person. The text of an error that is not ours may hold credentials, and is left out.

    >>> sentence(ValueError("https://key:secret@host"))
    'ValueError, which should not happen. Please report it, with this output.'
    """
    if isinstance(error, CurriculumError):
        return str(error)
    return f"{type(error).__name__}, which should not happen. Please report it, with this output."
