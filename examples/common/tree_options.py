"""Options behind a path in one text, for places that take no more than that: ``/data/viton-hd,split=test``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import curriculum_sampler as cs

_YES, _NO = ("", "yes", "true", "1"), ("no", "false", "0")


def with_options(text: str | Path, known: Mapping[str, str | bool]) -> tuple[Path, dict[str, str | bool]]:
    """Return the path and its options, each as given or as ``known`` says.

    The longest beginning that exists is the path, whatever commas are in it.

    Args:
        text: A path, and after commas ``name=value``; a yes-or-no option may stand alone. ``-`` and ``_`` are alike.
        known: Names with their defaults; a bool as default makes a yes-or-no option.

    Raises:
        ArgumentError: An option is unknown or has no value that it may have.

    >>> with_options("/data/tree,split=test,accept-license", {"split": "train", "accept_license": False})
    (PosixPath('/data/tree'), {'split': 'test', 'accept_license': True})
    """
    options: dict[str, str | bool] = dict(known)
    path, parts = str(text), []
    while "," in path and not Path(path).exists():
        path, _, part = path.rpartition(",")
        parts.append(part)
    for part in reversed(parts):
        name, _, value = part.partition("=")
        name = name.strip().replace("-", "_")
        if name not in known:
            raise cs.ArgumentError(
                f"{str(text)!r}: {name!r} is no option here. Options after the path are: {', '.join(known)}."
            )
        if isinstance(known[name], bool):
            if value.lower() not in (*_YES, *_NO):
                raise cs.ArgumentError(
                    f"{str(text)!r}: {name} is yes or no, not {value!r}. Write {name}=yes."
                )
            options[name] = value.lower() in _YES
        else:
            options[name] = value
    return Path(path), options
