"""What the tests of try-on trees share."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from curriculum_sampler.decode import SampleDecoder


@pytest.fixture
def tree(written: Path, tmp_path: Path) -> Path:
    """A copy of the module's tree, to take things away from."""
    return shutil.copytree(written, tmp_path / "tree")


def decoded(sample: dict[str, Any]) -> dict[str, Any]:
    """The sample as a scorer is given it."""
    decoder = SampleDecoder()
    return {
        name: decoder.member(name, value) if isinstance(value, bytes) else value
        for name, value in sample.items()
    }
