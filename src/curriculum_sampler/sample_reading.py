"""Reading the samples of a source for the tasks of a build."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .errors import ArgumentError
from .parallel import in_parallel
from .source import Entry, Source


def read_samples(source: Source, entries: Sequence[Entry], require: Sequence[str]) -> list[dict[str, Any]]:
    """Read samples in order, several at a time where the source says that this is worth it.

    Raises:
        ArgumentError: A sample lacks a required extension, or is another than was asked for.
    """

    def read(entry: Entry) -> dict[str, Any]:
        sample = source.read(entry)
        if sample.get("__key__") != entry.key:
            raise ArgumentError(
                f"{source.identity}: sample {entry.key!r} was asked for and {sample.get('__key__')!r} came. Correct the source."
            )
        lacking = next((extension for extension in require if extension not in sample), None)
        if lacking is not None:
            raise ArgumentError(
                f"{source.identity}: sample {entry.key!r} has no {lacking!r} (it has "
                f"{', '.join(name for name in sample if not name.startswith('__')) or 'nothing'}). Add it, or remove the sample."
            )
        return sample

    return in_parallel(read, entries, getattr(source, "parallel_reads", 1))
