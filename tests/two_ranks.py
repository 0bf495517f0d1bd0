"""A script run by two processes that know each other, and what each of them found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Far beyond what any of the scripts takes: it only turns a hang into a failure.
GUARD_SECONDS = 150

# A thread of gloo may still be letting go of a collective's tensors, for which it needs the interpreter: one that is ending
# aborts the process. What the script found is written by then, so it leaves without that.
LEAVE = """
import os
sys.stdout.flush()
sys.stderr.flush()
os._exit(0)
"""


def on_two_ranks(script: str, folder: Path, shards: str | Path, *words: str) -> list[Any]:
    """Run a script by ``torchrun`` with ``shards``, ``folder`` and ``words``; each rank writes ``folder/RANK.json``."""
    path = folder / "ranks.py"
    path.write_text(script + LEAVE)
    launcher = subprocess.Popen(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"),
            *(str(path), str(shards), str(folder), *words),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = launcher.communicate(timeout=GUARD_SECONDS)
    except subprocess.TimeoutExpired:
        launcher.terminate()  # one that is killed leaves its ranks behind, waiting for each other
        said, _ = launcher.communicate()
        raise AssertionError(f"The ranks hung: {said[-3000:]}") from None
    assert launcher.returncode == 0, said[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
