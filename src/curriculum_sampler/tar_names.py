"""Which tars belong to which bucket, as said on a command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from .errors import ArgumentError
from .storage import Storage


def patterns_by_bucket(texts: Sequence[str]) -> dict[str, list[str]]:
    """Return bucket -> patterns from texts such as ``easy=new/easy-*.tar``.

    >>> patterns_by_bucket(["easy=a-*.tar", "hard=b.tar", "easy=c.tar"])
    {'easy': ['a-*.tar', 'c.tar'], 'hard': ['b.tar']}
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        bucket, separator, pattern = text.partition("=")
        if not (bucket and separator and pattern):
            raise ArgumentError(
                f"Got {text!r}, but it is NAME=PATTERN, such as 'easy=easy-*.tar'. Correct it."
            )
        found.setdefault(bucket, []).append(pattern)
    return found


def matching_tars(tars: Storage, patterns: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return bucket -> names of its tars below a root: by pattern as they were given, and by name within a pattern.

    A pattern is the whole name below the root; ``*`` also stands for folders. A name without ``*``, ``?`` or ``[`` is
    taken as it is, so nothing is listed where the store cannot.

    Raises:
        ArgumentError: A pattern that matches nothing, or a tar in two buckets.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> tars = MemoryStorage(objects={"easy-0.tar": b"", "easy-1.tar": b"", "readme.txt": b""})
    >>> matching_tars(tars, {"easy": ["easy-*.tar"], "hard": ["hard.tar"]})
    {'easy': ['easy-0.tar', 'easy-1.tar'], 'hard': ['hard.tar']}
    """
    every = [pattern for told in patterns.values() for pattern in told]
    names = tars.list() if any(map(_is_pattern, every)) else []
    found: dict[str, list[str]] = {}
    bucket_of: dict[str, str] = {}
    for bucket, told in patterns.items():
        for pattern in told:
            matched = (
                [name for name in names if fnmatchcase(name, pattern)] if _is_pattern(pattern) else [pattern]
            )
            if not matched:
                raise ArgumentError(
                    f"Nothing at {tars.url} matches {pattern!r} (bucket {bucket!r}). A pattern is the whole name below the "
                    "root, such as 'train/easy-*.tar'."
                )
            for name in matched:
                if name in bucket_of:
                    raise ArgumentError(
                        f"{name!r} matches twice: for bucket {bucket_of[name]!r} and for {bucket!r}. Narrow the patterns."
                    )
                bucket_of[name] = bucket
            found.setdefault(bucket, []).extend(matched)
    return found


def tars_by_folder(tars: Storage) -> dict[str, list[str]]:
    """Return bucket -> names of its tars, where each folder of tars is a bucket called as the folder.

    Raises:
        ArgumentError: No tars, a tar in no folder, or two folders of one name.

    >>> from curriculum_sampler.memory_storage import MemoryStorage
    >>> tars_by_folder(MemoryStorage(objects={"train/easy/0.tar": b"", "train/hard/0.tar": b""}))
    {'easy': ['train/easy/0.tar'], 'hard': ['train/hard/0.tar']}
    """
    found: dict[str, list[str]] = {}
    folder_of: dict[str, str] = {}
    for name in tars.list():
        if not name.endswith(".tar"):
            continue
        folder = name.rpartition("/")[0]
        bucket = folder.rpartition("/")[2]
        if not bucket:
            raise ArgumentError(
                f"{tars.url}/{name} lies in no folder that could name its bucket. Say which tars belong to which bucket: "
                "--bucket NAME=PATTERN."
            )
        if folder_of.setdefault(bucket, folder) != folder:
            raise ArgumentError(
                f"Two folders at {tars.url} would be bucket {bucket!r}: {folder_of[bucket]} and {folder}. Say which tars "
                "belong to which bucket: --bucket NAME=PATTERN."
            )
        found.setdefault(bucket, []).append(name)
    if not found:
        raise ArgumentError(f"There are no tars at {tars.url}. Check the url; a tar's name ends in '.tar'.")
    return found


def _is_pattern(text: str) -> bool:
    return any(char in text for char in "*?[")
