"""Schedules that come with the package: files in ``presets/``, called by their names."""

from __future__ import annotations

from importlib.resources import files

_FOLDER = files("curriculum_sampler") / "presets"
_SUFFIX = ".toml"


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets, in name order."""
    found = (entry.name for entry in _FOLDER.iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in found if name.endswith(_SUFFIX)))


def preset_text(name: str) -> str:
    """Return the TOML text of a preset.

    >>> preset_text(preset_names()[0]).partition(" ")[0]
    '#'
    """
    return (_FOLDER / f"{name}{_SUFFIX}").read_text(encoding="utf-8")
