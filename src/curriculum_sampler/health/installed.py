"""Versions, and of each extra what is there or the command that installs it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from typing import NamedTuple

from ..plan import ORDER_VERSION
from . import Finding

_NAME = "curriculum-sampler"


class Need(NamedTuple):
    """A package that an extra brings, and the oldest version that will do ("" if any)."""

    package: str
    least: str


def look_at_versions() -> Finding:
    """Return what decides whether two machines draw alike, and what a bug report needs."""
    told = {
        _NAME: metadata.version(_NAME),
        "order_version": ORDER_VERSION,
        "python": platform.python_version(),
        "numpy": metadata.version("numpy"),
        "system": f"{platform.system()} {platform.machine()}",
        "cpus": os.cpu_count(),
    }
    rows = [
        (_NAME, f"{told[_NAME]}, order version {ORDER_VERSION}"),
        ("python", f"{told['python']}, {told['system']}, {told['cpus']} CPUs"),
        ("numpy", str(told["numpy"])),
    ]
    return Finding("versions", rows, told)


def look_at_extras() -> Finding:
    """Return, for each extra that a user may want, the versions of its packages and what is lacking."""
    rows, told = [], {}
    known = extras()
    for extra, needs in known.items():
        have = {need.package: _version(need.package) for need in needs}
        lacking = [need.package for need in needs if have[need.package] is None]
        old = [need for need in needs if is_older(have[need.package], need.least)]
        command = f'pip install "{_NAME}[{extra}]"'
        told[extra] = {"installed": have, "install": command if lacking or old else None}
        if len(lacking) == len(needs):
            rows.append((extra, f"not installed: {command}"))
        elif lacking:
            rows.append((extra, f"without {', '.join(lacking)}: {command}"))
        elif old:
            why = ", ".join(f"{need.package} {have[need.package]} is older than {need.least}" for need in old)
            rows.append((extra, f"{why}: {command}"))
        else:
            rows.append((extra, _summed_up(extra, have, known)))
    return Finding("extras", rows, told)


def _summed_up(extra: str, have: Mapping[str, str | None], known: Mapping[str, list[Need]]) -> str:
    """Return what an extra brings itself, with versions, and the names of the extras that it contains."""
    brings = {name: {need.package for need in needs} for name, needs in known.items()}
    inside = [name for name in brings if brings[name] < brings[extra]]
    largest = [name for name in inside if not any(brings[name] < brings[other] for other in inside)]
    own = have.keys() - set().union(*(brings[name] for name in largest))
    told = ", ".join(f"{package} {have[package]}" for package in sorted(own))
    return f"{told}, with {', '.join(largest)}" if largest else told


def extras() -> dict[str, list[Need]]:
    """Return the extras for users, which ``all`` gathers, with all the packages that each brings.

    >>> [need.package for need in extras()["data"]]
    ['pillow', 'safetensors', 'tqdm', 'xxhash']
    """
    stated: dict[str, list[str]] = {}
    for line in metadata.requires(_NAME) or ():
        requirement, _, condition = line.partition(";")
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", condition)
        if found:
            stated.setdefault(found[1], []).append(requirement.strip())
    everything = _needs("all", stated)
    needs = {extra: _needs(extra, stated) for extra in sorted(stated) if extra != "all"}
    return {
        extra: list(found.values()) for extra, found in needs.items() if found.keys() <= everything.keys()
    }


def _needs(extra: str, stated: Mapping[str, list[str]]) -> dict[str, Need]:
    needs: dict[str, Need] = {}
    for line in stated.get(extra, ()):
        name = re.match(r"[\w.-]+", line)
        assert name is not None, line
        if name[0] == _NAME:
            for other in re.findall(r"[\w-]+", line.partition("[")[2]):
                needs |= _needs(other, stated)
        else:
            least = re.search(r">=\s*([\w.]+)", line)
            needs[name[0]] = Need(name[0], least[1] if least else "")
    return dict(sorted(needs.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def is_older(version: str | None, least: str) -> bool:
    """Say whether a version precedes another, by their numbers; what is absent precedes nothing.

    >>> is_older("2.9.1+cpu", "2.13"), is_older("3.0.0rc1", "3.0"), is_older("2.13", "2.13.0"), is_older(None, "1")
    (True, False, False, False)
    """
    if version is None or not least:
        return False
    have, need = (
        [int(number) for number in re.findall(r"\d+", re.split(r"[^\d.]", text)[0])]
        for text in (version, least)
    )
    length = max(len(have), len(need))
    return have + [0] * (length - len(have)) < need + [0] * (length - len(need))
