"""Which members of an archive form a sample: the WebDataset convention.

A member belongs to the sample named by its path up to the first dot of its file name; the rest, in
lower case, is its extension: ``people/0007.seg.png`` is the ``seg.png`` of sample ``people/0007``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .errors import ShardError
from .tar import Member


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """Where one sample lies: one range of bytes, from its first header to its last padding."""

    key: str
    start: int
    stop: int


def split_name(name: str) -> tuple[str, str] | None:
    """Split a member's path into key and extension; None if it is part of no sample.

    Hidden files, files without extension and names like ``__meta__`` are part of none.

    >>> split_name("people/0007.seg.PNG"), split_name(".DS_Store"), split_name("README")
    (('people/0007', 'seg.png'), None, None)
    """
    folder, slash, file = name.rpartition("/")
    base, dot, extension = file.partition(".")
    hidden = base == "" or (name.startswith("__") and name.endswith("__"))
    if hidden or not dot:
        return None
    return f"{folder}{slash}{base}", extension.lower()


def group(members: Iterable[Member]) -> Iterator[SampleSpan]:
    """Yield the samples of an archive in order.

    Directories and files that are part of no sample are passed over. Keys must be unique and a
    sample's members adjacent, since a sample is read as one range.

    Raises:
        ShardError: Members of one key are apart, a sample has an extension twice, or one of its
            members is a link or another thing without bytes of its own.
    """
    finished: set[str] = set()
    span: SampleSpan | None = None
    extensions: set[str] = set()
    for member in members:
        parts = split_name(member.name)
        if parts is None or member.kind == "directory":
            continue
        key, extension = parts
        if member.kind != "file":
            raise ShardError(
                f"member {member.name!r} is a {member.kind}, which holds no bytes. Write the archive again with "
                "plain files (tar --dereference --hard-dereference)."
            )
        if span is not None and key == span.key:
            if extension in extensions:
                raise ShardError(f"sample {key!r} has two members with extension {extension!r}. Rename one.")
            extensions.add(extension)
            span = SampleSpan(key, span.start, member.stop)
            continue
        if key in finished:
            raise ShardError(
                f"the members of sample {key!r} are not adjacent: {member.name!r} at byte {member.start} comes "
                "after other samples. Write the archive again in sorted order (tar --sort=name)."
            )
        if span is not None:
            yield span
        finished.add(key)
        span, extensions = SampleSpan(key, member.start, member.stop), {extension}
    if span is not None:
        yield span
