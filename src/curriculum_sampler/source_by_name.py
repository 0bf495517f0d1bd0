"""From what a user names to a source, or to samples that have yet to be set down."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from .errors import ArgumentError
from .folder_source import FolderSource
from .local_storage import LocalStorage
from .locations import StorageOptions, open_storage
from .named_function import is_function_name, named_function
from .source import Source
from .tar_source import TarSource, tars_at

Samples: TypeAlias = Iterable[Mapping[str, Any]]


def source_by_name(
    source: str | os.PathLike[str] | Source | Samples,
    require: Sequence[str] | None = None,
    **options: Unpack[StorageOptions],
) -> Source | Samples:
    """Return the source that is meant; a source or an iterable is returned as it is.

    Args:
        source: A local folder of loose files, or of tars at any depth; one tar; a url of tars; ``module:function``, or
            ``module:function:argument``, which calls it with that text.
        require: For a folder of loose files: see ``FolderSource``.
        **options: Options of ``s3://`` urls.

    Raises:
        ArgumentError: There is nothing of that name, or what the function returned is neither.

    >>> source_by_name("no/such/folder")
    Traceback (most recent call last):
    curriculum_sampler.errors.ArgumentError: There is no folder 'no/such/folder'. ...
    """
    if not isinstance(source, str | os.PathLike):
        return _checked(source, "The source")
    text = os.fspath(source)
    if "://" in text:
        return tars_at(open_storage(text, **options))
    path = Path(text).expanduser()
    if path.is_dir():
        return tars_at(LocalStorage(path)) if _holds_tars(path) else FolderSource(path, require)
    if path.is_file() and path.suffix == ".tar":
        return TarSource(LocalStorage(path.parent), (path.name,))
    module, _, rest = text.partition(":")
    function, has_argument, argument = rest.partition(":")
    name = f"{module}:{function}"
    if not is_function_name(name):
        raise ArgumentError(
            f"There is no folder {text!r}. Give a folder, a .tar, an s3:// url of tars, or 'module:function'."
        )
    found = named_function(name)
    return _checked(found(argument) if has_argument else found(), f"What {name} returned")


def _checked(found: Any, what: str) -> Source | Samples:
    if isinstance(found, Source):
        return found
    if isinstance(found, str | bytes | Mapping) or not isinstance(found, Iterable):
        raise ArgumentError(
            f"{what} is a {type(found).__name__}, but it must be a Source or an iterable of samples."
        )
    return found


def _holds_tars(folder: Path) -> bool:
    """Whether the first file that could be of a sample is a tar."""
    for _, folders, names in os.walk(folder):
        folders.sort()
        shown = sorted(name for name in names if "." in name and not name.startswith("."))
        tars = [name for name in shown if name.endswith(".tar")]
        loose = [
            name for name in shown if not name.endswith((".tar", ".idx", ".json", ".jsonl", ".txt", ".md"))
        ]
        if tars or loose:
            return bool(tars)
    return False
