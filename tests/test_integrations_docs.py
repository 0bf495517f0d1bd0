"""The page on loaders and streams runs as it is read, against the real partners."""

from __future__ import annotations

import pytest

from .test_docs import ROOT, python_blocks, run, with_shards

PAGE = ROOT / "docs" / "integrations.md"

# What torchdata 0.11 calls is deprecated in torch.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


@pytest.mark.usefixtures("collected_here")
def test_the_page_on_integrations_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(python_blocks(PAGE)) == 9
    run(PAGE, with_shards())
