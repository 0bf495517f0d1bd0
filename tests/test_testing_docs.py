"""The page on testing runs, and what it says of a failure is what comes."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curriculum_sampler.testing import check_resume

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()


@pytest.fixture(scope="module")
def world() -> Iterator[dict[str, Any]]:
    """What the page's code has defined at its end."""
    # A module, as a user's file would be: a storage is pickled by its name.
    module = types.ModuleType("page_on_testing")
    sys.modules[module.__name__] = module
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        exec(block, module.__dict__)
    yield module.__dict__
    del sys.modules[module.__name__]


def test_the_page_runs(world: dict[str, Any]) -> None:
    assert world["loader"].plan.total_steps == 12
    assert {"check_resume", "check_exact", "check_rank_free", "check_storage"} <= world.keys()


def test_a_mean_that_is_forgotten_fails_as_the_page_says(world: dict[str, Any]) -> None:
    class Forgetful(world["Training"]):  # type: ignore[misc, name-defined]
        def load_state_dict(self, state: Any) -> None:
            super().load_state_dict(state)
            self.mean = 0.0

    (shown,) = re.findall(r"^```text\nAssertionError: (.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    pattern = re.escape(shown.strip()).replace(re.escape("[...]"), r"\[.*\]").replace(r"\.\.\.", r"\d*")
    with pytest.raises(AssertionError) as caught:
        check_resume(Forgetful)
    assert re.fullmatch(pattern, str(caught.value)), f"{caught.value}\nis not\n{shown}"
