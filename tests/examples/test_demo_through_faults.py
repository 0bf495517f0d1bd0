"""The demo over a network that fails again and again: nobody would know."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from .demo_runs import TRAINERS, run, same, weights_of

pytestmark = pytest.mark.slow


@pytest.mark.timeout(2400)
def test_through_a_faulty_network_the_demo_ends_with_the_same_weights(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    counts, python = tmp_path / "faults.json", tmp_path / "python"
    stand_in = Path(__file__).with_name("faulty_store.py")
    python.write_text(
        "#!/bin/bash\n"
        f'case "${{1:-}}" in */demo/store.py) exec {sys.executable} {stand_in} 3 {counts} "${{@:2}}";; esac\n'
        f'exec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    run(tmp_path, str(python))
    met = json.loads(counts.read_text())
    assert min(met.get(kind, 0) for kind in ("status", "hangup", "reset", "cut", "flip")) > 0, met
    clean, _ = request.getfixturevalue("demo")  # only now: another process may run it meanwhile
    for trainer in TRAINERS:
        assert same(weights_of(clean, trainer), weights_of(tmp_path, trainer)), trainer
